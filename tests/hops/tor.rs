//! Tor's SOCKS port, cut off from every network: what it refuses, and how it says so.

use std::time::Duration;

use portolan_core::{Connector, Endpoint, Error, Hop, Isolation, Kind, Phase, Policy, SocksReply, Timeouts};
use portolan_testbed::{Service, free_port, record};

use super::{Proxy, run};

/// Its only directory authority is a port of ours where nobody listens.
fn tor() -> Option<Proxy> {
    let (port, nobody) = (free_port(), free_port());
    let conf = format!(
        "SocksPort 127.0.0.1:{port} ExtendedErrors\nDataDirectory $D/data\nSocksTimeout 1\nLog notice stderr\n\
         DirAuthority nobody orport={nobody} v3ident=0123456789ABCDEF0123456789ABCDEF01234567 127.0.0.1:{nobody} \
         0123 4567 89AB CDEF 0123 4567 89AB CDEF 0123 4567\nUseDefaultFallbackDirs 0\n"
    );
    let change = |tor: Service| tor.file("torrc", conf).args(["-f", "$D/torrc", "--defaults-torrc", "/dev/null"]);
    run("tor", "tor", port, change, &["--version"])
}

async fn through(hop: Hop, to: &str) -> Error {
    let timeouts = Timeouts::default().hop(Duration::from_secs(20));
    let net = Connector::builder().via(hop).timeouts(timeouts).build().unwrap();
    net.connect(&to.parse().unwrap()).await.unwrap_err()
}

#[tokio::test]
async fn tor_says_why_in_words_of_its_own() {
    let Some(tor) = tor() else { return };
    let tor_hop = Hop::socks5h(tor.endpoint());
    for hop in
        [tor_hop.clone(), tor_hop.clone().isolation(Isolation::Stream), tor_hop.clone().isolation(Isolation::Target)]
    {
        // A v3 address whose checksum is wrong, and one of the old kind.
        for name in ["a".repeat(56), "expyuzz4wqqyqhjn".to_owned()] {
            let error = through(hop.clone(), &format!("{name}.onion:80")).await;
            let seen = (error.kind(), error.phase(), error.hop(), error.code());
            assert_eq!(seen, (Kind::Hop, Some(Phase::Hop), Some(0), Some(0xf6)), "{name}: {error:?}");
            assert_eq!(error.server(), Some(&SocksReply::OnionAddressInvalid));
        }
    }
    record("socks5h", "peer", &tor.version, "onion addresses that are none, isolated by credentials", 6);
    // Addresses inside are nothing for an exit, and a network that is not there reaches nothing.
    for to in ["127.0.0.1:80", "192.168.1.1:80", "example.com:80"] {
        let error = through(tor_hop.clone(), to).await;
        assert_eq!((error.kind(), error.hop()), (Kind::Hop, Some(0)), "{to}: {error:?}");
        assert!(error.server::<SocksReply>().is_some(), "{to}: {error:?}");
    }
    let net = Connector::builder().via(tor_hop).build().unwrap();
    let error = net.datagram(&"192.0.2.1:53".parse().unwrap()).await.unwrap_err();
    assert_eq!((error.kind(), error.server()), (Kind::Hop, Some(&SocksReply::CommandNotSupported)), "{error:?}");
}

#[tokio::test]
async fn an_onion_name_goes_to_a_hop_that_resolves_or_nowhere() {
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = asked.clone();
    let resolver = portolan_core::Resolver::from_fn(move |name| {
        seen.lock().unwrap().push(name);
        async { Ok(vec!["127.0.0.1".parse().unwrap()]) }
    });
    let Some(tor) = tor() else { return };
    let addr = tor.addr;
    let onion = Endpoint::new(format!("{}.ONION.", "a".repeat(56)), 80).unwrap();
    let builder = || Connector::builder().resolver(resolver.clone());
    for net in [
        builder(),
        builder().via(Hop::socks5(addr.into())),
        builder().via(Hop::socks4(addr.into())),
        builder().via(Hop::socks5h(addr.into())).policy(Policy::any().deny("10.0.0.0/8").unwrap()),
        // A proxy that is an onion itself, with nothing before it that resolves.
        builder().via(Hop::http(onion.clone())),
    ] {
        let net = net.build().unwrap();
        let error = net.connect(&onion).await.unwrap_err();
        assert_eq!((error.kind(), error.phase()), (Kind::Resolve, Some(Phase::Resolve)), "{error:?}");
        assert!(error.message().contains(".onion"), "{error}");
        assert!(net.resolve(&onion).await.is_err());
    }
    let trusting = builder().via(Hop::socks5h(addr.into())).policy(Policy::any().deny("10.0.0.0/8").unwrap());
    let error = trusting.trust_hop_resolution(true).build().unwrap().connect(&onion).await.unwrap_err();
    assert_eq!(error.server(), Some(&SocksReply::OnionAddressInvalid), "{error:?}");
    assert!(asked.lock().unwrap().is_empty(), "asked of DNS: {:?}", asked.lock().unwrap());
}
