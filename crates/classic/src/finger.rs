//! Finger (RFC 1288): who somebody is, and who is there.
//!
//! **Port and TLS**: 79, TCP; scheme `finger://`; no TLS.
//!
//! **What works**: one user, all users, the long form (`/W`), forwarding to further hosts (`user@host`); text as bytes.
//!
//! **What is not done**: the answer is not parsed, for the standard leaves its form to the server.
//!
//! **Tested against** in.fingerd 0.17, started by xinetd 2.3.
//!
//! **Security**: everything can be read on the way, and the answer is text that others wrote: show [`Text::printable`]
//! (RFC 1288 3.3). Forwarding is done by the server: the address policy sees the server alone.
//!
//! ```no_run
//! use portolan_classic::finger::{Client, Query};
//!
//! # async fn run() -> portolan_core::Result<()> {
//! let finger = Client::open("finger://127.0.0.1").await?;
//! println!("{}", finger.query(&Query::user("joe")?.long(true)).await?.printable());
//! # Ok(())
//! # }
//! ```

use portolan_core::observe::{Probe, Semantics};
use portolan_core::{Endpoint, Error, Result, Url};
use portolan_wire::Token;

use crate::Text;
use crate::conn::{Conn, options, read_to_close, verbs, write_all};

/// The longest query: longer than any name, short enough for the buffers of old servers.
const MAX_QUERY: usize = 512;

options!("finger", 79, max: 1 << 20, "The longest answer that is taken, in bytes. Default 1 MiB.");

impl Options {
    /// `finger://host[:port]`. A user in the path is a matter of [`Query::from_url`].
    pub fn from_url(url: &str) -> Result<Self> {
        let url = Url::parse(url)?;
        if url.scheme() != "finger" || url.user().is_some() || url.query().is_some() {
            return Err(Error::usage("finger://host[:port][/user] is expected"));
        }
        Ok(Self::new(url.endpoint(DEFAULT_PORT)?))
    }
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Query {
    user: String,
    hosts: Vec<String>,
    long: bool,
}

impl Query {
    /// About everybody who is there.
    pub fn all() -> Self {
        Self::default()
    }

    /// About one user, or whatever the server makes of the name. A space, a control character or an `@` is refused; so is
    /// a leading slash, which would be taken for a switch.
    pub fn user(user: &str) -> Result<Self> {
        let user = Token::within("user", user, MAX_QUERY)?.as_str();
        if user.contains('@') || user.starts_with('/') {
            return Err(Error::usage("user holds an @ (use at) or begins with a slash"));
        }
        Ok(Self { user: user.to_owned(), ..Self::default() })
    }

    /// The user named by the path of a URL: `finger://host/user`, everybody where there is none.
    pub fn from_url(url: &str) -> Result<Self> {
        let url = Url::parse(url)?;
        match portolan_core::percent_decode(url.path().trim_start_matches('/'))?.as_str() {
            "" => Ok(Self::all()),
            user => Self::user(user),
        }
    }

    /// Lets the server ask `host` instead of answering itself (RFC 1288 2.3, query type Q2); repeat for a chain, the
    /// nearest last, as in `user@far@near`. Most servers refuse.
    pub fn at(mut self, host: &str) -> Result<Self> {
        // The endpoint's rules for names: no @, no space, no control character.
        self.hosts.push(Endpoint::new(host, DEFAULT_PORT)?.host_text().into_owned());
        Ok(self)
    }

    /// Asks for the long form.
    #[must_use]
    pub fn long(mut self, on: bool) -> Self {
        self.long = on;
        self
    }

    /// The line as it is sent (RFC 1288 2.3).
    fn line(&self) -> Result<String> {
        let switch = if self.long { "/W" } else { "" };
        let space = if self.long && !(self.user.is_empty() && self.hosts.is_empty()) { " " } else { "" };
        let hosts: String = self.hosts.iter().map(|host| format!("@{host}")).collect();
        let line = format!("{switch}{space}{}{hosts}\r\n", self.user);
        if line.len() > MAX_QUERY {
            return Err(Error::usage(format!("query of {} bytes: at most {MAX_QUERY}", line.len())));
        }
        Ok(line)
    }
}

/// A connection to a finger server: good for one query.
#[derive(Debug)]
pub struct Client {
    conn: Conn,
    options: Options,
}

verbs!();

impl Client {
    /// Asks, and reads until the server closes. Dropping the future closes the connection.
    pub async fn query(mut self, query: &Query) -> Result<Text> {
        let line = query.line()?;
        let Conn::Stream(stream) = &mut self.conn else {
            return Err(Error::usage("finger has no datagrams"));
        };
        let probe = Probe::on("finger", Semantics::Plain, stream);
        let work = async {
            write_all(stream, line.as_bytes(), &self.options.common).await?;
            read_to_close(stream, &self.options.common).await
        };
        Ok(probe.operation("query").run(work).await?.into())
    }

    /// Closes without asking.
    pub async fn close(self) -> Result<()> {
        self.conn.close(&self.options.common).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::answering;
    use portolan_core::Kind;

    #[tokio::test]
    async fn queries_are_those_of_the_standard() {
        let joe = || Query::user("joe").unwrap();
        let table = [
            (Query::all(), "\r\n"),
            (Query::all().long(true), "/W\r\n"),
            (joe(), "joe\r\n"),
            (joe().long(true), "/W joe\r\n"),
            (joe().at("far.example").unwrap().at("near.example").unwrap(), "joe@far.example@near.example\r\n"),
            (Query::all().at("h").unwrap().long(true), "/W @h\r\n"),
            (Query::from_url("finger://h/joe").unwrap(), "joe\r\n"),
            (Query::from_url("finger://h").unwrap(), "\r\n"),
        ];
        for (query, line) in table {
            let (stream, heard) = answering(b"Login: joe\xff\r\n");
            let text = Client::from_stream(stream, Options::default()).query(&query).await.unwrap();
            assert_eq!(text.as_bytes(), b"Login: joe\xff\r\n");
            assert_eq!(String::from_utf8(heard.await.unwrap()).unwrap(), line);
        }
    }

    #[test]
    fn a_query_can_hold_no_second_one() {
        let long = "x".repeat(513);
        for bad in ["", "a\r\nb", "a\nb", "a\0", "a b", "/W", "a@b", &long] {
            assert_eq!(Query::user(bad).unwrap_err().kind(), Kind::Usage, "{bad:?}");
        }
        for bad in ["", "a\r\nb", "a b", "a@b"] {
            assert_eq!(Query::all().at(bad).unwrap_err().kind(), Kind::Usage, "{bad:?}");
        }
        assert_eq!(Query::from_url("finger://h/a%0d%0ab").unwrap_err().kind(), Kind::Usage);
        for bad in ["http://h", "finger://u@h", "finger://h?x=y"] {
            assert_eq!(Options::from_url(bad).unwrap_err().kind(), Kind::Usage, "{bad}");
        }
    }

    #[tokio::test]
    async fn an_answer_without_end_is_cut_off() {
        let (stream, _heard) = answering(&[b'x'; 5000]);
        let error =
            Client::from_stream(stream, Options::default().max_bytes(4999)).query(&Query::all()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Limit);
    }
}
