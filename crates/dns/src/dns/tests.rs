//! Vectors, the laws, and peers that lie, stall and cut.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use portolan_core::{Connector, Datagram, Delivery, Endpoint, Error, Kind, Limit, Phase, Stream, clock};
use portolan_wire::{DecodeError, laws};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::codec::{Manner, Query};
use super::*;

/// `example.org` as it stands in a question.
const NAME: &[u8] = b"\x07example\x03org\0";
/// A record for the name of the question: 192.0.2.`n`.
fn a_record(n: u8) -> Vec<u8> {
    [b"\xc0\x0c\0\x01\0\x01\0\0\x0e\x10\0\x04\xc0\0\x02".as_slice(), &[n]].concat()
}

/// A reply to `query` without its EDNS: flags of the third byte, the response code, the records.
fn reply(query: &[u8], flags: u8, rcode: u8, answers: &[Vec<u8>]) -> Vec<u8> {
    let labels_end = 12 + query[12..].iter().position(|&byte| byte == 0).unwrap() + 1;
    let mut out = query[..labels_end + 4].to_vec();
    out[2] = 0x80 | flags | query[2] & 1;
    out[3] = 0x80 | rcode;
    out[4..12].copy_from_slice(&[0, 1, 0, u8::try_from(answers.len()).unwrap(), 0, 0, 0, 0]);
    out.extend(answers.concat());
    out
}

