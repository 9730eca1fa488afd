//! KDE: `kioslaverc`.

use std::path::PathBuf;

use super::{Settings, pac, patterns, unsupported, url};
use crate::error::{Error, Result};
use crate::hop::env;

/// The file's text; empty where there is none, which means that nothing was ever set.
pub(super) fn file() -> Result<String> {
    let folder = env::variable("XDG_CONFIG_HOME").map(PathBuf::from);
    let folder = folder.or_else(|| Some(PathBuf::from(env::variable("HOME")?).join(".config")));
    let path = folder.ok_or_else(|| unsupported("no home folder to look for KDE's settings in"))?.join("kioslaverc");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(unsupported(format!("{} can't be read", path.display())).with_source(error)),
    }
}

pub(super) fn settings(text: &str) -> Result<Settings> {
    let mut inside = false;
    let mut pairs = Vec::new();
    for line in text.lines().map(str::trim) {
        match line.strip_prefix('[') {
            Some(section) => inside = section.strip_suffix(']') == Some("Proxy Settings"),
            None => pairs.extend(line.split_once('=').filter(|_| inside && !line.starts_with('#'))),
        }
    }
    let value = |name: &str| {
        // What is marked ([$e], [$i]) has the mark behind its name.
        let found = pairs.iter().rev().find(|(key, _)| key.split('[').next().map(str::trim) == Some(name));
        found.map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
    };
    match value("ProxyType").unwrap_or("0") {
        "0" => return Ok(Settings::default()),
        "1" => {}
        "2" | "3" => return Err(pac()),
        "4" => return Err(unsupported("KDE takes its proxies from variables, and none is set: see proxy_from_env")),
        other => return Err(unsupported(format!("the proxy type {other:?} of KDE is not known"))),
    }
    if value("ReversedException") == Some("true") {
        return Err(unsupported("KDE uses its proxies for the exceptions alone, which can't be followed here"));
    }
    let proxy = |name: &str, scheme: &str| value(name).map(|text| one(text, scheme)).transpose();
    Ok(Settings {
        http: proxy("httpProxy", "http")?,
        https: proxy("httpsProxy", "http")?,
        other: proxy("socksProxy", "socks5h")?,
        direct: patterns(value("NoProxyFor").unwrap_or_default().split([',', ' ']))?,
    })
}

/// `http://host 8080`, `http://joe:pw@host:8080`, `host 8080`.
fn one(text: &str, scheme: &str) -> Result<String> {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let (host, port) = match rest.split_once(' ') {
        Some((host, port)) => (host.trim_end_matches('/'), Some(port.trim())),
        None => (rest.trim_end_matches('/'), None),
    };
    let missing = || Error::usage("a proxy of KDE's settings has no host");
    match port {
        // A login stays as it is written.
        Some(port) if host.contains('@') => Ok(format!("{scheme}://{host}:{port}")),
        Some(port) => url(scheme, host, port, None).ok_or_else(missing),
        None if host.is_empty() => Err(missing()),
        None => Ok(format!("{scheme}://{host}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn what_kde_keeps_is_followed() {
        let text = "[$Version]\nupdate=1\n[Proxy Settings]\n# c\nNoProxyFor=localhost,.a.example 10.0.0.0/8\nProxyType=1\n\
                    ReversedException=false\nhttpProxy[$e]=http://web.example 3128\nhttpsProxy=http://joe:pw@tls.example:8443\n\
                    socksProxy=socks://s.example 1080\nftpProxy=\n[Other]\nProxyType=2\n";
        let found = settings(text).unwrap();
        assert_eq!(found.http.as_deref(), Some("http://web.example:3128"));
        assert_eq!(found.https.as_deref(), Some("http://joe:pw@tls.example:8443"));
        assert_eq!(found.other.as_deref(), Some("socks5h://s.example:1080"));
        assert_eq!(found.direct, ["localhost", ".a.example", "10.0.0.0/8"]);
        for (text, good) in [
            ("", true),
            ("[Proxy Settings]\nProxyType=0\nhttpProxy=http://x 1", true),
            ("[Proxy Settings]\nProxyType=2", false),
            ("[Proxy Settings]\nProxyType=3", false),
            ("[Proxy Settings]\nProxyType=4", false),
            ("[Proxy Settings]\nProxyType=9", false),
            ("[Proxy Settings]\nProxyType=1\nReversedException=true", false),
        ] {
            match settings(text) {
                Ok(found) => assert!(good && found == Settings::default(), "{text}"),
                Err(error) => assert!(!good && error.kind() == Kind::Unsupported, "{text}"),
            }
        }
        assert!(settings("[Proxy Settings]\nProxyType=1\nhttpProxy=http://").is_err());
    }
}
