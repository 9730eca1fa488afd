//! Typed gRPC clients from .proto files, without protoc.
