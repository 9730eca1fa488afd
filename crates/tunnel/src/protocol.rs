//! What both halves agree on: one header, two words, and the codes of a Close.

use portolan_websocket::CloseCode;

/// The protocol's name, in errors and logs.
pub(crate) const PROTOCOL: &str = "tunnel";

/// The subprotocol that client and gateway agree on. A WebSocket server that doesn't choose it is no gateway.
pub const SUBPROTOCOL: &str = "tcp-tunnel.v1";

/// The header of the upgrade that names the target, as `host:port`.
///
/// A header and not a path, since paths and queries end up in the logs of every proxy and server on the way, and since
/// the path belongs to whoever mounts the gateway. Browsers can't set headers: for them the gateway reads the query
/// `target` too.
pub const TARGET: &str = "tunnel-target";

/// The text message by which the gateway says that the target is connected. Bytes may be sent before; none come before.
pub const OPEN: &str = "open";

/// The text message by which either end says that its side of the conversation is over: a FIN of TCP.
pub const FIN: &str = "fin";

/// The longest word there is; a longer text message is none.
pub(crate) const MAX_WORD: usize = 16;

/// Why a gateway closes a tunnel, beside the codes of RFC 6455: 1000 when both sides were over, 1001 when it shuts
/// down, 1002 and 1003 when the client broke the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// 4403: the address policy forbids the target.
    Forbidden,
    /// 4404: the target's name could not be resolved.
    Unresolved,
    /// 4408: nothing went either way for too long.
    Idle,
    /// 4410: the tunnel was open for as long as it may be.
    Lifetime,
    /// 4413: as many bytes went through as may.
    Bytes,
    /// 4502: the target could not be connected to.
    Unreachable,
    /// 4503: the target ended the connection by a reset.
    Reset,
    /// 4504: connecting to the target took too long.
    OpenTimeout,
}

impl Reason {
    const ALL: [Self; 8] = [
        Self::Forbidden,
        Self::Unresolved,
        Self::Idle,
        Self::Lifetime,
        Self::Bytes,
        Self::Unreachable,
        Self::Reset,
        Self::OpenTimeout,
    ];

    /// The number in the Close.
    pub fn code(self) -> u16 {
        match self {
            Self::Forbidden => 4403,
            Self::Unresolved => 4404,
            Self::Idle => 4408,
            Self::Lifetime => 4410,
            Self::Bytes => 4413,
            Self::Unreachable => 4502,
            Self::Reset => 4503,
            Self::OpenTimeout => 4504,
        }
    }

    /// The reason with this number.
    pub fn of(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }

    pub(crate) fn close_code(self) -> CloseCode {
        // All of them are in the range for private use.
        CloseCode::new(self.code()).unwrap_or(CloseCode::INTERNAL)
    }

    /// The words beside the number. They tell nothing of the network behind the gateway.
    pub fn words(self) -> &'static str {
        match self {
            Self::Forbidden => "the gateway's policy forbids the target",
            Self::Unresolved => "the target's name was not resolved",
            Self::Idle => "idle for too long",
            Self::Lifetime => "open for too long",
            Self::Bytes => "too many bytes",
            Self::Unreachable => "the target could not be reached",
            Self::Reset => "the target reset the connection",
            Self::OpenTimeout => "connecting to the target took too long",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_code_of_its_own_that_may_travel() {
        for reason in Reason::ALL {
            assert_eq!(Reason::of(reason.code()), Some(reason));
            assert_eq!(reason.close_code().get(), reason.code());
            assert!(reason.words().len() <= 123);
        }
        assert_eq!(Reason::of(1000), None);
    }
}
