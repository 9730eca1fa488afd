//! One attempt at a call, and a whole call of one message back.

use std::future::poll_fn;
use std::pin::pin;

use bytes::Bytes;
use portolan_core::Result;

use super::plan::Plan;
use super::reader::{Opened, broken};
use super::response::Response;
use super::upload::{Goes, Upload};
use crate::body::Body;
use crate::deadline::Deadline;
use crate::meter::{self, Sent};
use crate::status::{Code, Status, with_status};
use crate::transport::Transport;

/// What a call sends.
pub(crate) enum Content {
    /// One message, framed: it can be sent again.
    Whole(Bytes),
    /// Many messages: sent again only if none was taken.
    Stream(Upload),
}

impl From<Bytes> for Content {
    fn from(message: Bytes) -> Self {
        Self::Whole(message)
    }
}

impl From<Upload> for Content {
    fn from(upload: Upload) -> Self {
        Self::Stream(upload)
    }
}

impl Content {
    /// A body for the next attempt, if there can be one.
    pub(crate) fn body(&self) -> Option<Body> {
        match self {
            Self::Whole(message) => Some(Body::full(message.clone())),
            Self::Stream(upload) => upload.body().map(Body::stream),
        }
    }

    /// What ends the upload when it is dropped.
    pub(crate) fn take_goes(&mut self) -> Option<Goes> {
        match self {
            Self::Whole(_) => None,
            Self::Stream(upload) => upload.take_goes(),
        }
    }

    /// How much is sent.
    pub(crate) fn sent(&self) -> Sent {
        match self {
            Self::Whole(message) => Sent::Whole(meter::size(message.len())),
            Self::Stream(upload) => Sent::Stream(upload.sent()),
        }
    }

    pub(crate) fn is_whole(&self) -> bool {
        matches!(self, Self::Whole(_))
    }
}

impl<T: Transport> Plan<T> {
    /// One attempt, up to a response whose head is good. An error from here leaves the call open to another attempt.
    pub(crate) async fn attempt(&self, before: u32, content: &Content, body: Body) -> Result<Opened<T::Body>> {
        let Some(meter) = &self.shared.meter else { return self.try_once(before, body).await };
        let mut attempt = meter.attempt(self.path.path(), content.sent(), self.deadline);
        match self.try_once(before, body).await {
            Ok(opened) => Ok(opened.metered(attempt)),
            Err(error) => {
                attempt.end(Status::of(&error).code());
                Err(error)
            }
        }
    }

    async fn try_once(&self, before: u32, body: Body) -> Result<Opened<T::Body>> {
        let request = self.request(before, body)?;
        let response = self.shared.transport.send(request).await.map_err(with_status)?;
        Opened::new(response, self.suffix, self.max_receive)
    }

    /// The whole of a call that is answered by one message.
    pub(crate) async fn once(&self, mut content: Content) -> Result<Response<Bytes>> {
        let _goes = content.take_goes();
        let observers = self.observers();
        let work = async {
            let opened = self.open(content).await?;
            if let Some(observers) = &observers {
                observers.response(&opened.metadata);
            }
            single(opened).await
        };
        let result = Deadline::bound(self.deadline, work).await;
        if let Some(observers) = observers {
            match &result {
                Ok(_) => observers.finished(&Status::new(Code::Ok, "")),
                Err(error) => observers.finished(&Status::of(error)),
            }
        }
        result
    }
}

/// Reads a response that must hold one message.
async fn single<B>(opened: Opened<B>) -> Result<Response<Bytes>>
where
    B: http_body::Body<Data = Bytes, Error: Into<portolan_core::BoxError>>,
{
    let (head, body) = opened.split();
    let body = pin!(body);
    let Opened { metadata, mut reader } = head.map(|()| body);
    let first = poll_fn(|cx| reader.poll_message(cx)).await?;
    let Some((message, compressed)) = first else {
        return Err(broken(Code::Internal, "a good status without a message"));
    };
    if poll_fn(|cx| reader.poll_message(cx)).await?.is_some() {
        return Err(broken(Code::Internal, "more than one message where one belongs"));
    }
    Ok(Response::new(message, metadata, reader.take_trailers(), compressed))
}
