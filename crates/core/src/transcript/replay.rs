//! A way to peers that are not there.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::entry::{Opening, Piece, Transcript, What};
use super::matching::{self, Match};
use super::play::Play;
use crate::datagram::{Datagram, DatagramIo};
use crate::dial::{BoxFuture, Dial, DialContext};
use crate::endpoint::Endpoint;
use crate::error::{Delivery, Error, Kind, Phase, Result};
use crate::stream::Stream;

/// How exactly the client must say what was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Mode {
    /// To the byte. Only secrets that were hidden may be others, and what is known to be random: the ids of DNS, the keys of WebSocket.
    #[default]
    Strict,
    /// Whatever it says, the next answer is the one that was given when it had spoken as often. A turn of its ends when it waits
    /// for an answer.
    Loose,
}

type Matcher = Arc<dyn Fn(&[Piece], &[u8]) -> Match + Send + Sync>;

#[derive(Clone, Default)]
pub(super) struct Rules {
    mode: Mode,
    matcher: Option<Matcher>,
}

impl Rules {
    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    pub(super) fn has_matcher(&self) -> bool {
        self.matcher.is_some()
    }

    pub(super) fn compare(&self, recorded: &[Piece], said: &[u8]) -> Match {
        match &self.matcher {
            Some(matcher) => matcher(recorded, said),
            None => matching::compare(recorded, said),
        }
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules").field("mode", &self.mode).field("matcher", &self.has_matcher()).finish()
    }
}

/// A connection of a transcript.
#[derive(Debug, Clone)]
pub(super) struct Conversation {
    pub(super) number: u64,
    pub(super) opening: Opening,
    pub(super) happened: Vec<What>,
}

/// Where the client said something else than was recorded.
///
/// It is the reply of the error that the client meets ([`Error::server`], or [`Mismatch::of`] where a protocol has put its own error around
/// it), and of [`Replay::finish`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mismatch {
    /// Which connection of the transcript.
    pub connection: u64,
    /// Its target.
    pub to: String,
    /// After how many bytes of the client's.
    pub offset: usize,
    /// What was said there when it was recorded, escaped as in Rust.
    pub expected: String,
    /// What was said now.
    pub seen: String,
}

impl Mismatch {
    /// The mismatch that this error comes from, if it is one.
    pub fn of(error: &Error) -> Option<&Self> {
        let mut error: &(dyn std::error::Error + 'static) = error;
        loop {
            if let Some(found) = error.downcast_ref::<Error>().and_then(Error::server::<Self>) {
                return Some(found);
            }
            // An io::Error passes over what it holds.
            let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            error = match inner {
                Some(inner) => inner,
                None => error.source()?,
            };
        }
    }
}

impl Mismatch {
    // No `From`: a second one for the error would leave callers' closures without a type.
    pub(super) fn into_error(self) -> Error {
        Error::usage(self.to_string()).with_reply(self)
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connection, to, offset, expected, seen } = self;
        write!(f, "connection {connection} to {to}, byte {offset}: recorded was \"{expected}\", said was \"{seen}\"")
    }
}

/// Plays a transcript: the [`Dial`] of a connector that opens nothing ([`ConnectorBuilder::dial`](crate::ConnectorBuilder::dial)). Clones
/// are the same replay.
///
/// Each connection that is asked for is the next one of the transcript to the same target; after a mismatch there are no more. What was heard comes at once when what was said
/// before it has been said. Names are not resolved, addresses not checked, and TLS is taken for begun where it was.
#[derive(Clone)]
pub struct Replay(Arc<Inner>);

struct Inner {
    rules: Rules,
    waiting: Mutex<Vec<Conversation>>,
    /// Those that were begun.
    playing: Mutex<Vec<Shared>>,
}

