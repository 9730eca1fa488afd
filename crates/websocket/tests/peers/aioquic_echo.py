"""Echoes over HTTP/3 (RFC 9220): aioquic for QUIC and HTTP/3, wsproto for WebSocket. Arguments: port, certificate, key."""
import asyncio, sys
from aioquic.asyncio import serve
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ProtocolNegotiated
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.extensions import PerMessageDeflate


class Server(QuicConnectionProtocol):
    http = None

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.sockets = {}

    def quic_event_received(self, event):
        if isinstance(event, ProtocolNegotiated):
            self.http = H3Connection(self._quic)
        if self.http is not None:
            for happened in self.http.handle_event(event):
                if isinstance(happened, HeadersReceived):
                    self.on_head(happened)
                elif isinstance(happened, DataReceived):
                    self.on_data(happened)
            self.transmit()

    def on_head(self, event):
        fields = dict(event.headers)
        if fields[b":method"] != b"CONNECT" or fields.get(b":protocol") != b"websocket":
            self.http.send_headers(event.stream_id, [(b":status", b"501")], True)
            return
        answer, extensions = [(b":status", b"200")], []
        if b"echo" in fields.get(b"sec-websocket-protocol", b""):
            answer.append((b"sec-websocket-protocol", b"echo"))
        offer = fields.get(b"sec-websocket-extensions", b"").decode()
        if offer.startswith("permessage-deflate"):
            deflate = PerMessageDeflate()
            agreed = deflate.accept(offer)
            answer.append((b"sec-websocket-extensions", f"permessage-deflate; {agreed}".rstrip("; ").encode()))
            extensions.append(deflate)
        self.sockets[event.stream_id] = Connection(ConnectionType.SERVER, extensions)
        self.http.send_headers(event.stream_id, answer)

    def on_data(self, event):
        socket = self.sockets.get(event.stream_id)
        if socket is None:
            return
        socket.receive_data(event.data)
        for happened in socket.events():
            if isinstance(happened, (TextMessage, BytesMessage)):
                self.http.send_data(event.stream_id, socket.send(happened), False)
            elif isinstance(happened, Ping):
                self.http.send_data(event.stream_id, socket.send(happened.response()), False)
            elif isinstance(happened, CloseConnection):
                self.http.send_data(event.stream_id, socket.send(happened.response()), True)
                del self.sockets[event.stream_id]


async def main():
    configuration = QuicConfiguration(is_client=False, alpn_protocols=["h3"])
    configuration.load_cert_chain(sys.argv[2], sys.argv[3])
    await serve("127.0.0.1", int(sys.argv[1]), configuration=configuration, create_protocol=Server)
    print("ready", flush=True)
    # Something to look at from outside: QUIC itself accepts no TCP.
    await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", int(sys.argv[1]))
    await asyncio.Future()


asyncio.run(main())
