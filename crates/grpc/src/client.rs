//! The client: a transport, an origin, and what holds for every call.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use http::HeaderValue;
use http::uri::{Authority, PathAndQuery, Scheme};
use portolan_core::{Error, Result, Url};

use crate::PROTOCOL;
use crate::body::Shape;
use crate::call::{Call, ClientStreaming, DuplexCall, DuplexWith, ServerStreaming, Unary};
use crate::channel::Asked;
use crate::codec::Codec;
use crate::compress::Encoding;
use crate::intercept::Interceptor;
use crate::meter::{Meter, Metered};
use crate::policy::{Config, ServiceConfig};
use crate::transport::Transport;

/// The longest message taken, where nothing else is said: what other clients of gRPC take.
pub(crate) const MAX_RECEIVE: usize = 4 << 20;
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("grpc-rust-portolan/", env!("CARGO_PKG_VERSION")));

/// A method of a service: its path, and how its messages become bytes.
#[derive(Debug, Clone)]
pub struct Method<C> {
    pub(crate) path: PathAndQuery,
    pub(crate) codec: C,
    pub(crate) safe: bool,
}

impl<C: Codec> Method<C> {
    /// The method at `path`, which is `/package.Service/Method`.
    pub fn new(path: &str, codec: C) -> Result<Self> {
        let bad = || Error::usage("a method path is /package.Service/Method").with_protocol(PROTOCOL);
        let parts = path.strip_prefix('/').and_then(|rest| rest.split_once('/'));
        if !parts.is_some_and(|(service, method)| !service.is_empty() && !method.is_empty() && !method.contains('/')) {
            return Err(bad());
        }
        if path.contains(['?', '#']) {
            return Err(bad());
        }
        Ok(Self { path: PathAndQuery::try_from(path).map_err(|_| bad())?, codec, safe: false })
    }

    /// The same from a literal, for generated code. It panics if the path is none.
    pub fn from_static(path: &'static str, codec: C) -> Self {
        Self { path: PathAndQuery::from_static(path), codec, safe: false }
    }

    /// Says that calling the method changes nothing (`idempotency_level = NO_SIDE_EFFECTS`): a transport may make use of that, as
    /// [`Connect::get`](crate::Connect::get) does.
    #[must_use]
    pub fn no_side_effects(mut self) -> Self {
        self.safe = true;
        self
    }

    /// The path.
    pub fn path(&self) -> &str {
        self.path.path()
    }
}

/// Makes calls over a transport. Clones share it; the setters change this one alone.
///
/// ```no_run
/// # async fn example() -> portolan_core::Result<()> {
/// use bytes::Bytes;
/// use portolan_core::Connector;
/// use portolan_grpc::{Client, Method, Raw};
///
/// let client = Client::connect(&Connector::default(), "http://127.0.0.1:50051").await?;
/// let method = Method::new("/shop.Stock/Count", Raw::protobuf())?;
/// let reply = client.unary(&method, &Bytes::new()).metadata("x-tenant", "a").await?;
/// println!("{:?} {:?}", reply.message(), reply.trailers());
/// # Ok(()) }
/// ```
pub struct Client<T> {
    pub(crate) shared: Arc<Shared<T>>,
}

impl<T> Clone for Client<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

/// What all calls of a client share.
#[derive(Clone)]
pub(crate) struct Shared<T> {
    pub(crate) transport: T,
    pub(crate) scheme: Scheme,
    pub(crate) authority: Authority,
    pub(crate) user_agent: HeaderValue,
    pub(crate) accept: HeaderValue,
    pub(crate) encoding: Encoding,
    pub(crate) max_receive: usize,
    pub(crate) max_send: usize,
    pub(crate) timeout: Option<Duration>,
    pub(crate) wait_for_ready: bool,
    pub(crate) interceptors: Arc<[Arc<dyn Interceptor>]>,
    pub(crate) config: Option<Arc<Config>>,
    pub(crate) meter: Option<Metered>,
    /// Who knows the config where none was set.
    pub(crate) asked: Option<Arc<Asked>>,
}

impl<T: Transport> Client<T> {
    /// A client of `origin` (`http://host:port` or `https://host:port`) over a transport that leads there.
    pub fn new(transport: T, origin: &str) -> Result<Self> {
        let url = Url::parse(origin)?;
        let bad = |what: &'static str| Error::usage(what).with_protocol(PROTOCOL);
        let scheme = match url.scheme() {
            "http" => Scheme::HTTP,
            "https" => Scheme::HTTPS,
            _ => return Err(bad("an origin of gRPC begins with http:// or https://")),
        };
        let authority = Authority::try_from(url.authority()).map_err(|_| bad("an origin without a valid host"))?;
        Ok(Self {
            shared: Arc::new(Shared {
                transport,
                scheme,
                authority,
                user_agent: USER_AGENT,
                accept: Encoding::accepted(),
                encoding: Encoding::Identity,
                max_receive: MAX_RECEIVE,
                max_send: usize::MAX,
                timeout: None,
                wait_for_ready: false,
                interceptors: Arc::new([]),
                config: None,
                meter: None,
                asked: None,
            }),
        })
    }

