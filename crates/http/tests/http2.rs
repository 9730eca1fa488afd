//! HTTP/2 through the client: reuse, keepalive, GOAWAY, SETTINGS.

#![allow(clippy::disallowed_methods, clippy::large_futures, clippy::unwrap_used, reason = "a test plays the server")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, Version as Spoken};
use portolan_core::{Delivery, Kind};
use portolan_http::{Body, Client, Version};
use portolan_testbed::rogue::{Rogue, Script};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn client() -> Client {
    Client::builder().version(Version::Http2Only).build().unwrap()
}

/// A server of the h2 crate; `handle` gets the connection's number.
async fn server<F, Fut>(handle: F) -> (String, Arc<AtomicUsize>)
where
    F: Fn(usize, TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(handle(counter.fetch_add(1, Ordering::SeqCst), stream));
        }
    });
    (url, count)
}

/// Answers everything with 200 and `ok`.
async fn answers(_: usize, stream: TcpStream) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        body.send_data(Bytes::from_static(b"ok"), true).unwrap();
    }
}

async fn get(client: &Client, url: &str) -> bool {
    let response = client.get(url).send().await.unwrap();
    assert_eq!(response.version(), Spoken::HTTP_2);
    let reused = response.is_reused();
    assert_eq!(response.bytes().await.unwrap(), "ok");
    reused
}

#[tokio::test]
async fn reuses_http2_connection_for_multiple_requests() {
    let (url, connections) = server(answers).await;
    let client = client();
    for turn in 0..5 {
        assert_eq!(get(&client, &url).await, turn > 0);
    }
    let many = (0..50).map(|_| get(&client, &url));
    assert!(futures_util::future::join_all(many).await.into_iter().all(|reused| reused));
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

/// A server of bytes, which answers each request that is complete in one HEADERS frame, and each PING if `pings` says so.
async fn bytes_server(pings: bool) -> (String, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let pinged = Arc::new(AtomicUsize::new(0));
    let seen = pinged.clone();
    let (url, connections) = server(move |_, mut stream| {
        let seen = seen.clone();
        async move {
            let mut preface = [0; 24];
            if stream.read_exact(&mut preface).await.is_err() {
                return;
            }
            // ENABLE_PUSH = 0 from a server is a no-op (RFC 9113 6.5.2).
            stream.write_all(&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]).await.unwrap();
            let mut head = [0; 9];
            while stream.read_exact(&mut head).await.is_ok() {
                let mut payload =
                    vec![0; usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])];
                if stream.read_exact(&mut payload).await.is_err() {
                    return;
                }
                match (head[3], head[4] & 1) {
                    (4, 0) => stream.write_all(&[0, 0, 0, 4, 1, 0, 0, 0, 0]).await.unwrap(),
                    (6, 0) => {
                        seen.fetch_add(1, Ordering::SeqCst);
                        if pings {
                            stream.write_all(&[0, 0, 8, 6, 1, 0, 0, 0, 0]).await.unwrap();
                            stream.write_all(&payload).await.unwrap();
                        }
                    }
                    (1, _) => {
                        // :status 200, then `ok`.
                        let id = &head[5..9];
                        let mut reply = vec![0, 0, 1, 1, 4];
                        reply.extend_from_slice(id);
                        reply.extend_from_slice(&[0x88, 0, 0, 2, 0, 1]);
                        reply.extend_from_slice(id);
                        reply.extend_from_slice(b"ok");
                        stream.write_all(&reply).await.unwrap();
                    }
                    _ => {}
                }
            }
        }
    })
    .await;
    (url, connections, pinged)
}

const SHORT: Duration = Duration::from_millis(30);

