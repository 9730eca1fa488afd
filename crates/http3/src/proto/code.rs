//! Error codes (RFC 9114 8.1, RFC 9204 6, RFC 9297 2.1).

use std::fmt;

/// An HTTP/3 error code, known or not.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(u64);

macro_rules! codes {
    ($($name:ident $value:literal $doc:literal,)*) => {
        impl Code {
            $(#[doc = $doc] pub const $name: Self = Self($value);)*

            /// The name in the specification, without its `H3_`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                    _ => "unknown code",
                }
            }
        }
    };
}

codes! {
    DATAGRAM_ERROR 0x33 "A datagram that breaks the rules.",
    NO_ERROR 0x100 "A graceful end.",
    GENERAL_PROTOCOL_ERROR 0x101 "A rule was broken.",
    INTERNAL_ERROR 0x102 "The sender failed.",
    STREAM_CREATION_ERROR 0x103 "A stream that is not wanted.",
    CLOSED_CRITICAL_STREAM 0x104 "A stream ended that the connection needs.",
    FRAME_UNEXPECTED 0x105 "A frame out of place.",
    FRAME_ERROR 0x106 "A frame of the wrong form.",
    EXCESSIVE_LOAD 0x107 "Too much load.",
    ID_ERROR 0x108 "An id out of range, or one that rose where it may only fall.",
    SETTINGS_ERROR 0x109 "Settings that break the rules.",
    MISSING_SETTINGS 0x10a "The control stream did not begin with settings.",
    REQUEST_REJECTED 0x10b "Not processed at all: safe to send again.",
    REQUEST_CANCELLED 0x10c "No longer wanted.",
    REQUEST_INCOMPLETE 0x10d "The request ended too early.",
    MESSAGE_ERROR 0x10e "A malformed message.",
    CONNECT_ERROR 0x10f "The connection behind CONNECT failed.",
    VERSION_FALLBACK 0x110 "The server wants HTTP/1.1 for this.",
    QPACK_DECOMPRESSION_FAILED 0x200 "A field section could not be decoded.",
    QPACK_ENCODER_STREAM_ERROR 0x201 "An instruction of the encoder could not be followed.",
    QPACK_DECODER_STREAM_ERROR 0x202 "An instruction of the decoder could not be followed.",
}

impl Code {
    /// From the wire.
    pub const fn new(code: u64) -> Self {
        Self(code)
    }

    /// Whether the peer says that the request itself breaks the rules: it would do so again.
    pub(crate) fn is_verdict(self) -> bool {
        matches!(
            self,
            Self::GENERAL_PROTOCOL_ERROR
                | Self::FRAME_UNEXPECTED
                | Self::FRAME_ERROR
                | Self::ID_ERROR
                | Self::MESSAGE_ERROR
                | Self::QPACK_DECOMPRESSION_FAILED
        )
    }

    /// To the wire.
    pub const fn value(self) -> u64 {
        self.0
    }

    pub(crate) fn varint(self) -> quinn::VarInt {
        quinn::VarInt::from_u64(self.0).unwrap_or(quinn::VarInt::MAX)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({:#x})", self.name(), self.0)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
