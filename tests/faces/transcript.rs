//! Conversations with real servers, recorded, and played again when the servers are gone.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::process::Command;

use portolan_classic::whois;
use portolan_core::transcript::{Mismatch, Recorder, Redact, Replay, Transcript};
use portolan_core::{Connector, ConnectorBuilder, Credentials, Endpoint, Result, Roots, Tls};
use portolan_db::redis;
use portolan_dns::dns::{self, RecordType, Transport};
use portolan_http::{Client, Version};
use portolan_mail::smtp;
use portolan_testbed::rogue::{Rogue, Script};
use portolan_testbed::{Certs, Server, Service, find, free_port, python, record};
use portolan_websocket::{CloseCode, Deflate, Message, Options, Request, WebSocket};

use crate::servers;
use crate::uwhoisd::uwhoisd;

fn trusting(certs: &Certs) -> ConnectorBuilder {
    Connector::builder().tls(Tls::builder().roots(Roots::Custom).root_pem(certs.ca.as_bytes()).build().unwrap())
}

/// Records what `client` does, ends the server, and has it done again. The transcript must hold none of `secrets`.
async fn proved<T: PartialEq + Debug>(
    what: &str,
    net: ConnectorBuilder,
    server: impl Sized,
    secrets: &[&str],
    client: impl AsyncFn(Connector) -> Result<T>,
) -> Transcript {
    let recorder = Recorder::new(Redact::new());
    let first = client(net.clone().record(&recorder).build().unwrap()).await.unwrap();
    drop(server);
    let text = recorder.transcript().to_string();
    for secret in secrets {
        assert!(!text.contains(secret), "{what}: {secret} in {text}");
    }
    let transcript: Transcript = text.parse().unwrap();
    let replay = Replay::new(transcript.clone());
    let again = client(net.dial(replay.clone()).build().unwrap()).await;
    let again = again.unwrap_or_else(|error| panic!("{what}: {error:?}\n{:?}\n{text}", replay.finish()));
    assert_eq!(again, first, "{what}");
    replay.finish().unwrap_or_else(|error| panic!("{what}: {error}\n{text}"));
    transcript
}

