//! A request's head on its way out.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use bytes::{Buf, BytesMut};
use http::header::HeaderMap;
use http::request::Parts;
use portolan_core::{Error, Result};
use portolan_hpack::Encoder;
use portolan_hpack::request::{self, Line, RequestHead, Unsendable};

use super::failure::PROTOCOL;
use super::frame;
use crate::ext::Protocol;

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

/// Encodes the block of a head.
pub(crate) fn encode(head: &RequestHead<'_>, encoder: &mut Encoder, out: &mut BytesMut) {
    encoder.start_block(out);
    head.each(|line| match line {
        Line::Pseudo(name, value) => encoder.pseudo(name, value, out),
        Line::Field(name, value) => encoder.field(name, value, out),
    });
}

/// Makes frames of the block that begins at `start`: HEADERS, then CONTINUATION where it is longer than the peer's frames.
pub(crate) fn frame_block(start: usize, id: u32, end_stream: bool, max_frame: usize, out: &mut BytesMut) {
    let stream_flag = if end_stream { frame::END_STREAM } else { 0 };
    let len = out.len().saturating_sub(start).saturating_sub(frame::HEAD);
    if len <= max_frame {
        let head = frame::head_bytes(len, frame::HEADERS, stream_flag | frame::END_HEADERS, id);
        if let Some(room) = out.get_mut(start..start.saturating_add(frame::HEAD)) {
            room.copy_from_slice(&head);
        }
        return;
    }
    let mut block = out.split_off(start);
    block.advance(frame::HEAD);
    let mut kind = frame::HEADERS;
    let mut flags = stream_flag;
    while !block.is_empty() {
        let part = block.split_to(block.len().min(max_frame));
        if block.is_empty() {
            flags |= frame::END_HEADERS;
        }
        frame::put_head(part.len(), kind, flags, id, out);
        out.extend_from_slice(&part);
        kind = frame::CONTINUATION;
        flags = 0;
    }
}
