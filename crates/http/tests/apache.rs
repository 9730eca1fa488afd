//! The client's parts, each against apache2: digests, codings, validation, ranges, cookies.

#![cfg(all(feature = "brotli", feature = "cookies", feature = "gzip"))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::large_futures,
    reason = "tests fail by panicking and drive parts by hand"
)]

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode, Uri, response};
use portolan_core::{Credentials, Kind, clock};
use portolan_http::Client;
use portolan_http::cache::{Cache, Lookup};
use portolan_http::cookie::{CookieStore, Jar, Keep};
use portolan_http::decode::{DecodeOptions, decode};
use portolan_http::digest::{Digest, challenges};
use portolan_http::range::{ContentRange, Resume, Resumed};
use portolan_testbed::{Server, Service, folder, free_port, record};

const TEXT: &str = "the same line again and again\n";

struct Apache {
    server: Server,
    port: u16,
    client: Client,
}

fn apache() -> Option<Apache> {
    let port = free_port();
    let dir = folder("apache-parts");
    std::fs::create_dir_all(dir.join("www")).unwrap();
    std::fs::write(dir.join("www/long.txt"), TEXT.repeat(2000)).unwrap();
    // What changed within the second has no strong validator yet.
    let _ = std::process::Command::new("touch").args(["-d", "2020-01-01"]).arg(dir.join("www/long.txt")).status();
    let _ = std::process::Command::new("chmod").args(["-R", "a+rX"]).arg(&dir).status();
    let load = [
        "mpm_event",
        "authn_core",
        "authn_file",
        "authz_core",
        "authz_user",
        "auth_digest",
        "brotli",
        "deflate",
        "filter",
        "headers",
        "mime",
        "alias",
        "env",
        "setenvif",
    ];
    let load: String =
        load.iter().map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n")).collect();
    // As htdigest writes it: the MD5 of `joe:the realm:sesame`. (apache2 refuses realms with quotes in them, curl's answers too.)
    let users = "joe:the realm:5153ac856f5c316e94f77ec73f09efc5\n";
    let auth =
        "AuthType Digest\nAuthName \"the realm\"\nAuthDigestProvider file\nAuthUserFile $D/users\nRequire valid-user\n";
    let conf = format!(
        "{load}ServerRoot $D\nServerName localhost\nPidFile $D/pid\nErrorLog $D/error.log\nDefaultRuntimeDir $D\nUser www-data\n\
         Group www-data\nTypesConfig /etc/mime.types\nMutex file:$D default\nListen 127.0.0.1:{port}\nDocumentRoot $D/www\n\
         <Directory $D/www>\nRequire all granted\n</Directory>\n\
         Alias /br $D/www\nAlias /gzip $D/www\nAlias /both $D/www\nAlias /digest $D/www\nAlias /once $D/www\nAlias /cookie $D/www\n\
         <Location /br>\nSetOutputFilter BROTLI_COMPRESS\n</Location>\n<Location /gzip>\nSetOutputFilter DEFLATE\n</Location>\n\
         <Location /digest>\n{auth}</Location>\n<Location /once>\n{auth}AuthDigestNonceLifetime 0\n</Location>\n\
         <Location /cookie>\nHeader add Set-Cookie \"sid=1; HttpOnly; Max-Age=100\"\nHeader add Set-Cookie \"evil=1; Domain=com\"\n\
         Header set X-Seen \"%{{COOKIE}}e\"\nSetEnvIf Cookie \"(.*)\" COOKIE=$1\n</Location>\n"
    );
    let server = Service::new("apache2", "apache2")
        .folder(dir)
        .file("apache.conf", conf)
        .file("users", users)
        .args(["-f", "$D/apache.conf", "-D", "FOREGROUND"])
        .accepts(([127, 0, 0, 1], port).into())
        .start()?;
    Some(Apache { server, port, client: Client::new() })
}

impl Apache {
    fn uri(&self, path: &str) -> Uri {
        format!("http://localhost:{}{path}", self.port).parse().unwrap()
    }

