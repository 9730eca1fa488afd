//! One part: its head and its content.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Body;
use portolan_core::{BoxError, Error, Result};
use tokio::io::AsyncRead;

use super::body::Piece;

/// One part of a form.
#[derive(Debug)]
pub struct Part {
    file_name: Option<String>,
    headers: HeaderMap,
    pub(super) content: Piece,
}

impl Part {
    /// Text, without a content type: forms are UTF-8 unless said otherwise.
    pub fn text(text: impl Into<String>) -> Self {
        Self::bytes(text.into())
    }

    /// Bytes in memory. A form of these alone can be sent again.
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self::new(Piece::bytes(bytes.into()))
    }

    /// Whatever `body` gives; its size hint says the length where it is exact. Trailers are dropped.
    pub fn body<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self::new(Piece::body(body))
    }

    /// Whatever `reader` gives, to its end: a file, a pipe, a child's output. The length is not known.
    pub fn reader(reader: impl AsyncRead + Send + 'static) -> Self {
        Self::new(Piece::reader(reader, None))
    }

    /// What `reader` gives, which must be `length` bytes: fewer or more is an error while it is sent.
    pub fn reader_with_length(reader: impl AsyncRead + Send + 'static, length: u64) -> Self {
        Self::new(Piece::reader(reader, Some(length)))
    }

    fn new(content: Piece) -> Self {
        Self { file_name: None, headers: HeaderMap::new(), content }
    }

    /// The name of the file, as the server shall see it: the name alone, not your path.
    #[must_use]
    pub fn with_file_name(mut self, name: impl Into<String>) -> Self {
        self.file_name = Some(name.into());
        self
    }

    /// The content type. A part with a file name and without one is `application/octet-stream`.
    pub fn with_content_type(self, content_type: &str) -> Result<Self> {
        let value = HeaderValue::from_str(content_type)
            .map_err(|error| Error::usage("content type is no header value").with_source(error))?;
        self.with_header(CONTENT_TYPE, value)
    }

    /// A header of the part. `Content-Disposition` is ours and refused.
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Result<Self> {
        if name == CONTENT_DISPOSITION {
            return Err(Error::usage("the content disposition of a part is made of its names"));
        }
        self.headers.insert(name, value);
        Ok(self)
    }

    /// How many bytes it is, where that is known.
    pub fn length(&self) -> Option<u64> {
        self.content.length()
    }

    /// The boundary before it and its headers.
    pub(super) fn head(&self, before: &str, boundary: &str, name: &str) -> Bytes {
        let mut head = BytesMut::with_capacity(128 + name.len());
        for text in [before, "--", boundary, "\r\nContent-Disposition: form-data; name=\""] {
            head.put_slice(text.as_bytes());
        }
        put_escaped(&mut head, name);
        if let Some(file_name) = &self.file_name {
            head.put_slice(b"\"; filename=\"");
            put_escaped(&mut head, file_name);
            if !self.headers.contains_key(CONTENT_TYPE) {
                head.put_slice(b"\"\r\nContent-Type: application/octet-stream\r\n");
            } else {
                head.put_slice(b"\"\r\n");
            }
        } else {
            head.put_slice(b"\"\r\n");
        }
        for (name, value) in &self.headers {
            let name = if name == CONTENT_TYPE { "Content-Type" } else { name.as_str() };
            head.put_slice(name.as_bytes());
            head.put_slice(b": ");
            head.put_slice(value.as_bytes());
            head.put_slice(b"\r\n");
        }
        head.put_slice(b"\r\n");
        head.freeze()
    }
}

/// As the HTML standard's "multipart/form-data encoding algorithm" escapes names; NUL too, which no server wants raw.
fn put_escaped(out: &mut BytesMut, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'"' => out.put_slice(b"%22"),
            b'\r' => out.put_slice(b"%0D"),
            b'\n' => out.put_slice(b"%0A"),
            0 => out.put_slice(b"%00"),
            other => out.put_u8(other),
        }
    }
}