fn message(answers: &[Vec<u8>]) -> Vec<u8> {
    let query = [b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0".as_slice(), NAME, b"\0\x01\0\x01"].concat();
    reply(&query, 4, 0, answers)
}

fn bound(text: &str) -> (Datagram, Endpoint) {
    let peer = Connector::default().datagram_bound(text.parse().unwrap(), false).unwrap();
    let to = Endpoint::from(peer.local_addr().unwrap());
    (peer, to)
}

async fn hear(peer: &Datagram) -> (Vec<u8>, SocketAddr) {
    let mut buf = vec![0; 2048];
    let (n, from) = peer.recv_from(&mut buf).await.unwrap();
    buf.truncate(n);
    (buf, from)
}

async fn client(options: Options) -> Client {
    Client::connect(&Connector::default(), options).await.unwrap()
}

fn quick(to: Endpoint) -> Options {
    Options::new(to).retransmit(Duration::from_millis(100)).timeout(Duration::from_millis(900))
}

fn first_a(response: &Response) -> Ipv4Addr {
    *response.a().next().unwrap()
}

#[test]
fn the_decoder_keeps_the_laws() {
    let txt = b"\xc0\x0c\0\x10\0\x01\0\0\0\x3c\0\x06\x05hello".to_vec();
    let soa =
        b"\xc0\x0c\0\x06\0\x01\0\0\0\x3c\0\x1a\xc0\x0c\x01m\xc0\x0c\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04\0\0\0\x05"
            .to_vec();
    let https = b"\xc0\x0c\0\x41\0\x01\0\0\0\x3c\0\x0a\0\x01\0\0\x01\0\x03\x02h2".to_vec();
    let unknown = b"\xc0\x0c\xff\x01\0\x01\0\0\0\x3c\0\x02\x01\x02".to_vec();
    let rich = message(&[a_record(1), txt, soa, https, unknown]);
    let plain = message(&[a_record(1)]);
    let seeds: [&[u8]; 4] =
        [&rich, &plain, &message(&[]), b"\x12\x34\x81\x83\0\0\0\0\0\0\0\x01\0\0\x29\x04\xd0\0\0\0\0\0\0"];
    assert_eq!(decode(&rich).unwrap().answers.len(), 5);
    laws::check_datagram(decode, &seeds);
    let framed: Vec<Vec<u8>> =
        seeds.iter().map(|seed| [&u16::try_from(seed.len()).unwrap().to_be_bytes(), *seed].concat()).collect();
    let framed: Vec<&[u8]> = framed.iter().map(Vec::as_slice).collect();
    laws::check(Framing::default, &framed);
    laws::round_trip(Framing::default, &seeds, |sent, received| sent == received);
}

#[test]
fn malformed_messages_are_told_exactly() {
    assert_eq!(decode(b"\x12\x34").unwrap_err(), DecodeError::invalid("header", 0));
    let mut two_questions = message(&[]);
    two_questions[5] = 2;
    assert_eq!(decode(&two_questions).unwrap_err(), DecodeError::invalid("question count", 4));
    let mut loop_name = message(&[b"\xc0\x1d\0\x01\0\x01\0\0\0\0\0\x04\x01\x02\x03\x04".to_vec()]);
    assert!(decode(&loop_name).is_err(), "a pointer to itself");
    loop_name.truncate(20);
    assert!(decode(&loop_name).is_err());
    let trailing = [message(&[a_record(1)]), vec![0]].concat();
    assert_eq!(decode(&trailing).unwrap_err(), DecodeError::invalid("bytes after the message", trailing.len() - 1));
}

#[test]
fn key_tag_is_that_of_the_standard() {
    // RFC 4034 5.4: the DS of dskey.example.com. names key 60485.
    let key = "AQOeiiR0GOMYkDshWoSKz9XzfwJr1AYtsmx3TGkJaNXVbfi/2pHm822aJ5iI9BMzNXxeYCmZDRD99WYwYqUSdjMmmAphXdvxegXd/M5+X7OrzKBaMbCVdFLUUh6DhweJBjEVv5f2wwjM9XzcnOf+EPbtG9DMBmADjFDc2w/rljwvFw==";
    let bits: Vec<u8> = key
        .bytes()
        .filter_map(|c| {
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".iter().position(|&x| x == c)
        })
        .map(|v| u8::try_from(v).unwrap())
        .collect();
    let key = bits.chunks(4).flat_map(|c| {
        let at = |i: usize| u32::from(c.get(i).copied().unwrap_or(0));
        let word = at(0) << 18 | at(1) << 12 | at(2) << 6 | at(3);
        word.to_be_bytes()[1..].iter().copied().take(c.len() - 1).collect::<Vec<_>>()
    });
    let key = Dnskey { flags: 256, protocol: 3, algorithm: 5, key: key.collect() };
    assert_eq!(key.key_tag(), 60485);
}

#[test]
fn options_come_from_the_url_and_nothing_is_ignored() {
    let options = Options::from_url("dns://[::1]:5353?transport=tcp&case=random").unwrap();
    assert_eq!(
        (options.endpoint.unwrap().authority().as_str(), options.transport, options.toss_case),
        ("[::1]:5353", Transport::Tcp, true)
    );
    assert_eq!(Options::from_url("dns://h").unwrap().endpoint.unwrap().port(), 53);
    for bad in ["http://h", "dns://", "dns://h/x", "dns://u@h", "dns://h?x=y", "dns://h?transport=quic"] {
        assert_eq!(Options::from_url(bad).unwrap_err().kind(), Kind::Usage, "{bad}");
    }
}

#[test]
fn servers_come_from_urls_and_know_their_ports_names_and_places() {
    use Transport::{Http3, Https, Quic, Tcp, Tls, Udp};
    for (url, transport, authority, addrs, path, method) in [
        ("udp://192.0.2.1", Udp, "192.0.2.1:53", "", "/dns-query", Method::Post),
        ("tcp://ns.test:54", Tcp, "ns.test:54", "", "/dns-query", Method::Post),
        ("tls://ns.test", Tls, "ns.test:853", "", "/dns-query", Method::Post),
        ("TLS://ns.test@192.0.2.1:8853", Tls, "ns.test:8853", "192.0.2.1", "/dns-query", Method::Post),
        ("tls://ns.test@[2001:db8::1]", Tls, "ns.test:853", "2001:db8::1", "/dns-query", Method::Post),
        ("https://ns.test", Https, "ns.test:443", "", "/dns-query", Method::Post),
        ("https://ns.test@192.0.2.1/q{?dns}", Https, "ns.test:443", "192.0.2.1", "/q", Method::Get),
        ("https://[2001:db8::1]:1/q?a=b", Https, "[2001:db8::1]:1", "", "/q?a=b", Method::Post),
        ("h3://ns.test{?dns}", Http3, "ns.test:443", "", "/dns-query", Method::Get),
        ("quic://ns.test", Quic, "ns.test:853", "", "/dns-query", Method::Post),
    ] {
        let options = Options::from_url(url).unwrap();
        let said: Vec<_> = options.addrs.iter().map(ToString::to_string).collect();
        assert_eq!(
            (options.transport, options.endpoint.unwrap().authority().as_str()),
            (transport, authority),
            "{url}"
        );
        assert_eq!((said.join(" ").as_str(), options.path.as_str(), options.method), (addrs, path, method), "{url}");
        assert!(options.padding && !options.opportunistic);
    }
    let options = Options::from_url("tls://192.0.2.1?dangerous=opportunistic&case=random").unwrap();
    assert!(options.opportunistic && options.toss_case);
    for bad in [
        "tls://",
        "tls://ns.test/x",
        "tls://ns.test{?dns}",
        "tls://ns.test?transport=tcp",
        "tls://ns.test@other.test",
        "https://joe:sesame@192.0.2.1/",
        "https://ns.test/{dns}",
        "https://ns.test/{?dns,x}",
        "https://ns.test/#x",
        "quic://ns.test?dangerous=opportunistic",
        "quic:ns.test",
    ] {
        let error = Options::from_url(bad).unwrap_err();
        assert!(error.kind() == Kind::Usage && !error.to_string().contains("sesame"), "{bad}: {error}");
    }
}

#[test]
fn encrypted_queries_have_no_id_and_a_length_that_tells_little() {
    let manner = Manner { edns: Some((1232, false)), anonymous: true, padding: true, ..Manner::default() };
    for labels in 1..=60 {
        let name = vec!["abc"; labels].join(".").parse().unwrap();
        let query = Query::new(&Question::new(name, RecordType::A), &manner).unwrap();
        assert_eq!((query.wire().len() % 128, query.id()), (0, [0, 0]), "{labels}");
        assert!(decode(query.wire()).unwrap().edns.is_some());
    }
    let bare = Query::new(&Question::new("a".parse().unwrap(), RecordType::A), &Manner { padding: false, ..manner });
    assert!(bare.unwrap().wire().len() < 40);
}

#[test]
fn what_a_cache_did_shortens_lives() {
    use super::carrier::Freshness;
    let life = |freshness: Freshness| {
        let mut response = decode(&message(&[a_record(1)])).unwrap();
        freshness.apply(&mut response);
        response.ttl().unwrap().as_secs()
    };
    assert_eq!(life(Freshness::default()), 3600);
    assert_eq!(life(Freshness { age: 600, left: None }), 3000);
    assert_eq!(life(Freshness { age: 600, left: Some(60) }), 60);
    assert_eq!(life(Freshness { age: 4000, left: None }), 0);
}

#[tokio::test]
async fn what_this_build_lacks_is_said() {
    for (url, feature, has) in [
        ("tls://127.0.0.1", "dot", cfg!(feature = "dot")),
        ("https://127.0.0.1", "doh", cfg!(feature = "doh")),
        ("h3://127.0.0.1", "doh", cfg!(feature = "doh")),
        ("quic://127.0.0.1", "doq", cfg!(feature = "doq")),
    ] {
        match Client::open(url).await {
            Ok(_) => assert!(has, "{url}"),
            Err(error) => {
                assert!(
                    !has && error.kind() == Kind::Unsupported && error.message().contains(feature),
                    "{url}: {error}"
                );
            }
        }
    }
    let none: [&str; 0] = [];
    for servers in [&none[..], &["gopher://127.0.0.1"], &["127.0.0.1"], &["udp://127.0.0.1", "udp://"], &["system"; 17]]
    {
        let error = resolver(&Connector::default(), servers).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage, "{servers:?}");
    }
    resolver(&Connector::default(), ["udp://127.0.0.1", "system"]).unwrap();
}

