//! Character generator (RFC 864): characters without end.
//!
//! **Port and TLS**: 19, TCP and UDP; scheme `chargen://`; no TLS.
//!
//! **What works**: reading as many bytes as wanted and no more; checking them against the usual pattern; one datagram over UDP.
//!
//! **What is not done**: servers with a pattern of their own are read, but their data can't be checked.
//!
//! **Tested against** xinetd 2.3, TCP and UDP.
//!
//! **Security**: over UDP a small datagram brings a large answer: such servers are abused to flood others.
//!
//! ```no_run
//! # async fn run() -> portolan_core::Result<()> {
//! let mut chargen = portolan_classic::chargen::Client::open("chargen://127.0.0.1").await?;
//! let text = chargen.read(10_000).await?;
//! println!("{}", portolan_classic::chargen::is_usual(&text));
//! # Ok(())
//! # }
//! ```

#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)
)]

use bytes::{Bytes, BytesMut};
use portolan_core::{Error, Result};

use crate::conn::{Conn, options, read_some, simple_url, verbs};

/// The length of the usual line, without its end.
const LINE: usize = 72;
/// The first and last character of the pattern: the standard's, one without the space, and xinetd's, which leaves out both
/// ends.
const RINGS: [(u8, u8); 3] = [(b' ', b'~'), (b'!', b'~'), (b'!', b'}')];

options!("chargen", 19, max: 1 << 20, "The most that is read in one call, in bytes. Default 1 MiB.", transport);
simple_url!("chargen", true);

/// A connection to a character generator.
#[derive(Debug)]
pub struct Client {
    conn: Conn,
    options: Options,
}

verbs!();

impl Client {
    /// The next `n` bytes; over UDP, one datagram of at most `n` bytes. A server that closes earlier is an error. Dropping
    /// the future loses what it had read.
    pub async fn read(&mut self, n: usize) -> Result<Bytes> {
        let common = &self.options.common;
        if n > common.max {
            return Err(Error::usage(format!("{n} bytes wanted: at most {}", common.max)));
        }
        let probe = self.conn.probe(common);
        let Conn::Stream(stream) = &mut self.conn else {
            let mut bytes = self.conn.told(common).await?;
            bytes.truncate(n);
            return Ok(bytes);
        };
        let read = async {
            let mut buf = BytesMut::new();
            while buf.len() < n {
                if read_some(stream, &mut buf, n, common).await? == 0 {
                    let why = format!("ended after {} of {n} bytes", buf.len());
                    return Err(Error::closed(why).with_protocol("chargen"));
                }
            }
            Ok(buf.freeze())
        };
        probe.operation("read").run(read).await
    }

    /// Closes, which is how a server is told that it is enough.
    pub async fn close(self) -> Result<()> {
        self.conn.close(&self.options.common).await
    }
}

/// Whether `text` is a piece of the usual pattern from the start of a line: lines of 72 printable characters, each line
/// beginning with the character after the one that the line before began with (RFC 864, "Data Syntax").
pub fn is_usual(text: &[u8]) -> bool {
    RINGS.iter().any(|ring| follows(text, *ring))
}

fn follows(text: &[u8], ring: (u8, u8)) -> bool {
    let next = |byte: u8| if byte == ring.1 { ring.0 } else { byte.saturating_add(1) };
    let Some(mut first) = text.first().copied() else {
        return true;
    };
    for line in text.chunks(LINE.saturating_add(2)) {
        let (chars, end) = line.split_at_checked(LINE).unwrap_or((line, b""));
        // xinetd sometimes starts over.
        let mut expected = if chars.first() == Some(&ring.0) { ring.0 } else { first };
        first = next(expected);
        for &byte in chars {
            if byte != expected || byte < ring.0 || byte > ring.1 {
                return false;
            }
            expected = next(expected);
        }
        if !b"\r\n".starts_with(end) {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::telling;
    use portolan_core::Kind;

    fn usual(lines: usize, from: u8) -> Vec<u8> {
        let ring: Vec<u8> = (b' '..=b'~').collect();
        let line = |n: usize| {
            ring.iter().cycle().skip(usize::from(from).saturating_add(n) % 95).take(72).chain(b"\r\n").copied()
        };
        (0..lines).flat_map(|n| line(n).collect::<Vec<_>>()).collect()
    }

    #[test]
    fn the_usual_pattern_is_known_from_any_line_and_to_any_length() {
        let text = usual(200, 90);
        assert!(is_usual(&text) && is_usual(&text[..100]) && is_usual(&text[..73]) && is_usual(b""));
        // RFC 864's own first line.
        assert!(is_usual(br##"!"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\]^_`abcdefgh"##));
        for at in [0, 50, 72, 73, 74, 1000] {
            let mut broken = text.clone();
            broken[at] ^= 1;
            assert!(!is_usual(&broken), "{at}");
        }
    }

    #[tokio::test]
    async fn reading_stops_where_it_was_told_to() {
        let mut chargen = Client::from_stream(telling(&usual(100, 0)), Options::default().max_bytes(5000));
        assert_eq!(chargen.read(100).await.unwrap(), usual(2, 0)[..100]);
        assert_eq!(chargen.read(48).await.unwrap(), usual(2, 0)[100..148]);
        assert_eq!(chargen.read(5001).await.unwrap_err().kind(), Kind::Usage);
        assert_eq!(chargen.read(5000).await.unwrap().len(), 5000);
        assert_eq!(chargen.read(5000).await.unwrap_err().kind(), Kind::Closed);
    }
}
