//! The source: reconnection under paused time by scripted fetches, and over HTTP/2 against the h2 crate's server.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use portolan_core::{BoxError, Error, Kind, Phase, clock};
use portolan_sse::{EventSource, Fetch, Limits, Options, Rejected, State, headers};

type Chunk = Result<Frame<Bytes>, BoxError>;
type Body = StreamBody<std::pin::Pin<Box<dyn futures_util::Stream<Item = Chunk> + Send>>>;

/// What one fetch comes to.
#[derive(Clone)]
enum Answer {
    Stream(&'static [&'static str]),
    /// The same, and then the body fails.
    Broken(&'static [&'static str]),
    /// The same, and then silence.
    Silent(&'static [&'static str]),
    Status(u16, &'static str),
    /// A refusal, and what it says.
    Refusal(u16, &'static [&'static str]),
    Type(&'static str),
    Fails(Kind),
}

/// When a stream was asked for, and from which event on.
type Asked = (clock::Instant, Option<String>);

/// Gives the answers in turn and the last one for ever, and remembers when it was asked with which id.
#[derive(Clone)]
struct Script {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Script {
    fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self { answers: Arc::new(Mutex::new(answers.into_iter().collect())), asked: Arc::default() }
    }

    fn ids(&self) -> Vec<Option<String>> {
        self.asked.lock().unwrap().iter().map(|(_, id)| id.clone()).collect()
    }

    fn waits(&self) -> Vec<Duration> {
        self.asked.lock().unwrap().windows(2).map(|pair| pair[1].0 - pair[0].0).collect()
    }
}

impl Fetch for Script {
    type Body = Body;

    fn fetch(&mut self, id: Option<Arc<str>>) -> impl Future<Output = Result<Response<Body>, Error>> + Send + 'static {
        self.asked.lock().unwrap().push((clock::now(), id.map(|id| id.to_string())));
        let mut answers = self.answers.lock().unwrap();
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }.unwrap();
        async move { respond(answer) }
    }
}

fn respond(answer: Answer) -> Result<Response<Body>, Error> {
    let body = |chunks: &'static [&'static str]| {
        futures_util::stream::iter(chunks).map(|text| Ok(Frame::data(Bytes::from_static(text.as_bytes()))))
    };
    let broken = futures_util::stream::once(async { Err("reset".into()) });
    let (status, kind, after, stream): (_, _, _, std::pin::Pin<Box<dyn futures_util::Stream<Item = Chunk> + Send>>) =
        match answer {
            Answer::Fails(kind) => return Err(Error::new(kind, "scripted")),
            Answer::Stream(chunks) => (200, "text/event-stream", "", Box::pin(body(chunks))),
            Answer::Broken(chunks) => (200, "text/event-stream", "", Box::pin(body(chunks).chain(broken))),
            Answer::Silent(chunks) => {
                (200, "text/event-stream", "", Box::pin(body(chunks).chain(futures_util::stream::pending())))
            }
            Answer::Refusal(status, chunks) => (status, "application/json", "", Box::pin(body(chunks))),
            Answer::Status(status, after) => (status, "text/html", after, Box::pin(body(&[]))),
            Answer::Type(kind) => (200, kind, "", Box::pin(body(&["data:x\n\n"]))),
        };
    let mut response = Response::builder().status(status).header("content-type", kind);
    if !after.is_empty() {
        response = response.header("retry-after", after);
    }
    Ok(response.body(StreamBody::new(stream)).unwrap())
}

async fn data(source: &mut EventSource<Script>) -> String {
    source.recv().await.unwrap().unwrap().data
}

