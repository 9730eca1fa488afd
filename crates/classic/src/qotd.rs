//! Quote of the day (RFC 865): a short text.
//!
//! **Port and TLS**: 17, TCP and UDP; scheme `qotd://`; no TLS.
//!
//! **What works**: the text, over TCP and UDP.
//!
//! **What is not done**: nothing is left out.
//!
//! **Tested against** a quote served by xinetd 2.3, TCP.
//!
//! **Security**: a text for a terminal may hold control characters: show [`Text::printable`]. Over UDP such servers are
//! abused to flood others.
//!
//! ```no_run
//! # async fn run() -> portolan_core::Result<()> {
//! let quote = portolan_classic::qotd::Client::open("qotd://127.0.0.1").await?.read().await?;
//! println!("{}", quote.printable());
//! # Ok(())
//! # }
//! ```

use portolan_core::Result;

use crate::Text;
use crate::conn::{Conn, options, simple_url, verbs};

options!("qotd", 17, max: 65_536, "The longest text that is taken, in bytes. Default 64 KiB; the standard recommends 512.", transport);
simple_url!("qotd", true);

/// A connection to a server of quotes: good for one.
#[derive(Debug)]
pub struct Client {
    conn: Conn,
    options: Options,
}

verbs!();

impl Client {
    /// The quote; an empty one is one, too.
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
    use crate::testing::telling;
    use portolan_core::Kind;

    #[tokio::test]
    async fn a_quote_of_many_lines_comes_whole_and_one_without_end_is_cut_off() {
        let quote = b"\"Time flies\r\n like an arrow.\"\r\n";
        let text = Client::from_stream(telling(quote), Options::default()).read().await.unwrap();
        assert_eq!(text.lines().collect::<Vec<_>>(), [b"\"Time flies".as_slice(), b" like an arrow.\""]);
        let endless = vec![b'x'; 70_000];
        let error = Client::from_stream(telling(&endless), Options::default()).read().await.unwrap_err();
        assert_eq!(error.kind(), Kind::Limit);
    }
}
