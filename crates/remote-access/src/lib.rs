//! Remote access protocols on portolan's connector: one folder and one feature per protocol.

#![cfg_attr(docsrs, feature(doc_cfg))]

// begin: xtask sync
#[cfg(feature = "ssh")]
pub mod ssh;
// end: xtask sync

#[cfg(test)]
portolan_wire::laws::install!();
