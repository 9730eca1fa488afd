use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue, Uri};
use proptest::prelude::*;

use super::state::State;
use super::{CookieStore, Jar, JarOptions, Keep, Refused};

const NOW: i64 = 1_700_000_000;

struct Bench(State);

impl Bench {
    fn new() -> Self {
        Self(State::new(JarOptions::new()))
    }

    fn set(&mut self, from: &str, field: &str) -> Result<(), Refused> {
        self.0.set(&from.parse().unwrap(), field.as_bytes(), NOW)
    }

    fn sent(&mut self, to: &str) -> String {
        self.sent_at(to, NOW)
    }

    fn sent_at(&mut self, to: &str, now: i64) -> String {
        let value = self.0.header(&to.parse().unwrap(), now);
        value.map_or(String::new(), |value| {
            assert!(value.is_sensitive());
            String::from_utf8(value.as_bytes().to_vec()).unwrap()
        })
    }
}

#[test]
fn the_examples_of_rfc_6265_3_1_come_out_as_printed() {
    let mut jar = Bench::new();
    jar.set("https://www.example.com/", "SID=31d4d96e407aad42").unwrap();
    assert_eq!(jar.sent("https://www.example.com/"), "SID=31d4d96e407aad42");
    jar.set("https://www.example.com/", "SID=31d4d96e407aad42; Path=/; Domain=example.com").unwrap();
    assert_eq!(jar.sent("http://example.com/x"), "SID=31d4d96e407aad42");
    let mut jar = Bench::new();
    jar.set("https://example.com/", "SID=31d4d96e407aad42; Path=/; Secure; HttpOnly").unwrap();
    jar.set("https://example.com/", "lang=en-US; Path=/; Domain=example.com").unwrap();
    assert_eq!(jar.sent("https://example.com/"), "SID=31d4d96e407aad42; lang=en-US");
    jar.set("https://example.com/", "lang=; Path=/; Domain=example.com; Expires=Sun, 06 Nov 1994 08:49:37 GMT")
        .unwrap();
    assert_eq!(jar.sent("https://example.com/"), "SID=31d4d96e407aad42");
}

#[test]
fn a_cookie_goes_to_its_host_alone_unless_it_names_a_domain() {
    let mut jar = Bench::new();
    jar.set("http://a.example.com/", "host=1").unwrap();
    jar.set("http://a.example.com/", "below=1; Domain=.A.Example.com").unwrap();
    jar.set("http://a.example.com/", "site=1; Domain=example.com").unwrap();
    assert_eq!(jar.sent("http://A.example.com/"), "host=1; below=1; site=1");
    assert_eq!(jar.sent("http://b.a.example.com/"), "below=1; site=1");
    assert_eq!(jar.sent("http://example.com:8080/"), "site=1");
    assert_eq!(jar.sent("http://notexample.com/"), "");
}

#[test]
fn foreign_domains_and_public_suffixes_are_refused() {
    let mut jar = Bench::new();
    for (from, domain, why) in [
        ("http://example.com/", "other.com", Refused::ForeignDomain),
        ("http://example.com/", "www.example.com", Refused::ForeignDomain),
        ("http://example.com/", "com", Refused::PublicSuffix),
        ("http://example.co.uk/", "co.uk", Refused::PublicSuffix),
        ("http://example.co.uk/", "Co.Uk", Refused::PublicSuffix),
        ("http://example.com./", "com.", Refused::ForeignDomain),
        ("http://example.com./", "com", Refused::PublicSuffix),
        ("http://me.github.io/", "github.io", Refused::PublicSuffix),
        ("http://a.internal/", "internal", Refused::PublicSuffix),
        ("http://127.0.0.1/", "0.0.1", Refused::ForeignDomain),
        ("http://example.com/", "exämple.com", Refused::ForeignDomain),
        ("http://example.com/", "..example.com", Refused::ForeignDomain),
    ] {
        assert_eq!(jar.set(from, &format!("a=b; Domain={domain}")), Err(why), "{from} {domain}");
    }
    assert_eq!(jar.0.len(), 0);
}

#[test]
fn a_host_that_is_a_suffix_or_an_address_may_name_itself_and_stays_alone() {
    let mut jar = Bench::new();
    for (host, below) in [("localhost", "a.localhost"), ("github.io", "me.github.io"), ("[::1]", "a.example.com")] {
        jar.set(&format!("http://{host}/"), &format!("a={host}; Domain={host}")).unwrap();
        assert_eq!(jar.sent(&format!("http://{host}/")), format!("a={host}"));
        assert_eq!(jar.sent(&format!("http://{below}/")), "");
    }
    jar.set("http://10.0.0.1/", "a=1; Domain=10.0.0.1").unwrap();
    assert_eq!(jar.sent("http://10.0.0.1/"), "a=1");
    assert!(jar.0.all(NOW).iter().all(super::Cookie::is_host_only));
}

