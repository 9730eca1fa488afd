//! Which addresses may be connected to.
//!
//! The policy looks at the address itself, after resolution and after every disguise is taken off: IPv4 inside IPv6 (mapped,
//! compatible, NAT64, 6to4, Teredo, ISATAP) is judged as the IPv4 that it leads to, and as the IPv6 that it is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Kind, Phase, Result};
use crate::resolve::canonical;

/// A rule set: cheap to clone.
///
/// The order of judgement: ports; then [`allow`](Self::allow) and [`deny`](Self::deny), of which the narrower network wins and
/// `deny` wins a tie; then, for [`public_only`](Self::public_only), the built-in classes.
///
/// ```
/// use portolan_core::Policy;
///
/// let policy = Policy::public_only().allow("10.1.0.0/16")?;
/// assert!(policy.check("10.1.2.3:80".parse()?).is_ok());
/// assert!(policy.check("10.2.2.3:80".parse()?).is_err());
/// assert!(policy.check("[::ffff:127.0.0.1]:80".parse()?).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct Policy(Arc<Rules>);

#[derive(Clone, Default)]
struct Rules {
    public_only: bool,
    nets: Vec<(bool, Net)>,
    names: Vec<(bool, String)>,
    ports: Option<Vec<RangeInclusive<u16>>>,
    no_unix: bool,
}

/// A network: an address and how many of its bits count.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Net {
    addr: IpAddr,
    bits: u8,
}

impl Net {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let bad = || Error::usage(format!("{text:?} is no network such as 10.0.0.0/8"));
        let (addr, bits) = text.split_once('/').map_or((text, None), |(addr, bits)| (addr, Some(bits)));
        let addr: IpAddr = addr.trim_matches(['[', ']']).parse().map_err(|_| bad())?;
        let width = if addr.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(width), |bits| bits.parse().map_err(|_| bad()))?;
        if bits > width { Err(bad()) } else { Ok(Self { addr, bits }) }
    }

    pub(crate) fn text(&self) -> String {
        format!("{}/{}", self.addr, self.bits)
    }

    pub(crate) fn contains(&self, ip: IpAddr) -> bool {
        match (self.addr, ip) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                u32::from(net) & mask == u32::from(ip) & mask
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                u128::from(net) & mask == u128::from(ip) & mask
            }
            _ => false,
        }
    }
}

impl Policy {
    /// Everything is allowed: the default.
    pub fn any() -> Self {
        Self::default()
    }

    /// Only addresses of the public internet: for hosts that a user names. Unix sockets are out too.
    pub fn public_only() -> Self {
        Self(Arc::new(Rules { public_only: true, no_unix: true, ..Rules::default() }))
    }

    /// Allows a network such as `10.1.0.0/16` or one address.
    pub fn allow(self, cidr: &str) -> Result<Self> {
        let net = Net::parse(cidr)?;
        Ok(self.with(|rules| rules.nets.push((true, net))))
    }

    /// Forbids a network or one address.
    pub fn deny(self, cidr: &str) -> Result<Self> {
        let net = Net::parse(cidr)?;
        Ok(self.with(|rules| rules.nets.push((false, net))))
    }

    /// Forbids a name, or with `*.` in front all names under it. Names are a courtesy: addresses are what is enforced.
    #[must_use]
    pub fn deny_host(self, pattern: &str) -> Self {
        self.with(|rules| rules.names.push((false, canonical(pattern))))
    }

    /// Allows names matching `pattern` alone (and those of other such calls). A host that is written as an address has no name to
    /// be judged by: begin with [`public_only`](Self::public_only), or deny networks, where hosts are named by others.
    #[must_use]
    pub fn allow_host(self, pattern: &str) -> Self {
        self.with(|rules| rules.names.push((true, canonical(pattern))))
    }

    /// Allows these ports alone (and those of other such calls).
    #[must_use]
    pub fn allow_ports(self, ports: RangeInclusive<u16>) -> Self {
        self.with(|rules| rules.ports.get_or_insert_default().push(ports))
    }

    /// Whether Unix sockets are allowed. Default yes, but no for [`public_only`](Self::public_only).
    #[must_use]
    pub fn allow_unix(self, on: bool) -> Self {
        self.with(|rules| rules.no_unix = !on)
    }

