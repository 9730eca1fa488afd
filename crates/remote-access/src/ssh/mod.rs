//! SSH jump hosts as hops: many tunnels on one connection (RFC 4251 to 4254).
//!
//! - **Port and TLS**: 22; SSH is its own encryption, and TLS with the target runs inside it.
//! - **What works**: `direct-tcpip` channels for any protocol of the workspace; host keys checked against known_hosts (hashed
//!   names, patterns, other ports, revoked keys, certificates), a pinned fingerprint, a question, or learned; logins by password,
//!   key, certificate, agent and keyboard-interactive, several in turn; one connection for all tunnels of a connector, made anew
//!   when it died; keepalive; half-close both ways. A hop before it or behind it may be any other, another jump host too.
//! - **What is not done**: sessions, SFTP, remote forwarding: this is the hop alone. `~/.ssh/config` is not read. There are no GSSAPI and
//!   hostbased logins, no hardware keys (`sk-`) but by the agent, and no compression; a password that must be changed ends at the
//!   hop's deadline. russh opens the window as data arrives, not as it is read: a tunnel that nobody reads holds up the others on
//!   its connection until [`Jump::stall_limit`].
//! - **Tested against**: OpenSSH, Dropbear, asyncssh.
//! - **Security**: an unknown or changed host key is an error before anything is said of the user. A refused tunnel is an error
//!   that names the hop; nothing ever goes around the jump host. Names are resolved by the jump host only where the connector's
//!   policy allows anything, or trusts its hops.
//!
//! ```
//! use portolan_core::{Connector, Hop};
//! use portolan_remote_access::ssh::{HostKeys, Jump};
//!
//! let hop = Jump::parse("ssh://ann@bastion.example")?.key_file("/home/ann/.ssh/id_ed25519").host_keys(HostKeys::user()).hop();
//! assert_eq!(format!("{hop:?}"), "ssh://ann:***@bastion.example:22");
//! let net = Connector::builder().via(Hop::parse("socks5h://proxy.example")?).via(hop).build()?;
//! # Ok::<(), portolan_core::Error>(())
//! ```

mod fault;
mod host_keys;
mod jump;
mod known_hosts;
mod link;
mod login;
mod prompt;
mod tunnel;

#[cfg(test)]
mod tests;

pub use host_keys::{HostKey, HostKeyError, HostKeyProblem, HostKeys};
pub use jump::{Dangerous, Jump, jump};
pub use known_hosts::KnownHosts;
pub use login::Questions;

/// How it is called in errors and chains.
const NAME: &str = "ssh";
