//! SCRAM (RFC 5802, RFC 7677), with channel binding.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use portolan_core::{Error, Kind, Phase, Result, Secret};
use sha1::{Digest, Sha1};
use sha2::{Sha256, Sha512};
use subtle::ConstantTimeEq as _;

use super::{ChannelBinding, auth, prep};

/// RFC 7677 4 asks servers for no fewer. A lower count is refused, since whoever plays the server would get a proof that
/// is cheap to guess passwords from.
pub(super) const MIN_ITERATIONS: u32 = 4096;
/// Each iteration is our CPU at the peer's word: this many are some tenths of a second.
pub(super) const MAX_ITERATIONS: u32 = 500_000;
/// A server's message is short; this leaves room for long nonces.
const MAX_MESSAGE: usize = 4096;
/// 144 bits, which base64 writes without padding.
const NONCE: usize = 18;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hash {
    Sha1,
    Sha256,
    Sha512,
}

impl Hash {
    fn digest(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha1 => Sha1::digest(bytes).to_vec(),
            Self::Sha256 => Sha256::digest(bytes).to_vec(),
            Self::Sha512 => Sha512::digest(bytes).to_vec(),
        }
    }

    fn hmac(self, key: &[u8], bytes: &[u8]) -> Result<Vec<u8>> {
        match self {
            Self::Sha1 => keyed::<Hmac<Sha1>>(key).map(|mac| once(&mac, &[bytes])),
            Self::Sha256 => keyed::<Hmac<Sha256>>(key).map(|mac| once(&mac, &[bytes])),
            Self::Sha512 => keyed::<Hmac<Sha512>>(key).map(|mac| once(&mac, &[bytes])),
        }
    }

    /// `Hi` of RFC 5802 2.2: PBKDF2 with one block.
    fn stretch(self, password: &[u8], salt: &[u8], iterations: u32) -> Result<Vec<u8>> {
        match self {
            Self::Sha1 => stretch(&keyed::<Hmac<Sha1>>(password)?, salt, iterations),
            Self::Sha256 => stretch(&keyed::<Hmac<Sha256>>(password)?, salt, iterations),
            Self::Sha512 => stretch(&keyed::<Hmac<Sha512>>(password)?, salt, iterations),
        }
    }
}

fn keyed<M: KeyInit>(key: &[u8]) -> Result<M> {
    M::new_from_slice(key).map_err(|_| Error::usage("a key that HMAC does not take"))
}

fn once<M: Mac + Clone>(mac: &M, parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = mac.clone();
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

fn stretch<M: Mac + Clone>(mac: &M, salt: &[u8], iterations: u32) -> Result<Vec<u8>> {
    let mut mix = once(mac, &[salt, &[0, 0, 0, 1]]);
    let mut last = mac.clone();
    last.update(salt);
    last.update(&[0, 0, 0, 1]);
    let mut last = last.finalize().into_bytes();
    for _ in 1..iterations {
        let mut next = mac.clone();
        next.update(&last);
        last = next.finalize().into_bytes();
        mix.iter_mut().zip(&last).for_each(|(mix, last)| *mix ^= last);
    }
    Ok(mix)
}

/// What is said about channel binding (RFC 5802 6).
pub(super) enum Flag {
    /// We cannot.
    No,
    /// We could, and the server did not offer to: one that did will notice that its offer was cut out.
    Could,
    /// Bound.
    Bound(&'static str, Vec<u8>),
}

impl Flag {
    pub(super) fn of(plus: bool, could: bool, binding: &ChannelBinding) -> Result<Self> {
        match (plus, binding) {
            (true, ChannelBinding::Exporter(data)) => Ok(Self::Bound("tls-exporter", data.clone())),
            (true, ChannelBinding::ServerEndPoint(data)) => Ok(Self::Bound("tls-server-end-point", data.clone())),
            (true, ChannelBinding::None) => Err(Error::usage("a -PLUS mechanism needs channel binding data")),
            (false, _) if could => Ok(Self::Could),
            (false, _) => Ok(Self::No),
        }
    }
}

/// Random printable text without a comma.
pub(super) fn nonce() -> Result<String> {
    let mut bytes = [0; NONCE];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::new(Kind::Unsupported, "the system gives no random bytes").with_source(error))?;
    Ok(STANDARD.encode(bytes))
}

enum Stage {
    Start,
    First,
    Final { signature: Vec<u8> },
    Verified,
    Failed,
}

pub(super) struct Scram {
    hash: Hash,
    password: Secret,
    header: String,
    binding: Vec<u8>,
    nonce: String,
    bare: String,
    stage: Stage,
}

impl Scram {
    pub(super) fn new(
        hash: Hash,
        user: &str,
        acting_as: &str,
        password: &str,
        flag: Flag,
        nonce: String,
    ) -> Result<Self> {
        let (flag, binding) = match flag {
            Flag::No => ("n".to_string(), Vec::new()),
            Flag::Could => ("y".to_string(), Vec::new()),
            Flag::Bound(name, data) => (format!("p={name}"), data),
        };
        let acting_as = if acting_as.is_empty() { String::new() } else { format!("a={}", prep::name(acting_as)) };
        Ok(Self {
            hash,
            password: Secret::new(prep::prepare("password", password)?),
            header: format!("{flag},{acting_as},"),
            binding,
            bare: format!("n={},r={nonce}", prep::name(&prep::prepare("user", user)?)),
            nonce,
            stage: Stage::Start,
        })
    }

    pub(super) fn first(&mut self) -> Option<Vec<u8>> {
        matches!(self.stage, Stage::Start).then(|| {
            self.stage = Stage::First;
            format!("{}{}", self.header, self.bare).into_bytes()
        })
    }

    pub(super) fn step(&mut self, message: &[u8]) -> Result<Option<Vec<u8>>> {
        match std::mem::replace(&mut self.stage, Stage::Failed) {
            Stage::Start => {
                self.stage = Stage::Start;
                Ok(self.first())
            }
            Stage::First => self.answer(text(message)?).map(Some),
            Stage::Final { signature } => {
                check_final(text(message)?, &signature)?;
                self.stage = Stage::Verified;
                // Where the verdict comes as a challenge, it is answered with nothing (RFC 4422 3.6).
                Ok(Some(Vec::new()))
            }
            Stage::Verified => {
                self.stage = Stage::Verified;
                Ok(None)
            }
            Stage::Failed => Err(auth("login had failed already")),
        }
    }

    pub(super) fn verified(&self) -> Result<()> {
        match self.stage {
            Stage::Verified => Ok(()),
            _ => Err(auth("the server said success without proving that it knows the password")),
        }
    }

    /// The client-final-message (RFC 5802 7), and what the server must say next.
    fn answer(&mut self, message: &str) -> Result<Vec<u8>> {
        let Challenge { nonce, salt, iterations } = Challenge::parse(message, &self.nonce)?;
        let salted = self.hash.stretch(self.password.expose().as_bytes(), &salt, iterations)?;
        let client_key = self.hash.hmac(&salted, b"Client Key")?;
        let stored_key = self.hash.digest(&client_key);
        let bound = STANDARD.encode([self.header.as_bytes(), &self.binding].concat());
        let without_proof = format!("c={bound},r={nonce}");
        let all = format!("{},{message},{without_proof}", self.bare);
        let mut proof = self.hash.hmac(&stored_key, all.as_bytes())?;
        proof.iter_mut().zip(&client_key).for_each(|(proof, key)| *proof ^= key);
        let server_key = self.hash.hmac(&salted, b"Server Key")?;
        self.stage = Stage::Final { signature: self.hash.hmac(&server_key, all.as_bytes())? };
        Ok(format!("{without_proof},p={}", STANDARD.encode(proof)).into_bytes())
    }
}

struct Challenge<'a> {
    nonce: &'a str,
    salt: Vec<u8>,
    iterations: u32,
}

