"""An HTTP/3 proxy on aioquic: CONNECT and CONNECT-UDP. python3 masque.py PORT CERTIFICATE KEY [AUTHORIZATION]."""

import asyncio
import hashlib
import os
import re
import sys
from urllib.parse import unquote

from aioquic.asyncio import serve
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, DatagramReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, ProtocolNegotiated, StreamReset

MTU = int(os.environ.get("MTU", 1400))
ROOM = MTU - 60
AUTHORIZATION = sys.argv[4].encode() if len(sys.argv) > 4 else None
OFFER = b'Basic realm="masque"'
if AUTHORIZATION and AUTHORIZATION.startswith(b"Digest "):
    OFFER = b'Digest realm="masque", nonce="n0nce", qop="auth", algorithm=SHA-256'


def proved(fields):
    """Whether a request carries what AUTHORIZATION asks for: that very value, or a digest of `Digest user:password`."""
    given = fields.get(b"proxy-authorization", b"")
    if not AUTHORIZATION.startswith(b"Digest "):
        return given == AUTHORIZATION
    said = dict(re.findall(r'(\w+)="?([^",]*)"?', given.decode()))
    user, password = AUTHORIZATION.decode().removeprefix("Digest ").split(":")
    uri = fields[b":path" if b":protocol" in fields else b":authority"].decode()
    digest = lambda *parts: hashlib.sha256(":".join(parts).encode()).hexdigest()
    key, request = digest(user, "masque", password), digest("CONNECT", uri)
    right = digest(key, "n0nce", said.get("nc", ""), said.get("cnonce", ""), "auth", request)
    return said.get("uri") == uri and said.get("response") == right


class Udp(asyncio.DatagramProtocol):
    def __init__(self, server, stream):
        self.server, self.stream = server, stream

    def datagram_received(self, data, addr):
        # What does not fit is lost, as on any way with an MTU: aioquic would wait with it for ever.
        if len(data) > ROOM:
            return
        # Context 0 is a UDP payload.
        self.server.http.send_datagram(self.stream, b"\x00" + data)
        self.server.transmit()

    def error_received(self, error):
        pass


class Proxy(QuicConnectionProtocol):
    http = None

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.tcp, self.udp, self.early = {}, {}, {}

    def quic_event_received(self, event):
        if isinstance(event, ProtocolNegotiated):
            # It announces datagrams together with WebTransport only.
            self.http = H3Connection(self._quic, enable_webtransport=True)
        if isinstance(event, ConnectionTerminated):
            for writer in self.tcp.values():
                writer.close()
        if isinstance(event, StreamReset) and event.stream_id in self.tcp:
            self.tcp.pop(event.stream_id).close()
        if self.http is not None:
            for happened in self.http.handle_event(event):
                self.on_event(happened)
            self.transmit()

    def on_event(self, event):
        if isinstance(event, HeadersReceived) and event.stream_id not in self.early:
            self.early[event.stream_id] = []
            asyncio.ensure_future(self.on_head(event.stream_id, dict(event.headers)))
        elif isinstance(event, DataReceived):
            self.on_data(event.stream_id, event.data, event.stream_ended)
        elif isinstance(event, DatagramReceived) and event.stream_id in self.udp:
            if event.data == b"\x00":
                # asyncio before 3.13 swallows empty ones.
                self.udp[event.stream_id].get_extra_info("socket")._sock.send(b"")
            elif event.data[:1] == b"\x00":
                self.udp[event.stream_id].sendto(event.data[1:])

    def on_data(self, stream, data, ended):
        writer = self.tcp.get(stream)
        if writer is None:
            self.early.setdefault(stream, []).append((data, ended))
            return
        writer.write(data)
        if ended:
            writer.write_eof()

    def refuse(self, stream, status, *headers, body=b""):
        self.http.send_headers(stream, [(b":status", status), *headers])
        self.http.send_data(stream, body, True)
        self.transmit()

    async def on_head(self, stream, fields):
        if AUTHORIZATION and not proved(fields):
            return self.refuse(stream, b"407", (b"proxy-authenticate", OFFER))
        if fields[b":method"] != b"CONNECT":
            return self.refuse(stream, b"405")
        if fields.get(b":protocol") == b"connect-udp":
            return await self.on_udp(stream, fields)
        host, port = fields[b":authority"].decode().rsplit(":", 1)
        try:
            reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except OSError as error:
            return self.refuse(stream, b"502", body=str(error).encode())
        self.http.send_headers(stream, [(b":status", b"200")])
        self.tcp[stream] = writer
        for data, ended in self.early[stream]:
            self.on_data(stream, data, ended)
        self.transmit()
        while data := await reader.read(16384):
            self.http.send_data(stream, data, False)
            self.transmit()
        self.http.send_data(stream, b"", True)
        self.transmit()

    async def on_udp(self, stream, fields):
        assert fields[b"capsule-protocol"] == b"?1"
        host, port = fields[b":path"].decode().split("/")[4:6]
        loop = asyncio.get_running_loop()
        addr = (unquote(host), int(port))
        transport, _ = await loop.create_datagram_endpoint(lambda: Udp(self, stream), remote_addr=addr)
        self.udp[stream] = transport
        self.http.send_headers(stream, [(b":status", b"200"), (b"capsule-protocol", b"?1")])
        self.transmit()


async def main(port, certificate, key):
    configuration = QuicConfiguration(is_client=False, alpn_protocols=["h3"], max_datagram_frame_size=65536)
    # The outer one of two has room for the inner one's.
    configuration.max_datagram_size = MTU
    configuration.load_cert_chain(certificate, key)
    await serve("127.0.0.1", port, configuration=configuration, create_protocol=Proxy)
    print("ready", flush=True)
    await asyncio.Future()


asyncio.run(main(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
