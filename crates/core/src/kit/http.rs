//! What all HTTP proxies say and are told, whatever the version.

use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::error::{Error, Kind, Phase, Result};
use crate::url::percent_encode;

/// How much of a refusal's body is quoted.
const MAX_QUOTE: usize = 200;

/// How long the body of a refusal is waited for: it may say why, but the refusal stands without it.
pub const QUOTE_WAIT: Duration = Duration::from_secs(1);

/// The default URI template of CONNECT-UDP (RFC 9298 2).
pub const MASQUE: &str = "/.well-known/masque/udp/{target_host}/{target_port}/";

/// The path by which a proxy with this URI template is asked for datagrams to `target`.
pub fn masque_path(template: &str, target: &Endpoint) -> String {
    let host = target.host_text();
    let host = percent_encode(host.trim_start_matches('[').trim_end_matches(']'));
    template.replace("{target_host}", &host).replace("{target_port}", &target.port().to_string())
}

/// Whether a text is a path with both variables of CONNECT-UDP, and nothing that a path cannot hold.
pub fn check_masque(template: &str) -> Result<()> {
    let whole = template.starts_with('/') && template.contains("{target_host}") && template.contains("{target_port}");
    if !whole || template.bytes().any(|b| !b.is_ascii_graphic() || b == b'#') {
        return Err(Error::usage("a template of CONNECT-UDP is a path with {target_host} and {target_port}"));
    }
    Ok(())
}

/// The error for an answer to CONNECT that is neither 1xx nor 2xx. `offered` are the values of `Proxy-Authenticate`; `asked` is
/// whether credentials were sent; `body` is what has come of the body.
pub fn refusal<'a>(
    code: u16,
    reason: &str,
    offered: impl IntoIterator<Item = &'a str>,
    asked: bool,
    body: &[u8],
) -> Error {
    if code == 407 {
        // Schemes without their parameters: those are long, and may be secrets of the proxy's.
        let schemes: Vec<String> = offered
            .into_iter()
            .filter_map(|value| value.trim().split([' ', ',']).next())
            .map(|scheme| scheme.chars().filter(|c| !c.is_control()).take(MAX_QUOTE).collect())
            .collect();
        let offered = if schemes.is_empty() { "no scheme that it names".to_owned() } else { schemes.join(", ") };
        let message = if asked {
            format!("407 the proxy refused the credentials; it takes {offered}")
        } else {
            format!("407 the proxy wants credentials; it takes {offered}")
        };
        return Error::new(Kind::Auth, message).with_phase(Phase::Hop).with_code(407);
    }
    let quote: String = String::from_utf8_lossy(body.get(..MAX_QUOTE).unwrap_or(body))
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let said = [reason, quote.trim()].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(": ");
    let message = if said.is_empty() { code.to_string() } else { format!("{code} {said}") };
    Error::new(Kind::Hop, message).with_phase(Phase::Hop).with_code(i64::from(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_expanded_as_the_rfc_says() {
        let path = |host: &str| masque_path(MASQUE, &Endpoint::new(host, 443).unwrap());
        assert_eq!(path("2001:db8::42"), "/.well-known/masque/udp/2001%3Adb8%3A%3A42/443/");
        assert_eq!(path("192.0.2.6"), "/.well-known/masque/udp/192.0.2.6/443/");
        assert_eq!(
            masque_path("/m?h={target_host}&p={target_port}", &Endpoint::new("a.test", 1).unwrap()),
            "/m?h=a.test&p=1"
        );
        check_masque(MASQUE).unwrap();
        for wrong in ["m{target_host}{target_port}", "/{target_host}", "/{target_host} {target_port}"] {
            assert_eq!(check_masque(wrong).unwrap_err().kind(), Kind::Usage);
        }
    }

    #[test]
    fn a_refusal_says_what_the_proxy_said_and_no_more() {
        let error = refusal(407, "", ["Negotiate", "Basic realm=\"a\""], true, b"");
        assert_eq!((error.kind(), error.code()), (Kind::Auth, Some(407)));
        assert!(error.message().ends_with("it takes Negotiate, Basic"), "{error}");
        let error = refusal(502, "Bad Gateway", [], false, format!("no\r\nroute{}", "x".repeat(500)).as_bytes());
        assert_eq!((error.kind(), error.code()), (Kind::Hop, Some(502)));
        assert!(error.message().starts_with("502 Bad Gateway: no  route") && error.message().len() < 250, "{error}");
        assert_eq!(refusal(503, "", [], false, b"").message(), "503");
    }
}
