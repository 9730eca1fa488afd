use portolan_core::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::*;
use crate::rogue::{Datagrams, Rogue, Script, UdpRogue};

fn raw(script: &[(char, &[u8])]) -> Vec<Raw> {
    let raw = |(side, bytes): &(char, &[u8])| Raw {
        at: Duration::from_micros(1_000_001),
        connection: 0,
        side: if *side == '>' { Side::Client } else { Side::Server },
        what: RawWhat::Said(bytes.to_vec()),
    };
    script.iter().map(raw).collect()
}

/// What is written down of these words of the client.
fn hides(redact: &Redact, said: &[u8]) -> String {
    let whole = Transcript { entries: redact.apply(&raw(&[('>', said)])) };
    let whole = String::from_utf8(whole.said(0, Side::Client)).unwrap();
    // However it is cut, the same is hidden.
    for at in 1..said.len() {
        let split = Transcript { entries: redact.apply(&raw(&[('>', &said[..at]), ('>', &said[at..])])) };
        assert_eq!(String::from_utf8(split.said(0, Side::Client)).unwrap(), whole, "split at {at}");
    }
    let bytes: Vec<&[u8]> = said.chunks(1).collect();
    let bytes: Vec<(char, &[u8])> = bytes.into_iter().map(|byte| ('>', byte)).collect();
    assert_eq!(Transcript { entries: redact.apply(&raw(&bytes)) }.said(0, Side::Client), whole.as_bytes());
    whole
}

#[test]
fn secrets_in_the_usual_places_are_hidden_however_they_are_split() {
    let usual = Redact::default();
    for (said, kept) in [
        ("USER joe\r\nPASS sesame street\r\nSTAT\r\n", "USER joe\r\nPASS ***\r\nSTAT\r\n"),
        ("AUTH PLAIN AGpvZQBzZWNyZXQ=\r\n", "AUTH PLAIN ***\r\n"),
        ("AUTH LOGIN\r\n", "AUTH LOGIN\r\n"),
        ("AUTH sesame\r\n", "AUTH ***\r\n"),
        ("a1 LOGIN joe \"sesame\"\r\n", "a1 LOGIN ***\r\n"),
        ("a1 AUTHENTICATE PLAIN AGpvZQ==\r\n", "a1 AUTHENTICATE PLAIN ***\r\n"),
        (
            "GET / HTTP/1.1\r\nauthorization: Basic QQ==\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.1\r\nauthorization: ***\r\nHost: x\r\n\r\n",
        ),
        ("Proxy-Authorization:Basic QQ==\r\n", "Proxy-Authorization:***\r\n"),
        (
            "*2\r\n$4\r\nauth\r\n$6\r\nses\r\nx\r\n*1\r\n$4\r\nPING\r\n",
            "*2\r\n$4\r\nauth\r\n$***\r\n***\r\n*1\r\n$4\r\nPING\r\n",
        ),
        (
            "*5\r\n$5\r\nHELLO\r\n$1\r\n3\r\n$4\r\nAUTH\r\n$3\r\njoe\r\n$6\r\nsesame\r\n",
            "*5\r\n$5\r\nHELLO\r\n$1\r\n3\r\n$4\r\nAUTH\r\n$***\r\n***\r\n$***\r\n***\r\n",
        ),
        ("<auth mechanism='PLAIN'>AGpvZQ==</auth>", "<auth mechanism='PLAIN'>***</auth>"),
        ("GET /pass HTTP/1.1\r\n", "GET /pass HTTP/1.1\r\n"),
    ] {
        assert_eq!(hides(&usual, said.as_bytes()), kept);
    }
    let known = Redact::nothing().secret("sesame");
    assert_eq!(hides(&known, b"\0\x01joe\0sesame\0 sesame"), "\0\x01joe\0***\0 ***");
    assert_eq!(hides(&known, b"PASS x\r\n"), "PASS x\r\n");
    // Inside Base64, at each place modulo three: "sesame", "j:sesame", "jo:sesame".
    for (said, kept) in [("c2VzYW1l", "***"), ("ajpzZXNhbWU=", "ajp***U="), ("am86c2VzYW1l", "am86***")] {
        assert_eq!(hides(&known, said.as_bytes()), kept);
    }
}

#[test]
fn answers_to_challenges_are_hidden_until_the_login_is_over() {
    let said: &[(char, &[u8])] = &[
        ('>', b"AUTH LOGIN\r\n"),
        ('<', b"334 VXNlcm5hbWU6\r\n"),
        ('>', b"am9"),
        ('>', b"l\r\n"),
        ('<', b"334 UGFzc3dvcmQ6\r\n"),
        ('>', b"c2VjcmV0\r\n"),
        ('<', b"235 welcome\r\n"),
        ('>', b"MAIL FROM:<a@b>\r\n"),
    ];
    let transcript = Transcript { entries: Redact::default().apply(&raw(said)) };
    let client = transcript.said(0, Side::Client);
    assert_eq!(client, b"AUTH LOGIN\r\n***\r\n***\r\nMAIL FROM:<a@b>\r\n", "{transcript}");
}

