//! Bytes that the target has not taken yet.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

/// A shorter piece is copied behind those before it: each would otherwise keep a whole read buffer alive.
const SMALL: usize = 4 << 10;

/// Pieces in the order in which they came, counted in bytes. Long ones are held as they arrived, without a copy.
#[derive(Debug, Default)]
pub(super) struct Queue {
    parts: VecDeque<Bytes>,
    /// Short pieces, behind all of `parts`.
    tail: BytesMut,
    len: usize,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, data: Bytes) {
        self.len += data.len();
        if data.len() < SMALL {
            self.tail.extend_from_slice(&data);
            return;
        }
        if !self.tail.is_empty() {
            self.parts.push_back(std::mem::take(&mut self.tail).freeze());
        }
        self.parts.push_back(data);
    }

    /// What is to be written next; empty if nothing waits.
    pub(super) fn front(&self) -> &[u8] {
        self.parts.front().map_or(&self.tail, |part| part)
    }

    /// So much of the front was written. What is empty is let go, so that an idle tunnel holds nothing.
    pub(super) fn advance(&mut self, n: usize) {
        self.len = self.len.saturating_sub(n);
        if let Some(part) = self.parts.front_mut() {
            part.advance(n.min(part.len()));
            if part.is_empty() {
                self.parts.pop_front();
            }
        } else {
            self.tail.advance(n.min(self.tail.len()));
        }
        if self.len == 0 {
            self.clear();
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_order_however_they_were_pushed() {
        let (mut queue, mut expected, mut seen) = (Queue::default(), Vec::new(), Vec::new());
        for at in 0..200usize {
            let len = [1, 10, 5000, 3, 4096, 4095, 70_000][at % 7];
            let piece: Vec<u8> = (0..len).map(|i| u8::try_from((at + i) % 251).unwrap()).collect();
            expected.extend_from_slice(&piece);
            queue.push(piece.into());
            while at % 3 == 0 && queue.len() > 10_000 {
                let n = queue.front().len().min(777);
                seen.extend_from_slice(&queue.front()[..n]);
                queue.advance(n);
            }
        }
        assert_eq!(queue.len(), expected.len() - seen.len());
        while queue.len() > 0 {
            let front = queue.front().to_vec();
            queue.advance(front.len());
            seen.extend_from_slice(&front);
        }
        assert!(seen == expected);
        assert_eq!((queue.tail.capacity(), queue.parts.capacity()), (0, 0));
    }

    #[test]
    fn long_pieces_are_held_without_a_copy_and_short_ones_do_not_pin_their_buffer() {
        let mut queue = Queue::default();
        let long = Bytes::from(vec![7; 2 << 20]);
        queue.push(Bytes::from_static(b"head"));
        queue.push(long.clone());
        assert_eq!(queue.front(), b"head");
        queue.advance(4);
        assert_eq!(queue.front().as_ptr(), long.as_ptr());
        queue.advance(2 << 20);
        for _ in 0..10_000 {
            queue.push(Bytes::from_static(b"x"));
        }
        assert!(queue.parts.is_empty() && queue.tail.capacity() < 40_000);
    }
}
