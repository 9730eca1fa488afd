//! Which host keys are trusted.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use portolan_core::{Error, Result, clock};
use portolan_wire::DecodeError;
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Algorithm, Certificate, EcdsaCurve, HashAlg, PublicKeyOrCertificate};

use super::known_hosts::{self, KnownHosts, Verdict, fingerprint};

/// A host key that nobody could say anything about.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostKey {
    /// The host that it was shown for, as known_hosts names it: `host` or `[host]:port`.
    pub host: String,
    /// Its type, such as `ssh-ed25519`.
    pub kind: String,
    /// `SHA256:..`, as OpenSSH shows it.
    pub fingerprint: String,
}

/// Why a host key was not accepted. It is what [`Error::server`] gives for such an error.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostKeyError {
    /// What is wrong with it.
    pub problem: HostKeyProblem,
    /// The key that was shown.
    pub key: HostKey,
    /// The fingerprint that was expected, where one was.
    pub expected: Option<String>,
    /// The file and line that say so.
    pub place: Option<(PathBuf, usize)>,
}

/// What is wrong with a host key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HostKeyProblem {
    /// The host is not known.
    Unknown,
    /// The host is known by another key: somebody may be in between.
    Changed,
    /// The key is marked as revoked.
    Revoked,
    /// A certificate that is not of this host, not of this time, or not of an authority that is trusted.
    Certificate,
}

impl fmt::Display for HostKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HostKey { host, kind, fingerprint } = &self.key;
        match self.problem {
            HostKeyProblem::Unknown => write!(f, "host key of {host} is unknown: {kind} {fingerprint}")?,
            HostKeyProblem::Changed => write!(f, "host key of {host} has changed: it is {kind} {fingerprint}")?,
            HostKeyProblem::Revoked => write!(f, "host key of {host} is revoked: {kind} {fingerprint}")?,
            HostKeyProblem::Certificate => {
                write!(f, "host certificate of {host} is not accepted: signed by {kind} {fingerprint}")?;
            }
        }
        if let Some(expected) = &self.expected {
            write!(f, ", and not {expected}")?;
        }
        match &self.place {
            Some((path, line)) if path.as_os_str().is_empty() => write!(f, " (line {line})"),
            Some((path, line)) => write!(f, " ({}:{line})", path.display()),
            None => Ok(()),
        }
    }
}

impl std::error::Error for HostKeyError {}

/// Which host keys are trusted. The default is what `ssh` trusts: the user's `~/.ssh/known_hosts` and the system's
/// `/etc/ssh/ssh_known_hosts`; a key that they do not know is refused.
///
/// ```
/// use portolan_remote_access::ssh::HostKeys;
///
/// let keys = HostKeys::user().and_file("/etc/bastions").accept_new();
/// let pinned = HostKeys::pinned("SHA256:z5Og9mwyOxXpJ9m1HFBRVrYcIcJz1FWvNAqjmhqeVtk");
/// ```
#[derive(Clone)]
#[must_use]
pub struct HostKeys {
    places: Vec<Place>,
    pins: Vec<String>,
    unknown: Unknown,
    /// What was learned while this program runs.
    learned: Arc<Mutex<String>>,
}

#[derive(Debug, Clone)]
enum Place {
    File { path: PathBuf, needed: bool },
    Text(Arc<str>),
}

#[derive(Clone)]
enum Unknown {
    Refuse,
    Remember,
    Append(PathBuf),
    Ask(Arc<dyn Fn(&HostKey) -> bool + Send + Sync>),
    AcceptAny,
}

impl Default for HostKeys {
    fn default() -> Self {
        Self::user()
    }
}

impl HostKeys {
    /// No host at all: what [`and_file`](Self::and_file), [`and_text`](Self::and_text) and the others add to.
    pub fn none() -> Self {
        Self { places: Vec::new(), pins: Vec::new(), unknown: Unknown::Refuse, learned: Arc::default() }
    }

    /// What `ssh` trusts: `~/.ssh/known_hosts` and `/etc/ssh/ssh_known_hosts`, so far as they are there.
    pub fn user() -> Self {
        let mut keys = Self::none();
        let own = std::env::home_dir().map(|home| home.join(".ssh/known_hosts"));
        for path in own.into_iter().chain([PathBuf::from("/etc/ssh/ssh_known_hosts")]) {
            keys.places.push(Place::File { path, needed: false });
        }
        keys
    }

