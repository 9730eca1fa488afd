"""The interop TestService over HTTP/3: aioquic for QUIC and HTTP/3, protobuf for the messages, gRPC's framing by hand.
Arguments: port, folder of interop.proto, certificate, key. It prints a line when it serves."""

import asyncio
import base64
import gzip
import importlib.metadata
import struct
import sys
import tempfile
from urllib.parse import quote

from aioquic.asyncio import serve
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, ProtocolNegotiated, StopSendingReceived, StreamReset
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_tools import protoc

port, protos, cert, key = sys.argv[1:5]
out = tempfile.mkdtemp(dir=".")
assert protoc.main(["protoc", f"-I{protos}", f"--python_out={out}", "interop.proto"]) == 0
sys.path.insert(0, out)

import interop_pb2 as pb  # noqa: E402

INITIAL, TRAILING = b"x-grpc-test-echo-initial", b"x-grpc-test-echo-trailing-bin"
UNITS = {"H": 3600, "M": 60, "S": 1, "m": 1e-3, "u": 1e-6, "n": 1e-9}


class Failed(Exception):
    def __init__(self, code, message, details=b""):
        self.code, self.message, self.details = code, message, details


class Call:
    """One stream: a service method reads and writes messages, the connection feeds it."""

    def __init__(self, connection, stream, fields):
        self.connection, self.stream, self.fields = connection, stream, fields
        self.buffer, self.ended, self.more = bytearray(), False, asyncio.Event()
        self.begun = False
        self.task = asyncio.ensure_future(self.run())

    def feed(self, data, ended):
        self.buffer += data
        self.ended |= ended
        self.more.set()

    async def read(self, kind):
        """The next message of this kind, or None."""
        while True:
            if len(self.buffer) >= 5:
                flag, length = struct.unpack_from(">BI", self.buffer)
                if len(self.buffer) >= 5 + length:
                    data = bytes(self.buffer[5:5 + length])
                    del self.buffer[:5 + length]
                    break
            if self.ended:
                assert not self.buffer, "the request ended within a message"
                return None
            self.more.clear()
            await self.more.wait()
        if flag:
            assert self.fields[b"grpc-encoding"] == b"gzip"
            data = gzip.decompress(data)
        message = kind.FromString(data)
        if "expect_compressed" in kind.DESCRIPTOR.fields_by_name and message.HasField("expect_compressed"):
            if message.expect_compressed.value != bool(flag):
                raise Failed(3, "not compressed as it was said")
        return message

    def begin(self, end=False, more=()):
        fields = [(b":status", b"200"), (b"content-type", b"application/grpc"), (b"grpc-encoding", b"gzip")]
        if INITIAL in self.fields:
            fields.append((INITIAL, self.fields[INITIAL]))
        self.begun = True
        self.connection.http.send_headers(self.stream, fields + list(more), end)
        self.connection.transmit()

    async def write(self, message, compressed=False):
        if not self.begun:
            self.begin()
        data = message.SerializeToString()
        if compressed:
            data = gzip.compress(data)
        self.connection.http.send_data(self.stream, struct.pack(">BI", compressed, len(data)) + data, False)
        self.connection.transmit()

    async def run(self):
        trailers = []
        try:
            service, method = self.fields[b":path"].decode().strip("/").split("/")
            handler = getattr(self, method, None) if service == "grpc.testing.TestService" else None
            if handler is None or not method[0].isupper():
                raise Failed(12, "no such method")
            await handler()
            trailers = [(b"grpc-status", b"0")]
            if self.extra:
                trailers += self.extra
        except Failed as failed:
            trailers = [(b"grpc-status", str(failed.code).encode()), (b"grpc-message", quote(failed.message, safe=" ").encode())]
            if failed.details:
                trailers.append((b"grpc-status-details-bin", base64.b64encode(failed.details)))
        if TRAILING in self.fields:
            trailers.append((TRAILING, self.fields[TRAILING]))
        if self.begun:
            self.connection.http.send_headers(self.stream, trailers, True)
            self.connection.transmit()
        else:
            # A status alone needs no trailers.
            self.begin(True, trailers)
        self.connection.calls.pop(self.stream, None)

    extra = ()

    async def EmptyCall(self):
        await self.read(pb.Empty)
        await self.write(pb.Empty())

    async def UnaryCall(self):
        request = await self.read(pb.SimpleRequest)
        if b"x-rich-error" in self.fields:
            raise rich_error()
        if b"x-deadline" in self.fields:
            text = self.fields[b"grpc-timeout"].decode()
            self.extra = [(b"x-time-left", str(int(text[:-1]) * UNITS[text[-1]]).encode())]
        echo_status(request)
        await self.write(pb.SimpleResponse(payload=pb.Payload(body=b"\0" * request.response_size)), request.response_compressed.value)

    async def outputs(self, request):
        for parameters in request.response_parameters:
            await asyncio.sleep(parameters.interval_us / 1e6)
            payload = pb.Payload(body=b"\0" * parameters.size)
            await self.write(pb.StreamingOutputCallResponse(payload=payload), parameters.compressed.value)

    async def StreamingOutputCall(self):
        await self.outputs(await self.read(pb.StreamingOutputCallRequest))

    async def StreamingInputCall(self):
        total = 0
        while (request := await self.read(pb.StreamingInputCallRequest)) is not None:
            total += len(request.payload.body)
        await self.write(pb.StreamingInputCallResponse(aggregated_payload_size=total))

    async def FullDuplexCall(self):
        while (request := await self.read(pb.StreamingOutputCallRequest)) is not None:
            echo_status(request)
            await self.outputs(request)
        if not self.begun:
            self.begin()


