//! From a connection to a tunnel: TLS, the upgrade, origin, authentication, limits; 101 comes before the target is
//! dialled.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use portolan_core::{Endpoint, Error, Host, Phase, Result, Stream, clock, percent_decode};
use portolan_websocket::{Options, Role, WebSocket, handshake};
use tokio::sync::OwnedSemaphorePermit;

use super::Shared;
use super::auth::{Access, Attempt};
use super::head::{self, Refusal};
use super::metrics::add;
use crate::protocol::{PROTOCOL, SUBPROTOCOL, TARGET};

/// When a client that was refused for want of room may come again, in seconds.
const RETRY: HeaderValue = HeaderValue::from_static("5");

/// A client that was let in, and what it holds of the gateway's limits.
pub(super) struct Admitted {
    pub(super) socket: WebSocket<Stream>,
    pub(super) target: Endpoint,
    pub(super) identity: Option<String>,
    pub(super) slot: Slot,
}

/// A place among the tunnels; it is free again when dropped.
pub(super) struct Slot {
    shared: Arc<Shared>,
    client: Client,
    _permit: OwnedSemaphorePermit,
}

/// Whom the limit per client counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Client {
    Name(Box<str>),
    Ip(IpAddr),
}

/// How many tunnels each client has; those without one are not in it.
#[derive(Debug, Default)]
pub(super) struct Clients(Mutex<HashMap<Client, usize>>);

impl Clients {
    fn enter(&self, client: &Client, most: usize) -> bool {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.get(client).copied().unwrap_or(0);
        if count >= most {
            return false;
        }
        counts.insert(client.clone(), count + 1);
        true
    }

    fn leave(&self, client: Client) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = counts.entry(client) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.shared.counters.active.fetch_sub(1, Ordering::Relaxed);
        self.shared.clients.leave(self.client.clone());
    }
}

impl Shared {
    /// Everything before the tunnel, within its deadline. `None` if there will be none: the client was told.
    pub(super) async fn admit(self: &Arc<Self>, stream: Stream, peer: SocketAddr) -> Option<Admitted> {
        let work = Box::pin(self.greet(stream, peer));
        let result = clock::within(Some(self.limits.handshake), Phase::Handshake, work).await;
        match result {
            Ok(Ok(admitted)) => return Some(admitted),
            Ok(Err((refusal, mut stream))) => {
                add(&self.counters.refused, 1);
                tracing::debug!(%peer, status = refusal.status.as_u16(), why = refusal.words, "tunnel refused");
                refusal.send(&mut stream).await;
            }
            Err(error) => {
                add(&self.counters.refused, 1);
                tracing::debug!(%peer, %error, "no upgrade");
            }
        }
        None
    }

    /// An error is for nobody but the log; a refusal is for the client.
    async fn greet(self: &Arc<Self>, stream: Stream, peer: SocketAddr) -> Result<Result<Admitted, (Refusal, Stream)>> {
        let mut stream = match &self.tls {
            None => stream,
            Some(tls) => {
                let secure = tls.accept(stream).await.map_err(|error| Error::io(Phase::Tls, error))?;
                Stream::from_io(secure)
            }
        };
        let (request, early) = match head::read(&mut stream).await {
            Ok(read) => read,
            Err(error) if error.is_closed() => return Err(error),
            Err(error) => {
                tracing::debug!(%peer, %error, "not an upgrade");
                return Ok(Err((Refusal::new(StatusCode::BAD_REQUEST, "no HTTP/1.1 upgrade"), stream)));
            }
        };
        match self.judge(&request, peer, early).await {
            Ok((answer, options, target, identity, slot)) => {
                head::write(&mut stream, &answer).await?;
                let socket = WebSocket::from_stream(stream, options);
                Ok(Ok(Admitted { socket, target, identity, slot }))
            }
            Err(refusal) => Ok(Err((refusal, stream))),
        }
    }

