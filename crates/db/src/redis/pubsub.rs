//! Publish and subscribe: a connection of its own that is driven by whoever waits for messages.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use portolan_core::{Connector, Error, Kind, Phase, Result, Stream, clock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::PROTOCOL;
use super::client::handshake;
use super::codec::RespCodec;
use super::command::Command;
use super::options::Options;
use super::types::Value;
use portolan_wire::Codec;

/// Messages that may pile up while a subscription is being confirmed; a peer that sends more in between is cut off.
const MAX_PENDING: usize = 65_536;

/// Silence after which the peer is asked whether it is still there.
const PING_AFTER: Duration = Duration::from_secs(30);

/// What a subscriber hears.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A message.
    Message(Message),
    /// The connection was lost and made anew, and all subscriptions with it: messages in between are gone.
    Reconnected,
}

/// One published message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// The channel it was published on.
    pub channel: Bytes,
    /// The pattern that matched, where it was heard through one.
    pub pattern: Option<Bytes>,
    /// What was said.
    pub payload: Bytes,
}

/// A connection that listens. Its subscriptions survive a reconnect.
#[derive(Debug)]
pub struct Subscriber {
    connector: Connector,
    options: Options,
    link: Option<Link>,
    channels: BTreeSet<Vec<u8>>,
    patterns: BTreeSet<Vec<u8>>,
    pending: VecDeque<Message>,
}

#[derive(Debug)]
struct Link {
    stream: Stream,
    codec: RespCodec,
    buf: BytesMut,
}

impl Subscriber {
    /// Connects and logs in.
    pub async fn connect(connector: &Connector, options: Options) -> Result<Self> {
        let link = Link::open(connector, &options).await?;
        Ok(Self {
            connector: connector.clone(),
            options,
            link: Some(link),
            channels: BTreeSet::new(),
            patterns: BTreeSet::new(),
            pending: VecDeque::new(),
        })
    }

    /// Listens to these channels, and returns once the server has confirmed each.
    pub async fn subscribe(&mut self, channels: &[&str]) -> Result<()> {
        self.change("SUBSCRIBE", channels).await?;
        self.channels.extend(channels.iter().map(|c| c.as_bytes().to_vec()));
        Ok(())
    }

    /// Listens to all channels that match these patterns.
    pub async fn psubscribe(&mut self, patterns: &[&str]) -> Result<()> {
        self.change("PSUBSCRIBE", patterns).await?;
        self.patterns.extend(patterns.iter().map(|p| p.as_bytes().to_vec()));
        Ok(())
    }

    /// Stops listening to these channels.
    pub async fn unsubscribe(&mut self, channels: &[&str]) -> Result<()> {
        self.change("UNSUBSCRIBE", channels).await?;
        for channel in channels {
            self.channels.remove(channel.as_bytes());
        }
        Ok(())
    }

    /// Stops listening to these patterns.
    pub async fn punsubscribe(&mut self, patterns: &[&str]) -> Result<()> {
        self.change("PUNSUBSCRIBE", patterns).await?;
        for pattern in patterns {
            self.patterns.remove(pattern.as_bytes());
        }
        Ok(())
    }

    /// The next event, however long it takes: a silent peer is asked every 30 s whether it is still there, and a lost
    /// connection is made anew once per call. Cancel safe: a dropped call loses no message.
    pub async fn next(&mut self) -> Result<Event> {
        if let Some(message) = self.pending.pop_front() {
            return Ok(Event::Message(message));
        }
        match self.hear().await {
            Ok(message) => Ok(Event::Message(message)),
            Err(error) if self.options.reconnects() && (error.is_closed() || error.is_timeout()) => {
                tracing::debug!(%error, protocol = PROTOCOL, "subscription lost");
                self.link = None;
                self.restore().await?;
                Ok(Event::Reconnected)
            }
            Err(error) => {
                self.link = None;
                Err(error)
            }
        }
    }

    /// Says goodbye and closes.
    pub async fn close(mut self) -> Result<()> {
        if let Some(mut link) = self.link.take() {
            link.stream.shutdown().await.map_err(|error| Error::io(Phase::Close, error))?;
        }
        Ok(())
    }

    async fn restore(&mut self) -> Result<()> {
        let link = Link::open(&self.connector, &self.options).await?;
        self.link = Some(link);
        let wanted = [("SUBSCRIBE", self.channels.clone()), ("PSUBSCRIBE", self.patterns.clone())];
        for (verb, names) in wanted {
            let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
            self.change(verb, &names).await?;
        }
        Ok(())
    }

