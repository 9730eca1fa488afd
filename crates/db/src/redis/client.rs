//! The client: one multiplexed connection, made anew when it is lost.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use portolan_core::observe::{Probe, Semantics};
use portolan_core::{ConnectionInfo, Connector, Delivery, Error, Kind, Phase, Result, Stream, clock};
use portolan_wire::{Mux, MuxOptions};

use super::PROTOCOL;
use super::codec::RespCodec;
use super::command::Command;
use super::options::Options;
use super::pipeline::{Pipeline, Replies};
use super::sentinel::judge_role;
use super::types::{FromValue, ServerError, Value};

/// How long commands under way may take to end when the client is closed and nothing else was said.
const CLOSING: Duration = Duration::from_secs(60);

/// A client of one server: cheap to clone, used by any number of tasks at once.
///
/// All share one connection, on which commands are gathered into few writes and replies are paired by order. A lost
/// connection is made anew at the next command; a command that was under way is sent again only if it never left, if the
/// server said that it did not run it, or if running it twice does no harm. Dropping a call forgets its reply, not the
/// command.
#[derive(Clone, Debug)]
pub struct Client(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    connector: Option<Connector>,
    options: Options,
    link: RwLock<Option<Link>>,
    probe: Probe,
    making: tokio::sync::Mutex<()>,
}

#[derive(Clone, Debug)]
struct Link {
    mux: Mux<RespCodec>,
    info: Arc<ConnectionInfo>,
    probe: Probe,
}

impl Client {
    /// Connects and logs in.
    pub async fn connect(connector: &Connector, options: Options) -> Result<Self> {
        let link = Link::open(connector, &options).await?;
        Ok(Self::new(Some(connector.clone()), options, link))
    }

    /// Connects to a URL such as `redis://localhost` with the default connector.
    pub async fn open(url: &str) -> Result<Self> {
        Self::connect(&Connector::default(), Options::from_url(url)?).await
    }

    /// Logs in on a stream made elsewhere. Such a client cannot reconnect.
    pub async fn from_stream(stream: Stream, options: Options) -> Result<Self> {
        let link = Link::login(stream, &options).await?;
        Ok(Self::new(None, options, link))
    }

    fn new(connector: Option<Connector>, options: Options, link: Link) -> Self {
        Self(Arc::new(Shared {
            connector,
            options,
            probe: link.probe.clone(),
            link: RwLock::new(Some(link)),
            making: tokio::sync::Mutex::default(),
        }))
    }

    /// A further connection with the same settings: for commands that block, and for `WATCH`.
    pub async fn dedicated(&self) -> Result<Self> {
        Self::connect(self.connector()?, self.0.options.clone()).await
    }

    /// A connection that listens to channels.
    pub async fn subscriber(&self) -> Result<super::Subscriber> {
        super::Subscriber::connect(self.connector()?, self.0.options.clone()).await
    }

    fn connector(&self) -> Result<&Connector> {
        self.0.connector.as_ref().ok_or_else(|| Error::usage("a client made from a stream cannot connect"))
    }

    /// What is known about the connection in use, if there is one.
    pub fn info(&self) -> Option<Arc<ConnectionInfo>> {
        self.current().map(|link| link.info)
    }

    /// Runs any command.
    pub async fn run<T: FromValue>(&self, command: &Command) -> Result<T> {
        let value = self.0.probe.operation(command.name()).run(self.reply(command)).await?;
        match value {
            Value::Error(error) => Err(error.into_error()),
            value => T::from_value(value),
        }
    }

    /// Sends a pipeline in one write and waits for all its replies.
    pub async fn pipeline(&self, pipeline: &Pipeline) -> Result<Replies> {
        if pipeline.is_empty() {
            return Ok(Replies::default());
        }
        let values = self.0.probe.operation("pipeline").run(self.replies(pipeline)).await?;
        pipeline.replies(values)
    }

