//! One exchange, from the request's first byte to the end of the response's head.

use std::future::poll_fn;
use std::ops::DerefMut;
use std::task::{Context, Poll};
use std::time::Duration;

use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body::Body;
use portolan_core::{BoxError, Delivery, Error, Kind, Phase, Result};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::PROTOCOL;
use crate::body::RecvBody;
use crate::connection::{Connection, State};
use crate::ext::OnInformational;
use crate::head::{self, Asked, Framing};
use crate::message::{self, Ends, Head};
use crate::upload::{Sending, Upload};

/// How long the word of a peer that reads no more is awaited: it is on its way, or never comes.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Sends a request and waits for the head of its response. The connection may be held in any way; it is let go of at the
/// end of the response's body.
///
/// The request's `host`, `content-length` and `transfer-encoding` are made here where they are missing, and checked where
/// they are not. A response that comes before the request is sent ends it, if it is no success; else the rest is sent while
/// the response is read. Informational responses go to [`OnInformational`] in the request's extensions.
///
/// The error's [`delivery`](Error::delivery) says what became of the request: `NotSent` if no byte of it left, `Unknown` if
/// nothing was heard of it, `Answered` once a response had begun.
///
/// Dropping the future in the middle leaves the connection unusable.
pub async fn send<H, T, B>(conn: H, request: Request<B>) -> Result<Response<RecvBody<H, T>>>
where
    H: DerefMut<Target = Connection<T>> + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let (parts, body) = request.into_parts();
    send_parts(conn, &parts, body).await
}

/// [`send`] with a head that the caller keeps: to be sent again, should it have to be.
pub async fn send_parts<H, T, B>(mut conn: H, parts: &Parts, body: B) -> Result<Response<RecvBody<H, T>>>
where
    H: DerefMut<Target = Connection<T>> + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let length = if body.is_end_stream() { Some(0) } else { body.size_hint().exact() };
    let connection = &mut *conn;
    connection.begin()?;
    let asked =
        match head::encode(parts, length, connection.proxy.as_deref(), &connection.options, &mut connection.write) {
            Ok(asked) => asked,
            Err(error) => {
                connection.write.clear();
                connection.state = State::Idle;
                return Err(error);
            }
        };
    let stage = if asked.expect { Stage::Head } else { Stage::Body };
    let mut call = Call {
        upload: Upload::new(body, asked.framing),
        stage,
        asked,
        on_informational: parts.extensions.get::<OnInformational>(),
        seen: message::Seen::default(),
        heard: false,
        lost: None,
        informational: 0,
    };
    let result = poll_fn(|cx| call.poll(connection, cx)).await;
    let (head, ends) = match result {
        Ok(answer) => answer,
        Err(error) => {
            connection.state = State::Over;
            return Err(error.with_protocol(PROTOCOL));
        }
    };
    let Call { upload, stage, .. } = call;
    let mut rest: Option<Box<dyn Sending<T>>> = None;
    connection.keep_alive = !asked.close && head.keep_alive && ends != Ends::WithConnection;
    if stage != Stage::Sent {
        // RFC 9112 9.3: who stops in the middle of a request can send no other.
        connection.keep_alive = false;
        if stage == Stage::Body && head.parts.status.is_success() && ends != Ends::Now {
            rest = Some(Box::new(upload));
        }
    }
    let Head { parts, .. } = head;
    Ok(Response::from_parts(parts, RecvBody::new(conn, ends, rest)))
}

/// How far the request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The head goes first: the body waits for the peer's word.
    Head,
    /// The head is sent, and the word awaited.
    Expect,
    Body,
    Sent,
}

struct Call<'a, B: Body> {
    upload: Upload<B>,
    stage: Stage,
    asked: Asked,
    on_informational: Option<&'a OnInformational>,
    seen: message::Seen,
    heard: bool,
    /// Why nothing more can be sent.
    lost: Option<Error>,
    informational: usize,
}

