//! What travels beside the messages: text, and bytes under names that end in `-bin`.

use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use portolan_core::{Error, Result, Secret};

use crate::PROTOCOL;

/// Sent without padding; taken with and without (gRPC over HTTP/2, "Custom-Metadata").
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Names that belong to HTTP or to gRPC itself.
const RESERVED: &[&str] = &[
    "te",
    "content-type",
    "content-length",
    "user-agent",
    "host",
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
    "trailer",
];

/// Names with values, in order of arrival; a name may come more than once.
///
/// ```
/// use portolan_grpc::Metadata;
///
/// let mut metadata = Metadata::new();
/// metadata.append("x-user", "joe")?;
/// metadata.append_bin("x-trace-bin", [0, 255])?;
/// assert_eq!(metadata.get("x-user"), Some("joe"));
/// assert_eq!(metadata.get_bin("x-trace-bin")?.as_deref(), Some(&[0, 255][..]));
/// assert!(metadata.append("grpc-timeout", "1S").is_err());
/// # Ok::<(), portolan_core::Error>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    map: HeaderMap,
}

impl Metadata {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// What came, or is to be sent, as HTTP fields. Names that belong to the protocol are not shown by the other methods, and
    /// not sent.
    pub fn from_headers(map: HeaderMap) -> Self {
        Self { map }
    }

    /// The HTTP fields, those of the protocol included.
    pub fn as_headers(&self) -> &HeaderMap {
        &self.map
    }

    /// The HTTP fields, those of the protocol included.
    pub fn into_headers(self) -> HeaderMap {
        self.map
    }

    /// Adds a text: printable ASCII. A reserved name, a name that ends in `-bin` and anything else in the value are the caller's
    /// mistake ([`Kind::Usage`](portolan_core::Kind::Usage)).
    pub fn append(&mut self, name: &str, value: &str) -> Result<()> {
        let name = text_name(name)?;
        self.map.append(name, text_value(value)?);
        Ok(())
    }

    /// Sets a text, in place of all values of that name.
    pub fn insert(&mut self, name: &str, value: &str) -> Result<()> {
        let name = text_name(name)?;
        self.map.insert(name, text_value(value)?);
        Ok(())
    }

    /// Adds a text that is shown by no log, and kept out of the tables of header compression.
    pub fn append_secret(&mut self, name: &str, value: &Secret) -> Result<()> {
        let name = text_name(name)?;
        let mut value = text_value(value.expose())?;
        value.set_sensitive(true);
        self.map.append(name, value);
        Ok(())
    }

    /// Adds bytes, under a name that ends in `-bin`.
    pub fn append_bin(&mut self, name: &str, value: impl AsRef<[u8]>) -> Result<()> {
        let name = own_name(name)?;
        if !is_bin(name.as_str()) {
            return Err(usage("bytes need a metadata name that ends in -bin"));
        }
        let value = HeaderValue::try_from(BASE64.encode(value)).map_err(|_| usage("base64 is a field value"))?;
        self.map.append(name, value);
        Ok(())
    }

    /// Takes all values of a name away.
    pub fn remove(&mut self, name: &str) {
        if !is_reserved(name) {
            self.map.remove(name);
        }
    }

    /// The first text of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.map.get(name).and_then(|value| value.to_str().ok())
    }

    /// All texts of that name.
    pub fn get_all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.map.get_all(name).into_iter().filter_map(|value| value.to_str().ok())
    }

    /// The first bytes of that name. Base64 that is none is the peer's mistake.
    pub fn get_bin(&self, name: &str) -> Result<Option<Bytes>> {
        Ok(self.get_all_bin(name)?.into_iter().next())
    }

    /// All bytes of that name: each field may hold several, joined by commas.
    pub fn get_all_bin(&self, name: &str) -> Result<Vec<Bytes>> {
        let values = self.map.get_all(name).into_iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        values.map(|value| decode_base64(value.trim_ascii())).collect()
    }

    /// Names and values as they travel (bytes in base64), without what belongs to the protocol.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let all = self.map.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        all.filter(|(name, _)| !is_reserved(name))
    }

    /// Whether there is none but what belongs to the protocol.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Adds all of another.
    pub fn extend(&mut self, other: Self) {
        // Not the map itself: that would take the place of values that have the same name.
        self.map.extend(other.map.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.map.fmt(f)
    }
}