#[test]
fn longer_paths_come_first_and_then_older_cookies() {
    let mut jar = Bench::new();
    jar.set("http://h.example/a/b/c", "default=1").unwrap();
    jar.set("http://h.example/", "root=1; Path=/").unwrap();
    jar.set("http://h.example/", "second=1; Path=/").unwrap();
    jar.set("http://h.example/", "deep=1; Path=/a/b/c").unwrap();
    jar.set("http://h.example/", "root=2; Path=/").unwrap();
    assert_eq!(jar.sent("http://h.example/a/b/c/d?q"), "deep=1; default=1; root=2; second=1");
    assert_eq!(jar.sent("http://h.example/a/b"), "default=1; root=2; second=1");
    assert_eq!(jar.sent("http://h.example/a/bc"), "root=2; second=1");
    assert_eq!(jar.sent("http://h.example"), "root=2; second=1");
}

#[test]
fn attributes_count_only_in_their_own_words_and_the_last_of_many() {
    // The questions that the http-state suite asks of parsers, with the answers of RFC 6265bis.
    for (attributes, to, sent) in [
        ("Secure", "/a/c", false),
        ("seCURe =x; y", "/a/c", false),
        ("Secure= aaa", "/a/c", false),
        ("   Secure   ;", "/a/c", false),
        ("x=\"a;b\"; Secure", "/a/c", false),
        ("\"Secure\"", "/a/c", true),
        ("Secure x", "/a/c", true),
        ("Path", "/a/c", true),
        ("Path=", "/a/c", true),
        ("Path=\"/\"", "/b", false),
        ("Path  =/b", "/b", true),
        ("Path=  /b  ; x", "/b/c", true),
        ("Path=/b; Path=/", "/x", true),
        ("Path=/; Path=/b", "/x", false),
        ("Path=/b; Path", "/a/c", true),
        ("Path=/b/", "/b", false),
        ("Path=/b//", "/b/c", false),
        ("Path=/%62", "/b", false),
        ("Max-Age=5,5", "/a/c", true),
        ("Max-Age=\"0\"", "/a/c", true),
        ("Expires=Fri 07 Aug 2007 08:04:19 GMT, b=c", "/a/c", false),
        ("Domain=home.example.org; Domain=home.example.com", "/a/c", false),
        ("Domain=home.example.com; Domain=home.example.org", "/a/c", true),
        ("Domain=\"home.example.org\"", "/a/c", false),
        ("Domain=home.example.org:8888", "/a/c", false),
        ("Domain=  .home.example.org", "/a/c", true),
        ("Domain=. home.example.org", "/a/c", false),
        ("Domain=home..example.org", "/a/c", false),
        ("Domain=home.example.org.", "/a/c", false),
    ] {
        let mut jar = Bench::new();
        let _ = jar.set("http://home.example.org:8888/a/b", &format!("foo=bar; {attributes}"));
        assert_eq!(jar.sent(&format!("http://home.example.org:8888{to}")) == "foo=bar", sent, "{attributes}");
    }
}

#[test]
fn secure_cookies_stay_on_secure_schemes() {
    let mut jar = Bench::new();
    assert_eq!(jar.set("http://example.com/", "a=1; Secure"), Err(Refused::InsecureScheme));
    jar.set("https://example.com/", "a=1; Secure").unwrap();
    assert_eq!(jar.sent("http://example.com/"), "");
    assert_eq!(jar.sent("ws://example.com/"), "");
    assert_eq!(jar.sent("wss://example.com/"), "a=1");
}

#[test]
fn an_insecure_origin_cannot_hide_a_secure_cookie() {
    let mut jar = Bench::new();
    jar.set("https://example.com/login/", "sid=good; Secure; Path=/login").unwrap();
    for (from, field) in [
        ("http://example.com/", "sid=evil; Path=/login"),
        ("http://example.com/", "sid=evil; Path=/login/en"),
        ("http://www.example.com/", "sid=evil; Domain=example.com; Path=/login"),
        ("http://www.example.com/", "sid=evil; Path=/login"),
    ] {
        assert_eq!(jar.set(from, field), Err(Refused::Overlay), "{from} {field}");
    }
    // Another name or a path beside it hides nothing, and a secure origin may do as it likes.
    jar.set("http://example.com/", "sid=low; Path=/").unwrap();
    jar.set("http://example.com/", "other=1; Path=/login").unwrap();
    jar.set("https://example.com/", "sid=new; Path=/login").unwrap();
    assert_eq!(jar.sent("https://example.com/login"), "sid=new; other=1; sid=low");
}

