// What servers seldom do, by node: hints, refusals, upgrades, tunnels, answers in drops, ends in the middle.
// Argument: the port.

import { createServer } from "node:http";

const server = createServer({ keepAliveTimeout: 60_000 });

const ways = {
  "/hints"(request, response) {
    response.writeProcessing();
    response.writeEarlyHints({ link: "</a.css>; rel=preload" });
    response.writeHead(200, { trailer: "x-sum" });
    response.write("hin");
    response.addTrailers({ "x-sum": "7" });
    response.end("ted");
  },
  "/none"(request, response, status) {
    response.writeHead(Number(status)).end();
  },
  "/early"(request, response) {
    response.writeHead(413, { connection: "close" }).end("too large");
  },
  // A few bytes at a time, by hand.
  async "/drops"(request, response) {
    const { socket } = request;
    const text = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nx-sum: 9\r\n\r\n";
    socket.setNoDelay(true);
    for (let at = 0; at < text.length; at += 3) {
      socket.write(text.slice(at, at + 3));
      await new Promise((done) => setImmediate(done));
    }
    socket.end();
  },
  "/cut"(request, response) {
    response.writeHead(200, { "content-length": 100 });
    response.write("half", () => request.socket.destroy());
  },
  "/until-close"(request, response) {
    response.useChunkedEncodingByDefault = false;
    response.writeHead(200, { connection: "close" });
    response.end("all there is");
  },
  "/old"(request) {
    request.socket.end("HTTP/1.0 200 OK\r\n\r\nold");
  },
  "/close"(request, response) {
    response.end("bye", () => request.socket.end());
  },
  "/slow"(request, response) {
    request.pause();
    setTimeout(() => request.pipe(response), 300);
  },
};

server.on("request", (request, response) => {
  const [path, argument] = request.url.split("?");
  const way = ways[path];
  if (way) way(request, response, argument);
  else request.pipe(response);
});
server.on("checkContinue", (request, response) => {
  if (request.url === "/refused") return response.writeHead(417).end("no");
  response.writeContinue();
  request.pipe(response);
});
server.on("upgrade", (request, socket, head) => {
  socket.write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nfirst ");
  socket.write(head);
  socket.pipe(socket);
});
server.on("connect", (request, socket, head) => {
  if (request.url === "refused.test:443") return socket.end("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno");
  socket.write("HTTP/1.1 200 Connection Established\r\n\r\n");
  socket.write(head);
  socket.pipe(socket);
});
server.listen(Number(process.argv[2]), "127.0.0.1", () => console.log("ready"));
