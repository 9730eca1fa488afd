//! Compressed messages: which encodings this build has, and how they are agreed on.

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use portolan_core::{Error, Kind, Result};

use crate::PROTOCOL;

#[cfg(not(feature = "gzip"))]
#[path = "absent_flate.rs"]
mod flate;
#[cfg(feature = "gzip")]
mod flate;
#[cfg(not(feature = "zstd"))]
#[path = "absent_zstd.rs"]
mod zstandard;
#[cfg(feature = "zstd")]
mod zstandard;

/// How the bytes of a message are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Encoding {
    /// Not at all.
    #[default]
    Identity,
    /// gzip (RFC 1952).
    Gzip,
    /// The zlib format (RFC 1950): what gRPC, as HTTP does, calls deflate.
    Deflate,
    /// Zstandard (RFC 8878).
    Zstd,
}

/// What inflating gives; `None` is more than was allowed.
pub(crate) type Inflated = std::io::Result<Option<Vec<u8>>>;

/// One way of compressing.
#[derive(Clone, Copy)]
pub(crate) struct Coder {
    /// Appends the compressed form.
    pub(crate) compress: fn(&[u8], &mut BytesMut) -> std::io::Result<()>,
    /// Gives the plain form, of at most so many bytes.
    pub(crate) inflate: fn(&[u8], usize) -> Inflated,
}

impl Encoding {
    const ALL: [Self; 4] = [Self::Identity, Self::Gzip, Self::Deflate, Self::Zstd];

    /// Its name in `grpc-encoding`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
        }
    }

    /// From its name in `grpc-encoding`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|encoding| encoding.name() == name)
    }

    /// Whether this build has it.
    pub fn is_supported(self) -> bool {
        self == Self::Identity || self.coder().is_some()
    }

    /// What is said in `grpc-accept-encoding`.
    pub(crate) fn accepted() -> HeaderValue {
        match (flate::GZIP.is_some(), zstandard::ZSTD.is_some()) {
            (true, true) => HeaderValue::from_static("identity,gzip,deflate,zstd"),
            (true, false) => HeaderValue::from_static("identity,gzip,deflate"),
            (false, true) => HeaderValue::from_static("identity,zstd"),
            (false, false) => HeaderValue::from_static("identity"),
        }
    }

    fn coder(self) -> Option<Coder> {
        match self {
            Self::Identity => None,
            Self::Gzip => flate::GZIP,
            Self::Deflate => flate::DEFLATE,
            Self::Zstd => zstandard::ZSTD,
        }
    }

    /// Appends the compressed form of `plain`.
    pub(crate) fn compress(self, plain: &[u8], dst: &mut BytesMut) -> Result<()> {
        let coder = self.coder().ok_or_else(|| {
            Error::new(Kind::Unsupported, format!("this build has no {}", self.name())).with_protocol(PROTOCOL)
        })?;
        (coder.compress)(plain, dst)
            .map_err(|error| Error::usage("the message can't be compressed").with_protocol(PROTOCOL).with_source(error))
    }

    /// The plain form, of at most `max` bytes: a small message must not buy a large one.
    pub(crate) fn inflate(self, data: &[u8], max: usize) -> Result<Bytes> {
        let Some(coder) = self.coder() else {
            return Err(Error::protocol(PROTOCOL, "a compressed message, and no grpc-encoding that we offered"));
        };
        let plain = (coder.inflate)(data, max)
            .map_err(|error| Error::protocol(PROTOCOL, "a message that can't be inflated").with_source(error))?;
        plain.map(Bytes::from).ok_or_else(|| {
            Error::new(Kind::Limit, "an inflated message longer than max_receive_bytes").with_protocol(PROTOCOL)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_encoding_of_this_build_round_trips_within_its_limit() {
        let plain: Vec<u8> = b"portolan ".iter().copied().cycle().take(100_000).collect();
        for encoding in Encoding::ALL.into_iter().skip(1).filter(|encoding| encoding.is_supported()) {
            let mut small = BytesMut::new();
            encoding.compress(&plain, &mut small).unwrap();
            assert!(small.len() < 5000, "{encoding:?}");
            assert_eq!(encoding.inflate(&small, plain.len()).unwrap(), plain, "{encoding:?}");
            let bomb = encoding.inflate(&small, plain.len() - 1).unwrap_err();
            assert_eq!(bomb.kind(), Kind::Limit, "{encoding:?}");
            for cut in [0, 1, small.len() / 2, small.len() - 1] {
                let error = encoding.inflate(&small[..cut], 1 << 20).unwrap_err();
                assert_eq!(error.kind(), Kind::Protocol, "{encoding:?} {cut}");
            }
            let longer = [&small[..], b"x"].concat();
            assert!(encoding.inflate(&longer, 1 << 20).is_err(), "{encoding:?}");
        }
    }

    #[test]
    fn names_are_those_of_the_specification() {
        for encoding in Encoding::ALL {
            assert_eq!(Encoding::from_name(encoding.name()), Some(encoding));
        }
        assert_eq!(Encoding::from_name("br"), None);
        assert!(Encoding::Identity.inflate(b"x", 10).is_err());
    }
}
