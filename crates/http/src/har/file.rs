//! HAR as others write it: what is needed to answer from it, and nothing that must be there besides.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, Version};
use portolan_core::{Error, Kind, Result};
use serde::Deserialize;

/// What a body begins its remark with that is not whole.
pub(super) const CUT: &str = "cut";
/// The remark of a body that is compressed still, as its fields say.
pub(super) const CODED: &str = "as it came";

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
    size: Option<f64>,
    /// How much longer it is than what came, as mitmproxy reckons.
    #[serde(default)]
    compression: Option<f64>,
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

    /// The bytes that were written as Latin-1, as mitmproxy does with what has no charset: there are as many of them as characters,
    /// and fewer than the text has as UTF-8.
    fn bytes_of_latin1(&self, content_type: &str) -> Option<Bytes> {
        let text = self.text.as_ref().filter(|text| !self.is_base64() && !text.is_ascii())?;
        let bytes = latin1(text)?;
        let says = |size: f64| size == bytes.len() as f64;
        let (size, more) = (self.size?, self.compression.unwrap_or(0.0));
        let kind = content_type.to_ascii_lowercase();
        let is_text = kind.starts_with("text/") || ["json", "xml", "javascript"].iter().any(|word| kind.contains(word));
        // Some count characters where HAR wants bytes: then text is what it seems to be.
        let meant = !kind.contains("charset") && (!is_text || std::str::from_utf8(&bytes).is_ok());
        (meant && (says(size) || says(size + more))).then(|| bytes.into())
    }
}

impl Exchange {
    pub(super) fn is_for(&self, method: &str, url: &str) -> bool {
        self.request.method == method && plain(&self.request.url) == url
    }

    /// Whether this was sent; `None` where the file doesn't say.
    pub(super) fn sent(&self, body: &[u8]) -> Option<bool> {
        let data = self.request.post_data.as_ref()?;
        let as_latin1 = || data.text.as_deref().and_then(latin1).is_some_and(|sent| sent == body);
        data.bytes().map(|sent| sent == body || as_latin1())
    }

    pub(super) fn is_failed(&self) -> bool {
        self.response.status == 0
    }

    /// The response, with its content as plain as HAR has it.
    pub(super) fn response(&self) -> Result<Response<Bytes>> {
        let answer = &self.response;
        let content = &answer.content;
        let unusable = |why: &str| Err(Error::usage(format!("the recorded {} {why}", self.request.url)));
        if self.is_failed() {
            return Err(Error::new(Kind::Closed, format!("the recorded {} had failed", self.request.url)));
        }
        let remark = content.comment.as_deref().unwrap_or_default();
        // Nobody reads what comes with a redirect.
        let wanted = self.request.method != Method::HEAD.as_str() && !(300..400).contains(&answer.status);
        if wanted && remark.starts_with(CUT) {
            return unusable("holds a part of its body alone");
        }
        if wanted && content.text.is_none() && content.size.is_some_and(|size| size > 0.0) {
            return unusable("was written without its body");
        }
        let status = u16::try_from(answer.status).ok().and_then(|status| StatusCode::from_u16(status).ok());
        let Some(status) = status else { return unusable("has no status") };
        let Some(body) = (if content.text.is_some() { content.bytes() } else { Some(Bytes::new()) }) else {
            return unusable("holds a body that is no Base64");
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.version_mut() = version(&answer.http_version);
        fill(response.headers_mut(), &answer.headers);
        // These are of the way that the body came by; without one they tell of what there would be.
        response.headers_mut().remove(TRANSFER_ENCODING);
        response.headers_mut().remove(CONNECTION);
        if self.request.method != Method::HEAD.as_str() {
            response.headers_mut().remove(CONTENT_LENGTH);
            if remark != CODED {
                response.headers_mut().remove(CONTENT_ENCODING);
            }
        }
        let content_type = response.headers().get(CONTENT_TYPE).cloned();
        let kind = content_type.as_ref().map_or(Cow::Borrowed(""), |kind| String::from_utf8_lossy(kind.as_bytes()));
        if let Some(bytes) = content.bytes_of_latin1(&kind) {
            *response.body_mut() = bytes;
        } else if content.text.as_ref().is_some_and(|text| !content.is_base64() && !text.is_ascii())
            && let Some(value) = content_type.as_ref().and_then(as_utf8)
        {
            response.headers_mut().insert(CONTENT_TYPE, value);
        }
        Ok(response)
    }
}

fn fill(map: &mut HeaderMap, pairs: &[Pair]) {
    for Pair { name, value } in pairs {
        // Pseudo-fields of HTTP/2 are none, and some write several values on lines of their own.
        let Ok(name) = HeaderName::try_from(name.as_str()) else { continue };
        for value in value.split('\n').filter_map(|value| HeaderValue::try_from(value.trim_end_matches('\r')).ok()) {
            map.append(name.clone(), value);
        }
    }
}

fn latin1(text: &str) -> Option<Vec<u8>> {
    text.chars().map(|char| u8::try_from(u32::from(char)).ok()).collect()
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

/// The URL as it is compared: without user, password, fragment and the port that goes without saying.
pub(super) fn plain(url: &str) -> String {
    let text = url.split('#').next().unwrap_or_default();
    let Ok(uri) = text.parse::<Uri>() else { return text.to_owned() };
    let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else { return super::message::url(&uri) };
    let usual = |port: &u16| matches!((scheme, *port), ("http" | "ws", 80) | ("https" | "wss", 443));
    let port = uri.port_u16().filter(|port| !usual(port)).map_or(String::new(), |port| format!(":{port}"));
    let query = uri.query().map_or(String::new(), |query| format!("?{query}"));
    format!("{scheme}://{}{port}{}{query}", host.to_ascii_lowercase(), uri.path())
}

fn version(text: &str) -> Version {
    match text.to_ascii_lowercase().as_str() {
        "http/1.0" => Version::HTTP_10,
        "http/2" | "http/2.0" | "h2" => Version::HTTP_2,
        "http/3" | "http/3.0" | "h3" => Version::HTTP_3,
        _ => Version::HTTP_11,
    }
}
