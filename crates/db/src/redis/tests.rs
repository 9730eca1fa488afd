//! Vectors of the protocol specification, the laws, and a scripted peer.

use bytes::{Bytes, BytesMut};
use portolan_wire::{Codec, DecodeError, laws};

use super::*;

fn decode(bytes: &[u8]) -> Result<Option<Value>, DecodeError> {
    RespCodec::default().decode(&mut BytesMut::from(bytes))
}

fn value(bytes: &[u8]) -> Value {
    decode(bytes).unwrap().unwrap()
}

fn bulk(text: &'static str) -> Value {
    Value::Bulk(Bytes::from_static(text.as_bytes()))
}

/// From <https://redis.io/docs/latest/develop/reference/protocol-spec/>: one of every type.
const SEEDS: &[&[u8]] = &[
    b"+OK\r\n",
    b"-ERR unknown command 'asdf'\r\n",
    b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
    b":-1000\r\n",
    b"$5\r\nhello\r\n",
    b"$0\r\n\r\n",
    b"$-1\r\n",
    b"*0\r\n",
    b"*-1\r\n",
    b"*2\r\n$5\r\nhello\r\n$5\r\nworld\r\n",
    b"*2\r\n*3\r\n:1\r\n:2\r\n:3\r\n*2\r\n+Hello\r\n-World\r\n",
    b"*3\r\n$5\r\nhello\r\n$-1\r\n$5\r\nworld\r\n",
    b"_\r\n",
    b"#t\r\n",
    b",1.23\r\n",
    b",inf\r\n",
    b"(3492890328409238509324850943850943825024385\r\n",
    b"!21\r\nSYNTAX invalid syntax\r\n",
    b"=15\r\ntxt:Some string\r\n",
    b"%2\r\n+first\r\n:1\r\n+second\r\n:2\r\n",
    b"~5\r\n+orange\r\n+apple\r\n#t\r\n:100\r\n:999\r\n",
    b"|1\r\n+key-popularity\r\n%2\r\n$1\r\na\r\n,0.1923\r\n$1\r\nb\r\n,0.0012\r\n*2\r\n:2039123\r\n:9543892\r\n",
    b">4\r\n+pubsub\r\n+message\r\n+somechannel\r\n+this is the message\r\n",
    b"*3\r\n:1\r\n:2\r\n|1\r\n+ttl\r\n:3600\r\n:3\r\n",
];

#[test]
fn every_type_of_the_specification_is_read() {
    assert_eq!(value(SEEDS[0]), Value::Simple("OK".into()));
    assert!(matches!(value(SEEDS[2]), Value::Error(error) if error.code == "WRONGTYPE"));
    assert_eq!(value(SEEDS[3]), Value::Int(-1000));
    assert_eq!(value(SEEDS[5]), bulk(""));
    assert_eq!(value(SEEDS[6]), Value::Null);
    assert_eq!(value(SEEDS[8]), Value::Null);
    assert_eq!(value(SEEDS[11]), Value::Array(vec![bulk("hello"), Value::Null, bulk("world")]));
    assert_eq!(value(SEEDS[15]), Value::Double(f64::INFINITY));
    assert!(
        matches!(value(SEEDS[17]), Value::Error(error) if error.code == "SYNTAX" && error.message == "invalid syntax")
    );
    assert!(matches!(value(SEEDS[18]), Value::Verbatim { format, text } if format == "txt" && text == "Some string"));
    assert!(matches!(value(SEEDS[19]), Value::Map(pairs) if pairs.len() == 2));
    assert_eq!(value(SEEDS[21]), Value::Array(vec![Value::Int(2_039_123), Value::Int(9_543_892)]));
    assert_eq!(value(SEEDS[23]), Value::Array(vec![Value::Int(1), Value::Int(2), Value::Int(3)]));
}

#[test]
fn the_decoder_keeps_the_laws() {
    laws::check(RespCodec::default, SEEDS);
}

#[test]
fn what_breaks_the_rules_is_named() {
    for (bytes, error) in [
        (&b"?\r\n"[..], DecodeError::unsupported("reply type", 0)),
        (b"$x\r\n", DecodeError::invalid("length", 0)),
        (b"$-2\r\n", DecodeError::invalid("length", 0)),
        (b"+a\rb\r\n", DecodeError::invalid("line end", 0)),
        (b"*99999999999\r\n", DecodeError::too_long("element count", 0)),
        (b"$99999999999\r\n", DecodeError::too_long("bulk string", 0)),
        (b"$?\r\n", DecodeError::invalid("length", 0)),
        (b"#x\r\n", DecodeError::invalid("boolean", 0)),
    ] {
        let seen = decode(bytes).unwrap_err();
        let expected = if bytes == b"$?\r\n" { DecodeError::unsupported("streamed reply", 0) } else { error };
        assert_eq!(seen, expected, "{}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn nesting_and_length_have_their_bounds() {
    let deep = b"*1\r\n".repeat(100_000);
    assert_eq!(decode(&deep).unwrap_err().why, portolan_wire::Why::TooLong);
    let line = [b"+".as_slice(), &b"x".repeat(100_000)].concat();
    assert_eq!(decode(&line).unwrap_err().why, portolan_wire::Why::TooLong);
    let silent = decode(b"$536870000\r\nabc");
    assert_eq!(silent, Ok(None));
}

#[test]
fn pipelined_replies_come_out_one_by_one() {
    let all = SEEDS.concat();
    let (mut codec, mut buf, mut count) = (RespCodec::default(), BytesMut::from(&all[..]), 0);
    while codec.decode(&mut buf).unwrap().is_some() {
        count += 1;
    }
    assert_eq!((count, buf.len()), (SEEDS.len(), 0));
}
