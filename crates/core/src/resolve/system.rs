//! getaddrinfo, on the blocking pool: once for both families, or at the same time for each.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::{Answer, Family, Resolve, ResolveFailure, failed};
use crate::dial::BoxFuture;
use crate::error::{Error, Kind, Phase, Result};

/// Look-ups under way at once: a name service that hangs must not eat the runtime's whole blocking pool (512 threads).
/// One name takes two.
const MAX_LOOKUPS: usize = 64;

/// The system's own resolver: it honours `nsswitch.conf`, the hosts file and mDNS, and sorts by RFC 6724.
#[derive(Debug, Clone)]
pub struct System {
    permits: Arc<Semaphore>,
}

impl Default for System {
    fn default() -> Self {
        Self { permits: Arc::new(Semaphore::new(MAX_LOOKUPS)) }
    }
}

impl System {
    async fn asked(&self, name: &str, family: Option<Family>) -> Result<Answer> {
        let permit = self.permits.clone().acquire_owned().await;
        let permit = permit.map_err(|_| Error::new(Kind::Resolve, "resolver is shut").with_phase(Phase::Resolve))?;
        let host = name.to_owned();
        // The permit goes along: a caller who gives up does not free the thread that still waits for libc.
        let answer = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            getaddrinfo(&host, family)
        });
        let answer = answer.await.map_err(|_| failed(name, ResolveFailure::Unavailable))?;
        let mut addrs = Vec::new();
        for ip in answer.map_err(|words| refused(name, words))? {
            if !addrs.contains(&ip) {
                addrs.push(ip);
            }
        }
        if addrs.is_empty() { Err(failed(name, ResolveFailure::NoSuchName)) } else { Ok(Answer::new(addrs, None)) }
    }
}

impl Resolve for System {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Answer>> {
        Box::pin(self.asked(name, None))
    }

    fn resolve_family<'a>(&'a self, name: &'a str, family: Family) -> Option<BoxFuture<'a, Result<Answer>>> {
        if cfg!(not(unix)) {
            return None;
        }
        Some(Box::pin(self.asked(name, Some(family))))
    }
}

/// The addresses, of one family only where that is asked for; an error is what the system says of it.
#[cfg(unix)]
fn getaddrinfo(host: &str, family: Option<Family>) -> std::result::Result<Vec<IpAddr>, String> {
    let Some(family) = family else {
        return native::getaddrinfo(host, libc::AF_UNSPEC);
    };
    if hosts::names(host) {
        // Asked for one family alone, glibc passes over a line of the hosts file that is of the other, and goes on to ask the
        // name service: an address that was pinned in the file would be joined by those that it was to replace.
        let mut addrs = native::getaddrinfo(host, libc::AF_UNSPEC)?;
        addrs.retain(|ip| Family::of(*ip) == family);
        return Ok(addrs);
    }
    native::getaddrinfo(host, if family == Family::V4 { libc::AF_INET } else { libc::AF_INET6 })
}

#[cfg(not(unix))]
#[allow(clippy::disallowed_methods, reason = "this is the place where names are resolved")]
fn getaddrinfo(host: &str, family: Option<Family>) -> std::result::Result<Vec<IpAddr>, String> {
    use std::net::ToSocketAddrs;
    let addrs = (host, 0).to_socket_addrs().map_err(|error| error.to_string())?.map(|addr| addr.ip());
    Ok(addrs.filter(|ip| family.is_none_or(|family| Family::of(*ip) == family)).collect())
}

/// The standard library asks for both families only.
#[cfg(unix)]
#[allow(unsafe_code, reason = "getaddrinfo with a hint has no safe wrapper in the standard library")]
mod native {
    use std::ffi::{CStr, CString};
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use std::{mem, ptr};

    /// More than any name has in earnest.
    const MAX_ADDRESSES: usize = 1024;

    pub(super) fn getaddrinfo(host: &str, family: libc::c_int) -> Result<Vec<IpAddr>, String> {
        let host = CString::new(host).map_err(|_| "Name or service not known".to_owned())?;
        // SAFETY: all-zero is a valid addrinfo: numbers and null pointers.
        let mut hints: libc::addrinfo = unsafe { mem::zeroed() };
        hints.ai_family = family;
        hints.ai_socktype = libc::SOCK_STREAM;
        let mut list: *mut libc::addrinfo = ptr::null_mut();
        // SAFETY: the name is NUL-terminated, and both it and the hints live through the call; `list` is only read on success.
        let code = unsafe { libc::getaddrinfo(host.as_ptr(), ptr::null(), &raw const hints, &raw mut list) };
        if code != 0 {
            return Err(words(code));
        }
        let list = List(list);
        let mut addrs = Vec::new();
        let mut next = list.0;
        while !next.is_null() && addrs.len() < MAX_ADDRESSES {
            // SAFETY: an element of the list that libc made, which `list` keeps alive.
            let entry = unsafe { &*next };
            addrs.extend(address(entry));
            next = entry.ai_next;
        }
        Ok(addrs)
    }

