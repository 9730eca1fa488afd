//! Proxies from the settings of the desktop: GNOME, KDE, macOS, Windows. What is set and can't be followed, such as a PAC script, is an
//! error and never a direct connection.

mod gnome;
mod kde;
mod macos;
mod windows;

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::{HopSchemes, Route, env};
use crate::error::{Error, Kind, Phase, Result};
use crate::url::percent_encode;

/// What settings say is short.
const MAX_OUTPUT: u64 = 1 << 20;
/// How long a program may take that reads settings.
const WAIT: Duration = Duration::from_secs(5);

/// What a desktop says, as text that [`HopSchemes`] and [`Route::to`] read.
#[derive(Debug, Default, PartialEq, Eq)]
struct Settings {
    http: Option<String>,
    https: Option<String>,
    /// For all that have none of their own.
    other: Option<String>,
    /// What is reached without.
    direct: Vec<String>,
}

/// The environment's proxies where it names any, the desktop's otherwise.
pub(crate) fn routes(schemes: &HopSchemes) -> Result<Vec<Route>> {
    if env::names_proxies() {
        return env::routes(schemes);
    }
    settings()?.routes(schemes)
}

fn settings() -> Result<Settings> {
    if cfg!(target_os = "macos") {
        return macos::settings(&output("scutil", &["--proxy"])?);
    }
    if cfg!(windows) {
        return windows::settings(&output("reg", &["query", windows::KEY])?);
    }
    if env::variable("XDG_CURRENT_DESKTOP").is_some_and(|name| name.split(':').any(|name| name == "KDE")) {
        return kde::settings(&kde::file()?);
    }
    gnome::settings(&output("gsettings", &["list-recursively", gnome::SCHEMA])?)
}

impl Settings {
    fn routes(&self, schemes: &HopSchemes) -> Result<Vec<Route>> {
        let mut routes = vec![Route::to(env::HERE)?.direct()];
        if !self.direct.is_empty() {
            routes.push(Route::to(&self.direct.join(","))?.direct());
        }
        for (proxy, names) in [(&self.http, &["http", "ws"][..]), (&self.https, &["https", "wss"]), (&self.other, &[])]
        {
            let Some(proxy) = proxy else { continue };
            let told = |error: Error| {
                Error::usage(format!("a proxy of the desktop's settings is no proxy url: {}", error.message()))
            };
            let route = names.iter().fold(Route::all(), |route, name| route.scheme(name));
            routes.push(route.via(schemes.chain(proxy).map_err(told)?));
        }
        Ok(routes)
    }
}

/// A proxy's URL out of its parts; `None` where there is no host.
fn url(scheme: &str, host: &str, port: &str, login: Option<(&str, &str)>) -> Option<String> {
    let host = host.trim();
    if host.is_empty() {
        return None;
    }
    // What was written as a URL keeps its host alone: the field says what it is.
    let host = host.split_once("://").map_or(host, |(_, rest)| rest).trim_end_matches('/');
    let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
    let login = login
        .map(|(user, password)| format!("{}:{}@", percent_encode(user), percent_encode(password)))
        .unwrap_or_default();
    let port = if matches!(port.trim(), "" | "0") { String::new() } else { format!(":{}", port.trim()) };
    Some(format!("{scheme}://{login}{host}{port}"))
}

/// A pattern as desktops write them: `*.example.org` means the name itself too, `10.*` and `169.254/16` are networks.
fn pattern(text: &str) -> Result<String> {
    let text = text.trim();
    if text == "*" || text == "<local>" {
        return Ok(text.to_owned());
    }
    let octets = |text: &str| {
        let octets: Vec<&str> = text.split('.').collect();
        (octets.len() < 4 && octets.iter().all(|octet| octet.parse::<u8>().is_ok())).then_some(octets.len())
    };
    if let Some((net, bits)) = text.split_once('/')
        && let Some(count) = octets(net)
    {
        return Ok(format!("{net}{}/{bits}", ".0".repeat(4 - count)));
    }
    let net = text.trim_end_matches(".*");
    if net != text
        && let Some(count) = octets(net)
    {
        return Ok(format!("{net}{}/{}", ".0".repeat(4 - count), count * 8));
    }
    let name = text.strip_prefix("*.").or_else(|| text.strip_prefix('*')).unwrap_or(text);
    if name.contains('*') || name.is_empty() {
        return Err(unsupported(format!("the desktop excepts {text:?} from its proxies, which is no pattern here")));
    }
    Ok(name.to_owned())
}

