//! Mail against its real servers.

mod smtp;
