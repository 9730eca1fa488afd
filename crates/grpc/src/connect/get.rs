//! Calls without side effects as GETs: the message stands in the query.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use http::uri::{PathAndQuery, Uri};
use portolan_core::{BoxError, Error, Result};

use crate::PROTOCOL;

/// What says the same in a POST.
pub(super) const FIELDS: &[&str] = &["content-type", "connect-protocol-version"];

/// Sorted, so that caches see the same call as the same.
pub(super) fn query(message: &[u8], name: &str, encoding: Option<&HeaderValue>) -> String {
    let message = URL_SAFE_NO_PAD.encode(message);
    let compression = encoding.and_then(|value| value.to_str().ok()).map(|name| format!("&compression={name}"));
    format!("base64=1{}&connect=v1&encoding={name}&message={message}", compression.unwrap_or_default())
}

/// The same URI with this query, if that is not too long.
pub(super) fn uri(uri: &Uri, query: &str, max: usize) -> Result<Option<Uri>> {
    let path = uri.path();
    if path.len().saturating_add(query.len()).saturating_add(1) > max {
        return Ok(None);
    }
    let bad =
        |error: BoxError| Error::usage("no URI can be made of the call").with_protocol(PROTOCOL).with_source(error);
    let mut parts = uri.clone().into_parts();
    let whole = PathAndQuery::try_from(format!("{path}?{query}")).map_err(|error| bad(error.into()))?;
    parts.path_and_query = Some(whole);
    Uri::from_parts(parts).map(Some).map_err(|error| bad(error.into()))
}
