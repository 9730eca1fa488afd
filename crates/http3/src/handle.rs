//! The handle by which requests are sent.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version, header};
use http_body::Body;
use portolan_core::kit::{self, Hold};
use portolan_core::{BoxError, ConnectionInfo, Datagram, Delivery, Error, Kind, Phase, Result};
use portolan_hpack::request::RequestHead;
use quinn::{RecvStream, SendStream};

use crate::body::RecvBody;
use crate::datagrams::{Datagrams, Queue};
use crate::event::{GoAway, State as Standing, Status};
use crate::ext::OnInformational;
use crate::proto::code::Code;
use crate::proto::failure::PROTOCOL;
use crate::proto::message::Exchange;
use crate::proto::request;
use crate::proto::settings::PeerSettings;
use crate::proto::{frame, varint};
use crate::reading::{Piece, Reading, Recv};
use crate::shared::{Critical, Shared, State};
use crate::slot::Slot;
use crate::socket::Socket;
use crate::upload::{Outgoing, Sending, Waiting};

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
        self.shared.with(|state| {
            state.handles -= 1;
            if state.handles == 0 {
                state.wake_driver();
            }
        });
    }
}

/// A stream with its head ready to be written.
struct Opened {
    reading: Box<Reading>,
    outgoing: Outgoing,
    slot: Arc<Slot>,
    datagrams: Option<Datagrams>,
}

