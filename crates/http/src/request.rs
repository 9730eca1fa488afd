//! Requests, as they are put together.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Extensions, Method, Uri};
use portolan_core::{Connector, Credentials, Error, Hop, Limit, Result, Secret, Timeouts};
use portolan_pool::Retry;

use crate::body::Body;
use crate::cache::Known;
use crate::client::Client;
use crate::key::Keepalive;
use crate::multipart::Form;
use crate::redirect::Redirect;
use crate::response::Response;
use crate::sign::{By, Sign};
use crate::uri::IntoUri;
use crate::version::Version;

/// A request with everything that is said about how it is to be sent.
pub struct Request {
    pub(crate) parts: Parts,
    pub(crate) body: Body,
    pub(crate) options: Options,
}

/// What one request wants otherwise than its client does.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    pub(crate) more: Option<Box<More>>,
}

/// What few requests say.
#[derive(Debug, Clone, Default)]
pub(crate) struct More {
    pub(crate) timeouts: Timeouts,
    pub(crate) version: Option<Version>,
    pub(crate) connector: Option<Connector>,
    pub(crate) keepalive: Option<Keepalive>,
    pub(crate) redirect: Option<Redirect>,
    pub(crate) retry: Option<Retry>,
    pub(crate) idempotent: Option<bool>,
    pub(crate) digest: Option<Credentials>,
    pub(crate) hedge: Option<Duration>,
    /// Answers to what redirects may lead to.
    pub(crate) known: Option<Known>,
    /// Bodies come as they are on the wire.
    pub(crate) raw: bool,
    pub(crate) signer: Option<By>,
    /// Whatever the client says; where the request has left its origin, too.
    pub(crate) unsigned: bool,
}

impl Options {
    pub(crate) fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }
}

impl Request {
    /// A request for `uri`.
    pub fn new(method: Method, uri: Uri) -> Self {
        let mut parts = http::Request::new(()).into_parts().0;
        parts.method = method;
        parts.uri = uri;
        Self { parts, body: Body::empty(), options: Options::default() }
    }

    /// The method.
    pub fn method(&self) -> &Method {
        &self.parts.method
    }

    /// The URL.
    pub fn uri(&self) -> &Uri {
        &self.parts.uri
    }

    /// The URL, to be changed.
    pub fn uri_mut(&mut self) -> &mut Uri {
        &mut self.parts.uri
    }

    /// The fields.
    pub fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// The fields, to be changed.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.parts.headers
    }

    /// What middleware passes along.
    pub fn extensions(&self) -> &Extensions {
        &self.parts.extensions
    }

    /// What middleware passes along, to be changed.
    pub fn extensions_mut(&mut self) -> &mut Extensions {
        &mut self.parts.extensions
    }

    /// The body.
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// The body, to be changed.
    pub fn body_mut(&mut self) -> &mut Body {
        &mut self.body
    }

    /// Makes an extended CONNECT of it: see [`RequestBuilder::protocol`].
    pub fn set_protocol(&mut self, name: &str) {
        self.parts.extensions.insert(portolan_http2::ext::Protocol::new(name));
        self.parts.extensions.insert(portolan_http3::ext::Protocol::new(name));
    }

    /// Bounds by phase: see [`RequestBuilder::timeouts`].
    pub fn set_timeouts(&mut self, timeouts: Timeouts) {
        let more = self.options.more();
        more.timeouts = timeouts.over(&more.timeouts);
    }

    /// How often it is tried again.
    pub fn set_retry(&mut self, retry: Retry) {
        self.options.more().retry = Some(retry);
    }

    /// How redirects are followed.
    pub fn set_redirect(&mut self, redirect: Redirect) {
        self.options.more().redirect = Some(redirect);
    }

    /// Whether a compressed body is asked for and undone, where the client does that. Default on.
    pub fn set_decompression(&mut self, on: bool) {
        self.options.more().raw = !on;
    }

    /// Which version it is sent by.
    pub fn set_version(&mut self, version: Version) {
        self.options.more().version = Some(version);
    }

    /// Who signs it as it goes out, instead of the client's signer.
    pub fn set_signer(&mut self, signer: impl Sign) {
        let more = self.options.more();
        (more.signer, more.unsigned) = (Some(By::new(signer)), false);
    }

    /// The same request once more, if its body can be had once more.
    pub fn try_clone(&self) -> Option<Self> {
        let body = self.body.try_clone()?;
        Some(Self { parts: self.parts.clone(), body, options: self.options.clone() })
    }
}

