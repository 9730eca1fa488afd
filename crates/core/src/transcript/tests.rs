#![allow(clippy::disallowed_methods, reason = "the peers of these tests open sockets")]

use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use super::dns::Dns;
use super::websocket::{self, Frames};
use super::{Match, Mismatch, Mode, Piece, Recorder, Redact, Replay, Side, Transcript, What};
use crate::connector::Connector;
use crate::endpoint::Endpoint;
use crate::error::{Delivery, Error, Kind, Phase, Result};
use crate::stream::Stream;

/// Answers each line in capitals, after a greeting, and closes at `QUIT`.
async fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.write_all(b"200 ahoy\r\n").await?;
                let (mut line, mut room) = (Vec::new(), [0; 1]);
                while stream.read(&mut room).await? == 1 {
                    line.push(room[0]);
                    if room[0] == b'\n' {
                        stream.write_all(&line.to_ascii_uppercase()).await?;
                        if line == b"QUIT\r\n" {
                            return stream.shutdown().await;
                        }
                        line.clear();
                    }
                }
                Ok::<_, std::io::Error>(())
            });
        }
    });
    addr
}

async fn line(stream: &mut Stream) -> Result<String> {
    let (mut line, mut room) = (String::new(), [0; 1]);
    while !line.ends_with('\n') {
        match stream.read(&mut room).await.map_err(|error| Error::io(Phase::FirstByte, error))? {
            0 => break,
            _ => line.push(char::from(room[0])),
        }
    }
    Ok(line)
}

/// Says these, each in pieces of so many bytes, and gives what was heard.
async fn talk(net: &Connector, to: SocketAddr, says: &[&str], piece: usize) -> Result<Vec<String>> {
    let mut stream = net.connect(&to.into()).await?;
    let mut heard = vec![line(&mut stream).await?];
    for said in says {
        for part in said.as_bytes().chunks(piece) {
            stream.write_all(part).await.map_err(|error| Error::io(Phase::Send, error))?;
        }
        heard.push(line(&mut stream).await?);
    }
    heard.push(line(&mut stream).await?);
    Ok(heard)
}

const SAYS: &[&str] = &["PASS sesame\r\n", "hello\r\n", "QUIT\r\n"];

async fn recorded(says: &[&str]) -> (SocketAddr, Vec<String>, Transcript) {
    let to = server().await;
    let recorder = Recorder::new(Redact::new().literal("HELLO"));
    let net = Connector::builder().record(&recorder).build().unwrap();
    let heard = talk(&net, to, says, 3).await.unwrap();
    (to, heard, recorder.transcript())
}

fn playing(replay: &Replay) -> Connector {
    Connector::builder().dial(replay.clone()).build().unwrap()
}

#[tokio::test]
async fn a_conversation_is_written_readably_and_played_again_however_it_is_cut() {
    let (to, heard, transcript) = recorded(SAYS).await;
    assert_eq!(heard, ["200 ahoy\r\n", "PASS SESAME\r\n", "HELLO\r\n", "QUIT\r\n", ""]);
    let text = transcript.to_string();
    assert!(text.starts_with("{\"portolan\":\"transcript\",\"version\":1}\n"), "{text}");
    assert!(text.contains(&format!("\"opened\":{{\"to\":\"{to}\",\"over\":\"stream\",\"peer\":\"{to}\"}}")), "{text}");
    assert!(text.contains("\"received\":[\"200 ahoy\\r\\n\"]") && text.contains("\"closed\":null"), "{text}");
    assert!(!text.contains("sesame") && text.contains("{\"hidden\":0}") && text.contains("{\"hidden\":5}"), "{text}");
    let again: Transcript = text.parse().unwrap();
    assert_eq!((again.to_string(), again.connections()), (text, 1));
    for piece in 1..8 {
        let replay = Replay::new(again.clone());
        let said = ["PASS other street\r\n", SAYS[1], SAYS[2]];
        let played = talk(&playing(&replay), to, &said, piece).await.unwrap();
        assert_eq!(played, ["200 ahoy\r\n", "PASS SESAME\r\n", "*****\r\n", "QUIT\r\n", ""]);
        replay.finish().unwrap();
    }
}

