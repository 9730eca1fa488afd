//! Resolvers as text: the schemes that the caller adds, and the system's.

use std::fmt;
use std::sync::Arc;

use super::{Failover, Resolve, Resolver, System};
use crate::connector::Connector;
use crate::error::{Error, Result};

/// Makes the resolver of a URL, which goes by the connector.
type Make = Arc<dyn Fn(&Connector, &str) -> Result<Arc<dyn Resolve>> + Send + Sync>;

/// Servers of one list: more is a mistake, or somebody's mischief.
const MAX_SERVERS: usize = 16;

/// The schemes that name servers may have: none but the word `system` by themselves; `portolan-dns` adds `udp`, `tcp`, `tls`, `https` and
/// the like. The umbrella's `resolver_schemes()` knows all that its features hold.
#[derive(Clone, Default)]
pub struct ResolverSchemes(Vec<(&'static str, Make)>);

impl ResolverSchemes {
    /// With the resolvers of another crate under `scheme`; a later one takes the place of an earlier one.
    #[must_use]
    pub fn with(
        mut self,
        scheme: &'static str,
        make: impl Fn(&Connector, &str) -> Result<Arc<dyn Resolve>> + Send + Sync + 'static,
    ) -> Self {
        self.0.retain(|(known, _)| *known != scheme);
        self.0.push((scheme, Arc::new(make)));
        self
    }

    /// Every scheme that is known.
    pub fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|(name, _)| *name).collect()
    }

    /// A resolver with a cache that asks these servers, the first that answers counting: [`Failover`]. Each is a URL, or the word
    /// `system`: no other is ever asked. They are reached by `net`, whose own resolver finds the addresses of those that are named.
    pub fn resolver<S: AsRef<str>>(&self, net: &Connector, servers: impl IntoIterator<Item = S>) -> Result<Resolver> {
        let mut list = Vec::new();
        for server in servers {
            list.push(self.server(net, server.as_ref())?);
        }
        match list.len() {
            0 => Err(Error::usage("a resolver without a server")),
            1..=MAX_SERVERS => Ok(Resolver::new(Failover::new(list))),
            more => Err(Error::usage(format!("a resolver of {more} servers: {MAX_SERVERS} are the most"))),
        }
    }

    fn server(&self, net: &Connector, text: &str) -> Result<Arc<dyn Resolve>> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("system") {
            return Ok(Arc::new(System::default()));
        }
        let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase()).unwrap_or_default();
        let make = self.0.iter().find(|(known, _)| *known == scheme).map(|(_, make)| make);
        make.ok_or_else(|| {
            let known: Vec<_> =
                self.0.iter().map(|(name, _)| format!("{name}://")).chain(["system".to_owned()]).collect();
            Error::usage(format!("no name server has the scheme {scheme:?}: {} do", known.join(", ")))
        })?(net, text)
    }
}

impl fmt::Debug for ResolverSchemes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}
