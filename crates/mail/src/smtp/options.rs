//! What can be said about a connection.

use portolan_core::{Credentials, Endpoint, Error, Result, Timeouts, Url};

use super::{PORT, SMTPS_PORT, SUBMISSION_PORT};

/// How the conversation is kept from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Security {
    /// TLS in mid-stream; a server that does not offer it, or refuses it, is an error before anything else is said.
    StartTls,
    /// TLS from the first byte.
    Implicit,
    /// In the clear. Credentials are refused unless [`Options::allow_clear_auth`] says otherwise.
    Clear,
}

/// How to reach a server and how to talk to it.
///
/// ```
/// use portolan_mail::smtp::{Options, Security};
///
/// let options = Options::from_url("smtps://joe:secret@mail.example")?;
/// assert_eq!((options.endpoint().port(), options.security_level()), (465, Security::Implicit));
/// # Ok::<(), portolan_core::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Options {
    endpoint: Endpoint,
    security: Security,
    tls_name: Option<String>,
    credentials: Option<Credentials>,
    mechanisms: Vec<String>,
    allow_clear_auth: bool,
    token: bool,
    hello: String,
    chunking: bool,
    timeouts: Timeouts,
}

impl Options {
    /// A server, with STARTTLS, without login.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            security: Security::StartTls,
            tls_name: None,
            credentials: None,
            mechanisms: Vec::new(),
            allow_clear_auth: false,
            token: false,
            hello: "localhost".to_owned(),
            chunking: false,
            timeouts: Timeouts::default(),
        }
    }

    /// `smtp://` (port 25), `submission://` (587) or `smtps://` (465, TLS from the first byte):
    /// `[user:password@]host[:port][?tls=starttls|implicit|none&hello=name&auth=SCRAM-SHA-256]`.
    pub fn from_url(url: &str) -> Result<Self> {
        let url = Url::parse(url)?;
        let (port, security) = match url.scheme() {
            "smtp" => (PORT, Security::StartTls),
            "submission" => (SUBMISSION_PORT, Security::StartTls),
            "smtps" => (SMTPS_PORT, Security::Implicit),
            other => {
                return Err(Error::usage(format!(
                    "the scheme of a mail url is smtp, submission or smtps, not {other}"
                )));
            }
        };
        let mut options = Self::new(url.endpoint(port)?).security(security);
        options.credentials = url.credentials();
        for (key, value) in url.query_pairs() {
            options = match (key.as_str(), value.as_str()) {
                ("tls", "starttls") => options.security(Security::StartTls),
                ("tls", "implicit") => options.security(Security::Implicit),
                ("tls", "none") => options.security(Security::Clear),
                ("hello", name) => options.hello(name)?,
                ("auth", mechanism) => options.mechanism(mechanism),
                _ => return Err(Error::usage(format!("unknown option {key:?} in a mail url"))),
            };
        }
        Ok(options)
    }

    /// How the conversation is kept from others. Default STARTTLS, and no way round it.
    pub fn security(mut self, security: Security) -> Self {
        self.security = security;
        self
    }

    /// The name that the certificate must be for, where it is not the host's.
    pub fn tls_name(mut self, name: impl Into<String>) -> Self {
        self.tls_name = Some(name.into());
        self
    }

    /// Log in.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// Take this mechanism of AUTH and no other; repeat for more. Default: the strongest that both sides have.
    pub fn mechanism(mut self, name: &str) -> Self {
        self.mechanisms.push(name.to_ascii_uppercase());
        self
    }

    /// Let the password be sent where everyone on the way can read it. Default off.
    pub fn allow_clear_auth(mut self, on: bool) -> Self {
        self.allow_clear_auth = on;
        self
    }

    /// The password is an OAuth 2 access token, for XOAUTH2 or OAUTHBEARER.
    pub fn token(mut self, on: bool) -> Self {
        self.token = on;
        self
    }

    /// How we call ourselves. Default `localhost`; servers that check want the name of our address.
    pub fn hello(mut self, name: &str) -> Result<Self> {
        portolan_wire::line::check_token("the name in EHLO", name.as_bytes())?;
        self.hello = name.to_owned();
        Ok(self)
    }

    /// Send bodies in counted chunks (BDAT) where the server can: byte for byte, with no dot-stuffing. Default off, since
    /// line ends are then the caller's to get right.
    pub fn chunking(mut self, on: bool) -> Self {
        self.chunking = on;
        self
    }

    /// Bounds of the protocol's own waits. Those of the way there are the connector's.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// Whom to connect to.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// How the conversation is kept from others.
    pub fn security_level(&self) -> Security {
        self.security
    }

    pub(crate) fn certificate_name(&self) -> String {
        self.tls_name.clone().unwrap_or_else(|| self.endpoint.host_text().into_owned())
    }

    pub(crate) fn login(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }

    pub(crate) fn allowed_mechanisms(&self) -> &[String] {
        &self.mechanisms
    }

    pub(crate) fn clear_auth(&self) -> bool {
        self.allow_clear_auth
    }

    pub(crate) fn is_token(&self) -> bool {
        self.token
    }

    pub(crate) fn hello_name(&self) -> &str {
        &self.hello
    }

    pub(crate) fn wants_chunking(&self) -> bool {
        self.chunking
    }

    pub(crate) fn bounds(&self) -> &Timeouts {
        &self.timeouts
    }
}
