"""An HTTP/3 server on aioquic, for the suite: python3 aioquic_server.py PORT CERTIFICATE KEY."""

import asyncio
import sys

from aioquic.asyncio import serve
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, DatagramReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ProtocolNegotiated


class Server(QuicConnectionProtocol):
    http = None

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.requests = {}

    def quic_event_received(self, event):
        if isinstance(event, ProtocolNegotiated):
            # It announces datagrams together with WebTransport only.
            self.http = H3Connection(self._quic, enable_webtransport=True)
        if self.http is not None:
            for happened in self.http.handle_event(event):
                self.on_event(happened)
            self.transmit()

    def on_event(self, event):
        if isinstance(event, HeadersReceived):
            if event.stream_id in self.requests:
                self.on_end(event.stream_id, event.headers)
            else:
                self.on_head(event)
        elif isinstance(event, DataReceived) and event.stream_id in self.requests:
            self.on_data(event)
        elif isinstance(event, DatagramReceived):
            self.http.send_datagram(event.stream_id, b"echo " + event.data)

    def on_head(self, event):
        fields = dict(event.headers)
        stream, path = event.stream_id, fields[b":path"]
        self.requests[stream] = path
        if fields[b":method"] == b"CONNECT":
            self.http.send_headers(stream, [(b":status", b"200"), (b"x-protocol", fields[b":protocol"])])
            return
        if path == b"/hints":
            self.http.send_headers(stream, [(b":status", b"103"), (b"link", b"</style.css>")])
        if path in (b"/echo", b"/sum"):
            self.http.send_headers(stream, [(b":status", b"200"), (b"x-kind", b"echo")])
        else:
            body = b" ".join([fields[b":method"], path, fields.get(b"x-request", b"")])
            headers = [(b":status", b"200"), (b"server", b"aioquic"), (b"x-same", b"the same value each time")]
            if path == b"/table":
                # What QPACK has done so far: both ends count.
                sent, received = self.http._encoder_bytes_sent, self.http._encoder_bytes_received
                body = b"%d %d" % (sent, received)
            length = (b"content-length", str(len(body)).encode())
            self.http.send_headers(stream, headers + [length])
            self.http.send_data(stream, body, True)
        if event.stream_ended and path in (b"/echo", b"/sum"):
            self.http.send_data(stream, b"", True)

    def on_data(self, event):
        path = self.requests[event.stream_id]
        if path in (b"/echo", b"/tunnel"):
            self.http.send_data(event.stream_id, event.data, event.stream_ended)
        elif event.stream_ended:
            self.on_end(event.stream_id, [])

    def on_end(self, stream, trailers):
        if self.requests[stream] == b"/sum":
            self.http.send_data(stream, b"summed", False)
            self.http.send_headers(stream, [(b"x-trailers", str(len(trailers)).encode())] + trailers, True)


async def main(port, certificate, key):
    configuration = QuicConfiguration(is_client=False, alpn_protocols=["h3"], max_datagram_frame_size=65536)
    configuration.load_cert_chain(certificate, key)
    tickets = {}
    await serve(
        "127.0.0.1",
        port,
        configuration=configuration,
        create_protocol=Server,
        session_ticket_handler=lambda ticket: tickets.__setitem__(ticket.ticket, ticket),
        session_ticket_fetcher=lambda name: tickets.pop(name, None),
    )
    print("ready", flush=True)
    await asyncio.Future()


asyncio.run(main(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
