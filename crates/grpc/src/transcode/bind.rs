//! A message becomes a request: part of it the path, part the query, part the body.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use portolan_core::{Error, Result};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage, Value};

use super::rule::{Binding, RequestBody, Rpc, is_http_body, is_raw};
use super::template::escape;
use crate::PROTOCOL;
use crate::dynamic_json::strict;

/// What an HTTP request says.
#[derive(Debug)]
pub(super) struct Bound<'a> {
    pub(super) binding: &'a Binding,
    /// Path and query.
    pub(super) target: String,
    /// The type and the bytes of the body.
    pub(super) body: Option<(String, Bytes)>,
}

impl Rpc {
    /// The way that was chosen, or else the first that the message fits. An additional one fits only if the fields of its path
    /// are set: a number that nobody gave is no reason to turn to it.
    pub(super) fn bind(&self, message: &DynamicMessage, chosen: Option<usize>) -> Result<Bound<'_>> {
        let mut fits = self.bindings.iter().enumerate().filter_map(|(at, binding)| match chosen {
            Some(chosen) => binding.bind(message).filter(|_| at == chosen),
            None if at > 0 && !binding.path.fields().all(|field| is_set(message, field)) => None,
            None => binding.bind(message),
        });
        fits.next().unwrap_or_else(|| {
            let what = "the message fits no path of the method's HTTP rule, or holds what has no place in a query";
            Err(Error::usage(what).with_protocol(PROTOCOL))
        })
    }
}

impl Binding {
    /// The request, if the message fits.
    fn bind(&self, message: &DynamicMessage) -> Option<Result<Bound<'_>>> {
        let mut target = self.path.expand(|field| lookup(message, field))?;
        let mut rest = message.clone();
        self.path.fields().for_each(|field| clear(&mut rest, field));
        let body = match &self.body {
            RequestBody::Nothing => Ok(None),
            RequestBody::Rest => whole(&rest).map(Some),
            RequestBody::Field(field) => one(&mut rest, field),
        };
        if !matches!(self.body, RequestBody::Rest) {
            let mut parameters = String::new();
            query(&rest, "", &mut parameters)?;
            target.push_str(&parameters);
        }
        Some(body.map(|body| Bound { binding: self, target, body }))
    }
}

const JSON: &str = "application/json";

pub(super) fn whole(message: &DynamicMessage) -> Result<(String, Bytes)> {
    if is_http_body(&message.descriptor()) {
        return Ok(raw(message));
    }
    let json = json(message)?.to_string();
    Ok((JSON.to_owned(), json.into()))
}

/// The value of one field, which is taken out of the message; nothing if it has none.
fn one(message: &mut DynamicMessage, field: &FieldDescriptor) -> Result<Option<(String, Bytes)>> {
    let Some(value) = message.take_field(field) else { return Ok(None) };
    if let (true, Value::Message(body)) = (is_raw(field), &value) {
        return Ok(Some(raw(body)));
    }
    let mut only = DynamicMessage::new(message.descriptor());
    only.set_field(field, value);
    let json = json(&only)?;
    let json = json.get(field.json_name()).map(ToString::to_string).unwrap_or_default();
    Ok(Some((JSON.to_owned(), json.into())))
}

fn json(message: &DynamicMessage) -> Result<serde_json::Value> {
    strict(message).map_err(no_json)
}

fn no_json(error: serde_json::Error) -> Error {
    Error::usage("the message has no form in JSON").with_protocol(PROTOCOL).with_source(error)
}

/// The bytes of a `google.api.HttpBody`, and their type.
fn raw(body: &DynamicMessage) -> (String, Bytes) {
    let kind = body.get_field_by_name("content_type").and_then(|value| value.as_str().map(str::to_owned));
    let data = body.get_field_by_name("data").and_then(|value| value.as_bytes().cloned());
    let kind = kind.filter(|kind| !kind.is_empty()).unwrap_or_else(|| "application/octet-stream".to_owned());
    (kind, data.unwrap_or_default())
}

