use bytes::Bytes;
use http::{HeaderMap, Request, Response, request, response};
use http_body_util::{BodyExt, Full, StreamBody};
use proptest::prelude::*;

use super::{Cache, CacheKey, CacheOptions, CacheStore, Lookup, MemoryStore, Stale};
use crate::civil;

/// Sun, 06 Nov 1994 08:49:37 GMT.
const NOW: i64 = 784_111_777;
const URI: &str = "https://example.com/doc?q=1";

/// Fields as `name: value` lines.
fn fields(text: &str) -> HeaderMap {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let pairs = lines.map(|line| line.split_once(": ").unwrap());
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
    }
    headers
}

fn ask(line: &str, headers: &str) -> request::Parts {
    let (method, uri) = line.split_once(' ').unwrap();
    let (mut parts, ()) = Request::builder().method(method).uri(uri).body(()).unwrap().into_parts();
    parts.headers = fields(headers);
    parts
}

fn get(headers: &str) -> request::Parts {
    ask(&format!("GET {URI}"), headers)
}

fn say(status: u16, headers: &str) -> response::Parts {
    let (mut parts, ()) = Response::builder().status(status).body(()).unwrap().into_parts();
    parts.headers = fields(headers);
    parts
}

/// A date so many seconds from now.
fn date(offset: i64) -> String {
    httpdate::fmt_http_date(civil::system_time(NOW + offset))
}

fn kept(headers: &str) -> Cache {
    let cache = Cache::new();
    assert!(cache.store_at(&get(""), NOW, &say(200, headers), "body".into(), NOW), "{headers}");
    cache
}

/// The age of a hit, or what else it was.
fn found(cache: &Cache, request: &request::Parts, after: i64) -> Result<i64, &'static str> {
    match cache.lookup_at(request, NOW + after) {
        Lookup::Hit(hit) => Ok(hit.headers()["age"].to_str().unwrap().parse().unwrap()),
        Lookup::Stale(_) => Err("stale"),
        Lookup::Miss => Err("miss"),
        Lookup::Unsatisfiable => Err("unsatisfiable"),
    }
}

