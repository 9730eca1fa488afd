//! Service configs as JSON (`doc/service_config.md` of the gRPC project).

use std::collections::HashMap;
use std::time::Duration;

use portolan_core::{Error, Result};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::PROTOCOL;
use crate::channel::Balancing;
use crate::policy::{HedgingPolicy, MethodConfig, RetryPolicy, ServiceConfig, Throttling};
use crate::status::Code;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    #[serde(default)]
    method_config: Vec<Method>,
    load_balancing_policy: Option<String>,
    #[serde(default)]
    load_balancing_config: Vec<HashMap<String, IgnoredAny>>,
    retry_throttling: Option<Throttle>,
    health_check_config: Option<Health>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Throttle {
    max_tokens: u32,
    token_ratio: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Health {
    service_name: Option<String>,
}

#[derive(Deserialize)]
struct Name {
    #[serde(default)]
    service: String,
    #[serde(default)]
    method: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Method {
    #[serde(default)]
    name: Vec<Name>,
    wait_for_ready: Option<bool>,
    timeout: Option<String>,
    max_request_message_bytes: Option<Number>,
    max_response_message_bytes: Option<Number>,
    retry_policy: Option<Retry>,
    hedging_policy: Option<Hedging>,
}

/// 64-bit numbers of protobuf's JSON may be strings.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Number(u64),
    Text(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Retry {
    max_attempts: u32,
    initial_backoff: String,
    max_backoff: String,
    backoff_multiplier: f64,
    retryable_status_codes: Vec<StatusCode>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hedging {
    max_attempts: u32,
    hedging_delay: Option<String>,
    #[serde(default)]
    non_fatal_status_codes: Vec<StatusCode>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum StatusCode {
    Number(i64),
    Name(String),
}

impl ServiceConfig {
    /// Reads a service config as it is written in DNS and in configuration files. Fields that are not known are passed over; a
    /// known one with a wrong value is [`Kind::Usage`](portolan_core::Kind::Usage).
    ///
    /// ```
    /// let config = portolan_grpc::ServiceConfig::parse(r#"{
    ///     "methodConfig": [{
    ///         "name": [{"service": "shop.Stock"}],
    ///         "timeout": "1.5s",
    ///         "retryPolicy": {
    ///             "maxAttempts": 3, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2,
    ///             "retryableStatusCodes": ["UNAVAILABLE"]
    ///         }
    ///     }]
    /// }"#)?;
    /// assert!(config.for_path("/shop.Stock/Count").is_some());
    /// # Ok::<(), portolan_core::Error>(())
    /// ```
    pub fn parse(json: &str) -> Result<Self> {
        let config: Config =
            serde_json::from_str(json).map_err(|error| bad("it is no JSON of its kind").with_source(error))?;
        let mut service = Self::new();
        for method in config.method_config {
            let names: Vec<_> = method.name.iter().map(key).collect::<Result<_>>()?;
            let method = method_config(method)?;
            for name in names {
                if service.methods.contains_key(&*name) {
                    return Err(bad("a method is named twice"));
                }
                service = service.named(name, method.clone());
            }
        }
        if let Some(throttle) = config.retry_throttling {
            if !(1..=1000).contains(&throttle.max_tokens) || throttle.token_ratio <= 0.0 {
                return Err(bad("retryThrottling is out of its bounds"));
            }
            service = service.throttling(Throttling::new(throttle.max_tokens, throttle.token_ratio));
        }
        // The first policy of the list that is known is taken; the older field is for those who know no list.
        let known =
            config.load_balancing_config.iter().flat_map(HashMap::keys).find(|name| Balancing::named(name).is_some());
        service.balancing = known.cloned().or(config.load_balancing_policy).map(String::into_boxed_str);
        service.health_service =
            config.health_check_config.and_then(|health| health.service_name).map(String::into_boxed_str);
        Ok(service)
    }
}

impl Balancing {
    /// What a service config asks for; the default where that is not known here.
    pub fn of(config: &ServiceConfig) -> Self {
        config.load_balancing().and_then(Self::named).unwrap_or_default()
    }
}

fn bad(what: &str) -> Error {
    Error::usage(format!("service config: {what}")).with_protocol(PROTOCOL)
}

fn key(name: &Name) -> Result<String> {
    if name.service.is_empty() && !name.method.is_empty() {
        return Err(bad("a method without its service"));
    }
    Ok(format!("{}/{}", name.service, name.method))
}

fn method_config(method: Method) -> Result<MethodConfig> {
    if method.retry_policy.is_some() && method.hedging_policy.is_some() {
        return Err(bad("a method has a retry policy or a hedging policy"));
    }
    Ok(MethodConfig {
        timeout: method.timeout.as_deref().map(duration).transpose()?,
        wait_for_ready: method.wait_for_ready,
        max_request: method.max_request_message_bytes.map(size).transpose()?,
        max_response: method.max_response_message_bytes.map(size).transpose()?,
        retry: method.retry_policy.map(retry).transpose()?,
        hedging: method.hedging_policy.map(hedging).transpose()?,
    })
}

fn size(number: Number) -> Result<usize> {
    let number = match number {
        Number::Number(number) => Some(number),
        Number::Text(text) => text.parse().ok(),
    };
    number.and_then(|number| usize::try_from(number).ok()).ok_or_else(|| bad("a size is no number"))
}

fn retry(retry: Retry) -> Result<RetryPolicy> {
    let (initial, max) = (duration(&retry.initial_backoff)?, duration(&retry.max_backoff)?);
    let codes = codes(retry.retryable_status_codes)?;
    if retry.max_attempts < 2
        || initial.is_zero()
        || max.is_zero()
        || codes.is_empty()
        || retry.backoff_multiplier <= 0.0
    {
        return Err(bad("a retry policy needs two attempts, waits, a multiplier and codes"));
    }
    let mut policy = RetryPolicy::new(retry.max_attempts, codes).backoff(initial, max, 1.0);
    policy.multiplier = retry.backoff_multiplier;
    Ok(policy)
}

fn hedging(hedging: Hedging) -> Result<HedgingPolicy> {
    if hedging.max_attempts < 2 {
        return Err(bad("a hedging policy needs two attempts"));
    }
    let delay = hedging.hedging_delay.as_deref().map(duration).transpose()?.unwrap_or_default();
    Ok(HedgingPolicy::new(hedging.max_attempts, delay, codes(hedging.non_fatal_status_codes)?))
}

fn codes(codes: Vec<StatusCode>) -> Result<Vec<Code>> {
    let known = codes.into_iter().map(|code| match code {
        StatusCode::Number(number) => Some(Code::from_number(number)).filter(|code| code.number() == number),
        StatusCode::Name(name) => Code::from_name(&name),
    });
    known.collect::<Option<_>>().ok_or_else(|| bad("a status code that is none"))
}

/// A duration in protobuf's JSON: seconds with a fraction of up to nine digits, and an `s`.
fn duration(text: &str) -> Result<Duration> {
    let parse = || {
        let number = text.strip_suffix('s')?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || fraction.len() > 9 || !digits(whole) || !digits(fraction) {
            return None;
        }
        Some(Duration::new(whole.parse().ok()?, format!("{fraction:0<9}").parse().ok()?))
    };
    parse().ok_or_else(|| bad("a duration is no number of seconds with an s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_config_is_read() {
        let config = ServiceConfig::parse(
            r#"{"loadBalancingConfig": [{"xds": {}}, {"round_robin": {}}], "loadBalancingPolicy": "grpclb", "new": 1,
                "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
                "healthCheckConfig": {"serviceName": "a.B"},
                "methodConfig": [
                  {"name": [{"service": "a.B", "method": "C"}, {"service": "x.Y"}], "waitForReady": true, "timeout": "1.000340012s",
                   "maxRequestMessageBytes": 7, "maxResponseMessageBytes": "8",
                   "retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 1.5,
                                   "retryableStatusCodes": ["unavailable", 8]}},
                  {"name": [{}], "hedgingPolicy": {"maxAttempts": 9, "nonFatalStatusCodes": ["INTERNAL"]}}]}"#,
        )
        .unwrap();
        let mut retry = RetryPolicy::new(4, [Code::Unavailable, Code::ResourceExhausted]);
        retry = retry.backoff(Duration::from_millis(100), Duration::from_secs(1), 1.5);
        let one = MethodConfig::new()
            .wait_for_ready(true)
            .timeout(Duration::new(1, 340_012))
            .max_request_bytes(7)
            .max_response_bytes(8)
            .retry(retry);
        let other = MethodConfig::new().hedging(HedgingPolicy::new(5, Duration::ZERO, [Code::Internal]));
        let expected = ServiceConfig::new()
            .method("a.B", "C", one.clone())
            .service("x.Y", one)
            .default_config(other)
            .throttling(Throttling::new(10, 0.1));
        assert_eq!((&config.methods, config.throttling), (&expected.methods, expected.throttling));
        assert_eq!(Balancing::of(&config), Balancing::RoundRobin);
        assert_eq!(config.health_service(), Some("a.B"));
    }

    #[test]
    fn wrong_values_are_named_and_never_taken() {
        let policy = |text: &str| format!(r#"{{"methodConfig": [{{"name": [{{"service": "a"}}], {text}}}]}}"#);
        let retry = |attempts: u32, code: &str, wait: &str| {
            policy(&format!(
                r#""retryPolicy": {{"maxAttempts": {attempts}, "initialBackoff": "{wait}", "maxBackoff": "1s",
                    "backoffMultiplier": 1, "retryableStatusCodes": [{code}]}}"#
            ))
        };
        assert!(ServiceConfig::parse(&retry(2, "14", "1s")).is_ok());
        for json in [
            "",
            "[",
            r#"{"methodConfig": 1}"#,
            &retry(1, "14", "1s"),
            &retry(2, "", "1s"),
            &retry(2, "17", "1s"),
            &retry(2, "\"NO\"", "1s"),
            &retry(2, "14", "0s"),
            &policy(r#""timeout": "1""#),
            &policy(r#""timeout": "-1s""#),
            &policy(r#""timeout": "1.0000000001s""#),
            &policy(r#""hedgingPolicy": {"maxAttempts": 1}"#),
            r#"{"methodConfig": [{"name": [{"method": "b"}]}]}"#,
            r#"{"methodConfig": [{"name": [{"service": "a"}, {"service": "a"}]}]}"#,
            r#"{"retryThrottling": {"maxTokens": 0, "tokenRatio": 1}}"#,
        ] {
            assert_eq!(ServiceConfig::parse(json).unwrap_err().kind(), portolan_core::Kind::Usage, "{json}");
        }
    }
}
