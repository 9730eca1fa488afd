//! What a call came by: each exchange as it went out, for who writes it down.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use http::{Extensions, HeaderValue, StatusCode, Uri, header, request, response};
use portolan_core::{ConnectionInfo, clock};

use crate::request::Request;
use crate::response::{Response, Timings};

/// Redirects beyond these are not told one by one.
const MAX_STEPS: usize = 100;

/// Carried by a request that wants to be told. Copies share it.
#[derive(Clone, Default)]
pub(crate) struct Trail(Arc<Mutex<Vec<Step>>>);

/// One exchange.
#[derive(Clone)]
pub(crate) struct Step {
    pub(crate) started: SystemTime,
    pub(crate) request: request::Parts,
    /// `None` where it passes only once.
    #[cfg_attr(not(feature = "har"), expect(dead_code, reason = "for HAR alone"))]
    pub(crate) body: Option<Bytes>,
    pub(crate) answer: Option<Answer>,
}

/// The head of a response as it came.
#[derive(Clone)]
#[cfg_attr(not(feature = "har"), expect(dead_code, reason = "info and timings are for HAR alone"))]
pub(crate) struct Answer {
    pub(crate) parts: response::Parts,
    pub(crate) info: Arc<ConnectionInfo>,
    pub(crate) timings: Timings,
}

/// One that is under way.
pub(crate) struct Turn {
    trail: Trail,
    asked: Uri,
    at: usize,
}

impl Trail {
    /// The request's own, or a new one.
    pub(crate) fn join(request: &mut Request) -> Self {
        request.extensions_mut().get_or_insert_default::<Self>().clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// What came after the first `from`.
    pub(crate) fn since(&self, from: usize) -> Vec<Step> {
        self.lock().get(from..).unwrap_or_default().to_vec()
    }
}

impl Trail {
    fn lock(&self) -> MutexGuard<'_, Vec<Step>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, step: Step) -> usize {
        let mut steps = self.lock();
        steps.truncate(MAX_STEPS - 1);
        steps.push(step);
        steps.len() - 1
    }
}

impl Turn {
    /// Of a request that wants to be told.
    pub(crate) fn of(request: &Request) -> Option<Box<Self>> {
        let trail = request.extensions().get::<Trail>()?.clone();
        Some(Box::new(Self { trail, asked: request.uri().clone(), at: 0 }))
    }

    /// It goes out so.
    pub(crate) fn sent(&mut self, request: &Request) {
        let mut step = Step::of(request);
        if *request.uri() != self.asked {
            // Browsers write it so where they know that there is TLS.
            let mut turned = step.clone();
            turned.request.uri = self.asked.clone();
            turned.answer = upgrade(request.uri());
            self.trail.push(turned);
        }
        step.started = clock::wall();
        self.at = self.trail.push(step);
    }

    /// It was answered so.
    pub(crate) fn answered(&self, response: &Response) {
        if let Some(step) = self.trail.lock().get_mut(self.at) {
            step.request.version = response.version();
            step.answer = Some(Answer::of(response));
        }
    }
}

impl Step {
    /// The request as it is.
    pub(crate) fn of(request: &Request) -> Self {
        // What goes along may hold the trail, which holds this.
        let mut parts = request.parts.clone();
        parts.extensions = Extensions::new();
        Self { started: clock::wall(), request: parts, body: request.body.bytes(), answer: None }
    }
}

impl Answer {
    pub(crate) fn of(response: &Response) -> Self {
        let parts = response.parts().clone();
        Self { parts, info: response.shared_info(), timings: response.timings() }
    }
}

fn upgrade(to: &Uri) -> Option<Answer> {
    let mut parts = http::Response::new(()).into_parts().0;
    parts.status = StatusCode::TEMPORARY_REDIRECT;
    parts.headers.insert(header::LOCATION, HeaderValue::try_from(to.to_string()).ok()?);
    Some(Answer { parts, info: Arc::default(), timings: Timings::default() })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::Step;
    use crate::request::Request;

    #[test]
    fn a_step_shares_the_body_of_its_request() {
        let body = Bytes::from(vec![7; 1000]);
        let request = Request::from(http::Request::post("http://e/").body(body.clone()).unwrap());
        assert_eq!(Step::of(&request).body.map(|seen| seen.as_ptr()), Some(body.as_ptr()));
    }
}