#[tokio::test]
async fn names_that_could_inject_are_refused_before_a_byte_is_sent() {
    let (peer, to) = bound("127.0.0.1:0");
    let names = client(quick(to)).await;
    for bad in ["a\r\nb", "a b", "", "a..b", &"x".repeat(64)] {
        let error = names.query(bad, RecordType::A).await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (Kind::Usage, Delivery::NotSent));
    }
    let error = names.query_raw(b"short").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
    let heard = clock::within(Some(Duration::from_millis(20)), Phase::Idle, peer.recv_from(&mut [0; 512])).await;
    assert!(heard.unwrap_err().is_timeout(), "nothing was sent");
}

#[tokio::test]
async fn forged_answers_before_the_right_one_are_ignored() {
    let (peer, to) = bound("127.0.0.1:0");
    let (stranger, _) = bound("127.0.0.1:0");
    let server = async {
        let (query, from) = hear(&peer).await;
        let good = reply(&query, 4, 0, &[a_record(1)]);
        let mut wrong_id = reply(&query, 4, 0, &[a_record(66)]);
        wrong_id[0] ^= 1;
        let mut wrong_question = reply(&query, 4, 0, &[a_record(66)]);
        wrong_question[14] ^= 1;
        let mut wrong_type = reply(&query, 4, 0, &[a_record(66)]);
        wrong_type[12 + NAME.len() + 1] = 28;
        let mut a_query = reply(&query, 4, 0, &[]);
        a_query[2] &= 0x7f;
        for forged in [wrong_id.as_slice(), &wrong_question, &wrong_type, &a_query, b"garbage", b"", &good[..11]] {
            peer.send_to(forged, from).await.unwrap();
        }
        stranger.send_to(&reply(&query, 4, 0, &[a_record(66)]), from).await.unwrap();
        peer.send_to(&good, from).await.unwrap();
    };
    let names = client(quick(to)).await;
    let (answer, ()) = tokio::join!(names.query("example.org", RecordType::A), server);
    let answer = answer.unwrap();
    assert_eq!(first_a(&answer), Ipv4Addr::new(192, 0, 2, 1));
    assert_eq!((answer.info.ignored, answer.info.attempts, answer.info.transport), (7, 1, Transport::Udp));
}

