//! Hops and chains of hops as text: the schemes of this crate, and those that the caller adds.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use super::{Hop, HopKind, Isolation, ProxyHeader};
use crate::error::{Error, Kind, Phase, Result};
use crate::kit::auth::ProxyAuth;
use crate::secret::{Credentials, Secret};
use crate::url::Url;

/// Makes the hop of a scheme.
type Make = Arc<dyn Fn(&HopSpec) -> Result<Hop> + Send + Sync>;

/// Hops of one chain: more is a mistake, or somebody's mischief.
const MAX_HOPS: usize = 16;

/// The schemes that hops may have: `http`, `https`, `socks4`, `socks4a`, `socks5`, `socks5h` (and `socks`, which is `socks5h`),
/// and those added for hops of other crates. The umbrella's `hop_schemes()` knows all that its features hold.
///
/// ```
/// use portolan_core::HopSchemes;
///
/// let ways = HopSchemes::default().ways("socks5h://joe:sesame@near.example -> http://ann:secret@far.example:3128?auth=digest | direct")?;
/// assert_eq!(format!("{ways:?}"), "[[socks5h://joe:***@near.example:1080, http://ann:***@far.example:3128], []]");
/// # Ok::<(), portolan_core::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct HopSchemes(Vec<(&'static str, Make)>);

impl HopSchemes {
    /// With the hops of another crate under `scheme`; a later one takes the place of an earlier one, and of our own.
    #[must_use]
    pub fn with(
        mut self,
        scheme: &'static str,
        make: impl Fn(&HopSpec) -> Result<Hop> + Send + Sync + 'static,
    ) -> Self {
        self.0.retain(|(known, _)| *known != scheme);
        self.0.push((scheme, Arc::new(make)));
        self
    }

    /// Every scheme that is known.
    pub fn names(&self) -> Vec<&'static str> {
        let own = HopKind::SCHEMES.iter().copied().filter(|name| !self.0.iter().any(|(known, _)| known == name));
        own.chain(self.0.iter().map(|(name, _)| *name)).collect()
    }

    /// Ways to try one after the other, between `|`; each a chain of hops between `->`, the nearest first, or `direct`.
    ///
    /// A hop is `scheme://[user[:password]@]host[:port]`; without a scheme it is an HTTP proxy. Its query may say
    /// `auth=any|strongest|basic|digest|ntlm|bearer` (HTTP proxies; the password is the bearer's token),
    /// `isolation=stream|target` (SOCKS5) and `proxy_header=v1|v2`. What these signs mean is written with percent escapes where it
    /// stands in a password.
    pub fn ways(&self, text: &str) -> Result<Vec<Vec<Hop>>> {
        text.split('|').map(|chain| self.chain(chain)).collect()
    }

    /// One chain of [`ways`](Self::ways).
    pub fn chain(&self, text: &str) -> Result<Vec<Hop>> {
        if text.trim().eq_ignore_ascii_case("direct") {
            return Ok(Vec::new());
        }
        let hops: Vec<Hop> = text.split("->").map(|hop| self.hop(hop)).collect::<Result<_>>()?;
        if hops.len() > MAX_HOPS {
            return Err(Error::usage(format!("a chain of {} hops: {MAX_HOPS} are the most", hops.len())));
        }
        Ok(hops)
    }

    /// One hop of [`ways`](Self::ways).
    pub fn hop(&self, text: &str) -> Result<Hop> {
        self.make(&HopSpec::parse(text)?)
    }

    /// The hop that was specified. What it has no use for is refused, not passed over.
    pub fn make(&self, spec: &HopSpec) -> Result<Hop> {
        let scheme = spec.url.scheme();
        let hop = match self.0.iter().find(|(known, _)| *known == scheme) {
            Some((_, make)) => make(spec)?,
            None => self.own(spec)?,
        };
        let header =
            spec.proxy_header.clone().map(Ok).or_else(|| spec.option("proxy_header").map(|text| header(&text)));
        let hop = match header {
            Some(header) => hop.proxy_header(header?),
            None => hop,
        };
        spec.finish()?;
        hop.check()?;
        Ok(hop)
    }

    fn own(&self, spec: &HopSpec) -> Result<Hop> {
        let (kind, port) = HopKind::of(spec.url.scheme()).ok_or_else(|| {
            Error::usage(format!("no hop has the scheme {:?}: {} do", spec.url.scheme(), self.names().join(", ")))
        })?;
        let http = matches!(kind, HopKind::Http { .. });
        let mut hop = Hop::new(kind, spec.url.endpoint(port)?);
        if !matches!(spec.url.path(), "" | "/") {
            return Err(Error::usage("a proxy url has no path"));
        }
        if http {
            if let Some(credentials) = spec.credentials() {
                hop = hop.credentials(credentials);
            }
            if let Some(auth) = spec.auth()? {
                hop = hop.auth(auth);
            }
            for (name, value) in spec.headers() {
                hop = hop.header(name, value)?;
            }
        } else {
            if let Some(credentials) = spec.credentials() {
                hop = hop.credentials(credentials);
            }
            if let Some(isolation) = spec.isolation()? {
                hop = hop.isolation(isolation);
            }
        }
        Ok(hop)
    }
}

