//! Discard (RFC 863): what is sent is thrown away.
//!
//! **Port and TLS**: 9, TCP and UDP; scheme `discard://`; no TLS.
//!
//! **What works**: sending over TCP and UDP; over TCP the close tells that the server has taken it all.
//!
//! **What is not done**: over UDP nobody knows whether anything arrived.
//!
//! **Tested against** xinetd 2.3, TCP and UDP.
//!
//! **Security**: everything can be read on the way.
//!
//! ```no_run
//! # async fn run() -> portolan_core::Result<()> {
//! let mut discard = portolan_classic::discard::Client::open("discard://127.0.0.1").await?;
//! discard.send(b"into the void").await?;
//! discard.close().await
//! # }
//! ```

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use bytes::BytesMut;
use portolan_core::{Error, Phase, Result, clock};
use tokio::io::AsyncWriteExt;

use crate::conn::{Conn, options, read_some, send_datagram, simple_url, verbs, write_all};

options!("discard", 9, max: 1 << 20, "The most that is sent in one call, in bytes. Default 1 MiB.", transport);
simple_url!("discard", true);

/// A connection to a discard server.
#[derive(Debug)]
pub struct Client {
    conn: Conn,
    options: Options,
}

verbs!();

impl Client {
    /// Sends `data`. Dropping the future may leave part of it sent.
    pub async fn send(&mut self, data: &[u8]) -> Result<()> {
        let common = &self.options.common;
        if data.len() > common.max {
            return Err(Error::usage(format!("{} bytes to send: at most {}", data.len(), common.max)));
        }
        let probe = self.conn.probe(common);
        let send = async {
            match &mut self.conn {
                Conn::Stream(stream) => write_all(stream, data, common).await,
                Conn::Datagram(datagram) => send_datagram(datagram, data, common).await,
            }
        };
        probe.operation("send").run(send).await
    }

    /// Says that no more will come, and waits until the server has taken everything and closes too. A server that says
    /// anything is not one of these.
    pub async fn close(self) -> Result<()> {
        let common = &self.options.common;
        let Conn::Stream(mut stream) = self.conn else {
            return Ok(());
        };
        let shutdown = async { stream.shutdown().await.map_err(|error| Error::io(Phase::Close, error)) };
        clock::within(common.wait, Phase::Close, shutdown).await.map_err(|error| error.with_protocol("discard"))?;
        match read_some(&mut stream, &mut BytesMut::new(), 1, common).await? {
            0 => Ok(()),
            _ => Err(Error::protocol("discard", "expected silence, saw an answer")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{pipe, telling};
    use portolan_core::Kind;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn close_waits_until_the_server_has_it_all() {
        let (stream, mut theirs) = pipe();
        let mut discard = Client::from_stream(stream, Options::default());
        let serve = async move {
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).await.unwrap();
            all.len()
        };
        let send = async {
            discard.send(&[7; 10_000]).await.unwrap();
            discard.close().await.unwrap();
        };
        assert_eq!(tokio::join!(send, serve).1, 10_000);
    }

    #[tokio::test]
    async fn an_answer_is_a_breach() {
        let error = Client::from_stream(telling(b"hi"), Options::default()).close().await.unwrap_err();
        assert_eq!(error.kind(), Kind::Protocol);
        let too_long = Client::from_stream(telling(b""), Options::default().max_bytes(2)).send(b"abc").await;
        assert_eq!(too_long.unwrap_err().kind(), Kind::Usage);
    }
}
