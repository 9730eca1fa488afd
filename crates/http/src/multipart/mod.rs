//! Forms as `multipart/form-data` (RFC 7578), streamed: nothing is gathered first.
//!
//! - **What works**: text, bytes, any body and any [`AsyncRead`] as a part; file names and headers of a part; the length in all
//!   where every part's is known; a second sending where every part is bytes.
//! - **What is not done**: `filename*` (RFC 7578 forbids it), `_charset_`, parts within parts.
//! - **Security**: names and file names are escaped as browsers do (WHATWG), so none can end its header; the boundary is
//!   128 random bits; a part that is not as long as it was said to be is an error, not a corrupt form.
//!
//! ```
//! use portolan_http::multipart::{Form, Part};
//!
//! let form = Form::new()
//!     .text("title", "A chart")
//!     .part("file", Part::bytes("...").with_file_name("chart.pdf").with_content_type("application/pdf")?);
//! let (content_type, body) = form.encode()?;
//! assert!(content_type.to_str()?.starts_with("multipart/form-data; boundary="));
//! assert!(http_body::Body::size_hint(&body).exact().is_some());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`AsyncRead`]: tokio::io::AsyncRead

mod body;
mod part;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use bytes::Bytes;
use http::HeaderValue;
use portolan_core::{Error, Kind, Phase, Result};

pub use body::FormBody;
use body::Piece;
pub use part::Part;

/// A form: fields in the order they were added.
#[derive(Debug, Default)]
pub struct Form {
    parts: Vec<(String, Part)>,
}

impl Form {
    /// A form without fields.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a field of text, as it is: line ends are not changed.
    #[must_use]
    pub fn text(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.part(name, Part::text(value))
    }

    /// Adds a part under a name.
    #[must_use]
    pub fn part(mut self, name: impl Into<String>, part: Part) -> Self {
        self.parts.push((name.into(), part));
        self
    }

    /// The value of `Content-Type`, and the body. Fails only where the operating system has no random bytes.
    pub fn encode(self) -> Result<(HeaderValue, FormBody)> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| {
            Error::new(Kind::Unsupported, "no random bytes for a boundary").with_phase(Phase::Setup).with_source(error)
        })?;
        self.encode_with(&format!("{:032x}", u128::from_be_bytes(random)))
    }

    fn encode_with(self, boundary: &str) -> Result<(HeaderValue, FormBody)> {
        let content_type = HeaderValue::from_str(&format!("multipart/form-data; boundary={boundary}"))
            .map_err(|error| Error::usage("boundary is no header value").with_source(error))?;
        let mut pieces = VecDeque::with_capacity(self.parts.len() * 2 + 1);
        let mut before = "";
        for (name, part) in self.parts {
            pieces.push_back(Piece::bytes(part.head(before, boundary, &name)));
            pieces.push_back(part.content);
            before = "\r\n";
        }
        pieces.push_back(Piece::bytes(Bytes::from(format!("{before}--{boundary}--\r\n"))));
        Ok((content_type, FormBody::new(pieces)))
    }
}
