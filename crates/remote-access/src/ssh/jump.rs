//! The jump host as a hop.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portolan_core::kit::{Kept, Way};
use portolan_core::{
    BoxFuture, Credentials, Datagram, Delivery, Dial, DialContext, Endpoint, Error, Hop, Kind, Phase, Place, Result,
    Secret, Stream, Url, clock,
};
use russh::keys::Algorithm;
use russh::{Limits, Preferred, SshId, cipher, client};

use super::NAME;
use super::host_keys::HostKeys;
use super::known_hosts::PORT;
use super::link::{Link, Shared};
use super::login::{Login, Questions, Text, usual};

/// A jump host that has said nothing for this long is asked whether it is still there, and given up after three questions.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVES: u32 = 3;

/// How much a peer may send on one tunnel before it is read. Throughput is at most this in each round trip.
const WINDOW: u32 = 2 << 20;

/// The bounds of that: less than a packet stops all, more is memory for each tunnel.
const WINDOWS: std::ops::RangeInclusive<u32> = (64 << 10)..=(64 << 20);

/// How long a tunnel that is not read may hold up the others on its connection.
const STALL: Duration = Duration::from_secs(30);

/// How many tunnels share a connection: OpenSSH has no limit for these.
const TUNNELS: usize = 256;

/// How many connections there are at most: more where few tunnels share one.
const CONNECTIONS: usize = 8;
const CONNECTIONS_OF_FEW: usize = 64;

/// How long a user or target's name may be: DNS has 255 bytes, and a packet must hold it.
const MAX_NAME: usize = 1024;

/// A hop through the jump host at `ssh://user[:password]@host[:port]`: sugar over [`Jump::parse`].
pub fn jump(url: &str) -> Result<Hop> {
    Ok(Jump::parse(url)?.hop())
}

/// A jump host, said piece by piece. Ways to log in are tried in the order in which they are said, so far as the server takes
/// them; where none is said it is what `ssh` tries: the agent and the keys in `~/.ssh`.
#[derive(Debug, Clone)]
#[must_use]
pub struct Jump {
    endpoint: Endpoint,
    user: Option<String>,
    logins: Vec<Login>,
    pub(super) host_keys: HostKeys,
    keepalive: Option<Duration>,
    pub(super) window: u32,
    pub(super) tunnels: usize,
    pub(super) stall: Option<Duration>,
    pub(super) idle: Option<Duration>,
}

impl Jump {
    /// A jump host, and who logs in to it.
    pub fn new(endpoint: Endpoint, user: impl Into<String>) -> Self {
        Self {
            endpoint,
            user: Some(user.into()),
            logins: Vec::new(),
            host_keys: HostKeys::user(),
            keepalive: Some(KEEPALIVE),
            window: WINDOW,
            tunnels: TUNNELS,
            stall: Some(STALL),
            idle: None,
        }
    }

    /// `ssh://[user[:password]@]host[:port]`, with these queries, each as often as wanted: `identity=PATH` of a private key,
    /// `known_hosts=PATH` instead of the user's own, `fingerprint=SHA256:..` of the host key (with `+` as `%2B`). Without user it
    /// is the local one.
    pub fn parse(url: &str) -> Result<Self> {
        Self::from_url(&Url::parse(url)?)
    }

