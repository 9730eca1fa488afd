"""The interop TestService on grpcio, with health and reflection. Arguments: port, folder of interop.proto, and for TLS the
certificate and its key. HOST is where it listens, MAX_AGE_MS how old a connection may become. It prints a line when it serves."""

import os
import sys
import tempfile
import threading
from concurrent import futures

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status
from grpc_tools import protoc

port, protos = sys.argv[1], sys.argv[2]
out = tempfile.mkdtemp(dir=".")
assert protoc.main(["protoc", f"-I{protos}", f"--python_out={out}", f"--grpc_python_out={out}", "interop.proto"]) == 0
sys.path.insert(0, out)

import interop_pb2 as pb  # noqa: E402
import interop_pb2_grpc as pb_grpc  # noqa: E402

INITIAL, TRAILING = "x-grpc-test-echo-initial", "x-grpc-test-echo-trailing-bin"


def echo_metadata(context):
    for key, value in context.invocation_metadata():
        if key == INITIAL:
            context.send_initial_metadata(((key, value),))
        if key == TRAILING:
            context.set_trailing_metadata(((key, value),))


def echo_status(request, context):
    if request.HasField("response_status"):
        context.abort(grpc.StatusCode(next(c.value for c in grpc.StatusCode if c.value[0] == request.response_status.code)),
                      request.response_status.message)


class Service(pb_grpc.TestServiceServicer):
    def EmptyCall(self, request, context):
        return pb.Empty()

    def UnaryCall(self, request, context):
        echo_metadata(context)
        for key, value in context.invocation_metadata():
            if key == "x-rich-error":
                detail = any_pb2.Any()
                detail.Pack(error_details_pb2.ErrorInfo(reason="STOCKOUT", domain="shop.test", metadata={"zone": "a"}))
                retry = any_pb2.Any()
                retry.Pack(error_details_pb2.RetryInfo())
                retry_info = error_details_pb2.RetryInfo()
                retry_info.retry_delay.FromMilliseconds(1500)
                retry.Pack(retry_info)
                bad = any_pb2.Any()
                violation = error_details_pb2.BadRequest.FieldViolation(field="name", description="too long")
                bad.Pack(error_details_pb2.BadRequest(field_violations=[violation]))
                context.abort_with_status(rpc_status.to_status(
                    status_pb2.Status(code=8, message="sold out", details=[detail, retry, bad])))
            if key == "x-deadline":
                context.set_trailing_metadata((("x-time-left", str(context.time_remaining())),))
            if key == "x-peer":
                context.set_trailing_metadata((("x-peer", context.peer()), ("x-host", host)))
            if key == "x-health":
                checks.set("grpc.testing.TestService", health_pb2.HealthCheckResponse.ServingStatus.Value(value))
        echo_status(request, context)
        if request.HasField("response_compressed"):
            context.set_compression(grpc.Compression.Gzip)
            if not request.response_compressed.value:
                context.disable_next_message_compression()
        return pb.SimpleResponse(payload=pb.Payload(body=b"\0" * request.response_size))

    def StreamingOutputCall(self, request, context):
        if any(p.HasField("compressed") for p in request.response_parameters):
            context.set_compression(grpc.Compression.Gzip)
        yield from self.outputs(request, context)

    def outputs(self, request, context):
        for parameters in request.response_parameters:
            if parameters.interval_us and not context.is_active():
                return
            if parameters.interval_us:
                threading.Event().wait(parameters.interval_us / 1e6)
            if parameters.HasField("compressed") and not parameters.compressed.value:
                context.disable_next_message_compression()
            yield pb.StreamingOutputCallResponse(payload=pb.Payload(body=b"\0" * parameters.size))

    def StreamingInputCall(self, requests, context):
        return pb.StreamingInputCallResponse(aggregated_payload_size=sum(len(r.payload.body) for r in requests))

    def FullDuplexCall(self, requests, context):
        echo_metadata(context)
        for request in requests:
            echo_status(request, context)
            yield from self.outputs(request, context)


host = os.environ.get("HOST", "127.0.0.1")
options = [("grpc.max_receive_message_length", 16 << 20)]
if "MAX_AGE_MS" in os.environ:
    options.append(("grpc.max_connection_age_ms", int(os.environ["MAX_AGE_MS"])))
server = grpc.server(futures.ThreadPoolExecutor(max_workers=16), options=options)
pb_grpc.add_TestServiceServicer_to_server(Service(), server)
checks = health.HealthServicer()
health_pb2_grpc.add_HealthServicer_to_server(checks, server)
checks.set("grpc.testing.TestService", health_pb2.HealthCheckResponse.SERVING)
checks.set("down", health_pb2.HealthCheckResponse.NOT_SERVING)
reflection.enable_server_reflection(["grpc.testing.TestService", "grpc.health.v1.Health", reflection.SERVICE_NAME], server)
if len(sys.argv) > 3:
    with open(sys.argv[3], "rb") as cert, open(sys.argv[4], "rb") as key:
        credentials = grpc.ssl_server_credentials([(key.read(), cert.read())])
    server.add_secure_port(f"{host}:{port}", credentials)
else:
    server.add_insecure_port(f"{host}:{port}")
server.start()
print("grpcio", grpc.__version__, flush=True)
server.wait_for_termination()