fn stale(cache: &Cache, request: &request::Parts, after: i64) -> Stale {
    match cache.lookup_at(request, NOW + after) {
        Lookup::Stale(stale) => stale,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_may_be_kept_is_kept_and_nothing_else() {
    let etag = "etag: \"1\"";
    for (request, status, headers, storable) in [
        (get(""), 200, "cache-control: max-age=60", true),
        (get(""), 200, etag, true),
        (get("authorization: Basic x"), 200, "cache-control: max-age=60", true),
        (get(""), 200, "cache-control: private, max-age=60", true),
        (get(""), 200, "cache-control: no-cache\netag: \"1\"", true),
        (get(""), 404, "cache-control: max-age=60", true),
        (get(""), 302, "cache-control: max-age=60", true),
        (get(""), 500, "expires: Sat, 06 Nov 2094 08:49:37 GMT", true),
        (get(""), 200, "cache-control: no-store, must-understand, max-age=60", true),
        (get(""), 302, etag, false),
        (get(""), 200, "cache-control: no-store, max-age=60", false),
        (get("cache-control: no-store"), 200, "cache-control: max-age=60", false),
        (get(""), 206, "cache-control: max-age=60", false),
        (get(""), 304, "cache-control: max-age=60", false),
        (get(""), 101, "cache-control: max-age=60", false),
        (get("range: bytes=0-1"), 200, "cache-control: max-age=60", false),
        (get(""), 200, "cache-control: max-age=60\nvary: *", false),
        (get(""), 200, "cache-control: max-age=60\nvary: a b", false),
        (ask("HEAD https://example.com/", ""), 200, "cache-control: max-age=60", false),
        (ask("POST https://example.com/", ""), 200, "cache-control: max-age=60", false),
        // Stale at once, and nothing to validate it by.
        (get(""), 200, "", false),
        (get(""), 200, "cache-control: max-age=0", false),
        (get(""), 200, "expires: 0", false),
    ] {
        let cache = Cache::new();
        let kept = cache.store_at(&request, NOW, &say(status, headers), "body".into(), NOW);
        assert_eq!(kept, storable, "{} {status} {headers}", request.method);
    }
}

#[test]
fn freshness_comes_from_max_age_then_expires_then_a_tenth_of_the_age() {
    let expires = |offset: i64| format!("date: {}\nexpires: {}\netag: \"1\"", date(0), date(offset));
    for (headers, lifetime) in [
        ("cache-control: max-age=60\netag: \"1\"".to_owned(), 60),
        ("cache-control: s-maxage=600, max-age=60\netag: \"1\"".into(), 60),
        ("cache-control: MAX-AGE=\"60\"\netag: \"1\"".into(), 60),
        ("cache-control: max-age=60, max-age=600\netag: \"1\"".into(), 60),
        ("cache-control: max-age=x\netag: \"1\"".into(), 0),
        ("cache-control: max-age=-1\netag: \"1\"".into(), 0),
        (format!("cache-control: max-age=60\n{}", expires(600)), 60),
        (expires(100), 100),
        (expires(-100), 0),
        ("expires: 0\nlast-modified: Sun, 06 Nov 1984 08:49:37 GMT".into(), 0),
        (format!("last-modified: {}", date(-1000)), 100),
        (format!("last-modified: {}", date(-500_000_000)), 7 * 86_400),
        (format!("last-modified: {}", date(1000)), 0),
        ("etag: \"1\"".into(), 0),
    ] {
        let cache = kept(&headers);
        if lifetime > 0 {
            assert_eq!(found(&cache, &get(""), lifetime - 1), Ok(lifetime - 1), "{headers}");
        }
        assert_eq!(found(&cache, &get(""), lifetime), Err("stale"), "{headers}");
    }
    let huge = kept("cache-control: max-age=99999999999999999999999");
    assert!(found(&huge, &get(""), (1 << 31) - 1).is_ok());
    // A status that may not be guessed at, unless it is public.
    let cache = Cache::new();
    let modified = format!("cache-control: private\nlast-modified: {}", date(-1000));
    assert!(cache.store_at(&get(""), NOW, &say(302, &modified), Bytes::new(), NOW));
    assert_eq!(found(&cache, &get(""), 0), Err("stale"));
}

#[test]
fn age_counts_what_was_said_the_way_and_the_stay() {
    let age = |sent: i64, headers: &str| {
        let cache = Cache::new();
        let headers = format!("cache-control: max-age=1000\n{headers}");
        assert!(cache.store_at(&get(""), NOW + sent, &say(200, &headers), Bytes::new(), NOW));
        found(&cache, &get(""), 5).unwrap()
    };
    assert_eq!(age(0, ""), 5);
    assert_eq!(age(0, "age: 30"), 35);
    assert_eq!(age(-4, "age: 30"), 39);
    assert_eq!(age(0, &format!("date: {}", date(-50))), 55);
    assert_eq!(age(-4, &format!("age: 30\ndate: {}", date(-50))), 55);
    assert_eq!(age(0, &format!("date: {}", date(50))), 5);
    assert_eq!(age(0, "age: 30, 40"), 35);
    assert_eq!(age(0, "age: old"), 5);
    // A clock that was set back makes nothing younger than it was.
    assert_eq!(found(&kept("cache-control: max-age=1000\nage: 7"), &get(""), -100), Ok(7));
}

#[test]
fn requests_may_ask_for_more_or_for_less() {
    let cache = kept("cache-control: max-age=100\netag: \"1\"");
    for (control, after, result) in [
        ("no-cache", 1, Err("stale")),
        ("max-age=10", 10, Ok(10)),
        ("max-age=10", 11, Err("stale")),
        ("max-age=0", 1, Err("stale")),
        ("min-fresh=50", 50, Ok(50)),
        ("min-fresh=50", 51, Err("stale")),
        ("max-stale", 5000, Ok(5000)),
        ("max-stale=50", 150, Ok(150)),
        ("max-stale=50", 151, Err("stale")),
        ("max-stale=x", 101, Err("stale")),
        ("only-if-cached", 99, Ok(99)),
        ("only-if-cached", 100, Err("unsatisfiable")),
        ("only-if-cached, max-stale", 100, Ok(100)),
    ] {
        assert_eq!(found(&cache, &get(&format!("cache-control: {control}")), after), result, "{control} {after}");
    }
    assert_eq!(found(&cache, &get("pragma: no-cache"), 1), Err("stale"));
    assert_eq!(found(&cache, &get("pragma: no-cache\ncache-control: max-age=5"), 1), Ok(1));
    assert_eq!(found(&Cache::new(), &get("cache-control: only-if-cached"), 0), Err("unsatisfiable"));
}

#[test]
fn responses_may_forbid_what_requests_ask() {
    let strict = kept("cache-control: max-age=100, must-revalidate, stale-if-error=999\netag: \"1\"");
    assert_eq!(found(&strict, &get("cache-control: max-stale"), 100), Err("stale"));
    assert!(stale(&strict, &get(""), 100).if_error_at(NOW + 100).is_none());
    let each_time = kept("cache-control: max-age=100, no-cache=\"set-cookie\"\netag: \"1\"");
    assert_eq!(found(&each_time, &get("cache-control: max-stale"), 0), Err("stale"));
    let immutable = kept("cache-control: max-age=100, immutable\netag: \"1\"");
    assert_eq!(found(&immutable, &get("cache-control: max-age=0"), 50), Ok(50));
    assert_eq!(found(&immutable, &get("cache-control: no-cache"), 50), Err("stale"));
    assert_eq!(found(&immutable, &get("cache-control: max-age=0"), 100), Err("stale"));
}

#[test]
fn ranges_conditions_and_other_methods_pass_by() {
    let cache = kept("cache-control: max-age=100\netag: \"1\"");
    for header in ["range: bytes=0-1", "if-none-match: \"1\"", "if-modified-since: x", "if-match: *", "if-range: \"1\""]
    {
        assert_eq!(found(&cache, &get(header), 1), Err("miss"), "{header}");
    }
    assert_eq!(found(&cache, &ask(&format!("POST {URI}"), ""), 1), Err("miss"));
    assert_eq!(found(&cache, &ask("GET /doc", ""), 1), Err("miss"));
    let Lookup::Hit(head) = cache.lookup_at(&ask(&format!("HEAD {URI}"), ""), NOW) else { panic!() };
    assert!(head.body().is_empty());
    assert_eq!(found(&cache, &ask(&format!("HEAD {URI}"), ""), 100), Err("miss"));
}

#[test]
fn a_url_is_the_same_however_it_is_written_and_no_other() {
    let cache = kept("cache-control: max-age=100");
    assert!(found(&cache, &ask("GET HTTPS://EXAMPLE.com:443/doc?q=1", ""), 0).is_ok());
    for other in [
        "https://example.com/doc",
        "https://example.com/doc?q=2",
        "http://example.com/doc?q=1",
        "https://example.com:444/doc?q=1",
    ] {
        assert_eq!(found(&cache, &ask(&format!("GET {other}"), ""), 0), Err("miss"), "{other}");
    }
    let key = |uri: &str| CacheKey::new(&uri.parse().unwrap()).unwrap();
    assert_eq!(key("http://u:p@h").as_str(), "http://h:80/");
}

#[test]
fn variants_are_chosen_by_the_fields_that_vary() {
    let cache = Cache::new();
    let vary = "cache-control: max-age=100\nvary: Accept-Language, accept";
    let put = |headers: &str, body: &'static str| {
        assert!(cache.store_at(&get(headers), NOW, &say(200, vary), body.into(), NOW));
    };
    let body = |headers: &str| match cache.lookup_at(&get(headers), NOW) {
        Lookup::Hit(hit) => String::from_utf8(hit.body().to_vec()).unwrap(),
        other => format!("{other:?}"),
    };
    put("accept-language: de", "german");
    put("accept-language: en\naccept: text/html", "english");
    put("", "none");
    assert_eq!(body("accept-language: de"), "german");
    assert_eq!(body("accept: text/html\naccept-language:  en \nx: y"), "english");
    assert_eq!(body("accept-language: en"), "Miss");
    assert_eq!(body(""), "none");
    put("accept-language: de", "better german");
    assert_eq!(body("accept-language: de"), "better german");
    put("accept-language: de\naccept-language: en", "two");
    assert_eq!(body("accept-language: de, en"), "two");
}

#[test]
fn credentials_never_meet_the_answers_of_others() {
    let cache = Cache::new();
    assert!(cache.store_at(
        &get("authorization: Bearer a"),
        NOW,
        &say(200, "cache-control: max-age=9"),
        "a".into(),
        NOW
    ));
    assert!(found(&cache, &get("authorization: Bearer a"), 0).is_ok());
    assert_eq!(found(&cache, &get("authorization: Bearer b"), 0), Err("miss"));
    assert_eq!(found(&cache, &get(""), 0), Err("miss"));
    assert!(!format!("{cache:?}").contains("Bearer"));
}

#[test]
fn a_304_makes_a_stale_response_good_again() {
    let cache = kept(
        "cache-control: max-age=10\netag: W/\"1\"\nlast-modified: x\nx-a: old\nx-a: older\nx-b: kept\ncontent-length: 4\nage: 5\nset-cookie: a=b\nconnection: x-hop\nx-hop: 1",
    );
    let stale_one = stale(&cache, &get(""), 10);
    let mut conditional = HeaderMap::new();
    stale_one.make_conditional(&mut conditional);
    assert_eq!(conditional, fields("if-none-match: W/\"1\"\nif-modified-since: x"));
    let answer =
        say(304, "cache-control: max-age=20\netag: \"1\"\nx-a: new\ncontent-length: 0\ncontent-type: no/thing");
    let fresh = cache.refresh_at(&stale_one, NOW + 10, &answer, NOW + 10).unwrap();
    assert_eq!((fresh.status().as_u16(), fresh.body().as_ref()), (200, &b"body"[..]));
    assert_eq!(
        fresh.headers(),
        &fields(
            "cache-control: max-age=20\netag: \"1\"\nlast-modified: x\nx-a: new\nx-b: kept\ncontent-length: 4\nage: 0"
        )
    );
    assert_eq!(found(&cache, &get(""), 29), Ok(19));
    assert_eq!(found(&cache, &get(""), 30), Err("stale"));
}

#[test]
fn a_304_of_another_response_is_not_believed() {
    let cache = kept("cache-control: max-age=10\netag: \"1\"");
    let stale_one = stale(&cache, &get(""), 10);
    assert!(cache.refresh_at(&stale_one, NOW, &say(304, "etag: \"2\""), NOW).is_none());
    assert_eq!(found(&cache, &get(""), 0), Err("miss"));
    let cache = kept("cache-control: max-age=10\netag: \"1\"");
    let stale_one = stale(&cache, &get(""), 10);
    assert!(cache.refresh_at(&stale_one, NOW, &say(304, "cache-control: no-store"), NOW).is_some());
    assert_eq!(found(&cache, &get(""), 0), Err("miss"), "what may no longer be kept is not");
}

#[test]
fn stale_ones_stand_in_as_long_as_was_said() {
    let cache = kept("cache-control: max-age=10, stale-while-revalidate=5, stale-if-error=20\netag: \"1\"");
    let at = |request: &request::Parts, after: i64| {
        let stale = stale(&cache, request, after);
        (stale.while_revalidating().is_some(), stale.if_error_at(NOW + after).is_some())
    };
    assert_eq!(at(&get(""), 15), (true, true));
    assert_eq!(at(&get(""), 16), (false, true));
    assert_eq!(at(&get(""), 30), (false, true));
    assert_eq!(at(&get(""), 31), (false, false));
    assert_eq!(at(&get("cache-control: no-cache"), 12), (false, true));
    assert_eq!(at(&get("cache-control: stale-if-error=100"), 110), (false, true));
    // The decision is made when the error is there, not when the request was sent.
    assert!(stale(&cache, &get(""), 30).if_error_at(NOW + 31).is_none());
    let silent = Cache::with_store(
        MemoryStore::new(),
        CacheOptions::new().with_stale_if_error(std::time::Duration::from_secs(60)),
    );
    assert!(silent.store_at(&get(""), NOW, &say(200, "cache-control: max-age=10\netag: \"1\""), Bytes::new(), NOW));
    let response = stale(&silent, &get(""), 70).if_error_at(NOW + 70).unwrap();
    assert_eq!(response.headers()["age"], "70");
    assert!(Stale::is_error(http::StatusCode::BAD_GATEWAY) && !Stale::is_error(http::StatusCode::NOT_FOUND));
}

#[test]
fn unsafe_methods_that_worked_forget_what_they_changed() {
    for (line, status, headers, forgotten) in [
        ("POST https://example.com/doc?q=1", 200, "", true),
        ("DELETE https://example.com/doc?q=1", 204, "", true),
        ("BREW https://example.com/doc?q=1", 302, "", true),
        ("PUT https://example.com/other", 201, "location: /doc?q=1", true),
        ("PUT https://example.com/other", 201, "content-location: https://EXAMPLE.com/doc?q=1", true),
        ("PUT https://evil.example/other", 201, "location: https://example.com/doc?q=1", false),
        ("POST https://example.com/doc?q=1", 500, "", false),
        ("GET https://example.com/doc?q=1", 200, "", false),
        ("POST https://example.com/doc", 200, "", false),
    ] {
        let cache = kept("cache-control: max-age=100");
        cache.invalidate(&ask(line, ""), &say(status, headers));
        assert_eq!(found(&cache, &get(""), 0).is_err(), forgotten, "{line}");
    }
    let cache = kept("cache-control: max-age=100");
    cache.remove(&URI.parse().unwrap());
    assert_eq!(found(&cache, &get(""), 0), Err("miss"));
}

#[tokio::test]
async fn a_body_is_kept_when_it_was_read_to_its_end_and_not_before() {
    let cache = Cache::with_store(MemoryStore::new(), CacheOptions::new().with_max_body(5));
    let sent = portolan_core::clock::wall();
    let record = |body: &'static str| {
        let response = Response::builder().header("cache-control", "max-age=60").body(Full::new(Bytes::from(body)));
        cache.record(&get(""), sent, response.unwrap())
    };
    drop(record("12345"));
    assert!(matches!(cache.lookup(&get("")), Lookup::Miss));
    let long = record("123456");
    assert!(!long.body().is_recording());
    assert_eq!(long.into_body().collect().await.unwrap().to_bytes(), "123456");
    assert!(matches!(cache.lookup(&get("")), Lookup::Miss));
    // Its one frame is its end.
    let mut body = record("12345").into_body();
    body.frame().await.unwrap().unwrap();
    let Lookup::Hit(hit) = cache.lookup(&get("")) else { panic!() };
    assert_eq!(hit.body(), "12345");
    cache.clear();
    record("").into_body();
    assert!(matches!(cache.lookup(&get("")), Lookup::Hit(_)), "an empty one needs no reading");
}

