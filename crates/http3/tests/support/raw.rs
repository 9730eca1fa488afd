//! A peer without HTTP/3: it says what the script says, down to the byte.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderName, HeaderValue};
use portolan_core::Result;
use portolan_hpack::qpack::{Decoder, Encoder};
use portolan_hpack::{Limits, Name, Pseudo};
use portolan_http3::{Code, Options, SendRequest, connect};
use portolan_testbed::Certs;
use quinn::{ConnectionError, RecvStream, SendStream, VarInt};
use tokio::task::JoinHandle;

pub const DATA: u64 = 0;
pub const HEADERS: u64 = 1;
pub const SETTINGS: u64 = 4;
pub const GOAWAY: u64 = 7;

pub fn varint(value: u64, out: &mut BytesMut) {
    match value {
        0..0x40 => out.put_uint(value, 1),
        0x40..0x4000 => out.put_uint(value | 0x4000, 2),
        0x4000..0x4000_0000 => out.put_uint(value | 0x8000_0000, 4),
        _ => out.put_uint(value | 0xc000_0000_0000_0000, 8),
    }
}

pub fn ints(values: &[u64]) -> Bytes {
    let mut out = BytesMut::new();
    values.iter().for_each(|value| varint(*value, &mut out));
    out.freeze()
}

pub fn frame(kind: u64, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    varint(kind, &mut out);
    varint(payload.len() as u64, &mut out);
    out.extend_from_slice(payload);
    out.freeze()
}

/// A section without the dynamic table. A name may be anything.
pub fn section(fields: &[(&str, &str)]) -> Bytes {
    let mut out = BytesMut::from(&[0u8, 0][..]);
    for (name, value) in fields {
        portolan_hpack::int::put(name.len() as u64, 3, 0x20, &mut out);
        out.extend_from_slice(name.as_bytes());
        portolan_hpack::int::put(value.len() as u64, 7, 0, &mut out);
        out.extend_from_slice(value.as_bytes());
    }
    out.freeze()
}

pub fn headers(fields: &[(&str, &str)]) -> Bytes {
    frame(HEADERS, &section(fields))
}

/// The other end of a connection.
pub struct Raw {
    pub quic: quinn::Connection,
    pub endpoint: quinn::Endpoint,
    /// Our control stream, where the script wanted one.
    pub control: SendStream,
}

/// A client with its driver running, and the script's end, whose control stream begins with `control`.
pub async fn pair_with(options: Options, control: &[u8]) -> (SendRequest, JoinHandle<Result<()>>, Raw) {
    pair_within(quinn::TransportConfig::default(), options, control).await
}

/// The same with a script's end that grants what `transport` says.
pub async fn pair_within(
    transport: quinn::TransportConfig,
    options: Options,
    control: &[u8],
) -> (SendRequest, JoinHandle<Result<()>>, Raw) {
    let certs = Certs::new();
    let mut config = super::server_config(&certs, b"h3");
    config.transport_config(std::sync::Arc::new(transport));
    let endpoint = super::endpoint(config);
    let to = endpoint.local_addr().unwrap().into();
    let connector = super::connector(&certs);
    let accept = async { endpoint.accept().await.unwrap().await.unwrap() };
    let (quic, connected) = tokio::join!(accept, connect(&connector, &to, options));
    let (client, connection) = connected.unwrap();
    let driver = tokio::spawn(connection);
    let mut stream = quic.open_uni().await.unwrap();
    stream.write_all(control).await.unwrap();
    (client, driver, Raw { quic, endpoint, control: stream })
}

/// The same with these settings, which the client has seen.
pub async fn pair(options: Options, settings: &[u64]) -> (SendRequest, JoinHandle<Result<()>>, Raw) {
    let mut control = BytesMut::from(&[0u8][..]);
    control.extend_from_slice(&frame(SETTINGS, &ints(settings)));
    let (client, driver, raw) = pair_with(options, &control).await;
    while client.peer_settings().is_none() {
        tokio::task::yield_now().await;
    }
    (client, driver, raw)
}

