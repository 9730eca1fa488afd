//! What writes calls down.

use std::fmt;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use http::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHORIZATION, SET_COOKIE};
use portolan_core::clock;

use super::entry::{Entry, Event, Logger, Message, Pair, Pairs, Payload};
use super::log::Log;
use crate::details::Span;
use crate::metadata::{decode_base64, is_bin, is_reserved};

/// What stands for a value that is left out.
const REDACTED: &[u8] = b"***";

/// What is written of each call.
#[derive(Debug, Clone)]
#[must_use]
pub struct Options {
    redacted: Vec<HeaderName>,
    secrets: bool,
    max_metadata: usize,
    max_message: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            redacted: vec![AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE, SET_COOKIE],
            secrets: false,
            max_metadata: usize::MAX,
            max_message: 0,
        }
    }
}

impl Options {
    /// No secrets, no messages.
    pub fn new() -> Self {
        Self::default()
    }

    /// Leaves the values of this name out too.
    pub fn with_redacted(mut self, name: HeaderName) -> Self {
        self.redacted.push(name);
        self
    }

    /// Writes messages of up to so many bytes each; longer ones are cut. Default 0: how long they were alone. Messages may hold secrets.
    pub fn with_messages(mut self, max_bytes: usize) -> Self {
        self.max_message = max_bytes;
        self
    }

    /// Writes metadata whose values have up to so many bytes in all; what comes after is left out. Default all.
    pub fn with_metadata(mut self, max_bytes: usize) -> Self {
        self.max_metadata = max_bytes;
        self
    }

    /// What gives secrets away.
    #[must_use]
    pub fn dangerous(self) -> Dangerous {
        Dangerous(self)
    }

    pub(super) fn max_message(&self) -> usize {
        self.max_message
    }

    fn value(&self, name: &HeaderName, value: &HeaderValue) -> Vec<u8> {
        if !self.secrets && (value.is_sensitive() || self.redacted.contains(name)) {
            return REDACTED.to_vec();
        }
        if is_bin(name.as_str()) {
            // What is no base64 is kept as it came.
            return decode_base64(value.as_bytes()).map_or_else(|_| value.as_bytes().to_vec(), Into::into);
        }
        value.as_bytes().to_vec()
    }

    /// Metadata without what belongs to the protocol, and whether some was left out for its length.
    pub(super) fn pairs(&self, headers: &HeaderMap) -> (Pairs, bool) {
        let (mut entry, mut room) = (Vec::new(), self.max_metadata);
        for (name, value) in headers {
            if is_reserved(name.as_str()) && name.as_str() != "grpc-trace-bin" {
                continue;
            }
            let pair = Pair { key: name.as_str().to_owned(), value: self.value(name, value) };
            let Some(left) = room.checked_sub(pair.value.len()) else { return (Pairs { entry }, true) };
            room = left;
            entry.push(pair);
        }
        (Pairs { entry }, false)
    }
}

/// What gives secrets away.
#[derive(Debug)]
pub struct Dangerous(Options);

impl Dangerous {
    /// Writes the values of all metadata: whoever reads the log can act as you.
    pub fn with_secrets(mut self) -> Options {
        self.0.secrets = true;
        self.0
    }
}

/// Writes down the calls of clients that were told so: [`Client::record`](crate::Client::record). Clones write to one log.
#[derive(Clone)]
pub struct Recorder {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    calls: AtomicU64,
    /// Where no other place was said.
    log: Mutex<Log>,
    sink: Option<Mutex<Sink>>,
}

type Sink = Box<dyn FnMut(&Entry) + Send>;

impl Recorder {
    /// Keeps the newest 10,000 events in memory, or 256 MiB of them: [`take`](Self::take) gives them.
    pub fn new(options: Options) -> Self {
        Self::build(options, None)
    }

    /// Gives each event to a function, one after the other. Calls wait for it.
    pub fn to_fn(options: Options, sink: impl FnMut(&Entry) + Send + 'static) -> Self {
        Self::build(options, Some(Mutex::new(Box::new(sink))))
    }

    /// Writes each event to a file that is open, or whatever else can be written to. Calls wait for it: put a buffer between where that is
    /// slow. After the first failure nothing more is written; no call fails for it.
    pub fn to_writer(options: Options, mut writer: impl Write + Send + 'static) -> Self {
        let mut failed = false;
        Self::to_fn(options, move |entry| {
            if failed {
                return;
            }
            if let Err(error) = writer.write_all(&entry.framed()).and_then(|()| writer.flush()) {
                failed = true;
                tracing::warn!(%error, "calls are no longer recorded");
            }
        })
    }

    fn build(options: Options, sink: Option<Mutex<Sink>>) -> Self {
        Self { inner: Arc::new(Inner { options, calls: AtomicU64::new(0), log: Mutex::default(), sink }) }
    }

    /// What was recorded so far; recording begins anew. Empty where events go elsewhere.
    pub fn take(&self) -> Log {
        std::mem::take(&mut self.inner.log.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn options(&self) -> &Options {
        &self.inner.options
    }

    pub(super) fn call(&self) -> CallLog {
        let id = self.inner.calls.fetch_add(1, Ordering::Relaxed) + 1;
        CallLog { recorder: self.clone(), id, events: AtomicU64::new(0), over: AtomicBool::new(false) }
    }

    fn write(&self, entry: Entry) {
        match &self.inner.sink {
            None => self.inner.log.lock().unwrap_or_else(PoisonError::into_inner).push(entry),
            Some(sink) => sink.lock().unwrap_or_else(PoisonError::into_inner)(&entry),
        }
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

/// One call.
pub(super) struct CallLog {
    recorder: Recorder,
    id: u64,
    events: AtomicU64,
    over: AtomicBool,
}

impl CallLog {
    pub(super) fn options(&self) -> &Options {
        self.recorder.options()
    }

    /// Writes an event, unless the call is over.
    pub(super) fn event(&self, event: Event, payload: Option<Payload>, truncated: bool) {
        let last = matches!(event, Event::ServerTrailer | Event::Cancel);
        let over = if last { self.over.swap(true, Ordering::Relaxed) } else { self.over.load(Ordering::Relaxed) };
        if over {
            return;
        }
        self.recorder.write(Entry {
            timestamp: Some(span(clock::wall())),
            call_id: self.id,
            sequence_id_within_call: self.events.fetch_add(1, Ordering::Relaxed) + 1,
            r#type: event.into(),
            logger: Logger::Client.into(),
            payload_truncated: truncated,
            peer: None,
            payload,
        });
    }

    /// A message of this length, of which so much is known.
    pub(super) fn message(&self, event: Event, length: usize, data: &[u8]) {
        let data = data.get(..self.options().max_message).unwrap_or(data).to_vec();
        let truncated = data.len() < length;
        let message = Message { length: u32::try_from(length).unwrap_or(u32::MAX), data };
        self.event(event, Some(Payload::Message(message)), truncated);
    }
}

fn span(time: SystemTime) -> Span {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Span {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or_default(),
    }
}
