//! Why a connection or a stream ended: kept once, and made into an error for each who waits.

use std::sync::Arc;

use portolan_core::{BoxError, Delivery, Error, Kind, Phase};

use super::code::Code;

/// What all errors of this crate name as their protocol.
pub(crate) const PROTOCOL: &str = "http2";

/// A reason that many streams may share.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) code: Option<Code>,
    pub(crate) message: Arc<str>,
    /// What is known beyond the stream's own history: REFUSED_STREAM, or above the last id of a GOAWAY.
    pub(crate) delivery: Option<Delivery>,
    /// The peer is going away in good order, and has served others on this connection.
    pub(crate) drained: bool,
    pub(crate) io: Option<std::io::ErrorKind>,
}

impl Failure {
    pub(crate) fn new(kind: Kind, message: impl Into<Arc<str>>) -> Self {
        Self { kind, code: None, message: message.into(), delivery: None, drained: false, io: None }
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

    /// The error for one stream, whose own history says what became of its request.
    pub(crate) fn error(&self, history: Delivery, phase: Phase) -> Error {
        // A refusal is believed only while nothing was answered.
        let delivery = if history == Delivery::Answered { history } else { self.delivery.unwrap_or(history) };
        let mut error =
            Error::new(self.kind, &*self.message).with_delivery(delivery).with_phase(phase).with_protocol(PROTOCOL);
        error = error.with_drained(self.drained);
        if let Some(code) = self.code {
            error = error.with_code(i64::from(code.value()));
        }
        match self.io {
            Some(kind) => error.with_source(BoxError::from(std::io::Error::from(kind))),
            None => error,
        }
    }
}
