//! macOS: what `scutil --proxy` prints.

use super::{Settings, pac, patterns, unsupported, url};
use crate::error::Result;

pub(super) fn settings(text: &str) -> Result<Settings> {
    if !text.trim_start().starts_with("<dictionary>") {
        return Err(unsupported("scutil printed no dictionary"));
    }
    let mut pairs = Vec::new();
    let mut exceptions = Vec::new();
    let mut list = None;
    for line in text.lines().map(str::trim) {
        let pair = line.split_once(" : ").map(|(key, value)| (key.trim(), value.trim()));
        match (list, pair) {
            (_, Some((name, value))) if value.starts_with("<array>") => list = Some(name),
            (Some("ExceptionsList"), Some((_, value))) => exceptions.push(value),
            (Some(_), None) if line == "}" => list = None,
            (None, Some(pair)) => pairs.push(pair),
            _ => {}
        }
    }
    let value = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
    let on = |name: &str| value(name) == Some("1");
    if on("ProxyAutoConfigEnable") || on("ProxyAutoDiscoveryEnable") {
        return Err(pac());
    }
    let proxy = |kind: &str, scheme: &str| {
        let part = |what: &str| value(&format!("{kind}{what}")).unwrap_or_default();
        url(scheme, part("Proxy"), part("Port"), None).filter(|_| part("Enable") == "1")
    };
    if on("ExcludeSimpleHostnames") {
        exceptions.push("<local>");
    }
    Ok(Settings {
        http: proxy("HTTP", "http"),
        https: proxy("HTTPS", "http"),
        other: proxy("SOCKS", "socks5h"),
        direct: patterns(exceptions)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn what_scutil_prints_is_followed() {
        let text = "<dictionary> {\n  ExceptionsList : <array> {\n    0 : *.local\n    1 : 169.254/16\n  }\n  ExcludeSimpleHostnames : 1\n  \
                    FTPPassive : 1\n  HTTPEnable : 1\n  HTTPPort : 8080\n  HTTPProxy : web.example\n  HTTPSEnable : 0\n  HTTPSPort : 1\n  \
                    HTTPSProxy : off.example\n  SOCKSEnable : 1\n  SOCKSPort : 1080\n  SOCKSProxy : s.example\n}\n";
        let found = settings(text).unwrap();
        assert_eq!(found.http.as_deref(), Some("http://web.example:8080"));
        assert_eq!((found.https, found.other.as_deref()), (None, Some("socks5h://s.example:1080")));
        assert_eq!(found.direct, ["local", "169.254.0.0/16", "<local>"]);
        assert_eq!(settings("<dictionary> {\n}\n").unwrap(), Settings::default());
        for text in [
            "",
            "No such key",
            "<dictionary> {\n  ProxyAutoConfigEnable : 1\n}",
            "<dictionary> {\n  ProxyAutoDiscoveryEnable : 1\n}",
        ] {
            assert_eq!(settings(text).unwrap_err().kind(), Kind::Unsupported, "{text}");
        }
    }
}
