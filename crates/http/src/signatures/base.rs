//! What a signature is over: components of a message, and the base that they make (RFC 9421 2).

use std::fmt::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use portolan_core::{Error, Result, percent_encode_into};

use crate::structured::{Bare, Dictionary, InnerList, Item, List};

/// Components of one signature; more are nobody's honest wish.
const MAX_COMPONENTS: usize = 128;

/// What of a message is signed: a field, or something derived from it, with its parameters.
///
/// ```
/// use portolan_http::signatures::Component;
///
/// assert_eq!(Component::from("content-type").to_string(), "\"content-type\"");
/// assert_eq!(Component::query_param("a b").to_string(), "\"@query-param\";name=\"a%20b\"");
/// assert_eq!(Component::from("signature").key("sig1").req().to_string(), "\"signature\";key=\"sig1\";req");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Component(pub(super) Item);

impl Component {
    /// A field (`content-type`), or what begins with `@`: `@method`, `@target-uri`, `@authority`, `@scheme`, `@request-target`, `@path`,
    /// `@query`, `@status`.
    pub fn new(name: impl AsRef<str>) -> Self {
        Self(Item::new(Bare::String(name.as_ref().to_ascii_lowercase())))
    }

    /// One parameter of the query, by its name.
    pub fn query_param(name: &str) -> Self {
        Self::new("@query-param").with("name", Bare::String(form_encode(name.as_bytes())))
    }

    /// Of the request that the response answers.
    pub fn req(self) -> Self {
        self.with("req", Bare::Boolean(true))
    }

    /// The structured field in its one form, however it was written.
    pub fn sf(self) -> Self {
        self.with("sf", Bare::Boolean(true))
    }

    /// One member of a field that is a dictionary.
    pub fn key(self, name: impl Into<String>) -> Self {
        self.with("key", Bare::String(name.into()))
    }

    /// Each line of the field wrapped by itself, so that lines can't be taken for others.
    pub fn bs(self) -> Self {
        self.with("bs", Bare::Boolean(true))
    }

    /// Of the trailers.
    pub fn tr(self) -> Self {
        self.with("tr", Bare::Boolean(true))
    }

    fn with(mut self, name: &str, value: Bare) -> Self {
        self.0.params.set(name, value);
        self
    }

    pub(super) fn name(&self) -> &str {
        match &self.0.value {
            Bare::String(name) => name,
            _ => "",
        }
    }

    fn flag(&self, name: &str) -> bool {
        self.0.params.get(name) == Some(&Bare::Boolean(true))
    }

    /// Whether both mean the same: the order of parameters says nothing.
    pub(super) fn same(&self, other: &Self) -> bool {
        let within = |a: &Self, b: &Self| a.0.params.iter().all(|(name, value)| b.0.params.get(name) == Some(value));
        self.0.value == other.0.value && within(self, other) && within(other, self)
    }
}

impl From<&str> for Component {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A message to be signed or verified.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct Message<'a> {
    head: Head<'a>,
    headers: &'a HeaderMap,
    trailers: Option<&'a HeaderMap>,
}

#[derive(Debug, Clone, Copy)]
enum Head<'a> {
    Request(&'a Parts),
    Response { status: StatusCode, request: Option<&'a Parts> },
}

impl<'a> Message<'a> {
    /// A request, whose URI must be absolute.
    pub fn request(parts: &'a Parts) -> Self {
        Self { head: Head::Request(parts), headers: &parts.headers, trailers: None }
    }

    /// A response, and the request that it answers.
    pub fn response(status: StatusCode, headers: &'a HeaderMap, request: Option<&'a Parts>) -> Self {
        Self { head: Head::Response { status, request }, headers, trailers: None }
    }

    /// With what came behind its body.
    pub fn trailers(mut self, trailers: &'a HeaderMap) -> Self {
        self.trailers = Some(trailers);
        self
    }

    pub(super) fn headers(&self) -> &'a HeaderMap {
        self.headers
    }

    /// Whether the field is there that the component is of.
    pub(super) fn has(&self, component: &Component) -> bool {
        component.name().starts_with('@') || self.headers.contains_key(component.name())
    }

    /// The signature base (RFC 9421 2.5) of components and parameters.
    pub(super) fn base(&self, input: &InnerList) -> Result<String> {
        let mut out = String::new();
        let mut seen: Vec<Component> = Vec::new();
        for item in &input.items {
            let component = Component(item.clone());
            if seen.len() >= MAX_COMPONENTS || seen.iter().any(|known| known.same(&component)) {
                return Err(Error::usage(format!("{component} is signed twice, or too much is")));
            }
            let value = self.value(&component)?;
            if !value.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte)) {
                return Err(Error::usage(format!("{component} is no plain text, and can't be signed")));
            }
            let _ = writeln!(out, "{component}: {value}");
            seen.push(component);
        }
        let _ = write!(out, "\"@signature-params\": {input}");
        Ok(out)
    }

    fn value(&self, component: &Component) -> Result<String> {
        let wrong = |why: &str| Error::usage(format!("{component} can't be signed: {why}"));
        let known = ["req", "sf", "key", "bs", "tr", "name"];
        if component.0.params.iter().any(|(name, _)| !known.contains(&name)) {
            return Err(wrong("it has an unknown parameter"));
        }
        let name = component.name();
        if name.is_empty() || name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(wrong("no name in lower case"));
        }
        let message = match (self.head, component.0.params.get("req")) {
            (_, None) => *self,
            (Head::Response { request: Some(request), .. }, Some(Bare::Boolean(true))) => Message::request(request),
            _ => return Err(wrong("there is no request beside it")),
        };
        if !name.starts_with('@') {
            return message.field(component);
        }
        match (message.head, name) {
            (Head::Response { status, .. }, "@status") => Ok(status.as_str().to_owned()),
            (Head::Request(parts), _) => derived(parts, component)?.ok_or_else(|| wrong("requests have none")),
            (Head::Response { .. }, _) => Err(wrong("responses have none")),
        }
    }

    /// RFC 9421 2.1.
    fn field(&self, component: &Component) -> Result<String> {
        let wrong = |why: &str| Error::usage(format!("{component} can't be signed: {why}"));
        let headers = match component.flag("tr") {
            true => self.trailers.ok_or_else(|| wrong("there are no trailers yet"))?,
            false => self.headers,
        };
        let mut lines = headers.get_all(component.name()).iter().map(|line| line.as_bytes().trim_ascii()).peekable();
        lines.peek().ok_or_else(|| wrong("the field is not there"))?;
        if component.flag("bs") {
            if component.flag("sf") || component.0.params.get("key").is_some() {
                return Err(wrong("lines that are wrapped have no structure"));
            }
            return Ok(lines.map(|line| format!(":{}:", STANDARD.encode(line))).collect::<Vec<_>>().join(", "));
        }
        let whole = lines.collect::<Vec<_>>().join(&b", "[..]);
        match component.0.params.get("key") {
            Some(Bare::String(key)) => {
                let field = Dictionary::decode(&whole).map_err(|_| wrong("the field is no dictionary"))?;
                field.get(key).map(ToString::to_string).ok_or_else(|| wrong("the field has no such member"))
            }
            Some(_) => Err(wrong("its key is no text")),
            None if component.flag("sf") => {
                strict(component.name(), &whole).ok_or_else(|| wrong("the field has no structure that is known"))
            }
            None => String::from_utf8(whole).map_err(|_| wrong("the field is no text")),
        }
    }
}