fn usage(message: &'static str) -> Error {
    Error::usage(message).with_protocol(PROTOCOL)
}

pub(crate) fn is_bin(name: &str) -> bool {
    name.ends_with("-bin")
}

/// Whether a name belongs to HTTP or to gRPC itself.
pub(crate) fn is_reserved(name: &str) -> bool {
    name.starts_with("grpc-") || name.starts_with(':') || RESERVED.contains(&name)
}

fn own_name(name: &str) -> Result<HeaderName> {
    let lower = name.to_ascii_lowercase();
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-' | b'.');
    if is_reserved(&lower) {
        return Err(usage("a metadata name that belongs to the protocol"));
    }
    if lower.is_empty() || !lower.bytes().all(allowed) {
        return Err(usage("a metadata name holds letters, digits, _, - and . alone"));
    }
    HeaderName::try_from(lower).map_err(|_| usage("a metadata name that is no field name"))
}

fn text_name(name: &str) -> Result<HeaderName> {
    let name = own_name(name)?;
    if is_bin(name.as_str()) {
        return Err(usage("a metadata name that ends in -bin takes bytes"));
    }
    Ok(name)
}

fn text_value(value: &str) -> Result<HeaderValue> {
    if !value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err(usage("a metadata text is printable ASCII"));
    }
    HeaderValue::from_str(value).map_err(|_| usage("a metadata text is printable ASCII"))
}

#[cfg_attr(not(feature = "prost"), allow(dead_code, reason = "for what is answered out of records"))]
pub(crate) fn encode_base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

pub(crate) fn decode_base64(text: &[u8]) -> Result<Bytes> {
    let bytes = BASE64.decode(text);
    bytes.map(Bytes::from).map_err(|error| {
        Error::protocol(PROTOCOL, "binary metadata that is no base64")
            .with_delivery(portolan_core::Delivery::Answered)
            .with_source(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_whether_padded_or_joined() {
        let mut map = HeaderMap::new();
        map.append("x-bin", HeaderValue::from_static("AAE="));
        map.append("x-bin", HeaderValue::from_static("AAE,/w==, /w"));
        map.append("y-bin", HeaderValue::from_static("*"));
        let metadata = Metadata::from_headers(map);
        let all = metadata.get_all_bin("x-bin").unwrap();
        assert_eq!(all, [&[0, 1][..], &[0, 1], &[255], &[255]]);
        assert_eq!(metadata.get_bin("x-bin").unwrap().unwrap(), &[0, 1][..]);
        assert!(metadata.get_bin("y-bin").is_err());
        assert_eq!(metadata.get_bin("z-bin").unwrap(), None);
    }

    #[test]
    fn names_of_the_protocol_and_values_off_ascii_are_refused() {
        let mut metadata = Metadata::new();
        for name in ["grpc-status", "Grpc-Timeout", ":path", "te", "Content-Type", "x y", "", "x-bin", "user-agent"] {
            let error = metadata.append(name, "x").unwrap_err();
            assert_eq!(error.kind(), portolan_core::Kind::Usage, "{name}");
        }
        assert!(metadata.append("x", "a\nb").is_err() && metadata.append("x", "é").is_err());
        assert!(metadata.append_bin("x", [0]).is_err() && metadata.append_bin("grpc-x-bin", [0]).is_err());
        assert!(metadata.is_empty());
    }

    #[test]
    fn what_belongs_to_the_protocol_is_not_shown() {
        let mut map = HeaderMap::new();
        map.append("grpc-status", HeaderValue::from_static("0"));
        map.append("content-type", HeaderValue::from_static("application/grpc"));
        map.append("x", HeaderValue::from_static("y"));
        let metadata = Metadata::from_headers(map);
        assert_eq!(metadata.iter().collect::<Vec<_>>(), [("x", &b"y"[..])]);
    }

    #[test]
    fn secrets_are_never_shown() {
        let mut metadata = Metadata::new();
        metadata.append_secret("authorization", &Secret::new("Bearer hunter2")).unwrap();
        assert!(!format!("{metadata:?}").contains("hunter2"));
    }
}