/// Waits until `count` has reached `at_least`.
async fn until(count: &AtomicUsize, at_least: usize) {
    let wait = async {
        while count.load(Ordering::SeqCst) < at_least {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.expect("it comes to that");
}

#[tokio::test]
async fn reuses_http2_connection_after_keepalive_ping_ack() {
    let (url, connections, pinged) = bytes_server(true).await;
    let client =
        Client::builder().version(Version::Http2Only).h2_keepalive(SHORT, Duration::from_secs(10)).build().unwrap();
    assert!(!get(&client, &url).await);
    until(&pinged, 2).await;
    assert!(get(&client, &url).await);
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn opens_new_http2_connection_after_keepalive_ping_timeout() {
    let (url, connections, pinged) = bytes_server(false).await;
    let client = Client::builder().version(Version::Http2Only).h2_keepalive(SHORT, SHORT).build().unwrap();
    assert!(!get(&client, &url).await);
    until(&pinged, 1).await;
    let gone = async {
        while client.metrics().idle > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("the silent connection is given up");
    assert!(!get(&client, &url).await);
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn reuses_http2_connection_across_different_keepalive_configs() {
    let (url, connections, _) = bytes_server(true).await;
    let client = client();
    assert!(!get(&client, &url).await);
    let minute = Duration::from_secs(60);
    let response = client.get(&url).h2_keepalive(minute, minute).send().await.unwrap();
    assert!(response.is_reused());
    let response = client.get(&url).disable_h2_keepalive().send().await.unwrap();
    assert!(response.is_reused());
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn accepts_http2_settings_enable_push_from_server() {
    let (url, connections, _) = bytes_server(true).await;
    let client = client();
    for turn in 0..3 {
        assert_eq!(get(&client, &url).await, turn > 0);
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_request_after_goaway_takes_a_new_connection() {
    let (url, connections) = server(|_, stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        if let Some(Ok((_, mut respond))) = connection.accept().await {
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            body.send_data(Bytes::from_static(b"ok"), true).unwrap();
            connection.graceful_shutdown();
        }
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            let _ = body.send_data(Bytes::from_static(b"ok"), true);
        }
    })
    .await;
    let client = client();
    for _ in 0..5 {
        get(&client, &url).await;
        let drained = async {
            while client.metrics().idle > 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), drained).await.expect("a drained connection goes at once");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn a_refused_stream_is_sent_again_even_if_it_is_a_post() {
    let (url, _) = server(|number, stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let mut first = number == 0;
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            if std::mem::take(&mut first) {
                respond.send_reset(h2::Reason::REFUSED_STREAM);
                continue;
            }
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            body.send_data(Bytes::from_static(b"ok"), true).unwrap();
        }
    })
    .await;
    let response = self::client().post(&url).body("pay").send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.attempts()), (200, 2));
}

#[tokio::test]
async fn a_post_whose_fate_is_unknown_is_not_sent_again_and_a_get_is() {
    let (url, connections) = server(|_, stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let _ = connection.accept().await;
    })
    .await;
    let error = self::client().post(&url).body("pay").send().await.unwrap_err();
    assert_eq!(error.delivery(), Delivery::Unknown);
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    let error = self::client().get(&url).send().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Closed);
    assert_eq!(connections.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn more_streams_than_one_connection_may_have_make_a_second_one() {
    let (url, connections) = server(answers).await;
    let client = Client::builder().version(Version::Http2Only).max_streams_per_connection(10).build().unwrap();
    let many = (0..40).map(|_| get(&client, &url));
    futures_util::future::join_all(many).await;
    assert!(connections.load(Ordering::SeqCst) > 1);
}

#[tokio::test]
async fn preferring_http2_falls_back_where_the_server_speaks_none_and_only_there() {
    let prefer = || Client::builder().version(Version::PreferHttp2).build().unwrap();
    let (url, connections) = server(answers).await;
    let client = prefer();
    for turn in 0..2 {
        assert_eq!(get(&client, &url).await, turn > 0);
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    // One that takes the preface for a request, as servers of HTTP/1 do: nothing came of ours.
    let refused =
        Script::new().expect_until("SM\r\n\r\n").send("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let served = Script::new().expect_until("\r\n\r\npay").send(answer).expect_until("\r\n\r\n").send(answer);
    let old = Rogue::tcp(vec![refused.clone().expect_close(), served.expect_close()]).await;
    let (client, url) = (prefer(), format!("http://{}/", old.addr()));
    let response = client.post(&url).body("pay").send().await.unwrap();
    assert_eq!((response.version(), response.attempts(), response.is_reused()), (Spoken::HTTP_11, 1, false));
    assert_eq!(response.bytes().await.unwrap(), "ok");
    // It is remembered, so that the next request costs nothing.
    let response = client.get(&url).send().await.unwrap();
    assert!(response.is_reused() && response.bytes().await.unwrap() == "ok");
    assert_eq!(old.connections(), 2);
    // A body that was begun to be sent and can't be had again is not sent empty.
    let old =
        Rogue::tcp(vec![refused.clone().expect_close(), Script::new().expect_until("\r\n\r\n").send(answer)]).await;
    let body = Body::from_stream(futures_util::stream::iter([Ok::<_, std::io::Error>("once")]));
    let error = prefer().post(format!("http://{}/", old.addr())).body(body).send().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.delivery(), old.connections()),
        (Kind::Unsupported, Delivery::Refused, 1),
        "{error}"
    );
    // Who asks for HTTP/2 alone is told.
    let old = Rogue::tcp(refused.expect_close()).await;
    let error = self::client().get(format!("http://{}/", old.addr())).send().await.unwrap_err();
    assert_eq!((error.kind(), old.connections()), (Kind::Unsupported, 1));
    // What an HTTP/2 server says is no reason to ask for another version.
    let (url, connections) = server(|_, stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            respond.send_reset(h2::Reason::INTERNAL_ERROR);
        }
    })
    .await;
    let error = prefer().get(&url).send().await.unwrap_err();
    assert_eq!((error.code(), connections.load(Ordering::SeqCst)), (Some(2), 1), "{error}");
}

#[tokio::test]
async fn a_server_that_was_away_is_asked_for_http2_again() {
    let away = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = away.local_addr().unwrap();
    drop(away);
    let client = Client::builder().version(Version::PreferHttp2).retry(portolan_pool::Retry::never()).build().unwrap();
    let url = format!("http://{addr}/");
    assert_eq!(client.get(&url).send().await.unwrap_err().kind(), Kind::Connect);
    let listener = TcpListener::bind(addr).await.unwrap();
    tokio::spawn(async move { answers(0, listener.accept().await.unwrap().0).await });
    assert!(!get(&client, &url).await);
}

#[tokio::test]
async fn a_keepalive_that_is_said_for_a_request_holds_for_the_connection_that_is_made_for_it() {
    let long = Duration::from_secs(10);
    let (url, _, pinged) = bytes_server(true).await;
    let plain = client();
    let response = plain.get(&url).h2_keepalive(SHORT, long).send().await.unwrap();
    assert_eq!(response.bytes().await.unwrap(), "ok");
    until(&pinged, 2).await;
    // One without, beside one with: while the one is asked three times, the other never is.
    let (quiet, _, never) = bytes_server(true).await;
    let keeping = || Client::builder().version(Version::Http2Only).h2_keepalive(SHORT, long);
    let (keeping, disabled) = (keeping().build().unwrap(), keeping().disable_h2_keepalive().build().unwrap());
    let response = keeping.get(&quiet).disable_h2_keepalive().send().await.unwrap();
    assert_eq!(response.bytes().await.unwrap(), "ok");
    assert!(!get(&disabled, &quiet).await);
    let before = pinged.load(Ordering::SeqCst);
    until(&pinged, before + 3).await;
    assert_eq!(never.load(Ordering::SeqCst), 0);
    assert!(get(&plain, &url).await && get(&keeping, &quiet).await && get(&disabled, &quiet).await);
}

#[tokio::test]
async fn informational_responses_are_told() {
    let (url, _) = server(|_, stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            for link in ["</a.css>", "</b.css>"] {
                let hint = Response::builder().status(103).header("link", link).body(()).unwrap();
                respond.send_informational(hint).unwrap();
            }
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            body.send_data(Bytes::from_static(b"ok"), true).unwrap();
        }
    })
    .await;
    let hints: Arc<std::sync::Mutex<Vec<String>>> = Arc::default();
    let told = hints.clone();
    let request = client().get(&url).on_informational(move |hint| {
        told.lock().unwrap().push(format!("{} {}", hint.status().as_u16(), hint.headers()["link"].to_str().unwrap()));
    });
    assert_eq!(request.send().await.unwrap().bytes().await.unwrap(), "ok");
    assert_eq!(*hints.lock().unwrap(), ["103 </a.css>", "103 </b.css>"]);
}