    async fn get(&self, path: &str, fields: &HeaderMap) -> http::Response<portolan_http::Incoming> {
        let mut request = self.client.get(self.uri(path));
        if !fields.contains_key(header::ACCEPT_ENCODING) {
            request = request.header("accept-encoding", "identity");
        }
        for (name, value) in fields {
            request = request.header(name, value);
        }
        request.send().await.unwrap_or_else(|error| panic!("{error:?}\n{}", self.server.log())).into_http()
    }
}

fn fields<const N: usize>(pairs: [(HeaderName, &str); N]) -> HeaderMap {
    pairs.into_iter().map(|(name, value)| (name, HeaderValue::from_str(value).unwrap())).collect()
}

async fn bytes(response: http::Response<portolan_http::Incoming>) -> (response::Parts, Bytes) {
    use http_body_util::BodyExt;
    let (parts, body) = response.into_parts();
    (parts, body.collect().await.unwrap().to_bytes())
}

#[tokio::test]
async fn apache_and_we_prove_to_each_other_that_we_know_the_password() {
    let Some(apache) = apache() else { return };
    let joe = Credentials::new("joe", "sesame");
    for path in ["/digest/long.txt?a=%20b", "/once/long.txt"] {
        let refused = apache.get(path, &HeaderMap::new()).await;
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
        let mut digest = Digest::strongest(&challenges(refused.headers().get_all(header::WWW_AUTHENTICATE))).unwrap();
        assert_eq!(digest.realm(), "the realm");
        for turn in 0..3 {
            let answer = digest.authorize(&joe, &Method::GET, path, None).unwrap();
            let response =
                apache.get(path, &HeaderMap::from_iter([(header::AUTHORIZATION, answer.value().clone())])).await;
            assert_eq!(response.status(), StatusCode::OK, "{path} {turn}\n{}", apache.server.log());
            assert!(response.headers()["authentication-info"].to_str().unwrap().contains("rspauth"));
            answer.check(response.headers()).unwrap();
            // Another password would have been answered by another proof.
            let other = digest.authorize(&Credentials::new("joe", "other"), &Method::GET, path, None).unwrap();
            assert_eq!(other.check(response.headers()).unwrap_err().kind(), Kind::Auth);
            // With a lifetime of nothing each answer brings the next nonce.
            digest.update(response.headers());
        }
    }
    let mut digest = Digest::strongest(&challenges(
        apache.get("/digest/long.txt", &HeaderMap::new()).await.headers().get_all(header::WWW_AUTHENTICATE),
    ))
    .unwrap();
    let wrong = digest.authorize(&Credentials::new("joe", "wrong"), &Method::GET, "/digest/long.txt", None).unwrap();
    let refused =
        apache.get("/digest/long.txt", &HeaderMap::from_iter([(header::AUTHORIZATION, wrong.into_value())])).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    record("http1", "peer", "apache2 mod_auth_digest", "digest, one-time nonces", 9);
}

#[tokio::test]
async fn apache_compresses_and_we_undo_it() {
    let Some(apache) = apache() else { return };
    for (path, coding) in [("/br/long.txt", "br"), ("/gzip/long.txt", "gzip")] {
        let response = apache.get(path, &fields([(header::ACCEPT_ENCODING, coding)])).await;
        assert_eq!(response.headers()[header::CONTENT_ENCODING], coding, "{}", apache.server.log());
        let response = decode(&Method::GET, response, &DecodeOptions::new()).unwrap();
        use http_body_util::BodyExt;
        assert!(response.into_body().collect().await.unwrap().to_bytes() == TEXT.repeat(2000));
    }
    record("http1", "peer", "apache2 mod_brotli, mod_deflate", "codings", 2);
}

