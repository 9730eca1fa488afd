//! Replies, the laws, and a scripted server.

use bytes::BytesMut;
use portolan_core::{Credentials, Delivery, Endpoint, Error, Kind, Limit, Stream, Timeouts};
use portolan_wire::{Codec, laws};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;

const SEEDS: &[&[u8]] = &[
    b"220 mail.example ESMTP Postfix\r\n",
    b"250-mail.example\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-AUTH PLAIN LOGIN\r\n250 8BITMIME\r\n",
    b"550 5.1.1 <x@y>: Recipient address rejected\r\n",
    b"354 End data with <CR><LF>.<CR><LF>\r\n",
    b"250\r\n",
    b"421-4.3.2 going down\r\n421 4.3.2 bye\r\n",
];

#[test]
fn the_decoder_keeps_the_laws() {
    laws::check(SmtpCodec::default, SEEDS);
}

#[test]
fn replies_are_read_in_all_their_forms() {
    let read = |bytes: &[u8]| SmtpCodec::default().decode(&mut BytesMut::from(bytes)).unwrap().unwrap();
    let reply = read(SEEDS[2]);
    assert_eq!(
        (reply.code, reply.enhanced, reply.text().as_str()),
        (550, Some((5, 1, 1)), "<x@y>: Recipient address rejected")
    );
    assert_eq!(read(SEEDS[5]).lines, ["going down", "bye"]);
    assert_eq!(read(SEEDS[4]).code, 250);
    let extensions = Extensions::parse(&read(SEEDS[1]), true);
    assert!(extensions.pipelining && extensions.eight_bit && !extensions.starttls);
    assert_eq!((extensions.size, extensions.auth), (Some(10_240_000), vec!["PLAIN".to_owned(), "LOGIN".to_owned()]));
    for bad in [&b"25\r\n"[..], b"abc\r\n", b"999 x\r\n", b"250_x\r\n", b"250-a\r\n251 b\r\n", b"150 x\r\n"] {
        assert!(SmtpCodec::default().decode(&mut BytesMut::from(bad)).is_err(), "{bad:?}");
    }
    let endless = b"250-x\r\n".repeat(10_000);
    assert_eq!(
        SmtpCodec::default().decode(&mut BytesMut::from(&endless[..])).unwrap_err().why,
        portolan_wire::Why::TooLong
    );
}

/// Plays a server: what it says first, then pairs of what must come and what is answered.
fn server(
    mut far: DuplexStream,
    script: &'static [(&'static str, &'static str)],
) -> tokio::task::JoinHandle<DuplexStream> {
    tokio::spawn(async move {
        for (expected, answer) in script {
            let mut seen = vec![0; expected.len()];
            far.read_exact(&mut seen).await.unwrap();
            assert_eq!(String::from_utf8_lossy(&seen), *expected);
            far.write_all(answer.as_bytes()).await.unwrap();
        }
        far
    })
}

fn options() -> Options {
    Options::new(Endpoint::new("mail.test", 25).unwrap()).security(Security::Clear)
}

async fn talk(
    options: Options,
    script: &'static [(&'static str, &'static str)],
) -> (Result<Client, Error>, tokio::task::JoinHandle<DuplexStream>) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let server = server(far, script);
    (Client::from_stream(Stream::from_io(near), options).await, server)
}

#[tokio::test]
async fn a_message_is_stuffed_and_each_recipient_has_a_result() {
    let (client, server) = talk(
        options(),
        &[
            ("", "220 hi\r\n"),
            ("EHLO localhost\r\n", "250-hi\r\n250-PIPELINING\r\n250 SIZE\r\n"),
            ("MAIL FROM:<a@b> SIZE=10\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\n", "250 ok\r\n250 ok\r\n550 5.1.1 no\r\n"),
            ("DATA\r\n", "354 go\r\n"),
            ("..\r\n..x\r\n\r\ny\r\n.\r\n", "250 queued as 7\r\n"),
            ("QUIT\r\n", "221 bye\r\n"),
        ],
    )
    .await;
    let mut client = client.unwrap();
    let report = client.send("a@b", ["c@d", "e@f"], b".\n.x\r\n\r\ny\n").await;
    // The scripted size is that of the message as given.
    let report = report.unwrap();
    assert_eq!((report.accepted, report.refused.len(), report.refused[0].1.code), (vec!["c@d".to_owned()], 1, 550));
    assert!(client.is_reusable());
    client.close().await.unwrap();
    server.await.unwrap();
}

