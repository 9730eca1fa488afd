//! Attempts: a connection, the request on it, and whether to do it once more.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::Either;
use http::header::{self, HeaderMap};
use http::request::Parts;
use http::{Method, StatusCode};
use http_body::{Frame, SizeHint};
use portolan_core::kit;
use portolan_core::{BoxError, Delivery, Error, Kind as ErrorKind, Phase, Result, Timeouts, clock};
use portolan_http1 as h1;
use portolan_pool::{Decision, Lease, Retry};

use crate::body::Body;
use crate::client::Client;
use crate::connection::{Conn, Held, Manager};
use crate::incoming::Incoming;
use crate::key::Key;
use crate::request::{More, Request};
use crate::response::{Meta, Response, retry_after};
use crate::sign::{self, Signed};

impl Client {
    /// One request, as often as its failures allow.
    pub(crate) async fn attempts(&self, request: &mut Request, timeouts: &Timeouts) -> Result<Response> {
        let more = request.options.more.as_deref();
        let retry = more.and_then(|more| more.retry.as_ref()).unwrap_or(&self.settings().retry);
        let signer = more.and_then(|more| more.signer.as_ref()).or(self.settings().signer.as_ref());
        let signer = signer.filter(|_| more.is_none_or(|more| !more.unsigned));
        let mut signed = None;
        let ask = portolan_pool::Request::new()
            .idempotent(is_idempotent(&request.parts, more))
            .replayable(request.body.is_replayable());
        let mut attempt = 1;
        loop {
            // What is rare is boxed: a future is moved about, and as large as its largest branch.
            let (parts, body) = (&request.parts, &mut request.body);
            let outcome = match (signer, more.and_then(|more| more.hedge)) {
                (None, None) => self.by_ways(parts, body, more, timeouts).await,
                (None, Some(after)) => Box::pin(self.hedged(parts, body, more, timeouts, after)).await,
                (Some(by), _) => Box::pin(self.signed(by, &mut signed, parts, body, more, timeouts)).await,
            };
            let (error, response) = match outcome {
                Ok(mut response) => {
                    response.meta_mut().attempts = attempt;
                    match overloaded(&response) {
                        None => {
                            retry.succeeded();
                            return Ok(response);
                        }
                        Some(error) => (error, Some(response)),
                    }
                }
                Err(error) => (error, None),
            };
            match (decide(retry, &error, ask, attempt), response) {
                (Decision::Again(wait), refusal) => {
                    tracing::debug!(%error, attempt, ?wait, "tried again");
                    // Others may have its connection meanwhile.
                    drop(refusal);
                    if !wait.is_zero() {
                        clock::sleep(wait).await;
                    }
                }
                (_, Some(response)) => return Ok(response),
                (_, None) => return Err(error),
            }
            attempt += 1;
        }
    }

    /// One attempt that is signed, and another where signing anew may cure what it was refused for.
    async fn signed(
        &self,
        by: &sign::By,
        signed: &mut Option<Box<Signed>>,
        parts: &Parts,
        body: &mut Body,
        more: Option<&More>,
        timeouts: &Timeouts,
    ) -> Result<Response> {
        let mut cured = false;
        loop {
            let signed = sign::renew(by, signed, parts, body).await?;
            let response = match more.and_then(|more| more.hedge) {
                None => self.by_ways(&signed.parts, &mut signed.body, more, timeouts).await?,
                Some(after) => Box::pin(self.hedged(&signed.parts, &mut signed.body, more, timeouts, after)).await?,
            };
            let refused = matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
            if cured || !refused || !body.is_replayable() || !by.refused(&response) {
                return by.answered(&signed.parts, response);
            }
            tracing::debug!(status = response.status().as_u16(), "signed anew");
            cured = true;
        }
    }

    /// One attempt, and a second beside it where the first is slow.
    async fn hedged(
        &self,
        parts: &Parts,
        body: &mut Body,
        more: Option<&More>,
        timeouts: &Timeouts,
        after: Duration,
    ) -> Result<Response> {
        let Some(mut copy) = body.try_clone().filter(|_| is_idempotent(parts, more)) else {
            return self.by_ways(parts, body, more, timeouts).await;
        };
        let mut first = std::pin::pin!(self.by_ways(parts, body, more, timeouts));
        if let Ok(outcome) = tokio::time::timeout(after, first.as_mut()).await {
            return outcome;
        }
        tracing::debug!(?after, "hedged");
        let second = std::pin::pin!(self.by_ways(parts, &mut copy, more, timeouts));
        match futures_util::future::select(first, second).await {
            Either::Left((Ok(response), _)) | Either::Right((Ok(response), _)) => Ok(response),
            // One failed: the other may still answer.
            Either::Left((Err(_), other)) => other.await,
            Either::Right((Err(_), other)) => other.await,
        }
    }

