//! The client: one question, one answer, whatever it takes.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use portolan_core::observe::{Probe, Semantics};
use portolan_core::{ConnectionInfo, Connector, Endpoint, Error, Kind, Phase, Result, Stream, clock};
use tokio::sync::Mutex;

use super::PROTOCOL;
use super::carrier::{self, Carrier, Freshness};
use super::codec::{Manner, Query, decode, is_truncated, rcode};
use super::name::Name;
use super::options::Options;
use super::response::{Fallback, Info, Response, Transport};
use super::session::{MAX_IN_FLIGHT, Session};
use super::transfer::Transfer;
use super::types::{Class, Question, Rcode, RecordType};
use super::udp::{self, Heard};

/// Asks a DNS server. Many tasks may ask at once.
#[derive(Debug)]
pub struct Client {
    way: Way,
    options: Options,
    probe: Probe,
    /// The connection kept for the next query over TCP (RFC 7766 6.2.1). Whoever asks takes it out and puts it back only
    /// after a clean exchange, so that a dropped future leaves none behind.
    kept: Mutex<Option<Session>>,
}

#[derive(Debug)]
enum Way {
    Net(Connector, Endpoint),
    Stream,
    Carried(Box<dyn Carrier>),
}

/// An answer in bytes, and how it came.
struct Reply {
    bytes: Bytes,
    info: Info,
    freshness: Freshness,
}

impl Reply {
    fn new(bytes: impl Into<Bytes>, info: Info) -> Self {
        Self { bytes: bytes.into(), info, freshness: Freshness::default() }
    }
}

impl Client {
    /// A client of the server named by `options`. Nothing is sent yet.
    pub async fn connect(net: &Connector, options: Options) -> Result<Self> {
        Self::new(net, options)
    }

    pub(super) fn new(net: &Connector, options: Options) -> Result<Self> {
        let to = options.server()?;
        let probe = Probe::new(super::PROTOCOL, Semantics::Dns, &to, net);
        let net = options.connector(net)?;
        let way = match carrier::of(&net, &options)? {
            Some(carrier) => Way::Carried(carrier),
            None => Way::Net(net, to),
        };
        Ok(Self { way, options, probe, kept: Mutex::new(None) })
    }

    /// A client of the server at `url`, reached directly: see [`Options::from_url`].
    pub async fn open(url: &str) -> Result<Self> {
        Self::connect(&Connector::default(), Options::from_url(url)?).await
    }

    /// A client on a stream that is there already: TCP's framing, and no datagrams. Over TLS it is DNS over TLS.
    pub fn from_stream(stream: Stream, options: Options) -> Self {
        let probe = Probe::on(super::PROTOCOL, Semantics::Dns, &stream);
        let session = Session::new(stream, options.limit());
        Self { way: Way::Stream, options, probe, kept: Mutex::new(Some(session)) }
    }

    /// Asks for the records of one type. A name that does not exist is an answer; any other refusal is a
    /// [`Kind::Server`] error with its [`Rcode`]. Dropping the future gives up; nothing of it is left to later calls.
    pub async fn query(&self, name: &str, record_type: RecordType) -> Result<Response> {
        self.ask(&Question::new(name.parse()?, record_type)).await
    }

    /// [`query`](Self::query) with the whole question said.
    pub async fn ask(&self, question: &Question) -> Result<Response> {
        // Words are made for those who hear them alone.
        let Some(probe) = self.probe.told() else { return self.answered(question, clock::now()).await };
        let (record_type, name) = (question.record_type.to_string(), question.name.to_string());
        probe.operation(&record_type).about(&name).run(self.answered(question, clock::now())).await
    }

    /// Asks many questions over one connection (TCP, where the transport is UDP) without waiting between them; the answers may come in
    /// any order and are given in that of the questions. Each has its own result; an error of a TCP connection is that of the whole.
    pub async fn query_all(&self, questions: &[Question]) -> Result<Vec<Result<Response>>> {
        let mut results = Vec::with_capacity(questions.len());
        for batch in questions.chunks(MAX_IN_FLIGHT) {
            if let Way::Carried(_) = &self.way {
                results.extend(join_all(batch.iter().map(|question| self.answered(question, clock::now()))).await);
                continue;
            }
            let mut queries = Vec::with_capacity(batch.len());
            for question in batch {
                // Two queries under way must not share an id (RFC 7766 6.2.1).
                let mut query = Query::new(question, &self.manner(true))?;
                while queries.iter().any(|other: &Query| other.id() == query.id()) {
                    query = Query::new(question, &self.manner(true))?;
                }
                queries.push(query);
            }
            let started = clock::now();
            let work = self.over_tcp(&queries);
            let (answers, connection) = clock::within(self.options.limit(), Phase::Total, work).await?;
            for bytes in answers {
                let elapsed = clock::now() - started;
                let info = Info {
                    transport: Transport::Tcp,
                    attempts: 1,
                    elapsed,
                    connection: connection.clone(),
                    ..Info::default()
                };
                results.push(understood(Reply::new(bytes, info)));
            }
        }
        Ok(results)
    }

