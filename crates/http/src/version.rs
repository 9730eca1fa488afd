//! Which version of HTTP a request is sent by.

/// Which version of HTTP a request is sent by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Version {
    /// HTTP/2 where TLS agrees on it, else HTTP/1.1; HTTP/3 where the server has said that it speaks it.
    #[default]
    Auto,
    /// HTTP/1.1 alone.
    Http1Only,
    /// HTTP/2 alone; in cleartext by prior knowledge.
    Http2Only,
    /// HTTP/3 alone.
    Http3Only,
    /// HTTP/3 first. Where the way fails, what [`Auto`](Self::Auto) would do without it.
    PreferHttp3,
    /// HTTP/2 first, in cleartext too. Where the way fails, or the server speaks none, HTTP/1.1.
    PreferHttp2,
}
