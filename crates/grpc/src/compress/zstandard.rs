//! Zstandard.

use std::io::{self, Read};

use bytes::{BufMut, BytesMut};

use super::Coder;

pub(super) const ZSTD: Option<Coder> = Some(Coder { compress, inflate });

/// The largest window taken, 8 MiB: what RFC 8878 3.1.1.1.2 asks a decoder to support, and the memory one message may cost.
const WINDOW_LOG: u32 = 23;
/// Room made at once for a message of unknown length.
const FIRST: usize = 4 << 10;

fn compress(plain: &[u8], dst: &mut BytesMut) -> io::Result<()> {
    zstd::stream::copy_encode(plain, dst.writer(), zstd::DEFAULT_COMPRESSION_LEVEL)
}

fn inflate(data: &[u8], max: usize) -> io::Result<Option<Vec<u8>>> {
    if data.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // Frames may follow one another (RFC 8878 3).
    let mut decoder = zstd::stream::read::Decoder::with_buffer(data)?;
    decoder.window_log_max(WINDOW_LOG)?;
    let mut plain = Vec::with_capacity(data.len().max(FIRST).min(max));
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    decoder.by_ref().take(limit).read_to_end(&mut plain)?;
    Ok((plain.len() <= max).then_some(plain))
}
