//! ASN.1 in its basic and distinguished encodings (ITU-T X.690), as LDAP, SNMP, Kerberos and certificates use it.
//!
//! **Why an own cursor and no crate**: the kept crates (`der`, `rasn`, `asn1-rs`) are either strict DER, which LDAP and SNMP
//! peers do not send (long lengths for short values, the indefinite form), or bring derive machinery and types of their own
//! for a format that needs a few hundred lines; none has this workspace's [`DecodeError`], depth limit and "read more".
//!
//! Reading: definite and indefinite lengths, at most four length octets, nesting bounded by [`MAX_DEPTH`], tags up to 32
//! bits. Under [`Rules::Der`] everything that X.690 10 and 11 restrict is refused that this can see: lengths and integers
//! longer than need be, the indefinite form, constructed strings, booleans other than 00 and FF. Writing is always DER,
//! except that a SET is written in the order it is given.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

mod oid;
mod write;

use std::borrow::Cow;

use crate::error::DecodeError;

pub use oid::Oid;
pub use write::Encoder;

/// How deep elements may nest: real messages stay below ten, and each level costs us a stack frame.
pub const MAX_DEPTH: u8 = 32;

/// Which encoding rules a reader enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rules {
    /// What is sent on the wire by LDAP and SNMP.
    Ber,
    /// What is signed: one encoding for each value.
    Der,
}

/// The class of a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Class {
    /// Of ASN.1 itself.
    Universal,
    /// Of the application's specification.
    Application,
    /// Of the type around it.
    Context,
    /// By agreement.
    Private,
}

/// An identifier: class, form, number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Tag {
    /// The class.
    pub class: Class,
    /// Whether the content is elements again.
    pub constructed: bool,
    /// The number.
    pub number: u32,
}

macro_rules! universal {
    ($($name:ident = $number:literal, $constructed:literal;)*) => {$(
        #[doc = concat!("The universal tag ", stringify!($number), ".")]
        pub const $name: Self = Self { class: Class::Universal, constructed: $constructed, number: $number };
    )*};
}

impl Tag {
    universal! {
        BOOLEAN = 1, false;
        INTEGER = 2, false;
        BIT_STRING = 3, false;
        OCTET_STRING = 4, false;
        NULL = 5, false;
        OID = 6, false;
        ENUMERATED = 10, false;
        UTF8_STRING = 12, false;
        SEQUENCE = 16, true;
        SET = 17, true;
        PRINTABLE_STRING = 19, false;
        IA5_STRING = 22, false;
        UTC_TIME = 23, false;
        GENERALIZED_TIME = 24, false;
        GENERAL_STRING = 27, false;
    }

    /// A context tag on a primitive: `[n] IMPLICIT`.
    pub const fn context(number: u32) -> Self {
        Self { class: Class::Context, constructed: false, number }
    }

    /// A context tag on elements: `[n] EXPLICIT`, or an implicit one on a SEQUENCE.
    pub const fn context_constructed(number: u32) -> Self {
        Self { class: Class::Context, constructed: true, number }
    }

    /// An application tag on a primitive.
    pub const fn application(number: u32) -> Self {
        Self { class: Class::Application, constructed: false, number }
    }

    /// An application tag on elements.
    pub const fn application_constructed(number: u32) -> Self {
        Self { class: Class::Application, constructed: true, number }
    }

    fn is_end(self) -> bool {
        matches!(self, Self { class: Class::Universal, number: 0, .. })
    }

    fn same_but_form(self, other: Self) -> bool {
        self.class == other.class && self.number == other.number
    }
}

/// A cursor over elements.
///
/// ```
/// use portolan_wire::DecodeError;
/// use portolan_wire::asn1::Decoder;
///
/// let mut top = Decoder::ber(&[0x30, 0x06, 0x02, 0x01, 0x07, 0x04, 0x01, b'x']);
/// let mut sequence = top.sequence("message")?;
/// assert_eq!(sequence.integer("id")?, 7);
/// assert_eq!(&*sequence.octet_string("name")?, b"x");
/// sequence.expect_end("message")?;
/// # Ok::<(), DecodeError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Decoder<'a> {
    left: &'a [u8],
    offset: usize,
    rules: Rules,
    depth: u8,
    /// Whether the end is known, so that what is missing will not come.
    bounded: bool,
}

/// One element: its tag and its content.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Element<'a> {
    /// The identifier.
    pub tag: Tag,
    /// The content octets; those of an indefinite form without its end.
    pub content: &'a [u8],
    inner: Decoder<'a>,
}

