//! A cursor over the text of a field: core's.

pub(crate) use portolan_core::kit::auth::Cursor;