    /// A file alone. It is read again at each connect; one that is not there is an error.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::none().and_file(path)
    }

    /// Lines of a known_hosts file alone.
    pub fn text(lines: impl Into<String>) -> Self {
        Self::none().and_text(lines)
    }

    /// The key with this fingerprint alone: `SHA256:` and 43 characters, as `ssh-keygen -l` prints it.
    pub fn pinned(fingerprint: impl Into<String>) -> Self {
        Self::none().and_pinned(fingerprint)
    }

    /// A file too.
    pub fn and_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.places.push(Place::File { path: path.into(), needed: true });
        self
    }

    /// These lines too.
    pub fn and_text(mut self, lines: impl Into<String>) -> Self {
        self.places.push(Place::Text(lines.into().into()));
        self
    }

    /// The key with this fingerprint too, whatever the files say but that it is revoked.
    pub fn and_pinned(mut self, fingerprint: impl Into<String>) -> Self {
        self.pins.push(fingerprint.into().trim_end_matches('=').to_owned());
        self
    }

    /// Trusts the first key of a host that is not known, as long as the connector lives. A key that has changed is refused.
    pub fn accept_new(mut self) -> Self {
        self.unknown = Unknown::Remember;
        self
    }

    /// Trusts the first key of a host that is not known, and appends it to this file, which is read too (`StrictHostKeyChecking
    /// accept-new`). A key that has changed is refused.
    pub fn accept_new_to(mut self, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        self.places.push(Place::File { path: path.clone(), needed: false });
        self.unknown = Unknown::Append(path);
        self
    }

    /// Asks whether to trust a host that is not known; what was trusted is remembered as long as the connector lives. It may wait
    /// for a human: it runs on a thread of its own, and the hop's deadline runs with it.
    pub fn ask(mut self, answer: impl Fn(&HostKey) -> bool + Send + Sync + 'static) -> Self {
        self.unknown = Unknown::Ask(Arc::new(answer));
        self
    }

    pub(super) fn accept_any() -> Self {
        Self { unknown: Unknown::AcceptAny, ..Self::none() }
    }

    /// Reads the files. It blocks.
    pub(super) fn load(&self) -> Result<Trusted> {
        let mut files = Vec::new();
        for place in &self.places {
            let (path, bytes) = match place {
                Place::Text(text) => (PathBuf::new(), text.as_bytes().to_vec()),
                Place::File { path, needed } => match std::fs::read(path) {
                    Ok(bytes) => (path.clone(), bytes),
                    Err(error) if *needed => return Err(unreadable(path).with_source(error)),
                    Err(_) => continue,
                },
            };
            let known = KnownHosts::decode(&bytes);
            let known = known.map_err(|error: DecodeError| unreadable(&path).with_source(error))?;
            files.push((path, known));
        }
        Ok(Trusted { keys: self.clone(), files })
    }
}

fn unreadable(path: &Path) -> Error {
    Error::usage(format!("known hosts cannot be read from {}", path.display()))
}

impl fmt::Debug for HostKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unknown = match &self.unknown {
            Unknown::Refuse => "refused",
            Unknown::Remember => "remembered",
            Unknown::Append(_) => "appended",
            Unknown::Ask(_) => "asked",
            Unknown::AcceptAny => "never looked at",
        };
        let mut out = f.debug_struct("HostKeys");
        out.field("places", &self.places).field("pinned", &self.pins).field("unknown", &unknown).finish()
    }
}

/// The host keys that are trusted, read for one connect.
#[derive(Debug)]
pub(super) struct Trusted {
    keys: HostKeys,
    files: Vec<(PathBuf, KnownHosts)>,
}

impl Trusted {
    fn all(&self) -> Vec<(PathBuf, KnownHosts)> {
        let learned = self.keys.learned.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let learned = KnownHosts::decode(learned.as_bytes()).unwrap_or_default();
        self.files.iter().cloned().chain([(PathBuf::new(), learned)]).collect()
    }

    /// The algorithms to ask the host for, those of the keys that are known first: a server with several keys shows the one that
    /// can be checked. And those by which certificates are asked for, where an authority is known.
    pub(super) fn algorithms(&self, host: &str, port: u16) -> (Vec<Algorithm>, Vec<Algorithm>) {
        let files = self.all();
        let ecdsa = |curve| Algorithm::Ecdsa { curve };
        let mut all = vec![
            Algorithm::Ed25519,
            ecdsa(EcdsaCurve::NistP256),
            ecdsa(EcdsaCurve::NistP384),
            ecdsa(EcdsaCurve::NistP521),
            Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
            Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
        ];
        let certificates = files.iter().any(|(_, known)| known.authority(host, port, None));
        let certificates = if certificates { all.clone() } else { Vec::new() };
        let known: Vec<&str> = files.iter().flat_map(|(_, known)| known.key_types(host, port)).collect();
        let is_known = |algorithm: &Algorithm| {
            let kind = if matches!(algorithm, Algorithm::Rsa { .. }) { "ssh-rsa" } else { algorithm.as_str() };
            known.contains(&kind)
        };
        all.sort_by_key(|algorithm| !is_known(algorithm));
        (all, certificates)
    }

