//! The engine behind its lock.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use crate::proto::Engine;

/// What the driver polls beside the transport: an upload, a timer.
pub(crate) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What handles, bodies and the driver share. The lock is held for a few hundred instructions and never across a wait.
#[derive(Debug)]
pub(crate) struct Shared {
    engine: Mutex<Engine>,
    /// Uploads on their way to the driver; `None` once it is gone, so that none is kept for nobody.
    uploads: Mutex<Option<Vec<UploadSlot>>>,
    uploads_came: AtomicBool,
}

struct UploadSlot(Task);

impl std::fmt::Debug for UploadSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Upload")
    }
}

impl Shared {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine: Mutex::new(engine), uploads: Mutex::new(Some(Vec::new())), uploads_came: AtomicBool::new(false) }
    }

    /// The engine, for the driver, which wakes by itself.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on the engine, then wakes who is due, with the lock let go.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut Engine) -> R) -> R {
        let mut engine = self.lock();
        let result = work(&mut engine);
        // Nearly always it is the driver alone.
        let last = engine.wakes.pop();
        let others = if engine.wakes.is_empty() { Vec::new() } else { std::mem::take(&mut engine.wakes) };
        drop(engine);
        last.into_iter().chain(others).for_each(Waker::wake);
        result
    }

    /// Gives an upload to the driver.
    pub(crate) fn hand_over(&self, upload: Task) {
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(list) = uploads.as_mut() else { return };
        list.push(UploadSlot(upload));
        self.uploads_came.store(true, Ordering::Release);
        drop(uploads);
        self.with(Engine::wake_driver);
    }

    /// Whether uploads wait for the driver.
    pub(crate) fn has_uploads(&self) -> bool {
        self.uploads_came.load(Ordering::Acquire)
    }

    pub(crate) fn take_uploads(&self) -> Vec<Task> {
        if !self.uploads_came.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        uploads.as_mut().map(std::mem::take).unwrap_or_default().into_iter().map(|slot| slot.0).collect()
    }

    /// The driver is gone: no upload is taken any more.
    pub(crate) fn refuse_uploads(&self) {
        let refused = self.uploads.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(refused);
    }
}
