//! Domain names: labels of bytes, compared without regard to case.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use std::fmt::{self, Write as _};
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::str::FromStr;

use hickory_proto::rr::Name as Hickory;
use portolan_core::{Error, Result};

/// The longest label (RFC 1035 2.3.4).
const MAX_LABEL: usize = 63;
/// The longest name on the wire, lengths and the root's zero included (RFC 1035 2.3.4).
const MAX_NAME: usize = 255;

/// A domain name. Case is kept as it came and ignored in comparisons (RFC 4343).
///
/// ```
/// use portolan_dns::dns::Name;
///
/// let name: Name = "Mail.Example.org.".parse()?;
/// assert_eq!(name, "mail.example.ORG".parse()?);
/// assert_eq!(name.to_string(), "Mail.Example.org");
/// // A label may hold any byte: here a dot, as service instances do.
/// let odd = Name::from_labels(["a.b", "example"])?;
/// assert_eq!((odd.to_string().as_str(), odd.labels().count()), (r"a\.b.example", 2));
/// # Ok::<(), portolan_core::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Name {
    /// Length and bytes of each label, without the root's zero.
    wire: Box<[u8]>,
}

impl Name {
    /// The root of all names.
    pub fn root() -> Self {
        Self::default()
    }

    /// A name of these labels, whose bytes are taken as they are: a dot in a label stays in it.
    pub fn from_labels<L: AsRef<[u8]>>(labels: impl IntoIterator<Item = L>) -> Result<Self> {
        let mut wire = Vec::new();
        for label in labels {
            let label = label.as_ref();
            let len = match u8::try_from(label.len()) {
                Ok(0) => return Err(Error::usage("name with an empty label")),
                Ok(len) if label.len() <= MAX_LABEL => len,
                _ => return Err(Error::usage(format!("label of {} bytes: at most {MAX_LABEL} fit", label.len()))),
            };
            wire.push(len);
            wire.extend_from_slice(label);
            if wire.len() >= MAX_NAME {
                return Err(Error::usage(format!("name of more than {MAX_NAME} bytes")));
            }
        }
        Ok(Self { wire: wire.into() })
    }

    /// The name under which an address is looked up in reverse (RFC 1035 3.5, RFC 3596 2.5).
    pub fn reverse(ip: IpAddr) -> Self {
        let mut text = String::new();
        match ip {
            IpAddr::V4(ip) => {
                for octet in ip.octets().iter().rev() {
                    let _ = write!(text, "{octet}.");
                }
                text.push_str("in-addr.arpa");
            }
            IpAddr::V6(ip) => {
                for octet in ip.octets().iter().rev() {
                    let _ = write!(text, "{:x}.{:x}.", octet & 15, octet >> 4);
                }
                text.push_str("ip6.arpa");
            }
        }
        // At most 34 labels of one hexadecimal digit: always a name.
        text.parse().unwrap_or_default()
    }

    /// The labels, leftmost first.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest: &[u8] = &self.wire;
        std::iter::from_fn(move || {
            let (len, tail) = rest.split_first()?;
            let (label, tail) = tail.split_at_checked(usize::from(*len))?;
            rest = tail;
            Some(label)
        })
    }

    /// Whether it is the root.
    pub fn is_root(&self) -> bool {
        self.wire.is_empty()
    }

    /// Whether it is `zone` itself or lies beneath it.
    pub fn is_within(&self, zone: &Self) -> bool {
        let (ours, theirs): (Vec<_>, Vec<_>) = (self.labels().collect(), zone.labels().collect());
        let skipped = ours.len().checked_sub(theirs.len());
        skipped.is_some_and(|n| ours.iter().skip(n).zip(&theirs).all(|(a, b)| a.eq_ignore_ascii_case(b)))
    }

    /// The same with the case of every letter tossed: "0x20", which a forger has to guess too.
    pub(crate) fn with_case(&self, mut toss: impl FnMut() -> bool) -> Self {
        // Lengths are below 64 and letters above, so that the lengths among the bytes stay as they are.
        let flip = |byte: &u8| if byte.is_ascii_alphabetic() && toss() { byte ^ 0x20 } else { *byte };
        Self { wire: self.wire.iter().map(flip).collect() }
    }

    pub(crate) fn from_hickory(name: &Hickory) -> Self {
        // The decoder has held labels and name to their limits.
        Self::from_labels(name.iter()).unwrap_or_default()
    }

    pub(crate) fn to_hickory(&self) -> Result<Hickory> {
        Hickory::from_labels(self.labels()).map_err(|error| Error::usage("not a name").with_source(error))
    }
}

