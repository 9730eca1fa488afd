//! The handle by which requests are sent.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version, header};
use http_body::Body;
use portolan_core::kit::{self, Hold};
use portolan_core::{BoxError, Delivery, Error, Kind, Phase, Result, clock};
use portolan_hpack::request::RequestHead;

use crate::body::RecvBody;
use crate::event::{GoAway, Status};
use crate::ext::OnInformational;
use crate::proto::Engine;
use crate::proto::answer::Answer;
use crate::proto::failure::PROTOCOL;
use crate::proto::ping::Purpose;
use crate::proto::request;
use crate::proto::send::Opened;
use crate::proto::settings::PeerSettings;
use crate::proto::slots::Ticket;
use crate::proto::stream::{Due, Head, Key};
use crate::shared::Shared;
use crate::upload::Sending;

/// Sends requests over one connection; clones share it. When the last one is dropped the connection ends, after what is in
/// flight.
#[derive(Debug)]
pub struct SendRequest {
    shared: Arc<Shared>,
}

impl Clone for SendRequest {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.shared))
    }
}

impl Drop for SendRequest {
    fn drop(&mut self) {
        self.shared.with(|engine| {
            engine.handles -= 1;
            if engine.handles == 0 {
                engine.wake_driver();
            }
        });
    }
}

impl SendRequest {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        shared.with(|engine| engine.handles += 1);
        Self { shared }
    }

    /// Sends a request and waits for the head of its response.
    ///
    /// The body is sent as the peer's windows allow, also after the response's head has come, by the connection's driver; a body
    /// that fails resets its stream alone, and its error is the source of the one given here. Informational responses go to
    /// [`OnInformational`] in the request's extensions.
    ///
    /// The error's [`delivery`](Error::delivery) says what became of the request: `NotSent` if no byte of it left, `Refused` if
    /// the peer said that it did not process it, `Unknown` if it was lost under way, `Answered` once its response had begun.
    ///
    /// Dropping the future cancels the request: in the queue it leaves no trace, sent it is reset with CANCEL.
    pub async fn send<B>(&self, request: Request<B>) -> Result<Response<RecvBody>>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let (parts, body) = request.into_parts();
        self.send_parts(&parts, body).await
    }

    /// [`send`](Self::send) with a head that the caller keeps: to be sent again, should it have to be.
    pub async fn send_parts<B>(&self, parts: &Parts, body: B) -> Result<Response<RecvBody>>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        self.send_parts_within(parts, body, None).await
    }

    /// The same for a response that must begin within `first_byte`, a stretch that begins anew as long as the body moves: else the
    /// request is cancelled, and the error is a timeout of [`Phase::FirstByte`].
    pub async fn send_parts_within<B>(
        &self,
        parts: &Parts,
        body: B,
        first_byte: Option<Duration>,
    ) -> Result<Response<RecvBody>>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let end = body.is_end_stream() && parts.method != Method::CONNECT;
        let key = self.open(parts, end, body.size_hint().exact(), first_byte).await?;
        let mut pending = Pending { shared: Some(&self.shared), key, hold: None };
        if !end {
            let held = if expects(parts) {
                let (hold, held) = kit::hold(self.shared.lock().config.expect);
                pending.hold = Some(hold);
                Some(held)
            } else {
                None
            };
            let mut sending = Box::pin(Sending::new(Arc::clone(&self.shared), pending.key, body, held));
            // Most bodies fit the window at once, and never see the driver.
            let sent = poll_fn(|cx| Poll::Ready(sending.as_mut().poll(cx).is_ready())).await;
            if !sent {
                self.shared.hand_over(sending);
            }
        }
        pending.response(parts.extensions.get::<OnInformational>()).await
    }

    async fn open(&self, parts: &Parts, end: bool, length: Option<u64>, first_byte: Option<Duration>) -> Result<Key> {
        let head = request::head(parts, length)?;
        let mut place = Place { shared: &self.shared, ticket: None };
        match poll_fn(|cx| Poll::Ready(place.poll(&head, end, first_byte, cx))).await {
            Poll::Ready(opened) => opened,
            // Boxed: few have to wait.
            Poll::Pending => {
                let turn = poll_fn(|cx| place.poll(&head, end, first_byte, cx));
                Box::pin(clock::within(first_byte, Phase::FirstByte, turn)).await
            }
        }
    }

    /// Sends a PING and gives the time until its answer. Dropping the future forgets it.
    pub async fn ping(&self) -> Result<Duration> {
        let number = self.shared.with(|engine| {
            if let Some(failure) = &engine.failure {
                return Err(failure.error(Delivery::NotSent, Phase::Send));
            }
            let full = || Error::new(Kind::Limit, "too many PINGs in flight").with_delivery(Delivery::NotSent);
            engine.ping(Purpose::Caller, clock::now()).ok_or_else(|| full().with_protocol(PROTOCOL))
        })?;
        let flight = Flight { shared: &self.shared, number };
        poll_fn(|cx| {
            flight.shared.with(|engine| match (engine.pings.poll(number, cx.waker()), &engine.failure) {
                (Some(time), _) => Poll::Ready(Ok(time)),
                (None, Some(failure)) => Poll::Ready(Err(failure.error(Delivery::Unknown, Phase::Idle))),
                (None, None) => Poll::Pending,
            })
        })
        .await
    }

    /// How the connection stands: what a pool asks before it hands the handle out.
    pub fn status(&self) -> Status {
        self.shared.lock().status()
    }

    /// Whether a request sent now would get a stream without waiting.
    pub fn is_ready(&self) -> bool {
        let engine = self.shared.lock();
        engine.is_open() && engine.slots.waiting() == 0 && engine.streams.open() < engine.stream_limit()
    }

    /// Whether the connection takes no more requests: it is closed, or draining.
    pub fn is_closed(&self) -> bool {
        !self.shared.lock().is_open()
    }

    /// The peer's last GOAWAY.
    pub fn goaway(&self) -> Option<GoAway> {
        self.shared.lock().goaway.clone()
    }

    /// What the peer's SETTINGS say; `None` until they have come.
    pub fn peer_settings(&self) -> Option<PeerSettings> {
        let engine = self.shared.lock();
        engine.settings_seen.then_some(engine.peer)
    }

    /// Waits for the peer's first SETTINGS: before them a connection may lead to nobody who speaks HTTP/2, or to nobody at all.
    /// There is no deadline. Dropping the future leaves no trace.
    pub async fn settled(&self) -> Result<PeerSettings> {
        let poll = |engine: &mut Engine, waker: &Waker| match &engine.failure {
            Some(failure) => Poll::Ready(Err(failure.error(Delivery::NotSent, Phase::Connect))),
            None if engine.settings_seen => Poll::Ready(Ok(engine.peer)),
            None => {
                if !engine.blocked.iter().any(|other| other.will_wake(waker)) {
                    engine.blocked.push(waker.clone());
                }
                Poll::Pending
            }
        };
        poll_fn(|cx| self.shared.with(|engine| poll(engine, cx.waker()))).await
    }

    /// Ends the connection gracefully: what is in flight is finished, nothing new is taken, and then GOAWAY is sent.
    pub fn close(&self) {
        self.shared.with(|engine| {
            engine.closing = true;
            let mut wakes = std::mem::take(&mut engine.wakes);
            engine.slots.wake_all(&mut wakes);
            engine.wakes = wakes;
            engine.wake_driver();
        });
    }
}

