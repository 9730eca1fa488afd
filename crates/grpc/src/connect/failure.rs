//! Errors of Connect, which are JSON.

use std::collections::HashMap;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use portolan_core::Result;
use serde::Deserialize;

use super::decode_base64;
use crate::compress::Encoding;
use crate::details::Any;
use crate::frame::COMPRESSED;
use crate::status::Code;
use crate::tail::broken;
use crate::whole::{MAX_FAILURE, set_status};

/// An error as it travels.
#[derive(Debug, Deserialize)]
pub(super) struct Failure {
    code: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    details: Vec<Detail>,
}

#[derive(Debug, Deserialize)]
struct Detail {
    r#type: String,
    value: String,
}

#[derive(Debug, Deserialize)]
struct End {
    error: Option<Failure>,
    #[serde(default)]
    metadata: HashMap<String, Vec<String>>,
}

impl Failure {
    /// An error, if the JSON is one.
    pub(super) fn parse(json: &[u8]) -> Option<Self> {
        serde_json::from_slice::<Self>(json).ok().filter(|failure| failure.code().is_some())
    }

    /// Names of codes are those of gRPC in lower case, but for one.
    fn code(&self) -> Option<Code> {
        if self.code == "canceled" { Some(Code::Cancelled) } else { Code::from_name(&self.code) }
    }

    /// The same error as fields of gRPC.
    pub(super) fn fields(&self, headers: &mut HeaderMap) {
        let details = self.details.iter().filter_map(|detail| {
            let type_url = format!("type.googleapis.com/{}", detail.r#type);
            Some(Any { type_url, value: decode_base64(&detail.value)? })
        });
        set_status(headers, self.code().unwrap_or(Code::Unknown), &self.message, details.collect());
    }
}

/// The last frame of a stream: its error, if there is one, and its trailers.
pub(super) fn end_of_stream(flags: u8, data: Bytes) -> Result<HeaderMap> {
    // Which encoding it is, the frame doesn't say; servers compress it by gzip, if at all.
    let data = if flags & COMPRESSED == 0 { data } else { Encoding::Gzip.inflate(&data, MAX_FAILURE)? };
    let end: End =
        serde_json::from_slice(&data).map_err(|error| broken("an end of stream that is no JSON").with_source(error))?;
    let mut trailers = HeaderMap::new();
    for (name, values) in end.metadata {
        let name = HeaderName::try_from(name).map_err(|_| broken("a trailer without a name"))?;
        for value in values {
            trailers
                .append(&name, HeaderValue::try_from(value).map_err(|_| broken("a trailer of control characters"))?);
        }
    }
    match end.error {
        Some(failure) => failure.fields(&mut trailers),
        None => drop(trailers.insert("grpc-status", HeaderValue::from_static("0"))),
    }
    Ok(trailers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Status;

    #[test]
    fn errors_become_the_status_that_they_mean() {
        let json = br#"{"code": "resource_exhausted", "message": "100% \u263a", "details": [
            {"type": "google.rpc.RetryInfo", "value": "CgIIAQ", "debug": {"retryDelay": "1s"}}], "more": 1}"#;
        let mut headers = HeaderMap::new();
        Failure::parse(json).unwrap().fields(&mut headers);
        let status = Status::from_trailers(&headers).unwrap();
        assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, "100% \u{263a}"));
        let details = status.details().unwrap();
        assert!(
            matches!(&details[..], [crate::details::Detail::RetryInfo(info)] if info.delay().unwrap().as_secs() == 1)
        );
        assert_eq!(Failure::parse(br#"{"code": "canceled"}"#).unwrap().code(), Some(Code::Cancelled));
        for none in [&b"{}"[..], b"x", br#"{"code": "nonsense"}"#, br#"{"code": 5}"#] {
            assert!(Failure::parse(none).is_none());
        }
    }

    #[test]
    fn the_end_of_a_stream_has_trailers_and_perhaps_an_error() {
        let end = |json: &'static str| end_of_stream(2, Bytes::from_static(json.as_bytes()));
        let good = end(r#"{"metadata": {"x-a": ["1", "2"]}}"#).unwrap();
        assert_eq!(good.get("grpc-status").unwrap(), "0");
        assert_eq!(good.get_all("x-a").iter().count(), 2);
        let bad = end(r#"{"error": {"code": "not_found"}}"#).unwrap();
        assert_eq!(bad.get("grpc-status").unwrap(), "5");
        assert!(end("").is_err() && end(r#"{"metadata": {"a b": ["1"]}}"#).is_err());
    }
}