impl<B: Into<Body>> From<http::Request<B>> for Request {
    fn from(request: http::Request<B>) -> Self {
        let (mut parts, body) = request.into_parts();
        if let Err(error) = crate::auth::from_uri(&mut parts) {
            tracing::debug!(%error, "credentials left out");
        }
        Self { parts, body: body.into(), options: Options::default() }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.parts.method)
            .field("uri", &crate::uri::Redacted(&self.parts.uri))
            .field("body", &self.body)
            .finish_non_exhaustive()
    }
}

/// Puts a request together. What is wrong is kept, and comes out when it is sent.
///
/// `By` is how it is sent: awaited, or waited for (`blocking::RequestBuilder`, with the feature `blocking`).
#[must_use = "a request does nothing until it is sent"]
#[derive(Debug)]
pub struct RequestBuilder<By = ()> {
    client: Client,
    request: Result<Box<Request>>,
    by: By,
}

impl<By> RequestBuilder<By> {
    fn new(client: Client, method: Method, uri: Result<Uri>, by: By) -> Self {
        let request = uri.and_then(|uri| {
            let mut request = Request::new(method, uri);
            crate::auth::from_uri(&mut request.parts)?;
            Ok(Box::new(request))
        });
        Self { client, request, by }
    }

    fn map(mut self, change: impl FnOnce(&mut Request) -> Result<()>) -> Self {
        if let Ok(request) = &mut self.request
            && let Err(error) = change(request)
        {
            self.request = Err(error);
        }
        self
    }

    /// Adds a field; one of the same name stays.
    pub fn header<K, V>(self, name: K, value: V) -> Self
    where
        K: TryInto<HeaderName>,
        V: TryInto<HeaderValue>,
    {
        self.map(|request| {
            let name = name.try_into().map_err(|_| Error::usage("an invalid field name"))?;
            let value = value.try_into().map_err(|_| Error::usage(format!("an invalid value of {name}")))?;
            request.parts.headers.append(name, value);
            Ok(())
        })
    }

    /// Sets fields: those of the same names are replaced.
    pub fn headers(self, headers: HeaderMap) -> Self {
        self.map(|request| {
            let names: Vec<HeaderName> = headers.keys().cloned().collect();
            for name in names {
                request.parts.headers.remove(&name);
                for value in headers.get_all(&name) {
                    request.parts.headers.append(name.clone(), value.clone());
                }
            }
            Ok(())
        })
    }

    /// Adds to the query what serialises as pairs: an array, a slice or a map of them, a struct. Encoded as forms are.
    ///
    /// ```
    /// let client = portolan_http::Client::new();
    /// let request = client.get("http://example.org/").query(&[("page", 2)]).query([("q", "a b")]).build()?;
    /// assert_eq!(request.uri().query(), Some("page=2&q=a+b"));
    /// # Ok::<(), portolan_core::Error>(())
    /// ```
    pub fn query<T: serde::Serialize>(self, pairs: T) -> Self {
        self.map(|request| {
            let encoded = crate::uri::form(pairs)?;
            request.parts.uri = crate::uri::with_query(&request.parts.uri, &encoded)?;
            Ok(())
        })
    }

    /// The body.
    pub fn body(self, body: impl Into<Body>) -> Self {
        self.map(|request| {
            request.body = body.into();
            Ok(())
        })
    }

    /// A body of pairs, as a form sends them: whatever [`query`](Self::query) takes.
    pub fn form<T: serde::Serialize>(self, pairs: T) -> Self {
        self.map(|request| {
            request.body = crate::uri::form(pairs)?.into();
            let value = HeaderValue::from_static("application/x-www-form-urlencoded");
            request.parts.headers.entry(header::CONTENT_TYPE).or_insert(value);
            Ok(())
        })
    }

    /// A body of JSON.
    #[cfg(feature = "json")]
    pub fn json<T: serde::Serialize + ?Sized>(self, value: &T) -> Self {
        self.map(|request| {
            let text = serde_json::to_vec(value)
                .map_err(|error| Error::usage("a value that is no JSON").with_source(error))?;
            request.body = text.into();
            let value = HeaderValue::from_static("application/json");
            request.parts.headers.entry(header::CONTENT_TYPE).or_insert(value);
            Ok(())
        })
    }