#[tokio::test]
async fn every_attempt_has_its_own_port_and_id_and_the_answer_to_any_counts() {
    let (peer, to) = bound("127.0.0.1:0");
    let server = async {
        let (first, first_from) = hear(&peer).await;
        let (second, second_from) = hear(&peer).await;
        assert_ne!(first_from, second_from, "a fresh port");
        assert_ne!(first[..2], second[..2], "a fresh id");
        // Each answer fits its own attempt alone.
        peer.send_to(&reply(&first, 4, 0, &[a_record(66)]), second_from).await.unwrap();
        peer.send_to(&reply(&first, 4, 0, &[a_record(7)]), first_from).await.unwrap();
    };
    let names = client(quick(to)).await;
    let (answer, ()) = tokio::join!(names.query("example.org", RecordType::A), server);
    let answer = answer.unwrap();
    assert_eq!((first_a(&answer), answer.info.attempts, answer.info.ignored), (Ipv4Addr::new(192, 0, 2, 7), 2, 1));
}

#[tokio::test]
async fn a_late_answer_is_never_given_to_the_next_question() {
    let (peer, to) = bound("127.0.0.1:0");
    let names = client(quick(to).attempts(1).timeout(Duration::from_millis(60))).await;
    let error = names.query("example.org", RecordType::A).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.phase(), error.delivery()),
        (Kind::Timeout, Some(Phase::FirstByte), Delivery::Unknown)
    );
    let server = async {
        let (late, late_from) = hear(&peer).await;
        let (query, from) = hear(&peer).await;
        assert_ne!(late_from, from);
        let late = reply(&late, 4, 0, &[a_record(66)]);
        // Nobody listens where the first question came from; the second one must not take its answer either.
        let _ = peer.send_to(&late, late_from).await;
        peer.send_to(&late, from).await.unwrap();
        peer.send_to(&reply(&query, 4, 0, &[a_record(2)]), from).await.unwrap();
    };
    let names = client(quick(peer.local_addr().unwrap().into()).attempts(1)).await;
    let (answer, ()) = tokio::join!(names.query("example.org", RecordType::A), server);
    assert_eq!(first_a(&answer.unwrap()), Ipv4Addr::new(192, 0, 2, 2));
}

