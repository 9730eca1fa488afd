"""DNS over QUIC on aioquic, in front of a server of plain DNS: python3 doq.py PORT CERTIFICATE KEY NAMESERVER_PORT.

What a name begins with makes it misbehave: the tests' rogue.
"""

import asyncio
import socket
import sys

import aioquic
from aioquic.asyncio import serve
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import StreamDataReceived, StreamReset, StopSendingReceived

UPSTREAM = ("127.0.0.1", int(sys.argv[4]))


def ask(query):
    """What the name server says, over TCP: no answer is too long for it."""
    with socket.create_connection(UPSTREAM, timeout=5) as tcp:
        tcp.sendall(len(query).to_bytes(2, "big") + query)
        stream = tcp.makefile("rb")
        return stream.read(int.from_bytes(stream.read(2), "big"))


class Server(QuicConnectionProtocol):
    queries = None

    def quic_event_received(self, event):
        self.queries = self.queries or {}
        if isinstance(event, (StreamReset, StopSendingReceived)):
            print("given up with", event.error_code, flush=True)
        if isinstance(event, StreamDataReceived):
            said = self.queries.get(event.stream_id, b"") + event.data
            self.queries[event.stream_id] = said
            if event.end_stream:
                asyncio.ensure_future(self.answer(event.stream_id, said))

    async def answer(self, stream, said):
        length, query = int.from_bytes(said[:2], "big"), said[2:]
        if length != len(query) or query[:2] != b"\0\0":
            return self.close(error_code=2)
        size = query[12]
        what = query[13 : 13 + size].decode()
        print("asked", what, len(query), flush=True)
        answer = await asyncio.get_running_loop().run_in_executor(None, ask, query)
        send = lambda bytes, end=True: self._quic.send_stream_data(stream, bytes, end_stream=end)
        framed = len(answer).to_bytes(2, "big") + answer
        if what == "reset":
            self._quic.reset_stream(stream, 4)
        elif what == "close":
            return self.close(error_code=4)
        elif what == "cut":
            send(framed[:-3])
        elif what == "empty":
            send(b"")
        elif what == "twice":
            send(framed + framed)
        elif what == "id":
            send(framed[:2] + b"\0\1" + framed[4:])
        elif what == "other":
            send(framed[:15] + b"x" + framed[16:])
        elif what == "flood":
            send(b"\xff\xff" + bytes(1 << 20))
        elif what == "garbage":
            send(b"\x00\x40" + b"\xff" * 64)
        elif what == "stall":
            send(framed[:5], end=False)
        elif what == "trickle":
            for byte in framed:
                send(bytes([byte]), end=False)
                self.transmit()
                await asyncio.sleep(0.002)
            send(b"")
        elif what == "push":
            # A stream that the client never asked for.
            push = self._quic.get_next_available_stream_id()
            self._quic.send_stream_data(push, framed, end_stream=True)
            send(framed)
        else:
            send(framed)
        self.transmit()


async def main():
    configuration = QuicConfiguration(is_client=False, alpn_protocols=["doq"])
    configuration.load_cert_chain(sys.argv[2], sys.argv[3])
    await serve("127.0.0.1", int(sys.argv[1]), configuration=configuration, create_protocol=Server)
    print("ready", aioquic.__version__, flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