    /// One attempt by one way. The body stays where it is unless something of it was sent.
    pub(crate) async fn once(
        &self,
        parts: &Parts,
        body: &mut Body,
        key: &Key,
        lease: Option<Box<Lease<Manager>>>,
        timeouts: &Timeouts,
    ) -> Result<Response> {
        let started = clock::now();
        let lease = match lease {
            Some(lease) => *lease,
            None => self.pool().acquire(key).await.map_err(|error| placed(error, key))?,
        };
        let joined = lease.joined();
        let connected = clock::now();
        let sent = match body.try_clone() {
            Some(body) => self.exchange(lease, parts, body.ready(), timeouts).await,
            None => Box::pin(self.lend(lease, parts, body, timeouts)).await,
        };
        let mut response = sent.map_err(|error| placed(error, key))?;
        if let Some(live) = joined.filter(|_| response.status() == StatusCode::MISDIRECTED_REQUEST) {
            if let Some(coalescing) = &self.pool().manager().coalescing {
                coalescing.misdirected(key);
            }
            live.drain();
            if body.is_replayable() {
                tracing::debug!(?key, "misdirected: a connection of its own");
                drop(response);
                return Box::pin(self.once(parts, body, key, None, timeouts)).await;
            }
        }
        let meta = response.meta_mut();
        meta.timings.connection = connected.saturating_duration_since(started);
        meta.timings.first_byte = meta.came.saturating_duration_since(connected);
        Ok(response)
    }

    /// Sends a request on a connection that is ours for as long.
    async fn exchange<B>(
        &self,
        mut lease: Lease<Manager>,
        parts: &Parts,
        body: B,
        timeouts: &Timeouts,
    ) -> Result<Response>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let (first_byte, idle) = (timeouts.first_byte_limit(), timeouts.idle_limit());
        let info = lease.facts().info(lease.is_reused());
        if let Conn::H1(conn) = &mut *lease {
            if parts.extensions.get::<portolan_http2::ext::Protocol>().is_some() {
                let error = Error::new(ErrorKind::Unsupported, "extended CONNECT over HTTP/1.1");
                return Err(error.with_delivery(Delivery::NotSent).with_protocol(crate::PROTOCOL));
            }
            let options = conn.h1.options().first_byte(first_byte).idle(idle);
            conn.h1.set_options(options);
        }
        let (head, body) = match &*lease {
            Conn::H1(..) => {
                let held = Held::new(lease);
                let asked = held.proxy_fields().filter(|_| !parts.headers.contains_key(header::PROXY_AUTHORIZATION));
                let asked = asked.map(|fields| fields.contains_key(header::PROXY_AUTHORIZATION));
                let (head, body) = h1::send_parts(held, parts, body).await?.into_parts();
                if let Some(asked) = asked.filter(|_| head.status == StatusCode::PROXY_AUTHENTICATION_REQUIRED) {
                    return Err(unwelcome(&head.headers, asked).with_hop(info.hops.len().saturating_sub(1)));
                }
                (head, Incoming::h1(body))
            }
            Conn::H2(conn) => {
                let response = conn.send.send_parts_within(parts, body, first_byte).await?;
                let (head, body) = response.into_parts();
                (head, Incoming::h2(body, lease, idle))
            }
            Conn::H3(conn) => {
                let progress = (!body.is_end_stream()).then(Arc::<AtomicU64>::default);
                let body = Watched { body, progress: progress.clone() };
                let response = {
                    let mut work = Box::pin(conn.send.send_parts(parts, body));
                    patient(first_byte, progress.as_deref(), work.as_mut()).await?
                };
                let (head, body) = response.into_parts();
                (head, Incoming::h3(body, lease, idle))
            }
        };
        Ok(Response::new(head, body, Meta::new(info, self.settings().max_body)))
    }

    /// Sends a body that can be sent once only: if nothing of it was asked for, it comes back whole.
    async fn lend(
        &self,
        lease: Lease<Manager>,
        parts: &Parts,
        body: &mut Body,
        timeouts: &Timeouts,
    ) -> Result<Response> {
        let back = Arc::new(Mutex::new(None));
        let lent = Lent { body: Some(body.spend()), touched: false, back: back.clone() };
        let result = self.exchange(lease, parts, lent, timeouts).await;
        if let Err(error) = &result
            && error.delivery() == Delivery::NotSent
        {
            match back.lock().unwrap_or_else(PoisonError::into_inner).take() {
                Some(whole) => *body = whole,
                // What was read of it is gone, though nothing was sent.
                None => return result.map_err(|error| error.with_delivery(Delivery::Unknown)),
            }
        }
        result
    }
}