impl<'a> Element<'a> {
    /// A cursor over the elements within; a primitive has none and is invalid.
    pub fn elements(self, what: &'static str) -> Result<Decoder<'a>, DecodeError> {
        if self.tag.constructed { Ok(self.inner) } else { Err(self.inner.invalid(what)) }
    }
}

struct Header {
    tag: Tag,
    /// `None` is the indefinite form.
    len: Option<usize>,
    size: usize,
}

impl<'a> Decoder<'a> {
    /// A cursor that takes BER.
    pub fn ber(bytes: &'a [u8]) -> Self {
        Self { left: bytes, offset: 0, rules: Rules::Ber, depth: MAX_DEPTH, bounded: false }
    }

    /// A cursor that takes DER alone.
    pub fn der(bytes: &'a [u8]) -> Self {
        Self { rules: Rules::Der, ..Self::ber(bytes) }
    }

    /// Whether all is read.
    pub fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// How far it has come, counted from the start of the outermost element.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// What is left, unread.
    pub fn peek(&self) -> &'a [u8] {
        self.left
    }

    /// An error at this place: the bytes break a rule.
    pub fn invalid(&self, what: &'static str) -> DecodeError {
        DecodeError::invalid(what, self.offset)
    }

    /// Succeeds if all is read.
    pub fn expect_end(&self, what: &'static str) -> Result<(), DecodeError> {
        if self.left.is_empty() { Ok(()) } else { Err(self.invalid(what)) }
    }

    /// The tag of the next element, unread; `None` at the end.
    pub fn peek_tag(&self) -> Result<Option<Tag>, DecodeError> {
        if self.left.is_empty() { Ok(None) } else { self.header(self.left, "tag").map(|header| Some(header.tag)) }
    }

