//! SASL (RFC 4422), the client's side, once for every protocol that carries it.
//!
//! A [`Client`] is a state machine without I/O: the protocol frames its messages (base64 and line rules are the
//! protocol's own). [`choose`] picks the mechanism: from an allow-list, the strongest that both sides can do, and never one
//! that gives the password or a token away unless TLS covers it.
//!
//! **Security.** SCRAM proves the server as well: [`Client::finish`] fails unless its signature was seen and is right
//! (compared in constant time). Iterations are bounded both ways. Nonces come from the operating system. Of SASLprep
//! (RFC 4013) this does: prohibited control characters are refused, the characters that map to nothing are dropped, and
//! the other spaces become U+0020. It does not normalise (NFKC): a password that is not in that form already is sent as it
//! is, which is also what servers do with text that their own SASLprep refuses.
//!
//! **Not done.** GSSAPI, DIGEST-MD5 (historic: RFC 6331), NTLM.
//!
//! ```
//! use portolan_wire::sasl::{self, Allow, ChannelBinding, Identity};
//!
//! let identity = Identity::password("tim", "tanstaaftanstaaf");
//! let mut client = sasl::choose(["PLAIN", "X-UNKNOWN"], &identity, &Allow::default(), true, &ChannelBinding::None)?;
//! assert_eq!(client.mechanism().name(), "PLAIN");
//! assert_eq!(client.initial()?.as_deref(), Some(b"\0tim\0tanstaaftanstaaf".as_slice()));
//! client.finish(None)?;
//! # Ok::<(), portolan_core::Error>(())
//! ```

mod end_point;
mod prep;
mod scram;

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use portolan_core::{Error, Kind, Phase, Result, Secret, Stream};

use scram::{Hash, Scram};

/// A mechanism by name, strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Mechanism {
    /// A client certificate or another proof outside SASL (RFC 4422 A).
    External,
    /// SCRAM-SHA-512-PLUS.
    ScramSha512Plus,
    /// SCRAM-SHA-256-PLUS (RFC 7677).
    ScramSha256Plus,
    /// SCRAM-SHA-1-PLUS (RFC 5802).
    ScramSha1Plus,
    /// SCRAM-SHA-512.
    ScramSha512,
    /// SCRAM-SHA-256 (RFC 7677).
    ScramSha256,
    /// SCRAM-SHA-1 (RFC 5802).
    ScramSha1,
    /// OAUTHBEARER (RFC 7628): gives the token away.
    OAuthBearer,
    /// XOAUTH2, as Google and Microsoft have it: gives the token away.
    XOAuth2,
    /// CRAM-MD5 (RFC 2195): hides the password from the eye but not from a guesser.
    CramMd5,
    /// PLAIN (RFC 4616): gives the password away.
    Plain,
    /// LOGIN, a draft that stayed: gives the password away.
    Login,
    /// ANONYMOUS (RFC 4505).
    Anonymous,
}

impl Mechanism {
    /// Every mechanism, strongest first.
    pub const ALL: [Self; 13] = [
        Self::External,
        Self::ScramSha512Plus,
        Self::ScramSha256Plus,
        Self::ScramSha1Plus,
        Self::ScramSha512,
        Self::ScramSha256,
        Self::ScramSha1,
        Self::OAuthBearer,
        Self::XOAuth2,
        Self::CramMd5,
        Self::Plain,
        Self::Login,
        Self::Anonymous,
    ];

