//! The messages of `grpc/binlog/v1/binarylog.proto`.

use prost::Message as _;
use prost::{Enumeration, Oneof};

use crate::details::Span;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
#[non_exhaustive]
pub enum Event {
    /// Nothing that is known.
    Unknown = 0,
    /// The client began the call.
    ClientHeader = 1,
    /// The server began to answer.
    ServerHeader = 2,
    /// A message to the server.
    ClientMessage = 3,
    /// A message to the client.
    ServerMessage = 4,
    /// The client has nothing more to say.
    ClientHalfClose = 5,
    /// The call is over.
    ServerTrailer = 6,
    /// The client let the call go.
    Cancel = 7,
}

/// Who wrote it down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
#[non_exhaustive]
pub enum Logger {
    /// Nobody that is known.
    Unknown = 0,
    /// The client.
    Client = 1,
    /// The server.
    Server = 2,
}

/// What an entry tells.
#[derive(Clone, PartialEq, Oneof)]
#[non_exhaustive]
pub enum Payload {
    /// How the call began.
    #[prost(message, tag = "6")]
    ClientHeader(ClientHeader),
    /// How the answer began.
    #[prost(message, tag = "7")]
    ServerHeader(ServerHeader),
    /// A message, either way.
    #[prost(message, tag = "8")]
    Message(Message),
    /// How the call ended.
    #[prost(message, tag = "9")]
    Trailer(Trailer),
}

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = ($($prost:tt)*),)* })*) => {
        $($(#[$doc])*
        #[derive(Clone, PartialEq, prost::Message)]
        #[non_exhaustive]
        pub struct $name {
            $($(#[$field_doc])* #[prost($($prost)*)] pub $field: $type,)*
        })*
    };
}

messages! {
    /// One event of one call: `GrpcLogEntry`.
    Entry {
        /// When.
        timestamp: Option<Span> = (message, optional, tag = "1"),
        /// Which call, among those of one log.
        call_id: u64 = (uint64, tag = "2"),
        /// Which of the call's events: the first is 1.
        sequence_id_within_call: u64 = (uint64, tag = "3"),
        /// What happened.
        r#type: i32 = (enumeration = "Event", tag = "4"),
        /// Who wrote it down.
        logger: i32 = (enumeration = "Logger", tag = "5"),
        /// Whether something was left out of the payload for its length.
        payload_truncated: bool = (bool, tag = "10"),
        /// Who was at the other end. Our recorder doesn't say.
        peer: Option<Address> = (message, optional, tag = "11"),
        /// The rest.
        payload: Option<Payload> = (oneof = "Payload", tags = "6, 7, 8, 9"),
    }
    /// How a call began.
    ClientHeader {
        /// The metadata.
        metadata: Option<Pairs> = (message, optional, tag = "1"),
        /// `/package.Service/Method`.
        method_name: String = (string, tag = "2"),
        /// Whom it was for.
        authority: String = (string, tag = "3"),
        /// How long it could take.
        timeout: Option<Span> = (message, optional, tag = "4"),
    }
    /// How an answer began.
    ServerHeader {
        /// The initial metadata.
        metadata: Option<Pairs> = (message, optional, tag = "1"),
    }
    /// A message.
    Message {
        /// How long it was.
        length: u32 = (uint32, tag = "1"),
        /// As much of it as is kept, not compressed.
        data: Vec<u8> = (bytes = "vec", tag = "2"),
    }
    /// How a call ended.
    Trailer {
        /// The trailing metadata.
        metadata: Option<Pairs> = (message, optional, tag = "1"),
        /// The number of the code.
        status_code: u32 = (uint32, tag = "2"),
        /// The words.
        status_message: String = (string, tag = "3"),
        /// What `grpc-status-details-bin` held.
        status_details: Vec<u8> = (bytes = "vec", tag = "4"),
    }
    /// Names and values.
    Pairs {
        /// Each of them.
        entry: Vec<Pair> = (message, repeated, tag = "1"),
    }
    /// A name and a value.
    Pair {
        /// The name.
        key: String = (string, tag = "1"),
        /// The value; behind names that end in `-bin` the bytes themselves.
        value: Vec<u8> = (bytes = "vec", tag = "2"),
    }
    /// Where somebody is.
    Address {
        /// 1 is IPv4, 2 IPv6, 3 a Unix socket.
        r#type: i32 = (int32, tag = "1"),
        /// The address.
        address: String = (string, tag = "2"),
        /// The port.
        ip_port: u32 = (uint32, tag = "3"),
    }
}

impl Entry {
    /// The entry as files have it: its length in four bytes, big-endian, and the message.
    pub(super) fn framed(&self) -> Vec<u8> {
        let length = self.encoded_len();
        let mut out = Vec::with_capacity(length.saturating_add(4));
        // An entry holds one message of a call, which is no longer than this either.
        out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(&self.encode_to_vec());
        out
    }
}