#[tokio::test]
async fn what_differs_is_a_typed_error_that_says_where() {
    let (to, _, transcript) = recorded(SAYS).await;
    let replay = Replay::new(transcript.clone());
    let error = talk(&playing(&replay), to, &[SAYS[0], "help\r\n"], 64).await.unwrap_err();
    let mismatch = Mismatch::of(&error).unwrap_or_else(|| panic!("{error:?}"));
    assert_eq!((mismatch.connection, mismatch.offset), (1, 16));
    assert_eq!((mismatch.expected.as_str(), mismatch.seen.as_str()), ("hello\\r\\n", "help\\r\\n"));
    assert_eq!(replay.finish().unwrap_err().server::<Mismatch>(), Some(mismatch));
    // Less than was said, more than was said, and one connection too many.
    let replay = Replay::new(transcript.clone());
    drop(playing(&replay).connect(&to.into()).await.unwrap());
    assert!(replay.finish().unwrap_err().message().contains("PASS ***"));
    let replay = Replay::new(transcript.clone());
    let error = talk(&playing(&replay), to, &[SAYS[0], SAYS[1], "QUIT\r\nmore"], 64).await.unwrap_err();
    assert!(Mismatch::of(&error).unwrap().expected.contains("nothing more"), "{error:?}");
    let error = playing(&replay).connect(&to.into()).await.unwrap_err();
    assert!(Mismatch::of(&error).is_some());
    let replay = Replay::new(transcript.clone());
    talk(&playing(&replay), to, SAYS, 64).await.unwrap();
    let error = playing(&replay).connect(&to.into()).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Connect, Delivery::NotSent));
    // TLS where there was none, and a connection that nobody opens.
    let replay = Replay::new(transcript);
    assert!(replay.finish().unwrap_err().message().contains("never opened"));
    let error = playing(&replay).connect_tls(&to.into(), &[]).await.unwrap_err();
    assert_eq!(Mismatch::of(&error).unwrap().expected, "no TLS");
}

#[tokio::test]
async fn a_loose_replay_keeps_to_the_turns_and_a_matcher_to_what_it_says() {
    let (to, heard, transcript) = recorded(SAYS).await;
    let heard: Vec<String> = heard.iter().map(|line| line.replace("HELLO", "*****")).collect();
    let replay = Replay::with_mode(transcript.clone(), Mode::Loose);
    let other = SocketAddr::from(([127, 0, 0, 1], 9));
    assert_eq!(talk(&playing(&replay), other, &["a\r\n", "something longer\r\n", "c\r\n"], 64).await.unwrap(), heard);
    let lines = |recorded: &[Piece], said: &[u8]| match said.iter().position(|byte| *byte == b'\n') {
        Some(end) if recorded.len() > 1 || said.starts_with(b"h") || said.starts_with(b"Q") => Match::Whole(end + 1),
        Some(_) => Match::Differs(0),
        None => Match::Begun,
    };
    let replay = Replay::with_matcher(transcript.clone(), lines);
    assert_eq!(talk(&playing(&replay), to, &["x\r\n", "hey\r\n", "Q\r\n"], 2).await.unwrap(), heard);
    replay.finish().unwrap();
    let replay = Replay::with_matcher(transcript, lines);
    let error = talk(&playing(&replay), to, &["x\r\n", "no\r\n"], 2).await.unwrap_err();
    assert!(Mismatch::of(&error).is_some());
}

#[tokio::test]
async fn a_recording_is_bounded_and_says_what_it_left_out() {
    let to = server().await;
    let recorder = Recorder::with_limits(Redact::new(), 1000, 1500);
    let net = Connector::builder().record(&recorder).build().unwrap();
    for _ in 0..20 {
        talk(&net, to, &["hello\r\n", "QUIT\r\n"], 1).await.unwrap();
    }
    let transcript = recorder.transcript();
    let cut = transcript.entries().iter().filter(|entry| matches!(entry.what, What::LeftOut(_))).count();
    assert!(cut >= 2 && transcript.to_string().len() < 8000, "{transcript}");
    assert_eq!(recorder.take_ended().to_string(), transcript.to_string());
    assert_eq!(recorder.transcript().connections(), 0);
    // There is room again.
    talk(&net, to, &["QUIT\r\n"], 100).await.unwrap();
    assert!(recorder.transcript().to_string().contains("QUIT"));
    // What was left out can't be played.
    let replay = Replay::new(transcript);
    let error = talk(&playing(&replay), to, &["hello\r\n", "QUIT\r\n"], 1).await.unwrap_err();
    assert!(Mismatch::of(&error).unwrap().expected.contains("left out"), "{error:?}");
}

