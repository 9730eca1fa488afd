//! Two-way streams with the face of `std`.

use std::fmt;
use std::io::{self, Read, Write};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use super::Runtime;
use crate::error::{Error, Phase};
use crate::stream::Stream;

/// A stream of bytes that reads and writes as `std`'s do: a [`Stream`], the bytes of a WebSocket, a tunnel, either half of one.
///
/// What is written is sent at once: put a `BufWriter` over it for many small pieces. Errors carry this crate's
/// [`Error`] inside (`io::Error::get_ref`).
pub struct Io<T = Stream> {
    io: T,
    runtime: Runtime,
    read_limit: Option<Duration>,
    write_limit: Option<Duration>,
}

impl<T> Io<T> {
    /// A stream of the shared runtime, without bounds of its own.
    pub fn new(io: T) -> Self {
        Self { io, runtime: Runtime::shared(), read_limit: None, write_limit: None }
    }

    /// The runtime that the stream lives on, where it is not the shared one.
    #[must_use]
    pub fn on(mut self, runtime: Runtime) -> Self {
        self.runtime = runtime;
        self
    }

    /// How long one read may wait. Default for ever. A read that took too long lost nothing and may be tried again.
    pub fn set_read_timeout(&mut self, limit: Option<Duration>) {
        self.read_limit = limit;
    }

    /// How long one write may wait. Default for ever. After a write that took too long nobody knows what has left.
    pub fn set_write_timeout(&mut self, limit: Option<Duration>) {
        self.write_limit = limit;
    }

    /// The stream itself.
    pub fn get_ref(&self) -> &T {
        &self.io
    }

    /// The stream itself, to be changed.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.io
    }

    /// The stream by itself.
    pub fn into_inner(self) -> T {
        self.io
    }

    fn bounded<R>(
        runtime: &Runtime,
        limit: Option<Duration>,
        phase: Phase,
        work: impl Future<Output = io::Result<R>>,
    ) -> io::Result<R> {
        match limit {
            None => runtime.wait(work),
            Some(limit) => runtime.wait_within(limit, work).map_err(|error| {
                let own = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
                let late = own.is_some_and(|error| error.phase() == Some(Phase::Total) && error.is_timeout());
                if late { Error::timeout(phase, limit).into() } else { error }
            }),
        }
    }
}

impl<T: AsyncWrite + Unpin> Io<T> {
    /// Says that nothing more will be written, and leaves reading open: a half close.
    pub fn shutdown(&mut self) -> io::Result<()> {
        Self::bounded(&self.runtime, self.write_limit, Phase::Close, self.io.shutdown())
    }
}

impl<T: AsyncRead + AsyncWrite> Io<T> {
    /// Both directions by themselves, for two threads.
    pub fn split(self) -> (Io<ReadHalf<T>>, Io<WriteHalf<T>>) {
        let Self { io, runtime, read_limit, write_limit } = self;
        let (read, write) = tokio::io::split(io);
        (
            Io { io: read, runtime: runtime.clone(), read_limit, write_limit },
            Io { io: write, runtime, read_limit, write_limit },
        )
    }
}

impl<T: AsyncRead + Unpin> Read for Io<T> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        Self::bounded(&self.runtime, self.read_limit, Phase::Idle, self.io.read(buf))
    }
}

impl<T: AsyncWrite + Unpin> Write for Io<T> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let io = &mut self.io;
        let work = async {
            let written = io.write(buf).await?;
            // TLS may keep a record back until it is asked.
            io.flush().await?;
            Ok(written)
        };
        Self::bounded(&self.runtime, self.write_limit, Phase::Send, work)
    }

    fn flush(&mut self) -> io::Result<()> {
        Self::bounded(&self.runtime, self.write_limit, Phase::Send, self.io.flush())
    }
}

impl<T: fmt::Debug> fmt::Debug for Io<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Io").field(&self.io).finish()
    }
}
