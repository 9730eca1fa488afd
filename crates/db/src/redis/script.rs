//! Lua scripts, sent once and then named by their digest.

use sha1::{Digest, Sha1};

/// A script. Its digest is computed once.
///
/// ```
/// let script = portolan_db::redis::Script::new("return redis.call('GET', KEYS[1])");
/// assert_eq!(script.sha().len(), 40);
/// ```
#[derive(Debug, Clone)]
pub struct Script {
    source: String,
    sha: String,
}

impl Script {
    /// A script by its source.
    pub fn new(source: impl Into<String>) -> Self {
        let source = source.into();
        let digest = Sha1::digest(source.as_bytes());
        let sha = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { source, sha }
    }

    /// What the server runs.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The name by which the server keeps it.
    pub fn sha(&self) -> &str {
        &self.sha
    }
}
