//! A header field as it travels: pseudo-headers and plain ones.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

/// A pseudo-header (RFC 9113 8.3, RFC 9114 4.3, RFC 8441 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Pseudo {
    /// `:authority`
    Authority,
    /// `:method`
    Method,
    /// `:path`
    Path,
    /// `:protocol` of an extended CONNECT
    Protocol,
    /// `:scheme`
    Scheme,
    /// `:status`
    Status,
}

impl Pseudo {
    /// The name as it is on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Authority => ":authority",
            Self::Method => ":method",
            Self::Path => ":path",
            Self::Protocol => ":protocol",
            Self::Scheme => ":scheme",
            Self::Status => ":status",
        }
    }

    const fn from_bytes(name: &[u8]) -> Option<Self> {
        Some(match name {
            b":authority" => Self::Authority,
            b":method" => Self::Method,
            b":path" => Self::Path,
            b":protocol" => Self::Protocol,
            b":scheme" => Self::Scheme,
            b":status" => Self::Status,
            _ => return None,
        })
    }
}

/// The name of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Name {
    /// A pseudo-header.
    Pseudo(Pseudo),
    /// A plain field.
    Field(HeaderName),
    /// Not a name that HTTP allows: an upper-case letter, an unknown pseudo-header, a control character. The message is
    /// malformed (RFC 9113 8.2.1), though the table is not.
    Malformed,
}

impl Name {
    pub(crate) const fn from_static(name: &'static str) -> Self {
        match Pseudo::from_bytes(name.as_bytes()) {
            Some(pseudo) => Self::Pseudo(pseudo),
            None => Self::Field(HeaderName::from_static(name)),
        }
    }

    pub(crate) fn from_wire(name: &[u8]) -> Self {
        if name.first() == Some(&b':') {
            return Pseudo::from_bytes(name).map_or(Self::Malformed, Self::Pseudo);
        }
        HeaderName::from_lowercase(name).map_or(Self::Malformed, Self::Field)
    }
}

/// One decoded field.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Field {
    /// Its name.
    pub name: Name,
    /// Its value; empty when the bytes were none that HTTP allows.
    pub value: HeaderValue,
    /// Whether name or value hold bytes that HTTP forbids (RFC 9113 8.2.1).
    pub malformed: bool,
}

impl Field {
    pub(crate) const fn from_static(name: &'static str, value: &'static str) -> Self {
        Self { name: Name::from_static(name), value: HeaderValue::from_static(value), malformed: false }
    }

    pub(crate) fn from_wire(name: Name, value: Bytes, name_malformed: bool) -> Self {
        match HeaderValue::from_maybe_shared(value) {
            Ok(value) => Self { malformed: name_malformed, name, value },
            Err(_) => Self { name, value: HeaderValue::from_static(""), malformed: true },
        }
    }
}