#[tokio::test]
async fn what_is_coded_is_left_to_others() {
    let to = server().await;
    let recorder = Recorder::new(Redact::new());
    let net = Connector::builder().record(&recorder).build().unwrap();
    talk(&net, to, &["PRI * HTTP/2.0\r\n", "QUIT\r\n"], 100).await.unwrap();
    let text = recorder.transcript().to_string();
    assert!(!text.contains("PRI") && text.contains("\"left_out\":\"HTTP/2 and HTTP/3 are recorded as HAR\""), "{text}");
}

#[tokio::test]
async fn datagrams_are_recorded_and_played_each_by_itself() {
    let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = peer.local_addr().unwrap();
    tokio::spawn(async move {
        let mut room = [0; 100];
        while let Ok((n, from)) = peer.recv_from(&mut room).await {
            room[..n].reverse();
            peer.send_to(&room[..n], from).await.unwrap();
        }
    });
    let ask = async |net: &Connector, says: &[&[u8]]| {
        let flow = net.datagram(&Endpoint::from(to)).await?;
        let (mut room, mut heard) = ([0; 100], Vec::new());
        for said in says {
            flow.send(said).await?;
            let n = flow.recv(&mut room).await?;
            heard.push(room[..n].to_vec());
        }
        Ok::<_, Error>(heard)
    };
    let recorder = Recorder::new(Redact::new());
    let net = Connector::builder().record(&recorder).build().unwrap();
    let says: [&[u8]; 3] = [b"\x01\x02\xff", b"ahoy", b"\x00\xfftext within\x00ab"];
    let heard = ask(&net, &says).await.unwrap();
    let transcript: Transcript = recorder.transcript().to_string().parse().unwrap();
    let text = transcript.to_string();
    assert!(text.contains("{\"base64\":\"AQL/\"}") && text.contains("},\"text within\",{"), "{text}");
    let replay = Replay::new(transcript.clone());
    assert_eq!(ask(&playing(&replay), &says).await.unwrap(), heard);
    replay.finish().unwrap();
    let replay = Replay::new(transcript);
    // One that is longer differs, though it begins as it should.
    let error = ask(&playing(&replay), &[b"\x01\x02"]).await.unwrap_err();
    assert!(Mismatch::of(&error).is_some(), "{error:?}");
}

fn hides(redact: &Redact, said: &[u8], piece: usize) -> String {
    let [hidden, _] = redact.hidden(said.chunks(piece).map(|bytes| (Side::Client, bytes)));
    let (mut out, mut at) = (Vec::new(), 0);
    for range in hidden {
        out.extend_from_slice(&said[at..range.start]);
        out.extend_from_slice(b"***");
        at = range.end;
    }
    out.extend_from_slice(&said[at..]);
    String::from_utf8(out).unwrap()
}

