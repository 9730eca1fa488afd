//! Calls by HTTP and JSON, through gateways that others made: grpc-gateway (Go) and Envoy, over HTTP/1.1, HTTP/2 and HTTP/3.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]
#![allow(clippy::large_futures, reason = "a test's future may be as large as it likes")]

#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "support/peers.rs"]
mod peers;
#[path = "support/proto.rs"]
mod proto;

use std::fmt::Debug;
use std::time::Duration;

use peers::Peer;
use portolan_core::{Connector, Secret, Tls};
use portolan_grpc::details::Detail;
use portolan_grpc::dynamic::Schema;
use portolan_grpc::{Client, Code, Encoding, Json, Method, Status, Transcode};
use portolan_http::Version;
use portolan_testbed::record;
use prost::Message;
use prost_types::{Duration as Span, FieldMask, Timestamp};
use proto::google::api::HttpBody;
use proto::portolan::library::v1::{
    Book, ChangeBook, File, Filter, GetBook, Kind, LibraryClient, ListBooks, PagesClient, Publish, Watch,
};
use serde_json::{Value, json};

type Transport = Transcode<portolan_http::Client>;
type Library = LibraryClient<Transport>;

fn schema() -> Schema {
    Schema::from_descriptor_set(include_bytes!("generated/library.bin")).unwrap()
}

fn transport(peer: &Peer, version: Version) -> Transport {
    let mut connector = Connector::builder();
    if let Some(certs) = &peer.certs {
        connector = connector.tls(Tls::builder().root_pem(certs.ca.as_bytes()).build().unwrap());
    }
    let http = portolan_http::Client::builder().connector(connector.build().unwrap()).version(version);
    Transcode::new(http.build().unwrap(), &schema()).unwrap()
}

fn library(transport: Transport, url: &str) -> Library {
    LibraryClient::new(Client::new(transport, url).unwrap())
}

/// The request that arrived is the one that was sent.
fn arrived<M: Message + Default + PartialEq + Debug>(seen: &[u8], sent: &M) {
    assert_eq!(&M::decode(seen).unwrap(), sent);
}

fn shelf() -> Book {
    Book {
        title: "Tea & \"Sympathy\"\n\u{263a}".to_owned(),
        kind: Kind::Novel.into(),
        pages: -5,
        authors: vec!["A".to_owned(), "B".to_owned()],
        labels: [("x".to_owned(), "y".to_owned())].into(),
        printed: Some(Timestamp { seconds: 1_600_000_000, nanos: 500_000_000 }),
        ..Book::default()
    }
}

fn two(full: bool) -> GetBook {
    GetBook { name: "shelves/1/books/2".to_owned(), full, ..GetBook::default() }
}

/// Every kind of path and body.
async fn paths_and_bodies(library: &Library) {
    let by_name = GetBook { name: "shelves/a b/books/c%d\u{e9}?".to_owned(), full: true, ..GetBook::default() };
    let reply = library.get(&by_name).await.unwrap();
    arrived(&reply.message().seen, &by_name);
    assert_eq!((reply.message().kind(), reply.message().pages), (Kind::Poems, 1 << 60));
    // What has no name goes by the other binding.
    let by_id = GetBook { id: u64::MAX, ..GetBook::default() };
    arrived(&library.get(&by_id).await.unwrap().message().seen, &by_id);
    let create = ChangeBook { parent: "shelves/1".to_owned(), book: Some(shelf()), reason: "new / old?".to_owned() };
    arrived(&library.create(&create).await.unwrap().message().seen, &create);
    let named = Book { name: "shelves/1/books/2".to_owned(), ..shelf() };
    let update = ChangeBook { book: Some(named), ..ChangeBook::default() };
    arrived(&library.update(&update).await.unwrap().message().seen, &update);
    let publish = Publish {
        name: "shelves/1/books/2".to_owned(),
        r#where: "here".to_owned(),
        copies: vec![1, -2],
        kind: Kind::Poems.into(),
    };
    arrived(&library.announce(&publish).await.unwrap().message().seen, &publish);
    library.delete(&two(true)).await.unwrap();
}

/// A part of the response is the body, and the path is as long as it likes.
async fn parts(library: &Library) {
    let pages = PagesClient::new(library.client().clone());
    let file = File { path: "a/b c/d".to_owned() };
    arrived(&pages.read(&file).await.unwrap().into_message().book.unwrap().seen, &file);
}

