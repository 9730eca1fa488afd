//! What hops of other crates are made with: the way to the proxy, one connection shared by many tunnels, a body pair as a
//! byte stream, the words of HTTP proxies.
//!
//! A crate that speaks a tunnelling protocol implements [`Dial`](crate::Dial) over a [`Way`] and hands it out by
//! [`Hop::custom`](crate::Hop::custom).

pub mod auth;
mod capsule;
mod duplex;
mod expect;
mod http;
mod kept;

pub use crate::hop::{Way, cannot_reach};
pub use capsule::{CapsuleDatagrams, capsule_size};
pub use duplex::{Duplex, PipeReader, PipeWriter, pipe};
pub use expect::{Held, Hold, hold};
pub use http::{MASQUE, QUOTE_WAIT, check_masque, masque_path, refusal};
pub use kept::{Kept, Shareable};
