//! The response: its head checked, its messages one by one, its status at the end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap};
use http::{Response, StatusCode};
use http_body::Body;
use portolan_core::{BoxError, Delivery, Error, Kind, Phase, Result};

use crate::PROTOCOL;
use crate::compress::Encoding;
use crate::frame::{Deframer, Frame, Frames};
use crate::metadata::Metadata;
use crate::meter::Attempt;
use crate::status::{Code, Status, with_status};

/// A response whose head was accepted.
pub(crate) struct Opened<B> {
    pub(crate) metadata: Metadata,
    pub(crate) reader: Reader<B>,
}

/// A message, and whether it came compressed.
pub(crate) type Payload = (Bytes, bool);

/// Reads the messages of a response.
pub(crate) struct Reader<B> {
    body: B,
    deframer: Deframer,
    /// What compressed messages are compressed by; `None` if we don't know it.
    encoding: Option<Encoding>,
    max: usize,
    /// The good status, where the head held one.
    early: Option<Status>,
    trailers: Option<HeaderMap>,
    ended: bool,
    meter: Option<Attempt>,
}

/// An error of what the server sent.
pub(crate) fn broken(code: Code, message: impl Into<Box<str>>) -> Error {
    Status::local(Kind::Protocol, code, message).with_delivery(Delivery::Answered)
}

impl<B> Opened<B> {
    /// Checks the head of a response. A response that is only a status (trailers alone) is that status.
    pub(crate) fn new(response: Response<B>, suffix: &str, max: usize) -> Result<Self> {
        let (parts, body) = response.into_parts();
        let headers = parts.headers;
        let early = Status::from_trailers(&headers);
        if parts.status != StatusCode::OK {
            return Err(not_grpc(parts.status, early, headers));
        }
        check_content_type(&headers, suffix)?;
        // A status in the head is the whole response ("Trailers-Only"), whether its end has been seen yet or not.
        if let Some(status) = early.clone().filter(|status| status.code() != Code::Ok) {
            return Err(status.with_metadata(Metadata::from_headers(headers)).into());
        }
        let encoding = headers
            .get("grpc-encoding")
            .map_or(Some(Encoding::Identity), |name| name.to_str().ok().and_then(Encoding::from_name));
        let reader = Reader {
            body,
            deframer: Deframer::new(Frames::new(max)),
            encoding,
            max,
            early,
            trailers: None,
            ended: false,
            meter: None,
        };
        Ok(Self { metadata: Metadata::from_headers(headers), reader })
    }

    /// The attempt is measured to its end.
    pub(crate) fn metered(mut self, attempt: Attempt) -> Self {
        self.reader.meter = Some(attempt);
        self
    }

    /// The body by itself, to be pinned and put back by [`map`](Self::map).
    pub(crate) fn split(self) -> (Opened<()>, B) {
        let Reader { body, deframer, encoding, max, early, trailers, ended, meter } = self.reader;
        let reader = Reader { body: (), deframer, encoding, max, early, trailers, ended, meter };
        (Opened { metadata: self.metadata, reader }, body)
    }

    pub(crate) fn map<O>(self, map: impl FnOnce(B) -> O) -> Opened<O> {
        let (Opened { metadata, reader }, body) = self.split();
        let Reader { body: (), deframer, encoding, max, early, trailers, ended, meter } = reader;
        let reader = Reader { body: map(body), deframer, encoding, max, early, trailers, ended, meter };
        Opened { metadata, reader }
    }
}

fn not_grpc(http: StatusCode, status: Option<Status>, headers: HeaderMap) -> Error {
    let status = status.filter(|status| status.code() != Code::Ok);
    let status = status.unwrap_or_else(|| Status::new(Code::from_http(http), format!("HTTP status {http}")));
    status.with_metadata(Metadata::from_headers(headers)).into()
}

/// The content type is that of gRPC, and its messages are what was asked for.
fn check_content_type(headers: &HeaderMap, suffix: &str) -> Result<()> {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let Some(value) = value else { return Err(broken(Code::Unknown, "a response without a content type")) };
    if value == "application/grpc" {
        return Ok(());
    }
    let base = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let theirs = base.strip_prefix("application/grpc").filter(|rest| rest.is_empty() || rest.starts_with('+'));
    match theirs {
        Some(theirs) if theirs.is_empty() || suffix.is_empty() && theirs != "+json" || theirs == suffix => Ok(()),
        // Never the whole value: it is the peer's, of any length.
        _ => Err(broken(Code::Unknown, format!("a response of content type {:.60}", base))),
    }
}

