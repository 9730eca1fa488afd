//! R1.9: the policy judges where an address leads, however it is written.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::net::SocketAddr;
use std::path::Path;

use portolan_core::{Delivery, Endpoint, Kind, Phase, Policy, Url};

/// The verdict on a host as a user writes it, by way of the endpoint that a connector would be given.
fn verdict(policy: &Policy, host: &str) -> portolan_core::Result<()> {
    let endpoint = Endpoint::new(host, 80).unwrap_or_else(|error| panic!("{host}: {error}"));
    match endpoint.socket_addr() {
        Some(addr) => policy.check(addr),
        None => policy.check_name(endpoint.name().unwrap(), 80),
    }
}

/// Every network that `Policy::public_only` keeps out, by its first and its last address.
const CLOSED: &[(&str, &str)] = &[
    ("0.0.0.0", "0.255.255.255"),
    ("10.0.0.0", "10.255.255.255"),
    ("100.64.0.0", "100.127.255.255"),
    ("127.0.0.0", "127.255.255.255"),
    ("169.254.0.0", "169.254.255.255"),
    ("172.16.0.0", "172.31.255.255"),
    ("192.0.0.0", "192.0.0.255"),
    ("192.0.2.0", "192.0.2.255"),
    ("192.168.0.0", "192.168.255.255"),
    ("198.18.0.0", "198.19.255.255"),
    ("198.51.100.0", "198.51.100.255"),
    ("203.0.113.0", "203.0.113.255"),
    ("224.0.0.0", "239.255.255.255"),
    ("240.0.0.0", "255.255.255.255"),
    ("100::", "100::ffff:ffff:ffff:ffff"),
    ("2001:2::", "2001:2:0:ffff:ffff:ffff:ffff:ffff"),
    ("2001:10::", "2001:1f:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("2001:20::", "2001:2f:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("5f00::", "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
];

/// The addresses just outside of those networks, which are nobody's but the public's.
const OPEN: &[&str] = &[
    "1.0.0.0",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "191.255.255.255",
    "192.0.1.0",
    "192.0.3.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "198.51.99.255",
    "198.51.101.0",
    "203.0.112.255",
    "203.0.114.0",
    "223.255.255.255",
    "2001:200::",
    "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
    "2001:db9::",
    "2606:4700::1111",
];

#[test]
fn both_ends_of_every_closed_network_are_refused() {
    for (first, last) in CLOSED {
        for host in [first, last] {
            let error = verdict(&Policy::public_only(), host).expect_err(host);
            assert_eq!(
                (error.kind(), error.phase(), error.delivery()),
                (Kind::Blocked, Some(Phase::Connect), Delivery::NotSent),
                "{host}"
            );
        }
    }
}

#[test]
fn their_neighbours_are_open() {
    for host in OPEN {
        verdict(&Policy::public_only(), host).unwrap_or_else(|error| panic!("{host}: {error}"));
    }
}

/// Every IPv4 address above again, in each form of IPv6 that leads to an IPv4 one.
#[test]
fn an_ipv4_address_is_judged_the_same_in_every_ipv6_disguise() {
    let closed = CLOSED.iter().flat_map(|(first, last)| [*first, *last]).map(|host| (host, false));
    let open = OPEN.iter().map(|host| (*host, true));
    for (host, allowed) in closed.chain(open) {
        let Ok(v4) = host.parse::<std::net::Ipv4Addr>() else { continue };
        let [a, b, c, d] = v4.octets();
        let (na, nb, nc, nd) = (!a, !b, !c, !d);
        let disguises = [
            format!("::ffff:{v4}"),
            format!("::ffff:0:{v4}"),
            format!("64:ff9b::{v4}"),
            format!("2002:{a:02x}{b:02x}:{c:02x}{d:02x}::1"),
            format!("2001:0:808:808:0:0:{na:02x}{nb:02x}:{nc:02x}{nd:02x}"),
            format!("2606:4700::5efe:{v4}"),
            format!("2606:4700::200:5efe:{v4}"),
        ];
        for disguise in disguises {
            assert_eq!(verdict(&Policy::public_only(), &disguise).is_ok(), allowed, "{disguise} is {v4}");
            assert_eq!(verdict(&Policy::public_only(), &format!("[{disguise}]")).is_ok(), allowed, "[{disguise}]");
        }
    }
}

#[test]
fn an_address_behind_another_disguise_or_an_odd_prefix_is_found() {
    for host in [
        "2002:808:808::200:5efe:7f00:1",
        "2002:808:808::5efe:10.0.0.1",
        "2606:4700::100:5efe:7f00:1",
        "2606:4700::300:5efe:7f00:1",
        "2001:0:7f00:1::f7f7:f7f7",
        "64:ff9b:1:a00:0:100:808:808",
        "64:ff9b:1::808:808",
        "2001:5::1",
        "2001:1ff::1",
    ] {
        assert_eq!(verdict(&Policy::public_only(), host).expect_err(host).kind(), Kind::Blocked, "{host}");
    }
}

#[test]
fn localhost_is_open_only_where_its_addresses_are() {
    let unrelated = Policy::public_only().allow("10.0.0.0/8").unwrap();
    assert!(unrelated.check_name("localhost", 80).is_err());
    let meant = Policy::public_only().allow("127.0.0.0/8").unwrap();
    assert!(meant.check_name("localhost", 80).is_ok() && Policy::any().check_name("localhost", 80).is_ok());
}

#[test]
fn an_allowed_network_is_open_and_denied_ones_closed_in_every_disguise() {
    let policy = Policy::public_only().allow("10.1.0.0/16").unwrap().deny("8.8.8.0/24").unwrap();
    for host in ["10.1.2.3", "0xa010203", "[::ffff:10.1.2.3]", "[64:ff9b::a01:203]", "[2002:a01:203::]"] {
        verdict(&policy, host).unwrap_or_else(|error| panic!("{host}: {error}"));
    }
    for host in ["8.8.8.8", "134744072", "[::ffff:8.8.8.8]", "[64:ff9b::808:808]", "[2002:808:808::]", "10.2.0.1"] {
        assert_eq!(verdict(&policy, host).expect_err(host).kind(), Kind::Blocked, "{host}");
    }
}

#[test]
fn the_hosts_of_urls_are_judged_as_the_addresses_they_are() {
    for url in [
        "http://127.1/",
        "http://0x7f000001/",
        "http://2130706433/",
        "http://017700000001/",
        "http://[::ffff:7f00:1]/",
        "http://user:pw@127.0.0.1/",
        "http://example.org@127.0.0.1/",
        "http://localhost./",
    ] {
        let parsed = Url::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
        let endpoint = parsed.endpoint(80).unwrap_or_else(|error| panic!("{url}: {error}"));
        let refused = match endpoint.socket_addr() {
            Some(addr) => Policy::public_only().check(addr),
            None => Policy::public_only().check_name(endpoint.name().unwrap(), endpoint.port()),
        };
        assert_eq!(refused.expect_err(url).kind(), Kind::Blocked, "{url}");
    }
}

#[test]
fn metadata_services_are_refused_and_the_error_says_what_the_address_is() {
    for host in ["169.254.169.254", "100.100.100.200", "168.63.129.16", "fd00:ec2::254", "::ffff:169.254.169.254"] {
        let error = verdict(&Policy::public_only(), host).expect_err(host);
        assert!(error.message().contains("metadata"), "{error}");
    }
    let error = verdict(&Policy::public_only(), "::ffff:127.0.0.1").unwrap_err();
    assert!(error.message().contains("127.0.0.1") && error.message().contains("loopback"), "{error}");
}

#[test]
fn the_narrowest_rule_decides_and_deny_wins_a_tie() {
    let addr: SocketAddr = "10.1.2.3:80".parse().unwrap();
    let tied = Policy::any().deny("10.1.2.3").unwrap().allow("10.1.2.3/32").unwrap();
    assert!(tied.check(addr).is_err(), "the order of the calls must not matter");
    let hole = Policy::any().allow("10.1.2.3").unwrap().deny("0.0.0.0/0").unwrap();
    assert!(hole.check(addr).is_ok());
    assert!(hole.check("10.1.2.4:80".parse().unwrap()).is_err());
}

#[test]
fn networks_that_are_none_are_the_callers_mistake() {
    for text in ["", "/", "10.0.0.0/", "10.0.0.0/33", "::/129", "10.0.0/8", "localhost", "10.0.0.0/8/8", "10.0.0.0/ 8"]
    {
        assert_eq!(Policy::any().allow(text).unwrap_err().kind(), Kind::Usage, "{text:?}");
        assert_eq!(Policy::any().deny(text).unwrap_err().kind(), Kind::Usage, "{text:?}");
    }
}

#[test]
fn names_ports_and_unix_sockets_have_rules_of_their_own() {
    let policy = Policy::any().deny_host("*.internal").deny_host("Vault.Example.").allow_ports(443..=443);
    for name in ["a.internal", "A.B.Internal.", "vault.example", "vault.example."] {
        assert_eq!(policy.check_name(name, 443).expect_err(name).kind(), Kind::Blocked, "{name}");
    }
    for name in ["internal", "notinternal", "x.vault.example"] {
        policy.check_name(name, 443).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    assert!(policy.check_name("internal", 80).is_err());
    assert!(policy.check("192.0.2.1:80".parse().unwrap()).is_err());
    assert!(Policy::public_only().check_unix(Path::new("/run/x.sock")).is_err());
    assert!(Policy::public_only().allow_unix(true).check_unix(Path::new("/run/x.sock")).is_ok());
    assert!(Policy::any().is_any() && !policy.is_any() && !Policy::public_only().is_any());
}