    fn with(mut self, change: impl FnOnce(&mut Rules)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// Whether nothing at all is forbidden.
    pub fn is_any(&self) -> bool {
        let rules = &*self.0;
        !rules.public_only && rules.nets.is_empty() && rules.names.is_empty() && rules.ports.is_none()
    }

    /// Judges an address about to be connected to.
    pub fn check(&self, addr: SocketAddr) -> Result<()> {
        self.check_port(addr.port())?;
        let asked = addr.ip();
        // A disguise is judged as itself first, then as everything that it leads to.
        self.check_ip(asked, asked)?;
        hidden(asked).try_for_each(|seen| self.check_ip(asked, seen))
    }

    fn check_port(&self, port: u16) -> Result<()> {
        match &self.0.ports {
            Some(ports) if !ports.iter().any(|range| range.contains(&port)) => {
                Err(blocked(format!("port {port} is not allowed")))
            }
            _ => Ok(()),
        }
    }

    fn check_ip(&self, asked: IpAddr, seen: IpAddr) -> Result<()> {
        let narrowest =
            self.0.nets.iter().filter(|(_, net)| net.contains(seen)).max_by_key(|(allow, net)| (net.bits, !allow));
        let as_what = if asked == seen { String::new() } else { format!(" (it leads to {seen})") };
        match narrowest {
            Some((true, _)) => Ok(()),
            Some((false, net)) => Err(blocked(format!("{asked}{as_what} is in the denied network {}", net.text()))),
            None if self.0.public_only => match class(seen) {
                // A transition prefix is judged by what it leads to.
                Some(class) => Err(blocked(format!("{asked}{as_what} is {class}"))),
                None => Ok(()),
            },
            None => Ok(()),
        }
    }

    /// Judges a name before it is resolved or handed to a proxy.
    pub fn check_name(&self, name: &str, port: u16) -> Result<()> {
        self.check_port(port)?;
        let name = canonical(name);
        let local = name == "localhost" || name.ends_with(".localhost");
        let refused = |ip: IpAddr| self.check_ip(ip, ip).is_err();
        if local && refused(Ipv4Addr::LOCALHOST.into()) && refused(Ipv6Addr::LOCALHOST.into()) {
            return Err(blocked(format!("{name} is this machine")));
        }
        let matches = |pattern: &str| match pattern.strip_prefix("*.") {
            Some(suffix) => name.strip_suffix(suffix).is_some_and(|head| head.ends_with('.')),
            None => name == pattern,
        };
        let mut rules = self.0.names.iter();
        if rules.any(|(allow, pattern)| !allow && matches(pattern)) {
            return Err(blocked(format!("the name {name} is denied")));
        }
        let mut allowed = self.0.names.iter().filter(|(allow, _)| *allow).peekable();
        if allowed.peek().is_some() && !allowed.any(|(_, pattern)| matches(pattern)) {
            return Err(blocked(format!("the name {name} is not among the allowed ones")));
        }
        Ok(())
    }

    /// Judges a Unix socket.
    pub fn check_unix(&self, path: &Path) -> Result<()> {
        if self.0.no_unix { Err(blocked(format!("{} is a Unix socket", path.display()))) } else { Ok(()) }
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = &*self.0;
        let nets: Vec<String> = rules
            .nets
            .iter()
            .map(|(allow, net)| format!("{} {}", if *allow { "allow" } else { "deny" }, net.text()))
            .collect();
        f.debug_struct("Policy").field("public_only", &rules.public_only).field("nets", &nets).finish_non_exhaustive()
    }
}

fn blocked(message: String) -> Error {
    Error::new(Kind::Blocked, message).with_phase(Phase::Connect)
}

/// The IPv4 addresses that `ip` leads to. A prefix and an ISATAP interface identifier may each hide one, and Teredo two.
fn hidden(ip: IpAddr) -> impl Iterator<Item = IpAddr> {
    let s = match ip {
        IpAddr::V6(ip) => ip.segments(),
        IpAddr::V4(_) => [0; 8],
    };
    let v4 = |high: u16, low: u16| Some(IpAddr::V4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))));
    let (first, second) = match s {
        [0, 0, 0, 0, 0, 0xffff, h, l] => (v4(h, l), None), // mapped (RFC 4291 2.5.5.2)
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => (None, None),      // :: and ::1 are no IPv4
        [0, 0, 0, 0, 0, 0, h, l] => (v4(h, l), None),      // compatible (RFC 4291 2.5.5.1)
        [0, 0, 0, 0, 0xffff, 0, h, l] => (v4(h, l), None), // translated (RFC 2765 2.1)
        [0x64, 0xff9b, 0, 0, 0, 0, h, l] => (v4(h, l), None), // NAT64 (RFC 6052)
        [0x64, 0xff9b, 1, _, _, _, h, l] => (v4(h, l), None), // local NAT64 (RFC 8215), with the usual /96 inside
        [0x2002, h, l, ..] => (v4(h, l), None),            // 6to4 (RFC 3056)
        [0x2001, 0, sh, sl, _, _, h, l] => (v4(!h, !l), v4(sh, sl)), // Teredo (RFC 4380 4): client, obfuscated, and server
        _ => (None, None),
    };
    // RFC 5214 6.1: whatever the prefix, and whatever the universal and group bits.
    let isatap = match s {
        [_, _, _, _, 0 | 0x100 | 0x200 | 0x300, 0x5efe, h, l] => v4(h, l),
        _ => None,
    };
    [first, second, isatap].into_iter().flatten()
}

