//! What the small protocols share: options, a stream or a datagram socket, and bounded reading.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]
#![allow(
    dead_code,
    unused_macros,
    unused_imports,
    reason = "each protocol uses its part, and may be the only one built"
)]

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use portolan_core::observe::{Probe, Semantics};
use portolan_core::{ConnectionInfo, Connector, Datagram, Endpoint, Error, Kind, Phase, Result, Stream, Url, clock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What carries a protocol that has both forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Transport {
    /// A connection.
    #[default]
    Tcp,
    /// Datagrams: one request, one answer, either of which may be lost.
    Udp,
}

/// How much is read at once.
const READ: usize = 4096;
/// Until a datagram counts as lost: doubled each time.
const PATIENCE: Duration = Duration::from_millis(250);
/// Datagrams that are no answer, before the peer counts as broken.
const MAX_STRAY: usize = 64;

/// The parts of every `Options`, made by [`options`].
#[derive(Debug, Clone)]
pub(crate) struct Common {
    pub(crate) protocol: &'static str,
    pub(crate) endpoint: Option<Endpoint>,
    pub(crate) transport: Transport,
    pub(crate) wait: Option<Duration>,
    pub(crate) max: usize,
}

impl Common {
    pub(crate) fn from_url(
        protocol: &'static str,
        port: u16,
        udp: bool,
        url: &str,
    ) -> Result<(Endpoint, Transport, Url)> {
        let url = Url::parse(url)?;
        if url.scheme() != protocol {
            return Err(Error::usage(format!("scheme {:?}: {protocol}:// is expected", url.scheme())));
        }
        let mut transport = Transport::Tcp;
        for (key, value) in url.query_pairs() {
            match (key.as_str(), value.as_str()) {
                ("transport", "tcp") => transport = Transport::Tcp,
                ("transport", "udp") if udp => transport = Transport::Udp,
                _ => return Err(Error::usage(format!("unknown option {key}={value}"))),
            }
        }
        Ok((url.endpoint(port)?, transport, url))
    }

    pub(crate) fn target(&self) -> Result<&Endpoint> {
        self.endpoint.as_ref().ok_or_else(|| Error::usage("options name no server"))
    }
}

macro_rules! options {
    ($protocol:literal, $port:literal, max: $max:expr, $max_doc:literal $(, $udp:ident)?) => {
        /// The port that is meant where none is named.
        pub const DEFAULT_PORT: u16 = $port;

        /// Whom to reach, and how long and how much to take.
        #[derive(Debug, Clone)]
        pub struct Options {
            pub(crate) common: crate::conn::Common,
        }

        impl Default for Options {
            fn default() -> Self {
                let wait = Some(std::time::Duration::from_secs(10));
                let transport = crate::conn::Transport::Tcp;
                Self { common: crate::conn::Common { protocol: $protocol, endpoint: None, transport, wait, max: $max } }
            }
        }

        impl Options {
            /// To reach the server at `endpoint`.
            pub fn new(endpoint: portolan_core::Endpoint) -> Self {
                let mut options = Self::default();
                options.common.endpoint = Some(endpoint);
                options
            }

            $(
                /// What carries it. Default TCP; a datagram without an answer is sent again until the timeout.
                #[must_use]
                pub fn transport(mut self, $udp: crate::conn::Transport) -> Self {
                    self.common.transport = $udp;
                    self
                }
            )?

            /// How long to wait for each read or write, and for the answer to a datagram. Default 10 s. Too short, and a server that looks things up first
            /// seems to be dead.
            #[must_use]
            pub fn timeout(mut self, limit: impl Into<portolan_core::Limit>) -> Self {
                self.common.wait = limit.into().or(std::time::Duration::from_secs(10));
                self
            }

            #[doc = $max_doc]
            #[must_use]
            pub fn max_bytes(mut self, max: usize) -> Self {
                self.common.max = max;
                self
            }
        }
    };
}
pub(crate) use options;

macro_rules! simple_url {
    ($protocol:literal, $udp:tt) => {
        impl Options {
            #[doc = concat!("`", $protocol, "://host[:port]`", crate::conn::udp_doc!($udp), ". Anything else is refused rather than ignored.")]
            pub fn from_url(url: &str) -> portolan_core::Result<Self> {
                let (endpoint, transport, url) = crate::conn::Common::from_url($protocol, DEFAULT_PORT, $udp, url)?;
                if url.user().is_some() || url.path().len() > 1 {
                    return Err(portolan_core::Error::usage(concat!($protocol, ":// takes a host and a port alone")));
                }
                let mut options = Self::new(endpoint);
                options.common.transport = transport;
                Ok(options)
            }
        }
    };
}
pub(crate) use simple_url;

macro_rules! udp_doc {
    (true) => {
        ", with `?transport=udp` for datagrams"
    };
    (false) => {
        ""
    };
}
pub(crate) use udp_doc;

/// The fixed verbs of a client over one [`Conn`].
macro_rules! verbs {
    () => {
        impl Client {
            /// Connects. Dropping the future closes what was opened.
            pub async fn connect(net: &portolan_core::Connector, options: Options) -> portolan_core::Result<Self> {
                Ok(Self { conn: crate::conn::Conn::open(net, &options.common).await?, options })
            }

            /// Connects directly to the server of the URL.
            pub async fn open(url: &str) -> portolan_core::Result<Self> {
                Self::connect(&portolan_core::Connector::default(), Options::from_url(url)?).await
            }

            /// A client on a stream that is there already.
            pub fn from_stream(stream: portolan_core::Stream, options: Options) -> Self {
                Self { conn: crate::conn::Conn::from_stream(stream), options }
            }

            /// What is known about the connection.
            pub fn info(&self) -> &portolan_core::ConnectionInfo {
                self.conn.info()
            }
        }
    };
}
pub(crate) use verbs;

/// A way to the server.
#[derive(Debug)]
pub(crate) enum Conn {
    Stream(Box<Stream>),
    Datagram(Box<Datagram>),
}

impl Conn {
    pub(crate) async fn open(net: &Connector, options: &Common) -> Result<Self> {
        let to = options.target()?;
        match options.transport {
            Transport::Tcp => Ok(Self::from_stream(net.connect(to).await?)),
            Transport::Udp => Ok(Self::Datagram(Box::new(net.datagram(to).await?))),
        }
        .map_err(|error: Error| error.with_protocol(options.protocol))
    }

    pub(crate) fn from_stream(stream: Stream) -> Self {
        Self::Stream(Box::new(stream))
    }

    pub(crate) fn info(&self) -> &ConnectionInfo {
        match self {
            Self::Stream(stream) => stream.info(),
            Self::Datagram(datagram) => datagram.info(),
        }
    }

    /// What observers are told by.
    pub(crate) fn probe(&self, options: &Common) -> Probe {
        match self {
            Self::Stream(stream) => Probe::on(options.protocol, Semantics::Plain, stream),
            Self::Datagram(datagram) => Probe::on_datagram(options.protocol, Semantics::Plain, datagram),
        }
    }

    /// What the server says and then closes; for datagrams, what it answers to an empty one.
    pub(crate) async fn told(&mut self, options: &Common) -> Result<Bytes> {
        self.probe(options).operation("read").run(self.hear(options)).await
    }

    async fn hear(&mut self, options: &Common) -> Result<Bytes> {
        match self {
            Self::Stream(stream) => read_to_close(stream, options).await,
            Self::Datagram(datagram) => {
                let mut buf = vec![0; portolan_core::MAX_DATAGRAM];
                let n = ask_datagram(datagram, b"", &mut buf, options, |_| true).await?;
                if n > options.max {
                    return Err(too_much(options));
                }
                buf.truncate(n);
                Ok(buf.into())
            }
        }
    }

    pub(crate) async fn close(self, options: &Common) -> Result<()> {
        match self {
            Self::Stream(mut stream) => {
                let shutdown = async { stream.shutdown().await.map_err(|error| Error::io(Phase::Close, error)) };
                clock::within(options.wait, Phase::Close, shutdown)
                    .await
                    .map_err(|error| error.with_protocol(options.protocol))
            }
            Self::Datagram(_) => Ok(()),
        }
    }
}

pub(crate) async fn write_all(stream: &mut Stream, bytes: &[u8], options: &Common) -> Result<()> {
    let write = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    let write = async { write.await.map_err(|error| Error::io(Phase::Send, error)) };
    clock::within(options.wait, Phase::Send, write).await.map_err(|error| error.with_protocol(options.protocol))
}

/// Reads what is there, at most to `max` bytes in all; 0 at the end.
pub(crate) async fn read_some(stream: &mut Stream, buf: &mut BytesMut, max: usize, options: &Common) -> Result<usize> {
    let phase = if buf.is_empty() { Phase::FirstByte } else { Phase::Idle };
    let room = max.saturating_sub(buf.len()).min(READ);
    buf.reserve(room);
    let read = async {
        let mut limited = (&mut *stream).take(u64::try_from(room).unwrap_or(u64::MAX));
        limited.read_buf(buf).await.map_err(|error| Error::io(phase, error))
    };
    clock::within(options.wait, phase, read).await.map_err(|error| error.with_protocol(options.protocol))
}

/// Everything until the server closes, if that is no more than the options grant.
pub(crate) async fn read_to_close(stream: &mut Stream, options: &Common) -> Result<Bytes> {
    let mut buf = BytesMut::new();
    // One byte more than is granted tells whether there is more.
    let room = options.max.saturating_add(1);
    while read_some(stream, &mut buf, room, options).await? > 0 {
        if buf.len() > options.max {
            return Err(too_much(options));
        }
    }
    Ok(buf.freeze())
}

pub(crate) async fn send_datagram(datagram: &Datagram, bytes: &[u8], options: &Common) -> Result<()> {
    clock::within(options.wait, Phase::Send, datagram.send(bytes))
        .await
        .map_err(|error| error.with_protocol(options.protocol))
}

/// Sends `request`, and again after each wait in vain, twice as long as the one before, until the options' time is over; gives
/// the first answer that `accept` takes.
pub(crate) async fn ask_datagram(
    datagram: &Datagram,
    request: &[u8],
    buf: &mut [u8],
    options: &Common,
    accept: impl Fn(&[u8]) -> bool,
) -> Result<usize> {
    let deadline = options.wait.and_then(|wait| clock::now().checked_add(wait));
    let mut patience = PATIENCE;
    loop {
        send_datagram(datagram, request, options).await?;
        let left = deadline.map(|deadline| deadline.saturating_duration_since(clock::now()));
        let last = left.is_some_and(|left| left <= patience);
        let turn = if last { left } else { Some(patience) };
        let answer = clock::within(turn, Phase::FirstByte, accepted(datagram, buf, &accept)).await;
        match answer {
            Err(error) if error.is_timeout() && !last => patience = patience.saturating_mul(2),
            Err(error) => {
                let error = if error.is_refused() { error.with_kind(Kind::Connect) } else { error };
                return Err(error.with_protocol(options.protocol));
            }
            Ok(n) => return Ok(n),
        }
    }
}

async fn accepted(datagram: &Datagram, buf: &mut [u8], accept: &impl Fn(&[u8]) -> bool) -> Result<usize> {
    for _ in 0..MAX_STRAY {
        let n = datagram.recv(buf).await?;
        if buf.get(..n).is_some_and(accept) {
            return Ok(n);
        }
    }
    Err(Error::new(Kind::Protocol, format!("{MAX_STRAY} datagrams, none of them an answer")))
}

fn too_much(options: &Common) -> Error {
    Error::new(Kind::Limit, format!("more than {} bytes", options.max)).with_protocol(options.protocol)
}
