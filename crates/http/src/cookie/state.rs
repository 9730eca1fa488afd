//! The store without its lock: judging, keeping, finding and evicting (RFC 6265bis 5.7 and 5.8).

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::time::SystemTime;

use http::{HeaderValue, Uri};

use super::domain;
use super::jar::JarOptions;
use super::parse::{Refused, SameSite, SetCookie};
use crate::civil;

/// One cookie as it is kept. `Debug` leaves the value out.
#[derive(Clone, PartialEq, Eq)]
pub struct Cookie {
    pub(super) name: Box<[u8]>,
    pub(super) value: Box<[u8]>,
    pub(super) domain: Box<str>,
    pub(super) path: Box<[u8]>,
    pub(super) expires: Option<i64>,
    pub(super) host_only: bool,
    pub(super) secure: bool,
    pub(super) http_only: bool,
    pub(super) same_site: SameSite,
}

impl Cookie {
    /// The name, which may be empty. Octets that are no UTF-8 are replaced.
    pub fn name(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.name)
    }

    /// The value. Octets that are no UTF-8 are replaced; see [`Cookie::value_bytes`].
    pub fn value(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.value)
    }

    /// The value as it was sent.
    pub fn value_bytes(&self) -> &[u8] {
        &self.value
    }

    /// The host or domain in lower case, without a leading dot.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The path.
    pub fn path(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.path)
    }

    /// When it ends; `None` is the session's end.
    pub fn expires(&self) -> Option<SystemTime> {
        self.expires.map(civil::system_time)
    }

    /// Whether it goes to this host alone, not to those below it.
    pub fn is_host_only(&self) -> bool {
        self.host_only
    }

    /// Whether it goes over secure schemes alone.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Whether scripts of a page may not see it. It has no meaning for a client, and is kept for export.
    pub fn is_http_only(&self) -> bool {
        self.http_only
    }

    /// What it said of SameSite: kept, not enforced.
    pub fn same_site(&self) -> SameSite {
        self.same_site
    }

    pub(super) fn is_expired(&self, now: i64) -> bool {
        self.expires.is_some_and(|end| end <= now)
    }

    fn is_same(&self, other: &Self) -> bool {
        self.name == other.name
            && self.domain == other.domain
            && self.host_only == other.host_only
            && self.path == other.path
    }

    fn goes_to(&self, host: &str, path: &[u8], secure: bool) -> bool {
        let host_fits = if self.host_only { *self.domain == *host } else { domain::domain_matches(host, &self.domain) };
        host_fits && (secure || !self.secure) && domain::path_matches(path, &self.path)
    }
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cookie")
            .field("name", &self.name())
            .field("value", &"***")
            .field("domain", &self.domain)
            .field("path", &self.path())
            .field("expires", &self.expires)
            .field("host_only", &self.host_only)
            .field("secure", &self.secure)
            .field("http_only", &self.http_only)
            .field("same_site", &self.same_site)
            .finish()
    }
}

/// A cookie and its place in the two orders: of creation and of use.
#[derive(Debug, Clone)]
struct Entry {
    cookie: Cookie,
    created: u64,
    used: u64,
}

#[derive(Debug)]
pub(super) struct State {
    options: JarOptions,
    /// By registrable domain, so that a lookup reads one list and a limit can't be dodged by subdomains.
    sites: HashMap<Box<str>, Vec<Entry>>,
    total: usize,
    /// Counts creations and uses: a clock that never stands still or runs back.
    tick: u64,
}

