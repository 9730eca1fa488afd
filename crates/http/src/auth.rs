//! Credentials in fields.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::uri::Authority;
use portolan_core::{Error, Result, Secret};
use zeroize::Zeroizing;

/// RFC 7617.
pub(crate) fn basic(user: &str, password: &Secret) -> Result<HeaderValue> {
    if user.contains(':') {
        return Err(Error::usage("a colon in the user's name can't be sent by Basic"));
    }
    let pair = Zeroizing::new(format!("{user}:{}", password.expose()));
    sensitive(&Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes()))))
}

/// RFC 6750.
pub(crate) fn bearer(token: &Secret) -> Result<HeaderValue> {
    sensitive(&Zeroizing::new(format!("Bearer {}", token.expose())))
}

fn sensitive(text: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(text).map_err(|_| Error::usage("credentials that no field can hold"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Credentials in a URL become a field: they are never sent as a part of it.
pub(crate) fn from_uri(parts: &mut Parts) -> Result<()> {
    let Some(authority) = parts.uri.authority() else { return Ok(()) };
    let Some(at) = authority.as_str().bytes().rposition(|byte| byte == b'@') else { return Ok(()) };
    let (user, host) = (&authority.as_str()[..at], &authority.as_str()[at + 1..]);
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let decode = |text: &str| portolan_core::percent_decode(text).unwrap_or_else(|_| text.to_owned());
    let field = basic(&decode(user), &Secret::new(decode(password)));
    let broken = |_| Error::usage("a URL without a host");
    let authority = host.parse::<Authority>().map_err(broken)?;
    let mut uri = parts.uri.clone().into_parts();
    uri.authority = Some(authority);
    parts.uri = Uri::from_parts(uri).map_err(|_| Error::usage("a URL without a host"))?;
    // Taken off the URL in any case, whether or not a field can hold them.
    parts.headers.entry(header::AUTHORIZATION).or_insert(field?);
    Ok(())
}
