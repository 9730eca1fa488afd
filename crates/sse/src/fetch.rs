//! What opens a stream: the HTTP client beneath.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue};
use http::{Response, header};
use http_body::Body;
use portolan_core::{BoxError, Result};

/// The header that tells the server where to go on.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Opens the stream of events, again and again.
///
/// A closure is one:
///
/// ```
/// # use std::sync::Arc;
/// # use portolan_sse::{EventSource, Options, headers};
/// # fn example(client: portolan_http2::SendRequest) {
/// let source = EventSource::new(
///     move |last_id: Option<Arc<str>>| {
///         let client = client.clone();
///         async move {
///             let mut request = http::Request::get("http://localhost/events").body(String::new()).unwrap();
///             headers(request.headers_mut(), last_id.as_deref());
///             client.send(request).await
///         }
///     },
///     Options::new(),
/// );
/// # }
/// ```
pub trait Fetch {
    /// The response's body.
    type Body: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static;

    /// Sends the request, with what [`headers`] adds to it. Redirects are followed here, and a deadline for the head of the
    /// response is kept here; status and content type are checked by the source.
    fn fetch(
        &mut self,
        last_event_id: Option<Arc<str>>,
    ) -> impl Future<Output = Result<Response<Self::Body>>> + Send + 'static;
}

impl<F, R, B> Fetch for F
where
    F: FnMut(Option<Arc<str>>) -> R,
    R: Future<Output = Result<Response<B>>> + Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    type Body = B;

    fn fetch(&mut self, last_event_id: Option<Arc<str>>) -> impl Future<Output = Result<Response<B>>> + Send + 'static {
        self(last_event_id)
    }
}

/// Adds what the request for a stream of events says: `Accept`, `Cache-Control`, and `Last-Event-ID` when there is one.
///
/// An id that no header can carry (it holds a control character) is left out: the server then sends what it sends to a new
/// client.
pub fn headers(headers: &mut HeaderMap, last_event_id: Option<&str>) {
    headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.remove(LAST_EVENT_ID);
    let id = last_event_id.filter(|id| !id.is_empty());
    if let Some(Ok(value)) = id.map(|id| HeaderValue::from_bytes(id.as_bytes())) {
        headers.insert(LAST_EVENT_ID, value);
    }
}

/// Whether the response is a stream of events: `text/event-stream`, with any parameters.
pub(crate) fn is_event_stream(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("text/event-stream")
}
