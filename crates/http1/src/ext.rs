//! What travels in a request's extensions.

use std::fmt;
use std::sync::Arc;

use http::Response;

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

/// The request's target is sent in absolute form (RFC 9112 3.2.2), as proxies want it for plain HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct AbsoluteForm;

impl AbsoluteForm {
    /// The mark.
    pub fn new() -> Self {
        Self
    }
}

impl Default for AbsoluteForm {
    fn default() -> Self {
        Self::new()
    }
}

/// In a response's extensions: the words of its status line, where they are not the usual ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason(pub(crate) Box<str>);

impl Reason {
    /// The words.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
