//! Every protocol through every hop. With `PORTOLAN_HOPS` set to a path, the table is written there: docs/HOPS.md.

mod observed;
mod small;
mod targets;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use portolan_classic::Transport;
use portolan_core::{Connector, ConnectorBuilder, Credentials, Error, Hop, Kind, Phase, Policy, ProxyAuth, Tls};
use portolan_testbed::free_port;
use small::Small;
use targets::{Protocol, Targets};

use super::auth::{self, Squid};
use super::envoy::envoy;
use super::examples::waterfall_through;
use super::h2::{h2, nghttpx, trusting};
use super::h3::{h3, masque, masque_of};
use super::jump::peers::{self, Sshd, openssh};
use super::proxy_header::in_tls;
use super::ssh::dynamic_forward;
use super::{Proxy, ann, apache, danted, microsocks, squid, tinyproxy};

/// What a way can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carries {
    Streams,
    Both,
}

/// A way, and what is expected of it.
struct Way {
    name: &'static str,
    peer: String,
    hops: Vec<Hop>,
    carries: Carries,
}

/// What became of one cell.
enum Cell {
    Passed,
    NotApplicable(&'static str),
    Missing(&'static str),
    Failed(String),
}

impl Cell {
    fn text(&self, notes: &mut Vec<&'static str>) -> String {
        match self {
            Self::Passed => "yes".to_owned(),
            Self::Failed(_) => "FAILED".to_owned(),
            Self::NotApplicable(why) | Self::Missing(why) => {
                let at = notes.iter().position(|note| note == why).unwrap_or_else(|| {
                    notes.push(why);
                    notes.len() - 1
                });
                format!("{} [{}]", if matches!(self, Self::Missing(_)) { "missing" } else { "n/a" }, at + 1)
            }
        }
    }
}

/// The proxies, kept running.
struct Proxies {
    tiny: Proxy,
    squid: Proxy,
    squid_tls: u16,
    squid_digest: Squid,
    squid_ntlm: Squid,
    masque_digest: Proxy,
    haproxy: Proxy,
    front_clear: Proxy,
    front: Proxy,
    front_auth: Proxy,
    apache: Proxy,
    envoy: Proxy,
    dante: Proxy,
    micro: Proxy,
    ssh: (portolan_testbed::Server, Proxy),
    masque: Proxy,
    masque_auth: Proxy,
    jump: Sshd,
    second_jump: Sshd,
}

impl Proxies {
    fn start(targets: &Targets) -> Option<Self> {
        let certs = &targets.certs;
        let squid_tls = free_port();
        let (tiny, squid) = (tinyproxy(free_port(), false)?, squid(certs, free_port(), squid_tls)?);
        Some(Self {
            haproxy: in_tls(certs, tiny.addr.port())?,
            front_clear: nghttpx(None, tiny.addr.port())?,
            front: nghttpx(Some(certs), tiny.addr.port())?,
            front_auth: nghttpx(Some(certs), squid.addr.port())?,
            apache: apache(free_port())?,
            envoy: envoy(certs)?,
            dante: danted(free_port())?,
            micro: microsocks(free_port(), true)?,
            ssh: dynamic_forward()?,
            masque: masque(certs, false)?,
            masque_auth: masque(certs, true)?,
            jump: openssh("")?,
            second_jump: openssh("")?,
            squid_digest: auth::squid(&auth::digest(""))?,
            squid_ntlm: auth::squid(auth::NTLM)?,
            masque_digest: masque_of(certs, "Digest ann:sesame", 1400)?,
            tiny,
            squid,
            squid_tls,
        })
    }

    /// One hop. The tunnel's gateway is at `gateway`: it is this workspace's own.
    fn single(&self, gateway: std::net::SocketAddr) -> Vec<Way> {
        use Carries::{Both, Streams};
        let way =
            |name, peer: &Proxy, hop: Hop, carries| Way { name, peer: peer.version.clone(), hops: vec![hop], carries };
        let jump =
            |name, hop| Way { name, peer: self.jump.version.clone(), hops: vec![hop], carries: Carries::Streams };
        let (squid, digest, ntlm) = (self.squid.endpoint(), self.squid_digest.endpoint(), self.squid_ntlm.endpoint());
        let user = Credentials::new("ann", "");
        let secure = Hop::https(self.squid.endpoint().with_port(self.squid_tls)).credentials(ann());
        let clear = portolan_http2::hop::Proxy::cleartext(self.front_clear.endpoint());
        let masque_digest = h3(&self.masque_digest).auth(ProxyAuth::digest(ann())).hop();
        let by_password = if peers::is_root() { self.jump.bare().password("sesame") } else { self.jump.by_key() };
        vec![
            Way { name: "none", peer: String::new(), hops: Vec::new(), carries: Both },
            way("CONNECT h1", &self.tiny, Hop::http(self.tiny.endpoint()), Streams),
            way("CONNECT h1, login", &self.squid, Hop::http(squid).credentials(ann()), Streams),
            way(
                "CONNECT h1, login, apache",
                &self.apache,
                Hop::http(self.apache.endpoint()).credentials(ann()),
                Streams,
            ),
            way("CONNECT h1, digest", &self.squid_digest, Hop::http(digest).auth(ProxyAuth::digest(ann())), Streams),
            way("CONNECT h1, NTLM", &self.squid_ntlm, Hop::http(ntlm).auth(ProxyAuth::ntlm(ann())), Streams),
            way("CONNECT h1 in TLS, login", &self.squid, secure, Streams),
            Way {
                name: "CONNECT h1 in TLS",
                peer: format!("{} before {}", self.haproxy.version, self.tiny.version),
                hops: vec![Hop::https(self.haproxy.endpoint())],
                carries: Streams,
            },
            way("CONNECT h2 in the clear", &self.front_clear, clear.hop(), Streams),
            way("CONNECT h2", &self.front, h2(&self.front).hop(), Streams),
            way("CONNECT h2, login", &self.front_auth, h2(&self.front_auth).credentials(ann()).hop(), Streams),
            way("CONNECT h2, CONNECT-UDP h2", &self.envoy, h2(&self.envoy).hop(), Both),
            way("SOCKS4", &self.dante, Hop::socks4(self.dante.endpoint()), Streams),
            way("SOCKS4, user id", &self.dante, Hop::socks4(self.dante.endpoint()).credentials(user), Streams),
            way("SOCKS4a", &self.ssh.1, Hop::socks4a(self.ssh.1.endpoint()), Streams),
            way("SOCKS5 with UDP ASSOCIATE", &self.dante, Hop::socks5(self.dante.endpoint()), Both),
            way("SOCKS5, login", &self.micro, Hop::socks5(self.micro.endpoint()).credentials(ann()), Streams),
            way("SOCKS5h", &self.dante, Hop::socks5h(self.dante.endpoint()), Both),
            way("SOCKS5h, login", &self.micro, Hop::socks5h(self.micro.endpoint()).credentials(ann()), Streams),
            way("MASQUE (CONNECT h3, CONNECT-UDP)", &self.masque, h3(&self.masque).hop(), Both),
            way("MASQUE, Envoy", &self.envoy, h3(&self.envoy).hop(), Both),
            way("MASQUE, login", &self.masque_auth, h3(&self.masque_auth).credentials(ann()).hop(), Both),
            way("MASQUE, digest", &self.masque_digest, masque_digest, Both),
            Way {
                name: "WebSocket tunnel",
                peer: "portolan-tunnel (our own gateway)".to_owned(),
                hops: vec![portolan_tunnel::hop(&format!("ws+tunnel://{gateway}/")).unwrap()],
                carries: Streams,
            },
            jump("SSH jump host, key", self.jump.by_key().hop()),
            jump("SSH jump host, password", by_password.hop()),
        ]
    }

    /// Hops of unlike kinds behind each other.
    fn chains(&self) -> Vec<Way> {
        use Carries::{Both, Streams};
        let chain = |name, peers: &[&str], hops, carries| Way { name, peer: peers.join(", "), hops, carries };
        let (tiny, micro) = (self.tiny.version.as_str(), self.micro.version.as_str());
        let (dante, front) = (self.dante.version.as_str(), self.front.version.as_str());
        let (masque, openssh) = (self.masque.version.as_str(), self.jump.version.as_str());
        let http = Hop::http(self.tiny.endpoint());
        let socks = Hop::socks5h(self.micro.endpoint()).credentials(ann());
        let (jump, second) = (self.jump.by_key().hop(), self.second_jump.by_key().hop());
        let masqued = vec![Hop::socks5(self.dante.endpoint()), h3(&self.masque).hop()];
        let mixed = vec![socks.clone(), h2(&self.front).hop(), Hop::socks4(self.dante.endpoint())];
        vec![
            chain("chain: SOCKS5h + SSH", &[micro, openssh], vec![socks.clone(), jump.clone()], Streams),
            chain("chain: SSH + SSH", &[openssh, openssh], vec![jump.clone(), second.clone()], Streams),
            chain(
                "chain: SSH + CONNECT h1 + SSH",
                &[openssh, tiny, openssh],
                vec![jump, http.clone(), second],
                Streams,
            ),
            chain("chain: CONNECT h1 + SOCKS5h", &[tiny, micro], vec![http, socks], Streams),
            chain("chain: SOCKS5 + MASQUE", &[dante, masque], masqued, Both),
            chain("chain: SOCKS5h + CONNECT h2 + SOCKS4", &[micro, front, dante], mixed, Streams),
        ]
    }
}

/// The tunnel's gateway, which lets these tests reach the loopback.
pub(super) async fn gateway() -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let gateway = portolan_tunnel::Gateway::builder().anyone().policy(Policy::any());
    tokio::spawn(gateway.serve(listener));
    addr
}

fn net(way: &Way, tls: &Tls) -> ConnectorBuilder {
    let net = Connector::builder().tls(tls.clone()).hop_tls(tls.clone());
    way.hops.iter().cloned().fold(net, ConnectorBuilder::via)
}

/// How long an exchange may take; what takes longer than the lesser bound is told.
const LIMIT: Duration = Duration::from_secs(10);
const SLOW: Duration = Duration::from_secs(1);

const NO_DATAGRAMS: &str = "the hop, or this proxy of its kind, carries streams alone";
const NO_HALF_CLOSE: &str = "nghttpx does not tell the target that no more will come, which the protocol ends with";
const REFUSES_DATAGRAMS: &str = "this proxy refuses datagrams, which the hop asks for";

/// Why a hop on the way takes no datagrams, if that is what an error says.
fn why_no_datagrams(error: &Error) -> Option<&'static str> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(one) = source {
        match one.downcast_ref::<Error>() {
            Some(error) if error.hop().is_some() && error.kind() == Kind::Unsupported => return Some(NO_DATAGRAMS),
            Some(error) if error.hop().is_some() && error.code().is_some() => return Some(REFUSES_DATAGRAMS),
            _ => source = one.source(),
        }
    }
    None
}

