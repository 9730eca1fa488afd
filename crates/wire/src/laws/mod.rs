//! The laws: one suite that every decoder must pass.
//!
//! 1. It never panics, whatever the bytes.
//! 2. It gives the same frames, and fails or not, however the bytes are split.
//! 3. It allocates no more than the bytes that have arrived justify: a length on the wire buys no memory.
//! 4. A frame costs bytes: it never gives one without consuming.
//! 5. What a prefix gives is a prefix of what the whole gives: truncation never invents a frame (this is law 2, seen from
//!    the cut).
//! 6. What it encodes, it decodes ([`round_trip`]).
//!
//! The inputs are the seeds, every truncation of them, lengths and digits blown up at every offset, seeded mutations and
//! random bytes. Memory is counted by [`CountingAlloc`], which the crate's tests install once; a suite that runs without it
//! fails rather than pass law 3 unseen.
//!
//! ```ignore
//! // In lib.rs:
//! #[cfg(test)]
//! portolan_wire::laws::install!();
//!
//! // In the codec's tests:
//! laws::check(|| Resp::default(), &[b"+OK\r\n", b"*1\r\n$1\r\na\r\n"]);
//! laws::check_datagram(Packet::decode, &[include_bytes!("captured.bin")]);
//! ```

mod alloc;
mod inputs;

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::BytesMut;

pub use alloc::CountingAlloc;
use alloc::Watch;
use inputs::{Inputs, Random, chunks};

use crate::codec::Codec;
use crate::error::DecodeError;

/// Installs [`CountingAlloc`] as the allocator of a test binary.
#[macro_export]
#[doc(hidden)]
macro_rules! __install_counting_alloc {
    () => {
        #[global_allocator]
        static PORTOLAN_COUNTING_ALLOC: $crate::laws::CountingAlloc = $crate::laws::CountingAlloc::new();
    };
}
#[doc(inline)]
pub use crate::__install_counting_alloc as install;

/// Memory that any decode may take: a first read buffer, a table.
const DEFAULT_SLACK: usize = 64 * 1024;
/// Memory per byte that has arrived: a one-byte element may become an enum of some 60 bytes in a `Vec` that doubles.
const DEFAULT_FACTOR: usize = 160;
/// Mutations of each seed.
const DEFAULT_ROUNDS: usize = 600;
/// The longest input that is split at every place; longer ones at this many.
const SPLITS: usize = 512;

/// A law that was broken, and by which input.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Violation {
    /// The law.
    pub law: &'static str,
    /// What happened.
    pub detail: String,
    /// The input that did it.
    pub input: Vec<u8>,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "law broken: {}: {}; input: b\"{}\"", self.law, self.detail, self.input.escape_ascii())
    }
}

/// How hard to look, where the defaults do not fit.
#[derive(Debug, Clone)]
pub struct Laws {
    rounds: usize,
    slack: usize,
    factor: usize,
    seed: u64,
    truncation_fails: bool,
}

impl Default for Laws {
    fn default() -> Self {
        Self {
            rounds: DEFAULT_ROUNDS,
            slack: DEFAULT_SLACK,
            factor: DEFAULT_FACTOR,
            seed: 0x706f_7274_6f6c_616e,
            truncation_fails: false,
        }
    }
}

/// Checks a codec with the default settings; panics with the law and the input on the first violation.
pub fn check<C: Codec>(new: impl Fn() -> C, seeds: &[&[u8]])
where
    C::Frame: Debug,
{
    Laws::default().check(new, seeds);
}

/// Checks a datagram decoder with the default settings; panics with the law and the input on the first violation.
pub fn check_datagram<T: Debug>(decode: impl Fn(&[u8]) -> Result<T, DecodeError>, seeds: &[&[u8]]) {
    Laws::default().check_datagram(decode, seeds);
}

/// Checks that what a codec encodes it decodes, one by one and all in a row; panics on the first that differs.
pub fn round_trip<C: Codec>(new: impl Fn() -> C, items: &[&C::Out], same: impl Fn(&C::Out, &C::Frame) -> bool)
where
    C::Frame: Debug,
{
    let mut row = BytesMut::new();
    let mut row_codec = new();
    for (index, item) in items.iter().enumerate() {
        let mut codec = new();
        let mut bytes = BytesMut::new();
        let encoded = codec.encode(item, &mut bytes);
        assert!(encoded.is_ok(), "item {index} does not encode: {encoded:?}");
        let decoded = codec.decode(&mut bytes);
        assert!(
            matches!(&decoded, Ok(Some(frame)) if same(item, frame)) && bytes.is_empty(),
            "item {index} came back as {decoded:?} with {} bytes left",
            bytes.len()
        );
        assert!(row_codec.encode(item, &mut row).is_ok(), "item {index} does not encode in a row");
    }
    for (index, item) in items.iter().enumerate() {
        let decoded = row_codec.decode(&mut row);
        assert!(matches!(&decoded, Ok(Some(frame)) if same(item, frame)), "item {index} in a row: {decoded:?}");
    }
    assert!(row.is_empty(), "{} bytes left of the row", row.len());
}

