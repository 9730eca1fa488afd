//! The JSON values of a stream: one after the other, or as the elements of an array.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use bytes::{Buf, Bytes, BytesMut};
use portolan_core::{Error, Result};
use portolan_wire::{Codec, DecodeError};

use crate::PROTOCOL;

/// Finds where values end; what they say is seen by whoever reads them.
///
/// An array around them all is told from its first byte: messages are objects, so a stream that begins with `[` is one array.
#[derive(Debug, Clone)]
pub struct Values {
    max: usize,
    /// Whether the stream is an array; `None` before its first byte.
    array: Option<bool>,
    /// The array was closed.
    closed: bool,
    /// Whether a comma, or the beginning, allows for a value. Of importance in arrays alone.
    wants: Wants,
    /// The value that has begun.
    value: Option<Begun>,
    /// How many of its bytes were looked at.
    seen: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wants {
    /// A value, or the array's end.
    First,
    /// A comma, or the array's end.
    Comma,
    /// A value.
    Value,
}

/// A value that has begun, by its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begun {
    /// An object or an array, so many levels deep.
    Nested { depth: usize, text: Text },
    /// A string.
    String(Text),
    /// A number or a word: it ends where something else begins.
    Bare,
}

/// Within a string, and behind a backslash there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    Out,
    In,
    Escaped,
}

impl Text {
    fn step(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::Out, b'"') | (Self::Escaped, _) => Self::In,
            (Self::In, b'"') => Self::Out,
            (Self::In, b'\\') => Self::Escaped,
            (same, _) => same,
        }
    }
}

impl Values {
    /// Values of at most `max` bytes each.
    pub fn new(max: usize) -> Self {
        Self { max, array: None, closed: false, wants: Wants::First, value: None, seen: 0 }
    }

    /// Whether what has come so far may be all: no value is open, nor the array around them.
    pub fn is_complete(&self) -> bool {
        self.value.is_none() && (self.closed || self.array != Some(true))
    }

    /// Whether they are the elements of an array.
    pub fn is_array(&self) -> bool {
        self.array == Some(true)
    }

    /// Takes what stands between values, up to the first byte of the next. `false` needs more bytes.
    fn begin(&mut self, src: &mut BytesMut) -> Result<bool, DecodeError> {
        while let Some(&byte) = src.first() {
            let array = self.array == Some(true);
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => {}
                _ if self.closed => return Err(DecodeError::invalid("something behind the array", 0)),
                b'[' if self.array.is_none() => self.array = Some(true),
                b']' if array && self.wants != Wants::Value => self.closed = true,
                b',' if array && self.wants == Wants::Comma => self.wants = Wants::Value,
                b',' | b']' | b'}' => return Err(DecodeError::invalid("a value of JSON", 0)),
                _ if array && self.wants == Wants::Comma => return Err(DecodeError::invalid("a comma", 0)),
                _ => {
                    self.array.get_or_insert(false);
                    self.value = Some(match byte {
                        b'{' | b'[' => Begun::Nested { depth: 0, text: Text::Out },
                        b'"' => Begun::String(Text::Out),
                        _ => Begun::Bare,
                    });
                    return Ok(true);
                }
            }
            src.advance(1);
        }
        Ok(false)
    }

    /// Where the value that has begun ends, if that is at hand.
    fn end(&mut self, src: &[u8]) -> Option<usize> {
        let mut begun = self.value?;
        for (at, &byte) in src.iter().enumerate().skip(self.seen) {
            let behind = at.saturating_add(1);
            match &mut begun {
                Begun::Bare
                    if matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b',' | b']' | b'}' | b'{' | b'[' | b'"') =>
                {
                    return Some(at);
                }
                Begun::Bare => {}
                Begun::String(text) => {
                    *text = text.step(byte);
                    if *text == Text::Out {
                        return Some(behind);
                    }
                }
                Begun::Nested { depth, text } => {
                    let outside = *text == Text::Out;
                    *text = text.step(byte);
                    match byte {
                        b'{' | b'[' if outside => *depth = depth.saturating_add(1),
                        b'}' | b']' if outside => *depth = depth.saturating_sub(1),
                        _ => continue,
                    }
                    if *depth == 0 {
                        return Some(behind);
                    }
                }
            }
        }
        (self.value, self.seen) = (Some(begun), src.len());
        None
    }

    fn take(&mut self, src: &mut BytesMut, length: usize) -> Result<Option<Bytes>, DecodeError> {
        if length > self.max {
            return Err(DecodeError::too_long("a message of a stream", 0));
        }
        (self.value, self.seen, self.wants) = (None, 0, Wants::Comma);
        Ok(Some(src.split_to(length).freeze()))
    }
}

