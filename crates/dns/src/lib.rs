//! Name service clients of portolan: one module and one feature for each protocol.
#![cfg_attr(docsrs, feature(doc_cfg))]

// begin: xtask sync
#[cfg(feature = "dns")]
pub mod dns;
#[cfg(feature = "doh")]
pub mod doh;
#[cfg(feature = "doq")]
pub mod doq;
#[cfg(feature = "dot")]
pub mod dot;
// end: xtask sync

#[cfg(all(test, feature = "dns"))]
portolan_wire::laws::install!();
