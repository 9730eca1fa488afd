//! A rogue peer of datagrams: answers that are lost, doubled, late, out of order, or from a stranger.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::script::{Answer, shown};
use crate::wall;

/// How long a script may still take when everything else is done, by the wall's clock.
const LATEST: Duration = Duration::from_secs(20);

/// The longest datagram there is.
const LONGEST: usize = 65_535;

/// What a peer of datagrams expects and says, step by step; after the last step it is silent.
#[derive(Clone, Default)]
pub struct Datagrams {
    steps: Vec<Step>,
}

#[derive(Clone)]
enum Step {
    Expect(Bytes),
    Take,
    Lose(usize),
    Answer(Answer),
    Stranger(Answer),
    Reorder(usize, Answer),
    Delay(Duration),
}

impl Datagrams {
    /// Nothing yet: a peer that is silent.
    pub fn new() -> Self {
        Self::default()
    }

    fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// The next datagram must be just this.
    #[must_use]
    pub fn expect(self, bytes: impl AsRef<[u8]>) -> Self {
        self.step(Step::Expect(Bytes::copy_from_slice(bytes.as_ref())))
    }

    /// Any datagram, to be answered.
    #[must_use]
    pub fn take(self) -> Self {
        self.step(Step::Take)
    }

    /// So many datagrams are lost: received, and never answered.
    #[must_use]
    pub fn lose(self, count: usize) -> Self {
        self.step(Step::Lose(count))
    }

    /// Sends this to whom the last datagram came from.
    #[must_use]
    pub fn reply(self, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref().to_vec();
        self.answer(move |_| bytes.clone())
    }

    /// Sends what this makes of the last datagram.
    #[must_use]
    pub fn answer(self, make: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static) -> Self {
        self.step(Step::Answer(Arc::new(make)))
    }

    /// The step before so many times more: a reply that is doubled on its way.
    #[must_use]
    pub fn again(mut self, times: usize) -> Self {
        if let Some(last) = self.steps.last().cloned() {
            self.steps.extend(std::iter::repeat_n(last, times));
        }
        self
    }

    /// Sends what this makes of the last datagram, but from another port: a forgery.
    #[must_use]
    pub fn stranger(self, make: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static) -> Self {
        self.step(Step::Stranger(Arc::new(make)))
    }

    /// Waits for so many datagrams and answers them from the last to the first.
    #[must_use]
    pub fn reorder(self, count: usize, make: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static) -> Self {
        self.step(Step::Reorder(count, Arc::new(make)))
    }

    /// Does nothing for so long, by tokio's clock.
    #[must_use]
    pub fn delay(self, time: Duration) -> Self {
        self.step(Step::Delay(time))
    }

    /// The steps of `next` after these.
    #[must_use]
    pub fn then(mut self, next: Self) -> Self {
        self.steps.extend(next.steps);
        self
    }
}

impl fmt::Debug for Datagrams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.steps).finish()
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expect(bytes) => write!(f, "expect {}", shown(bytes)),
            Self::Take => write!(f, "take a datagram"),
            Self::Lose(count) => write!(f, "lose {count} datagrams"),
            Self::Answer(_) => write!(f, "answer"),
            Self::Stranger(_) => write!(f, "answer from another port"),
            Self::Reorder(count, _) => write!(f, "answer {count} datagrams backwards"),
            Self::Delay(time) => write!(f, "wait {time:?}"),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    heard: Mutex<(Vec<Vec<u8>>, Progress)>,
    changed: Notify,
}

#[derive(Debug, Default, Clone)]
struct Progress {
    at: usize,
    done: bool,
    mismatch: Option<String>,
}

impl State {
    fn with<T>(&self, look: impl FnOnce(&mut (Vec<Vec<u8>>, Progress)) -> T) -> T {
        let result = look(&mut self.heard.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_waiters();
        result
    }
}

/// A peer of datagrams that follows a script. Dropping it closes its socket.
pub struct UdpRogue {
    addr: SocketAddr,
    script: Datagrams,
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl UdpRogue {
    /// On a free port of 127.0.0.1.
    pub async fn new(script: Datagrams) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let (addr, state) = (socket.local_addr().expect("it is bound"), Arc::new(State::default()));
        let player = Player { socket, state: state.clone(), last: None };
        let task = tokio::spawn(player.play(script.clone()));
        Self { addr, script, state, task }
    }