    /// Lets the commands under way end, and closes. Later commands fail.
    pub async fn close(&self) -> Result<()> {
        let link = self.0.link.write().unwrap_or_else(PoisonError::into_inner).take();
        match link {
            Some(link) => link.mux.close(self.0.options.bounds().idle_limit().unwrap_or(CLOSING)).await,
            None => Ok(()),
        }
    }

    /// Sends what is in wire form already and waits for that many replies. Nothing is sent twice.
    pub(super) async fn raw(&self, body: &[u8], replies: usize) -> Result<Vec<Value>> {
        let link = self.link().await?;
        let work = link.mux.call_many(replies, |_, _, out| {
            out.extend_from_slice(body);
            Ok(())
        });
        work.await.map_err(named)
    }

    /// Whether its connection is in use and not known to be lost.
    pub(super) fn is_live(&self) -> bool {
        self.current().is_some_and(|link| !link.mux.is_closed())
    }

    /// Commands that wait for their replies, those included that nobody waits for any more.
    pub(super) fn in_flight(&self) -> usize {
        self.current().map_or(0, |link| link.mux.in_flight())
    }

    async fn reply(&self, command: &Command) -> Result<Value> {
        let mut again = true;
        loop {
            let link = self.link().await?;
            match link.mux.call(command).await {
                Err(error) if again && self.may_repeat(&error, command.is_idempotent()) => again = false,
                result => return result.map_err(named),
            }
        }
    }

    async fn replies(&self, pipeline: &Pipeline) -> Result<Vec<Value>> {
        let mut again = true;
        loop {
            let link = self.link().await?;
            let replies = link.mux.call_many(pipeline.owed(), |_, _, out| {
                pipeline.encode(out);
                Ok(())
            });
            match replies.await {
                Err(error) if again && self.may_repeat(&error, pipeline.is_idempotent()) => again = false,
                result => return result.map_err(named),
            }
        }
    }

    /// Whether a failed call may be made once more: the connection was lost, and the work was not done or may be done twice.
    fn may_repeat(&self, error: &Error, idempotent: bool) -> bool {
        let lost = error.is_closed() && self.0.connector.is_some() && self.0.options.reconnects();
        lost && match error.delivery() {
            Delivery::NotSent | Delivery::Refused => true,
            Delivery::Unknown => idempotent,
            _ => false,
        }
    }

    fn current(&self) -> Option<Link> {
        self.0.link.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn link(&self) -> Result<Link> {
        if let Some(link) = self.current().filter(|link| !link.mux.is_closed()) {
            return Ok(link);
        }
        let _one_at_a_time = self.0.making.lock().await;
        let current = self.current();
        if let Some(link) = current.as_ref().filter(|link| !link.mux.is_closed()) {
            return Ok(link.clone());
        }
        let connector = match &self.0.connector {
            Some(connector) if self.0.options.reconnects() && current.is_some() => connector,
            _ => {
                return Err(Error::closed("the client is closed")
                    .with_delivery(Delivery::NotSent)
                    .with_protocol(PROTOCOL));
            }
        };
        // The name is resolved again: the server may have moved.
        if let Some(name) = self.0.options.endpoint().name() {
            connector.resolver().forget(name);
        }
        let link = Link::open(connector, &self.0.options).await?;
        *self.0.link.write().unwrap_or_else(PoisonError::into_inner) = Some(link.clone());
        Ok(link)
    }
}

fn named(error: Error) -> Error {
    error.with_protocol(PROTOCOL)
}

impl Link {
    async fn open(connector: &Connector, options: &Options) -> Result<Self> {
        let stream = dial(connector, options).await?;
        Self::login(stream, options).await
    }

