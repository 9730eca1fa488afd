//! What a server says it can do, in answer to EHLO (RFC 5321 4.1.1.1).

use super::reply::Reply;

/// The extensions of one server, read anew after STARTTLS.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Extensions {
    /// How the server calls itself.
    pub greeting: String,
    /// Whether it answered EHLO, and not only HELO.
    pub esmtp: bool,
    /// TLS in mid-stream (RFC 3207).
    pub starttls: bool,
    /// The mechanisms of AUTH (RFC 4954), in capitals.
    pub auth: Vec<String>,
    /// SIZE (RFC 1870): the largest message, 0 where no limit is said.
    pub size: Option<u64>,
    /// 8BITMIME (RFC 6152).
    pub eight_bit: bool,
    /// SMTPUTF8 (RFC 6531).
    pub utf8: bool,
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// CHUNKING (RFC 3030).
    pub chunking: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// All lines as they came, those above among them.
    pub lines: Vec<String>,
}

impl Extensions {
    pub(crate) fn parse(reply: &Reply, esmtp: bool) -> Self {
        let mut lines = reply.lines.iter();
        let greeting = lines.next().cloned().unwrap_or_default();
        let mut found = Self { greeting, esmtp, lines: lines.clone().cloned().collect(), ..Self::default() };
        for line in lines {
            // Old servers write AUTH=LOGIN as well.
            let (keyword, rest) = line.split_once([' ', '=']).unwrap_or((line, ""));
            match keyword.to_ascii_uppercase().as_str() {
                "STARTTLS" => found.starttls = true,
                "AUTH" => found.add_mechanisms(rest),
                "SIZE" => found.size = Some(rest.trim().parse().unwrap_or(0)),
                "8BITMIME" => found.eight_bit = true,
                "SMTPUTF8" => found.utf8 = true,
                "PIPELINING" => found.pipelining = true,
                "CHUNKING" => found.chunking = true,
                "DSN" => found.dsn = true,
                _ => {}
            }
        }
        found
    }

    fn add_mechanisms(&mut self, text: &str) {
        for mechanism in text.split_ascii_whitespace().map(str::to_ascii_uppercase) {
            if !self.auth.contains(&mechanism) {
                self.auth.push(mechanism);
            }
        }
    }
}
