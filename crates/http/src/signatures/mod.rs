//! HTTP Message Signatures (RFC 9421; feature `signatures`): requests are signed as they go out, responses verified as they come.
//!
//! - **What works**: every derived component, fields with `sf`, `key`, `bs`, `tr` and `req`; `created`, `expires`, `nonce`, `alg`, `keyid`,
//!   `tag`; the six algorithms; several signatures on one message; `Content-Digest` (RFC 9530) made, signed and checked as the body is read.
//!   Responses are verified with the request as it was sent, beneath decompression, redirects and the cache.
//! - **What is not done**: `Accept-Signature`; signing a body that can be had once only (its digest would come too late); trailers in
//!   responses that the client verifies by itself (verify a [`Message`] with its trailers by hand).
//! - **Tested against**: the signatures of RFC 9421 B.2 to B.4, and `http-message-signatures` of Python in both directions.
//! - **Security**: a key has one algorithm, and the message's `alg` can only agree with it. Nothing is signed twice, nothing that is no plain
//!   text. A verifier says what must be signed: without [`require`](Verifier::require) a good signature may be over nothing.
//!
//! ```no_run
//! # async fn run(key: &str, theirs: &str) -> portolan_core::Result<()> {
//! use std::time::Duration;
//! use portolan_http::Client;
//! use portolan_http::signatures::{Algorithm, Component, MessageSigner, SigningKey, Verifier, VerifyingKey};
//!
//! let verifier = Verifier::new(VerifyingKey::from_pem(Algorithm::EcdsaP256Sha256, theirs)?)
//!     .require("@status")
//!     .require("content-digest")
//!     .require(Component::from("signature").key("sig1").req())
//!     .max_age(Duration::from_secs(300));
//! let signer = MessageSigner::new(SigningKey::from_pem(Algorithm::Ed25519, key)?.id("my-key"))
//!     .cover_if_present("authorization")
//!     .nonce(true)
//!     .verify_responses(verifier);
//! let client = Client::builder().sign(signer).build()?;
//! let answer = client.post("https://api.example/payments").body("{}").send().await?.text().await?;
//! # Ok(()) }
//! ```

mod base;
mod key;
mod signer;
#[cfg(test)]
mod tests;
mod verifier;

use http::HeaderName;

pub use base::{Component, Message};
pub use key::{Algorithm, SigningKey, VerifyingKey};
pub use signer::MessageSigner;
pub use verifier::{Verified, Verifier};

const INPUT: HeaderName = HeaderName::from_static("signature-input");
const SIGNATURE: HeaderName = HeaderName::from_static("signature");
