//! What is remembered of origins and of failures.

use std::collections::HashMap;
use std::fmt;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::ALT_SVC;
use http::{HeaderMap, Uri};
use portolan_core::{Error, Result, clock};

use super::parse::{AltService, AltSvc};
use crate::civil;

/// A client that talks to more origins than this forgets those that end first.
const MAX_ORIGINS: usize = 1000;
/// A year: what is said for longer is cut to it, as curl does.
const MAX_AGE: i64 = 365 * 86_400;
/// How long a failure is remembered at first.
const FIRST_BREAK: i64 = 5 * 60;
/// And at most.
const LONGEST_BREAK: i64 = 2 * 86_400;
/// Failures of more alternatives than this are forgotten, the oldest first.
const MAX_BROKEN: usize = 1000;

/// The alternatives of origins. Clones share them.
///
/// ```
/// use portolan_http::alt_svc::AltSvcCache;
///
/// let cache = AltSvcCache::new();
/// let origin = "https://example.com/".parse()?;
/// let mut headers = http::HeaderMap::new();
/// headers.insert("alt-svc", r#"h3=":443"; ma=3600, h2="alt.example.com:8443""#.parse()?);
/// cache.record(&origin, &headers);
/// let h3 = cache.lookup(&origin, "h3").expect("known now");
/// assert_eq!((h3.host, h3.port), (None, 443));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct AltSvcCache {
    state: Arc<Mutex<State>>,
}

/// Host in lower case, and port: the scheme is always https.
type Origin = (String, u16);

#[derive(Debug, Default)]
pub(super) struct State {
    origins: HashMap<Origin, Vec<Known>>,
    broken: HashMap<Alternative, Broken>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    service: AltService,
    /// In seconds of the Unix clock.
    expires: i64,
}

/// Protocol, host and port: what fails for one origin fails for all.
type Alternative = (String, String, u16);

#[derive(Debug, Clone, Copy)]
struct Broken {
    until: i64,
    failures: u32,
}

impl AltSvcCache {
    /// An empty memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what the `Alt-Svc` fields of a response from `origin` say; other origins than https are passed over.
    pub fn record(&self, origin: &Uri, headers: &HeaderMap) {
        if origin.scheme_str() != Some("https") || !headers.contains_key(ALT_SVC) {
            return;
        }
        let texts: Vec<&str> = headers.get_all(ALT_SVC).iter().filter_map(|value| value.to_str().ok()).collect();
        if !texts.is_empty() {
            self.record_text(origin, &texts.join(", "));
        }
    }

    /// Takes the text of an ALTSVC frame, or of a field.
    pub fn record_text(&self, origin: &Uri, text: &str) {
        self.state().record(origin, AltSvc::parse(text), now());
    }

    /// The first alternative of `origin` by `protocol` that is still good and not known to be broken.
    pub fn lookup(&self, origin: &Uri, protocol: &str) -> Option<AltService> {
        self.state().lookup(origin, protocol, now())
    }

    /// Says that an alternative failed: it is passed over for five minutes, and twice as long each further time, up to two days.
    pub fn mark_broken(&self, origin: &Uri, service: &AltService) {
        self.state().mark_broken(origin, service, now());
    }

    /// Says that an alternative worked: its failures are forgotten.
    pub fn mark_working(&self, origin: &Uri, service: &AltService) {
        if let Some(alternative) = alternative(origin, service) {
            self.state().broken.remove(&alternative);
        }
    }

    /// Forgets the alternatives of one origin, as for a 421 answer (RFC 7838 6).
    pub fn forget(&self, origin: &Uri) {
        if let Some(origin) = key(origin) {
            self.state().origins.remove(&origin);
        }
    }

    /// The network changed: forgets what was not said to outlive that, and all failures, which may have been the network's.
    pub fn network_changed(&self) {
        let mut state = self.state();
        state.retain(|known| known.service.persist);
        state.broken.clear();
    }

    /// Forgets all.
    pub fn clear(&self) {
        *self.state() = State::default();
    }

    /// All that is good as text, one alternative a line: host, port, protocol, host and port of the alternative, the end in
    /// seconds of the Unix clock, and whether it outlives a change of the network. Failures are not written.
    pub fn to_text(&self) -> String {
        self.state().to_text(now())
    }

    /// Adds what [`to_text`](Self::to_text) wrote, and says how many alternatives were taken. Nothing is taken if a line is
    /// broken.
    pub fn load_text(&self, text: &str) -> Result<usize> {
        self.state().load_text(text, now())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for AltSvcCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AltSvcCache").field("origins", &self.state().origins.len()).finish_non_exhaustive()
    }
}

impl State {
    pub(super) fn record(&mut self, origin: &Uri, said: AltSvc, now: i64) {
        let Some(key) = key(origin) else { return };
        match said {
            AltSvc::Clear => drop(self.origins.remove(&key)),
            // Nothing understood is nothing said.
            AltSvc::Services(services) if services.is_empty() => {}
            AltSvc::Services(services) => {
                let known = services.into_iter().map(|service| {
                    let age = i64::try_from(service.max_age.as_secs()).unwrap_or(MAX_AGE).min(MAX_AGE);
                    Known { service, expires: now.saturating_add(age) }
                });
                let known: Vec<_> = known.filter(|known| known.expires > now).collect();
                if known.is_empty() {
                    self.origins.remove(&key);
                } else {
                    self.keep(key, known, now);
                }
            }
        }
    }

