//! What a user of portolan would run first: `cargo run --example dns -- @127.0.0.1:5353 example.org MX`.
