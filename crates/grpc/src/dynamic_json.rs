//! Messages as protobuf's JSON has them.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost_reflect::{DynamicMessage, FieldDescriptor, MapKey, ReflectMessage, SerializeOptions, Value};
use serde_json::{Map, Value as Json};

const ANY: &str = "google.protobuf.Any";
/// How deep messages may lie in one another. A decoder counts to a hundred, but begins anew with what is in an `Any`.
const DEPTH: usize = 128;

/// The message as JSON. Numbers of 32 bits are as short as they can be, and what is not finite has its name: in the wrappers too, where
/// serde knows no word for it. An `Any` of a type that is not known is its `@type` and, as `@value`, its bytes.
pub(crate) fn to_json(message: &DynamicMessage) -> Result<Json, serde_json::Error> {
    // Where something within has no form, all else has one.
    strict(message).or_else(|_| in_parts(message))
}

/// The same for those who write to somebody else: what has no form of protobuf's own is an error.
pub(crate) fn strict(message: &DynamicMessage) -> Result<Json, serde_json::Error> {
    if is_too_deep(message, DEPTH) {
        return Err(serde::ser::Error::custom("messages that lie too deep in one another"));
    }
    let options = SerializeOptions::new().skip_default_fields(true);
    let mut json = message.serialize_with_options(serde_json::value::Serializer, &options)?;
    mend(message, &mut json);
    Ok(json)
}

/// Whether this holds of a message that is a field's value, or of one among them.
pub(crate) fn any_message(value: &Value, mut holds: impl FnMut(&DynamicMessage) -> bool) -> bool {
    match value {
        Value::Message(message) => holds(message),
        Value::List(values) => values.iter().filter_map(Value::as_message).any(holds),
        Value::Map(entries) => entries.values().filter_map(Value::as_message).any(holds),
        _ => false,
    }
}

fn is_too_deep(message: &DynamicMessage, left: usize) -> bool {
    let Some(left) = left.checked_sub(1) else { return true };
    let deep = |value: &Value| any_message(value, |inner| is_too_deep(inner, left));
    match held(message) {
        Some(inner) => is_too_deep(&inner, left),
        None => message.fields().any(|(_, value)| deep(value)) || message.extensions().any(|(_, value)| deep(value)),
    }
}

/// What an `Any` holds, if its type is known.
fn held(message: &DynamicMessage) -> Option<DynamicMessage> {
    let any = message.descriptor();
    if any.full_name() != ANY {
        return None;
    }
    let (url, value) = (message.get_field_by_name("type_url")?, message.get_field_by_name("value")?);
    let kind = any.parent_pool().get_message_by_name(url.as_str()?.rsplit('/').next()?)?;
    DynamicMessage::decode(kind, value.as_bytes()?.clone()).ok()
}

fn in_parts(message: &DynamicMessage) -> Result<Json, serde_json::Error> {
    match message.descriptor().full_name() {
        ANY => strict(message).or_else(|_| Ok(unknown(message))),
        name if name.starts_with("google.protobuf.") => strict(message),
        _ => {
            let mut object = Map::new();
            for (field, value) in message.fields() {
                object.insert(field.json_name().to_owned(), part(message, &field, value)?);
            }
            for (field, value) in message.extensions() {
                let mut only = DynamicMessage::new(message.descriptor());
                only.set_extension(&field, value.clone());
                object.extend(strict(&only)?.as_object().cloned().unwrap_or_default());
            }
            Ok(Json::Object(object))
        }
    }
}

/// An `Any` of which no more is known than it says itself.
fn unknown(any: &DynamicMessage) -> Json {
    let mut object = Map::new();
    let field = |name: &str| any.get_field_by_name(name).filter(|_| any.has_field_by_name(name)).map(Cow::into_owned);
    if let Some(Value::String(url)) = field("type_url") {
        object.insert("@type".to_owned(), url.into());
    }
    if let Some(Value::Bytes(value)) = field("value") {
        object.insert("@value".to_owned(), STANDARD.encode(value).into());
    }
    Json::Object(object)
}

/// What a field holds: its messages one by one, anything else as it would be alone.
fn part(of: &DynamicMessage, field: &FieldDescriptor, value: &Value) -> Result<Json, serde_json::Error> {
    let message = |value: &Value| value.as_message().map(in_parts);
    match value {
        Value::Message(inner) => in_parts(inner),
        Value::List(values) if values.iter().all(|value| value.as_message().is_some()) => {
            values.iter().filter_map(message).collect()
        }
        Value::Map(entries) if entries.values().all(|value| value.as_message().is_some()) => {
            let entries = entries.iter().filter_map(|(key, value)| Some((text(key), message(value)?)));
            entries.map(|(key, value)| Ok((key, value?))).collect::<Result<Map<_, _>, _>>().map(Json::Object)
        }
        _ => {
            let mut only = DynamicMessage::new(of.descriptor());
            only.set_field(field, value.clone());
            let mut alone = strict(&only)?;
            Ok(alone.get_mut(field.json_name()).map(Json::take).unwrap_or_default())
        }
    }
}

