//! RFC 9204 appendix B, and what holds for all input.

use bytes::BytesMut;
use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::{Decoder, Encoder, Fault, Section};
use crate::{Field, Limits, Name};

fn bytes(hex: &str) -> BytesMut {
    let hex: String = hex.split_whitespace().collect();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn text(field: &Field) -> String {
    let name = match &field.name {
        Name::Pseudo(pseudo) => pseudo.as_str(),
        Name::Field(name) => name.as_str(),
        Name::Malformed => panic!("malformed"),
    };
    format!("{name}: {}", field.value.to_str().unwrap())
}

fn decode(decoder: &mut Decoder, stream: u64, section: &[u8], out: &mut BytesMut) -> Option<Vec<String>> {
    let mut seen = Vec::new();
    match decoder.decode(stream, section, out, &mut |field| seen.push(text(&field))).unwrap() {
        Section::Decoded(_) => Some(seen),
        Section::Blocked => None,
    }
}

fn granting(table_size: usize, blocked: usize) -> Decoder {
    Decoder::new(Limits { table_size, ..Limits::default() }, blocked)
}

/// B.1 to B.4: a literal, insertions that a section waits for, a speculative insertion, a duplicate and a cancellation.
#[test]
fn the_exchange_of_the_specification_decodes() {
    let mut decoder = granting(220, 1);
    let mut out = BytesMut::new();
    let first = decode(&mut decoder, 0, &bytes("0000 510b 2f69 6e64 6578 2e68 746d 6c"), &mut out);
    assert_eq!(first.unwrap(), [":path: /index.html"]);
    let section = bytes("0381 1011");
    assert_eq!(decode(&mut decoder, 4, &section, &mut out), None, "blocked until the entries come");
    assert!(out.is_empty());
    let mut instructions =
        bytes("3fbd01 c00f 7777 772e 6578 616d 706c 652e 636f 6d c10c 2f73 616d 706c 652f 7061 7468");
    assert!(decoder.on_encoder_stream(&mut instructions, &mut out).unwrap());
    let second = decode(&mut decoder, 4, &section, &mut out);
    assert_eq!(second.unwrap(), [":authority: www.example.com", ":path: /sample/path"]);
    assert_eq!(out.split().to_vec(), [0x02, 0x84], "two insertions, then the section");
    let mut instructions = bytes("4a63 7573 746f 6d2d 6b65 790c 6375 7374 6f6d 2d76 616c 7565");
    assert!(decoder.on_encoder_stream(&mut instructions, &mut out).unwrap());
    assert_eq!(out.split().to_vec(), [0x01]);
    assert!(decoder.on_encoder_stream(&mut bytes("02"), &mut out).unwrap());
    let third = decode(&mut decoder, 8, &bytes("0500 80 c1 81"), &mut out);
    assert_eq!(third.unwrap(), [":authority: www.example.com", ":path: /", "custom-key: custom-value"]);
    out.clear();
    decoder.cancel(8, &mut out);
    assert_eq!(out.to_vec(), [0x48]);
}

#[test]
fn instructions_may_come_byte_by_byte() {
    let mut decoder = granting(220, 0);
    let (mut input, mut out) = (BytesMut::new(), BytesMut::new());
    for byte in bytes(
        "3fbd01 c00f 7777 772e 6578 616d 706c 652e 636f 6d 4a63 7573 746f 6d2d 6b65 790c 6375 7374 6f6d 2d76 616c 7565",
    ) {
        input.extend_from_slice(&[byte]);
        let _ = decoder.on_encoder_stream(&mut input, &mut out).unwrap();
    }
    assert!(input.is_empty());
    let seen = decode(&mut decoder, 0, &bytes("0300 80 81"), &mut out);
    assert_eq!(seen.unwrap(), ["custom-key: custom-value", ":authority: www.example.com"]);
}

#[test]
fn what_breaks_the_rules_is_refused_with_its_code() {
    let mut out = BytesMut::new();
    let mut section = |hex: &str| granting(220, 0).decode(0, &bytes(hex), &mut out, &mut |_| ()).unwrap_err().code();
    assert_eq!(section("0281 10"), 0x200, "blocked, and no stream may be");
    assert_eq!(section("0000 80"), 0x200, "an entry beyond the required count");
    assert_eq!(section("ff00 00"), 0x200, "a count beyond the range");
    assert_eq!(section("0000 ff24"), 0x200, "static index 99");
    let encoder_stream =
        |hex: &str| granting(220, 0).on_encoder_stream(&mut bytes(hex), &mut BytesMut::new()).unwrap_err().code();
    assert_eq!(encoder_stream("3fbe01"), 0x201, "a capacity of 221");
    assert_eq!(encoder_stream("02"), 0x201, "a duplicate of nothing");
    assert_eq!(encoder_stream("4161 0162"), 0x201, "an insertion into no table");
    let decoder_stream = |hex: &str| Encoder::new(4096).on_decoder_stream(&mut bytes(hex)).unwrap_err().code();
    assert_eq!(decoder_stream("84"), 0x202, "an acknowledgement of nothing");
    assert_eq!(decoder_stream("01"), 0x202, "an increment beyond what was sent");
    assert_eq!(decoder_stream("00"), 0x202, "an increment of nothing");
}

fn encode(encoder: &mut Encoder, stream: u64, fields: &[(String, String)], encoder_stream: &mut BytesMut) -> BytesMut {
    let mut out = BytesMut::new();
    encoder.start_section();
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        encoder.field(&name, &HeaderValue::from_str(value).unwrap(), encoder_stream);
    }
    encoder.end_section(stream, &mut out);
    out
}