    /// As [`parse`](Self::parse).
    pub fn from_url(url: &Url) -> Result<Self> {
        if url.scheme() != "ssh" {
            return Err(Error::usage(format!("no jump host has {:?}: ssh does", url.scheme())));
        }
        if !matches!(url.path(), "" | "/") {
            return Err(Error::usage("the url of a jump host has no path"));
        }
        let mut jump = Self { user: None, ..Self::new(url.endpoint(PORT)?, "") };
        if let Some(Credentials { user, password, .. }) = url.credentials() {
            jump.user = Some(user).filter(|user| !user.is_empty());
            if !password.is_empty() {
                jump = jump.password(password);
            }
        }
        let mut keys: Option<HostKeys> = None;
        for (name, value) in url.query_pairs() {
            let trusted = || keys.clone().unwrap_or_else(HostKeys::none);
            match name.as_str() {
                "identity" => jump = jump.key_file(value),
                "known_hosts" => keys = Some(trusted().and_file(value)),
                "fingerprint" => keys = Some(trusted().and_pinned(value)),
                other => return Err(Error::usage(format!("the url of a jump host knows no {other:?}"))),
            }
        }
        jump.host_keys = keys.unwrap_or_default();
        Ok(jump)
    }

    /// Logs in by password; also where the server asks for it as a question (PAM).
    pub fn password(mut self, password: impl Into<Secret>) -> Self {
        self.logins.push(Login::Password(password.into()));
        self
    }

    /// Logs in by the private key of a file: OpenSSH's own form, PKCS#8, PKCS#1 or PuTTY's. A certificate beside it
    /// (`FILE-cert.pub`) is shown first.
    pub fn key_file(self, path: impl Into<PathBuf>) -> Self {
        self.key(Text::File(path.into()), None)
    }

    /// As [`key_file`](Self::key_file), for a key that a passphrase locks.
    pub fn locked_key_file(self, path: impl Into<PathBuf>, passphrase: impl Into<Secret>) -> Self {
        self.key(Text::File(path.into()), Some(passphrase.into()))
    }

    /// Logs in by a private key in text.
    pub fn key_pem(self, pem: impl Into<Secret>) -> Self {
        self.key(Text::Pem(pem.into()), None)
    }

    /// As [`key_pem`](Self::key_pem), for a key that a passphrase locks.
    pub fn locked_key_pem(self, pem: impl Into<Secret>, passphrase: impl Into<Secret>) -> Self {
        self.key(Text::Pem(pem.into()), Some(passphrase.into()))
    }

    fn key(mut self, text: Text, passphrase: Option<Secret>) -> Self {
        self.logins.push(Login::Key { text, passphrase, needed: true });
        self
    }

    /// Logs in by the keys of the agent at this Unix socket.
    pub fn agent(mut self, socket: impl Into<PathBuf>) -> Self {
        self.logins.push(Login::Agent(socket.into()));
        self
    }

    /// Logs in by the keys of the agent that `SSH_AUTH_SOCK` names; where it names none this says nothing.
    pub fn agent_from_env(self) -> Self {
        match agent_socket() {
            Some(path) => self.agent(path),
            None => self,
        }
    }

    /// Logs in by answers to the server's questions (keyboard-interactive): codes, tokens. `None` gives up. It may wait for a
    /// human: it runs on a thread of its own, and the hop's deadline runs with it.
    pub fn answers(mut self, answer: impl Fn(&Questions) -> Option<Vec<Secret>> + Send + Sync + 'static) -> Self {
        self.logins.push(Login::Answers(Arc::new(answer)));
        self
    }

    /// Which host keys are trusted. Default: what `ssh` trusts, [`HostKeys::user`].
    pub fn host_keys(mut self, keys: HostKeys) -> Self {
        self.host_keys = keys;
        self
    }

    /// What weakens the protection.
    pub fn dangerous(self) -> Dangerous {
        Dangerous(self)
    }

    /// How long the jump host may say nothing before it is asked whether it is there; given up after three questions. Default 30
    /// seconds; with `None` a connection that died silently is found out by the tunnels' own deadlines.
    pub fn keepalive(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.keepalive = interval.into();
        self
    }

    /// How many bytes may arrive on a tunnel before they are read, 64 KiB to 64 MiB. Default 2 MiB; throughput is at most this in
    /// each round trip to the jump host, and each tunnel may take so much memory.
    pub fn window(mut self, bytes: u32) -> Self {
        self.window = bytes.clamp(*WINDOWS.start(), *WINDOWS.end());
        self
    }