impl FromStr for Name {
    type Err = Error;

    /// The master file form (RFC 1035 5.1): dots between labels, `\.` and `\DDD` within. Space, control characters and what
    /// is not ASCII are refused unless escaped.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "" => return Err(Error::usage("empty name")),
            "." => return Ok(Self::root()),
            _ => {}
        }
        let mut labels = vec![Vec::new()];
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            let byte = match byte {
                b'.' => {
                    labels.push(Vec::new());
                    continue;
                }
                b'\\' => unescape(&mut bytes).ok_or_else(|| Error::usage("name with a broken escape"))?,
                0x21..=0x7e => byte,
                0x80.. => return Err(Error::usage("name beyond ASCII: write international names in their xn-- form")),
                _ => return Err(Error::usage("name with a space or a control character")),
            };
            if let Some(label) = labels.last_mut() {
                label.push(byte);
            }
        }
        // A dot at the end is the root's.
        if labels.len() > 1 && labels.last().is_some_and(Vec::is_empty) {
            labels.pop();
        }
        Self::from_labels(labels)
    }
}

/// What follows a backslash: three decimal digits, or any other character as it is.
fn unescape(bytes: &mut std::str::Bytes<'_>) -> Option<u8> {
    let first = bytes.next()?;
    if !first.is_ascii_digit() {
        return (first > b' ' && first < 0x7f).then_some(first);
    }
    let mut value = 0u16;
    for digit in [first, bytes.next()?, bytes.next()?] {
        let digit = digit.is_ascii_digit().then(|| u16::from(digit & 15))?;
        value = value.checked_mul(10)?.checked_add(digit)?;
    }
    u8::try_from(value).ok()
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_str(".");
        }
        for (index, label) in self.labels().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            for &byte in label {
                match byte {
                    b'.' | b'\\' | b'"' | b'(' | b')' | b';' | b'@' | b'$' => write!(f, "\\{}", char::from(byte))?,
                    0x21..=0x7e => f.write_char(char::from(byte))?,
                    _ => write!(f, "\\{byte:03}")?,
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.wire.eq_ignore_ascii_case(&other.wire)
    }
}

impl Eq for Name {}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.wire.to_ascii_lowercase().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_do_not_fit_the_wire_are_refused() {
        let long_label = "x".repeat(64);
        let long_name = ["abcdefg"; 32].join(".");
        for bad in [
            "",
            "..",
            "a..b",
            ".a",
            "a b",
            "a\r\nb",
            "a\0b",
            "münchen.de",
            "a\\",
            "a\\25",
            "a\\256",
            &long_label,
            &long_name,
        ] {
            assert_eq!(bad.parse::<Name>().unwrap_err().kind(), portolan_core::Kind::Usage, "{bad:?}");
        }
        assert!("x".repeat(63).parse::<Name>().is_ok());
        // 253 characters of text are 255 bytes on the wire.
        let longest = format!("{}.{}.{}.{}", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61));
        assert!(longest.parse::<Name>().is_ok());
        assert!(format!("{longest}d").parse::<Name>().is_err());
    }

    #[test]
    fn escapes_survive_the_way_there_and_back() {
        for text in [".", "example.org", r"a\.b.example", r"\000\255.x", r"back\\slash", r"x\\"] {
            let name: Name = text.parse().unwrap();
            assert_eq!(name.to_string(), text);
            assert_eq!(Name::from_hickory(&name.to_hickory().unwrap()).to_string(), text);
        }
        assert_eq!(r"x\..".parse::<Name>().unwrap().to_string(), r"x\.");
        assert_eq!(r"x\.".parse::<Name>().unwrap().to_string(), r"x\.");
    }

    #[test]
    fn reverse_names_are_those_of_the_standard() {
        assert_eq!(Name::reverse("192.0.2.1".parse().unwrap()).to_string(), "1.2.0.192.in-addr.arpa");
        let v6 = Name::reverse("2001:db8::1".parse().unwrap()).to_string();
        assert_eq!(v6, "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa");
    }

    #[test]
    fn a_zone_holds_itself_and_what_lies_beneath() {
        let name = |text: &str| text.parse::<Name>().unwrap();
        assert!(name("a.Example.org").is_within(&name("example.ORG")));
        assert!(name("example.org").is_within(&name("example.org")) && name("x").is_within(&Name::root()));
        assert!(!name("aexample.org").is_within(&name("example.org")) && !name("org").is_within(&name("example.org")));
    }
}
