//! Messages to bytes and back, without I/O. The record formats are hickory-proto's; what is accepted is decided here.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use bytes::{Buf, Bytes, BytesMut};
use hickory_proto::op::{Edns as HickoryEdns, Message, MessageType, OpCode, Query as HickoryQuery};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::rdata::svcb::{SVCB, SvcParamValue};
use hickory_proto::rr::{DNSClass, RData, Record as HickoryRecord, RecordData as _, RecordType as HickoryType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use portolan_core::{Error, Result};
use portolan_wire::{Codec, DecodeError, Reader, Writer};

use super::name::Name;
use super::response::{Edns, Flags, Info, Response};
use super::types::{
    Caa, Class, Data, Dnskey, Ds, Mx, Naptr, Question, Rcode, Record, RecordType, Soa, Srv, Svcb, Tlsa,
};

/// The header of every message (RFC 1035 4.1.1).
pub(crate) const HEADER: usize = 12;
/// The longest time to live (RFC 2181 8).
const MAX_TTL: u32 = 0x7fff_ffff;
/// Bits of the header's third byte.
const QR: u8 = 0x80;
const TC: u8 = 0x02;

/// How a query is put.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Manner {
    pub(crate) recursion_desired: bool,
    pub(crate) checking_disabled: bool,
    /// EDNS: the largest datagram we take, and whether signatures are wanted.
    pub(crate) edns: Option<(u16, bool)>,
    pub(crate) toss_case: bool,
    /// Without an id: the transport has its own, and an answer in a cache must fit every query (RFC 8484 4.1, RFC 9250 4.2.1).
    pub(crate) anonymous: bool,
    /// Fill up to a multiple of [`BLOCK`], so that lengths tell less.
    pub(crate) padding: bool,
}

/// What queries are padded to (RFC 8467 4.1).
const BLOCK: usize = 128;
/// The code of the padding option, and what it takes besides its content (RFC 7830 3).
const PADDING: (u16, usize) = (12, 4);

/// A query as it goes out, and what its answer must repeat.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    wire: Vec<u8>,
    /// Where the question ends.
    end: usize,
    strict_case: bool,
}

impl Query {
    /// A query with a fresh random id.
    pub(crate) fn new(question: &Question, manner: &Manner) -> Result<Self> {
        let mut message = Message::query();
        message.metadata.id = if manner.anonymous { 0 } else { random_id()? };
        message.metadata.recursion_desired = manner.recursion_desired;
        message.metadata.checking_disabled = manner.checking_disabled;
        let name = if manner.toss_case { tossed(&question.name)? } else { question.name.clone() };
        let mut asked = HickoryQuery::query(name.to_hickory()?, HickoryType::from(u16::from(question.record_type)));
        asked.set_query_class(DNSClass::from(u16::from(question.class)));
        message.add_query(asked);
        if let Some((size, dnssec_ok)) = manner.edns {
            let mut edns = HickoryEdns::new();
            edns.set_max_payload(size).set_version(0).set_dnssec_ok(dnssec_ok);
            if manner.padding {
                message.set_edns(edns.clone());
                let bare = encoded(&message)?.len().saturating_add(PADDING.1);
                let missing = bare.next_multiple_of(BLOCK).saturating_sub(bare);
                edns.options_mut().insert(EdnsOption::Unknown(PADDING.0, vec![0; missing]));
            }
            message.set_edns(edns);
        }
        let wire = encoded(&message)?;
        Self::of(wire, manner.toss_case)
    }

    /// A message of the caller's own making, under a fresh random id, or none.
    pub(crate) fn raw(message: &[u8], anonymous: bool) -> Result<Self> {
        let mut wire = message.to_vec();
        let id = if anonymous { [0; 2] } else { random_id()?.to_be_bytes() };
        let too_short = || Error::usage("message shorter than its header");
        wire.get_mut(..2).ok_or_else(too_short)?.copy_from_slice(&id);
        if wire.get(2).is_none_or(|flags| flags & QR != 0) {
            return Err(Error::usage("message is not a query"));
        }
        if u16::try_from(wire.len()).is_err() {
            return Err(Error::usage(format!("message of {} bytes: at most {} fit", wire.len(), u16::MAX)));
        }
        Self::of(wire, true)
    }

