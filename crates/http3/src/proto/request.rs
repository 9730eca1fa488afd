//! A request's head on its way out.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use bytes::{Bytes, BytesMut};
use http::header::HeaderMap;
use http::request::Parts;
use portolan_core::{Error, Result};
use portolan_hpack::qpack::Encoder;
use portolan_hpack::request::{self, Line, RequestHead, Unsendable};

use super::failure::PROTOCOL;
use super::frame;
use crate::ext::Protocol;

/// What most sections fit in.
const USUAL_SECTION: usize = 256;
/// A frame's head of one byte and an integer of two.
const SHORT_HEAD: usize = 3;
/// [`frame::HEADERS`], as that byte.
const HEADERS: u8 = 0x1;

/// Checks a request. `body_len` is what its body says of its length.
pub(crate) fn head(parts: &Parts, body_len: Option<u64>) -> Result<RequestHead<'_>> {
    let protocol = parts.extensions.get::<Protocol>().map(Protocol::as_str);
    RequestHead::new(parts, protocol, body_len).map_err(usage)
}

/// Checks trailers.
pub(crate) fn check_trailers(trailers: &HeaderMap) -> Result<()> {
    request::check_fields(trailers).map_err(usage)
}

fn usage(why: Unsendable) -> Error {
    Error::usage(why.message()).with_protocol(PROTOCOL)
}

/// Encodes a head as a HEADERS frame.
pub(crate) fn encode(
    head: &RequestHead<'_>,
    encoder: &mut Encoder,
    stream: u64,
    encoder_stream: &mut BytesMut,
) -> Bytes {
    encoder.start_section();
    head.each(|line| match line {
        Line::Pseudo(name, value) => encoder.pseudo(name, value, encoder_stream),
        Line::Field(name, value) => encoder.field(name, value, encoder_stream),
    });
    framed(encoder, stream)
}

/// Trailers as a HEADERS frame.
pub(crate) fn encode_trailers(
    trailers: &HeaderMap,
    encoder: &mut Encoder,
    stream: u64,
    encoder_stream: &mut BytesMut,
) -> Bytes {
    encoder.start_section();
    for (name, value) in trailers {
        encoder.field(name, value, encoder_stream);
    }
    framed(encoder, stream)
}

/// Ends the section, with the frame's head in front.
fn framed(encoder: &mut Encoder, stream: u64) -> Bytes {
    let mut section = BytesMut::with_capacity(USUAL_SECTION);
    section.extend_from_slice(&[0; SHORT_HEAD]);
    encoder.end_section(stream, &mut section);
    let len = section.len().saturating_sub(SHORT_HEAD);
    // An integer may be written longer than it must (RFC 9000 16), so that the head's room is known beforehand.
    if let (Ok(short @ 0..0x4000), Some(room)) = (u16::try_from(len), section.first_chunk_mut::<SHORT_HEAD>()) {
        let [high, low] = (short | 0x4000).to_be_bytes();
        *room = [HEADERS, high, low];
        return section.freeze();
    }
    let mut head = BytesMut::with_capacity(SHORT_HEAD.saturating_add(section.len()).saturating_add(16));
    frame::put_head(frame::HEADERS, len, &mut head);
    head.extend_from_slice(section.get(SHORT_HEAD..).unwrap_or_default());
    head.freeze()
}
