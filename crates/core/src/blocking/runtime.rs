//! What serves sockets and timers while a thread waits.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::coop;

use crate::error::{Error, Phase, Result};

/// More than a task of tokio may do before it must yield: its budget is counted in a byte.
const MORE_THAN_A_BUDGET: usize = 256;

/// Serves sockets, timers and tasks on a thread of its own while other threads wait. Cheap to clone.
///
/// The last clone of one made by [`Runtime::new`] ends the thread, and with it whatever was opened there: connections close, and what
/// is used after that fails. It waits for the thread's end, which no peer can hold up.
#[derive(Clone, Default)]
pub struct Runtime(Which);

#[derive(Clone, Default)]
enum Which {
    #[default]
    Shared,
    Own(Arc<Own>),
    Lent(Handle),
}

struct Own {
    handle: Handle,
    /// The process that has the thread: a fork has none.
    process: u32,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Runtime {
    /// The one that the process shares: it begins with the first wait and ends with the process.
    pub fn shared() -> Self {
        Self(Which::Shared)
    }

    /// One by itself, with a thread of its own: for what must be gone when it is dropped.
    pub fn new() -> Result<Self> {
        Ok(Self(Which::Own(Arc::new(Own::start()?))))
    }

    /// One that the program has already. It must be driven by other threads than those that wait: a current-thread runtime that
    /// nobody drives would keep them waiting for ever.
    pub fn of(handle: Handle) -> Self {
        Self(Which::Lent(handle))
    }

    /// Waits for the result of `work`, which this very thread drives. Refused within async code, and after a fork.
    pub fn wait<T, E: From<Error>>(&self, work: impl IntoFuture<Output = Result<T, E>>) -> Result<T, E> {
        self.run(|| work.into_future())?
    }

    /// Waits for at most `limit`; then the work is dropped, and the error is a timeout of [`Phase::Total`].
    pub fn wait_within<T, E>(&self, limit: Duration, work: impl IntoFuture<Output = Result<T, E>>) -> Result<T, E>
    where
        E: From<Error>,
    {
        match self.run(|| tokio::time::timeout(limit, work.into_future()))? {
            Ok(result) => result,
            Err(_) => Err(Error::timeout(Phase::Total, limit).into()),
        }
    }

    /// Does something that starts tasks or opens sockets without being awaited, as some constructors do.
    pub fn enter<T>(&self, work: impl FnOnce() -> T) -> Result<T> {
        let handle = self.handle()?;
        let _inside = handle.enter();
        Ok(work())
    }

    fn run<F: Future>(&self, work: impl FnOnce() -> F) -> Result<F::Output> {
        if is_async() {
            return Err(Error::usage("waiting within async code: await it there, or wait under spawn_blocking"));
        }
        let handle = self.handle()?;
        // Entered first and so left last: what the future drops on its way out may need it too.
        let _inside = handle.enter();
        Ok(drive(work()))
    }

    fn handle(&self) -> Result<&Handle> {
        static SHARED: OnceLock<Own> = OnceLock::new();
        let own = match (&self.0, SHARED.get()) {
            (Which::Lent(handle), _) => return Ok(handle),
            (Which::Own(own), _) => own,
            (Which::Shared, Some(own)) => own,
            (Which::Shared, None) => {
                let own = Own::start()?;
                // Another thread may have been quicker: then this one ends again.
                SHARED.get_or_init(|| own)
            }
        };
        if own.process != std::process::id() {
            return Err(Error::usage("waiting after a fork: the thread that serves sockets stayed with the parent"));
        }
        Ok(&own.handle)
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Which::Shared => "Runtime(shared)",
            Which::Own(_) => "Runtime(own)",
            Which::Lent(_) => "Runtime(lent)",
        })
    }
}

impl Own {
    fn start() -> Result<Self> {
        let failed = |error| Error::usage("no thread to serve sockets").with_source(error);
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let serve = move || {
            // Either it is told to stop, or whoever could is gone.
            let _ = runtime.block_on(stopped);
            // A name that the system still resolves is not waited for.
            runtime.shutdown_background();
        };
        let thread = thread::Builder::new().name("portolan".into()).spawn(serve).map_err(failed)?;
        Ok(Self { handle, process: std::process::id(), stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        drop(self.stop.take());
        let Some(thread) = self.thread.take() else { return };
        // A task of the runtime may hold the last clone: it can't wait for its own thread. A fork has no thread to wait for.
        if thread.thread().id() != thread::current().id() && self.process == std::process::id() {
            // The thread runs nothing of ours that could panic, and there is nobody to tell if it did.
            let _ = thread.join();
        }
    }
}

/// Polls until it is done, and sleeps in between.
fn drive<F: Future>(work: F) -> F::Output {
    let sleeper = Arc::new(Sleeper { thread: thread::current(), woken: AtomicBool::new(false) });
    let waker = Waker::from(sleeper.clone());
    let mut cx = Context::from_waker(&waker);
    let mut work = pin!(work);
    loop {
        if let Poll::Ready(output) = work.as_mut().poll(&mut cx) {
            return output;
        }
        while !sleeper.woken.swap(false, Ordering::Acquire) {
            thread::park();
        }
    }
}

struct Sleeper {
    thread: Thread,
    woken: AtomicBool,
}

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Once is enough until it has looked.
        if !self.woken.swap(true, Ordering::Release) {
            self.thread.unpark();
        }
    }
}

/// Whether this is a task of tokio, which must not wait.
///
/// A thread knows its runtime in `spawn_blocking` too, where waiting is welcome. What tells them apart is the budget that a task has
/// until it must yield: take of it until it is spent, and give all back. Blocking threads have none and never run out.
fn is_async() -> bool {
    if Handle::try_current().is_err() {
        return false;
    }
    let mut cx = Context::from_waker(Waker::noop());
    let mut taken = Vec::new();
    let spent = loop {
        match coop::poll_proceed(&mut cx) {
            Poll::Pending => break true,
            Poll::Ready(_) if taken.len() == MORE_THAN_A_BUDGET => break false,
            Poll::Ready(unit) => taken.push(unit),
        }
    };
    // Each restores what was there before it: the last one goes first.
    while taken.pop().is_some() {}
    spent
}
