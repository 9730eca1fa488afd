//! One Set-Cookie field taken apart (RFC 6265bis 5.6): lenient in form, strict in size.

use std::fmt;

use super::date;

/// The most octets that name and value may have together (RFC 6265bis 5.6).
const MAX_NAME_AND_VALUE: usize = 4096;
/// An attribute value longer than this is ignored (RFC 6265bis 5.6).
const MAX_ATTRIBUTE: usize = 1024;
/// More attributes than any honest cookie has; the rest are not looked at.
const MAX_ATTRIBUTES: usize = 64;

/// Which requests of a browser a cookie is meant for. Kept and written, but not enforced: a client has no page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum SameSite {
    /// Not said, or said with an unknown word.
    #[default]
    Default,
    /// `SameSite=None`.
    None,
    /// `SameSite=Lax`.
    Lax,
    /// `SameSite=Strict`.
    Strict,
}

impl SameSite {
    /// The word of the attribute, if it was said.
    pub fn as_str(self) -> Option<&'static str> {
        match self {
            Self::Default => None,
            Self::None => Some("None"),
            Self::Lax => Some("Lax"),
            Self::Strict => Some("Strict"),
        }
    }

    pub(super) fn from_bytes(value: &[u8]) -> Self {
        [Self::None, Self::Lax, Self::Strict]
            .into_iter()
            .find(|site| site.as_str().is_some_and(|word| word.as_bytes().eq_ignore_ascii_case(value)))
            .unwrap_or_default()
    }
}

/// Why a cookie was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refused {
    /// It holds a control character.
    Control,
    /// It has neither name nor value.
    Empty,
    /// Name and value are over 4096 octets.
    TooLong,
    /// The request's URI has no host.
    NoHost,
    /// Its Domain is not the host that set it nor a parent of it, or is not in ASCII.
    ForeignDomain,
    /// Its Domain is a public suffix, such as `co.uk`.
    PublicSuffix,
    /// It is Secure, but came over a scheme that is not.
    InsecureScheme,
    /// It would hide a Secure cookie, and came over a scheme that is not secure.
    Overlay,
    /// Its name begins with `__Secure-` or `__Host-`, whose promises it does not keep.
    Prefix,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Control => "cookie with a control character",
            Self::Empty => "cookie without name and value",
            Self::TooLong => "cookie over 4096 octets",
            Self::NoHost => "cookie for a uri without a host",
            Self::ForeignDomain => "cookie for a foreign domain",
            Self::PublicSuffix => "cookie for a public suffix",
            Self::InsecureScheme => "secure cookie over an insecure scheme",
            Self::Overlay => "cookie that would hide a secure one",
            Self::Prefix => "cookie whose prefix promises more than it keeps",
        })
    }
}

/// A Set-Cookie field as it was said, before it is judged.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SetCookie<'a> {
    pub(super) name: &'a [u8],
    pub(super) value: &'a [u8],
    /// In seconds of the Unix clock.
    pub(super) expires: Option<i64>,
    /// Held at 0 from below; it wins over `expires`.
    pub(super) max_age: Option<i64>,
    /// Without a leading dot, in lower case; `None` where it was not said or said to be empty.
    pub(super) domain: Option<Vec<u8>>,
    /// `None` where it was not said, or did not begin with a slash.
    pub(super) path: Option<&'a [u8]>,
    pub(super) secure: bool,
    pub(super) http_only: bool,
    pub(super) same_site: SameSite,
}

impl<'a> SetCookie<'a> {
    pub(super) fn parse(field: &'a [u8]) -> Result<Self, Refused> {
        if field.iter().any(|byte| is_control(*byte)) {
            return Err(Refused::Control);
        }
        let mut pieces = field.split(|byte| *byte == b';');
        let pair = pieces.next().unwrap_or_default();
        // Without `=` it is a value without a name.
        let (name, value) = split_pair(pair).unwrap_or((b"", trim(pair)));
        if name.is_empty() && value.is_empty() {
            return Err(Refused::Empty);
        }
        if name.len() + value.len() > MAX_NAME_AND_VALUE {
            return Err(Refused::TooLong);
        }
        let mut cookie = Self { name, value, ..Self::default() };
        for piece in pieces.take(MAX_ATTRIBUTES) {
            let (name, value) = split_pair(piece).unwrap_or((trim(piece), b""));
            if value.len() <= MAX_ATTRIBUTE {
                cookie.attribute(name, value);
            }
        }
        Ok(cookie)
    }

    /// The last of a kind wins, as RFC 6265bis 5.7 takes it.
    fn attribute(&mut self, name: &[u8], value: &'a [u8]) {
        let is = |word: &str| name.eq_ignore_ascii_case(word.as_bytes());
        if is("expires") {
            self.expires = date::parse(value).or(self.expires);
        } else if is("max-age") {
            self.max_age = max_age(value).or(self.max_age);
        } else if is("domain") {
            let domain = value.strip_prefix(b".").unwrap_or(value).to_ascii_lowercase();
            self.domain = (!domain.is_empty()).then_some(domain);
        } else if is("path") {
            self.path = value.starts_with(b"/").then_some(value);
        } else if is("secure") {
            self.secure = true;
        } else if is("httponly") {
            self.http_only = true;
        } else if is("samesite") {
            self.same_site = SameSite::from_bytes(value);
        }
    }

