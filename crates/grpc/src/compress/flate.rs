//! gzip and deflate.

use std::io::{self, Read, Write};

use bytes::{BufMut, BytesMut};
use flate2::Compression;

use super::Coder;

pub(super) const GZIP: Option<Coder> = Some(Coder { compress: gzip, inflate: gunzip });
pub(super) const DEFLATE: Option<Coder> = Some(Coder { compress: zlib, inflate: unzlib });

/// Room made at once for a message of unknown length.
const FIRST: usize = 4 << 10;

fn gzip(plain: &[u8], dst: &mut BytesMut) -> io::Result<()> {
    let mut encoder = flate2::write::GzEncoder::new(dst.writer(), Compression::default());
    encoder.write_all(plain)?;
    encoder.finish().map(drop)
}

fn zlib(plain: &[u8], dst: &mut BytesMut) -> io::Result<()> {
    let mut encoder = flate2::write::ZlibEncoder::new(dst.writer(), Compression::default());
    encoder.write_all(plain)?;
    encoder.finish().map(drop)
}

fn gunzip(data: &[u8], max: usize) -> io::Result<Option<Vec<u8>>> {
    // Members may follow one another (RFC 1952 2.2).
    read_all(&mut flate2::bufread::MultiGzDecoder::new(data), data.len(), max)
}

fn unzlib(data: &[u8], max: usize) -> io::Result<Option<Vec<u8>>> {
    let mut decoder = flate2::bufread::ZlibDecoder::new(data);
    let plain = read_all(&mut decoder, data.len(), max)?;
    match decoder.into_inner() {
        [] => Ok(plain),
        _ if plain.is_none() => Ok(plain),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "bytes after the end")),
    }
}

fn read_all(decoder: &mut impl Read, hint: usize, max: usize) -> io::Result<Option<Vec<u8>>> {
    let mut plain = Vec::with_capacity(hint.max(FIRST).min(max));
    // One byte more than allowed tells a message that is too long from one that just fits.
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    decoder.take(limit).read_to_end(&mut plain)?;
    Ok((plain.len() <= max).then_some(plain))
}
