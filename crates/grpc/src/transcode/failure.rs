//! Errors of gateways: a `google.rpc.Status` in JSON, in one of its dresses, or the HTTP status alone.

use std::sync::LazyLock;

use http::StatusCode;
use http::header::HeaderMap;
use prost_reflect::prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Map, Value};

use crate::details::Any;
use crate::status::Code;
use crate::whole::set_status;

/// The standard details, for schemas that do not have them.
static DETAILS: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(&include_bytes!("error_details.bin")[..]).ok());

/// An error as JSON says it.
#[derive(Debug, PartialEq)]
pub(super) struct Failure {
    code: Code,
    message: String,
    details: Vec<Any>,
}

impl Failure {
    /// An error, if the JSON is one: by itself, or under `error`, as Google's own services and streams have it.
    pub(super) fn parse(json: &Value, pool: &DescriptorPool) -> Option<Self> {
        let object = json.as_object()?;
        let object = object.get("error").and_then(Value::as_object).unwrap_or(object);
        let name = object.get("status").and_then(Value::as_str).and_then(Code::from_name);
        let code = name.or_else(|| {
            let number = object.get("grpc_code").or_else(|| object.get("code"))?.as_i64()?;
            // Beyond these it is the HTTP status.
            if (0..=16).contains(&number) {
                Some(Code::from_number(number))
            } else {
                u16::try_from(number).ok().and_then(from_http)
            }
        })?;
        let message = object.get("message").and_then(Value::as_str).unwrap_or_default().to_owned();
        let details = object.get("details").and_then(Value::as_array).into_iter().flatten();
        Some(Self { code, message, details: details.filter_map(|detail| any(detail, pool)).collect() })
    }

    /// What the HTTP status says by itself.
    pub(super) fn of_http(status: StatusCode) -> Self {
        let code = from_http(status.as_u16()).unwrap_or(Code::Unknown);
        Self { code, message: format!("HTTP status {status}"), details: Vec::new() }
    }

    /// An error of which nothing else is known.
    pub(super) fn unreadable() -> Self {
        Self { code: Code::Unknown, message: "an error that can't be read".to_owned(), details: Vec::new() }
    }

    pub(super) fn fields(self, headers: &mut HeaderMap) {
        set_status(headers, self.code, &self.message, self.details);
    }
}

/// The way back from what `google/rpc/code.proto` makes of codes.
fn from_http(status: u16) -> Option<Code> {
    Some(match status {
        400 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        408 | 504 => Code::DeadlineExceeded,
        409 => Code::Aborted,
        412 => Code::FailedPrecondition,
        413 | 429 => Code::ResourceExhausted,
        416 => Code::OutOfRange,
        499 => Code::Cancelled,
        405 | 501 => Code::Unimplemented,
        500 => Code::Internal,
        502 | 503 => Code::Unavailable,
        _ => return None,
    })
}

/// A detail as protobuf has it. One of a type that nobody here knows can't be had.
fn any(detail: &Value, pool: &DescriptorPool) -> Option<Any> {
    let mut fields: Map<String, Value> = detail.as_object()?.clone();
    let Value::String(type_url) = fields.remove("@type")? else { return None };
    let name = type_url.rsplit('/').next()?;
    let known = pool.get_message_by_name(name);
    let message = known.or_else(|| DETAILS.as_ref().and_then(|pool| pool.get_message_by_name(name)))?;
    // Types with a form of their own have it under this name.
    let own = message.package_name() == "google.protobuf";
    let json = if own { fields.remove("value")? } else { Value::Object(fields) };
    let options = prost_reflect::DeserializeOptions::new().deny_unknown_fields(false);
    let message = DynamicMessage::deserialize_with_options(message, json, &options).ok()?;
    Some(Any { type_url, value: message.encode_to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::details::Detail;
    use crate::status::Status;

    fn status(json: &str) -> Option<Status> {
        let json = serde_json::from_str(json).unwrap();
        let mut headers = HeaderMap::new();
        Failure::parse(&json, &DescriptorPool::new())?.fields(&mut headers);
        Status::from_trailers(&headers)
    }

    #[test]
    fn errors_are_read_in_all_their_dresses() {
        for json in [
            r#"{"code": 5, "message": "gone", "details": []}"#,
            r#"{"error": "gone", "code": 5, "message": "gone"}"#,
            r#"{"error": {"grpc_code": 5, "http_code": 404, "message": "gone", "http_status": "Not Found"}}"#,
            r#"{"error": {"code": 404, "message": "gone", "status": "NOT_FOUND"}}"#,
            r#"{"error": {"code": 404, "message": "gone"}}"#,
        ] {
            let status = status(json).unwrap();
            assert_eq!((status.code(), status.message()), (Code::NotFound, "gone"), "{json}");
        }
        for json in ["{}", "1", r#"{"code": "x"}"#, r#"{"error": "x"}"#, r#"{"code": 777}"#] {
            assert!(status(json).is_none(), "{json}");
        }
        // No success is an error.
        assert_eq!(status(r#"{"code": 0}"#).unwrap().code(), Code::Unknown);
    }

    #[test]
    fn details_of_known_types_are_kept() {
        let status = status(
            r#"{"code": 8, "message": "", "details": [
                {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.500s", "new": 1},
                {"@type": "type.googleapis.com/shop.Unknown", "a": 1}, {"@type": 5}, 7,
                {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [{"field": "a"}]}]}"#,
        );
        let details = status.unwrap().details().unwrap();
        let [Detail::RetryInfo(retry), Detail::BadRequest(bad)] = &details[..] else { panic!("{details:?}") };
        assert_eq!((retry.delay().unwrap().as_millis(), &*bad.field_violations[0].field), (1500, "a"));
    }

    #[test]
    fn the_http_status_says_enough() {
        let code = |status| Failure::of_http(StatusCode::from_u16(status).unwrap()).code;
        assert_eq!([404, 503, 418].map(code), [Code::NotFound, Code::Unavailable, Code::Unknown]);
    }
}
