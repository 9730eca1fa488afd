//! Files of protobuf's editions, for a reader that knows the syntaxes before them.

use bytes::Bytes;
use portolan_core::{Error, Kind, Result};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, Value};

use crate::PROTOCOL;

/// `google.protobuf.Edition`: what is newer may have features that mean something else.
const EDITION_2023: i32 = 1000;
const EDITION_2024: i32 = 1001;

const LEGACY_REQUIRED: i32 = 3;
const EXPANDED: i32 = 2;
const DELIMITED: i32 = 2;

const LABEL_REQUIRED: i32 = 2;
const LABEL_REPEATED: i32 = 3;
const TYPE_STRING: i32 = 9;
const TYPE_GROUP: i32 = 10;
const TYPE_MESSAGE: i32 = 11;
const TYPE_BYTES: i32 = 12;

/// What a file says of itself.
#[derive(Clone, PartialEq, Message)]
struct Head {
    #[prost(string, tag = "12")]
    syntax: String,
    #[prost(int32, tag = "14")]
    edition: i32,
}

/// `google.protobuf.FeatureSet`, as far as it changes what is on the wire or in JSON.
#[derive(Clone, Copy, PartialEq, Message)]
struct Features {
    #[prost(int32, optional, tag = "1")]
    field_presence: Option<i32>,
    #[prost(int32, optional, tag = "3")]
    repeated_field_encoding: Option<i32>,
    #[prost(int32, optional, tag = "5")]
    message_encoding: Option<i32>,
}

impl Features {
    /// These, where nothing else is said further in.
    fn with(self, own: Self) -> Self {
        Self {
            field_presence: own.field_presence.or(self.field_presence),
            repeated_field_encoding: own.repeated_field_encoding.or(self.repeated_field_encoding),
            message_encoding: own.message_encoding.or(self.message_encoding),
        }
    }
}

/// The file with the same messages in the syntax of proto2, if it is of an edition: fields have presence there, which changes nothing for
/// whoever only reads what is on the wire and writes what was said.
pub(crate) fn as_proto2(file: Bytes) -> Result<Bytes> {
    let broken = || Error::protocol(PROTOCOL, "a descriptor of a file that is broken");
    let head = Head::decode(file.clone()).map_err(|error| broken().with_source(error))?;
    match (&*head.syntax, head.edition) {
        ("" | "proto2" | "proto3", _) => return Ok(file),
        ("editions", EDITION_2023 | EDITION_2024) => {}
        _ => {
            let error = Error::new(Kind::Unsupported, "a descriptor of a file in a syntax that is not known");
            return Err(error.with_protocol(PROTOCOL));
        }
    }
    let kind =
        DescriptorPool::global().get_message_by_name("google.protobuf.FileDescriptorProto").ok_or_else(broken)?;
    // What it doesn't know of stays in it: options that are extensions.
    let mut file = DynamicMessage::decode(kind, file).map_err(|error| broken().with_source(error))?;
    let features = features(&file);
    file.set_field_by_name("syntax", Value::String("proto2".to_owned()));
    each(&mut file, "message_type", &mut |message| lower_message(message, features));
    each(&mut file, "extension", &mut |field| lower_field(field, features));
    Ok(file.encode_to_vec().into())
}

fn lower_message(message: &mut DynamicMessage, around: Features) {
    let features = around.with(features(message));
    each(message, "field", &mut |field| lower_field(field, features));
    each(message, "extension", &mut |field| lower_field(field, features));
    each(message, "nested_type", &mut |nested| lower_message(nested, features));
}

fn lower_field(field: &mut DynamicMessage, around: Features) {
    let features = around.with(features(field));
    let number = |field: &DynamicMessage, name| field.get_field_by_name(name).and_then(|value| value.as_enum_number());
    let (label, kind) = (number(field, "label").unwrap_or_default(), number(field, "type").unwrap_or_default());
    if label == LABEL_REPEATED {
        let scalar = !matches!(kind, TYPE_STRING | TYPE_BYTES | TYPE_MESSAGE | TYPE_GROUP);
        let packed = scalar && features.repeated_field_encoding != Some(EXPANDED);
        if let Some(Value::Message(options)) = field.get_field_by_name_mut("options").filter(|_| scalar) {
            options.set_field_by_name("packed", Value::Bool(packed));
        }
    } else if features.field_presence == Some(LEGACY_REQUIRED) {
        field.set_field_by_name("label", Value::EnumNumber(LABEL_REQUIRED));
    }
    if kind == TYPE_MESSAGE && features.message_encoding == Some(DELIMITED) {
        field.set_field_by_name("type", Value::EnumNumber(TYPE_GROUP));
    }
}