impl fmt::Debug for HopSchemes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

impl HopKind {
    const SCHEMES: &'static [&'static str] = &["http", "https", "socks4", "socks4a", "socks5", "socks5h", "socks"];

    /// Kind and port of a scheme.
    pub(super) fn of(scheme: &str) -> Option<(Self, u16)> {
        Some(match scheme {
            "http" => (Self::Http { tls: false }, 80),
            "https" => (Self::Http { tls: true }, 443),
            "socks4" => (Self::Socks4 { remote: false }, 1080),
            "socks4a" => (Self::Socks4 { remote: true }, 1080),
            "socks5" => (Self::Socks5 { remote: false }, 1080),
            "socks5h" | "socks" => (Self::Socks5 { remote: true }, 1080),
            _ => return None,
        })
    }
}

/// One hop as text or configuration says it: what the maker of a scheme is given. Whatever the maker does not ask for, and was
/// said all the same, is refused.
#[derive(Clone)]
pub struct HopSpec {
    pub(crate) url: Url,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) auth: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) isolation: Option<Isolation>,
    pub(crate) proxy_header: Option<ProxyHeader>,
    taken: RefCell<BTreeSet<String>>,
    /// Whether the query is the scheme's own.
    whole: Cell<bool>,
}

impl HopSpec {
    /// From `scheme://[user[:password]@]host[:port][/path][?query]`.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let url = if text.contains("://") { Url::parse(text) } else { Url::parse(&format!("http://{text}")) };
        Ok(Self::new(url?))
    }

    pub(crate) fn new(url: Url) -> Self {
        let credentials = url.credentials();
        Self {
            url,
            credentials,
            auth: None,
            headers: Vec::new(),
            isolation: None,
            proxy_header: None,
            taken: RefCell::default(),
            whole: Cell::default(),
        }
    }

    /// The URL. Its user and password count by [`credentials`](Self::credentials), which may have been said elsewhere too.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The whole URL, for schemes whose query is their own: then all of it is taken.
    pub fn whole_url(&self) -> Secret {
        self.whole.set(true);
        self.taken.borrow_mut().extend(self.url.query_pairs().map(|(key, _)| key));
        self.url.expose()
    }

    /// User and password.
    pub fn credentials(&self) -> Option<Credentials> {
        self.take("credentials");
        self.credentials.clone()
    }

    /// How to prove to an HTTP proxy who one is, where more was said than user and password.
    pub fn auth(&self) -> Result<Option<ProxyAuth>> {
        let Some(word) = self.option("auth").or_else(|| self.auth.clone()) else { return Ok(None) };
        self.take("auth");
        let who = self.credentials();
        let who = who.ok_or_else(|| Error::usage(format!("auth={word} without user and password")))?;
        Ok(Some(match word.as_str() {
            "any" => ProxyAuth::any(who),
            "strongest" => ProxyAuth::strongest(who),
            "basic" => ProxyAuth::basic(who),
            "digest" => ProxyAuth::digest(who),
            "ntlm" => ProxyAuth::ntlm_if_built(who).ok_or_else(|| {
                Error::new(Kind::Unsupported, "built without the feature `ntlm`").with_phase(Phase::Setup)
            })?,
            "bearer" => ProxyAuth::bearer(if who.password.is_empty() { Secret::new(who.user) } else { who.password }),
            other => {
                return Err(Error::usage(format!(
                    "no auth is {other:?}: any, strongest, basic, digest, ntlm, bearer are"
                )));
            }
        }))
    }

    /// Headers for the proxy.
    pub fn headers(&self) -> &[(String, String)] {
        self.take("headers");
        &self.headers
    }

    /// What shares a circuit.
    pub fn isolation(&self) -> Result<Option<Isolation>> {
        self.take("isolation");
        match self.option("isolation").as_deref() {
            None => Ok(self.isolation),
            Some("stream") => Ok(Some(Isolation::Stream)),
            Some("target") => Ok(Some(Isolation::Target)),
            Some(other) => Err(Error::usage(format!("no isolation is {other:?}: stream and target are"))),
        }
    }

    /// A value of the query.
    pub fn option(&self, name: &str) -> Option<String> {
        let value = self.url.query_value(name)?;
        self.take(name);
        Some(value)
    }

    fn take(&self, name: &str) {
        self.taken.borrow_mut().insert(name.to_owned());
    }

    /// Refuses what nobody asked for.
    fn finish(&self) -> Result<()> {
        let taken = self.taken.borrow();
        let said = [
            ("credentials", self.credentials.is_some()),
            ("auth", self.auth.is_some()),
            ("headers", !self.headers.is_empty()),
            ("isolation", self.isolation.is_some()),
        ];
        let said = said.into_iter().filter(|(_, said)| *said).map(|(name, _)| name.to_owned());
        match said.chain(self.url.query_pairs().map(|(key, _)| key)).find(|name| !taken.contains(name)) {
            Some(name) => Err(Error::usage(format!("a hop with the scheme {:?} has no {name:?}", self.url.scheme()))),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for HopSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HopSpec").field("url", &self.url).finish_non_exhaustive()
    }
}