    /// Whether a key is accepted. It blocks: a file may be written, a human asked.
    pub(super) fn check(&self, host: &str, port: u16, shown: &PublicKeyOrCertificate) -> Result<(), Box<HostKeyError>> {
        if matches!(self.keys.unknown, Unknown::AcceptAny) {
            return Ok(());
        }
        match shown.certificate() {
            Some(certificate) => self.check_certificate(host, port, certificate),
            None => self.check_key(host, port, &blob(&shown.public_key())),
        }
    }

    fn check_key(&self, host: &str, port: u16, blob: &[u8]) -> Result<(), Box<HostKeyError>> {
        let files = self.all();
        let key = described(host, port, blob);
        let refused =
            |problem, expected, place| Err(Box::new(HostKeyError { problem, key: key.clone(), expected, place }));
        let (mut known, mut changed) = (false, None);
        for (path, file) in &files {
            match file.check(host, port, blob) {
                Verdict::Revoked { line } => {
                    return refused(HostKeyProblem::Revoked, None, Some((path.clone(), line)));
                }
                Verdict::Known => known = true,
                Verdict::Changed { line, fingerprint } | Verdict::OtherType { line, fingerprint } => {
                    changed.get_or_insert((fingerprint, (path.clone(), line)));
                }
                Verdict::Unknown => {}
            }
        }
        if known || self.keys.pins.contains(&key.fingerprint) {
            return Ok(());
        }
        if let Some((expected, place)) = changed {
            return refused(HostKeyProblem::Changed, Some(expected), Some(place));
        }
        if let Some(pin) = self.keys.pins.first() {
            return refused(HostKeyProblem::Changed, Some(pin.clone()), None);
        }
        if self.learn(&key, &known_hosts::line(host, port, blob)) {
            return Ok(());
        }
        refused(HostKeyProblem::Unknown, None, None)
    }

    /// Whether a key that nobody knows is trusted from now on.
    fn learn(&self, key: &HostKey, line: &str) -> bool {
        match &self.keys.unknown {
            Unknown::Refuse => return false,
            Unknown::Ask(answer) if !answer(key) => return false,
            Unknown::Append(path) if append(path, line).is_err() => return false,
            _ => {}
        }
        self.keys.learned.lock().unwrap_or_else(PoisonError::into_inner).push_str(line);
        true
    }

    fn check_certificate(&self, host: &str, port: u16, shown: &Certificate) -> Result<(), Box<HostKeyError>> {
        let authority = blob(&russh::keys::PublicKey::from(shown.signature_key().clone()));
        let own = blob(&russh::keys::PublicKey::from(shown.public_key().clone()));
        let files = self.all();
        let key = described(host, port, &authority);
        for (path, file) in &files {
            let line = [&authority, &own].into_iter().find_map(|blob| file.revoked(host, port, blob));
            if let Some(line) = line {
                let place = Some((path.clone(), line));
                return Err(Box::new(HostKeyError { problem: HostKeyProblem::Revoked, key, expected: None, place }));
            }
        }
        let trusted = files.iter().any(|(_, file)| file.authority(host, port, Some(&authority)));
        let now = clock::wall().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let name = host.to_ascii_lowercase();
        let fits = shown.cert_type() == CertType::Host
            && shown.valid_principals().iter().any(|principal| principal.eq_ignore_ascii_case(&name))
            && shown.validate_at(now, [&shown.signature_key().fingerprint(HashAlg::Sha256)]).is_ok();
        if trusted && fits {
            return Ok(());
        }
        Err(Box::new(HostKeyError { problem: HostKeyProblem::Certificate, key, expected: None, place: None }))
    }
}

fn described(host: &str, port: u16, blob: &[u8]) -> HostKey {
    HostKey {
        host: known_hosts::name(host, port),
        kind: known_hosts::key_type(blob).unwrap_or("?").to_owned(),
        fingerprint: fingerprint(blob),
    }
}

fn blob(key: &russh::keys::PublicKey) -> Vec<u8> {
    key.to_bytes().unwrap_or_default()
}

fn append(path: &Path, line: &str) -> std::io::Result<()> {
    use std::io::{Read, Seek, SeekFrom, Write};
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut file = std::fs::OpenOptions::new().create(true).read(true).append(true).open(path)?;
    // A last line that was not ended must not swallow ours.
    let mut last = [b'\n'];
    if file.seek(SeekFrom::End(-1)).is_ok() {
        file.read_exact(&mut last)?;
    }
    let line = if last == [b'\n'] { line.to_owned() } else { format!("\n{line}") };
    file.write_all(line.as_bytes())
}