fn mend(message: &DynamicMessage, json: &mut Json) {
    match message.descriptor().full_name() {
        "google.protobuf.FloatValue" | "google.protobuf.DoubleValue" => {
            if let Some(value) = message.get_field_by_name("value") {
                number(&value, json);
            }
        }
        ANY => {
            let Some(inner) = held(message) else { return };
            let own_form = inner.descriptor().full_name().starts_with("google.protobuf.");
            if let Some(json) = if own_form { json.get_mut("value") } else { Some(json) } {
                mend(&inner, json);
            }
        }
        // They have a form of their own, without fields.
        name if name.starts_with("google.protobuf.") => {}
        _ => {
            for (field, value) in message.fields() {
                if let Some(json) = json.get_mut(field.json_name()) {
                    mend_value(value, json);
                }
            }
            for (field, value) in message.extensions() {
                if let Some(json) = json.get_mut(field.json_name()) {
                    mend_value(value, json);
                }
            }
        }
    }
}

fn mend_value(value: &Value, json: &mut Json) {
    match (value, json) {
        (Value::List(values), Json::Array(items)) => {
            values.iter().zip(items).for_each(|(value, json)| mend_value(value, json));
        }
        (Value::Map(entries), Json::Object(members)) => {
            for (key, value) in entries {
                if let Some(json) = members.get_mut(&text(key)) {
                    mend_value(value, json);
                }
            }
        }
        (Value::Message(message), json) => mend(message, json),
        (Value::F32(_), json) => number(value, json),
        _ => {}
    }
}

fn number(value: &Value, json: &mut Json) {
    let (value, short) = match value {
        // As text it is as short as a number of 32 bits can be; but nothing that is read back may be beyond the largest.
        Value::F32(value) => {
            let (value, short) = (f64::from(*value), value.to_string().parse::<f64>().ok());
            (value, short.filter(|short| short.abs() <= f64::from(f32::MAX)).or(Some(value)))
        }
        Value::F64(value) => (*value, Some(*value)),
        _ => return,
    };
    *json = match short.and_then(serde_json::Number::from_f64) {
        Some(number) => Json::Number(number),
        None if value.is_nan() => "NaN".into(),
        None if value > 0.0 => "Infinity".into(),
        None => "-Infinity".into(),
    };
}

