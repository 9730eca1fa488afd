//! A request as both sides write it down to sign it.

use std::fmt::Write;

use hmac::{Hmac, KeyInit, Mac};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Uri};
use portolan_core::{Error, Result, percent_encode_into};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::credentials::AccessKey;
use crate::civil::Civil;

pub(super) const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What is added or changed on the way, or is for the next hop alone.
const UNSIGNED: [&str; 14] = [
    "accept-encoding",
    "authorization",
    "connection",
    "expect",
    "forwarded",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "x-amzn-trace-id",
    "x-forwarded-for",
];

/// When and for what a signature is.
#[derive(Debug, Clone)]
pub(super) struct Scope {
    /// `20150830T123600Z`.
    pub(super) date: String,
    /// `20150830/us-east-1/service/aws4_request`.
    pub(super) scope: String,
}

impl Scope {
    pub(super) fn new(unix: i64, region: &str, service: &str) -> Self {
        let Civil { year, month, day, hour, minute, second } = Civil::from_unix(unix);
        let today = format!("{year:04}{month:02}{day:02}");
        Self {
            date: format!("{today}T{hour:02}{minute:02}{second:02}Z"),
            scope: format!("{today}/{region}/{service}/aws4_request"),
        }
    }

    /// The key of this day, region and service.
    pub(super) fn key(&self, access: &AccessKey) -> Zeroizing<[u8; 32]> {
        let secret = Zeroizing::new(format!("AWS4{}", access.secret.expose()));
        let mut parts = self.scope.split('/');
        let first = mac(secret.as_bytes(), parts.next().unwrap_or_default().as_bytes());
        parts.fold(first, |key, part| mac(&*key, part.as_bytes()))
    }

    /// The signature of a canonical request.
    pub(super) fn signature(&self, key: &[u8], canonical: &[u8]) -> String {
        let digest = hex(&Sha256::digest(canonical));
        let text = format!("{ALGORITHM}\n{}\n{}\n{digest}", self.date, self.scope);
        hex(&*mac(key, text.as_bytes()))
    }
}

pub(super) fn mac(key: &[u8], text: &[u8]) -> Zeroizing<[u8; 32]> {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Zeroizing::default() };
    mac.update(text);
    Zeroizing::new(mac.finalize().into_bytes().into())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// The path and the query as AWS encodes them: all but unreserved characters, with `%20` for a space. What a server decodes stays the
/// same, but a `+` of the query, which is the space that forms make of it.
pub(super) fn encode(uri: &Uri) -> Result<Uri> {
    let mut path = String::with_capacity(uri.path().len() + 16);
    uri_encode(uri.path().as_bytes(), b"/", &mut path);
    if path.is_empty() {
        path.push('/');
    }
    let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    for (pair, mark) in pairs.zip(std::iter::once('?').chain(std::iter::repeat('&'))) {
        path.push(mark);
        let pair = pair.replace('+', "%20");
        let (name, value) = pair.split_once('=').map_or((pair.as_str(), None), |(name, value)| (name, Some(value)));
        uri_encode(name.as_bytes(), b"", &mut path);
        if let Some(value) = value {
            path.push('=');
            uri_encode(value.as_bytes(), b"", &mut path);
        }
    }
    with_path(uri, &path)
}

pub(super) fn with_path(uri: &Uri, path: &str) -> Result<Uri> {
    let broken = |_| Error::usage("a URL that can't be signed");
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path).map_err(broken)?);
    Uri::from_parts(parts).map_err(|_| Error::usage("a URL that can't be signed"))
}

/// Encodes all but unreserved characters and `kept`; what is encoded already is encoded once.
fn uri_encode(text: &[u8], kept: &[u8], out: &mut String) {
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let decoded = match after {
            [high, low, after @ ..] if byte == b'%' => digits(*high, *low).inspect(|_| rest = after),
            _ => None,
        };
        match decoded {
            Some(byte) => encode_byte(byte, b"", out),
            None => encode_byte(byte, kept, out),
        }
    }
}

fn digits(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

fn encode_byte(byte: u8, kept: &[u8], out: &mut String) {
    percent_encode_into([byte], |byte| b"-._~".contains(&byte) || kept.contains(&byte), out);
}

/// A name or a value of the query.
pub(super) fn encode_component(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    text.bytes().for_each(|byte| encode_byte(byte, b"", &mut out));
    out
}

/// The path of an encoded URL: as it is for S3, without dot segments and encoded once more for all others.
fn canonical_path(path: &str, as_it_is: bool) -> String {
    if as_it_is {
        return path.to_owned();
    }
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/').filter(|segment| !segment.is_empty() && *segment != ".") {
        match segment {
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    let end = if path.ends_with('/') && !segments.is_empty() { "/" } else { "" };
    let mut out = String::new();
    for byte in format!("/{}{end}", segments.join("/")).bytes() {
        encode_byte(byte, b"/", &mut out);
    }
    out
}

/// The query of an encoded URL, in order.
fn canonical_query(query: &str) -> String {
    let mut pairs: Vec<(&str, &str)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .collect();
    pairs.sort_unstable();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// The fields that are signed: their names between semicolons, and their lines.
fn canonical_fields(host: &str, headers: &HeaderMap) -> (String, Vec<u8>) {
    let mut names: Vec<&str> =
        headers.keys().map(|name| name.as_str()).filter(|name| is_signed(name)).chain(["host"]).collect();
    names.sort_unstable();
    let mut lines = Vec::new();
    for name in &names {
        lines.extend_from_slice(name.as_bytes());
        lines.push(b':');
        if *name == "host" {
            lines.extend_from_slice(host.as_bytes());
        }
        for (at, value) in headers.get_all(*name).iter().filter(|_| *name != "host").enumerate() {
            if at > 0 {
                lines.push(b',');
            }
            let words = value.as_bytes().split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
            lines.extend(words.collect::<Vec<_>>().join(&b' '));
        }
        lines.push(b'\n');
    }
    (names.join(";"), lines)
}

fn is_signed(name: &str) -> bool {
    name != "host" && !UNSIGNED.contains(&name) && !name.starts_with("proxy-")
}

/// The canonical request, and the names of the fields in it. The URL is [`encode`]d.
pub(super) fn canonical(
    parts: &Parts,
    headers: &HeaderMap,
    host: &str,
    payload: &str,
    path_as_it_is: bool,
) -> (Vec<u8>, String) {
    let (names, lines) = canonical_fields(host, headers);
    let path = canonical_path(parts.uri.path(), path_as_it_is);
    let query = canonical_query(parts.uri.query().unwrap_or_default());
    let mut text = format!("{}\n{path}\n{query}\n", parts.method).into_bytes();
    text.extend_from_slice(&lines);
    text.extend_from_slice(format!("\n{names}\n{payload}").as_bytes());
    (text, names)
}