    /// Gives the list back to libc.
    struct List(*mut libc::addrinfo);

    impl Drop for List {
        fn drop(&mut self) {
            // SAFETY: made by getaddrinfo, and freed only here.
            unsafe { libc::freeaddrinfo(self.0) };
        }
    }

    fn address(entry: &libc::addrinfo) -> Option<IpAddr> {
        if entry.ai_addr.is_null() {
            return None;
        }
        match entry.ai_family {
            libc::AF_INET => {
                // SAFETY: the family says which structure it is; it is copied out, whatever its alignment.
                let addr: libc::sockaddr_in = unsafe { ptr::read_unaligned(entry.ai_addr.cast()) };
                Some(Ipv4Addr::from(u32::from_be(addr.sin_addr.s_addr)).into())
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let addr: libc::sockaddr_in6 = unsafe { ptr::read_unaligned(entry.ai_addr.cast()) };
                Some(Ipv6Addr::from(addr.sin6_addr.s6_addr).into())
            }
            _ => None,
        }
    }

    fn words(code: libc::c_int) -> String {
        if code == libc::EAI_SYSTEM {
            return std::io::Error::last_os_error().to_string();
        }
        // SAFETY: gai_strerror gives a static NUL-terminated text for every code, or null on no known system.
        unsafe {
            let text = libc::gai_strerror(code);
            if text.is_null() { code.to_string() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
        }
    }
}

/// The hosts file, as far as it concerns whether a name stands in it.
#[cfg(unix)]
mod hosts {
    use std::io::Read;

    const FILE: &str = "/etc/hosts";

    /// A larger file (some block a whole web with it) is not read: its names are then asked for both families at once.
    const MAX_SIZE: u64 = 256 * 1024;

    pub(super) fn names(host: &str) -> bool {
        let Ok(file) = std::fs::File::open(FILE) else {
            return false;
        };
        let mut text = Vec::new();
        let read = file.take(MAX_SIZE + 1).read_to_end(&mut text);
        read.is_err() || text.len() as u64 > MAX_SIZE || mentions(&String::from_utf8_lossy(&text), host)
    }

    pub(super) fn mentions(text: &str, host: &str) -> bool {
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
        lines.flat_map(|line| line.split_whitespace().skip(1)).any(|name| name.eq_ignore_ascii_case(host))
    }
}

/// Certain answers can be told by their text alone, since codes differ: so they read in glibc, musl, the BSDs and Windows.
/// Whatever else it says (a server that failed, memory that ran out) is no certain answer, and must not be cached as one.
const CERTAIN: [&str; 8] = [
    "Name or service not known",
    "No address associated",
    "Name does not resolve",
    "Name has no usable address",
    "nodename nor servname",
    "No such host is known",
    "no data of the requested type",
    // The name is there, but has no address of the family asked for.
    "Address family for hostname not supported",
];

fn refused(name: &str, words: String) -> Error {
    failed(name, why(&words)).with_source(words)
}

fn why(text: &str) -> ResolveFailure {
    let certain = CERTAIN.iter().any(|words| text.contains(words));
    if certain { ResolveFailure::NoSuchName } else { ResolveFailure::Unavailable }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_words_that_deny_the_name_are_certain() {
        for words in ["Name or service not known", "No address associated with hostname", "Name does not resolve"] {
            let text = format!("failed to lookup address information: {words}");
            assert_eq!(why(&text), ResolveFailure::NoSuchName, "{text}");
        }
        for words in [
            "Temporary failure in name resolution",
            "Non-recoverable failure in name resolution",
            "Memory allocation failure",
            "System error",
            "Try again",
        ] {
            let text = format!("failed to lookup address information: {words}");
            assert_eq!(why(&text), ResolveFailure::Unavailable, "{text}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_name_in_the_hosts_file_is_found_in_any_case_and_comments_are_not_names() {
        let text = "127.0.0.1\tlocalhost\n10.0.0.7  db.Internal db # old.internal\n#10.0.0.8 gone\n";
        for (name, there) in
            [("db.internal", true), ("DB", true), ("old.internal", false), ("gone", false), ("10.0.0.7", false)]
        {
            assert_eq!(hosts::mentions(text, name), there, "{name}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn each_family_is_had_by_itself() {
        let native = |host: &str, family| getaddrinfo(host, Some(family)).unwrap_or_default();
        assert_eq!(native("127.0.0.9", Family::V4), ["127.0.0.9".parse::<IpAddr>().unwrap()]);
        assert_eq!(native("::9", Family::V6), ["::9".parse::<IpAddr>().unwrap()]);
        for (host, family) in [("127.0.0.9", Family::V6), ("::9", Family::V4)] {
            assert_eq!(why(&getaddrinfo(host, Some(family)).unwrap_err()), ResolveFailure::NoSuchName, "{host}");
        }
        assert!(getaddrinfo("a\0b", None).is_err());
    }
}
