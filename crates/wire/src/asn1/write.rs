//! The writing cursor, in DER.

use bytes::{BufMut, BytesMut};
use portolan_core::{Error, Result};

use super::{Class, Oid, Tag};

/// Appends elements to a buffer.
///
/// ```
/// use bytes::BytesMut;
/// use portolan_wire::asn1::{Encoder, Tag};
///
/// let mut out = BytesMut::new();
/// Encoder::new(&mut out).constructed(Tag::SEQUENCE, |e| {
///     e.integer(128);
///     e.octets_as(Tag::context(0), b"simple")
/// })?;
/// assert_eq!(&out[..], b"\x30\x0c\x02\x02\x00\x80\x80\x06simple");
/// # Ok::<(), portolan_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Encoder<'a> {
    out: &'a mut BytesMut,
}

impl<'a> Encoder<'a> {
    /// A cursor at the end of `out`.
    pub fn new(out: &'a mut BytesMut) -> Self {
        Self { out }
    }

    /// Writes an element whose content is what `write` appends.
    pub fn constructed(&mut self, tag: Tag, write: impl FnOnce(&mut Encoder<'_>) -> Result<()>) -> Result<()> {
        let start = self.out.len();
        self.tag(tag);
        let inner = self.out.len();
        let written = write(&mut Encoder { out: self.out }).and_then(|()| {
            let (octets, used) = length(self.out.len().saturating_sub(inner))?;
            let octets = octets.get(..used).unwrap_or(&[]);
            // The content moves up to make room; it moves once for each level around it.
            self.out.put_bytes(0, used);
            let end = self.out.len();
            let all: &mut [u8] = self.out.as_mut();
            if let Some(room) = all.get_mut(inner..end) {
                room.rotate_right(used);
                if let Some(place) = room.get_mut(..used) {
                    place.copy_from_slice(octets);
                }
            }
            Ok(())
        });
        if written.is_err() {
            self.out.truncate(start);
        }
        written
    }

    /// Writes a SEQUENCE.
    pub fn sequence(&mut self, write: impl FnOnce(&mut Encoder<'_>) -> Result<()>) -> Result<()> {
        self.constructed(Tag::SEQUENCE, write)
    }

    /// Writes a SET, its elements in the order given: sort them where DER is signed.
    pub fn set(&mut self, write: impl FnOnce(&mut Encoder<'_>) -> Result<()>) -> Result<()> {
        self.constructed(Tag::SET, write)
    }

    /// Writes an element with this content: strings under any tag.
    pub fn octets_as(&mut self, tag: Tag, content: &[u8]) -> Result<()> {
        let (octets, used) = length(content.len())?;
        self.tag(tag);
        self.out.extend_from_slice(octets.get(..used).unwrap_or(&[]));
        self.out.extend_from_slice(content);
        Ok(())
    }

    /// Writes an OCTET STRING.
    pub fn octet_string(&mut self, content: &[u8]) -> Result<()> {
        self.octets_as(Tag::OCTET_STRING, content)
    }

    /// Writes a BIT STRING of whole octets.
    pub fn bit_string_octets(&mut self, octets: &[u8]) -> Result<()> {
        let (len, used) = length(octets.len().saturating_add(1))?;
        self.tag(Tag::BIT_STRING);
        self.out.extend_from_slice(len.get(..used).unwrap_or(&[]));
        self.out.put_u8(0);
        self.out.extend_from_slice(octets);
        Ok(())
    }

    /// Writes elements that are encoded already.
    pub fn raw(&mut self, elements: &[u8]) {
        self.out.extend_from_slice(elements);
    }

    /// Writes a BOOLEAN.
    pub fn boolean(&mut self, value: bool) {
        self.boolean_as(Tag::BOOLEAN, value);
    }

    /// Writes a BOOLEAN under another tag.
    pub fn boolean_as(&mut self, tag: Tag, value: bool) {
        self.short(tag, &[if value { 0xff } else { 0 }]);
    }

    /// Writes an INTEGER.
    pub fn integer(&mut self, value: i64) {
        self.integer_as(Tag::INTEGER, value);
    }

    /// Writes an ENUMERATED.
    pub fn enumerated(&mut self, value: i64) {
        self.integer_as(Tag::ENUMERATED, value);
    }

    /// Writes an INTEGER under another tag.
    pub fn integer_as(&mut self, tag: Tag, value: i64) {
        self.wide(tag, i128::from(value));
    }

    /// Writes an INTEGER that may need all of 64 bits, under this tag.
    pub fn unsigned_as(&mut self, tag: Tag, value: u64) {
        self.wide(tag, i128::from(value));
    }

    /// Writes a NULL.
    pub fn null(&mut self) {
        self.short(Tag::NULL, &[]);
    }

    /// Writes an OBJECT IDENTIFIER.
    pub fn oid(&mut self, oid: &Oid) -> Result<()> {
        self.octets_as(Tag::OID, oid.content())
    }

    fn wide(&mut self, tag: Tag, value: i128) {
        let bytes = value.to_be_bytes();
        let mut content: &[u8] = &bytes;
        // X.690 8.3.2: as few octets as hold the sign.
        while let [first, second, ..] = content
            && matches!((first, second & 0x80), (0, 0) | (0xff, 0x80))
        {
            content = content.get(1..).unwrap_or(&[]);
        }
        self.short(tag, content);
    }

    /// Content of fewer than 128 octets.
    fn short(&mut self, tag: Tag, content: &[u8]) {
        self.tag(tag);
        self.out.put_u8(u8::try_from(content.len()).unwrap_or(0x7f));
        self.out.extend_from_slice(content);
    }

    fn tag(&mut self, tag: Tag) {
        let class = match tag.class {
            Class::Universal => 0,
            Class::Application => 0x40,
            Class::Context => 0x80,
            Class::Private => 0xc0,
        };
        let first = class | if tag.constructed { 0x20 } else { 0 };
        match u8::try_from(tag.number) {
            Ok(number @ 0..=30) => self.out.put_u8(first | number),
            _ => {
                self.out.put_u8(first | 0x1f);
                let groups = 32_u32.saturating_sub(tag.number.leading_zeros()).div_ceil(7).max(1);
                for group in (0..groups).rev() {
                    let [low, ..] = (tag.number >> group.saturating_mul(7)).to_le_bytes();
                    self.out.put_u8((low & 0x7f) | if group == 0 { 0 } else { 0x80 });
                }
            }
        }
    }
}

/// The length octets, and how many they are. More than four are not written, since they are not read either.
fn length(len: usize) -> Result<([u8; 5], usize)> {
    if let Ok(short @ 0..=0x7f) = u8::try_from(len) {
        return Ok(([short, 0, 0, 0, 0], 1));
    }
    let long = u32::try_from(len).map_err(|_| Error::usage(format!("an element of {len} bytes")))?;
    let bytes = long.to_be_bytes();
    let skip = bytes.iter().take_while(|byte| **byte == 0).count();
    let used = bytes.len().saturating_sub(skip);
    let mut octets = [0; 5];
    octets[0] = 0x80 | u8::try_from(used).unwrap_or(4);
    octets.iter_mut().skip(1).zip(bytes.iter().skip(skip)).for_each(|(place, byte)| *place = *byte);
    Ok((octets, used.saturating_add(1)))
}
