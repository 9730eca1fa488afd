//! The sans-IO core: frames, settings, messages, and the reasons why things end.

pub(crate) mod budget;
pub(crate) mod code;
pub(crate) mod failure;
pub(crate) mod frame;
pub(crate) mod message;
pub(crate) mod request;
pub(crate) mod settings;
pub(crate) mod varint;

#[cfg(test)]
mod tests;

use code::Code;

/// The numbers a connection runs by, as the options gave them.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) header_table_size: u32,
    pub(crate) blocked_streams: u32,
    pub(crate) encoder_table_size: usize,
    pub(crate) max_field_section_size: u32,
    pub(crate) max_header_fields: usize,
    pub(crate) max_streams: usize,
    pub(crate) max_waiting: usize,
    pub(crate) datagrams: bool,
    pub(crate) datagram_queue: usize,
    pub(crate) expect: std::time::Duration,
    pub(crate) answer_timeout: Option<std::time::Duration>,
}

/// A rule that the peer broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) code: Code,
    pub(crate) what: &'static str,
    /// It ends its stream alone, not the connection.
    pub(crate) stream_only: bool,
}

impl Violation {
    /// One that ends the connection.
    pub(crate) fn new(code: Code, what: &'static str) -> Self {
        Self { code, what, stream_only: false }
    }

    /// One that ends its stream.
    pub(crate) fn of_stream(code: Code, what: &'static str) -> Self {
        Self { code, what, stream_only: true }
    }

    /// A message that HTTP forbids (RFC 9114 4.1.2).
    pub(crate) fn malformed(what: &'static str) -> Self {
        Self::of_stream(Code::MESSAGE_ERROR, what)
    }
}

impl From<portolan_hpack::qpack::Fault> for Violation {
    fn from(fault: portolan_hpack::qpack::Fault) -> Self {
        use portolan_hpack::qpack::Fault;
        let what = match &fault {
            Fault::Decompression(error) | Fault::EncoderStream(error) | Fault::DecoderStream(error) => error.what,
            _ => "qpack",
        };
        Self::new(Code::new(fault.code()), what)
    }
}
