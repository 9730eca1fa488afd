//! The recorder between a client and its transport.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{HeaderMap, Request, Response, StatusCode, request};
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;
use portolan_core::{BoxError, Error, Result};

use super::entry::{ClientHeader, Event, Payload, ServerHeader, Trailer};
use super::recorder::{CallLog, Recorder};
use crate::body::{Body, BoxBody};
use crate::client::{Client, MAX_RECEIVE, Shared};
use crate::compress::Encoding;
use crate::deadline::Deadline;
use crate::details::Span;
use crate::frame::{COMPRESSED, PREFIX};
use crate::status::{Code, Status};
use crate::transport::Transport;

/// A transport whose calls are written down as they pass: see [`Client::record`](crate::Client::record).
#[derive(Debug, Clone)]
pub struct Recorded<T> {
    inner: T,
    recorder: Recorder,
}

impl<T> Recorded<T> {
    /// The same transport, recorded.
    pub fn new(inner: T, recorder: &Recorder) -> Self {
        Self { inner, recorder: recorder.clone() }
    }

    /// The transport itself.
    pub fn inner(&self) -> &T {
        &self.inner
    }
}

impl<T: Transport> Client<T> {
    /// Writes every attempt at a call down, as it is given to the transport: see [`binlog`](crate::binlog). All else stays as it is.
    #[must_use]
    pub fn record(self, recorder: &Recorder) -> Client<Recorded<T>> {
        let old = Arc::unwrap_or_clone(self.shared);
        let shared = Shared {
            transport: Recorded::new(old.transport, recorder),
            scheme: old.scheme,
            authority: old.authority,
            user_agent: old.user_agent,
            accept: old.accept,
            encoding: old.encoding,
            max_receive: old.max_receive,
            max_send: old.max_send,
            timeout: old.timeout,
            wait_for_ready: old.wait_for_ready,
            interceptors: old.interceptors,
            config: old.config,
            meter: old.meter,
            asked: old.asked,
        };
        Client { shared: Arc::new(shared) }
    }
}

impl<T: Transport> Transport for Recorded<T> {
    type Body = RecordedBody<T::Body>;

    async fn send(&self, request: Request<Body>) -> Result<Response<Self::Body>> {
        let (parts, body) = request.into_parts();
        let log = Arc::new(self.recorder.call());
        log.client_header(&parts);
        // From here to its end: what is let go before is cancelled.
        let call = Running(Arc::clone(&log));
        let body = upload(body, Arc::clone(&log), encoding(&parts.headers));
        let sent = self.inner.send(Request::from_parts(parts, body)).await;
        let response = sent.inspect_err(|error| log.failed(error))?;
        log.response(&response);
        let scan = Scan::new(Event::ServerMessage, encoding(response.headers()));
        Ok(response.map(|inner| RecordedBody { inner, scan, call }))
    }
}

/// A call that is not over.
struct Running(Arc<CallLog>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.event(Event::Cancel, None, false);
    }
}

fn encoding(headers: &HeaderMap) -> Encoding {
    let name = headers.get("grpc-encoding").and_then(|name| name.to_str().ok());
    name.and_then(Encoding::from_name).unwrap_or_default()
}

impl CallLog {
    fn client_header(&self, parts: &request::Parts) {
        let (metadata, truncated) = self.options().pairs(&parts.headers);
        let timeout = parts.headers.get("grpc-timeout").and_then(|value| Deadline::parse(value.to_str().ok()?));
        let header = ClientHeader {
            metadata: Some(metadata),
            method_name: parts.uri.path().to_owned(),
            authority: parts.uri.authority().map(ToString::to_string).unwrap_or_default(),
            timeout: timeout.map(|deadline| span(deadline.left())),
        };
        self.event(Event::ClientHeader, Some(Payload::ClientHeader(header)), truncated);
    }

    fn response<B>(&self, response: &Response<B>) {
        let (http, headers) = (response.status(), response.headers());
        if http != StatusCode::OK && Status::from_trailers(headers).is_none_or(|status| status.code() == Code::Ok) {
            self.trailer(&Status::new(Code::from_http(http), format!("HTTP status {http}")), headers);
        } else if !self.trailers(headers) {
            let (metadata, truncated) = self.options().pairs(headers);
            let header = ServerHeader { metadata: Some(metadata) };
            self.event(Event::ServerHeader, Some(Payload::ServerHeader(header)), truncated);
        }
    }

    /// Whether these fields end the call.
    fn trailers(&self, fields: &HeaderMap) -> bool {
        let status = Status::from_trailers(fields);
        status.iter().for_each(|status| self.trailer(status, fields));
        status.is_some()
    }

    fn trailer(&self, status: &Status, fields: &HeaderMap) {
        let (metadata, truncated) = self.options().pairs(fields);
        let trailer = Trailer {
            metadata: Some(metadata),
            status_code: u32::try_from(status.code().number()).unwrap_or_default(),
            status_message: status.message().to_owned(),
            status_details: status.details_bytes().to_vec(),
        };
        self.event(Event::ServerTrailer, Some(Payload::Trailer(trailer)), truncated);
    }