    /// Its registered name.
    pub fn name(self) -> &'static str {
        match self {
            Self::External => "EXTERNAL",
            Self::ScramSha512Plus => "SCRAM-SHA-512-PLUS",
            Self::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Self::ScramSha1Plus => "SCRAM-SHA-1-PLUS",
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha1 => "SCRAM-SHA-1",
            Self::OAuthBearer => "OAUTHBEARER",
            Self::XOAuth2 => "XOAUTH2",
            Self::CramMd5 => "CRAM-MD5",
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::Anonymous => "ANONYMOUS",
        }
    }

    /// The mechanism of that name, in any case; `None` for one not done here.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
    }

    /// Whether it gives the password or token to whoever listens, so that it needs TLS.
    pub fn is_cleartext(self) -> bool {
        matches!(self, Self::Plain | Self::Login | Self::XOAuth2 | Self::OAuthBearer)
    }

    /// Whether it binds the login to the TLS channel.
    pub fn is_bound(self) -> bool {
        matches!(self, Self::ScramSha512Plus | Self::ScramSha256Plus | Self::ScramSha1Plus)
    }

    fn hash(self) -> Option<Hash> {
        match self {
            Self::ScramSha512Plus | Self::ScramSha512 => Some(Hash::Sha512),
            Self::ScramSha256Plus | Self::ScramSha256 => Some(Hash::Sha256),
            Self::ScramSha1Plus | Self::ScramSha1 => Some(Hash::Sha1),
            _ => None,
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Data of the TLS channel that a login is bound to (RFC 5929, RFC 9266).
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChannelBinding {
    /// There is none: no TLS, or not known.
    #[default]
    None,
    /// `tls-exporter`: 32 bytes exported with the label `EXPORTER-Channel-Binding` and an empty context. For TLS 1.3.
    Exporter(Vec<u8>),
    /// `tls-server-end-point`: the hash of the server's certificate, by the hash of its signature (MD5 and SHA-1 become
    /// SHA-256).
    ServerEndPoint(Vec<u8>),
}

impl ChannelBinding {
    /// What a stream offers: `tls-exporter` over TLS 1.3, `tls-server-end-point` over TLS 1.2, else nothing.
    ///
    /// A protocol whose servers know one kind alone (PostgreSQL: the end point) asks for it by name.
    pub fn of(stream: &Stream) -> Self {
        match stream.info().tls.as_ref().map(|tls| tls.version) {
            Some("TLSv1.3") => Self::exporter(stream),
            _ => Self::server_end_point(stream),
        }
    }

    /// `tls-exporter` (RFC 9266 4.2), or nothing where there is no TLS 1.3: older versions need an extension for it.
    pub fn exporter(stream: &Stream) -> Self {
        let mut bytes = vec![0; 32];
        let modern = stream.info().tls.as_ref().is_some_and(|tls| tls.version == "TLSv1.3");
        match stream.export_key(b"EXPORTER-Channel-Binding", Some(b""), &mut bytes) {
            Ok(()) if modern => Self::Exporter(bytes),
            _ => Self::None,
        }
    }

    /// `tls-server-end-point` (RFC 5929 4.1), or nothing without TLS or for a signature whose hash is not defined.
    pub fn server_end_point(stream: &Stream) -> Self {
        let leaf = stream.info().tls.as_ref().and_then(|tls| tls.chain.first());
        leaf.and_then(|leaf| end_point::hash(leaf)).map_or(Self::None, Self::ServerEndPoint)
    }
}

impl fmt::Debug for ChannelBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Exporter(_) => "Exporter(..)",
            Self::ServerEndPoint(_) => "ServerEndPoint(..)",
        })
    }
}

/// Who logs in, and by which proof.
#[derive(Debug, Clone)]
pub struct Identity {
    user: String,
    acting_as: Option<String>,
    proof: Proof,
    host: Option<(String, u16)>,
}

#[derive(Debug, Clone)]
enum Proof {
    Password(Secret),
    Token(Secret),
    External,
    Anonymous,
}

impl Identity {
    /// A user with a password.
    pub fn password(user: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self::new(user, Proof::Password(password.into()))
    }

    /// A user with an OAuth 2 access token.
    pub fn token(user: impl Into<String>, token: impl Into<Secret>) -> Self {
        Self::new(user, Proof::Token(token.into()))
    }

    /// Whoever the client certificate says; act as somebody else with [`acting_as`](Self::acting_as).
    pub fn external() -> Self {
        Self::new("", Proof::External)
    }

