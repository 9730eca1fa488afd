//! What `std` reads, for those who poll.

use std::fmt;
use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::{JoinHandle, spawn_blocking};

/// How much is read at once: each time costs a turn of another thread.
const ROOM: usize = 64 << 10;

/// A file, a pipe, whatever `std` reads, as what asynchronous code reads: for bodies and uploads. It is read by threads that may
/// block, 64 KiB at a time, when it is asked for more.
pub fn reader<R: Read + Send + 'static>(reader: R) -> Reader<R> {
    let idle = Box::new(Idle { reader, room: Vec::new(), at: 0 });
    Reader { state: State::Idle(Some(idle)) }
}

/// What [`reader`] makes.
pub struct Reader<R> {
    state: State<R>,
}

enum State<R> {
    /// `None` only while it is being turned, and after a panic of the reader.
    Idle(Option<Box<Idle<R>>>),
    Busy(JoinHandle<(Box<Idle<R>>, io::Result<()>)>),
}

struct Idle<R> {
    reader: R,
    /// What was read; before `at` it was given on.
    room: Vec<u8>,
    at: usize,
}

impl<R: Read> Idle<R> {
    fn fill(&mut self, most: usize) -> io::Result<()> {
        self.at = 0;
        self.room.resize(most.min(ROOM), 0);
        let read = loop {
            match self.reader.read(&mut self.room) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.room.truncate(*read.as_ref().unwrap_or(&0));
        read.map(|_| ())
    }
}

impl<R: Read + Send + Unpin + 'static> AsyncRead for Reader<R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            match &mut this.state {
                State::Idle(idle) => {
                    let Some(mut one) = idle.take() else {
                        return Poll::Ready(Err(io::Error::other("the reader panicked")));
                    };
                    let left = one.room.get(one.at..).unwrap_or_default();
                    if !left.is_empty() || buf.remaining() == 0 {
                        let n = left.len().min(buf.remaining());
                        buf.put_slice(left.get(..n).unwrap_or_default());
                        one.at += n;
                        *idle = Some(one);
                        return Poll::Ready(Ok(()));
                    }
                    let most = buf.remaining().max(ROOM);
                    this.state = State::Busy(spawn_blocking(move || {
                        let result = one.fill(most);
                        (one, result)
                    }));
                }
                State::Busy(reading) => {
                    let (idle, result) = match ready!(Pin::new(reading).poll(cx)) {
                        Ok((idle, result)) => (Some(idle), result),
                        Err(gone) => (None, Err(io::Error::other(gone))),
                    };
                    let ended = idle.as_ref().is_some_and(|idle| idle.room.is_empty());
                    this.state = State::Idle(idle);
                    result?;
                    if ended {
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }
}

impl<R> fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}
