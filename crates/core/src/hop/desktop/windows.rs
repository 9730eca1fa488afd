//! Windows: the values of the registry under `Internet Settings`, as `reg query` prints them.

use super::{Settings, pac, patterns, unsupported};
use crate::error::Result;

pub(super) const KEY: &str = r"HKCU\Software\Microsoft\Windows\CurrentVersion\Internet Settings";

pub(super) fn settings(text: &str) -> Result<Settings> {
    // "    ProxyServer    REG_SZ    proxy.example:8080"
    let value = |name: &str| {
        text.lines().find_map(|line| {
            let (known, rest) = line.trim().split_once("    ")?;
            let (_, value) = rest.trim().split_once("    ").unwrap_or((rest, ""));
            known.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    if !text.contains("Internet Settings") {
        return Err(unsupported("the registry says nothing of proxies"));
    }
    if value("AutoConfigURL").is_some_and(|url| !url.is_empty()) {
        return Err(pac());
    }
    let on = value("ProxyEnable").and_then(|value| u32::from_str_radix(value.strip_prefix("0x")?, 16).ok());
    if on.unwrap_or(0) == 0 {
        return Ok(Settings::default());
    }
    let mut settings = Settings {
        direct: patterns(value("ProxyOverride").unwrap_or_default().split([';', ',']))?,
        ..Settings::default()
    };
    let server = value("ProxyServer").unwrap_or_default();
    for part in server.split([';', ' ']).map(str::trim).filter(|part| !part.is_empty()) {
        let url = |scheme: &str, text: &str| {
            Some(if text.contains("://") { text.to_owned() } else { format!("{scheme}://{text}") })
        };
        match part.split_once('=') {
            // One for all, which is an HTTP proxy.
            None => {
                (settings.http, settings.https, settings.other) =
                    (url("http", part), url("http", part), url("http", part));
            }
            Some(("http", text)) => settings.http = url("http", text),
            Some(("https", text)) => settings.https = url("http", text),
            Some(("socks", text)) => settings.other = url("socks4a", text),
            // ftp, gopher.
            Some(_) => {}
        }
    }
    let none = settings.http.is_none() && settings.https.is_none() && settings.other.is_none();
    if none { Err(unsupported("the registry switches proxies on and names none")) } else { Ok(settings) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn text(values: &[(&str, &str, &str)]) -> String {
        let lines = values.iter().map(|(name, kind, value)| format!("    {name}    {kind}    {value}\r\n"));
        format!(
            "\r\nHKEY_CURRENT_USER\\Software\\Microsoft\\Windows\\CurrentVersion\\Internet Settings\r\n{}",
            lines.collect::<String>()
        )
    }

    #[test]
    fn what_the_registry_says_is_followed() {
        let on = ("ProxyEnable", "REG_DWORD", "0x1");
        let one = text(&[
            on,
            ("ProxyServer", "REG_SZ", "p.example:8080"),
            ("ProxyOverride", "REG_SZ", "*.a.example;10.*;<local>"),
        ]);
        let found = settings(&one).unwrap();
        assert_eq!(
            (found.http.as_deref(), &found.https, &found.other),
            (Some("http://p.example:8080"), &found.http, &found.http)
        );
        assert_eq!(found.direct, ["a.example", "10.0.0.0/8", "<local>"]);
        let each = text(&[on, ("ProxyServer", "REG_SZ", "http=h:1;https=s:2;ftp=f:3;socks=k:4")]);
        let found = settings(&each).unwrap();
        assert_eq!((found.http.as_deref(), found.https.as_deref()), (Some("http://h:1"), Some("http://s:2")));
        assert_eq!(found.other.as_deref(), Some("socks4a://k:4"));
        let off = text(&[("ProxyEnable", "REG_DWORD", "0x0"), ("ProxyServer", "REG_SZ", "p:1")]);
        assert_eq!(settings(&off).unwrap(), Settings::default());
        assert_eq!(settings(&text(&[])).unwrap(), Settings::default());
        for text in [
            String::new(),
            text(&[on]),
            text(&[("AutoConfigURL", "REG_SZ", "http://wpad/p.pac")]),
            text(&[on, ("ProxyServer", "REG_SZ", "p:1"), ("ProxyOverride", "REG_SZ", "a*b")]),
        ] {
            assert_eq!(settings(&text).unwrap_err().kind(), Kind::Unsupported, "{text}");
        }
    }
}
