//! Alternative services (RFC 7838): where else an origin can be had, HTTP/3 above all.
//!
//! - **What works**: the field `Alt-Svc` and the same text in an ALTSVC frame; `ma`, `persist`, `clear`; a bounded memory by origin
//!   that forgets in time, on request and on a change of the network; alternatives that failed are passed over for a time
//!   that doubles with each failure; a text form to keep.
//! - **What is not done**: `Alt-Used` is the client's to send.
//! - **Security**: only what came from an `https` origin counts, and whoever uses an alternative must hold its certificate to the
//!   origin's name. The address is judged by the connector's policy like any other.

mod cache;
mod parse;
#[cfg(test)]
mod tests;

pub use cache::AltSvcCache;
pub use parse::{AltService, AltSvc};
