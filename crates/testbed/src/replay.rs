//! The fault replay: what a real server said is said again, cut, stalled and garbled at every byte.
//!
//! [`Tape::record`] stands between a client and a real server and keeps both sides' bytes in turns. [`Tape::replay`] plays
//! the server's side against new clients, each with one fault. Whatever the fault, the client must end by itself, with a
//! typed error where the conversation was cut or stalled.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use portolan_core::{Error, Kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::record::{Raw, RawWhat, Recorder, Side};

/// How long a client may take to end by itself; its own deadlines are far shorter.
const LATEST: Duration = Duration::from_secs(10);

/// Replays under way at once.
const AT_ONCE: usize = 48;

/// How often a fault that stalls nothing is played until its timeout counts.
const TRIES: u32 = 4;

/// Offsets tried one by one; behind them every [`STRIDE`]th.
const EVERY: usize = 512;
const STRIDE: usize = 61;

/// A recorded conversation.
#[derive(Debug, Clone, Default)]
pub struct Tape {
    /// How many bytes the client had sent when the server said this, and what it said.
    turns: Vec<(usize, Vec<u8>)>,
}

/// What goes wrong, at which of the server's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing, but every byte comes in a segment of its own.
    Split,
    /// The connection is closed before this byte.
    Cut(usize),
    /// Nothing more comes from this byte on.
    Stall(usize),
    /// This byte comes with some bits turned over.
    Garble(usize, u8),
}

/// How many replays ended in which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// All replays.
    pub runs: usize,
    /// Those that the client took for good: an altered text, a cut behind its last byte.
    pub fine: usize,
    /// Those that ended in a typed error.
    pub failed: usize,
}

impl Tape {
    /// Records what `client` and the server at `server` say to each other.
    pub async fn record<F: Future<Output = ()>>(server: SocketAddr, client: impl FnOnce(SocketAddr) -> F) -> Self {
        let recorder = Recorder::tcp(server).await;
        client(recorder.addr()).await;
        let mut tape = Self::default();
        let mut heard = 0;
        for Raw { side, what, .. } in recorder.finish_raw().await {
            let RawWhat::Said(bytes) = what else { continue };
            match (side, tape.turns.last_mut()) {
                (Side::Client, _) => heard += bytes.len(),
                (_, Some((before, said))) if *before == heard => said.extend(bytes),
                _ => tape.turns.push((heard, bytes)),
            }
        }
        assert!(!tape.turns.is_empty(), "the server said nothing");
        tape
    }

    /// How many bytes the server said.
    pub fn len(&self) -> usize {
        self.turns.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    /// Whether the server said nothing.
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Runs `client` against every fault. It fails the test if a client hangs, panics, or takes a conversation for good
    /// that was cut or stalled before its `needed` bytes (all, unless the end is a farewell that nobody needs).
    pub async fn replay<F>(&self, needed: usize, client: impl Fn(SocketAddr) -> F + Clone + Send + 'static) -> Outcome
    where
        F: Future<Output = Result<(), Error>> + Send,
    {
        let mut faults = vec![Fault::Split];
        for at in (0..self.len()).filter(|at| *at < EVERY || at % STRIDE == 0) {
            faults.extend([
                Fault::Cut(at),
                Fault::Stall(at),
                Fault::Garble(at, 0x01),
                Fault::Garble(at, 0x80),
                Fault::Garble(at, 0xff),
            ]);
        }
        let (mut outcome, mut running, mut faults) = (Outcome::default(), JoinSet::new(), faults.into_iter());
        loop {
            while running.len() < AT_ONCE
                && let Some(fault) = faults.next()
            {
                let (tape, client) = (self.clone(), client.clone());
                running.spawn(async move { (fault, tape.play_again(fault, client).await) });
            }
            let Some(ended) = running.join_next().await else { break };
            let (fault, result) = ended.expect("a client never panics");
            outcome.runs += 1;
            match (fault, result) {
                (Fault::Split, result) => result.expect("the same bytes in small pieces are the same conversation"),
                (Fault::Cut(at) | Fault::Stall(at), Ok(())) if at < needed => {
                    panic!("{fault:?} was taken for a whole conversation")
                }
                (Fault::Stall(_), Err(error)) => assert!(error.is_timeout(), "{fault:?} ended in {error:?}"),
                (Fault::Cut(_), Err(error)) => {
                    assert!(matches!(error.kind(), Kind::Closed | Kind::Tls), "{fault:?} ended in {error:?}")
                }
                (_, Err(_)) => outcome.failed += 1,
                (_, Ok(())) => outcome.fine += 1,
            }
        }
        outcome
    }

    /// Where nobody stalls, a timeout comes of a busy machine: then once more, a few times.
    async fn play_again<F: Future<Output = Result<(), Error>>>(
        self,
        fault: Fault,
        client: impl FnOnce(SocketAddr) -> F + Clone,
    ) -> Result<(), Error> {
        for _ in 1..TRIES {
            let result = self.clone().play(fault, client.clone()).await;
            let slow = matches!(fault, Fault::Split | Fault::Cut(_)) && result.as_ref().is_err_and(Error::is_timeout);
            if !slow {
                return result;
            }
        }
        self.play(fault, client).await
    }

    async fn play<F: Future<Output = Result<(), Error>>>(
        self,
        fault: Fault,
        client: impl FnOnce(SocketAddr) -> F,
    ) -> Result<(), Error> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let addr = listener.local_addr().expect("it is bound");
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // The client may be gone before the tape is at its end.
                let _ = self.serve(stream, fault).await;
            }
        });
        let result = tokio::time::timeout(LATEST, client(addr)).await;
        server.abort();
        result.unwrap_or_else(|_| panic!("{fault:?} made the client hang"))
    }

    async fn serve(&self, mut stream: TcpStream, fault: Fault) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let (mut heard, mut said, mut room) = (0, 0, [0; 4096]);
        for (after, bytes) in &self.turns {
            while heard < *after {
                match stream.read(&mut room).await? {
                    0 => return Ok(()),
                    n => heard += n,
                }
            }
            let mut bytes = bytes.clone();
            let stop = match fault {
                Fault::Split => {
                    for byte in &bytes {
                        stream.write_all(&[*byte]).await?;
                        tokio::task::yield_now().await;
                    }
                    continue;
                }
                Fault::Garble(at, mask) => {
                    if let Some(byte) = at.checked_sub(said).and_then(|at| bytes.get_mut(at)) {
                        *byte ^= mask;
                    }
                    None
                }
                Fault::Cut(at) | Fault::Stall(at) => at.checked_sub(said).filter(|at| *at < bytes.len()),
            };
            stream.write_all(&bytes[..stop.unwrap_or(bytes.len())]).await?;
            said += bytes.len();
            if stop.is_some() {
                if matches!(fault, Fault::Stall(_)) {
                    // Silent, but still there and reading.
                    while stream.read(&mut room).await? > 0 {}
                }
                return Ok(());
            }
        }
        while stream.read(&mut room).await? > 0 {}
        Ok(())
    }
}
