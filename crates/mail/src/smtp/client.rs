//! The client: one conversation, driven by its caller.

use bytes::BytesMut;
use portolan_core::observe::{Facts, Probe, Semantics};
use portolan_core::{ConnectionInfo, Connector, Delivery, Error, Kind, Phase, Result, Stream, clock};
use portolan_wire::{Exchange, dot};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::PROTOCOL;
use super::envelope::Envelope;
use super::extensions::Extensions;
use super::login;
use super::options::{Options, Security};
use super::reply::{Reply, SmtpCodec};

/// The bytes of a body that are held at once: one read, and its stuffed form.
const CHUNK: usize = 32 * 1024;

/// One connection to a server, logged in and ready to send. Messages go one after the other; a dropped call leaves the
/// conversation in the middle of a message, so the client then refuses further use and the connection is closed.
#[derive(Debug)]
pub struct Client {
    pub(super) talk: Exchange<SmtpCodec>,
    pub(super) options: Options,
    extensions: Extensions,
    greeting: Reply,
    probe: Probe,
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The recipients that the server took on itself to serve.
    pub accepted: Vec<String>,
    /// The others, each with the server's words.
    pub refused: Vec<(String, Reply)>,
    /// What the server said of the message: often the name under which it queued it.
    pub reply: Reply,
}

impl Client {
    /// Connects, turns to TLS as the options demand, and logs in.
    pub async fn connect(connector: &Connector, options: Options) -> Result<Self> {
        let to = options.endpoint();
        let stream = match options.security_level() {
            Security::Implicit => connector.connect_tls_as(to, &options.certificate_name(), &[]).await,
            _ => connector.connect(to).await,
        };
        Self::from_stream(stream.map_err(named)?, options).await
    }

    /// Connects to a URL such as `submission://joe:secret@mail.example` with the default connector.
    pub async fn open(url: &str) -> Result<Self> {
        Self::connect(&Connector::default(), Options::from_url(url)?).await
    }

    /// Greets, turns to TLS where the options say STARTTLS, and logs in, on a stream made elsewhere.
    pub async fn from_stream(stream: Stream, options: Options) -> Result<Self> {
        let limit = options.bounds().handshake_limit();
        let started = clock::now();
        let probe = Probe::on(PROTOCOL, Semantics::Plain, &stream);
        let work = async {
            let client = Self::greeted(stream, options).await?;
            let mut client = client.secured().await?;
            if client.options.login().is_some() {
                let options = client.options.clone();
                login::run(&mut client, &options).await?;
            }
            Ok(client)
        };
        // Boxed: it is large, and runs once.
        let work = Box::pin(clock::within(limit, Phase::Handshake, work));
        let client = probe.phase(Phase::Handshake, work).await;
        let mut client =
            client.map_err(|error| named(error).with_phase(Phase::Handshake).with_delivery(Delivery::NotSent))?;
        client.note(clock::now() - started);
        client.probe = probe;
        Ok(client)
    }

    fn note(&mut self, elapsed: std::time::Duration) {
        self.talk.stream_mut().info_mut().timings.handshake = Some(elapsed);
    }

    async fn greeted(stream: Stream, options: Options) -> Result<Self> {
        let mut talk = Exchange::new(stream, SmtpCodec::default()).with_timeouts(*options.bounds());
        talk.owe(1);
        let greeting = talk.recv().await?;
        if greeting.code != 220 {
            // 554: no service here (RFC 5321 3.1); 421: not now.
            return Err(greeting.into_error());
        }
        let mut client = Self { talk, options, extensions: Extensions::default(), greeting, probe: Probe::default() };
        client.hello().await?;
        Ok(client)
    }

    async fn hello(&mut self) -> Result<()> {
        let name = self.options.hello_name().to_owned();
        let reply = self.talk.call(&format!("EHLO {name}")).await?;
        if reply.is_positive() {
            self.extensions = Extensions::parse(&reply, true);
            return Ok(());
        }
        // A server from before EHLO says that it does not know the command (RFC 5321 3.2).
        if !matches!(reply.code, 500 | 502 | 504 | 550) {
            return Err(reply.into_error());
        }
        let reply = self.positive(&format!("HELO {name}")).await?;
        self.extensions = Extensions::parse(&reply, false);
        Ok(())
    }

    async fn secured(mut self) -> Result<Self> {
        if self.options.security_level() != Security::StartTls || self.talk.stream().is_tls() {
            return Ok(self);
        }
        if !self.extensions.starttls {
            let message = "the server does not offer STARTTLS, which the options demand";
            return Err(Error::new(Kind::Tls, message).with_phase(Phase::Tls));
        }
        let reply = self.talk.call("STARTTLS").await?;
        if reply.code != 220 {
            return Err(reply.into_error().with_kind(Kind::Tls));
        }
        // What was learned in the clear may have been said by anyone: it is forgotten and asked anew (RFC 3207 4.2).
        let talk = self.talk.start_tls(&self.options.certificate_name()).await?;
        let mut client = Self { talk, extensions: Extensions::default(), ..self };
        client.hello().await?;
        Ok(client)
    }

