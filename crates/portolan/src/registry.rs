//! The protocols as data.

use crate::rows::ROWS;

/// The facts of one protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Protocol {
    /// Its name, and the name of its feature and module (with `_` for `-`).
    pub name: &'static str,
    /// What it is, in a few words.
    pub title: &'static str,
    /// Its family: `core` for transports and hops.
    pub family: &'static str,
    /// The crate that speaks it.
    pub package: &'static str,
    /// What its URLs start with.
    pub schemes: &'static [&'static str],
    /// The port unless told otherwise.
    pub port: Option<u16>,
    /// What it runs on.
    pub transport: Transport,
    /// How it comes by TLS.
    pub tls: TlsForm,
    /// Where its rules are written down.
    pub spec: &'static str,
    /// The Cargo feature that compiles it; `None` is always there.
    pub feature: Option<&'static str>,
    /// How far it is.
    pub status: Status,
}

/// What a protocol runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// TCP, or whatever stream a hop gives.
    Tcp,
    /// UDP, or whatever carries datagrams.
    Udp,
    /// Either.
    Both,
}

/// How a protocol comes by TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsForm {
    /// It has none of its own.
    Never,
    /// From the first byte.
    Implicit,
    /// By an upgrade in mid-stream.
    Starttls,
    /// From the first byte, or by an upgrade.
    Both,
}

/// How far a protocol is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// It works, as its header says.
    Works,
    /// Parts of it work: its header says which.
    Partial,
    /// It works, and nobody should start using it.
    Legacy,
    /// It works against peers of our own making only: no real one has been met yet.
    Unproven,
}

/// All protocols of this version, whether compiled in or not.
///
/// ```
/// let hops: Vec<_> = portolan::registry().iter().filter(|row| row.family == "core").map(|row| row.name).collect();
/// assert!(hops.contains(&"socks5h"));
/// ```
pub fn registry() -> &'static [Protocol] {
    ROWS
}

/// The protocol of that name.
pub fn protocol(name: &str) -> Option<&'static Protocol> {
    ROWS.iter().find(|row| row.name == name)
}

/// The protocol whose URLs start with that scheme; case does not matter (RFC 3986 3.1). Where a hop's URLs start so too,
/// it is the protocol: `http` is HTTP, though [`Hop`](crate::Hop) reads it as a proxy.
///
/// ```
/// assert_eq!(portolan::protocol_of_scheme("https").map(|row| row.name), Some("http1"));
/// assert_eq!(portolan::protocol_of_scheme("socks5h").map(|row| row.name), Some("socks5h"));
/// assert_eq!(portolan::protocol_of_scheme("rediss").map(|row| row.name), Some("redis"));
/// ```
pub fn protocol_of_scheme(scheme: &str) -> Option<&'static Protocol> {
    let mut found = ROWS.iter().filter(|row| row.schemes.iter().any(|known| known.eq_ignore_ascii_case(scheme)));
    let first = found.next()?;
    // Core's rows stand first.
    if first.family == "core" { Some(found.next().unwrap_or(first)) } else { Some(first) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_is_found_by_name_and_by_any_of_its_schemes() {
        for row in registry() {
            assert_eq!(protocol(row.name), Some(row));
            for scheme in row.schemes {
                let found = protocol_of_scheme(&scheme.to_uppercase()).unwrap();
                assert!(found == row || (row.family == "core" && found.family != "core"), "{scheme}");
            }
        }
        assert_eq!(protocol("nonsense"), None);
        assert_eq!(protocol_of_scheme("nonsense"), None);
    }

    #[test]
    fn only_core_is_always_there() {
        assert!(registry().iter().all(|row| row.feature.is_none() == (row.family == "core")));
    }
}
