//! One stream, and where streams are kept.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::task::Waker;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response, StatusCode};
use portolan_core::clock::Instant;
use portolan_core::{BoxError, Delivery};

use super::failure::Failure;
use super::flow::{RecvWindow, SendWindow};

/// Payloads up to this are gathered into shared buffers, so that a flood of tiny frames costs its bytes and no more.
const GATHER_BELOW: usize = 1024;
/// A gathered buffer is closed at this size.
const GATHERED: usize = 16 << 10;

/// What names a stream for its handle: its place, and the id that must be found there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    place: usize,
    pub(crate) id: u32,
}

/// The head of a response.
pub(crate) type Head = (StatusCode, HeaderMap);

/// What has arrived of a body and waits for its reader.
#[derive(Debug, Default)]
pub(crate) struct Received {
    chunks: VecDeque<Bytes>,
    tail: BytesMut,
    /// Few have any: boxed, since this is handed on.
    pub(crate) trailers: Option<Box<HeaderMap>>,
}

impl Received {
    pub(crate) fn push_small(&mut self, data: &[u8]) -> bool {
        if data.len() > GATHER_BELOW {
            return false;
        }
        if self.tail.is_empty() {
            // Most bodies of this kind are one frame: room for that one alone.
            self.tail = BytesMut::from(data);
        } else {
            self.tail.extend_from_slice(data);
        }
        if self.tail.len() >= GATHERED {
            self.chunks.push_back(self.tail.split().freeze());
        }
        true
    }

    pub(crate) fn push_large(&mut self, data: Bytes) {
        if !self.tail.is_empty() {
            self.chunks.push_back(self.tail.split().freeze());
        }
        self.chunks.push_back(data);
    }

    pub(crate) fn pop(&mut self) -> Option<Bytes> {
        match self.chunks.pop_front() {
            Some(chunk) => Some(chunk),
            None if self.tail.is_empty() => None,
            None => Some(std::mem::take(&mut self.tail).freeze()),
        }
    }

    pub(crate) fn has_data(&self) -> bool {
        !self.chunks.is_empty() || !self.tail.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum::<usize>() + self.tail.len()
    }
}

/// One exchange.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: u32,
    pub(crate) send_window: SendWindow,
    pub(crate) recv_window: RecvWindow,
    /// We have sent END_STREAM.
    pub(crate) local_closed: bool,
    /// The peer has.
    pub(crate) remote_closed: bool,
    /// Both have, or it was reset: it counts no longer, and its id is forgotten.
    pub(crate) gone: bool,
    /// Nobody waits for it any more; it lives on until its upload is done.
    pub(crate) detached: bool,
    /// Its body was not wanted and will not be sent: we end it with the peer's end.
    pub(crate) abandoned: bool,
    pub(crate) head: Option<Head>,
    pub(crate) head_seen: bool,
    /// The answer to HEAD has no body whatever its content-length says.
    pub(crate) is_head: bool,
    pub(crate) is_connect: bool,
    /// Bytes that content-length still promises.
    pub(crate) promised: Option<u64>,
    pub(crate) received: Received,
    pub(crate) failure: Option<Failure>,
    /// Why the caller's own body failed.
    pub(crate) body_error: Option<BoxError>,
    pub(crate) informational: VecDeque<Response<()>>,
    pub(crate) informational_seen: usize,
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,
    /// The upload, while it waits for its caller.
    pub(crate) supplier: Option<Waker>,
    /// How many bytes the connection had queued before this stream's HEADERS.
    pub(crate) begins_at: u64,
    /// When its response must have begun.
    pub(crate) due: Option<Due>,
    /// Whether anything of its body was sent since that was last looked at.
    pub(crate) moved: bool,
}

/// A bound for the beginning of a response.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Due {
    pub(crate) at: Instant,
    pub(crate) limit: Duration,
}

impl Due {
    /// None where the clock doesn't reach so far.
    pub(crate) fn after(limit: Duration, now: Instant) -> Option<Self> {
        now.checked_add(limit).map(|at| Self { at, limit })
    }
}

impl Stream {
    pub(crate) fn delivery(&self, handed: u64) -> Delivery {
        if self.head_seen {
            Delivery::Answered
        } else if self.begins_at >= handed {
            Delivery::NotSent
        } else {
            Delivery::Unknown
        }
    }
}

/// All streams of a connection, open ones found by id.
#[derive(Debug, Default)]
pub(crate) struct Store {
    places: Vec<Option<Stream>>,
    free: Vec<usize>,
    ids: HashMap<u32, usize, BuildHasherDefault<IdHasher>>,
}

impl Store {
    pub(crate) fn insert(&mut self, stream: Stream) -> Key {
        let id = stream.id;
        let place = match self.free.pop() {
            Some(place) => {
                if let Some(slot) = self.places.get_mut(place) {
                    *slot = Some(stream);
                }
                place
            }
            None => {
                self.places.push(Some(stream));
                self.places.len() - 1
            }
        };
        self.ids.insert(id, place);
        Key { place, id }
    }

    #[inline]
    pub(crate) fn get(&mut self, key: Key) -> Option<&mut Stream> {
        self.places.get_mut(key.place)?.as_mut().filter(|stream| stream.id == key.id)
    }

    /// The open stream of this id.
    #[inline]
    pub(crate) fn find(&self, id: u32) -> Option<Key> {
        self.ids.get(&id).map(|place| Key { place: *place, id })
    }

    /// How many are open.
    pub(crate) fn open(&self) -> usize {
        self.ids.len()
    }

    /// The id is no longer open; the entry stays for its reader.
    pub(crate) fn forget(&mut self, id: u32) {
        self.ids.remove(&id);
    }

    /// Drops the entry.
    pub(crate) fn remove(&mut self, key: Key) {
        let Some(slot) = self.places.get_mut(key.place) else { return };
        if slot.as_ref().is_some_and(|stream| stream.id == key.id) {
            *slot = None;
            self.free.push(key.place);
        }
    }

    pub(crate) fn keys(&self) -> Vec<Key> {
        self.ids.iter().map(|(id, place)| Key { place: *place, id: *id }).collect()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.places.iter_mut().flatten()
    }
}

/// Ids are ours, odd and rising: one multiplication spreads them.
#[derive(Debug, Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, id: u32) {
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }
}
