//! Reading, strictly as RFC 9651 4.2 has it: what breaks a rule is no value at all.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use portolan_wire::DecodeError;

use super::{Bare, InnerList, Item, MAX_FIELD, Member, Params, put};

/// Members, items and parameters of one field: four times what everybody must take (RFC 9651 3).
const MAX_PARTS: usize = 4096;

/// Padding may be missing, and bits that are left over are not looked at (RFC 9651 4.2.7).
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

pub(super) struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    parts: usize,
}

impl<'a> Parser<'a> {
    /// The whole field as one value.
    pub(super) fn whole<T>(
        field: &'a [u8],
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        if field.len() > MAX_FIELD {
            return Err(DecodeError::too_long("structured field", MAX_FIELD));
        }
        let mut parser = Self { bytes: field, at: 0, parts: 0 };
        parser.skip(b" ");
        let value = read(&mut parser)?;
        parser.skip(b" ");
        if parser.peek().is_some() { Err(parser.invalid("end of a structured field")) } else { Ok(value) }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at = self.at.saturating_add(1);
        Some(byte)
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.at = self.at.saturating_add(1);
        }
        found
    }

    fn skip(&mut self, any: &[u8]) {
        while self.peek().is_some_and(|byte| any.contains(&byte)) {
            self.at = self.at.saturating_add(1);
        }
    }

    /// The bytes that `belongs` says yes to.
    fn run(&mut self, belongs: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|byte| !belongs(*byte)).unwrap_or(rest.len());
        self.at = self.at.saturating_add(length);
        rest.get(..length).unwrap_or_default()
    }

    fn invalid(&self, what: &'static str) -> DecodeError {
        if self.at >= self.bytes.len() {
            DecodeError::truncated(what, self.bytes.len())
        } else {
            DecodeError::invalid(what, self.at)
        }
    }

    fn count(&mut self) -> Result<(), DecodeError> {
        self.parts = self.parts.saturating_add(1);
        if self.parts > MAX_PARTS { Err(DecodeError::too_long("structured field", self.at)) } else { Ok(()) }
    }

    /// Whether another member follows.
    fn comma(&mut self) -> Result<bool, DecodeError> {
        self.skip(b" \t");
        if self.peek().is_none() {
            return Ok(false);
        }
        if !self.take(b',') {
            return Err(self.invalid("comma"));
        }
        self.skip(b" \t");
        if self.peek().is_none() { Err(self.invalid("member")) } else { Ok(true) }
    }

    pub(super) fn list(&mut self) -> Result<Vec<Member>, DecodeError> {
        let mut members = Vec::new();
        let mut more = self.peek().is_some();
        while more {
            members.push(self.member()?);
            more = self.comma()?;
        }
        Ok(members)
    }

    pub(super) fn dictionary(&mut self) -> Result<Vec<(String, Member)>, DecodeError> {
        let mut members = Vec::new();
        let mut more = self.peek().is_some();
        while more {
            let name = self.key()?;
            let member = if self.take(b'=') {
                self.member()?
            } else {
                self.count()?;
                Member::Item(Item { value: Bare::Boolean(true), params: self.params()? })
            };
            put(&mut members, name, member);
            more = self.comma()?;
        }
        Ok(members)
    }

    fn member(&mut self) -> Result<Member, DecodeError> {
        if self.peek() == Some(b'(') { self.inner_list().map(Member::List) } else { self.item().map(Member::Item) }
    }

    fn inner_list(&mut self) -> Result<InnerList, DecodeError> {
        self.count()?;
        self.take(b'(');
        let mut items = Vec::new();
        loop {
            self.skip(b" ");
            if self.take(b')') {
                return Ok(InnerList { items, params: self.params()? });
            }
            items.push(self.item()?);
            if !matches!(self.peek(), Some(b' ' | b')')) {
                return Err(self.invalid("inner list"));
            }
        }
    }

    pub(super) fn item(&mut self) -> Result<Item, DecodeError> {
        self.count()?;
        Ok(Item { value: self.bare()?, params: self.params()? })
    }

    fn params(&mut self) -> Result<Params, DecodeError> {
        let mut params = Vec::new();
        while self.take(b';') {
            self.count()?;
            self.skip(b" ");
            let name = self.key()?;
            let value = if self.take(b'=') { self.bare()? } else { Bare::Boolean(true) };
            put(&mut params, name, value);
        }
        Ok(Params(params))
    }

    fn key(&mut self) -> Result<String, DecodeError> {
        if !self.peek().is_some_and(|byte| byte.is_ascii_lowercase() || byte == b'*') {
            return Err(self.invalid("key"));
        }
        let key = self.run(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte));
        Ok(text(key))
    }

    fn bare(&mut self) -> Result<Bare, DecodeError> {
        match self.peek() {
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'"') => self.string().map(Bare::String),
            Some(b'*' | b'a'..=b'z' | b'A'..=b'Z') => Ok(Bare::Token(text(self.run(is_token)))),
            Some(b':') => self.byte_sequence(),
            Some(b'?') => {
                self.take(b'?');
                match self.next() {
                    Some(b'0') => Ok(Bare::Boolean(false)),
                    Some(b'1') => Ok(Bare::Boolean(true)),
                    _ => Err(self.invalid("boolean")),
                }
            }
            Some(b'@') => {
                self.take(b'@');
                match self.number()? {
                    Bare::Integer(seconds) => Ok(Bare::Date(seconds)),
                    _ => Err(self.invalid("date")),
                }
            }
            Some(b'%') => self.display().map(Bare::Display),
            _ => Err(self.invalid("value")),
        }
    }

    fn number(&mut self) -> Result<Bare, DecodeError> {
        let minus = self.take(b'-');
        let whole = self.run(|byte| byte.is_ascii_digit());
        let value = |digits: &[u8]| {
            digits.iter().fold(0_i64, |value, digit| {
                value.saturating_mul(10).saturating_add(i64::from(digit.saturating_sub(b'0')))
            })
        };
        let sign = |value: i64| if minus { value.saturating_neg() } else { value };
        if whole.is_empty() || whole.len() > 15 {
            return Err(self.invalid("number"));
        }
        if !self.take(b'.') {
            return Ok(Bare::Integer(sign(value(whole))));
        }
        let fraction = self.run(|byte| byte.is_ascii_digit());
        let thousandths = match fraction.len() {
            1 => value(fraction).saturating_mul(100),
            2 => value(fraction).saturating_mul(10),
            3 => value(fraction),
            _ => return Err(self.invalid("decimal")),
        };
        if whole.len() > 12 {
            return Err(self.invalid("decimal"));
        }
        Ok(Bare::Decimal(sign(value(whole).saturating_mul(1000).saturating_add(thousandths))))
    }

    fn string(&mut self) -> Result<String, DecodeError> {
        self.take(b'"');
        let mut out = String::new();
        loop {
            match self.next() {
                Some(b'"') => return Ok(out),
                Some(b'\\') => match self.next() {
                    Some(byte @ (b'"' | b'\\')) => out.push(char::from(byte)),
                    _ => return Err(self.invalid("string")),
                },
                Some(byte @ 0x20..=0x7e) => out.push(char::from(byte)),
                _ => return Err(self.invalid("string")),
            }
        }
    }

    fn byte_sequence(&mut self) -> Result<Bare, DecodeError> {
        self.take(b':');
        let content = self.run(|byte| byte != b':');
        if !self.take(b':') {
            return Err(self.invalid("byte sequence"));
        }
        BASE64.decode(content).map(Bare::Bytes).map_err(|_| DecodeError::invalid("byte sequence", self.at))
    }

    /// RFC 9651 4.2.10.
    fn display(&mut self) -> Result<String, DecodeError> {
        self.take(b'%');
        if !self.take(b'"') {
            return Err(self.invalid("display string"));
        }
        let mut out = Vec::new();
        loop {
            match self.next() {
                Some(b'"') => break,
                Some(b'%') => {
                    let digit = |byte: Option<u8>| match byte {
                        Some(byte @ (b'0'..=b'9' | b'a'..=b'f')) => char::from(byte).to_digit(16),
                        _ => None,
                    };
                    let (high, low) = (digit(self.next()), digit(self.next()));
                    let byte = high.zip(low).map(|(high, low)| high.saturating_mul(16).saturating_add(low));
                    let byte = byte.and_then(|byte| u8::try_from(byte).ok());
                    out.push(byte.ok_or_else(|| self.invalid("display string"))?);
                }
                Some(byte @ 0x20..=0x7e) => out.push(byte),
                _ => return Err(self.invalid("display string")),
            }
        }
        String::from_utf8(out).map_err(|_| DecodeError::invalid("display string", self.at))
    }
}

/// Of a token, but for its first.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte)
}

fn text(ascii: &[u8]) -> String {
    ascii.iter().map(|byte| char::from(*byte)).collect()
}
