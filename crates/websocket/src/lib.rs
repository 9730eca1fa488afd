//! WebSocket for clients, with permessage-deflate, over HTTP/1.1, HTTP/2 and HTTP/3.
mod byte_stream;
pub mod codec;
mod connect;
mod duplex;
mod extended;
pub mod handshake;
mod options;
mod outbound;
mod pieces;
mod socket;
mod split;
pub use byte_stream::ByteStream;
pub use codec::{CloseCode, CloseFrame, DataKind, Deflate, Message, Role, Text};
pub use duplex::{Duplex, PipeBody};
pub use handshake::{Rejected, Request};
pub use options::Options;
pub use pieces::{MessageReader, MessageWriter};
pub use socket::WebSocket;
pub use split::{Reader, Writer};
#[cfg(test)]
portolan_wire::laws::install!();
