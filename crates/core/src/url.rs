//! URLs as far as connecting needs them: scheme, user, password, host, port, path, query.
//!
//! Written here because the usual crate brings thirty more for international names, which the wire does not need.

use std::fmt;

use crate::endpoint::Endpoint;
use crate::error::{Error, Result};
use crate::secret::{Credentials, Secret};

/// A parsed URL. `Debug` and `Display` leave the password out.
///
/// ```
/// let url = portolan_core::Url::parse("redis://joe:p%40ss@db.example:6380/2?timeout=3")?;
/// assert_eq!(url.endpoint(6379)?.to_string(), "redis://db.example:6380");
/// assert_eq!(url.credentials().unwrap().password.expose(), "p@ss");
/// assert_eq!((url.path(), url.query_value("timeout").as_deref()), ("/2", Some("3")));
/// assert_eq!(url.to_string(), "redis://joe:***@db.example:6380/2?timeout=3");
/// # Ok::<(), portolan_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    user: Option<String>,
    password: Option<Secret>,
    authority: String,
    path: String,
    query: Option<String>,
    fragment: Option<String>,
}

impl Url {
    /// Parses `scheme://[user[:password]@]host[:port][/path][?query][#fragment]`. Control characters and spaces are refused.
    pub fn parse(text: &str) -> Result<Self> {
        // Never quote the text: it may hold a password.
        if text.bytes().any(|b| b <= b' ' || b == 0x7f) {
            return Err(Error::usage("url holds a space or a control character"));
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(|| Error::usage("url without scheme://"))?;
        let scheme_ok = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
        if !scheme_ok {
            return Err(Error::usage("url with an invalid scheme"));
        }
        let (rest, fragment) = cut(rest, '#');
        let (rest, query) = cut(rest, '?');
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (userinfo, authority) = authority.rsplit_once('@').map_or((None, authority), |(u, a)| (Some(u), a));
        let (user, password) =
            match userinfo.map(|info| info.split_once(':').map_or((info, None), |(u, p)| (u, Some(p)))) {
                None => (None, None),
                Some((user, password)) => {
                    (Some(percent_decode(user)?), password.map(percent_decode).transpose()?.map(Secret::new))
                }
            };
        Ok(Self {
            scheme: scheme.to_ascii_lowercase(),
            user,
            password,
            authority: authority.to_owned(),
            path: path.to_owned(),
            query: query.map(str::to_owned),
            fragment: fragment.map(str::to_owned),
        })
    }

    /// The scheme, lower case.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Whom to connect to, with `default_port` where the URL names none. A URL without host but with a path is a Unix socket.
    pub fn endpoint(&self, default_port: u16) -> Result<Endpoint> {
        if self.authority.is_empty() {
            if self.path.len() > 1 {
                return Ok(Endpoint::unix(percent_decode(&self.path)?).with_scheme(&self.scheme));
            }
            return Err(Error::usage("url without a host"));
        }
        let endpoint = Endpoint::parse(&self.authority, Some(default_port));
        Ok(endpoint.map_err(|error| self.hinted(error))?.with_scheme(&self.scheme))
    }

    /// A password with a sign of the URL's own in it ends the host too early.
    fn hinted(&self, error: Error) -> Error {
        let rest = [Some(&self.path), self.query.as_ref(), self.fragment.as_ref()];
        if self.user.is_none() && rest.into_iter().flatten().any(|part| part.contains('@')) {
            let hint = "in a user or a password /, ? and # are written %2F, %3F and %23";
            return Error::usage(format!("{} ({hint})", error.message()));
        }
        error
    }

    /// The whole text with its password: for who stores it, or parses it again.
    pub fn expose(&self) -> Secret {
        self.text(self.password.as_ref().map(|password| percent_encode(password.expose())))
    }

    fn text(&self, password: Option<String>) -> Secret {
        let mut text = format!("{}://", self.scheme);
        if let Some(user) = &self.user {
            text.push_str(&percent_encode(user));
            if let Some(password) = password {
                text.push(':');
                text.push_str(&password);
            }
            text.push('@');
        }
        text.push_str(&self.authority);
        text.push_str(&self.path);
        for (sign, part) in [('?', &self.query), ('#', &self.fragment)] {
            if let Some(part) = part {
                text.push(sign);
                text.push_str(part);
            }
        }
        Secret::new(text)
    }

    /// The user, decoded.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The password, decoded. Empty is not missing.
    pub fn password(&self) -> Option<&Secret> {
        self.password.as_ref()
    }

    /// User and password where either is given; a missing half is empty.
    pub fn credentials(&self) -> Option<Credentials> {
        let user = self.user.clone()?;
        Some(Credentials::new(user, self.password.clone().unwrap_or_else(|| Secret::new(""))))
    }

    /// Host and port as written.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The path as written, empty or starting with a slash.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The query as written.
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// The fragment as written.
    pub fn fragment(&self) -> Option<&str> {
        self.fragment.as_deref()
    }

    /// The query's `key=value` pairs, decoded; a key alone has an empty value.
    pub fn query_pairs(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.query.as_deref().unwrap_or("").split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |text: &str| percent_decode(text).unwrap_or_else(|_| text.to_owned());
            (decode(key), decode(value))
        })
    }

    /// The first value of `key` in the query.
    pub fn query_value(&self, key: &str) -> Option<String> {
        self.query_pairs().find(|(k, _)| k == key).map(|(_, value)| value)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text(self.password.as_ref().map(|_| "***".to_owned())).expose())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn cut(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at).map_or((text, None), |(head, tail)| (head, Some(tail)))
}