    /// Asks for a change and reads on until the server has confirmed it for each name; messages in between are kept.
    async fn change<T: AsRef<[u8]>>(&mut self, verb: &'static str, names: &[T]) -> Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        if self.link.is_none() {
            Box::pin(self.restore()).await?;
        }
        let mut command = Command::new(verb);
        for name in names {
            command.push(name.as_ref());
        }
        let Self { link, pending, options, .. } = self;
        let link = link.as_mut().ok_or_else(|| Error::closed("not connected"))?;
        let work = async {
            link.send(&command).await?;
            let mut confirmed = 0;
            while confirmed < names.len() {
                match heard(link.read().await?)? {
                    Heard::Message(_) if pending.len() >= MAX_PENDING => {
                        return Err(Error::new(Kind::Limit, "messages without end before a confirmation")
                            .with_protocol(PROTOCOL));
                    }
                    Heard::Message(message) => pending.push_back(message),
                    Heard::Confirmed(what) if what.eq_ignore_ascii_case(verb.as_bytes()) => confirmed += 1,
                    Heard::Confirmed(_) | Heard::Pong => {}
                }
            }
            Ok(())
        };
        clock::within(options.bounds().first_byte_limit(), Phase::FirstByte, work).await
    }

    async fn hear(&mut self) -> Result<Message> {
        let limit = self.options.bounds().first_byte_limit();
        let link = self.link.as_mut().ok_or_else(|| Error::closed("not connected"))?;
        loop {
            let value = match clock::within(Some(PING_AFTER), Phase::Idle, link.read()).await {
                Err(error) if error.is_timeout() => {
                    link.send(&Command::new("PING")).await?;
                    clock::within(limit, Phase::Idle, link.read()).await?
                }
                other => other?,
            };
            if let Heard::Message(message) = heard(value)? {
                return Ok(message);
            }
        }
    }
}

impl Link {
    async fn open(connector: &Connector, options: &Options) -> Result<Self> {
        let stream = super::client::dial(connector, options).await?;
        let mut link = Self { stream, codec: RespCodec::new(options.codec_limits()), buf: BytesMut::new() };
        let work = async {
            for step in handshake(options) {
                link.send(&step.command).await?;
                if let Value::Error(error) = link.read().await? {
                    step.judge(error)?;
                }
            }
            Ok(link)
        };
        clock::within(options.bounds().handshake_limit(), Phase::Handshake, work).await
    }

    async fn send(&mut self, command: &Command) -> Result<()> {
        let mut out = BytesMut::new();
        command.encode(&mut out);
        self.stream.write_all(&out).await.map_err(|error| Error::io(Phase::Send, error).with_protocol(PROTOCOL))
    }

    /// Reads one value. Cancel safe: what has been read stays in the buffer.
    async fn read(&mut self) -> Result<Value> {
        loop {
            if let Some(value) = self.codec.decode(&mut self.buf).map_err(|error| error.into_error(PROTOCOL))? {
                return Ok(value);
            }
            let n = self
                .stream
                .read_buf(&mut self.buf)
                .await
                .map_err(|error| Error::io(Phase::Idle, error).with_protocol(PROTOCOL))?;
            if n == 0 {
                return Err(Error::closed("server closed the subscription").with_protocol(PROTOCOL));
            }
        }
    }
}

enum Heard {
    Message(Message),
    Confirmed(Bytes),
    Pong,
}

/// Reads what a server says on a subscribed connection, as RESP2 arrays or RESP3 pushes.
fn heard(value: Value) -> Result<Heard> {
    let items = match value {
        Value::Array(items) | Value::Push(items) => items,
        Value::Simple(_) => return Ok(Heard::Pong),
        Value::Error(error) => return Err(error.into_error()),
        _ => return Err(Error::protocol(PROTOCOL, "expected a message, saw a plain value")),
    };
    let mut items = items.into_iter().map(|item| item.as_bytes().cloned());
    let mut next = || items.next().flatten();
    let kind = next().ok_or_else(|| Error::protocol(PROTOCOL, "expected the kind of a message"))?;
    let message = match &kind[..] {
        b"message" => next().zip(next()).map(|(channel, payload)| Message { channel, pattern: None, payload }),
        b"pmessage" => {
            let pattern = next();
            next().zip(next()).map(|(channel, payload)| Message { channel, pattern, payload })
        }
        b"pong" => return Ok(Heard::Pong),
        b"subscribe" | b"unsubscribe" | b"psubscribe" | b"punsubscribe" => return Ok(Heard::Confirmed(kind)),
        _ => return Ok(Heard::Pong),
    };
    message
        .map(Heard::Message)
        .ok_or_else(|| Error::protocol(PROTOCOL, "expected channel and payload, saw fewer parts"))
}
