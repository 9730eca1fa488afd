//! The small classics, which xinetd and a whois server serve.

use std::net::SocketAddr;
use std::time::Duration;

use portolan_classic::{Transport, activeusers, chargen, daytime, discard, echo, finger, qotd, time, whois};
use portolan_core::{Connector, Endpoint, Result};
use portolan_testbed::Server;
use portolan_testbed::rogue::{Rogue, Script};

use super::super::uwhoisd::uwhoisd;
use super::super::xinetd::Xinetd;

/// How long a server may take to close what was closed towards it.
const WAIT: Duration = Duration::from_secs(3);

/// A small protocol of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Small {
    Echo(Transport),
    Discard(Transport),
    Chargen(Transport),
    Daytime(Transport),
    Time(Transport),
    Qotd,
    ActiveUsers,
    Finger,
    Whois,
}

impl Small {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Echo(Transport::Tcp) => "echo",
            Self::Echo(_) => "echo/UDP",
            Self::Discard(Transport::Tcp) => "discard",
            Self::Discard(_) => "discard/UDP",
            Self::Chargen(Transport::Tcp) => "chargen",
            Self::Chargen(_) => "chargen/UDP",
            Self::Daytime(Transport::Tcp) => "daytime",
            Self::Daytime(_) => "daytime/UDP",
            Self::Time(Transport::Tcp) => "time",
            Self::Time(_) => "time/UDP",
            Self::Qotd => "qotd",
            Self::ActiveUsers => "activeusers",
            Self::Finger => "finger",
            Self::Whois => "whois",
        }
    }

    pub(super) fn is_udp(self) -> bool {
        self.name().ends_with("/UDP")
    }

    /// The protocol, and what its exchange here is made of.
    pub(super) fn operations(self) -> (&'static str, &'static [&'static str]) {
        let protocol = self.name().trim_end_matches("/UDP");
        let operations = match self {
            Self::Echo(_) => &["exchange"],
            Self::Discard(_) => &["send"],
            Self::Finger | Self::Whois => &["query"],
            _ => &["read"],
        };
        (protocol, operations)
    }
}

/// Their servers.
pub(super) struct Smalls {
    xinetd: Xinetd,
    whois: SocketAddr,
    _registry: Rogue,
    _uwhoisd: Server,
}

impl Smalls {
    pub(super) async fn start() -> Option<Self> {
        let xinetd = Xinetd::start()?;
        // uwhoisd looks up elsewhere what it is asked.
        let registry = Rogue::tcp(Script::new().expect_until("\n").send("domain: EXAMPLE.ORG\r\n")).await;
        let (uwhoisd, whois) = uwhoisd(registry.addr())?;
        Some(Self { xinetd, whois, _registry: registry, _uwhoisd: uwhoisd })
    }

    /// By name; datagrams by address, for nobody listens at the other address of the name.
    fn at(&self, service: &str, by: Transport) -> Endpoint {
        let at = self.xinetd.at(service);
        if by == Transport::Udp { at } else { super::targets::to(at.port()) }
    }

    pub(super) async fn exchange(&self, net: &Connector, small: Small) -> Result<()> {
        match small {
            Small::Echo(by) => {
                let options = echo::Options::new(self.at("echo", by)).transport(by);
                echo::Client::connect(net, options).await?.exchange(b"through").await?;
            }
            Small::Discard(by) => {
                let options = discard::Options::new(self.at("discard", by)).transport(by).timeout(WAIT);
                let mut client = discard::Client::connect(net, options).await?;
                client.send(b"through").await?;
                client.close().await?;
            }
            Small::Chargen(by) => {
                let options = chargen::Options::new(self.at("chargen", by)).transport(by);
                let text = chargen::Client::connect(net, options).await?.read(70).await?;
                assert!(!text.is_empty());
            }
            Small::Daytime(by) => {
                let options = daytime::Options::new(self.at("daytime", by)).transport(by);
                let text = daytime::Client::connect(net, options).await?.read().await?;
                assert!(text.lossy().contains(" 20"), "{text:?}");
            }
            Small::Time(by) => {
                let options = time::Options::new(self.at("time", by)).transport(by);
                let time = time::Client::connect(net, options).await?.read().await?.to_system_time();
                assert!(time > std::time::SystemTime::UNIX_EPOCH);
            }
            _ => self.read(net, small).await?,
        }
        Ok(())
    }

    /// The ones that are text to read, over TCP alone.
    async fn read(&self, net: &Connector, small: Small) -> Result<()> {
        let text = match small {
            Small::Qotd => {
                let options = qotd::Options::new(self.at("qotd", Transport::Tcp));
                qotd::Client::connect(net, options).await?.read().await?
            }
            Small::ActiveUsers => {
                let options = activeusers::Options::new(self.at("systat", Transport::Tcp));
                activeusers::Client::connect(net, options).await?.read().await?
            }
            Small::Finger => {
                let options = finger::Options::new(self.at("finger", Transport::Tcp));
                finger::Client::connect(net, options).await?.query(&finger::Query::user("root")?).await?
            }
            _ => {
                let options = whois::Options::new(super::targets::to(self.whois.port()));
                whois::Client::connect(net, options).await?.query("example.org").await?.replies.remove(0).text
            }
        };
        let known = match small {
            Small::Qotd => "an apple a day",
            Small::ActiveUsers => "xinetd",
            Small::Finger => "root",
            _ => "EXAMPLE.ORG",
        };
        assert!(text.lossy().contains(known), "{text:?}");
        Ok(())
    }
}
