use bytes::BytesMut;
use portolan_core::Result;

use super::*;
use crate::Why;

fn written(write: impl FnOnce(&mut Encoder<'_>) -> Result<()>) -> Vec<u8> {
    let mut out = BytesMut::new();
    write(&mut Encoder::new(&mut out)).unwrap();
    out.to_vec()
}

#[test]
fn integers_are_as_x_690_8_3_has_them() {
    let vectors: [(i64, &[u8]); 9] = [
        (0, &[2, 1, 0]),
        (127, &[2, 1, 0x7f]),
        (128, &[2, 2, 0, 0x80]),
        (256, &[2, 2, 1, 0]),
        (-1, &[2, 1, 0xff]),
        (-128, &[2, 1, 0x80]),
        (-129, &[2, 2, 0xff, 0x7f]),
        (i64::MAX, &[2, 8, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        (i64::MIN, &[2, 8, 0x80, 0, 0, 0, 0, 0, 0, 0]),
    ];
    for (value, bytes) in vectors {
        assert_eq!(
            written(|e| {
                e.integer(value);
                Ok(())
            }),
            bytes
        );
        assert_eq!(Decoder::der(bytes).integer("n"), Ok(value));
    }
    let counter = Tag::application(6);
    let bytes = written(|e| {
        e.unsigned_as(counter, u64::MAX);
        Ok(())
    });
    assert_eq!(bytes[..3], [0x46, 9, 0]);
    assert_eq!(Decoder::ber(&bytes).unsigned_as(counter, "n"), Ok(u64::MAX));
    assert_eq!(Decoder::ber(&bytes).integer_as(counter, "n"), Err(DecodeError::too_long("n", 0)));
    assert_eq!(Decoder::ber(&[0x46, 1, 0xff]).unsigned_as(counter, "n"), Err(DecodeError::invalid("n", 0)));
    assert_eq!(Decoder::ber(&[2, 0]).integer("n"), Err(DecodeError::invalid("n", 0)));
    let padded = [2, 3, 0, 0, 7];
    assert_eq!(Decoder::ber(&padded).integer("n"), Ok(7));
    assert_eq!(Decoder::der(&padded).integer("n"), Err(DecodeError::invalid("n", 0)));
}

#[test]
fn object_identifiers_are_as_x_690_8_19_has_them() {
    // X.690 8.19.5: {2 100 3} is 06 03 81 34 03.
    for (text, bytes) in [
        ("2.100.3", &[6, 3, 0x81, 0x34, 3][..]),
        ("2.999", &[6, 2, 0x88, 0x37]),
        ("1.2.840.113549", &[6, 6, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d]),
        ("0.39", &[6, 1, 39]),
        ("1.0", &[6, 1, 40]),
        ("2.0", &[6, 1, 80]),
        ("1.3.6.1.4.1.4294967295", &[6, 10, 0x2b, 6, 1, 4, 1, 0x8f, 0xff, 0xff, 0xff, 0x7f]),
    ] {
        let oid: Oid = text.parse().unwrap();
        assert_eq!(written(|e| e.oid(&oid)), bytes);
        let read = Decoder::der(bytes).oid("oid").unwrap();
        assert_eq!((read.to_string().as_str(), &read), (text, &oid));
    }
    for bad in ["", "1", "3.1", "1.40", "1.2.", "1.-2", "1.+2", "a.b"] {
        assert!(bad.parse::<Oid>().is_err(), "{bad}");
    }
    for bad in [&[6, 0][..], &[6, 2, 0x2a, 0x86], &[6, 3, 0x2a, 0x80, 1]] {
        assert_eq!(Decoder::ber(bad).oid("oid"), Err(DecodeError::invalid("oid", 0)));
    }
    let uuid: Oid = "2.25.329800735698586629295641978511506172918".parse().unwrap();
    assert_eq!(uuid.arcs()[2], 329_800_735_698_586_629_295_641_978_511_506_172_918);
    let (short, long): (Oid, Oid) = ("1.3.6.1.2".parse().unwrap(), "1.3.6.1.128".parse().unwrap());
    assert!(short < long && long.starts_with(&"1.3.6".parse().unwrap()) && !long.starts_with(&short));
}

#[test]
fn lengths_take_their_long_form_from_128_and_never_more_than_four_octets() {
    for (len, head) in [(127, &[4, 0x7f][..]), (128, &[4, 0x81, 0x80]), (200, &[4, 0x81, 200]), (256, &[4, 0x82, 1, 0])]
    {
        let bytes = written(|e| e.octet_string(&vec![7; len]));
        assert!(bytes.starts_with(head));
        assert_eq!(Decoder::der(&bytes).octet_string("s").unwrap().len(), len);
        let scope = written(|e| {
            e.sequence(|e| {
                e.raw(&vec![5; len]);
                Ok(())
            })
        });
        assert_eq!(scope[1..head.len()], head[1..]);
        assert!(scope[head.len()..].iter().all(|byte| *byte == 5));
    }
    let padded = [4, 0x82, 0, 1, b'x'];
    assert_eq!(&*Decoder::ber(&padded).octet_string("s").unwrap(), b"x");
    assert_eq!(Decoder::der(&padded).octet_string("s").unwrap_err().why, Why::Invalid);
    assert_eq!(Decoder::ber(&[4, 0x85, 0, 0, 0, 0, 1, 7]).octet_string("s").unwrap_err().why, Why::TooLong);
    assert_eq!(Decoder::ber(&[4, 0xff]).octet_string("s").unwrap_err().why, Why::TooLong);
    assert_eq!(Decoder::ber(&[4, 0x84, 0xff, 0xff, 0xff, 0xff]).octet_string("s"), Err(DecodeError::truncated("s", 0)));
    let lying = [0x30, 3, 4, 9, b'x'];
    assert_eq!(Decoder::ber(&lying).sequence("q").unwrap().octet_string("s"), Err(DecodeError::invalid("s", 2)));
}

#[test]
fn the_indefinite_form_is_read_in_ber_and_refused_in_der() {
    // X.690 8.1.3.6 and 8.7: a sequence of a string in pieces and an integer.
    let bytes = [0x30, 0x80, 0x24, 0x80, 4, 2, b'a', b'b', 4, 1, b'c', 0, 0, 2, 1, 5, 0, 0, 9];
    let mut top = Decoder::ber(&bytes);
    let mut sequence = top.sequence("q").unwrap();
    assert_eq!(&*sequence.octet_string("s").unwrap(), b"abc");
    assert_eq!(sequence.integer("n"), Ok(5));
    sequence.expect_end("q").unwrap();
    assert_eq!(top.peek(), [9]);
    assert_eq!(frame_len(&bytes, 100), Ok(Some(18)));
    for cut in 0..18 {
        assert_eq!(frame_len(&bytes[..cut], 100), Ok(None), "{cut}");
        assert!(Decoder::ber(&bytes[..cut]).sequence("q").unwrap_err().is_truncated(), "{cut}");
    }
    assert_eq!(Decoder::der(&bytes).sequence("q").unwrap_err().why, Why::Invalid);
    assert_eq!(Decoder::ber(&[4, 0x80, 0, 0]).octet_string("s").unwrap_err().why, Why::Invalid);
}

#[test]
fn nesting_is_bounded_in_both_forms() {
    let deep = [0x30, 0x80].repeat(100_000);
    assert_eq!(Decoder::ber(&deep).sequence("q").unwrap_err(), DecodeError::too_long("nesting", 0));
    assert_eq!(frame_len(&deep, usize::MAX).unwrap_err().why, Why::TooLong);
    let mut bytes = vec![0x30, 0];
    for _ in 0..60 {
        let mut outer = vec![0x30, u8::try_from(bytes.len()).unwrap()];
        outer.extend(bytes);
        bytes = outer;
        if bytes.len() > 120 {
            break;
        }
    }
    let mut decoder = Decoder::der(&bytes);
    let mut levels = 0;
    let error = loop {
        match decoder.sequence("q") {
            Ok(inner) => decoder = inner,
            Err(error) => break error,
        }
        levels += 1;
    };
    assert_eq!((levels, error.why), (MAX_DEPTH, Why::TooLong));
    // A string in pieces in pieces: the recursion is bounded too.
    let strings = [0x24, 0x80].repeat(100_000);
    assert_eq!(Decoder::ber(&strings).octet_string("s").unwrap_err().why, Why::TooLong);
}

#[test]
fn frames_are_measured_before_they_have_arrived() {
    assert_eq!(frame_len(&[], 10), Ok(None));
    assert_eq!(frame_len(&[0x30, 3, 1], 10), Ok(None));
    assert_eq!(frame_len(&[0x30, 3, 1, 2, 3, 4], 10), Ok(Some(5)));
    assert_eq!(frame_len(&[0x30, 9], 10), Err(DecodeError::too_long("frame", 0)));
    assert_eq!(frame_len(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], 1 << 20), Err(DecodeError::too_long("frame", 0)));
}

#[test]
fn tags_have_classes_forms_and_large_numbers() {
    for (tag, bytes) in [
        (Tag::context(0), &[0x80, 0][..]),
        (Tag::context_constructed(3), &[0xa3, 0]),
        (Tag::application_constructed(1), &[0x61, 0]),
        (Tag::context(30), &[0x9e, 0]),
        (Tag::context(31), &[0x9f, 31, 0]),
        (Tag::context(201), &[0x9f, 0x81, 0x49, 0]),
        (Tag::context(u32::MAX), &[0x9f, 0x8f, 0xff, 0xff, 0xff, 0x7f, 0]),
    ] {
        assert_eq!(written(|e| e.octets_as(tag, b"")), bytes);
        assert_eq!(Decoder::der(bytes).peek_tag(), Ok(Some(tag)));
    }
    for bad in [&[0x9f, 30, 0][..], &[0x9f, 0x80, 31, 0], &[0x9f, 0x9f, 0xff, 0xff, 0xff, 0x7f, 0]] {
        assert_eq!(Decoder::ber(bad).peek_tag().unwrap_err().why, Why::Invalid);
    }
}

#[test]
fn the_small_types_are_checked() {
    let bytes = written(|e| {
        e.boolean(true);
        e.null();
        e.enumerated(-3);
        e.bit_string_octets(b"key")?;
        e.octets_as(Tag::UTF8_STRING, "\u{e9}".as_bytes())?;
        e.boolean_as(Tag::context(1), false);
        Ok(())
    });
    let mut d = Decoder::der(&bytes);
    assert_eq!(d.boolean("b"), Ok(true));
    assert_eq!(d.null("n"), Ok(()));
    assert_eq!(d.enumerated("e"), Ok(-3));
    assert_eq!(d.bit_string_octets("k"), Ok(b"key".as_slice()));
    assert_eq!(d.text_as(Tag::UTF8_STRING, "t").unwrap(), "\u{e9}");
    assert_eq!(d.optional(Tag::context(0), |d| d.boolean_as(Tag::context(0), "x")), Ok(None));
    assert_eq!(d.optional(Tag::context(1), |d| d.boolean_as(Tag::context(1), "x")), Ok(Some(false)));
    assert_eq!(d.peek_tag(), Ok(None));
    assert_eq!(Decoder::ber(&[1, 1, 7]).boolean("b"), Ok(true));
    assert!(Decoder::der(&[1, 1, 7]).boolean("b").is_err());
    assert!(Decoder::ber(&[1, 0]).boolean("b").is_err() && Decoder::ber(&[5, 1, 0]).null("n").is_err());
    assert!(Decoder::ber(&[3, 2, 8, 0]).bit_string("k").is_err() && Decoder::ber(&[3, 1, 1]).bit_string("k").is_err());
    assert!(Decoder::ber(&[0x0c, 1, 0xff]).text_as(Tag::UTF8_STRING, "t").is_err());
}

#[cfg(feature = "laws")]
#[test]
fn reading_keeps_the_laws() {
    fn walk(d: &mut Decoder<'_>, seen: &mut Vec<String>) -> Result<(), DecodeError> {
        while let Some(tag) = d.peek_tag()? {
            match tag {
                Tag::INTEGER => seen.push(d.integer("n")?.to_string()),
                Tag::OID => seen.push(d.oid("oid")?.to_string()),
                tag if tag.same_but_form(Tag::OCTET_STRING) => seen.push(d.octet_string("s")?.len().to_string()),
                tag if tag.constructed => walk(&mut d.element("c")?.elements("c")?, seen)?,
                _ => seen.push(format!("{:?}", d.element("e")?.tag)),
            }
        }
        Ok(())
    }
    fn all(bytes: &[u8]) -> Result<Vec<String>, DecodeError> {
        let mut seen = Vec::new();
        walk(&mut Decoder::ber(bytes), &mut seen)?;
        Ok(seen)
    }
    let long = [&[0x30, 0x81, 0x83, 4, 0x81, 0x80][..], &[7; 128]].concat();
    crate::laws::check_datagram(
        all,
        &[
            &[0x30, 0x80, 0x24, 0x80, 4, 2, b'a', b'b', 4, 1, b'c', 0, 0, 2, 1, 5, 0, 0],
            &[0x30, 9, 2, 1, 5, 6, 2, 0x88, 0x37, 5, 0],
            &long,
        ],
    );
}