#[tokio::test]
async fn redis_with_a_password_over_tls() {
    let (certs, port) = (Certs::new(), free_port());
    let server = Service::new("redis-server", "redis-server")
        .args([
            "--port",
            "0",
            "--tls-port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ])
        .args(["--dir", "$D", "--tls-cert-file", "$D/server.pem", "--tls-key-file", "$D/server.key"])
        .args(["--tls-ca-cert-file", "$D/ca.pem", "--tls-auth-clients", "no", "--requirepass", "open sesame"])
        .tls(&certs)
        .accepts(([127, 0, 0, 1], port).into());
    let Some(server) = server.start() else { return };
    let session = async |net: Connector| {
        let url = format!("rediss://:open%20sesame@localhost:{port}");
        let client = redis::Client::connect(&net, redis::Options::from_url(&url)?).await?;
        client.set("blob", vec![0_u8, 255, 13, 10]).await?;
        client.set("n", 41).await?;
        let n = client.incr("n", 1).await?;
        let blob: Vec<u8> = client.get::<bytes::Bytes>("blob").await?.to_vec();
        let wrong = client.lrange::<String>("n", 0, -1).await.unwrap_err();
        Ok((n, blob, wrong.message().to_owned(), client.get::<Option<String>>("none").await?))
    };
    let transcript = proved("redis", trusting(&certs), server, &["sesame"], session).await;
    assert!(transcript.to_string().contains("\"tls\":{\"version\":\"TLSv1.3\""), "{transcript}");
    // Another question is told where it differs.
    let replay = Replay::new(transcript);
    let net = trusting(&certs).dial(replay.clone()).build().unwrap();
    let url = format!("rediss://:other@localhost:{port}");
    let client = redis::Client::connect(&net, redis::Options::from_url(&url).unwrap()).await;
    let client = client.unwrap_or_else(|error| panic!("{error:?}\n{:?}", replay.finish()));
    let error = client.get::<String>("blob").await.unwrap_err();
    let mismatch = Mismatch::of(&error).cloned().unwrap_or_else(|| panic!("{error:?}"));
    assert!(mismatch.expected.contains("SET") && mismatch.seen.contains("GET"), "{mismatch}");
    assert_eq!(replay.finish().unwrap_err().server::<Mismatch>(), Some(&mismatch));
    record("redis", "peer", "redis-server", "recorded over TLS and replayed", 7);
}

#[tokio::test]
async fn smtp_that_turns_to_tls_and_logs_in() {
    let Some(python) = find("python3-aiosmtpd", "python3") else { return };
    let here = Command::new(python).args(["-c", "import aiosmtpd"]).output().unwrap();
    if !here.status.success() {
        assert!(!portolan_testbed::required(), "install python3-aiosmtpd");
        println!("SKIPPED: install python3-aiosmtpd");
        return;
    }
    let (certs, port) = (Certs::new(), free_port());
    let script = format!(
        "import ssl, time\nfrom aiosmtpd.controller import Controller\nfrom aiosmtpd.smtp import AuthResult\n\
         class Box:\n    async def handle_DATA(self, server, session, envelope):\n        return '250 stored %d' % len(envelope.content)\n\
         def login(server, session, envelope, mechanism, data):\n    return AuthResult(success=data.password == b'sesame', handled=False)\n\
         tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\ntls.load_cert_chain('$D/server.pem', '$D/server.key')\n\
         Controller(Box(), hostname='127.0.0.1', port={port}, tls_context=tls, require_starttls=True, authenticator=login, auth_required=True).start()\n\
         time.sleep(3600)\n"
    );
    let service = Service::new("python3-aiosmtpd", "python3").file("serve.py", script).tls(&certs).arg("$D/serve.py");
    let Some(server) = service.accepts(([127, 0, 0, 1], port).into()).start() else { return };
    let session = async |net: Connector| {
        let options = smtp::Options::new(Endpoint::new("localhost", port)?);
        let mut client = smtp::Client::connect(&net, options.credentials(Credentials::new("joe", "sesame"))).await?;
        let report = client.send("a@b.test", ["c@d.test"], b"Subject: x\n\n.\nbare\n").await?;
        let facts = (report.reply.text(), client.extensions().lines.clone(), client.info().tls.is_some());
        client.close().await?;
        Ok(facts)
    };
    // "\0joe\0sesame" in Base64.
    let transcript = proved("smtp", trusting(&certs), server, &["sesame", "AGpvZQBzZXNhbWU"], session).await;
    let text = transcript.to_string();
    assert!(text.contains("STARTTLS") && text.contains("\"secured\":{\"version\":\"TLSv1.3\""), "{text}");
    assert!(text.contains("AUTH PLAIN "), "{text}");
    record("smtp", "peer", "aiosmtpd", "recorded through STARTTLS and replayed", 8);
}

#[tokio::test]
async fn whois_whose_end_is_that_of_the_connection() {
    let registry =
        Rogue::tcp(Script::new().expect_until("\n").send("domain: EXAMPLE.ORG\r\nowner: J\u{f6}rg\r\n")).await;
    let Some((server, addr)) = uwhoisd(registry.addr()) else { return };
    let session = async |net: Connector| {
        let client = whois::Client::connect(&net, whois::Options::new(addr.into())).await?;
        let answer = client.query("example.org").await?;
        Ok(answer.replies.iter().map(|reply| reply.text.lossy().into_owned()).collect::<Vec<_>>())
    };
    let transcript = proved("whois", Connector::builder(), (server, registry), &[], session).await;
    assert!(transcript.to_string().contains("\"ended\":null"), "{transcript}");
    record("whois", "peer", "uwhoisd", "recorded and replayed", 1);
}

/// Named with a zone of its own.
fn bind() -> Option<(Server, SocketAddr)> {
    let port = free_port();
    let conf = format!(
        "options {{ directory \"$D\"; pid-file \"$D/pid\"; session-keyfile \"$D/sk\"; managed-keys-directory \"$D\";\n\
         listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; recursion no; dnssec-validation no; }};\n\
         controls {{}};\nzone \"portolan.test\" {{ type master; file \"zone\"; allow-transfer {{ any; }}; }};\n"
    );
    let zone =
        "$TTL 60\n@ IN SOA ns hostmaster 1 2 3 4 5\n@ IN NS ns\nns IN A 192.0.2.1\n@ IN A 192.0.2.10\n@ IN MX 10 ns\n";
    let service = Service::new("bind9", "named").args(["-g", "-n", "1", "-c", "$D/named.conf"]);
    let server = service.file("named.conf", conf).file("zone", zone).says(" running\n").start()?;
    Some((server, ([127, 0, 0, 1], port).into()))
}

#[tokio::test]
async fn dns_over_datagrams_and_streams_under_other_ids() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let Some((server, addr)) = bind() else { return };
        let session = async |net: Connector| {
            let names = dns::Client::connect(&net, dns::Options::new(addr.into()).transport(transport)).await?;
            let mut heard = Vec::new();
            for (name, kind) in [
                ("portolan.test", RecordType::A),
                ("portolan.test", RecordType::Mx),
                ("ns.portolan.test", RecordType::A),
                ("none.portolan.test", RecordType::A),
            ] {
                let answer = names.query(name, kind).await?;
                heard.push((
                    answer.rcode.to_string(),
                    answer.answers.iter().map(ToString::to_string).collect::<Vec<_>>(),
                ));
            }
            Ok(heard)
        };
        proved("dns", Connector::builder(), server, &[], session).await;
    }
    record("dns", "peer", "bind", "recorded over UDP and TCP and replayed", 8);
}