impl State {
    pub(super) fn new(options: JarOptions) -> Self {
        Self { options, sites: HashMap::new(), total: 0, tick: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.total
    }

    /// Judges one Set-Cookie field from `uri` and keeps it, or says why not.
    pub(super) fn set(&mut self, uri: &Uri, field: &[u8], now: i64) -> Result<(), Refused> {
        let cookie = self.judge(uri, SetCookie::parse(field)?, now)?;
        self.keep(cookie, now);
        Ok(())
    }

    fn judge(&self, uri: &Uri, set: SetCookie<'_>, now: i64) -> Result<Cookie, Refused> {
        let host = domain::host(uri).ok_or(Refused::NoHost)?;
        let limit = i64::try_from(self.options.max_age.as_secs()).unwrap_or(i64::MAX);
        let expires = set.expiry(now, limit);
        let (domain, host_only) = match set.domain {
            None => (host, true),
            Some(domain) => judge_domain(host, domain)?,
        };
        let secure_scheme = domain::is_secure(uri);
        if set.secure && !secure_scheme {
            return Err(Refused::InsecureScheme);
        }
        let path = set.path.unwrap_or_else(|| domain::default_path(uri).as_bytes());
        let cookie = Cookie {
            name: set.name.into(),
            value: set.value.into(),
            domain: domain.into(),
            path: path.into(),
            expires,
            host_only,
            secure: set.secure,
            http_only: set.http_only,
            same_site: set.same_site,
        };
        if !set.secure && !secure_scheme && self.hides_a_secure_one(&cookie) {
            return Err(Refused::Overlay);
        }
        if !keeps_its_prefix(&cookie, set.path == Some(b"/")) {
            return Err(Refused::Prefix);
        }
        Ok(cookie)
    }

    /// RFC 6265bis 5.7 step 16.
    fn hides_a_secure_one(&self, new: &Cookie) -> bool {
        let entries = self.sites.get(domain::site(&new.domain)).map_or(&[][..], Vec::as_slice);
        entries.iter().map(|entry| &entry.cookie).any(|old| {
            old.secure
                && old.name == new.name
                && (domain::domain_matches(&old.domain, &new.domain)
                    || domain::domain_matches(&new.domain, &old.domain))
                && domain::path_matches(&new.path, &old.path)
        })
    }

    /// Puts it in place of the one it replaces, and makes room.
    pub(super) fn keep(&mut self, cookie: Cookie, now: i64) {
        self.tick += 1;
        let site: Box<str> = domain::site(&cookie.domain).into();
        let entries = self.sites.entry(site.clone()).or_default();
        let before = entries.len();
        let old = entries.iter().position(|entry| entry.cookie.is_same(&cookie)).map(|at| entries.swap_remove(at));
        if !cookie.is_expired(now) {
            // The age of the replaced one is kept (5.7 step 23), for the order of the Cookie field rests on it.
            let created = old.map_or(self.tick, |old| old.created);
            entries.push(Entry { cookie, created, used: self.tick });
        }
        if entries.len() > self.options.max_per_site {
            entries.retain(|entry| !entry.cookie.is_expired(now));
        }
        while entries.len() > self.options.max_per_site {
            // Insecure ones go first, so that an attacker on the way can't push the secure ones out.
            remove_oldest(entries, |entry| (entry.cookie.secure, entry.used));
        }
        self.total = self.total - before + entries.len();
        if entries.is_empty() {
            self.sites.remove(&site);
        }
        if self.total > self.options.max_total {
            self.remove_expired(now);
        }
        while self.total > self.options.max_total {
            self.evict_one();
        }
    }

    fn evict_one(&mut self) {
        let oldest = self
            .sites
            .iter()
            .filter_map(|(site, entries)| Some((entries.iter().map(|entry| entry.used).min()?, site)))
            .min()
            .map(|(_, site)| site.clone());
        let Some(site) = oldest else {
            self.total = 0;
            return;
        };
        if let Some(entries) = self.sites.get_mut(&site) {
            remove_oldest(entries, |entry| (false, entry.used));
            self.total -= 1;
            if entries.is_empty() {
                self.sites.remove(&site);
            }
        }
    }

    pub(super) fn remove_expired(&mut self, now: i64) {
        self.retain(|cookie| !cookie.is_expired(now));
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Cookie) -> bool) {
        self.sites.retain(|_, entries| {
            entries.retain(|entry| keep(&entry.cookie));
            !entries.is_empty()
        });
        self.total = self.sites.values().map(Vec::len).sum();
    }

