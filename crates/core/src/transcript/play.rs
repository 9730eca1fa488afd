//! One connection that is played.

use std::collections::VecDeque;
use std::task::Waker;

use super::dns::Dns;
use super::entry::{Piece, TlsFacts, What, append};
use super::matching::{self, Match};
use super::replay::{Mismatch, Mode, Rules};
use super::websocket::{self, Frames};
use crate::error::{Error, Result};
use crate::info::TlsInfo;

/// How much of what was expected and seen an error shows.
const SHOWN: usize = 120;

/// A secret of the peer's that is longer than this was never recorded: someone else wrote the file.
const LONGEST: usize = 64 << 20;

/// How far a connection has been played.
#[derive(Debug)]
pub(super) struct Play {
    pub(super) rules: Rules,
    /// Its number in the transcript, and its target.
    connection: u64,
    to: String,
    datagrams: bool,
    /// TLS that was begun before anything was said, until it is.
    tls: Option<TlsFacts>,
    steps: VecDeque<What>,
    dialect: Dialect,
    /// What is said and not yet matched: one run, or one for each datagram.
    said: VecDeque<Vec<u8>>,
    /// How much was matched.
    matched: usize,
    heard: VecDeque<Vec<u8>>,
    shut: bool,
    pub(super) ended: bool,
    pub(super) broken: bool,
    /// What came otherwise than recorded: nothing more is played.
    differs: Option<Mismatch>,
    pub(super) reader: Option<Waker>,
}

/// What is made of random numbers.
#[derive(Debug)]
enum Dialect {
    Plain,
    Dns(Dns),
    /// The recorded answer to the key, the client's bytes until its handshake is whole, and its frames after that.
    WebSocket {
        accept: String,
        head: Vec<u8>,
        live: Option<(String, Frames)>,
    },
}

impl Play {
    pub(super) fn new(connection: &super::replay::Conversation, rules: Rules) -> Self {
        let super::replay::Conversation { number, opening, happened } = connection;
        let datagrams = opening.datagrams;
        let mut steps: VecDeque<What> = VecDeque::new();
        for what in happened {
            match (steps.back_mut(), what) {
                (Some(What::Sent(before)), What::Sent(more)) if !datagrams => {
                    more.iter().for_each(|piece| append(before, piece.clone()));
                }
                (Some(What::Received(before)), What::Received(more)) if !datagrams => {
                    more.iter().for_each(|piece| append(before, piece.clone()));
                }
                _ => steps.push_back(what.clone()),
            }
        }
        let dialect = Dialect::of(&mut steps, datagrams);
        let mut play = Self {
            rules,
            connection: *number,
            to: opening.to.clone(),
            datagrams,
            tls: opening.tls.clone(),
            steps,
            dialect,
            said: VecDeque::new(),
            matched: 0,
            heard: VecDeque::new(),
            shut: false,
            ended: false,
            broken: false,
            differs: None,
            reader: None,
        };
        play.go_on(false);
        play
    }

    /// The client says something.
    pub(super) fn say(&mut self, bytes: &[u8]) -> Result<()> {
        let bytes = self.dialect.said(bytes);
        match self.said.back_mut() {
            Some(before) if !self.datagrams => before.extend(bytes),
            _ if bytes.is_empty() => {}
            _ => self.said.push_back(bytes),
        }
        if self.tls.is_some() && !self.said.is_empty() {
            self.differ(0, "TLS, which was begun before anything was said");
        }
        self.go_on(false);
        // Whoever waits already asks again, by which a turn of a loose replay ends.
        self.wake();
        self.check()
    }

    /// The client says that it will say no more.
    pub(super) fn shut(&mut self) {
        self.shut = true;
        self.go_on(false);
        self.wake();
    }

    /// What there is to be heard; the client waits for it, and so has said what it had to say.
    pub(super) fn hear(&mut self) -> Result<Option<Vec<u8>>> {
        if self.heard.is_empty() {
            self.go_on(true);
        }
        match self.heard.pop_front() {
            Some(bytes) => Ok(Some(bytes)),
            None => self.check().map(|()| None),
        }
    }

