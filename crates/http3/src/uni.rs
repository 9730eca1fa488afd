//! The peer's unidirectional streams: control, QPACK's two, and what we don't know.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use quinn::{ReadError, RecvStream};

use crate::datagrams;
use crate::event::{Event, GoAway};
use crate::proto::code::Code;
use crate::proto::frame::{self, Frame, Frames, Role};
use crate::proto::settings::PeerSettings;
use crate::proto::{Violation, varint};
use crate::shared::{Critical, Shared};

/// Stream types (RFC 9114 6.2, RFC 9204 4.2).
pub(crate) const CONTROL: u64 = 0x0;
const PUSH: u64 = 0x1;
pub(crate) const QPACK_ENCODER: u64 = 0x2;
pub(crate) const QPACK_DECODER: u64 = 0x3;

/// Which of the streams that may come once have come.
#[derive(Debug, Default)]
pub(crate) struct Seen([bool; 3]);

/// Reads one stream of the peer's to its end; what breaks the rules ends the connection.
pub(crate) async fn run(shared: Arc<Shared>, recv: RecvStream, seen: Arc<std::sync::Mutex<Seen>>) {
    if let Err(violation) = read(&shared, recv, &seen).await {
        shared.violated(violation);
    }
}

async fn read(shared: &Shared, mut recv: RecvStream, seen: &std::sync::Mutex<Seen>) -> Result<(), Violation> {
    let mut input = BytesMut::new();
    let kind = loop {
        if let Some((kind, len)) = varint::read(&input) {
            let _ = input.split_to(len);
            break kind;
        }
        match recv.read_chunk(usize::MAX, true).await {
            Ok(Some(chunk)) => input.extend_from_slice(&chunk.bytes),
            // RFC 9114 6.2: a stream may end before it has said what it is.
            Ok(None) | Err(_) => return Ok(()),
        }
    };
    match kind {
        CONTROL | QPACK_ENCODER | QPACK_DECODER => {
            let mut seen = seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let place = &mut seen.0[if kind == CONTROL { 0 } else { usize::from(kind == QPACK_DECODER) + 1 }];
            if std::mem::replace(place, true) {
                return Err(Violation::new(Code::STREAM_CREATION_ERROR, "a critical stream twice"));
            }
        }
        PUSH => return Err(Violation::new(Code::ID_ERROR, "a push stream, and no push was granted")),
        _ => {
            let _ = recv.stop(Code::STREAM_CREATION_ERROR.varint());
            return shared.spend(0, 0).map_err(|()| Violation::new(Code::EXCESSIVE_LOAD, "streams without use"));
        }
    }
    match kind {
        CONTROL => control(shared, recv, input.freeze()).await,
        _ => instructions(shared, recv, input, kind == QPACK_ENCODER).await,
    }
}

/// The next piece of a critical stream; `None` when the connection is over. Its own end is a violation (RFC 9114 6.2.1).
async fn more(recv: &mut RecvStream) -> Result<Option<Bytes>, Violation> {
    match recv.read_chunk(usize::MAX, true).await {
        Ok(Some(chunk)) => Ok(Some(chunk.bytes)),
        Ok(None) | Err(ReadError::Reset(_)) => {
            Err(Violation::new(Code::CLOSED_CRITICAL_STREAM, "the peer closed a critical stream"))
        }
        Err(_) => Ok(None),
    }
}

async fn control(shared: &Shared, mut recv: RecvStream, mut input: Bytes) -> Result<(), Violation> {
    let mut frames = Frames::new(Role::Control, 0);
    loop {
        while let Some(frame) = frames.next(&mut input)? {
            match frame {
                Frame::Settings(payload) => on_settings(shared, &payload)?,
                Frame::GoAway(id) => on_goaway(shared, id)?,
                Frame::Origin(payload) => on_origin(shared, payload)?,
                Frame::Idle(len) => shared
                    .spend(len, 0)
                    .map_err(|()| Violation::new(Code::EXCESSIVE_LOAD, "frames without use on the control stream"))?,
                // The role allows no other.
                Frame::Data(_) | Frame::Headers(_) => {}
            }
        }
        match more(&mut recv).await? {
            Some(bytes) => input = bytes,
            None => return Ok(()),
        }
    }
}

fn on_settings(shared: &Shared, payload: &[u8]) -> Result<(), Violation> {
    let settings = PeerSettings::read(payload)?;
    shared.with(|state| {
        state.peer = settings;
        state.settings_seen = true;
        let out = &mut state.outlets[Critical::Encoder as usize].bytes;
        state.encoder.set_peer_capacity(settings.qpack_max_table_capacity, out);
        state.written(Critical::Encoder)
    })?;
    datagrams::check(shared)?;
    shared.changed.notify_waiters();
    shared.event(Event::Settings(settings));
    Ok(())
}

/// GOAWAY (RFC 9114 5.2): streams of this id and above were not processed. It may come again, and never with a higher id.
fn on_goaway(shared: &Shared, id: u64) -> Result<(), Violation> {
    if !id.is_multiple_of(4) {
        return Err(Violation::new(Code::ID_ERROR, "GOAWAY with an id that is not a request's"));
    }
    let goaway = GoAway { id };
    let refused = shared.with(|state| {
        if state.goaway.is_some_and(|before| before.id < id) {
            return Err(Violation::new(Code::ID_ERROR, "GOAWAY with a higher id than before"));
        }
        state.goaway = Some(goaway);
        let beyond = state.streams.iter().filter(|(stream, _)| **stream >= id);
        Ok(beyond.filter_map(|(_, slot)| slot.upgrade()).collect::<Vec<_>>())
    })?;
    // Without the lock: letting go of the last holder takes it.
    refused.iter().for_each(|slot| slot.refuse(id > 0));
    drop(refused);
    shared.changed.notify_waiters();
    shared.event(Event::GoAway(goaway));
    Ok(())
}

/// ORIGIN (RFC 9412): one that breaks its rules is ignored.
fn on_origin(shared: &Shared, payload: Bytes) -> Result<(), Violation> {
    let long = payload.len() as u64;
    shared.spend(long, 0).map_err(|()| Violation::new(Code::EXCESSIVE_LOAD, "origins without end"))?;
    if let Some(origins) = frame::origins(payload) {
        shared.event(Event::Origin(origins));
    }
    Ok(())
}

/// A stream of QPACK: instructions for our decoder, or answers for our encoder.
async fn instructions(
    shared: &Shared,
    mut recv: RecvStream,
    mut input: BytesMut,
    from_encoder: bool,
) -> Result<(), Violation> {
    loop {
        shared.with(|state| {
            if !from_encoder {
                return state.encoder.on_decoder_stream(&mut input).map_err(Violation::from);
            }
            let out = &mut state.outlets[Critical::Decoder as usize].bytes;
            if state.decoder.on_encoder_stream(&mut input, out)? {
                state.wake_blocked();
            }
            state.written(Critical::Decoder)
        })?;
        match more(&mut recv).await? {
            Some(bytes) => input.extend_from_slice(&bytes),
            None => return Ok(()),
        }
    }
}
