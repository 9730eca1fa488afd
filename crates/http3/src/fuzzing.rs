//! What a peer sends on one stream, for the fuzz targets of this workspace: behind QUIC nothing else reaches it.

use bytes::Bytes;

use crate::proto::frame::{Frame, Frames, Role};
use crate::proto::settings::PeerSettings;

/// The longest field section that is taken.
const MAX_SECTION: u64 = 4096;

/// What the stream came to, as text: its frames, with data put together, and its end. No part of the public face.
pub fn stream(data: &[u8], control: bool, piece: usize) -> String {
    let mut frames = Frames::new(if control { Role::Control } else { Role::Request }, MAX_SECTION);
    let (mut said, mut body) = (String::new(), 0);
    for piece in data.chunks(piece.max(1)) {
        let mut input = Bytes::copy_from_slice(piece);
        loop {
            match frames.next(&mut input) {
                Ok(None) => break,
                Ok(Some(Frame::Data(data))) => body += data.len(),
                Ok(Some(frame)) => {
                    if let Frame::Settings(payload) = &frame {
                        said += &format!("{:?} ", PeerSettings::read(payload));
                    }
                    said += &format!("{body} {frame:?} ");
                }
                Err(violation) => return format!("{said}{body} {violation:?}"),
            }
        }
    }
    format!("{said}{body} {:?}", frames.end())
}