    /// What the server can do.
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// How the server greeted.
    pub fn greeting(&self) -> &Reply {
        &self.greeting
    }

    /// What is known about the connection.
    pub fn info(&self) -> &ConnectionInfo {
        self.talk.stream().info()
    }

    /// Whether another message can be sent.
    pub fn is_reusable(&self) -> bool {
        self.talk.is_reusable()
    }

    /// Sends a message that is in memory.
    pub async fn send<T: AsRef<str>>(
        &mut self,
        from: &str,
        to: impl IntoIterator<Item = T>,
        message: &[u8],
    ) -> Result<Report> {
        let mut envelope = Envelope::new(from)?;
        for address in to {
            envelope = envelope.to(address.as_ref())?;
        }
        self.send_bytes(envelope, message).await
    }

    /// Sends a message that is in memory, with an envelope that says more.
    pub async fn send_bytes(&mut self, envelope: Envelope, message: &[u8]) -> Result<Report> {
        let eight_bit = envelope.is_eight_bit() || !message.is_ascii();
        let size = u64::try_from(message.len()).unwrap_or(u64::MAX);
        self.send_stream(envelope.eight_bit(eight_bit).size(size), message).await
    }

    /// Sends a message as it is read: header, empty line, body. Line ends become CRLF and dots are stuffed, unless the
    /// message goes in counted chunks ([`Options::chunking`]), which carry every byte as it is.
    ///
    /// The message is accepted if the server accepts it for one recipient at least; [`Report::refused`] names the others.
    /// An error of `body` leaves the message unfinished: the connection is then unusable, and the server forgets the message.
    pub async fn send_stream(&mut self, envelope: Envelope, body: impl AsyncRead + Unpin) -> Result<Report> {
        let probe = self.probe.clone();
        let facts = |report: &Report| Facts::default().status(report.reply.code);
        probe.operation("send").run_with(self.transfer(envelope, body), facts).await
    }

    async fn transfer(&mut self, envelope: Envelope, body: impl AsyncRead + Unpin) -> Result<Report> {
        let parameters = self.check(&envelope)?;
        let (accepted, refused) = match self.recipients(&envelope, &parameters).await {
            Ok(outcome) => outcome,
            Err(error) => return Err(named(error)),
        };
        let result = if parameters.chunking { self.chunks(body).await } else { self.data(body).await };
        let reply = result.map_err(named)?;
        if !reply.is_positive() {
            return Err(reply.into_error());
        }
        Ok(Report { accepted, refused, reply })
    }

    /// What the envelope needs and the server lacks is an error before a byte is sent.
    fn check(&self, envelope: &Envelope) -> Result<Parameters> {
        let has = &self.extensions;
        let lacking = |what: &str| {
            Err(Error::new(Kind::Unsupported, format!("the server does not offer {what}")).with_protocol(PROTOCOL))
        };
        if envelope.recipients().is_empty() {
            return Err(Error::usage("a message for nobody"));
        }
        if envelope.needs_utf8() && !has.utf8 {
            return lacking("SMTPUTF8, which the addresses or the header need");
        }
        if envelope.is_eight_bit() && !has.eight_bit {
            return lacking("8BITMIME, which the message needs");
        }
        if envelope.needs_dsn() && !has.dsn {
            return lacking("DSN, which the envelope asks for");
        }
        let size = envelope.declared_size().filter(|_| has.size.is_some());
        if let (Some(size), Some(limit)) = (size, has.size.filter(|limit| *limit > 0))
            && size > limit
        {
            let message = format!("a message of {size} bytes: the server takes {limit} at most");
            return Err(Error::new(Kind::Limit, message).with_protocol(PROTOCOL).with_delivery(Delivery::NotSent));
        }
        Ok(Parameters {
            body: (envelope.is_eight_bit() && has.eight_bit).then_some("8BITMIME"),
            size,
            chunking: self.options.wants_chunking() && has.chunking,
        })
    }

    /// `MAIL` and every `RCPT`: in one write where the server takes that, else one by one.
    async fn recipients(
        &mut self,
        envelope: &Envelope,
        parameters: &Parameters,
    ) -> Result<(Vec<String>, Vec<(String, Reply)>)> {
        let to = envelope.recipients();
        let mut commands = vec![envelope.mail_command(parameters.body, parameters.size)];
        commands.extend(to.iter().map(|to| envelope.rcpt_command(to)));
        let mut replies = Vec::with_capacity(commands.len());
        if self.extensions.pipelining {
            self.talk.send_all(commands.iter().map(String::as_str)).await?;
            for _ in &commands {
                replies.push(self.talk.recv().await?);
            }
        } else {
            for command in &commands {
                let reply = self.talk.call(command).await?;
                let stop = replies.is_empty() && !reply.is_positive();
                replies.push(reply);
                if stop {
                    break;
                }
            }
        }
        let mut replies = replies.into_iter();
        match replies.next() {
            Some(mail) if !mail.is_positive() => return self.give_up(mail).await,
            _ => {}
        }
        let (mut accepted, mut refused) = (Vec::new(), Vec::new());
        for (to, reply) in to.iter().zip(replies) {
            if reply.is_positive() { accepted.push(to.clone()) } else { refused.push((to.clone(), reply)) }
        }
        match refused.first() {
            Some((_, reply)) if accepted.is_empty() => {
                let reply = reply.clone();
                self.give_up(reply).await
            }
            _ => Ok((accepted, refused)),
        }
    }