    /// Where it is.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The datagrams that came so far, also those after the script's end.
    pub fn heard(&self) -> Vec<Vec<u8>> {
        self.state.with(|(heard, _)| heard.clone())
    }

    /// Waits until the script is over and gives what came; fails the test if it was something else than was expected, or
    /// if this takes 20 seconds.
    pub async fn finish(self) -> Vec<Vec<u8>> {
        let over = async {
            loop {
                let changed = self.state.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let done = self.state.heard.lock().unwrap_or_else(PoisonError::into_inner).1.done;
                if done {
                    return;
                }
                changed.await;
            }
        };
        let in_time = wall::within(LATEST, over).await.is_some();
        let (heard, progress) = self.state.with(|state| state.clone());
        let step = format!(
            "step {} of {} ({:?})",
            progress.at + 1,
            self.script.steps.len(),
            self.script.steps.get(progress.at)
        );
        if let Some(mismatch) = &progress.mismatch {
            panic!("{step}: {mismatch}");
        }
        assert!(in_time, "{step} is not done; {} datagrams came", heard.len());
        heard
    }
}

impl Drop for UdpRogue {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for UdpRogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpRogue").field("addr", &self.addr).field("script", &self.script).finish_non_exhaustive()
    }
}

struct Player {
    socket: UdpSocket,
    state: Arc<State>,
    last: Option<(Vec<u8>, SocketAddr)>,
}

impl Player {
    async fn play(mut self, script: Datagrams) {
        for (at, step) in script.steps.iter().enumerate() {
            self.state.with(|(_, progress)| progress.at = at);
            if let Err(mismatch) = self.step(step).await {
                self.state.with(|(_, progress)| progress.mismatch = Some(mismatch));
                break;
            }
        }
        self.state.with(|(_, progress)| progress.done = true);
        loop {
            self.receive().await;
        }
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Expect(bytes) => {
                let came = self.receive().await;
                if came.0 != *bytes {
                    return Err(format!("expected {}\n    came {}", shown(bytes), shown(&came.0)));
                }
                self.last = Some(came);
            }
            Step::Take => self.last = Some(self.receive().await),
            Step::Lose(count) => {
                for _ in 0..*count {
                    self.last = Some(self.receive().await);
                }
            }
            Step::Answer(make) => {
                let (bytes, to) = self.last()?;
                send(&self.socket, &make(bytes), to).await;
            }
            Step::Stranger(make) => {
                let (bytes, to) = self.last()?;
                let stranger = UdpSocket::bind("127.0.0.1:0").await.map_err(|error| error.to_string())?;
                send(&stranger, &make(bytes), to).await;
            }
            Step::Reorder(count, make) => {
                let mut came = Vec::with_capacity(*count);
                for _ in 0..*count {
                    came.push(self.receive().await);
                }
                for (bytes, to) in came.iter().rev() {
                    send(&self.socket, &make(bytes), *to).await;
                }
                self.last = came.pop();
            }
            Step::Delay(time) => tokio::time::sleep(*time).await,
        }
        Ok(())
    }

    fn last(&self) -> Result<(&[u8], SocketAddr), String> {
        self.last
            .as_ref()
            .map(|(bytes, from)| (bytes.as_slice(), *from))
            .ok_or_else(|| "nobody to answer yet".to_owned())
    }

    async fn receive(&self) -> (Vec<u8>, SocketAddr) {
        let mut room = vec![0; LONGEST];
        loop {
            // An error here is the echo of a reply that nobody took.
            if let Ok((n, from)) = self.socket.recv_from(&mut room).await {
                room.truncate(n);
                self.state.with(|(heard, _)| heard.push(room.clone()));
                return (room, from);
            }
        }
    }
}

async fn send(socket: &UdpSocket, bytes: &[u8], to: SocketAddr) {
    // A peer that is gone doesn't hear it: that is how datagrams are.
    let _ = socket.send_to(bytes, to).await;
}