    /// Reads the next element, whatever it is.
    pub fn element(&mut self, what: &'static str) -> Result<Element<'a>, DecodeError> {
        let header = self.header(self.left, what)?;
        if header.tag.is_end() {
            return Err(self.invalid(what));
        }
        let depth = self.depth.checked_sub(1).ok_or(DecodeError::too_long("nesting", self.offset))?;
        let body = self.left.get(header.size..).unwrap_or(&[]);
        let (len, end) = match header.len {
            Some(len) => (len, len),
            None => {
                let len = self.indefinite(body, what)?;
                (len, len.saturating_add(2))
            }
        };
        let (Some(content), Some(left)) = (body.get(..len), body.get(end..)) else { return Err(self.short(what)) };
        let offset = self.offset.saturating_add(header.size);
        self.offset = offset.saturating_add(end);
        self.left = left;
        let inner = Decoder { left: content, offset, rules: self.rules, depth, bounded: true };
        Ok(Element { tag: header.tag, content, inner })
    }

    /// Reads an element of just this tag.
    pub fn expect(&mut self, tag: Tag, what: &'static str) -> Result<Element<'a>, DecodeError> {
        let header = self.header(self.left, what)?;
        if header.tag == tag { self.element(what) } else { Err(self.invalid(what)) }
    }

    /// Reads with `read` if the next element has this tag (in either form), and gives `None` otherwise.
    pub fn optional<T>(
        &mut self,
        tag: Tag,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        match self.peek_tag()? {
            Some(next) if next.same_but_form(tag) => read(self).map(Some),
            _ => Ok(None),
        }
    }

    /// Enters an element of elements.
    pub fn constructed(&mut self, tag: Tag, what: &'static str) -> Result<Decoder<'a>, DecodeError> {
        self.expect(tag, what)?.elements(what)
    }

    /// Enters a SEQUENCE.
    pub fn sequence(&mut self, what: &'static str) -> Result<Decoder<'a>, DecodeError> {
        self.constructed(Tag::SEQUENCE, what)
    }

    /// Enters a SET.
    pub fn set(&mut self, what: &'static str) -> Result<Decoder<'a>, DecodeError> {
        self.constructed(Tag::SET, what)
    }

    /// Reads a BOOLEAN.
    pub fn boolean(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        self.boolean_as(Tag::BOOLEAN, what)
    }

    /// Reads a BOOLEAN under another tag.
    pub fn boolean_as(&mut self, tag: Tag, what: &'static str) -> Result<bool, DecodeError> {
        let at = self.offset;
        match (self.expect(tag, what)?.content, self.rules) {
            ([0], _) => Ok(false),
            ([0xff], _) | ([_], Rules::Ber) => Ok(true),
            _ => Err(DecodeError::invalid(what, at)),
        }
    }

    /// Reads an INTEGER of up to 64 bits.
    pub fn integer(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        self.integer_as(Tag::INTEGER, what)
    }

    /// Reads an ENUMERATED.
    pub fn enumerated(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        self.integer_as(Tag::ENUMERATED, what)
    }

    /// Reads an INTEGER of up to 64 bits under another tag.
    pub fn integer_as(&mut self, tag: Tag, what: &'static str) -> Result<i64, DecodeError> {
        let at = self.offset;
        i64::try_from(self.wide(tag, what)?).map_err(|_| DecodeError::too_long(what, at))
    }

    /// Reads an INTEGER that cannot be negative, of up to 64 bits, under this tag: counters.
    pub fn unsigned_as(&mut self, tag: Tag, what: &'static str) -> Result<u64, DecodeError> {
        let at = self.offset;
        let value = self.wide(tag, what)?;
        u64::try_from(value).map_err(|_| match value {
            ..0 => DecodeError::invalid(what, at),
            _ => DecodeError::too_long(what, at),
        })
    }

    /// Reads the octets of an INTEGER of any size: two's complement, most significant first.
    pub fn integer_bytes(&mut self, tag: Tag, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let at = self.offset;
        let content = self.expect(tag, what)?.content;
        let padded = matches!(content, [0, second, ..] if second & 0x80 == 0)
            || matches!(content, [0xff, second, ..] if second & 0x80 != 0);
        // X.690 8.3.2 forbids padding in BER too, but there are SNMP agents that send counters so.
        if content.is_empty() || (padded && self.rules == Rules::Der) {
            return Err(DecodeError::invalid(what, at));
        }
        Ok(content)
    }

    fn wide(&mut self, tag: Tag, what: &'static str) -> Result<i128, DecodeError> {
        let at = self.offset;
        let content = self.integer_bytes(tag, what)?;
        if content.len() > 16 {
            return Err(DecodeError::too_long(what, at));
        }
        let negative = content.first().is_some_and(|first| first & 0x80 != 0);
        Ok(content.iter().fold(if negative { -1 } else { 0 }, |value: i128, byte| (value << 8) | i128::from(*byte)))
    }

    /// Reads a NULL.
    pub fn null(&mut self, what: &'static str) -> Result<(), DecodeError> {
        let at = self.offset;
        if self.expect(Tag::NULL, what)?.content.is_empty() { Ok(()) } else { Err(DecodeError::invalid(what, at)) }
    }

    /// Reads an OBJECT IDENTIFIER.
    pub fn oid(&mut self, what: &'static str) -> Result<Oid, DecodeError> {
        let at = self.offset;
        Oid::from_content(self.expect(Tag::OID, what)?.content, what, at)
    }

    /// Reads an OCTET STRING; one in pieces is put together.
    pub fn octet_string(&mut self, what: &'static str) -> Result<Cow<'a, [u8]>, DecodeError> {
        self.octets_as(Tag::OCTET_STRING, what)
    }

    /// Reads a string's octets under another tag.
    pub fn octets_as(&mut self, tag: Tag, what: &'static str) -> Result<Cow<'a, [u8]>, DecodeError> {
        let next = self.header(self.left, what)?.tag;
        if !next.same_but_form(tag) || (next.constructed && self.rules == Rules::Der) {
            return Err(self.invalid(what));
        }
        let element = self.element(what)?;
        if !next.constructed {
            return Ok(Cow::Borrowed(element.content));
        }
        // X.690 8.7.3: the pieces are octet strings whatever the tag around them, and may be in pieces again.
        let mut pieces = element.inner;
        let mut whole = Vec::new();
        while !pieces.is_empty() {
            whole.extend_from_slice(&pieces.octets_as(Tag::OCTET_STRING, what)?);
        }
        Ok(Cow::Owned(whole))
    }

    /// Reads text under this tag: UTF8String, and those that are ASCII.
    pub fn text_as(&mut self, tag: Tag, what: &'static str) -> Result<String, DecodeError> {
        let at = self.offset;
        String::from_utf8(self.octets_as(tag, what)?.into_owned()).map_err(|_| DecodeError::invalid(what, at))
    }

    /// Reads a BIT STRING of whole octets: keys, signatures.
    pub fn bit_string_octets(&mut self, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let at = self.offset;
        match self.expect(Tag::BIT_STRING, what)?.content {
            [0, octets @ ..] => Ok(octets),
            _ => Err(DecodeError::invalid(what, at)),
        }
    }

    /// Reads a BIT STRING: how many bits of its last octet are unused, and the octets.
    pub fn bit_string(&mut self, what: &'static str) -> Result<(u8, &'a [u8]), DecodeError> {
        let at = self.offset;
        match self.expect(Tag::BIT_STRING, what)?.content {
            [unused @ 0..=7, octets @ ..] if *unused == 0 || !octets.is_empty() => Ok((*unused, octets)),
            _ => Err(DecodeError::invalid(what, at)),
        }
    }

    fn short(&self, what: &'static str) -> DecodeError {
        if self.bounded { self.invalid(what) } else { DecodeError::truncated(what, self.offset) }
    }

    fn header(&self, bytes: &[u8], what: &'static str) -> Result<Header, DecodeError> {
        let (&first, mut rest) = bytes.split_first().ok_or_else(|| self.short(what))?;
        let class = match first >> 6 {
            0 => Class::Universal,
            1 => Class::Application,
            2 => Class::Context,
            _ => Class::Private,
        };
        let mut number = u32::from(first & 0x1f);
        if number == 0x1f {
            (number, rest) = self.long_tag(rest, what)?;
        }
        let tag = Tag { class, constructed: first & 0x20 != 0, number };
        let (&first, rest) = rest.split_first().ok_or_else(|| self.short(what))?;
        let (len, rest) = match first {
            0..=0x7f => (Some(usize::from(first)), rest),
            0x80 if tag.constructed && self.rules == Rules::Ber => (None, rest),
            0x80 => return Err(self.invalid("indefinite length")),
            0x81..=0x84 => {
                let (octets, rest) =
                    rest.split_at_checked(usize::from(first & 0x7f)).ok_or_else(|| self.short(what))?;
                let len = octets.iter().fold(0_u32, |len, octet| (len << 8) | u32::from(*octet));
                let padded = len < 0x80 || octets.first() == Some(&0);
                if padded && self.rules == Rules::Der {
                    return Err(self.invalid("length longer than need be"));
                }
                (Some(usize::try_from(len).map_err(|_| self.too_long())?), rest)
            }
            // X.690 8.1.3.5 allows 126 octets; four say 4 GiB already.
            _ => return Err(self.too_long()),
        };
        Ok(Header { tag, len, size: bytes.len().saturating_sub(rest.len()) })
    }

    fn too_long(&self) -> DecodeError {
        DecodeError::too_long("length", self.offset)
    }

    /// X.690 8.1.2.4: seven bits an octet, no padding, and only for numbers that the short form cannot hold.
    fn long_tag<'b>(&self, mut bytes: &'b [u8], what: &'static str) -> Result<(u32, &'b [u8]), DecodeError> {
        let mut number = 0_u32;
        loop {
            let (&octet, rest) = bytes.split_first().ok_or_else(|| self.short(what))?;
            if (number == 0 && octet == 0x80) || number >> 25 != 0 {
                return Err(self.invalid("tag"));
            }
            number = (number << 7) | u32::from(octet & 0x7f);
            bytes = rest;
            if octet & 0x80 == 0 {
                return if number < 0x1f { Err(self.invalid("tag")) } else { Ok((number, bytes)) };
            }
        }
    }

    /// The length of an indefinite form's content: to the end-of-contents octets that are its own.
    fn indefinite(&self, body: &[u8], what: &'static str) -> Result<usize, DecodeError> {
        let mut left = body;
        let mut open = 1_u8;
        loop {
            let header = self.header(left, what)?;
            let at = body.len().saturating_sub(left.len());
            left = left.get(header.size..).unwrap_or(&[]);
            match header.len {
                Some(0) if header.tag.is_end() && header.size == 2 => {
                    open = open.saturating_sub(1);
                    if open == 0 {
                        return Ok(at);
                    }
                }
                _ if header.tag.is_end() => return Err(self.invalid(what)),
                Some(len) => left = left.get(len..).ok_or_else(|| self.short(what))?,
                None if open >= self.depth => return Err(DecodeError::too_long("nesting", self.offset)),
                None => open = open.saturating_add(1),
            }
        }
    }
}

/// How many bytes the first element of a growing buffer takes, or `None` while that is not known: framing for protocols
/// that send one element after the other, such as LDAP. One of more than `max` bytes is too long before it has arrived.
pub fn frame_len(bytes: &[u8], max: usize) -> Result<Option<usize>, DecodeError> {
    let decoder = Decoder::ber(bytes);
    let Some(header) = crate::error::incomplete(decoder.header(bytes, "frame"))? else { return Ok(None) };
    let body = bytes.get(header.size..).unwrap_or(&[]);
    let len = match header.len {
        Some(len) => Some(len.saturating_add(header.size)),
        None => crate::error::incomplete(decoder.indefinite(body, "frame"))?
            .map(|len| len.saturating_add(2).saturating_add(header.size)),
    };
    match len {
        Some(len) if len > max => Err(DecodeError::too_long("frame", 0)),
        None if bytes.len() > max => Err(DecodeError::too_long("frame", 0)),
        Some(len) if bytes.len() >= len => Ok(Some(len)),
        _ => Ok(None),
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test may panic")]
mod tests;