    /// Puts back what was more than there was room for.
    pub(super) fn unhear(&mut self, rest: Vec<u8>) {
        self.heard.push_front(rest);
    }

    /// The client begins TLS.
    pub(super) fn secure(&mut self) -> Result<TlsInfo> {
        if let Some(facts) = self.tls.take() {
            return Ok((&facts).into());
        }
        self.check()?;
        if !matches!(self.steps.front(), Some(What::Secured(_))) || !self.said.is_empty() {
            self.differ(0, "no TLS");
        }
        match self.steps.pop_front() {
            Some(What::Secured(facts)) if self.differs.is_none() => {
                self.go_on(false);
                Ok((&facts).into())
            }
            _ => self.check().and_then(|()| Err(Error::usage("no TLS was recorded"))),
        }
    }

    /// What is left to be said, if anything is.
    pub(super) fn unsaid(&self) -> Option<Mismatch> {
        if self.differs.is_some() {
            return self.differs.clone();
        }
        let left =
            self.steps.iter().find_map(|step| if let What::Sent(pieces) = step { Some(pieces) } else { None })?;
        Some(self.mismatch(0, &matching::shown(left), b""))
    }

    pub(super) fn differs(&self) -> Option<&Mismatch> {
        self.differs.as_ref()
    }

    fn check(&self) -> Result<()> {
        match &self.differs {
            None => Ok(()),
            Some(mismatch) => Err(mismatch.clone().into_error()),
        }
    }

    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Goes as far as what was said allows; `waits` if the client waits for an answer.
    fn go_on(&mut self, mut waits: bool) {
        while self.differs.is_none() {
            let Some(step) = self.steps.front() else { break };
            match step {
                What::Sent(recorded) => {
                    let Some(said) = self.said.front() else { break };
                    let same = match self.rules.compare(recorded, said) {
                        // A datagram is one turn, whole and no more.
                        Match::Begun if self.datagrams => Match::Differs(said.len()),
                        Match::Whole(taken) if self.datagrams && taken < said.len() => Match::Differs(taken),
                        same => same,
                    };
                    let taken = match same {
                        Match::Whole(taken) => taken.min(said.len()),
                        Match::Begun if !self.datagrams && self.rules.mode() == Mode::Strict => break,
                        Match::Differs(at) if self.rules.mode() == Mode::Strict || self.rules.has_matcher() => {
                            let expected = matching::shown(recorded);
                            self.differs = Some(self.mismatch(at, &expected, said));
                            break;
                        }
                        Match::Begun if self.rules.has_matcher() && !self.datagrams => break,
                        // Any turn will do; it ends when an answer is waited for.
                        _ if self.datagrams || waits => said.len(),
                        _ => break,
                    };
                    waits = false;
                    self.take(taken);
                }
                What::Received(pieces) => {
                    let mut bytes = Vec::new();
                    for piece in pieces {
                        match piece {
                            Piece::Bytes(more) => bytes.extend_from_slice(more),
                            Piece::Hidden(length) => bytes.extend(std::iter::repeat_n(b'*', (*length).min(LONGEST))),
                        }
                    }
                    self.dialect.heard(&mut bytes);
                    self.heard.push_back(bytes);
                }
                What::Ended => self.ended = true,
                What::Broken => self.broken = true,
                What::Shutdown if !self.shut && self.rules.mode() == Mode::Strict => break,
                What::Secured(_) => break,
                What::LeftOut(why) => {
                    let why = format!("what was left out: {why}");
                    self.differ(0, &why);
                    break;
                }
                What::Opened(_) | What::Shutdown | What::Closed => {}
            }
            self.steps.pop_front();
        }
        // What comes where nothing more was said, or where TLS should begin.
        let over = matches!(self.steps.front(), None | Some(What::Secured(_) | What::Shutdown));
        if self.differs.is_none() && over && self.said.iter().any(|said| !said.is_empty()) {
            self.differ(0, if self.steps.is_empty() { "nothing more" } else { "TLS, or the end" });
        }
    }

    fn take(&mut self, taken: usize) {
        self.matched += taken;
        if let Some(said) = self.said.front_mut() {
            said.drain(..taken);
            if self.datagrams || said.is_empty() {
                self.said.pop_front();
            }
        }
    }