/// Decodes `%XX` once. A broken escape, or bytes that are no UTF-8, are refused.
pub fn percent_decode(text: &str) -> Result<String> {
    if !text.contains('%') {
        return Ok(text.to_owned());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
        match (digit(bytes.next()), digit(bytes.next())) {
            (Some(high), Some(low)) => out.push(high << 4 | low),
            _ => return Err(Error::usage("broken percent escape")),
        }
    }
    String::from_utf8(out).map_err(|_| Error::usage("percent escapes are not UTF-8"))
}

/// Encodes all but the unreserved characters of RFC 3986 2.3.
pub fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    percent_encode_into(text.bytes(), |byte| matches!(byte, b'-' | b'.' | b'_' | b'~'), &mut out);
    out
}

/// Appends `bytes`, with `%XX` for all but letters, digits, and the ASCII characters that are `plain`.
pub fn percent_encode_into(bytes: impl IntoIterator<Item = u8>, plain: impl Fn(u8) -> bool, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || (byte.is_ascii() && plain(byte)) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_plain_is_escaped_and_comes_back() {
        assert_eq!(percent_encode("a-b._~ %/ö\u{0}"), "a-b._~%20%25%2F%C3%B6%00");
        let all: String = (0..=255).map(char::from).collect();
        assert_eq!(percent_decode(&percent_encode(&all)).unwrap(), all);
        let mut out = String::from("/");
        // What is beyond ASCII is never plain: a byte alone is no character.
        percent_encode_into(*b"a b/\xff", |byte| byte != b' ', &mut out);
        assert_eq!(out, "/a%20b/%FF");
    }

    #[test]
    fn table_of_urls() {
        let at_sign = Url::parse("smtp://a%40b:c@d@h:2525/").unwrap();
        assert_eq!((at_sign.user(), at_sign.password().map(Secret::expose)), (Some("a@b"), Some("c@d")));
        assert_eq!(at_sign.endpoint(25).unwrap().authority(), "h:2525");
        let empty_password = Url::parse("redis://:@h").unwrap();
        assert_eq!((empty_password.user(), empty_password.password().map(Secret::expose)), (Some(""), Some("")));
        let v6 = Url::parse("HTTP://[::1]/x?y#z").unwrap();
        assert_eq!((v6.scheme(), v6.path(), v6.query(), v6.fragment()), ("http", "/x", Some("y"), Some("z")));
        assert_eq!(v6.endpoint(80).unwrap().authority(), "[::1]:80");
        let unix = Url::parse("redis:///run/redis.sock").unwrap();
        assert_eq!(unix.endpoint(0).unwrap(), Endpoint::unix("/run/redis.sock").with_scheme("redis"));
        for bad in
            ["", "h:1", "://h", "1x://h", "a b://h", "http://h\r\nX", "http://u%zz@h", "http://u%ff@h", "http://"]
        {
            assert!(Url::parse(bad).and_then(|url| url.endpoint(1)).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_error_or_debug_holds_the_password() {
        let url = Url::parse("x://joe:sesame@h:1/p").unwrap();
        assert!(!format!("{url:?} {url}").contains("sesame"));
        assert_eq!(Url::parse("X://j%6fe:a%40@h:1/p?q#f").unwrap().expose().expose(), "x://joe:a%40@h:1/p?q#f");
        let error = Url::parse("x://joe:sesame@h:bad/").unwrap().endpoint(1).unwrap_err();
        assert!(!format!("{error:?}").contains("sesame"));
        for sign in ['/', '?', '#'] {
            let error = Url::parse(&format!("x://joe:se{sign}same@h:1")).unwrap().endpoint(1).unwrap_err();
            assert!(!format!("{error:?}").contains("\"se") && error.message().contains("%2F"), "{error}");
        }
        let error = Url::parse("x://joe:sesame").unwrap().endpoint(1).unwrap_err();
        assert!(!format!("{error:?}").contains("sesame"));
    }
}
