//! Mini (FILL IN: the specification, with its number or address).
//!
//! **Port and TLS**: FILL IN, TCP; scheme `mini://`; FILL IN its TLS form.
//!
//! **What works**: FILL IN.
//!
//! **What is not done**: FILL IN.
//!
//! **Tested against** FILL IN: programs with versions, and in which configurations.
//!
//! **Security**: FILL IN: who can read it, who can forge it, what a hostile peer can do.
//!
//! ```no_run
//! use portolan_classic::mini::Client;
//!
//! # async fn run() -> portolan_core::Result<()> {
//! let mut client = Client::open("mini://localhost").await?;
//! println!("{}", client.ask("hello").await?.text);
//! client.close().await?;
//! # Ok(())
//! # }
//! ```

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use std::time::Duration;

use bytes::BytesMut;
use portolan_core::{ConnectionInfo, Connector, Endpoint, Error, Result, Stream, Timeouts, Url};
use portolan_wire::{Codec, DecodeError, Exchange, LineRule, Lines};

/// The name in errors.
const PROTOCOL: &str = "mini";

/// The longest line, its end included. FILL IN: the section that says so, or the reason.
const MAX_LINE: usize = 512;

/// What the server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reply {
    /// Its text, without the line's end.
    pub text: String,
}

/// Requests as lines, replies as lines.
#[derive(Debug)]
pub struct MiniCodec {
    lines: Lines,
}

impl Default for MiniCodec {
    fn default() -> Self {
        Self { lines: Lines::new(PROTOCOL, LineRule::Strict, MAX_LINE) }
    }
}

impl Codec for MiniCodec {
    type Frame = Reply;
    type Out = str;

    fn protocol(&self) -> &'static str {
        PROTOCOL
    }

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Reply>, DecodeError> {
        let Some(line) = self.lines.decode(src)? else { return Ok(None) };
        let text = std::str::from_utf8(&line).map_err(|_| DecodeError::invalid("text", 0))?;
        Ok(Some(Reply { text: text.to_owned() }))
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Reply>, DecodeError> {
        match self.decode(src)? {
            Some(reply) => Ok(Some(reply)),
            None if src.is_empty() => Ok(None),
            None => Err(DecodeError::truncated("reply", src.len())),
        }
    }

    /// One line; CR, LF or NUL in it is a usage error.
    fn encode(&mut self, item: &str, dst: &mut BytesMut) -> portolan_core::Result<()> {
        self.lines.encode(item.as_bytes(), dst)
    }
}
/// The port that is meant where none is named. FILL IN, here and in protocols.toml.
pub const DEFAULT_PORT: u16 = 7;

/// Whom to reach, and how long to wait.
#[derive(Debug, Clone)]
#[must_use]
pub struct Options {
    endpoint: Endpoint,
    timeouts: Timeouts,
}

impl Options {
    /// The server at `endpoint`.
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, timeouts: Timeouts::default() }
    }

    /// `mini://host[:port]`.
    pub fn from_url(url: &str) -> Result<Self> {
        let url = Url::parse(url)?;
        if url.scheme() != "mini" {
            return Err(Error::usage(format!("scheme {:?}: mini:// is expected", url.scheme())));
        }
        Ok(Self::new(url.endpoint(DEFAULT_PORT)?))
    }

    /// How long each phase may take; what is unset follows the connector's.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// Whom to reach.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn bounds(&self) -> &Timeouts {
        &self.timeouts
    }
}
/// How long a polite end may take before the connection is just dropped.
const CLOSE: Duration = Duration::from_secs(2);

/// One connection.
#[derive(Debug)]
pub struct Client {
    talk: Exchange<MiniCodec>,
}

impl Client {
    /// Connects directly to the server of the URL.
    pub async fn open(url: &str) -> Result<Self> {
        Self::connect(&Connector::default(), Options::from_url(url)?).await
    }

    /// Connects by way of `net`. Dropping the future closes the connection.
    pub async fn connect(net: &Connector, options: Options) -> Result<Self> {
        let stream = net.connect(options.endpoint()).await?;
        let timeouts = options.bounds().over(net.timeouts());
        Self::from_stream(stream, options.timeouts(timeouts))
    }

    /// Speaks over a stream that is there already.
    pub fn from_stream(stream: Stream, options: Options) -> Result<Self> {
        Ok(Self { talk: Exchange::new(stream, MiniCodec::default()).with_timeouts(*options.bounds()) })
    }

    /// Sends one line and gives the reply to it. Dropping the future in mid-conversation poisons the connection: every later
    /// call fails with [`Kind::Closed`](portolan_core::Kind::Closed).
    pub async fn ask(&mut self, request: &str) -> Result<Reply> {
        self.talk.call(request).await
    }

    /// What is known about the connection.
    pub fn info(&self) -> &ConnectionInfo {
        self.talk.stream().info()
    }

    /// Ends the connection.
    pub async fn close(self) -> Result<()> {
        self.talk.shutdown(CLOSE).await
    }
}

#[cfg(test)]
mod tests {
    use portolan_core::{Delivery, Kind};
    use portolan_wire::laws;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// FILL IN: one of each kind, with where it comes from; the same bytes belong in fuzz/seeds/mini.
    const SEEDS: &[&[u8]] = &[b"hello\r\n"];

    fn client(io: tokio::io::DuplexStream) -> Client {
        let options = Options::new(Endpoint::new("server.example", DEFAULT_PORT).unwrap());
        Client::from_stream(Stream::from_io(io), options).unwrap()
    }

    #[test]
    fn the_decoder_keeps_the_laws() {
        laws::check(MiniCodec::default, SEEDS);
        laws::round_trip(MiniCodec::default, &["hello", ""], |sent, reply| *sent == reply.text);
    }

    #[test]
    fn what_breaks_the_rules_is_named() {
        let mut codec = MiniCodec::default();
        assert_eq!(codec.decode(&mut BytesMut::from(&b"\xff\r\n"[..])), Err(DecodeError::invalid("text", 0)));
    }

    #[tokio::test]
    async fn a_request_gets_its_reply() {
        let (near, mut far) = tokio::io::duplex(256);
        let peer = tokio::spawn(async move {
            let mut asked = [0; 7];
            far.read_exact(&mut asked).await.unwrap();
            far.write_all(b"fine\r\n").await.unwrap();
            asked
        });
        let mut client = client(near);
        assert_eq!(client.ask("hello").await.unwrap().text, "fine");
        assert_eq!(&peer.await.unwrap(), b"hello\r\n");
    }

    #[tokio::test]
    async fn a_caller_cannot_smuggle_a_second_request() {
        let (near, _far) = tokio::io::duplex(256);
        let error = client(near).ask("hello\r\nmore").await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (Kind::Usage, Delivery::NotSent));
    }

    #[tokio::test]
    async fn a_peer_that_closes_in_mid_reply_leaves_nothing_to_reuse() {
        let (near, mut far) = tokio::io::duplex(256);
        far.write_all(b"fi").await.unwrap();
        let peer = tokio::spawn(async move {
            let mut asked = [0; 7];
            far.read_exact(&mut asked).await.unwrap();
        });
        let mut client = client(near);
        let error = client.ask("hello").await.unwrap_err();
        assert_eq!(error.protocol_name(), Some("mini"), "{error}");
        peer.await.unwrap();
        assert_eq!(client.ask("hello").await.unwrap_err().kind(), Kind::Closed);
    }
}
