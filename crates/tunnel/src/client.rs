//! The client's half: a hop.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use portolan_core::kit::{Way, cannot_reach};
use portolan_core::{
    BoxFuture, Credentials, Datagram, Dial, DialContext, Endpoint, Error, Hop, HopSchemes, HopSpec, Kind, Phase, Place,
    Result, Secret, Stream, Url,
};
use portolan_websocket::{CloseFrame, DataKind, Incoming, Options, Rejected, Request, WebSocket};

use crate::io::TunnelIo;
use crate::protocol::{MAX_WORD, OPEN, PROTOCOL, Reason, SUBPROTOCOL, TARGET};
use crate::raw::Raw;

/// A hop through the gateway at `wss+tunnel://[user:password@]host[:port][/path][?query]`, or `ws+tunnel://` without
/// TLS.
pub fn hop(url: &str) -> Result<Hop> {
    Ok(Tunnel::parse(url)?.hop())
}

/// Adds `wss+tunnel` and `ws+tunnel` to the schemes that configuration knows; path and query are the gateway's.
pub fn schemes(schemes: HopSchemes) -> HopSchemes {
    schemes.with("wss+tunnel", from_spec).with("ws+tunnel", from_spec)
}

fn from_spec(spec: &HopSpec) -> Result<Hop> {
    let mut tunnel = Tunnel::parse(spec.whole_url().expose())?;
    if let Some(credentials) = spec.credentials() {
        tunnel = tunnel.credentials(credentials)?;
    }
    for (name, value) in spec.headers() {
        tunnel = tunnel.header(name, value)?;
    }
    Ok(tunnel.hop())
}

/// A gateway, said piece by piece.
#[derive(Debug, Clone)]
#[must_use]
pub struct Tunnel {
    endpoint: Endpoint,
    secure: bool,
    request: Request,
    login: Option<Credentials>,
    keepalive: Option<(Duration, Duration)>,
    raw: Option<Raw>,
}

