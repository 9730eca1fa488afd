//! Written by `cargo xtask sync` from protocols.toml.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portolan_fuzz::grpc_log(data));