    /// Nobody, leaving a trace such as a mail address (RFC 4505), or an empty one.
    pub fn anonymous(trace: impl Into<String>) -> Self {
        Self::new(trace, Proof::Anonymous)
    }

    fn new(user: impl Into<String>, proof: Proof) -> Self {
        Self { user: user.into(), acting_as: None, proof, host: None }
    }

    /// The identity to act as (authzid), where it is not the user's own.
    #[must_use]
    pub fn acting_as(mut self, user: impl Into<String>) -> Self {
        self.acting_as = Some(user.into());
        self
    }

    /// The server that the token is for (OAUTHBEARER sends it along).
    #[must_use]
    pub fn at(mut self, host: impl Into<String>, port: u16) -> Self {
        self.host = Some((host.into(), port));
        self
    }

    fn serves(&self, mechanism: Mechanism) -> bool {
        use Mechanism as M;
        match mechanism {
            M::External => matches!(self.proof, Proof::External),
            M::Anonymous => matches!(self.proof, Proof::Anonymous),
            M::OAuthBearer | M::XOAuth2 => matches!(self.proof, Proof::Token(_)),
            // These have no place for another identity to act as.
            M::CramMd5 | M::Login => matches!(self.proof, Proof::Password(_)) && self.acting_as.is_none(),
            _ => matches!(self.proof, Proof::Password(_)),
        }
    }

    fn secret(&self) -> &str {
        match &self.proof {
            Proof::Password(secret) | Proof::Token(secret) => secret.expose(),
            Proof::External | Proof::Anonymous => "",
        }
    }
}

/// Which mechanisms may be used. The default is all of them, each only for an [`Identity`] that it serves.
#[derive(Debug, Clone)]
pub struct Allow {
    list: Vec<Mechanism>,
    cleartext: bool,
}

impl Default for Allow {
    fn default() -> Self {
        Self { list: Mechanism::ALL.to_vec(), cleartext: false }
    }
}

impl Allow {
    /// Only these, the order being that of strength whatever the list's.
    pub fn only(list: impl Into<Vec<Mechanism>>) -> Self {
        Self { list: list.into(), cleartext: false }
    }

    /// Ways to weaken the rules, which have to be asked for by this name.
    pub fn dangerous(self) -> DangerousAllow {
        DangerousAllow(self)
    }
}

/// What makes a login weaker. See [`Allow::dangerous`].
#[derive(Debug, Clone)]
pub struct DangerousAllow(Allow);

impl DangerousAllow {
    /// Gives passwords and tokens away without TLS, to whoever listens: for loopback, tunnels and test rigs.
    #[must_use]
    pub fn cleartext_without_tls(mut self) -> Allow {
        self.0.cleartext = true;
        self.0
    }
}

/// Picks the strongest mechanism that the server offers, `allow` permits and `identity` serves.
///
/// `tls` says whether the connection is encrypted and the peer's name was verified: without it, mechanisms that give a
/// secret away are passed over. Nothing left is [`Kind::Auth`], with the reason. Call it with the list that was heard
/// *after* TLS began: what was offered before may come from somebody else.
pub fn choose<'a>(
    offered: impl IntoIterator<Item = &'a str>,
    identity: &Identity,
    allow: &Allow,
    tls: bool,
    binding: &ChannelBinding,
) -> Result<Client> {
    let offered: Vec<Mechanism> = offered.into_iter().filter_map(Mechanism::parse).collect();
    let bound = tls && *binding != ChannelBinding::None;
    let usable = |mechanism: &Mechanism| {
        offered.contains(mechanism)
            && allow.list.contains(mechanism)
            && identity.serves(*mechanism)
            && (bound || !mechanism.is_bound())
    };
    let candidates: Vec<Mechanism> = Mechanism::ALL.into_iter().filter(usable).collect();
    let safe = |mechanism: &&Mechanism| tls || allow.cleartext || !mechanism.is_cleartext();
    match candidates.iter().find(safe) {
        Some(&mechanism) => Client::with_offer(mechanism, identity, binding, bound, &offered),
        None if candidates.is_empty() => {
            let names: Vec<_> = offered.iter().map(|mechanism| mechanism.name()).collect();
            let message = format!("no mechanism in common; the server offers [{}] of those known", names.join(", "));
            Err(auth(message))
        }
        None => Err(auth("only mechanisms that give the secret away are left, and the connection has no TLS")),
    }
}

