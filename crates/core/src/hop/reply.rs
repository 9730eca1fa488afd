//! What a SOCKS5 proxy says when it does not connect.

use std::fmt;

/// The reply of a SOCKS5 proxy (RFC 1928 6), with Tor's own (its proposal 304, `ExtendedErrors` on its SocksPort): read it with
/// [`Error::server`](crate::Error::server).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SocksReply {
    /// 1.
    GeneralFailure,
    /// 2: not allowed by its rules.
    NotAllowed,
    /// 3.
    NetworkUnreachable,
    /// 4.
    HostUnreachable,
    /// 5: the target refused.
    ConnectionRefused,
    /// 6.
    TtlExpired,
    /// 7.
    CommandNotSupported,
    /// 8.
    AddressTypeNotSupported,
    /// 0xF0: Tor found no descriptor of the onion service: it is down, or never was.
    OnionNotFound,
    /// 0xF1: the descriptor is not valid.
    OnionDescriptorInvalid,
    /// 0xF2: the introduction failed.
    OnionIntroFailed,
    /// 0xF3: the rendezvous failed.
    OnionRendezvousFailed,
    /// 0xF4: the service wants a client key, and Tor has none for it.
    OnionAuthMissing,
    /// 0xF5: the client key that Tor has is not the right one.
    OnionAuthWrong,
    /// 0xF6: not an onion address: misspelt, or of version 2.
    OnionAddressInvalid,
    /// 0xF7: the introduction took too long.
    OnionIntroTimedOut,
    /// Another one.
    Other(u8),
}

impl SocksReply {
    pub(super) fn from_code(code: u8) -> Self {
        match code {
            1 => Self::GeneralFailure,
            2 => Self::NotAllowed,
            3 => Self::NetworkUnreachable,
            4 => Self::HostUnreachable,
            5 => Self::ConnectionRefused,
            6 => Self::TtlExpired,
            7 => Self::CommandNotSupported,
            8 => Self::AddressTypeNotSupported,
            0xf0 => Self::OnionNotFound,
            0xf1 => Self::OnionDescriptorInvalid,
            0xf2 => Self::OnionIntroFailed,
            0xf3 => Self::OnionRendezvousFailed,
            0xf4 => Self::OnionAuthMissing,
            0xf5 => Self::OnionAuthWrong,
            0xf6 => Self::OnionAddressInvalid,
            0xf7 => Self::OnionIntroTimedOut,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for SocksReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GeneralFailure => "general failure",
            Self::NotAllowed => "not allowed by its rules",
            Self::NetworkUnreachable => "network unreachable",
            Self::HostUnreachable => "host unreachable",
            Self::ConnectionRefused => "connection refused by the target",
            Self::TtlExpired => "TTL expired",
            Self::CommandNotSupported => "command not supported",
            Self::AddressTypeNotSupported => "address type not supported",
            Self::OnionNotFound => "onion service not found",
            Self::OnionDescriptorInvalid => "onion service's descriptor is invalid",
            Self::OnionIntroFailed => "introduction to the onion service failed",
            Self::OnionRendezvousFailed => "rendezvous with the onion service failed",
            Self::OnionAuthMissing => "onion service wants a client key",
            Self::OnionAuthWrong => "onion service refused the client key",
            Self::OnionAddressInvalid => "not a valid onion address",
            Self::OnionIntroTimedOut => "introduction to the onion service timed out",
            Self::Other(_) => "unknown reply code",
        })
    }
}
