//! Structured fields (RFC 9651, and with it RFC 8941): fields that are lists, dictionaries or items, read strictly and written in the
//! one form that each value has.
//!
//! ```
//! use portolan_http::structured::{Bare, Dictionary, Member};
//!
//! let priority = Dictionary::decode(b"u=1,  i")?;
//! let Some(Member::Item(urgency)) = priority.get("u") else { panic!() };
//! assert_eq!(urgency.value, Bare::Integer(1));
//! assert_eq!(priority.to_string(), "u=1, i");
//! # Ok::<(), portolan_wire::DecodeError>(())
//! ```

mod parse;
#[cfg(test)]
mod tests;
mod write;

use http::{HeaderMap, HeaderName};
use portolan_wire::DecodeError;

use parse::Parser;

/// A field that is longer is not looked at.
const MAX_FIELD: usize = 64 << 10;

/// A value by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bare {
    /// A whole number of at most fifteen digits.
    Integer(i64),
    /// A number with a fraction, in thousandths.
    Decimal(i64),
    /// Text of printable ASCII.
    String(String),
    /// A word that stands without quotes.
    Token(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Yes or no.
    Boolean(bool),
    /// A moment, in seconds since 1970.
    Date(i64),
    /// Text for people, in any script.
    Display(String),
}

/// What is said beside a value, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Params(Vec<(String, Bare)>);

/// A value with its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Item {
    /// The value.
    pub value: Bare,
    /// Its parameters.
    pub params: Params,
}

/// Values in parentheses, with parameters of their own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct InnerList {
    /// The values.
    pub items: Vec<Item>,
    /// The parameters of them all.
    pub params: Params,
}

/// What lists and dictionaries hold.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Member {
    /// One value.
    Item(Item),
    /// Several in parentheses.
    List(InnerList),
}

/// A field that is a list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct List(Vec<Member>);

/// A field that is a dictionary, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dictionary(Vec<(String, Member)>);

impl Params {
    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&Bare> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Bare)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Sets a parameter: one of the same name takes the new value and keeps its place.
    pub fn set(&mut self, name: impl Into<String>, value: Bare) {
        put(&mut self.0, name.into(), value);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Item {
    /// A value without parameters.
    pub fn new(value: Bare) -> Self {
        Self { value, params: Params::default() }
    }

    /// Reads a field that is one item.
    pub fn decode(field: &[u8]) -> Result<Self, DecodeError> {
        Parser::whole(field, Parser::item)
    }
}

impl List {
    /// Reads a field that is a list.
    pub fn decode(field: &[u8]) -> Result<Self, DecodeError> {
        Parser::whole(field, |parser| parser.list().map(Self))
    }

    /// Its members.
    pub fn members(&self) -> &[Member] {
        &self.0
    }
}

impl Dictionary {
    /// Reads a field that is a dictionary.
    pub fn decode(field: &[u8]) -> Result<Self, DecodeError> {
        Parser::whole(field, |parser| parser.dictionary().map(Self))
    }

    /// All lines of a field as one dictionary; without any it is empty.
    pub fn of(headers: &HeaderMap, name: impl Into<HeaderName>) -> Result<Self, DecodeError> {
        let lines: Vec<&[u8]> = headers.get_all(name.into()).iter().map(http::HeaderValue::as_bytes).collect();
        Self::decode(&lines.join(&b", "[..]))
    }

    /// The member of this name.
    pub fn get(&self, name: &str) -> Option<&Member> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, member)| member)
    }

    /// Names and members, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Member)> {
        self.0.iter().map(|(name, member)| (name.as_str(), member))
    }

    /// Sets a member: one of the same name takes the new value and keeps its place.
    pub fn set(&mut self, name: impl Into<String>, member: Member) {
        put(&mut self.0, name.into(), member);
    }
}

impl Member {
    /// Its parameters.
    pub fn params(&self) -> &Params {
        match self {
            Self::Item(item) => &item.params,
            Self::List(list) => &list.params,
        }
    }
}

fn put<T>(pairs: &mut Vec<(String, T)>, name: String, value: T) {
    match pairs.iter_mut().find(|(known, _)| *known == name) {
        Some((_, old)) => *old = value,
        None => pairs.push((name, value)),
    }
}
