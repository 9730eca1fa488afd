//! What is kept between calls, and what is tried again: once for all protocols.
//!
//! - [`Pool`]: connections by key, exclusive or shared, within limits, with a fair and bounded queue.
//! - [`Liveness`]: how a connection says that it is draining or closed, before anyone who waits is woken.
//! - [`Retry`]: whether a failed call may be made again, from what became of the work and from nothing else.

mod liveness;
mod once;
mod options;
mod pool;
mod reaper;
mod retry;
mod state;

pub use liveness::{Life, Liveness};
pub use options::PoolOptions;
pub use pool::{Lease, Manage, Pool};
pub use retry::{Budget, Decision, Request, Retry, may_fall_back};
pub use state::Metrics;