impl Tunnel {
    /// `wss+tunnel://[user:password@]host[:port][/path][?query]`, or `ws+tunnel://` without TLS: then credentials and
    /// bytes are readable on the way to the gateway.
    pub fn parse(url: &str) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| Error::usage("url without scheme://"))?;
        let (secure, scheme, port) = match scheme.to_ascii_lowercase().as_str() {
            "wss+tunnel" => (true, "wss", 443),
            "ws+tunnel" => (false, "ws", 80),
            _ => return Err(Error::usage("a tunnel's gateway has the scheme wss+tunnel or ws+tunnel")),
        };
        let url = format!("{scheme}://{rest}");
        let parsed = Url::parse(&url)?;
        let request = Request::new(&url)?.subprotocol(SUBPROTOCOL)?;
        let endpoint = parsed.endpoint(port)?;
        Ok(Self { endpoint, secure, request, login: parsed.credentials(), keepalive: None, raw: None })
    }

    /// A gateway of another make, whose binary messages are the target's bytes and nothing else: websockify, wstunnel of node.
    ///
    /// `template` is its URL, `wss://` or `ws://`. In the path or the query `{host}` and `{port}` stand for the target
    /// (`wss://gateway.example/?dst={host}:{port}`). A gateway that leads to one target alone is told which that is by
    /// [`leads_to`](Self::leads_to), and no other is ever asked of it.
    ///
    /// Such gateways know no half-close: ending our side ends the stream. Whether the target was reached is not said by them either:
    /// a stream may be there and end at once.
    pub fn raw(template: &str) -> Result<Self> {
        let raw = Raw::parse(template)?;
        let url = raw.url(&raw.sample()?);
        let (request, parsed) = (Request::new(&url)?, Url::parse(&url)?);
        let (secure, port) = if request.is_secure() { (true, 443) } else { (false, 80) };
        let endpoint = parsed.endpoint(port)?;
        Ok(Self {
            endpoint,
            secure,
            request,
            login: parsed.credentials(),
            keepalive: None,
            raw: Some(raw.without_login()),
        })
    }

    /// The one target of a gateway whose URL names none.
    pub fn leads_to(mut self, target: Endpoint) -> Result<Self> {
        let raw = self.raw.as_mut().ok_or_else(|| Error::usage("a gateway of ours is told its target"))?;
        raw.leads_to(target)?;
        Ok(self)
    }

    /// A subprotocol that a gateway of another make wants to hear.
    pub fn subprotocol(mut self, name: &str) -> Result<Self> {
        if self.raw.is_none() {
            return Err(Error::usage("the subprotocol is the tunnel's own"));
        }
        self.request = self.request.subprotocol(name)?;
        Ok(self)
    }

    /// User and password (RFC 7617), instead of those in the URL.
    pub fn credentials(mut self, credentials: Credentials) -> Result<Self> {
        self.request = self.request.basic_auth(&credentials)?;
        self.login = Some(credentials);
        Ok(self)
    }

    /// A token (RFC 6750).
    pub fn bearer(mut self, token: impl Into<Secret>) -> Result<Self> {
        self.request = self.request.bearer_auth(&token.into())?;
        self.login = None;
        Ok(self)
    }

    /// A header of each upgrade: a cookie, an origin.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self> {
        if name.eq_ignore_ascii_case(TARGET) {
            return Err(Error::usage("the target is named by the tunnel itself"));
        }
        self.request = self.request.header(name, value)?;
        Ok(self)
    }

    /// A gateway that was silent for `idle` is pinged, and given up after `timeout` more. It works while the stream is
    /// read. Default off.
    pub fn keepalive(mut self, idle: Duration, timeout: Duration) -> Self {
        self.keepalive = Some((idle, timeout));
        self
    }

    /// The hop.
    pub fn hop(self) -> Hop {
        let kind = match (self.secure, self.raw.is_some()) {
            (true, false) => "wss+tunnel",
            (false, false) => "ws+tunnel",
            (true, true) => "wss",
            (false, true) => "ws",
        };
        let (endpoint, login) = (self.endpoint.clone(), self.login.clone());
        let factory = move |place: Place, beneath: Arc<dyn Dial>| -> Arc<dyn Dial> {
            let way = Way::new(kind, self.endpoint.clone(), place, beneath);
            Arc::new(Layer { way, tunnel: self.clone() })
        };
        let hop = Hop::custom(kind, endpoint, Arc::new(factory));
        // What the layer sends is its own; this is for the hop's Debug.
        match login {
            Some(login) => hop.credentials(login),
            None => hop,
        }
    }

    fn options(&self) -> Options {
        // Pieces are given as they arrive, so the length of a frame asks for no room.
        let options = Options::new().lean(true).max_frame(usize::MAX).max_message(usize::MAX);
        match self.keepalive {
            Some((idle, timeout)) => options.keepalive(idle, timeout),
            None => options,
        }
    }
}

#[derive(Debug)]
struct Layer {
    way: Way,
    tunnel: Tunnel,
}

impl Layer {
    async fn stream(&self, to: &Endpoint, cx: &DialContext) -> Result<Stream> {
        if let Some(raw) = &self.tunnel.raw {
            raw.check(to).map_err(|error| error.with_hop(self.way.place().index))?;
        }
        // The gateway resolves; where our own policy wants to see the address, it is asked for that.
        let targets = cx.targets(to, self.way.place(), true).await?;
        let mut last = None;
        for target in &targets {
            match self.attempt(target, cx).await {
                Err(error) if cannot_reach(&error) && error.code().is_some_and(|code| code >= 4000) => {
                    last = Some(error);
                }
                result => return result,
            }
        }
        Err(self.way.none_left(last))
    }

    async fn attempt(&self, target: &Endpoint, cx: &DialContext) -> Result<Stream> {
        let mut stream = self.way.to_proxy(cx).await?;
        if self.tunnel.secure {
            stream = self.way.start_tls(stream, &[b"http/1.1"], cx).await?;
        }
        let (peer, local) = (stream.info().peer, stream.info().local);
        let io = self.way.pass(cx, self.open(stream, target)).await?;
        let mut stream = Stream::from_io(io);
        stream.info_mut().peer = peer;
        stream.info_mut().local = local;
        Ok(stream)
    }

    /// The upgrade.
    async fn open(&self, stream: Stream, target: &Endpoint) -> Result<TunnelIo> {
        let Some(raw) = &self.tunnel.raw else { return self.open_own(stream, target).await.map(TunnelIo::new) };
        let request = self.tunnel.request.with_url(&raw.url(target))?;
        let opening = WebSocket::handshake(stream, &request, self.tunnel.options());
        opening.await.map(TunnelIo::raw).map_err(refused)
    }

