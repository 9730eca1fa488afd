//! What travels in a request's extensions.

use std::fmt;
use std::sync::Arc;

use http::Response;

/// The `:protocol` of an extended CONNECT (RFC 9220), such as `websocket`. It waits for the peer's SETTINGS, and fails with
/// [`Kind::Unsupported`](portolan_core::Kind::Unsupported) when they don't allow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protocol(Arc<str>);

impl Protocol {
    /// Names the protocol.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Called with each informational response (1xx), from the task that waits for the final one.
#[derive(Clone)]
pub struct OnInformational(Arc<dyn Fn(Response<()>) + Send + Sync>);

impl OnInformational {
    /// Sets what is called.
    pub fn new(callback: impl Fn(Response<()>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(callback))
    }

    pub(crate) fn call(&self, response: Response<()>) {
        (self.0)(response);
    }
}

impl fmt::Debug for OnInformational {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnInformational")
    }
}