impl<B> Reader<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    /// The next message; `None` once the status has come and was good.
    pub(crate) fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Payload>>> {
        let polled = ready!(self.poll_next(cx));
        if let Some(meter) = &mut self.meter {
            match &polled {
                Ok(Some(_)) => {}
                Ok(None) => meter.end(Code::Ok),
                Err(error) => meter.end(Status::of(error).code()),
            }
        }
        Poll::Ready(polled)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Payload>>> {
        loop {
            let frame = self.deframer.next().map_err(|error| self.malformed(error.into_error(PROTOCOL)))?;
            if let Some(frame) = frame {
                if let Some(meter) = &mut self.meter {
                    meter.received(frame.data.len());
                }
                return Poll::Ready(self.open(frame).map(Some));
            }
            if self.ended {
                return Poll::Ready(self.finish().map(|()| None));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => self.take(frame)?,
                Some(Err(error)) => return Poll::Ready(Err(on_the_way(error.into()))),
                None => self.ended = true,
            }
        }
    }

    fn take(&mut self, frame: http_body::Frame<Bytes>) -> Result<()> {
        match frame.into_data() {
            Ok(data) => self.deframer.push(data),
            Err(frame) => {
                let Ok(trailers) = frame.into_trailers() else { return Ok(()) };
                self.ended = true;
                self.trailers = Some(trailers);
            }
        }
        Ok(())
    }

    fn open(&self, frame: Frame) -> Result<Payload> {
        if !frame.is_compressed() {
            return Ok((frame.data, false));
        }
        let unknown = || broken(Code::Internal, "a message compressed by an encoding that was not offered");
        let encoding = self.encoding.ok_or_else(unknown)?;
        let plain = encoding.inflate(&frame.data, self.max).map_err(|error| self.malformed(error))?;
        Ok((plain, true))
    }

    fn malformed(&self, error: Error) -> Error {
        let code = if error.kind() == Kind::Limit { Code::ResourceExhausted } else { Code::Internal };
        let status = Status::new(code, error.message());
        error.with_delivery(Delivery::Answered).with_code(code.number()).with_reply(status)
    }

    /// What the end of the response says.
    fn finish(&mut self) -> Result<()> {
        let cut = !self.deframer.is_empty();
        let status = match &self.trailers {
            Some(trailers) => {
                Status::from_trailers(trailers).ok_or_else(|| broken(Code::Unknown, "trailers without grpc-status"))?
            }
            // The head had it, and nothing came after it.
            None => match self.early.take() {
                Some(status) => status,
                None => return Err(broken(Code::Internal, "the response ended without trailers")),
            },
        };
        if status.code() != Code::Ok {
            return Err(status.with_metadata(Metadata::from_headers(self.trailers.clone().unwrap_or_default())).into());
        }
        if cut {
            return Err(broken(Code::Internal, "the response ended within a message"));
        }
        Ok(())
    }

    /// The trailing metadata, once the messages are over.
    pub(crate) fn take_trailers(&mut self) -> Metadata {
        Metadata::from_headers(self.trailers.take().unwrap_or_default())
    }
}

/// The error of a response that broke off.
pub(crate) fn on_the_way(error: BoxError) -> Error {
    let error = match error.downcast::<Error>() {
        Ok(error) => *error,
        Err(error) => Error::closed("the response broke off").with_phase(Phase::Idle).with_source(error),
    };
    with_status(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn content_type(value: &'static str, suffix: &str) -> bool {
        let map = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(value))]);
        check_content_type(&map, suffix).is_ok()
    }

    #[test]
    fn only_grpc_of_the_kind_asked_for_is_grpc() {
        assert!(content_type("application/grpc", "+json"));
        assert!(content_type("application/grpc+proto", ""));
        assert!(content_type("application/grpc+proto; charset=utf-8", "+proto"));
        assert!(content_type("Application/gRPC;x", "+proto"));
        assert!(content_type("application/grpc+json", "+json"));
        for value in
            ["application/grpc-web", "application/grpcx", "text/html", "application/json", "", "application/grpc+json"]
        {
            assert!(!content_type(value, "+proto"), "{value}");
        }
        assert!(!content_type("application/grpc+json", ""));
        assert!(check_content_type(&HeaderMap::new(), "").is_err());
    }
}
