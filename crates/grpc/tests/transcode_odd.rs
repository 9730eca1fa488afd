//! JSON transcoding against servers that say exactly what is wanted, right and wrong.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

#[path = "support/proto.rs"]
mod proto;
mod support;

use bytes::Bytes;
use http::Response;
use portolan_core::Kind;
use portolan_grpc::dynamic::Schema;
use portolan_grpc::{Client, Code, Encoding, Status, Transcode};
use portolan_http2::SendRequest;
use proto::portolan::library::v1::{Book, ChangeBook, File, GetBook, LibraryClient, PagesClient, Publish, Watch};
use support::{Call, Handler, Out, handler};

type Library = LibraryClient<Transcode<SendRequest>>;

fn transport(handle: Handler) -> Transcode<SendRequest> {
    let schema = Schema::from_descriptor_set(include_bytes!("generated/library.bin")).unwrap();
    Transcode::new(support::h2_half::client(handle).transport().clone(), &schema).unwrap()
}

fn library(transport: Transcode<SendRequest>) -> Library {
    LibraryClient::new(Client::new(transport, "http://library.test").unwrap())
}

async fn answer(call: &Call, status: u16, fields: &[(&str, &str)], body: impl Into<Bytes>) {
    let mut response = Response::new(());
    *response.status_mut() = status.try_into().unwrap();
    *response.headers_mut() = support::fields_of(fields);
    call.out(Out::Head(response, false)).await;
    call.out(Out::Data(body.into(), true)).await;
}

const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");

fn get(name: &str) -> GetBook {
    GetBook { name: format!("shelves/1/books/{name}"), ..GetBook::default() }
}

