//! A stub as tonic generates it, over this workspace's HTTP client: its proxies, its policy, its pool.
//! `cargo run --example tonic_stub -- http://HOST:PORT [SERVICE]`.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use http::Uri;
use http::uri::PathAndQuery;
use portolan_core::{Error, Result};
use portolan_http::{Client, Version};

/// The messages of grpc.health.v1, as prost generates them.
mod health {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct HealthCheckRequest {
        #[prost(string, tag = "1")]
        pub(crate) service: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct HealthCheckResponse {
        #[prost(int32, tag = "1")]
        pub(crate) status: i32,
    }
}

/// What tonic-build writes for a service: generic over what carries it.
struct HealthStub<T> {
    inner: tonic::client::Grpc<T>,
}

impl<T> HealthStub<T>
where
    T: tonic::client::GrpcService<tonic::body::Body>,
    T::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<portolan_core::BoxError> + Send,
    T::Error: Into<portolan_core::BoxError>,
{
    fn with_origin(inner: T, origin: Uri) -> Self {
        Self { inner: tonic::client::Grpc::with_origin(inner, origin) }
    }

    async fn check(
        &mut self,
        request: health::HealthCheckRequest,
    ) -> std::result::Result<tonic::Response<health::HealthCheckResponse>, tonic::Status> {
        self.inner.ready().await.map_err(|error| tonic::Status::unknown(error.into().to_string()))?;
        let codec = tonic_prost::ProstCodec::default();
        let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
        self.inner.unary(tonic::Request::new(request), path, codec).await
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let url = args.next().ok_or_else(|| Error::usage("usage: tonic_stub URL [SERVICE]"))?;
    let origin: Uri = url.parse().map_err(|_| Error::usage("no URL"))?;
    let client = Client::builder().version(Version::Http2Only).decompression(None).build()?;
    let mut stub = HealthStub::with_origin(client, origin);
    let request = health::HealthCheckRequest { service: args.next().unwrap_or_default() };
    match stub.check(request).await {
        Ok(response) => println!("status {} {:?}", response.get_ref().status, response.metadata()),
        Err(status) => println!("{status}"),
    }
    Ok(())
}