    /// When it ends: Max-Age before Expires, neither later than `limit` seconds from `now`. `None` is the session's end.
    pub(super) fn expiry(&self, now: i64, limit: i64) -> Option<i64> {
        let wanted = match self.max_age {
            Some(age) if age <= 0 => Some(i64::MIN),
            Some(age) => Some(now.saturating_add(age)),
            None => self.expires,
        };
        wanted.map(|end| end.min(now.saturating_add(limit)))
    }
}

/// Controls but the tab (RFC 6265bis 5.6 step 1).
pub(super) fn is_control(byte: u8) -> bool {
    (byte < 0x20 && byte != b'\t') || byte == 0x7f
}

fn split_pair(piece: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = piece.iter().position(|byte| *byte == b'=')?;
    let (name, value) = piece.split_at_checked(at)?;
    Some((trim(name), trim(value.get(1..)?)))
}

fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// Digits after an optional minus; anything else is ignored, and a number too big for us is for ever.
fn max_age(value: &[u8]) -> Option<i64> {
    let (negative, digits) = value.strip_prefix(b"-").map_or((false, value), |digits| (true, digits));
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    if negative {
        return Some(0);
    }
    Some(digits.iter().fold(0_i64, |sum, byte| sum.saturating_mul(10).saturating_add(i64::from(byte - b'0'))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_cut_as_the_algorithm_says() {
        for (field, name, value) in [
            ("a=b", "a", "b"),
            (" a = b ", "a", "b"),
            ("a=b=c", "a", "b=c"),
            ("a=", "a", ""),
            ("=b", "", "b"),
            ("b", "", "b"),
            ("a=\"b c\"", "a", "\"b c\""),
            ("a=b\tc; x", "a", "b\tc"),
            ("a=b,c=d", "a", "b,c=d"),
            ("a b=c", "a b", "c"),
        ] {
            let cookie = SetCookie::parse(field.as_bytes()).unwrap();
            assert_eq!((cookie.name, cookie.value), (name.as_bytes(), value.as_bytes()), "{field}");
        }
        for (field, why) in [
            ("", Refused::Empty),
            ("=", Refused::Empty),
            ("; Path=/", Refused::Empty),
            ("a=b\0", Refused::Control),
            ("a=b; Path=/\x01", Refused::Control),
            ("a=\x7f", Refused::Control),
        ] {
            assert_eq!(SetCookie::parse(field.as_bytes()), Err(why), "{field:?}");
        }
    }

    #[test]
    fn the_limit_of_4096_octets_is_exact() {
        let fits = format!("n={}", "v".repeat(4095));
        assert!(SetCookie::parse(fits.as_bytes()).is_ok());
        let over = format!("n={}", "v".repeat(4096));
        assert_eq!(SetCookie::parse(over.as_bytes()), Err(Refused::TooLong));
    }

    #[test]
    fn attributes_are_read_in_any_case_and_the_last_wins() {
        let cookie = SetCookie::parse(
            b"a=b; PATH=/x; path=/y; Domain=.Example.COM; SECURE=no; httponly; samesite=STRICT; max-age=10; Max-Age=x",
        )
        .unwrap();
        assert_eq!(cookie.path, Some(b"/y".as_slice()));
        assert_eq!(cookie.domain.as_deref(), Some(b"example.com".as_slice()));
        assert!(cookie.secure && cookie.http_only);
        assert_eq!((cookie.same_site, cookie.max_age), (SameSite::Strict, Some(10)));
        let odd = SetCookie::parse(b"a=b; Path=x; Domain=; SameSite=maybe; Domain").unwrap();
        assert_eq!((odd.path, odd.domain, odd.same_site), (None, None, SameSite::Default));
    }

    #[test]
    fn an_attribute_over_1024_octets_is_as_if_it_was_not_said() {
        let long = format!("a=b; Path=/kept; Path=/{}", "x".repeat(1024));
        assert_eq!(SetCookie::parse(long.as_bytes()).unwrap().path, Some(b"/kept".as_slice()));
    }

    #[test]
    fn max_age_wins_over_expires_and_never_overflows() {
        let at = |field: &str| SetCookie::parse(field.as_bytes()).unwrap().expiry(1000, 500);
        assert_eq!(at("a=b"), None);
        assert_eq!(at("a=b; Max-Age=5; Expires=Thu, 01 Jan 1970 00:00:01 GMT"), Some(1005));
        assert_eq!(at("a=b; Expires=Thu, 01 Jan 1970 00:00:01 GMT"), Some(1));
        assert_eq!(at("a=b; Max-Age=0"), Some(i64::MIN));
        assert_eq!(at("a=b; Max-Age=-1"), Some(i64::MIN));
        assert_eq!(at("a=b; Max-Age=99999999999999999999999999"), Some(1500));
        for ignored in ["a=b; Max-Age=", "a=b; Max-Age=+5", "a=b; Max-Age=-", "a=b; Max-Age=5s", "a=b; Expires=soon"] {
            assert_eq!(at(ignored), None, "{ignored}");
        }
    }
}