    fn differ(&mut self, at: usize, expected: &str) {
        let seen = self.said.front().cloned().unwrap_or_default();
        self.differs = Some(self.mismatch(at, expected.as_bytes(), &seen));
    }

    fn mismatch(&self, at: usize, expected: &[u8], seen: &[u8]) -> Mismatch {
        let text = |bytes: &[u8]| {
            let from = at.saturating_sub(SHOWN / 4).min(bytes.len());
            let part = bytes.get(from..bytes.len().min(from + SHOWN)).unwrap_or_default();
            part.escape_ascii().to_string()
        };
        Mismatch {
            connection: self.connection,
            to: self.to.clone(),
            offset: self.matched + at,
            expected: text(expected),
            seen: text(seen),
        }
    }
}

impl Dialect {
    /// Finds out what is spoken, and makes what was recorded of it comparable.
    fn of(steps: &mut VecDeque<What>, datagrams: bool) -> Self {
        let literal = |pieces: &[Piece]| matches!(pieces, [Piece::Bytes(_)]).then(|| matching::shown(pieces));
        let said = steps.iter().find_map(|step| if let What::Sent(said) = step { literal(said) } else { None });
        let heard = steps.iter().find_map(|step| if let What::Received(heard) = step { literal(heard) } else { None });
        let dns = said.zip(heard).and_then(|(said, heard)| Dns::of(&said, &heard, !datagrams));
        if let Some(mut dns) = dns {
            for step in steps.iter_mut() {
                if let What::Sent(pieces) = step
                    && let [Piece::Bytes(bytes)] = pieces.as_mut_slice()
                {
                    *bytes = dns.recorded(bytes);
                }
            }
            return Self::Dns(dns);
        }
        let mut key = None;
        for pieces in
            steps.iter_mut().filter_map(|step| if let What::Sent(pieces) = step { Some(pieces) } else { None })
        {
            let at =
                pieces.iter().position(|piece| matches!(piece, Piece::Bytes(bytes) if websocket::key(bytes).is_some()));
            let Some(at) = at else { continue };
            let Some(Piece::Bytes(bytes)) = pieces.get(at) else { continue };
            let Some(range) = websocket::key(bytes) else { continue };
            let part = |range: std::ops::Range<usize>| bytes.get(range).unwrap_or_default().to_vec();
            let (before, after) = (part(0..range.start), part(range.end..bytes.len()));
            key = Some(websocket::accept(&part(range)));
            pieces.splice(at..=at, [Piece::Bytes(before), Piece::Hidden(0), Piece::Bytes(after)]);
            break;
        }
        key.map_or(Self::Plain, |accept| Self::WebSocket { accept, head: Vec::new(), live: None })
    }

    /// What is said, as it is compared.
    fn said(&mut self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Plain => bytes.to_vec(),
            Self::Dns(dns) => dns.said(bytes),
            Self::WebSocket { live: Some((_, frames)), .. } => {
                let mut bytes = bytes.to_vec();
                frames.unmask(&mut bytes);
                bytes
            }
            Self::WebSocket { head, live, .. } => {
                let before = head.len();
                head.extend_from_slice(bytes);
                let mut bytes = bytes.to_vec();
                if let Some((key, end)) = websocket::handshake(head) {
                    let accept = websocket::accept(head.get(key).unwrap_or_default());
                    let mut frames = Frames::default();
                    frames.unmask(bytes.get_mut(end.saturating_sub(before)..).unwrap_or_default());
                    *live = Some((accept, frames));
                    head.clear();
                }
                bytes
            }
        }
    }

    /// What was heard, as this client must hear it.
    fn heard(&self, bytes: &mut [u8]) {
        match self {
            Self::Dns(dns) => dns.heard(bytes),
            Self::WebSocket { accept, live: Some((answer, _)), .. } => {
                let at = memchr::memmem::find(bytes, accept.as_bytes());
                let place = at.and_then(|at| bytes.get_mut(at..at + answer.len()));
                if let Some(place) = place.filter(|place| place.len() == answer.len()) {
                    place.copy_from_slice(answer.as_bytes());
                }
            }
            _ => {}
        }
    }
}
