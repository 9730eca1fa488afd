//! The jar: the state behind a lock, cheap to share.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue, Uri};
use portolan_core::{Error, Result, clock};

use super::CookieStore;
use super::persist::{self, Keep};
use super::state::{Cookie, State};
use crate::civil;

/// What browsers keep for one site, roughly.
const MAX_PER_SITE: usize = 180;
/// What RFC 6265bis 6.1 asks for at least, and what browsers keep in all.
const MAX_TOTAL: usize = 3000;
/// 400 days (RFC 6265bis 5.5).
const MAX_AGE: Duration = Duration::from_secs(400 * 86_400);

/// How much a [`Jar`] holds, and for how long.
#[derive(Debug, Clone)]
pub struct JarOptions {
    pub(super) max_per_site: usize,
    pub(super) max_total: usize,
    pub(super) max_age: Duration,
}

impl Default for JarOptions {
    fn default() -> Self {
        Self { max_per_site: MAX_PER_SITE, max_total: MAX_TOTAL, max_age: MAX_AGE }
    }
}

impl JarOptions {
    /// 180 cookies a site, 3000 in all, none for more than 400 days.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many cookies one registrable domain may have, its subdomains counted in. Default 180; RFC 6265bis asks for at least 50.
    #[must_use]
    pub fn with_max_per_site(mut self, cookies: usize) -> Self {
        self.max_per_site = cookies;
        self
    }

    /// How many cookies there may be in all. Default 3000.
    #[must_use]
    pub fn with_max_total(mut self, cookies: usize) -> Self {
        self.max_total = cookies;
        self
    }

    /// The longest life that a server can give a cookie. Default 400 days; longer ones are cut to it.
    #[must_use]
    pub fn with_max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }
}

/// A cookie jar. Clones share it.
///
/// ```
/// use portolan_http::cookie::{CookieStore, Jar, Keep};
///
/// let jar = Jar::new();
/// let uri = "https://www.example.com/shop/".parse()?;
/// jar.add(&uri, "basket=7; Domain=example.com; Path=/; Max-Age=3600")?;
/// assert_eq!(jar.cookies_for(&"http://example.com/".parse()?).unwrap(), "basket=7");
/// assert!(jar.cookies_for(&"http://example.org/".parse()?).is_none());
///
/// let again = Jar::new();
/// assert_eq!(again.load_json_lines(&jar.to_json_lines(Keep::Persistent))?, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Jar {
    state: Arc<Mutex<State>>,
}

impl Jar {
    /// An empty jar with the default limits.
    pub fn new() -> Self {
        Self::with_options(JarOptions::default())
    }

    /// An empty jar with limits of your own.
    pub fn with_options(options: JarOptions) -> Self {
        Self { state: Arc::new(Mutex::new(State::new(options))) }
    }

    /// Adds a cookie in the form of a `Set-Cookie` field, as if `uri` had set it; the error says why it was refused.
    pub fn add(&self, uri: &Uri, set_cookie: &str) -> Result<()> {
        self.state().set(uri, set_cookie.as_bytes(), now()).map_err(|why| Error::usage(why.to_string()))
    }

    /// All cookies that have not ended, the oldest first.
    pub fn cookies(&self) -> Vec<Cookie> {
        self.state().all(now())
    }

    /// How many there are, those that ended unnoticed counted in.
    pub fn len(&self) -> usize {
        self.state().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps the cookies of which `keep` says yes.
    pub fn retain(&self, keep: impl FnMut(&Cookie) -> bool) {
        self.state().retain(keep);
    }

    /// Removes all.
    pub fn clear(&self) {
        self.retain(|_| false);
    }

    /// Ends the session: removes the cookies without a date, and those whose date has passed.
    pub fn end_session(&self) {
        let now = now();
        self.retain(|cookie| cookie.expires.is_some() && !cookie.is_expired(now));
    }

    /// The cookies as JSON, one object a line, the oldest first. The text holds their values: keep it as you keep passwords.
    pub fn to_json_lines(&self, keep: Keep) -> String {
        persist::to_json_lines(&keep.of(self.cookies()))
    }

    /// Adds what [`Jar::to_json_lines`] wrote, and says how many were taken. Nothing is taken if a line is broken.
    pub fn load_json_lines(&self, text: &str) -> Result<usize> {
        Ok(self.keep_all(persist::from_json_lines(text)?))
    }

    /// The cookies as a Netscape `cookies.txt`, as curl and wget read it. Names and values that hold a tab are left out: the
    /// format cannot say them.
    pub fn to_netscape(&self, keep: Keep) -> String {
        persist::to_netscape(&keep.of(self.cookies()))
    }

    /// Adds the cookies of a Netscape `cookies.txt`, and says how many were taken. Nothing is taken if a line is broken.
    pub fn load_netscape(&self, text: &str) -> Result<usize> {
        Ok(self.keep_all(persist::from_netscape(text)?))
    }

    fn keep_all(&self, cookies: Vec<Cookie>) -> usize {
        let now = now();
        let mut state = self.state();
        let mut taken = 0;
        for cookie in cookies.into_iter().filter(|cookie| !cookie.is_expired(now)) {
            state.keep(cookie, now);
            taken += 1;
        }
        taken
    }

    /// The state is whole between any two calls, so a panic elsewhere does not spoil it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CookieStore for Jar {
    fn set(&self, uri: &Uri, headers: &HeaderMap) {
        let mut fields = headers.get_all(SET_COOKIE).iter().peekable();
        if fields.peek().is_none() {
            return;
        }
        let now = now();
        let mut state = self.state();
        for field in fields {
            if let Err(why) = state.set(uri, field.as_bytes(), now) {
                tracing::debug!(host = uri.host().unwrap_or(""), %why, "cookie refused");
            }
        }
    }

    fn cookies_for(&self, uri: &Uri) -> Option<HeaderValue> {
        self.state().header(uri, now())
    }
}

impl Default for Jar {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Jar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jar").field("cookies", &self.len()).finish_non_exhaustive()
    }
}

fn now() -> i64 {
    civil::unix(clock::wall())
}