impl Codec for Values {
    type Frame = Bytes;
    type Out = [u8];

    fn protocol(&self) -> &'static str {
        PROTOCOL
    }

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Bytes>, DecodeError> {
        if self.value.is_none() && !self.begin(src)? {
            return Ok(None);
        }
        match self.end(src) {
            Some(length) => self.take(src, length),
            None if src.len() > self.max => Err(DecodeError::too_long("a message of a stream", 0)),
            None => Ok(None),
        }
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Bytes>, DecodeError> {
        if let Some(value) = self.decode(src)? {
            return Ok(Some(value));
        }
        if self.value == Some(Begun::Bare) && self.array == Some(false) {
            return self.take(src, src.len());
        }
        if self.is_complete() { Ok(None) } else { Err(DecodeError::truncated("a stream of JSON", src.len())) }
    }

    /// Values that stand in a row are parted by lines.
    fn encode(&mut self, item: &[u8], dst: &mut BytesMut) -> Result<()> {
        if item.len() > self.max {
            return Err(Error::usage("the message is longer than it may be").with_protocol(PROTOCOL));
        }
        dst.extend_from_slice(item);
        dst.extend_from_slice(b"\n");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_wire::laws;

    const SEEDS: &[&[u8]] = &[
        b"{\"result\":{\"a\":\"}\\\"]\"}}\n{\"error\":{\"code\":5}}\n",
        b"[{\"a\":[1,{}]},\n{\"b\":2} , \"c,\\\\\", 4]\n",
        b"[]",
        b"1\n true \"x\"\r\n",
    ];

    fn all(bytes: &[u8]) -> Result<Vec<String>, DecodeError> {
        let (mut codec, mut src, mut out) = (Values::new(100), BytesMut::from(bytes), Vec::new());
        while let Some(value) = codec.decode_eof(&mut src)? {
            out.push(String::from_utf8(value.to_vec()).unwrap());
        }
        assert!(codec.is_complete() && src.is_empty());
        Ok(out)
    }

    #[test]
    fn the_decoder_keeps_the_laws() {
        laws::check(|| Values::new(1 << 16), SEEDS);
    }

    #[test]
    fn values_are_told_apart_however_they_stand() {
        let expected: [&[&str]; 4] = [
            &[r#"{"result":{"a":"}\"]"}}"#, r#"{"error":{"code":5}}"#],
            &[r#"{"a":[1,{}]}"#, r#"{"b":2}"#, r#""c,\\""#, "4"],
            &[],
            &["1", "true", r#""x""#],
        ];
        for (seed, expected) in SEEDS.iter().zip(expected) {
            assert_eq!(all(seed).unwrap(), expected, "{}", seed.escape_ascii());
        }
        assert_eq!(all(b"{}{}").unwrap(), ["{}", "{}"]);
        assert_eq!(all(b"").unwrap(), [""; 0]);
    }

    #[test]
    fn what_is_cut_or_out_of_place_is_an_error() {
        for bytes in [
            &b"["[..],
            b"[{}",
            b"[{},",
            b"[{},]",
            b"[{}{}]",
            b"[,]",
            b"{",
            b"\"a",
            b"]",
            b"}",
            b",",
            b"[] {}",
            b"[]]",
            b"[1",
        ] {
            assert!(all(bytes).is_err(), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_value_beyond_the_limit_is_refused_before_its_end() {
        let mut codec = Values::new(10);
        let mut src = BytesMut::from(&b"{\"a\":\"xxxxxxxx"[..]);
        assert_eq!(codec.decode(&mut src).unwrap_err().why, portolan_wire::Why::TooLong);
        assert!(codec.encode(&[b'x'; 11], &mut src).is_err());
    }
}
