//! WebSocket without I/O: frames, masks, messages, compression.

mod close;
mod decode;
pub(crate) mod deflate;
mod encode;
pub(crate) mod extension;
mod frame;
pub(crate) mod mask;
mod message;
mod text;
mod utf8;

pub use close::{CloseCode, CloseFrame};
pub use decode::{Decoder, Limits};
pub(crate) use decode::{Event, Violation};
pub(crate) use encode::{Encoder, IN_PLACE, Payload};
pub use extension::{Deflate, DeflateAgreed};
pub use frame::{MAX_CONTROL, Opcode, Role};
pub use message::{DataKind, Message};
pub use text::Text;
pub(crate) use utf8::Utf8;

/// The protocol's name in errors.
pub(crate) const PROTOCOL: &str = "websocket";
