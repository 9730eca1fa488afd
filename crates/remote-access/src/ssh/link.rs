//! One connection to the jump host, and the tunnels on it.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use portolan_core::kit::Shareable;
use portolan_core::{Error, HopInfo, Kind, Result, Stream, clock};
use russh::client::{ChannelOpenHandle, DisconnectReason, Handle, Handler, Msg, Session};
use russh::keys::PublicKeyOrCertificate;
use russh::{Channel, ChannelId, ChannelOpenFailure, Disconnect};
use tokio::sync::{Notify, oneshot};

use super::NAME;
use super::fault::{Fault, told};
use super::host_keys::Trusted;
use super::jump::{Jump, Step};
use super::prompt::Prompt;
use super::tunnel::{self, Inbox};

/// How long a channel that nobody waits for any more may stay unanswered: longer than any TCP connect takes.
const UNANSWERED: Duration = Duration::from_secs(180);

/// How many of them there are, and no other word of the server's, before the connection is given up.
const MAX_UNANSWERED: usize = 32;

/// How many descriptions of refusals are kept for those who asked.
const MAX_REFUSALS: usize = 32;

/// What the session's callbacks and the tunnels share.
#[derive(Debug)]
pub(super) struct State {
    inboxes: Mutex<HashMap<ChannelId, Arc<Inbox>>>,
    refusals: Mutex<VecDeque<String>>,
    /// What the server said, or what went wrong, when it ended.
    why: Mutex<Option<Box<str>>>,
    over: AtomicBool,
    opening: AtomicUsize,
    unanswered: AtomicUsize,
    stalled: AtomicUsize,
    changed: Notify,
    /// How much of a tunnel's data may wait to be read.
    pub(super) room: usize,
    /// How long a tunnel may hold up the others.
    pub(super) stall: Option<Duration>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts up, and down when dropped.
pub(super) struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl State {
    fn new(jump: &Jump) -> Arc<Self> {
        Arc::new(Self {
            inboxes: Mutex::default(),
            refusals: Mutex::default(),
            why: Mutex::default(),
            over: AtomicBool::new(false),
            opening: AtomicUsize::new(0),
            unanswered: AtomicUsize::new(0),
            stalled: AtomicUsize::new(0),
            changed: Notify::new(),
            room: jump.window as usize,
            stall: jump.stall,
        })
    }

    /// The server is there: it said something.
    fn heard(&self) {
        self.unanswered.store(0, Ordering::Release);
    }

    /// How many tunnels there are.
    pub(super) fn tunnels(&self) -> usize {
        lock(&self.inboxes).len()
    }

    /// Says that a tunnel holds up the connection, until the guard is dropped.
    pub(super) fn stalled(&self) -> Counted<'_> {
        Counted::new(&self.stalled)
    }

    /// A tunnel is no more.
    pub(super) fn forget(&self, id: ChannelId) {
        lock(&self.inboxes).remove(&id);
        self.changed.notify_waiters();
    }

    fn inbox(&self, id: ChannelId) -> Option<Arc<Inbox>> {
        lock(&self.inboxes).get(&id).cloned()
    }

    /// The end of the connection, told to all tunnels.
    fn end(&self, why: &str) {
        let why = lock(&self.why).get_or_insert_with(|| why.into()).clone();
        self.over.store(true, Ordering::Release);
        let inboxes: Vec<_> = lock(&self.inboxes).values().cloned().collect();
        for inbox in inboxes {
            inbox.fail(&why);
        }
        self.changed.notify_waiters();
    }

    fn lost(&self) -> Error {
        let why = lock(&self.why).clone();
        Error::closed(why.unwrap_or_else(|| "the connection to the jump host has ended".into())).with_protocol(NAME)
    }
}

/// What the session tells. It lives as long as the session.
#[derive(Debug)]
pub(super) struct Watch {
    state: Arc<State>,
    trusted: Arc<Trusted>,
    host: String,
    port: u16,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.state.end("the connection to the jump host has ended");
    }
}

impl Handler for Watch {
    type Error = Fault;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Fault> {
        let (trusted, host, port) = (self.trusted.clone(), self.host.clone(), self.port);
        let shown = match shown.certificate() {
            Some(certificate) => certificate.clone().into(),
            None => shown.public_key().into(),
        };
        let checked = tokio::task::spawn_blocking(move || trusted.check(&host, port, &shown)).await;
        let checked =
            checked.map_err(|error| Fault(Error::closed("nobody looked at the host key").with_source(error)))?;
        checked.map(|()| true).map_err(|error| {
            let message = error.to_string();
            Fault(Error::new(Kind::Hop, message).with_protocol(NAME).with_reply(*error))
        })
    }

