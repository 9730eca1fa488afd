//! Who to talk to: a host and a port, or a Unix socket.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, Result};

/// The longest name that DNS can carry (RFC 1035 2.3.4), in its textual form.
const MAX_NAME: usize = 253;

/// A name still to be resolved, an address, or a socket in the file system.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Host {
    /// A DNS name, lower case, without a trailing dot.
    Name(Arc<str>),
    /// An address, with the zone of a link-local one.
    Ip(IpAddr, u32),
    /// A Unix stream socket.
    Unix(Arc<Path>),
}

/// A host and a port, with the scheme where it came from a URL.
///
/// ```
/// use portolan_core::Endpoint;
///
/// let endpoint: Endpoint = "Example.org:6379".parse()?;
/// assert_eq!(endpoint.to_string(), "example.org:6379");
/// let v6: Endpoint = "[::1]:25".parse()?;
/// assert_eq!((v6.port(), v6.host_text().as_ref()), (25, "::1"));
/// # Ok::<(), portolan_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    host: Host,
    port: u16,
    scheme: Option<Arc<str>>,
}

impl Endpoint {
    /// A host (name or address in any usual form, brackets allowed) and a port. A name that could not be one is refused.
    pub fn new(host: impl AsRef<str>, port: u16) -> Result<Self> {
        Ok(Self { host: parse_host(host.as_ref())?, port, scheme: None })
    }

    /// A socket in the file system.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self { host: Host::Unix(path.into().into()), port: 0, scheme: None }
    }

    /// `host`, `host:port`, `[v6]:port`, `unix:/path`; `default_port` where the text names none.
    pub fn parse(text: &str, default_port: Option<u16>) -> Result<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::unix(path.strip_prefix("//").unwrap_or(path)));
        }
        let (host, port) = split_port(text)?;
        let port = match (port, default_port) {
            (Some(port), _) | (None, Some(port)) => port,
            (None, None) => return Err(Error::usage(format!("no port in endpoint {text:?}"))),
        };
        Self::new(host, port)
    }

    /// The same with a scheme.
    #[must_use]
    pub fn with_scheme(mut self, scheme: &str) -> Self {
        self.scheme = Some(scheme.into());
        self
    }

    /// The same host, another port.
    #[must_use]
    pub fn with_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// The host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port; 0 for a Unix socket.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The scheme it came with.
    pub fn scheme(&self) -> Option<&str> {
        self.scheme.as_deref()
    }

    /// The host as text: no brackets, no port.
    pub fn host_text(&self) -> std::borrow::Cow<'_, str> {
        match &self.host {
            Host::Name(name) => std::borrow::Cow::Borrowed(name),
            Host::Ip(ip, 0) => ip.to_string().into(),
            Host::Ip(ip, zone) => format!("{ip}%{zone}").into(),
            Host::Unix(path) => path.to_string_lossy(),
        }
    }

    /// The name, if it is one still to be resolved.
    pub fn name(&self) -> Option<&str> {
        match &self.host {
            Host::Name(name) => Some(name),
            _ => None,
        }
    }

    /// The address, if it is one.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self.host {
            Host::Ip(IpAddr::V6(ip), zone) => Some(std::net::SocketAddrV6::new(ip, self.port, 0, zone).into()),
            Host::Ip(ip, _) => Some(SocketAddr::new(ip, self.port)),
            _ => None,
        }
    }

    /// `host:port` with brackets round IPv6, as proxies and `Host` headers want it.
    pub fn authority(&self) -> String {
        match &self.host {
            Host::Ip(IpAddr::V6(_), _) => format!("[{}]:{}", self.host_text(), self.port),
            Host::Unix(_) => self.host_text().into_owned(),
            _ => format!("{}:{}", self.host_text(), self.port),
        }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(addr: SocketAddr) -> Self {
        let zone = match addr {
            SocketAddr::V6(v6) => v6.scope_id(),
            SocketAddr::V4(_) => 0,
        };
        Self { host: Host::Ip(addr.ip(), zone), port: addr.port(), scheme: None }
    }
}

impl FromStr for Endpoint {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text, None)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(scheme) = &self.scheme {
            write!(f, "{scheme}://")?;
        } else if matches!(self.host, Host::Unix(_)) {
            f.write_str("unix:")?;
        }
        f.write_str(&self.authority())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Splits `host:port`, leaving bare IPv6 whole.
pub(crate) fn split_port(text: &str) -> Result<(&str, Option<u16>)> {
    // Never quote what is no number: in a broken URL it is a piece of the password.
    let bad_port = |host: &str| Error::usage(format!("invalid port behind the host {host:?}"));
    let parse = |host: &str, port: &str| match port {
        "" => Ok(None),
        port if port.bytes().all(|b| b.is_ascii_digit()) => port.parse().map(Some).map_err(|_| bad_port(host)),
        _ => Err(bad_port(host)),
    };
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(|| Error::usage(format!("unclosed bracket in {text:?}")))?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, parse(host, port)?)),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(Error::usage(format!("text after the bracket in {text:?}"))),
        };
    }
    match text.split_once(':') {
        Some((_, rest)) if rest.contains(':') => Ok((text, None)),
        Some((host, port)) => Ok((host, parse(host, port)?)),
        None => Ok((text, None)),
    }
}