    /// The Cookie field: longer paths first, then older cookies (5.8.3).
    pub(super) fn header(&mut self, uri: &Uri, now: i64) -> Option<HeaderValue> {
        if self.total == 0 {
            return None;
        }
        let host = domain::host(uri)?;
        let entries = self.sites.get_mut(domain::site(&host))?;
        let (secure, path) = (domain::is_secure(uri), uri.path().as_bytes());
        let path = if path.is_empty() { b"/" } else { path };
        self.tick += 1;
        let mut found: Vec<&mut Entry> = entries
            .iter_mut()
            .filter(|entry| !entry.cookie.is_expired(now) && entry.cookie.goes_to(&host, path, secure))
            .collect();
        found.sort_unstable_by_key(|entry| (std::cmp::Reverse(entry.cookie.path.len()), entry.created));
        let mut text = Vec::with_capacity(found.iter().map(|e| e.cookie.name.len() + e.cookie.value.len() + 3).sum());
        for entry in found {
            entry.used = self.tick;
            if !text.is_empty() {
                text.extend_from_slice(b"; ");
            }
            text.extend_from_slice(&entry.cookie.name);
            if !entry.cookie.name.is_empty() {
                text.push(b'=');
            }
            text.extend_from_slice(&entry.cookie.value);
        }
        let mut value = HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).ok().filter(|v| !v.is_empty())?;
        value.set_sensitive(true);
        Some(value)
    }

    /// All that live, in the order of their creation.
    pub(super) fn all(&self, now: i64) -> Vec<Cookie> {
        let mut entries: Vec<&Entry> =
            self.sites.values().flatten().filter(|entry| !entry.cookie.is_expired(now)).collect();
        entries.sort_unstable_by_key(|entry| entry.created);
        entries.into_iter().map(|entry| entry.cookie.clone()).collect()
    }
}

fn remove_oldest(entries: &mut Vec<Entry>, order: impl Fn(&Entry) -> (bool, u64)) {
    if let Some((at, _)) = entries.iter().enumerate().min_by_key(|(_, entry)| order(entry)) {
        entries.swap_remove(at);
    }
}

/// The domain to keep and whether it is the host's alone (RFC 6265bis 5.7 steps 8 to 10).
fn judge_domain(host: String, domain: Vec<u8>) -> Result<(String, bool), Refused> {
    // A trailing dot makes another name of the same host, which would slip past the list of public suffixes.
    let domain = String::from_utf8(domain).ok().filter(|domain| domain.is_ascii() && !domain.ends_with('.'));
    let domain = domain.ok_or(Refused::ForeignDomain)?;
    if domain::is_address(&host) {
        return if domain == host { Ok((host, true)) } else { Err(Refused::ForeignDomain) };
    }
    if domain::is_public_suffix(&domain) {
        return if domain == host { Ok((host, true)) } else { Err(Refused::PublicSuffix) };
    }
    if domain::domain_matches(&host, &domain) { Ok((domain, false)) } else { Err(Refused::ForeignDomain) }
}

/// RFC 6265bis 5.7 steps 20 to 22; the value counts where there is no name, for on the wire they look the same.
fn keeps_its_prefix(cookie: &Cookie, explicit_root: bool) -> bool {
    let starts = |text: &[u8], prefix: &str| {
        text.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix.as_bytes()))
    };
    if cookie.name.is_empty() {
        return !starts(&cookie.value, "__secure-") && !starts(&cookie.value, "__host-");
    }
    if starts(&cookie.name, "__host-") {
        return cookie.secure && cookie.host_only && explicit_root;
    }
    cookie.secure || !starts(&cookie.name, "__secure-")
}