    /// `Authorization: Basic`.
    pub fn basic_auth(self, user: impl AsRef<str>, password: impl Into<Secret>) -> Self {
        self.map(|request| {
            let value = crate::auth::basic(user.as_ref(), &password.into())?;
            request.parts.headers.insert(header::AUTHORIZATION, value);
            Ok(())
        })
    }

    /// `Authorization: Bearer`.
    pub fn bearer_auth(self, token: impl Into<Secret>) -> Self {
        self.map(|request| {
            let value = crate::auth::bearer(&token.into())?;
            request.parts.headers.insert(header::AUTHORIZATION, value);
            Ok(())
        })
    }

    /// Answers a Digest challenge (RFC 7616): the request is sent once more with what the server asked for, if its body can
    /// be had once more.
    pub fn digest_auth(self, user: impl Into<String>, password: impl Into<Secret>) -> Self {
        self.map(|request| {
            request.options.more().digest = Some(Credentials::new(user, password));
            Ok(())
        })
    }

    /// Signs the request as it goes out, instead of the client's signer.
    pub fn sign(self, signer: impl Sign) -> Self {
        self.map(|request| {
            request.set_signer(signer);
            Ok(())
        })
    }

    /// Leaves the request unsigned, whatever the client says.
    pub fn unsigned(self) -> Self {
        self.map(|request| {
            request.options.more().unsigned = true;
            Ok(())
        })
    }

    /// A body of form fields and files.
    pub fn multipart(self, form: Form) -> Self {
        self.map(|request| {
            let (content_type, body) = form.encode()?;
            request.parts.headers.insert(header::CONTENT_TYPE, content_type);
            request.body = body.into();
            Ok(())
        })
    }

    /// Where an event stream is to go on: `Last-Event-ID`.
    pub fn last_event_id(self, id: impl AsRef<str>) -> Self {
        self.header("last-event-id", id.as_ref())
    }

    /// A bound for the whole call, the body's last byte included. Default none: every part has a bound of its own.
    pub fn timeout(self, limit: Duration) -> Self {
        self.map(|request| {
            let more = request.options.more();
            more.timeouts = more.timeouts.total(limit);
            Ok(())
        })
    }

    /// Bounds by phase: `first_byte`, `idle` and `total` are this request's; those of connecting are the connector's.
    pub fn timeouts(self, timeouts: Timeouts) -> Self {
        self.map(|request| {
            request.set_timeouts(timeouts);
            Ok(())
        })
    }

    /// How long the peer may take for the first byte of its response, in each attempt.
    pub fn first_byte_timeout(self, limit: impl Into<Limit>) -> Self {
        self.map(|request| {
            let more = request.options.more();
            more.timeouts = more.timeouts.first_byte(limit);
            Ok(())
        })
    }

    /// Which version this request is sent by.
    pub fn version(self, version: Version) -> Self {
        self.map(|request| {
            request.options.more().version = Some(version);
            Ok(())
        })
    }

    /// The way this request takes.
    pub fn connector(self, connector: Connector) -> Self {
        self.map(|request| {
            request.options.more().connector = Some(connector);
            Ok(())
        })
    }

    /// Sends this request through a proxy instead of the client's. Its connection is its own: for many requests by one proxy,
    /// make a [`Connector`] and say [`connector`](Self::connector).
    pub fn proxy(self, hop: Hop) -> Self {
        let connector = self.client.connector().to_builder().without_hops().via(hop).build();
        self.map(|request| {
            request.options.more().connector = Some(connector?);
            Ok(())
        })
    }

    /// A connection made for this request is kept alive by PING: after `idle` without a byte, with an answer due within
    /// `timeout`. One that is there already is used as it is.
    pub fn h2_keepalive(self, idle: Duration, timeout: Duration) -> Self {
        self.map(|request| {
            request.options.more().keepalive = Some(Some(Arc::new((idle, timeout))));
            Ok(())
        })
    }

    /// A connection made for this request is not kept alive by PING, whatever the client says.
    pub fn disable_h2_keepalive(self) -> Self {
        self.map(|request| {
            request.options.more().keepalive = Some(None);
            Ok(())
        })
    }

