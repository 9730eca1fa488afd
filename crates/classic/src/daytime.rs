//! Daytime (RFC 867): the date and the time as text for people.
//!
//! **Port and TLS**: 13, TCP and UDP; scheme `daytime://`; no TLS.
//!
//! **What works**: the text, over TCP and UDP.
//!
//! **What is not done**: the text is not parsed, for the standard leaves its form to the server; [`time`](crate::time) gives
//! a number.
//!
//! **Tested against** xinetd 2.3, TCP and UDP.
//!
//! **Security**: the answer can be forged; do not set a clock by it.
//!
//! ```no_run
//! # async fn run() -> portolan_core::Result<()> {
//! let now = portolan_classic::daytime::Client::open("daytime://127.0.0.1").await?.read().await?;
//! println!("{}", now.printable());
//! # Ok(())
//! # }
//! ```

use portolan_core::{Error, Result};

use crate::Text;
use crate::conn::{Conn, options, simple_url, verbs};

options!("daytime", 13, max: 4096, "The longest text that is taken, in bytes. Default 4096; most are one line.", transport);
simple_url!("daytime", true);

/// A connection to a daytime server: good for one answer.
#[derive(Debug)]
pub struct Client {
    conn: Conn,
    options: Options,
}

verbs!();

impl Client {
    /// What the server says. An empty answer is an error: there is always a time.
    pub async fn read(mut self) -> Result<Text> {
        let bytes = self.conn.told(&self.options.common).await?;
        if bytes.is_empty() {
            return Err(Error::closed("closed without an answer").with_protocol("daytime"));
        }
        Ok(bytes.into())
    }

    /// Closes without reading.
    pub async fn close(self) -> Result<()> {
        self.conn.close(&self.options.common).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Transport;
    use crate::testing::{answer_udp, pipe, telling, udp};
    use portolan_core::{Connector, Kind, Phase};

    #[tokio::test]
    async fn the_text_comes_as_it_is_and_within_its_limit() {
        let options = || Options::default().max_bytes(16);
        let text = Client::from_stream(telling(b"21 NOV 2026\xe9\r\n"), options()).read().await.unwrap();
        assert_eq!(text.as_bytes(), b"21 NOV 2026\xe9\r\n");
        for (told, kind) in [(b"0123456789abcdefg".as_slice(), Kind::Limit), (b"", Kind::Closed)] {
            let error = Client::from_stream(telling(told), options()).read().await.unwrap_err();
            assert_eq!(error.kind(), kind);
        }
        assert_eq!(
            Client::from_stream(telling(b"0123456789abcdef"), options()).read().await.unwrap().as_bytes().len(),
            16
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_meets_the_deadline() {
        let (stream, _theirs) = pipe();
        let error = Client::from_stream(stream, Options::default()).read().await.unwrap_err();
        assert!(error.is_timeout() && error.phase() == Some(Phase::FirstByte));
    }

    #[tokio::test]
    async fn a_datagram_is_asked_for_with_an_empty_one() {
        let (peer, to) = udp();
        let client = Client::connect(&Connector::default(), Options::new(to).transport(Transport::Udp)).await.unwrap();
        let (text, asked) = tokio::join!(client.read(), answer_udp(&peer, &[b"now\n"]));
        assert_eq!((text.unwrap().lossy().as_ref(), asked.len()), ("now\n", 0));
    }

    #[test]
    fn urls_say_it_all_or_are_refused() {
        assert_eq!(Options::from_url("daytime://h").unwrap().common.endpoint.unwrap().port(), 13);
        assert_eq!(Options::from_url("daytime://h:1?transport=udp").unwrap().common.transport, Transport::Udp);
        for bad in ["echo://h", "daytime://h/x", "daytime://u@h", "daytime://h?transport=tls", "daytime://h?x=1"] {
            assert_eq!(Options::from_url(bad).unwrap_err().kind(), Kind::Usage, "{bad}");
        }
    }
}
