//! One TCP connection: many queries, whose answers may come in any order (RFC 7766).

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use portolan_core::{Error, Phase, Result, Stream, clock};
use portolan_wire::Codec;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::PROTOCOL;
use super::codec::{Framing, Query};

/// How many queries are under way at once. Their answers may be 64 KiB each, and are read only once all are sent: this many
/// queries fit the socket's buffers even if the server reads none while it writes.
pub(crate) const MAX_IN_FLIGHT: usize = 64;
/// How many messages that nobody asked for are dropped before the server counts as broken.
const MAX_FOREIGN: usize = 64;
/// The first read: most answers are smaller.
const READ: usize = 4096;

/// A connection, driven by whoever asks. Its owner drops it after any error: the answer may still come.
#[derive(Debug)]
pub(crate) struct Session {
    stream: Stream,
    framing: Framing,
    read: BytesMut,
    idle: Option<Duration>,
}

impl Session {
    pub(crate) fn new(stream: Stream, idle: Option<Duration>) -> Self {
        Self { stream, framing: Framing, read: BytesMut::new(), idle }
    }

    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Whether it may serve another query: nothing unread, not closed by the server.
    pub(crate) fn is_usable(&mut self) -> bool {
        self.read.is_empty() && self.stream.is_quiet()
    }

    /// Sends in one go.
    pub(crate) async fn send<'a>(&mut self, queries: impl IntoIterator<Item = &'a Query>) -> Result<()> {
        let mut out = BytesMut::new();
        for query in queries {
            self.framing.encode(query.wire(), &mut out)?;
        }
        let write = async {
            self.stream.write_all(&out).await.map_err(|error| failed(Phase::Send, error))?;
            self.stream.flush().await.map_err(|error| failed(Phase::Send, error))
        };
        clock::within(self.idle, Phase::Send, write).await
    }

    /// The next message, whatever it is.
    pub(crate) async fn receive(&mut self) -> Result<Bytes> {
        loop {
            if let Some(message) = self.framing.decode(&mut self.read).map_err(|error| error.into_error(PROTOCOL))? {
                return Ok(message);
            }
            let phase = if self.read.is_empty() { Phase::FirstByte } else { Phase::Idle };
            self.read.reserve(READ);
            let read = async { self.stream.read_buf(&mut self.read).await.map_err(|error| failed(phase, error)) };
            if clock::within(self.idle, phase, read).await? == 0 {
                let what = if self.read.is_empty() { "closed before the answer" } else { "ended in mid-message" };
                return Err(Error::closed(what).with_phase(phase).with_protocol(PROTOCOL));
            }
        }
    }

    /// Sends all queries, and gives their answers in the order of the queries, however they came.
    pub(crate) async fn exchange(&mut self, queries: &[Query]) -> Result<Vec<Bytes>> {
        self.send(queries).await?;
        let mut answers: Vec<Option<Bytes>> = vec![None; queries.len()];
        let (mut open, mut foreign) = (queries.len(), 0);
        while open > 0 {
            let message = self.receive().await?;
            let place = queries
                .iter()
                .zip(&mut answers)
                .find(|(query, answer)| answer.is_none() && query.is_answered_by(&message));
            if let Some((_, answer)) = place {
                *answer = Some(message);
                open -= 1;
                continue;
            }
            foreign += 1;
            if foreign > MAX_FOREIGN {
                return Err(Error::protocol(PROTOCOL, format!("{foreign} messages that answer none of our queries")));
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// Says that no more will come.
    pub(crate) async fn close(mut self) -> Result<()> {
        let shutdown = async { self.stream.shutdown().await.map_err(|error| failed(Phase::Close, error)) };
        clock::within(self.idle, Phase::Close, shutdown).await
    }
}

fn failed(phase: Phase, error: std::io::Error) -> Error {
    Error::io(phase, error).with_protocol(PROTOCOL)
}