fn text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dynamic::Schema;
    use prost_reflect::prost::Message as _;
    use serde_json::json;

    #[test]
    fn numbers_are_as_short_as_they_can_be_and_have_names_where_they_are_none() {
        let set = descriptors();
        let schema = Schema::from_descriptor_set(&set).unwrap();
        let kind = schema.pool.get_message_by_name("t.M").unwrap();
        for same in [
            json!({"f": 0.1, "d": 0.1, "fs": [0.1, "NaN", "-Infinity"], "m": {"-1": 1e-45, "2": "Infinity"}}),
            json!({"wf": "NaN", "wd": "-Infinity", "ws": ["Infinity", 0.3, 0.0], "deep": {"wf": f64::from(f32::MAX)}}),
            json!({"wm": {"true": {"wf": "NaN"}}}),
            json!({"any": {"@type": "x/t.M", "f": 0.1, "wf": "NaN", "fs": ["Infinity"]}}),
            json!({"any": {"@type": "x/google.protobuf.Any", "value": {"@type": "x/google.protobuf.FloatValue", "value": "NaN"}}}),
        ] {
            let message = DynamicMessage::deserialize(kind.clone(), &same).unwrap();
            let message = DynamicMessage::decode(kind.clone(), &*message.encode_to_vec()).unwrap();
            assert_eq!(to_json(&message).unwrap(), same);
        }
    }

    #[test]
    fn an_any_that_nobody_knows_takes_nothing_else_with_it() {
        let schema = Schema::from_descriptor_set(&descriptors()).unwrap();
        let kind = schema.pool.get_message_by_name("t.M").unwrap();
        let any = kind.get_field_by_name("any").unwrap();
        let of_any = any.kind().as_message().unwrap().clone();
        let strange = |url: &str, value: &'static [u8]| {
            let mut any = DynamicMessage::new(of_any.clone());
            any.set_field_by_name("type_url", Value::String(url.to_owned()));
            any.set_field_by_name("value", Value::Bytes(value.into()));
            Value::Message(any)
        };
        let other = json!({"f": 0.1, "fs": [0.1, "NaN"], "m": {"-1": 1.5}, "wf": "NaN"});
        let mut inner = DynamicMessage::deserialize(kind.clone(), &other).unwrap();
        inner.set_field(&any, strange("type.googleapis.com/no.Such", b"\0\xff"));
        let mut message = DynamicMessage::deserialize(kind, &json!({"d": 1.5, "wm": {"true": {}}})).unwrap();
        message.set_field(&any, strange("", b""));
        message.set_field_by_name("deep", Value::Message(inner));
        let mut deep = other;
        deep["any"] = json!({"@type": "type.googleapis.com/no.Such", "@value": "AP8="});
        assert_eq!(to_json(&message).unwrap(), json!({"d": 1.5, "any": {}, "deep": deep, "wm": {"true": {}}}));
    }

    #[test]
    fn what_lies_in_any_within_any_without_end_is_given_as_it_came() {
        let schema = Schema::from_descriptor_set(&descriptors()).unwrap();
        let any = schema.pool.get_message_by_name(ANY).unwrap();
        let nested = |depth| {
            let mut message = DynamicMessage::new(any.clone());
            message.set_field_by_name("type_url", Value::String("x/t.M".to_owned()));
            for _ in 0..depth {
                let within = message.encode_to_vec();
                message.set_field_by_name("type_url", Value::String(format!("x/{ANY}")));
                message.set_field_by_name("value", Value::Bytes(within.into()));
            }
            message
        };
        assert_eq!(to_json(&nested(100)).unwrap()["value"]["value"]["@type"], "x/google.protobuf.Any");
        let deep = to_json(&nested(3000)).unwrap();
        assert!(deep["@value"].as_str().unwrap().len() > 50_000 && strict(&nested(3000)).is_err());
    }

    /// `t.M`, written by hand: protoc is not needed for so little.
    fn descriptors() -> Vec<u8> {
        use prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
        use prost_reflect::prost_types::{
            DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet, MessageOptions,
        };
        let field = |name: &str, number, label: Label, kind: Type, of: &str| FieldDescriptorProto {
            name: Some(name.to_owned()),
            number: Some(number),
            label: Some(label.into()),
            r#type: Some(kind.into()),
            type_name: (!of.is_empty()).then(|| of.to_owned()),
            ..FieldDescriptorProto::default()
        };
        let entry = |name: &str, key, value: FieldDescriptorProto| DescriptorProto {
            name: Some(name.to_owned()),
            field: vec![field("key", 1, Label::Optional, key, ""), value],
            options: Some(MessageOptions { map_entry: Some(true), ..MessageOptions::default() }),
            ..DescriptorProto::default()
        };
        let message = DescriptorProto {
            name: Some("M".to_owned()),
            field: vec![
                field("f", 1, Label::Optional, Type::Float, ""),
                field("d", 2, Label::Optional, Type::Double, ""),
                field("fs", 3, Label::Repeated, Type::Float, ""),
                field("m", 4, Label::Repeated, Type::Message, ".t.M.MEntry"),
                field("wf", 5, Label::Optional, Type::Message, ".google.protobuf.FloatValue"),
                field("wd", 6, Label::Optional, Type::Message, ".google.protobuf.DoubleValue"),
                field("ws", 7, Label::Repeated, Type::Message, ".google.protobuf.FloatValue"),
                field("deep", 8, Label::Optional, Type::Message, ".t.M"),
                field("wm", 9, Label::Repeated, Type::Message, ".t.M.WmEntry"),
                field("any", 10, Label::Optional, Type::Message, ".google.protobuf.Any"),
            ],
            nested_type: vec![
                entry("MEntry", Type::Int32, field("value", 2, Label::Optional, Type::Float, "")),
                entry("WmEntry", Type::Bool, field("value", 2, Label::Optional, Type::Message, ".t.M")),
            ],
            ..DescriptorProto::default()
        };
        let known = prost_reflect::DescriptorPool::global();
        let imports = ["google/protobuf/wrappers.proto", "google/protobuf/any.proto"];
        let files = imports.map(|name| known.get_file_by_name(name).unwrap().file_descriptor_proto().clone());
        let file = FileDescriptorProto {
            name: Some("t.proto".to_owned()),
            package: Some("t".to_owned()),
            dependency: imports.map(str::to_owned).to_vec(),
            message_type: vec![message],
            syntax: Some("proto3".to_owned()),
            ..FileDescriptorProto::default()
        };
        FileDescriptorSet { file: files.into_iter().chain([file]).collect() }.encode_to_vec()
    }
}
