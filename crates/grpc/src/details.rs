//! The details of a status: what `google.rpc.Status` and `google/rpc/error_details.proto` define.

use std::collections::HashMap;
use std::time::Duration;

use portolan_core::{Delivery, Error, Result};
use prost::Message;

use crate::PROTOCOL;
use crate::status::Status;

/// Before the name of a type, in [`Any`].
const PREFIX: &str = "google.rpc.";

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = ($($prost:tt)*),)* })*) => {
        $($(#[$doc])*
        #[derive(Clone, PartialEq, Message)]
        #[non_exhaustive]
        pub struct $name {
            $($(#[$field_doc])* #[prost($($prost)*)] pub $field: $type,)*
        })*
    };
}

messages! {
    /// A message of any type, and the name of its type.
    Any {
        /// The type's URL: the name stands behind the last `/`.
        type_url: String = (string, tag = "1"),
        /// The message.
        value: Vec<u8> = (bytes = "vec", tag = "2"),
    }
    /// What `grpc-status-details-bin` holds.
    RpcStatus {
        /// The code.
        code: i32 = (int32, tag = "1"),
        /// The server's words.
        message: String = (string, tag = "2"),
        /// More.
        details: Vec<Any> = (message, repeated, tag = "3"),
    }
    /// Why it failed, for programs.
    ErrorInfo {
        /// The reason, unique within its domain: `STOCKOUT`.
        reason: String = (string, tag = "1"),
        /// Who defined the reason: `shop.example`.
        domain: String = (string, tag = "2"),
        /// More about it.
        metadata: HashMap<String, String> = (map = "string, string", tag = "3"),
    }
    /// A span of time, as protobuf says it.
    Span {
        /// Whole seconds.
        seconds: i64 = (int64, tag = "1"),
        /// Nanoseconds beyond.
        nanos: i32 = (int32, tag = "2"),
    }
    /// When the call may be made again.
    RetryInfo {
        /// How long to wait at least: see [`delay`](Self::delay).
        retry_delay: Option<Span> = (message, optional, tag = "1"),
    }
    /// What helps the server's developers.
    DebugInfo {
        /// The stack.
        stack_entries: Vec<String> = (string, repeated, tag = "1"),
        /// More.
        detail: String = (string, tag = "2"),
    }
    /// Which quotas were exceeded.
    QuotaFailure {
        /// Each of them.
        violations: Vec<QuotaViolation> = (message, repeated, tag = "1"),
    }
    /// One quota that was exceeded.
    QuotaViolation {
        /// Whose quota.
        subject: String = (string, tag = "1"),
        /// How it was exceeded.
        description: String = (string, tag = "2"),
    }
    /// What has to be so first.
    PreconditionFailure {
        /// Each of them.
        violations: Vec<PreconditionViolation> = (message, repeated, tag = "1"),
    }
    /// One thing that has to be so first.
    PreconditionViolation {
        /// Its kind: `TOS`.
        r#type: String = (string, tag = "1"),
        /// What it is about.
        subject: String = (string, tag = "2"),
        /// How to make it so.
        description: String = (string, tag = "3"),
    }
    /// What is wrong with the request.
    BadRequest {
        /// Each field that is.
        field_violations: Vec<FieldViolation> = (message, repeated, tag = "1"),
    }
    /// One field that is wrong.
    FieldViolation {
        /// The path to the field: `items[1].name`.
        field: String = (string, tag = "1"),
        /// What is wrong with it.
        description: String = (string, tag = "2"),
        /// The same for programs.
        reason: String = (string, tag = "3"),
        /// The same for users.
        localized_message: Option<LocalizedMessage> = (message, optional, tag = "4"),
    }
    /// What to quote to the server's operators.
    RequestInfo {
        /// The request's name in their logs.
        request_id: String = (string, tag = "1"),
        /// More, for them alone.
        serving_data: String = (string, tag = "2"),
    }
    /// Which resource it was about.
    ResourceInfo {
        /// Its kind.
        resource_type: String = (string, tag = "1"),
        /// Its name.
        resource_name: String = (string, tag = "2"),
        /// Whose it is.
        owner: String = (string, tag = "3"),
        /// What happened with it.
        description: String = (string, tag = "4"),
    }
    /// Where to read on.
    Help {
        /// Each place.
        links: Vec<Link> = (message, repeated, tag = "1"),
    }
    /// One place to read on.
    Link {
        /// What is there.
        description: String = (string, tag = "1"),
        /// Where.
        url: String = (string, tag = "2"),
    }
    /// Words for users.
    LocalizedMessage {
        /// The language (BCP 47).
        locale: String = (string, tag = "1"),
        /// The words.
        message: String = (string, tag = "2"),
    }
}

impl RetryInfo {
    /// How long to wait at least; what is negative is nothing.
    pub fn delay(&self) -> Option<Duration> {
        let span = self.retry_delay.as_ref()?;
        let nanos = u32::try_from(span.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
        Some(Duration::new(u64::try_from(span.seconds).ok()?, nanos))
    }
}

macro_rules! details {
    ($($name:ident,)*) => {
        /// One detail of a status.
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub enum Detail {
            $(#[doc = concat!("See [`", stringify!($name), "`].")] $name($name),)*
            /// A type that is not one of the standard's.
            Other(Any),
        }

        impl Detail {
            fn decode(any: Any) -> Result<Self> {
                let name = any.type_url.rsplit('/').next().and_then(|name| name.strip_prefix(PREFIX));
                match name {
                    $(Some(stringify!($name)) => $name::decode(any.value.as_slice()).map(Self::$name).map_err(unreadable),)*
                    _ => Ok(Self::Other(any)),
                }
            }
        }
    };
}

details! {
    ErrorInfo,
    RetryInfo,
    DebugInfo,
    QuotaFailure,
    PreconditionFailure,
    BadRequest,
    RequestInfo,
    ResourceInfo,
    Help,
    LocalizedMessage,
}

impl Status {
    /// What the server says beyond code and message. Details that can't be read are the server's mistake.
    ///
    /// ```
    /// use portolan_grpc::details::Detail;
    ///
    /// # fn example(error: portolan_core::Error) -> portolan_core::Result<()> {
    /// for detail in portolan_grpc::Status::of(&error).details()? {
    ///     if let Detail::RetryInfo(info) = detail {
    ///         println!("again in {:?}", info.delay());
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub fn details(&self) -> Result<Vec<Detail>> {
        let status = RpcStatus::decode(self.details_bytes().clone()).map_err(unreadable)?;
        status.details.into_iter().map(Detail::decode).collect()
    }
}

fn unreadable(error: prost::DecodeError) -> Error {
    Error::protocol(PROTOCOL, "status details that can't be read").with_delivery(Delivery::Answered).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Code;

    fn any(name: &str, message: &impl Message) -> Any {
        Any { type_url: format!("type.googleapis.com/{name}"), value: message.encode_to_vec() }
    }

    #[test]
    fn details_are_decoded_by_their_type_and_others_kept() {
        let retry = RetryInfo { retry_delay: Some(Span { seconds: 1, nanos: 500_000_000 }) };
        let bad =
            BadRequest { field_violations: vec![FieldViolation { field: "a".into(), ..FieldViolation::default() }] };
        let other = any("shop.Detail", &retry);
        let status = RpcStatus {
            code: 3,
            message: String::new(),
            details: vec![any("google.rpc.RetryInfo", &retry), any("google.rpc.BadRequest", &bad), other.clone()],
        };
        let status = Status::new(Code::InvalidArgument, "").with_details_bytes(status.encode_to_vec());
        let details = status.details().unwrap();
        assert_eq!(details, [Detail::RetryInfo(retry.clone()), Detail::BadRequest(bad), Detail::Other(other)]);
        assert_eq!(retry.delay(), Some(Duration::from_millis(1500)));
    }

    #[test]
    fn broken_details_are_an_error_and_none_are_none() {
        let status = Status::new(Code::Unknown, "");
        assert!(status.details().unwrap().is_empty());
        assert!(status.clone().with_details_bytes(&b"\x1a\xff"[..]).details().is_err());
        let broken = Any { type_url: "type.googleapis.com/google.rpc.Help".into(), value: vec![0xff] };
        let holder = RpcStatus { details: vec![broken], ..RpcStatus::default() };
        assert!(status.with_details_bytes(holder.encode_to_vec()).details().is_err());
        assert_eq!(RetryInfo { retry_delay: Some(Span { seconds: -1, nanos: 0 }) }.delay(), None);
    }
}
