//! Gateways of another make: their URL says where to, and their messages are bytes.

use portolan_core::{Endpoint, Error, Kind, Phase, Result, percent_encode};

use crate::protocol::PROTOCOL;

const HOST: &str = "{host}";
const PORT: &str = "{port}";

/// How a gateway is told its target.
#[derive(Debug, Clone)]
pub(crate) struct Raw {
    template: Box<str>,
    /// It leads there and nowhere else.
    only: Option<Endpoint>,
}

impl Raw {
    pub(crate) fn parse(template: &str) -> Result<Self> {
        let authority = template.split_once("://").map(|(_, rest)| rest.split(['/', '?']).next().unwrap_or_default());
        if authority.is_none_or(|authority| authority.contains('{')) {
            return Err(Error::usage("a gateway's URL is ws:// or wss://, with the target in its path or query"));
        }
        let without = template.replacen(HOST, "", 1).replacen(PORT, "", 1);
        if without.contains(['{', '}']) || template.contains(HOST) != template.contains(PORT) {
            return Err(Error::usage("a gateway's URL names {host} and {port} once each, or neither"));
        }
        Ok(Self { template: template.into(), only: None })
    }

    /// The same without user and password, which the request has of its own: it is neither shown nor said twice.
    pub(crate) fn without_login(mut self) -> Self {
        if let Some((scheme, rest)) = self.template.split_once("://") {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            if let Some((_, host)) = rest[..end].rsplit_once('@') {
                self.template = format!("{scheme}://{host}{}", &rest[end..]).into();
            }
        }
        self
    }

    fn names_target(&self) -> bool {
        self.template.contains(HOST)
    }

    /// Some target, to see whether URLs can be made.
    pub(crate) fn sample(&self) -> Result<Endpoint> {
        Endpoint::new("target.invalid", 1)
    }

    pub(crate) fn leads_to(&mut self, target: Endpoint) -> Result<()> {
        if self.names_target() {
            return Err(Error::usage("a gateway whose URL names the target leads to more than one"));
        }
        self.only = Some(target);
        Ok(())
    }

    /// Never to another target than the one meant: what was for it would be told to somebody else.
    pub(crate) fn check(&self, target: &Endpoint) -> Result<()> {
        let same = |only: &Endpoint| (only.host(), only.port()) == (target.host(), target.port());
        if self.names_target() || self.only.as_ref().is_some_and(same) {
            return Ok(());
        }
        let words = if self.only.is_some() {
            "this gateway leads to another target"
        } else {
            "nobody said where this gateway leads to"
        };
        Err(Error::new(Kind::Usage, words).with_phase(Phase::Hop).with_protocol(PROTOCOL))
    }

    /// The URL for a target, its host in RFC 6570's simple expansion.
    pub(crate) fn url(&self, target: &Endpoint) -> String {
        let host = percent_encode(&target.host_text());
        self.template.replacen(HOST, &host, 1).replacen(PORT, &target.port().to_string(), 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_name_the_target_once_or_not_at_all() {
        let raw = Raw::parse("wss://gateway.example/tcp/{host}?port={port}").unwrap();
        let url = |host: &str| raw.url(&Endpoint::new(host, 6379).unwrap());
        assert_eq!(url("db.example"), "wss://gateway.example/tcp/db.example?port=6379");
        assert_eq!(url("::1"), "wss://gateway.example/tcp/%3A%3A1?port=6379");
        for bad in ["gateway", "ws://{host}/", "ws://g/{host}", "ws://g/{host}{host}{port}", "ws://g/{x}", "ws://g/{"] {
            assert!(Raw::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn one_that_leads_to_one_target_is_asked_for_no_other() {
        let (one, other) = (Endpoint::new("one", 1).unwrap(), Endpoint::new("other", 1).unwrap());
        let mut raw = Raw::parse("ws://gateway/redis").unwrap();
        assert_eq!(raw.check(&one).unwrap_err().kind(), Kind::Usage);
        raw.leads_to(one.clone()).unwrap();
        assert!(raw.check(&one).is_ok() && raw.check(&other).is_err());
        assert!(raw.check(&one.clone().with_scheme("redis")).is_ok(), "what is spoken there does not matter");
        let mut any = Raw::parse("ws://gateway/{host}/{port}").unwrap();
        assert!(any.check(&one).is_ok() && any.check(&other).is_ok() && any.leads_to(one).is_err());
    }
}