    #[allow(clippy::type_complexity, reason = "what an answer consists of, taken apart at once")]
    async fn judge(
        self: &Arc<Self>,
        request: &Request<()>,
        peer: SocketAddr,
        early: Bytes,
    ) -> Result<(http::Response<()>, Options, Endpoint, Option<String>, Slot), Refusal> {
        let path = request.uri().path();
        if self.path.as_deref().is_some_and(|own| own != path) {
            return Err(Refusal::new(StatusCode::NOT_FOUND, "no gateway here"));
        }
        let options = Options::new().role(Role::Server).lean(true).early(early).close_timeout(self.limits.close);
        // Pieces are given as they arrive, so the length of a frame asks for no room.
        let options = options.max_frame(usize::MAX).max_message(usize::MAX);
        // With one more read above it the buffer is still within the window, and need not grow to twice that.
        let options = options.write_buffer(self.limits.window / 4 * 3);
        let options = match self.limits.keepalive {
            Some((idle, timeout)) => options.keepalive(idle, timeout),
            None => options,
        };
        let (answer, options) = handshake::accept(request, options, &[SUBPROTOCOL]).map_err(|_| {
            Refusal::new(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket gateway")
                .with(header::UPGRADE, HeaderValue::from_static("websocket"))
        })?;
        if !answer.headers().contains_key(header::SEC_WEBSOCKET_PROTOCOL) {
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "the subprotocol is tcp-tunnel.v1"));
        }
        if !self.origin_allowed(request) {
            add(&self.counters.foreign_origin, 1);
            return Err(Refusal::new(StatusCode::FORBIDDEN, "this origin is not allowed"));
        }
        let target =
            target(request).map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "no target, or none that is"))?;
        let attempt =
            Attempt { headers: request.headers().clone(), path: path.to_owned(), peer, target: target.clone() };
        let identity = self.identity(attempt).await?;
        let slot = self.slot(identity.as_deref(), peer)?;
        Ok((answer, options, target, identity, slot))
    }

    /// A page of another origin makes a browser come with its cookies: only listed ones may. Clients that are no
    /// browsers name none.
    fn origin_allowed(&self, request: &Request<()>) -> bool {
        let mut origins = request.headers().get_all(header::ORIGIN).iter();
        origins.all(|origin| {
            let origin = origin.to_str().unwrap_or_default();
            self.origins.iter().any(|known| known == "*" || known.eq_ignore_ascii_case(origin))
        })
    }

    async fn identity(&self, attempt: Attempt) -> Result<Option<String>, Refusal> {
        let Some(hook) = &self.hook else { return Ok(None) };
        match hook(attempt).await {
            Access::Allow(identity) => Ok(identity),
            Access::Unauthorized(challenge) => {
                add(&self.counters.unauthorized, 1);
                let refusal = Refusal::new(StatusCode::UNAUTHORIZED, "say who you are");
                Err(match Access::challenge(&challenge) {
                    Some(challenge) => refusal.with(header::WWW_AUTHENTICATE, challenge),
                    None => refusal,
                })
            }
            Access::Forbidden => {
                add(&self.counters.unauthorized, 1);
                Err(Refusal::new(StatusCode::FORBIDDEN, "not allowed"))
            }
        }
    }

    fn slot(self: &Arc<Self>, identity: Option<&str>, peer: SocketAddr) -> Result<Slot, Refusal> {
        let full = |status, words| {
            add(&self.counters.over_limit, 1);
            Refusal::new(status, words).with(header::RETRY_AFTER, RETRY)
        };
        let permit = Arc::clone(&self.tunnels).try_acquire_owned();
        let permit = permit.map_err(|_| full(StatusCode::SERVICE_UNAVAILABLE, "as many tunnels as there may be"))?;
        let client = identity.map_or(Client::Ip(peer.ip().to_canonical()), |name| Client::Name(name.into()));
        if !self.clients.enter(&client, self.limits.per_client) {
            return Err(full(StatusCode::TOO_MANY_REQUESTS, "as many tunnels as one client may have"));
        }
        self.counters.active.fetch_add(1, Ordering::Relaxed);
        Ok(Slot { shared: Arc::clone(self), client, _permit: permit })
    }
}

/// Where the client wants to go: the header, or for browsers the query. Both, when they differ, are none.
fn target(request: &Request<()>) -> Result<Endpoint> {
    let none = || Error::protocol(PROTOCOL, "no target");
    let mut named = Vec::new();
    for value in request.headers().get_all(TARGET) {
        named.push(value.to_str().map_err(|_| none())?.trim().to_owned());
    }
    for pair in request.uri().query().unwrap_or_default().split('&') {
        if let Some(value) = pair.strip_prefix("target=") {
            named.push(percent_decode(value)?);
        }
    }
    let (first, rest) = named.split_first().ok_or_else(none)?;
    if rest.iter().any(|other| other != first) {
        return Err(none());
    }
    let target = Endpoint::parse(first, None)?;
    if matches!(target.host(), Host::Unix(_)) || target.port() == 0 {
        return Err(none());
    }
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(uri: &str, headers: &[&str]) -> Result<Endpoint> {
        let request = headers.iter().fold(Request::get(uri), |request, value| request.header(TARGET, *value));
        target(&request.body(()).unwrap())
    }

    #[test]
    fn a_target_is_named_once_by_header_or_query() {
        let to = Endpoint::new("db.example", 6379).unwrap();
        assert_eq!(asked("/", &["db.example:6379"]).unwrap(), to);
        assert_eq!(asked("/?a=b&target=db.example%3A6379", &[]).unwrap(), to);
        assert_eq!(asked("/?target=db.example:6379", &["db.example:6379"]).unwrap(), to);
        assert_eq!(asked("/", &["[2001:db8::1]:1"]).unwrap(), Endpoint::new("2001:db8::1", 1).unwrap());
        for (uri, headers) in [
            ("/", &[][..]),
            ("/", &["db.example"]),
            ("/", &["db.example:0"]),
            ("/", &["unix:/run/socket"]),
            ("/", &["a:1", "b:1"]),
            ("/?target=a:1", &["b:1"]),
            ("/", &["a b:1"]),
        ] {
            assert!(asked(uri, headers).is_err(), "{uri} {headers:?}");
        }
    }

    #[test]
    fn a_client_without_tunnels_is_forgotten() {
        let clients = Clients::default();
        let client = Client::Name("ann".into());
        assert!(clients.enter(&client, 2) && clients.enter(&client, 2) && !clients.enter(&client, 2));
        clients.leave(client.clone());
        assert!(clients.enter(&client, 2));
        clients.leave(client.clone());
        clients.leave(client);
        assert!(clients.0.lock().unwrap().is_empty());
    }
}
