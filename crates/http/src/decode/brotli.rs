//! br (RFC 7932), without the large windows that the format's extension would allow.

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use portolan_core::Result;

use super::stage::{Coding, Step};
use super::{Open, broken};

pub(super) const CODINGS: &[(&str, Open)] = &[("br", || Ok(Box::new(Brotli::new())))];

struct Brotli {
    state: BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>,
    ended: bool,
}

impl Brotli {
    fn new() -> Self {
        let alloc = StandardAlloc::default;
        Self { state: BrotliState::new_strict(alloc(), alloc(), alloc()), ended: false }
    }
}

impl Coding for Brotli {
    fn run(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step> {
        if self.ended {
            return if input.is_empty() {
                Ok(Step { read: 0, written: 0 })
            } else {
                Err(broken("br body with other data at its end"))
            };
        }
        let (mut left, mut read, mut room, mut written, mut total) = (input.len(), 0, output.len(), 0, 0);
        let result = BrotliDecompressStream(
            &mut left,
            &mut read,
            input,
            &mut room,
            &mut written,
            output,
            &mut total,
            &mut self.state,
        );
        match result {
            BrotliResult::ResultFailure => return Err(broken("br body is broken")),
            BrotliResult::ResultSuccess => self.ended = true,
            BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
        }
        Ok(Step { read, written })
    }

    fn is_complete(&self) -> bool {
        self.ended
    }
}