impl Raw {
    /// The next request stream, its head read.
    pub async fn request(&mut self) -> Stream {
        let (send, recv) = self.quic.accept_bi().await.unwrap();
        let mut stream = Stream { send, recv, input: BytesMut::new(), fields: Vec::new() };
        let (kind, payload) = stream.frame().await.unwrap();
        assert_eq!(kind, HEADERS);
        let (mut decoder, mut out) = (Decoder::new(Limits::default(), 0), BytesMut::new());
        let id = stream.id();
        let mut fields = Vec::new();
        decoder.decode(id, &payload, &mut out, &mut |field| fields.push(field)).unwrap();
        let text = |field: portolan_hpack::Field| {
            let name = match &field.name {
                Name::Pseudo(pseudo) => pseudo.as_str().to_owned(),
                Name::Field(name) => name.to_string(),
                _ => panic!("malformed"),
            };
            (name, field.value.to_str().unwrap().to_owned())
        };
        stream.fields = fields.into_iter().map(text).collect();
        stream
    }

    pub async fn goaway(&mut self, id: u64) {
        self.control.write_all(&frame(GOAWAY, &ints(&[id]))).await.unwrap();
    }

    /// A new unidirectional stream that begins with these bytes.
    pub async fn uni(&self, bytes: &[u8]) -> SendStream {
        let mut stream = self.quic.open_uni().await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    }

    /// The code that the client closed the connection with.
    pub async fn closed(&self) -> Code {
        match self.quic.closed().await {
            ConnectionError::ApplicationClosed(close) => Code::new(close.error_code.into_inner()),
            other => panic!("{other:?}"),
        }
    }

    pub fn close(&self, code: Code) {
        self.quic.close(VarInt::from_u64(code.value()).unwrap(), b"");
    }
}

/// One request stream, as the script has it.
pub struct Stream {
    pub send: SendStream,
    pub recv: RecvStream,
    input: BytesMut,
    pub fields: Vec<(String, String)>,
}

/// How the client's half ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending {
    Finished,
    Reset(Code),
}

impl Stream {
    pub fn id(&self) -> u64 {
        VarInt::from(self.send.id()).into_inner()
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        self.send.write_all(bytes).await.unwrap();
    }

    /// A whole response.
    pub async fn answer(&mut self, body: &[u8]) {
        self.write(&headers(&[(":status", "200")])).await;
        self.write(&frame(DATA, body)).await;
        self.send.finish().unwrap();
    }

    pub fn reset(&mut self, code: Code) {
        self.send.reset(VarInt::from_u64(code.value()).unwrap()).unwrap();
    }

    async fn more(&mut self) -> std::result::Result<bool, Ending> {
        match self.recv.read_chunk(usize::MAX, true).await {
            Ok(Some(chunk)) => {
                self.input.extend_from_slice(&chunk.bytes);
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(quinn::ReadError::Reset(code)) => Err(Ending::Reset(Code::new(code.into_inner()))),
            Err(other) => panic!("{other}"),
        }
    }

    async fn int(&mut self) -> std::result::Result<u64, Ending> {
        while self.input.is_empty() || self.input.len() < 1 << (self.input[0] >> 6) {
            if !self.more().await? {
                return Err(Ending::Finished);
            }
        }
        let len = 1 << (self.input[0] >> 6);
        let bytes = self.input.split_to(len);
        let first = u64::from(bytes[0] & 0x3f);
        Ok(bytes[1..].iter().fold(first, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// The next frame, or how the stream ended.
    pub async fn frame(&mut self) -> std::result::Result<(u64, Bytes), Ending> {
        let kind = self.int().await?;
        let len = usize::try_from(self.int().await?).unwrap();
        while self.input.len() < len {
            if !self.more().await? {
                return Err(Ending::Finished);
            }
        }
        Ok((kind, self.input.split_to(len).freeze()))
    }

    /// Reads on until the client's half ends.
    pub async fn ending(&mut self) -> Ending {
        loop {
            match self.frame().await {
                Ok(_) => {}
                Err(ending) => return ending,
            }
        }
    }

    /// The code that the client stopped our half with.
    pub async fn stopped(&mut self) -> Option<Code> {
        self.send.stopped().await.unwrap().map(|code| Code::new(code.into_inner()))
    }
}

/// A section by an encoder with a table, and what goes to the encoder stream.
pub fn encoded(encoder: &mut Encoder, stream: u64, fields: &[(&str, &str)]) -> (Bytes, Bytes) {
    let (mut section, mut instructions) = (BytesMut::new(), BytesMut::new());
    encoder.start_section();
    for (name, value) in fields {
        match *name {
            ":status" => encoder.pseudo(Pseudo::Status, value.as_bytes(), &mut instructions),
            name => {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                encoder.field(&name, &HeaderValue::from_str(value).unwrap(), &mut instructions);
            }
        }
    }
    encoder.end_section(stream, &mut section);
    (section.freeze(), instructions.freeze())
}