impl<'a> Challenge<'a> {
    /// The server-first-message: `r=`, `s=`, `i=` in this order, and extensions that may be ignored.
    fn parse(message: &'a str, ours: &str) -> Result<Self> {
        if let Some(error) = message.strip_prefix("e=") {
            return Err(auth(format!("the server says {}", short(error))));
        }
        // RFC 5802 5.1: a mandatory extension that is not understood fails the login.
        if message.starts_with("m=") {
            return Err(broken("a mandatory extension"));
        }
        let mut fields = message.split(',');
        let mut field =
            |name: &str, what| fields.next().and_then(|field| field.strip_prefix(name)).ok_or_else(|| broken(what));
        let nonce = field("r=", "no nonce")?;
        let salt = field("s=", "no salt")?;
        let iterations = field("i=", "no iteration count")?;
        if !nonce.starts_with(ours) || nonce.len() == ours.len() {
            return Err(broken("a nonce that does not extend ours"));
        }
        let salt = STANDARD.decode(salt).map_err(|_| broken("a salt that is not base64"))?;
        if salt.is_empty() || iterations.is_empty() || !iterations.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(broken("an empty salt or a count that is no number"));
        }
        let iterations = iterations.parse().unwrap_or(u32::MAX);
        if iterations > MAX_ITERATIONS {
            let message = format!("the server asks for more than {MAX_ITERATIONS} iterations");
            return Err(Error::new(Kind::Limit, message).with_phase(Phase::Handshake));
        }
        if iterations < MIN_ITERATIONS {
            return Err(auth(format!("the server asks for {iterations} iterations, fewer than {MIN_ITERATIONS}")));
        }
        Ok(Self { nonce, salt, iterations })
    }
}

fn check_final(message: &str, signature: &[u8]) -> Result<()> {
    let first = message.split(',').next().unwrap_or("");
    if let Some(error) = first.strip_prefix("e=") {
        return Err(auth(format!("the server says {}", short(error))));
    }
    let theirs = first.strip_prefix("v=").ok_or_else(|| broken("neither a signature nor an error"))?;
    let theirs = STANDARD.decode(theirs).map_err(|_| broken("a signature that is not base64"))?;
    if bool::from(theirs.ct_eq(signature)) {
        Ok(())
    } else {
        Err(auth("the server's signature is wrong: it does not know the password"))
    }
}

fn text(message: &[u8]) -> Result<&str> {
    if message.len() > MAX_MESSAGE {
        return Err(Error::new(Kind::Limit, "a SCRAM message of more than 4096 bytes").with_phase(Phase::Handshake));
    }
    std::str::from_utf8(message).map_err(|_| broken("text that is not UTF-8"))
}

fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

fn broken(what: &str) -> Error {
    Error::new(Kind::Protocol, format!("SCRAM: the server sent {what}")).with_phase(Phase::Handshake)
}
