//! Who one is, proved to an HTTP server or proxy: challenges, Digest (RFC 7616), and what is said to proxies.
//!
//! - **What works**: challenges in one field or many; Digest by SHA-512-256, SHA-256 and MD5, each with `-sess`, qop `auth` and
//!   `auth-int`, and none (RFC 2069); towards proxies ([`ProxyAuth`]) also Basic, Bearer, NTLM version 2 (feature `ntlm`) and, by
//!   tokens of your own, Negotiate.
//! - **What is not done**: the proof of the server under `auth-int` (it would need the whole response first); Unicode
//!   normalisation of names and passwords: they are hashed as they are. For NTLM: neither MIC nor channel binding.
//! - **Security**: [`Digest::strongest`] never takes MD5 where something better is offered. What was derived from a password is
//!   wiped. Nonces of ours come from the operating system, and no nonce count is used twice.

mod algorithm;
mod challenge;
mod digest;
#[cfg(test)]
mod digest_tests;
mod field;
mod login;
#[cfg(feature = "ntlm")]
mod ntlm;
#[cfg(not(feature = "ntlm"))]
#[path = "no_ntlm.rs"]
mod ntlm;
mod proxy;

pub use algorithm::Algorithm;
pub use challenge::{Challenge, challenges};
pub use digest::{Authorization, Digest};
pub use field::Cursor;
pub use login::{Login, Remembered};
#[cfg(feature = "ntlm")]
pub use ntlm::Ntlm;
pub use proxy::{ProxyAuth, TokenExchange, TokenSource};