impl Laws {
    /// Mutations of each seed. Default 600.
    #[must_use]
    pub fn rounds(mut self, rounds: usize) -> Self {
        self.rounds = rounds;
        self
    }

    /// Bytes of memory that any decode may take. Default 64 KiB.
    #[must_use]
    pub fn slack(mut self, bytes: usize) -> Self {
        self.slack = bytes;
        self
    }

    /// Bytes of memory for each byte that has arrived. Default 160. A decompressor needs more, and says why.
    #[must_use]
    pub fn factor(mut self, factor: usize) -> Self {
        self.factor = factor;
        self
    }

    /// The seed of the mutations.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Demands that every truncation of a datagram seed fails: for formats without optional tails.
    #[must_use]
    pub fn truncation_fails(mut self, on: bool) -> Self {
        self.truncation_fails = on;
        self
    }

    /// Checks a codec; panics with the law and the input on the first violation.
    pub fn check<C: Codec>(&self, new: impl Fn() -> C, seeds: &[&[u8]])
    where
        C::Frame: Debug,
    {
        let result = self.try_check(new, seeds);
        assert!(result.is_ok(), "{}", result.err().map(|broken| broken.to_string()).unwrap_or_default());
    }

    /// Checks a datagram decoder; panics with the law and the input on the first violation.
    pub fn check_datagram<T: Debug>(&self, decode: impl Fn(&[u8]) -> Result<T, DecodeError>, seeds: &[&[u8]]) {
        let result = self.try_check_datagram(decode, seeds);
        assert!(result.is_ok(), "{}", result.err().map(|broken| broken.to_string()).unwrap_or_default());
    }

    /// [`check`](Self::check), giving the violation back.
    pub fn try_check<C: Codec>(&self, new: impl Fn() -> C, seeds: &[&[u8]]) -> Result<(), Violation>
    where
        C::Frame: Debug,
    {
        alloc::demand_installed()?;
        let mut random = Random::new(self.seed);
        let mut decoded = false;
        for seed in seeds {
            decoded |= self.splits(&new, seed)?;
        }
        if !decoded && !seeds.is_empty() {
            return Err(broken("a seed decodes", "no seed gave a frame: the suite would test nothing", &[]));
        }
        for input in Inputs::new(seeds, self.rounds, self.seed) {
            self.one(&new, &input, &mut random)?;
        }
        Ok(())
    }

    /// Checks a codec with one input: the body of a fuzz target.
    pub fn try_input<C: Codec>(&self, new: impl Fn() -> C, input: &[u8]) -> Result<(), Violation>
    where
        C::Frame: Debug,
    {
        alloc::demand_installed()?;
        self.one(&new, input, &mut Random::new(self.seed))
    }

    /// [`check_datagram`](Self::check_datagram), giving the violation back.
    pub fn try_check_datagram<T: Debug>(
        &self,
        decode: impl Fn(&[u8]) -> Result<T, DecodeError>,
        seeds: &[&[u8]],
    ) -> Result<(), Violation> {
        alloc::demand_installed()?;
        for seed in seeds {
            let (result, _) = self.watched(seed, seed.len(), || decode(seed))?;
            if let Err(error) = result {
                return Err(broken("a seed decodes", &error.to_string(), seed));
            }
            for cut in (0..seed.len()).filter_map(|at| seed.get(..at)) {
                let (result, _) = self.watched(cut, cut.len(), || decode(cut))?;
                if self.truncation_fails
                    && let Ok(value) = result
                {
                    return Err(broken("truncation fails", &format!("{value:?}"), cut));
                }
            }
        }
        for input in Inputs::new(seeds, self.rounds, self.seed) {
            self.try_datagram_input(&decode, &input)?;
        }
        Ok(())
    }

    /// Checks a datagram decoder with one input: the body of a fuzz target.
    pub fn try_datagram_input<T: Debug>(
        &self,
        decode: impl Fn(&[u8]) -> Result<T, DecodeError>,
        input: &[u8],
    ) -> Result<(), Violation> {
        alloc::demand_installed()?;
        let (first, _) = self.watched(input, input.len(), || decode(input).map(|value| format!("{value:?}")))?;
        let (again, _) = self.watched(input, input.len(), || decode(input).map(|value| format!("{value:?}")))?;
        if first != again {
            return Err(broken("same bytes, same answer", &format!("{first:?} then {again:?}"), input));
        }
        Ok(())
    }

    /// The same frames from the whole, from single bytes, and from chunks.
    fn one<C: Codec>(&self, new: &impl Fn() -> C, input: &[u8], random: &mut Random) -> Result<(), Violation>
    where
        C::Frame: Debug,
    {
        let whole = self.feed(new, &[input])?;
        self.agree(new, input, &whole, &input.chunks(1).collect::<Vec<_>>())?;
        self.agree(new, input, &whole, &chunks(input, random))
    }