    /// All addresses of a name, over its aliases, also where they lead to names that the server didn't answer for. No such
    /// name, and no address, are errors of [`Kind::Resolve`].
    pub async fn lookup_ip(&self, name: &str) -> Result<Vec<IpAddr>> {
        Ok(self.lookup(name.parse()?).await?.addrs)
    }

    /// The names of an address.
    pub async fn reverse(&self, ip: IpAddr) -> Result<Vec<Name>> {
        let response = self.ask(&Question::new(Name::reverse(ip), RecordType::Ptr)).await?;
        Ok(response.ptr().cloned().collect())
    }

    /// What the server says of its version, if it says: `version.bind` in class `CH`.
    pub async fn version(&self) -> Result<Option<String>> {
        let question = Question::new("version.bind".parse()?, RecordType::Txt).with_class(Class::Ch);
        let response = self.ask(&question).await?;
        Ok(response.txt().next().map(|strings| String::from_utf8_lossy(&strings.concat()).into_owned()))
    }

    /// Sends a message of the caller's own making, with one question, and gives the bytes of the answer to it. The id is
    /// replaced, in the answer too: by a random one, or by what the transport demands. EDNS is the caller's affair, and so is padding.
    pub async fn query_raw(&self, message: &[u8]) -> Result<Bytes> {
        let make = || Query::raw(message, self.is_carried());
        let deadline = self.options.limit().map(|limit| clock::now() + limit);
        Ok(self.exchange(&make, deadline).await?.bytes)
    }

    /// A whole zone, over a connection of its own: TCP or TLS (RFC 9103). Servers give it only to those they know.
    pub async fn transfer(&self, zone: &str) -> Result<Transfer> {
        let question = Question::new(zone.parse()?, RecordType::Axfr);
        let manner = Manner { recursion_desired: false, edns: None, anonymous: false, ..self.manner(false) };
        let query = Query::new(&question, &manner)?;
        let begin = async {
            let session = match &self.way {
                Way::Net(net, to) => self.dial(net, to).await?,
                Way::Carried(carrier) => Session::new(carrier.stream().await?, self.options.limit()),
                Way::Stream => self.kept.lock().await.take().ok_or_else(gone)?,
            };
            Transfer::begin(session, question, query).await
        };
        clock::within(self.options.limit(), Phase::Total, begin).await
    }

    /// Closes the kept connection, if there is one.
    pub async fn close(self) -> Result<()> {
        if let Way::Carried(carrier) = &self.way {
            return carrier.close().await;
        }
        match self.kept.into_inner() {
            Some(session) => session.close().await,
            None => Ok(()),
        }
    }

    fn manner(&self, edns: bool) -> Manner {
        let options = &self.options;
        Manner {
            recursion_desired: options.recursion_desired,
            checking_disabled: options.checking_disabled,
            edns: options.payload.filter(|_| edns).map(|size| (size, options.dnssec_ok)),
            toss_case: options.toss_case,
            anonymous: self.is_carried(),
            padding: options.padding && self.is_carried(),
        }
    }

    fn is_carried(&self) -> bool {
        matches!(self.way, Way::Carried(_))
    }

    async fn answered(&self, question: &Question, started: clock::Instant) -> Result<Response> {
        let deadline = self.options.limit().map(|limit| started + limit);
        let mut edns = self.options.payload.is_some();
        let mut refused_edns = false;
        loop {
            let manner = self.manner(edns);
            let make = || Query::new(question, &manner);
            let mut reply = self.exchange(&make, deadline).await?;
            reply.info.elapsed = clock::now() - started;
            reply.info.edns_refused = refused_edns;
            // RFC 6891 7: an old server answers FORMERR or NOTIMP to EDNS, a newer one BADVERS to a version of it.
            let unread = matches!(rcode(&reply.bytes), Rcode::FormErr | Rcode::NotImp);
            if edns && (unread || decode(&reply.bytes).is_ok_and(|response| response.rcode == Rcode::BadVers)) {
                (edns, refused_edns) = (false, true);
                continue;
            }
            return understood(reply);
        }
    }