#[tokio::test]
async fn a_body_that_breaks_or_grows_too_long_is_not_kept() {
    let cache = Cache::with_store(MemoryStore::new(), CacheOptions::new().with_max_body(5));
    for (frames, whole) in
        [(vec![Ok("123"), Ok("45")], true), (vec![Ok("123"), Ok("456")], false), (vec![Ok("1"), Err("broken")], false)]
    {
        let frames = frames.into_iter().map(|frame| frame.map(|data| http_body::Frame::data(Bytes::from(data))));
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let response = Response::builder().header("cache-control", "max-age=60").body(body).unwrap();
        let body = cache.record(&get(""), portolan_core::clock::wall(), response).into_body();
        let _ = body.collect().await;
        assert_eq!(matches!(cache.lookup(&get("")), Lookup::Hit(_)), whole);
        cache.clear();
    }
    let posted = Response::new(Full::<Bytes>::new("x".into()));
    let kept = kept("cache-control: max-age=100");
    drop(kept.record(&ask(&format!("POST {URI}"), ""), portolan_core::clock::wall(), posted));
    assert_eq!(found(&kept, &get(""), 0), Err("miss"));
}

#[test]
fn the_memory_store_is_bounded_and_forgets_the_least_recently_used() {
    let store = MemoryStore::with_max_bytes(10_000);
    let cache = Cache::with_store(store, CacheOptions::new());
    let put = |n: usize, size: usize| {
        let request = ask(&format!("GET https://example.com/{n}"), "");
        cache.store_at(&request, NOW, &say(200, "cache-control: max-age=9"), vec![0; size].into(), NOW);
    };
    let has = |n: usize| found(&cache, &ask(&format!("GET https://example.com/{n}"), ""), 0).is_ok();
    put(0, 2000);
    put(1, 2000);
    put(2, 2000);
    assert!(has(0));
    put(3, 4000);
    assert!(has(0) && !has(1) && has(3));
    put(4, 20_000);
    assert!(!has(4) && has(3), "what is too large alone pushes nothing out");

    let store = MemoryStore::new();
    let key = CacheKey::new(&URI.parse().unwrap()).unwrap();
    let entry =
        || std::sync::Arc::new(super::Entry::new(&get(""), NOW, &say(200, "etag: \"1\""), "x".into(), NOW).unwrap());
    store.replace(&key, (0..100).map(|_| entry()).collect());
    assert_eq!(store.load(&key).len(), 16);
    assert!(store.bytes() > 16);
    store.remove(&key);
    assert_eq!(store.bytes(), 0);
}

