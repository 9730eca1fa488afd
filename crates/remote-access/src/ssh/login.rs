//! How one proves to an SSH server who one is (RFC 4252, RFC 4256).

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portolan_core::{Connector, Endpoint, Error, Kind, Phase, Result, Secret};
use russh::MethodKind;
use russh::client::AuthResult;
use russh::client::{Handle, Handler, KeyboardInteractiveAuthResponse};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{Algorithm, Certificate, HashAlg, PrivateKey, PrivateKeyWithHashAlg, decode_secret_key};

use super::NAME;
use super::fault::told;

/// How often a server may ask in one login by keyboard.
const MAX_ROUNDS: usize = 16;

/// How many questions it may ask at once.
const MAX_PROMPTS: usize = 32;

/// What a server asks in a login by keyboard (RFC 4256 3.2). Its words are the server's: show them as such.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Questions {
    /// A title; often empty.
    pub name: String,
    /// What the questions are about; often empty.
    pub instructions: String,
    /// The questions, and whether what is typed may be seen.
    pub prompts: Vec<(String, bool)>,
}

/// Answers a server's questions; `None` gives up.
pub(super) type Answers = Arc<dyn Fn(&Questions) -> Option<Vec<Secret>> + Send + Sync>;

/// One way to log in.
#[derive(Clone)]
pub(super) enum Login {
    Password(Secret),
    Key { text: Text, passphrase: Option<Secret>, needed: bool },
    Agent(PathBuf),
    Answers(Answers),
}

/// Where a private key is.
#[derive(Clone)]
pub(super) enum Text {
    File(PathBuf),
    Pem(Secret),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password(_) => f.write_str("password"),
            Self::Key { text: Text::File(path), .. } => write!(f, "key {}", path.display()),
            Self::Key { text: Text::Pem(_), .. } => f.write_str("key ***"),
            Self::Agent(path) => write!(f, "agent {}", path.display()),
            Self::Answers(_) => f.write_str("answers"),
        }
    }
}

/// One way to log in, with what it needs at hand.
pub(super) enum Ready {
    Password(Secret),
    Key { key: Arc<PrivateKey>, certificate: Option<Box<Certificate>> },
    Agent(PathBuf),
    Answers(Answers),
}

/// What `ssh` tries where nothing is said: the agent, and the keys of `~/.ssh`.
pub(super) fn usual(agent: Option<PathBuf>) -> Vec<Login> {
    let folder = std::env::home_dir().map(|home| home.join(".ssh"));
    let key = |name| folder.as_ref().map(|folder| Text::File(folder.join(name)));
    let keys = ["id_ed25519", "id_ecdsa", "id_rsa"].into_iter().filter_map(key);
    let keys = keys.map(|text| Login::Key { text, passphrase: None, needed: false });
    agent.map(Login::Agent).into_iter().chain(keys).collect()
}

/// Reads the keys. It blocks: files are read, and passphrases are slow on purpose.
pub(super) fn load(logins: &[Login]) -> Result<Vec<Ready>> {
    let mut ready = Vec::new();
    for login in logins {
        ready.push(match login {
            Login::Password(secret) => Ready::Password(secret.clone()),
            Login::Agent(path) => Ready::Agent(path.clone()),
            Login::Answers(answers) => Ready::Answers(answers.clone()),
            Login::Key { text, passphrase, needed } => match key(text, passphrase.as_ref()) {
                Ok(key) => key,
                Err(error) if *needed => return Err(error),
                Err(_) => continue,
            },
        });
    }
    Ok(ready)
}

fn key(text: &Text, passphrase: Option<&Secret>) -> Result<Ready> {
    let (pem, shown, certificate) = match text {
        Text::Pem(pem) => (pem.clone(), "the text given".to_owned(), None),
        Text::File(path) => {
            let unread = |error| Error::usage(format!("cannot read the key {}", path.display())).with_source(error);
            let pem = Secret::new(std::fs::read_to_string(path).map_err(unread)?);
            (pem, path.display().to_string(), certificate(path)?)
        }
    };
    let key = decode_secret_key(pem.expose(), passphrase.map(Secret::expose)).map_err(|error| {
        use russh::keys::Error as E;
        // The error may quote the key: it stays here.
        let why = match (&error, passphrase) {
            (E::KeyIsEncrypted, _) => "it needs a passphrase",
            (_, Some(_)) => "it is none, or the passphrase is wrong",
            (_, None) => "it is none of OpenSSH, PKCS#8, PKCS#1 or PuTTY",
        };
        Error::usage(format!("no private key in {shown}: {why}"))
    })?;
    Ok(Ready::Key { key: Arc::new(key), certificate })
}