type Shared = Arc<Mutex<Play>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Replay {
    /// Plays it [strictly](Mode::Strict).
    pub fn new(transcript: Transcript) -> Self {
        Self::with_mode(transcript, Mode::Strict)
    }

    /// Plays it in this mode.
    pub fn with_mode(transcript: Transcript, mode: Mode) -> Self {
        Self::start(transcript, Rules { mode, matcher: None })
    }

    /// Plays it with a comparison of your own: it is given a run of what was recorded, up to the next answer, and what is said now (for
    /// datagrams one whole datagram).
    pub fn with_matcher(
        transcript: Transcript,
        matcher: impl Fn(&[Piece], &[u8]) -> Match + Send + Sync + 'static,
    ) -> Self {
        Self::start(transcript, Rules { mode: Mode::Strict, matcher: Some(Arc::new(matcher)) })
    }

    fn start(transcript: Transcript, rules: Rules) -> Self {
        let mut conversations: BTreeMap<u64, Conversation> = BTreeMap::new();
        for entry in transcript.entries() {
            match (&entry.what, conversations.get_mut(&entry.connection)) {
                (What::Opened(opening), _) => {
                    let (number, opening) = (entry.connection, opening.clone());
                    conversations.insert(number, Conversation { number, opening, happened: Vec::new() });
                }
                (what, Some(conversation)) => conversation.happened.push(what.clone()),
                (_, None) => {}
            }
        }
        let waiting = Mutex::new(conversations.into_values().collect());
        Self(Arc::new(Inner { rules, waiting, playing: Mutex::default() }))
    }

    /// The first thing that was said otherwise.
    fn mismatch(&self) -> Option<Mismatch> {
        lock(&self.0.playing).iter().find_map(|play| lock(play).differs().cloned())
    }

    /// Fails if something was said otherwise than recorded, or not said at all: with the first [`Mismatch`] as the error's reply.
    pub fn finish(&self) -> Result<()> {
        let unsaid = || lock(&self.0.playing).iter().find_map(|play| lock(play).unsaid());
        if let Some(mismatch) = self.mismatch().or_else(unsaid) {
            return Err(mismatch.into_error());
        }
        match lock(&self.0.waiting).first() {
            None => Ok(()),
            Some(Conversation { number, opening, .. }) => {
                Err(Error::usage(format!("connection {number} to {} was never opened", opening.to)))
            }
        }
    }

    /// The next connection to there.
    fn next(&self, to: &Endpoint, datagrams: bool) -> Result<(Shared, Opening)> {
        if let Some(mismatch) = self.mismatch() {
            // Whoever tries again is told what was wrong the first time.
            return Err(mismatch.into_error());
        }
        let mut waiting = lock(&self.0.waiting);
        let target = to.authority();
        let of_kind = |one: &&Conversation| one.opening.datagrams == datagrams;
        let exact = waiting.iter().find(|one| of_kind(one) && one.opening.to == target);
        let any = waiting.iter().find(|one| of_kind(one) && self.0.rules.mode == Mode::Loose);
        let Some(number) = exact.or(any).map(|one| one.number) else {
            let over = if datagrams { "datagrams" } else { "connection" };
            let message = format!("the transcript holds no further {over} to {target}");
            return Err(Error::new(Kind::Connect, message).with_phase(Phase::Connect).with_delivery(Delivery::NotSent));
        };
        let at = waiting.iter().position(|one| one.number == number).unwrap_or_default();
        let conversation = waiting.remove(at);
        let play = Arc::new(Mutex::new(Play::new(&conversation, self.0.rules.clone())));
        lock(&self.0.playing).push(play.clone());
        Ok((play, conversation.opening))
    }

    fn stream(&self, to: &Endpoint) -> Result<Stream> {
        let (play, opening) = self.next(to, false)?;
        let mut stream = Stream::from_io(PlayedStream(play.clone()));
        stream.info_mut().peer = opening.peer;
        stream.played_tls = Some(Arc::new(move || lock(&play).secure()));
        Ok(stream)
    }

    fn datagrams(&self, to: &Endpoint) -> Result<Datagram> {
        let (play, opening) = self.next(to, true)?;
        let peer = opening.peer.or(to.socket_addr()).unwrap_or((Ipv4Addr::UNSPECIFIED, to.port()).into());
        let mut datagram = Datagram::from_io(PlayedDatagrams { play, peer }, Some(to.clone()));
        datagram.info_mut().peer = opening.peer;
        Ok(datagram)
    }
}

impl Dial for Replay {
    fn dial<'a>(&'a self, to: &'a Endpoint, _: &'a DialContext) -> BoxFuture<'a, Result<Stream>> {
        Box::pin(async move { self.stream(to) })
    }

    fn datagram<'a>(&'a self, to: &'a Endpoint, _: &'a DialContext) -> BoxFuture<'a, Result<Datagram>> {
        Box::pin(async move { self.datagrams(to) })
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay")
            .field("rules", &self.0.rules)
            .field("waiting", &lock(&self.0.waiting).len())
            .finish_non_exhaustive()
    }
}

/// A stream whose peer is a transcript.
struct PlayedStream(Shared);

impl AsyncRead for PlayedStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut play = lock(&self.0);
        match play.hear()? {
            Some(mut bytes) => {
                let rest = bytes.split_off(bytes.len().min(buf.remaining()));
                buf.put_slice(&bytes);
                if !rest.is_empty() {
                    play.unhear(rest);
                }
                Poll::Ready(Ok(()))
            }
            None if play.broken => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            None if play.ended => Poll::Ready(Ok(())),
            None => {
                play.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for PlayedStream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        lock(&self.0).say(buf)?;
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.0).shut();
        Poll::Ready(Ok(()))
    }
}

/// Datagrams whose peer is a transcript.
#[derive(Debug)]
struct PlayedDatagrams {
    play: Shared,
    peer: SocketAddr,
}

impl DatagramIo for PlayedDatagrams {
    fn poll_send_to(&self, _: &mut Context<'_>, datagram: &[u8], _: &Endpoint) -> Poll<io::Result<()>> {
        Poll::Ready(lock(&self.play).say(datagram).map_err(Into::into))
    }

    fn poll_recv_from(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<SocketAddr>> {
        let mut play = lock(&self.play);
        match play.hear()? {
            Some(bytes) => {
                buf.put_slice(bytes.get(..buf.remaining()).unwrap_or(&bytes));
                Poll::Ready(Ok(self.peer))
            }
            None => {
                play.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok((Ipv4Addr::LOCALHOST, 0).into())
    }
}
