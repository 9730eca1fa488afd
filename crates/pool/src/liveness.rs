//! How a connection tells the pool that it is no longer for use.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The three states of a connection, in the order in which they can follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Life {
    /// For use.
    Open,
    /// What is under way may end; nothing new begins (a GOAWAY was seen).
    Draining,
    /// Dead.
    Closed,
}

type Hook = Arc<dyn Fn() + Send + Sync>;

/// The life of one connection, shared by the connection itself, its driver and the pool.
///
/// The mark is set first and only then is anyone told: whoever wakes up because of a dead connection finds it marked dead.
#[derive(Clone, Default)]
pub struct Liveness(Arc<Inner>);

#[derive(Default)]
struct Inner {
    life: AtomicU8,
    hook: Mutex<Option<Hook>>,
}

impl Liveness {
    /// A connection that is open.
    pub fn new() -> Self {
        Self::default()
    }

    /// How it is now.
    pub fn life(&self) -> Life {
        match self.0.life.load(Ordering::SeqCst) {
            0 => Life::Open,
            1 => Life::Draining,
            _ => Life::Closed,
        }
    }

    /// Nothing new may begin. Call it before waking whoever waits for the connection.
    pub fn drain(&self) {
        self.become_at_least(1);
    }

    /// It is dead: a keepalive went unanswered, a write failed, its task ended. Call it before waking whoever waits for it.
    pub fn close(&self) {
        self.become_at_least(2);
    }

    fn become_at_least(&self, life: u8) {
        if self.0.life.fetch_max(life, Ordering::SeqCst) < life {
            // Called outside the lock: the pool takes the hook off while it runs.
            let hook = self.0.hook.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(hook) = hook {
                hook();
            }
        }
    }

    /// What the pool wants to be told. It runs on the thread that marks, after the mark.
    pub(crate) fn watch(&self, hook: Hook) {
        *self.0.hook.lock().unwrap_or_else(PoisonError::into_inner) = Some(hook);
    }

    pub(crate) fn unwatch(&self) {
        // The hook holds a way back to the pool: gone with the entry.
        let hook = self.0.hook.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(hook);
    }
}

impl fmt::Debug for Liveness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.life().fmt(f)
    }
}
