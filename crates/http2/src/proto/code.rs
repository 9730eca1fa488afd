//! Error codes (RFC 9113 7).

use std::fmt;

/// An HTTP/2 error code, known or not.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(u32);

macro_rules! codes {
    ($($name:ident $value:literal $doc:literal,)*) => {
        impl Code {
            $(#[doc = $doc] pub const $name: Self = Self($value);)*

            /// The name in the specification.
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
    NO_ERROR 0x0 "A graceful end.",
    PROTOCOL_ERROR 0x1 "A rule was broken.",
    INTERNAL_ERROR 0x2 "The sender failed.",
    FLOW_CONTROL_ERROR 0x3 "More was sent than the window allowed.",
    SETTINGS_TIMEOUT 0x4 "Settings were not acknowledged in time.",
    STREAM_CLOSED 0x5 "A frame for a stream that had ended.",
    FRAME_SIZE_ERROR 0x6 "A frame of the wrong size.",
    REFUSED_STREAM 0x7 "Not processed at all: safe to send again.",
    CANCEL 0x8 "No longer wanted.",
    COMPRESSION_ERROR 0x9 "The header tables are out of step.",
    CONNECT_ERROR 0xa "The connection behind CONNECT failed.",
    ENHANCE_YOUR_CALM 0xb "Too much load.",
    INADEQUATE_SECURITY 0xc "The transport is not safe enough.",
    HTTP_1_1_REQUIRED 0xd "The server wants HTTP/1.1 for this.",
}

impl Code {
    /// From the wire.
    pub const fn new(code: u32) -> Self {
        Self(code)
    }

    /// Whether the peer says that the request itself breaks the rules: it would do so again.
    pub(crate) fn is_verdict(self) -> bool {
        matches!(
            self,
            Self::PROTOCOL_ERROR
                | Self::FLOW_CONTROL_ERROR
                | Self::STREAM_CLOSED
                | Self::FRAME_SIZE_ERROR
                | Self::COMPRESSION_ERROR
        )
    }

    /// To the wire.
    pub const fn value(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name(), self.0)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