    fn of(wire: Vec<u8>, strict_case: bool) -> Result<Self> {
        let end = question_end(&wire).map_err(|error| Error::usage("not one question").with_source(error))?;
        Ok(Self { wire, end, strict_case })
    }

    pub(crate) fn wire(&self) -> &[u8] {
        &self.wire
    }

    pub(crate) fn id(&self) -> [u8; 2] {
        self.wire.first_chunk().copied().unwrap_or_default()
    }

    /// Whether `reply` answers this very query: a reply, our id, our question (RFC 5452 9.1). Everything else is ignored.
    pub(crate) fn is_answered_by(&self, reply: &[u8]) -> bool {
        reply.first_chunk() == Some(&self.id()) && self.is_repeated_by(reply)
    }

    /// The same but for the id, where the transport has seen to that.
    pub(crate) fn is_repeated_by(&self, reply: &[u8]) -> bool {
        let flags = |wire: &[u8]| wire.get(2).copied();
        if flags(reply).is_none_or(|f| f & QR == 0 || f >> 3 & 15 != self.opcode()) {
            return false;
        }
        if reply.get(4..6) == Some(&[0, 0]) {
            // RFC 6891 7 and RFC 1035 4.1.1: a server that could not read the query can't repeat it.
            return matches!(rcode(reply), Rcode::FormErr | Rcode::NotImp);
        }
        if reply.get(4..6) != Some(&[0, 1]) {
            return false;
        }
        let (Some(asked), Some(repeated)) = (self.wire.get(HEADER..self.end), reply.get(HEADER..self.end)) else {
            return false;
        };
        // The lengths of labels, type and class would have to be letters to be confused by ignoring case; the last four
        // bytes are compared exactly for that.
        let split = asked.len().saturating_sub(4);
        if self.strict_case {
            asked == repeated
        } else {
            asked.eq_ignore_ascii_case(repeated) && asked.get(split..) == repeated.get(split..)
        }
    }

    fn opcode(&self) -> u8 {
        self.wire.get(2).map_or(0, |flags| flags >> 3 & 15)
    }
}

fn encoded(message: &Message) -> Result<Vec<u8>> {
    message.to_vec().map_err(|error| Error::usage("query does not encode").with_source(error))
}

/// Whether a reply says that it was cut to fit (RFC 1035 4.1.1).
pub(crate) fn is_truncated(reply: &[u8]) -> bool {
    reply.get(2).is_some_and(|flags| flags & TC != 0)
}

/// The response code in the header alone.
pub(crate) fn rcode(reply: &[u8]) -> Rcode {
    reply.get(3).map_or(Rcode::FormErr, |flags| Rcode::from(u16::from(flags & 15)))
}

fn random_id() -> Result<u16> {
    let mut id = [0; 2];
    random(&mut id)?;
    Ok(u16::from_be_bytes(id))
}

/// Ids and cases are what a forger has to guess: from the system, never from a seeded generator (RFC 5452 9.2).
fn random(buf: &mut [u8]) -> Result<()> {
    getrandom::fill(buf)
        .map_err(|error| Error::new(portolan_core::Kind::Unsupported, "no random numbers").with_source(error))
}

fn tossed(name: &Name) -> Result<Name> {
    // One bit for each byte of the longest name.
    let mut coins = [0u8; 32];
    random(&mut coins)?;
    let mut bits = coins.iter().flat_map(|byte| (0..8u32).map(move |bit| byte >> bit & 1 == 1));
    Ok(name.with_case(|| bits.next().unwrap_or_default()))
}

/// Where the one question of a message ends. Names in a question are not compressed: there is nothing before them.
fn question_end(wire: &[u8]) -> Result<usize, DecodeError> {
    let mut reader = Reader::frame(wire);
    reader.skip(4, "header")?;
    if reader.u16_be("question count")? != 1 {
        return Err(DecodeError::invalid("question count", 4));
    }
    reader.skip(6, "header")?;
    loop {
        match reader.u8("label")? {
            0 => break,
            len @ 1..=63 => reader.skip(usize::from(len), "label")?,
            _ => return Err(reader.invalid("label")),
        }
    }
    reader.skip(4, "question")?;
    Ok(reader.offset())
}

