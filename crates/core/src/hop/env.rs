//! Proxies from the environment, as curl reads them.

use super::{Hop, HopSchemes, Route};
use crate::error::{Error, Result};

/// What hops of one scheme are found under, without its `_proxy`; these have rules of their own.
/// `AUTO_PROXY` is the address of a script.
const KNOWN: [&str; 5] = ["http", "https", "all", "no", "auto"];

/// What is never reached through a proxy: this machine.
pub(super) const HERE: &str = "localhost, 127.0.0.0/8, ::1";

/// Whether the environment names a proxy.
pub(super) fn names_proxies() -> bool {
    std::env::vars_os().any(|(name, value)| {
        let name = name.to_str().unwrap_or_default().to_ascii_lowercase();
        !["no_proxy", "auto_proxy"].contains(&name.as_str())
            && name.ends_with("_proxy")
            && !value.to_string_lossy().trim().is_empty()
    })
}

/// One variable of the environment, for the desktop's settings.
#[allow(clippy::disallowed_methods, reason = "the caller asked for the settings of the system")]
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// `NO_PROXY` first, of which what is no pattern is passed over, as everybody does; then the proxy of each scheme (`REDIS_PROXY`),
/// then `HTTP_PROXY` for `http` and `ws`, `HTTPS_PROXY` for `https` and `wss`, `ALL_PROXY` for all else and for those where they
/// have none. Lower case wins over upper case. This machine is never reached through a proxy.
#[allow(clippy::disallowed_methods, reason = "the caller asked for the environment")]
pub(crate) fn routes(schemes: &HopSchemes) -> Result<Vec<Route>> {
    let vars =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    routes_from(&vars.collect::<Vec<_>>(), schemes)
}

fn routes_from(vars: &[(String, String)], schemes: &HopSchemes) -> Result<Vec<Route>> {
    let lookup = |name: &str| vars.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let either = |name: &str| {
        let lower = lookup(&format!("{name}_proxy"));
        lower
            .or_else(|| lookup(&format!("{}_PROXY", name.to_ascii_uppercase())))
            .filter(|value| !value.trim().is_empty())
    };
    // Under CGI a client sets HTTP_PROXY by a header named Proxy ("httpoxy"); lower case cannot be set that way.
    let cgi = lookup("REQUEST_METHOD").is_some();
    let http = if cgi { lookup("http_proxy") } else { either("http") };
    let ways = |value: &str| {
        let told =
            |error: Error| Error::usage(format!("a proxy of the environment is no proxy url: {}", error.message()));
        schemes.ways(value).map_err(told)
    };
    let mut routes = vec![Route::to(HERE)?.direct()];
    if let Some(no_proxy) = either("no") {
        routes.push(Route::to_known(no_proxy).direct());
    }
    let mut others: Vec<String> = vars.iter().filter_map(|(name, _)| scheme(name)).collect();
    others.sort_unstable();
    others.dedup();
    for name in others {
        if let Some(value) = either(&name) {
            routes.push(by(Route::all().scheme(&name), ways(value)?));
        }
    }
    for (value, names) in [(http, ["http", "ws"]), (either("https"), ["https", "wss"])] {
        if let Some(value) = value.filter(|value| !value.trim().is_empty()) {
            routes.push(by(Route::all().scheme(names[0]).scheme(names[1]), ways(value)?));
        }
    }
    if let Some(value) = either("all") {
        routes.push(by(Route::all(), ways(value)?));
    }
    Ok(routes)
}

fn by(route: Route, ways: Vec<Vec<Hop>>) -> Route {
    ways.into_iter().fold(route, |route, hops| route.via(hops))
}

/// The scheme whose proxy a variable names, all in one case.
fn scheme(name: &str) -> Option<String> {
    let scheme = name.strip_suffix("_proxy").or_else(|| name.strip_suffix("_PROXY"))?;
    let one_case = name.bytes().all(|b| !b.is_ascii_uppercase()) || name.bytes().all(|b| !b.is_ascii_lowercase());
    let fits = one_case && !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric());
    let scheme = scheme.to_ascii_lowercase();
    (fits && !KNOWN.contains(&scheme.as_str())).then_some(scheme)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Endpoint;

    fn way(vars: &[(&str, &str)], to: &str) -> String {
        let vars: Vec<_> = vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let routes = routes_from(&vars, &HopSchemes::default()).unwrap();
        let (scheme, authority) = to.split_once("://").unwrap();
        let to = Endpoint::parse(authority, Some(80)).unwrap().with_scheme(scheme);
        let route = routes.iter().find(|route| route.matches(&to));
        route
            .and_then(|route| route.chains().first())
            .and_then(|hops| hops.first())
            .map_or("direct".to_owned(), |hop| format!("{hop:?}"))
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
    fn any_scheme_may_have_a_proxy_and_a_proxy_may_be_a_chain() {
        let vars = [("REDIS_PROXY", "socks5://r:1"), ("ws_proxy", "w:1"), ("HTTP_PROXY", "h:1"), ("My_Proxy", "x:1")];
        assert_eq!(way(&vars, "redis://a.example"), "socks5://r:1");
        assert_eq!(way(&vars, "ws://a.example"), "http://w:1");
        assert_eq!(way(&vars, "http://a.example"), "http://h:1");
        assert_eq!(way(&vars, "my://a.example"), "direct");
        assert_eq!(way(&[("all_proxy", "socks5h://a -> b:3128")], "smtp://x"), "socks5h://a:1080");
        assert_eq!(way(&[("all_proxy", "p:1"), ("ftp_proxy", "direct")], "ftp://x"), "direct");
        assert_eq!(way(&[("all_proxy", "p:1"), ("auto_proxy", "http://wpad/wpad.dat")], "ftp://x"), "http://p:1");
    }

    #[test]
    fn no_proxy_matches_as_curl_does() {
        let list = "example.org, .dotted.example *.star.example,10.0.0.0/8 192.168.1.1,[2001:db8::]/32,port.example:8080,trailing.example.,h:x,[::1,\ttab.example\n";
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
            ("tab.example", true),
        ] {
            let seen = way(&[("ALL_PROXY", "socks5://p:1"), ("NO_PROXY", list)], &format!("redis://{host}"));
            assert_eq!(seen == "direct", direct, "{host}: {seen}");
        }
        assert_eq!(way(&[("ALL_PROXY", "socks5://p:1"), ("no_proxy", "*")], "x://a"), "direct");
    }

    #[test]
    fn a_broken_proxy_is_an_error_that_keeps_its_password() {
        let vars = [("ALL_PROXY".to_owned(), "ftp://u:sesame@p".to_owned())];
        let error = routes_from(&vars, &HopSchemes::default()).unwrap_err();
        assert!(!format!("{error:?}").contains("sesame"));
    }
}
