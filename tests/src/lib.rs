//! Real-peer suites of portolan: one test binary for each family, started with `cargo test -p portolan-tests --test dns`.
//!
//! A suite that misses its server says which package to install and passes; with `PORTOLAN_REQUIRE_PEERS` set it fails.