    async fn exchange(
        &self,
        make: &(dyn Fn() -> Result<Query> + Sync),
        deadline: Option<clock::Instant>,
    ) -> Result<Reply> {
        let mut info = Info { transport: Transport::Tcp, ..Info::default() };
        if let Way::Carried(carrier) = &self.way {
            let carried = carrier.ask(&make()?, left(deadline)).await?;
            (info.transport, info.attempts) = (self.options.transport, carried.attempts);
            info.connection = carried.connection;
            return Ok(Reply { bytes: carried.bytes, info, freshness: carried.freshness });
        }
        if let (Way::Net(net, to), Transport::Auto | Transport::Udp) = (&self.way, self.options.transport) {
            match udp::ask(net, to, make, &self.options, deadline, &mut info).await {
                Ok(Heard::Answer(bytes)) if is_truncated(&bytes) && self.may_use_tcp() => {
                    info.fallback = Some(Fallback::Truncated)
                }
                Ok(Heard::Answer(bytes)) => return Ok(Reply::new(bytes, info)),
                Ok(Heard::Flood) if self.may_use_tcp() => info.fallback = Some(Fallback::Forgeries),
                Ok(Heard::Flood) => {
                    return Err(Error::protocol(
                        PROTOCOL,
                        format!("{} datagrams that answer nothing: somebody is guessing", info.ignored),
                    ));
                }
                Err(error) if no_datagrams(&error) && self.may_use_tcp() => info.fallback = Some(Fallback::NoDatagrams),
                Err(error) => return Err(error),
            }
        }
        let query = make()?;
        info.transport = Transport::Tcp;
        info.attempts += 1;
        let work = self.over_tcp(std::slice::from_ref(&query));
        let (mut answers, connection) = clock::within(left(deadline), Phase::Total, work).await?;
        info.connection = connection;
        let bytes = answers.pop().ok_or_else(|| Error::protocol(PROTOCOL, "no answer"))?;
        Ok(Reply::new(bytes, info))
    }

    fn may_use_tcp(&self) -> bool {
        self.options.transport == Transport::Auto
    }

    async fn over_tcp(&self, queries: &[Query]) -> Result<(Vec<Bytes>, ConnectionInfo)> {
        match &self.way {
            Way::Net(net, to) => {
                let kept = self.kept.lock().await.take().and_then(|mut session| session.is_usable().then_some(session));
                let mut session = match kept {
                    Some(session) => session,
                    None => self.dial(net, to).await?,
                };
                let answers = session.exchange(queries).await.map_err(|error| error.with_endpoint(to.clone()))?;
                let info = session.stream().info().clone();
                *self.kept.lock().await = Some(session);
                Ok((answers, info))
            }
            Way::Stream | Way::Carried(_) => {
                // The only stream there is: others wait for it.
                let mut kept = self.kept.lock().await;
                let mut session = kept.take().ok_or_else(gone)?;
                let answers = session.exchange(queries).await?;
                let info = session.stream().info().clone();
                *kept = Some(session);
                Ok((answers, info))
            }
        }
    }

    async fn dial(&self, net: &Connector, to: &Endpoint) -> Result<Session> {
        Ok(Session::new(net.connect(to).await?, self.options.limit()))
    }
}

/// Whether the way carries no datagrams. Proxies say so in many ways; if the proxy is at fault altogether, TCP
/// will meet the same fault and tell it.
fn no_datagrams(error: &Error) -> bool {
    matches!(error.kind(), Kind::Unsupported | Kind::Hop)
}

fn gone() -> Error {
    Error::closed("an earlier exchange on this stream failed or was given up")
        .with_delivery(portolan_core::Delivery::NotSent)
}

pub(crate) fn left(deadline: Option<clock::Instant>) -> Option<Duration> {
    deadline.map(|deadline| deadline.saturating_duration_since(clock::now()))
}

fn understood(reply: Reply) -> Result<Response> {
    let Reply { bytes, mut info, freshness } = reply;
    info.size = bytes.len();
    let mut response = match decode(&bytes) {
        Ok(response) => response,
        // Some servers cut a datagram in mid-record; the caller forbade TCP, so the header is all there is.
        Err(error) => return Err(error.into_error(PROTOCOL).with_delivery(portolan_core::Delivery::Answered)),
    };
    freshness.apply(&mut response);
    match response.rcode {
        Rcode::NoError | Rcode::NxDomain => Ok(Response { info, ..response }),
        _ => Err(refused(&response)),
    }
}

/// The server's "no", as an error.
pub(crate) fn refused(response: &Response) -> Error {
    let code = u16::from(response.rcode);
    Error::from_server(PROTOCOL, response.rcode.to_string(), response.rcode).with_code(code.into())
}