    /// How redirects of this request are followed.
    pub fn redirect(self, redirect: Redirect) -> Self {
        self.map(|request| {
            request.options.more().redirect = Some(redirect);
            Ok(())
        })
    }

    /// How often this request is tried again.
    pub fn retry(self, retry: Retry) -> Self {
        self.map(|request| {
            request.options.more().retry = Some(retry);
            Ok(())
        })
    }

    /// Sends the request once more if no response has begun within `after`, and takes whichever answers first: for requests
    /// that do no harm twice and must not be late. Only idempotent requests whose body can be had once more are hedged.
    pub fn hedge(self, after: Duration) -> Self {
        self.map(|request| {
            request.options.more().hedge = Some(after);
            Ok(())
        })
    }

    /// Whether doing it twice does no harm, where the method doesn't say. A request with an `Idempotency-Key` is taken for
    /// one.
    pub fn idempotent(self, on: bool) -> Self {
        self.map(|request| {
            request.options.more().idempotent = Some(on);
            Ok(())
        })
    }

    /// Holds the body back until the server asks for it, or has said nothing for a while (`expect: 100-continue`, RFC 9110
    /// 10.1.1): for large bodies that may not be wanted. A server that can't do that (417) is asked once more without.
    pub fn expect_continue(self) -> Self {
        self.map(|request| {
            request.parts.headers.insert(header::EXPECT, HeaderValue::from_static("100-continue"));
            Ok(())
        })
    }

    /// Called with each informational response (1xx), 103 Early Hints among them.
    pub fn on_informational(self, callback: impl Fn(http::Response<()>) + Send + Sync + 'static) -> Self {
        let callback: Arc<dyn Fn(http::Response<()>) + Send + Sync> = Arc::new(callback);
        self.map(|request| {
            let extensions = &mut request.parts.extensions;
            let call = callback.clone();
            extensions.insert(portolan_http1::ext::OnInformational::new(move |response| call(response)));
            let (second, third) = (callback.clone(), callback.clone());
            extensions.insert(portolan_http2::ext::OnInformational::new(move |response| second(response)));
            extensions.insert(portolan_http3::ext::OnInformational::new(move |response| third(response)));
            Ok(())
        })
    }

    /// Makes an extended CONNECT of it (RFC 8441, RFC 9220): a stream of HTTP/2 or HTTP/3 that speaks another protocol, such as
    /// `websocket`. The method must be CONNECT; over HTTP/1.1, and where the server doesn't allow it, it fails unsent with
    /// [`Kind::Unsupported`](portolan_core::Kind::Unsupported).
    pub fn protocol(self, name: &str) -> Self {
        self.map(|request| {
            request.set_protocol(name);
            Ok(())
        })
    }

    /// Passes something along, to middleware and to the engines beneath.
    pub fn extension<T: Clone + Send + Sync + 'static>(self, value: T) -> Self {
        self.map(|request| {
            request.parts.extensions.insert(value);
            Ok(())
        })
    }

    /// The same once more, if its body can be had once more.
    ///
    /// ```
    /// let first = portolan_http::Client::new().post("http://example.org/").body("x");
    /// assert!(first.try_clone().is_some());
    /// ```
    pub fn try_clone(&self) -> Option<Self>
    where
        By: Clone,
    {
        let request = self.request.as_ref().ok()?.try_clone()?;
        Some(Self { client: self.client.clone(), request: Ok(Box::new(request)), by: self.by.clone() })
    }

    /// The request as it stands.
    pub fn build(self) -> Result<Request> {
        self.request.map(|request| *request)
    }

    /// Who sends what, and how.
    pub(crate) fn into_parts(self) -> (Client, Result<Box<Request>>, By) {
        (self.client, self.request, self.by)
    }
}

impl RequestBuilder {
    /// Sends it, and waits for the head of the response. Dropping the future cancels the call.
    pub async fn send(self) -> Result<Response> {
        let (client, request, ()) = self.into_parts();
        client.run(request?).await
    }
}

/// Whatever names a URL, for the verbs of the client.
pub(crate) fn start<By>(client: &Client, method: Method, uri: impl IntoUri, by: By) -> RequestBuilder<By> {
    RequestBuilder::new(client.clone(), method, uri.into_uri(), by)
}
