//! One exchange and its times.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::CONTENT_ENCODING;
use http::{request, response};
use portolan_core::{ConnectionInfo, clock};
use serde::{Serialize, Serializer};

use super::HarOptions;
use super::capture::Seen;
use super::message::{Request, Response};
use crate::civil::{Civil, unix};
use crate::listen::{OnMessage, SocketMessage};
use crate::trail::{Answer, Step};

/// What Chrome says of an exchange that opened one.
const WEBSOCKET: &str = "websocket";
/// What a message costs besides its bytes.
const BESIDES: usize = 64;

/// One exchange.
///
/// ```
/// use portolan_http::har::{Entry, Har, HarOptions};
///
/// let (request, ()) = http::Request::get("https://example.com/?a=b").header("authorization", "Bearer x").body(())?.into_parts();
/// let (response, ()) = http::Response::new(()).into_parts();
/// let options = HarOptions::new();
/// let mut har = Har::new();
/// har.push(Entry::new(&options, portolan_core::clock::wall(), &request, b"").with_response(&options, &response, b"hello"));
/// assert!(!har.to_json()?.contains("Bearer x"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    started_date_time: String,
    time: f64,
    request: Request,
    response: Response,
    cache: Empty,
    timings: Timings,
    #[serde(rename = "serverIPAddress", skip_serializing_if = "Option::is_none")]
    server: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    #[serde(rename = "_resourceType", skip_serializing_if = "Option::is_none")]
    resource: Option<&'static str>,
    #[serde(rename = "_webSocketMessages", skip_serializing_if = "Messages::is_empty")]
    messages: Messages,
}

/// What is said on a WebSocket, which goes on while the entry is here and there.
#[derive(Debug, Clone, Default)]
struct Messages(Arc<Mutex<Said>>);

#[derive(Debug, Clone, Default)]
struct Said {
    list: Vec<Message>,
    /// The bytes of those that were heard, with what each costs besides.
    held: usize,
    /// There was no more room, or of one only the beginning.
    full: bool,
}

impl Messages {
    fn lock(&self) -> MutexGuard<'_, Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_empty(&self) -> bool {
        self.lock().list.is_empty()
    }
}

impl Serialize for Messages {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.lock().list.serialize(serializer)
    }
}

impl Said {
    fn hear(&mut self, message: &SocketMessage<'_>, most: usize) {
        let needed = message.data.len().saturating_add(BESIDES);
        // Later ones that are shorter would make it look as if nothing were missing, and so would a beginning.
        self.full |= !message.whole || needed > most.saturating_sub(self.held);
        if self.full {
            return;
        }
        self.held = self.held.saturating_add(needed);
        let text = String::from_utf8_lossy(message.data);
        let data = if message.text { MessageData::Text(&text) } else { MessageData::Binary(message.data) };
        self.list.push(Message::new(message.sent, clock::wall(), data));
    }
}

impl Message {
    fn new(sent: bool, at: SystemTime, data: MessageData<'_>) -> Self {
        let (opcode, data) = match data {
            MessageData::Text(text) => (1, text.to_owned()),
            MessageData::Binary(bytes) => (2, STANDARD.encode(bytes)),
        };
        let time = at.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        Self { direction: if sent { "send" } else { "receive" }, time, opcode, data }
    }
}

/// A message of WebSocket, as Chrome writes it.
#[derive(Debug, Clone, Serialize)]
struct Message {
    #[serde(rename = "type")]
    direction: &'static str,
    /// In seconds since 1970.
    time: f64,
    opcode: u8,
    data: String,
}

/// What a message of WebSocket holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MessageData<'a> {
    /// Text.
    Text(&'a str),
    /// Bytes.
    Binary(&'a [u8]),
}

#[derive(Debug, Clone, Serialize)]
struct Empty {}

/// How long the parts of an exchange took, beside making its connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Phases {
    /// Waiting for a connection out of the pool.
    pub blocked: Option<Duration>,
    /// Sending the request.
    pub send: Duration,
    /// Waiting for the head of the response.
    pub wait: Duration,
    /// Reading its body.
    pub receive: Duration,
}

impl Phases {
    /// All at nothing.
    pub fn new() -> Self {
        Self::default()
    }
}

/// In milliseconds; -1 is "does not apply".
#[derive(Debug, Clone, Serialize)]
struct Timings {
    blocked: f64,
    dns: f64,
    connect: f64,
    ssl: f64,
    send: f64,
    wait: f64,
    receive: f64,
}

impl Entry {
    /// An exchange that began at `started`, with the body as far as you have it. Until there is a response it counts as failed: status 0.
    pub fn new(options: &HarOptions, started: SystemTime, request: &request::Parts, body: &[u8]) -> Self {
        Self {
            started_date_time: iso8601(started),
            time: 0.0,
            request: Request::new(options, request, body),
            response: Response::failed(),
            cache: Empty {},
            timings: Timings { blocked: -1.0, dns: -1.0, connect: -1.0, ssl: -1.0, send: 0.0, wait: 0.0, receive: 0.0 },
            server: None,
            connection: None,
            comment: None,
            resource: None,
            messages: Messages::default(),
        }
    }

