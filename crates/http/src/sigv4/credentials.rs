//! Where access keys come from.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portolan_core::{Error, Kind, Result, Secret};

use crate::middleware::BoxFuture;

/// A profile file that is larger is none.
const MAX_FILE: u64 = 1 << 20;

/// An access key: who signs, and with what.
#[derive(Debug, Clone)]
#[must_use]
pub struct AccessKey {
    pub(super) id: String,
    pub(super) secret: Secret,
    pub(super) token: Option<Secret>,
}

impl AccessKey {
    /// A key and its secret.
    pub fn new(id: impl Into<String>, secret: impl Into<Secret>) -> Self {
        Self { id: id.into(), secret: secret.into(), token: None }
    }

    /// With the token of a session, as temporary keys have one.
    pub fn session_token(mut self, token: impl Into<Secret>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// The name of the key, which is no secret.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// From `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`. Fails where one of the first two is missing.
    #[allow(clippy::disallowed_methods, reason = "the caller asked for the environment")]
    pub fn from_env() -> Result<Self> {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    pub(super) fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let said = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let need = |name: &str| said(name).ok_or_else(|| Error::usage(format!("{name} is not set")));
        let key = Self::new(need("AWS_ACCESS_KEY_ID")?, need("AWS_SECRET_ACCESS_KEY")?);
        Ok(match said("AWS_SESSION_TOKEN") {
            Some(token) => key.session_token(token),
            None => key,
        })
    }
}

/// Who knows the access key of the moment; asked for each signature, so that keys may be renewed. [`AccessKey`] is the one that always
/// gives itself.
///
/// ```
/// use portolan_core::Result;
/// use portolan_http::sigv4::{AccessKey, ProvideKey};
///
/// struct Vault;
///
/// impl ProvideKey for Vault {
///     async fn access_key(&self) -> Result<AccessKey> {
///         Ok(AccessKey::new("AKIDEXAMPLE", "fetched, and kept for as long as it is good"))
///     }
/// }
/// ```
pub trait ProvideKey: Send + Sync + 'static {
    /// The key to sign with now.
    fn access_key(&self) -> impl Future<Output = Result<AccessKey>> + Send;
}

impl ProvideKey for AccessKey {
    async fn access_key(&self) -> Result<AccessKey> {
        Ok(self.clone())
    }
}

/// The same behind a pointer.
pub(super) trait Provider: Send + Sync {
    fn key(&self) -> BoxFuture<'_, Result<AccessKey>>;
}

impl<P: ProvideKey> Provider for P {
    fn key(&self) -> BoxFuture<'_, Result<AccessKey>> {
        Box::pin(self.access_key())
    }
}

/// A profile of a file that the AWS tools share; read for each signature, so that what they renew is seen.
#[derive(Debug, Clone)]
pub struct Profile {
    path: Arc<Path>,
    name: String,
}

impl Profile {
    /// A profile of this file.
    pub fn new(path: impl Into<PathBuf>, name: impl Into<String>) -> Self {
        Self { path: path.into().into(), name: name.into() }
    }

    /// The profile that `AWS_PROFILE` names (`default` without it), in the file of `AWS_SHARED_CREDENTIALS_FILE` or in
    /// `~/.aws/credentials`. Fails where there is no home to look in.
    #[allow(clippy::disallowed_methods, reason = "the caller asked for the environment")]
    pub fn from_env() -> Result<Self> {
        let said = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let path = match said("AWS_SHARED_CREDENTIALS_FILE") {
            Some(path) => PathBuf::from(path),
            None => std::env::home_dir()
                .filter(|home| !home.as_os_str().is_empty())
                .map(|home| home.join(".aws/credentials"))
                .ok_or_else(|| Error::usage("no home folder to look for .aws/credentials in"))?,
        };
        Ok(Self::new(path, said("AWS_PROFILE").unwrap_or_else(|| "default".to_owned())))
    }
}

impl ProvideKey for Profile {
    async fn access_key(&self) -> Result<AccessKey> {
        let (path, name) = (self.path.clone(), self.name.clone());
        let read = tokio::task::spawn_blocking(move || {
            let mut text = zeroize::Zeroizing::new(String::new());
            let file = std::fs::File::open(&path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text));
            let wrong = |error| Error::usage(format!("no AWS credentials in {}", path.display())).with_source(error);
            file.map_err(wrong).and_then(|_| profile(&text, &name))
        });
        read.await.map_err(|error| Error::new(Kind::Closed, "the runtime is shutting down").with_source(error))?
    }
}

/// One profile of the file's text.
pub(super) fn profile(text: &str, name: &str) -> Result<AccessKey> {
    let (mut inside, mut found) = (false, false);
    let (mut id, mut secret, mut token) = (None, None, None);
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[').and_then(|line| line.split(']').next()) {
            let section = section.trim();
            inside = section == name || section.strip_prefix("profile ").is_some_and(|section| section.trim() == name);
            found |= inside;
            continue;
        }
        // A secret may hold a `#`, so only whole lines are comments.
        let pair = line.split_once('=').filter(|_| inside && !line.starts_with(['#', ';']));
        let Some((key, value)) = pair.map(|(key, value)| (key.trim(), value.trim())) else { continue };
        match key.to_ascii_lowercase().as_str() {
            "aws_access_key_id" => id = Some(value),
            "aws_secret_access_key" => secret = Some(value),
            "aws_session_token" => token = Some(value),
            _ => {}
        }
    }
    match (id, secret) {
        (Some(id), Some(secret)) if !id.is_empty() && !secret.is_empty() => {
            let key = AccessKey::new(id, secret);
            Ok(match token.filter(|token| !token.is_empty()) {
                Some(token) => key.session_token(token),
                None => key,
            })
        }
        _ if found => Err(Error::usage(format!("the profile {name:?} has no access key"))),
        _ => Err(Error::usage(format!("there is no profile {name:?}"))),
    }
}

/// Providers to be asked one after the other: the first that has a key gives it.
#[derive(Clone, Default)]
#[must_use]
pub struct KeyChain(Vec<Arc<dyn Provider>>);

impl KeyChain {
    /// The environment's key, then the shared profile file, as the AWS tools begin too.
    pub fn from_env() -> Self {
        Self::default().or(Environment).or(SharedFile)
    }

    /// One more to be asked, after the others.
    pub fn or(mut self, provider: impl ProvideKey) -> Self {
        self.0.push(Arc::new(provider));
        self
    }
}

struct Environment;

impl ProvideKey for Environment {
    async fn access_key(&self) -> Result<AccessKey> {
        AccessKey::from_env()
    }
}

struct SharedFile;

impl ProvideKey for SharedFile {
    async fn access_key(&self) -> Result<AccessKey> {
        Profile::from_env()?.access_key().await
    }
}

impl ProvideKey for KeyChain {
    async fn access_key(&self) -> Result<AccessKey> {
        let mut reasons = Vec::new();
        for provider in &self.0 {
            match provider.key().await {
                Ok(key) => return Ok(key),
                Err(error) => reasons.push(error.message().to_owned()),
            }
        }
        Err(Error::usage(format!("no AWS credentials: {}", reasons.join("; "))))
    }
}

impl fmt::Debug for KeyChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyChain").field("providers", &self.0.len()).finish()
    }
}