/// Decodes one whole message, as a datagram holds it.
pub fn decode(bytes: &[u8]) -> Result<Response, DecodeError> {
    let mut reader = Reader::frame(bytes);
    reader.skip(4, "header")?;
    // More than one question means nothing (RFC 9619 4), and a count on the wire must not buy memory.
    if reader.u16_be("question count")? > 1 {
        return Err(DecodeError::invalid("question count", 4));
    }
    let mut decoder = BinDecoder::new(bytes);
    let message = Message::read(&mut decoder).map_err(|_| DecodeError::invalid("record", decoder.index()))?;
    if !decoder.is_empty() {
        return Err(DecodeError::invalid("bytes after the message", decoder.index()));
    }
    let head = &message.metadata;
    let records = |records: &[HickoryRecord]| records.iter().map(record).collect::<Result<Vec<_>, _>>();
    Ok(Response {
        id: head.id,
        rcode: Rcode::from(u16::from(head.response_code)),
        flags: Flags {
            reply: head.message_type == MessageType::Response,
            standard: head.op_code == OpCode::Query,
            authoritative: head.authoritative,
            truncated: head.truncation,
            recursion_desired: head.recursion_desired,
            recursion_available: head.recursion_available,
            authentic: head.authentic_data,
            checking_disabled: head.checking_disabled,
        },
        question: message.queries.first().map(question),
        answers: records(&message.answers)?,
        authorities: records(&message.authorities)?,
        additionals: records(&message.additionals)?,
        edns: message.edns.as_ref().map(|edns| Edns {
            version: edns.version(),
            max_payload: edns.max_payload(),
            dnssec_ok: edns.flags().dnssec_ok,
        }),
        info: Info::default(),
    })
}

fn question(query: &HickoryQuery) -> Question {
    Question {
        name: Name::from_hickory(query.name()),
        record_type: RecordType::from(u16::from(query.query_type())),
        class: Class::from(u16::from(query.query_class())),
    }
}

fn record(record: &HickoryRecord) -> Result<Record, DecodeError> {
    Ok(Record {
        name: Name::from_hickory(&record.name),
        record_type: RecordType::from(u16::from(record.record_type())),
        class: Class::from(u16::from(record.dns_class)),
        // RFC 2181 8: with the highest bit set it counts as zero.
        ttl: if record.ttl > MAX_TTL { 0 } else { record.ttl },
        data: data(&record.data)?,
    })
}

#[allow(clippy::too_many_lines, reason = "one arm for each type of record")]
fn data(data: &RData) -> Result<Data, DecodeError> {
    Ok(match data {
        RData::A(a) => Data::A(a.0),
        RData::AAAA(aaaa) => Data::Aaaa(aaaa.0),
        RData::CNAME(name) => Data::Cname(Name::from_hickory(&name.0)),
        RData::NS(name) => Data::Ns(Name::from_hickory(&name.0)),
        RData::PTR(name) => Data::Ptr(Name::from_hickory(&name.0)),
        RData::MX(mx) => Data::Mx(Mx { preference: mx.preference, exchange: Name::from_hickory(&mx.exchange) }),
        RData::TXT(txt) => Data::Txt(txt.txt_data.iter().map(|string| string.to_vec()).collect()),
        RData::SRV(srv) => Data::Srv(Srv {
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            target: Name::from_hickory(&srv.target),
        }),
        RData::SOA(soa) => Data::Soa(Soa {
            primary: Name::from_hickory(&soa.mname),
            mailbox: Name::from_hickory(&soa.rname),
            serial: soa.serial,
            refresh: soa.refresh.cast_unsigned(),
            retry: soa.retry.cast_unsigned(),
            expire: soa.expire.cast_unsigned(),
            minimum: soa.minimum,
        }),
        RData::CAA(caa) => {
            Data::Caa(Caa { critical: caa.issuer_critical, tag: caa.tag.clone(), value: caa.value.clone() })
        }
        RData::SVCB(record) => Data::Svcb(svcb(record)),
        RData::HTTPS(record) => Data::Https(svcb(&record.0)),
        RData::TLSA(tlsa) => Data::Tlsa(Tlsa {
            usage: tlsa.cert_usage.into(),
            selector: tlsa.selector.into(),
            matching: tlsa.matching.into(),
            data: tlsa.cert_data.clone(),
        }),
        RData::NAPTR(naptr) => Data::Naptr(Naptr {
            order: naptr.order,
            preference: naptr.preference,
            flags: naptr.flags.to_vec(),
            services: naptr.services.to_vec(),
            regexp: naptr.regexp.to_vec(),
            replacement: Name::from_hickory(&naptr.replacement),
        }),
        RData::Unknown { code: HickoryType::DS, rdata } => Data::Ds(ds(&rdata.anything)?),
        RData::Unknown { code: HickoryType::DNSKEY, rdata } => Data::Dnskey(dnskey(&rdata.anything)?),
        RData::Unknown { rdata, .. } => Data::Other(rdata.anything.clone()),
        other => Data::Other(reencoded(other)?),
    })
}