fn is_set(message: &DynamicMessage, path: &str) -> bool {
    match path.split_once('.') {
        None => message.has_field_by_name(path),
        Some((name, rest)) => {
            let value = message.get_field_by_name(name).filter(|_| message.has_field_by_name(name));
            value.is_some_and(|value| value.as_message().is_some_and(|inner| is_set(inner, rest)))
        }
    }
}

/// The value of a field as a path holds it.
fn lookup(message: &DynamicMessage, path: &str) -> Option<String> {
    if let Some((name, rest)) = path.split_once('.') {
        let value = message.get_field_by_name(name)?;
        return lookup(value.as_message()?, rest);
    }
    let field = message.descriptor().get_field_by_name(path)?;
    if field.is_list() || field.is_map() || field.supports_presence() && !message.has_field(&field) {
        return None;
    }
    scalar(&message.get_field(&field), &field.kind())
}

/// Takes a field out of a message.
fn clear(message: &mut DynamicMessage, path: &str) {
    match path.split_once('.') {
        None => message.clear_field_by_name(path),
        Some((name, rest)) => {
            let set = message.has_field_by_name(name);
            let inner = message.get_field_by_name_mut(name).filter(|_| set);
            if let Some(inner) = inner.and_then(Value::as_message_mut) {
                clear(inner, rest);
            }
        }
    }
}

/// Appends what a message holds as parameters; `None` if it holds what can't be one.
fn query(message: &DynamicMessage, prefix: &str, out: &mut String) -> Option<()> {
    for (field, value) in message.fields() {
        let name = format!("{prefix}{}", field.name());
        match (value, field.kind()) {
            (Value::List(values), kind) => {
                for value in values {
                    parameter(&name, &scalar(value, &kind)?, out);
                }
            }
            (Value::Map(_), _) => return None,
            (Value::Message(inner), Kind::Message(kind)) if is_nested(&kind) => {
                query(inner, &format!("{name}."), out)?;
            }
            (value, kind) => parameter(&name, &scalar(value, &kind)?, out),
        }
    }
    Some(())
}

fn parameter(name: &str, value: &str, out: &mut String) {
    out.push(if out.is_empty() { '?' } else { '&' });
    escape(name, false, out);
    out.push('=');
    escape(value, false, out);
}

/// Whether a message is parameters of its own, rather than a value that protobuf writes in a way of its own.
fn is_nested(message: &MessageDescriptor) -> bool {
    message.package_name() != "google.protobuf"
}

/// The text of a value that is one; of messages those have one that JSON has as a text or a number.
fn scalar(value: &Value, kind: &Kind) -> Option<String> {
    Some(match value {
        Value::Bool(value) => value.to_string(),
        Value::I32(value) => value.to_string(),
        Value::I64(value) => value.to_string(),
        Value::U32(value) => value.to_string(),
        Value::U64(value) => value.to_string(),
        Value::F32(value) => float(f64::from(*value), &format!("{value:?}")),
        Value::F64(value) => float(*value, &format!("{value:?}")),
        Value::String(value) => value.clone(),
        Value::Bytes(value) => STANDARD.encode(value),
        Value::EnumNumber(number) => match kind {
            Kind::Enum(kind) => kind.get_value(*number).map_or_else(|| number.to_string(), |one| one.name().to_owned()),
            _ => number.to_string(),
        },
        Value::Message(message) if !is_nested(&message.descriptor()) => match json(message).ok()? {
            serde_json::Value::String(text) => text,
            serde_json::Value::Bool(value) => value.to_string(),
            serde_json::Value::Number(number) => number.to_string(),
            _ => return None,
        },
        Value::Message(_) | Value::List(_) | Value::Map(_) => return None,
    })
}

fn float(value: f64, text: &str) -> String {
    match value {
        f64::INFINITY => "Infinity".to_owned(),
        f64::NEG_INFINITY => "-Infinity".to_owned(),
        _ => text.to_owned(),
    }
}