impl<B> Call<'_, B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    fn poll<T>(&mut self, conn: &mut Connection<T>, cx: &mut Context<'_>) -> Poll<Result<(Head, Ends)>>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        loop {
            if self.lost.is_none()
                && let Err(error) = self.poll_request(conn, cx)
            {
                if matches!(error.kind(), Kind::Usage | Kind::Timeout) {
                    return Poll::Ready(Err(error));
                }
                // What the peer said before it stopped listening explains more than that it did. The end of a socket is told to
                // who writes before what came ahead of it is told to who reads.
                self.lost = Some(error);
                conn.alarm.after(Some(LAST_WORDS));
            }
            let stage = self.stage;
            match self.poll_response(conn, cx) {
                Ok(Some(head)) => return Poll::Ready(message::body(&head, &self.asked).map(|ends| (head, ends))),
                Ok(None) if self.lost.is_some() && conn.alarm.poll(cx).is_pending() => return Poll::Pending,
                Ok(None) if self.lost.is_none() && self.stage != stage => continue,
                Ok(None) => {
                    if let Some(lost) = self.lost.take() {
                        return Poll::Ready(Err(lost));
                    }
                }
                Err(error) if error.is_closed() && !self.heard => {
                    return Poll::Ready(Err(self.lost.take().unwrap_or(error)));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
            if !matches!(self.stage, Stage::Expect | Stage::Sent) || conn.alarm.poll(cx).is_pending() {
                return Poll::Pending;
            }
            if self.stage == Stage::Expect {
                // RFC 9110 10.1.1: no word for a while is leave to go on.
                self.stage = Stage::Body;
                continue;
            }
            let limit = conn.options.first_byte.unwrap_or_default();
            return Poll::Ready(Err(Error::timeout(Phase::FirstByte, limit).with_delivery(self.delivery())));
        }
    }

    fn poll_request<T>(&mut self, conn: &mut Connection<T>, cx: &mut Context<'_>) -> Result<()>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        match self.stage {
            Stage::Head => {
                if let Poll::Ready(sent) = self.upload.poll_head(conn, cx) {
                    sent?;
                    self.stage = Stage::Expect;
                    conn.alarm.after(Some(conn.options.expect));
                }
            }
            Stage::Body => {
                if let Poll::Ready(sent) = self.upload.poll_send(conn, cx) {
                    sent?;
                    self.stage = Stage::Sent;
                    conn.alarm.after(conn.options.first_byte);
                }
            }
            Stage::Expect | Stage::Sent => {}
        }
        Ok(())
    }

    /// The final head, if it has come.
    fn poll_response<T>(&mut self, conn: &mut Connection<T>, cx: &mut Context<'_>) -> Result<Option<Head>>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        loop {
            if !conn.read.is_empty()
                && let Some(head) = message::decode(&mut conn.read, &mut self.seen, &conn.options)?
            {
                match head.parts.status {
                    StatusCode::SWITCHING_PROTOCOLS if !self.asked.upgrade => {
                        return Err(message::broken("expected no 101, since no upgrade was asked for"));
                    }
                    StatusCode::SWITCHING_PROTOCOLS => return Ok(Some(head)),
                    status if status.is_informational() => self.informed(head, conn.options.max_informational)?,
                    _ => return Ok(Some(head)),
                }
                continue;
            }
            if matches!(self.stage, Stage::Body) && self.asked.framing == Framing::None && self.lost.is_none() {
                return Ok(None);
            }
            match conn.poll_fill(cx, false) {
                Poll::Ready(Ok(0)) => {
                    let message = if self.heard {
                        "closed in the middle of a response's head"
                    } else {
                        "closed without a response"
                    };
                    let error = Error::closed(message).with_phase(Phase::FirstByte);
                    return Err(error.with_delivery(self.delivery()));
                }
                Poll::Ready(Ok(_)) => self.heard = true,
                Poll::Ready(Err(error)) => {
                    return Err(Error::io(Phase::FirstByte, error).with_delivery(self.delivery()));
                }
                Poll::Pending => return Ok(None),
            }
        }
    }

    fn informed(&mut self, head: Head, max: usize) -> Result<()> {
        self.informational += 1;
        if self.informational > max {
            let error = Error::new(Kind::Limit, format!("more than {max} informational responses"));
            return Err(error.with_delivery(Delivery::Answered).with_phase(Phase::FirstByte));
        }
        if head.parts.status == StatusCode::CONTINUE && self.stage == Stage::Expect {
            self.stage = Stage::Body;
        }
        if let Some(callback) = self.on_informational {
            callback.call(Response::from_parts(head.parts, ()));
        }
        Ok(())
    }

    fn delivery(&self) -> Delivery {
        match (self.heard, self.upload.begun) {
            (true, _) => Delivery::Answered,
            (false, true) => Delivery::Unknown,
            (false, false) => Delivery::NotSent,
        }
    }
}