#[tokio::test]
async fn a_call_is_what_its_rule_says_and_nothing_of_grpc_is_left_in_it() {
    let transport = transport(handler(async |mut call| {
        let method = call.head.method.as_str().to_owned();
        let target = call.head.uri.path_and_query().unwrap().as_str().to_owned();
        let kind = call.header("content-type").map(str::to_owned);
        let mut body = Vec::new();
        while let Some(data) = call.body.recv().await {
            body.extend_from_slice(&data);
        }
        assert!(call.header("grpc-encoding").is_none() && call.header("grpc-accept-encoding").is_none());
        assert_eq!(
            (call.header("accept"), call.header("accept-encoding")),
            (Some("application/json"), Some("gzip,deflate,zstd"))
        );
        assert!(call.header("grpc-timeout").is_some() && call.header("grpc-metadata-x-tenant") == Some("a"));
        assert_eq!((call.header("grpc-metadata-x-bin"), call.header("x-tenant")), (Some("AAE"), None));
        let said = format!("{method} {target} {} {}", kind.as_deref().unwrap_or("-"), String::from_utf8(body).unwrap());
        let json = serde_json::json!({"title": said}).to_string();
        answer(&call, 200, &[JSON, ("grpc-metadata-x-a", "1"), ("grpc-metadata-grpc-status", "5")], json).await;
    }));
    let library = library(transport);
    macro_rules! said {
        ($call:expr) => {{
            let call = $call.metadata("x-tenant", "a").metadata_bin("x-bin", [0, 1]);
            let reply = call.timeout(std::time::Duration::from_secs(5)).await.unwrap();
            assert_eq!(reply.metadata().get("x-a"), Some("1"));
            reply.into_message().title
        }};
    }
    assert_eq!(said!(library.get(&GetBook { full: true, ..get("2") })), "GET /v1/shelves/1/books/2?full=true - ");
    assert_eq!(said!(library.get(&GetBook { id: 7, ..GetBook::default() })), "GET /v1/books/7 - ");
    let change = ChangeBook { parent: "shelves/1".to_owned(), ..ChangeBook::default() };
    assert_eq!(said!(library.create(&change)), "POST /v1/shelves/1/books - ");
    let change = ChangeBook { book: Some(Book { title: "\"".to_owned(), ..Book::default() }), ..change };
    assert_eq!(said!(library.create(&change)), r#"POST /v1/shelves/1/books application/json {"title":"\""}"#);
    let publish = Publish { name: "shelves/1/books/2".to_owned(), copies: vec![1], ..Publish::default() };
    let expected = r#"POST /v1/shelves/1/books/2:publish application/json {"copies":[1]}"#;
    assert_eq!(said!(library.announce(&publish)), expected);
}

#[tokio::test]
async fn what_would_lead_elsewhere_is_never_sent() {
    let library = library(transport(handler(async |_| panic!("it was sent"))));
    for name in ["..", ".", "", "2/3"] {
        assert_eq!(library.get(&get(name)).await.unwrap_err().kind(), Kind::Usage, "{name}");
    }
    let error = library.download(&File { path: "a/../../admin".to_owned() }).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
}

#[tokio::test]
async fn errors_have_the_status_that_they_say_or_that_of_http() {
    let transport = transport(handler(async |call| match call.path().rsplit('/').next().unwrap() {
        "google" => {
            let json = r#"{"error": {"code": 409, "message": "busy", "status": "ABORTED"}}"#;
            answer(&call, 409, &[JSON], json).await;
        }
        "html" => answer(&call, 503, &[("content-type", "text/html")], "<h1>").await,
        "gone" => answer(&call, 404, &[JSON], "{").await,
        "fields" => answer(&call, 200, &[("grpc-status", "9"), ("grpc-message", "not%20now")], "").await,
        "moved" => answer(&call, 302, &[("location", "/")], "").await,
        "large" => answer(&call, 200, &[JSON], format!("\"{}\"", "x".repeat(2000))).await,
        "other" => answer(&call, 200, &[("content-type", "text/html")], "<h1>").await,
        "broken" => answer(&call, 200, &[JSON], "{\"title\": ").await,
        "type" => answer(&call, 200, &[JSON], "{\"title\": 5}").await,
        "zip" => answer(&call, 200, &[JSON, ("content-encoding", "br")], "{}").await,
        _ => answer(&call, 400, &[JSON], vec![b'x'; 100_000]).await,
    }));
    let library = library(transport.max_response_bytes(1000));
    for (name, code, kind, message) in [
        ("google", Code::Aborted, Kind::Server, "busy"),
        ("html", Code::Unavailable, Kind::Server, "HTTP status 503"),
        ("gone", Code::NotFound, Kind::Server, "HTTP status 404"),
        ("fields", Code::FailedPrecondition, Kind::Server, "not now"),
        ("moved", Code::Unknown, Kind::Server, "HTTP status 302"),
        ("large", Code::ResourceExhausted, Kind::Limit, "a response longer"),
        ("other", Code::Unknown, Kind::Protocol, "a response of content type text/html"),
        ("broken", Code::Internal, Kind::Protocol, ""),
        ("type", Code::Internal, Kind::Protocol, ""),
        ("zip", Code::Internal, Kind::Protocol, ""),
        ("long", Code::InvalidArgument, Kind::Server, "HTTP status 400"),
    ] {
        let error = library.get(&get(name)).await.unwrap_err();
        let status = Status::of(&error);
        assert_eq!((status.code(), error.kind()), (code, kind), "{name}: {error}");
        assert!(status.message().contains(message), "{name}: {status}");
    }
}

#[tokio::test]
async fn bodies_may_be_compressed_absent_or_hold_what_is_not_known() {
    let transport = transport(handler(async |mut call| {
        if let Some("gzip") = call.header("content-encoding") {
            let body = call.body.recv().await.unwrap();
            let mut plain = String::new();
            std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&body[..]), &mut plain).unwrap();
            assert_eq!(plain, r#"{"where":"here"}"#);
            let mut small = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut small, br#"{"title": "small", "unknown": {"a": [1]}}"#).unwrap();
            return answer(&call, 201, &[JSON, ("content-encoding", "gzip")], small.finish().unwrap()).await;
        }
        match call.path() {
            "/v1/files/a" => answer(&call, 200, &[JSON], r#"{"title": "part"}"#).await,
            _ => answer(&call, 204, &[], "").await,
        }
    }));
    let library = library(transport.clone());
    let publish = Publish { name: "shelves/1/books/2".to_owned(), r#where: "here".to_owned(), ..Publish::default() };
    let reply = library.announce(&publish).compress(Encoding::Gzip).await.unwrap();
    assert_eq!(reply.message().title, "small");
    assert_eq!(library.get(&get("2")).await.unwrap().into_message(), Book::default());
    library.delete(&get("2")).await.unwrap();
    let pages = PagesClient::new(Client::new(transport, "http://library.test").unwrap());
    let content = pages.read(&File { path: "a".to_owned() }).await.unwrap().into_message();
    assert_eq!(content.book.unwrap().title, "part");
}

/// What a stream of these bytes gives, each byte by itself or all at once: titles, and how it ended.
async fn stream(library: &Library, name: &str) -> (Vec<String>, Option<(Code, Kind)>) {
    let watch = Watch { parent: format!("shelves/{name}"), ..Watch::default() };
    let mut titles = Vec::new();
    let mut books = library.follow(&watch).await.unwrap();
    loop {
        match books.message().await {
            Ok(Some(book)) => titles.push(book.title),
            Ok(None) => return (titles, None),
            Err(error) => return (titles, Some((Status::of(&error).code(), error.kind()))),
        }
    }
}

#[tokio::test]
async fn streams_are_read_in_every_form_and_never_end_well_when_cut() {
    const LINES: &str = "{\"result\":{\"title\":\"a\"}}\n{\"result\":{\"title\":\"b}\"}}";
    const ARRAY: &str = "[{\"title\":\"a\"},\n{\"title\":\"b}\"}]";
    let handle = || {
        handler(async |call: Call| {
            let name = call.path().split('/').nth(3).unwrap().to_owned();
            let (how, step) = name.split_once('-').unwrap();
            let body = match how {
                "lines" => LINES.to_owned() + "\n",
                "open" => LINES.to_owned(),
                "plain" => LINES.replace("\"result\":{", "").replace("}}", "}"),
                "array" => ARRAY.to_owned(),
                "error" => LINES.to_owned() + "{\"error\":{\"grpc_code\":9,\"message\":\"enough\"}}\n{}",
                "riddle" => LINES.to_owned() + "{\"error\":\"x\"}",
                "cutline" => LINES[..LINES.len() - 1].to_owned(),
                "cutarray" => ARRAY[..ARRAY.len() - 1].to_owned(),
                "trailing" => ARRAY[..ARRAY.len() - 1].to_owned(),
                "type" => "{\"result\":{\"title\":1}}".to_owned(),
                "large" => format!("{{\"result\":{{\"title\":\"{}", "x".repeat(2000)),
                _ => String::new(),
            };
            call.start(&[JSON]).await;
            let step = if step == "whole" { body.len().max(1) } else { 1 };
            for piece in body.as_bytes().chunks(step) {
                call.raw(Bytes::copy_from_slice(piece)).await;
            }
            match how {
                "trailing" => call.end(&[("grpc-status", "14")]).await,
                _ => call.out(Out::Data(Bytes::new(), true)).await,
            }
        })
    };
    let library = library(transport(handle()).max_response_bytes(1000));
    let internal = Some((Code::Internal, Kind::Protocol));
    for (name, count, end) in [
        ("lines", 2, None),
        ("open", 2, None),
        ("plain", 2, None),
        ("array", 2, None),
        ("empty", 0, None),
        ("error", 2, Some((Code::FailedPrecondition, Kind::Server))),
        ("riddle", 2, Some((Code::Unknown, Kind::Server))),
        ("cutline", 1, internal),
        ("cutarray", 2, internal),
        ("trailing", 2, Some((Code::Unavailable, Kind::Server))),
        ("type", 0, internal),
        ("large", 0, Some((Code::ResourceExhausted, Kind::Limit))),
    ] {
        for step in ["whole", "bytes"] {
            let (titles, ended) = stream(&library, &format!("{name}-{step}")).await;
            assert_eq!((titles.len(), ended), (count, end), "{name} {step}");
            assert!(titles.iter().zip(["a", "b}"]).all(|(title, expected)| title == expected), "{titles:?}");
        }
    }
    // Told so, an object of `result` is a message as any other, of which nothing is known here.
    let plain = self::library(transport(handle()).plain_streams());
    assert_eq!(stream(&plain, "lines-whole").await, (vec![String::new(); 2], None));
}
