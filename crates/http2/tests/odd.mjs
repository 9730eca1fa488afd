// What servers seldom do, by node: settings in mid-flight, hints, alternatives, origins, ends of every kind.
// Argument: the port, of cleartext HTTP/2 by prior knowledge.

import { createServer, constants } from "node:http2";

const server = createServer({ settings: { enableConnectProtocol: true } });

function echo(stream, head) {
  stream.respond({ ":status": 200, ...head });
  stream.pipe(stream);
}

const ways = {
  // The windows and tables of uploads change while they are under way.
  "/settings"(stream) {
    const { session } = stream;
    const steps = [
      { initialWindowSize: 0, headerTableSize: 0 },
      { initialWindowSize: 1_000_000, maxFrameSize: 60_000 },
      { initialWindowSize: 10, headerTableSize: 100 },
      { initialWindowSize: 65_535, headerTableSize: 4096, maxFrameSize: 16_384, maxConcurrentStreams: 1 },
    ];
    let total = 0;
    stream.on("data", (data) => {
      total += data.length;
      const step = steps.shift();
      if (step) session.settings(step);
    });
    stream.on("end", () => {
      stream.respond({ ":status": 200 });
      stream.end(String(total));
    });
  },
  "/hints"(stream) {
    stream.additionalHeaders({ ":status": 103, link: "</a.css>" });
    stream.additionalHeaders({ ":status": 102 });
    stream.respond({ ":status": 200 }, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "x-sum": "7" }));
    stream.end("hinted");
  },
  "/alternatives"(stream) {
    stream.session.altsvc('h3=":1"', "https://one.test");
    stream.session.altsvc("clear", stream.id);
    stream.session.origin("https://two.test", "https://three.test");
    stream.session.ping(Buffer.from("12345678"), () => {
      stream.respond({ ":status": 200 });
      stream.end("pinged");
    });
  },
  "/push"(stream) {
    stream.respond({ ":status": 200 });
    stream.end(String(stream.pushAllowed));
  },
  // Answered before the upload has ended, which is then not wanted.
  "/early"(stream) {
    stream.respond({ ":status": 413 });
    stream.end("too large");
    stream.on("finish", () => stream.close(constants.NGHTTP2_NO_ERROR));
  },
  "/reset"(stream, code) {
    stream.close(Number(code));
  },
  "/half"(stream, code) {
    stream.respond({ ":status": 200, "content-length": 100 });
    stream.write("half", () => stream.close(Number(code)));
  },
  "/away"(stream, code) {
    stream.session.goaway(Number(code), stream.id, Buffer.from("bye"));
    stream.respond({ ":status": 200 });
    stream.end("last");
  },
  // Nothing is read for a while.
  "/slow"(stream) {
    stream.pause();
    setTimeout(() => echo(stream, {}), 300);
  },
};

server.on("stream", (stream, headers) => {
  stream.on("error", () => {});
  if (headers[":protocol"]) return headers[":path"] === "/refused" ? stream.respond({ ":status": 403 }, { endStream: true }) : echo(stream, {});
  const [path, argument] = headers[":path"].split("?");
  const way = ways[path];
  if (way) way(stream, argument);
  else echo(stream, { "x-path": path });
});
server.on("session", (session) => session.on("error", () => {}));
server.listen(Number(process.argv[2]), "127.0.0.1", () => console.log("ready"));
