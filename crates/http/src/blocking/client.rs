//! The client, and requests that wait.

use http::Method;
use portolan_core::Result;
use portolan_core::blocking::Runtime;

use super::Response;
use crate::builder::ClientBuilder;
use crate::client::verbs;
use crate::request::{self, Request};
use crate::uri::IntoUri;

/// A request that is sent by waiting: with every setting that [`crate::RequestBuilder`] has.
pub type RequestBuilder = crate::RequestBuilder<Runtime>;

/// An HTTP client for code without `async`: cheap to clone, and its clones share their connections.
#[derive(Debug, Clone, Default)]
pub struct Client {
    client: crate::Client,
    runtime: Runtime,
}

impl Client {
    /// A client with defaults that are right for most.
    pub fn new() -> Self {
        Self::default()
    }

    /// A client to be said piece by piece; [`ClientBuilder::build_blocking`] ends it.
    pub fn builder() -> ClientBuilder {
        crate::Client::builder()
    }

    /// Waits by this runtime, which the connections live on, instead of the one that the process shares.
    #[must_use]
    pub fn on(mut self, runtime: Runtime) -> Self {
        self.runtime = runtime;
        self
    }

    verbs!(RequestBuilder);

    /// A request by any method.
    pub fn request(&self, method: Method, uri: impl IntoUri) -> RequestBuilder {
        request::start(&self.client, method, uri, self.runtime.clone())
    }

    /// Sends a request, and waits for the head of its response.
    pub fn execute(&self, request: Request) -> Result<Response> {
        let response = self.runtime.wait(self.client.execute(request))?;
        Ok(Response::new(response, self.runtime.clone()))
    }

    /// The client beneath: what it knows, and what it can for those that await.
    pub fn get_ref(&self) -> &crate::Client {
        &self.client
    }
}

impl From<crate::Client> for Client {
    /// Connections that the client has already must be those of the shared runtime, or of the one said by [`Client::on`].
    fn from(client: crate::Client) -> Self {
        Self { client, runtime: Runtime::shared() }
    }
}

impl ClientBuilder {
    /// Puts together a client for code without `async`.
    pub fn build_blocking(self) -> Result<Client> {
        self.build().map(Client::from)
    }
}

impl RequestBuilder {
    /// Sends it, and waits for the head of the response.
    pub fn send(self) -> Result<Response> {
        let (client, request, runtime) = self.into_parts();
        let response = runtime.wait(client.run(request?))?;
        Ok(Response::new(response, runtime))
    }
}

/// Asks once for what is there. Each call has connections of its own: for more than one make a [`Client`].
pub fn get(uri: impl IntoUri) -> Result<Response> {
    Client::new().get(uri).send()
}
