//! How to connect, out of TOML and JSON: each key does what it says, and nothing else is taken.

#![cfg(feature = "serde")]
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "these are tests, and they are the peer")]

use std::sync::Arc;
use std::time::Duration;

use portolan_core::config::Config;
use portolan_core::{Answer, BoxFuture, Connector, Endpoint, Error, Hop, HopSchemes, Kind, Resolve, ResolverSchemes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Every key that there is.
const WHOLE: &str = r#"
via = [
    "socks5h://near.example:9050?isolation=stream",
    { url = "https://far.example", user = "joe", password = "sesame", auth = "strongest", headers = { X-Team = "blue", X-Token = "sesame" }, proxy_header = "v1" },
]
or_via = ["http://ann:sesame@other.example:3128 | direct"]
no_proxy = "localhost, .internal"
trust_hop_resolution = true
proxy_header = { version = "v2", source = "192.0.2.1:4000", destination = "192.0.2.2:443", alpn = "h2", authority = "a.example", unique_id = "x", crc32c = true }

[[routes]]
to = "*.example.org, 10.0.0.0/8"
schemes = ["redis"]
via = "direct"

[policy]
preset = "public-only"
allow = ["10.1.0.0/16", "127.0.0.1"]
deny = ["192.0.2.0/24"]
deny_hosts = ["*.bad.example"]
allow_hosts = ["*.example.org"]
ports = [443, "8000-8999"]
unix = false

[hop_policy]
deny = ["169.254.0.0/16"]

[resolver]
kind = "system"
unknown_ttl = "30s"
min_ttl = "1s"
max_ttl = "1h"
negative_ttl = "0s"
entries = 100

[hosts]
"db.example.org" = ["192.0.2.7", "2001:db8::7"]

[timeouts]
resolve = "2s"
connect = "5s"
attempt = "1s500ms"
hop = "3s"
tls = "4s"
handshake = "6s"
first_byte = "7s"
idle = "off"
total = "1m"

[bind]
addr = "127.0.0.1"
interface = "lo"
port = "40000-40100"

[tcp]
nodelay = false
keepalive = "30s"
keepalive_interval = "5s"
keepalive_count = 3
user_timeout = "20s"
tos = 16
send_buffer = 65536
recv_buffer = 65536

[happy_eyeballs]
attempt_delay = "100ms"
resolution_delay = "10ms"
first_family_count = 2
memory = "1m"
prefer_v4 = true

[tls]
roots = "default"
pins = ["sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="]
alpn = ["h2"]
min_version = "1.3"
max_version = "1.3"
resumption = 0
sni = false
classic_key_exchange_only = true
key_log_from_env = true

[hop_tls.dangerous]
accept_any_certificate = true
"#;

fn toml(text: &str) -> Config {
    toml::from_str(text).unwrap()
}

fn refused(text: &str) -> Error {
    toml(text).to_connector().unwrap_err()
}

#[test]
fn every_key_is_read_and_survives_both_formats() {
    let config = toml(WHOLE);
    let again: Config = toml::from_str(&toml::to_string(&config).unwrap()).unwrap();
    assert_eq!(config, again);
    let json: Config = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
    assert_eq!(config, json);
    let net = config.to_connector().unwrap();
    let timeouts = net.timeouts();
    let millis = |limit: Option<Duration>| limit.map(|limit| limit.as_millis());
    assert_eq!(
        [
            timeouts.resolve_limit(),
            timeouts.connect_limit(),
            timeouts.attempt_limit(),
            timeouts.hop_limit(),
            timeouts.tls_limit(),
            timeouts.handshake_limit(),
            timeouts.first_byte_limit(),
            timeouts.idle_limit(),
            timeouts.total_limit(),
        ]
        .map(millis),
        [2000, 5000, 1500, 3000, 4000, 6000, 7000]
            .map(Some)
            .into_iter()
            .chain([None, Some(60_000)])
            .collect::<Vec<_>>()[..]
    );
    assert!(net.policy().check("10.1.2.3:443".parse().unwrap()).is_ok());
    for blocked in ["10.1.2.3:80", "10.2.2.3:443", "192.0.2.1:443"] {
        assert!(net.policy().check(blocked.parse().unwrap()).is_err(), "{blocked}");
    }
    assert!(
        net.policy().check_name("a.example.org", 8500).is_ok() && net.policy().check_name("b.example", 443).is_err()
    );
    assert_eq!(net.tls().alpn(), [b"h2".to_vec()]);
    let shown = format!("{config:?} {net:?}");
    assert!(!shown.contains("sesame") && shown.contains("near.example") && shown.contains("X-Token"), "{shown}");
    // What is empty writes nothing and means the defaults.
    assert_eq!(toml::to_string(&Config::default()).unwrap(), "");
    assert_eq!(toml("").to_connector().unwrap().timeouts(), Connector::default().timeouts());
}

#[test]
fn what_is_not_known_or_does_not_fit_is_refused_with_what_would() {
    for (text, words) in [
        ("vai = 'direct'", "unknown field `vai`, expected one of `via`"),
        ("[tls]\nmin_verison = '1.2'", "`min_version`"),
        ("[tls]\nmin_version = '1.1'", "`1.2` or `1.3`"),
        ("[timeouts]\nconnect = 5", "\"5s\""),
        ("[timeouts]\nconnect = '5 parsecs'", "\"5s\""),
        ("[timeouts]\nconect = '5s'", "`connect`"),
        ("[policy]\npreset = 'private'", "`any` or `public-only`"),
        ("policy = 'private'", "`any` or `public-only`"),
        ("[policy]\nports = [70000]", "a port"),
        ("[policy]\nports = ['9-8']", "a port"),
        ("[[routes]]\nto = '*'", "missing field `via`"),
        ("via = [{ url = 'http://a', pasword = 'sesame' }]", "`password`"),
        ("via = [{ url = 'http://a', password = 5 }]", "{ env = \"NAME\" }"),
        ("via = [{ url = 'http://a', password = { fiel = 'x' } }]", "`env` or `file`"),
        ("via = [{ url = 'http://a', password = { env = 'x', file = 'y' } }]", "{ env = \"NAME\" }"),
        ("via = 'http://u:se same@a'", "space"),
        ("via = 5", "between \"->\""),
        ("proxy_header = { local = true }", "version"),
    ] {
        let error = toml::from_str::<Config>(text).unwrap_err();
        assert!(error.message().contains(words), "{text}: {}", error.message());
        assert!(!error.message().contains("sesame"), "{text}");
    }
    for (text, words) in [
        ("via = 'near://a'", "no hop has the scheme \"near\""),
        ("via = 'http://a'\nproxy_from_env = true", "one of them"),
        ("or_via = ['direct']", "without via"),
        ("via = [{ url = 'http://u:p@a', password = 'q' }]", "beside it"),
        ("via = [{ url = 'socks5://a', headers = { a = 'b' } }]", "has no \"headers\""),
        ("via = [{ url = 'http://a', isolation = 'stream' }]", "has no \"isolation\""),
        ("via = [{ url = 'http://a', user = 'u', auth = 'magic' }]", "magic"),
        (
            "via = [{ url = 'http://a', user = 'u', password = { env = 'PORTOLAN_NO_SUCH_VARIABLE' } }]",
            "PORTOLAN_NO_SUCH",
        ),
        ("via = [{ url = 'http://a', user = 'u', password = { file = '/no/such/file' } }]", "/no/such/file"),
        ("[tls]\nca = [{ file = '/no/such/file' }]", "/no/such/file"),
        ("[tls]\nca = ['no pem']", "no certificate"),
        ("[tls]\nclient_cert = 'x'", "go together"),
        ("[tls]\npins = ['short']", "a pin is"),
        ("[tls]\nmin_version = '1.3'\nmax_version = '1.2'", "no TLS version"),
        ("[tcp]\nkeepalive_count = 1", "go together"),
        ("[resolver]\nmin_ttl = '1s'", "go together"),
        ("[resolver]\ncache = false\nentries = 5", "without cache"),
        ("[policy]\nallow = ['10.0.0.0/99']", "policy: \"10.0.0.0/99\" is no network"),
        ("via = 'http://a'\nor_via = ['http://u:p@a:x']", "or_via: invalid port"),
        ("[[routes]]\nvia = 'http://a'\n[[routes]]\nvia = 'ftp://u:p@a'", "routes[1]: no hop"),
        ("proxy_header = 'v3'", "v1 and v2"),
        ("proxy_header = { version = 'v1', crc32c = true }", "addresses alone"),
    ] {
        let error = refused(text);
        assert!(error.message().contains(words), "{text}: {error:?}");
        assert!(matches!(error.kind(), Kind::Usage | Kind::Unsupported), "{error:?}");
    }
}

/// Two CONNECT proxies in one: it answers any CONNECT, and says what it was told.
async fn proxy() -> (u16, tokio::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await?);
                }
                let _ = tell.send(String::from_utf8_lossy(&head).into_owned()).await;
                stream.write_all(b"HTTP/1.1 200 ok\r\n\r\nhello").await?;
                stream.read_u8().await.map(|_| ())
            });
        }
    });
    (port, told)
}

