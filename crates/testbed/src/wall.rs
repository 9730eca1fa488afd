//! A limit by the wall's clock. tokio's may be paused: a timer of its own would then be the next thing to happen.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// Runs `work`, but not for longer than `limit`.
pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let over = Arc::new(AtomicBool::new(false));
    let (late, told) = oneshot::channel();
    let watch = over.clone();
    let watcher = std::thread::spawn(move || {
        let started = Instant::now();
        while !watch.load(Ordering::SeqCst) {
            let left = limit.saturating_sub(started.elapsed());
            if left.is_zero() {
                let _ = late.send(());
                return;
            }
            std::thread::park_timeout(left);
        }
        // Held until here: a sender dropped early would look like its message.
        drop(late);
    });
    let _stop = Stop(over, watcher.thread().clone());
    tokio::select! {
        biased;
        done = work => Some(done),
        _ = told => None,
    }
}

/// Ends the watcher, also when the future is dropped.
struct Stop(Arc<AtomicBool>, std::thread::Thread);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
        self.1.unpark();
    }
}
