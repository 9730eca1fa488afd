//! A build without zstd.

use super::Coder;

pub(super) const ZSTD: Option<Coder> = None;
