//! A request's head: checked before anything is sent, then written.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use bytes::{Buf, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Uri};
use portolan_core::{Error, Result};
use portolan_hpack::{ENTRY_OVERHEAD, Encoder, Pseudo};

use super::failure::PROTOCOL;
use super::frame;
use crate::ext::Protocol;

/// What goes into a HEADERS frame, all of it checked.
#[derive(Debug)]
pub(crate) struct RequestHead<'a> {
    method: &'a Method,
    scheme: Option<&'a str>,
    authority: &'a str,
    path: Option<&'a str>,
    pub(crate) protocol: Option<&'a str>,
    headers: &'a HeaderMap,
    content_length: Option<HeaderValue>,
}

fn usage(message: impl Into<Box<str>>) -> Error {
    Error::usage(message).with_protocol(PROTOCOL)
}

impl<'a> RequestHead<'a> {
    /// Checks a request. `body_len` is what its body says of its length, to be told when the caller didn't.
    pub(crate) fn new(parts: &'a Parts, body_len: Option<u64>) -> Result<Self> {
        check_headers(&parts.headers)?;
        let protocol = parts.extensions.get::<Protocol>().map(Protocol::as_str);
        if protocol.is_some() && parts.method != Method::CONNECT {
            return Err(usage("the Protocol extension is for CONNECT alone"));
        }
        let authority = authority(&parts.uri, &parts.headers)?;
        let connect = parts.method == Method::CONNECT && protocol.is_none();
        // RFC 9113 8.5: a plain CONNECT has neither scheme nor path.
        let (scheme, path) = if connect {
            (None, None)
        } else {
            let scheme = parts.uri.scheme_str().ok_or_else(|| usage("the URI has no scheme"))?;
            (Some(scheme), Some(path(&parts.method, &parts.uri)))
        };
        let length = match body_len {
            Some(0) if !matches!(parts.method, Method::POST | Method::PUT | Method::PATCH) => None,
            _ if connect || protocol.is_some() || parts.headers.contains_key(header::CONTENT_LENGTH) => None,
            length => length.map(HeaderValue::from),
        };
        Ok(Self {
            method: &parts.method,
            scheme,
            authority,
            path,
            protocol,
            headers: &parts.headers,
            content_length: length,
        })
    }

    pub(crate) fn is_head(&self) -> bool {
        *self.method == Method::HEAD
    }

    /// The size of the header list as the peer counts it (RFC 9113 6.5.2).
    pub(crate) fn list_size(&self) -> usize {
        let pseudo = [
            Some((Pseudo::Method, self.method.as_str())),
            self.scheme.map(|text| (Pseudo::Scheme, text)),
            Some((Pseudo::Authority, self.authority)),
            self.path.map(|text| (Pseudo::Path, text)),
            self.protocol.map(|text| (Pseudo::Protocol, text)),
        ];
        let pseudo = pseudo.iter().flatten().map(|(name, value)| field_size(name.as_str(), value.len()));
        let length = self.content_length.iter().map(|value| field_size(header::CONTENT_LENGTH.as_str(), value.len()));
        pseudo.chain(length).fold(list_size(self.headers), usize::saturating_add)
    }

    /// Encodes the block.
    pub(crate) fn encode(&self, encoder: &mut Encoder, out: &mut BytesMut) {
        encoder.start_block(out);
        encoder.pseudo(Pseudo::Method, self.method.as_str().as_bytes(), out);
        if let Some(protocol) = self.protocol {
            encoder.pseudo(Pseudo::Protocol, protocol.as_bytes(), out);
        }
        if let Some(scheme) = self.scheme {
            encoder.pseudo(Pseudo::Scheme, scheme.as_bytes(), out);
        }
        encoder.pseudo(Pseudo::Authority, self.authority.as_bytes(), out);
        if let Some(path) = self.path {
            encoder.pseudo(Pseudo::Path, path.as_bytes(), out);
        }
        for (name, value) in self.headers {
            // Said by :authority already, and the two must not differ (RFC 9113 8.3.1).
            if name != header::HOST {
                encoder.field(name, value, out);
            }
        }
        if let Some(length) = &self.content_length {
            encoder.field(&header::CONTENT_LENGTH, length, out);
        }
    }
}

fn field_size(name: &str, value: usize) -> usize {
    name.len().saturating_add(value).saturating_add(ENTRY_OVERHEAD)
}

/// The size of a header list without pseudo-headers.
pub(crate) fn list_size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| field_size(name.as_str(), value.len())).fold(0, usize::saturating_add)
}

/// Checks what HTTP/2 forbids in requests and trailers (RFC 9113 8.2.2): fields of the connection.
pub(crate) fn check_headers(headers: &HeaderMap) -> Result<()> {
    for (name, value) in headers {
        if is_connection_field(name) {
            return Err(usage(format!("{name} has no place in HTTP/2")));
        }
        if name == header::TE && !value.as_bytes().eq_ignore_ascii_case(b"trailers") {
            return Err(usage("te may only say trailers in HTTP/2"));
        }
    }
    Ok(())
}

/// The fields that speak of one HTTP/1.1 connection.
#[inline]
pub(crate) fn is_connection_field(name: &HeaderName) -> bool {
    *name == header::CONNECTION
        || *name == header::TRANSFER_ENCODING
        || *name == header::UPGRADE
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

fn authority<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Result<&'a str> {
    let said = match uri.authority() {
        Some(authority) => authority.as_str(),
        None => match headers.get(header::HOST) {
            Some(host) => host.to_str().map_err(|_| usage("the host header is no text"))?,
            None => return Err(usage("the URI has no authority and there is no host header")),
        },
    };
    // RFC 9113 8.3.1: user information has no place in :authority.
    let at = said.bytes().rposition(|byte| byte == b'@');
    Ok(at.and_then(|at| said.get(at.saturating_add(1)..)).unwrap_or(said))
}

fn path<'a>(method: &Method, uri: &'a Uri) -> &'a str {
    match uri.path_and_query() {
        // RFC 9113 8.3.1: OPTIONS without a path asks about the server as a whole.
        Some(path) if *method == Method::OPTIONS && path.as_str() == "/" => "*",
        Some(path) => path.as_str(),
        None => "/",
    }
}

/// Makes frames of the block that begins at `start`: HEADERS, then CONTINUATION where it is longer than the peer's frames.
pub(crate) fn frame_block(start: usize, id: u32, end_stream: bool, max_frame: usize, out: &mut BytesMut) {
    let stream_flag = if end_stream { frame::END_STREAM } else { 0 };
    let len = out.len().saturating_sub(start).saturating_sub(frame::HEAD);
    if len <= max_frame {
        let head = frame::head_bytes(len, frame::HEADERS, stream_flag | frame::END_HEADERS, id);
        if let Some(room) = out.get_mut(start..start.saturating_add(frame::HEAD)) {
            room.copy_from_slice(&head);
        }
        return;
    }
    let mut block = out.split_off(start);
    block.advance(frame::HEAD);
    let mut kind = frame::HEADERS;
    let mut flags = stream_flag;
    while !block.is_empty() {
        let part = block.split_to(block.len().min(max_frame));
        if block.is_empty() {
            flags |= frame::END_HEADERS;
        }
        frame::put_head(part.len(), kind, flags, id, out);
        out.extend_from_slice(&part);
        kind = frame::CONTINUATION;
        flags = 0;
    }
}
