//! Echo (RFC 862): what is sent comes back.
//!
//! **Port and TLS**: 7, TCP and UDP; scheme `echo://`; no TLS.
//!
//! **What works**: data of any length there and back, compared byte for byte; the time it took; TCP and UDP.
//!
//! **What is not done**: the time over UDP counts from the first of several datagrams, if some got lost.
//!
//! **Tested against** xinetd 2.3, TCP and UDP.
//!
//! **Security**: everything can be read and changed on the way; a UDP echo service can be abused to reflect, so servers
//! should not face the Internet.
//!
//! ```no_run
//! # async fn run() -> portolan_core::Result<()> {
//! let mut echo = portolan_classic::echo::Client::open("echo://127.0.0.1").await?;
//! println!("there and back in {:?}", echo.exchange(b"hello").await?);
//! # Ok(())
//! # }
//! ```

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use std::time::Duration;

use portolan_core::{Datagram, Error, Phase, Result, Stream, clock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::conn::{Common, Conn, ask_datagram, options, simple_url};

options!("echo", 7, max: 1 << 20, "The most that is sent in one exchange, in bytes. Default 1 MiB.", transport);
simple_url!("echo", true);

/// A connection to an echo server.
#[derive(Debug)]
pub struct Client {
    conn: Conn,
    options: Options,
    /// Set while an exchange is under way: if its future was dropped, what comes next can't be told from its echo.
    dirty: bool,
}

impl Client {
    /// Connects. Dropping the future closes what was opened.
    pub async fn connect(net: &portolan_core::Connector, options: Options) -> Result<Self> {
        Ok(Self { conn: Conn::open(net, &options.common).await?, options, dirty: false })
    }

    /// Connects directly to the server of the URL.
    pub async fn open(url: &str) -> Result<Self> {
        Self::connect(&portolan_core::Connector::default(), Options::from_url(url)?).await
    }

    /// A client on a stream that is there already.
    pub fn from_stream(stream: Stream, options: Options) -> Self {
        Self { conn: Conn::from_stream(stream), options, dirty: false }
    }

    /// What is known about the connection.
    pub fn info(&self) -> &portolan_core::ConnectionInfo {
        self.conn.info()
    }

    /// Sends `data`, waits until all of it has come back unchanged, and says how long that took. Dropping the future leaves
    /// a stream that can't be used again.
    pub async fn exchange(&mut self, data: &[u8]) -> Result<Duration> {
        self.conn.probe(&self.options.common).operation("exchange").run(self.there_and_back(data)).await
    }

    async fn there_and_back(&mut self, data: &[u8]) -> Result<Duration> {
        let common = &self.options.common;
        if data.len() > common.max {
            return Err(Error::usage(format!("{} bytes to echo: at most {}", data.len(), common.max)));
        }
        let started = clock::now();
        match &mut self.conn {
            Conn::Stream(_) if self.dirty => {
                let error = Error::closed("an earlier exchange on this stream failed or was given up");
                return Err(error.with_delivery(portolan_core::Delivery::NotSent).with_protocol("echo"));
            }
            Conn::Stream(stream) => {
                self.dirty = true;
                over_stream(stream, data, common).await?;
                self.dirty = false;
            }
            Conn::Datagram(datagram) => over_datagram(datagram, data, common).await?,
        }
        Ok(clock::now().saturating_duration_since(started))
    }

    /// Closes.
    pub async fn close(self) -> Result<()> {
        self.conn.close(&self.options.common).await
    }
}

/// Writes and reads at once: a server that echoes while it reads would otherwise wait for us, and we for it.
async fn over_stream(stream: &mut Stream, data: &[u8], options: &Common) -> Result<()> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let write = async {
        for chunk in data.chunks(4096) {
            let write = async { writer.write_all(chunk).await.map_err(|error| Error::io(Phase::Send, error)) };
            clock::within(options.wait, Phase::Send, write).await?;
        }
        let flush = async { writer.flush().await.map_err(|error| Error::io(Phase::Send, error)) };
        clock::within(options.wait, Phase::Send, flush).await
    };
    let read = async {
        let mut rest = data;
        let mut buf = vec![0; 4096];
        while !rest.is_empty() {
            let room = buf.get_mut(..rest.len().min(4096)).unwrap_or_default();
            let read = async { reader.read(room).await.map_err(|error| Error::io(Phase::FirstByte, error)) };
            let n = clock::within(options.wait, Phase::FirstByte, read).await?;
            let (Some(came), Some((sent, left))) = (buf.get(..n), rest.split_at_checked(n)) else {
                return Err(Error::protocol("echo", "more than was sent"));
            };
            if n == 0 {
                return Err(Error::closed(format!("closed with {} bytes still to come back", rest.len())));
            }
            if came != sent {
                return Err(Error::protocol("echo", "what came back is not what was sent"));
            }
            rest = left;
        }
        Ok(())
    };
    // Reading ends the exchange; a write that fails does, too.
    let both = async {
        tokio::pin!(write, read);
        tokio::select! {
            written = &mut write => { written?; read.await }
            came = &mut read => came,
        }
    };
    both.await.map_err(|error| error.with_protocol("echo"))
}