#[test]
fn prefixes_keep_their_promises_in_any_case() {
    let mut jar = Bench::new();
    for field in [
        "__Secure-a=1",
        "__SECURE-a=1",
        "__Host-a=1; Secure",
        "__Host-a=1; Path=/",
        "__host-a=1; Secure; Path=/x",
        "__Host-a=1; Secure; Path=/; Domain=example.com",
        "=__Host-a=1; Secure; Path=/",
        "__Secure-a; Secure",
    ] {
        assert_eq!(jar.set("https://example.com/", field), Err(Refused::Prefix), "{field}");
    }
    jar.set("https://example.com/", "__Secure-a=1; Secure; Domain=example.com").unwrap();
    jar.set("https://example.com/", "__Host-a=1; Secure; Path=/").unwrap();
    assert_eq!(jar.sent("https://example.com/"), "__Secure-a=1; __Host-a=1");
}

#[test]
fn cookies_end_on_their_second_and_age_is_capped() {
    let mut jar = Bench::new();
    jar.set("http://h.example/", "a=1; Max-Age=10").unwrap();
    jar.set("http://h.example/", "b=1; Max-Age=9223372036854775807").unwrap();
    jar.set("http://h.example/", "c=1").unwrap();
    assert_eq!(jar.sent_at("http://h.example/", NOW + 9), "a=1; b=1; c=1");
    assert_eq!(jar.sent_at("http://h.example/", NOW + 10), "b=1; c=1");
    assert_eq!(jar.sent_at("http://h.example/", NOW + 400 * 86_400), "c=1");
    jar.set("http://h.example/", "c=; Max-Age=0").unwrap();
    assert_eq!(jar.sent_at("http://h.example/", NOW + 10), "b=1");
}

#[test]
fn a_site_over_its_limit_loses_the_least_recently_used_and_insecure_first() {
    let mut jar = Bench(State::new(JarOptions::new().with_max_per_site(3)));
    jar.set("https://a.example.com/", "s=1; Secure").unwrap();
    jar.set("https://b.example.com/", "b=1").unwrap();
    jar.set("https://c.example.com/", "c=1").unwrap();
    assert_eq!(jar.sent("https://b.example.com/"), "b=1");
    jar.set("https://d.example.com/", "d=1").unwrap();
    // c was not used since; s is older still, but secure.
    assert_eq!(jar.sent("https://c.example.com/"), "");
    assert_eq!(jar.sent("https://a.example.com/"), "s=1");
    assert_eq!(jar.sent("https://b.example.com/"), "b=1");
    assert_eq!(jar.0.len(), 3);
}

#[test]
fn a_jar_over_its_limit_loses_expired_ones_first_and_then_the_least_recently_used() {
    let mut jar = Bench(State::new(JarOptions::new().with_max_total(2)));
    jar.set("http://one.example/", "a=1").unwrap();
    jar.set("http://two.example/", "a=2; Max-Age=5").unwrap();
    jar.0.set(&"http://three.example/".parse().unwrap(), b"a=3", NOW + 6).unwrap();
    assert_eq!(jar.sent("http://two.example/"), "");
    assert_eq!(jar.sent("http://one.example/"), "a=1");
    jar.set("http://four.example/", "a=4").unwrap();
    assert_eq!(jar.sent("http://three.example/"), "");
    assert_eq!((jar.0.len(), jar.sent("http://one.example/").as_str()), (2, "a=1"));
}

#[test]
fn a_thousand_subdomains_cannot_push_out_the_cookies_of_others() {
    let mut jar = Bench(State::new(JarOptions::new().with_max_per_site(10).with_max_total(100)));
    jar.set("http://honest.example/", "a=1").unwrap();
    for n in 0..1000 {
        jar.set(&format!("http://x{n}.evil.example/"), "a=1").unwrap();
    }
    assert_eq!((jar.sent("http://honest.example/").as_str(), jar.0.len()), ("a=1", 11));
}

#[test]
fn a_jar_is_shared_by_its_clones_and_takes_all_fields_of_a_response() {
    let jar = Jar::new();
    let uri: Uri = "https://example.com/".parse().unwrap();
    let mut headers = HeaderMap::new();
    headers.append(SET_COOKIE, HeaderValue::from_static("a=1"));
    headers.append(SET_COOKIE, HeaderValue::from_static("bad=1; Domain=com"));
    headers.append(SET_COOKIE, HeaderValue::from_bytes(b"latin=\xe9; Max-Age=100").unwrap());
    let shared = jar.clone();
    shared.set(&uri, &headers);
    assert_eq!(jar.cookies_for(&uri).unwrap().as_bytes(), b"a=1; latin=\xe9");
    assert!(!format!("{:?} {jar:?}", jar.cookies()).contains("latin=\u{e9}"));
    jar.end_session();
    assert_eq!(jar.cookies_for(&uri).unwrap().as_bytes(), b"latin=\xe9");
    let error = jar.add(&uri, "a=1; Domain=com").unwrap_err();
    assert_eq!(error.kind(), portolan_core::Kind::Usage);
    jar.clear();
    assert!(jar.is_empty());
}

