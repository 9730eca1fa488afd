//! Strict transport security (RFC 6797): hosts that are never spoken to in the clear again.
//!
//! - **What works**: `Strict-Transport-Security` with `max-age` and `includeSubDomains`, `max-age=0` to forget, hosts of your own,
//!   upgrade of `http` and `ws`, a text form to keep.
//! - **What is not done**: browsers' preload lists: add what you need with [`Hsts::add`].
//! - **Security**: only what came over https counts, and never for an address; a trailing dot makes no other host.

use std::collections::HashMap;
use std::fmt;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::STRICT_TRANSPORT_SECURITY;
use http::{HeaderMap, Uri};
use portolan_core::{Error, Result, clock};

use crate::civil;
use crate::field::Cursor;

/// A client that knows more hosts than this forgets those that end first.
const MAX_HOSTS: usize = 10_000;
/// More than any honest field has.
const MAX_DIRECTIVES: usize = 16;

/// The hosts that want TLS. Clones share them.
///
/// ```
/// use portolan_http::hsts::Hsts;
///
/// let hsts = Hsts::new();
/// let mut headers = http::HeaderMap::new();
/// headers.insert("strict-transport-security", "max-age=31536000; includeSubDomains".parse()?);
/// hsts.record(&"https://example.com/".parse()?, &headers);
/// assert_eq!(hsts.upgrade(&"http://www.example.com/x".parse()?).unwrap(), "https://www.example.com/x");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct Hsts {
    hosts: Arc<Mutex<HashMap<String, Known>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    /// In seconds of the Unix clock.
    expires: i64,
    subdomains: bool,
}

impl Hsts {
    /// No host.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what a response from `uri` says. The first field counts (RFC 6797 8.1), and one that breaks the rules does not.
    pub fn record(&self, uri: &Uri, headers: &HeaderMap) {
        let Some(field) = headers.get(STRICT_TRANSPORT_SECURITY) else { return };
        if !matches!(uri.scheme_str(), Some("https" | "wss")) {
            return;
        }
        let policy = field.to_str().ok().and_then(parse);
        let (Some(host), Some((age, subdomains))) = (uri.host().and_then(name), policy) else { return };
        self.keep(host, age, subdomains, now());
    }

    /// Adds a host by your own word, for so long. Addresses are refused.
    pub fn add(&self, host: &str, max_age: Duration, include_subdomains: bool) -> Result<()> {
        let name = name(host).ok_or_else(|| Error::usage("an address can't be held to TLS by name"))?;
        self.keep(name, max_age, include_subdomains, now());
        Ok(())
    }

    /// The URL with its scheme made secure, or `None` where it is that already or the host is not known. Port 80 becomes 443; other
    /// ports stay (RFC 6797 8.3).
    pub fn upgrade(&self, uri: &Uri) -> Option<Uri> {
        self.upgrade_at(uri, now())
    }

    /// Whether the host is held to TLS, by itself or by a parent.
    pub fn contains(&self, host: &str) -> bool {
        self.contains_at(host, now())
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.hosts().clear();
    }

    /// All that is known, one host a line: host, end in seconds of the Unix clock, whether subdomains are held too.
    pub fn to_text(&self) -> String {
        let now = now();
        let hosts = self.hosts();
        let mut lines: Vec<_> = hosts.iter().filter(|(_, known)| known.expires > now).collect();
        lines.sort_unstable_by_key(|(host, _)| *host);
        let mut text = String::new();
        for (host, known) in lines {
            // Writing to a string can't fail.
            let _ = writeln!(text, "{host} {} {}", known.expires, u8::from(known.subdomains));
        }
        text
    }

    /// Adds what [`to_text`](Self::to_text) wrote, and says how many hosts were taken. Nothing is taken if a line is broken.
    pub fn load_text(&self, text: &str) -> Result<usize> {
        let now = now();
        let mut read = Vec::new();
        for (number, line) in (1_usize..).zip(text.lines()) {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let broken = || Error::usage(format!("hsts file: line {number} is no host"));
            read.push(from_line(line).ok_or_else(broken)?);
        }
        read.retain(|(_, known)| known.expires > now);
        let taken = read.len();
        for (host, known) in read {
            let age = u64::try_from(known.expires.saturating_sub(now)).unwrap_or(0);
            self.keep(host, Duration::from_secs(age), known.subdomains, now);
        }
        Ok(taken)
    }

