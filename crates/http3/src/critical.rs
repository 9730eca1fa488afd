//! Our own unidirectional streams: control, and QPACK's two.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use quinn::{SendStream, StoppedError, WriteError};

use crate::proto::Violation;
use crate::proto::code::Code;
use crate::shared::{Critical, Shared};

/// Opens one of our streams once the handshake is done, and writes to it what is queued, until the connection ends.
pub(crate) async fn run(shared: Arc<Shared>, critical: Critical) {
    if shared.until_settled().await.is_err() {
        return;
    }
    let Ok(mut stream) = shared.quic.open_uni().await else { return };
    if critical == Critical::Control {
        // Settings go before the requests that follow them.
        let _ = stream.set_priority(1);
    }
    let mut stopped: Stopped = Box::pin(stream.stopped());
    while let Some(bytes) = poll_fn(|cx| poll_queued(&shared, critical, &mut stopped, cx)).await {
        match write(&mut stream, bytes).await {
            Ok(()) => {}
            Err(WriteError::Stopped(_)) => return closed(&shared),
            Err(_) => return,
        }
    }
}

type Stopped = Pin<Box<dyn Future<Output = Result<Option<quinn::VarInt>, StoppedError>> + Send>>;

async fn write(stream: &mut SendStream, bytes: Bytes) -> Result<(), WriteError> {
    stream.write_chunk(bytes).await
}

/// RFC 9114 6.2.1: a peer must not ask for the end of a critical stream.
fn closed(shared: &Shared) {
    shared.violated(Violation::new(Code::CLOSED_CRITICAL_STREAM, "the peer stopped a critical stream"));
}

/// What is to be written next; `None` when the stream is of no use any more.
fn poll_queued(
    shared: &Shared,
    critical: Critical,
    stopped: &mut Stopped,
    cx: &mut Context<'_>,
) -> Poll<Option<Bytes>> {
    match pin!(stopped).as_mut().poll(cx) {
        Poll::Ready(Ok(Some(_))) => {
            closed(shared);
            return Poll::Ready(None);
        }
        Poll::Ready(_) => return Poll::Ready(None),
        Poll::Pending => {}
    }
    let mut state = shared.lock();
    let outlet = &mut state.outlets[critical as usize];
    if !outlet.bytes.is_empty() {
        return Poll::Ready(Some(outlet.bytes.split().freeze()));
    }
    if !outlet.writer.as_ref().is_some_and(|waker: &Waker| waker.will_wake(cx.waker())) {
        outlet.writer = Some(cx.waker().clone());
    }
    Poll::Pending
}
