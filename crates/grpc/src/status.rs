//! How a call ended: a code, words, and what else the server sent.

use std::error::Error as StdError;
use std::fmt;

use bytes::Bytes;
use http::StatusCode;
use http::header::{HeaderMap, HeaderValue};
use portolan_core::{Delivery, Error, Kind, Phase};

use crate::PROTOCOL;
use crate::metadata::{Metadata, decode_base64};

macro_rules! codes {
    ($($name:ident $value:literal $text:literal $doc:literal,)*) => {
        /// The code of a [`Status`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Code {
            $(#[doc = $doc] $name = $value,)*
        }

        impl Code {
            /// From its number; one that the specification doesn't know is [`Code::Unknown`].
            pub fn from_number(number: i64) -> Self {
                match number {
                    $($value => Self::$name,)*
                    _ => Self::Unknown,
                }
            }

            /// Its name in the specification, such as `NOT_FOUND`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// From its name in the specification, in either case.
            pub fn from_name(name: &str) -> Option<Self> {
                [$(Self::$name),*].into_iter().find(|code| code.name().eq_ignore_ascii_case(name))
            }
        }
    };
}

codes! {
    Ok 0 "OK" "The call succeeded.",
    Cancelled 1 "CANCELLED" "Given up, usually by the caller.",
    Unknown 2 "UNKNOWN" "An error that nothing more is known of.",
    InvalidArgument 3 "INVALID_ARGUMENT" "The caller's mistake, whatever the state of the system.",
    DeadlineExceeded 4 "DEADLINE_EXCEEDED" "The deadline passed; the work may have been done nevertheless.",
    NotFound 5 "NOT_FOUND" "What was asked for is not there.",
    AlreadyExists 6 "ALREADY_EXISTS" "What was to be made is there already.",
    PermissionDenied 7 "PERMISSION_DENIED" "The caller may not do this.",
    ResourceExhausted 8 "RESOURCE_EXHAUSTED" "A quota, a size or a disk is used up.",
    FailedPrecondition 9 "FAILED_PRECONDITION" "The system is not in the state that this needs.",
    Aborted 10 "ABORTED" "Given up, usually over a conflict between calls.",
    OutOfRange 11 "OUT_OF_RANGE" "Beyond the valid range.",
    Unimplemented 12 "UNIMPLEMENTED" "The method is not there, or not enabled.",
    Internal 13 "INTERNAL" "Something is broken, on either side.",
    Unavailable 14 "UNAVAILABLE" "The service can't be had just now: try again.",
    DataLoss 15 "DATA_LOSS" "Data are lost for good.",
    Unauthenticated 16 "UNAUTHENTICATED" "The caller showed no valid credentials.",
}

impl Code {
    /// Its number.
    pub fn number(self) -> i64 {
        i64::from(self as u8)
    }

    /// What an HTTP status means when the answer is not gRPC.
    pub(crate) fn from_http(status: StatusCode) -> Self {
        match status.as_u16() {
            400 => Self::Internal,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 => Self::Unimplemented,
            429 | 502 | 503 | 504 => Self::Unavailable,
            _ => Self::Unknown,
        }
    }