    fn upgrade_at(&self, uri: &Uri, now: i64) -> Option<Uri> {
        if !matches!(uri.scheme_str()?, "http" | "ws") || !self.contains_at(uri.host()?, now) {
            return None;
        }
        crate::uri::secure(uri)
    }

    fn contains_at(&self, host: &str, now: i64) -> bool {
        let Some(host) = name(host) else { return false };
        let hosts = self.hosts();
        let good = |name: &str| hosts.get(name).filter(|known| known.expires > now);
        if good(&host).is_some() {
            return true;
        }
        let parents = host.match_indices('.').filter_map(|(dot, _)| host.get(dot + 1..));
        parents.filter_map(good).any(|known| known.subdomains)
    }

    fn keep(&self, host: String, age: Duration, subdomains: bool, now: i64) {
        let mut hosts = self.hosts();
        if age.is_zero() {
            hosts.remove(&host);
            return;
        }
        let expires = now.saturating_add(i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
        hosts.insert(host, Known { expires, subdomains });
        if hosts.len() > MAX_HOSTS {
            hosts.retain(|_, known| known.expires > now);
        }
        while hosts.len() > MAX_HOSTS {
            let first = hosts.iter().min_by_key(|(_, known)| known.expires).map(|(host, _)| host.clone());
            first.map(|host| hosts.remove(&host));
        }
    }

    fn hosts(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Hsts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hsts").field("hosts", &self.hosts().len()).finish()
    }
}

/// The host as it is kept; `None` for addresses (RFC 6797 8.1.1), and for what no line of text could hold.
fn name(host: &str) -> Option<String> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let address = host.contains(':') || host.parse::<Ipv4Addr>().is_ok();
    let sound = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic()) && !host.starts_with('#');
    (sound && !address).then(|| host.to_ascii_lowercase())
}

fn from_line(line: &str) -> Option<(String, Known)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [host, expires, subdomains] = fields.as_slice() else { return None };
    Some((name(host)?, Known { expires: expires.parse().ok()?, subdomains: *subdomains == "1" }))
}

/// RFC 6797 6.1: `max-age` must be there, and nothing twice; what is not known is passed over.
fn parse(field: &str) -> Option<(Duration, bool)> {
    let mut cursor = Cursor::new(field);
    let mut seen: Vec<&str> = Vec::new();
    let (mut max_age, mut subdomains) = (None, false);
    loop {
        cursor.skip_blanks();
        if cursor.eat(';') {
            continue;
        }
        let Some(directive) = cursor.token() else {
            return cursor.rest.is_empty().then_some((max_age?, subdomains));
        };
        if seen.len() == MAX_DIRECTIVES || seen.iter().any(|name| name.eq_ignore_ascii_case(directive)) {
            return None;
        }
        seen.push(directive);
        let before = cursor.rest.len();
        let value = cursor.value(&[';']);
        if value.is_none() && cursor.rest.len() != before {
            return None;
        }
        if directive.eq_ignore_ascii_case("max-age") {
            let digits = value.filter(|value| !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()))?;
            // A number too big for us is for ever.
            max_age = Some(Duration::from_secs(digits.parse().unwrap_or(u64::MAX)));
        } else if directive.eq_ignore_ascii_case("includeSubDomains") {
            subdomains = true;
        }
        cursor.skip_blanks();
        if !cursor.rest.is_empty() && !cursor.rest.starts_with(';') {
            return None;
        }
    }
}