#[tokio::test]
async fn a_connector_out_of_toml_goes_the_way_it_says() {
    let (port, mut told) = proxy().await;
    let dir = std::env::temp_dir().join(format!("portolan-config-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("password");
    std::fs::write(&file, "sesame\n").unwrap();
    let text = format!(
        "via = [{{ url = 'http://localhost:{port}', user = 'ann', password = {{ file = '{}' }}, headers = {{ X-Team = 'blue' }} }}]\n\
         no_proxy = 'near.test'\nproxy_header = 'v1'\n[hosts]\n'near.test' = ['127.0.0.1']\n[timeouts]\nhop = '5s'",
        file.display()
    );
    let config = toml(&text);
    let net = config.to_connector().unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    let mut stream = net.connect(&Endpoint::new("far.test", 25).unwrap()).await.unwrap();
    let mut hello = [0; 5];
    stream.read_exact(&mut hello).await.unwrap();
    let head = told.recv().await.unwrap();
    assert!(head.starts_with("CONNECT far.test:25 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("Proxy-Authorization: Basic YW5uOnNlc2FtZQ==\r\nX-Team: blue\r\n"), "{head}");
    // The one that is excepted is reached directly, with the header that targets are sent.
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = Endpoint::new("near.test", target.local_addr().unwrap().port()).unwrap();
    let stream = net.connect(&near).await.unwrap();
    assert!(stream.info().hops.is_empty());
    let (mut seen, from) = target.accept().await.unwrap();
    let mut line = vec![0; format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", from.port(), near.port()).len()];
    seen.read_exact(&mut line).await.unwrap();
    assert_eq!(line, format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", from.port(), near.port()).as_bytes());
}

#[tokio::test]
async fn a_text_is_a_way_and_its_end_may_be_direct() {
    let (port, mut told) = proxy().await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let net = Connector::parse(&format!("socks5://127.0.0.1:{nobody} | http://joe:sesame@127.0.0.1:{port}")).unwrap();
    net.connect(&Endpoint::new("far.test", 25).unwrap()).await.unwrap();
    assert!(told.recv().await.unwrap().contains("Proxy-Authorization: Basic "));
    assert!(!format!("{net:?}").contains("sesame"));
    let net = Connector::parse(&format!("socks5://127.0.0.1:{nobody} | direct")).unwrap();
    let stream = net.connect(&format!("127.0.0.1:{port}").parse().unwrap()).await.unwrap();
    assert!(stream.info().hops.is_empty());
    let net = Connector::parse(&format!("socks5://127.0.0.1:{nobody}")).unwrap();
    let error = net.connect(&format!("127.0.0.1:{port}").parse().unwrap()).await.unwrap_err();
    assert_eq!((error.kind(), error.hop()), (Kind::Hop, Some(0)), "never around the proxy: {error:?}");
}

/// A resolver that says where it goes.
#[derive(Debug)]
struct Says(Connector, String);

impl Resolve for Says {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Answer, Error>> {
        Box::pin(async move {
            let server = Endpoint::parse(self.1.trim_start_matches("near://"), Some(1))?;
            // By the connector's own resolver, never by this one.
            let found = self.0.resolve(&server).await?;
            assert_eq!(name, "far.test");
            Ok(Answer::new(found.iter().map(|addr| addr.ip()).collect(), None))
        })
    }
}

#[tokio::test]
async fn resolvers_of_other_crates_come_by_their_schemes_and_are_found_by_others() {
    let schemes = ResolverSchemes::default()
        .with("near", |net, url| Ok(Arc::new(Says(net.clone(), url.to_owned())) as Arc<dyn Resolve>));
    for (text, addr) in [
        ("resolver = 'near://192.0.2.1'", "192.0.2.1"),
        ("resolver = ['near://192.0.2.1', 'near://192.0.2.2']", "192.0.2.1"),
        ("[resolver]\nservers = ['near://ns.test']\n[hosts]\n'ns.test' = ['192.0.2.3']", "192.0.2.3"),
        ("[resolver]\nservers = ['near://far.test']\nbootstrap = ['near://192.0.2.4']\ncache = false", "192.0.2.4"),
        // The policy of targets is not that of servers, whom the operator has named.
        ("resolver = ['near://127.0.0.1']\npolicy = { deny_hosts = ['127.0.0.1'] }", "127.0.0.1"),
    ] {
        let config = toml(text);
        let again: Config = toml::from_str(&toml::to_string(&config).unwrap()).unwrap();
        assert_eq!(config, again, "{text}");
        let net = config.to_builder_with(&HopSchemes::default(), &schemes).unwrap().build().unwrap();
        let found = net.resolve(&Endpoint::new("far.test", 7).unwrap()).await.unwrap();
        assert_eq!(found, [std::net::SocketAddr::new(addr.parse().unwrap(), 7)], "{text}");
        let error = config.to_connector().unwrap_err();
        assert!(error.message().contains("near"), "{error}");
    }
    // The server is under the policy of hops.
    let guarded = toml("resolver = ['near://127.0.0.1']\nhop_policy = 'public-only'");
    let net = guarded.to_builder_with(&HopSchemes::default(), &schemes).unwrap().build().unwrap();
    assert_eq!(net.resolve(&Endpoint::new("far.test", 7).unwrap()).await.unwrap_err().kind(), Kind::Resolve);
    for text in ["resolver = []\nproxy_from_env = 1", "resolver = 5", "resolver = { server = 'x' }", "resolver = [5]"] {
        assert!(toml::from_str::<Config>(text).is_err(), "{text}");
    }
    for text in ["[resolver]\nbootstrap = ['system']", "[resolver.tls]\nsni = false"] {
        assert_eq!(refused(text).kind(), Kind::Usage, "{text}");
    }
}

#[test]
fn hops_of_other_crates_come_by_their_schemes() {
    let schemes = HopSchemes::default().with("near", |spec| {
        assert_eq!(spec.credentials().unwrap().password.expose(), "sesame");
        Hop::parse(&format!("http://{}", spec.url().authority()))
    });
    let config = toml("via = [{ url = 'near://joe@a:1', password = 'sesame' }, 'http://b']");
    config.to_builder(&schemes).unwrap().build().unwrap();
    assert!(config.to_connector().unwrap_err().message().contains("near"));
}

#[test]
fn a_policy_may_be_said_by_its_name() {
    let short: Config = toml::from_str("policy = 'public-only'").unwrap();
    assert_eq!(short, toml::from_str("[policy]\npreset = 'public-only'").unwrap());
    assert_eq!(serde_json::from_str::<Config>(r#"{"policy": "public-only"}"#).unwrap(), short);
}
