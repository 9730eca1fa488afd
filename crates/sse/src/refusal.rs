//! An answer that is no stream of events, and what it says.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::response::Parts;
use http::{HeaderMap, StatusCode};
use http_body::Body;
use portolan_core::{Delivery, Error, Kind, Phase};
use portolan_wire::Alarm;

use crate::PROTOCOL;

/// How much of the body is kept.
const MAX_BODY: usize = 16 << 10;
/// How long the body may take: it is a courtesy, and the refusal is known already.
const BODY_TIME: Duration = Duration::from_secs(5);

/// An answer that is no stream of events. [`Error::server`] gives it: interfaces say in its body what is wrong with the
/// request.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Rejected {
    /// The status; 200 if the content type was the wrong one.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The first 16 KiB of the body.
    pub body: Bytes,
}

/// A refusal whose body is coming.
pub(crate) struct Refusal<B> {
    parts: Parts,
    body: B,
    start: BytesMut,
    alarm: Alarm,
}

impl<B: Body<Data = Bytes> + Unpin> Refusal<B> {
    pub(crate) fn new(parts: Parts, body: B) -> Self {
        let mut alarm = Alarm::default();
        alarm.after(Some(BODY_TIME));
        Self { parts, body, start: BytesMut::new(), alarm }
    }

    /// Whether the same request may be answered in another way later.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self.parts.status.as_u16(), 429 | 500 | 502 | 503 | 504)
    }

    /// The error, once the start of the body is here, or late, or broken.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        while self.start.len() < MAX_BODY {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let data = frame.into_data().unwrap_or_default();
                    let room = MAX_BODY.saturating_sub(self.start.len()).min(data.len());
                    self.start.extend_from_slice(data.get(..room).unwrap_or_default());
                }
                Poll::Ready(_) => break,
                Poll::Pending => {
                    std::task::ready!(self.alarm.poll(cx));
                    break;
                }
            }
        }
        Poll::Ready(self.error())
    }

    fn error(&mut self) -> Error {
        let (status, headers) = (self.parts.status, std::mem::take(&mut self.parts.headers));
        let after = portolan_http::retry_after(&headers);
        let rejected = Rejected { status, headers, body: std::mem::take(&mut self.start).freeze() };
        let error = if status == StatusCode::OK {
            let what = "the content type is not text/event-stream";
            Error::from_server(PROTOCOL, what, rejected).with_kind(Kind::Protocol).with_delivery(Delivery::Answered)
        } else {
            let error = Error::from_server(PROTOCOL, "the server opened no stream of events", rejected);
            error.with_code(i64::from(status.as_u16())).with_delivery(Delivery::Answered)
        };
        let error = error.with_phase(Phase::FirstByte);
        match after {
            Some(after) => error.with_retry_after(after),
            None => error,
        }
    }
}