    /// What a reset stream means ("Errors" of gRPC over HTTP/2, gRFC G2 for HTTP/3).
    fn from_reset(code: i64) -> Self {
        match code {
            0x7 | 0x10b => Self::Unavailable,
            0x8 | 0x10c => Self::Cancelled,
            0xb | 0x107 => Self::ResourceExhausted,
            0xc => Self::PermissionDenied,
            0xd => Self::Unknown,
            _ => Self::Internal,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a call ended. An error of this crate carries one: see [`Status::of`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    code: Code,
    message: Box<str>,
    details: Bytes,
    metadata: Metadata,
}

impl Status {
    /// A code and words.
    pub fn new(code: Code, message: impl Into<Box<str>>) -> Self {
        Self { code, message: message.into(), details: Bytes::new(), metadata: Metadata::new() }
    }

    /// The status of a failed call: the server's own, or what the specification makes of a failure on the way.
    pub fn of(error: &Error) -> Self {
        match error.server::<Self>() {
            Some(status) => status.clone(),
            None => Self::new(code_of(error), error.to_string()),
        }
    }

    /// With bytes for [`details_bytes`](Self::details_bytes).
    #[must_use]
    pub fn with_details_bytes(mut self, details: impl Into<Bytes>) -> Self {
        self.details = details.into();
        self
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The server's words.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The bytes of `grpc-status-details-bin`: a `google.rpc.Status`. Empty where there are none.
    pub fn details_bytes(&self) -> &Bytes {
        &self.details
    }

    /// The trailing metadata that came with it.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// What the fields at the end of a response say; `None` without a `grpc-status`.
    pub(crate) fn from_trailers(map: &HeaderMap) -> Option<Self> {
        let code = map.get("grpc-status")?;
        if code.as_bytes() == b"0" {
            return Some(Self::new(Code::Ok, ""));
        }
        let number = code.to_str().ok().and_then(|text| text.parse().ok()).filter(|number| *number >= 0);
        let message = map.get("grpc-message").map(decode_message).unwrap_or_default();
        let mut status = Self::new(number.map_or(Code::Unknown, Code::from_number), message);
        if let Some(details) = map.get("grpc-status-details-bin") {
            // Details that can't be read are no reason to lose the status.
            status.details = decode_base64(details.as_bytes()).unwrap_or_default();
        }
        Some(status)
    }

    #[must_use]
    pub(crate) fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// The error of a call that failed here or on the way, not by the server's word.
    pub(crate) fn local(kind: Kind, code: Code, message: impl Into<Box<str>>) -> Error {
        let message = message.into();
        Error::new(kind, message.clone())
            .with_protocol(PROTOCOL)
            .with_code(code.number())
            .with_reply(Self::new(code, message))
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code.name())?;
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        Ok(())
    }
}

impl StdError for Status {}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let code = status.code.number();
        Self::from_server(PROTOCOL, status.to_string(), status).with_code(code)
    }
}

/// What the specification makes of a failure on the way.
pub(crate) fn code_of(error: &Error) -> Code {
    match error.kind() {
        Kind::Server => match (error.protocol_name(), error.code()) {
            (Some("http2" | "http3"), Some(code)) => Code::from_reset(code),
            _ => Code::Unavailable,
        },
        // HTTP/3 says of a stream and of a connection alike that it is closed, with the same codes; a lost connection has a cause.
        Kind::Closed if error.protocol_name() == Some("http3") => match (error.code(), error.source()) {
            (Some(code), None) => Code::from_reset(code),
            _ => Code::Unavailable,
        },
        // What never left was held up on the way, not by the server.
        Kind::Timeout if error.delivery() == Delivery::NotSent => Code::Unavailable,
        Kind::Timeout if matches!(error.phase(), Some(Phase::Total | Phase::FirstByte)) => Code::DeadlineExceeded,
        Kind::Protocol => Code::Internal,
        Kind::Auth => Code::Unauthenticated,
        // More than the server says it takes stays too much, however often it is tried.
        Kind::Limit if error.delivery() != Delivery::NotSent || error.phase() == Some(Phase::Send) => {
            Code::ResourceExhausted
        }
        Kind::Blocked => Code::PermissionDenied,
        Kind::Unsupported => Code::Unimplemented,
        Kind::Usage => Code::Internal,
        _ => Code::Unavailable,
    }
}

/// Gives every error of a call its status.
pub(crate) fn with_status(error: Error) -> Error {
    if error.server::<Status>().is_some() {
        return error;
    }
    let status = Status::of(&error);
    error.with_reply(status)
}

/// As `grpc-message` wants it.
#[cfg(feature = "prost")]
pub(crate) fn encode_message(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    portolan_core::percent_encode_into(text.bytes(), |byte| (b' '..=b'~').contains(&byte) && byte != b'%', &mut out);
    out
}

/// `grpc-message` is percent-encoded UTF-8; what is not is kept as it is.
fn decode_message(value: &HeaderValue) -> String {
    let bytes = value.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, tail)) = rest.split_first() {
        let escape = if byte == b'%' { tail.get(..2).and_then(hex) } else { None };
        match escape {
            Some(decoded) => {
                out.push(decoded);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn hex(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u8::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &'static str) -> String {
        decode_message(&HeaderValue::from_static(text))
    }

    #[test]
    fn messages_are_decoded_and_bad_escapes_are_kept() {
        assert_eq!(message("plain"), "plain");
        assert_eq!(message("%09%0Atab%20%E2%98%BA"), "\t\ntab \u{263a}");
        assert_eq!(message("100% %zz %4"), "100% %zz %4");
        assert_eq!(message("%+1"), "%+1");
        assert_eq!(message("%ff"), "\u{fffd}");
    }

    #[test]
    fn codes_that_nobody_knows_are_unknown() {
        for (text, code) in
            [("0", Code::Ok), ("5", Code::NotFound), ("17", Code::Unknown), ("x", Code::Unknown), ("-1", Code::Unknown)]
        {
            let map =
                HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), HeaderValue::from_static(text))]);
            assert_eq!(Status::from_trailers(&map).unwrap().code(), code, "{text}");
        }
        assert_eq!(Status::from_trailers(&HeaderMap::new()), None);
        assert_eq!(Code::from_name("not_found"), Some(Code::NotFound));
    }

    #[test]
    fn a_status_becomes_the_servers_error_and_is_read_back() {
        let error: Error = Status::new(Code::NotFound, "no such user").into();
        assert_eq!((error.kind(), error.delivery(), error.code()), (Kind::Server, Delivery::Answered, Some(5)));
        assert_eq!(Status::of(&error).code(), Code::NotFound);
        assert_eq!(error.to_string(), "grpc: server said no: NOT_FOUND: no such user (code 5)");
    }

    #[test]
    fn failures_on_the_way_have_the_code_of_the_specification() {
        let reset = |code| Error::new(Kind::Server, "reset").with_protocol("http2").with_code(code);
        for (code, seen) in [
            (0, Code::Internal),
            (7, Code::Unavailable),
            (8, Code::Cancelled),
            (11, Code::ResourceExhausted),
            (12, Code::PermissionDenied),
        ] {
            assert_eq!(Status::of(&reset(code)).code(), seen, "{code}");
        }
        let reset = |code| Error::closed("reset").with_protocol("http3").with_code(code);
        for (code, seen) in [
            (0x100, Code::Internal),
            (0x102, Code::Internal),
            (0x107, Code::ResourceExhausted),
            (0x10b, Code::Unavailable),
            (0x10c, Code::Cancelled),
            (0x110, Code::Internal),
            (0x1234, Code::Internal),
        ] {
            assert_eq!(Status::of(&reset(code)).code(), seen, "{code:#x}");
            let lost = reset(code).with_source(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
            assert_eq!(Status::of(&lost).code(), Code::Unavailable, "{code:#x}");
        }
        assert_eq!(Status::of(&Error::closed("gone")).code(), Code::Unavailable);
        let unsent = |phase| Error::new(Kind::Limit, "full").with_delivery(Delivery::NotSent).with_phase(phase);
        assert_eq!(Status::of(&unsent(Phase::Pool)).code(), Code::Unavailable);
        assert_eq!(Status::of(&unsent(Phase::Send)).code(), Code::ResourceExhausted);
        assert_eq!(Code::from_http(StatusCode::NOT_FOUND), Code::Unimplemented);
        assert_eq!(Code::from_http(StatusCode::OK), Code::Unknown);
    }
}