    fn with(mut self, change: impl FnOnce(&mut Shared<T>)) -> Self {
        change(Arc::make_mut(&mut self.shared));
        self
    }

    /// Compresses what is sent. Default not at all. A server that can't inflate it answers [`Code::Unimplemented`](crate::Code).
    #[must_use]
    pub fn compress(self, encoding: Encoding) -> Self {
        self.with(|shared| shared.encoding = encoding)
    }

    /// Says to the server that responses may be compressed by whatever this build has (the default), or that they may not.
    #[must_use]
    pub fn accept_compressed(self, on: bool) -> Self {
        let accept = if on { Encoding::accepted() } else { HeaderValue::from_static("identity") };
        self.with(|shared| shared.accept = accept)
    }

    /// The longest message taken, in bytes, as it travels and again once inflated. Default 4 MiB.
    #[must_use]
    pub fn max_receive_bytes(self, bytes: usize) -> Self {
        self.with(|shared| shared.max_receive = bytes)
    }

    /// The longest message sent, in bytes. Default what the format holds, 4 GiB.
    #[must_use]
    pub fn max_send_bytes(self, bytes: usize) -> Self {
        self.with(|shared| shared.max_send = bytes)
    }

    /// How long a call may take in all, where the call says nothing else. Default without end.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|shared| shared.timeout = Some(timeout))
    }

    /// Whether calls wait for a connection (until their deadline) where one can't be made, rather than fail. Default not.
    #[must_use]
    pub fn wait_for_ready(self, on: bool) -> Self {
        self.with(|shared| shared.wait_for_ready = on)
    }

    /// What is said in `user-agent`, before this crate's own name.
    pub fn user_agent(self, name: &str) -> Result<Self> {
        let whole = format!("{name} grpc-rust-portolan/{}", env!("CARGO_PKG_VERSION"));
        let value = HeaderValue::try_from(whole).map_err(|_| Error::usage("a user agent that is no field value"))?;
        Ok(self.with(|shared| shared.user_agent = value))
    }

    /// Adds one that sees every call; the first added is asked first.
    #[must_use]
    pub fn intercept(self, interceptor: impl Interceptor) -> Self {
        self.with(|shared| {
            let all = shared.interceptors.iter().cloned().chain([Arc::new(interceptor) as Arc<dyn Interceptor>]);
            shared.interceptors = all.collect();
        })
    }

    /// Timeouts, retries, hedging and sizes by method. The state of its throttling is shared by clones made hereafter.
    #[must_use]
    pub fn service_config(self, config: ServiceConfig) -> Self {
        self.with(|shared| shared.config = Some(Arc::new(Config::new(config))))
    }

    /// Measures every call and every attempt at one, by gRFC A66.
    #[must_use]
    pub fn meter(self, meter: impl Meter) -> Self {
        self.with(|shared| {
            let target = format!("{}://{}", shared.scheme, shared.authority);
            shared.meter = Some(Metered::new(meter, target));
        })
    }

    pub(crate) fn asking(self, asked: Option<Arc<Asked>>) -> Self {
        self.with(|shared| shared.asked = asked)
    }

    /// The transport.
    pub fn transport(&self) -> &T {
        &self.shared.transport
    }

    /// A call with one message each way. It is made when awaited; dropping the future cancels it.
    pub fn unary<C: Codec>(&self, method: &Method<C>, request: &C::Request) -> Call<T, C, Unary> {
        Call::new(self, method, Shape::Unary, Unary).encoded(request)
    }

    /// A call with one message to the server and many back. Awaited, it gives them once the server has begun to answer.
    pub fn server_streaming<C: Codec>(&self, method: &Method<C>, request: &C::Request) -> Call<T, C, ServerStreaming> {
        Call::new(self, method, Shape::ServerStreaming, ServerStreaming).encoded(request)
    }

    /// A call with many messages to the server and one back.
    pub fn client_streaming<C, S>(&self, method: &Method<C>, requests: S) -> Call<T, C, ClientStreaming<S>>
    where
        C: Codec,
        S: Stream<Item = C::Request> + Send + 'static,
    {
        Call::new(self, method, Shape::ClientStreaming, ClientStreaming(requests))
    }

    /// A call with many messages each way, in any order. Awaited, it gives both ends at once, before the server has answered.
    pub fn duplex<C: Codec>(&self, method: &Method<C>) -> Call<T, C, DuplexCall> {
        Call::new(self, method, Shape::Duplex, DuplexCall)
    }

    /// The same with the messages to the server at hand as a stream.
    pub fn duplex_with<C, S>(&self, method: &Method<C>, requests: S) -> Call<T, C, DuplexWith<S>>
    where
        C: Codec,
        S: Stream<Item = C::Request> + Send + 'static,
    {
        Call::new(self, method, Shape::Duplex, DuplexWith(requests))
    }
}

impl<T> fmt::Debug for Client<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = &self.shared;
        f.debug_struct("Client")
            .field("scheme", &shared.scheme)
            .field("authority", &shared.authority)
            .field("encoding", &shared.encoding)
            .field("timeout", &shared.timeout)
            .finish_non_exhaustive()
    }
}
