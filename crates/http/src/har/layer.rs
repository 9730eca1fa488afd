//! The recorder between the caller and the wire.

use std::sync::{Arc, Mutex, PoisonError};

use http::{StatusCode, header};
use portolan_core::Result;
use portolan_http2::ext::Protocol;

use super::capture::{Seen, capture};
use super::{Entry, Har, HarOptions};
use crate::listen::OnMessage;
use crate::middleware::{Middleware, Next};
use crate::request::Request;
use crate::response::Response;
use crate::trail::{Answer, Step, Trail};

/// Writes down each exchange of a client, redirects too, as it went out: with the fields that the client added, and what its jar
/// had. Clones share the recording. Of what was tried again, or challenged, the last is written.
///
/// Without bodies an exchange is there when the head of its response is; with bodies ([`HarOptions::with_bodies`]), when the caller has
/// read the response's or let it go. Of a WebSocket it has the messages then, as they come and go, up to as many bytes in all as of a
/// body.
///
/// ```no_run
/// # async fn run() -> portolan_core::Result<()> {
/// use portolan_http::Client;
/// use portolan_http::har::{HarOptions, Recorder};
///
/// let recorder = Recorder::new(HarOptions::new());
/// let client = Client::builder().middleware(recorder.clone()).build()?;
/// client.get("https://example.org/").send().await?;
/// println!("{}", recorder.take().to_json()?);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Recorder {
    options: Arc<HarOptions>,
    har: Arc<Mutex<Har>>,
}

impl Recorder {
    /// An empty recording.
    pub fn new(options: HarOptions) -> Self {
        Self { options: Arc::new(options), har: Arc::default() }
    }

    /// What was recorded so far; recording begins anew.
    pub fn take(&self) -> Har {
        std::mem::take(&mut self.har.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn push(&self, entry: Entry) {
        self.har.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }
}

impl Middleware for Recorder {
    async fn handle(&self, request: Request, next: Next<'_>) -> Result<Response> {
        let recorder = self.clone();
        record(&self.options, request, next, move |entry| recorder.push(entry)).await
    }
}

/// Sends the request, and pushes each exchange that it took: redirects first, the last when its body was read.
pub(super) async fn record(
    options: &Arc<HarOptions>,
    mut request: Request,
    next: Next<'_>,
    push: impl Fn(Entry) + Send + Sync + 'static,
) -> Result<Response> {
    let trail = Trail::join(&mut request);
    let (before, given) = (trail.len(), Step::of(&request));
    let extended = request.extensions().get::<Protocol>().is_some_and(|protocol| protocol.as_str() == "websocket");
    let result = next.run(request).await;
    let mut steps = trail.since(before);
    // Of what never came to the wire there is what was asked for.
    let mut last = steps.pop().unwrap_or(given);
    steps.iter().for_each(|step| push(Entry::of_step(options, step)));
    let mut response = match result {
        Ok(response) => response,
        Err(error) => {
            push(Entry::of_step(options, &last).with_comment(error.to_string()));
            return Err(error);
        }
    };
    let answer = Answer::of(&response);
    last.request.version = answer.parts.version;
    if options.max_body == 0 {
        let total = response.content_length();
        let nothing = Seen { kept: b"", total, whole: total.is_some() };
        push(Entry::of_answer(options, &last, &answer, &nothing));
        return Ok(response);
    }
    if is_websocket(&response, extended) {
        let nothing = Seen { kept: b"", total: Some(0), whole: true };
        let entry = Entry::of_answer(options, &last, &answer, &nothing).websocket();
        let (heard, extensions) = (entry.on_message(options.max_body), response.extensions_mut());
        // Another recorder may listen already.
        let heard = extensions.remove::<OnMessage>().map_or(heard.clone(), |other| other.and(heard));
        extensions.insert(heard);
        push(entry);
        return Ok(response);
    }
    let options = options.clone();
    Ok(capture(response, options.max_body, move |seen| push(Entry::of_answer(&options, &last, &answer, &seen))))
}

/// Whether a conversation begins here, by an upgrade or on a stream of HTTP/2 or 3.
fn is_websocket(response: &Response, extended: bool) -> bool {
    let upgraded = || {
        let to = response.headers().get(header::UPGRADE);
        to.is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"))
    };
    match response.status() {
        StatusCode::SWITCHING_PROTOCOLS => upgraded(),
        status => extended && status.is_success(),
    }
}
