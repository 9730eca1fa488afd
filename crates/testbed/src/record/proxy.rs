//! The recorder that stands between a client and a server.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::redact::Redact;
use super::transcript::{Side, Transcript};
use super::{Log, Raw, RawWhat, udp};
use crate::wall;

/// How long the connections may still take to end, by the wall's clock.
const LATEST: Duration = Duration::from_secs(20);

/// Read at once.
const ROOM: usize = 16 * 1024;

/// A proxy on a free port of the loopback that writes down what goes through it. Dropping it cuts every connection.
pub struct Recorder {
    addr: SocketAddr,
    log: Arc<Log>,
    redact: Redact,
    task: JoinHandle<()>,
}

impl Recorder {
    /// Records TCP connections to `target`. Ends and resets are passed on as they come.
    pub async fn tcp(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let (addr, log) = (listener.local_addr().expect("it is bound"), Arc::new(Log::new()));
        let kept = log.clone();
        let task = tokio::spawn(async move {
            let mut running = JoinSet::new();
            loop {
                let (near, _) = listener.accept().await.expect("loopback accepts");
                while running.try_join_next().is_some() {}
                let (log, connection) = (kept.clone(), kept.open());
                running.spawn(async move {
                    pass(near, target, &log, connection).await;
                    log.end();
                });
            }
        });
        Self { addr, log, redact: Redact::default(), task }
    }

    /// Records datagrams to `target`; each client's address is a connection of its own.
    pub async fn udp(target: SocketAddr) -> Self {
        let log = Arc::new(Log::new());
        let (addr, task) = udp::start(target, log.clone()).await;
        Self { addr, log, redact: Redact::default(), task }
    }

    /// What is left out. Default: what stands in the usual places of passwords.
    #[must_use]
    pub fn redact(mut self, redact: Redact) -> Self {
        self.redact = redact;
        self
    }

    /// Where clients go instead.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What was said so far.
    pub fn transcript(&self) -> Transcript {
        self.log.transcript(&self.redact)
    }

    /// Waits until every TCP connection has ended (there must have been one) and gives what was said. It fails the test
    /// when that takes 20 seconds. For datagrams, which have no end, use [`transcript`](Self::transcript).
    pub async fn finish(self) -> Transcript {
        self.ended().await;
        self.transcript()
    }

    async fn ended(&self) {
        assert!(wall::within(LATEST, self.log.quiet()).await.is_some(), "a recorded connection doesn't end");
    }

    /// The same to the byte, for the fault replay.
    pub(crate) async fn finish_raw(self) -> Vec<Raw> {
        self.ended().await;
        self.log.raw()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("addr", &self.addr).field("redact", &self.redact).finish_non_exhaustive()
    }
}

async fn pass(near: TcpStream, target: SocketAddr, log: &Log, connection: usize) {
    // Sockets that are gone already need no settings.
    let _ = near.set_nodelay(true);
    let Ok(far) = TcpStream::connect(target).await else {
        // Nobody there: the client sees the connection torn, as near as a proxy comes to a refusal.
        let _ = near.set_zero_linger();
        log.add(connection, Side::Server, RawWhat::Reset);
        return;
    };
    let _ = far.set_nodelay(true);
    let (mut near, mut far) = (near, far);
    let broken = {
        let (near_in, near_out) = near.split();
        let (far_in, far_out) = far.split();
        tokio::try_join!(
            carry(near_in, far_out, log, connection, Side::Client),
            carry(far_in, near_out, log, connection, Side::Server),
        )
    };
    if broken.is_err() {
        let _ = (near.set_zero_linger(), far.set_zero_linger());
    }
}

/// Carries one direction to its end; `Err` is a connection that was torn.
async fn carry(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    log: &Log,
    connection: usize,
    side: Side,
) -> std::io::Result<()> {
    let mut room = vec![0; ROOM];
    loop {
        match from.read(&mut room).await {
            Ok(0) => {
                log.add(connection, side, RawWhat::Closed);
                return to.shutdown().await;
            }
            Ok(n) => {
                log.said(connection, side, &room[..n]);
                to.write_all(&room[..n]).await?;
            }
            Err(error) => {
                log.add(connection, side, RawWhat::Reset);
                return Err(error);
            }
        }
    }
}
