// The interop TestService on connect-node, which speaks gRPC, gRPC-Web and Connect. Arguments: folder of node_modules, port,
// folder of interop.proto, and for TLS the certificate and its key. It prints a line when it serves.

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import http2 from "node:http2";

const [modules, port, protos, cert, key] = process.argv.slice(2);
const require = createRequire(modules + "/");
const { createFileRegistry, fromBinary } = require("@bufbuild/protobuf");
const { FileDescriptorSetSchema } = require("@bufbuild/protobuf/wkt");
const { ConnectError } = require("@connectrpc/connect");
const { connectNodeAdapter } = require("@connectrpc/connect-node");
const version = JSON.parse(
  readFileSync(join(modules, "node_modules/@connectrpc/connect-node/package.json"), "utf8"),
).version;

const set = fromBinary(FileDescriptorSetSchema, readFileSync(join(protos, "../generated/interop.bin")));
const service = createFileRegistry(set).getService("grpc.testing.TestService");

const INITIAL = "x-grpc-test-echo-initial";
const TRAILING = "x-grpc-test-echo-trailing-bin";

function echoMetadata(context) {
  for (const [name, to] of [
    [INITIAL, context.responseHeader],
    [TRAILING, context.responseTrailer],
  ]) {
    const value = context.requestHeader.get(name);
    if (value) to.set(name, value);
  }
}

function echoStatus(request) {
  const status = request.responseStatus;
  if (status) throw new ConnectError(status.message, status.code);
}

const payload = (size) => ({ body: new Uint8Array(size) });

async function* outputs(request, context) {
  for (const parameters of request.responseParameters) {
    if (parameters.intervalUs) await new Promise((done) => setTimeout(done, parameters.intervalUs / 1000));
    if (context.signal.aborted) return;
    yield { payload: payload(parameters.size) };
  }
}

const implementation = {
  emptyCall: () => ({}),
  unaryCall(request, context) {
    echoMetadata(context);
    echoStatus(request);
    return { payload: payload(request.responseSize) };
  },
  cacheableUnaryCall(request, context) {
    context.responseTrailer.set("x-method", context.requestMethod);
    echoStatus(request);
    return { payload: payload(request.responseSize) };
  },
  streamingOutputCall: outputs,
  async streamingInputCall(requests) {
    let sum = 0;
    for await (const request of requests) sum += request.payload?.body.length ?? 0;
    return { aggregatedPayloadSize: sum };
  },
  async *fullDuplexCall(requests, context) {
    echoMetadata(context);
    for await (const request of requests) {
      echoStatus(request);
      yield* outputs(request, context);
    }
  },
};

const adapter = connectNodeAdapter({
  routes: (router) => router.service(service, implementation),
  readMaxBytes: 16 << 20,
});
const server = cert
  ? http2.createSecureServer({ cert: readFileSync(cert), key: readFileSync(key) }, adapter)
  : http2.createServer(adapter);
server.listen(Number(port), "127.0.0.1", () => console.log("grpc by connect-node", version));
