//! Signing.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::request::Parts;
use http::{HeaderName, HeaderValue};
use http_body_util::BodyExt;
use portolan_core::{Error, Result, clock};

use super::base::{Component, Message};
use super::key::SigningKey;
use super::verifier::Verifier;
use super::{INPUT, SIGNATURE};
use crate::body::Body;
use crate::civil;
use crate::content_digest::{self, CONTENT_DIGEST, content_digest};
use crate::response::Response;
use crate::sign::Sign;
use crate::structured::{Bare, Dictionary, InnerList, Item, Member, Params};

type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Signs requests: by default their method and target, and a digest of their body if there is one.
#[derive(Clone)]
#[must_use]
pub struct MessageSigner {
    key: SigningKey,
    label: String,
    /// And whether it may be missing.
    components: Vec<(Component, bool)>,
    digest: Option<content_digest::Algorithm>,
    expires: Option<Duration>,
    nonce: bool,
    alg: bool,
    tag: Option<String>,
    clock: Clock,
    responses: Option<Verifier>,
}

impl MessageSigner {
    /// Signs with this key: `@method`, `@target-uri`, and `content-digest` where there is a body.
    pub fn new(key: SigningKey) -> Self {
        Self {
            key,
            label: "sig1".to_owned(),
            components: vec![("@method".into(), false), ("@target-uri".into(), false)],
            digest: Some(content_digest::Algorithm::Sha256),
            expires: None,
            nonce: false,
            alg: false,
            tag: None,
            clock: Arc::new(clock::wall),
            responses: None,
        }
    }

    /// Signs these instead.
    pub fn components<C: Into<Component>>(mut self, components: impl IntoIterator<Item = C>) -> Self {
        self.components = components.into_iter().map(|component| (component.into(), false)).collect();
        self
    }

    /// Signs this too. A request that lacks it is not sent.
    pub fn cover(mut self, component: impl Into<Component>) -> Self {
        self.components.push((component.into(), false));
        self
    }

    /// Signs this field too, where it is there.
    pub fn cover_if_present(mut self, component: impl Into<Component>) -> Self {
        self.components.push((component.into(), true));
        self
    }

    /// How the digest of a body is made, which is then signed too; `None` makes none. Default SHA-256. A body that can be had once only has
    /// none, and is an error.
    pub fn content_digest(mut self, algorithm: impl Into<Option<content_digest::Algorithm>>) -> Self {
        self.digest = algorithm.into();
        self
    }

    /// What the signature is called. Default `sig1`.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// For how long the signature is good. Default: it doesn't say.
    pub fn expires_in(mut self, time: Duration) -> Self {
        self.expires = Some(time);
        self
    }

    /// Says a number that is used once, for servers that refuse what they have seen. Attempts that are raced ([hedged] or by several
    /// ways) share one. Default off.
    ///
    /// [hedged]: crate::RequestBuilder::hedge
    pub fn nonce(mut self, on: bool) -> Self {
        self.nonce = on;
        self
    }

    /// Says the algorithm in the signature. Default off: the key's name says it.
    pub fn alg(mut self, on: bool) -> Self {
        self.alg = on;
        self
    }