impl SendRequest {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        shared.with(|state| state.handles += 1);
        Self { shared }
    }

    /// Sends a request and waits for the head of its response.
    ///
    /// The body is sent as the peer's windows allow, also after the response's head has come, by the connection's driver; a body
    /// that fails resets its stream alone, and its error is the source of the one given here. Informational responses go to
    /// [`OnInformational`] in the request's extensions. With [`Options::datagrams`](crate::Options::datagrams), the response to
    /// a CONNECT carries [`Datagrams`] in its extensions.
    ///
    /// The error's [`delivery`](Error::delivery) says what became of the request: `NotSent` if no byte of it left, `Refused` if
    /// the peer said that it did not process it, `Unknown` if it was lost under way, `Answered` once its response had begun.
    ///
    /// Dropping the future cancels the request: in the queue it leaves no trace, sent it is reset with H3_REQUEST_CANCELLED.
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
        let head = request::head(parts, body.size_hint().exact())?;
        let on_informational = parts.extensions.get::<OnInformational>();
        if body.is_end_stream() && parts.method != Method::CONNECT {
            return self.send_bare(&head, on_informational).await;
        }
        let Opened { reading, outgoing, slot, datagrams } = self.open(&head, false).await?;
        let (hold, held) =
            if expects(parts) { Some(kit::hold(self.shared.config.expect)).unzip() } else { (None, None) };
        let mut sending = Box::pin(Sending::new(slot, outgoing, body, held));
        // Most bodies fit the window at once, and never see the driver.
        let sent = poll_fn(|cx| Poll::Ready(sending.as_mut().poll(cx).is_ready())).await;
        if !sent {
            self.shared.hand_over(sending);
        }
        respond(reading, hold, on_informational, datagrams).await
    }

    /// A request without a body. As early data it may have to be sent once more.
    async fn send_bare(
        &self,
        head: &RequestHead<'_>,
        on_informational: Option<&OnInformational>,
    ) -> Result<Response<RecvBody>> {
        let mut again = head.method().is_safe();
        loop {
            let Opened { mut reading, mut outgoing, datagrams, .. } = self.open(head, again).await?;
            let written = if again && self.shared.lock().early {
                // Early data that doesn't fit now is not worth the wait.
                let written = poll_fn(|cx| Poll::Ready(outgoing.poll_written(cx))).await;
                if written.is_pending() {
                    again = false;
                    continue;
                }
                written
            } else {
                Poll::Ready(poll_fn(|cx| outgoing.poll_written(cx)).await)
            };
            // What hinders writing is told by the answer, or by the lack of it.
            if let Poll::Ready(Ok(())) = written {
                outgoing.finish();
            }
            drop(outgoing);
            let answer = answer(&mut reading, None, on_informational).await;
            if answer.is_err() && again && reading.early_rejected() {
                again = false;
                drop(reading);
                continue;
            }
            let (status, headers, ended) = answer?;
            return Ok(response(status, headers, (!ended).then_some(reading), datagrams));
        }
    }

    async fn open(&self, head: &RequestHead<'_>, may_be_early: bool) -> Result<Opened> {
        if may_be_early && let Some(opened) = self.try_open(head, true).await? {
            return Ok(opened);
        }
        let opened = self.try_open(head, false).await?;
        opened.ok_or_else(|| unsent(Kind::Closed, "the handshake is not done"))
    }

    /// Opens a stream; `None` when it came between early data and the end of the handshake.
    async fn try_open(&self, head: &RequestHead<'_>, may_be_early: bool) -> Result<Option<Opened>> {
        let shared = &self.shared;
        let _waiting = Waiting::new(shared)?;
        if !may_be_early || head.protocol().is_some() {
            // RFC 9220 3: extended CONNECT may be sent only once the peer has said that it understands it.
            let extended = head.protocol().is_some();
            shared.until(|state| !state.early && (!extended || state.settings_seen)).await?;
        }
        self.check(head)?;
        let permit = shared.while_open(Arc::clone(&shared.permits).acquire_owned()).await?;
        let permit = permit.map_err(|_| Error::closed("no more streams").with_delivery(Delivery::NotSent))?;
        let (send, recv) = match shared.while_open(shared.quic.open_bi()).await? {
            Ok(stream) => stream,
            Err(error) => return Err(shared.lost(&error).error(Delivery::NotSent, Phase::Send)),
        };
        if shared.lock().early && !recv.is_0rtt() {
            // The handshake is done, and whether early data was taken is being sorted out.
            drop(Outgoing::unwanted(send));
            drop(recv);
            return Ok(None);
        }
        self.begin(head, permit, send, recv).map(Some)
    }

    /// What the peer's settings have to say.
    fn check(&self, head: &RequestHead<'_>) -> Result<()> {
        let state = self.shared.lock();
        if !state.settings_seen {
            return Ok(());
        }
        if head.protocol().is_some() && !state.peer.enable_connect_protocol {
            return Err(unsent(Kind::Unsupported, "the peer doesn't understand extended CONNECT"));
        }
        let Some(limit) = state.peer.max_field_section_size else { return Ok(()) };
        let size = head.list_size();
        if size as u64 > limit {
            let message = format!("a header list of {size} bytes, and the peer takes {limit}");
            return Err(unsent(Kind::Limit, message));
        }
        Ok(())
    }

    fn begin(
        &self,
        head: &RequestHead<'_>,
        permit: tokio::sync::OwnedSemaphorePermit,
        send: SendStream,
        recv: RecvStream,
    ) -> Result<Opened> {
        let shared = &self.shared;
        let id = quinn::VarInt::from(send.id()).into_inner();
        let (early, mut recv) = if recv.is_0rtt() {
            let share = Arc::new(Mutex::new(Some(recv)));
            (Some(Arc::clone(&share)), Recv::Early(share))
        } else {
            (None, Recv::Own(recv))
        };
        let slot = Arc::new(Slot::new(Arc::clone(shared), id, permit, early));
        let with_datagrams = shared.config.datagrams && *head.method() == Method::CONNECT;
        let queue = with_datagrams.then(|| Arc::new(Queue::new(shared.config.datagram_queue)));
        let section = shared.with(|state| {
            // A GOAWAY may have come meanwhile.
            if let Some(failure) = state.refusal() {
                return Err(failure.error(Delivery::NotSent, Phase::Send));
            }
            state.streams.insert(id, Arc::downgrade(&slot));
            if let Some(queue) = &queue {
                state.datagrams.insert(id / 4, Arc::clone(queue));
            }
            let section =
                request::encode(head, &mut state.encoder, id, &mut state.outlets[Critical::Encoder as usize].bytes);
            Ok((section, state.written(Critical::Encoder)))
        });
        let section = match section {
            Ok((section, Ok(()))) => section,
            Ok((_, Err(violation))) => {
                drop(Outgoing::unwanted(send));
                return Err(shared.violated(violation).error(Delivery::NotSent, Phase::Send));
            }
            Err(error) => {
                drop(Outgoing::unwanted(send));
                recv.stop(Code::REQUEST_CANCELLED);
                return Err(error);
            }
        };
        let exchange = Exchange::new(*head.method() == Method::HEAD, *head.method() == Method::CONNECT);
        let reading = Box::new(Reading::new(Arc::clone(&slot), recv, exchange));
        let datagrams = queue.map(|queue| Datagrams::new(Arc::clone(shared), id, queue));
        Ok(Opened { reading, outgoing: Outgoing::new(send, section), slot, datagrams })
    }

    /// How the connection stands: what a pool asks before it hands the handle out.
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// Whether a request sent now would get a stream without waiting, as far as our own limit goes: the peer's is kept by QUIC,
    /// which doesn't tell it.
    pub fn is_ready(&self) -> bool {
        let status = self.status();
        status.state == Standing::Open && status.waiting == 0 && status.active < status.limit
    }

    /// Whether the connection takes no more requests: it is closed, or draining.
    pub fn is_closed(&self) -> bool {
        self.shared.lock().refusal().is_some() || self.shared.quic.close_reason().is_some()
    }

    /// The peer's last GOAWAY.
    pub fn goaway(&self) -> Option<GoAway> {
        self.shared.lock().goaway
    }

    /// What the peer's SETTINGS say; `None` until they have come.
    pub fn peer_settings(&self) -> Option<PeerSettings> {
        let state = self.shared.lock();
        state.settings_seen.then_some(state.peer)
    }

    /// What is known about the connection. While early data is being sent the TLS facts are those to come: none.
    pub fn info(&self) -> Arc<ConnectionInfo> {
        Arc::clone(&self.shared.info.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The time from here to the peer and back, as QUIC estimates it.
    pub fn rtt(&self) -> Duration {
        self.shared.quic.rtt()
    }

    /// The largest datagram that the path is known to carry, in bytes: at least 1200, and probed for where no relay is between.
    pub fn mtu(&self) -> u16 {
        self.shared.quic.stats().path.current_mtu
    }

    /// Goes on over another way to the same peer: after the network has changed. What is in flight survives. For connections
    /// made by [`connect`](crate::connect) only; where the caller has an endpoint, it is the endpoint that is rebound.
    pub fn rebind(&self, datagram: Datagram) -> Result<()> {
        let Some(endpoint) = &self.shared.endpoint else {
            return Err(unsent(Kind::Unsupported, "the endpoint is the caller's own"));
        };
        let setup = |error| Error::io(Phase::Setup, error);
        let socket = Socket::new(datagram, self.shared.quic.remote_address()).map_err(setup)?;
        socket.established();
        endpoint.rebind_abstract(socket).map_err(setup)
    }

    /// Ends the connection gracefully: GOAWAY is sent, what is in flight is finished, and nothing new is taken.
    pub fn close(&self) {
        self.shared.with(|state| {
            if !state.closing && state.failure.is_none() {
                state.closing = true;
                let control = &mut state.outlets[Critical::Control as usize];
                // RFC 9114 5.2: a client's GOAWAY names a push, and none was ever granted.
                frame::put_head(frame::GOAWAY, 1, &mut control.bytes);
                varint::put(0, &mut control.bytes);
                let writer = control.writer.take();
                state.wakes.extend(writer);
            }
            State::wake_driver(state);
        });
        self.shared.changed.notify_waiters();
    }
}

fn unsent(kind: Kind, message: impl Into<Box<str>>) -> Error {
    Error::new(kind, message).with_delivery(Delivery::NotSent).with_phase(Phase::Send).with_protocol(PROTOCOL)
}

/// RFC 9110 10.1.1.
fn expects(parts: &Parts) -> bool {
    let value = parts.headers.get(header::EXPECT);
    value.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

async fn respond(
    mut reading: Box<Reading>,
    hold: Option<Hold>,
    on_informational: Option<&OnInformational>,
    datagrams: Option<Datagrams>,
) -> Result<Response<RecvBody>> {
    let (status, headers, ended) = answer(&mut reading, hold, on_informational).await?;
    Ok(response(status, headers, (!ended).then_some(reading), datagrams))
}

/// The final head, and whether the stream has ended with it.
async fn answer(
    reading: &mut Reading,
    mut hold: Option<Hold>,
    on_informational: Option<&OnInformational>,
) -> Result<(StatusCode, HeaderMap, bool)> {
    loop {
        let piece = poll_fn(|cx| {
            if let Some(hold) = &mut hold {
                hold.poll(cx);
            }
            reading.poll_piece(cx)
        });
        match piece.await? {
            Piece::Informational(response) => {
                if let Some(hold) = hold.as_mut().filter(|_| response.status() == StatusCode::CONTINUE) {
                    hold.release();
                }
                if let Some(callback) = on_informational {
                    callback.call(response);
                }
            }
            Piece::Head(status, headers) => {
                let ended = poll_fn(|cx| Poll::Ready(reading.has_ended(cx))).await?;
                return Ok((status, headers, ended));
            }
            // Before the head there is nothing else; reading would have said so.
            Piece::Data(_) | Piece::Trailers(_) | Piece::End => {
                return Err(Error::protocol(PROTOCOL, "the stream ended without a response"));
            }
        }
    }
}

fn response(
    status: StatusCode,
    headers: HeaderMap,
    reading: Option<Box<Reading>>,
    datagrams: Option<Datagrams>,
) -> Response<RecvBody> {
    let mut response = Response::new(RecvBody::new(reading));
    *response.version_mut() = Version::HTTP_3;
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    if let Some(datagrams) = datagrams {
        response.extensions_mut().insert(datagrams);
    }
    response
}
