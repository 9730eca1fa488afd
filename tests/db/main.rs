//! Databases against their real servers.

mod redis;