#[tokio::test]
async fn a_closed_port_is_refused_and_not_a_timeout() {
    let (peer, to) = bound("127.0.0.1:0");
    drop(peer);
    let error = client(quick(to)).await.query("example.org", RecordType::A).await.unwrap_err();
    assert!(error.is_refused() && error.kind() == Kind::Connect, "{error:?}");
    assert_eq!(error.delivery(), Delivery::NotSent);
}

#[tokio::test]
async fn a_server_that_cannot_read_edns_is_asked_again_without() {
    let (peer, to) = bound("127.0.0.1:0");
    let server = async {
        let (with, from) = hear(&peer).await;
        assert_eq!(with[11], 1, "EDNS is asked for");
        // Such a server may give the header alone.
        let mut header = reply(&with, 0, 1, &[])[..12].to_vec();
        header[5] = 0;
        peer.send_to(&header, from).await.unwrap();
        let (without, from) = hear(&peer).await;
        assert_eq!(without[11], 0);
        peer.send_to(&reply(&without, 4, 0, &[a_record(3)]), from).await.unwrap();
    };
    let names = client(quick(to)).await;
    let (answer, ()) = tokio::join!(names.query("example.org", RecordType::A), server);
    let answer = answer.unwrap();
    assert!(answer.info.edns_refused && first_a(&answer) == Ipv4Addr::new(192, 0, 2, 3));
}

#[tokio::test]
async fn the_servers_no_is_typed() {
    let (peer, to) = bound("127.0.0.1:0");
    let names = client(quick(to)).await;
    for (rcode, typed) in [(2, Rcode::ServFail), (5, Rcode::Refused)] {
        let server = async {
            let (query, from) = hear(&peer).await;
            peer.send_to(&reply(&query, 0, rcode, &[]), from).await.unwrap();
        };
        let (error, ()) = tokio::join!(names.query("example.org", RecordType::A), server);
        let error = error.unwrap_err();
        assert_eq!((error.kind(), error.server(), error.code()), (Kind::Server, Some(&typed), Some(rcode.into())));
        assert_eq!(error.delivery(), Delivery::Answered);
    }
}

#[tokio::test]
async fn a_flood_of_wrong_answers_turns_the_client_to_tcp() {
    let (peer, to) = bound("127.0.0.1:0");
    let listener = Connector::default().listen(peer.local_addr().unwrap()).await.unwrap();
    let server = async {
        let (query, from) = hear(&peer).await;
        let mut forged = reply(&query, 4, 0, &[a_record(66)]);
        forged[0] ^= 1;
        for _ in 0..200 {
            let _ = peer.send_to(&forged, from).await;
        }
        let (mut stream, _) = listener.accept(None).await.unwrap();
        let query = read_framed(&mut stream).await;
        write_framed(&mut stream, &reply(&query, 4, 0, &[a_record(4)])).await;
        stream
    };
    let names = client(quick(to)).await;
    let (answer, _stream) = tokio::join!(names.query("example.org", RecordType::A), server);
    let answer = answer.unwrap();
    assert_eq!((answer.info.fallback, answer.info.transport), (Some(Fallback::Forgeries), Transport::Tcp));
    assert_eq!(first_a(&answer), Ipv4Addr::new(192, 0, 2, 4));
}

