//! Event streams by the HTTP client.

use std::future::Future;
use std::sync::Arc;

use http::Response;
use portolan_core::{Error, Limit, Result, Timeouts};
use portolan_http::{Client, Incoming, IntoUri, Request};

use crate::fetch::{Fetch, headers};
use crate::source::{EventSource, Options};

/// Opens the stream by an HTTP client, each time anew: its pool, versions, hops, cookies and redirects hold.
#[derive(Debug)]
pub struct ByClient {
    client: Client,
    request: Request,
}

impl EventSource<ByClient> {
    /// Follows the events at a URL. A user and password in it become Basic authentication.
    pub fn get(client: &Client, uri: impl IntoUri, options: Options) -> Result<Self> {
        Self::open_with(client, client.get(uri).build()?, options)
    }

    /// Follows the events that answer a request of any kind, a POST with a body among them: a request whose body can be sent
    /// again, since it is sent again after each break. A `last-event-id` of its own is where the stream begins.
    pub fn open_with(client: &Client, request: Request, options: Options) -> Result<Self> {
        if !request.body().is_replayable() {
            return Err(Error::usage("an event stream is asked for again and again, and this body can be sent once"));
        }
        let first = request.headers().get("last-event-id").and_then(|id| id.to_str().ok().map(str::to_owned));
        let options = match first {
            Some(id) => options.last_event_id(id),
            None => options,
        };
        Ok(Self::new(ByClient { client: client.clone(), request }, options))
    }
}

impl Fetch for ByClient {
    type Body = Incoming;

    fn fetch(
        &mut self,
        last_event_id: Option<Arc<str>>,
    ) -> impl Future<Output = Result<Response<Incoming>>> + Send + 'static {
        let client = self.client.clone();
        let request = self.request.try_clone();
        async move {
            let mut request = request.ok_or_else(|| Error::usage("a body that can be sent once"))?;
            headers(request.headers_mut(), last_event_id.as_deref());
            // Silence and length are the source's to judge.
            request.set_timeouts(Timeouts::default().idle(Limit::Off).total(Limit::Off));
            Ok(client.execute(request).await?.into_http())
        }
    }
}
