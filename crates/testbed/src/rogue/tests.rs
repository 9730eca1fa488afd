use std::io::ErrorKind;
use std::time::Duration;

use portolan_core::{Connector, Endpoint, Roots, Tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::Instant;

use super::*;
use crate::{Certs, Leaf, ServerTls};

async fn said(stream: &mut (impl AsyncReadExt + Unpin), len: usize) -> Vec<u8> {
    let mut room = vec![0; len];
    stream.read_exact(&mut room).await.unwrap();
    room
}

#[tokio::test]
async fn a_conversation_runs_over_tcp_and_tells_what_was_heard() {
    let script = Script::new()
        .send("220 hi\r\n")
        .expect("EHLO x\r\n")
        .split("250 ok\r\n", 3)
        .expect_until("\r\n")
        .expect_len(2)
        .answer(|last| [b"got ", last].concat())
        .expect_close();
    let rogue = Rogue::tcp(script).await;
    let mut client = TcpStream::connect(rogue.addr()).await.unwrap();
    assert_eq!(said(&mut client, 8).await, b"220 hi\r\n");
    // Commands that come together are still taken one by one.
    client.write_all(b"EHLO x\r\nMAIL\r\nab").await.unwrap();
    assert_eq!(said(&mut client, 14).await, b"250 ok\r\ngot ab");
    client.shutdown().await.unwrap();
    let heard = rogue.finish().await;
    heard[0].assert_done();
    assert_eq!((heard[0].text().as_str(), heard[0].sent(), heard[0].received()), ("EHLO x\r\nMAIL\r\nab", 22, 16));
}

#[tokio::test]
async fn a_mismatch_says_what_was_expected_and_what_came() {
    let rogue = Rogue::tcp([Script::new().expect("QUIT\r\n"), Script::new().expect("QUIT\r\n")]).await;
    let mut wrong = TcpStream::connect(rogue.addr()).await.unwrap();
    wrong.write_all(b"QUIX").await.unwrap();
    let heard = rogue.ended(0).await;
    let text = heard.to_string();
    assert!(text.contains("step 1 of 1") && text.contains(r#"expected b"QUIT\r\n""#), "{text}");
    assert!(text.contains(r#"came b"QUIX", which differs at byte 3"#), "{text}");
    let mut short = TcpStream::connect(rogue.addr()).await.unwrap();
    short.write_all(b"QU").await.unwrap();
    drop(short);
    assert!(rogue.ended(1).await.to_string().contains("and then the peer closed"));
    let failed = tokio::spawn(rogue.finish()).await.unwrap_err();
    assert!(failed.is_panic());
}

#[tokio::test]
async fn every_ending_looks_as_it_does_on_the_wire() {
    let end = |script: Script| async move {
        let rogue = Rogue::tcp(script).await;
        let mut client = TcpStream::connect(rogue.addr()).await.unwrap();
        // Unread bytes must not turn a close into a reset.
        client.write_all(b"unread").await.unwrap();
        let mut all = Vec::new();
        let result = client.read_to_end(&mut all).await;
        (result.map_err(|error| error.kind()), all)
    };
    assert_eq!(end(Script::new().send("x")).await, (Ok(1), b"x".to_vec()));
    assert_eq!(end(Script::new().expect_len(1).cut()).await, (Ok(0), vec![]));
    assert_eq!(end(Script::new().expect_len(6).reset()).await.0, Err(ErrorKind::ConnectionReset));
    // Half closed, it still listens.
    let rogue = Rogue::tcp(Script::new().half_close().expect("still here")).await;
    let mut client = TcpStream::connect(rogue.addr()).await.unwrap();
    assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
    client.write_all(b"still here").await.unwrap();
    rogue.finish().await[0].assert_done();
}

#[tokio::test]
async fn a_flood_ends_when_the_peer_has_had_enough() {
    let rogue = Rogue::tcp(Script::new().flood("lines and lines\r\n", u64::MAX)).await;
    let mut client = TcpStream::connect(rogue.addr()).await.unwrap();
    let seen = said(&mut client, 100_000).await;
    assert!(seen.starts_with(b"lines and lines\r\nlines"));
    drop(client);
    let heard = rogue.finish().await;
    assert!(heard[0].sent() >= 100_000);
    let (mut client, rogue) = Rogue::pipe(Script::new().flood("ab", 5));
    let mut all = String::new();
    client.read_to_string(&mut all).await.unwrap();
    assert_eq!((all.as_str(), rogue.finish().await[0].sent()), ("ababa", 5));
}

#[tokio::test(start_paused = true)]
async fn delays_and_stalls_run_by_the_paused_clock() {
    let (mut client, rogue) = Rogue::pipe(Script::new().delay(Duration::from_secs(3600)).send("late").stall());
    let before = Instant::now();
    assert_eq!(said(&mut client, 4).await, b"late");
    assert_eq!(before.elapsed(), Duration::from_secs(3600));
    let silent = tokio::time::timeout(Duration::from_secs(60), client.read(&mut [0; 1])).await;
    assert!(silent.is_err());
    drop(client);
    rogue.finish().await[0].assert_done();
    // Over a socket as well.
    let rogue = Rogue::tcp(Script::new().delay(Duration::from_secs(60)).send("late")).await;
    let mut client = TcpStream::connect(rogue.addr()).await.unwrap();
    assert_eq!(said(&mut client, 4).await, b"late");
}

#[tokio::test]
async fn a_pipe_can_be_reset() {
    let (mut client, rogue) = Rogue::pipe(Script::new().send("x").reset());
    assert_eq!(said(&mut client, 1).await, b"x");
    assert_eq!(client.read(&mut [0; 1]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(client.write(b"y").await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    rogue.finish().await[0].assert_done();
    let (client, near) = tokio::io::duplex(64);
    drop(client);
    assert!(matches!(Script::new().send("x").run(near).await.end(), End::Left(_)));
}

#[tokio::test]
async fn every_connection_has_its_script() {
    let rogue = Rogue::tcp([Script::new().send("one"), Script::new().send("two")]).await;
    for word in ["one", "two", ""] {
        let mut text = String::new();
        TcpStream::connect(rogue.addr()).await.unwrap().read_to_string(&mut text).await.unwrap();
        assert_eq!(text, word);
    }
    assert_eq!(rogue.finish().await.len(), 2);
    let rogue = Rogue::tcp(|n: usize| Script::new().send(n.to_string()).times(2)).await;
    let mut text = String::new();
    for _ in 0..3 {
        TcpStream::connect(rogue.addr()).await.unwrap().read_to_string(&mut text).await.unwrap();
    }
    assert_eq!(text, "001122");
    // Whoever has connected by now counts, also if nobody has looked yet.
    let _last = std::net::TcpStream::connect(rogue.addr()).unwrap();
    assert_eq!(rogue.finish().await.len(), 4);
}

fn net(certs: &Certs) -> Connector {
    let tls = Tls::builder().roots(Roots::Custom).root_pem(certs.ca.as_bytes()).build().unwrap();
    Connector::builder().tls(tls).build().unwrap()
}

#[tokio::test]
async fn tls_from_the_start_or_later_with_good_and_bad_certificates() {
    let certs = Certs::new();
    let rogue = Rogue::tls(&ServerTls::new(&certs).alpn(["h2"]), Script::new().expect("hi").send("ho")).await;
    let to = Endpoint::new("localhost", rogue.addr().port()).unwrap();
    let mut stream = net(&certs).connect_tls(&to, &[b"h2"]).await.unwrap();
    assert_eq!(stream.alpn(), Some(&b"h2"[..]));
    stream.write_all(b"hi").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "ho");
    drop(stream);
    rogue.finish().await[0].assert_done();

    // A truncation is no end.
    let later = Script::new().expect("STARTTLS\r\n").send("go").start_tls(&ServerTls::new(&certs)).send("x").cut();
    let rogue = Rogue::tcp(later).await;
    let mut stream = net(&certs).connect(&rogue.addr().into()).await.unwrap();
    stream.write_all(b"STARTTLS\r\n").await.unwrap();
    assert_eq!(said(&mut stream, 2).await, b"go");
    let mut stream = stream.start_tls("localhost").await.unwrap();
    assert_eq!(stream.read_to_end(&mut Vec::new()).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);

    for leaf in [Leaf::server(["localhost"]).expired(), Leaf::server(["other.test"])] {
        let rogue = Rogue::tls(&ServerTls::with(certs.sign(&leaf)), Script::new()).await;
        let to = Endpoint::new("localhost", rogue.addr().port()).unwrap();
        net(&certs).connect_tls(&to, &[]).await.unwrap_err();
        assert!(matches!(rogue.ended(0).await.end(), End::Tls(_)));
    }
}

#[tokio::test]
async fn datagrams_are_answered_lost_doubled_forged_and_turned_round() {
    let echo = |bytes: &[u8]| bytes.to_vec();
    let script = Datagrams::new().expect("a").reply("A").again(1).lose(1).take().stranger(echo).answer(echo);
    let rogue = UdpRogue::new(script.then(Datagrams::new().reorder(2, echo))).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut room = [0; 16];
    for word in ["a", "lost", "b"] {
        client.send_to(word.as_bytes(), rogue.addr()).await.unwrap();
    }
    let mut came = Vec::new();
    for _ in 0..4 {
        let (n, from) = client.recv_from(&mut room).await.unwrap();
        came.push((room[..n].to_vec(), from == rogue.addr()));
    }
    let expected = [("A", true), ("A", true), ("b", false), ("b", true)];
    assert_eq!(came, expected.map(|(word, true_one)| (word.as_bytes().to_vec(), true_one)));
    for word in ["1", "2"] {
        client.send_to(word.as_bytes(), rogue.addr()).await.unwrap();
    }
    for word in ["2", "1"] {
        let (n, _) = client.recv_from(&mut room).await.unwrap();
        assert_eq!(&room[..n], word.as_bytes());
    }
    assert_eq!(rogue.finish().await.len(), 5);

    let rogue = UdpRogue::new(Datagrams::new().expect("a")).await;
    client.send_to(b"z", rogue.addr()).await.unwrap();
    assert!(tokio::spawn(rogue.finish()).await.unwrap_err().is_panic());
}