/// The plain header of a version.
pub(crate) fn header(version: &str) -> Result<ProxyHeader> {
    match version {
        "v1" => Ok(ProxyHeader::v1()),
        "v2" => Ok(ProxyHeader::v2()),
        other => Err(Error::usage(format!("no PROXY protocol has the version {other:?}: v1 and v2 are"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ways(text: &str) -> String {
        match HopSchemes::default().ways(text) {
            Ok(ways) => format!("{ways:?}"),
            Err(error) => error.message().to_owned(),
        }
    }

    #[test]
    fn table_of_ways() {
        for (text, seen) in [
            ("direct", "[[]]"),
            ("proxy:3128", "[[http://proxy:3128]]"),
            ("socks://p", "[[socks5h://p:1080]]"),
            (" http://a:1->https://b |socks4a://c| DIRECT ", "[[http://a:1, https://b:443], [socks4a://c:1080], []]"),
            ("http://u%7C:p%2D%3E@a:1", "[[http://u%7C:***@a:1]]"),
            ("socks5h://[::1]:9050?isolation=stream", "[[socks5h://[::1]:9050]]"),
            ("http://u:p@a?auth=digest&proxy_header=v2", "[[http://u:***@a:80]]"),
        ] {
            assert_eq!(ways(text), seen, "{text}");
        }
        for (text, part) in [
            ("", "without a host"),
            ("a:1 -> ", "without a host"),
            ("ftp://a", "socks5h, socks do"),
            ("http://a/path", "no path"),
            ("http://u:p/w@a", "written %2F"),
            ("http://a?auth=digest", "without user and password"),
            ("http://u:p@a?auth=magic", "magic"),
            ("http://a?isolation=stream", "has no \"isolation\""),
            ("socks5h://a?isolation=all", "stream and target"),
            ("socks5h://u:p@a?auth=digest", "has no \"auth\""),
            ("http://a?proxy_header=v3", "v1 and v2"),
            ("http://a?prxy=1", "has no \"prxy\""),
        ] {
            assert!(ways(text).contains(part), "{text}: {}", ways(text));
        }
        let long = vec!["http://a"; 17].join("->");
        assert!(ways(&long).contains("17 hops"));
    }

    #[test]
    fn hops_of_other_crates_say_what_they_take() {
        let schemes = HopSchemes::default().with("near", |spec| {
            let name = spec.option("name").unwrap_or_default();
            let endpoint = crate::Endpoint::new(format!("{name}.test"), 7)?;
            Ok(Hop::custom("near", endpoint, Arc::new(|_, beneath| beneath)))
        });
        assert_eq!(format!("{:?}", schemes.hop("near://x?name=y").unwrap()), "near://y.test:7");
        for (text, part) in [("near://u:sesame@x?name=y", "credentials"), ("near://x?name=y&other=1", "other")] {
            let error = schemes.hop(text).unwrap_err();
            assert!(error.message().contains(part) && !format!("{error:?}").contains("sesame"), "{error}");
        }
        assert!(schemes.names().ends_with(&["near"]));
    }
}