    /// The upgrade, and the gateway's word that the target is there.
    async fn open_own(&self, stream: Stream, target: &Endpoint) -> Result<WebSocket> {
        let request = self.tunnel.request.renewed()?.header(TARGET, &target.authority())?;
        let opening = WebSocket::handshake(stream, &request, self.tunnel.options());
        let mut socket = opening.await.map_err(refused)?;
        if socket.subprotocol() != Some(SUBPROTOCOL) {
            return Err(broken("it is a WebSocket server, but no gateway of tunnels"));
        }
        let mut word = Vec::new();
        loop {
            match poll_fn(|cx| socket.poll_incoming(cx)).await? {
                Some(Incoming::Data { kind: DataKind::Text, data, end }) if word.len() + data.len() <= MAX_WORD => {
                    word.extend_from_slice(&data);
                    if end && word == OPEN.as_bytes() {
                        return Ok(socket);
                    }
                    if end {
                        return Err(broken("the gateway said something else than that the target is there"));
                    }
                }
                Some(Incoming::Close(frame)) => return Err(closed(frame.as_ref())),
                None => return Err(broken("the gateway closed before the target was there")),
                Some(_) => return Err(broken("the gateway sent bytes before the target was there")),
            }
        }
    }
}

impl Dial for Layer {
    fn dial<'a>(&'a self, to: &'a Endpoint, cx: &'a DialContext) -> BoxFuture<'a, Result<Stream>> {
        Box::pin(self.stream(to, cx))
    }

    fn datagram<'a>(&'a self, _: &'a Endpoint, _: &'a DialContext) -> BoxFuture<'a, Result<Datagram>> {
        let error = Error::new(Kind::Unsupported, "the tunnel carries streams, not datagrams");
        let error = error.with_hop(self.way.place().index).with_phase(Phase::Hop);
        Box::pin(async move { Err(error) })
    }
}

fn broken(message: &'static str) -> Error {
    Error::new(Kind::Hop, message).with_phase(Phase::Hop).with_protocol(PROTOCOL)
}

/// The gateway's answer, where it was no 101.
fn refused(error: Error) -> Error {
    let Some(rejected) = error.server::<Rejected>() else { return error };
    let status = rejected.status;
    let kind = if matches!(status.as_u16(), 401 | 403 | 407) { Kind::Auth } else { Kind::Hop };
    let said = Error::new(kind, format!("the gateway answered {status}"))
        .with_phase(Phase::Hop)
        .with_code(i64::from(status.as_u16()))
        .with_protocol(PROTOCOL);
    match error.retry_after() {
        Some(after) => said.with_retry_after(after),
        None => said,
    }
}

/// What a Close before the target was there means.
fn closed(frame: Option<&CloseFrame>) -> Error {
    let Some(frame) = frame else { return broken("the gateway closed before the target was there") };
    let code = frame.code.get();
    let (kind, words) = match Reason::of(code) {
        Some(reason @ Reason::Forbidden) => (Kind::Blocked, reason.words()),
        Some(reason @ Reason::Unresolved) => (Kind::Resolve, reason.words()),
        Some(reason) => (Kind::Hop, reason.words()),
        None => (Kind::Hop, "the gateway closed before the target was there"),
    };
    Error::new(kind, format!("{words} (close code {code})"))
        .with_phase(Phase::Hop)
        .with_code(i64::from(code))
        .with_protocol(PROTOCOL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_authenticates_is_neither_shown_nor_said_twice() {
        let tunnel = Tunnel::raw("ws://ann:sesame@gateway.example/{host}?p={port}").unwrap();
        let tunnel = tunnel.header("cookie", "key=sesame").unwrap();
        let shown = format!("{tunnel:?} {:?}", tunnel.clone().hop());
        assert!(!shown.contains("sesame") && !shown.contains("YW5u") && shown.contains("ann:***@"), "{shown}");
        // A user in the URL of each request would take the place of what is said later.
        let url = tunnel.raw.unwrap().url(&Endpoint::new("db.test", 1).unwrap());
        assert_eq!(url, "ws://gateway.example/db.test?p=1");
    }
}