/// The client's side of one login.
pub struct Client {
    mechanism: Mechanism,
    state: State,
}

enum State {
    /// One message, and then the server's verdict.
    Single(Option<Vec<u8>>),
    Bearer {
        message: Option<Vec<u8>>,
        on_error: &'static [u8],
        refused: Option<String>,
    },
    Cram {
        user: String,
        password: Secret,
        done: bool,
    },
    Login {
        user: String,
        password: Secret,
        step: u8,
    },
    Scram(Box<Scram>),
}

impl Client {
    /// The client of a mechanism that was agreed on in another way, such as by configuration.
    pub fn new(mechanism: Mechanism, identity: &Identity, binding: &ChannelBinding) -> Result<Self> {
        let bound = *binding != ChannelBinding::None;
        Self::with_offer(mechanism, identity, binding, bound, &[mechanism])
    }

    fn with_offer(
        mechanism: Mechanism,
        identity: &Identity,
        binding: &ChannelBinding,
        bound: bool,
        offered: &[Mechanism],
    ) -> Result<Self> {
        if !identity.serves(mechanism) {
            return Err(Error::usage(format!("the identity has not what {mechanism} asks for")));
        }
        let acting_as = identity.acting_as.as_deref().unwrap_or("");
        for (what, text) in [("user", identity.user.as_str()), ("authorization identity", acting_as)] {
            prep::refuse(what, text, &['\0', '\r', '\n', '\u{1}'])?;
        }
        let (user, secret) = (identity.user.clone(), identity.secret());
        let state = match mechanism {
            Mechanism::External => State::Single(Some(acting_as.into())),
            Mechanism::Anonymous => State::Single(Some(user.into_bytes())),
            Mechanism::Plain => {
                prep::refuse("password", secret, &['\0'])?;
                State::Single(Some([acting_as, "\0", &user, "\0", secret].concat().into_bytes()))
            }
            Mechanism::OAuthBearer | Mechanism::XOAuth2 => bearer(mechanism, identity)?,
            Mechanism::CramMd5 => State::Cram { user, password: Secret::new(secret), done: false },
            Mechanism::Login => State::Login { user, password: Secret::new(secret), step: 0 },
            _ => {
                let hash = mechanism.hash().ok_or_else(|| Error::usage("not a SCRAM mechanism"))?;
                let plus = offered.iter().any(|other| other.is_bound());
                let flag = scram::Flag::of(mechanism.is_bound(), bound && !plus, binding)?;
                State::Scram(Box::new(Scram::new(hash, &user, acting_as, secret, flag, scram::nonce()?)?))
            }
        };
        Ok(Self { mechanism, state })
    }

    /// Which mechanism it is.
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// The initial response, to go out with the mechanism's name; `None` where the server speaks first.
    ///
    /// A protocol that has no initial response sends it as the answer to the server's first, empty challenge.
    pub fn initial(&mut self) -> Result<Option<Vec<u8>>> {
        match &mut self.state {
            State::Single(message) | State::Bearer { message, .. } => Ok(message.take()),
            State::Cram { .. } | State::Login { .. } => Ok(None),
            State::Scram(scram) => Ok(scram.first()),
        }
    }

