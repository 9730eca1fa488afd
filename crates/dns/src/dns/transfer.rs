//! A whole zone, record by record (RFC 5936).

use std::collections::VecDeque;

use portolan_core::{ConnectionInfo, Error, Result};

use super::PROTOCOL;
use super::client::refused;
use super::codec::{self, Query, decode};
use super::response::Response;
use super::session::Session;
use super::types::{Data, Question, Rcode, Record};

/// A zone on its way. Each message is at most 64 KiB and is read when its records are wanted, so a zone of any size needs
/// little memory. Dropping it closes the connection.
#[derive(Debug)]
pub struct Transfer {
    session: Session,
    query: Query,
    question: Question,
    ready: VecDeque<Record>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing has come yet.
    Begun,
    /// The first SOA has come: its serial ends the zone when it comes again.
    Within(u32),
    Done,
    Failed,
}

impl Transfer {
    pub(crate) async fn begin(mut session: Session, question: Question, query: Query) -> Result<Self> {
        session.send([&query]).await?;
        Ok(Self { session, query, question, ready: VecDeque::new(), state: State::Begun })
    }

    /// The next record, or `None` after the last. The zone's SOA comes first, and again as the last one. Cancel safe.
    pub async fn next(&mut self) -> Result<Option<Record>> {
        loop {
            if let Some(record) = self.ready.pop_front() {
                return Ok(Some(record));
            }
            match self.state {
                State::Done => return Ok(None),
                State::Failed => return Err(Error::usage("the transfer has failed before")),
                State::Begun | State::Within(_) => {}
            }
            let message = self.session.receive().await.inspect_err(|_| self.state = State::Failed)?;
            self.take(&message).inspect_err(|_| self.state = State::Failed)?;
        }
    }

    /// What is known about the connection.
    pub fn info(&self) -> &ConnectionInfo {
        self.session.stream().info()
    }

    fn take(&mut self, message: &[u8]) -> Result<()> {
        // RFC 5936 2.2.1: only the first message has to repeat the question; the id is in all of them.
        let ours = match self.state {
            State::Begun => self.query.is_answered_by(message),
            _ => message.first_chunk() == Some(&self.query.id()),
        };
        if !ours {
            return Err(Error::protocol(PROTOCOL, "expected a message of the transfer, saw another"));
        }
        if codec::is_truncated(message) {
            return Err(Error::protocol(PROTOCOL, "message of a transfer is cut"));
        }
        let response = decode(message).map_err(|error| error.into_error(PROTOCOL))?;
        if response.rcode != Rcode::NoError {
            return Err(refused(&response));
        }
        self.keep(response)
    }

    fn keep(&mut self, response: Response) -> Result<()> {
        if response.answers.is_empty() {
            return Err(Error::protocol(PROTOCOL, "message of a transfer without a record"));
        }
        for record in response.answers {
            let serial = match &record.data {
                Data::Soa(soa) if record.name == self.question.name => Some(soa.serial),
                _ => None,
            };
            self.state = match (self.state, serial) {
                (State::Begun, Some(serial)) => State::Within(serial),
                (State::Begun, None) => {
                    return Err(Error::protocol(PROTOCOL, "transfer does not begin with the zone's SOA"));
                }
                (State::Within(first), Some(last)) if first == last => State::Done,
                (State::Within(_), Some(_)) => {
                    return Err(Error::protocol(PROTOCOL, "the zone changed in mid-transfer"));
                }
                (State::Within(first), None) => State::Within(first),
                (State::Done | State::Failed, _) => {
                    return Err(Error::protocol(PROTOCOL, "records after the end of the transfer"));
                }
            };
            self.ready.push_back(record);
        }
        Ok(())
    }
}