#[test]
fn an_entry_is_named_once_it_is_acknowledged() {
    let mut encoder = Encoder::new(4096);
    let mut decoder = granting(4096, 0);
    let (mut instructions, mut answers) = (BytesMut::new(), BytesMut::new());
    encoder.set_peer_capacity(4096, &mut instructions);
    let fields = [("x-kind".to_owned(), "again".to_owned())];
    let first = encode(&mut encoder, 0, &fields, &mut instructions);
    assert_eq!(first[..2], [0, 0], "nothing is named before it is known to be there");
    decoder.on_encoder_stream(&mut instructions, &mut answers).unwrap();
    encoder.on_decoder_stream(&mut answers).unwrap();
    let second = encode(&mut encoder, 4, &fields, &mut instructions);
    assert_eq!(second.to_vec(), [2, 0, 0x80]);
    assert!(instructions.is_empty());
    assert_eq!(decode(&mut decoder, 4, &second, &mut answers).unwrap(), ["x-kind: again"]);
    encoder.on_decoder_stream(&mut answers).unwrap();
}

proptest! {
    /// Sections read late and in any order, instructions and answers delayed: what is written is read back, and never blocked.
    #[test]
    fn what_is_written_is_read_back(
        sections in proptest::collection::vec(
            (proptest::collection::vec(("[a-d][a-z-]{0,3}", "[ -~]{0,20}"), 0..8), any::<bool>(), any::<bool>()), 1..30),
        capacity in 0usize..400,
    ) {
        let mut encoder = Encoder::new(300);
        let mut decoder = granting(capacity, 0);
        let (mut instructions, mut answers) = (BytesMut::new(), BytesMut::new());
        encoder.set_peer_capacity(capacity as u64, &mut instructions);
        let mut late = Vec::new();
        for (stream, (fields, deliver, answer)) in (0u64..).zip(sections) {
            let section = encode(&mut encoder, stream, &fields, &mut instructions);
            late.push((stream, section, fields));
            if deliver {
                decoder.on_encoder_stream(&mut instructions, &mut answers).unwrap();
                while let Some((stream, section, fields)) = late.pop() {
                    let expected: Vec<String> = fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
                    prop_assert_eq!(decode(&mut decoder, stream, &section, &mut answers), Some(expected));
                }
            }
            if answer {
                encoder.on_decoder_stream(&mut answers).unwrap();
            }
        }
    }

    #[test]
    fn any_bytes_give_fields_or_a_fault(section in proptest::collection::vec(any::<u8>(), 0..200), stream in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut out = BytesMut::new();
        let mut decoder = granting(220, 2);
        let fault = decoder.on_encoder_stream(&mut BytesMut::from(&stream[..]), &mut out);
        prop_assert!(fault.is_ok() || matches!(fault, Err(Fault::EncoderStream(_))));
        let _ = decoder.decode(0, &section, &mut out, &mut |_| ());
        let _ = Encoder::new(100).on_decoder_stream(&mut BytesMut::from(&stream[..]));
    }
}