fn now() -> i64 {
    civil::unix(clock::wall())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const YEAR: Duration = Duration::from_secs(31_536_000);

    fn record(hsts: &Hsts, uri: &str, field: &str) {
        let mut headers = HeaderMap::new();
        headers.insert(STRICT_TRANSPORT_SECURITY, field.parse().unwrap());
        hsts.record(&uri.parse().unwrap(), &headers);
    }

    #[test]
    fn fields_are_read_as_rfc_6797_6_2_shows_them() {
        for (field, policy) in [
            ("max-age=31536000", Some((YEAR, false))),
            ("max-age=15768000 ; includeSubDomains", Some((Duration::from_secs(15_768_000), true))),
            ("max-age=\"31536000\"", Some((YEAR, false))),
            ("max-age=0", Some((Duration::ZERO, false))),
            (";; MAX-AGE = 31536000;;INCLUDESUBDOMAINS; preload; x=y;", Some((YEAR, true))),
            ("max-age=99999999999999999999999999", Some((Duration::from_secs(u64::MAX), false))),
            ("", None),
            ("includeSubDomains", None),
            ("max-age", None),
            ("max-age=", None),
            ("max-age=-1", None),
            ("max-age=1x", None),
            ("max-age=\"1", None),
            ("max-age=1; max-age=2", None),
            ("max-age=1; includeSubDomains; IncludeSubDomains", None),
            ("max-age=1 includeSubDomains", None),
            ("max-age=1, includeSubDomains", None),
        ] {
            assert_eq!(parse(field), policy, "{field}");
        }
    }

    #[test]
    fn a_known_host_is_upgraded_and_its_children_if_it_said_so() {
        let hsts = Hsts::new();
        record(&hsts, "https://Example.com/", "max-age=100; includeSubDomains");
        record(&hsts, "https://alone.example/", "max-age=100");
        for (from, to) in [
            ("http://example.com", "https://example.com/"),
            ("http://example.com:80/x?y", "https://example.com/x?y"),
            ("http://EXAMPLE.com.:8080/", "https://EXAMPLE.com.:8080/"),
            ("http://a.b.example.com/", "https://a.b.example.com/"),
            ("ws://example.com/", "wss://example.com/"),
            ("http://alone.example/", "https://alone.example/"),
        ] {
            assert_eq!(hsts.upgrade(&from.parse().unwrap()).unwrap(), to, "{from}");
        }
        for not in ["https://example.com/", "http://notexample.com/", "http://a.alone.example/", "http://com/", "/x"] {
            assert!(hsts.upgrade(&not.parse().unwrap()).is_none(), "{not}");
        }
    }

    #[test]
    fn what_came_in_the_clear_or_from_an_address_does_not_count() {
        let hsts = Hsts::new();
        record(&hsts, "http://example.com/", "max-age=100");
        record(&hsts, "https://127.0.0.1/", "max-age=100");
        record(&hsts, "https://[::1]/", "max-age=100");
        record(&hsts, "https://example.com/", "max-age=oops");
        assert_eq!(hsts.to_text(), "");
        assert!(hsts.add("10.0.0.1", YEAR, false).is_err());
    }

    #[test]
    fn a_zero_age_forgets_and_time_does_too() {
        let hsts = Hsts::new();
        record(&hsts, "https://example.com/", "max-age=100; includeSubDomains");
        assert!(hsts.contains("example.com") && hsts.contains("www.example.com"));
        assert!(!hsts.contains_at("example.com", now() + 101));
        record(&hsts, "https://www.example.com/", "max-age=0");
        assert!(hsts.contains("www.example.com"), "the parent still holds it");
        record(&hsts, "https://example.com/", "max-age=100");
        assert!(!hsts.contains("www.example.com"));
        record(&hsts, "https://example.com/", "max-age=0");
        assert!(!hsts.contains("example.com"));
    }

    #[test]
    fn the_text_form_brings_all_back() {
        let hsts = Hsts::new();
        hsts.add("b.example", YEAR, true).unwrap();
        hsts.add("A.example.", YEAR, false).unwrap();
        let text = hsts.to_text();
        assert!(text.starts_with("a.example ") && text.ends_with(" 1\n") && text.lines().count() == 2);
        let again = Hsts::new();
        assert_eq!(again.load_text(&format!("# kept\n{text}gone.example 5 0\n")).unwrap(), 2);
        assert_eq!(again.to_text(), text);
        assert!(again.load_text("a.example soon 0").unwrap_err().message().contains("line 1"));
        again.clear();
        assert!(!again.contains("b.example"));
    }

    #[test]
    fn the_store_is_bounded_and_forgets_what_ends_first() {
        let hsts = Hsts::new();
        for n in 0..10_003 {
            hsts.keep(format!("h{n}.example"), Duration::from_secs(1000 + n), false, 0);
        }
        assert!(!hsts.contains_at("h2.example", 1) && hsts.contains_at("h3.example", 1));
    }

    proptest! {
        #[test]
        fn no_field_makes_the_parser_panic(any in "\\PC{0,60}", near in "((max-age|includeSubDomains|x)?=?\"?[0-9]{0,22}\"?[; ]{0,2}){0,4}") {
            let _ = (parse(&any), parse(&near), Hsts::new().load_text(&any));
        }
    }
}