    /// How many tunnels share a connection. Default 256. With 1 a tunnel that is read slowly holds up no other one, as when data is
    /// copied from one tunnel to another; each tunnel that is open at the same time then costs a login. There are at most 64
    /// connections: after that they are shared all the same.
    pub fn tunnels_per_connection(mut self, count: usize) -> Self {
        self.tunnels = count.max(1);
        self
    }

    /// How long a tunnel whose window is full, because nobody reads it, may hold up the others on its connection before it is
    /// ended with an error. Default 30 seconds; `None` lets them wait. A tunnel alone on its connection may be left unread for
    /// ever.
    pub fn stall_limit(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.stall = limit.into();
        self
    }

    /// How long a connection without tunnels is kept. Default: as long as the connector lives.
    pub fn idle(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.idle = limit.into();
        self
    }

    /// The hop.
    pub fn hop(self) -> Hop {
        let endpoint = self.endpoint.clone();
        let user = self.user.clone();
        let factory = move |place: Place, beneath: Arc<dyn Dial>| -> Arc<dyn Dial> {
            let way = Way::new(NAME, self.endpoint.clone(), place, beneath);
            let most = CONNECTIONS.max(CONNECTIONS_OF_FEW / self.tunnels);
            Arc::new(Layer { way, jump: self.clone(), kept: Kept::up_to(most) })
        };
        let hop = Hop::custom(NAME, endpoint, Arc::new(factory));
        // This is for the hop's Debug alone.
        match user {
            Some(user) => hop.credentials(Credentials::new(user, "")),
            None => hop,
        }
    }

    pub(super) fn logins(&self) -> Vec<Login> {
        if self.logins.is_empty() { usual(agent_socket()) } else { self.logins.clone() }
    }

    pub(super) fn user_name(&self) -> Result<String> {
        let user = self.user.clone().or_else(local_user);
        let user = user.ok_or_else(|| Error::usage("a jump host needs a user: ssh://user@host"))?;
        let fits = (1..=MAX_NAME).contains(&user.len()) && !user.chars().any(char::is_control);
        if fits {
            Ok(user)
        } else {
            Err(Error::usage("not the name of a user: too long, empty, or with a control character"))
        }
    }

    pub(super) fn config(&self, (keys, certificates): (Vec<Algorithm>, Vec<Algorithm>)) -> client::Config {
        // AES-GCM first: machines have instructions for it.
        const CIPHERS: &[cipher::Name] = &[
            cipher::AES_256_GCM,
            cipher::CHACHA20_POLY1305,
            cipher::AES_256_CTR,
            cipher::AES_192_CTR,
            cipher::AES_128_CTR,
        ];
        let preferred = Preferred {
            key: Cow::Owned(keys),
            host_key_certificates: Cow::Owned(certificates),
            cipher: Cow::Borrowed(CIPHERS),
            ..Preferred::DEFAULT
        };
        client::Config {
            client_id: SshId::Standard(Cow::Borrowed(concat!("SSH-2.0-portolan_", env!("CARGO_PKG_VERSION")))),
            limits: Limits::default(),
            window_size: self.window,
            preferred,
            keepalive_interval: self.keepalive,
            keepalive_max: KEEPALIVES as usize,
            // A write that nobody takes is no silence of the server's that a question could end.
            inactivity_timeout: self.keepalive.map(|interval| interval * (KEEPALIVES + 2)),
            ..client::Config::default()
        }
    }
}

/// What weakens the protection: reached through [`Jump::dangerous`] alone.
#[derive(Debug, Clone)]
#[must_use]
pub struct Dangerous(Jump);

impl Dangerous {
    /// Does not look at the host key: whoever is in between can read and change everything, and gets the password.
    pub fn accept_any_host_key(self) -> Jump {
        self.0.host_keys(HostKeys::accept_any())
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the agent is named by the environment alone, and asked for by name or by default as ssh does"
)]
fn agent_socket() -> Option<PathBuf> {
    std::env::var("SSH_AUTH_SOCK").ok().filter(|path| !path.is_empty()).map(PathBuf::from)
}