#[tokio::test]
async fn a_server_without_starttls_hears_no_credentials() {
    let login = options().security(Security::StartTls).credentials(Credentials::new("joe", "sesame"));
    let (client, server) =
        talk(login, &[("", "220 hi\r\n"), ("EHLO localhost\r\n", "250-hi\r\n250 AUTH PLAIN\r\n")]).await;
    let error = client.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Tls, Delivery::NotSent));
    server.await.unwrap();
    let clear = options().credentials(Credentials::new("joe", "sesame"));
    let (client, _) = talk(clear, &[("", "220 hi\r\n"), ("EHLO localhost\r\n", "250-hi\r\n250 AUTH PLAIN\r\n")]).await;
    assert_eq!(client.unwrap_err().kind(), Kind::Auth);
}

#[tokio::test]
async fn words_before_the_handshake_are_an_injection() {
    let script = &[
        ("", "220 hi\r\n"),
        ("EHLO localhost\r\n", "250-hi\r\n250 STARTTLS\r\n"),
        ("STARTTLS\r\n", "220 go\r\n250 evil\r\n"),
    ];
    let (client, _) = talk(options().security(Security::StartTls), script).await;
    assert_eq!(client.unwrap_err().kind(), Kind::Protocol);
}

#[tokio::test]
async fn what_the_server_lacks_is_said_before_a_byte_is_sent() {
    let script = &[("", "220 hi\r\n"), ("EHLO localhost\r\n", "250-hi\r\n250 SIZE 100\r\n")];
    let (client, server) = talk(options(), script).await;
    let mut client = client.unwrap();
    for (error, kind) in [
        (client.send("a@b", ["c@d"], "ü".as_bytes()).await.unwrap_err(), Kind::Unsupported),
        (client.send("a@b", ["ö@d"], b"x").await.unwrap_err(), Kind::Unsupported),
        (client.send("a@b", ["c@d"], &[b'x'; 101]).await.unwrap_err(), Kind::Limit),
        (client.send("a@b", ["c@d\r\nDATA"], b"x").await.unwrap_err(), Kind::Usage),
        (client.send::<&str>("a@b", [], b"x").await.unwrap_err(), Kind::Usage),
        (client.command("NOOP\r\nDATA").await.unwrap_err(), Kind::Usage),
    ] {
        assert_eq!((error.kind(), error.delivery()), (kind, Delivery::NotSent), "{error:?}");
    }
    assert!(client.is_reusable());
    server.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stalls_is_left_in_time() {
    let (near, _far) = tokio::io::duplex(64);
    let limits = Timeouts::default().handshake(Limit::After(Duration::from_secs(3)));
    let error = Client::from_stream(Stream::from_io(near), options().timeouts(limits)).await.unwrap_err();
    assert!(error.is_timeout() && error.delivery() == Delivery::NotSent);
}

#[tokio::test]
async fn a_dropped_message_leaves_no_usable_connection() {
    let script = &[("", "220 hi\r\n"), ("EHLO localhost\r\n", "250 hi\r\n"), ("MAIL FROM:<a@b>\r\n", "")];
    let (client, server) = talk(options(), script).await;
    let mut client = client.unwrap();
    let drop_later;
    tokio::select! {
        _ = client.send("a@b", ["c@d"], b"x") => panic!("the server never answers"),
        far = server => drop_later = far.unwrap(),
    }
    assert!(!client.is_reusable());
    assert_eq!(client.noop().await.unwrap_err().kind(), Kind::Closed);
    drop(drop_later);
}
