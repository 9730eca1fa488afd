//! A build without gzip and deflate.

use super::Coder;

pub(super) const GZIP: Option<Coder> = None;
pub(super) const DEFLATE: Option<Coder> = None;
