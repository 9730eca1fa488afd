//! Server-sent events (WHATWG HTML 9.2): a parser, and a source that comes back.
//!
//! - **Port and TLS**: whatever the HTTP client beneath uses; this crate opens no connection of its own.
//! - **What works**: the whole of the stream format, split anywhere (BOM, CR, LF and CRLF, comments, fields without a colon, ids
//!   with NUL ignored, `retry` of digits alone), events and lines within limits; reconnection with `Last-Event-ID`, a
//!   sticky `retry`, backoff with jitter and a floor, `Retry-After`, an end at 204, the checks of status and content type,
//!   what a refusal says ([`Rejected`]), an idle timeout; any HTTP version and any method, by the HTTP client or any [`Fetch`].
//! - **What is not done**: redirects (the HTTP client follows them), other encodings than UTF-8 (the format has none).
//! - **Tested against**: a table of the rules in the manner of the web platform tests, scripted fetches under paused time, the
//!   h2 crate's server over HTTP/2; sse-starlette over HTTP/1.1, 2 and 3, better-sse (docs/INTEROP.md).
//! - **Security**: a line and an event are bounded ([`Limits`]), and so are attempts: a server that always closes, or that says
//!   `retry: 0`, does not make a client spin.
//!
//! ```
//! use portolan_sse::Decoder;
//! use portolan_wire::Codec;
//!
//! let mut decoder = Decoder::default();
//! let mut bytes = bytes::BytesMut::from("id: 7\ndata: hello\ndata: world\n\n");
//! let event = decoder.decode(&mut bytes)?.unwrap();
//! assert_eq!((event.name.as_str(), event.data.as_str(), &*event.id), ("message", "hello\nworld", "7"));
//! # Ok::<(), portolan_wire::DecodeError>(())
//! ```

mod backoff;
mod client;
mod event;
mod fetch;
mod parser;
mod refusal;
mod source;

pub use client::ByClient;
pub use event::Event;
pub use fetch::{Fetch, headers};
pub use parser::{Decoder, Limits};
pub use refusal::Rejected;
pub use source::{EventSource, Options, State};

/// The protocol's name in errors.
pub(crate) const PROTOCOL: &str = "sse";

#[cfg(test)]
portolan_wire::laws::install!();
