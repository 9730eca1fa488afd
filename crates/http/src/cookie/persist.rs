//! The jar on disk: JSON lines of our own, and Netscape's `cookies.txt`.

use std::fmt::Write as _;

use portolan_core::{Error, Result};
use serde::{Deserialize, Serialize};

use super::domain;
use super::parse::{SameSite, is_control};
use super::state::Cookie;

/// Which cookies to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Keep {
    /// Those with a date, as browsers do.
    Persistent,
    /// Those of the session too.
    All,
}

impl Keep {
    pub(super) fn of(self, mut cookies: Vec<Cookie>) -> Vec<Cookie> {
        if self == Self::Persistent {
            cookies.retain(|cookie| cookie.expires.is_some());
        }
        cookies
    }
}

#[derive(Serialize, Deserialize)]
struct Record<'a> {
    name: String,
    value: String,
    domain: &'a str,
    path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<i64>,
    #[serde(default)]
    host_only: bool,
    #[serde(default)]
    secure: bool,
    #[serde(default)]
    http_only: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    same_site: Option<&'a str>,
    /// Each character of name, value and path is one octet: for cookies that are no UTF-8.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    octets: bool,
}

pub(super) fn to_json_lines(cookies: &[Cookie]) -> String {
    let mut text = String::new();
    for cookie in cookies {
        let utf8 = [&cookie.name, &cookie.value, &cookie.path].iter().all(|part| std::str::from_utf8(part).is_ok());
        let say = |part: &[u8]| match std::str::from_utf8(part) {
            Ok(part) if utf8 => part.to_owned(),
            _ => part.iter().map(|byte| char::from(*byte)).collect(),
        };
        let record = Record {
            name: say(&cookie.name),
            value: say(&cookie.value),
            domain: &cookie.domain,
            path: say(&cookie.path),
            expires: cookie.expires,
            host_only: cookie.host_only,
            secure: cookie.secure,
            http_only: cookie.http_only,
            same_site: cookie.same_site.as_str(),
            octets: !utf8,
        };
        // Strings, numbers and booleans can always be written.
        if let Ok(line) = serde_json::to_string(&record) {
            text.push_str(&line);
            text.push('\n');
        }
    }
    text
}

pub(super) fn from_json_lines(text: &str) -> Result<Vec<Cookie>> {
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(number, line)| from_json(line).ok_or_else(|| broken(number))).collect()
}

fn from_json(line: &str) -> Option<Cookie> {
    // Borrowed strings can't hold escapes; domains and SameSite words have none.
    let record: Record<'_> = serde_json::from_str(line).ok()?;
    let octets = |text: String| -> Option<Box<[u8]>> {
        if record.octets {
            text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
        } else {
            Some(text.into_bytes().into())
        }
    };
    check(Cookie {
        name: octets(record.name)?,
        value: octets(record.value)?,
        domain: record.domain.to_ascii_lowercase().into(),
        path: octets(record.path)?,
        expires: record.expires,
        host_only: record.host_only,
        secure: record.secure,
        http_only: record.http_only,
        same_site: record.same_site.map_or(SameSite::Default, |word| SameSite::from_bytes(word.as_bytes())),
    })
}

/// What a file can't be allowed to bring in: text that would break the Cookie field, and cookies for whole suffixes.
fn check(mut cookie: Cookie) -> Option<Cookie> {
    if domain::is_address(&cookie.domain) || domain::is_public_suffix(&cookie.domain) {
        cookie.host_only = true;
    }
    let clean = |part: &[u8]| !part.iter().any(|byte| is_control(*byte) || *byte == b';');
    let sound = clean(&cookie.name)
        && !cookie.name.contains(&b'=')
        && clean(&cookie.value)
        && clean(&cookie.path)
        && cookie.path.starts_with(b"/")
        && !cookie.domain.is_empty()
        && cookie.domain.bytes().all(|byte| byte.is_ascii_graphic())
        && !(cookie.name.is_empty() && cookie.value.is_empty());
    sound.then_some(cookie)
}

pub(super) fn to_netscape(cookies: &[Cookie]) -> String {
    let mut text = String::from("# Netscape HTTP Cookie File\n");
    for cookie in cookies {
        let parts = (std::str::from_utf8(&cookie.name), std::str::from_utf8(&cookie.value), cookie.path());
        let (Ok(name), Ok(value), path) = parts else { continue };
        if name.contains('\t') || value.contains('\t') || path.contains('\t') {
            continue;
        }
        let (dot, below) = if cookie.host_only { ("", "FALSE") } else { (".", "TRUE") };
        let http_only = if cookie.http_only { "#HttpOnly_" } else { "" };
        let secure = if cookie.secure { "TRUE" } else { "FALSE" };
        let expires = cookie.expires.unwrap_or(0);
        let domain = &cookie.domain;
        // Writing to a string can't fail.
        let _ = writeln!(text, "{http_only}{dot}{domain}\t{below}\t{path}\t{secure}\t{expires}\t{name}\t{value}");
    }
    text
}

pub(super) fn from_netscape(text: &str) -> Result<Vec<Cookie>> {
    let lines = (1..).zip(text.lines()).filter_map(|(number, line)| {
        let (line, http_only) = line.strip_prefix("#HttpOnly_").map_or((line, false), |line| (line, true));
        let skipped = line.trim().is_empty() || line.starts_with('#');
        (!skipped).then_some((number, line, http_only))
    });
    lines.map(|(number, line, http_only)| from_fields(line, http_only).ok_or_else(|| broken(number))).collect()
}

fn from_fields(line: &str, http_only: bool) -> Option<Cookie> {
    let mut fields = line.split('\t');
    let mut next = || fields.next();
    let (domain, below, path, secure, expires, name) = (next()?, next()?, next()?, next()?, next()?, next()?);
    // Empty values are written with or without the last tab.
    let value = next().unwrap_or("");
    if next().is_some() {
        return None;
    }
    let expires: i64 = expires.parse().ok()?;
    check(Cookie {
        name: name.as_bytes().into(),
        value: value.as_bytes().into(),
        domain: domain.strip_prefix('.').unwrap_or(domain).to_ascii_lowercase().into(),
        path: path.as_bytes().into(),
        // Zero is how the format says that it ends with the session.
        expires: (expires != 0).then_some(expires),
        host_only: !below.eq_ignore_ascii_case("TRUE"),
        secure: secure.eq_ignore_ascii_case("TRUE"),
        http_only,
        same_site: SameSite::Default,
    })
}

fn broken(line: usize) -> Error {
    // The line is not quoted: it may hold a session's secret.
    Error::usage(format!("cookie file: line {line} is no cookie"))
}
