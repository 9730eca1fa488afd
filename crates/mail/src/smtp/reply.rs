//! Replies: three digits and text, on one line or many (RFC 5321 4.2), with enhanced codes (RFC 2034).

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use std::fmt;

use bytes::BytesMut;
use portolan_core::{Delivery, Error, Kind};
use portolan_wire::{Codec, DecodeError, LineRule, Lines};

use super::PROTOCOL;

/// The bytes of one reply line. RFC 5321 4.5.3.1.5 says 512; servers with long greetings say more.
const MAX_LINE: usize = 4096;

/// The lines of one reply: the longest EHLO answers have about thirty.
const MAX_LINES: usize = 256;

/// What a server said.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reply {
    /// The three digits.
    pub code: u16,
    /// Class, subject and detail, where the server gives them: `5.1.1`.
    pub enhanced: Option<(u8, u16, u16)>,
    /// The text of each line, without codes.
    pub lines: Vec<String>,
}

impl Reply {
    /// 2xx: done.
    pub fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// 3xx: go on.
    pub fn is_intermediate(&self) -> bool {
        self.code / 100 == 3
    }

    /// 4xx: not now.
    pub fn is_transient(&self) -> bool {
        self.code / 100 == 4
    }

    /// All lines in one.
    pub fn text(&self) -> String {
        self.lines.join(" ")
    }

    /// As an error of the workspace. 421 says that the server closes without having done anything of it (RFC 5321 3.8); other
    /// 4xx replies refuse the command for now.
    pub(crate) fn into_error(self) -> Error {
        let kind = match self.code {
            530 | 534 | 535 | 538 => Kind::Auth,
            _ => Kind::Server,
        };
        let delivery = if self.is_transient() { Delivery::Refused } else { Delivery::Answered };
        let error = Error::new(kind, self.text()).with_protocol(PROTOCOL).with_code(i64::from(self.code));
        error.with_delivery(delivery).with_reply(self)
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some((class, subject, detail)) = self.enhanced {
            write!(f, " {class}.{subject}.{detail}")?;
        }
        write!(f, " {}", self.text())
    }
}

/// Commands out, replies in.
#[derive(Debug, Clone)]
pub struct SmtpCodec {
    lines: Lines,
    code: Option<u16>,
    text: Vec<String>,
}

impl Default for SmtpCodec {
    fn default() -> Self {
        // Some servers end their greeting with a bare LF; a reply line cannot carry anything through that.
        Self { lines: Lines::new(PROTOCOL, LineRule::Lenient, MAX_LINE), code: None, text: Vec::new() }
    }
}

impl Codec for SmtpCodec {
    type Frame = Reply;
    type Out = str;

    fn protocol(&self) -> &'static str {
        PROTOCOL
    }

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Reply>, DecodeError> {
        while let Some(line) = self.lines.decode(src)? {
            let (code, last, text) = parts(&line)?;
            if self.code.is_some_and(|first| first != code) {
                return Err(DecodeError::invalid("code of a continued reply", 0));
            }
            if self.text.len() >= MAX_LINES {
                return Err(DecodeError::too_long("reply", 0));
            }
            self.code = Some(code);
            self.text.push(text);
            if last {
                self.code = None;
                return Ok(Some(reply(code, std::mem::take(&mut self.text))));
            }
        }
        Ok(None)
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Reply>, DecodeError> {
        match self.decode(src)? {
            Some(reply) => Ok(Some(reply)),
            None if src.is_empty() && self.code.is_none() => Ok(None),
            None => Err(DecodeError::truncated("reply", src.len())),
        }
    }

    /// One command line; CR, LF or NUL in it is a usage error.
    fn encode(&mut self, item: &str, dst: &mut BytesMut) -> portolan_core::Result<()> {
        self.lines.encode(item.as_bytes(), dst)
    }
}

/// Code, whether it is the last line, text.
fn parts(line: &[u8]) -> Result<(u16, bool, String), DecodeError> {
    let bad = || DecodeError::invalid("reply code", 0);
    let code = line.get(..3).filter(|code| code.iter().all(u8::is_ascii_digit)).ok_or_else(bad)?;
    let code: u16 = std::str::from_utf8(code).ok().and_then(|code| code.parse().ok()).ok_or_else(bad)?;
    if !(200..=599).contains(&code) {
        return Err(bad());
    }
    let last = match line.get(3) {
        None | Some(b' ') => true,
        Some(b'-') => false,
        Some(_) => return Err(DecodeError::invalid("separator after the reply code", 3)),
    };
    Ok((code, last, String::from_utf8_lossy(line.get(4..).unwrap_or_default()).into_owned()))
}

fn reply(code: u16, mut lines: Vec<String>) -> Reply {
    let enhanced = lines.first().and_then(|line| enhanced(line)).filter(|(class, ..)| u16::from(*class) == code / 100);
    if enhanced.is_some() {
        for line in &mut lines {
            if let Some((first, rest)) = line.split_once(' ')
                && first.split('.').count() == 3
            {
                *line = rest.to_owned();
            }
        }
    }
    Reply { code, enhanced, lines }
}

fn enhanced(line: &str) -> Option<(u8, u16, u16)> {
    let mut parts = line.split(' ').next()?.splitn(3, '.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}
