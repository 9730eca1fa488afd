//! Name service clients of portolan: one module and one feature for each protocol.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "dns")]
pub mod dns;

#[cfg(all(test, feature = "dns"))]
portolan_wire::laws::install!();
