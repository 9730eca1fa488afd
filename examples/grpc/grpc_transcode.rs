//! Calls a method by the plain HTTP and JSON that its `google.api.http` annotation makes of it; the messages are said by a
//! descriptor set (`protoc --include_imports --descriptor_set_out`):
//! `cargo run --example grpc_transcode -- https://HOST DESCRIPTORS package.Service/Method '{"json": 1}'`.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use portolan_core::{Error, Result};
use portolan_grpc::dynamic::Schema;
use portolan_grpc::{Client, Shape, Transcode};

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [url, descriptors, name, request] = &args[..] else {
        return Err(Error::usage("usage: grpc_transcode URL DESCRIPTORS SERVICE/METHOD JSON"));
    };
    let descriptors =
        std::fs::read(descriptors).map_err(|error| Error::usage("no descriptor set").with_source(error))?;
    let schema = Schema::from_descriptor_set(&descriptors)?;
    let request = serde_json::from_str(request).map_err(|error| Error::usage("no JSON").with_source(error))?;
    let client = Client::new(Transcode::new(portolan_http::Client::new(), &schema)?, url)?;
    let method = schema.method(name)?;
    if schema.shape(name)? == Shape::Unary {
        println!("{:#}", client.unary(&method, &request).await?.message());
        return Ok(());
    }
    let mut replies = client.server_streaming(&method, &request).await?;
    while let Some(reply) = replies.message().await? {
        println!("{reply}");
    }
    Ok(())
}
