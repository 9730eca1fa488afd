//! Every kind of hop, near and further down a chain of real proxies, before a proxy that is none: each failure names the place,
//! keeps the password, and nothing reaches the target by another way.

use std::time::Duration;

use futures_util::future::join_all;
use portolan::hop_schemes;
use portolan_core::{Connector, Delivery, Endpoint, Error, Hop, Kind, Timeouts};
use portolan_testbed::free_port;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, UdpSocket};

use super::{danted, microsocks};

const SCHEMES: [&str; 11] =
    ["http", "https", "socks4", "socks4a", "socks5", "socks5h", "h2", "h2c", "h3", "ws+tunnel", "wss+tunnel"];

/// What somebody says who is no proxy.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Says {
    /// He is not there.
    Refuses,
    Closes,
    Nothing,
    Words(&'static [u8]),
}

const ALL: [Says; 6] = [
    Says::Refuses,
    Says::Closes,
    Says::Nothing,
    Says::Words(b"\x04\x5b\x07 what no proxy says\r\n\r\n"),
    Says::Words(b"HTTP/1.1 503 no\r\nContent-Length: 4\r\n\r\nbusy"),
    Says::Words(b"SSH-2.0-nobody\r\n"),
];

/// One that says it on TCP and UDP; the sockets live as long as the test.
async fn nobody(says: Says) -> u16 {
    if says == Says::Refuses {
        return free_port();
    }
    let (listener, socket) = loop {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        if let Ok(socket) = UdpSocket::bind(listener.local_addr().unwrap()).await {
            break (listener, socket);
        }
    };
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut kept, mut room) = (Vec::new(), [0; 2048]);
        loop {
            tokio::select! {
                Ok((mut stream, _)) = listener.accept() => {
                    if let Says::Words(words) = says {
                        let _ = stream.write_all(words).await;
                    }
                    if says != Says::Closes {
                        kept.push(stream);
                    }
                }
                Ok((_, from)) = socket.recv_from(&mut room) => {
                    if let Says::Words(words) = says {
                        let _ = socket.send_to(words, from).await;
                    }
                }
            }
        }
    });
    port
}

async fn fails(near: Vec<Hop>, hop: Hop, to: Endpoint) -> Error {
    let short = Duration::from_millis(1500);
    let timeouts = Timeouts::default().attempt(short).hop(short).tls(short);
    let net = near.into_iter().fold(Connector::builder(), |net, hop| net.via(hop)).via(hop).timeouts(timeouts);
    let net = net.build().unwrap();
    assert!(!format!("{net:?}").contains("sesame"));
    net.connect(&to).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_none_is_named_by_its_place_in_every_chain() {
    let (Some(dante), Some(micro)) = (danted(free_port()), microsocks(free_port(), false)) else { return };
    let trap = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = Endpoint::from(trap.local_addr().unwrap());
    let chains = [
        vec![],
        vec![Hop::socks5(dante.endpoint())],
        vec![Hop::socks5h(micro.endpoint()), Hop::socks5(dante.endpoint())],
    ];
    let mut cases = Vec::new();
    for says in ALL {
        let port = nobody(says).await;
        let mut texts: Vec<_> =
            SCHEMES.iter().map(|scheme| format!("{scheme}://ann:sesame@127.0.0.1:{port}")).collect();
        texts.push(format!("ssh://ann:sesame@127.0.0.1:{port}?fingerprint=SHA256:{}", "x".repeat(43)));
        for (text, near) in texts.iter().flat_map(|text| chains.iter().map(move |near| (text.clone(), near.clone()))) {
            // Datagrams pass one relay here: microsocks has none.
            if near.len() < 2 || !text.starts_with("h3") {
                cases.push((says, text, near));
            }
        }
    }
    let count = cases.len();
    let told = join_all(cases.into_iter().map(|(says, text, near)| {
        let to = to.clone();
        async move {
            let (place, hop) = (near.len(), hop_schemes().hop(&text).unwrap());
            (says, text, place, fails(near, hop, to).await)
        }
    }));
    for (says, text, place, error) in told.await {
        let kind = matches!(error.kind(), Kind::Hop | Kind::Tls | Kind::Timeout);
        // A proxy that cannot reach the next one says so itself.
        let by = if says == Says::Refuses && place > 0 { place - 1 } else { place };
        assert!(
            kind && (error.hop() == Some(by) || error.hop() == Some(place)),
            "{says:?} {text} at {place}: {error:?}"
        );
        assert_eq!(error.delivery(), Delivery::NotSent, "{says:?} {text} at {place}: {error:?}");
        assert!(!format!("{error:?} {error}").contains("sesame"), "{says:?} {text} at {place}");
    }
    assert_eq!(count, ALL.len() * (SCHEMES.len() + 1) * 3 - ALL.len());
    assert!(tokio::time::timeout(Duration::from_millis(50), trap.accept()).await.is_err());
}
