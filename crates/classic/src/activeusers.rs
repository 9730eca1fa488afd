//! Active users (RFC 866), also called systat: who is logged in.
//!
//! **Port and TLS**: 11, TCP and UDP; scheme `activeusers://`; no TLS.
//!
//! **What works**: the text and its lines, over TCP and UDP.
//!
//! **What is not done**: over UDP a long list comes in several datagrams, without a mark of its end: the first alone is taken.
//!
//! **Tested against** `ps` served by xinetd 2.3, TCP.
//!
//! **Security**: the list may hold control characters: show [`Text::printable`].
//!
//! ```no_run
//! # async fn run() -> portolan_core::Result<()> {
//! let users = portolan_classic::activeusers::Client::open("activeusers://127.0.0.1").await?.read().await?;
//! println!("{} lines", users.lines().count());
//! # Ok(())
//! # }
//! ```

use portolan_core::Result;

use crate::Text;
use crate::conn::{Conn, options, simple_url, verbs};

options!("activeusers", 11, max: 1 << 20, "The longest list that is taken, in bytes. Default 1 MiB.", transport);
simple_url!("activeusers", true);

/// A connection to a server of users: good for one list.
#[derive(Debug)]
pub struct Client {
    conn: Conn,
    options: Options,
}

verbs!();

impl Client {
    /// The list; the standard leaves the form of its lines to the server.
    pub async fn read(mut self) -> Result<Text> {
        Ok(self.conn.told(&self.options.common).await?.into())
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
    use crate::testing::{answer_udp, telling, udp};
    use portolan_core::{Connector, Kind};

    #[tokio::test]
    async fn nobody_is_a_list_too() {
        let none = Client::from_stream(telling(b""), Options::default()).read().await.unwrap();
        assert_eq!(none.lines().count(), 0);
        let two = Client::from_stream(telling(b"joe\r\nann\r\n"), Options::default()).read().await.unwrap();
        assert_eq!(two.lines().collect::<Vec<_>>(), [b"joe", b"ann"]);
    }

    #[tokio::test]
    async fn a_datagram_beyond_the_limit_is_refused() {
        let (peer, to) = udp();
        let options = Options::new(to).transport(Transport::Udp).max_bytes(3);
        let client = Client::connect(&Connector::default(), options).await.unwrap();
        let (error, _) = tokio::join!(client.read(), answer_udp(&peer, &[b"four"]));
        assert_eq!(error.unwrap_err().kind(), Kind::Limit);
    }
}