/// Every kind of field that can be a parameter.
async fn parameters(library: &Library) {
    let filter = Filter {
        text: "a&b=c d+e".to_owned(),
        since: Some(Timestamp { seconds: 1_600_000_000, nanos: 0 }),
        age: Some(Span { seconds: 3, nanos: 500_000_000 }),
        note: Some("".to_owned()),
        also: Some(Box::new(Filter { text: "deeper".to_owned(), ..Filter::default() })),
    };
    let list = ListBooks {
        parent: "shelves/1".to_owned(),
        page_size: -7,
        kinds: vec![Kind::Poems.into(), Kind::Novel.into()],
        authors: vec!["A".to_owned(), "".to_owned(), "B, C".to_owned()],
        filter: Some(filter),
        score: 1e-300,
        cursor: vec![0xfb, 0xff, 0],
        mask: Some(FieldMask { paths: vec!["title".to_owned(), "pages".to_owned()] }),
        sorted: true,
        ..ListBooks::default()
    };
    arrived(&library.list(&list).await.unwrap().message().seen, &list);
    let labels = [("a".to_owned(), "b".to_owned())].into();
    let error = library.list(&ListBooks { labels, ..list.clone() }).await.unwrap_err();
    assert_eq!(error.kind(), portolan_core::Kind::Usage, "a map is no parameter");
    let error = library.list(&ListBooks { parent: "shelf".to_owned(), ..list.clone() }).await.unwrap_err();
    assert_eq!(error.kind(), portolan_core::Kind::Usage);
}

/// Metadata, deadlines and errors. `trailers` is whether the gateway hands them on.
async fn around(library: &Library, trailers: bool) {
    let call = library.get(&two(false)).metadata("x-tenant", "a").bearer(&Secret::new("t"));
    let reply = call.timeout(Duration::from_secs(7)).await.unwrap();
    assert_eq!((reply.metadata().get("x-tenant"), reply.metadata().get("x-auth")), (Some("a"), Some("Bearer t")));
    assert_eq!(reply.trailers().get("x-end"), Some("1").filter(|_| trailers));
    let left: f64 = reply.metadata().get("x-time-left").unwrap().parse().unwrap();
    assert!((5.0..=7.01).contains(&left), "{left}");
    let missing = GetBook { name: "shelves/1/books/missing".to_owned(), ..GetBook::default() };
    let status = Status::of(&library.get(&missing).await.unwrap_err());
    assert_eq!((status.code(), status.message()), (Code::NotFound, "no such book"));
    let status = Status::of(&library.get(&two(false)).metadata("x-fail", "1").await.unwrap_err());
    assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, "sold out: 100% \u{263a}"));
    let details = status.details().unwrap();
    let [Detail::RetryInfo(retry)] = &details[..] else { panic!("{details:?}") };
    assert_eq!(retry.delay(), Some(Duration::from_millis(1500)));
    // What the gateway knows nothing of.
    let nowhere = Method::new("/portolan.library.v1.Library/Nothing", Json::<Value, Value>::new()).unwrap();
    let error = library.client().unary(&nowhere, &json!({})).await.unwrap_err();
    assert_eq!(Status::of(&error).code(), Code::Unimplemented);
}

/// Calls by name, with the JSON of the caller's own and with that of the schema.
async fn by_name(library: &Library) {
    let get = schema().method("portolan.library.v1.Library/Get").unwrap();
    let reply = library.client().unary(&get, &json!({"name": "shelves/1/books/2"})).await.unwrap();
    assert_eq!((&reply.message()["kind"], &reply.message()["pages"]), (&json!("POEMS"), &json!("1152921504606846976")));
    let get = Method::new("/portolan.library.v1.Library/Get", Json::<Value, Value>::new()).unwrap();
    let reply = library.client().unary(&get, &json!({"id": "7"})).await.unwrap();
    assert_eq!(reply.message()["kind"], "POEMS");
}

fn watch(count: i32) -> Watch {
    Watch { parent: "shelves/1".to_owned(), count, ..Watch::default() }
}