/// The certificate beside a key, where `ssh` looks for it too.
fn certificate(key: &Path) -> Result<Option<Box<Certificate>>> {
    let mut path = key.as_os_str().to_owned();
    path.push("-cert.pub");
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(None) };
    let broken = |_| Error::usage(format!("no OpenSSH certificate in {}", Path::new(&path).display()));
    Certificate::from_openssh(text.trim()).map(|one| Some(Box::new(one))).map_err(broken)
}

/// Logs in: each way in turn, so far as the server takes it, until it has enough.
pub(super) async fn login<H: Handler>(handle: &mut Handle<H>, user: &str, ways: Vec<Ready>) -> Result<()> {
    // Who asks with nothing is told what is taken (RFC 4252 5.2).
    let mut state = Attempt { tried: Vec::new(), taken: Vec::new() };
    let first = handle.authenticate_none(user).await.map_err(told)?;
    if state.passed(handle, first)? {
        return Ok(());
    }
    for way in ways {
        if state.one(handle, user, way).await? {
            return Ok(());
        }
    }
    Err(state.refused())
}

struct Attempt {
    tried: Vec<String>,
    /// What the server takes now.
    taken: Vec<MethodKind>,
}

impl Attempt {
    /// Whether the login is done; otherwise what the server takes is kept.
    fn passed<H: Handler>(&mut self, handle: &Handle<H>, result: AuthResult) -> Result<bool> {
        match result {
            AuthResult::Success => Ok(true),
            AuthResult::Failure { remaining_methods, .. } => {
                if remaining_methods.is_empty() && handle.is_closed() {
                    return Err(self.cut());
                }
                self.taken = remaining_methods.to_vec();
                Ok(false)
            }
        }
    }

    /// The server hung up: it had enough of us if it had refused something before.
    fn cut(&self) -> Error {
        if self.tried.is_empty() {
            return Error::closed("the server closed the connection before the login");
        }
        let tried = self.tried.join(", ");
        auth(format!("the server closed the connection during the login (tried: {tried})"))
    }

    fn refused(&self) -> Error {
        let names = |methods: &[MethodKind]| methods.iter().map(<&str>::from).collect::<Vec<_>>().join(", ");
        let taken = if self.taken.is_empty() { "nothing".to_owned() } else { names(&self.taken) };
        if self.tried.is_empty() {
            return auth(format!("the server takes {taken}, and nothing of it was given"));
        }
        auth(format!("the server refused the login (tried: {}); it takes {taken}", self.tried.join(", ")))
    }

    fn takes(&self, method: MethodKind) -> bool {
        self.taken.contains(&method)
    }

    async fn one<H: Handler>(&mut self, handle: &mut Handle<H>, user: &str, way: Ready) -> Result<bool> {
        match way {
            Ready::Password(secret) if self.takes(MethodKind::Password) => {
                self.tried.push("password".to_owned());
                let result = handle.authenticate_password(user, secret.expose()).await.map_err(told)?;
                self.passed(handle, result)
            }
            // Servers with PAM ask for the password as a question.
            Ready::Password(secret) if self.takes(MethodKind::KeyboardInteractive) => {
                let answers = Arc::new(move |asked: &Questions| {
                    (asked.prompts.len() <= 1).then(|| asked.prompts.iter().map(|_| secret.clone()).collect())
                });
                self.keyboard(handle, user, answers).await
            }
            Ready::Answers(answers) if self.takes(MethodKind::KeyboardInteractive) => {
                self.keyboard(handle, user, answers).await
            }
            Ready::Key { key, certificate } if self.takes(MethodKind::PublicKey) => {
                self.key(handle, user, key, certificate).await
            }
            Ready::Agent(path) if self.takes(MethodKind::PublicKey) => self.agent(handle, user, &path).await,
            _ => Ok(false),
        }
    }

    async fn key<H: Handler>(
        &mut self,
        handle: &mut Handle<H>,
        user: &str,
        key: Arc<PrivateKey>,
        certificate: Option<Box<Certificate>>,
    ) -> Result<bool> {
        let shown = key.public_key().fingerprint(HashAlg::Sha256);
        if let Some(certificate) = certificate {
            self.tried.push(format!("certificate of {shown}"));
            let result = handle.authenticate_openssh_cert(user, key.clone(), *certificate).await.map_err(told)?;
            if self.passed(handle, result)? {
                return Ok(true);
            }
        }
        let Some(hash) = hash(handle, &key.algorithm()).await? else { return Ok(false) };
        self.tried.push(format!("key {shown}"));
        let key = PrivateKeyWithHashAlg::new(key, hash);
        let result = handle.authenticate_publickey(user, key).await.map_err(told)?;
        self.passed(handle, result)
    }

