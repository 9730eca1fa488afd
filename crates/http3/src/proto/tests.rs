//! Vectors, and what holds for whatever a peer sends.

use bytes::{BufMut, Bytes, BytesMut};
use portolan_core::Result;
use portolan_wire::{Codec, DecodeError, laws};
use proptest::prelude::*;

use super::code::Code;
use super::frame::{self, Frame, Frames, Role};
use super::settings::{self, PeerSettings};
use super::{Config, Violation};

/// The frames of one stream as the laws know them. Data comes in the pieces it arrived in, and is told here when it is whole.
struct Laws(Frames, BytesMut);

impl Laws {
    fn of(role: Role) -> Self {
        Self(Frames::new(role, 4096), BytesMut::new())
    }
}

impl Codec for Laws {
    type Frame = Frame;
    type Out = Frame;

    fn protocol(&self) -> &'static str {
        "http3"
    }

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Frame>, DecodeError> {
        let mut input = src.split().freeze();
        loop {
            let next = self.0.next(&mut input);
            let frame = match next.map_err(|violation| DecodeError::invalid(violation.what, 0))? {
                Some(Frame::Data(data)) => {
                    self.1.extend_from_slice(&data);
                    if !self.0.is_between() {
                        continue;
                    }
                    Some(Frame::Data(self.1.split().freeze()))
                }
                other => other,
            };
            src.extend_from_slice(&input);
            return Ok(frame);
        }
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Frame>, DecodeError> {
        match self.decode(src)? {
            Some(frame) => Ok(Some(frame)),
            None => self.0.end().map(|()| None).map_err(|violation| DecodeError::truncated(violation.what, 0)),
        }
    }

    fn encode(&mut self, item: &Frame, dst: &mut BytesMut) -> Result<()> {
        match item {
            Frame::Data(payload) => put(frame::DATA, payload, dst),
            Frame::Headers(payload) => put(frame::HEADERS, payload, dst),
            Frame::Settings(payload) => put(frame::SETTINGS, payload, dst),
            Frame::GoAway(id) => {
                let mut payload = BytesMut::new();
                super::varint::put(*id, &mut payload);
                put(frame::GOAWAY, &payload, dst);
            }
            Frame::Origin(payload) => put(frame::ORIGIN, payload, dst),
            Frame::Idle(len) => put(0x21, &vec![0; usize::try_from(*len).unwrap()], dst),
        }
        Ok(())
    }
}

fn put(kind: u64, payload: &[u8], out: &mut BytesMut) {
    frame::put_head(kind, payload.len(), out);
    out.put_slice(payload);
}

const RESPONSE: &[u8] = b"\x01\x03\x00\x00\xd9\x00\x05hello\x21\x02xx\x00\x00\x40\x01\x02\x00\x00";
const CONTROL: &[u8] = b"\x04\x06\x01\x50\x00\x07\x10\x06\x21\x00\x07\x01\x08\x07\x02\x40\x04";

#[test]
fn frames_keep_the_laws() {
    laws::check(|| Laws::of(Role::Request), &[RESPONSE, b"\x01\x00\x00\x01x"]);
    laws::check(|| Laws::of(Role::Control), &[CONTROL, b"\x04\x00"]);
}

#[test]
fn what_is_written_is_read_back() {
    let section = Frame::Headers(Bytes::from_static(b"\x00\x00\xd9"));
    let (data, idle) = (Frame::Data(Bytes::from_static(b"x")), Frame::Idle(0));
    laws::round_trip(|| Laws::of(Role::Request), &[&section, &data, &idle], |sent, got| sent == got);
}

#[test]
fn a_response_is_cut_into_its_frames() {
    let mut frames = Frames::new(Role::Request, 100);
    let mut input = Bytes::from_static(RESPONSE);
    let mut seen = Vec::new();
    while let Some(frame) = frames.next(&mut input).unwrap() {
        seen.push(frame);
    }
    let data = |bytes| Frame::Data(Bytes::from_static(bytes));
    let section = |bytes| Frame::Headers(Bytes::from_static(bytes));
    let expected = [section(b"\x00\x00\xd9"), data(b"hello"), Frame::Idle(2), Frame::Idle(0), section(b"\x00\x00")];
    assert_eq!(seen, expected);
    frames.end().unwrap();
}

#[test]
fn a_section_is_measured_before_room_is_made() {
    let mut frames = Frames::new(Role::Request, 100);
    let mut input = Bytes::from_static(&[0x01, 0x40, 0x65]);
    let violation = frames.next(&mut input).unwrap_err();
    assert_eq!((violation.code, violation.stream_only), (Code::EXCESSIVE_LOAD, true));
}

#[test]
fn settings_are_read_and_the_forbidden_are_refused() {
    let settings = PeerSettings::read(b"\x01\x50\x00\x06\x60\x00\x07\x10\x08\x01\x33\x01\x21\x05").unwrap();
    let expected = PeerSettings {
        qpack_max_table_capacity: 4096,
        qpack_blocked_streams: 16,
        max_field_section_size: Some(8192),
        enable_connect_protocol: true,
        h3_datagram: true,
    };
    assert_eq!(settings, expected);
    let code = |payload: &[u8]| PeerSettings::read(payload).map_err(|violation| violation.code);
    for key in [0x0, 0x2, 0x3, 0x4, 0x5] {
        assert_eq!(code(&[key, 0]), Err(Code::SETTINGS_ERROR));
    }
    assert_eq!(code(b"\x21\x00\x21\x00"), Err(Code::SETTINGS_ERROR));
    assert_eq!(code(b"\x21"), Err(Code::FRAME_ERROR));
}

#[test]
fn our_settings_are_what_the_options_say() {
    let (config, _) = crate::Options::new().datagrams(true).checked().unwrap();
    let mut out = BytesMut::new();
    settings::put(&config, &mut out);
    let mut input = out.freeze();
    let frame = Frames::new(Role::Control, 0).next(&mut input).unwrap();
    let Some(Frame::Settings(payload)) = frame else { panic!("{frame:?}") };
    let settings = PeerSettings::read(&payload).unwrap();
    assert_eq!(settings.qpack_max_table_capacity, u64::from(config.header_table_size));
    assert_eq!(settings.max_field_section_size, Some(u64::from(config.max_field_section_size)));
    assert!(settings.h3_datagram && !settings.enable_connect_protocol);
    let Config { blocked_streams, .. } = config;
    assert_eq!(settings.qpack_blocked_streams, u64::from(blocked_streams));
}

proptest! {
    #[test]
    fn any_settings_give_settings_or_a_violation(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
        let known = [Code::SETTINGS_ERROR, Code::FRAME_ERROR, Code::EXCESSIVE_LOAD];
        let read = PeerSettings::read(&payload);
        let code = read.map_err(|violation: Violation| violation.code);
        prop_assert!(code.is_ok() || known.contains(&code.unwrap_err()));
    }
}