    /// Splits a seed in two everywhere, and into single bytes; whether it gave a frame at all.
    fn splits<C: Codec>(&self, new: &impl Fn() -> C, seed: &[u8]) -> Result<bool, Violation>
    where
        C::Frame: Debug,
    {
        let whole = self.feed(new, &[seed])?;
        self.agree(new, seed, &whole, &seed.chunks(1).collect::<Vec<_>>())?;
        let step = seed.len().div_ceil(SPLITS).max(1);
        for (head, tail) in (0..=seed.len()).step_by(step).filter_map(|at| seed.split_at_checked(at)) {
            self.agree(new, seed, &whole, &[head, tail])?;
            // The truncation itself, followed by the peer's close: any answer but a panic or a spin.
            self.feed(new, &[head])?;
        }
        Ok(!whole.frames.is_empty())
    }

    fn agree<C: Codec>(
        &self,
        new: &impl Fn() -> C,
        input: &[u8],
        whole: &Outcome,
        parts: &[&[u8]],
    ) -> Result<(), Violation>
    where
        C::Frame: Debug,
    {
        let split = self.feed(new, parts)?;
        if split.frames == whole.frames && split.failed() == whole.failed() {
            return Ok(());
        }
        let lens: Vec<usize> = parts.iter().map(|part| part.len()).collect();
        let detail = format!("whole {whole:?}, split as {lens:?} {split:?}");
        Err(broken("same frames however split", &detail, input))
    }

    fn feed<C: Codec>(&self, new: &impl Fn() -> C, parts: &[&[u8]]) -> Result<Outcome, Violation>
    where
        C::Frame: Debug,
    {
        let input = parts.concat();
        let mut codec = new();
        let mut src = BytesMut::new();
        let mut outcome = Outcome::default();
        let mut arrived = 0_usize;
        for part in parts {
            src.extend_from_slice(part);
            arrived = arrived.saturating_add(part.len());
            loop {
                let before = src.len();
                let (result, _) = self.watched(&input, arrived, || codec.decode(&mut src))?;
                match result {
                    Ok(Some(frame)) if src.len() < before => outcome.frames.push(format!("{frame:?}")),
                    Ok(Some(frame)) => {
                        return Err(broken("a frame costs bytes", &format!("{frame:?} for none"), &input));
                    }
                    Ok(None) => break,
                    Err(error) => {
                        outcome.error = Some(error);
                        return Ok(outcome);
                    }
                }
            }
        }
        self.close(&mut codec, &mut src, &mut outcome, &input)?;
        Ok(outcome)
    }

    /// The peer's close. A body ended by it may give one frame for no bytes, and no more.
    fn close<C: Codec>(
        &self,
        codec: &mut C,
        src: &mut BytesMut,
        outcome: &mut Outcome,
        input: &[u8],
    ) -> Result<(), Violation>
    where
        C::Frame: Debug,
    {
        let mut free = 1_usize;
        loop {
            let before = src.len();
            let (result, _) = self.watched(input, input.len(), || codec.decode_eof(src))?;
            match result {
                Ok(Some(frame)) => {
                    if src.len() >= before {
                        free = free.checked_sub(1).ok_or_else(|| {
                            broken("a frame costs bytes", "decode_eof gives frames without end", input)
                        })?;
                    }
                    outcome.frames.push(format!("{frame:?}"));
                }
                Ok(None) => return Ok(()),
                Err(error) => {
                    outcome.error = Some(error);
                    return Ok(());
                }
            }
        }
    }

    /// Runs one decode with its panics caught and its memory counted.
    fn watched<T>(&self, input: &[u8], arrived: usize, decode: impl FnOnce() -> T) -> Result<(T, usize), Violation> {
        let watch = Watch::start();
        let result = catch_unwind(AssertUnwindSafe(decode));
        let peak = watch.peak();
        let value = result.map_err(|cause| {
            let text = cause.downcast_ref::<String>().cloned();
            let text = text.or_else(|| cause.downcast_ref::<&str>().map(|text| (*text).to_string()));
            broken("never panics", &text.unwrap_or_default(), input)
        })?;
        let bound = arrived.saturating_mul(self.factor).saturating_add(self.slack);
        if peak > bound {
            let detail = format!("{peak} bytes of memory after {arrived} had arrived; the bound is {bound}");
            return Err(broken("allocation is bounded", &detail, input));
        }
        Ok((value, peak))
    }
}

#[derive(Debug, Default)]
struct Outcome {
    frames: Vec<String>,
    error: Option<DecodeError>,
}

impl Outcome {
    fn failed(&self) -> bool {
        self.error.is_some()
    }
}

fn broken(law: &'static str, detail: &str, input: &[u8]) -> Violation {
    Violation { law, detail: detail.chars().take(2_000).collect(), input: input.to_vec() }
}

#[cfg(test)]
mod tests;
