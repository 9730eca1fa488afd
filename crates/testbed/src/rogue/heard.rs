//! What a script heard, and why it ended.

use std::fmt;
use std::io;

use super::script::{Script, Step, shown};

/// What is kept of what the peer says; the rest is counted.
const KEPT: usize = 16 << 20;

/// What one connection's script heard, and why it ended.
#[derive(Debug, Clone)]
pub struct Heard {
    pub(super) index: usize,
    pub(super) bytes: Vec<u8>,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) at: usize,
    pub(super) steps: Vec<String>,
    pub(super) end: End,
}

/// Why a script ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// It has not yet.
    Running,
    /// Every step was done.
    Done,
    /// The peer left while this side was speaking or stalling. Most peers of a rogue should.
    Left(io::ErrorKind),
    /// The peer said something else than was expected; this tells what.
    Mismatch(String),
    /// The TLS handshake failed: the peer did not trust us, or said something else.
    Tls(String),
}

impl Heard {
    pub(super) fn new(index: usize, script: &Script) -> Self {
        let steps = script.steps.iter().map(|step: &Step| format!("{step:?}")).collect();
        Self { index, bytes: Vec::new(), received: 0, sent: 0, at: 0, steps, end: End::Running }
    }

    pub(super) fn hears(&mut self, bytes: &[u8]) {
        self.received += bytes.len() as u64;
        let room = KEPT.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Which connection it was, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Everything the peer said (16 MiB are kept), also what no step asked for.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The same as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// How many bytes the peer said, kept or not.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// How many bytes were said to it.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Why it ended.
    pub fn end(&self) -> &End {
        &self.end
    }

    /// Fails the test unless every step was done.
    #[track_caller]
    pub fn assert_done(&self) -> &Self {
        assert!(self.end == End::Done, "{self}");
        self
    }

    /// Fails the test if the peer said something else than was expected.
    #[track_caller]
    pub fn assert_expected(&self) -> &Self {
        assert!(!matches!(self.end, End::Mismatch(_) | End::Running), "{self}");
        self
    }
}

impl fmt::Display for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection {}", self.index)?;
        match self.steps.get(self.at) {
            Some(step) => write!(f, ", step {} of {} ({step}): ", self.at + 1, self.steps.len())?,
            None => write!(f, ", after its {} steps: ", self.steps.len())?,
        }
        match &self.end {
            End::Running => write!(f, "not done; heard so far: {}", shown(&self.bytes)),
            End::Done => write!(f, "done"),
            End::Left(kind) => write!(f, "the peer left ({kind}) after it had heard {} bytes", self.sent),
            End::Mismatch(what) => write!(f, "{what}"),
            End::Tls(what) => write!(f, "TLS failed: {what}"),
        }
    }
}
