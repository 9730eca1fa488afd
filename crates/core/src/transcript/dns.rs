//! DNS within a conversation: ids, and the case of names, which clients pick at random (RFC 5452).

/// A header and the shortest question.
const SHORTEST: usize = 12 + 5;

/// Questions and answers of one flow, matched by their ids.
#[derive(Debug, Default)]
pub(super) struct Dns {
    /// Whether each message has its length in front, as over TCP.
    framed: bool,
    /// The ids of the recorded questions, in their order.
    recorded: Vec<[u8; 2]>,
    /// The questions asked now.
    asked: Vec<Vec<u8>>,
    /// A frame that is not whole yet.
    begun: Vec<u8>,
}

impl Dns {
    /// If the first thing said is a question, and the first thing heard its answer.
    pub(super) fn of(first_said: &[u8], first_heard: &[u8], framed: bool) -> Option<Self> {
        let message = |bytes: &[u8]| -> Option<Vec<u8>> {
            if !framed {
                return Some(bytes.to_vec());
            }
            let (length, rest) = bytes.split_first_chunk::<2>()?;
            rest.get(..usize::from(u16::from_be_bytes(*length))).map(<[u8]>::to_vec)
        };
        let (asked, answer) = (message(first_said)?, message(first_heard)?);
        let is_question = asked.len() >= SHORTEST && asked.get(2)? & 0xf8 == 0 && asked.get(4..6)? == [0, 1];
        let is_answer = answer.len() >= 12 && answer.get(2)? & 0xf8 == 0x80 && answer.get(..2) == asked.get(..2);
        (is_question && is_answer).then(|| Self { framed, ..Self::default() })
    }

    /// What was said when it was recorded, as it is compared.
    pub(super) fn recorded(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut ids = Vec::new();
        let out = self.canonical(bytes, |message| ids.extend(message.first_chunk::<2>().copied()));
        self.recorded.extend(ids);
        out
    }

    /// What is said now, as it is compared.
    pub(super) fn said(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut asked = Vec::new();
        let out = self.canonical(bytes, |message| asked.push(message.to_vec()));
        self.asked.extend(asked);
        out
    }

    /// An answer that was recorded, for those who ask now.
    pub(super) fn heard(&self, bytes: &mut [u8]) {
        if !self.framed {
            return self.patch(bytes);
        }
        let mut rest = bytes;
        while let Some((length, more)) = rest.split_first_chunk_mut::<2>() {
            let length = usize::from(u16::from_be_bytes(*length));
            let Some((message, more)) = more.split_at_mut_checked(length) else { return };
            self.patch(message);
            rest = more;
        }
    }

    fn patch(&self, message: &mut [u8]) {
        let id = message.get(..2).unwrap_or_default();
        let Some(asked) = self.recorded.iter().position(|one| one == id).and_then(|n| self.asked.get(n)) else {
            return;
        };
        if let (Some(to), Some(from)) = (message.get_mut(..2), asked.get(..2)) {
            to.copy_from_slice(from);
        }
        // The question, with its name's own case: its end is the zero label and four bytes.
        let length = asked.get(12..).and_then(|name| memchr::memchr(0, name)).map_or(0, |at| at + 5);
        if let (Some(to), Some(from)) = (message.get_mut(12..12 + length), asked.get(12..12 + length))
            && to.eq_ignore_ascii_case(from)
        {
            to.copy_from_slice(from);
        }
    }

    fn canonical(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) -> Vec<u8> {
        let plain = |message: &[u8]| {
            let mut out = message.to_ascii_lowercase();
            out.iter_mut().take(2).for_each(|byte| *byte = 0);
            out
        };
        if !self.framed {
            each(bytes);
            return plain(bytes);
        }
        self.begun.extend_from_slice(bytes);
        let (mut out, mut at) = (Vec::new(), 0);
        while let Some((length, rest)) = self.begun.get(at..).and_then(<[u8]>::split_first_chunk::<2>) {
            let whole = usize::from(u16::from_be_bytes(*length));
            let Some(message) = rest.get(..whole) else { break };
            each(message);
            out.extend_from_slice(length);
            out.extend(plain(message));
            at += 2 + whole;
        }
        self.begun.drain(..at);
        out
    }
}