    fn keep(&mut self, key: Origin, known: Vec<Known>, now: i64) {
        self.origins.insert(key, known);
        if self.origins.len() <= MAX_ORIGINS {
            return;
        }
        self.retain(|known| known.expires > now);
        while self.origins.len() > MAX_ORIGINS {
            let last = |known: &Vec<Known>| known.iter().map(|known| known.expires).max();
            let first = self.origins.iter().min_by_key(|(_, known)| last(known)).map(|(key, _)| key.clone());
            first.map(|key| self.origins.remove(&key));
        }
    }

    pub(super) fn lookup(&self, origin: &Uri, protocol: &str, now: i64) -> Option<AltService> {
        let known = self.origins.get(&key(origin)?)?.iter();
        let mut good = known.filter(|known| known.expires > now && known.service.protocol == protocol);
        let service = good.find(|known| {
            alternative(origin, &known.service)
                .is_some_and(|alternative| self.broken.get(&alternative).is_none_or(|broken| broken.until <= now))
        });
        let mut found = service?.clone();
        found.service.max_age = Duration::from_secs(u64::try_from(found.expires.saturating_sub(now)).unwrap_or(0));
        Some(found.service)
    }

    pub(super) fn mark_broken(&mut self, origin: &Uri, service: &AltService, now: i64) {
        let Some(alternative) = alternative(origin, service) else { return };
        let broken = self.broken.entry(alternative).or_insert(Broken { until: now, failures: 0 });
        // Calls that failed together are one failure.
        if broken.until > now {
            return;
        }
        let pause = FIRST_BREAK.saturating_mul(1 << broken.failures.min(16)).min(LONGEST_BREAK);
        *broken = Broken { until: now.saturating_add(pause), failures: broken.failures.saturating_add(1) };
        if self.broken.len() > MAX_BROKEN {
            let oldest = self.broken.iter().min_by_key(|(_, broken)| broken.until).map(|(key, _)| key.clone());
            oldest.map(|key| self.broken.remove(&key));
        }
    }

    fn retain(&mut self, keep: impl Fn(&Known) -> bool) {
        self.origins.retain(|_, known| {
            known.retain(&keep);
            !known.is_empty()
        });
    }

    pub(super) fn to_text(&self, now: i64) -> String {
        let mut origins: Vec<_> = self.origins.iter().collect();
        origins.sort_unstable_by_key(|(key, _)| *key);
        let mut text = String::new();
        for ((host, port), known) in origins {
            for Known { service, expires } in known.iter().filter(|known| known.expires > now) {
                let alternative = service.host.as_deref().unwrap_or("-");
                let persist = u8::from(service.persist);
                // Writing to a string can't fail.
                let _ = writeln!(
                    text,
                    "{host} {port} {} {alternative} {} {expires} {persist}",
                    service.protocol, service.port
                );
            }
        }
        text
    }

    pub(super) fn load_text(&mut self, text: &str, now: i64) -> Result<usize> {
        let mut read: Vec<(Origin, Vec<Known>)> = Vec::new();
        for (number, line) in (1_usize..).zip(text.lines()) {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let broken = || Error::usage(format!("alt-svc file: line {number} is no alternative"));
            let (origin, known) = from_line(line).ok_or_else(broken)?;
            match read.last_mut() {
                Some((last, all)) if *last == origin => all.push(known),
                _ => read.push((origin, vec![known])),
            }
        }
        let mut taken = 0;
        for (origin, mut known) in read {
            known.retain(|known| known.expires > now);
            known.iter_mut().for_each(|known| known.expires = known.expires.min(now.saturating_add(MAX_AGE)));
            if !known.is_empty() {
                taken += known.len();
                self.keep(origin, known, now);
            }
        }
        Ok(taken)
    }
}

fn from_line(line: &str) -> Option<(Origin, Known)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [host, port, protocol, alternative, alternative_port, expires, persist] = fields.as_slice() else {
        return None;
    };
    let service = AltService {
        protocol: (*protocol).to_owned(),
        host: (*alternative != "-").then(|| alternative.to_ascii_lowercase()),
        port: alternative_port.parse().ok()?,
        max_age: Duration::ZERO,
        persist: *persist == "1",
    };
    Some(((host.to_ascii_lowercase(), port.parse().ok()?), Known { service, expires: expires.parse().ok()? }))
}

/// Alternatives without TLS would let anybody on the way redirect us for a long time.
fn key(origin: &Uri) -> Option<Origin> {
    let host = origin.host().filter(|host| !host.is_empty())?;
    matches!(origin.scheme_str(), Some("https" | "wss")).then(|| {
        let port = origin.port_u16().unwrap_or(443);
        (host.to_ascii_lowercase(), port)
    })
}

fn alternative(origin: &Uri, service: &AltService) -> Option<Alternative> {
    let (own, _) = key(origin)?;
    Some((service.protocol.clone(), service.host.clone().unwrap_or(own), service.port))
}

fn now() -> i64 {
    civil::unix(clock::wall())
}
