use std::net::{IpAddr, SocketAddr};

use portolan_core::{
    Bind, Connector, Datagram, Endpoint, Error, Interface, IpProtocol, IpVersion, Kind, PRIVILEGED, RawSocket,
    SourcePort,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const NEAR: &str = "192.0.2.1/24";
const FAR: &str = "192.0.2.2/24";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn net(bind: Bind) -> Connector {
    Connector::builder().bind(bind).build().unwrap()
}

/// A peer that tells each of `count` callers where it sees it, and the port that it listens on.
fn mirror(net: &Net, local: &str, count: usize) -> (Far<()>, u16) {
    let (local, (told, port)) = (addr(local), std::sync::mpsc::sync_channel(1));
    let far = net.far(move || async move {
        let listener = TcpListener::bind(local).await.unwrap();
        told.send(listener.local_addr().unwrap().port()).unwrap();
        for _ in 0..count {
            let (mut stream, from) = listener.accept().await.unwrap();
            stream.write_all(from.to_string().as_bytes()).await.unwrap();
        }
    });
    (far, port.recv().unwrap())
}

async fn seen(net: &Connector, to: SocketAddr) -> Result<SocketAddr, Error> {
    let mut stream = net.connect(&Endpoint::from(to)).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    Ok(text.parse().unwrap())
}

async fn heard(socket: &Datagram) -> Vec<u8> {
    let mut room = [0; 64];
    let (n, _) = tokio::time::timeout(Duration::from_secs(10), socket.recv_from(&mut room)).await.unwrap().unwrap();
    room[..n].to_vec()
}

#[test]
fn a_privileged_source_port_is_what_the_peer_sees_and_needs_its_right() {
    run(|cable| async move {
        cable.link("near0", &[NEAR], "far0", &[FAR]);
        let (far, port) = mirror(&cable, "192.0.2.2:0", 2);
        let to = SocketAddr::new("192.0.2.2".parse().unwrap(), port);
        let privileged = net(SourcePort::Privileged.into());
        let first = seen(&privileged, to).await.unwrap();
        assert!(PRIVILEGED.contains(&first.port()) && first.ip().to_string() == "192.0.2.1", "{first}");
        // A port in TIME_WAIT is passed over.
        let second = seen(&privileged, to).await.unwrap();
        assert!(PRIVILEGED.contains(&second.port()), "{second}");
        far.join();
        cable.give_up(Right::PrivilegedPorts);
        let error = seen(&privileged, to).await.unwrap_err();
        assert!(format!("{error:?}").contains("CAP_NET_BIND_SERVICE"), "{error:?}");
    });
}

#[test]
fn the_chosen_interface_is_the_one_that_is_left_through() {
    run(|cable| async move {
        cable.link("near0", &[NEAR], "far0", &[FAR]);
        cable.link("near1", &["198.51.100.1/24"], "far1", &["198.51.100.2/24"]);
        // The peer's address is behind both cables, the first of them preferred.
        cable.far_ip(&["addr", "add", "203.0.113.9/32", "dev", "lo"]);
        cable.ip(&["route", "add", "203.0.113.9", "via", "192.0.2.2", "metric", "1"]);
        cable.ip(&["route", "add", "203.0.113.9", "via", "198.51.100.2", "metric", "2"]);
        let (far, port) = mirror(&cable, "203.0.113.9:0", 3);
        let to = SocketAddr::new("203.0.113.9".parse().unwrap(), port);
        for (bind, from) in [
            (Bind::any(), "192.0.2.1"),
            (Bind::any().interface("near1"), "198.51.100.1"),
            (Bind::any().interface("near0").addr("192.0.2.1".parse().unwrap()), "192.0.2.1"),
        ] {
            assert_eq!(seen(&net(bind), to).await.unwrap().ip(), from.parse::<IpAddr>().unwrap());
        }
        far.join();
        seen(&net(Bind::any().interface("near9")), to).await.unwrap_err();
    });
}

#[test]
fn multicast_is_heard_on_the_interface_that_joined_and_on_no_other() {
    run(|cable| async move {
        cable.link("near0", &[NEAR, "2001:db8::1/64"], "far0", &[FAR, "2001:db8::2/64"]);
        cable.link("near1", &["198.51.100.1/24"], "far1", &["198.51.100.2/24"]);
        for (local, group, out, other) in [
            (
                "0.0.0.0:0",
                "239.255.77.77",
                Interface::Addr("192.0.2.2".parse().unwrap()),
                Some(Interface::Addr("198.51.100.2".parse().unwrap())),
            ),
            ("[::]:0", "ff15::4d4d", Interface::Name("far0".to_owned()), None),
        ] {
            let ear = net(Bind::any()).datagram_bound(addr(local), true).unwrap();
            let group: IpAddr = group.parse().unwrap();
            ear.join(group, &Interface::Name("near0".to_owned())).unwrap();
            let to = SocketAddr::new(group, ear.local_addr().unwrap().port());
            let local = addr(local);
            cable
                .far(move || async move {
                    let mouth = net(Bind::any()).datagram_bound(local, false).unwrap();
                    mouth.set_multicast_hops(1).unwrap();
                    if let Some(other) = other {
                        mouth.set_multicast_interface(&other).unwrap();
                        mouth.send_to(b"elsewhere", to).await.unwrap();
                    }
                    mouth.set_multicast_interface(&out).unwrap();
                    mouth.send_to(b"ahoy", to).await.unwrap();
                })
                .join();
            assert_eq!(heard(&ear).await, b"ahoy");
        }
    });
}

#[test]
fn a_broadcast_reaches_the_cable_once_it_is_allowed() {
    run(|cable| async move {
        cable.link("near0", &[NEAR], "far0", &[FAR]);
        let ear = net(Bind::any()).datagram_bound(addr("0.0.0.0:0"), false).unwrap();
        let to = SocketAddr::new("192.0.2.255".parse().unwrap(), ear.local_addr().unwrap().port());
        cable
            .far(move || async move {
                let mouth = net(Bind::any()).datagram_bound(addr("0.0.0.0:0"), false).unwrap();
                mouth.send_to(b"all", to).await.unwrap_err();
                mouth.set_broadcast(true).unwrap();
                mouth.send_to(b"all", to).await.unwrap();
            })
            .join();
        assert_eq!(heard(&ear).await, b"all");
    });
}

/// Sends an echo request (RFC 792, RFC 4443 4.1) and waits for its reply.
async fn ping(socket: &RawSocket, to: &str) {
    let to: IpAddr = to.parse().unwrap();
    let (kind, reply) = if to.is_ipv4() { (8, 0) } else { (128, 129) };
    let mut request = [&[kind, 0, 0, 0, 0x12, 0x34, 0, 1], &b"portolan"[..]].concat();
    if to.is_ipv4() {
        let sum: u32 = request.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum();
        let folded = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
        request[2..4].copy_from_slice(&folded.to_be_bytes());
    }
    socket.send_to(&request, SocketAddr::new(to, 0)).await.unwrap();
    let mut room = [0; 64];
    loop {
        let came = tokio::time::timeout(Duration::from_secs(10), socket.recv_from(&mut room)).await;
        let (n, from) = came.unwrap().unwrap();
        if room[0] == reply && room[..n].ends_with(b"portolan") {
            assert_eq!(from.ip(), to);
            return;
        }
    }
}

#[test]
fn echo_goes_by_a_raw_socket_and_by_the_unprivileged_kind() {
    run(|cable| async move {
        cable.link("near0", &[NEAR, "2001:db8::1/64"], "far0", &[FAR, "2001:db8::2/64"]);
        let open = |interface: Option<&str>| {
            let bind = interface.map_or(Bind::any(), |name| Bind::any().interface(name));
            [(IpProtocol::ICMP, IpVersion::V4), (IpProtocol::ICMPV6, IpVersion::V6)]
                .map(|(protocol, version)| net(bind.clone()).raw(protocol, version))
        };
        for socket in open(Some("near0")).into_iter().zip(["192.0.2.2", "2001:db8::2"]) {
            let (Ok(socket), to) = socket else { panic!("{socket:?}") };
            assert!(socket.is_privileged());
            ping(&socket, to).await;
        }
        cable.give_up(Right::RawSockets);
        // A new namespace allows neither kind: the error names what is missing.
        for socket in open(None) {
            let error = socket.unwrap_err();
            assert!(error.kind() == Kind::Unsupported && error.message().contains("ping_group_range"), "{error:?}");
        }
        cable.sysctl("ipv4/ping_group_range", "0 0");
        for socket in open(None).into_iter().zip(["192.0.2.2", "2001:db8::2"]) {
            let (Ok(socket), to) = socket else { panic!("{socket:?}") };
            assert!(!socket.is_privileged());
            ping(&socket, to).await;
        }
    });
}

#[test]
fn a_failure_inside_fails_the_test() {
    let fail = || run(|_| async { panic!("inside") });
    if std::env::var_os(CHILD).is_some() {
        // The child's failure is for its parent to see.
        fail();
        return;
    }
    let failed = std::panic::catch_unwind(fail);
    // Where nothing may run, nothing fails either.
    assert!(failed.is_err() || failed.is_ok_and(|ran| !ran));
}
