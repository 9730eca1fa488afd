//! HPACK (RFC 7541) and [QPACK](qpack) (RFC 9204): header compression, once for HTTP/2 and HTTP/3.
//!
//! - **What works**: prefixed integers, Huffman both ways, the static and dynamic tables, a stateful [`Encoder`] (each entry
//!   found by its hash, table size updates said when the peer's limit moves, secrets never indexed) and a stateful [`Decoder`]
//!   that hands out [`http::HeaderName`] and [`http::HeaderValue`], ready for a map; the [heads of requests](request), which both
//!   versions write alike.
//! - **What is not done**: a QPACK encoder that risks blocked streams: ours only names what the peer is known to have.
//! - **Tested against**: the vectors of RFC 7541 appendix C and RFC 9204 appendix B, and, in `portolan-http2`, the h2 crate and nghttp2.
//! - **Security**: every length, count and integer from the wire is bounded before memory is taken; a hostile block gives a
//!   [`DecodeError`], never a panic. What would leak by its compressed size is sent as a never-indexed literal: see [`Encoder`].
//!
//! ```
//! use bytes::BytesMut;
//! use http::header::{HeaderValue, USER_AGENT};
//! use portolan_hpack::{Decoder, Encoder, Limits, Name, Pseudo};
//!
//! let (mut encoder, mut decoder) = (Encoder::new(4096), Decoder::new(Limits::default()));
//! let mut block = BytesMut::new();
//! encoder.start_block(&mut block);
//! encoder.pseudo(Pseudo::Method, b"GET", &mut block);
//! encoder.field(&USER_AGENT, &HeaderValue::from_static("portolan"), &mut block);
//! let mut seen = Vec::new();
//! decoder.decode(&block, &mut |field| seen.push(field))?;
//! assert_eq!(seen[0].name, Name::Pseudo(Pseudo::Method));
//! assert_eq!(seen[1].value, "portolan");
//! # Ok::<(), portolan_hpack::DecodeError>(())
//! ```

mod again;
mod decoder;
mod encoder;
mod error;
mod field;
pub mod huffman;
pub mod int;
mod literal;
mod policy;
pub mod qpack;
mod received;
pub mod request;
mod table;
mod tables;

pub use decoder::{Decoder, Limits, Summary};
pub use encoder::Encoder;
pub use error::{DecodeError, Why};
pub use field::{Field, Name, Pseudo};

/// What an entry counts beyond its bytes (RFC 7541 4.1, RFC 9204 3.2.1), and a field in a header list (RFC 9113 6.5.2).
pub const ENTRY_OVERHEAD: usize = 32;

/// The dynamic table size that both ends start with in HTTP/2 (RFC 7541 4.2, RFC 9113 6.5.2).
pub const DEFAULT_TABLE_SIZE: usize = 4096;
