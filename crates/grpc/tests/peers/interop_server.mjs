// The interop TestService on @grpc/grpc-js. Arguments: folder of node_modules, port, folder of interop.proto, and for TLS the
// certificate and its key. It prints a line when it serves.

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const [modules, port, protos, cert, key] = process.argv.slice(2);
const require = createRequire(modules + "/");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");
const version = require("@grpc/grpc-js/package.json").version;

const testing = grpc.loadPackageDefinition(
  loader.loadSync("interop.proto", { includeDirs: [protos], keepCase: true, defaults: true }),
).grpc.testing;

const INITIAL = "x-grpc-test-echo-initial";
const TRAILING = "x-grpc-test-echo-trailing-bin";

function echoMetadata(call) {
  const head = new grpc.Metadata();
  for (const value of call.metadata.get(INITIAL)) head.add(INITIAL, value);
  call.sendMetadata(head);
  const trailers = new grpc.Metadata();
  for (const value of call.metadata.get(TRAILING)) trailers.add(TRAILING, value);
  return trailers;
}

const payload = (size) => ({ body: Buffer.alloc(size) });
const sleep = (us) => new Promise((done) => setTimeout(done, us / 1000));

async function outputs(call, request) {
  for (const parameters of request.response_parameters) {
    if (parameters.interval_us) await sleep(parameters.interval_us);
    if (call.cancelled) return;
    const flags = parameters.compressed && !parameters.compressed.value ? grpc.writeFlags.NoCompress : 0;
    call.write({ payload: payload(parameters.size) }, flags);
  }
}

const service = {
  EmptyCall: (call, done) => done(null, {}),
  UnaryCall: (call, done) => {
    const trailers = echoMetadata(call);
    const { response_status: status, response_size: size, response_compressed: compressed } = call.request;
    if (status) return done({ code: status.code, details: status.message, metadata: trailers });
    const flags = compressed && !compressed.value ? grpc.writeFlags.NoCompress : 0;
    done(null, { payload: payload(size) }, trailers, flags);
  },
  StreamingOutputCall: async (call) => {
    await outputs(call, call.request);
    call.end();
  },
  StreamingInputCall: (call, done) => {
    let sum = 0;
    call.on("data", (request) => (sum += request.payload?.body.length ?? 0));
    call.on("end", () => done(null, { aggregated_payload_size: sum }));
    call.on("error", () => {});
  },
  FullDuplexCall: (call) => {
    const trailers = echoMetadata(call);
    let work = Promise.resolve();
    let failed = false;
    call.on("data", (request) => {
      work = work.then(async () => {
        if (failed) return;
        if (request.response_status) {
          failed = true;
          const { code, message } = request.response_status;
          return call.emit("error", { code, details: message, metadata: trailers });
        }
        await outputs(call, request);
      });
    });
    call.on("end", () => work.then(() => failed || call.end(trailers)));
    call.on("error", () => {});
  },
};

const server = new grpc.Server({ "grpc.max_receive_message_length": 16 << 20, "grpc.default_compression_algorithm": 2 });
server.addService(
  Object.fromEntries(Object.entries(testing.TestService.service).filter(([name]) => name in service)),
  service,
);
const credentials = cert
  ? grpc.ServerCredentials.createSsl(null, [{ cert_chain: readFileSync(cert), private_key: readFileSync(key) }])
  : grpc.ServerCredentials.createInsecure();
server.bindAsync(`127.0.0.1:${port}`, credentials, (error) => {
  if (error) throw error;
  console.log("grpc-js", version);
});
