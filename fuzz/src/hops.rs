//! What proxies say in their handshakes, and hops as users write them.

use std::sync::Arc;
use std::time::Duration;

use portolan_core::kit::auth::{Digest, challenges};
use portolan_core::{
    BoxFuture, Connector, Credentials, Datagram, Dial, DialContext, Endpoint, Error, Hop, HopSchemes, Kind, ProxyAuth,
    Result, Stream,
};
use tokio::io::AsyncReadExt;

use crate::tape::Tape;

/// What a tunnel's target may have said already.
const EARLY: u64 = 1 << 20;

/// A way on which the other end always says the same.
#[derive(Debug)]
struct Said {
    bytes: Arc<[u8]>,
    piece: usize,
}

impl Dial for Said {
    fn dial<'a>(&'a self, _: &'a Endpoint, _: &'a DialContext) -> BoxFuture<'a, Result<Stream>> {
        Box::pin(async { Ok(Stream::from_io(Tape::new(&self.bytes, self.piece))) })
    }

    fn datagram<'a>(&'a self, _: &'a Endpoint, _: &'a DialContext) -> BoxFuture<'a, Result<Datagram>> {
        Box::pin(async { Err(Error::new(Kind::Unsupported, "streams alone")) })
    }
}

/// Each kind of hop towards a proxy that says this and closes: they end, at once; and without a login, whose turns may lie
/// in one piece or in two, alike however the bytes were cut. Then the same bytes as challenges, and as a way in text.
pub fn fuzzed_hops(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime can be made");
    let who = || Credentials::new("joe", "sesame");
    let http = || Hop::parse("http://proxy.test").expect("a hop");
    let socks = |url: &str| Hop::parse(url).expect("a hop");
    for (hop, alike) in [
        (http(), true),
        (http().auth(ProxyAuth::any(who())), false),
        (http().auth(ProxyAuth::strongest(who())), false),
        (http().auth(ProxyAuth::ntlm(who())), false),
        (socks("socks4a://proxy.test"), true),
        (socks("socks5h://proxy.test"), true),
        (socks("socks5h://joe:sesame@proxy.test"), true),
    ] {
        let outcomes = [data.len().max(1), 1].map(|piece| runtime.block_on(exchange(data, piece, hop.clone())));
        assert!(!alike || outcomes[0] == outcomes[1], "{hop:?}: the same bytes end alike: {}", data.escape_ascii());
    }
    let text = String::from_utf8_lossy(data);
    if let Some(mut digest) = Digest::strongest(&challenges([text.as_ref()])) {
        let _ = digest.authorize(&who(), "CONNECT", "target.test:443", None);
        digest.update([text.as_ref()]);
    }
    let _ = HopSchemes::default().ways(&text);
}

async fn exchange(data: &[u8], piece: usize, hop: Hop) -> std::result::Result<Vec<u8>, (Kind, Option<i64>)> {
    let bytes: Arc<[u8]> = data.into();
    let near = Endpoint::new("near.test", 1).expect("an endpoint");
    let said = Hop::custom("said", near, Arc::new(move |_, _| Arc::new(Said { bytes: bytes.clone(), piece })));
    let net = Connector::builder().via(said).via(hop).build().expect("a connector");
    let to = Endpoint::new("target.test", 443).expect("an endpoint");
    // The clock stands still while anything moves: what waits here would wait for ever.
    let connecting = tokio::time::timeout(Duration::from_secs(3600), net.connect(&to));
    let stream = connecting.await.expect("it hangs").map_err(|error| (error.kind(), error.code()))?;
    let mut early = Vec::new();
    let _ = stream.take(EARLY).read_to_end(&mut early).await;
    Ok(early)
}
