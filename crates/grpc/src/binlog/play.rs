//! A recorded call, and the answer that is made of it.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame};
use portolan_core::{BoxError, Error, Result};

use super::entry::{Entry, Event, Logger, Message, Pairs, Payload, Trailer};
use crate::PROTOCOL;
use crate::body::BoxBody;
use crate::frame::{self, Deframer, Frames};
use crate::metadata::{encode_base64, is_bin, is_reserved};
use crate::status::encode_message;

/// A call as it went.
#[derive(Debug, Clone, Default)]
pub(super) struct Play {
    pub(super) method: String,
    /// The initial metadata; `None` where the answer was a status alone.
    pub(super) header: Option<Pairs>,
    /// The first message to the server, if it is known whole.
    pub(super) asked: Option<Vec<u8>>,
    pub(super) steps: VecDeque<Step>,
}

/// What came after the head.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// The client said something.
    Asked,
    /// The client had nothing more to say.
    AskedAll,
    Answered(Vec<u8>),
    /// A message of which a part alone is known.
    Cut,
    Ended(Trailer),
}

impl Play {
    /// The calls of a log as their clients saw them, or their servers if no client wrote.
    pub(super) fn all<'a>(entries: impl Iterator<Item = &'a Entry> + Clone) -> Vec<Self> {
        let is_client = |entry: &Entry| entry.logger() == Logger::Client;
        let by_clients = entries.clone().any(is_client);
        let mut calls: BTreeMap<u64, Self> = BTreeMap::new();
        for entry in entries.filter(|entry| is_client(entry) == by_clients) {
            match (&entry.payload, calls.get_mut(&entry.call_id)) {
                (Some(Payload::ClientHeader(header)), _) => {
                    let method = header.method_name.clone();
                    calls.insert(entry.call_id, Self { method, ..Self::default() });
                }
                (_, Some(call)) => call.push(entry),
                // How it began is not known any more.
                (_, None) => {}
            }
        }
        calls.into_values().collect()
    }

    fn push(&mut self, entry: &Entry) {
        let step = match (entry.r#type(), &entry.payload) {
            (Event::ServerHeader, Some(Payload::ServerHeader(header))) => {
                self.header = Some(header.metadata.clone().unwrap_or_default());
                return;
            }
            (Event::ClientMessage, Some(Payload::Message(message))) => {
                if self.asked.is_none() {
                    self.asked = whole(entry, message);
                }
                Step::Asked
            }
            (Event::ClientHalfClose, _) => Step::AskedAll,
            (Event::ServerMessage, Some(Payload::Message(message))) => {
                whole(entry, message).map_or(Step::Cut, Step::Answered)
            }
            (Event::ServerTrailer, Some(Payload::Trailer(trailer))) => Step::Ended(trailer.clone()),
            _ => return,
        };
        self.steps.push_back(step);
    }

    /// The status, where that is the whole of the answer.
    pub(super) fn status_alone(&self) -> Option<&Trailer> {
        let mut steps = self.steps.iter().filter(|step| !matches!(step, Step::Asked | Step::AskedAll));
        match steps.next() {
            Some(Step::Ended(trailer)) if self.header.is_none() => Some(trailer),
            _ => None,
        }
    }
}

fn whole(entry: &Entry, message: &Message) -> Option<Vec<u8>> {
    let known = !entry.payload_truncated && message.data.len() == usize::try_from(message.length).unwrap_or(usize::MAX);
    known.then(|| message.data.clone())
}

/// Adds metadata as they travel. What can't travel is left out.
pub(super) fn fill(headers: &mut HeaderMap, pairs: Option<&Pairs>) {
    for pair in pairs.into_iter().flat_map(|pairs| &pairs.entry) {
        let Ok(name) = HeaderName::try_from(&pair.key) else { continue };
        let value = if is_bin(name.as_str()) { encode_base64(&pair.value).into_bytes() } else { pair.value.clone() };
        let Ok(value) = HeaderValue::try_from(value) else { continue };
        if !is_reserved(name.as_str()) {
            headers.append(name, value);
        }
    }
}

