//! One coding of a stack: its pending input, its room for output, its limits.

use std::fmt;

use bytes::{Buf, Bytes};
use portolan_core::{Error, Kind, Result};

use super::{DecodeOptions, answered, limit};

/// The most that comes out at once.
const MAX_PIECE: usize = 64 * 1024;
/// Most responses are small; the room grows when it was filled.
const FIRST_PIECE: usize = 8 * 1024;
/// Below this a high ratio harms nobody.
const RATIO_FLOOR: u64 = 8 * 1024 * 1024;

/// What one call of a [`Coding`] did.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) read: usize,
    pub(super) written: usize,
}

/// A decompressor without I/O.
pub(super) trait Coding: Send + Sync {
    /// Takes from `input` and gives to `output` as much as it can. With output left over it wants more input.
    fn run(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step>;

    /// Whether the input may end here.
    fn is_complete(&self) -> bool;
}

pub(super) struct Stage {
    name: &'static str,
    coding: Box<dyn Coding>,
    input: Bytes,
    output: Vec<u8>,
    /// The last call filled the output, so there may be more without new input.
    full: bool,
    total_in: u64,
    total_out: u64,
    max_ratio: Option<u32>,
    max_output: Option<u64>,
}

impl Stage {
    pub(super) fn new(name: &'static str, coding: Box<dyn Coding>, options: &DecodeOptions) -> Self {
        Self {
            name,
            coding,
            input: Bytes::new(),
            output: Vec::new(),
            full: false,
            total_in: 0,
            total_out: 0,
            max_ratio: options.max_ratio,
            max_output: options.max_output,
        }
    }

    pub(super) fn feed(&mut self, input: Bytes) {
        self.input = input;
    }

    /// Whether nothing was ever fed.
    pub(super) fn is_untouched(&self) -> bool {
        self.total_in == 0 && self.input.is_empty()
    }

    /// The next piece, or `None` when it wants input.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>> {
        while self.full || !self.input.is_empty() {
            let room = if self.full { self.output.len() * 4 } else { FIRST_PIECE };
            if self.output.len() < room {
                self.output.resize(room.min(MAX_PIECE), 0);
            }
            let step = self.coding.run(&self.input, &mut self.output)?;
            if step.read == 0 && step.written == 0 && !self.input.is_empty() {
                return Err(answered(Error::new(Kind::Protocol, format!("{} body makes no progress", self.name))));
            }
            self.full = step.written == self.output.len();
            self.input.advance(step.read.min(self.input.len()));
            self.total_in += step.read as u64;
            self.total_out += step.written as u64;
            self.check()?;
            if step.written > 0 {
                // A copy of the right size: the caller may keep it, and must not keep our room with it.
                return Ok(self.output.get(..step.written).map(Bytes::copy_from_slice));
            }
        }
        Ok(None)
    }

    /// The input has ended. An empty body is fine: servers label those too.
    pub(super) fn finish(&self) -> Result<()> {
        if self.is_untouched() || self.coding.is_complete() {
            return Ok(());
        }
        Err(answered(Error::new(Kind::Protocol, format!("{} body ends too early", self.name))))
    }

    fn check(&self) -> Result<()> {
        if let Some(max) = self.max_output.filter(|max| self.total_out > *max) {
            return Err(limit(format!("{} body grows over {max} bytes", self.name)));
        }
        let over =
            |ratio: &u32| self.total_out > RATIO_FLOOR && self.total_out / u64::from(*ratio).max(1) > self.total_in;
        if let Some(ratio) = self.max_ratio.filter(over) {
            return Err(limit(format!("{} body grows more than {ratio} times", self.name)));
        }
        Ok(())
    }
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage")
            .field("name", &self.name)
            .field("total_in", &self.total_in)
            .field("total_out", &self.total_out)
            .finish_non_exhaustive()
    }
}
