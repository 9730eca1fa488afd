//! CONNECT over HTTP/2: nghttpx in front of tinyproxy and squid.

use portolan_core::{Connector, Credentials, Endpoint, Error, Hop, Kind, Roots, Tls};
use portolan_http2::hop::{Proxy as Made, connect};
use portolan_testbed::{Certs, free_port, record};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Proxy, ann, pass, redis, refused_login, run, squid, tinyproxy};

/// TLS and HTTP/2 towards us (cleartext without `certs`), CONNECT by HTTP/1.1 to the proxy behind.
pub(super) fn nghttpx(certs: Option<&Certs>, behind: u16) -> Option<Proxy> {
    let port = free_port();
    let front = format!("--frontend=127.0.0.1,{port}{}", if certs.is_some() { "" } else { ";no-tls" });
    let back = format!("--backend=127.0.0.1,{behind}");
    let mut args =
        vec!["--conf=/dev/null", "--http2-proxy", "--workers=1", "--backend-connections-per-host=200", &front, &back];
    if certs.is_some() {
        args.extend(["$D/server.key", "$D/server.pem"]);
    }
    let change = |service: portolan_testbed::Service| {
        let service = service.args(args);
        if let Some(certs) = certs { service.tls(certs) } else { service }
    };
    run("nghttp2-proxy", "nghttpx", port, change, &["--version"])
}

pub(super) fn trusting(certs: &Certs) -> Tls {
    Tls::builder().roots(Roots::Custom).root_pem(certs.ca.as_bytes()).build().unwrap()
}

pub(super) fn h2(proxy: &Proxy) -> Made {
    Made::new(proxy.endpoint())
}

#[tokio::test]
async fn redis_through_nghttpx_with_and_without_login() {
    let Some((_redis, to)) = redis() else { return };
    let certs = Certs::new();
    let tls = trusting(&certs);
    for auth in [false, true] {
        let Some(tiny) = tinyproxy(free_port(), auth) else { return };
        let Some(front) = nghttpx(Some(&certs), tiny.addr.port()) else { return };
        let hop = if auth { h2(&front).credentials(ann()) } else { h2(&front) }.hop();
        pass(&to, std::slice::from_ref(&hop), Some(&tls)).await.unwrap();
        record("h2-connect", "peer", &front.version, if auth { "TLS, basic login" } else { "TLS, no login" }, 4);
        let error = pass(&to, &[hop], None).await.unwrap_err();
        assert_eq!((error.kind(), error.hop()), (Kind::Tls, Some(0)), "{error:?}");
        let Some(plain) = nghttpx(None, tiny.addr.port()) else { return };
        let url = format!("http://{}localhost:{}", if auth { "ann:sesame@" } else { "" }, plain.addr.port());
        pass(&to, &[connect(&url).unwrap()], None).await.unwrap();
        record("h2-connect", "peer", &plain.version, "cleartext by prior knowledge", 4);
        if auth {
            for hop in [h2(&front).hop(), h2(&front).credentials(Credentials::new("ann", "wrong")).hop()] {
                refused(&pass(&to, &[hop], Some(&tls)).await.unwrap_err(), 0);
            }
        }
    }
}

/// Tinyproxy answers a wrong login with 401, which is for origins: then it is a refusal like any other.
fn refused(error: &Error, place: usize) {
    match error.code() {
        Some(407) => refused_login(error, Some(407)),
        _ => assert_eq!((error.kind(), error.hop(), error.code()), (Kind::Hop, Some(place), Some(401)), "{error:?}"),
    }
    assert!(!format!("{error:?}").contains("wrong"));
}

#[tokio::test]
async fn squid_behind_nghttpx_refuses_and_lets_pass() {
    let Some((_redis, to)) = redis() else { return };
    let certs = Certs::new();
    let Some(squid) = squid(&certs, free_port(), free_port()) else { return };
    let Some(front) = nghttpx(Some(&certs), squid.addr.port()) else { return };
    let tls = trusting(&certs);
    pass(&to, &[h2(&front).credentials(ann()).hop()], Some(&tls)).await.unwrap();
    record("h2-connect", "peer", &format!("{} before {}", front.version, squid.version), "basic login", 4);
    for hop in [h2(&front).hop(), h2(&front).credentials(Credentials::new("ann", "wrong")).hop()] {
        refused_login(&pass(&to, &[hop], Some(&tls)).await.unwrap_err(), Some(407));
    }
    let nobody = Endpoint::new("localhost", free_port()).unwrap();
    let error = pass(&nobody, &[h2(&front).credentials(ann()).hop()], Some(&tls)).await.unwrap_err();
    assert_eq!((error.kind(), error.code(), error.hop()), (Kind::Hop, Some(503), Some(0)), "{error:?}");
    // A chain of unlike hops, the inner one reached through the first.
    let outer = Hop::http(squid.endpoint()).credentials(ann());
    pass(&to, &[outer, h2(&front).credentials(ann()).hop()], Some(&tls)).await.unwrap();
}

#[tokio::test]
async fn fifty_tunnels_share_one_connection_to_nghttpx() {
    let Some((_redis, to)) = redis() else { return };
    let certs = Certs::new();
    let Some(tiny) = tinyproxy(free_port(), false) else { return };
    let Some(front) = nghttpx(Some(&certs), tiny.addr.port()) else { return };
    let net = Connector::builder().via(h2(&front).hop()).hop_tls(trusting(&certs)).build().unwrap();
    let dials = (0..50).map(|_| {
        let (net, to) = (net.clone(), to.clone());
        tokio::spawn(async move {
            let mut stream = net.connect(&to).await.unwrap();
            stream.write_all(b"PING\r\n").await.unwrap();
            let mut pong = [0; 7];
            stream.read_exact(&mut pong).await.unwrap();
            assert_eq!(&pong, b"+PONG\r\n");
            stream
        })
    });
    let mut streams = Vec::new();
    for dial in dials.collect::<Vec<_>>() {
        streams.push(dial.await.unwrap());
    }
    let locals: std::collections::HashSet<_> = streams.iter().map(|stream| stream.info().local).collect();
    assert_eq!(locals.len(), 1);
    assert_eq!(streams.iter().filter(|stream| stream.info().hops[0].reused).count(), 49);
    record("h2-connect", "peer", &front.version, "50 tunnels on one connection", 50);
}
