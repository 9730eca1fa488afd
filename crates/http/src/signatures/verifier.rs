//! Verifying, and what must be so for a signature to count.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::request::Parts;
use http::{Method, StatusCode};
use portolan_core::{Delivery, Error, Kind, Result, clock};

use super::base::{Component, Message};
use super::key::VerifyingKey;
use super::{INPUT, SIGNATURE};
use crate::body::Body;
use crate::civil;
use crate::content_digest::{self, CONTENT_DIGEST};
use crate::response::Response;
use crate::sign::Sign;
use crate::structured::{Bare, Dictionary, InnerList, Member, Params};

/// Signatures of one message that are tried.
const MAX_SIGNATURES: usize = 16;
/// How far apart clocks may be, unless said otherwise.
const SKEW: Duration = Duration::from_secs(60);

type Keys = Arc<dyn Fn(&Params) -> Option<VerifyingKey> + Send + Sync>;
type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// What a message must be signed with, and over what. As the client's [signer](crate::ClientBuilder::sign) it signs nothing and verifies
/// every response; where a response's `content-digest` is signed, its body is checked as it is read.
#[derive(Clone)]
#[must_use]
pub struct Verifier {
    keys: Keys,
    required: Vec<Component>,
    label: Option<String>,
    tag: Option<String>,
    max_age: Option<Duration>,
    skew: Duration,
    clock: Clock,
}

/// A signature that is good.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// What it is called.
    pub label: String,
    /// What it is over.
    pub components: Vec<Component>,
    /// What it says besides: `created`, `keyid`, `nonce` and others.
    pub params: Params,
}

impl Verified {
    /// Whether this was signed.
    pub fn covers(&self, component: impl Into<Component>) -> bool {
        let component = component.into();
        self.components.iter().any(|known| known.same(&component))
    }
}

impl Verifier {
    /// Any signature by this key, whatever name it gives to it.
    pub fn new(key: VerifyingKey) -> Self {
        Self::with_keys(move |_| Some(key.clone()))
    }

    /// Any signature by a key that `keys` finds, given the signature's parameters, `keyid` among them.
    pub fn with_keys(keys: impl Fn(&Params) -> Option<VerifyingKey> + Send + Sync + 'static) -> Self {
        Self {
            keys: Arc::new(keys),
            required: Vec::new(),
            label: None,
            tag: None,
            max_age: None,
            skew: SKEW,
            clock: Arc::new(clock::wall),
        }
    }

    /// This must be signed.
    pub fn require(mut self, component: impl Into<Component>) -> Self {
        self.required.push(component.into());
        self
    }

    /// Only the signature of this label counts.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Only signatures with this tag count.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tag = Some(tag.into());
        self
    }

    /// How old a signature may be; one that doesn't say when it was made is too old then. Default any age.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }

    /// How far apart the clocks may be. Default one minute.
    pub fn clock_skew(mut self, skew: Duration) -> Self {
        self.skew = skew;
        self
    }

    /// What time it is. Default: the machine's clock.
    pub fn clock(mut self, now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(now);
        self
    }

    /// The first signature of a message that passes; [`Kind::Auth`] if none does. A digest that it covers is not compared with the body
    /// here: see [`content_digest::check`].
    pub fn verify(&self, message: &Message<'_>) -> Result<Verified> {
        let field = |name| {
            Dictionary::of(message.headers(), name).map_err(|error| refused("broken signatures").with_source(error))
        };
        let (inputs, signatures) = (field(INPUT)?, field(SIGNATURE)?);
        let mut why = refused("no signature that counts");
        let counts = |label: &&(&str, &Member)| self.label.as_ref().is_none_or(|wanted| wanted == label.0);
        for (label, input) in inputs.iter().filter(|pair| counts(&pair)).take(MAX_SIGNATURES) {
            match self.one(message, input, signatures.get(label)) {
                Ok(Some(input)) => {
                    let components = input.items.iter().cloned().map(Component).collect();
                    return Ok(Verified { label: label.to_owned(), components, params: input.params.clone() });
                }
                Ok(None) => {}
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    /// One signature; `None` where it has another tag.
    fn one<'a>(
        &self,
        message: &Message<'_>,
        input: &'a Member,
        signature: Option<&Member>,
    ) -> Result<Option<&'a InnerList>> {
        let (Member::List(input), Some(Member::Item(signature))) = (input, signature) else {
            return Err(refused("a signature without its other half"));
        };
        let Bare::Bytes(signature) = &signature.value else { return Err(refused("a signature that is no bytes")) };
        let text = |name: &str| match input.params.get(name) {
            None => Ok(None),
            Some(Bare::String(text)) => Ok(Some(text)),
            Some(_) => Err(refused("a parameter that is no text")),
        };
        if self.tag.is_some() && text("tag")? != self.tag.as_ref() {
            return Ok(None);
        }
        self.timely(&input.params)?;
        let covers = |wanted: &Component| input.items.iter().any(|item| Component(item.clone()).same(wanted));
        if let Some(missing) = self.required.iter().find(|wanted| !covers(wanted)) {
            return Err(refused(&format!("{missing} is not signed")));
        }
        let key = (self.keys)(&input.params).ok_or_else(|| refused("a signature by an unknown key"))?;
        // The key decides by what it is used; a message can only agree (RFC 9421 3.2).
        if text("alg")?.is_some_and(|alg| alg != key.algorithm.as_str()) {
            return Err(refused("a signature by another algorithm than its key's"));
        }
        let base = message.base(input).map_err(|error| refused(error.message()))?;
        if key.verify(base.as_bytes(), signature) { Ok(Some(input)) } else { Err(refused("a wrong signature")) }
    }

    fn timely(&self, params: &Params) -> Result<()> {
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let moment = |name: &str| match params.get(name) {
            None => Ok(None),
            Some(Bare::Integer(seconds)) => Ok(Some(*seconds)),
            Some(_) => Err(refused("a time that is none")),
        };
        let (now, skew) = (civil::unix((self.clock)()), seconds(self.skew));
        let (created, expires) = (moment("created")?, moment("expires")?);
        if created.is_some_and(|created| created > now.saturating_add(skew)) {
            return Err(refused("a signature of the future"));
        }
        if expires.is_some_and(|expires| expires < now.saturating_sub(skew)) {
            return Err(refused("a signature that has expired"));
        }
        let Some(max) = self.max_age.map(seconds) else { return Ok(()) };
        match created {
            Some(created) if now.saturating_sub(created) <= max.saturating_add(skew) => Ok(()),
            _ => Err(refused("a signature that is too old")),
        }
    }
}

fn refused(why: &str) -> Error {
    Error::new(Kind::Auth, why).with_protocol(crate::PROTOCOL).with_delivery(Delivery::Answered)
}

impl Sign for Verifier {
    async fn sign(&self, _: &mut Parts, body: Body) -> Result<Body> {
        Ok(body)
    }

    fn answered(&self, request: &Parts, response: Response) -> Result<Response> {
        let message = Message::response(response.status(), response.headers(), Some(request));
        let verified = self.verify(&message)?;
        let no_body = request.method == Method::HEAD
            || matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if no_body || !verified.covers(CONTENT_DIGEST.as_str()) {
            return Ok(response);
        }
        let expected = content_digest::Expected::of(response.headers())?;
        Ok(response.map_body(|body| expected.guard(body)))
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("required", &self.required).field("label", &self.label).finish_non_exhaustive()
    }
}
