//! Values that configuration writes as text.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};
use crate::secret::Secret;
use crate::timeouts::Limit;

/// A file that a secret or a certificate is read from has at most this many bytes: more is not one.
const MAX_FILE: u64 = 1024 * 1024;

/// The units of durations, largest first.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// `1h`, `1m30s`, `250ms`.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = 0u64;
    let mut last = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let word = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (word, tail) = tail.split_at(word);
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == word)?;
        // Each unit once, and the large ones first.
        if *unit >= last {
            return None;
        }
        last = *unit;
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(*unit)?)?;
        rest = tail;
    }
    (last != u64::MAX).then(|| Duration::from_millis(total))
}

pub(super) fn write_duration(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if left == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (name, unit) in UNITS {
        let count = left / unit;
        left %= unit;
        if count > 0 {
            text.push_str(&format!("{count}{name}"));
        }
    }
    text
}

const DURATION: &str = "a duration such as \"5s\", \"250ms\" or \"1m30s\"";

/// Durations as text, for `#[serde(with)]`.
pub(super) mod duration {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(value: &Option<Duration>, out: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(duration) => out.serialize_str(&write_duration(*duration)),
            None => out.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Duration>, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Duration;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(DURATION)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
                parse_duration(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        input.deserialize_str(Text).map(Some)
    }
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Unset => out.serialize_str("default"),
            Self::Off => out.serialize_str("off"),
            Self::After(limit) => out.serialize_str(&write_duration(*limit)),
        }
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Limit;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{DURATION}, or \"off\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Limit, E> {
                match text {
                    "default" => Ok(Limit::Unset),
                    "off" => Ok(Limit::Off),
                    text => parse_duration(text)
                        .map(Limit::After)
                        .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }
        input.deserialize_str(Text)
    }
}

/// One port, a range of them, or the privileged ones.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ports {
    /// This one.
    One(u16),
    /// From the first to the last, both included.
    Range(RangeInclusive<u16>),
    /// Those that only privileged programs may bind ([`PRIVILEGED`](crate::PRIVILEGED)).
    Privileged,
}

impl Ports {
    fn parse(text: &str) -> Option<Self> {
        if text == "privileged" {
            return Some(Self::Privileged);
        }
        match text.split_once('-') {
            Some((first, last)) => {
                let range = first.trim().parse().ok()?..=last.trim().parse().ok()?;
                (!range.is_empty()).then_some(Self::Range(range))
            }
            None => text.trim().parse().ok().map(Self::One),
        }
    }
}

impl Serialize for Ports {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::One(port) => out.serialize_u16(*port),
            Self::Range(range) => out.serialize_str(&format!("{}-{}", range.start(), range.end())),
            Self::Privileged => out.serialize_str("privileged"),
        }
    }
}

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Ports;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port, a range such as \"8000-8999\", or \"privileged\"")
            }
            fn visit_u64<E: de::Error>(self, port: u64) -> Result<Ports, E> {
                let one = u16::try_from(port).map(Ports::One);
                one.map_err(|_| E::invalid_value(de::Unexpected::Unsigned(port), &self))
            }
            fn visit_i64<E: de::Error>(self, port: i64) -> Result<Ports, E> {
                let one = u16::try_from(port).map(Ports::One);
                one.map_err(|_| E::invalid_value(de::Unexpected::Signed(port), &self))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Ports, E> {
                Ports::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        input.deserialize_any(Either)
    }
}

/// A secret or a certificate: written out, or where to find it. `Debug` shows no text.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// Written out.
    Text(Secret),
    /// The value of an environment variable.
    Env(String),
    /// What a file holds, without its last line end.
    File(PathBuf),
}

impl Source {
    /// Fetches it. `what` names it in errors.
    #[allow(clippy::disallowed_methods, reason = "the configuration names the variable")]
    pub fn load(&self, what: &str) -> Result<Secret> {
        match self {
            Self::Text(secret) => Ok(secret.clone()),
            Self::Env(name) => std::env::var(name).map(Secret::new).map_err(|error| {
                Error::usage(format!("{what}: the environment variable {name:?} is missing or no text"))
                    .with_source(error)
            }),
            Self::File(path) => {
                use std::io::Read;
                let failed = |error| Error::usage(format!("{what}: cannot read {}", path.display())).with_source(error);
                let file = std::fs::File::open(path).map_err(failed)?;
                let mut text = zeroize::Zeroizing::new(String::new());
                file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(failed)?;
                if text.len() as u64 > MAX_FILE {
                    return Err(Error::usage(format!("{what}: {} has more than 1 MiB", path.display())));
                }
                let line = text.strip_suffix('\n').unwrap_or(&text);
                Ok(Secret::new(line.strip_suffix('\r').unwrap_or(line)))
            }
        }
    }
}

impl Serialize for Source {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let (name, value) = match self {
            Self::Text(secret) => return out.serialize_str(secret.expose()),
            Self::Env(name) => ("env", name.as_str().into()),
            Self::File(path) => ("file", path.to_string_lossy()),
        };
        let mut map = out.serialize_map(Some(1))?;
        map.serialize_entry(name, &value)?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Either;

        const EXPECTED: &str = "text, { env = \"NAME\" } or { file = \"path\" }";

        /// Never with the value: it may be the secret.
        fn wrong<T, E: de::Error>() -> Result<T, E> {
            Err(E::custom(format!("expected {EXPECTED}")))
        }

        impl<'de> Visitor<'de> for Either {
            type Value = Source;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Source, E> {
                Ok(Source::Text(Secret::new(text)))
            }
            fn visit_bool<E: de::Error>(self, _: bool) -> Result<Source, E> {
                wrong()
            }
            fn visit_i64<E: de::Error>(self, _: i64) -> Result<Source, E> {
                wrong()
            }
            fn visit_u64<E: de::Error>(self, _: u64) -> Result<Source, E> {
                wrong()
            }
            fn visit_f64<E: de::Error>(self, _: f64) -> Result<Source, E> {
                wrong()
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Source, A::Error> {
                let source = match map.next_key::<String>()?.as_deref() {
                    Some("env") => Source::Env(map.next_value()?),
                    Some("file") => Source::File(map.next_value::<String>()?.into()),
                    Some(other) => return Err(de::Error::unknown_field(other, &["env", "file"])),
                    None => return wrong(),
                };
                if map.next_key::<de::IgnoredAny>()?.is_some() { wrong() } else { Ok(source) }
            }
        }
        input.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, millis) in
            [("5s", 5000), ("250ms", 250), ("1m30s", 90_000), ("1h", 3_600_000), ("0s", 0), ("1h1m1s1ms", 3_661_001)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
            assert_eq!(write_duration(Duration::from_millis(millis)), text);
        }
        for text in
            ["", "5", "s", "5 s", "1s1m", "1s1s", "5sec", "-5s", "1.5s", "99999999999999999999s", "9999999999999999h"]
        {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