/// The fields that end a call.
pub(super) fn trailers(trailer: &Trailer) -> HeaderMap {
    let mut map = HeaderMap::new();
    map.insert("grpc-status", HeaderValue::from(trailer.status_code));
    if let Ok(message) = HeaderValue::try_from(encode_message(&trailer.status_message))
        && !trailer.status_message.is_empty()
    {
        map.insert("grpc-message", message);
    }
    if let Ok(details) = HeaderValue::try_from(encode_base64(&trailer.status_details))
        && !trailer.status_details.is_empty()
    {
        map.insert("grpc-status-details-bin", details);
    }
    fill(&mut map, trailer.metadata.as_ref());
    map
}

/// The answer after its head: each message when the client has said what it had said before it.
pub(super) struct Played {
    steps: VecDeque<Step>,
    upload: Option<Asking>,
    over: bool,
}

/// What the client says now.
struct Asking {
    body: BoxBody,
    deframer: Deframer,
}

impl Asking {
    /// The next message; `None` when there are no more.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BoxError>> {
        loop {
            if let Some(frame) = self.deframer.next().map_err(|error| error.into_error(PROTOCOL))? {
                return Poll::Ready(Ok(Some(frame.data)));
            }
            match ready!(self.body.as_mut().poll_frame(cx)) {
                Some(frame) => frame?.into_data().into_iter().for_each(|data| self.deframer.push(data)),
                None => return Poll::Ready(Ok(None)),
            }
        }
    }
}

impl Played {
    pub(super) fn new(steps: VecDeque<Step>, upload: Option<BoxBody>) -> Self {
        let frames = || Frames::new(usize::try_from(u32::MAX).unwrap_or(usize::MAX));
        let upload = upload.map(|body| Asking { body, deframer: Deframer::new(frames()) });
        Self { steps, upload, over: false }
    }

    /// Waits until the client has come to where it was when the next step was taken.
    fn poll_asked(&mut self, cx: &mut Context<'_>, all: bool) -> Poll<Result<(), BoxError>> {
        let Some(upload) = &mut self.upload else { return Poll::Ready(Ok(())) };
        match ready!(upload.poll_message(cx))? {
            Some(_) if all => Poll::Ready(Err(usage("the recorded call had no more messages to the server").into())),
            Some(_) => Poll::Ready(Ok(())),
            // It may have less to say than it had.
            None => {
                self.upload = None;
                Poll::Ready(Ok(()))
            }
        }
    }
}

fn usage(what: &'static str) -> Error {
    Error::usage(what).with_protocol(PROTOCOL)
}

impl Body for Played {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let mut asked = Ok(());
        while let (Ok(()), Some(step @ (Step::Asked | Step::AskedAll))) = (&asked, self.steps.front()) {
            let all = matches!(step, Step::AskedAll);
            asked = ready!(self.poll_asked(cx, all));
            self.steps.pop_front();
        }
        let frame = asked.and_then(|()| match self.steps.pop_front() {
            Some(Step::Answered(message)) => framed(&message).map(Frame::data),
            Some(Step::Ended(trailer)) => Ok(Frame::trailers(trailers(&trailer))),
            Some(_) => Err(usage("of a recorded message a part alone is known").into()),
            None => Err(Error::closed("the recorded call was let go here").with_protocol(PROTOCOL).into()),
        });
        self.over = !matches!(&frame, Ok(frame) if frame.is_data());
        Poll::Ready(Some(frame))
    }
}

fn framed(message: &[u8]) -> Result<Bytes, BoxError> {
    let mut out = Vec::with_capacity(message.len().saturating_add(frame::PREFIX));
    out.push(0);
    out.extend_from_slice(&frame::length(message.len(), usize::MAX)?.to_be_bytes());
    out.extend_from_slice(message);
    Ok(out.into())
}
