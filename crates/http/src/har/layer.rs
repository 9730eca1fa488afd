//! The recorder between the caller and the wire.

use std::sync::{Arc, Mutex, PoisonError};

use portolan_core::{Result, clock};

use super::capture::capture;
use super::{Entry, Har, HarOptions, Phases};
use crate::middleware::{Middleware, Next};
use crate::request::Request;
use crate::response::Response;

/// Writes down each exchange of a client. Clones share the recording.
///
/// Without bodies an exchange is there when the head of its response is; with bodies ([`HarOptions::with_bodies`]), when the caller has
/// read the response's or let it go.
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
        let started = clock::wall();
        let body = request.body.as_bytes().unwrap_or_default().to_vec();
        let entry = Entry::new(&self.options, started, &request.parts, &body);
        match next.run(request).await {
            Ok(response) => {
                let mut phases = Phases::new();
                phases.wait = response.timings().first_byte;
                let entry = entry.with_connection(response.connection_info(), response.is_reused()).with_phases(phases);
                if self.options.max_body == 0 {
                    self.push(entry.with_response(&self.options, response.parts(), b""));
                    return Ok(response);
                }
                let (recorder, parts, max) = (self.clone(), response.parts().clone(), self.options.max_body);
                Ok(capture(response, max, move |body, total| {
                    recorder.push(entry.with_captured(&recorder.options, &parts, body, total));
                }))
            }
            Err(error) => {
                self.push(entry.with_comment(error.to_string()));
                Err(error)
            }
        }
    }
}
