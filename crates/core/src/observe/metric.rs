//! Operations as OpenTelemetry measures them.

use std::borrow::Cow;

use super::{Done, Outcome, Semantics};
use crate::endpoint::Host;

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Value<'a> {
    /// A text.
    Text(Cow<'a, str>),
    /// A number.
    Number(i64),
}

/// How long an operation took, for a histogram, under the names of OpenTelemetry's semantic conventions:
///
/// | of | name | attributes beside `server.address`, `server.port`, `network.protocol.name` and, where it failed, `error.type` |
/// |---|---|---|
/// | HTTP | `http.client.request.duration` | `http.request.method`, `http.response.status_code` |
/// | databases | `db.client.operation.duration` | `db.system.name`, `db.operation.name` |
/// | gRPC | `rpc.client.call.duration` | `rpc.system`, `rpc.method`, `rpc.grpc.status_code` |
/// | DNS | `dns.lookup.duration` | `dns.question.name` |
/// | others | `portolan.client.operation.duration` | `operation` |
///
/// A few lines lead from [`Observer::operation`](super::Observer::operation) into the metrics library of one's choice:
///
/// ```
/// use portolan_core::observe::{Done, Observer};
///
/// struct Lines;
///
/// impl Observer for Lines {
///     fn operation(&self, done: &Done<'_>) {
///         let one = done.metric();
///         println!("{} {} {} {:?}", one.name, one.value, one.unit, one.attributes);
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Metric<'a> {
    /// The name of the histogram.
    pub name: &'static str,
    /// What the value counts: `s`.
    pub unit: &'static str,
    /// The seconds that it took.
    pub value: f64,
    /// Each with its name.
    pub attributes: Vec<(&'static str, Value<'a>)>,
}

impl<'a> Metric<'a> {
    /// The attribute of that name.
    pub fn attribute(&self, name: &str) -> Option<&Value<'a>> {
        self.attributes.iter().find(|(one, _)| *one == name).map(|(_, value)| value)
    }
}

impl<'a> Done<'a> {
    /// The operation as OpenTelemetry measures it.
    pub fn metric(&self) -> Metric<'a> {
        let text = |text: &'a str| Value::Text(Cow::Borrowed(text));
        let address = match self.endpoint.host() {
            Host::Unix(path) => path.to_string_lossy(),
            _ => self.endpoint.host_text(),
        };
        let mut attributes =
            vec![("network.protocol.name", text(self.protocol)), ("server.address", Value::Text(address))];
        if !matches!(self.endpoint.host(), Host::Unix(_)) {
            attributes.push(("server.port", Value::Number(self.endpoint.port().into())));
        }
        let status = self.facts.status.or_else(|| self.outcome.error().and_then(crate::Error::code));
        let (name, status_name) = match self.semantics {
            Semantics::Http => {
                attributes.push(("http.request.method", text(self.operation)));
                ("http.client.request.duration", Some("http.response.status_code"))
            }
            Semantics::Db => {
                attributes.push(("db.system.name", text(self.protocol)));
                attributes.push(("db.operation.name", text(self.operation)));
                ("db.client.operation.duration", None)
            }
            Semantics::Rpc => {
                attributes.push(("rpc.system", text(self.protocol)));
                attributes.push(("rpc.method", text(self.operation)));
                ("rpc.client.call.duration", Some("rpc.grpc.status_code"))
            }
            Semantics::Dns => {
                attributes.extend(self.about.map(|about| ("dns.question.name", text(about))));
                ("dns.lookup.duration", None)
            }
            Semantics::Plain => {
                attributes.push(("operation", text(self.operation)));
                ("portolan.client.operation.duration", None)
            }
        };
        attributes.extend(status_name.zip(status).map(|(name, status)| (name, Value::Number(status))));
        let failed: Option<Cow<'_, str>> = match self.outcome {
            // An answer all the same, but for HTTP the convention counts it.
            Outcome::Done => status
                .filter(|code| self.semantics == Semantics::Http && *code >= 400)
                .map(|code| code.to_string().into()),
            Outcome::Failed(error) => Some(format!("{:?}", error.kind()).into()),
            Outcome::Dropped => Some("dropped".into()),
        };
        attributes.extend(failed.map(|failed| ("error.type", Value::Text(failed))));
        Metric { name, unit: "s", value: self.elapsed.as_secs_f64(), attributes }
    }
}