    fn failed(&self, error: &Error) {
        self.trailer(&Status::of(error), &HeaderMap::new());
    }

    fn ended(&self) {
        self.trailer(&Status::new(Code::Internal, "the response ended without a status"), &HeaderMap::new());
    }
}

fn span(left: Duration) -> Span {
    Span {
        seconds: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(left.subsec_nanos()).unwrap_or_default(),
    }
}

/// Finds the messages among pieces that pass, and holds no more of them than will be written.
struct Scan {
    event: Event,
    encoding: Encoding,
    prefix: Vec<u8>,
    /// What the message that has begun still lacks.
    left: usize,
    kept: Vec<u8>,
}

impl Scan {
    fn new(event: Event, encoding: Encoding) -> Self {
        Self { event, encoding, prefix: Vec::with_capacity(PREFIX), left: 0, kept: Vec::new() }
    }

    fn feed(&mut self, mut piece: &[u8], log: &CallLog) {
        while !piece.is_empty() {
            if self.prefix.len() < PREFIX {
                let (head, rest) = piece.split_at((PREFIX - self.prefix.len()).min(piece.len()));
                self.prefix.extend_from_slice(head);
                piece = rest;
                if self.prefix.len() < PREFIX {
                    return;
                }
                self.left = self.length();
            }
            let (part, rest) = piece.split_at(self.left.min(piece.len()));
            let most = match log.options().max_message() {
                // What is compressed is inflated first, and for that it must be whole.
                1.. if self.is_compressed() => MAX_RECEIVE,
                most => most,
            };
            let room = most.saturating_sub(self.kept.len());
            self.kept.extend_from_slice(part.get(..room).unwrap_or(part));
            (piece, self.left) = (rest, self.left - part.len());
            if self.left == 0 {
                self.end(log);
            }
        }
    }

    fn is_compressed(&self) -> bool {
        self.prefix.first().is_some_and(|flags| flags & COMPRESSED != 0)
    }

    fn length(&self) -> usize {
        let length = self.prefix.get(1..).and_then(|mut length| length.try_get_u32().ok());
        length.and_then(|length| usize::try_from(length).ok()).unwrap_or_default()
    }

    fn end(&mut self, log: &CallLog) {
        let (length, kept) = (self.length(), std::mem::take(&mut self.kept));
        if !self.is_compressed() {
            log.message(self.event, length, &kept);
        } else {
            let whole = (log.options().max_message() > 0 && kept.len() == length).then_some(&kept);
            match whole.and_then(|whole| self.encoding.inflate(whole, MAX_RECEIVE).ok()) {
                Some(plain) => log.message(self.event, plain.len(), &plain),
                None => log.message(self.event, length, b""),
            }
        }
        self.prefix.clear();
    }
}

/// The request's body, recorded.
fn upload(body: Body, log: Arc<CallLog>, encoding: Encoding) -> Body {
    let (shape, wait, safe) = (body.shape(), body.wait_for_ready(), body.is_safe());
    let mut scan = Scan::new(Event::ClientMessage, encoding);
    let body = match body.into_full() {
        Ok(bytes) => {
            scan.feed(&bytes, &log);
            log.event(Event::ClientHalfClose, None, false);
            Body::full(bytes)
        }
        Err(inner) => Body::stream(Upload { inner, scan, log }),
    };
    body.for_call(shape, wait, safe)
}

struct Upload {
    inner: BoxBody,
    scan: Scan,
    log: Arc<CallLog>,
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let frame = ready!(this.inner.as_mut().poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => frame.data_ref().into_iter().for_each(|data| this.scan.feed(data, &this.log)),
            Some(Err(_)) => {}
            None => this.log.event(Event::ClientHalfClose, None, false),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

pin_project! {
    /// The body of a response that is written down as it passes.
    pub struct RecordedBody<B> {
        #[pin]
        inner: B,
        scan: Scan,
        call: Running,
    }
}

impl<B> HttpBody for RecordedBody<B>
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        let frame = ready!(this.inner.poll_frame(cx)).map(|frame| frame.map_err(Into::into));
        let log = &this.call.0;
        match &frame {
            Some(Ok(frame)) => {
                frame.data_ref().into_iter().for_each(|data| this.scan.feed(data, log));
                if frame.trailers_ref().is_some_and(|trailers| !log.trailers(trailers)) {
                    log.ended();
                }
            }
            Some(Err(error)) => match error.downcast_ref() {
                Some(error) => log.failed(error),
                None => log.trailer(&Status::new(Code::Unavailable, error.to_string()), &HeaderMap::new()),
            },
            None => log.ended(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B> fmt::Debug for RecordedBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecordedBody")
    }
}
