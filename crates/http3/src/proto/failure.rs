//! Why a connection or a stream ended: kept once, and made into an error for each who waits.

use std::sync::Arc;

use portolan_core::{Delivery, Error, Kind, Phase};
use quinn::ConnectionError;

use super::Violation;
use super::code::Code;

/// What all errors of this crate name as their protocol.
pub(crate) const PROTOCOL: &str = "http3";

/// A reason that many streams may share.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) code: Option<Code>,
    pub(crate) message: Arc<str>,
    /// What is known beyond the stream's own history: H3_REQUEST_REJECTED, or at or above the id of a GOAWAY.
    pub(crate) delivery: Option<Delivery>,
    /// The peer is going away in good order, and has served others on this connection.
    pub(crate) drained: bool,
    pub(crate) source: Option<ConnectionError>,
}

impl Failure {
    pub(crate) fn new(kind: Kind, message: impl Into<Arc<str>>) -> Self {
        Self { kind, code: None, message: message.into(), delivery: None, drained: false, source: None }
    }

    pub(crate) fn with_code(mut self, code: Code) -> Self {
        self.code = Some(code);
        self
    }

    pub(crate) fn with_drained(mut self, drained: bool) -> Self {
        self.drained = drained;
        self
    }

    pub(crate) fn with_delivery(mut self, delivery: Delivery) -> Self {
        self.delivery = Some(delivery);
        self
    }

    /// The peer broke a rule.
    pub(crate) fn violation(violation: Violation) -> Self {
        let kind = if violation.code == Code::EXCESSIVE_LOAD { Kind::Limit } else { Kind::Protocol };
        Self::new(kind, violation.what).with_code(violation.code)
    }

    /// The peer reset the stream.
    pub(crate) fn reset(code: Code) -> Self {
        let failure = Self::new(Kind::Closed, format!("the peer reset the stream: {code}")).with_code(code);
        match code {
            // RFC 9114 8.1: no processing took place.
            Code::REQUEST_REJECTED => failure.with_delivery(Delivery::Refused),
            code if code.is_verdict() => failure.with_delivery(Delivery::Answered),
            _ => failure,
        }
    }

    /// The server did not take what was sent before the handshake was done: to it, it never came.
    pub(crate) fn early_rejected() -> Self {
        Self::new(Kind::Closed, "the peer refused early data").with_delivery(Delivery::NotSent)
    }

    /// The connection is gone.
    pub(crate) fn lost(error: &ConnectionError) -> Self {
        let mut failure = match error {
            ConnectionError::ApplicationClosed(close) => {
                let code = Code::new(close.error_code.into_inner());
                Self::new(Kind::Closed, format!("the peer closed the connection: {code}")).with_code(code)
            }
            ConnectionError::ConnectionClosed(_) => Self::new(Kind::Closed, "the peer gave the connection up"),
            ConnectionError::Reset => Self::new(Kind::Closed, "the peer has forgotten the connection"),
            ConnectionError::TimedOut => Self::new(Kind::Timeout, "nothing was heard of the peer for too long"),
            ConnectionError::LocallyClosed => Self::new(Kind::Closed, "closed on this side"),
            ConnectionError::TransportError(error) if error.code == quinn::TransportErrorCode::INTERNAL_ERROR => {
                Self::new(Kind::Closed, "the socket failed")
            }
            ConnectionError::TransportError(_) => Self::new(Kind::Protocol, "the peer broke QUIC"),
            _ => Self::new(Kind::Closed, "no connection"),
        };
        failure.source = Some(error.clone());
        failure
    }

    /// The error for one stream, whose own history says what became of its request.
    pub(crate) fn error(&self, history: Delivery, phase: Phase) -> Error {
        // A refusal is believed only while nothing was answered.
        let delivery = if history == Delivery::Answered { history } else { self.delivery.unwrap_or(history) };
        let mut error =
            Error::new(self.kind, &*self.message).with_delivery(delivery).with_phase(phase).with_protocol(PROTOCOL);
        error = error.with_drained(self.drained);
        if let Some(code) = self.code.and_then(|code| i64::try_from(code.value()).ok()) {
            error = error.with_code(code);
        }
        match &self.source {
            Some(source) => error.with_source(source.clone()),
            None => error,
        }
    }
}
