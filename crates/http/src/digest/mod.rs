//! Digest authentication (RFC 7616), and the challenges of `WWW-Authenticate` and `Proxy-Authenticate`.
//!
//! - **What works**: SHA-512-256, SHA-256 and MD5, each with `-sess`; qop `auth` and `auth-int`, and none (RFC 2069); userhash, user
//!   names beyond ASCII, `stale`, `nextnonce`, the server's own proof (`rspauth`); several challenges in one field or
//!   in many.
//! - **What is not done**: the proof of the server under `auth-int` (it would need the whole response first); Unicode normalisation
//!   of names and passwords: they are hashed as they are.
//! - **Security**: [`Digest::strongest`] never takes MD5 where something better is offered. The password itself never leaves; what
//!   was derived from it is wiped. Nonces of ours come from the operating system, and no nonce count is used twice.
//!
//! The work is done in core, where proxies are answered too.
//!
//! ```
//! use portolan_core::Credentials;
//! use portolan_http::digest::{Digest, challenges};
//!
//! let mut headers = http::HeaderMap::new();
//! headers.insert("www-authenticate", r#"Basic realm="x", Digest realm="x", nonce="n", qop="auth", algorithm=SHA-256"#.parse()?);
//! let found = challenges(headers.get_all("www-authenticate"));
//! let mut digest = Digest::strongest(&found).expect("one is offered");
//! let answer = digest.authorize(&Credentials::new("joe", "sesame"), &http::Method::GET, "/path?query", None)?;
//! assert!(answer.value().to_str()?.starts_with("Digest username=\"joe\", realm=\"x\", uri=\"/path?query\""));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod session;

pub use portolan_core::kit::auth::{Algorithm, Challenge};
pub use session::{Authorization, Digest, challenges};