fn full() -> Jar {
    let jar = Jar::new();
    let uri: Uri = "https://www.example.com/a/b".parse().unwrap();
    for field in [
        "one=\"quoted \\ text\"; Max-Age=1000; Domain=example.com; SameSite=Lax",
        "two=2; Max-Age=1000; Secure; HttpOnly; Path=/",
        "nameless",
        "tab=a\tb",
        "ünï=cødé; Max-Age=100",
    ] {
        jar.add(&uri, field).unwrap();
    }
    let mut headers = HeaderMap::new();
    headers.insert(SET_COOKIE, HeaderValue::from_bytes(b"raw=\xff\xe9; Max-Age=100").unwrap());
    jar.set(&uri, &headers);
    jar
}

#[test]
fn json_lines_bring_every_cookie_back_as_it_was() {
    let jar = full();
    let text = jar.to_json_lines(Keep::All);
    let again = Jar::new();
    assert_eq!(again.load_json_lines(&text).unwrap(), 6);
    assert_eq!(again.cookies(), jar.cookies());
    assert_eq!(again.to_json_lines(Keep::All), text);
    assert_eq!(jar.to_json_lines(Keep::Persistent).lines().count(), 4);
    let error = again.load_json_lines("{\"name\":\"a\",\"value\":\"secret\"").unwrap_err();
    assert!(error.message().contains("line 1") && !format!("{error:?}").contains("secret"));
    for bad in [
        r#"{"name":"a","value":"b\r\nX: y","domain":"h","path":"/"}"#,
        r#"{"name":"a","value":"b; c=d","domain":"h","path":"/"}"#,
        r#"{"name":"a","value":"b","domain":"","path":"/"}"#,
        r#"{"name":"a","value":"b","domain":"h","path":""}"#,
    ] {
        assert!(again.load_json_lines(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_file_cannot_bring_in_a_cookie_for_a_public_suffix() {
    let jar = Jar::new();
    jar.load_netscape(".com\tTRUE\t/\tFALSE\t0\ta\tb\n").unwrap();
    assert!(jar.cookies_for(&"http://example.com/".parse().unwrap()).is_none());
}

#[test]
fn netscape_files_go_out_and_come_in_as_curl_writes_them() {
    let text = full().to_netscape(Keep::All);
    assert!(text.starts_with("# Netscape HTTP Cookie File\n"));
    assert!(text.contains("#HttpOnly_www.example.com\tFALSE\t/\tTRUE\t"), "{text}");
    assert!(text.contains("\n.example.com\tTRUE\t/a\tFALSE\t"), "{text}");
    let again = Jar::new();
    // Six without the one that holds a tab and the one that is no UTF-8.
    assert_eq!(again.load_netscape(&text).unwrap(), 4);
    assert_eq!(again.to_netscape(Keep::All), text);
    // As curl 7.88.1 writes it, but for the dates and the hosts.
    let curl = "# Netscape HTTP Cookie File\n# https://curl.se/docs/http-cookies.html\n\n\
                #HttpOnly_.httpbin.example\tTRUE\t/\tTRUE\t0\tsid\tabc=\nwww.httpbin.example\tFALSE\t/\tFALSE\t4102444800\tempty\t\n";
    let jar = Jar::new();
    assert_eq!(jar.load_netscape(curl).unwrap(), 2);
    assert_eq!(jar.cookies_for(&"https://www.httpbin.example/".parse().unwrap()).unwrap(), "sid=abc=; empty=");
    assert!(jar.load_netscape("a\tb\tc").unwrap_err().message().contains("line 1"));
}

proptest! {
    #[test]
    fn no_set_cookie_field_makes_the_jar_panic_or_send_a_broken_field(
        fields in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..8),
        text in "[a-zA-Z_=;, .-]{0,40}(; *(domain|path|expires|max-age|secure|samesite)=?[ -~]{0,30}){0,4}",
    ) {
        let mut state = State::new(JarOptions::new());
        let uri: Uri = "https://www.example.com/a/b".parse().unwrap();
        for field in fields.iter().map(Vec::as_slice).chain([text.as_bytes()]) {
            let _ = state.set(&uri, field, NOW);
        }
        if let Some(value) = state.header(&uri, NOW) {
            prop_assert!(!value.as_bytes().iter().any(|b| matches!(b, b'\r' | b'\n' | 0)));
        }
        prop_assert_eq!(state.all(NOW - 1_000_000_000_000).len(), state.len());
    }

    #[test]
    fn no_cookie_file_makes_the_loader_panic(text in "\\PC{0,60}(\t\\PC{0,10}){0,8}") {
        let jar = Jar::new();
        let _ = jar.load_netscape(&text);
        let _ = jar.load_json_lines(&text);
    }
}