    /// Answers a challenge. `None` means that no answer is left to give: the server's verdict must follow.
    ///
    /// SCRAM works here for as long as the server's iteration count asks (half a second at the limit); a busy executor
    /// may run it on a thread for blocking work.
    pub fn step(&mut self, challenge: &[u8]) -> Result<Option<Vec<u8>>> {
        match &mut self.state {
            // A server that sent its empty challenge first gets the message now.
            State::Single(message) => Ok(message.take()),
            State::Bearer { message, on_error, refused } => match message.take() {
                Some(message) => Ok(Some(message)),
                None if refused.is_some() => Ok(None),
                None => {
                    *refused = Some(String::from_utf8_lossy(challenge).chars().take(500).collect());
                    Ok(Some(on_error.to_vec()))
                }
            },
            State::Cram { done: true, .. } => Ok(None),
            State::Cram { user, password, done } => {
                *done = true;
                cram(user, password, challenge).map(Some)
            }
            State::Login { user, password, step } => {
                *step = step.saturating_add(1);
                Ok(match step {
                    1 => Some(user.clone().into_bytes()),
                    2 => Some(password.expose().into()),
                    _ => None,
                })
            }
            State::Scram(scram) => scram.step(challenge),
        }
    }

    /// To be called when the server says that the login succeeded, with the data that came along if any. It fails where
    /// the mechanism knows better: a SCRAM server that did not prove itself is not the server.
    pub fn finish(&mut self, data: Option<&[u8]>) -> Result<()> {
        match &mut self.state {
            State::Scram(scram) => {
                if let Some(data) = data.filter(|data| !data.is_empty()) {
                    scram.step(data)?;
                }
                scram.verified()
            }
            State::Bearer { refused: Some(text), .. } => Err(auth(format!("token refused: {text}"))),
            State::Cram { done: false, .. } => Err(auth("success before the challenge was answered")),
            State::Login { step: 0 | 1, .. } => Err(auth("success before the password was asked for")),
            State::Single(Some(_)) | State::Bearer { message: Some(_), .. } => {
                Err(auth("success before the first message was sent"))
            }
            _ => Ok(()),
        }
    }

    /// What the server said about the token, after it refused it: the JSON of RFC 7628 3.2.2.
    pub fn refusal(&self) -> Option<&str> {
        match &self.state {
            State::Bearer { refused, .. } => refused.as_deref(),
            _ => None,
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("mechanism", &self.mechanism).finish_non_exhaustive()
    }
}

fn bearer(mechanism: Mechanism, identity: &Identity) -> Result<State> {
    let (user, token) = (&identity.user, identity.secret());
    prep::refuse("token", token, &['\0', '\r', '\n', '\u{1}'])?;
    if mechanism == Mechanism::XOAuth2 {
        let message = format!("user={user}\u{1}auth=Bearer {token}\u{1}\u{1}").into_bytes();
        // The error comes as a challenge, and waits for an empty answer.
        return Ok(State::Bearer { message: Some(message), on_error: b"", refused: None });
    }
    let mut message = format!("n,a={},\u{1}", prep::name(identity.acting_as.as_deref().unwrap_or(user)));
    if let Some((host, port)) = &identity.host {
        prep::refuse("host", host, &['\0', '\r', '\n', '\u{1}'])?;
        message.push_str(&format!("host={host}\u{1}port={port}\u{1}"));
    }
    message.push_str(&format!("auth=Bearer {token}\u{1}\u{1}"));
    // RFC 7628 3.2.3: the error is answered with a lone ^A.
    Ok(State::Bearer { message: Some(message.into_bytes()), on_error: b"\x01", refused: None })
}

fn cram(user: &str, password: &Secret, challenge: &[u8]) -> Result<Vec<u8>> {
    use std::fmt::Write as _;
    let mut mac =
        Hmac::<md5::Md5>::new_from_slice(password.expose().as_bytes()).map_err(|_| Error::usage("bad key"))?;
    mac.update(challenge);
    let mut answer = format!("{user} ");
    for byte in mac.finalize().into_bytes() {
        let _ = write!(answer, "{byte:02x}");
    }
    Ok(answer.into_bytes())
}

fn auth(message: impl Into<Box<str>>) -> Error {
    Error::new(Kind::Auth, message).with_phase(Phase::Handshake)
}

#[cfg(test)]
mod tests;
