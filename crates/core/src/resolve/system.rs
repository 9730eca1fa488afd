//! getaddrinfo, on the blocking pool.

use std::io;
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::{Answer, Resolve, ResolveFailure, failed};
use crate::dial::BoxFuture;
use crate::error::{Error, Kind, Phase, Result};

/// Look-ups under way at once: a name service that hangs must not eat the runtime's whole blocking pool (512 threads).
const MAX_LOOKUPS: usize = 32;

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

impl Resolve for System {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Answer>> {
        Box::pin(async move {
            let permit = self.permits.clone().acquire_owned().await;
            let permit =
                permit.map_err(|_| Error::new(Kind::Resolve, "resolver is shut").with_phase(Phase::Resolve))?;
            let host = name.to_owned();
            // The permit goes along: a caller who gives up does not free the thread that still waits for libc.
            let answer = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                getaddrinfo(&host)
            });
            let answer = answer.await.map_err(|_| failed(name, ResolveFailure::Unavailable))?;
            let mut addrs = Vec::new();
            for ip in answer.map_err(|error| refused(name, error))? {
                if !addrs.contains(&ip) {
                    addrs.push(ip);
                }
            }
            if addrs.is_empty() { Err(failed(name, ResolveFailure::NoSuchName)) } else { Ok(Answer::new(addrs, None)) }
        })
    }
}

#[allow(clippy::disallowed_methods, reason = "this is the place where names are resolved")]
fn getaddrinfo(host: &str) -> io::Result<Vec<std::net::IpAddr>> {
    use std::net::ToSocketAddrs;
    Ok((host, 0).to_socket_addrs()?.map(|addr| addr.ip()).collect())
}

/// The standard library gives EAI_NONAME and EAI_NODATA as text alone: so they read in glibc, musl, the BSDs and Windows.
/// Whatever else it says (a server that failed, memory that ran out) is no certain answer, and must not be cached as one.
const CERTAIN: [&str; 7] = [
    "Name or service not known",
    "No address associated",
    "Name does not resolve",
    "Name has no usable address",
    "nodename nor servname",
    "No such host is known",
    "no data of the requested type",
];

fn refused(name: &str, error: io::Error) -> Error {
    failed(name, why(&error.to_string())).with_source(error)
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
}
