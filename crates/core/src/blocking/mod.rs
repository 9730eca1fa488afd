//! Every client of the workspace from code without `async`.
//!
//! Whatever can be awaited can be waited for: [`Wait`] gives each future (and each call that turns into one) a
//! [`wait`](Wait::wait). What comes piece by piece is an iterator by [`Iter`], a two-way stream reads and writes as those of `std`
//! do by [`Io`], and what `std` reads is a body or an upload by [`reader`].
//!
//! ```no_run
//! use std::io::{Read, Write};
//! use portolan_core::blocking::{Io, Wait};
//! use portolan_core::{Connector, Endpoint};
//!
//! let mut stream = Io::new(Connector::default().connect(&Endpoint::new("whois.example", 43)?).wait()?);
//! stream.write_all(b"example.org\r\n")?;
//! stream.shutdown()?;
//! let mut answer = String::new();
//! stream.read_to_string(&mut answer)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - **How it runs**: the future is driven by the thread that waits, so it need be neither `Send` nor `'static`. Sockets, timers and
//!   the tasks that clients start are served by a [`Runtime`]: one thread, by default one for the whole process, which begins with
//!   the first wait and stays. What was opened on a runtime lives on it: a runtime of one's own must outlive it.
//! - **Within async code** waiting would hold a thread that others need. It is refused with [`Kind::Usage`](crate::Kind::Usage),
//!   and nothing has been done; it never panics. Under `tokio::task::spawn_blocking` and `block_in_place` it works. Code under
//!   `tokio::task::unconstrained`, and runtimes other than tokio's, can't be told from plain threads.
//! - **Giving up**: [`wait_within`](Wait::wait_within) drops the work at its deadline, and dropping cancels, as it does everywhere
//!   here. The bounds of each client's own phases hold beside it.
//! - **After `fork`** the child has no thread that serves sockets: waiting is refused there. Open everything anew after `exec`.

mod io;
mod iter;
mod reader;
mod runtime;
#[cfg(test)]
mod tests;

use std::future::IntoFuture;
use std::time::Duration;

use crate::error::Error;

pub use io::Io;
pub use iter::Iter;
pub use reader::{Reader, reader};
pub use runtime::Runtime;

/// Waiting for whatever can be awaited, on the runtime that the process shares.
///
/// ```
/// use portolan_core::blocking::Wait;
///
/// # fn main() -> portolan_core::Result<()> {
/// let resolver = portolan_core::Resolver::default();
/// let answer = resolver.lookup("localhost").wait()?;
/// assert!(answer.addrs.iter().all(|addr| addr.is_loopback()));
/// # Ok(()) }
/// ```
pub trait Wait<T, E>: IntoFuture<Output = Result<T, E>> + Sized
where
    E: From<Error>,
{
    /// Waits for the result.
    fn wait(self) -> Result<T, E> {
        Runtime::shared().wait(self)
    }

    /// Waits for at most `limit`; then the work is dropped, and the error is a timeout of [`Phase::Total`](crate::Phase::Total).
    fn wait_within(self, limit: Duration) -> Result<T, E> {
        Runtime::shared().wait_within(limit, self)
    }
}

impl<W, T, E> Wait<T, E> for W
where
    W: IntoFuture<Output = Result<T, E>>,
    E: From<Error>,
{
}
