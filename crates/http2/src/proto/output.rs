//! Bytes to be written: small frames gathered in one buffer, large payloads passed on as they are.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// A payload of at least this goes out as its own slice of a vectored write; a smaller one is cheaper to copy.
const CHAIN_AT: usize = 1024;
/// A buffer that grew beyond this is given back when it is empty, so that idle connections stay small.
const KEEP: usize = 64 << 10;

/// A queue of bytes: the chunks, then the tail.
#[derive(Debug, Default)]
pub(crate) struct Output {
    chunks: VecDeque<Bytes>,
    chunk_bytes: usize,
    tail: BytesMut,
}

impl Output {
    pub(crate) fn len(&self) -> usize {
        self.chunk_bytes + self.tail.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where small frames are written.
    pub(crate) fn tail(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// Appends a payload.
    pub(crate) fn push(&mut self, payload: Bytes) {
        if payload.len() < CHAIN_AT {
            self.tail.extend_from_slice(&payload);
            return;
        }
        self.chunk_bytes += self.tail.len() + payload.len();
        self.chunks.push_back(self.tail.split().freeze());
        self.chunks.push_back(payload);
    }

    /// Fills `slices` from the front; gives how many it took.
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut parts =
            self.chunks.iter().map(|chunk| &chunk[..]).chain([&self.tail[..]]).filter(|part| !part.is_empty());
        let mut count = 0;
        for (slot, part) in slices.iter_mut().zip(&mut parts) {
            *slot = IoSlice::new(part);
            count += 1;
        }
        count
    }

    /// Drops what was written.
    pub(crate) fn advance(&mut self, mut written: usize) {
        while let Some(chunk) = self.chunks.front_mut() {
            if written < chunk.len() {
                chunk.advance(written);
                self.chunk_bytes -= written;
                return;
            }
            written -= chunk.len();
            self.chunk_bytes -= chunk.len();
            self.chunks.pop_front();
        }
        if written < self.tail.len() {
            self.tail.advance(written);
        } else if self.tail.capacity() > KEEP {
            self.tail = BytesMut::new();
        } else {
            self.tail.clear();
        }
    }
}
