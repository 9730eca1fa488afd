# Protobuf's own JSON, on grpcio: /rich.Echo/Echo answers with the message and says in `json-bin` what it is in JSON; /rich.Echo/Parse
# is given JSON and answers with the message, in JSON again. Arguments: port, folder of the protos. It prints a line when it serves.
import os
import sys
import tempfile
from concurrent import futures

import grpc
import grpc_tools
from google.protobuf import json_format
from grpc_reflection.v1alpha import reflection
from grpc_tools import protoc

port, protos = sys.argv[1], os.path.join(sys.argv[2], "json")
with tempfile.TemporaryDirectory() as out:
    known = os.path.join(os.path.dirname(grpc_tools.__file__), "_proto")
    files = [os.path.join(protos, name) for name in sorted(os.listdir(protos))]
    if protoc.main(["protoc", f"-I{protos}", f"-I{known}", f"--python_out={out}", *files]):
        sys.exit("protoc failed")
    sys.path.insert(0, out)
    import rich_pb2


def text(message):
    return json_format.MessageToJson(message, indent=None).encode()


def echo(request, context):
    message = rich_pb2.Rich.FromString(request)
    context.set_trailing_metadata((("json-bin", text(message)),))
    return message.SerializeToString()


def parse(request, context):
    try:
        message = json_format.Parse(request, rich_pb2.Rich())
        message.SerializeToString()
        return text(message)
    except Exception as error:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error)[:200])


class Service(grpc.GenericRpcHandler):
    def service(self, details):
        methods = {"/rich.Echo/Echo": echo, "/rich.Echo/Parse": parse}
        method = methods.get(details.method)
        return method and grpc.unary_unary_rpc_method_handler(method)


server = grpc.server(futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((Service(),))
reflection.enable_server_reflection(("rich.Echo",), server)
server.add_insecure_port(f"127.0.0.1:{port}")
server.start()
print("grpcio", grpc.__version__, "with protobuf", __import__("google.protobuf").protobuf.__version__, flush=True)
server.wait_for_termination()