#[test]
fn secrets_in_the_usual_places_are_found_however_they_are_split() {
    for (said, kept) in [
        ("PASS sesame street\r\nSTAT\r\n", "PASS ***\r\nSTAT\r\n"),
        ("AUTH PLAIN AGpvZQBzZWNyZXQ=\r\n", "AUTH PLAIN ***\r\n"),
        ("AUTH LOGIN\r\n", "AUTH LOGIN\r\n"),
        ("a1 LOGIN joe \"sesame\"\r\n", "a1 LOGIN ***\r\n"),
        ("a: 1\r\nCOOKIE:  a=b\r\n\r\n", "a: 1\r\nCOOKIE:  ***\r\n\r\n"),
        ("GET /?a=1&access_token=se;b HTTP/1.1\r\n", "GET /?a=1&access_token=***;b HTTP/1.1\r\n"),
        ("user=joe&password=ses%20ame", "user=joe&password=***"),
        ("GET /?no_password=1 HTTP/1.1\r\n", "GET /?no_password=1 HTTP/1.1\r\n"),
        ("{\"password\": \"a\\\"b\", \"b\": 1}", "{\"password\": \"***\", \"b\": 1}"),
        (
            "*2\r\n$4\r\nauth\r\n$6\r\nses\r\nx\r\n*1\r\n$4\r\nPING\r\n",
            "*2\r\n$4\r\nauth\r\n$***\r\n***\r\n*1\r\n$4\r\nPING\r\n",
        ),
        ("<auth mechanism='PLAIN'>AGpvZQ==</auth><auth/>", "<auth mechanism='PLAIN'>***</auth><auth/>"),
    ] {
        for piece in [1, 2, 3, 1000] {
            assert_eq!(hides(&Redact::new(), said.as_bytes(), piece), kept);
        }
    }
    let known = Redact::new().dangerous().with_secrets().literal("se same").literal("x");
    let known = known
        .rule(|_, bytes| bytes.iter().position(|byte| *byte == b'#').map(|at| at..usize::MAX).into_iter().collect());
    assert_eq!(hides(&known, b"PASS x se same se%20same #rest", 4), "PASS x *** *** ***");
    for (said, kept) in [("c2Ugc2FtZQ==", "***ZQ=="), ("ajpzZSBzYW1l", "ajp***")] {
        assert_eq!(hides(&known, said.as_bytes(), 5).replace("U=", ""), kept.replace("***ZQ==", "***Q=="));
    }
    // An answer to a challenge, and nothing after the login.
    let said: [(Side, &[u8]); 6] = [
        (Side::Client, b"AUTH LOGIN\r\n"),
        (Side::Server, b"334 VXNlcm5hbWU6\r\n"),
        (Side::Client, b"am9l\r\n"),
        (Side::Server, b"235 ok\r\n"),
        (Side::Client, b"MAIL FROM:<a@b>\r\n"),
        (Side::Server, b"250 AUTH PLAIN LOGIN\r\nset-cookie: a=b\r\n"),
    ];
    let [client, server] = Redact::new().hidden(said);
    assert_eq!(format!("{client:?} {server:?}"), "[12..16] [60..63]");
}

#[test]
fn what_is_no_transcript_is_refused_with_its_line() {
    for (text, word) in [
        ("", "no transcript"),
        ("{\"portolan\":\"transcript\",\"version\":2}\n", "version 2"),
        ("{\"portolan\":\"transcript\",\"version\":1}\n\n{\"at\":0.0,\"connection\":1}\n", "line 3"),
        ("{\"portolan\":\"transcript\",\"version\":1}\n{\"at\":-1.0,\"connection\":1,\"closed\":null}\n", "line 2"),
        (
            "{\"portolan\":\"transcript\",\"version\":1}\n{\"at\":1.0,\"connection\":1,\"sent\":[{\"base64\":\"*\"}]}\n",
            "line 2",
        ),
    ] {
        let error = text.parse::<Transcript>().unwrap_err();
        assert!(error.kind() == Kind::Usage && error.message().contains(word), "{error}");
    }
}

