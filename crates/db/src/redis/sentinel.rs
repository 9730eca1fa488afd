//! Sentinel: watchers that know which server is the primary (<https://redis.io/docs/latest/develop/reference/sentinel-clients/>).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use portolan_core::{BoxFuture, Connector, Credentials, Endpoint, Error, Kind, Phase, Result, clock};

use super::PROTOCOL;
use super::client::Client;
use super::command::Command;
use super::options::Options;
use super::types::Value;

/// The port that a sentinel listens on unless told otherwise.
pub const SENTINEL_PORT: u16 = 26_379;

/// How long one sentinel may take before the next is asked.
const ASK_LIMIT: Duration = Duration::from_secs(3);

/// Who knows where a service is. Whatever is made from [`Options`] that have it asks anew for each connection it makes.
#[derive(Debug)]
pub(crate) struct Sentinel {
    service: String,
    sentinels: Vec<Endpoint>,
    credentials: Option<Credentials>,
    /// The one that answered last, which is asked first.
    good: AtomicUsize,
}

impl Options {
    /// The primary of `service`, as these sentinels know it: asked for anew whenever a connection is made. `credentials` are
    /// for the sentinels; those of the server are said with [`credentials`](Self::credentials). TLS is for both or for neither.
    pub fn sentinel(
        service: impl Into<String>,
        sentinels: impl IntoIterator<Item = Endpoint>,
        credentials: Option<Credentials>,
    ) -> Result<Self> {
        let sentinels: Vec<Endpoint> = sentinels.into_iter().collect();
        let first = sentinels.first().cloned().ok_or_else(|| Error::usage("no sentinel to ask"))?;
        let sentinel = Sentinel { service: service.into(), sentinels, credentials, good: AtomicUsize::new(0) };
        Ok(Self::new(first).watched_by(Arc::new(sentinel)))
    }
}

impl Sentinel {
    /// `host[:port][,host[:port]...]`, and the name of the service.
    pub(crate) fn parse(authority: &str, service: &str) -> Result<Self> {
        if service.is_empty() {
            return Err(Error::usage("a sentinel url names its service: redis+sentinel://host/service"));
        }
        let sentinels = authority.split(',').map(|host| Endpoint::parse(host, Some(SENTINEL_PORT)));
        let sentinels = sentinels.collect::<Result<Vec<_>>>()?;
        Ok(Self { service: service.to_owned(), sentinels, credentials: None, good: AtomicUsize::new(0) })
    }

    pub(crate) fn first(&self) -> Option<&Endpoint> {
        self.sentinels.first()
    }

    /// Where the primary is. The sentinels are asked in turn until one knows; where it says is not yet connected to, and so
    /// not yet judged by the connector's policy.
    ///
    /// Boxed, since it makes clients while a client is being made: one within the other, and no deeper.
    pub(crate) fn primary<'a>(&'a self, connector: &'a Connector, tls: bool) -> BoxFuture<'a, Result<Endpoint>> {
        Box::pin(self.ask_in_turn(connector, tls))
    }

    async fn ask_in_turn(&self, connector: &Connector, tls: bool) -> Result<Endpoint> {
        let mut failure: Option<Error> = None;
        let start = self.good.load(Ordering::Relaxed);
        for n in 0..self.sentinels.len() {
            let place = start.wrapping_add(n) % self.sentinels.len();
            let Some(sentinel) = self.sentinels.get(place) else { continue };
            match clock::within(Some(ASK_LIMIT), Phase::Handshake, self.ask(connector, sentinel, tls)).await {
                Ok(primary) => {
                    self.good.store(place, Ordering::Relaxed);
                    return Ok(primary);
                }
                // That one is forbidden, or knows us not, says more than that another is down.
                Err(error) if failure.as_ref().is_none_or(|failure| failure.kind() == Kind::Connect) => {
                    failure = Some(error);
                }
                Err(_) => {}
            }
        }
        Err(failure.unwrap_or_else(|| Error::usage("no sentinel to ask")))
    }

    async fn ask(&self, connector: &Connector, sentinel: &Endpoint, tls: bool) -> Result<Endpoint> {
        let mut options = Options::new(sentinel.clone()).tls(tls).reconnect(false);
        if let Some(credentials) = &self.credentials {
            options = options.credentials(credentials.clone());
        }
        let client = Client::connect(connector, options).await?;
        let command = Command::new("SENTINEL GET-MASTER-ADDR-BY-NAME").arg(&self.service);
        match client.run::<Option<(String, u16)>>(&command).await? {
            Some((host, port)) => Endpoint::new(&host, port).map_err(|error| {
                Error::protocol(PROTOCOL, format!("a sentinel calls the primary {host:?}")).with_source(error)
            }),
            None => {
                let message = format!("the sentinel at {} knows no service {:?}", sentinel.authority(), self.service);
                Err(Error::new(Kind::Resolve, message).with_phase(Phase::Resolve).with_protocol(PROTOCOL))
            }
        }
    }
}

/// What a server must say of itself that a sentinel called the primary: it may have been demoted meanwhile.
pub(crate) fn judge_role(reply: &Value) -> Result<()> {
    let role = reply.as_items().and_then(<[Value]>::first).and_then(Value::as_bytes);
    match role.map(|role| &role[..]) {
        Some(b"master") => Ok(()),
        Some(other) => {
            let message = format!("expected the primary, found a server that is {}", String::from_utf8_lossy(other));
            Err(Error::new(Kind::Connect, message).with_protocol(PROTOCOL).with_phase(Phase::Handshake))
        }
        None => Err(Error::protocol(PROTOCOL, "expected the role of the server")),
    }
}