proptest! {
    #[test]
    fn no_fields_make_the_cache_panic(
        control in "((max-age|max-stale|no-cache|stale-if-error|x)=?\"?[0-9x]{0,22}\"?[, ]{0,2}){0,4}",
        any in "[ -~]{0,40}",
        after in any::<i64>(),
    ) {
        let cache = Cache::new();
        let headers = format!("cache-control: {control}x\ndate: {any}x\nage: {any}x\nvary: {any}x\nexpires: {any}x\netag: \"1\"\nlast-modified: {}", date(0));
        cache.store_at(&get(""), after, &say(200, &headers), Bytes::new(), after.wrapping_neg());
        if let Lookup::Stale(stale) = cache.lookup_at(&get(&format!("cache-control: {control}x")), after) {
            let _ = (stale.if_error_at(after), cache.refresh_at(&stale, after, &say(304, &headers), after));
        }
    }
}

#[test]
fn urls_that_differ_in_what_does_not_matter_share_a_response() {
    let cache = Cache::new();
    let at = |query: &str| ask(&format!("GET https://example.com/doc?{query}"), "");
    let keep = |request: &request::Parts, rule: &str, body: &'static str, after: i64| {
        let headers = format!("cache-control: max-age=60\netag: \"{body}\"\n{rule}");
        assert!(cache.store_at(request, NOW + after, &say(200, &headers), body.into(), NOW + after));
    };
    let body = |request: &request::Parts, after: i64| match cache.lookup_at(request, NOW + after) {
        Lookup::Hit(hit) => Some(hit.into_body()),
        _ => None,
    };
    keep(&at("id=1&utm=a"), "no-vary-search: params=(\"utm\")", "one", 0);
    assert_eq!(body(&at("id=1&utm=b"), 1).unwrap(), "one");
    assert_eq!(body(&at("utm=c&id=1"), 1).unwrap(), "one");
    assert_eq!(body(&at("id=2&utm=a"), 1), None);
    assert_eq!(body(&ask("GET https://example.com/other?id=1", ""), 1), None);
    // The newest answer counts, whatever rule it came with.
    keep(&at("id=1&utm=b"), "", "two", 5);
    assert_eq!(body(&at("id=1&utm=b"), 6).unwrap(), "two");
    assert_eq!(body(&at("id=1&utm=a"), 6).unwrap(), "one");
    // A validation is good for all of them.
    let stale = stale(&cache, &at("utm=z&id=1"), 61);
    let mut conditions = HeaderMap::new();
    stale.make_conditional(&mut conditions);
    assert_eq!(conditions["if-none-match"], "\"one\"");
    assert!(cache.refresh_at(&stale, NOW + 61, &say(304, "cache-control: max-age=60"), NOW + 61).is_some());
    assert_eq!(body(&at("id=1&utm=a"), 62).unwrap(), "one");
    // An unsafe method to one of them makes all of them forgotten.
    cache.invalidate(&ask("POST https://example.com/doc?id=1&utm=q", ""), &say(200, ""));
    assert_eq!(body(&at("id=1&utm=a"), 62), None);
    keep(&at("a=1&b=2"), "no-vary-search: key-order", "three", 70);
    assert_eq!(body(&at("b=2&a=1"), 70).unwrap(), "three");
    cache.clear();
    assert_eq!(body(&at("b=2&a=1"), 70), None);
}