    /// The response, with the body as far as you have it.
    #[must_use]
    pub fn with_response(mut self, options: &HarOptions, response: &response::Parts, body: &[u8]) -> Self {
        self.response = Response::new(options, response, body);
        self
    }

    /// The exchange of `step`, whose body is not here.
    pub(super) fn of_step(options: &HarOptions, step: &Step) -> Self {
        let mut entry = Self::new(options, step.started, &step.request, step.body.as_deref().unwrap_or_default());
        if step.body.is_none() {
            entry.request = entry.request.of_unknown_size();
        }
        match &step.answer {
            Some(answer) => entry.with_response(options, &answer.parts, b"").with_answer(answer),
            None => entry,
        }
    }

    /// The connection and the times.
    fn with_answer(self, answer: &Answer) -> Self {
        let mut phases = Phases::new();
        phases.wait = answer.timings.first_byte;
        self.with_connection(&answer.info, answer.info.reused).with_phases(phases)
    }

    /// The exchange of `step`, which the caller was answered with `given`, and what was seen of its body.
    pub(super) fn of_answer(options: &HarOptions, step: &Step, given: &Answer, seen: &Seen<'_>) -> Self {
        let (parts, coded) = (&given.parts, given.parts.headers.contains_key(CONTENT_ENCODING));
        // What came by the wire, before it was decompressed, unless it came out of a cache or was made anew.
        let of_wire = step.answer.as_ref().map(|answer| &answer.parts).filter(|wire| wire.status == parts.status);
        let mut entry = Self::of_step(options, step).with_answer(given);
        entry.response = Response::new(options, of_wire.unwrap_or(parts), seen.kept).with_seen(seen, coded);
        entry
    }

    /// A message that was sent or received on a WebSocket that this exchange opened.
    #[must_use]
    pub fn with_message(mut self, sent: bool, at: SystemTime, data: MessageData<'_>) -> Self {
        self.resource = Some(WEBSOCKET);
        if Arc::get_mut(&mut self.messages.0).is_none() {
            // A clone of this has its own.
            let said = self.messages.lock().clone();
            self.messages = Messages(Arc::new(Mutex::new(said)));
        }
        self.messages.lock().list.push(Message::new(sent, at, data));
        self
    }

    /// The same, of an exchange that opened a WebSocket.
    pub(super) fn websocket(mut self) -> Self {
        self.resource = Some(WEBSOCKET);
        self
    }

    /// Adds the messages to come, wherever the entry is by then, until they have had `most` bytes.
    pub(super) fn on_message(&self, most: usize) -> OnMessage {
        let messages = self.messages.clone();
        OnMessage::new(move |message| messages.lock().hear(&message, most))
    }

    /// The connection that carried it. The phases of making it count only if it was made for this exchange (`reused` is false).
    #[must_use]
    pub fn with_connection(mut self, info: &ConnectionInfo, reused: bool) -> Self {
        self.server = info.peer.map(|peer| peer.ip().to_string());
        self.connection = info.local.map(|local| local.port().to_string());
        if !reused {
            let timings = &info.timings;
            let parts = [timings.connect, timings.hops, timings.tls, timings.handshake];
            self.timings.dns = timings.resolve.map_or(-1.0, millis);
            // HAR counts TLS in connect as well (12: "ssl").
            let connect: Option<Duration> = parts.into_iter().flatten().reduce(|sum, part| sum.saturating_add(part));
            self.timings.connect = connect.map_or(-1.0, millis);
            self.timings.ssl = timings.tls.map_or(-1.0, millis);
        }
        self.sum_up();
        self
    }

    /// The phases after the connection.
    #[must_use]
    pub fn with_phases(mut self, phases: Phases) -> Self {
        self.timings.blocked = phases.blocked.map_or(-1.0, millis);
        self.timings.send = millis(phases.send);
        self.timings.wait = millis(phases.wait);
        self.timings.receive = millis(phases.receive);
        self.sum_up();
        self
    }

    /// A remark: why it failed, for one.
    #[must_use]
    pub fn with_comment(mut self, comment: impl Into<String>) -> Self {
        self.comment = Some(comment.into());
        self
    }

    /// The bodies that it holds.
    pub(super) fn bytes(&self) -> usize {
        self.request.bytes().saturating_add(self.response.bytes())
    }

    /// The sum of all that applies, with TLS in `connect`.
    fn sum_up(&mut self) {
        let Timings { blocked, dns, connect, send, wait, receive, .. } = self.timings;
        self.time = [blocked, dns, connect, send, wait, receive].into_iter().filter(|part| *part > 0.0).sum();
    }
}

fn millis(duration: Duration) -> f64 {
    // Microseconds are fine enough, and make numbers that people can read.
    (duration.as_secs_f64() * 1_000_000.0).round() / 1000.0
}

fn iso8601(time: SystemTime) -> String {
    let Civil { year, month, day, hour, minute, second } = Civil::from_unix(unix(time));
    let millis = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_millis());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}
