//! The response of a call that is observed to its end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use portolan_core::observe::{Facts, Flight, Outcome};
use portolan_core::{BoxError, Error, Result};

use super::idle::InUse;
use crate::status::{Code, Status};

pin_project! {
    /// The body of a [`Channel`](crate::Channel)'s response. Where observers listen they are told of the call when its status
    /// has come; the channel doesn't rest before it is let go.
    #[derive(Debug)]
    pub struct Observed<B> {
        #[pin]
        body: B,
        flight: Option<Flight>,
        in_use: Option<InUse>,
    }
}

impl<B> Observed<B> {
    pub(super) fn by_nobody(response: Response<B>, in_use: Option<InUse>) -> Response<Self> {
        response.map(|body| Self { body, flight: None, in_use })
    }

    pub(super) fn new(response: Response<B>, mut flight: Flight, in_use: Option<InUse>) -> Response<Self> {
        let http = response.status();
        if http != StatusCode::OK {
            tell(&mut flight, Status::new(Code::from_http(http), format!("HTTP status {http}")));
        }
        // A status in the head is all that comes.
        tell_trailers(&mut flight, response.headers());
        response.map(|body| Self { body, flight: Some(flight), in_use })
    }
}

fn tell(flight: &mut Flight, status: Status) {
    let facts = Facts::default().status(status.code().number());
    let result = if status.code() == Code::Ok { Ok(()) } else { Err(Error::from(status)) };
    flight.end(facts, Outcome::of(&result));
}

fn tell_trailers(flight: &mut Flight, trailers: &HeaderMap) {
    if let Some(status) = Status::from_trailers(trailers) {
        tell(flight, status);
    }
}

fn tell_frame(flight: &mut Flight, frame: Option<&Result<Frame<Bytes>, BoxError>>) {
    match frame {
        Some(Ok(frame)) => frame.trailers_ref().into_iter().for_each(|trailers| tell_trailers(flight, trailers)),
        Some(Err(error)) => {
            if let Some(error) = error.downcast_ref() {
                flight.end(Facts::default(), Outcome::Failed(error));
            }
        }
        None => flight.end(Facts::default(), Outcome::of(&Ok(()))),
    }
}

impl<B> Body for Observed<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        let frame = ready!(this.body.poll_frame(cx)).map(|frame| frame.map_err(Into::into));
        if let Some(flight) = this.flight {
            tell_frame(flight, frame.as_ref());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