/// Types that hickory takes apart and we do not: back to bytes.
fn reencoded(data: &RData) -> Result<Vec<u8>, DecodeError> {
    use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};
    let mut bytes = Vec::new();
    if !data.is_update() {
        data.emit(&mut BinEncoder::new(&mut bytes)).map_err(|_| DecodeError::unsupported("record", 0))?;
    }
    Ok(bytes)
}

fn ds(bytes: &[u8]) -> Result<Ds, DecodeError> {
    let mut reader = Reader::frame(bytes);
    Ok(Ds {
        key_tag: reader.u16_be("DS")?,
        algorithm: reader.u8("DS")?,
        digest_type: reader.u8("DS")?,
        digest: reader.rest().to_vec(),
    })
}

fn dnskey(bytes: &[u8]) -> Result<Dnskey, DecodeError> {
    let mut reader = Reader::frame(bytes);
    Ok(Dnskey {
        flags: reader.u16_be("DNSKEY")?,
        protocol: reader.u8("DNSKEY")?,
        algorithm: reader.u8("DNSKEY")?,
        key: reader.rest().to_vec(),
    })
}

fn svcb(record: &SVCB) -> Svcb {
    let mut svcb = Svcb {
        priority: record.svc_priority,
        target: Name::from_hickory(&record.target_name),
        mandatory: Vec::new(),
        alpn: Vec::new(),
        no_default_alpn: false,
        port: None,
        ipv4_hint: Vec::new(),
        ipv6_hint: Vec::new(),
        ech: None,
        other: Vec::new(),
    };
    for (key, value) in &record.svc_params {
        match value {
            SvcParamValue::Mandatory(keys) => svcb.mandatory = keys.0.iter().map(|key| u16::from(*key)).collect(),
            SvcParamValue::Alpn(alpn) => svcb.alpn.clone_from(&alpn.0),
            SvcParamValue::NoDefaultAlpn => svcb.no_default_alpn = true,
            SvcParamValue::Port(port) => svcb.port = Some(*port),
            SvcParamValue::Ipv4Hint(hint) => svcb.ipv4_hint = hint.0.iter().map(|a| a.0).collect(),
            SvcParamValue::Ipv6Hint(hint) => svcb.ipv6_hint = hint.0.iter().map(|a| a.0).collect(),
            SvcParamValue::EchConfigList(list) => svcb.ech = Some(list.0.clone()),
            SvcParamValue::Unknown(value) => svcb.other.push((u16::from(*key), value.0.clone())),
        }
    }
    svcb
}

/// Messages on a stream, each behind two bytes of length (RFC 1035 4.2.2).
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Framing;

impl Codec for Framing {
    type Frame = Bytes;
    type Out = [u8];

    fn protocol(&self) -> &'static str {
        super::PROTOCOL
    }

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Bytes>, DecodeError> {
        let Some(&length) = src.first_chunk() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes(length));
        if length < HEADER {
            return Err(DecodeError::invalid("message length", 0));
        }
        if src.len() < length.saturating_add(2) {
            return Ok(None);
        }
        src.advance(2);
        Ok(Some(src.split_to(length).freeze()))
    }

    fn encode(&mut self, message: &[u8], dst: &mut BytesMut) -> Result<()> {
        if message.len() < HEADER {
            return Err(Error::usage("message shorter than its header"));
        }
        Writer::new(dst).bytes_u16_be("message", message)
    }
}
