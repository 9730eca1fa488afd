//! What may enter the dynamic table: decided once, for HPACK and QPACK.

/// How a field is sent when no table holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Put into the dynamic table: it is likely to be sent again.
    Index,
    /// Sent as it is: it changes with each message and would only push out what is worth keeping.
    Literal,
    /// Sent as it is, and marked so that no proxy indexes it either (RFC 7541 7.1.3): its size must not betray it.
    Never,
}

/// A cookie shorter than this can be guessed one try at a time by watching sizes; a longer one has the entropy to stand it,
/// and gains most from the table. The bound is the one that nghttp2 and Firefox settled on.
const SHORT_COOKIE: usize = 20;

/// Decides by name, and for cookies by the value's length.
pub(crate) fn of(name: &[u8], value: &[u8]) -> Policy {
    match name {
        b"authorization"
        | b"proxy-authorization"
        | b"x-api-key"
        | b"x-auth-token"
        | b"x-amz-security-token"
        | b"x-csrf-token" => Policy::Never,
        b"cookie" if value.len() < SHORT_COOKIE => Policy::Never,
        b":path"
        | b"age"
        | b"content-length"
        | b"content-range"
        | b"date"
        | b"etag"
        | b"expires"
        | b"grpc-timeout"
        | b"if-match"
        | b"if-modified-since"
        | b"if-none-match"
        | b"if-range"
        | b"if-unmodified-since"
        | b"last-event-id"
        | b"last-modified"
        | b"location"
        | b"range"
        | b"set-cookie"
        | b"traceparent"
        | b"tracestate"
        | b"x-amz-date"
        | b"x-request-id" => Policy::Literal,
        _ => Policy::Index,
    }
}
