//! Recording as HAR 1.2, which browsers and debuggers read, and answering out of such files.
//!
//! - **What works**: each exchange as it went out, redirects and the jar's cookies too; timings out of [`ConnectionInfo`], bodies if you ask
//!   for them, and with them the messages of WebSocket as Chrome has them; [`Replay`] of files of ours and of others.
//! - **What is not done**: pages, the cache's part, the sizes of heads (HTTP/2 and 3 have none that could be told); request bodies that
//!   pass as streams; what was tried again or challenged is told by its last attempt alone, and `Host` and what else an engine adds is
//!   left out; messages of WebSocket are not replayed.
//! - **Tested against**: mitmproxy, whose files are answered from; har-validator, which holds ours to the schema.
//! - **Security**: the values of `Authorization`, `Proxy-Authorization`, `Cookie` and `Set-Cookie`, and of all that is marked
//!   sensitive, are left out unless [`Dangerous::with_secrets`] was called; a password in a URL always is. Queries and bodies are
//!   written as they are: bodies only on request.
//!
//! ```
//! use portolan_http::Client;
//! use portolan_http::har::{HarOptions, Recorder, Replay};
//!
//! # use std::io::{Read, Write};
//! # let server = std::net::TcpListener::bind("127.0.0.1:0")?;
//! # let url = format!("http://{}/", server.local_addr()?);
//! # std::thread::spawn(move || {
//! #     let (mut stream, _) = server.accept().unwrap();
//! #     let mut head = Vec::new();
//! #     while !head.ends_with(b"\r\n\r\n") {
//! #         let mut byte = [0];
//! #         stream.read_exact(&mut byte).unwrap();
//! #         head.push(byte[0]);
//! #     }
//! #     stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nahoy").unwrap();
//! # });
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! // Once, with the server.
//! let recorder = Recorder::new(HarOptions::new().with_bodies(1 << 20));
//! let client = Client::builder().middleware(recorder.clone()).build()?;
//! assert_eq!(client.get(&url).send().await?.text().await?, "ahoy");
//! let file = recorder.take().to_json()?;
//!
//! // Ever after, without it: it answered once, and is gone.
//! let client = Client::builder().middleware(Replay::from_json(&file)?).build()?;
//! assert_eq!(client.get(&url).send().await?.text().await?, "ahoy");
//! # Ok::<(), portolan_core::Error>(()) })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`ConnectionInfo`]: portolan_core::ConnectionInfo

mod capture;
mod entry;
mod file;
mod layer;
mod message;
mod replay;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::Write;

use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, SET_COOKIE};
use portolan_core::{Error, Result};
use serde::Serialize;

pub use entry::{Entry, MessageData, Phases};
pub use layer::Recorder;
pub use replay::{Missing, NotRecorded, Replay};

/// A recording that goes on for ever keeps the newest.
const MAX_ENTRIES: usize = 10_000;
/// And no more of them than hold so many bytes of bodies.
const MAX_BYTES: usize = 256 << 20;

/// What is written of each exchange.
#[derive(Debug, Clone)]
pub struct HarOptions {
    pub(super) redacted: Vec<HeaderName>,
    pub(super) secrets: bool,
    pub(super) max_body: usize,
}

impl Default for HarOptions {
    fn default() -> Self {
        Self { redacted: vec![AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE, SET_COOKIE], secrets: false, max_body: 0 }
    }
}

impl HarOptions {
    /// No secrets, no bodies.
    pub fn new() -> Self {
        Self::default()
    }

    /// Leaves the values of this field out too.
    #[must_use]
    pub fn with_redacted(mut self, name: HeaderName) -> Self {
        self.redacted.push(name);
        self
    }

    /// Writes bodies of up to so many bytes each; longer ones are cut. Default 0: none. Bodies may hold secrets.
    #[must_use]
    pub fn with_bodies(mut self, max_bytes: usize) -> Self {
        self.max_body = max_bytes;
        self
    }

    /// What gives secrets away.
    #[must_use]
    pub fn dangerous(self) -> Dangerous {
        Dangerous(self)
    }
}

/// What gives secrets away.
#[derive(Debug)]
pub struct Dangerous(HarOptions);

impl Dangerous {
    /// Writes the values of all fields: whoever reads the file can act as you.
    #[must_use]
    pub fn with_secrets(mut self) -> HarOptions {
        self.0.secrets = true;
        self.0
    }
}

/// A recording.
#[derive(Debug, Default)]
pub struct Har {
    entries: VecDeque<Entry>,
    /// The bodies in them.
    bytes: usize,
}

#[derive(Serialize)]
struct File<'a> {
    log: Log<'a>,
}

#[derive(Serialize)]
struct Log<'a> {
    version: &'static str,
    creator: Creator,
    entries: &'a VecDeque<Entry>,
}

#[derive(Serialize)]
struct Creator {
    name: &'static str,
    version: &'static str,
}

impl Har {
    /// An empty recording.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an exchange. Beyond ten thousand, or 256 MiB of bodies, the oldest go.
    pub fn push(&mut self, entry: Entry) {
        self.bytes = self.bytes.saturating_add(entry.bytes());
        self.entries.push_back(entry);
        while self.entries.len() > MAX_ENTRIES || (self.bytes > MAX_BYTES && self.entries.len() > 1) {
            let Some(oldest) = self.entries.pop_front() else { return };
            self.bytes = self.bytes.saturating_sub(oldest.bytes());
        }
    }

    /// How many exchanges there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// The file as text.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(&self.file()).map_err(failed)
    }

    /// Writes the file.
    pub fn write_to(&self, writer: impl Write) -> Result<()> {
        serde_json::to_writer_pretty(writer, &self.file()).map_err(failed)
    }

    fn file(&self) -> File<'_> {
        File { log: Log { version: "1.2", creator: Self::creator(), entries: &self.entries } }
    }

    fn creator() -> Creator {
        Creator { name: "portolan", version: env!("CARGO_PKG_VERSION") }
    }
}

fn failed(error: serde_json::Error) -> Error {
    Error::usage("the recording can't be written").with_source(error)
}
