//! Answers out of a file.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http_body_util::Full;
use portolan_core::{Error, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use super::file::{Exchange, plain};
use super::layer::record;
use super::{Entry, Har, HarOptions};
use crate::incoming::Incoming;
use crate::middleware::{Middleware, Next};
use crate::redirect::Redirect;
use crate::request::Request;
use crate::response::Response;

/// How much of a body is recorded, unless the options say so.
const MAX_BODY: usize = 1 << 20;

/// What becomes of a request that the file has no answer for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Missing {
    /// It fails, with [`NotRecorded`] as the error's reply.
    #[default]
    Fail,
    /// It is sent.
    PassThrough,
    /// It is sent, and its answer recorded: [`Replay::save`] writes it.
    Record,
}

/// The reply of the error of a request that the file has no answer for: `error.server::<NotRecorded>()`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotRecorded {
    /// Its method.
    pub method: String,
    /// Its URL, without user and password.
    pub url: String,
}

/// Answers requests out of a HAR file, ours or another's: a client without a server. Clones are the same replay.
///
/// An answer is that of the first exchange of the same method and URL which was not given yet; where the file tells what was sent, one that
/// was sent the same body goes first. Those of equal requests come in their order. Redirects in the file are followed as the client does,
/// cookies reach its jar.
///
/// ```no_run
/// # async fn run() -> portolan_core::Result<()> {
/// use portolan_http::Client;
/// use portolan_http::har::{Missing, Replay};
///
/// let replay = Replay::load("site.har")?.missing(Missing::Record);
/// let client = Client::builder().middleware(replay.clone()).build()?;
/// println!("{}", client.get("https://example.org/").send().await?.text().await?);
/// replay.save("site.har")?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Replay {
    missing: Missing,
    bodies: bool,
    repeats: bool,
    options: Arc<HarOptions>,
    tape: Arc<Mutex<Tape>>,
}

#[derive(Default)]
struct Tape {
    /// The file as it came.
    file: Value,
    exchanges: Vec<(Exchange, bool)>,
}

impl Replay {
    /// An empty one, to be recorded into.
    pub fn new() -> Self {
        let file = json!({"log": {"version": "1.2", "creator": Har::creator(), "entries": []}});
        let tape = Tape { file, exchanges: Vec::new() };
        let options = Arc::new(HarOptions::new().with_bodies(MAX_BODY));
        Self { missing: Missing::Fail, bodies: false, repeats: true, options, tape: Arc::new(Mutex::new(tape)) }
    }

    /// What a recorder of ours has.
    pub fn from_har(har: &Har) -> Result<Self> {
        Self::from_json(&har.to_json()?)
    }

    /// The text of a file. Byte order marks are overlooked, and so is whatever an answer can do without.
    pub fn from_json(text: &str) -> Result<Self> {
        let broken = |error: serde_json::Error| Error::usage(format!("no HAR: {error}")).with_source(error);
        let file: Value = serde_json::from_str(text.trim_start_matches('\u{feff}')).map_err(broken)?;
        let entries = file.pointer("/log/entries").and_then(Value::as_array);
        let entries = entries.ok_or_else(|| Error::usage("no HAR: it has no log.entries"))?;
        let exchange = |(n, entry): (usize, &Value)| {
            let wrong = |error| Error::usage(format!("entry {n} of the HAR: {error}"));
            Exchange::deserialize(entry).map(|exchange| (exchange, false)).map_err(wrong)
        };
        let exchanges = entries.iter().enumerate().map(exchange).collect::<Result<_>>()?;
        Ok(Self { tape: Arc::new(Mutex::new(Tape { file, exchanges })), ..Self::new() })
    }

