//! What holds for all input: blocks written are read back, hostile ones give an error, and the limits hold.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use bytes::BytesMut;
use http::{HeaderName, HeaderValue};
use portolan_hpack::{Decoder, Encoder, Field, Limits, Name, Why};
use proptest::prelude::*;

fn encode(encoder: &mut Encoder, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = BytesMut::new();
    encoder.start_block(&mut out);
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        encoder.field(&name, &HeaderValue::from_str(value).unwrap(), &mut out);
    }
    out.to_vec()
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Vec<(String, String)> {
    let mut out = Vec::new();
    decoder.decode(block, &mut |field| out.push(pair(&field))).unwrap();
    out
}

fn pair(field: &Field) -> (String, String) {
    let Name::Field(name) = &field.name else { panic!("{field:?}") };
    (name.as_str().into(), field.value.to_str().unwrap().into())
}

fn granting(table_size: usize) -> Decoder {
    let mut limits = Limits::default();
    limits.table_size = table_size;
    Decoder::new(limits)
}

#[test]
fn header_codec_reuses_dynamic_table_with_small_peer_table() {
    let mut encoder = Encoder::new(4096);
    // Room for two entries of 43 bytes, not for a third.
    encoder.set_peer_table_size(100);
    let fields = [("x-small-a", "1a"), ("x-small-b", "2b")];
    let first = encode(&mut encoder, &fields);
    let second = encode(&mut encoder, &fields);
    assert_eq!(first[..2], [0x3f, 0x45], "the update to 100 comes first");
    assert_eq!(second, [0xbf, 0xbe], "both are named by their number");
    let mut decoder = granting(100);
    let expected = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(decode(&mut decoder, &first), expected);
    decoder.acknowledged();
    assert_eq!(decode(&mut decoder, &second), expected);
    // A third pushes out the oldest alone.
    let third = encode(&mut encoder, &[("x-small-c", "3c")]);
    let fourth = encode(&mut encoder, &[("x-small-b", "2b"), ("x-small-c", "3c")]);
    assert_eq!(fourth, [0xbf, 0xbe]);
    assert_eq!(decode(&mut decoder, &third), [("x-small-c".into(), "3c".into())]);
    assert_eq!(decode(&mut decoder, &fourth), [("x-small-b".into(), "2b".into()), ("x-small-c".into(), "3c".into())]);
}

#[test]
fn header_codec_emits_dynamic_table_size_update_when_peer_size_changes() {
    let mut encoder = Encoder::new(8192);
    let field = [("x-name", "value")];
    let _ = encode(&mut encoder, &field);
    encoder.set_peer_table_size(128);
    let block = encode(&mut encoder, &field);
    assert_eq!(block, [0x3f, 0x61, 0xbe], "128 after the pattern, and the entry survived");
    assert_eq!(encode(&mut encoder, &field), [0xbe], "said once");
    encoder.set_peer_table_size(0);
    assert_eq!(encode(&mut encoder, &field)[0], 0x20);
    // Down and up again between two blocks: the low and the last are said (RFC 7541 4.2).
    encoder.set_peer_table_size(256);
    let _ = encode(&mut encoder, &field);
    encoder.set_peer_table_size(0);
    encoder.set_peer_table_size(256);
    assert_eq!(encode(&mut encoder, &field)[..4], [0x20, 0x3f, 0xe1, 0x01]);
    // The own cap holds against a generous peer.
    encoder.set_peer_table_size(65536);
    assert_eq!(encode(&mut encoder, &field)[..3], [0x3f, 0xe1, 0x3f], "8192");
    encoder.set_peer_table_size(u32::MAX);
    assert_eq!(encode(&mut encoder, &field), [0xbe], "8192 still: nothing to say");
}

#[test]
fn header_codec_does_not_reuse_entry_larger_than_peer_table() {
    let mut encoder = Encoder::new(4096);
    encoder.set_peer_table_size(64);
    let (kept, large) = (("x-kept", "here"), ("x-large", "a value that with its name goes beyond 64 bytes"));
    let _ = encode(&mut encoder, &[kept]);
    let first = encode(&mut encoder, &[large]);
    let second = encode(&mut encoder, &[large]);
    assert_eq!(first, second, "a literal each time");
    assert_eq!(first[0], 0x00, "without indexing");
    assert_eq!(encode(&mut encoder, &[kept]), [0xbe], "and what was kept is not pushed out");
}

#[test]
fn secrets_are_never_indexed() {
    let mut encoder = Encoder::new(4096);
    for (name, value) in
        [("authorization", "Bearer abc"), ("cookie", "a=1"), ("x-api-key", "k"), ("proxy-authorization", "Basic eDp5")]
    {
        let first = encode(&mut encoder, &[(name, value)]);
        assert_eq!(first[0] & 0xf0, 0x10, "{name}");
        assert_eq!(encode(&mut encoder, &[(name, value)]), first, "{name}");
    }
    let mut out = BytesMut::new();
    let mut secret = HeaderValue::from_static("s");
    secret.set_sensitive(true);
    encoder.field(&HeaderName::from_static("x-mine"), &secret, &mut out);
    assert_eq!(out[0], 0x10);
    let cookie = ("cookie", "session=0123456789abcdef");
    let _ = encode(&mut encoder, &[cookie]);
    assert_eq!(encode(&mut encoder, &[cookie]), [0xbe], "a long cookie has the entropy to be indexed");
}

