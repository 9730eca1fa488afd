//! What a method's annotation says: under which HTTP methods and paths it can be called.

use http::Method;
use portolan_core::{Error, Result};
use prost::Message;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor};

use super::template::PathTemplate;
use crate::PROTOCOL;

/// The type whose bytes are a body as they are.
const HTTP_BODY: &str = "google.api.HttpBody";

/// As much of `google.protobuf.MethodOptions` as is needed.
#[derive(Clone, PartialEq, Message)]
struct Options {
    #[prost(message, optional, tag = "72295728")]
    http: Option<HttpRule>,
}

#[derive(Clone, PartialEq, Message)]
struct HttpRule {
    #[prost(oneof = "Pattern", tags = "2, 3, 4, 5, 6, 8")]
    pattern: Option<Pattern>,
    #[prost(string, tag = "7")]
    body: String,
    #[prost(message, repeated, tag = "11")]
    more: Vec<HttpRule>,
    #[prost(string, tag = "12")]
    response_body: String,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Pattern {
    #[prost(string, tag = "2")]
    Get(String),
    #[prost(string, tag = "3")]
    Put(String),
    #[prost(string, tag = "4")]
    Post(String),
    #[prost(string, tag = "5")]
    Delete(String),
    #[prost(string, tag = "6")]
    Patch(String),
    #[prost(message, tag = "8")]
    Custom(Custom),
}

#[derive(Clone, PartialEq, Message)]
struct Custom {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(string, tag = "2")]
    path: String,
}

/// A method, its messages, and the ways to call it.
#[derive(Debug)]
pub(super) struct Rpc {
    pub(super) input: MessageDescriptor,
    pub(super) output: MessageDescriptor,
    /// The first is the annotation's own, the others its additional ones.
    pub(super) bindings: Vec<Binding>,
}

/// One way to call it.
#[derive(Debug)]
pub(super) struct Binding {
    pub(super) method: Method,
    pub(super) path: PathTemplate,
    pub(super) body: RequestBody,
    /// The field of the response that is the body; none if that is the whole of it.
    pub(super) answer: Option<FieldDescriptor>,
}

/// What the request's body is.
#[derive(Debug)]
pub(super) enum RequestBody {
    Nothing,
    Field(FieldDescriptor),
    /// All that is not in the path.
    Rest,
}

impl Rpc {
    /// Reads the annotation. A method without one is a POST to its own path, as gateways have it by default.
    pub(super) fn new(method: &MethodDescriptor) -> Result<Self> {
        let options = Options::decode(&*method.options().encode_to_vec());
        let rule = options.map_err(|error| bad(method, "can't be read").with_source(error))?.http;
        let rule = rule.unwrap_or_else(|| HttpRule {
            pattern: Some(Pattern::Post(format!("/{}/{}", method.parent_service().full_name(), method.name()))),
            body: "*".to_owned(),
            ..HttpRule::default()
        });
        let bindings = std::iter::once(&rule).chain(&rule.more).map(|rule| Binding::new(method, rule));
        Ok(Self { input: method.input(), output: method.output(), bindings: bindings.collect::<Result<_>>()? })
    }
}

impl Binding {
    fn new(method: &MethodDescriptor, rule: &HttpRule) -> Result<Self> {
        let (verb, path) = match &rule.pattern {
            Some(Pattern::Get(path)) => ("GET", path),
            Some(Pattern::Put(path)) => ("PUT", path),
            Some(Pattern::Post(path)) => ("POST", path),
            Some(Pattern::Delete(path)) => ("DELETE", path),
            Some(Pattern::Patch(path)) => ("PATCH", path),
            // Any method will do.
            Some(Pattern::Custom(custom)) if custom.kind == "*" => ("POST", &custom.path),
            Some(Pattern::Custom(custom)) => (&*custom.kind, &custom.path),
            None => return Err(bad(method, "has no path")),
        };
        let path = PathTemplate::parse(path).map_err(|error| bad(method, "has no good path").with_source(error))?;
        let field = |message: MessageDescriptor, name: &str| {
            message.get_field_by_name(name).ok_or_else(|| bad(method, "names a field that is not there"))
        };
        for name in path.fields() {
            find(&method.input(), name).ok_or_else(|| bad(method, "names a field that is not there"))?;
        }
        let body = match &*rule.body {
            "" => RequestBody::Nothing,
            "*" => RequestBody::Rest,
            name => RequestBody::Field(field(method.input(), name)?),
        };
        let answer = match &*rule.response_body {
            "" => None,
            name => Some(field(method.output(), name)?),
        };
        let method = Method::from_bytes(verb.as_bytes()).map_err(|_| bad(method, "names no method of HTTP"))?;
        Ok(Self { method, path, body, answer })
    }

    /// Whether the answer is bytes as they are.
    pub(super) fn answers_raw(&self, output: &MessageDescriptor) -> bool {
        match &self.answer {
            Some(field) => is_raw(field),
            None => is_http_body(output),
        }
    }
}

/// The field that a path of names leads to.
fn find(message: &MessageDescriptor, path: &str) -> Option<FieldDescriptor> {
    match path.split_once('.') {
        None => message.get_field_by_name(path),
        Some((name, rest)) => match message.get_field_by_name(name)?.kind() {
            Kind::Message(inner) => find(&inner, rest),
            _ => None,
        },
    }
}

pub(super) fn is_http_body(message: &MessageDescriptor) -> bool {
    message.full_name() == HTTP_BODY
}

/// Whether a field is one body as it is.
pub(super) fn is_raw(field: &FieldDescriptor) -> bool {
    !field.is_list() && field.kind().as_message().is_some_and(is_http_body)
}

fn bad(method: &MethodDescriptor, what: &str) -> Error {
    Error::usage(format!("the HTTP rule of {} {what}", method.full_name())).with_protocol(PROTOCOL)
}