async fn cell(targets: &Targets, way: &Way, protocol: Protocol, tls: &Tls) -> Cell {
    if !targets.has(protocol) {
        return Cell::Missing("no server of this protocol was installed for the run");
    }
    let work = targets.exchange(protocol, net(way, tls));
    let began = Instant::now();
    let result = tokio::time::timeout(LIMIT, work).await;
    if began.elapsed() > SLOW {
        println!("{} through {} took {:?}", protocol.name(), way.name, began.elapsed());
    }
    let Ok(result) = result else { return Cell::Failed("it hangs".to_owned()) };
    match result {
        Ok(()) => {
            assert!(way.carries != Carries::Streams || !protocol.is_udp(), "{} went around", protocol.name());
            Cell::Passed
        }
        Err(error)
            if protocol == Protocol::Small(Small::Discard(Transport::Tcp))
                && way.peer.contains("nghttpx")
                && (error.kind(), error.phase()) == (Kind::Timeout, Some(Phase::FirstByte)) =>
        {
            Cell::NotApplicable(NO_HALF_CLOSE)
        }
        Err(error) => match why_no_datagrams(&error) {
            Some(why) if protocol.is_udp() && way.carries == Carries::Streams => Cell::NotApplicable(why),
            _ => Cell::Failed(format!("{error:?}")),
        },
    }
}

