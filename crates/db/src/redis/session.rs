//! Connections for one user at a time: for commands that block, and for transactions that watch keys.

use std::sync::atomic::{AtomicBool, Ordering};

use portolan_core::{Connector, Delivery, Error, Result};
use portolan_pool::{Lease, Manage, Pool, PoolOptions};

use super::client::Client;
use super::command::Command;
use super::options::Options;
use super::pipeline::{Aborted, Pipeline, Replies};
use super::types::FromValue;

/// Makes and looks at [`Session`]s for a [`Pool`].
///
/// A session goes back into its pool only as it came out: with nothing under way, no key watched and no transaction begun.
/// One that was left in the middle (a dropped `BLPOP`, which would yet take an element; a `WATCH` without `EXEC`; a `SELECT`)
/// is closed instead.
#[derive(Debug, Clone)]
pub struct Manager {
    connector: Connector,
    options: Options,
}

impl Manager {
    /// Sessions of one server and one login. For commands that block for long, `options` should have a
    /// [`reply_timeout`](Options::reply_timeout) that is longer still.
    pub fn new(connector: &Connector, options: Options) -> Self {
        Self { connector: connector.clone(), options: options.reconnect(false) }
    }
}

impl Manage for Manager {
    type Key = ();
    type Conn = Session;

    async fn connect(&self, (): &()) -> Result<Session> {
        // The name may lead elsewhere since the last one was made; the resolver's cache knows for how long it does not.
        let client = Client::connect(&self.connector, self.options.clone()).await?;
        Ok(Session { client, watching: AtomicBool::new(false), changed: AtomicBool::new(false) })
    }

    fn is_fit(&self, session: &mut Session) -> bool {
        session.is_clean()
    }
}

/// A connection that nobody else uses: commands that block hold up no other caller, and keys that it watches are its own.
///
/// Dropping a call leaves its command with the server until the session is dropped, which then closes the connection.
#[derive(Debug)]
pub struct Session {
    client: Client,
    /// Keys are watched, or a transaction is open.
    watching: AtomicBool,
    /// It is not as it was after the login.
    changed: AtomicBool,
}

impl Session {
    /// Runs any command.
    pub async fn run<T: FromValue>(&self, command: &Command) -> Result<T> {
        self.note(command.words().first().copied().unwrap_or_default());
        self.client.run(command).await
    }

    /// Sends a pipeline in one write and waits for all its replies.
    pub async fn pipeline(&self, pipeline: &Pipeline) -> Result<Replies> {
        for (_, words) in pipeline.commands() {
            self.note(words.first().copied().unwrap_or_default());
        }
        let result = self.client.pipeline(pipeline).await;
        if pipeline.is_atomic() && (result.is_ok() || result.as_ref().is_err_and(answered)) {
            self.watching.store(false, Ordering::Relaxed);
        }
        result
    }

    /// Watches keys until the next [`exec`](Self::exec).
    pub async fn watch(&self, keys: &[&str]) -> Result<()> {
        let mut command = Command::new("WATCH");
        for key in keys {
            command.push(key.as_bytes());
        }
        self.run(&command).await
    }

    /// Runs `pipeline` as one transaction; `None` if a watched key was changed by someone else since.
    pub async fn exec(&self, pipeline: Pipeline) -> Result<Option<Replies>> {
        match self.pipeline(&pipeline.atomic()).await {
            Err(error) if error.server::<Aborted>().is_some() => Ok(None),
            other => other.map(Some),
        }
    }

    /// Whether somebody else may have it next.
    pub fn is_clean(&self) -> bool {
        let left = self.watching.load(Ordering::Relaxed) || self.changed.load(Ordering::Relaxed);
        !left && self.client.is_live() && self.client.in_flight() == 0
    }

    /// What a command leaves behind, whether it succeeds or not.
    fn note(&self, name: &[u8]) {
        match name.to_ascii_uppercase().as_slice() {
            b"WATCH" | b"MULTI" => self.watching.store(true, Ordering::Relaxed),
            b"EXEC" | b"DISCARD" | b"UNWATCH" => self.watching.store(false, Ordering::Relaxed),
            b"ASKING" | b"AUTH" | b"CLIENT" | b"HELLO" | b"MONITOR" | b"PSUBSCRIBE" | b"PSYNC" | b"QUIT"
            | b"READONLY" | b"READWRITE" | b"RESET" | b"SELECT" | b"SSUBSCRIBE" | b"SUBSCRIBE" | b"SYNC" => {
                self.changed.store(true, Ordering::Relaxed);
            }
            _ => {}
        }
    }
}

fn answered(error: &Error) -> bool {
    matches!(error.delivery(), Delivery::Answered | Delivery::Refused)
}

/// A pool of [`Session`]s of one server: cheap to clone.
///
/// ```no_run
/// # async fn run() -> portolan_core::Result<()> {
/// use portolan_core::Connector;
/// use portolan_db::redis::{Command, Options, Pipeline, PoolOptions, Sessions, Value};
///
/// let options = Options::from_url("redis://localhost")?;
/// let sessions = Sessions::new(&Connector::default(), options, PoolOptions::default().per_key(8));
/// let job: Value = sessions.run(&Command::new("BLPOP").arg("jobs").arg(5)).await?;
///
/// let session = sessions.acquire().await?;
/// session.watch(&["stock"]).await?;
/// let stock: i64 = session.get("stock").await?;
/// let take = Pipeline::new().with(Command::new("SET").arg("stock").arg(stock - 1));
/// let taken = session.exec(take).await?.is_some();
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Sessions(Pool<Manager>);

impl Sessions {
    /// An empty pool.
    pub fn new(connector: &Connector, options: Options, pool: PoolOptions) -> Self {
        Self(Pool::new(Manager::new(connector, options), pool))
    }

    /// A session: an idle one or a new one, within the pool's bounds. Dropped, it goes back if it is clean.
    pub async fn acquire(&self) -> Result<Lease<Manager>> {
        self.0.acquire(&()).await
    }

    /// Runs one command on a session of its own. If that session turns out to be lost, the command is run once more on
    /// another one, where it was not run before or may be run twice without harm.
    pub async fn run<T: FromValue>(&self, command: &Command) -> Result<T> {
        let session = self.acquire().await?;
        let result = session.run(command).await;
        let error = match result {
            Err(error) if error.is_closed() => error,
            other => return other,
        };
        let may_repeat = match error.delivery() {
            Delivery::NotSent | Delivery::Refused => true,
            Delivery::Unknown => command.is_idempotent(),
            _ => false,
        };
        drop(session);
        if may_repeat { self.acquire().await?.run(command).await } else { Err(error) }
    }

    /// The pool itself: its figures, its end.
    pub fn pool(&self) -> &Pool<Manager> {
        &self.0
    }
}
