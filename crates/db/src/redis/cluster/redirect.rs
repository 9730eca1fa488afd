//! A node's word that another one is to be asked.

use portolan_core::{Endpoint, Error, Result};

use super::slots::SLOTS;
use crate::redis::PROTOCOL;
use crate::redis::types::ServerError;

/// Where a node sends us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Redirect {
    /// The slot lives there from now on.
    Moved { slot: u16, to: Endpoint },
    /// The slot is on its way there: ask there this once, after `ASKING`.
    Ask { to: Endpoint },
}

impl Redirect {
    /// Reads `MOVED 3999 host:port` and `ASK 3999 host:port`; `None` for any other refusal. A node that does not know its own
    /// name leaves the host out: it is then that of `from`, who said so.
    pub(super) fn parse(error: &ServerError, from: &Endpoint) -> Result<Option<Self>> {
        if error.code != "MOVED" && error.code != "ASK" {
            return Ok(None);
        }
        let bad = || Error::protocol(PROTOCOL, format!("expected a slot and an address, saw {:?}", error.to_string()));
        let (slot, address) = error.message.split_once(' ').ok_or_else(bad)?;
        let slot: u16 = slot.parse().ok().filter(|slot| *slot < SLOTS).ok_or_else(bad)?;
        // An IPv6 address comes without brackets.
        let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
        let port: u16 = port.parse().ok().filter(|port| *port != 0).ok_or_else(bad)?;
        let to = place(host, port, from)?;
        Ok(Some(if error.code == "MOVED" { Self::Moved { slot, to } } else { Self::Ask { to } }))
    }
}

/// The endpoint of a node by what it is called; one without a name, or with `?`, is where `from` is.
pub(super) fn place(host: &str, port: u16, from: &Endpoint) -> Result<Endpoint> {
    if host.is_empty() || host == "?" {
        return Endpoint::new(from.host_text(), port);
    }
    Endpoint::new(host, port)
        .map_err(|error| Error::protocol(PROTOCOL, format!("a node is called {host:?}")).with_source(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_core::Kind;

    fn parse(line: &str) -> Result<Option<Redirect>> {
        Redirect::parse(&ServerError::parse(line.as_bytes()), &Endpoint::new("seed.example", 1).unwrap())
    }

    fn at(host: &str, port: u16) -> Endpoint {
        Endpoint::new(host, port).unwrap()
    }

    #[test]
    fn both_redirects_are_read_in_all_forms() {
        let moved = |slot, to| Some(Redirect::Moved { slot, to });
        assert_eq!(parse("MOVED 3999 127.0.0.1:6381").unwrap(), moved(3999, at("127.0.0.1", 6381)));
        assert_eq!(parse("MOVED 0 ::1:6381").unwrap(), moved(0, at("::1", 6381)));
        assert_eq!(parse("MOVED 16383 a.example:6381").unwrap(), moved(16383, at("a.example", 6381)));
        assert_eq!(parse("MOVED 1 :6381").unwrap(), moved(1, at("seed.example", 6381)));
        assert_eq!(parse("ASK 3999 10.0.0.7:6381").unwrap(), Some(Redirect::Ask { to: at("10.0.0.7", 6381) }));
        assert_eq!(parse("ERR MOVED 1 a:1").unwrap(), None);
        assert_eq!(parse("TRYAGAIN Multiple keys request during rehashing of slot").unwrap(), None);
    }

    #[test]
    fn broken_redirects_are_named() {
        for line in [
            "MOVED",
            "MOVED 1",
            "MOVED x a:1",
            "MOVED 16384 a:1",
            "MOVED 1 a",
            "MOVED 1 a:0",
            "ASK 1 a:99999",
            "ASK 1 a b:1",
        ] {
            assert_eq!(parse(line).unwrap_err().kind(), Kind::Protocol, "{line}");
        }
    }
}