async fn streams(library: &Library) {
    for count in [0, 1, 3] {
        let mut books = library.follow(&watch(count)).await.unwrap();
        for at in 0..count {
            assert_eq!(books.message().await.unwrap().unwrap().title, at.to_string());
        }
        assert!(books.message().await.unwrap().is_none());
    }
    // Larger than any buffer on the way, in many pieces.
    let mut books = library.follow(&Watch { size: 300_000, ..watch(3) }).await.unwrap();
    for _ in 0..3 {
        assert_eq!(books.message().await.unwrap().unwrap().title.len(), 300_001);
    }
    assert!(books.message().await.unwrap().is_none());
    let failing = Watch { code: 9, ..watch(2) };
    let mut books = library.follow(&failing).await.unwrap();
    for _ in 0..2 {
        books.message().await.unwrap().unwrap();
    }
    let status = Status::of(&books.message().await.unwrap_err());
    assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "enough"));
    // One that fails before it began.
    let error = async { library.follow(&Watch { code: 5, ..watch(0) }).await?.message().await }.await.unwrap_err();
    assert_eq!(Status::of(&error).code(), Code::NotFound);
    // One without end: what is not read waits, and what is let go is over.
    let mut books = library.follow(&Watch { endless: true, size: 1000, ..watch(0) }).await.unwrap();
    for _ in 0..100 {
        books.message().await.unwrap().unwrap();
    }
    drop(books);
    arrived(&library.get(&two(true)).await.unwrap().message().seen, &two(true));
}

fn change(title: &str) -> ChangeBook {
    ChangeBook { book: Some(Book { title: title.to_owned(), ..shelf() }), ..ChangeBook::default() }
}

/// Streams to the server. Envoy loses large ones that come to its QUIC by the loopback.
async fn uploads(library: &Library, large: bool) {
    for count in [0_usize, 1, 3, if large { 500 } else { 10 }] {
        let titles: Vec<String> = (0..count).map(|n| format!("<{n}\u{263a}\n\"]>")).collect();
        let changes: Vec<_> = titles.iter().map(|title| change(title)).collect();
        let call = library.collect(futures_util::stream::iter(changes)).compress(Encoding::Gzip);
        let book = call.await.unwrap().into_message();
        assert_eq!((book.title, book.pages), (titles.concat(), i64::try_from(count).unwrap()));
    }
    let size = if large { 300_000 } else { 3_000 };
    let messages = futures_util::stream::iter(vec![change(&"x".repeat(size)); 3]);
    let book = library.collect(messages).await.unwrap().into_message();
    assert_eq!((book.title.len(), book.pages), (3 * size, 3));
    // A server that has enough; grpc-gateway looks up only when the stream is over.
    let bad = ChangeBook { reason: "bad".to_owned(), ..ChangeBook::default() };
    let status = Status::of(&library.collect(futures_util::stream::iter([change("a"), bad])).await.unwrap_err());
    assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "enough"));
    // What can only be said by its messages can't be said at all.
    let error = library.gather(futures_util::stream::iter([change("a")])).await.unwrap_err();
    assert_eq!((Status::of(&error).code(), error.kind()), (Code::Unimplemented, portolan_core::Kind::Unsupported));
    // By name, with the caller's own JSON.
    let collect = Method::new("/portolan.library.v1.Library/Collect", Json::<Value, Value>::new()).unwrap();
    let items = [json!({"book": {"title": "a"}}), json!({"book": {"title": "b"}})];
    let reply = library.client().client_streaming(&collect, futures_util::stream::iter(items)).await.unwrap();
    assert_eq!((&reply.message()["title"], &reply.message()["pages"]), (&json!("ab"), &json!("2")));
}

/// grpc-gateway reads all messages before it hands the first one on.
async fn answered_at_the_end(library: &Library) {
    let titles = ["one", "two", "three"];
    let mut call = library.chat().await.unwrap();
    for title in titles {
        call.send(&change(title)).await.unwrap();
    }
    call.finish();
    for title in titles {
        assert_eq!(call.message().await.unwrap().unwrap().title, title);
    }
    assert!(call.message().await.unwrap().is_none());
}

/// Each message is answered before the next one is said.
async fn turns(library: &Library) {
    let mut call = library.chat().await.unwrap();
    for title in ["one", "two", "three"] {
        call.send(&change(title)).await.unwrap();
        assert_eq!(call.message().await.unwrap().unwrap().title, title);
    }
    call.finish();
    assert!(call.message().await.unwrap().is_none());
}

