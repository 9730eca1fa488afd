//! Service configs in DNS (gRFC A2): a list of choices, each with the clients that it is for.

use portolan_core::{Error, Result};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::PROTOCOL;
use crate::channel::ChannelOptions;
use crate::policy::ServiceConfig;

/// What the attribute of a TXT record is called (RFC 1464).
const ATTRIBUTE: &str = "grpc_config=";
/// What choices call clients like this one.
const LANGUAGE: &str = "rust";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Choice {
    #[serde(default)]
    client_language: Vec<String>,
    percentage: Option<u8>,
    #[serde(default)]
    client_hostname: Vec<String>,
    service_config: Map<String, Value>,
}

impl ServiceConfig {
    /// Chooses from the TXT records at `_grpc_config.HOST`, each with its strings joined, for a client on a machine called
    /// `hostname`. `None` where no record is a service config, or no choice is for this client. One choice that is invalid makes all of
    /// them so ([`Kind::Usage`](portolan_core::Kind::Usage)): then what was used before is to be kept.
    ///
    /// It asks nobody: whoever has the records hands them over, and the config to
    /// [`Client::service_config`](crate::Client::service_config) and [`ChannelOptions::service_config`](crate::ChannelOptions::service_config).
    /// A channel asks by itself with [`ChannelOptions::service_config_from_dns`](crate::ChannelOptions::service_config_from_dns).
    /// Percentages are drawn anew with each call.
    ///
    /// ```
    /// use portolan_grpc::ServiceConfig;
    ///
    /// let record = r#"grpc_config=[{"clientLanguage": ["go"], "serviceConfig": {}},
    ///     {"serviceConfig": {"loadBalancingPolicy": "round_robin"}}]"#;
    /// let config = ServiceConfig::from_dns_txt([record], "build-7")?.expect("the second choice is for everyone");
    /// assert_eq!(config.load_balancing(), Some("round_robin"));
    /// # Ok::<(), portolan_core::Error>(())
    /// ```
    pub fn from_dns_txt<'a>(records: impl IntoIterator<Item = &'a str>, hostname: &str) -> Result<Option<Self>> {
        let mut random = [0; 2];
        // Without random numbers nobody is among the first clients to see a change.
        let drawn = getrandom::fill(&mut random).map_or(99, |()| u16::from_le_bytes(random) % 100);
        let found = records.into_iter().find_map(|record| record.strip_prefix(ATTRIBUTE));
        found.map_or(Ok(None), |json| choose(json, hostname, drawn))
    }
}

impl ChannelOptions {
    /// Asks the connector's resolver for a service config: the TXT records at `_grpc_config.HOST` (gRFC A2), before the first call, and again
    /// when the service is connected to anew, at most once each [`resolve_interval`](Self::resolve_interval). It holds for the calls of
    /// [`Client::from_channel`](crate::Client::from_channel) that have none of their own; how the channel balances, and whose health it
    /// watches, follows it in any case: where it says nothing of them, what was set holds. A config that is broken, or no answer, leaves
    /// the one before. `hostname` is the name of this machine, for choices among configs.
    /// Default not: whoever can change what is answered can change how calls are made; and the system's resolver can't ask.
    pub fn service_config_from_dns(mut self, hostname: impl Into<Box<str>>) -> Self {
        self.in_dns = Some((hostname.into(), |records, hostname| {
            let records = records.iter().filter_map(|record| std::str::from_utf8(record).ok());
            ServiceConfig::from_dns_txt(records, hostname)
        }));
        self
    }
}

fn bad(what: &str) -> Error {
    Error::usage(format!("service config in DNS: {what}")).with_protocol(PROTOCOL)
}

/// The first choice for this client; `drawn` is its place among a hundred.
fn choose(json: &str, hostname: &str, drawn: u16) -> Result<Option<ServiceConfig>> {
    let choices: Vec<Choice> =
        serde_json::from_str(json).map_err(|error| bad("it is no list of choices").with_source(error))?;
    let mut chosen = None;
    for choice in choices {
        if choice.percentage.is_some_and(|percentage| percentage > 100) {
            return Err(bad("a percentage beyond 100"));
        }
        let any = |list: &[String], is: &dyn Fn(&String) -> bool| list.is_empty() || list.iter().any(is);
        let ours = any(&choice.client_language, &|language| language.eq_ignore_ascii_case(LANGUAGE))
            && any(&choice.client_hostname, &|name| name == hostname)
            && choice.percentage.is_none_or(|percentage| drawn < u16::from(percentage));
        let config = ServiceConfig::parse(&Value::Object(choice.service_config).to_string())?;
        if ours && chosen.is_none() {
            chosen = Some(config);
        }
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHOICES: &str = r#"[
        {"clientLanguage": ["c++", "GO"], "serviceConfig": {"loadBalancingPolicy": "one"}},
        {"clientLanguage": ["Rust"], "clientHostname": ["build-7"], "serviceConfig": {"loadBalancingPolicy": "two"}},
        {"percentage": 10, "serviceConfig": {"loadBalancingPolicy": "three"}},
        {"percentage": 0, "serviceConfig": {"loadBalancingPolicy": "never"}},
        {"clientHostname": [], "percentage": 100, "serviceConfig": {"loadBalancingPolicy": "four"}}]"#;

    #[test]
    fn the_first_choice_that_is_for_this_client_is_taken() {
        for (hostname, drawn, policy) in
            [("build-7", 50, "two"), ("Build-7", 9, "three"), ("other", 10, "four"), ("other", 99, "four")]
        {
            let config = choose(CHOICES, hostname, drawn).unwrap().unwrap();
            assert_eq!(config.load_balancing(), Some(policy), "{hostname} {drawn}");
        }
        assert!(choose(r#"[{"clientLanguage": ["go"], "serviceConfig": {}}]"#, "x", 0).unwrap().is_none());
    }

    #[test]
    fn records_of_other_kinds_are_passed_over() {
        let records = ["v=spf1 -all", "grpc_config=[{\"serviceConfig\": {}}]"];
        assert!(ServiceConfig::from_dns_txt(records, "x").unwrap().is_some());
        assert!(ServiceConfig::from_dns_txt(["v=spf1 -all"], "x").unwrap().is_none());
    }

    #[test]
    fn one_choice_that_is_invalid_makes_all_of_them_so() {
        for json in [
            "",
            "{}",
            "[{}]",
            r#"[{"serviceConfig": []}]"#,
            r#"[{"serviceConfig": {}}, {"serviceConfig": {"methodConfig": 1}}]"#,
            r#"[{"serviceConfig": {}, "new": 1}]"#,
            r#"[{"serviceConfig": {}}, {"percentage": 101, "serviceConfig": {}}]"#,
            r#"[{"percentage": -1, "serviceConfig": {}}]"#,
            r#"[{"percentage": 1.5, "serviceConfig": {}}]"#,
        ] {
            assert_eq!(choose(json, "x", 0).unwrap_err().kind(), portolan_core::Kind::Usage, "{json}");
        }
    }
}