#[tokio::test]
async fn with_random_case_an_answer_in_another_case_is_ignored() {
    let (peer, to) = bound("127.0.0.1:0");
    let server = async {
        let (query, from) = hear(&peer).await;
        let mut flat = reply(&query, 4, 0, &[a_record(66)]);
        flat[13] ^= 0x20;
        peer.send_to(&flat, from).await.unwrap();
        peer.send_to(&reply(&query, 4, 0, &[a_record(5)]), from).await.unwrap();
        query
    };
    let names = client(quick(to).random_case(true)).await;
    let (answer, query) = tokio::join!(names.query("example.org", RecordType::A), server);
    let answer = answer.unwrap();
    assert_eq!((first_a(&answer), answer.info.ignored), (Ipv4Addr::new(192, 0, 2, 5), 1));
    assert!(query[12..12 + NAME.len()].eq_ignore_ascii_case(NAME));
}

#[test]
fn random_case_tosses_letters_alone() {
    let question = Question::new("a-long-name-with-1234567890.example".parse().unwrap(), RecordType::A);
    let manner = Manner { recursion_desired: true, toss_case: true, ..Manner::default() };
    let wires: Vec<Vec<u8>> = (0..8).map(|_| Query::new(&question, &manner).unwrap().wire()[2..].to_vec()).collect();
    assert!(wires.iter().any(|wire| *wire != wires[0]), "eight tosses of 24 coins");
    assert!(wires.iter().all(|wire| wire.eq_ignore_ascii_case(&wires[0])));
}

#[test]
fn aliases_that_loop_are_the_servers_fault() {
    let loops = message(&[b"\xc0\x0c\0\x05\0\x01\0\0\0\0\0\x02\xc0\x0c".to_vec()]);
    let response = decode(&loops).unwrap();
    assert_eq!(response.canonical_name().unwrap_err().kind(), Kind::Protocol);
    // example.org is an alias of w.example.org; the address of another name is not believed.
    let alias = b"\xc0\x0c\0\x05\0\x01\0\0\0\0\0\x04\x01w\xc0\x0c".to_vec();
    let of_alias = b"\x01w\xc0\x0c\0\x01\0\x01\0\0\0\x05\0\x04\xc0\0\x02\x09".to_vec();
    let response = decode(&message(&[alias, of_alias, a_record(66)])).unwrap();
    assert_eq!(response.canonical_name().unwrap().unwrap().to_string(), "w.example.org");
    assert_eq!(response.addresses().unwrap(), ["192.0.2.9".parse::<std::net::IpAddr>().unwrap()]);
}

async fn read_framed(stream: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let length = stream.read_u16().await.unwrap();
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await.unwrap();
    message
}

async fn write_framed(stream: &mut (impl AsyncWriteExt + Unpin), message: &[u8]) {
    stream.write_all(&[&u16::try_from(message.len()).unwrap().to_be_bytes(), message].concat()).await.unwrap();
}

fn piped(limit: Duration) -> (Client, DuplexStream) {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    (Client::from_stream(Stream::from_io(ours), Options::default().timeout(limit)), theirs)
}

