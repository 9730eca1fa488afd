//! Datagrams: a fresh port and a fresh id for every attempt, and ears for the answer to any of them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use portolan_core::{Connector, Datagram, Delivery, Endpoint, Error, Kind, Phase, Result, clock};

use super::PROTOCOL;
use super::client::left;
use super::codec::Query;
use super::options::Options;
use super::response::{Info, Transport};

/// Datagrams that answer nothing, after which somebody counts as guessing (RFC 5452 9.3 asks for such a limit): a guesser
/// needs some two thousand million, a server that repeats itself stays far below.
const MAX_IGNORED: u32 = 100;
/// The smallest receive buffer, whatever was announced: some servers send more than they were told.
const MIN_BUFFER: usize = 4096;

/// What came of it.
pub(crate) enum Heard {
    Answer(Vec<u8>),
    /// Too many datagrams that were no answer.
    Flood,
}

/// Sends the query, again when time passes without an answer, each time from another port under another id.
pub(crate) async fn ask(
    net: &Connector,
    to: &Endpoint,
    make: &(dyn Fn() -> Result<Query> + Sync),
    options: &Options,
    deadline: Option<clock::Instant>,
    info: &mut Info,
) -> Result<Heard> {
    let ignored = AtomicU32::new(0);
    let size = options.payload.map_or(0, usize::from).max(MIN_BUFFER);
    let mut ears = FuturesUnordered::new();
    let mut wait = options.retransmit;
    let mut last = None;
    info.transport = Transport::Udp;
    let heard = 'attempts: {
        for attempt in 1..=options.attempts {
            let query = make()?;
            let socket = clock::within(left(deadline), Phase::Connect, net.datagram(to)).await?;
            info.connection = socket.info().clone();
            info.attempts += 1;
            match socket.send(query.wire()).await {
                Ok(()) => ears.push(listen(socket, query, size, &ignored)),
                // A port that is closed shows on the next send, too.
                Err(error) => last = Some(error),
            }
            let patience =
                if attempt == options.attempts { left(deadline) } else { Some(shorter(wait, left(deadline))) };
            wait = wait.saturating_mul(2);
            match first(&mut ears, patience).await {
                First::Heard(heard) => break 'attempts Some(heard),
                First::Failed(error) => last = Some(error),
                First::Late => {}
            }
            if left(deadline).is_some_and(|left| left.is_zero()) {
                break;
            }
        }
        None
    };
    info.ignored = ignored.load(Ordering::Relaxed);
    match (heard, last) {
        (Some(heard), _) => Ok(heard),
        (None, Some(error)) => Err(unreachable(error, to)),
        (None, None) => Err(unanswered(info, to)),
    }
}

enum First {
    Heard(Heard),
    Failed(Error),
    Late,
}

/// The first answer of any attempt. One that fails leaves the others listening.
async fn first<F: Future<Output = Result<Heard>>>(ears: &mut FuturesUnordered<F>, patience: Option<Duration>) -> First {
    let mut failed = None;
    let work = async {
        while let Some(heard) = ears.next().await {
            match heard {
                Ok(heard) => return Ok(Some(heard)),
                Err(error) => failed = Some(error),
            }
        }
        Ok(None)
    };
    match clock::within(patience, Phase::FirstByte, work).await {
        Ok(Some(heard)) => First::Heard(heard),
        _ => failed.map_or(First::Late, First::Failed),
    }
}

/// Hears nothing but the answer: the socket drops what comes from elsewhere, the query what answers another question.
async fn listen(socket: Datagram, query: Query, size: usize, ignored: &AtomicU32) -> Result<Heard> {
    let mut buf = vec![0; size];
    loop {
        let n = socket.recv(&mut buf).await?;
        if buf.get(..n).is_some_and(|reply| query.is_answered_by(reply)) {
            buf.truncate(n);
            return Ok(Heard::Answer(buf));
        }
        if ignored.fetch_add(1, Ordering::Relaxed) >= MAX_IGNORED {
            return Ok(Heard::Flood);
        }
    }
}

fn shorter(wait: Duration, left: Option<Duration>) -> Duration {
    left.map_or(wait, |left| wait.min(left))
}

fn unreachable(error: Error, to: &Endpoint) -> Error {
    // A port unreachable means that nobody has read the query.
    let error =
        if error.is_refused() { error.with_kind(Kind::Connect).with_delivery(Delivery::NotSent) } else { error };
    error.with_protocol(PROTOCOL).with_endpoint(to.clone())
}

fn unanswered(info: &Info, to: &Endpoint) -> Error {
    let (attempts, ignored) = (info.attempts, info.ignored);
    let message = format!("no answer to {attempts} queries; {ignored} datagrams that were no answer");
    Error::new(Kind::Timeout, message).with_phase(Phase::FirstByte).with_protocol(PROTOCOL).with_endpoint(to.clone())
}