    /// What the signature is for.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tag = Some(tag.into());
        self
    }

    /// What time it is. Default: the machine's clock.
    pub fn clock(mut self, now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(now);
        self
    }

    /// Takes only responses that pass this, with what they say of the request as it was sent (`;req`).
    pub fn verify_responses(mut self, verifier: Verifier) -> Self {
        self.responses = Some(verifier);
        self
    }

    fn params(&self) -> Result<Params> {
        let created = civil::unix((self.clock)());
        let mut params = Params::default();
        params.set("created", Bare::Integer(created));
        if let Some(time) = self.expires {
            let time = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
            params.set("expires", Bare::Integer(created.saturating_add(time)));
        }
        if self.nonce {
            let mut random = [0; 16];
            getrandom::fill(&mut random).map_err(|_| Error::usage("no randomness for a nonce"))?;
            params.set("nonce", Bare::String(URL_SAFE_NO_PAD.encode(random)));
        }
        if self.alg {
            params.set("alg", Bare::String(self.key.algorithm.as_str().to_owned()));
        }
        for (name, text) in [("keyid", &self.key.id), ("tag", &self.tag)] {
            if let Some(text) = text {
                params.set(name, Bare::String(text.clone()));
            }
        }
        Ok(params)
    }

    /// Signs a head, which has its digest already, if it is to have one. [`Sign`] does this and the digest.
    pub fn sign_head(&self, request: &mut Parts) -> Result<()> {
        let message = Message::request(request);
        let digest = Component::from(CONTENT_DIGEST.as_str());
        let covered = self.components.iter().filter(|(component, optional)| !optional || message.has(component));
        let mut items: Vec<Item> = covered.map(|(component, _)| component.0.clone()).collect();
        let has_digest = self.digest.is_some() && request.headers.contains_key(CONTENT_DIGEST);
        if has_digest && !items.contains(&digest.0) {
            items.push(digest.0);
        }
        let mut input = InnerList::default();
        (input.items, input.params) = (items, self.params()?);
        let base = message.base(&input)?;
        let signature = self.key.sign(base.as_bytes())?;
        put(request, INPUT, &self.label, Member::List(input))?;
        put(request, SIGNATURE, &self.label, Member::Item(Item::new(Bare::Bytes(signature))))
    }
}

/// Beside other signatures, which stay.
fn put(request: &mut Parts, name: HeaderName, label: &str, member: Member) -> Result<()> {
    let broken = |_| Error::usage(format!("a {name} that can't be added to"));
    let mut field = Dictionary::of(&request.headers, name.clone()).map_err(broken)?;
    field.set(label, member);
    let text = field.to_string();
    // What can't be read again was given wrong: a label, a key's name.
    Dictionary::decode(text.as_bytes()).map_err(|_| Error::usage("a label or a name that no signature can have"))?;
    let value = HeaderValue::from_str(&text).map_err(|_| Error::usage("a name that no signature can have"))?;
    request.headers.insert(name, value);
    Ok(())
}

impl Sign for MessageSigner {
    async fn sign(&self, request: &mut Parts, body: Body) -> Result<Body> {
        if let (Some(algorithm), false) = (self.digest, request.headers.contains_key(CONTENT_DIGEST)) {
            let value = match body.as_bytes() {
                Some([]) => None,
                Some(bytes) => Some(content_digest(algorithm, bytes)),
                None => {
                    let copy = body.try_clone();
                    Some(read_through(copy, algorithm).await?)
                }
            };
            if let Some(value) = value {
                request.headers.insert(CONTENT_DIGEST, value);
            }
        }
        self.sign_head(request)?;
        Ok(body)
    }

    fn answered(&self, request: &Parts, response: Response) -> Result<Response> {
        match &self.responses {
            Some(verifier) => verifier.answered(request, response),
            None => Ok(response),
        }
    }
}

/// The digest of a body that can be had again.
async fn read_through(copy: Option<Body>, algorithm: content_digest::Algorithm) -> Result<HeaderValue> {
    let copy = copy.ok_or_else(|| {
        Error::usage(
            "a body that can be had once has no digest: make it with Body::from_fn, or say content_digest(None)",
        )
    })?;
    let (mut copy, mut hasher) = (copy.ready(), algorithm.hasher());
    while let Some(frame) = copy.frame().await {
        let frame =
            frame.map_err(|error| Error::usage("the body failed as it was read to be signed").with_source(error))?;
        if let Some(data) = frame.data_ref() {
            hasher.update(data);
        }
    }
    Ok(algorithm.field(&hasher.finish()))
}

impl fmt::Debug for MessageSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageSigner").field("key", &self.key).field("label", &self.label).finish_non_exhaustive()
    }
}