    /// A file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let failed = |error| Error::usage(format!("{} can't be read", path.display())).with_source(error);
        Self::from_json(&std::fs::read_to_string(path).map_err(failed)?)
    }

    /// What becomes of a request that has no answer. Default: it fails.
    #[must_use]
    pub fn missing(mut self, missing: Missing) -> Self {
        self.missing = missing;
        self
    }

    /// Takes only exchanges that were sent the same body, where the file tells it. Default off: they are preferred.
    #[must_use]
    pub fn match_bodies(mut self, on: bool) -> Self {
        self.bodies = on;
        self
    }

    /// Whether the last of equal answers is given again when all were given. Default on.
    #[must_use]
    pub fn repeat_last(mut self, on: bool) -> Self {
        self.repeats = on;
        self
    }

    /// What is written of exchanges that are recorded. Default: no secrets, bodies up to 1 MiB.
    #[must_use]
    pub fn options(mut self, options: HarOptions) -> Self {
        self.options = Arc::new(options);
        self
    }

    /// How many exchanges were never asked for.
    pub fn unused(&self) -> usize {
        self.lock().exchanges.iter().filter(|(_, used)| !used).count()
    }

    /// The file, with what was recorded.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(&self.lock().file).map_err(super::failed)
    }

    /// Writes the file, with what was recorded.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let failed = |error| Error::usage(format!("{} can't be written", path.display())).with_source(error);
        std::fs::write(path, self.to_json()?).map_err(failed)
    }

    fn lock(&self) -> MutexGuard<'_, Tape> {
        self.tape.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next answer for this request.
    fn find(&self, request: &Request) -> Option<Exchange> {
        let (method, url) = (request.method().as_str(), plain(&request.uri().to_string()));
        let body = request.body().as_bytes();
        let mut tape = self.lock();
        let of_request: Vec<usize> = (0..tape.exchanges.len())
            .filter(|n| tape.exchanges.get(*n).is_some_and(|(exchange, _)| exchange.is_for(method, &url)))
            .collect();
        let sent = |n: &usize| Some(tape.exchanges.get(*n)?.0.sent(body?)).flatten();
        let same: Vec<usize> = of_request.iter().copied().filter(|n| sent(n) == Some(true)).collect();
        let told = of_request.iter().any(|n| sent(n).is_some());
        let candidates = if same.is_empty() && !(self.bodies && told) { of_request } else { same };
        let unused = candidates.iter().find(|n| tape.exchanges.get(**n).is_some_and(|(_, used)| !used));
        let at = unused.or(candidates.last().filter(|_| self.repeats)).copied()?;
        let (exchange, used) = tape.exchanges.get_mut(at)?;
        *used = true;
        Some(exchange.clone())
    }

    async fn record(&self, request: Request, next: Next<'_>) -> Result<Response> {
        let replay = self.clone();
        record(&self.options, request, next, move |entry| replay.push(&entry)).await
    }

    fn push(&self, entry: &Entry) {
        let Ok(entry) = serde_json::to_value(entry) else { return };
        let Ok(exchange) = Exchange::deserialize(&entry) else { return };
        // What failed is asked for anew.
        if exchange.is_failed() {
            return;
        }
        let mut tape = self.lock();
        if let Some(entries) = tape.file.pointer_mut("/log/entries").and_then(Value::as_array_mut) {
            entries.push(entry);
        }
        // It was asked for just now.
        tape.exchanges.push((exchange, true));
    }
}

impl Default for Replay {
    fn default() -> Self {
        Self::new()
    }
}

impl Middleware for Replay {
    async fn handle(&self, mut request: Request, next: Next<'_>) -> Result<Response> {
        let settings = next.client.settings();
        let own = request.options.more.as_ref().and_then(|more| more.redirect.clone());
        let redirect = own.unwrap_or_else(|| settings.redirect.clone());
        let mut visited = Vec::new();
        loop {
            let uri = request.uri().clone();
            let mut response = match (self.find(&request), self.missing) {
                (Some(exchange), _) => {
                    let response = answer(&exchange, uri.clone(), settings.max_body)?;
                    if let Some(cookies) = &settings.cookies {
                        cookies.set(&uri, response.headers());
                    }
                    response
                }
                (None, Missing::PassThrough) => return next.run(request).await,
                (None, Missing::Record) => match request.try_clone() {
                    // Where it leads to may be recorded already.
                    Some(mut once) => {
                        once.set_redirect(Redirect::none());
                        self.record(once, next).await?
                    }
                    None => return self.record(request, next).await,
                },
                (None, Missing::Fail) => return Err(not_recorded(&request)),
            };
            let (status, headers) = (response.status(), response.headers());
            let to = redirect.target(status, headers, &uri, &visited, settings.hsts.as_ref())?;
            let Some(to) = to.filter(|_| redirect.can_turn(&request, status)) else {
                response.meta_mut().redirects = visited;
                return Ok(response);
            };
            redirect.turn(&mut request, status, to, settings.referer)?;
            visited.push(uri);
        }
    }
}

/// As it would have come.
fn answer(exchange: &Exchange, uri: Uri, max_body: usize) -> Result<Response> {
    let mut response = Response::from_http(exchange.response()?.map(whole), uri);
    let meta = response.meta_mut();
    meta.max_body = max_body;
    let wait = exchange.timings.wait.and_then(|wait| Duration::try_from_secs_f64(wait / 1000.0).ok());
    meta.timings.first_byte = wait.unwrap_or_default();
    meta.timings.total = meta.timings.first_byte;
    Ok(response)
}

fn whole(body: Bytes) -> Incoming {
    Incoming::from_body(Full::new(body))
}

fn not_recorded(request: &Request) -> Error {
    let (method, url) = (request.method().to_string(), plain(&request.uri().to_string()));
    let message = format!("no answer is recorded for {method} {url}");
    Error::usage(message).with_protocol(crate::PROTOCOL).with_reply(NotRecorded { method, url })
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay").field("missing", &self.missing).field("unused", &self.unused()).finish_non_exhaustive()
    }
}