#[allow(
    clippy::disallowed_methods,
    reason = "who runs this is named by the environment alone, and ssh takes it for the user too"
)]
fn local_user() -> Option<String> {
    ["USER", "LOGNAME"].into_iter().filter_map(|name| std::env::var(name).ok()).find(|user| !user.is_empty())
}

#[derive(Debug)]
struct Layer {
    way: Way,
    jump: Jump,
    kept: Kept<Shared>,
}

/// What is being done for a tunnel: a deadline that passes says so.
#[derive(Debug)]
pub(super) struct Step(Mutex<&'static str>);

impl Step {
    pub(super) fn is(&self, what: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    /// Says on a deadline's error which step it was.
    fn told(&self, error: Error, index: usize) -> Error {
        if !(error.is_timeout() && error.phase() == Some(Phase::Hop) && error.hop() == Some(index)) {
            return error;
        }
        let what = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let message = format!("{} ({what})", error.message());
        Error::new(Kind::Timeout, message).with_phase(Phase::Hop).with_hop(index).with_delivery(Delivery::NotSent)
    }
}

impl Layer {
    async fn open(&self, cx: &DialContext, step: &Step) -> Result<Shared> {
        self.jump.user_name()?;
        let stream = self.way.to_proxy(cx).await?;
        let hops = cx.hops().into();
        let (peer, local) = (stream.info().peer, stream.info().local);
        let started = clock::now();
        let (host, port) = (bare(self.way.proxy()), self.way.proxy().port());
        let open = Box::pin(Link::open(stream, &self.jump, &host, port, step));
        let link = self.way.pass(cx, open).await?;
        let took = Arc::new(Mutex::new(Some(clock::now() - started)));
        Ok(Shared { link, hops, peer, local, took })
    }

    async fn tunnel(&self, to: &Endpoint, cx: &DialContext) -> Result<Stream> {
        let step = Step(Mutex::new(""));
        let open = || -> BoxFuture<'_, _> { Box::pin(self.open(cx, &step)) };
        let ask = |shared: Shared, target: Endpoint| -> BoxFuture<'_, _> {
            let step = &step;
            Box::pin(async move {
                let host = bare(&target);
                if host.len() > MAX_NAME {
                    return Err(Error::usage("a name too long for a jump host"));
                }
                step.is("the tunnel was asked for");
                shared.link.tunnel(host, target.port()).await
            })
        };
        let made = self.kept.tunnel(&self.way, to, cx, open, ask).await;
        let (mut stream, _, shared) = made.map_err(|error| step.told(error, self.way.place().index))?;
        if let Some(took) = shared.took.lock().unwrap_or_else(PoisonError::into_inner).take() {
            cx.hop_took(took);
        }
        stream.info_mut().peer = shared.peer;
        stream.info_mut().local = shared.local;
        Ok(stream)
    }
}

/// The host without the brackets of an IPv6 address, as known_hosts and channels have it.
fn bare(endpoint: &Endpoint) -> String {
    endpoint.host_text().trim_start_matches('[').trim_end_matches(']').to_owned()
}

impl Dial for Layer {
    fn dial<'a>(&'a self, to: &'a Endpoint, cx: &'a DialContext) -> BoxFuture<'a, Result<Stream>> {
        Box::pin(self.tunnel(to, cx))
    }

    fn datagram<'a>(&'a self, _: &'a Endpoint, _: &'a DialContext) -> BoxFuture<'a, Result<Datagram>> {
        let error = Error::new(Kind::Unsupported, "an SSH jump host carries streams alone").with_phase(Phase::Hop);
        let error = error.with_hop(self.way.place().index);
        Box::pin(async { Err(error) })
    }
}