#[tokio::test]
async fn every_kind_of_mapping_reaches_grpc_gateway_over_http1_and_http2() {
    for (tls, version, way) in [
        (false, Version::Http1Only, "HTTP/1.1, cleartext"),
        (true, Version::Http1Only, "HTTP/1.1, TLS"),
        (true, Version::Http2Only, "HTTP/2, TLS"),
    ] {
        let Some((peer, _)) = peers::grpc_gateway(tls) else { return };
        let library = library(transport(&peer, version), &peer.url);
        paths_and_bodies(&library).await;
        parameters(&library).await;
        around(&library, true).await;
        by_name(&library).await;
        streams(&library).await;
        uploads(&library, true).await;
        answered_at_the_end(&library).await;
        parts(&library).await;
        record("grpc", "exchange", &peer.name, &format!("JSON transcoding, {way}"), 25);
    }
}

#[tokio::test]
async fn every_kind_of_mapping_reaches_envoy_over_http1_http2_and_http3() {
    let Some((peer, lines, _back)) = envoy() else { return };
    for (url, version, way) in [
        (&peer.url, Version::Http1Only, "HTTP/1.1, TLS"),
        (&peer.url, Version::Http2Only, "HTTP/2, TLS"),
        (&peer.url, Version::Http3Only, "HTTP/3"),
        (&lines, Version::Http1Only, "HTTP/1.1, cleartext, streams as lines"),
        (&lines, Version::Http2Only, "HTTP/2, cleartext, streams as lines"),
    ] {
        let library = library(transport(&peer, version).plain_metadata(), url);
        paths_and_bodies(&library).await;
        parameters(&library).await;
        around(&library, version != Version::Http1Only).await;
        by_name(&library).await;
        streams(&library).await;
        bodies_as_they_are(&library).await;
        let arrays = transport(&peer, version).plain_metadata().array_uploads();
        let library = self::library(arrays, url);
        uploads(&library, version != Version::Http3Only).await;
        if version != Version::Http1Only {
            turns(&library).await;
        }
        record("grpc", "exchange", &peer.name, &format!("JSON transcoding, {way}"), 28);
    }
}

fn envoy() -> Option<(Peer, String, Peer)> {
    let (back, port) = peers::grpc_gateway(false)?;
    let (peer, lines) = peers::envoy(port)?;
    Some((peer, lines, back))
}

/// Bodies that are no JSON.
async fn bodies_as_they_are(library: &Library) {
    let file = File { path: "plain".to_owned() };
    let body = library.download(&file).await.unwrap().into_message();
    assert_eq!((&*body.content_type, &body.data[..]), ("text/x-plain", &b"\0raw\xff"[..]));
    let upload = HttpBody { content_type: "image/x".to_owned(), data: vec![0, 1, 0xff], ..HttpBody::default() };
    arrived(&library.upload(&upload).await.unwrap().message().seen, &upload);
}

#[tokio::test]
async fn a_binding_can_be_chosen() {
    let Some((peer, _)) = peers::grpc_gateway(false) else { return };
    let both = GetBook { id: 7, ..two(true) };
    for index in [0, 1] {
        let transport = transport(&peer, Version::Http1Only);
        let transport = transport.binding("portolan.library.v1.Library/Get", index).unwrap();
        // What is not in the path of the one is a parameter of it, and so nothing is lost by either.
        arrived(&library(transport, &peer.url).get(&both).await.unwrap().message().seen, &both);
    }
    let transport = transport(&peer, Version::Http1Only);
    assert!(transport.clone().binding("portolan.library.v1.Library/Get", 2).is_err());
    assert!(transport.clone().binding("portolan.library.v1.Library/Nothing", 0).is_err());
    let only = library(transport.binding("/portolan.library.v1.Library/Get", 0).unwrap(), &peer.url);
    let error = only.get(&GetBook { id: 7, ..GetBook::default() }).await.unwrap_err();
    assert_eq!(error.kind(), portolan_core::Kind::Usage);
}

#[tokio::test]
async fn a_gateway_that_loses_its_server_in_the_midst_of_a_stream_is_an_error() {
    let Some((peer, _lines, back)) = envoy() else { return };
    let library = library(transport(&peer, Version::Http2Only).plain_metadata(), &peer.url);
    let mut books = library.follow(&Watch { endless: true, size: 1000, ..watch(0) }).await.unwrap();
    books.message().await.unwrap().unwrap();
    drop(back);
    let error = loop {
        match books.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a stream without end has ended well"),
            Err(error) => break error,
        }
    };
    assert_ne!(Status::of(&error).code(), Code::Ok, "{error}");
    let error = library.get(&two(false)).await.unwrap_err();
    assert_eq!(Status::of(&error).code(), Code::Unavailable, "{error}");
}
