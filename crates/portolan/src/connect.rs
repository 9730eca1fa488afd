//! Connectors out of text, with every hop and name server that the features hold.

use portolan_core::{Connector, HopSchemes, ResolverSchemes, Result};

/// The schemes of all hops that this build has: those of core, `h2` and `h2c` (feature `http2`), `h3` and `masque` (`http3`),
/// `wss+tunnel` and `ws+tunnel` (`ws-tunnel`), `ssh` (`ssh`).
pub fn hop_schemes() -> HopSchemes {
    let schemes = HopSchemes::default();
    #[cfg(feature = "http2")]
    let schemes = portolan_http2::hop::schemes(schemes);
    #[cfg(feature = "http3")]
    let schemes = portolan_http3::hop::schemes(schemes);
    #[cfg(feature = "ws-tunnel")]
    let schemes = portolan_tunnel::schemes(schemes);
    #[cfg(feature = "ssh")]
    let schemes = portolan_remote_access::ssh::schemes(schemes);
    schemes
}

/// The schemes of all name servers that this build can ask: with the feature `dns` `dns`, `udp` and `tcp`; `tls` (`dot`), `https` and `h3`
/// (`doh`) and `quic` (`doq`).
///
/// ```
/// use portolan::{Connector, resolver_schemes};
///
/// # #[cfg(feature = "doh")]
/// let resolver = resolver_schemes().resolver(&Connector::default(), ["https://dns.quad9.net@9.9.9.9/dns-query"])?;
/// # #[cfg(feature = "doh")]
/// let net = Connector::builder().resolver(resolver).build()?;
/// # Ok::<(), portolan::Error>(())
/// ```
pub fn resolver_schemes() -> ResolverSchemes {
    let schemes = ResolverSchemes::default();
    #[cfg(feature = "dns")]
    let schemes = portolan_dns::dns::schemes(schemes);
    schemes
}

/// A connector that goes the way of a text: `socks5h://joe:sesame@near.example -> h2://far.example | direct`. See
/// [`HopSchemes::ways`].
///
/// ```
/// let net = portolan::connector_from_str("socks5h://joe:sesame@near.example -> http://ann:secret@far.example:3128?auth=digest")?;
/// assert!(!format!("{net:?}").contains("sesame"));
/// # Ok::<(), portolan::Error>(())
/// ```
pub fn connector_from_str(way: &str) -> Result<Connector> {
    Connector::builder().via_text(way, &hop_schemes())?.build()
}

/// A connector that takes the proxies of the environment, whatever their scheme. See
/// [`proxy_from_env`](portolan_core::ConnectorBuilder::proxy_from_env).
pub fn connector_from_env() -> Result<Connector> {
    Connector::builder().proxy_from_env_with(&hop_schemes())?.build()
}
