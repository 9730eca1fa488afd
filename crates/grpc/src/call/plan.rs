//! What a call is to be, and the HTTP requests that it becomes.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE, USER_AGENT};
use http::uri::{PathAndQuery, Uri};
use http::{Method, Request};
use portolan_core::{Error, Result};

use crate::PROTOCOL;
use crate::body::{Body, Shape};
use crate::client::Shared;
use crate::compress::Encoding;
use crate::deadline::{Deadline, exceeded_before};
use crate::intercept::{Observers, Outgoing};
use crate::metadata::{Metadata, is_reserved};
use crate::policy::{Config, HedgingPolicy, RetryPolicy};

const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

/// A call as it was said.
pub(crate) struct Plan<T> {
    pub(crate) shared: Arc<Shared<T>>,
    pub(crate) path: PathAndQuery,
    pub(crate) suffix: &'static str,
    pub(crate) shape: Shape,
    pub(crate) metadata: Metadata,
    pub(crate) timeout: Option<Duration>,
    pub(crate) deadline: Option<Deadline>,
    pub(crate) encoding: Encoding,
    /// The encoding is only declared.
    pub(crate) plain: bool,
    pub(crate) wait_for_ready: Option<bool>,
    pub(crate) safe: bool,
    pub(crate) max_receive: usize,
    pub(crate) max_send: usize,
    /// What holds for this call, from its first attempt to its last.
    pub(crate) config: Option<Arc<Config>>,
    /// Apart, since most calls have none.
    pub(crate) repeat: Option<Box<Repeat>>,
}

/// How attempts follow one another, as the service config says.
#[derive(Debug, Clone)]
pub(crate) enum Repeat {
    Retry(RetryPolicy),
    Hedge(HedgingPolicy),
}

impl<T> Plan<T> {
    pub(crate) fn new(shared: Arc<Shared<T>>, path: PathAndQuery, suffix: &'static str, shape: Shape) -> Self {
        Self {
            path,
            suffix,
            shape,
            metadata: Metadata::new(),
            timeout: shared.timeout,
            deadline: None,
            encoding: shared.encoding,
            plain: false,
            wait_for_ready: None,
            safe: false,
            max_receive: shared.max_receive,
            max_send: shared.max_send,
            repeat: None,
            config: None,
            shared,
        }
    }

    /// How messages are compressed where nothing else is said of them.
    pub(crate) fn message_encoding(&self) -> Encoding {
        if self.plain { Encoding::Identity } else { self.encoding }
    }

    /// Looks up what the service config says, fixes the deadline, and asks the interceptors.
    pub(crate) async fn prepare(&mut self) -> Result<()> {
        self.limit();
        self.configure().await;
        self.limit();
        let mut asked = Ok(());
        if !self.shared.interceptors.is_empty() {
            asked = Deadline::bound(self.deadline, Box::pin(self.ask())).await;
        }
        if self.deadline.is_some_and(|deadline| deadline.left().is_zero()) {
            return Err(exceeded_before());
        }
        asked
    }

    /// The earliest of the deadlines that are known.
    fn limit(&mut self) {
        let timeout = self.timeout.map(Deadline::after);
        self.deadline = [self.deadline, timeout, Deadline::current()].into_iter().flatten().min();
    }

    async fn configure(&mut self) {
        self.config = self.shared.config.clone();
        if let (None, Some(asked)) = (&self.config, &self.shared.asked) {
            self.config = Box::pin(asked.config(self.deadline.map(Deadline::left))).await;
        }
        let whole = self.config.clone();
        let config = whole.as_ref().and_then(|config| config.service.for_path(self.path.path()));
        if let Some(config) = config {
            self.timeout = [self.timeout, config.timeout].into_iter().flatten().min();
            self.wait_for_ready = self.wait_for_ready.or(config.wait_for_ready);
            self.max_receive = config.max_response.map_or(self.max_receive, |max| self.max_receive.min(max));
            self.max_send = config.max_request.map_or(self.max_send, |max| self.max_send.min(max));
            let retry = config.retry.clone().map(Repeat::Retry);
            self.repeat = retry.or_else(|| config.hedging.clone().map(Repeat::Hedge)).map(Box::new);
        }
    }

    async fn ask(&mut self) -> Result<()> {
        let mut call = Outgoing {
            path: self.path.path().into(),
            shape: self.shape,
            metadata: std::mem::take(&mut self.metadata),
            deadline: self.deadline,
        };
        let all = Arc::clone(&self.shared.interceptors);
        for interceptor in all.iter() {
            interceptor.request(&mut call).await?;
        }
        (self.metadata, self.deadline) = (call.metadata, call.deadline);
        Ok(())
    }

    /// Whoever wants to know how the call ends.
    pub(crate) fn observers(&self) -> Option<Observers> {
        Observers::new(&self.shared.interceptors, self.shared.meter.as_ref(), self.path.path())
    }

    /// The HTTP request of one attempt, of which `before` were made already.
    pub(crate) fn request(&self, before: u32, body: Body) -> Result<Request<Body>> {
        let shared = &self.shared;
        let mut parts = http::uri::Parts::default();
        (parts.scheme, parts.authority) = (Some(shared.scheme.clone()), Some(shared.authority.clone()));
        parts.path_and_query = Some(self.path.clone());
        let invalid =
            |error| Error::usage("no URI can be made of the method").with_protocol(PROTOCOL).with_source(error);
        let wait = self.wait_for_ready.unwrap_or(shared.wait_for_ready);
        let mut request = Request::new(body.for_call(self.shape, wait, self.safe));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_parts(parts).map_err(invalid)?;
        *request.version_mut() = http::Version::HTTP_2;
        *request.headers_mut() = self.headers(before)?;
        Ok(request)
    }

    fn headers(&self, before: u32) -> Result<HeaderMap> {
        let mut headers = HeaderMap::with_capacity(8 + self.metadata.as_headers().len());
        // The servers of grpc-go want `te` and the content type before all custom metadata.
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONTENT_TYPE, content_type(self.suffix)?);
        headers.insert(USER_AGENT, self.shared.user_agent.clone());
        if let Some(deadline) = self.deadline {
            headers.insert(TIMEOUT, deadline.header()?);
        }
        if self.encoding != Encoding::Identity {
            headers.insert(ENCODING, HeaderValue::from_static(self.encoding.name()));
        }
        headers.insert(ACCEPT_ENCODING, self.shared.accept.clone());
        if before > 0 {
            headers.insert(PREVIOUS_ATTEMPTS, HeaderValue::from(before));
        }
        // What came from elsewhere, such as the metadata of a call that is handed on, may hold names that are the protocol's.
        let own = self.metadata.as_headers().iter().filter(|(name, _)| !is_reserved(name.as_str()));
        headers.extend(own.map(|(name, value)| (name.clone(), value.clone())));
        Ok(headers)
    }
}

fn content_type(suffix: &'static str) -> Result<HeaderValue> {
    Ok(match suffix {
        "" => HeaderValue::from_static("application/grpc"),
        "+proto" => HeaderValue::from_static("application/grpc+proto"),
        "+json" => HeaderValue::from_static("application/grpc+json"),
        other => HeaderValue::try_from(format!("application/grpc{other}"))
            .map_err(|_| Error::usage("the codec's suffix is no part of a content type").with_protocol(PROTOCOL))?,
    })
}