async fn over_datagram(datagram: &Datagram, data: &[u8], options: &Common) -> Result<()> {
    let mut buf = vec![0; data.len().saturating_add(1)];
    // The echo of an earlier exchange may still be under way: only our own data counts.
    ask_datagram(datagram, data, &mut buf, options, |answer| answer == data).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Transport;
    use crate::testing::{answer_udp, pipe, udp};
    use portolan_core::{Connector, Kind};

    #[tokio::test]
    async fn data_larger_than_all_buffers_comes_back() {
        let (stream, theirs) = pipe();
        let server = tokio::spawn(async move {
            let (mut r, mut w) = tokio::io::split(theirs);
            tokio::io::copy(&mut r, &mut w).await
        });
        let mut echo = Client::from_stream(stream, Options::default());
        let data: Vec<u8> = (0..100_000u32).flat_map(u32::to_be_bytes).collect();
        echo.exchange(&data).await.unwrap();
        echo.exchange(b"").await.unwrap();
        echo.exchange(b"again").await.unwrap();
        echo.close().await.unwrap();
        server.await.unwrap().unwrap();
        let (stream, _theirs) = pipe();
        let error = Client::from_stream(stream, Options::default().max_bytes(1)).exchange(b"two").await.unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
    }

    #[tokio::test]
    async fn changed_or_missing_bytes_are_told_and_end_the_stream() {
        for (answer, kind) in [(b"hellO".as_slice(), Kind::Protocol), (b"hel", Kind::Closed)] {
            let (stream, mut theirs) = pipe();
            let mut echo = Client::from_stream(stream, Options::default());
            let serve = async move {
                theirs.read_exact(&mut [0; 5]).await.unwrap();
                theirs.write_all(answer).await.unwrap();
            };
            let (error, ()) = tokio::join!(echo.exchange(b"hello"), serve);
            assert_eq!(error.unwrap_err().kind(), kind);
            assert!(echo.exchange(b"x").await.unwrap_err().is_closed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_meets_the_deadline() {
        let (stream, _theirs) = pipe();
        let error = Client::from_stream(stream, Options::default()).exchange(b"hello").await.unwrap_err();
        assert!(error.is_timeout() && error.phase() == Some(Phase::FirstByte));
    }

    #[tokio::test]
    async fn a_lost_datagram_is_sent_again() {
        let (peer, to) = udp();
        let mut echo =
            Client::connect(&Connector::default(), Options::new(to).transport(Transport::Udp)).await.unwrap();
        let server = async {
            assert_eq!(answer_udp(&peer, &[]).await, b"again");
            answer_udp(&peer, &[b"again"]).await
        };
        let (took, _) = tokio::join!(echo.exchange(b"again"), server);
        assert!(took.unwrap() >= Duration::from_millis(250));
    }

    #[tokio::test]
    async fn an_echo_of_something_else_is_not_taken_for_ours() {
        let (peer, to) = udp();
        let options = Options::new(to).transport(Transport::Udp);
        let mut echo = Client::connect(&Connector::default(), options).await.unwrap();
        let (took, _) = tokio::join!(echo.exchange(b"mine"), answer_udp(&peer, &[b"theirs", b"mine2", b"", b"mine"]));
        took.unwrap();
    }
}
