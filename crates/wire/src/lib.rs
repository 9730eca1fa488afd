//! The sans-IO kit: everything that protocols share below their own vocabulary.
//!
//! - [`Reader`] and [`Writer`]: cursors with checked integers, length-prefixed scopes and string forms.
//! - [`Codec`]: frames to bytes and back, with one [`DecodeError`]; [`whole`] for datagrams.
//! - [`mod@line`] and [`dot`]: text protocols, with strict rules for CR and LF.
//! - [`Exchange`]: strict request and response, driven by the caller's own task.
//! - [`Mux`]: many calls in flight over one stream, paired by order or by id.
//! - `sasl` (feature): mechanisms and their choice.
//! - `asn1`, `xdr` (features): cursors for two formats that many protocols share.
//! - `laws` (feature): one suite that every decoder must pass.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod alarm;
#[cfg(feature = "asn1")]
pub mod asn1;
mod codec;
pub mod dot;
mod error;
mod exchange;
#[cfg(feature = "laws")]
pub mod laws;
pub mod line;
mod mux;
mod read;
#[cfg(feature = "sasl")]
pub mod sasl;
mod write;
#[cfg(feature = "xdr")]
pub mod xdr;

pub use alarm::Alarm;
#[cfg(feature = "tokio-util")]
pub use codec::Framing;
pub use codec::{Codec, decode_datagram, whole};
pub use error::{DecodeError, Why, incomplete};
pub use exchange::Exchange;
pub use line::{Line, LineRule, Lines, Token};
pub use mux::{Correlate, Driver, Events, Mux, MuxOptions, Overflow, Route};
pub use read::Reader;
pub use write::Writer;

#[cfg(all(test, feature = "laws"))]
laws::install!();
