//! ASN.1 and XDR: cursors without a message of their own, so each input is read as a message that says what it holds.

use portolan_wire::DecodeError;
use portolan_wire::asn1::{Class, Decoder, Tag};
use portolan_wire::xdr::XdrReader;

/// Reads every element of BER down to the primitives, each as what its tag says. What DER takes, BER must take alike.
pub fn fuzzed_ber(data: &[u8]) -> Result<usize, DecodeError> {
    let lenient = elements(&mut Decoder::ber(data));
    if let Ok(strict) = elements(&mut Decoder::der(data)) {
        assert_eq!(lenient, Ok(strict), "DER is BER");
    }
    lenient
}

fn elements(decoder: &mut Decoder<'_>) -> Result<usize, DecodeError> {
    let mut seen = 0;
    while !decoder.is_empty() {
        let Some(tag) = decoder.peek_tag()? else { break };
        seen += 1;
        if tag.constructed {
            seen += elements(&mut decoder.constructed(tag, "elements")?)?;
        } else {
            primitive(decoder, tag)?;
        }
    }
    decoder.expect_end("elements")?;
    Ok(seen)
}

fn primitive(decoder: &mut Decoder<'_>, tag: Tag) -> Result<(), DecodeError> {
    match (tag.class, tag.number) {
        (Class::Universal, 1) => decoder.boolean("boolean").map(drop),
        // Any size is an integer; that it fits is the caller's wish.
        (Class::Universal, 2 | 10) => decoder.integer_bytes(tag, "integer").map(drop),
        (Class::Universal, 3) => decoder.bit_string("bits").map(drop),
        (Class::Universal, 4) => decoder.octet_string("octets").map(drop),
        (Class::Universal, 5) => decoder.null("null"),
        (Class::Universal, 6) => decoder.oid("oid").map(|oid| assert!(oid.arcs().len() >= 2)),
        (Class::Universal, 12) => decoder.text_as(tag, "text").map(drop),
        _ => decoder.element("element").map(drop),
    }
}

/// How much a string or an array of the XDR message may hold.
const MOST: u32 = 1 << 16;

/// Reads items until the end: a number says which type follows.
pub fn fuzzed_xdr(data: &[u8]) -> Result<usize, DecodeError> {
    let mut reader = XdrReader::new(data);
    let mut items = 0;
    while reader.remaining() > 0 {
        item(&mut reader)?;
        items += 1;
    }
    reader.expect_end("items")?;
    Ok(items)
}

fn item(reader: &mut XdrReader<'_>) -> Result<(), DecodeError> {
    match reader.u32("type")? % 10 {
        0 => reader.boolean("boolean").map(drop),
        1 => reader.i32("int").map(drop),
        2 => reader.u64("hyper").map(drop),
        3 => reader.f64("double").map(drop),
        4 => reader.opaque(MOST, "opaque").map(drop),
        5 => reader.string(MOST, "string").map(drop),
        6 => reader.opaque_fixed(5, "five bytes").map(drop),
        7 => reader.array(MOST, "array", |reader| reader.opaque(MOST, "element")).map(drop),
        8 => reader.optional("optional", |reader| reader.f32("float")).map(drop),
        _ => reader.chain(MOST as usize, "list", |reader| reader.i64("element")).map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_whole_messages() {
        assert_eq!(fuzzed_ber(include_bytes!("../seeds/ber/snmp_get")), Ok(11));
        assert_eq!(fuzzed_ber(include_bytes!("../seeds/ber/der_types")), Ok(6));
        assert_eq!(fuzzed_ber(include_bytes!("../seeds/ber/indefinite")), Ok(6));
        assert_eq!(fuzzed_xdr(include_bytes!("../seeds/xdr/every_type")), Ok(10));
    }
}
