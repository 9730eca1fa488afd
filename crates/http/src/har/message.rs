//! Requests and responses as HAR writes them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONTENT_TYPE, COOKIE, LOCATION, SET_COOKIE};
use http::{HeaderMap, Uri, Version, request, response};
use serde::Serialize;

use super::HarOptions;
use super::capture::Seen;
use super::file::{CODED, CUT};

/// What stands for a value that is left out.
const REDACTED: &str = "***";

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request {
    method: String,
    url: String,
    http_version: &'static str,
    cookies: Vec<Pair>,
    headers: Vec<Pair>,
    query_string: Vec<Pair>,
    #[serde(skip_serializing_if = "Option::is_none")]
    post_data: Option<PostData>,
    headers_size: i64,
    body_size: i64,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Response {
    status: u16,
    status_text: &'static str,
    http_version: &'static str,
    cookies: Vec<Pair>,
    headers: Vec<Pair>,
    content: Content,
    #[serde(rename = "redirectURL")]
    redirect_url: String,
    headers_size: i64,
    body_size: i64,
}

#[derive(Debug, Clone, Serialize)]
struct Pair {
    name: String,
    value: String,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct PostData {
    mime_type: String,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<&'static str>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    size: i64,
    mime_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
}

impl Request {
    pub(super) fn new(options: &HarOptions, request: &request::Parts, body: &[u8]) -> Self {
        let post_data = text(options, body).map(|(text, encoding)| PostData {
            mime_type: mime_type(&request.headers),
            text,
            // HAR has no "encoding" here.
            comment: encoding,
        });
        Self {
            method: request.method.to_string(),
            url: url(&request.uri),
            http_version: version(request.version),
            cookies: cookies(options, &request.headers),
            headers: headers(options, &request.headers),
            query_string: query(&request.uri),
            post_data,
            headers_size: -1,
            body_size: size(body),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.post_data.as_ref().map_or(0, |data| data.text.len())
    }

    /// The same, whose body passed unseen.
    pub(super) fn of_unknown_size(mut self) -> Self {
        self.body_size = -1;
        self
    }
}

impl Response {
    pub(super) fn new(options: &HarOptions, response: &response::Parts, body: &[u8]) -> Self {
        let location =
            response.headers.get(LOCATION).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let (text, encoding) = text(options, body).map_or((None, None), |(text, encoding)| (Some(text), encoding));
        Self {
            status: response.status.as_u16(),
            status_text: response.status.canonical_reason().unwrap_or(""),
            http_version: version(response.version),
            cookies: set_cookies(options, &response.headers),
            headers: headers(options, &response.headers),
            content: Content {
                size: size(body),
                mime_type: mime_type(&response.headers),
                text,
                encoding,
                comment: None,
            },
            redirect_url: location.unwrap_or_default(),
            headers_size: -1,
            body_size: -1,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.content.text.as_ref().map_or(0, String::len)
    }

    /// The same, of whose body so much was seen; `coded` if it is still compressed.
    pub(super) fn with_seen(mut self, seen: &Seen<'_>, coded: bool) -> Self {
        let kept = seen.kept.len();
        self.content.size = seen.total.map_or(-1, |total| i64::try_from(total).unwrap_or(i64::MAX));
        self.content.comment = match seen.whole {
            false => Some(format!("{CUT} at {kept} bytes: it was not read to its end")),
            true if seen.total.is_some_and(|total| (kept as u64) < total) => Some(format!("{CUT} at {kept} bytes")),
            true => (coded && kept > 0).then(|| CODED.to_owned()),
        };
        self
    }

    /// What browsers write for an exchange without a response.
    pub(super) fn failed() -> Self {
        Self {
            status: 0,
            status_text: "",
            http_version: "",
            cookies: Vec::new(),
            headers: Vec::new(),
            content: Content { size: 0, mime_type: String::new(), text: None, encoding: None, comment: None },
            redirect_url: String::new(),
            headers_size: -1,
            body_size: -1,
        }
    }
}

fn size(body: &[u8]) -> i64 {
    i64::try_from(body.len()).unwrap_or(i64::MAX)
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

/// The URL without user and password.
pub(super) fn url(uri: &Uri) -> String {
    let text = uri.to_string();
    let Some(authority) = uri.authority().map(http::uri::Authority::as_str) else { return text };
    match authority.rsplit_once('@') {
        Some((_, host)) => text.replacen(authority, host, 1),
        None => text,
    }
}

fn query(uri: &Uri) -> Vec<Pair> {
    let pairs = uri.query().unwrap_or("").split('&').filter(|pair| !pair.is_empty());
    let decode = |text: &str| {
        let text = text.replace('+', " ");
        portolan_core::percent_decode(&text).unwrap_or(text)
    };
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| Pair { name: decode(name), value: decode(value) })
        .collect()
}

fn headers(options: &HarOptions, headers: &HeaderMap) -> Vec<Pair> {
    let shown = |name, value: &http::HeaderValue| {
        let secret = value.is_sensitive() || options.redacted.contains(name);
        if secret && !options.secrets {
            REDACTED.into()
        } else {
            String::from_utf8_lossy(value.as_bytes()).into_owned()
        }
    };
    headers.iter().map(|(name, value)| Pair { name: name.to_string(), value: shown(name, value) }).collect()
}

fn cookies(options: &HarOptions, headers: &HeaderMap) -> Vec<Pair> {
    let fields = headers.get_all(COOKIE).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let cookies: Vec<String> = fields.flat_map(|text| text.split(';').map(str::to_owned).collect::<Vec<_>>()).collect();
    cookies.iter().map(|pair| cookie(options, pair)).collect()
}

fn set_cookies(options: &HarOptions, headers: &HeaderMap) -> Vec<Pair> {
    let fields = headers.get_all(SET_COOKIE).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    fields.map(|text| cookie(options, text.split(';').next().unwrap_or_default())).collect()
}

/// The name is shown, for it tells what is there; the value as the field's is.
fn cookie(options: &HarOptions, pair: &str) -> Pair {
    let (name, value) = pair.split_once('=').unwrap_or(("", pair));
    let value = if options.secrets { value.trim() } else { REDACTED };
    Pair { name: name.trim().to_owned(), value: value.to_owned() }
}

fn mime_type(headers: &HeaderMap) -> String {
    headers.get(CONTENT_TYPE).map_or(String::new(), |value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// The body as text, or in base64 where it is none.
fn text(options: &HarOptions, body: &[u8]) -> Option<(String, Option<&'static str>)> {
    if options.max_body == 0 || body.is_empty() {
        return None;
    }
    let body = body.get(..options.max_body).unwrap_or(body);
    match std::str::from_utf8(body) {
        Ok(text) => Some((text.to_owned(), None)),
        // Text that was cut within a character is text still.
        Err(error) if error.error_len().is_none() => {
            let whole = body.get(..error.valid_up_to()).unwrap_or_default();
            Some((String::from_utf8_lossy(whole).into_owned(), None))
        }
        Err(_) => Some((STANDARD.encode(body), Some("base64"))),
    }
}
