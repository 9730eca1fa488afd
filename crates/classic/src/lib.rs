//! The small protocols that every host once spoke: one file and one feature for each.
//!
//! All are alike: `Options` say whom to reach and how much to take, `Client::connect` goes through a
//! [`Connector`](portolan_core::Connector), `Client::from_stream` through any stream. Where there is a UDP form, a client
//! connected with [`Transport::Udp`] speaks that. None of them has TLS, and what they send is worth what the network is worth.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod conn;
mod text;

// begin: xtask sync
#[cfg(feature = "activeusers")]
pub mod activeusers;
#[cfg(feature = "chargen")]
pub mod chargen;
#[cfg(feature = "daytime")]
pub mod daytime;
#[cfg(feature = "discard")]
pub mod discard;
#[cfg(feature = "echo")]
pub mod echo;
#[cfg(feature = "finger")]
pub mod finger;
#[cfg(feature = "qotd")]
pub mod qotd;
#[cfg(feature = "time")]
pub mod time;
#[cfg(feature = "whois")]
pub mod whois;
// end: xtask sync

#[cfg(test)]
mod testing;

#[cfg(test)]
portolan_wire::laws::install!();

pub use conn::Transport;
pub use text::Text;
