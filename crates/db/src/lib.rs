//! Database protocols on portolan's connector: one folder and one feature per protocol.

#![cfg_attr(docsrs, feature(doc_cfg))]

// begin: xtask sync
#[cfg(feature = "redis")]
pub mod redis;
// end: xtask sync

#[cfg(test)]
portolan_wire::laws::install!();