#[tokio::test]
async fn a_transcript_is_kept_in_a_file() {
    let (_, _, transcript) = recorded(SAYS).await;
    let path = std::env::temp_dir().join(format!("portolan-transcript-{}", std::process::id()));
    transcript.save(&path).unwrap();
    let loaded = Transcript::load(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(loaded.to_string(), transcript.to_string());
    assert_eq!(Transcript::load(&path).unwrap_err().kind(), Kind::Usage);
    assert!(loaded.entries().iter().all(|entry| entry.at < Duration::from_secs(3600)));
}

/// A client's frame.
fn frame(payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut out = vec![0x82];
    match u16::try_from(payload.len()).unwrap() {
        short @ ..126 => out.push(0x80 | u8::try_from(short).unwrap()),
        long => {
            out.push(0x80 | 126);
            out.extend(long.to_be_bytes());
        }
    }
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

proptest! {
    #[test]
    fn masks_are_taken_off_in_pieces_of_any_size(
        payloads in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..300), any::<[u8; 4]>()), 1..5), piece in 1..50_usize
    ) {
        let mut masked: Vec<u8> = payloads.iter().flat_map(|(payload, mask)| frame(payload, *mask)).collect();
        let plain: Vec<u8> = payloads.iter().flat_map(|(payload, _)| frame(payload, [0; 4])).collect();
        let mut frames = Frames::default();
        masked.chunks_mut(piece).for_each(|bytes| frames.unmask(bytes));
        prop_assert_eq!(masked, plain);
    }

    #[test]
    fn no_transcript_and_no_bytes_make_a_replay_panic(
        happened in prop::collection::vec((0..7_u8, prop::collection::vec(any::<u8>(), 0..40)), 0..8),
        said in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8),
        datagrams: bool,
    ) {
        let entry = |what: &str| format!("{{\"at\":0.0,\"connection\":1,{what}}}\n");
        let over = if datagrams { "datagrams" } else { "stream" };
        let mut text = "{\"portolan\":\"transcript\",\"version\":1}\n".to_owned();
        text += &entry(&format!("\"opened\":{{\"to\":\"h:1\",\"over\":\"{over}\"}}"));
        for (kind, bytes) in happened {
            let bytes = format!("[\"{}\",{{\"hidden\":2}}]", bytes.iter().map(|byte| format!("\\u00{byte:02x}")).collect::<String>());
            text += &entry(&match kind {
                0..=1 => format!("\"sent\":{bytes}"),
                2..=3 => format!("\"received\":{bytes}"),
                4 => "\"ended\":null".into(),
                5 => "\"shutdown\":null".into(),
                _ => "\"broken\":null".into(),
            });
        }
        for mode in [Mode::Strict, Mode::Loose] {
            let replay = Replay::with_mode(text.parse().unwrap(), mode);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let net = playing(&replay);
                let to = Endpoint::new("h", 1).unwrap();
                let mut room = [0; 16];
                let moment = Duration::from_millis(1);
                if datagrams {
                    let flow = net.datagram(&to).await.unwrap();
                    for said in &said {
                        let _ = (flow.send(said).await, tokio::time::timeout(moment, flow.recv(&mut room)).await);
                    }
                } else {
                    let mut stream = net.connect(&to).await.unwrap();
                    for said in &said {
                        let _ = (stream.write_all(said).await, tokio::time::timeout(moment, stream.read(&mut room)).await);
                    }
                }
            });
            let _ = replay.finish();
        }
    }
}

#[test]
fn the_key_of_rfc_6455_is_answered_and_found() {
    assert_eq!(websocket::accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    let head = b"GET / HTTP/1.1\r\nSec-WebSocket-Key:  abc\r\nA: b\r\n\r\nrest";
    assert_eq!(websocket::handshake(head), Some((36..39, 49)));
    assert_eq!(websocket::handshake(&head[..47]), None);
}

#[test]
fn questions_are_the_same_under_other_ids_and_cases_and_answers_follow_them() {
    let question = |id: u8, name: &[u8]| -> Vec<u8> {
        let head = [9, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        [&head, &[4][..], name, &[0, 0, 1, 0, 1]].concat()
    };
    let answer = |id: u8, name: &[u8]| -> Vec<u8> {
        let mut answer = question(id, name);
        answer[2] = 0x84;
        answer
    };
    let framed = |message: Vec<u8>| [&u16::try_from(message.len()).unwrap().to_be_bytes()[..], &message].concat();
    let mut dns = Dns::of(&question(1, b"here"), &answer(1, b"here"), false).unwrap();
    assert_eq!(dns.recorded(&question(1, b"here")), dns.said(&question(7, b"HeRe")));
    let mut heard = answer(1, b"here");
    dns.heard(&mut heard);
    assert_eq!(heard, answer(7, b"HeRe"));
    // Over a stream, two at once, in pieces, answered in the other order.
    let asked = [framed(question(1, b"here")), framed(question(2, b"sail"))].concat();
    let mut dns = Dns::of(&asked, &framed(answer(1, b"here")), true).unwrap();
    let now = [framed(question(8, b"HERE")), framed(question(9, b"sAIL"))].concat();
    let recorded = dns.recorded(&asked);
    assert_eq!(recorded, now.chunks(3).flat_map(|part| dns.said(part)).collect::<Vec<u8>>());
    let mut heard = [framed(answer(2, b"sail")), framed(answer(1, b"here"))].concat();
    dns.heard(&mut heard);
    assert_eq!(heard, [framed(answer(9, b"sAIL")), framed(answer(8, b"HERE"))].concat());
    assert!(Dns::of(b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\n", false).is_none());
}
