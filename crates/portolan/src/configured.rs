//! Configuration as TOML and JSON, with errors that quote no value.

use portolan_core::config::Config;
use portolan_core::{Connector, Error, Result};

use crate::connect::{hop_schemes, resolver_schemes};

/// Reads a [`Config`]. An error names the line and what was expected there; it never quotes the text, which may hold passwords.
pub fn config_from_toml(text: &str) -> Result<Config> {
    toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        wrong("TOML", before.matches('\n').count() + 1, error.message())
    })
}

/// The same out of JSON.
pub fn config_from_json(text: &str) -> Result<Config> {
    serde_json::from_str(text).map_err(|error| {
        let message = error.to_string();
        wrong("JSON", error.line(), message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message))
    })
}

/// A connector out of TOML, with every hop and every name server that the features hold. See [`Config`].
///
/// ```
/// let net = portolan::connector_from_toml(
///     r#"
///     via = "socks5h://near.example:1080 -> http://joe@far.example:3128"
///     no_proxy = "localhost, .internal"
///     [timeouts]
///     connect = "5s"
///     "#,
/// )?;
/// assert_eq!(net.timeouts().connect_limit(), Some(std::time::Duration::from_secs(5)));
/// # Ok::<(), portolan::Error>(())
/// ```
pub fn connector_from_toml(text: &str) -> Result<Connector> {
    config_from_toml(text)?.to_builder_with(&hop_schemes(), &resolver_schemes())?.build()
}

/// A connector out of JSON, with every hop and every name server that the features hold.
pub fn connector_from_json(text: &str) -> Result<Connector> {
    config_from_json(text)?.to_builder_with(&hop_schemes(), &resolver_schemes())?.build()
}

fn wrong(format: &str, line: usize, message: &str) -> Error {
    let first = message.lines().next().unwrap_or_default();
    Error::usage(format!("configuration in {format}, line {line}: {}", without_values(first)))
}

/// What a message says without the strings and numbers that it found.
fn without_values(message: &str) -> String {
    for found in ["string ", "integer ", "floating point ", "character "] {
        let Some((before, after)) = message.split_once(&format!(": {found}")) else { continue };
        let after = after.rsplit_once(", expected ").map_or("", |(_, expected)| expected);
        return format!("{before}: {}, expected {after}", found.trim_end());
    }
    message.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_line_and_never_the_value() {
        for (text, line, words) in [
            ("via = 'direct'\nproxy_from_env = 'http://u:sesame@h'", 2, "string, expected a boolean"),
            ("\n\nprxy = 'sesame'", 3, "unknown field `prxy`, expected one of `via`"),
            ("via = [{ url = 'http://h', password = ['sesame'] }]", 1, "{ env = \"NAME\" }"),
            ("via = 'http://u:sesame@h", 1, ""),
            ("via = 'http://u:ses ame@h'", 1, "space"),
            ("[timeouts]\nconnect = 'sesame, expected'", 2, "string, expected a duration"),
        ] {
            let error = config_from_toml(text).unwrap_err();
            let place = format!("line {line}:");
            assert!(error.message().contains(&place) && error.message().contains(words), "{text}: {error}");
            assert!(!format!("{error:?}").contains("sesame"), "{error:?}");
        }
        let error = config_from_json("{ \"proxy_from_env\":\n \"sesame\" }").unwrap_err();
        assert_eq!(error.message(), "configuration in JSON, line 2: invalid type: string, expected a boolean");
    }

    #[test]
    fn every_hop_of_this_build_has_a_scheme() {
        let known = hop_schemes();
        for scheme in known.names() {
            known.hop(&format!("{scheme}://proxy.example")).unwrap_or_else(|error| panic!("{scheme}: {error}"));
        }
        let error = connector_from_toml("via = 'no-such-hop://a'").unwrap_err();
        assert!(known.names().iter().all(|name| error.message().contains(name)), "{error}");
        connector_from_json("{}").unwrap();
    }
}