#[test]
fn size_updates_are_held_to_their_rules() {
    let refused = |decoder: &mut Decoder, block: &[u8]| decoder.decode(block, &mut |_| ()).map_err(|error| error.why);
    assert_eq!(refused(&mut granting(4096), &[0x3f, 0xe2, 0x1f]), Err(Why::TooLong), "4097 of 4096");
    assert_eq!(refused(&mut granting(4096), &[0x82, 0x20]), Err(Why::Invalid), "in mid-block");
    let mut shrunk = granting(0);
    assert!(refused(&mut shrunk, &[0x3f, 0xe1, 0x1f]).is_ok(), "4096 until it has acknowledged");
    shrunk.acknowledged();
    assert_eq!(refused(&mut shrunk, &[0x82]), Err(Why::Invalid), "an update is owed");
    let mut obeying = granting(0);
    obeying.acknowledged();
    assert!(refused(&mut obeying, &[0x20, 0x82]).is_ok());
    assert_eq!(refused(&mut obeying, &[0x3f, 0x00]), Err(Why::TooLong));
}

#[test]
fn a_list_beyond_the_limit_is_cut_and_the_table_stays_in_step() {
    let mut limits = Limits::default();
    limits.list_size = 100;
    let mut decoder = Decoder::new(limits);
    let mut encoder = Encoder::new(4096);
    let block = encode(&mut encoder, &[("x-a", "1"), ("x-b", "2"), ("x-c", "3"), ("x-d", "4")]);
    let mut seen = 0;
    let summary = decoder.decode(&block, &mut |_| seen += 1).unwrap();
    assert_eq!((seen, summary.fields, summary.list_size, summary.cut), (2, 4, 144, true));
    assert_eq!(decode(&mut decoder, &encode(&mut encoder, &[("x-d", "4")])), [("x-d".into(), "4".into())]);
}

#[test]
fn malformed_names_and_values_are_marked_and_keep_their_place() {
    let mut decoder = Decoder::new(Limits::default());
    // "X-A: 1", "x-b: \0", then the second again by number, and its name with another value.
    let block =
        [&[0x40, 3][..], b"X-A", &[1], b"1", &[0x40, 3], b"x-b", &[1, 0], &[0xbe, 0x0f, 0x2f, 1], b"2"].concat();
    let mut seen = Vec::new();
    let summary = decoder.decode(&block, &mut |field| seen.push((field.malformed, field.value))).unwrap();
    assert_eq!(seen.iter().map(|(malformed, _)| *malformed).collect::<Vec<_>>(), [true, true, true, false]);
    assert_eq!(seen[3].1, "2");
    assert_eq!(summary.list_size, 4 * 36);
}

proptest! {
    #[test]
    fn any_bytes_give_fields_or_an_error(block in proptest::collection::vec(any::<u8>(), 0..512)) {
        let mut size = 0;
        let limits = Limits::default();
        let result = Decoder::new(limits).decode(&block, &mut |field| size += field.value.len() + 32);
        prop_assert!(size <= limits.list_size);
        if let Err(error) = result {
            prop_assert!(error.offset <= block.len());
        }
    }

    #[test]
    fn what_is_written_is_read_back(
        blocks in proptest::collection::vec(
            (proptest::collection::vec(("[a-d][a-z-]{0,3}", "[ -~]{0,40}"), 0..12), proptest::option::of(0u32..600)), 1..12),
        cap in 0usize..5000,
    ) {
        let (mut encoder, mut decoder) = (Encoder::new(cap), Decoder::new(Limits::default()));
        for (fields, size) in blocks {
            if let Some(size) = size {
                encoder.set_peer_table_size(size);
            }
            let mut out = BytesMut::new();
            encoder.start_block(&mut out);
            let mut expected = Vec::new();
            for (name, value) in &fields {
                let value = HeaderValue::from_str(value).unwrap();
                encoder.field(&HeaderName::from_bytes(name.as_bytes()).unwrap(), &value, &mut out);
                expected.push((name.clone(), value.to_str().unwrap().to_owned()));
            }
            prop_assert_eq!(decode(&mut decoder, &out), expected);
        }
    }

    #[test]
    fn a_block_cut_short_is_an_error_or_a_prefix(fields in proptest::collection::vec(("[a-z]{1,8}", "[a-z]{0,20}"), 1..6), at in 0usize..200) {
        let pairs: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let block = encode(&mut Encoder::new(4096), &pairs);
        let mut seen = Vec::new();
        let cut = &block[..at.min(block.len())];
        let _ = Decoder::new(Limits::default()).decode(cut, &mut |field| seen.push(pair(&field)));
        for (seen, (name, value)) in seen.iter().zip(&fields) {
            prop_assert_eq!((&seen.0, &seen.1), (name, value));
        }
    }
}