#[test]
fn the_text_form_is_readable_and_comes_back_whole() {
    let every: Vec<u8> = (0..=255).collect();
    let mut entries = Redact::default().apply(&raw(&[('>', b"PASS \"x\"\r\n"), ('<', &every)]));
    entries.push(Entry { at: Duration::ZERO, connection: 3, side: Side::Server, what: What::Reset });
    let transcript = Transcript { entries };
    let text = transcript.to_string();
    assert!(
        text.contains("\n0 1.000001 > \"PASS \" *** \"\\r\\n\"\n") && text.ends_with("3 0.000000 < reset\n"),
        "{text}"
    );
    assert_eq!(Transcript::parse(&text).unwrap(), transcript);
    let dir = crate::folder("transcript");
    transcript.save(&dir.join("t")).unwrap();
    assert_eq!(Transcript::load(&dir.join("t")).unwrap(), transcript);
    std::fs::remove_dir_all(dir).unwrap();
    for broken in ["", "# portolan transcript 1\n0 1.0 ? \"x\"\n", "# portolan transcript 1\n0 1.0 > \"x\n"] {
        assert!(Transcript::parse(broken).is_err());
    }
}

/// A login and a question, the password given piece by piece.
async fn client(mut stream: TcpStream, password: &[u8]) -> String {
    for byte in [b"USER joe\r\nPASS ", password, b"\r\nSTAT\r\n"].concat() {
        stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    stream.shutdown().await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn a_recorded_conversation_hides_a_split_password_and_can_be_replayed() {
    let server = Script::new()
        .send("+OK hi\r\n")
        .expect("USER joe\r\nPASS sesame\r\n")
        .send("+OK in\r\n")
        .expect("STAT\r\n")
        .send("+OK 1 2\r\n")
        .expect_close();
    let rogue = Rogue::tcp(server).await;
    let recorder = Recorder::tcp(rogue.addr()).await;
    let stream = TcpStream::connect(recorder.addr()).await.unwrap();
    let before = client(stream, b"sesame").await;
    assert_eq!(before, "+OK hi\r\n+OK in\r\n+OK 1 2\r\n");
    let transcript = recorder.finish().await;
    rogue.finish().await[0].assert_done();
    let text = transcript.to_string();
    assert_eq!(transcript.said(0, Side::Client), b"USER joe\r\nPASS ***\r\nSTAT\r\n", "{text}");
    // The same again without the server, and with another password.
    let replay = Rogue::tcp(Transcript::parse(&text).unwrap().scripts()).await;
    let again = client(TcpStream::connect(replay.addr()).await.unwrap(), b"another").await;
    assert_eq!(again, before);
    replay.finish().await[0].assert_done();
}

#[tokio::test]
async fn a_reset_is_passed_on_and_replayed() {
    let rogue = Rogue::tcp(Script::new().expect("x").send("y").expect("z").reset()).await;
    let recorder = Recorder::tcp(rogue.addr()).await;
    let talk = async |addr| {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(b"x").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'y');
        stream.write_all(b"z").await.unwrap();
        stream.read(&mut [0; 8]).await.unwrap_err().kind()
    };
    assert_eq!(talk(recorder.addr()).await, std::io::ErrorKind::ConnectionReset);
    let replay = Rogue::tcp(recorder.finish().await.scripts()).await;
    assert_eq!(talk(replay.addr()).await, std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_wrapped_stream_is_recorded_too() {
    let (near, rogue) = Rogue::pipe(Script::new().send("hi\r\n").expect("AUTH sesame\r\n").send("ok\r\n"));
    let (recorded, tap) = Recorded::new(near, Redact::default());
    let mut stream = Stream::from_io(recorded);
    stream.write_all(b"AUTH ses").await.unwrap();
    stream.write_all(b"ame\r\n").await.unwrap();
    stream.read_to_end(&mut Vec::new()).await.unwrap();
    stream.shutdown().await.unwrap();
    drop(stream);
    rogue.finish().await[0].assert_done();
    let transcript = tap.transcript();
    assert!(!transcript.to_string().contains("ame"), "{transcript}");
    assert_eq!(transcript.said(0, Side::Server), b"hi\r\nok\r\n");
    assert_eq!(transcript.entries().iter().filter(|entry| entry.what == What::Closed).count(), 2, "{transcript}");
}

#[tokio::test]
async fn datagrams_are_recorded_and_replayed() {
    let rogue = UdpRogue::new(Datagrams::new().expect("one").reply("1").expect("sesame").reply("2")).await;
    let recorder = Recorder::udp(rogue.addr()).await.redact(Redact::default().secret("sesame"));
    let ask = async |addr, word: &[u8]| {
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut answers = Vec::new();
        for word in [b"one", word] {
            client.send_to(word, addr).await.unwrap();
            let mut room = [0; 8];
            let n = client.recv(&mut room).await.unwrap();
            answers.extend_from_slice(&room[..n]);
        }
        answers
    };
    assert_eq!(ask(recorder.addr(), b"sesame").await, b"12");
    rogue.finish().await;
    let transcript = recorder.transcript();
    assert!(!transcript.to_string().contains("sesame"), "{transcript}");
    let replay = UdpRogue::new(transcript.datagrams(0)).await;
    assert_eq!(ask(replay.addr(), b"other").await, b"12");
    replay.finish().await;
}
