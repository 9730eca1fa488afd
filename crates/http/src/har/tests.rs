use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderName, Request, Response, Version, request, response};
use portolan_core::ConnectionInfo;
use serde_json::{Value, json};

use super::{Entry, Har, HarOptions, Phases};

fn request() -> request::Parts {
    let request = Request::post("https://joe:sesame@example.com/a?x=1&y=a%20b+c&z")
        .version(Version::HTTP_2)
        .header("authorization", "Bearer sesame")
        .header("cookie", "sid=sesame; lang=en")
        .header("x-key", "sesame")
        .header("content-type", "text/plain");
    request.body(()).unwrap().into_parts().0
}

fn response() -> response::Parts {
    let response = Response::builder()
        .status(302)
        .header("set-cookie", "sid=sesame; Path=/")
        .header("location", "/b")
        .header("content-type", "image/png");
    response.body(()).unwrap().into_parts().0
}

fn file(entries: impl IntoIterator<Item = Entry>) -> Value {
    let mut har = Har::new();
    entries.into_iter().for_each(|entry| har.push(entry));
    let text = har.to_json().unwrap();
    let mut written = Vec::new();
    har.write_to(&mut written).unwrap();
    assert_eq!(written, text.as_bytes());
    serde_json::from_str(&text).unwrap()
}

#[test]
fn an_exchange_is_written_as_har_1_2_has_it() {
    let options = HarOptions::new().with_bodies(4);
    let started = UNIX_EPOCH + Duration::from_millis(784_111_777_042);
    let mut info = ConnectionInfo::default();
    info.peer = Some("192.0.2.1:443".parse().unwrap());
    info.local = Some("10.0.0.1:50000".parse().unwrap());
    info.timings.resolve = Some(Duration::from_millis(1));
    info.timings.connect = Some(Duration::from_millis(20));
    info.timings.tls = Some(Duration::from_millis(300));
    let mut phases = Phases::new();
    (phases.send, phases.wait, phases.receive) =
        (Duration::from_millis(4000), Duration::from_millis(50_000), Duration::from_micros(500));
    let entry = Entry::new(&options, started, &request(), "aäöü".as_bytes())
        .with_response(&options, &response(), b"\x89PNG\r\n")
        .with_connection(&info, false)
        .with_phases(phases);
    let file = file([entry]);
    assert_eq!(file["log"]["version"], "1.2");
    assert_eq!(file["log"]["creator"]["name"], "portolan");
    let pair = |name: &str, value: &str| json!({"name": name, "value": value});
    assert_eq!(
        file["log"]["entries"][0],
        json!({
            "startedDateTime": "1994-11-06T08:49:37.042Z",
            "time": 54_321.5,
            "request": {
                "method": "POST", "url": "https://example.com/a?x=1&y=a%20b+c&z", "httpVersion": "HTTP/2",
                "cookies": [pair("sid", "***"), pair("lang", "***")],
                "headers": [pair("authorization", "***"), pair("cookie", "***"), pair("x-key", "sesame"), pair("content-type", "text/plain")],
                "queryString": [pair("x", "1"), pair("y", "a b c"), pair("z", "")],
                "postData": {"mimeType": "text/plain", "text": "aä"},
                "headersSize": -1, "bodySize": 7,
            },
            "response": {
                "status": 302, "statusText": "Found", "httpVersion": "HTTP/1.1",
                "cookies": [pair("sid", "***")],
                "headers": [pair("set-cookie", "***"), pair("location", "/b"), pair("content-type", "image/png")],
                "content": {"size": 6, "mimeType": "image/png", "text": "iVBORw==", "encoding": "base64"},
                "redirectURL": "/b", "headersSize": -1, "bodySize": -1,
            },
            "cache": {},
            "timings": {"blocked": -1.0, "dns": 1.0, "connect": 320.0, "ssl": 300.0, "send": 4000.0, "wait": 50_000.0, "receive": 0.5},
            "serverIPAddress": "192.0.2.1",
            "connection": "50000",
        })
    );
}

#[test]
fn secrets_are_left_out_unless_they_are_asked_for() {
    let strict = HarOptions::new().with_redacted(HeaderName::from_static("x-key")).with_bodies(100);
    let mut marked = request();
    let mut token = http::HeaderValue::from_static("sesame");
    token.set_sensitive(true);
    marked.headers.insert("x-token", token);
    let entry = |options: &HarOptions| {
        Entry::new(options, UNIX_EPOCH, &marked, b"")
            .with_response(options, &response(), b"")
            .with_comment("reset by peer")
    };
    let text = file([entry(&strict)]).to_string();
    assert!(!text.contains("sesame"), "{text}");
    let open = file([entry(&strict.dangerous().with_secrets())]).to_string();
    assert!(open.contains("Bearer sesame") && open.contains("\"value\":\"sesame\"") && !open.contains("joe:sesame"));
}

#[test]
fn bodies_are_not_written_unless_they_are_asked_for_and_a_reused_connection_took_no_time() {
    let options = HarOptions::new();
    let mut info = ConnectionInfo::default();
    info.timings.tls = Some(Duration::from_secs(1));
    let entry = Entry::new(&options, UNIX_EPOCH, &request(), b"secret body").with_connection(&info, true);
    let file = file([entry]);
    let entry = &file["log"]["entries"][0];
    assert!(!file.to_string().contains("secret body"));
    assert_eq!(
        (&entry["response"]["status"], &entry["time"], &entry["timings"]["ssl"]),
        (&json!(0), &json!(0.0), &json!(-1.0))
    );
}

#[test]
fn a_recording_keeps_the_newest() {
    let mut har = Har::new();
    for n in 0..10_001_u32 {
        har.push(Entry::new(&HarOptions::new(), UNIX_EPOCH, &request(), b"").with_comment(n.to_string()));
    }
    assert_eq!(har.len(), 10_000);
    assert!(har.to_json().unwrap().contains("\"comment\": \"1\""));
    har.clear();
    assert!(har.is_empty());
    // Of those with large bodies fewer.
    let options = HarOptions::new().with_bodies(super::MAX_BYTES);
    let large = Entry::new(&options, UNIX_EPOCH, &request(), &vec![b'x'; super::MAX_BYTES / 4]);
    (0..6).for_each(|_| har.push(large.clone()));
    assert_eq!(har.len(), 4);
}