fn parse_host(text: &str) -> Result<Host> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(Host::Ip(ip, 0));
    }
    if let Some((ip, zone)) = bare.split_once('%')
        && let Ok(ip) = ip.parse::<Ipv6Addr>()
    {
        let zone = zone.strip_prefix("25").filter(|z| !z.is_empty()).unwrap_or(zone);
        return zone_index(zone).map(|zone| Host::Ip(ip.into(), zone));
    }
    let name = bare.strip_suffix('.').unwrap_or(bare);
    if name.is_empty() {
        return Err(Error::usage("empty host"));
    }
    if name.len() > MAX_NAME {
        return Err(Error::usage(format!("host name of {} bytes: DNS allows {MAX_NAME}", name.len())));
    }
    if let Some(bad) = name.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))) {
        let hint = if bad.is_ascii() { "" } else { "; write international names in their xn-- form" };
        return Err(Error::usage(format!("host name holds {bad:?}{hint}")));
    }
    // The C library's other spellings of IPv4 (0x7f.1, 017700000001): an address, so that no one mistakes it for a name.
    if let Some(ip) = legacy_ipv4(name) {
        return Ok(Host::Ip(IpAddr::V4(ip), 0));
    }
    if name.split('.').any(|label| label.is_empty() || label.len() > 63) {
        return Err(Error::usage(format!("host name {name:?} has an empty or over-long label")));
    }
    Ok(Host::Name(name.to_ascii_lowercase().into()))
}

fn zone_index(zone: &str) -> Result<u32> {
    if let Ok(index) = zone.parse() {
        return Ok(index);
    }
    crate::sys::interface_index(zone).ok_or_else(|| Error::usage(format!("no interface named {zone:?}")))
}

/// `inet_aton` spellings: one to four parts, each decimal, octal or hexadecimal, the last filling what is left.
fn legacy_ipv4(text: &str) -> Option<std::net::Ipv4Addr> {
    let parts: Vec<&str> = text.split('.').collect();
    if parts.len() > 4 {
        return None;
    }
    let mut values = Vec::with_capacity(4);
    for part in &parts {
        let value = if let Some(hex) = part.strip_prefix("0x").or_else(|| part.strip_prefix("0X")) {
            if hex.is_empty() { 0 } else { u32::from_str_radix(hex, 16).ok()? }
        } else if part.len() > 1 && part.starts_with('0') {
            u32::from_str_radix(&part[1..], 8).ok()?
        } else {
            part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok())??
        };
        values.push(value);
    }
    let (&last, heads) = values.split_last()?;
    let free_bits = 32 - 8 * u32::try_from(heads.len()).ok()?;
    if heads.iter().any(|&v| v > 255) || (free_bits < 32 && last >> free_bits != 0) {
        return None;
    }
    let mut address = last;
    for (place, &head) in heads.iter().enumerate() {
        address |= head << (24 - 8 * u32::try_from(place).ok()?);
    }
    Some(address.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_legacy_spelling_of_an_address_is_an_address() {
        for text in
            ["127.1", "0x7f000001", "2130706433", "0177.0.0.1", "0x7f.1", "127.0.1", "0x7f.0x0.0x0.0x1", "127.0.0.1."]
        {
            let endpoint = Endpoint::new(text, 80).unwrap();
            assert_eq!(endpoint.socket_addr(), Some("127.0.0.1:80".parse().unwrap()), "{text}");
        }
        for name in ["example.org", "256.256.256.256.example", "1.2.3.4.5", "09.1.1.1"] {
            assert!(Endpoint::new(name, 80).unwrap().name().is_some(), "{name}");
        }
    }

    #[test]
    fn names_that_could_not_be_one_are_refused() {
        for text in [
            "",
            "a b",
            "a\r\nb",
            "a\0b",
            "exa/mple",
            "a..b",
            "user@host",
            "ümlaut.example",
            "a:b:c:d",
            &"x".repeat(64),
            &"a.".repeat(200),
        ] {
            assert!(Endpoint::new(text, 80).is_err(), "{text:?}");
        }
    }

    #[test]
    fn ports_and_brackets() {
        assert_eq!(Endpoint::parse("h:1", None).unwrap().to_string(), "h:1");
        assert_eq!(Endpoint::parse("::1", Some(9)).unwrap().to_string(), "[::1]:9");
        assert_eq!(Endpoint::parse("[fe80::1%3]:9", None).unwrap().to_string(), "[fe80::1%3]:9");
        assert_eq!(Endpoint::parse("H.", Some(7)).unwrap().to_string(), "h:7");
        assert_eq!(Endpoint::parse("unix:/run/x.sock", None).unwrap().to_string(), "unix:/run/x.sock");
        for bad in ["h:", "h:x", "h:65536", "h:-1", "[::1", "[::1]x", "h:+1", "h"] {
            assert!(Endpoint::parse(bad, None).is_err(), "{bad}");
        }
    }
}
