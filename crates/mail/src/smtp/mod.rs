//! SMTP: handing mail on (RFC 5321), and submission (RFC 6409).
//!
//! **Port and TLS**: 25 with STARTTLS (`smtp://`), 587 with STARTTLS (`submission://`), 465 with TLS from the first byte (`smtps://`).
//!
//! **What works**: EHLO with HELO as fallback; STARTTLS, demanded by default; AUTH by every mechanism of `wire::sasl`; SIZE, 8BITMIME,
//! SMTPUTF8, PIPELINING, CHUNKING and DSN where the server offers them; a result for each recipient; messages as streams of any
//! length, dots stuffed right across every cut.
//!
//! **What is not done**: composing messages, BINARYMIME, a queue, looking up MX records.
//!
//! **Tested against** postfix 3.7 and a second server (see docs/REGISTRY.md).
//!
//! **Security**: without TLS nobody logs in unless told to; bytes that arrive before the handshake of STARTTLS are an error, and what
//! the server offered before it is forgotten; no address or name can hold a line end.
//!
//! ```no_run
//! # async fn run() -> portolan_core::Result<()> {
//! use portolan_mail::smtp::Client;
//!
//! let mut client = Client::open("submission://joe:secret@mail.example").await?;
//! let report = client.send("joe@example.org", ["ann@example.com"], b"Subject: hi\r\n\r\nHello.\r\n").await?;
//! assert!(report.refused.is_empty());
//! client.close().await?;
//! # Ok(())
//! # }
//! ```

mod client;
mod envelope;
mod extensions;
mod login;
mod options;
mod reply;

pub use client::{Client, Report};
pub use envelope::{Envelope, Notify, Return};
pub use extensions::Extensions;
pub use options::{Options, Security};
pub use reply::{Reply, SmtpCodec};

/// The port of servers that hand mail on to each other.
pub const PORT: u16 = 25;
/// The port at which users submit mail, with STARTTLS.
pub const SUBMISSION_PORT: u16 = 587;
/// The port at which users submit mail, with TLS from the first byte (RFC 8314).
pub const SMTPS_PORT: u16 = 465;

pub(crate) const PROTOCOL: &str = "smtp";

#[cfg(test)]
mod tests;
