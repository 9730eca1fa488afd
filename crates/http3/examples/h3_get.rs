//! Fetches one URL over HTTP/3: `cargo run -p portolan-http3 --example h3_get -- https://HOST/`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example shows what it does")]

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty};
use portolan_core::{Connector, Endpoint};
use portolan_http3::{Options, connect};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).ok_or("give a URL")?;
    let uri: Uri = url.parse()?;
    let host = uri.host().ok_or("the URL has no host")?;
    let to = Endpoint::new(host, uri.port_u16().unwrap_or(443))?;
    let (client, connection) = connect(&Connector::default(), &to, Options::new()).await?;
    let driver = tokio::spawn(connection);
    let request = Request::get(uri).header("user-agent", "portolan").body(Empty::<Bytes>::new())?;
    let response = client.send(request).await?;
    eprintln!("{:?} {}", response.version(), response.status());
    for (name, value) in response.headers() {
        eprintln!("{name}: {}", String::from_utf8_lossy(value.as_bytes()));
    }
    let body = response.into_body().collect().await?.to_bytes();
    println!("{}", String::from_utf8_lossy(&body));
    drop(client);
    driver.await??;
    Ok(())
}