/// The class that keeps an address out of the public internet (IANA special-purpose registries), if any.
fn class(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(ip) => class_v4(ip),
        IpAddr::V6(ip) => class_v6(ip),
    }
}

fn class_v4(ip: Ipv4Addr) -> Option<&'static str> {
    let o = ip.octets();
    Some(match o {
        [169, 254, 169, 254] | [169, 254, 170, 2] | [100, 100, 100, 200] | [168, 63, 129, 16] | [192, 0, 0, 192] => {
            "a cloud metadata service"
        }
        [0, ..] => "this network (RFC 791)",
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => "private (RFC 1918)",
        [127, ..] => "loopback",
        [100, 64..=127, ..] => "carrier-grade NAT (RFC 6598)",
        [169, 254, ..] => "link-local",
        [192, 0, 0, _] => "for protocol assignments (RFC 6890)",
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => "for documentation (RFC 5737)",
        [192, 88, 99, _] => "a 6to4 relay (RFC 7526)",
        [198, 18..=19, ..] => "for benchmarks (RFC 2544)",
        [224..=239, ..] => "multicast",
        [255, 255, 255, 255] => "broadcast",
        [240..=255, ..] => "reserved (RFC 1112)",
        _ => return None,
    })
}

fn class_v6(ip: Ipv6Addr) -> Option<&'static str> {
    let s = ip.segments();
    Some(match s {
        [0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254] | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254] => "a cloud metadata service",
        [0, 0, 0, 0, 0, 0, 0, 0] => "unspecified",
        [0, 0, 0, 0, 0, 0, 0, 1] => "loopback",
        [0xfe80..=0xfebf, ..] => "link-local",
        [0xfec0..=0xfeff, ..] => "site-local (RFC 3879)",
        [0xfc00..=0xfdff, ..] => "unique local (RFC 4193)",
        [0xff00..=0xffff, ..] => "multicast",
        [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => "for documentation (RFC 3849, RFC 9637)",
        [0x2001, 2, 0, ..] => "for benchmarks (RFC 5180)",
        [0x2001, 0x10..=0x3f, ..] => "an ORCHID (RFC 7343)",
        [0x2001, 1..=0x1ff, ..] => "for protocol assignments (RFC 2928)",
        [0x0100, 0, 0, 0, ..] => "a black hole (RFC 6666)",
        // Its translator may use any prefix length, so which IPv4 address it leads to cannot be known from here.
        [0x64, 0xff9b, 1, ..] => "local NAT64 (RFC 8215)",
        [0x5f00, ..] => "a segment routing id (RFC 9602)",
        // What these lead to is judged next; nothing else below 2000::/3 is given out.
        [0, ..] | [0x64, 0xff9b, ..] if hidden(IpAddr::V6(ip)).next().is_some() => return None,
        [0x2000..=0x3fff, ..] => return None,
        _ => "not given out (RFC 4291)",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Endpoint;

    #[test]
    #[allow(clippy::too_many_lines, reason = "a table")]
    fn every_spelling_of_a_forbidden_address_is_refused() {
        let spellings = [
            "127.0.0.1",
            "127.1",
            "127.0.1",
            "0x7f000001",
            "0x7f.1",
            "0x7f.0x0.0x0.0x1",
            "2130706433",
            "0177.0.0.1",
            "0177.1",
            "017700000001",
            "127.0.0.1.",
            "127.255.255.254",
            "0.0.0.0",
            "0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "0xa.1",
            "012.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "192.168.257",
            "3232235777",
            "100.64.0.1",
            "100.127.255.255",
            "169.254.1.1",
            "169.254.169.254",
            "0xa9fea9fe",
            "2852039166",
            "0251.0376.0251.0376",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.8",
            "192.0.0.192",
            "192.0.2.1",
            "198.51.100.7",
            "203.0.113.9",
            "192.88.99.1",
            "198.18.0.1",
            "198.19.255.255",
            "224.0.0.1",
            "239.255.255.250",
            "240.0.0.1",
            "255.255.255.255",
            "[::1]",
            "::1",
            "[::]",
            "[0:0:0:0:0:0:0:1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[0:0:0:0:0:ffff:7f00:0001]",
            "[::ffff:10.0.0.1]",
            "[::ffff:a9fe:a9fe]",
            "[::127.0.0.1]",
            "[::7f00:1]",
            "[::10.0.0.1]",
            "[::ffff:0:127.0.0.1]",
            "[64:ff9b::7f00:1]",
            "[64:ff9b::127.0.0.1]",
            "[64:ff9b::10.0.0.1]",
            "[64:ff9b:1::192.168.0.1]",
            "[2002:7f00:1::]",
            "[2002:a00:1::1]",
            "[2002:c0a8:101::]",
            "[2001:0:1:2:3:4:80ff:fffe]",
            "[2001::f5ff:fffe]",
            "[2001:470:1::5efe:10.0.0.1]",
            "[2001:470::200:5efe:127.0.0.1]",
            "[fe80::1]",
            "[fe80::1%1]",
            "[febf::1]",
            "[fec0::1]",
            "[fc00::1]",
            "[fd00:ec2::254]",
            "[fdff::1]",
            "[ff02::1]",
            "[ff0e::fb]",
            "[2001:db8::1]",
            "[3fff::1]",
            "[2001:2::1]",
            "[2001:10::1]",
            "[2001:20::1]",
            "[100::1]",
            "[5f00::1]",
            "[4000::1]",
            "localhost",
            "LOCALHOST",
            "localhost.",
            "a.localhost",
        ];
        assert!(spellings.len() >= 60);
        let policy = Policy::public_only();
        for text in spellings {
            let endpoint = Endpoint::new(text, 80).unwrap_or_else(|error| panic!("{text}: {error}"));
            let verdict = match endpoint.socket_addr() {
                Some(addr) => policy.check(addr),
                None => policy.check_name(endpoint.name().unwrap(), 80),
            };
            let error = verdict.expect_err(text);
            assert_eq!(error.kind(), Kind::Blocked, "{text}");
            assert_eq!(error.delivery(), crate::Delivery::NotSent, "{text}");
        }
    }

    #[test]
    fn public_addresses_pass() {
        let policy = Policy::public_only();
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "192.169.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "169.253.255.255",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "[2606:4700::1111]",
            "[2a00:1450::1]",
            "[::ffff:8.8.8.8]",
            "[64:ff9b::808:808]",
            "[2002:808:808::1]",
            "[2001:470::5efe:8.8.8.8]",
        ] {
            let addr = Endpoint::new(text, 443).unwrap().socket_addr().unwrap();
            policy.check(addr).unwrap_or_else(|error| panic!("{text}: {error}"));
        }
    }

    #[test]
    fn the_narrower_network_wins_and_deny_wins_a_tie() {
        let addr = |text: &str| SocketAddr::new(text.parse().unwrap(), 1);
        let policy = Policy::any().deny("10.0.0.0/8").unwrap().allow("10.1.0.0/16").unwrap().deny("10.1.2.3").unwrap();
        assert!(policy.check(addr("10.2.0.1")).is_err());
        assert!(policy.check(addr("10.1.0.1")).is_ok());
        assert!(policy.check(addr("10.1.2.3")).is_err());
        assert!(policy.check(addr("::ffff:10.1.2.3")).is_err());
        assert!(policy.check(addr("11.0.0.1")).is_ok());
        let tie = Policy::any().allow("10.0.0.0/8").unwrap().deny("10.0.0.0/8").unwrap();
        assert!(tie.check(addr("10.0.0.1")).is_err());
        for bad in ["10.0.0.0/33", "x", "", "10.0.0.0/-1", "::/129"] {
            assert!(Policy::any().allow(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_names_and_unix_sockets_are_judged_too() {
        let policy = Policy::any().allow_ports(443..=443).deny_host("*.internal");
        assert!(policy.check("1.1.1.1:80".parse().unwrap()).is_err());
        assert!(policy.check_name("db.internal", 443).is_err() && policy.check_name("internal", 443).is_ok());
        assert!(policy.check_name("x.example", 443).is_ok() && policy.check_name("x.example", 80).is_err());
        let only = Policy::any().allow_host("*.example");
        assert!(only.check_name("a.example", 1).is_ok() && only.check_name("b.test", 1).is_err());
        assert!(Policy::public_only().check_unix(Path::new("/x")).is_err());
        assert!(Policy::public_only().allow_unix(true).check_unix(Path::new("/x")).is_ok());
    }
}
