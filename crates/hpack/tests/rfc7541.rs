//! The examples of RFC 7541 appendix C, read by the decoder and, where the encoder's choices are the same, written by the encoder.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use bytes::BytesMut;
use http::{HeaderName, HeaderValue};
use portolan_hpack::{Decoder, Encoder, Field, Limits, Name, Pseudo};

fn bytes(hex: &str) -> Vec<u8> {
    let hex: String = hex.split_whitespace().collect();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn text(field: &Field) -> String {
    let name = match &field.name {
        Name::Pseudo(pseudo) => pseudo.as_str(),
        Name::Field(name) => name.as_str(),
        _ => panic!("malformed"),
    };
    format!("{name}: {}", field.value.to_str().unwrap())
}

fn decoded(decoder: &mut Decoder, hex: &str) -> Vec<String> {
    let mut out = Vec::new();
    decoder.decode(&bytes(hex), &mut |field| out.push(text(&field))).unwrap();
    out
}

/// C.2: literals with and without indexing, never indexed, indexed.
#[test]
fn single_fields_decode() {
    let one = |hex| decoded(&mut Decoder::new(Limits::default()), hex);
    assert_eq!(one("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572"), ["custom-key: custom-header"]);
    assert_eq!(one("040c 2f73 616d 706c 652f 7061 7468"), [":path: /sample/path"]);
    assert_eq!(one("1008 7061 7373 776f 7264 0673 6563 7265 74"), ["password: secret"]);
    assert_eq!(one("82"), [":method: GET"]);
}

#[test]
fn a_never_indexed_field_arrives_as_sensitive() {
    let mut seen = Vec::new();
    let block = bytes("1008 7061 7373 776f 7264 0673 6563 7265 74");
    Decoder::new(Limits::default()).decode(&block, &mut |field| seen.push(field.value.is_sensitive())).unwrap();
    assert_eq!(seen, [true]);
}

const REQUESTS: [&[&str]; 3] = [
    &[":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"],
    &[":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com", "cache-control: no-cache"],
    &[
        ":method: GET",
        ":scheme: https",
        ":path: /index.html",
        ":authority: www.example.com",
        "custom-key: custom-value",
    ],
];

/// C.3: three requests in a row, without Huffman.
#[test]
fn plain_requests_decode() {
    let mut decoder = Decoder::new(Limits::default());
    let blocks = [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ];
    for (block, expected) in blocks.iter().zip(REQUESTS) {
        assert_eq!(decoded(&mut decoder, block), expected);
    }
}

const CODED_REQUESTS: [&str; 3] = [
    "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
    "8286 84be 5886 a8eb 1064 9cbf",
    "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
];

/// C.4: the same with Huffman.
#[test]
fn coded_requests_decode() {
    let mut decoder = Decoder::new(Limits::default());
    for (block, expected) in CODED_REQUESTS.iter().zip(REQUESTS) {
        assert_eq!(decoded(&mut decoder, block), expected);
    }
}

/// C.4 again: our encoder makes the same choices, so it writes the same bytes.
#[test]
fn coded_requests_are_written_as_the_specification_writes_them() {
    let mut encoder = Encoder::new(4096);
    for (expected, fields) in CODED_REQUESTS.iter().zip(REQUESTS) {
        let mut out = BytesMut::new();
        encoder.start_block(&mut out);
        for field in fields {
            let (name, value) = field.rsplit_once(": ").unwrap();
            match name {
                ":method" => encoder.pseudo(Pseudo::Method, value.as_bytes(), &mut out),
                ":scheme" => encoder.pseudo(Pseudo::Scheme, value.as_bytes(), &mut out),
                ":path" => encoder.pseudo(Pseudo::Path, value.as_bytes(), &mut out),
                ":authority" => encoder.pseudo(Pseudo::Authority, value.as_bytes(), &mut out),
                _ => encoder.field(
                    &HeaderName::from_bytes(name.as_bytes()).unwrap(),
                    &HeaderValue::from_str(value).unwrap(),
                    &mut out,
                ),
            }
        }
        assert_eq!(out.to_vec(), bytes(expected));
    }
}

const RESPONSES: [&[&str]; 3] = [
    &[
        ":status: 302",
        "cache-control: private",
        "date: Mon, 21 Oct 2013 20:13:21 GMT",
        "location: https://www.example.com",
    ],
    &[
        ":status: 307",
        "cache-control: private",
        "date: Mon, 21 Oct 2013 20:13:21 GMT",
        "location: https://www.example.com",
    ],
    &[
        ":status: 200",
        "cache-control: private",
        "date: Mon, 21 Oct 2013 20:13:22 GMT",
        "location: https://www.example.com",
        "content-encoding: gzip",
        "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
    ],
];

/// A table of 256 bytes, as C.5 and C.6 have it: entries are evicted on the way.
fn small() -> Decoder {
    let mut decoder = Decoder::new(Limits::default());
    assert_eq!(decoded(&mut decoder, "3fe1 01"), [""; 0]);
    decoder
}

/// C.5: responses without Huffman, with eviction.
#[test]
fn plain_responses_decode_with_eviction() {
    let mut decoder = small();
    let blocks = [
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 474d 546e \
         1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 666f 6f3d \
         4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 \
         7369 6f6e 3d31",
    ];
    for (block, expected) in blocks.iter().zip(RESPONSES) {
        assert_eq!(decoded(&mut decoder, block), expected);
    }
}

/// C.6: the same with Huffman.
#[test]
fn coded_responses_decode_with_eviction() {
    let mut decoder = small();
    let blocks = [
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b \
         97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 dfdf \
         cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
    ];
    for (block, expected) in blocks.iter().zip(RESPONSES) {
        assert_eq!(decoded(&mut decoder, block), expected);
    }
}