    /// Nothing can be sent: the transaction is taken back, so that the next message begins clean.
    async fn give_up<T>(&mut self, reply: Reply) -> Result<T> {
        if reply.code != 421 {
            self.talk.call("RSET").await?;
        }
        Err(reply.into_error())
    }

    async fn data(&mut self, mut body: impl AsyncRead + Unpin) -> Result<Reply> {
        let go_on = self.talk.call("DATA").await?;
        if go_on.code != 354 {
            return self.give_up(go_on).await;
        }
        self.talk.owe(1);
        let (mut stuffer, mut chunk) = (dot::Stuffer::new(), BytesMut::with_capacity(CHUNK));
        loop {
            chunk.clear();
            let n = match body.read_buf(&mut chunk).await {
                Ok(n) => n,
                Err(error) => return Err(self.unfinished(error)),
            };
            if n == 0 {
                break;
            }
            stuffer.push(&chunk, self.talk.write_buf());
            self.talk.flush().await?;
        }
        stuffer.finish(self.talk.write_buf());
        self.talk.flush().await?;
        self.talk.recv().await
    }

    /// `BDAT` (RFC 3030): each chunk is answered; all but the last go out without waiting where the server takes that.
    async fn chunks(&mut self, mut body: impl AsyncRead + Unpin) -> Result<Reply> {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        loop {
            chunk.clear();
            // Whole chunks: each costs a reply.
            while chunk.len() < CHUNK {
                match (&mut body).take(u64::try_from(CHUNK - chunk.len()).unwrap_or(0)).read_buf(&mut chunk).await {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) => return Err(self.unfinished(error)),
                }
            }
            let last = chunk.len() < CHUNK;
            let command = if last { format!("BDAT {} LAST", chunk.len()) } else { format!("BDAT {}", chunk.len()) };
            self.talk.queue(&command)?;
            self.talk.write_raw(&chunk).await?;
            let reply = self.talk.recv().await?;
            if last {
                return Ok(reply);
            }
            if !reply.is_positive() {
                return self.give_up(reply).await;
            }
        }
    }

    fn unfinished(&mut self, error: std::io::Error) -> Error {
        self.talk.poison("a message was left unfinished");
        let message = "the message could not be read to its end; the server forgets what it has of it";
        Error::new(Kind::Usage, message).with_phase(Phase::Send).with_delivery(Delivery::Refused).with_source(error)
    }

    /// Asks for a sign of life.
    pub async fn noop(&mut self) -> Result<()> {
        let probe = self.probe.clone();
        probe.operation("NOOP").run(self.positive("NOOP")).await.map(|_| ())
    }

    /// Asks whether a mailbox exists. Many servers answer 252: they will not say.
    pub async fn verify(&mut self, address: &str) -> Result<Reply> {
        let probe = self.probe.clone();
        probe.operation("VRFY").run_with(self.positive(&format!("VRFY {address}")), reply_code).await
    }

    /// Any other command of one line; any reply is a success here.
    pub async fn command(&mut self, line: &str) -> Result<Reply> {
        let probe = self.probe.clone();
        let verb = line.split(' ').next().unwrap_or_default();
        let work = async { self.talk.call(line).await.map_err(named) };
        probe.operation(verb).run_with(work, reply_code).await
    }

    pub(super) async fn positive(&mut self, line: &str) -> Result<Reply> {
        let reply = self.talk.call(line).await.map_err(named)?;
        if reply.is_positive() { Ok(reply) } else { Err(reply.into_error()) }
    }

    /// Says goodbye and closes. A server that closes without an answer is no error.
    pub async fn close(mut self) -> Result<()> {
        match self.talk.call("QUIT").await {
            Ok(_) => {}
            Err(error) if error.is_closed() => return Ok(()),
            Err(error) => return Err(named(error)),
        }
        let limit = self.options.bounds().idle_limit().unwrap_or(std::time::Duration::from_secs(5));
        match self.talk.shutdown(limit).await {
            // It has said goodbye, and was quicker: through a proxy even our close_notify may come too late.
            Err(error) if error.is_closed() => Ok(()),
            result => result.map_err(named),
        }
    }
}

/// The parameters of one message, as far as the server knows them.
struct Parameters {
    body: Option<&'static str>,
    size: Option<u64>,
    chunking: bool,
}

fn named(error: Error) -> Error {
    if error.protocol_name().is_some() { error } else { error.with_protocol(PROTOCOL) }
}

fn reply_code(reply: &Reply) -> Facts {
    Facts::default().status(reply.code)
}
