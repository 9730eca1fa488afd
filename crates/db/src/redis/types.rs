//! The vocabulary: values, errors, conversions.

use std::collections::HashMap;
use std::fmt;

use bytes::Bytes;
use portolan_core::{Error, Kind, Result};

use super::PROTOCOL;

/// A reply, in the types of RESP3; RESP2 uses the first few.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// Nothing: a key that is not there.
    Null,
    /// An integer.
    Int(i64),
    /// Bytes.
    Bulk(Bytes),
    /// A status line such as `OK`.
    Simple(Bytes),
    /// A refusal.
    Error(ServerError),
    /// An ordered list.
    Array(Vec<Value>),
    /// A floating point number (RESP3).
    Double(f64),
    /// A truth value (RESP3).
    Bool(bool),
    /// An integer of any length, in decimal (RESP3).
    BigNumber(Bytes),
    /// Text that says how to show it: `txt` or `mkd` (RESP3).
    Verbatim {
        /// Three letters.
        format: Bytes,
        /// The text.
        text: Bytes,
    },
    /// Pairs, in the order sent (RESP3).
    Map(Vec<(Value, Value)>),
    /// A set (RESP3).
    Set(Vec<Value>),
    /// Something nobody asked for: a message, an invalidation (RESP3).
    Push(Vec<Value>),
}

impl Value {
    /// The bytes, where the value is some kind of text.
    pub fn as_bytes(&self) -> Option<&Bytes> {
        match self {
            Self::Bulk(bytes) | Self::Simple(bytes) | Self::BigNumber(bytes) | Self::Verbatim { text: bytes, .. } => {
                Some(bytes)
            }
            _ => None,
        }
    }

    /// The elements, where the value is a list, a set or a push.
    pub fn as_items(&self) -> Option<&[Value]> {
        match self {
            Self::Array(items) | Self::Set(items) | Self::Push(items) => Some(items),
            _ => None,
        }
    }

    /// Whether it is nothing.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Int(_) => "integer",
            Self::Bulk(_) => "bulk string",
            Self::Simple(_) => "status",
            Self::Error(_) => "error",
            Self::Array(_) => "array",
            Self::Double(_) => "double",
            Self::Bool(_) => "boolean",
            Self::BigNumber(_) => "big number",
            Self::Verbatim { .. } => "verbatim string",
            Self::Map(_) => "map",
            Self::Set(_) => "set",
            Self::Push(_) => "push",
        }
    }
}

/// A refusal by the server: `CODE text`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerError {
    /// The first word, in capitals: `ERR`, `WRONGTYPE`, `NOAUTH`, `MOVED`.
    pub code: String,
    /// All behind it.
    pub message: String,
}

impl ServerError {
    pub(crate) fn parse(line: &[u8]) -> Self {
        let text = String::from_utf8_lossy(line);
        match text.split_once(' ') {
            Some((code, message)) if code.bytes().all(|b| b.is_ascii_uppercase()) => {
                Self { code: code.to_owned(), message: message.to_owned() }
            }
            _ if !text.is_empty() && text.bytes().all(|b| b.is_ascii_uppercase()) => {
                Self { code: text.into_owned(), message: String::new() }
            }
            _ => Self { code: "ERR".to_owned(), message: text.into_owned() },
        }
    }

    /// As an error of the workspace, with the class of what became of the work.
    pub(crate) fn into_error(self) -> Error {
        use portolan_core::Delivery;
        let kind = match self.code.as_str() {
            "NOAUTH" | "WRONGPASS" | "NOPERM" => Kind::Auth,
            _ => Kind::Server,
        };
        // These say that the command was not run; all other refusals are its answer.
        let delivery = match self.code.as_str() {
            "LOADING" | "TRYAGAIN" | "CLUSTERDOWN" | "MASTERDOWN" | "READONLY" | "BUSY" => Delivery::Refused,
            _ => Delivery::Answered,
        };
        let message = self.to_string();
        Error::new(kind, message).with_protocol(PROTOCOL).with_delivery(delivery).with_reply(self)
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.message.is_empty() { f.write_str(&self.code) } else { write!(f, "{} {}", self.code, self.message) }
    }
}

/// What a reply can be read as.
pub trait FromValue: Sized {
    /// The conversion; a value of another kind is a protocol error that says what was expected and seen.
    fn from_value(value: Value) -> Result<Self>;
}

fn unexpected(expected: &str, seen: &Value) -> Error {
    Error::protocol(PROTOCOL, format!("expected {expected}, saw a {}", seen.kind()))
        .with_delivery(portolan_core::Delivery::Answered)
}

impl FromValue for Value {
    fn from_value(value: Value) -> Result<Self> {
        Ok(value)
    }
}

impl FromValue for () {
    fn from_value(_: Value) -> Result<Self> {
        Ok(())
    }
}