    async fn login(stream: Stream, options: &Options) -> Result<Self> {
        let started = clock::now();
        let mut info = stream.info().clone();
        let probe = Probe::on(PROTOCOL, Semantics::Db, &stream);
        let settings = MuxOptions::default()
            .in_flight(options.window())
            .max_buffer(options.codec_limits().frame)
            .call_limit(options.bounds().first_byte_limit());
        let mux = Mux::spawn(stream, RespCodec::new(options.codec_limits()), settings);
        let limit = options.bounds().handshake_limit();
        let work = async {
            for step in handshake(options) {
                if let Value::Error(error) = mux.call(&step.command).await? {
                    step.judge(error)?;
                }
            }
            if options.watcher().is_some() {
                judge_role(&mux.call(&Command::new("ROLE")).await?)?;
            }
            Ok(())
        };
        probe
            .phase(Phase::Handshake, clock::within(limit, Phase::Handshake, work))
            .await
            .map_err(|error| named(error).with_phase(Phase::Handshake).with_delivery(Delivery::NotSent))?;
        info.timings.handshake = Some(clock::now() - started);
        Ok(Self { mux, info: Arc::new(info), probe })
    }
}

/// A stream to the server, in TLS where that was asked for.
pub(crate) async fn dial(connector: &Connector, options: &Options) -> Result<Stream> {
    let told;
    let options = match options.watcher() {
        Some(sentinel) => {
            told = options.clone().at(sentinel.primary(connector, options.is_tls()).await?);
            &told
        }
        None => options,
    };
    let to = options.endpoint();
    let stream = match options.is_tls() {
        true => connector.connect_tls_as(to, &options.certificate_name(), &[]).await,
        false => connector.connect(to).await,
    };
    stream.map_err(named)
}

/// One command of the login.
pub(crate) struct Step {
    pub(crate) command: Command,
    /// A server from before 6.0 does not know the command: go on without it.
    optional: bool,
}

impl Step {
    /// Whether the login goes on after this refusal.
    pub(crate) fn judge(&self, error: ServerError) -> Result<()> {
        let unknown = error.code == "NOPROTO" || (error.code == "ERR" && error.message.contains("unknown command"));
        if self.optional && unknown {
            return Ok(());
        }
        let error = error.into_error();
        let kind = if self.command.name() == "AUTH" { Kind::Auth } else { error.kind() };
        Err(error.with_kind(kind).with_phase(Phase::Handshake))
    }
}

/// The commands of the login, in their order. `AUTH` comes before `HELLO`, so that a server without RESP3 logs in all the same.
pub(crate) fn handshake(options: &Options) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut step = |command, optional| steps.push(Step { command, optional });
    if let Some(login) = options.login() {
        let mut auth = Command::new("AUTH");
        if !login.user.is_empty() {
            auth = auth.arg(&login.user);
        }
        step(auth.arg(&login.password), false);
    }
    if options.wants_resp3() {
        step(Command::new("HELLO").arg("3"), true);
    }
    if let Some(name) = options.name() {
        step(Command::new("CLIENT SETNAME").arg(name), true);
    }
    if options.db() != 0 {
        step(Command::new("SELECT").arg(options.db()), false);
    }
    if options.is_read_only() {
        steps.push(Step { command: Command::new("READONLY"), optional: false });
    }
    if steps.is_empty() {
        steps.push(Step { command: Command::new("PING"), optional: false });
    }
    steps
}

/// A transaction that goes through only if the keys it watches stay as they were.
#[derive(Debug)]
pub struct Watch {
    client: Client,
}

impl Client {
    /// Watches keys on a connection of its own: read them there, then run a pipeline with [`Watch::exec`].
    pub async fn watch(&self, keys: &[&str]) -> Result<Watch> {
        let options = self.0.options.clone().reconnect(false);
        let client = Self::connect(self.connector()?, options).await?;
        let mut command = Command::new("WATCH");
        for key in keys {
            command.push(key.as_bytes());
        }
        client.run::<()>(&command).await?;
        Ok(Watch { client })
    }
}

impl Watch {
    /// The connection on which the keys are watched.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Runs `pipeline` as one transaction; `None` if a watched key was changed by someone else in between.
    pub async fn exec(self, pipeline: Pipeline) -> Result<Option<Replies>> {
        let pipeline = pipeline.atomic();
        let result = self.client.pipeline(&pipeline).await;
        let replies = match result {
            Err(error) if error.server::<super::Aborted>().is_some() => None,
            other => Some(other?),
        };
        self.client.close().await?;
        Ok(replies)
    }
}