/// RFC 9110 9.2.2, and what the caller says.
fn is_idempotent(parts: &Parts, more: Option<&More>) -> bool {
    more.and_then(|more| more.idempotent).unwrap_or_else(|| {
        matches!(
            parts.method,
            Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
        ) || parts.headers.contains_key("idempotency-key")
    })
}

/// A peer that did nothing, and says when to come again.
fn overloaded(response: &Response) -> Option<Error> {
    if !matches!(response.status().as_u16(), 429 | 503) {
        return None;
    }
    let after = retry_after(response.headers())?;
    let error = Error::new(ErrorKind::Server, "overloaded").with_delivery(Delivery::Refused);
    Some(error.with_retry_after(after).with_protocol(crate::PROTOCOL))
}

/// A connection that had served before and is found dead is replaced at once: nobody is overloaded.
fn decide(retry: &Retry, error: &Error, ask: portolan_pool::Request, attempt: u32) -> Decision {
    match retry.decide(error, ask, attempt) {
        Decision::Again(_) if attempt == 1 && error.is_closed() && error.retry_after().is_none() => {
            Decision::Again(Duration::ZERO)
        }
        decision => decision,
    }
}

fn placed(error: Error, key: &Key) -> Error {
    if error.endpoint().is_some() { error } else { error.with_endpoint(key.endpoint.clone()) }
}

/// A proxy that forwards wants other credentials than it was given: the same failure as when it is asked for a tunnel.
fn unwelcome(headers: &HeaderMap, asked: bool) -> Error {
    let offered =
        headers.get_all(header::PROXY_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>();
    // Basic was said already, and the rest is said for a tunnel: see `by_ways`.
    let other = |value: &str| !value.trim_start().get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("basic"));
    if asked && offered.iter().any(|value| other(value)) {
        return Error::new(ErrorKind::Unsupported, "a proxy that forwards wants more than Basic")
            .with_code(407)
            .with_delivery(Delivery::Refused)
            .with_protocol(crate::PROTOCOL);
    }
    kit::refusal(407, "", offered, asked, b"").with_delivery(Delivery::Refused).with_protocol(crate::PROTOCOL)
}

/// Waits for `work` as long as the upload moves, and `limit` beyond.
async fn patient<T>(
    limit: Option<Duration>,
    progress: Option<&AtomicU64>,
    mut work: Pin<&mut impl Future<Output = Result<T>>>,
) -> Result<T> {
    let Some(limit) = limit else { return work.await };
    loop {
        let sent = || progress.map_or(0, |progress| progress.load(Ordering::Relaxed));
        let before = sent();
        match clock::within(Some(limit), Phase::FirstByte, work.as_mut()).await {
            Err(error) if error.is_timeout() && error.phase() == Some(Phase::FirstByte) && sent() != before => {}
            Err(error) if error.protocol_name().is_none() => return Err(error.with_protocol(crate::PROTOCOL)),
            result => return result,
        }
    }
}

/// A request body that counts its pieces.
struct Watched<B> {
    body: B,
    progress: Option<Arc<AtomicU64>>,
}

impl<B: http_body::Body<Data = Bytes> + Unpin> http_body::Body for Watched<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Some(progress) = self.progress.as_ref().filter(|_| frame.is_ready()) {
            progress.fetch_add(1, Ordering::Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

struct Lent {
    body: Option<Body>,
    touched: bool,
    back: Arc<Mutex<Option<Body>>>,
}

impl http_body::Body for Lent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.touched = true;
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(http_body::Body::size_hint).unwrap_or_default()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if !self.touched {
            *self.back.lock().unwrap_or_else(PoisonError::into_inner) = self.body.take();
        }
    }
}