#[tokio::test]
async fn answers_on_a_stream_are_matched_whatever_their_order() {
    let (names, mut server) = piped(Duration::from_secs(5));
    let questions: Vec<_> =
        (1..=3u8).map(|n| Question::new(format!("n{n}.example.org").parse().unwrap(), RecordType::A)).collect();
    let serve = async {
        let mut queries = Vec::new();
        for _ in 0..3 {
            queries.push(read_framed(&mut server).await);
        }
        let mut foreign = reply(&queries[0], 4, 0, &[a_record(66)]);
        foreign[1] ^= 0x55;
        write_framed(&mut server, &foreign).await;
        for (query, n) in [(&queries[2], 3), (&queries[0], 1), (&queries[1], 2)] {
            write_framed(&mut server, &reply(query, 4, if n == 2 { 5 } else { 0 }, &[a_record(n)])).await;
        }
    };
    let (answers, ()) = tokio::join!(names.query_all(&questions), serve);
    let answers = answers.unwrap();
    assert_eq!(first_a(answers[0].as_ref().unwrap()), Ipv4Addr::new(192, 0, 2, 1));
    assert_eq!(answers[1].as_ref().unwrap_err().server(), Some(&Rcode::Refused));
    assert_eq!(first_a(answers[2].as_ref().unwrap()), Ipv4Addr::new(192, 0, 2, 3));
}

#[tokio::test]
async fn a_stream_cut_in_mid_message_is_closed_and_stays_so() {
    let (names, mut server) = piped(Duration::from_secs(5));
    let serve = async move {
        let query = read_framed(&mut server).await;
        let good = reply(&query, 4, 0, &[a_record(1)]);
        server.write_all(&u16::try_from(good.len()).unwrap().to_be_bytes()).await.unwrap();
        server.write_all(&good[..good.len() - 1]).await.unwrap();
    };
    let (error, ()) = tokio::join!(names.query("example.org", RecordType::A), serve);
    let error = error.unwrap_err();
    assert_eq!((error.kind(), error.delivery(), error.phase()), (Kind::Closed, Delivery::Unknown, Some(Phase::Idle)));
    let again = names.query("example.org", RecordType::A).await.unwrap_err();
    assert_eq!((again.kind(), again.delivery()), (Kind::Closed, Delivery::NotSent));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stalls_meets_the_deadline() {
    let (names, mut server) = piped(Duration::from_secs(3));
    let serve = async {
        read_framed(&mut server).await;
        server.write_all(&[0]).await.unwrap();
        std::future::pending::<()>().await;
    };
    let error = tokio::select! {
        error = names.query("example.org", RecordType::A) => error.unwrap_err(),
        () = serve => unreachable!("the server waits for ever"),
    };
    assert!(error.is_timeout(), "{error:?}");
    assert_eq!(error.delivery(), Delivery::Unknown);
}

#[tokio::test]
async fn a_given_up_question_leaves_no_stream_behind() {
    let (names, mut server) = piped(Duration::from_secs(5));
    {
        let question = names.query("example.org", RecordType::A);
        tokio::pin!(question);
        let read = read_framed(&mut server);
        tokio::select! {
            _ = &mut question => unreachable!("nobody answers"),
            _ = read => {}
        }
    }
    let error: Error = names.query("example.org", RecordType::A).await.unwrap_err();
    assert!(error.is_closed() && error.delivery() == Delivery::NotSent);
    assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 0, "the connection is closed, and the late answer with it");
}

#[tokio::test]
async fn unbounded_limits_are_possible_and_raw_messages_come_back_whole() {
    let (names, mut server) = piped(Duration::from_secs(5));
    drop(names);
    assert!(server.read_u8().await.is_err());
    let (ours, mut server) = tokio::io::duplex(4096);
    let names = Client::from_stream(Stream::from_io(ours), Options::default().timeout(Limit::Off));
    let sent = message(&[])[..12 + NAME.len() + 4].to_vec();
    let mut query = sent.clone();
    query[2] = 1;
    let serve = async {
        let heard = read_framed(&mut server).await;
        assert_eq!(heard[2..], query[2..]);
        let answer = reply(&heard, 4, 0, &[a_record(8)]);
        write_framed(&mut server, &answer).await;
        answer
    };
    let (raw, answer) = tokio::join!(names.query_raw(&query), serve);
    assert_eq!(raw.unwrap(), answer);
    names.close().await.unwrap();
}
