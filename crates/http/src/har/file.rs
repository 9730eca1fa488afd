//! HAR as others write it: what is needed to answer from it, and nothing that must be there besides.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue, Response, StatusCode, Uri, Version};
use portolan_core::{Error, Kind, Result};
use serde::Deserialize;

/// What a body begins its remark with that is not whole.
pub(super) const CUT: &str = "cut";

/// One exchange.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Exchange {
    request: Asked,
    response: Answer,
    #[serde(default)]
    pub(super) timings: Times,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    method: String,
    url: String,
    #[serde(default)]
    post_data: Option<Content>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    status: i64,
    #[serde(default)]
    http_version: String,
    #[serde(default)]
    headers: Vec<Pair>,
    #[serde(default)]
    content: Content,
}

#[derive(Debug, Clone, Deserialize)]
struct Pair {
    name: String,
    value: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    encoding: Option<String>,
    #[serde(default)]
    comment: Option<String>,
}

/// In milliseconds; less than nothing, or nothing at all, is "does not apply".
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Times {
    #[serde(default)]
    pub(super) wait: Option<f64>,
}

impl Content {
    fn is_base64(&self) -> bool {
        // Requests have no field for it: we say it in a remark.
        let said = self.encoding.as_deref().or(self.comment.as_deref());
        said.is_some_and(|encoding| encoding.eq_ignore_ascii_case("base64"))
    }

    fn bytes(&self) -> Option<Bytes> {
        let text = self.text.as_ref()?;
        if self.is_base64() { STANDARD.decode(text).ok().map(Bytes::from) } else { Some(text.clone().into()) }
    }
}

impl Exchange {
    pub(super) fn is_for(&self, method: &str, url: &str) -> bool {
        self.request.method == method && plain(&self.request.url) == url
    }

    /// Whether this was sent; `None` where the file doesn't say.
    pub(super) fn sent(&self, body: &[u8]) -> Option<bool> {
        self.request.post_data.as_ref()?.bytes().map(|sent| sent == body)
    }

    /// The response, with its content as plain as HAR has it.
    pub(super) fn response(&self) -> Result<Response<Bytes>> {
        let answer = &self.response;
        let content = &answer.content;
        let unusable = |why: &str| Err(Error::usage(format!("the recorded {} {why}", self.request.url)));
        if answer.status == 0 {
            return Err(Error::new(Kind::Closed, format!("the recorded {} had failed", self.request.url)));
        }
        if content.comment.as_ref().is_some_and(|comment| comment.starts_with(CUT)) {
            return unusable("holds a part of its body alone");
        }
        let status = u16::try_from(answer.status).ok().and_then(|status| StatusCode::from_u16(status).ok());
        let Some(status) = status else { return unusable("has no status") };
        let Some(body) = (if content.text.is_some() { content.bytes() } else { Some(Bytes::new()) }) else {
            return unusable("holds a body that is no Base64");
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.version_mut() = version(&answer.http_version);
        for Pair { name, value } in &answer.headers {
            // Pseudo-fields of HTTP/2 are none, and some write several values on lines of their own.
            let Ok(name) = HeaderName::try_from(name.as_str()) else { continue };
            for value in value.split('\n').filter_map(|value| HeaderValue::try_from(value.trim_end_matches('\r')).ok())
            {
                response.headers_mut().append(name.clone(), value);
            }
        }
        // These are of the way that the body came by.
        for name in [CONTENT_ENCODING, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION] {
            response.headers_mut().remove(name);
        }
        let text_again = content.text.as_ref().is_some_and(|text| !content.is_base64() && !text.is_ascii());
        if let Some(value) = response.headers().get(CONTENT_TYPE).filter(|_| text_again).and_then(as_utf8) {
            response.headers_mut().insert(CONTENT_TYPE, value);
        }
        Ok(response)
    }
}

/// Text in HAR is Unicode, whatever it was.
fn as_utf8(content_type: &HeaderValue) -> Option<HeaderValue> {
    let text = content_type.to_str().ok()?;
    let (kind, parameters) = text.split_once(';')?;
    if !parameters.to_ascii_lowercase().contains("charset") {
        return None;
    }
    HeaderValue::try_from(format!("{kind}; charset=utf-8")).ok()
}

/// The URL as it is compared: without user, password and fragment.
pub(super) fn plain(url: &str) -> String {
    let text = url.split('#').next().unwrap_or_default();
    text.parse::<Uri>().map_or_else(|_| text.to_owned(), |uri| super::message::url(&uri))
}

fn version(text: &str) -> Version {
    match text.to_ascii_lowercase().as_str() {
        "http/1.0" => Version::HTTP_10,
        "http/2" | "http/2.0" | "h2" => Version::HTTP_2,
        "http/3" | "http/3.0" | "h3" => Version::HTTP_3,
        _ => Version::HTTP_11,
    }
}