/// A structured field in its one form. What kind a field has is said nowhere but in its specification: what can be read as a list is one,
/// unless it is known better.
fn strict(name: &str, field: &[u8]) -> Option<String> {
    const DICTIONARIES: [&str; 9] = [
        "accept-signature",
        "cache-status",
        "content-digest",
        "priority",
        "repr-digest",
        "signature",
        "signature-input",
        "want-content-digest",
        "want-repr-digest",
    ];
    let list = List::decode(field).ok().filter(|_| !DICTIONARIES.contains(&name)).map(|list| list.to_string());
    list.or_else(|| Some(Dictionary::decode(field).ok()?.to_string()))
}

/// RFC 9421 2.2.
fn derived(parts: &Parts, component: &Component) -> Result<Option<String>> {
    let uri = &parts.uri;
    let scheme = uri.scheme_str().unwrap_or("https").to_ascii_lowercase();
    let path = if uri.path().is_empty() { "/" } else { uri.path() };
    let query = uri.query().map(|query| format!("?{query}"));
    let authority = || {
        let said = crate::sign::authority(parts)?.to_ascii_lowercase();
        let default = if scheme == "https" { ":443" } else { ":80" };
        Ok::<_, Error>(said.strip_suffix(default).unwrap_or(&said).to_owned())
    };
    Ok(Some(match component.name() {
        "@method" => parts.method.as_str().to_owned(),
        "@authority" => authority()?,
        "@scheme" => scheme,
        "@path" => path.to_owned(),
        "@query" => query.unwrap_or_else(|| "?".to_owned()),
        "@target-uri" => format!("{scheme}://{}{path}{}", authority()?, query.unwrap_or_default()),
        "@request-target" if parts.method == Method::CONNECT => authority()?,
        "@request-target" => format!("{path}{}", query.unwrap_or_default()),
        "@query-param" => query_param(uri.query().unwrap_or_default(), component)?,
        _ => return Ok(None),
    }))
}

/// RFC 9421 2.2.8: the one parameter of this name.
fn query_param(query: &str, component: &Component) -> Result<String> {
    let Some(Bare::String(name)) = component.0.params.get("name") else {
        return Err(Error::usage("@query-param needs a name"));
    };
    let mut found = query.split('&').filter_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (form_encode(&form_decode(key)) == *name).then(|| form_encode(&form_decode(value)))
    });
    match (found.next(), found.next()) {
        (Some(value), None) => Ok(value),
        (None, _) => Err(Error::usage(format!("{component} can't be signed: it is not there"))),
        (Some(_), Some(_)) => Err(Error::usage(format!("{component} can't be signed: it is there twice"))),
    }
}

fn form_decode(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let digit = |at: usize| after.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        match (byte, digit(0).zip(digit(1))) {
            (b'%', Some((high, low))) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or_default());
                rest = after.get(2..).unwrap_or_default();
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(byte),
        }
    }
    out
}

/// The percent-encode set of forms, but `%20` for a space.
fn form_encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    percent_encode_into(bytes.iter().copied(), |byte| b"*-._".contains(&byte), &mut out);
    out
}