#[tokio::test(start_paused = true)]
async fn it_comes_back_with_the_last_id_which_is_kept_over_several_connections() {
    let script = Script::new([
        Answer::Stream(&["id:1\nda", "ta:a\n\nid:2\nda", "ta:b\n\nid:3\ndata:cut"]),
        Answer::Broken(&["data:c\n\n"]),
        Answer::Fails(Kind::Connect),
        Answer::Stream(&["id\ndata:d\n\n"]),
        Answer::Status(204, ""),
    ]);
    let mut source = EventSource::new(script.clone(), Options::new());
    let mut seen = Vec::new();
    while let Some(event) = source.next().await {
        seen.push(event.unwrap().data);
    }
    assert_eq!(seen, ["a", "b", "c", "d"]);
    let two = || Some("2".to_owned());
    assert_eq!(script.ids(), [None, two(), two(), two(), None]);
    assert_eq!(source.state(), State::Closed);
    assert!(source.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_retry_of_the_server_stays_until_it_says_another() {
    let script = Script::new([
        Answer::Stream(&["retry:10000\ndata:a\n\n"]),
        Answer::Stream(&["data:b\n\n"]),
        Answer::Stream(&["data:c\nretry:20000\n\n"]),
        Answer::Silent(&["data:d\n\n"]),
    ]);
    let mut source = EventSource::new(script.clone(), Options::new());
    for expected in ["a", "b", "c", "d"] {
        assert_eq!(data(&mut source).await, expected);
    }
    let secs = |range: std::ops::RangeInclusive<u64>| {
        Duration::from_secs(*range.start())..=Duration::from_secs(*range.end()) + Duration::from_millis(10)
    };
    let waits = script.waits();
    assert!(secs(5..=10).contains(&waits[0]) && secs(5..=10).contains(&waits[1]), "{waits:?}");
    assert!(secs(10..=20).contains(&waits[2]), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn a_retry_of_zero_does_not_spin_and_a_server_that_always_closes_is_given_up() {
    let script = Script::new([Answer::Stream(&["retry:0\n\n"])]);
    let mut source = EventSource::new(script.clone(), Options::new().max_failures(Some(8)));
    let error = source.recv().await.unwrap_err();
    assert!(error.is_closed(), "{error}");
    let waits = script.waits();
    assert_eq!(waits.len(), 8);
    assert!(waits.iter().all(|wait| *wait >= Duration::from_millis(500)), "{waits:?}");
    assert!(waits[7] > Duration::from_secs(20) && waits[7] <= Duration::from_secs(61), "{waits:?}");
    assert_eq!(source.recv().await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn an_event_makes_up_for_failures() {
    let script = Script::new([
        Answer::Fails(Kind::Connect),
        Answer::Fails(Kind::Connect),
        Answer::Stream(&["data:a\n\n"]),
        Answer::Fails(Kind::Timeout),
        Answer::Fails(Kind::Closed),
        Answer::Silent(&["data:b\n\n"]),
    ]);
    let mut source = EventSource::new(script.clone(), Options::new().max_failures(Some(3)));
    assert_eq!((data(&mut source).await, data(&mut source).await), ("a".into(), "b".into()));
    assert_eq!(source.last_error().unwrap().kind(), Kind::Closed);
    assert!(script.waits()[2] <= Duration::from_millis(3010), "{:?}", script.waits());
}

#[tokio::test(start_paused = true)]
async fn a_quiet_connection_that_lasted_is_no_failure() {
    let quiet = [Answer::Silent(&[]), Answer::Silent(&[":\n\n"])].into_iter().cycle().take(20);
    let script = Script::new(quiet.chain([Answer::Stream(&["data:a\n\n"])]));
    // Silence ends them, as a proxy would.
    let options = Options::new().max_failures(Some(3)).idle_timeout(Duration::from_secs(30));
    let mut source = EventSource::new(script.clone(), options);
    assert_eq!(data(&mut source).await, "a");
    assert!(script.waits().iter().all(|wait| *wait <= Duration::from_secs(34)), "{:?}", script.waits());
}

#[tokio::test(start_paused = true)]
async fn statuses_types_and_futile_errors_are_the_end() {
    for (answer, kind, code) in [
        (Answer::Status(404, ""), Kind::Server, Some(404)),
        (Answer::Status(201, ""), Kind::Server, Some(201)),
        (Answer::Status(503, "1"), Kind::Server, Some(503)),
        (Answer::Type("text/plain"), Kind::Protocol, None),
        (Answer::Type("text/event-streams"), Kind::Protocol, None),
        (Answer::Fails(Kind::Blocked), Kind::Blocked, None),
    ] {
        let script = Script::new([answer]);
        let mut source = EventSource::new(script.clone(), Options::new());
        let error = source.recv().await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (kind, code), "{error}");
        assert_eq!((source.recv().await.unwrap(), script.ids().len()), (None, 1));
    }
    let mut source = EventSource::new(Script::new([Answer::Type("Text/Event-Stream; charset=utf-8")]), Options::new());
    assert_eq!(data(&mut source).await, "x");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_carries_status_headers_and_a_bounded_body() {
    let why: &[&str] = &["{\"error\":", "\"model not found\"}"];
    let long: &[&str] = &["0123456789abcdef"; 2000];
    for (answer, status, body) in [
        (Answer::Refusal(400, why), 400, why.concat()),
        (Answer::Refusal(429, why), 429, why.concat()),
        (Answer::Refusal(500, long), 500, long.concat()[..16 << 10].to_owned()),
        (Answer::Type("text/html"), 200, "data:x\n\n".to_owned()),
    ] {
        let mut source = EventSource::new(Script::new([answer]), Options::new());
        let error = source.recv().await.unwrap_err();
        let rejected = error.server::<Rejected>().unwrap();
        assert_eq!((rejected.status.as_u16(), &rejected.body[..]), (status, body.as_bytes()));
        assert!(rejected.headers.contains_key("content-type"));
        assert_eq!(source.recv().await.unwrap(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_whose_body_never_ends_is_given_all_the_same() {
    let fetch = |_| async {
        let body = futures_util::stream::iter([Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"wait")))]);
        let body = StreamBody::new(Box::pin(body.chain(futures_util::stream::pending())));
        Ok(Response::builder().status(403).body(body).unwrap())
    };
    let started = clock::now();
    let error = EventSource::new(fetch, Options::new()).recv().await.unwrap_err();
    assert_eq!((error.code(), &error.server::<Rejected>().unwrap().body[..]), (Some(403), &b"wait"[..]));
    assert_eq!(clock::now() - started, Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_busy_server_is_asked_again_when_it_says_where_that_is_wanted() {
    let script = Script::new([Answer::Status(503, "17"), Answer::Stream(&["data:a\n\n"])]);
    let mut source = EventSource::new(script.clone(), Options::new().retry_server_errors(true));
    assert_eq!(data(&mut source).await, "a");
    assert_eq!(script.waits()[0].as_secs(), 17);
}

#[tokio::test(start_paused = true)]
async fn silence_is_a_lost_connection_and_a_comment_is_not_silence() {
    let script = Script::new([Answer::Silent(&["id:5\ndata:a\n\n", ":still here\n"]), Answer::Silent(&["data:b\n\n"])]);
    let mut source = EventSource::new(script.clone(), Options::new().idle_timeout(Duration::from_secs(30)));
    assert_eq!((data(&mut source).await, data(&mut source).await), ("a".into(), "b".into()));
    let lost = source.last_error().unwrap();
    assert_eq!((lost.kind(), lost.phase()), (Kind::Timeout, Some(Phase::Idle)));
    assert_eq!(script.ids(), [None, Some("5".to_owned())]);
    assert!(script.waits()[0] >= Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn without_reconnecting_the_end_is_the_end_and_a_break_is_an_error() {
    let options = || Options::new().reconnect(false);
    let mut source = EventSource::new(Script::new([Answer::Stream(&["data:a\n\n"])]), options());
    assert_eq!(data(&mut source).await, "a");
    assert_eq!(source.recv().await.unwrap(), None);
    let mut source = EventSource::new(Script::new([Answer::Broken(&["data:a\n\n"])]), options());
    assert_eq!(data(&mut source).await, "a");
    assert!(source.recv().await.unwrap_err().is_closed());
}

#[tokio::test(start_paused = true)]
async fn an_event_beyond_the_limit_is_the_end_and_what_came_before_is_given() {
    let script = Script::new([Answer::Stream(&["data:a\n\n", "data:0123456789", "0123456789\n\n"])]);
    let mut source = EventSource::new(script, Options::new().limits(Limits::new(15, 100)));
    assert_eq!(data(&mut source).await, "a");
    assert_eq!(source.recv().await.unwrap_err().kind(), Kind::Limit);
    assert_eq!(source.recv().await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_receive_loses_nothing() {
    let script = Script::new([Answer::Stream(&["data:a\n\n"]), Answer::Silent(&["data:b\n\n"])]);
    let mut source = EventSource::new(script.clone(), Options::new());
    assert_eq!(data(&mut source).await, "a");
    let one = Duration::from_millis(100);
    let mut polls = 0;
    let event = loop {
        polls += 1;
        let limit = clock::within(Some(one), Phase::Total, source.recv());
        if let Ok(event) = limit.await {
            break event;
        }
    };
    assert_eq!(event.unwrap().data, "b");
    assert!(polls > 10, "{polls}");
    assert_eq!(script.ids().len(), 2);
}

/// Two events a connection, then the end; the third connection is told to stay away.
async fn serve(io: tokio::io::DuplexStream, asked: Arc<Mutex<Vec<Option<String>>>>) {
    let mut connection = h2::server::handshake(io).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        assert_eq!(request.headers()["accept"], "text/event-stream");
        let id = request.headers().get("last-event-id").map(|id| id.to_str().unwrap().to_owned());
        let count = {
            let mut asked = asked.lock().unwrap();
            asked.push(id);
            asked.len()
        };
        if count > 2 {
            let response = Response::builder().status(StatusCode::NO_CONTENT).body(()).unwrap();
            respond.send_response(response, true).unwrap();
            continue;
        }
        let response = Response::builder().header("content-type", "text/event-stream").body(()).unwrap();
        let mut send = respond.send_response(response, false).unwrap();
        for part in ["\u{feff}id: ", &format!("{count}\ndata: h\u{e9}"), "llo\r\n", "\r\nretry: 600\n\n"] {
            send.send_data(Bytes::copy_from_slice(part.as_bytes()), false).unwrap();
        }
        send.send_data(Bytes::from_static(b"data: cut off"), true).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn it_works_over_http_2_on_one_connection() {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let asked = Arc::new(Mutex::new(Vec::new()));
    tokio::spawn(serve(theirs, Arc::clone(&asked)));
    let (client, connection) = portolan_http2::handshake(ours, portolan_http2::Options::new()).unwrap();
    tokio::spawn(connection);
    let fetch = move |id: Option<Arc<str>>| {
        let client = client.clone();
        async move {
            let mut request = http::Request::get("http://example.test/events").body(String::new()).unwrap();
            headers(request.headers_mut(), id.as_deref());
            client.send(request).await
        }
    };
    let mut source = EventSource::new(fetch, Options::new());
    for id in ["1", "2"] {
        let event = source.recv().await.unwrap().unwrap();
        assert_eq!((event.data.as_str(), &*event.id), ("h\u{e9}llo", id));
    }
    assert_eq!(source.recv().await.unwrap(), None);
    assert_eq!(*asked.lock().unwrap(), [None, Some("1".to_owned()), Some("2".to_owned())]);
}