    async fn channel_open_confirmation(&mut self, id: ChannelId, _: u32, _: u32, _: &mut Session) -> Result<(), Fault> {
        self.state.heard();
        lock(&self.state.inboxes).insert(id, Inbox::new());
        self.state.changed.notify_waiters();
        Ok(())
    }

    async fn channel_open_failure(
        &mut self,
        _: ChannelId,
        _: ChannelOpenFailure,
        description: &str,
        _: &str,
        _: &mut Session,
    ) -> Result<(), Fault> {
        self.state.heard();
        // It does not say whose it is: with one asking there is no doubt.
        let alone = self.state.opening.load(Ordering::Acquire) == 1;
        let mut refusals = lock(&self.state.refusals);
        refusals.truncate(MAX_REFUSALS);
        refusals.push_front(if alone { description.to_owned() } else { String::new() });
        drop(refusals);
        self.state.changed.notify_waiters();
        Ok(())
    }

    async fn data(&mut self, id: ChannelId, data: &[u8], _: &mut Session) -> Result<(), Fault> {
        self.state.heard();
        if let Some(inbox) = self.state.inbox(id) {
            inbox.take(data, &self.state).await;
        }
        Ok(())
    }

    async fn channel_eof(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Fault> {
        if let Some(inbox) = self.state.inbox(id) {
            inbox.eof();
        }
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Fault> {
        if let Some(inbox) = self.state.inbox(id) {
            inbox.close();
        }
        self.state.forget(id);
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Fault>) -> Result<(), Fault> {
        match reason {
            DisconnectReason::ReceivedDisconnect(said) => {
                let text: String = said.message.chars().filter(|c| !c.is_control()).take(200).collect();
                self.state.end(&format!("the jump host disconnected: {text}"));
                Ok(())
            }
            DisconnectReason::Error(fault) => {
                self.state.end(&format!("the connection to the jump host has ended: {}", fault.0.message()));
                Err(fault)
            }
        }
    }

    // A jump host opens no channels: each is refused by dropping its handle.

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Fault> {
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Fault> {
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Fault> {
        Ok(())
    }

    async fn server_channel_open_session(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Fault> {
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Fault> {
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Fault> {
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Fault> {
        Ok(())
    }
}

/// One connection to the jump host, logged in.
pub(super) struct Link {
    handle: Handle<Watch>,
    state: Arc<State>,
    limit: usize,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("tunnels", &self.state.tunnels()).finish_non_exhaustive()
    }
}

impl Link {
    /// The handshake, and the login, over `stream`. Dropping the future closes the stream.
    pub(super) async fn open(stream: Stream, jump: &Jump, host: &str, port: u16, step: &Step) -> Result<Arc<Self>> {
        step.is("the keys were read");
        let (keys, logins) = (jump.host_keys.clone(), jump.logins());
        let read = tokio::task::spawn_blocking(move || Ok((keys.load()?, super::login::load(&logins)?)));
        let (trusted, ways) = read.await.map_err(|_| Error::usage("the keys could not be read"))??;
        let config = jump.config(trusted.algorithms(host, port));
        let state = State::new(jump);
        let watch = Watch { state: state.clone(), trusted: Arc::new(trusted), host: host.to_owned(), port };
        step.is("keys were exchanged");
        let handle = russh::client::connect_stream(Arc::new(config), Prompt(stream), watch).await;
        let mut handle = handle.map_err(|fault| fault.0)?;
        let user = jump.user_name()?;
        step.is("logging in");
        let logged_in = super::login::login(&mut handle, &user, ways).await;
        // What the server said at its end says more than that it has ended.
        logged_in.map_err(|error| match lock(&state.why).as_deref() {
            Some(why) => Error::new(error.kind(), format!("{}: {why}", error.message())).with_protocol(NAME),
            None => error,
        })?;
        let link = Arc::new(Self { handle, state: state.clone(), limit: jump.tunnels });
        if let Some(idle) = jump.idle {
            tokio::spawn(close_idle(Arc::downgrade(&link), state, idle));
        }
        Ok(link)
    }

    /// Asks for a tunnel. Dropping the future gives the tunnel up, whatever the server answers.
    pub(super) async fn tunnel(self: &Arc<Self>, host: String, port: u16) -> Result<Stream> {
        let (told, answer) = oneshot::channel();
        let link = self.clone();
        tokio::spawn(async move {
            let opened = tokio::time::timeout(UNANSWERED, link.channel(host, port)).await;
            // A stream that nobody takes closes its channel as it is dropped.
            drop(told.send(opened.unwrap_or_else(|_| Err(Error::closed("the jump host does not answer")))));
        });
        let waiting = Unanswered { state: &self.state, answered: false };
        let answer = answer.await;
        waiting.answered();
        answer.unwrap_or_else(|_| Err(self.state.lost()))
    }

    async fn channel(&self, host: String, port: u16) -> Result<Stream> {
        let _opening = Counted::new(&self.state.opening);
        let opened = self.handle.channel_open_direct_tcpip(host, u32::from(port), "127.0.0.1", 0).await;
        let channel = match opened {
            Ok(channel) => channel,
            Err(russh::Error::ChannelOpenFailure(reason)) => {
                return Err(tunnel::refused(&reason, self.refusal().await));
            }
            Err(_) if self.handle.is_closed() => return Err(self.state.lost()),
            Err(error) => return Err(told(error)),
        };
        // Data comes by the session's callbacks, not by the channel, which is read by nobody.
        let (_, write) = channel.split();
        let inbox = loop {
            let changed = self.state.changed.notified();
            match self.state.inbox(write.id()) {
                Some(inbox) => break inbox,
                None if self.is_over() => return Err(self.state.lost()),
                None => changed.await,
            }
        };
        Ok(tunnel::stream(write, inbox, self.state.clone()))
    }

    /// The server's words for a refusal: the callback that has them comes right behind the refusal.
    async fn refusal(&self) -> Option<String> {
        let words = async {
            loop {
                let changed = self.state.changed.notified();
                if let Some(words) = lock(&self.state.refusals).pop_back() {
                    return words;
                }
                changed.await;
            }
        };
        tokio::time::timeout(Duration::from_secs(1), words).await.ok()
    }

    fn is_over(&self) -> bool {
        self.state.over.load(Ordering::Acquire) || self.handle.is_closed()
    }
}

/// Counts those who stopped waiting for an answer.
struct Unanswered<'a> {
    state: &'a State,
    answered: bool,
}

impl Unanswered<'_> {
    fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.state.unanswered.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// Ends a connection that had no tunnel for so long. It ends with the connection.
async fn close_idle(link: Weak<Link>, state: Arc<State>, idle: Duration) {
    loop {
        let changed = state.changed.notified();
        if state.over.load(Ordering::Acquire) {
            return;
        }
        if state.tunnels() > 0 || state.opening.load(Ordering::Acquire) > 0 {
            changed.await;
            continue;
        }
        tokio::select! {
            () = changed => {}
            () = clock::sleep(idle) => {
                let Some(link) = link.upgrade() else { return };
                if state.tunnels() == 0 && state.opening.load(Ordering::Acquire) == 0 {
                    state.over.store(true, Ordering::Release);
                    let _ = link.handle.disconnect(Disconnect::ByApplication, "idle", "en").await;
                    return;
                }
            }
        }
    }
}

/// A connection as the hop keeps it.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) link: Arc<Link>,
    /// What was passed on the way to the jump host, and how our socket stands.
    pub(super) hops: Arc<[HopInfo]>,
    pub(super) peer: Option<SocketAddr>,
    pub(super) local: Option<SocketAddr>,
    /// What handshake and login took, until the first tunnel has told it.
    pub(super) took: Arc<Mutex<Option<Duration>>>,
}

impl Shareable for Shared {
    fn is_ready(&self) -> bool {
        let state = &self.link.state;
        // Whoever comes while a tunnel holds up the others, or while the server owes an answer that somebody was tired of waiting
        // for, takes another connection.
        let waits = [&state.stalled, &state.unanswered].into_iter().any(|count| count.load(Ordering::Acquire) > 0);
        let busy = state.tunnels() + state.opening.load(Ordering::Acquire);
        !self.is_over() && busy < self.link.limit && !waits
    }

    fn is_over(&self) -> bool {
        self.link.is_over() || self.link.state.unanswered.load(Ordering::Acquire) >= MAX_UNANSWERED
    }

    fn hops(&self) -> &[HopInfo] {
        &self.hops
    }
}
