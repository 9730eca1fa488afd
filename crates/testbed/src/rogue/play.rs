//! Plays a script on a stream.

use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

use super::heard::{End, Heard};
use super::script::{Script, Step, shown};
use super::wire::{BoxWire, Early, Plain};
use crate::tls::ServerTls;

/// Read at once.
const ROOM: usize = 16 * 1024;

/// What all connections of one rogue have heard.
#[derive(Debug, Default)]
pub(super) struct Hub {
    heard: Mutex<Vec<Heard>>,
    changed: Notify,
    /// Asks the listener to end.
    pub(super) stop: Notify,
    sealed: AtomicBool,
}

impl Hub {
    pub(super) fn open(&self, script: &Script) -> usize {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let index = heard.len();
        heard.push(Heard::new(index, script));
        drop(heard);
        self.changed.notify_waiters();
        index
    }

    /// No more connections will come.
    pub(super) fn seal(&self) {
        self.sealed.store(true, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    pub(super) fn sealed(&self) -> bool {
        self.sealed.load(Ordering::SeqCst)
    }

    pub(super) fn with<T>(&self, look: impl FnOnce(&mut Vec<Heard>) -> T) -> T {
        look(&mut self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn update(&self, index: usize, change: impl FnOnce(&mut Heard)) {
        self.with(|all| {
            if let Some(heard) = all.get_mut(index) {
                change(heard);
            }
        });
    }

    pub(super) fn all(&self) -> Vec<Heard> {
        self.with(|all| all.clone())
    }

    /// Waits until `ready` says so about what was heard.
    pub(super) async fn until(&self, ready: impl Fn(&[Heard]) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.with(|all| ready(all)) {
                return;
            }
            changed.await;
        }
    }
}

impl Script {
    /// Plays it on any stream, and tells what was heard. A reset here is a mere end, unless the stream is a
    /// [`Pipe`](super::Pipe) run by [`Rogue::pipe`](super::Rogue::pipe).
    pub async fn run(&self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Heard {
        let hub = Arc::new(Hub::default());
        let index = hub.open(self);
        let left = play(Box::new(Plain(io)), self, &hub, index).await;
        drop(left);
        hub.with(|all| all.remove(0))
    }
}

/// Plays it to its end; gives the stream back if it is only closed on our side, and what still comes has to be read so
/// that the kernel doesn't turn our FIN into an RST.
pub(super) async fn play(wire: BoxWire, script: &Script, hub: &Arc<Hub>, index: usize) -> Option<BoxWire> {
    let mut player =
        Player { wire: Some(wire), unread: Vec::new(), last: Vec::new(), open: true, hub: hub.clone(), index };
    let mut end = End::Done;
    for (at, step) in script.steps.iter().enumerate() {
        hub.update(index, |heard| heard.at = at);
        if let Err(early) = player.step(step).await {
            end = early;
            break;
        }
        if player.wire.is_none() {
            break;
        }
    }
    // After a mismatch too, so that the client learns of it before its own deadline.
    player.close().await;
    if end == End::Done {
        hub.update(index, |heard| heard.at = heard.steps.len());
    }
    hub.update(index, |heard| heard.end = end);
    hub.changed.notify_waiters();
    player.wire
}

/// Reads what still comes, until the peer has closed too.
pub(super) async fn drain(mut wire: BoxWire) {
    let mut room = vec![0; ROOM];
    while matches!(wire.read(&mut room).await, Ok(1..)) {}
}

struct Player {
    /// `None` after the end.
    wire: Option<BoxWire>,
    /// Read, but not yet asked for.
    unread: Vec<u8>,
    /// What the last expectation heard.
    last: Vec<u8>,
    /// Whether our side still speaks.
    open: bool,
    hub: Arc<Hub>,
    index: usize,
}

fn left(error: &io::Error) -> End {
    End::Left(error.kind())
}

fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl Player {
    async fn step(&mut self, step: &Step) -> Result<(), End> {
        match step {
            Step::Expect(bytes) => self.expect(bytes).await,
            Step::ExpectUntil(end) => self.expect_until(end).await,
            Step::ExpectLen(len) => self.expect_len(*len).await,
            Step::ExpectSome => self.expect_some().await,
            Step::ExpectClose => self.expect_close().await,
            Step::Skip | Step::Stall => {
                while matches!(self.more().await, Ok(1..)) {
                    self.unread.clear();
                }
                Ok(())
            }
            Step::Send(bytes) => self.send(bytes, bytes.len()).await.map_err(|error| left(&error)),
            Step::Split(bytes, piece) => self.send(bytes, *piece).await.map_err(|error| left(&error)),
            Step::Answer(make) => {
                let answer = make(&self.last);
                self.send(&answer, answer.len()).await.map_err(|error| left(&error))
            }
            Step::Delay(time) => {
                tokio::time::sleep(*time).await;
                Ok(())
            }
            Step::Flood(pattern, total) => {
                // That the peer has had enough is what a flood is for.
                let _ = self.flood(pattern, *total).await;
                Ok(())
            }
            Step::StartTls(tls) => self.start_tls(tls).await,
            Step::HalfClose => {
                self.open = false;
                self.wire()?.shutdown().await.map_err(|error| left(&error))
            }
            Step::Close => {
                self.close().await;
                Ok(())
            }
            Step::Cut => {
                self.open = false;
                if let Some(wire) = &mut self.wire {
                    let _ = poll_fn(|cx| wire.poll_cut(cx)).await;
                }
                Ok(())
            }
            Step::Reset => {
                if let Some(mut wire) = self.wire.take() {
                    wire.arm_reset();
                }
                Ok(())
            }
        }
    }

    fn wire(&mut self) -> Result<&mut BoxWire, End> {
        self.wire.as_mut().ok_or_else(|| left(&gone()))
    }

    /// Reads once; 0 is the peer's end.
    async fn more(&mut self) -> io::Result<usize> {
        let mut room = [0; ROOM];
        let wire = self.wire.as_mut().ok_or_else(gone)?;
        let n = wire.read(&mut room).await?;
        self.unread.extend_from_slice(&room[..n]);
        self.hub.update(self.index, |heard| heard.hears(&room[..n]));
        Ok(n)
    }

    async fn send(&mut self, bytes: &[u8], piece: usize) -> io::Result<()> {
        let wire = self.wire.as_mut().ok_or_else(gone)?;
        for piece in bytes.chunks(piece.max(1)) {
            wire.write_all(piece).await?;
            wire.flush().await?;
            self.hub.update(self.index, |heard| heard.sent += piece.len() as u64);
            // Whoever reads gets a chance to see the piece by itself.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn flood(&mut self, pattern: &[u8], total: u64) -> io::Result<()> {
        let chunk = pattern.repeat(ROOM.div_ceil(pattern.len().max(1)));
        let mut left = total;
        while left > 0 && !chunk.is_empty() {
            let n = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
            self.send(&chunk[..n], n).await?;
            left -= n as u64;
        }
        Ok(())
    }

    /// Takes the first `len` unread bytes as what this step heard.
    fn take(&mut self, len: usize) {
        self.last = self.unread.drain(..len).collect();
    }

    fn mismatch(&self, expected: &str, then: &str) -> End {
        End::Mismatch(format!("expected {expected}\n    came {}{then}", shown(&self.unread)))
    }

    /// Waits for more; without any, what had come is no match.
    async fn wait(&mut self, expected: &str) -> Result<(), End> {
        match self.more().await {
            Ok(1..) => Ok(()),
            Ok(0) => Err(self.mismatch(expected, ", and then the peer closed")),
            Err(error) => Err(self.mismatch(expected, &format!(", and then: {error}"))),
        }
    }

    async fn expect(&mut self, bytes: &[u8]) -> Result<(), End> {
        loop {
            let n = bytes.len().min(self.unread.len());
            if let Some(at) = (0..n).find(|at| bytes[*at] != self.unread[*at]) {
                return Err(self.mismatch(&shown(bytes), &format!(", which differs at byte {at}")));
            }
            if n == bytes.len() {
                self.take(n);
                return Ok(());
            }
            self.wait(&shown(bytes)).await?;
        }
    }

    async fn expect_until(&mut self, end: &[u8]) -> Result<(), End> {
        let mut from = 0;
        loop {
            let found = self.unread[from..].windows(end.len().max(1)).position(|window| window == end);
            if let Some(at) = found {
                self.take(from + at + end.len());
                return Ok(());
            }
            from = self.unread.len().saturating_sub(end.len().saturating_sub(1));
            self.wait(&format!("anything up to {}", shown(end))).await?;
        }
    }

    async fn expect_len(&mut self, len: usize) -> Result<(), End> {
        while self.unread.len() < len {
            self.wait(&format!("{len} bytes")).await?;
        }
        self.take(len);
        Ok(())
    }

    async fn expect_some(&mut self) -> Result<(), End> {
        if self.unread.is_empty() {
            self.wait("something").await?;
        }
        self.take(self.unread.len());
        Ok(())
    }

    async fn expect_close(&mut self) -> Result<(), End> {
        while self.unread.is_empty() {
            // A reset is a close, if a rude one.
            if !matches!(self.more().await, Ok(1..)) {
                return Ok(());
            }
        }
        Err(self.mismatch("the peer to close", ""))
    }

    async fn start_tls(&mut self, tls: &ServerTls) -> Result<(), End> {
        let wire = self.wire.take().ok_or_else(|| left(&gone()))?;
        let early = Bytes::from(std::mem::take(&mut self.unread));
        let under: BoxWire = if early.is_empty() { wire } else { Box::new(Early { bytes: early, io: wire }) };
        match tls.acceptor().accept(under).await {
            Ok(stream) => {
                self.wire = Some(Box::new(stream));
                Ok(())
            }
            Err(error) => Err(End::Tls(error.to_string())),
        }
    }

    async fn close(&mut self) {
        if std::mem::take(&mut self.open)
            && let Some(wire) = &mut self.wire
        {
            // A peer that is gone has closed already.
            let _ = wire.shutdown().await;
        }
    }
}
