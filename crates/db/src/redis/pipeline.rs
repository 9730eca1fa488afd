//! Many commands in one write.

use bytes::BytesMut;
use portolan_core::{Delivery, Error, Kind, Result};

use super::PROTOCOL;
use super::command::{Command, number, words};
use super::types::{FromValue, Value};

/// Commands that go out in one write. [`atomic`](Self::atomic) makes a transaction of them.
///
/// ```no_run
/// # async fn run(client: portolan_db::redis::Client) -> portolan_core::Result<()> {
/// use portolan_db::redis::{Command, Pipeline};
///
/// let pipeline = Pipeline::new().with(Command::new("INCR").arg("visits")).with(Command::new("GET").arg("name"));
/// let mut replies = client.pipeline(&pipeline).await?;
/// let (visits, name): (i64, Option<String>) = (replies.read()?, replies.read()?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Pipeline {
    body: BytesMut,
    count: usize,
    idempotent: bool,
    atomic: bool,
}

/// The transaction did not run, because a watched key was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Aborted;

impl Pipeline {
    /// An empty one.
    pub fn new() -> Self {
        Self { idempotent: true, ..Self::default() }
    }

    /// One more command.
    pub fn with(mut self, command: Command) -> Self {
        self.push(&command);
        self
    }

    /// One more command.
    pub fn push(&mut self, command: &Command) {
        self.idempotent &= command.is_idempotent();
        self.count += 1;
        command.encode(&mut self.body);
    }

    /// All or none, with no other client's command in between (`MULTI` and `EXEC`).
    pub fn atomic(mut self) -> Self {
        self.atomic = true;
        self
    }

    /// How many commands it holds.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn is_atomic(&self) -> bool {
        self.atomic
    }

    /// Its commands, each in wire form and as words.
    pub(crate) fn commands(&self) -> Vec<(&[u8], Vec<&[u8]>)> {
        let mut commands = Vec::with_capacity(self.count);
        let mut body = &self.body[..];
        while let Some((count, rest)) = number(body, b'*') {
            let (words, rest) = words(rest, count);
            let whole = body.get(..body.len() - rest.len()).unwrap_or_default();
            commands.push((whole, words));
            body = rest;
        }
        commands
    }

    pub(crate) fn is_idempotent(&self) -> bool {
        self.idempotent
    }

    /// How many replies it is owed.
    pub(crate) fn owed(&self) -> usize {
        if self.atomic { self.count.saturating_add(2) } else { self.count }
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) {
        if self.atomic {
            Command::new("MULTI").encode(out);
        }
        out.extend_from_slice(&self.body);
        if self.atomic {
            Command::new("EXEC").encode(out);
        }
    }

    /// Reads what came back: of a transaction, the replies inside `EXEC`'s.
    pub(crate) fn replies(&self, mut values: Vec<Value>) -> Result<Replies> {
        if !self.atomic {
            return Ok(Replies { values: values.into_iter() });
        }
        let last = values.pop().unwrap_or(Value::Null);
        match last {
            Value::Array(items) if items.len() == self.count => Ok(Replies { values: items.into_iter() }),
            Value::Null => Err(Error::new(Kind::Server, "transaction aborted: a watched key was changed")
                .with_protocol(PROTOCOL)
                .with_delivery(Delivery::Refused)
                .with_reply(Aborted)),
            // EXECABORT says only that some command was refused when it was queued; the first refusal says why.
            Value::Error(abort) => {
                let first = values.into_iter().find_map(|value| match value {
                    Value::Error(error) => Some(error),
                    _ => None,
                });
                Err(first.unwrap_or(abort).into_error())
            }
            _ => Err(Error::protocol(PROTOCOL, "expected one reply for each command of the transaction")),
        }
    }
}

/// The replies of a pipeline, in its order.
#[derive(Debug, Clone, Default)]
pub struct Replies {
    values: std::vec::IntoIter<Value>,
}

impl Replies {
    pub(crate) fn new(values: Vec<Value>) -> Self {
        Self { values: values.into_iter() }
    }

    /// The next reply, as `T`. A command that the server refused fails here, and only here.
    pub fn read<T: FromValue>(&mut self) -> Result<T> {
        match self.values.next() {
            Some(Value::Error(error)) => Err(error.into_error()),
            Some(value) => T::from_value(value),
            None => Err(Error::usage("no reply left: the pipeline held fewer commands")),
        }
    }
}

/// The replies as they came, refusals among them.
impl Iterator for Replies {
    type Item = Value;

    fn next(&mut self) -> Option<Value> {
        self.values.next()
    }
}
