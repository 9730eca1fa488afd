//! Calls by name, without generated code: JSON in, JSON out.

use std::fmt;

use bytes::{Bytes, BytesMut};
use portolan_core::{Error, Result};
use prost_reflect::prost::Message as _;
use prost_reflect::prost_types::method_options::IdempotencyLevel;
use prost_reflect::{Cardinality, DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor, ReflectMessage};
use serde_json::Value;

use crate::PROTOCOL;
use crate::body::Shape;
use crate::client::{Client, Method};
use crate::codec::Codec;
use crate::dynamic_editions::as_proto2;
use crate::dynamic_json::{any_message, to_json};
use crate::reflection::Reflection;
use crate::transport::Transport;

/// What a service's messages look like: from a descriptor set, or from the server itself.
///
/// ```no_run
/// # async fn example(client: portolan_grpc::Client<portolan_grpc::Channel>) -> portolan_core::Result<()> {
/// use portolan_grpc::dynamic::Schema;
/// use serde_json::json;
///
/// let schema = Schema::by_reflection(&client, "shop.Stock").await?;
/// let method = schema.method("shop.Stock/Count")?;
/// let reply = client.unary(&method, &json!({"item": "tea"})).await?;
/// println!("{}", reply.message());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Schema {
    pub(crate) pool: DescriptorPool,
}

/// `google.protobuf.FileDescriptorSet`, whose files are read one by one.
#[derive(Clone, PartialEq, prost::Message)]
struct FileSet {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    file: Vec<Bytes>,
}

impl Schema {
    /// From a `google.protobuf.FileDescriptorSet`, as `protoc` and `portolan-grpc-build` write it.
    pub fn from_descriptor_set(bytes: &[u8]) -> Result<Self> {
        let broken = |error| usage("the descriptor set is broken").with_source(error);
        let mut set = FileSet::decode(bytes).map_err(broken)?;
        for file in &mut set.file {
            *file = as_proto2(std::mem::take(file))?;
        }
        let pool = DescriptorPool::decode(&*set.encode_to_vec());
        Ok(Self { pool: pool.map_err(|error| usage("the descriptor set is broken").with_source(error))? })
    }

    /// What the server says of one of its services.
    pub async fn by_reflection<T: Transport>(client: &Client<T>, service: &str) -> Result<Self> {
        let files = Reflection::new(client.clone()).files(service).await?;
        let broken = "reflection: descriptors that do not fit together";
        let mut pool = DescriptorPool::new();
        // Imports come first. As bytes they keep the options that are extensions.
        for file in files {
            let added = pool.decode_file_descriptor_proto(as_proto2(file)?);
            added.map_err(|error| Error::protocol(PROTOCOL, broken).with_source(error))?;
        }
        Ok(Self { pool })
    }

    /// The full names of all services it knows.
    pub fn services(&self) -> impl Iterator<Item = String> + '_ {
        self.pool.services().map(|service| service.full_name().to_owned())
    }

    /// The names of a service's methods, each with its shape.
    pub fn methods(&self, service: &str) -> Result<Vec<(String, Shape)>> {
        let service = self.pool.get_service_by_name(service).ok_or_else(|| usage("no such service"))?;
        Ok(service.methods().map(|method| (method.name().to_owned(), shape(&method))).collect())
    }

    /// A method by its name, `package.Service/Method` with or without a slash before it, to be called with JSON.
    pub fn method(&self, name: &str) -> Result<Method<DynamicJson>> {
        let method = self.find(name)?;
        let codec = DynamicJson { input: method.input(), output: method.output() };
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let built = Method::new(&path, codec)?;
        let options = method.method_descriptor_proto().options.as_ref();
        let safe = options.is_some_and(|options| options.idempotency_level() == IdempotencyLevel::NoSideEffects);
        Ok(if safe { built.no_side_effects() } else { built })
    }

    /// Which sides of a method are streams.
    pub fn shape(&self, name: &str) -> Result<Shape> {
        Ok(shape(&self.find(name)?))
    }

    fn find(&self, name: &str) -> Result<MethodDescriptor> {
        let (service, method) =
            name.trim_start_matches('/').split_once('/').ok_or_else(|| usage("a method is package.Service/Method"))?;
        let service = self.pool.get_service_by_name(service).ok_or_else(|| usage("no such service"))?;
        service.methods().find(|one| one.name() == method).ok_or_else(|| usage("no such method"))
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.pool.services().map(|service| service.full_name().to_owned())).finish()
    }
}

fn shape(method: &MethodDescriptor) -> Shape {
    match (method.is_client_streaming(), method.is_server_streaming()) {
        (false, false) => Shape::Unary,
        (true, false) => Shape::ClientStreaming,
        (false, true) => Shape::ServerStreaming,
        (true, true) => Shape::Duplex,
    }
}

/// Whether a field that is required (proto2) is missing, in the message or in one within.
fn lacks(message: &DynamicMessage) -> bool {
    let kind = message.descriptor();
    kind.fields().any(|field| field.cardinality() == Cardinality::Required && !message.has_field(&field))
        || message.fields().any(|(_, value)| any_message(value, lacks))
        || message.extensions().any(|(_, value)| any_message(value, lacks))
}

fn usage(message: &'static str) -> Error {
    Error::usage(message).with_protocol(PROTOCOL)
}

/// Protobuf on the wire, JSON (as protobuf maps it) to the caller.
#[derive(Clone)]
pub struct DynamicJson {
    input: MessageDescriptor,
    output: MessageDescriptor,
}

impl Codec for DynamicJson {
    type Request = Value;
    type Response = Value;

    fn content_suffix(&self) -> &'static str {
        ""
    }

    fn encode(&self, message: &Value, dst: &mut BytesMut) -> Result<()> {
        let message = DynamicMessage::deserialize(self.input.clone(), message)
            .map_err(|error| usage("the JSON is no message of the method's").with_source(error))?;
        if lacks(&message) {
            return Err(usage("a required field of the message is missing"));
        }
        message.encode(dst).map_err(|error| usage("the message can't be encoded").with_source(error))
    }

    fn decode(&self, src: Bytes) -> Result<Value> {
        let message = DynamicMessage::decode(self.output.clone(), src).map_err(|error| {
            Error::protocol(PROTOCOL, "a message that is no protobuf of its type").with_source(error)
        })?;
        to_json(&message)
            .map_err(|error| Error::protocol(PROTOCOL, "a message that has no form in JSON").with_source(error))
    }
}

impl fmt::Debug for DynamicJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DynamicJson({} -> {})", self.input.full_name(), self.output.full_name())
    }
}