#[tokio::test]
async fn http_1_in_cleartext_and_over_tls() {
    for tls in [false, true] {
        let certs = Certs::new();
        let Some(site) = servers::nginx(&certs) else { return };
        let base = match tls {
            true => format!("https://localhost:{}", site.tls.unwrap()),
            false => format!("http://localhost:{}", site.plain.unwrap()),
        };
        let session = async |net: Connector| {
            let client = Client::builder().connector(net).version(Version::Http1Only).build()?;
            let mut heard = Vec::new();
            for path in ["/small.txt", "/moved", "/long.txt", "/broken", "/none"] {
                let response = client.get(format!("{base}{path}")).send().await?;
                heard.push((response.status(), response.is_reused(), response.text().await?));
            }
            let known = client.get(format!("{base}/basic")).basic_auth("joe", "secret").send().await?;
            heard.push((known.status(), known.is_reused(), known.text().await?));
            let posted =
                client.post(format!("{base}/broken")).form([("password", "sesame"), ("b", "c")]).send().await?;
            heard.push((posted.status(), posted.is_reused(), posted.text().await?));
            Ok(heard)
        };
        let secrets = ["sesame", "am9lOnNlY3JldA"];
        let transcript = proved("http", trusting(&certs), site, &secrets, session).await;
        assert!(transcript.to_string().contains("HTTP/1.1 200 OK"));
    }
    record("http1", "peer", "nginx", "recorded, with TLS and without, and replayed", 14);
}

#[tokio::test]
async fn websocket_under_other_keys_and_masks() {
    let Some(python) = python("websockets", "websockets") else { return };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/websocket/tests/peers/websockets_echo.py");
    for deflate in [false, true] {
        let port = free_port();
        let service = Service::new("pip:websockets", &python).args([script, &port.to_string()]);
        let Some(server) = service.accepts(([127, 0, 0, 1], port).into()).start() else { return };
        let session = async |net: Connector| {
            let options = if deflate { Options::new().deflate(Deflate::new()) } else { Options::new() };
            let request = Request::new(&format!("ws://localhost:{port}/"))?.subprotocol("echo")?;
            let mut socket = WebSocket::open(&net, &request, options).await?;
            let mut heard = Vec::new();
            for message in
                [Message::from("ahoy"), Message::from(vec![7_u8; 70_000]), Message::from("{\"password\":\"sesame\"}")]
            {
                socket.send(message).await?;
                heard.push(socket.recv().await?);
            }
            socket.close(CloseCode::NORMAL, "done").await?;
            Ok(heard)
        };
        let secrets: &[&str] = if deflate { &[] } else { &["sesame"] };
        // What is hidden of an answer is played as stars.
        let session = async |net: Connector| {
            let heard: Vec<Option<Message>> = session(net).await?;
            let text = |message: Option<Message>| {
                message.map(|message| message.as_text().map(|text| text.replace("sesame", "******")))
            };
            Ok(heard.into_iter().map(text).collect::<Vec<_>>())
        };
        let transcript = proved("websocket", Connector::builder(), server, secrets, session).await;
        assert!(deflate || transcript.to_string().contains("ahoy"), "{transcript}");
    }
    record("websocket", "peer", "websockets", "recorded and replayed", 6);
}
