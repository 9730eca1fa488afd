//! What is done to every call of a client.

use std::time::Duration;

use portolan_core::clock::{self, Instant};
use portolan_core::{BoxFuture, Result};
use std::sync::Arc;

use crate::body::Shape;
use crate::deadline::Deadline;
use crate::metadata::Metadata;
use crate::meter::Metered;
use crate::status::{Code, Status};

/// Sees every call of a client: adds to its metadata, refuses it, counts it.
pub trait Interceptor: Send + Sync + 'static {
    /// Called before the call is sent, once however often it is then tried. An error ends the call.
    fn request<'a>(&'a self, call: &'a mut Outgoing) -> BoxFuture<'a, Result<()>> {
        let _ = call;
        Box::pin(async { Ok(()) })
    }

    /// Called with the initial metadata of the response.
    fn response(&self, path: &str, metadata: &Metadata) {
        let _ = (path, metadata);
    }

    /// Called when the call is over, with its status; a call that its caller let go is [`Code::Cancelled`].
    fn finished(&self, path: &str, status: &Status, elapsed: Duration) {
        let _ = (path, status, elapsed);
    }
}

/// A call that is about to be sent.
#[derive(Debug)]
pub struct Outgoing {
    pub(crate) path: Box<str>,
    pub(crate) shape: Shape,
    pub(crate) metadata: Metadata,
    pub(crate) deadline: Option<Deadline>,
}

impl Outgoing {
    /// The method's path, `/package.Service/Method`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Which sides of the call are streams.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// What will be sent.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// What will be sent, to be added to.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    /// When the call will be given up.
    pub fn deadline(&self) -> Option<Deadline> {
        self.deadline
    }

    /// Gives the call up by then, or earlier if it has an earlier deadline.
    pub fn limit(&mut self, deadline: Deadline) {
        self.deadline = Some(self.deadline.map_or(deadline, |own| own.min(deadline)));
    }
}

/// The interceptors of one call, told of its end exactly once.
pub(crate) struct Observers {
    all: Arc<[Arc<dyn Interceptor>]>,
    meter: Option<Metered>,
    path: Box<str>,
    started: Instant,
    over: bool,
}

impl Observers {
    /// None where there is nobody to tell.
    pub(crate) fn new(all: &Arc<[Arc<dyn Interceptor>]>, meter: Option<&Metered>, path: &str) -> Option<Self> {
        (!all.is_empty() || meter.is_some()).then(|| Self {
            all: Arc::clone(all),
            meter: meter.cloned(),
            path: path.into(),
            started: clock::now(),
            over: false,
        })
    }

    pub(crate) fn response(&self, metadata: &Metadata) {
        self.all.iter().for_each(|interceptor| interceptor.response(&self.path, metadata));
    }

    pub(crate) fn finished(mut self, status: &Status) {
        self.tell(status);
    }

    fn tell(&mut self, status: &Status) {
        self.over = true;
        let elapsed = clock::now().saturating_duration_since(self.started);
        for interceptor in self.all.iter() {
            interceptor.finished(&self.path, status, elapsed);
        }
        if let Some(meter) = &self.meter {
            meter.call(&self.path, elapsed, status.code());
        }
    }
}

impl Drop for Observers {
    fn drop(&mut self) {
        if !self.over {
            self.tell(&Status::new(Code::Cancelled, "the caller let the call go"));
        }
    }
}
