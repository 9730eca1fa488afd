//! Connectors out of text, with every hop that the features hold.

use portolan_core::{Connector, HopSchemes, Result};

/// The schemes of all hops that this build has: those of core, `h2` and `h2c` (feature `http2`), `h3` and `masque` (`http3`),
/// `wss+tunnel` and `ws+tunnel` (`ws-tunnel`).
pub fn hop_schemes() -> HopSchemes {
    let schemes = HopSchemes::default();
    #[cfg(feature = "http2")]
    let schemes = portolan_http2::hop::schemes(schemes);
    #[cfg(feature = "http3")]
    let schemes = portolan_http3::hop::schemes(schemes);
    #[cfg(feature = "ws-tunnel")]
    let schemes = portolan_tunnel::schemes(schemes);
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
