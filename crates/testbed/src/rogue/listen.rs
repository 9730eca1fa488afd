//! Where a rogue peer is met: TCP, TLS, an in-memory pipe.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::heard::{End, Heard};
use super::play::{Hub, drain, play};
use super::script::Script;
use super::wire::{BoxWire, Pipe};
use crate::tls::ServerTls;
use crate::wall;

/// How long a script may still take when everything else is done, by the wall's clock.
const LATEST: Duration = Duration::from_secs(20);

/// Room of a pipe, each way.
const PIPE: usize = 64 * 1024;

/// Which script a connection gets: one [`Script`] for all, a list (more connections than that are closed at once, fewer
/// fail [`Rogue::finish`]), or a function of the connection's number.
pub trait Plan: Send + 'static {
    /// The script of connection `n`, counted from 0; `None` closes it at once.
    fn script(&self, n: usize) -> Option<Script>;

    /// How many connections there must be.
    fn at_least(&self) -> usize {
        0
    }
}

impl Plan for Script {
    fn script(&self, _: usize) -> Option<Script> {
        Some(self.clone())
    }
}

impl Plan for Vec<Script> {
    fn script(&self, n: usize) -> Option<Script> {
        self.get(n).cloned()
    }

    fn at_least(&self) -> usize {
        self.len()
    }
}

impl<const N: usize> Plan for [Script; N] {
    fn script(&self, n: usize) -> Option<Script> {
        self.get(n).cloned()
    }

    fn at_least(&self) -> usize {
        N
    }
}

impl<F: Fn(usize) -> Script + Send + 'static> Plan for F {
    fn script(&self, n: usize) -> Option<Script> {
        Some(self(n))
    }
}

/// A peer that follows scripts. Dropping it closes its listener and every connection.
pub struct Rogue {
    addr: Option<SocketAddr>,
    hub: Arc<Hub>,
    at_least: usize,
    task: JoinHandle<()>,
}

impl Rogue {
    /// Listens on a free port of 127.0.0.1.
    pub async fn tcp(plan: impl Plan) -> Self {
        Self::listen(plan, None).await
    }

    /// The same inside TLS from the first byte on.
    pub async fn tls(tls: &ServerTls, plan: impl Plan) -> Self {
        Self::listen(plan, Some(tls)).await
    }

    async fn listen(plan: impl Plan, tls: Option<&ServerTls>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let (addr, at_least) = (listener.local_addr().expect("it is bound"), plan.at_least());
        let hub = Arc::new(Hub::default());
        let accepting = Accepting { plan, tls: tls.cloned(), hub: hub.clone(), running: JoinSet::new(), n: 0 };
        let task = tokio::spawn(accepting.run(listener));
        Self { addr: Some(addr), hub, at_least, task }
    }

    /// One connection in memory: this end is for the client.
    pub fn pipe(script: Script) -> (Pipe, Self) {
        let (near, far) = Pipe::pair(PIPE);
        let hub = Arc::new(Hub::default());
        let index = hub.open(&script);
        hub.seal();
        let task = tokio::spawn(one(Box::new(far), script, hub.clone(), index));
        (near, Self { addr: None, hub, at_least: 1, task })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr.expect("a pipe has no address")
    }

    /// How many connections were scripted so far.
    pub fn connections(&self) -> usize {
        self.hub.with(|all| all.len())
    }

    /// What was heard so far.
    pub fn heard(&self) -> Vec<Heard> {
        self.hub.all()
    }

    /// Waits until the script of connection `n` is over. It fails the test when that takes 20 seconds.
    pub async fn ended(&self, n: usize) -> Heard {
        let over = self.hub.until(|all| all.get(n).is_some_and(|heard| heard.end != End::Running));
        if wall::within(LATEST, over).await.is_none() {
            let heard = self.heard();
            panic!("connection {n} is not over: {}", heard.get(n).map_or("never made".to_owned(), Heard::to_string));
        }
        self.hub.with(|all| all[n].clone())
    }

    /// Waits until every script is over, and fails the test if one heard something else than it expected, if a list of
    /// scripts was not used up, or if this takes 20 seconds. The client should have closed its connections by now.
    pub async fn finish(self) -> Vec<Heard> {
        let least = self.at_least;
        let over = async {
            self.hub.until(|all| all.len() >= least).await;
            self.hub.stop.notify_one();
            self.hub.until(|all| self.hub.sealed() && all.iter().all(|heard| heard.end != End::Running)).await;
        };
        let in_time = wall::within(LATEST, over).await.is_some();
        let heard = self.heard();
        for one in &heard {
            one.assert_expected();
        }
        assert!(in_time, "{} of {least} scripts were asked for", heard.len());
        heard
    }
}

/// The side that accepts. What runs is owned by its task, and ends with it.
struct Accepting<P> {
    plan: P,
    tls: Option<ServerTls>,
    hub: Arc<Hub>,
    running: JoinSet<()>,
    n: usize,
}

impl<P: Plan> Accepting<P> {
    async fn run(mut self, listener: TcpListener) {
        loop {
            tokio::select! {
                biased;
                accepted = listener.accept() => self.start(accepted.expect("loopback accepts").0),
                () = self.hub.stop.notified() => break,
            }
        }
        // Who has connected before the end was asked for is still served; a yield lets the driver look.
        for _ in 0..4 {
            tokio::task::yield_now().await;
            while let Some(stream) = tokio::select! {
                biased;
                accepted = listener.accept() => Some(accepted.expect("loopback accepts").0),
                () = std::future::ready(()) => None,
            } {
                self.start(stream);
            }
        }
        drop(listener);
        self.hub.seal();
        while self.running.join_next().await.is_some() {}
    }

    fn start(&mut self, stream: TcpStream) {
        while self.running.try_join_next().is_some() {}
        let Some(mut script) = self.plan.script(self.n) else { return };
        self.n += 1;
        if let Some(tls) = &self.tls {
            script = Script::new().start_tls(tls).then(script);
        }
        // A socket that is gone already needs no setting.
        let _ = stream.set_nodelay(true);
        let index = self.hub.open(&script);
        self.running.spawn(one(Box::new(stream), script, self.hub.clone(), index));
    }
}

async fn one(wire: BoxWire, script: Script, hub: Arc<Hub>, index: usize) {
    if let Some(wire) = play(wire, &script, &hub, index).await {
        drain(wire).await;
    }
}

impl Drop for Rogue {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Rogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rogue").field("addr", &self.addr).field("heard", &self.heard()).finish_non_exhaustive()
    }
}