    async fn agent<H: Handler>(&mut self, handle: &mut Handle<H>, user: &str, path: &Path) -> Result<bool> {
        // An agent that is not there, or will not sign, is one with no keys, as it is to ssh.
        let Ok(stream) = Connector::default().connect(&Endpoint::unix(path)).await else {
            self.tried.push("agent (not there)".to_owned());
            return Ok(false);
        };
        let mut agent = AgentClient::connect(stream);
        let Ok(keys) = agent.request_identities().await else {
            self.tried.push("agent (no answer)".to_owned());
            return Ok(false);
        };
        for identity in keys {
            if !self.takes(MethodKind::PublicKey) {
                break;
            }
            let result = match identity {
                AgentIdentity::PublicKey { key, .. } => {
                    let Some(hash) = hash(handle, &key.algorithm()).await? else { continue };
                    self.tried.push(format!("agent's key {}", key.fingerprint(HashAlg::Sha256)));
                    handle.authenticate_publickey_with(user, key, hash, &mut agent).await
                }
                AgentIdentity::Certificate { certificate, .. } => {
                    let Some(hash) = hash(handle, &certificate.algorithm()).await? else { continue };
                    self.tried.push("agent's certificate".to_owned());
                    handle.authenticate_certificate_with(user, certificate, hash, &mut agent).await
                }
            };
            let Ok(result) = result else {
                if handle.is_closed() {
                    return Err(self.cut());
                }
                continue;
            };
            if self.passed(handle, result)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn keyboard<H: Handler>(&mut self, handle: &mut Handle<H>, user: &str, answers: Answers) -> Result<bool> {
        self.tried.push("keyboard-interactive".to_owned());
        let closed = |state: &Self, error| if state.tried.len() > 1 { state.cut() } else { told(error) };
        let started = handle.authenticate_keyboard_interactive_start(user, None).await;
        let mut said = started.map_err(|error| closed(self, error))?;
        for _ in 0..MAX_ROUNDS {
            match said {
                KeyboardInteractiveAuthResponse::Success => return Ok(true),
                KeyboardInteractiveAuthResponse::Failure { remaining_methods, partial_success } => {
                    return self.passed(handle, AuthResult::Failure { remaining_methods, partial_success });
                }
                KeyboardInteractiveAuthResponse::InfoRequest { name, instructions, prompts } => {
                    if prompts.len() > MAX_PROMPTS {
                        return Err(Error::new(Kind::Limit, "the server asks too many questions").with_protocol(NAME));
                    }
                    let prompts: Vec<_> = prompts.into_iter().map(|one| (one.prompt, one.echo)).collect();
                    let asked = Questions { name, instructions, prompts };
                    let count = asked.prompts.len();
                    let answers = answers.clone();
                    let given = tokio::task::spawn_blocking(move || answers(&asked)).await.ok().flatten();
                    let Some(given) = given else { return Ok(false) };
                    if given.len() != count {
                        return Err(Error::usage("a question of the server's was left without an answer"));
                    }
                    let given = given.iter().map(|one| one.expose().to_owned()).collect();
                    let answered = handle.authenticate_keyboard_interactive_respond(given).await;
                    said = answered.map_err(|error| closed(self, error))?;
                }
            }
        }
        Err(Error::new(Kind::Limit, "the server asks again and again").with_protocol(NAME))
    }
}

/// The hash for a key's signature: none but for RSA, where the server says which it takes (RFC 8308 3.1). `None` where it takes
/// SHA-1 alone, which proves nothing any more.
async fn hash<H: Handler>(handle: &Handle<H>, key: &Algorithm) -> Result<Option<Option<HashAlg>>> {
    if !matches!(key, Algorithm::Rsa { .. }) {
        return Ok(Some(None));
    }
    Ok(match handle.best_supported_rsa_hash().await.map_err(told)? {
        Some(Some(hash)) => Some(Some(hash)),
        Some(None) => None,
        None => Some(Some(HashAlg::Sha512)),
    })
}

fn auth(message: String) -> Error {
    Error::new(Kind::Auth, message).with_phase(Phase::Hop).with_protocol(NAME)
}
