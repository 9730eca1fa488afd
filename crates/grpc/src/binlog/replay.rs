//! Answers out of a log.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap};
use http::{Request, Response};
use portolan_core::{Error, Result};

use super::log::Log;
use super::play::{Play, Played, fill, trailers};
use crate::PROTOCOL;
use crate::body::{Body, BoxBody, boxed_body};
use crate::compress::Encoding;
use crate::frame::{Deframer, Frames};
use crate::transport::Transport;

/// The reply of the error of a call that the log has no answer for: `error.server::<NotRecorded>()`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotRecorded {
    /// `/package.Service/Method`.
    pub method: String,
}

/// Answers calls out of a log, ours or another's: a transport without a server. Clones are the same replay.
///
/// An answer is that of the first recorded call of the same method which was not given yet; one that was sent the same message goes first.
/// The messages of streams come when the client has said as many as it had said before them, or has nothing more to say. A call that was
/// cancelled ends there; a message of which the log holds a part alone is an error.
#[derive(Clone)]
pub struct Replay {
    repeats: bool,
    calls: Arc<Mutex<Vec<(Play, bool)>>>,
}

impl Replay {
    /// Out of this log.
    pub fn new(log: &Log) -> Self {
        let calls = Play::all(log.entries()).into_iter().map(|call| (call, false)).collect();
        Self { repeats: true, calls: Arc::new(Mutex::new(calls)) }
    }

    /// Out of a file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        Ok(Self::new(&Log::load(path)?))
    }

    /// Whether the last of equal answers is given again when all were given. Default on.
    #[must_use]
    pub fn repeat_last(mut self, on: bool) -> Self {
        self.repeats = on;
        self
    }

    /// How many recorded calls were never made.
    pub fn unused(&self) -> usize {
        self.lock().iter().filter(|(_, used)| !used).count()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Play, bool)>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, method: &str, message: Option<&[u8]>) -> Option<Play> {
        let mut calls = self.lock();
        let of_method = || calls.iter().enumerate().filter(|(_, (call, _))| call.method == method);
        let same = |call: &Play| message.is_some() && call.asked.as_deref() == message;
        let equal = of_method().any(|(_, (call, _))| same(call));
        let candidates = || of_method().filter(|(_, (call, _))| !equal || same(call));
        let unused = candidates().find(|(_, (_, used))| !used);
        let at = unused.or(candidates().next_back().filter(|_| self.repeats)).map(|(at, _)| at)?;
        let (call, used) = calls.get_mut(at)?;
        *used = true;
        Some(call.clone())
    }
}

impl Transport for Replay {
    type Body = BoxBody;

    async fn send(&self, request: Request<Body>) -> Result<Response<BoxBody>> {
        let (parts, body) = request.into_parts();
        let (message, upload) = match body.into_full() {
            Ok(bytes) => (message(bytes, &parts.headers), None),
            Err(stream) => (None, Some(stream)),
        };
        let method = parts.uri.path();
        let play = self.find(method, message.as_deref()).ok_or_else(|| not_recorded(method))?;
        let mut response = Response::new(());
        let headers = response.headers_mut();
        if let Some(kind) = parts.headers.get(CONTENT_TYPE) {
            headers.insert(CONTENT_TYPE, kind.clone());
        }
        if let Some(status) = play.status_alone() {
            headers.extend(trailers(status));
            return Ok(response.map(|()| boxed_body(Body::default())));
        }
        fill(headers, play.header.as_ref());
        Ok(response.map(|()| boxed_body(Played::new(play.steps, upload))))
    }
}

/// The one message of a request, as a log holds it.
fn message(bytes: Bytes, headers: &HeaderMap) -> Option<Bytes> {
    let mut deframer = Deframer::new(Frames::new(bytes.len()));
    deframer.push(bytes);
    let frame = deframer.next().ok()??;
    if !frame.is_compressed() {
        return Some(frame.data);
    }
    let encoding = headers.get("grpc-encoding").and_then(|name| Encoding::from_name(name.to_str().ok()?));
    encoding?.inflate(&frame.data, usize::MAX).ok()
}

fn not_recorded(method: &str) -> Error {
    let message = format!("no answer is recorded for {method}");
    Error::usage(message).with_protocol(PROTOCOL).with_reply(NotRecorded { method: method.to_owned() })
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay").field("unused", &self.unused()).finish_non_exhaustive()
    }
}
