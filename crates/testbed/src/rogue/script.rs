//! What a rogue peer does, as data.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::tls::ServerTls;

/// What makes an answer from what was heard last.
pub(super) type Answer = Arc<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;

/// What a peer expects and says, step by step. After the last step the connection is closed.
#[derive(Clone, Default)]
pub struct Script {
    pub(super) steps: Vec<Step>,
}

#[derive(Clone)]
pub(super) enum Step {
    Expect(Bytes),
    ExpectUntil(Bytes),
    ExpectLen(usize),
    ExpectSome,
    ExpectClose,
    Skip,
    Send(Bytes),
    Split(Bytes, usize),
    Answer(Answer),
    Delay(Duration),
    Flood(Bytes, u64),
    StartTls(ServerTls),
    HalfClose,
    Stall,
    Close,
    Cut,
    Reset,
}

impl Script {
    /// Nothing yet: the connection is closed at once.
    pub fn new() -> Self {
        Self::default()
    }

    fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// The peer must send just this, in however many pieces. More than this is left for the next step.
    #[must_use]
    pub fn expect(self, bytes: impl AsRef<[u8]>) -> Self {
        self.step(Step::Expect(Bytes::copy_from_slice(bytes.as_ref())))
    }

    /// The peer must send something that ends with this.
    #[must_use]
    pub fn expect_until(self, end: impl AsRef<[u8]>) -> Self {
        self.step(Step::ExpectUntil(Bytes::copy_from_slice(end.as_ref())))
    }

    /// The peer must send this many bytes.
    #[must_use]
    pub fn expect_len(self, len: usize) -> Self {
        self.step(Step::ExpectLen(len))
    }

    /// The peer must send something; all that has come by then is taken.
    #[must_use]
    pub fn expect_some(self) -> Self {
        self.step(Step::ExpectSome)
    }

    /// The peer must close its side without another byte.
    #[must_use]
    pub fn expect_close(self) -> Self {
        self.step(Step::ExpectClose)
    }

    /// Reads whatever comes until the peer closes its side.
    #[must_use]
    pub fn skip(self) -> Self {
        self.step(Step::Skip)
    }

    /// Says this.
    #[must_use]
    pub fn send(self, bytes: impl AsRef<[u8]>) -> Self {
        self.step(Step::Send(Bytes::copy_from_slice(bytes.as_ref())))
    }

    /// Says this in pieces of that many bytes, each in a segment of its own.
    #[must_use]
    pub fn split(self, bytes: impl AsRef<[u8]>, piece: usize) -> Self {
        self.step(Step::Split(Bytes::copy_from_slice(bytes.as_ref()), piece.max(1)))
    }

    /// Says what this makes of what the last expectation heard: an id to copy, a challenge to answer.
    #[must_use]
    pub fn answer(self, make: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static) -> Self {
        self.step(Step::Answer(Arc::new(make)))
    }

    /// Does nothing for so long, by tokio's clock.
    #[must_use]
    pub fn delay(self, time: Duration) -> Self {
        self.step(Step::Delay(time))
    }

    /// Says this over and over until that many bytes are sent, or the peer has had enough.
    #[must_use]
    pub fn flood(self, pattern: impl AsRef<[u8]>, total: u64) -> Self {
        self.step(Step::Flood(Bytes::copy_from_slice(pattern.as_ref()), total))
    }

    /// From here on it is TLS, this side the server. What the peer sent too early is read as its hello.
    #[must_use]
    pub fn start_tls(self, tls: &ServerTls) -> Self {
        self.step(Step::StartTls(tls.clone()))
    }

    /// Says no more, but goes on listening: a FIN.
    #[must_use]
    pub fn half_close(self) -> Self {
        self.step(Step::HalfClose)
    }

    /// Silent, but still there and reading, until the peer leaves.
    #[must_use]
    pub fn stall(self) -> Self {
        self.step(Step::Stall)
    }

    /// Closes in good order; under TLS it says goodbye first. It is also what comes after the last step.
    #[must_use]
    pub fn close(self) -> Self {
        self.step(Step::Close)
    }

    /// Closes TCP under TLS's feet, without its goodbye: a truncation. Without TLS the same as [`close`](Self::close).
    #[must_use]
    pub fn cut(self) -> Self {
        self.step(Step::Cut)
    }

    /// Ends with an RST (SO_LINGER 0); over a [`Pipe`](super::Pipe) the peer sees `ConnectionReset` as well.
    #[must_use]
    pub fn reset(self) -> Self {
        self.step(Step::Reset)
    }

    /// The steps of `next` after these.
    #[must_use]
    pub fn then(mut self, next: Self) -> Self {
        self.steps.extend(next.steps);
        self
    }

    /// These steps so many times.
    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        let once = self.steps.clone();
        self.steps = (0..times).flat_map(|_| once.clone()).collect();
        self
    }

    /// The same with every [`send`](Self::send) in pieces of so many bytes.
    #[must_use]
    pub fn in_pieces(mut self, piece: usize) -> Self {
        for step in &mut self.steps {
            if let Step::Send(bytes) = step {
                *step = Step::Split(bytes.clone(), piece.max(1));
            }
        }
        self
    }

    /// How many steps there are.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.steps).finish()
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expect(bytes) => write!(f, "expect {}", shown(bytes)),
            Self::ExpectUntil(end) => write!(f, "expect anything up to {}", shown(end)),
            Self::ExpectLen(len) => write!(f, "expect {len} bytes"),
            Self::ExpectSome => write!(f, "expect something"),
            Self::ExpectClose => write!(f, "expect the peer to close"),
            Self::Skip => write!(f, "read until the peer closes"),
            Self::Send(bytes) => write!(f, "send {}", shown(bytes)),
            Self::Split(bytes, piece) => write!(f, "send {} in pieces of {piece}", shown(bytes)),
            Self::Answer(_) => write!(f, "answer"),
            Self::Delay(time) => write!(f, "wait {time:?}"),
            Self::Flood(pattern, total) => write!(f, "flood with {total} bytes of {}", shown(pattern)),
            Self::StartTls(_) => write!(f, "start TLS"),
            Self::HalfClose => write!(f, "close this side"),
            Self::Stall => write!(f, "stall"),
            Self::Close => write!(f, "close"),
            Self::Cut => write!(f, "cut"),
            Self::Reset => write!(f, "reset"),
        }
    }
}

/// Bytes as a person reads them, long ones shortened.
pub(super) fn shown(bytes: &[u8]) -> String {
    const LONGEST: usize = 200;
    if bytes.len() <= LONGEST {
        return format!("b\"{}\"", bytes.escape_ascii());
    }
    let (head, tail) = (&bytes[..LONGEST / 2], &bytes[bytes.len() - LONGEST / 4..]);
    format!("b\"{}\" .. b\"{}\" ({} bytes)", head.escape_ascii(), tail.escape_ascii(), bytes.len())
}