#[tokio::test]
async fn apache_says_that_what_we_keep_is_still_good_until_it_is_not() {
    let Some(apache) = apache() else { return };
    let cache = Cache::new();
    let request = || Request::get(apache.uri("/long.txt")).body(()).unwrap().into_parts().0;
    let sent = clock::wall();
    let (head, body) = bytes(apache.get("/long.txt", &HeaderMap::new()).await).await;
    assert!(cache.store(&request(), sent, &head, body));
    // It is old, so it would be good for days by a guess; a reload asks.
    assert!(matches!(cache.lookup(&request()), Lookup::Hit(_)));
    let request =
        || Request::get(apache.uri("/long.txt")).header("cache-control", "no-cache").body(()).unwrap().into_parts().0;
    let Lookup::Stale(stale) = cache.lookup(&request()) else { panic!() };
    let mut conditions = HeaderMap::new();
    stale.make_conditional(&mut conditions);
    let (head, body) = bytes(apache.get("/long.txt", &conditions).await).await;
    assert_eq!((head.status, body.len()), (StatusCode::NOT_MODIFIED, 0));
    let good = cache.refresh(&stale, sent, &head).unwrap();
    assert_eq!((good.status(), good.body().len()), (StatusCode::OK, 60_000));

    let www = apache.server.dir().join("www/long.txt");
    std::fs::write(&www, "changed").unwrap();
    let Lookup::Stale(stale) = cache.lookup(&request()) else { panic!() };
    let mut conditions = HeaderMap::new();
    stale.make_conditional(&mut conditions);
    let (head, body) = bytes(apache.get("/long.txt", &conditions).await).await;
    assert_eq!((head.status, body.as_ref()), (StatusCode::OK, &b"changed"[..]));
    record("http1", "peer", "apache2", "validation", 3);
}

#[tokio::test]
async fn apache_goes_on_where_a_download_broke_off_or_begins_again() {
    let Some(apache) = apache() else { return };
    let (head, body) = bytes(apache.get("/long.txt", &HeaderMap::new()).await).await;
    let mut resume = Resume::new(&head).unwrap();
    resume.advance(12_345);
    let mut ask = HeaderMap::new();
    resume.ask(&mut ask);
    let (head, rest) = bytes(apache.get("/long.txt", &ask).await).await;
    assert_eq!(resume.judge(&head).unwrap(), Resumed::GoesOn);
    assert_eq!(ContentRange::of(&head.headers).unwrap().range, Some((12_345, 59_999)));
    assert!([&body[..12_345], &rest].concat() == body);
    resume.advance(rest.len() as u64);
    assert!(resume.is_complete());
    let mut ask = HeaderMap::new();
    resume.ask(&mut ask);
    let (head, _) = bytes(apache.get("/long.txt", &ask).await).await;
    assert_eq!((head.status, resume.judge(&head).unwrap()), (StatusCode::RANGE_NOT_SATISFIABLE, Resumed::Complete));

    std::fs::write(apache.server.dir().join("www/long.txt"), "x".repeat(70_000)).unwrap();
    let (head, whole) = bytes(apache.get("/long.txt", &ask).await).await;
    assert_eq!(resume.judge(&head).unwrap(), Resumed::Restarts);
    assert_eq!((whole.len(), resume.received(), resume.length()), (70_000, 0, Some(70_000)));
    record("http1", "peer", "apache2", "ranges", 4);
}

#[tokio::test]
async fn apache_sees_again_what_it_set() {
    let Some(apache) = apache() else { return };
    let jar = Jar::new();
    let uri = apache.uri("/cookie/long.txt");
    let first = apache.get("/cookie/long.txt", &HeaderMap::new()).await;
    jar.set(&uri, first.headers());
    let kept = Jar::new();
    assert_eq!(kept.load_netscape(&jar.to_netscape(Keep::All)).unwrap(), 1);
    let cookie = kept.cookies_for(&uri).unwrap();
    let second = apache.get("/cookie/long.txt", &HeaderMap::from_iter([(header::COOKIE, cookie)])).await;
    assert_eq!(second.headers()["x-seen"], "sid=1", "{}", apache.server.log());
    record("http1", "peer", "apache2", "cookies", 2);
}