fn patterns<'a>(all: impl IntoIterator<Item = &'a str>) -> Result<Vec<String>> {
    all.into_iter().map(str::trim).filter(|text| !text.is_empty()).map(pattern).collect()
}

fn unsupported(why: impl Into<Box<str>>) -> Error {
    Error::new(Kind::Unsupported, why)
}

fn pac() -> Error {
    unsupported("the desktop finds its proxies by a script (PAC), and no scripts are run here")
}

/// What a program prints.
fn output(program: &str, args: &[&str]) -> Result<String> {
    let failed = |why: &str| unsupported(format!("no proxy settings of a desktop can be read: {program} {why}"));
    let child =
        Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = child.map_err(|error| failed("can't be run").with_source(error))?;
    let mut stdout = child.stdout.take().ok_or_else(|| failed("says nothing"))?;
    let (done, read) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let result = stdout.by_ref().take(MAX_OUTPUT).read_to_end(&mut text).map(|_| text);
        let _ = done.send(result);
    });
    let Ok(text) = read.recv_timeout(WAIT) else {
        let _ = child.kill();
        let _ = child.wait();
        return Err(Error::timeout(Phase::Total, WAIT));
    };
    // It has said all, or more than it may: nobody reads on, so it ends.
    let status = child.wait().map_err(|error| failed("has no end").with_source(error))?;
    if !status.success() {
        return Err(failed("failed"));
    }
    let text = text.map_err(|error| failed("can't be read").with_source(error))?;
    String::from_utf8(text).map_err(|_| failed("says what is no text"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Endpoint;

    fn way(settings: &Settings, to: &str) -> String {
        let routes = settings.routes(&HopSchemes::default()).unwrap();
        let (scheme, authority) = to.split_once("://").unwrap();
        let to = Endpoint::parse(authority, Some(80)).unwrap().with_scheme(scheme);
        let route = routes.iter().find(|route| route.matches(&to));
        let hop = route.and_then(|route| route.chains().first()).and_then(|hops| hops.first());
        hop.map_or("direct".to_owned(), |hop| format!("{hop:?}"))
    }

    #[test]
    fn settings_become_routes() {
        let settings = Settings {
            http: Some("http://h:1".to_owned()),
            https: None,
            other: Some("socks5h://joe:p%40ss@s:2".to_owned()),
            direct: patterns(["*.a.example", "10.*", "169.254/16", "<local>", "fe80::/10"]).unwrap(),
        };
        for (to, expected) in [
            ("http://x.example", "http://h:1"),
            ("ws://x.example", "http://h:1"),
            ("https://x.example", "socks5h://joe:***@s:2"),
            ("redis://x.example", "socks5h://joe:***@s:2"),
            ("http://a.example", "direct"),
            ("http://b.a.example", "direct"),
            ("http://10.1.2.3", "direct"),
            ("http://11.1.2.3", "http://h:1"),
            ("http://169.254.1.2", "direct"),
            ("http://[fe80::1]", "direct"),
            ("http://intranet", "direct"),
            ("http://localhost", "direct"),
            ("smtp://127.0.0.1", "direct"),
        ] {
            assert_eq!(way(&settings, to), expected, "{to}");
        }
        assert_eq!(way(&Settings::default(), "http://x.example"), "direct");
        let error = pattern("a*b.example").unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported);
    }

    #[test]
    fn proxies_are_put_together_safely() {
        assert_eq!(url("http", "p", "8080", None).unwrap(), "http://p:8080");
        assert_eq!(url("http", " http://p/ ", "0", None).unwrap(), "http://p");
        assert_eq!(url("socks5h", "::1", "1080", None).unwrap(), "socks5h://[::1]:1080");
        assert_eq!(url("http", "p", "1", Some(("a:b", "c@d"))).unwrap(), "http://a%3Ab:c%40d@p:1");
        assert_eq!(url("http", " ", "1", None), None);
        let broken = Settings { other: Some("http://u:sesame@p:x".to_owned()), ..Settings::default() };
        let error = broken.routes(&HopSchemes::default()).unwrap_err();
        assert!(!format!("{error:?}").contains("sesame"));
    }

    #[test]
    fn a_program_that_cannot_tell_is_an_error() {
        for (program, args) in [("portolan-no-such-program", &[][..]), ("false", &[])] {
            assert_eq!(output(program, args).unwrap_err().kind(), Kind::Unsupported, "{program}");
        }
        assert_eq!(output("printf", &["a b"]).unwrap(), "a b");
    }
}