impl FromValue for Bytes {
    fn from_value(value: Value) -> Result<Self> {
        match value {
            Value::Bulk(bytes)
            | Value::Simple(bytes)
            | Value::BigNumber(bytes)
            | Value::Verbatim { text: bytes, .. } => Ok(bytes),
            Value::Int(number) => Ok(number.to_string().into()),
            Value::Double(number) => Ok(number.to_string().into()),
            other => Err(unexpected("bytes", &other)),
        }
    }
}

impl FromValue for Vec<u8> {
    fn from_value(value: Value) -> Result<Self> {
        Bytes::from_value(value).map(Self::from)
    }
}

impl FromValue for String {
    fn from_value(value: Value) -> Result<Self> {
        let bytes = Bytes::from_value(value)?;
        Self::from_utf8(bytes.into()).map_err(|_| {
            Error::protocol(PROTOCOL, "expected UTF-8 text, saw other bytes")
                .with_delivery(portolan_core::Delivery::Answered)
        })
    }
}

macro_rules! integers {
    ($($t:ty),*) => {$(
        impl FromValue for $t {
            fn from_value(value: Value) -> Result<Self> {
                let number = match &value {
                    Value::Int(number) => Self::try_from(*number).ok(),
                    Value::Bool(truth) => Some(Self::from(*truth)),
                    other => other.as_bytes().and_then(|b| std::str::from_utf8(b).ok()).and_then(|text| text.parse().ok()),
                };
                number.ok_or_else(|| unexpected(concat!("an integer that fits ", stringify!($t)), &value))
            }
        }
    )*};
}
integers!(i64, u64, i32, u32, u16, usize);

impl FromValue for f64 {
    fn from_value(value: Value) -> Result<Self> {
        let number = match &value {
            Value::Double(number) => Some(*number),
            other => other.as_bytes().and_then(|b| std::str::from_utf8(b).ok()).and_then(|text| text.parse().ok()),
        };
        number.ok_or_else(|| unexpected("a number", &value))
    }
}

impl FromValue for bool {
    fn from_value(value: Value) -> Result<Self> {
        match value {
            Value::Bool(truth) => Ok(truth),
            Value::Int(number) => Ok(number != 0),
            Value::Null => Ok(false),
            Value::Simple(ref status) if status == "OK" => Ok(true),
            other => Err(unexpected("a truth value", &other)),
        }
    }
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: Value) -> Result<Self> {
        if value.is_null() { Ok(None) } else { T::from_value(value).map(Some) }
    }
}

/// Not for bytes: `Vec<u8>` is one string.
impl<T: FromValue + NotByte> FromValue for Vec<T> {
    fn from_value(value: Value) -> Result<Self> {
        match value {
            Value::Array(items) | Value::Set(items) | Value::Push(items) => {
                items.into_iter().map(T::from_value).collect()
            }
            Value::Map(pairs) => pairs.into_iter().flat_map(|(key, value)| [key, value]).map(T::from_value).collect(),
            Value::Null => Ok(Self::new()),
            other => Err(unexpected("an array", &other)),
        }
    }
}

/// Marks what a `Vec` may hold as elements.
pub trait NotByte {}
impl NotByte for Value {}
impl NotByte for Bytes {}
impl NotByte for String {}
impl NotByte for i64 {}
impl NotByte for u64 {}
impl NotByte for f64 {}
impl NotByte for bool {}
impl NotByte for Vec<u8> {}
impl<T> NotByte for Option<T> {}
impl<A, B> NotByte for (A, B) {}

impl<A: FromValue, B: FromValue> FromValue for (A, B) {
    fn from_value(value: Value) -> Result<Self> {
        let mut items = match value {
            Value::Array(items) if items.len() == 2 => items.into_iter(),
            other => return Err(unexpected("a pair", &other)),
        };
        match (items.next(), items.next()) {
            (Some(a), Some(b)) => Ok((A::from_value(a)?, B::from_value(b)?)),
            _ => Err(unexpected("a pair", &Value::Null)),
        }
    }
}

/// A RESP3 map, or RESP2's flat list of keys and values.
impl<K: FromValue + Eq + std::hash::Hash, V: FromValue> FromValue for HashMap<K, V> {
    fn from_value(value: Value) -> Result<Self> {
        let pairs: Vec<(Value, Value)> = match value {
            Value::Map(pairs) => pairs,
            Value::Null => Vec::new(),
            Value::Array(items) if items.len() % 2 == 0 => {
                let mut items = items.into_iter();
                std::iter::from_fn(|| Some((items.next()?, items.next()?))).collect()
            }
            other => return Err(unexpected("a map", &other)),
        };
        pairs.into_iter().map(|(key, value)| Ok((K::from_value(key)?, V::from_value(value)?))).collect()
    }
}
