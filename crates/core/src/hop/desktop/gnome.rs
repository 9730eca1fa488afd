//! GNOME, and the desktops that keep its settings: `gsettings`.

use super::{Settings, pac, patterns, unsupported, url};
use crate::error::{Error, Result};

pub(super) const SCHEMA: &str = "org.gnome.system.proxy";

/// What `gsettings list-recursively org.gnome.system.proxy` prints, followed as GLib follows it.
pub(super) fn settings(text: &str) -> Result<Settings> {
    let value = |schema: &str, key: &str| {
        text.lines().find_map(|line| {
            let rest = line.strip_prefix(SCHEMA)?.strip_prefix(schema)?.strip_prefix(' ')?;
            Some(rest.strip_prefix(key)?.strip_prefix(' ')?.trim())
        })
    };
    let missing = |key: &str| unsupported(format!("gsettings says nothing of {SCHEMA} {key}"));
    let string =
        |schema: &str, key: &str| value(schema, key).and_then(|text| strings(text)?.pop()).ok_or_else(|| missing(key));
    match string("", "mode")?.as_str() {
        "none" => return Ok(Settings::default()),
        "auto" => return Err(pac()),
        "manual" => {}
        mode => return Err(unsupported(format!("the proxy mode {mode:?} of GNOME is not known"))),
    }
    let proxy = |schema: &str, scheme: &str, login: Option<(&str, &str)>| {
        let port = value(schema, "port").ok_or_else(|| missing("port"))?;
        Ok::<_, Error>(url(scheme, &string(schema, "host")?, port, login))
    };
    let login = match value(".http", "use-authentication") {
        Some("true") => Some((string(".http", "authentication-user")?, string(".http", "authentication-password")?)),
        _ => None,
    };
    let http = proxy(".http", "http", login.as_ref().map(|(user, password)| (user.as_str(), password.as_str())))?;
    let socks = proxy(".socks", "socks5h", None)?;
    let same = http.clone().filter(|_| value("", "use-same-proxy") == Some("true"));
    let direct = value("", "ignore-hosts").and_then(strings).ok_or_else(|| missing("ignore-hosts"))?;
    Ok(Settings {
        http,
        https: proxy(".https", "http", None)?,
        other: socks.or(same),
        direct: patterns(direct.iter().map(String::as_str))?,
    })
}

/// The strings of a value in GVariant's text form: one, or an array of them.
fn strings(text: &str) -> Option<Vec<String>> {
    let mut found = Vec::new();
    let mut rest = text.strip_prefix("@as ").unwrap_or(text).chars();
    while let Some(quote) = rest.next() {
        match quote {
            '[' | ']' | ',' | ' ' => {}
            '\'' | '"' => {
                let mut out = String::new();
                loop {
                    match rest.next()? {
                        '\\' => out.push(rest.next()?),
                        char if char == quote => break,
                        char => out.push(char),
                    }
                }
                found.push(out);
            }
            _ => return None,
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn text(mode: &str, same: bool, socks: &str, auth: bool) -> String {
        format!(
            "org.gnome.system.proxy autoconfig-url ''\n\
             org.gnome.system.proxy ignore-hosts ['localhost', \"it's.example\", '10.0.0.0/8', '*.local']\n\
             org.gnome.system.proxy mode '{mode}'\n\
             org.gnome.system.proxy use-same-proxy {same}\n\
             org.gnome.system.proxy.http authentication-password 'p@\\'s'\n\
             org.gnome.system.proxy.http authentication-user 'joe'\n\
             org.gnome.system.proxy.http host 'web.example'\n\
             org.gnome.system.proxy.http port 8080\n\
             org.gnome.system.proxy.http use-authentication {auth}\n\
             org.gnome.system.proxy.https host ''\n\
             org.gnome.system.proxy.https port 0\n\
             org.gnome.system.proxy.socks host '{socks}'\n\
             org.gnome.system.proxy.socks port 1080\n"
        )
    }

    #[test]
    fn what_gsettings_prints_is_followed() {
        let settings = |text: String| super::settings(&text);
        assert_eq!(settings(text("none", true, "", false)).unwrap(), Settings::default());
        assert_eq!(settings(text("auto", true, "", false)).unwrap_err().kind(), Kind::Unsupported);
        assert_eq!(settings(text("odd", true, "", false)).unwrap_err().kind(), Kind::Unsupported);
        assert_eq!(settings(String::new()).unwrap_err().kind(), Kind::Unsupported);
        let same = settings(text("manual", true, "", true)).unwrap();
        assert_eq!(same.http.as_deref(), Some("http://joe:p%40%27s@web.example:8080"));
        assert_eq!((&same.https, &same.other), (&None, &same.http));
        assert_eq!(same.direct, ["localhost", "it's.example", "10.0.0.0/8", "local"]);
        let socks = settings(text("manual", false, "s.example", false)).unwrap();
        assert_eq!(socks.http.as_deref(), Some("http://web.example:8080"));
        assert_eq!(socks.other.as_deref(), Some("socks5h://s.example:1080"));
        assert_eq!(settings(text("manual", false, "", false)).unwrap().other, None);
    }

    #[test]
    fn values_of_gvariant_are_read() {
        assert_eq!(strings("@as []").unwrap(), Vec::<String>::new());
        assert_eq!(strings("['a', \"b'c\", 'd\\\\e']").unwrap(), ["a", "b'c", "d\\e"]);
        assert_eq!(strings("'open"), None);
        assert_eq!(strings("17"), None);
    }
}