def echo_status(request):
    if request.HasField("response_status"):
        raise Failed(request.response_status.code, request.response_status.message)


def rich_error():
    def packed(message):
        detail = any_pb2.Any()
        detail.Pack(message)
        return detail

    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(1500)
    violation = error_details_pb2.BadRequest.FieldViolation(field="name", description="too long")
    details = [
        error_details_pb2.ErrorInfo(reason="STOCKOUT", domain="shop.test", metadata={"zone": "a"}),
        retry,
        error_details_pb2.BadRequest(field_violations=[violation]),
    ]
    status = status_pb2.Status(code=8, message="sold out", details=[packed(detail) for detail in details])
    return Failed(8, "sold out", status.SerializeToString())


class Server(QuicConnectionProtocol):
    http = None

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.calls = {}

    def give_up(self, stream):
        call = self.calls.pop(stream, None)
        if call is not None:
            call.task.cancel()

    def quic_event_received(self, event):
        if isinstance(event, ProtocolNegotiated):
            self.http = H3Connection(self._quic)
        if isinstance(event, ConnectionTerminated):
            for stream in list(self.calls):
                self.give_up(stream)
        if isinstance(event, (StreamReset, StopSendingReceived)):
            self.give_up(event.stream_id)
        if self.http is None:
            return
        for happened in self.http.handle_event(event):
            if isinstance(happened, HeadersReceived) and happened.stream_id not in self.calls:
                self.calls[happened.stream_id] = Call(self, happened.stream_id, dict(happened.headers))
            call = self.calls.get(happened.stream_id)
            if call is not None and isinstance(happened, (HeadersReceived, DataReceived)):
                call.feed(getattr(happened, "data", b""), happened.stream_ended)
        self.transmit()


async def main():
    configuration = QuicConfiguration(is_client=False, alpn_protocols=["h3"])
    configuration.load_cert_chain(cert, key)
    await serve("127.0.0.1", int(port), configuration=configuration, create_protocol=Server)
    print("grpc on aioquic", importlib.metadata.version("aioquic"), flush=True)
    await asyncio.Future()


asyncio.run(main())
