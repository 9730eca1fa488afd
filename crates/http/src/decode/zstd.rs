//! zstd (RFC 8878), with the window that RFC 9659 grants on the web.

use portolan_core::{Error, Kind, Result};
use zstd::stream::raw::{DParameter, Decoder, Operation};

use super::stage::{Coding, Step};
use super::{Open, answered, broken};

pub(super) const CODINGS: &[(&str, Open)] = &[("zstd", || Ok(Box::new(Zstd::new()?)))];

/// 8 MiB (RFC 9659 3).
const WINDOW_LOG_MAX: u32 = 23;

struct Zstd {
    decoder: Decoder<'static>,
    /// At the end of a frame; the next may follow.
    between: bool,
}

impl Zstd {
    fn new() -> Result<Self> {
        let lacking = |error| answered(Error::new(Kind::Unsupported, "zstd does not start")).with_source(error);
        let mut decoder = Decoder::new().map_err(lacking)?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).map_err(lacking)?;
        Ok(Self { decoder, between: true })
    }
}

impl Coding for Zstd {
    fn run(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step> {
        if self.between && input.is_empty() {
            return Ok(Step { read: 0, written: 0 });
        }
        let status = self
            .decoder
            .run_on_buffers(input, output)
            .map_err(|error| broken("zstd body is broken").with_source(error))?;
        self.between = status.remaining == 0;
        Ok(Step { read: status.bytes_read, written: status.bytes_written })
    }

    fn is_complete(&self) -> bool {
        self.between
    }
}
