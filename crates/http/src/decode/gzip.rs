//! gzip (RFC 1952) with several members, and deflate with (RFC 1950) or without (RFC 1951) its wrapping.

use flate2::{Decompress, FlushDecompress, Status};
use portolan_core::Result;

use super::stage::{Coding, Step};
use super::{Open, broken};

pub(super) const CODINGS: &[(&str, Open)] = &[
    ("gzip", || Ok(Box::new(Gzip::new()))),
    ("x-gzip", || Ok(Box::new(Gzip::new()))),
    ("deflate", || Ok(Box::new(Deflate::Unknown))),
];

/// The largest window, which every stream fits in.
const WINDOW_BITS: u8 = 15;

struct Gzip {
    member: Decompress,
    /// Between members: the stream may end here, or zeros may fill it up (RFC 1952 allows what tar makes).
    between: bool,
    /// Zeros were seen, so no further member can follow.
    padding: bool,
}

impl Gzip {
    fn new() -> Self {
        Self { member: Decompress::new_gzip(WINDOW_BITS), between: false, padding: false }
    }
}

impl Coding for Gzip {
    fn run(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step> {
        if self.between {
            match input {
                [] => return Ok(Step { read: 0, written: 0 }),
                [0, ..] => {
                    self.padding = true;
                    return Ok(Step { read: input.iter().take_while(|byte| **byte == 0).count(), written: 0 });
                }
                [0x1f, ..] if !self.padding => *self = Self::new(),
                _ => return Err(broken("gzip body with other data at its end")),
            }
        }
        let (step, ended) = inflate(&mut self.member, input, output, "gzip body is broken")?;
        self.between = ended;
        Ok(step)
    }

    fn is_complete(&self) -> bool {
        self.between
    }
}

enum Deflate {
    Unknown,
    /// The first byte came alone.
    First(u8),
    Known(Decompress),
    Ended,
}

impl Coding for Deflate {
    fn run(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step> {
        let member = match (&mut *self, input) {
            (Self::Known(member), _) => member,
            (Self::Ended | Self::Unknown | Self::First(_), []) => return Ok(Step { read: 0, written: 0 }),
            (Self::Ended, _) => return Err(broken("deflate body with other data at its end")),
            (Self::Unknown, [first]) => {
                *self = Self::First(*first);
                return Ok(Step { read: 1, written: 0 });
            }
            (Self::Unknown, [first, second, ..]) => {
                *self = Self::Known(Decompress::new(is_zlib(*first, *second)));
                return self.run(input, output);
            }
            (Self::First(first), [second, ..]) => {
                let first = *first;
                let mut member = Decompress::new(is_zlib(first, *second));
                // One byte says nothing yet, so nothing comes out and it can't be the end.
                inflate(&mut member, &[first], output, "deflate body is broken")?;
                *self = Self::Known(member);
                return self.run(input, output);
            }
        };
        let (step, ended) = inflate(member, input, output, "deflate body is broken")?;
        if ended {
            *self = Self::Ended;
        }
        Ok(step)
    }

    fn is_complete(&self) -> bool {
        matches!(self, Self::Ended)
    }
}

/// RFC 1950 2.2. A raw stream that looks like this would begin with a stored block whose padding is not zero, which no
/// compressor writes.
fn is_zlib(first: u8, second: u8) -> bool {
    first & 0x0f == 8 && first >> 4 <= 7 && (u16::from(first) << 8 | u16::from(second)) % 31 == 0
}

fn inflate(member: &mut Decompress, input: &[u8], output: &mut [u8], what: &'static str) -> Result<(Step, bool)> {
    let before = (member.total_in(), member.total_out());
    let status =
        member.decompress(input, output, FlushDecompress::None).map_err(|error| broken(what).with_source(error))?;
    // Both differences are bounded by the lengths of the slices.
    let read = usize::try_from(member.total_in() - before.0).unwrap_or(input.len());
    let written = usize::try_from(member.total_out() - before.1).unwrap_or(output.len());
    Ok((Step { read, written }, status == Status::StreamEnd))
}
