//! The laws must bite: each bad decoder here breaks one of them, and is caught by that one.

use bytes::{Buf, Bytes};
use portolan_core::Result;

use super::*;
use crate::read::Reader;

/// A length of four bytes, then the body: done right, or wrong in one way.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Sin {
    None,
    Panics,
    TrustsLength,
    ReservesLength,
    SplitDependent,
    GivesForFree,
    InventsFromTruncation,
    EndlessAtEof,
}

struct Prefixed(Sin);

const MAX: usize = 1 << 30;

impl Codec for Prefixed {
    type Frame = Bytes;
    type Out = [u8];

    fn protocol(&self) -> &'static str {
        "test"
    }

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Bytes>, DecodeError> {
        let Some(head) = src.first_chunk::<4>() else {
            return Ok(None);
        };
        let len = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
        if len > MAX {
            return Err(DecodeError::too_long("body", 0));
        }
        match self.0 {
            Sin::Panics if len > 1000 => panic!("assumed short"),
            Sin::TrustsLength => drop(std::hint::black_box(Vec::<u8>::with_capacity(len))),
            Sin::ReservesLength => src.reserve(len),
            Sin::SplitDependent if src.len() < 4 + len && src.len() > 4 => {
                return Err(DecodeError::invalid("one read is one message", 4));
            }
            Sin::GivesForFree if len == 0 => return Ok(Some(Bytes::new())),
            Sin::InventsFromTruncation if src.len() < 4 + len && src.len() > 4 => {
                src.advance(4);
                return Ok(Some(src.split().freeze()));
            }
            _ => {}
        }
        if src.len() - 4 < len {
            return Ok(None);
        }
        src.advance(4);
        Ok(Some(src.split_to(len).freeze()))
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Bytes>, DecodeError> {
        if self.0 == Sin::EndlessAtEof {
            return Ok(Some(Bytes::new()));
        }
        match self.decode(src)? {
            None if !src.is_empty() => Err(DecodeError::truncated("frame", src.len())),
            done => Ok(done),
        }
    }

    fn encode(&mut self, item: &[u8], dst: &mut BytesMut) -> Result<()> {
        crate::Writer::new(dst).bytes_u32_be("body", item)
    }
}

const SEEDS: &[&[u8]] = &[b"\0\0\0\x03abc\0\0\0\0", b"\0\0\0\x01x\0\0\0\x02yz"];

fn caught(sin: Sin) -> Option<&'static str> {
    Laws::default().rounds(200).try_check(|| Prefixed(sin), SEEDS).err().map(|broken| broken.law)
}

#[test]
fn a_good_decoder_passes() {
    check(|| Prefixed(Sin::None), SEEDS);
    round_trip(|| Prefixed(Sin::None), &[b"".as_slice(), b"a", &[0; 999]], |out, frame| out == frame);
}

#[test]
fn a_decoder_that_panics_is_caught() {
    assert_eq!(caught(Sin::Panics), Some("never panics"));
}

#[test]
fn a_decoder_that_trusts_a_length_is_caught() {
    assert_eq!(caught(Sin::TrustsLength), Some("allocation is bounded"));
    assert_eq!(caught(Sin::ReservesLength), Some("allocation is bounded"));
}

#[test]
fn a_decoder_that_depends_on_the_split_is_caught() {
    assert_eq!(caught(Sin::SplitDependent), Some("same frames however split"));
    assert_eq!(caught(Sin::InventsFromTruncation), Some("same frames however split"));
}

#[test]
fn a_decoder_that_gives_frames_for_nothing_is_caught() {
    assert_eq!(caught(Sin::GivesForFree), Some("a frame costs bytes"));
    assert_eq!(caught(Sin::EndlessAtEof), Some("a frame costs bytes"));
}

#[test]
fn seeds_that_test_nothing_are_refused() {
    let broken = Laws::default().try_check(|| Prefixed(Sin::None), &[b"\0"]).unwrap_err();
    assert_eq!(broken.law, "a seed decodes");
}

#[test]
#[should_panic(expected = "came back as")]
fn an_encoder_that_its_decoder_does_not_understand_is_caught() {
    round_trip(
        || Prefixed(Sin::InventsFromTruncation),
        &[b"abc".as_slice()],
        |out, frame| out.len() + 1 == frame.len(),
    );
}

#[test]
fn datagram_decoders_are_held_to_the_same_laws() {
    fn good(bytes: &[u8]) -> Result<(u8, Vec<u16>), DecodeError> {
        crate::decode_datagram(bytes, |r| {
            let kind = r.u8("kind")?;
            let count = usize::from(r.u16_be("count")?);
            Ok((kind, r.list(count, 2, "items", |r| r.u16_be("item"))?))
        })
    }
    fn trusting(bytes: &[u8]) -> Result<Vec<u16>, DecodeError> {
        let mut r = Reader::new(bytes);
        r.u8("kind")?;
        let count = usize::from(r.u16_be("count")?);
        let mut items = std::hint::black_box(Vec::with_capacity(count));
        for _ in 0..count {
            items.push(r.u16_be("item")?);
        }
        Ok(items)
    }
    fn indexing(bytes: &[u8]) -> Result<u8, DecodeError> {
        Ok(bytes[usize::from(bytes[2])])
    }
    let seed: &[u8] = b"\x01\0\x02\0\x07\0\x08";
    let laws = Laws::default().slack(4096).truncation_fails(true);
    laws.check_datagram(good, &[seed]);
    assert_eq!(laws.try_check_datagram(trusting, &[seed]).unwrap_err().law, "allocation is bounded");
    assert_eq!(laws.try_check_datagram(indexing, &[seed]).unwrap_err().law, "never panics");
    let optional = |bytes: &[u8]| Ok(bytes.len());
    assert_eq!(laws.try_check_datagram(optional, &[seed]).unwrap_err().law, "truncation fails");
    Laws::default().check_datagram(optional, &[seed]);
}