/// A place in the queue, given up on drop.
struct Place<'a> {
    shared: &'a Shared,
    ticket: Option<Ticket>,
}

impl Place<'_> {
    fn poll(
        &mut self,
        head: &RequestHead<'_>,
        end: bool,
        first_byte: Option<Duration>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Key>> {
        let due = first_byte.and_then(|limit| Due::after(limit, clock::now()));
        match self.shared.with(|engine| engine.open(head, end, due, self.ticket, cx.waker())) {
            Ok(Opened::Stream(key)) => {
                self.ticket = None;
                Poll::Ready(Ok(key))
            }
            Ok(Opened::Wait(ticket)) => {
                self.ticket = Some(ticket);
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        self.shared.with(|engine| {
            engine.slots.leave(ticket);
            // The next one may have been waiting for this one alone.
            let (open, limit) = (engine.streams.open(), engine.stream_limit());
            let mut wakes = std::mem::take(&mut engine.wakes);
            engine.slots.freed(open, limit, &mut wakes);
            engine.wakes = wakes;
        });
    }
}

/// A PING in flight, forgotten on drop.
struct Flight<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.shared.with(|engine| engine.pings.forget(self.number));
    }
}

/// A request whose response is awaited; dropped before, it is cancelled.
struct Pending<'a> {
    shared: Option<&'a Arc<Shared>>,
    key: Key,
    /// The body, until the peer asks for it.
    hold: Option<Hold>,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(shared) = self.shared {
            shared.with(|engine| engine.detach(self.key));
        }
    }
}

impl Pending<'_> {
    async fn response(mut self, on_informational: Option<&OnInformational>) -> Result<Response<RecvBody>> {
        loop {
            let answer = poll_fn(|cx| {
                if let Some(hold) = &mut self.hold {
                    hold.poll(cx);
                }
                match self.shared {
                    Some(shared) => shared.with(|engine| engine.poll_answer(self.key, cx.waker())),
                    None => Poll::Pending,
                }
            })
            .await;
            match answer {
                Answer::Informational(response) => {
                    if let Some(hold) = self.hold.as_mut().filter(|_| response.status() == StatusCode::CONTINUE) {
                        hold.release();
                    }
                    if let Some(callback) = on_informational {
                        callback.call(response);
                    }
                }
                Answer::Failed(error) => return Err(error),
                Answer::Whole(head, received) => {
                    self.shared = None;
                    return Ok(response(head, RecvBody::whole(received)));
                }
                Answer::Head(head) => {
                    let Some(shared) = self.shared.take() else { continue };
                    let body = RecvBody::live(Arc::clone(shared), self.key, length(&head));
                    return Ok(response(head, body));
                }
            }
        }
    }
}

/// RFC 9110 10.1.1.
fn expects(parts: &Parts) -> bool {
    let value = parts.headers.get(header::EXPECT);
    value.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// RFC 9110 8.6: what the body's length is said to be.
fn length((status, headers): &Head) -> Option<u64> {
    let length = headers.get(header::CONTENT_LENGTH).filter(|_| *status != StatusCode::NOT_MODIFIED);
    length.and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok())
}

fn response((status, headers): Head, body: RecvBody) -> Response<RecvBody> {
    let mut response = Response::new(body);
    *response.version_mut() = Version::HTTP_2;
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
