//! One fuzz target for each decoder, all made by one macro: the bytes go through the same laws as in the crates' own tests
//! (never a panic, the same frames however split, memory bounded by what arrived). The seeds in `seeds/TARGET/` are real
//! conversations, readable where the protocol is.
//!
//! `cargo +nightly fuzz run redis seeds/redis` looks for more; `cargo test --lib` runs every body on its seeds and their
//! mutations, on any toolchain.

use portolan_grpc::Frames;
use portolan_grpc::binlog::{Log, Replay};
use portolan_grpc::transcode::{PathTemplate, Values};
use portolan_websocket::Role;
use portolan_websocket::codec::{Decoder, Limits};
use portolan_wire::{DecodeError, LineRule, Lines, laws};

laws::install!();

/// Makes `pub fn NAME(data)` for each target, and the table of them all.
#[macro_export]
macro_rules! targets {
    ($($kind:ident $name:ident = $entry:path;)+) => {
        $(
            /// Fails with the law that these bytes break.
            pub fn $name(data: &[u8]) {
                $crate::$kind!(data, $entry);
            }
        )+

        /// Every target by name.
        pub const TARGETS: &[(&str, fn(&[u8]))] = &[$((stringify!($name), $name)),+];
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! codec {
    ($data:expr, $new:path) => {
        if let Err(broken) = portolan_wire::laws::Laws::default().try_input($new, $data) {
            panic!("{broken}");
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! datagram {
    ($data:expr, $decode:path) => {
        if let Err(broken) = portolan_wire::laws::Laws::default().try_datagram_input($decode, $data) {
            panic!("{broken}");
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! free {
    ($data:expr, $check:path) => {
        $check($data)
    };
}

mod compression;
mod hops;
mod http1;
mod http2;
mod http3;
mod notation;
mod tape;
mod targets;

pub use compression::{fuzzed_hpack, fuzzed_qpack};
pub use hops::fuzzed_hops;
pub use http1::fuzzed_http1;
pub use http2::fuzzed_http2;
pub use http3::fuzzed_http3;
pub use notation::{fuzzed_ber, fuzzed_xdr};
pub use targets::*;

/// Lines as most text protocols have them.
pub fn fuzzed_lines() -> Lines {
    Lines::new("fuzz", LineRule::Lenient, 512)
}

/// A client's side of WebSocket, without compression: what inflates has a bound of its own, tested in its crate.
pub fn fuzzed_websocket_decoder() -> Decoder {
    let mut limits = Limits::default();
    (limits.frame, limits.message) = (1 << 20, 1 << 20);
    Decoder::new(Role::Client, limits, None)
}

/// Messages of gRPC.
pub fn fuzzed_grpc_frames() -> Frames {
    Frames::new(1 << 20)
}

/// The messages of a stream as JSON.
pub fn fuzzed_grpc_values() -> Values {
    Values::new(1 << 16)
}

/// Recorded calls, which can be played whatever they are.
pub fn fuzzed_grpc_log(bytes: &[u8]) -> Result<Log, DecodeError> {
    let log = Log::decode(bytes)?;
    let replay = Replay::new(&log);
    assert!(replay.unused() <= log.entries().len());
    Ok(log)
}

/// Path templates, of which no value may lead elsewhere.
pub fn fuzzed_path_template(bytes: &[u8]) -> Result<PathTemplate, DecodeError> {
    let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::invalid("utf-8", 0))?;
    let template = PathTemplate::parse(text)?;
    let path = template.expand(|field| Some(format!("{field}/../{text}")));
    assert!(path.is_none_or(|path| !path.contains("/../")), "{text}");
    Ok(template)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Cuts, blown-up bytes and doubled halves of a seed: what a fuzzer tries first.
    fn mutations(seed: &[u8]) -> Vec<Vec<u8>> {
        let mut out = vec![seed.to_vec(), [seed, seed].concat()];
        for at in 0..seed.len().min(256) {
            out.push(seed[..at].to_vec());
            for byte in [0, b'9', b'\r', b'\n', 0x7f, 0x80, 0xff] {
                let mut changed = seed.to_vec();
                changed[at] = byte;
                out.push(changed);
            }
        }
        out
    }

    #[test]
    fn every_target_holds_on_its_seeds_and_their_mutations() {
        for (name, target) in TARGETS {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(name);
            let mut seeds = 0;
            for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
                let seed = std::fs::read(entry.unwrap().path()).unwrap();
                mutations(&seed).iter().for_each(|input| target(input));
                seeds += 1;
            }
            assert!(seeds > 0, "{name} has no seeds");
        }
    }

    #[test]
    fn noise_breaks_no_target() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for (_, target) in TARGETS {
            for len in 0..300_usize {
                let noise: Vec<u8> = (0..len)
                    .map(|_| {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        state.to_be_bytes()[0]
                    })
                    .collect();
                target(&noise);
            }
        }
    }
}