/// Connect times in microseconds: the first, which meets the proxy, and the median of those after it.
async fn latency(targets: &Targets, way: &Way, tls: &Tls) -> (u128, u128) {
    let net = net(way, tls).build().unwrap();
    let mut times = Vec::new();
    for _ in 0..21 {
        let began = Instant::now();
        let stream = net.connect(&targets.redis()).await.unwrap();
        times.push(began.elapsed().as_micros());
        drop(stream);
    }
    let first = times.remove(0);
    times.sort_unstable();
    (first, times[times.len() / 2])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_protocol_through_every_hop() {
    let Some(targets) = Targets::start().await else { return };
    let Some(proxies) = Proxies::start(&targets) else { return };
    let tls = trusting(&targets.certs);
    let (mut rows, mut notes, mut times) = (String::new(), Vec::new(), String::new());
    let (mut direct, mut failed) = (0, Vec::new());
    for way in proxies.single(gateway().await).into_iter().chain(proxies.chains()) {
        let _ = write!(rows, "| {} | {} |", way.name, if way.peer.is_empty() { "-" } else { &way.peer });
        for protocol in Protocol::ALL {
            let cell = cell(&targets, &way, protocol, &tls).await;
            if let Cell::Failed(why) = &cell {
                failed.push(format!("{} through {}: {why}", protocol.name(), way.name));
            }
            let _ = write!(rows, " {} |", cell.text(&mut notes));
        }
        rows.push('\n');
        let (first, next) = latency(&targets, &way, &tls).await;
        direct = if way.hops.is_empty() { next } else { direct };
        let _ = writeln!(times, "| {} | {first} | {next} | {} |", way.name, next.saturating_sub(direct));
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    if let Some(path) = std::env::var_os("PORTOLAN_HOPS") {
        let page = targets.page();
        let drawn = waterfall_through(&proxies.jump, &proxies.micro, &targets.certs, &page).await;
        std::fs::write(path, document(&rows, &notes, &times, &drawn)).unwrap();
    }
}

fn document(rows: &str, notes: &[&str], times: &str, drawn: &str) -> String {
    let names: Vec<_> = Protocol::ALL.iter().map(|protocol| protocol.name()).collect();
    let mut out = String::from(
        "# Hops\n\nWritten by the suite `tests/hops/matrix` (`PORTOLAN_HOPS=$PWD/docs/HOPS.md cargo test -p portolan-tests --test hops \
         matrix`), never by hand: each cell is an exchange with a real server through real proxies on one machine, and a test \
         that fails when it stops passing. Nothing is ever reached around a hop that cannot carry it.\n\n",
    );
    let _ = writeln!(out, "| way | proxies | {} |\n|---|---|{}", names.join(" | "), "---|".repeat(names.len()));
    out.push_str(rows);
    out.push('\n');
    for (at, note) in notes.iter().enumerate() {
        let _ = writeln!(out, "{}. {note}", at + 1);
    }
    out.push_str(
        "\n## What a hop adds to a connect\n\nMicroseconds on the loopback, in a debug build, to an established TCP connection with \
         Redis: the first connect of a connector, which meets the proxy (and for h2 and h3 its TLS, for SSH its key exchange and login), and the median of the 20 after it. h2, h3 \
         and SSH keep their connection to the proxy, so those after the first cost one round trip. Tinyproxy \
         takes some 20 ms by itself: squid answers the same bytes in a fraction of one.\n\n\
         | way | first | next | added to a direct one |\n|---|---|---|---|\n",
    );
    out.push_str(times);
    let _ = write!(
        out,
        "\n## Where the time of a request goes\n\nOne HTTPS request through SSH and SOCKS5, in a debug build, as \
         [`examples/waterfall.rs`](../examples/waterfall.rs) draws it: the jump host's bar is the key exchange, the login and the \
         opening of the tunnel.\n\n```\n{drawn}```\n"
    );
    out
}
