//! Proxies from the environment, as curl reads them.

use super::{Hop, Route};
use crate::error::{Error, Result};

/// `NO_PROXY` first, then `HTTP_PROXY` for `http` and `ws`, `HTTPS_PROXY` for `https` and `wss`, `ALL_PROXY` for all else and for
/// those two where they have none. Lower case wins over upper case. This machine is never reached through a proxy.
#[allow(clippy::disallowed_methods, reason = "the caller asked for the environment")]
pub(crate) fn routes() -> Result<Vec<Route>> {
    routes_from(|name| std::env::var(name).ok())
}

fn routes_from(lookup: impl Fn(&str) -> Option<String>) -> Result<Vec<Route>> {
    let either = |name: &str| {
        lookup(&name.to_ascii_lowercase()).or_else(|| lookup(name)).filter(|value| !value.trim().is_empty())
    };
    // Under CGI a client sets HTTP_PROXY by a header named Proxy ("httpoxy"); lower case cannot be set that way.
    let cgi = lookup("REQUEST_METHOD").is_some();
    let http = if cgi { lookup("http_proxy") } else { either("HTTP_PROXY") };
    let hop = |value: Option<String>| value.map(|value| parse(&value)).transpose();
    let (http, https, all) = (hop(http)?, hop(either("HTTPS_PROXY"))?, hop(either("ALL_PROXY"))?);
    let mut routes = vec![Route::to("localhost, 127.0.0.0/8, ::1")?.direct()];
    if let Some(no_proxy) = either("NO_PROXY") {
        routes.push(Route::to(&no_proxy)?.direct());
    }
    for (hop, schemes) in [(http, ["http", "ws"]), (https, ["https", "wss"])] {
        if let Some(hop) = hop {
            routes.push(Route::all().scheme(schemes[0]).scheme(schemes[1]).via([hop]));
        }
    }
    if let Some(hop) = all {
        routes.push(Route::all().via([hop]));
    }
    Ok(routes)
}

/// A proxy without scheme is an HTTP one.
fn parse(value: &str) -> Result<Hop> {
    let value = value.trim();
    let hop = if value.contains("://") { Hop::parse(value) } else { Hop::parse(&format!("http://{value}")) };
    hop.map_err(|error| Error::usage(format!("a proxy of the environment is no proxy url: {}", error.message())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Endpoint;

    fn way(vars: &[(&str, &str)], to: &str) -> String {
        let vars: Vec<_> = vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let routes = routes_from(|name| vars.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone())).unwrap();
        let (scheme, authority) = to.split_once("://").unwrap();
        let to = Endpoint::parse(authority, Some(80)).unwrap().with_scheme(scheme);
        let route = routes.iter().find(|route| route.matches(&to));
        route.and_then(|route| route.chains().first()).map_or("direct".to_owned(), |hops| format!("{:?}", hops[0]))
    }

    #[test]
    fn each_scheme_takes_its_own_proxy() {
        let vars = [("http_proxy", "p1:1"), ("HTTPS_PROXY", "http://p2:2"), ("ALL_PROXY", "socks5h://u:pw@p3:3")];
        assert_eq!(way(&vars, "http://a.example"), "http://p1:1");
        assert_eq!(way(&vars, "https://a.example:443"), "http://p2:2");
        assert_eq!(way(&vars, "redis://a.example:6379"), "socks5h://u:***@p3:3");
        assert_eq!(way(&vars, "http://localhost"), "direct");
        assert_eq!(way(&vars, "redis://127.0.0.1:1"), "direct");
        assert_eq!(way(&[("http_proxy", "a:1"), ("HTTP_PROXY", "b:1")], "http://x"), "http://a:1");
        assert_eq!(way(&[("HTTP_PROXY", "b:1"), ("REQUEST_METHOD", "GET")], "http://x"), "direct");
        assert_eq!(way(&[("HTTP_PROXY", " ")], "http://x"), "direct");
    }

    #[test]
    fn no_proxy_matches_as_curl_does() {
        let list = "example.org, .dotted.example *.star.example,10.0.0.0/8 192.168.1.1,[2001:db8::]/32,port.example:8080,trailing.example.";
        for (host, direct) in [
            ("example.org", true),
            ("EXAMPLE.org", true),
            ("www.example.org", true),
            ("badexample.org", false),
            ("example.org.evil.test", false),
            ("dotted.example", true),
            ("a.dotted.example", true),
            ("a.star.example", true),
            ("star.example", false),
            ("10.1.2.3", true),
            ("11.1.2.3", false),
            ("192.168.1.1", true),
            ("192.168.1.2", false),
            ("[2001:db8::5]", true),
            ("[2001:db9::5]", false),
            ("port.example:8080", true),
            ("port.example:8081", false),
            ("trailing.example", true),
        ] {
            let seen = way(&[("ALL_PROXY", "socks5://p:1"), ("NO_PROXY", list)], &format!("redis://{host}"));
            assert_eq!(seen == "direct", direct, "{host}: {seen}");
        }
        assert_eq!(way(&[("ALL_PROXY", "socks5://p:1"), ("no_proxy", "*")], "x://a"), "direct");
    }

    #[test]
    fn a_broken_proxy_is_an_error_that_keeps_its_password() {
        let error = routes_from(|name| (name == "ALL_PROXY").then(|| "ftp://u:sesame@p".to_owned())).unwrap_err();
        assert!(!format!("{error:?}").contains("sesame"));
    }
}