/// The options of a file, a message or a field, whose features have different numbers and none another meaning.
#[derive(Clone, PartialEq, Message)]
struct Options {
    #[prost(message, optional, tag = "12")]
    of_message: Option<Features>,
    #[prost(message, optional, tag = "21")]
    of_field: Option<Features>,
    #[prost(message, optional, tag = "50")]
    of_file: Option<Features>,
}

/// What is said at this place. Features that can't be read are none: the decoder has seen them.
fn features(of: &DynamicMessage) -> Features {
    let options = of.get_field_by_name("options").filter(|_| of.has_field_by_name("options"));
    let bytes = options.and_then(|options| options.as_message().map(DynamicMessage::encode_to_vec));
    let options = bytes.and_then(|bytes| Options::decode(&*bytes).ok()).unwrap_or_default();
    options.of_message.or(options.of_field).or(options.of_file).unwrap_or_default()
}

/// Does it to every message of a list.
fn each(of: &mut DynamicMessage, name: &str, work: &mut dyn FnMut(&mut DynamicMessage)) {
    if let Some(Value::List(list)) = of.get_field_by_name_mut(name) {
        list.iter_mut().filter_map(Value::as_message_mut).for_each(work);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dynamic::Schema;
    use prost_reflect::{Cardinality, Kind as FieldKind, ReflectMessage};
    use serde_json::json;

    /// What protoc 35 makes of `tests/protos/editions.proto`.
    const SET: &[u8] = include_bytes!("../tests/generated/editions.bin");

    #[test]
    fn a_file_of_edition_2023_is_read_with_its_features() {
        let schema = Schema::from_descriptor_set(SET).unwrap();
        let kind = schema.pool.get_message_by_name("ed.Ed").unwrap();
        let field = |name: &str| kind.get_field_by_name(name).unwrap();
        assert!(field("packed").is_packed() && !field("nums").is_packed());
        assert!(field("del").is_group() && field("a").supports_presence());
        assert_eq!(field("req").cardinality(), Cardinality::Required);
        assert!(matches!(field("c").kind(), FieldKind::Enum(_)));
        let same =
            json!({"a": "", "imp": 3, "nums": [1, 2], "packed": [3], "del": {"req": "d"}, "c": "C1", "req": "r"});
        let message = DynamicMessage::deserialize(kind.clone(), &same).unwrap();
        // As protobuf's own Python writes it.
        let wire = b"\x0a\x00\x10\x03\x18\x01\x18\x02\x23\x32\x01d\x24\x28\x01\x32\x01r\x3a\x01\x03";
        assert_eq!(message.encode_to_vec(), wire);
        let read = DynamicMessage::decode(kind, &wire[..]).unwrap();
        assert_eq!(crate::dynamic_json::to_json(&read).unwrap(), same);
        assert_eq!(read.descriptor().full_name(), "ed.Ed");
    }

    #[test]
    fn a_syntax_that_nobody_knows_is_an_error_and_no_panic() {
        let file = |syntax: &str, edition| Head { syntax: syntax.to_owned(), edition }.encode_to_vec();
        for head in [file("proto4", 0), file("editions", 0), file("editions", 99_999)] {
            assert_eq!(as_proto2(head.clone().into()).unwrap_err().kind(), Kind::Unsupported);
            let set = [&[0x0a, u8::try_from(head.len()).unwrap()], &head[..]].concat();
            assert_eq!(Schema::from_descriptor_set(&set).unwrap_err().kind(), Kind::Unsupported);
        }
        assert!(as_proto2(Bytes::from_static(b"\xff")).is_err());
        assert_eq!(as_proto2(Bytes::new()).unwrap(), Bytes::new());
    }
}
