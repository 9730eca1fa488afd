// The site of this suite by node: HTTP/1.1, HTTP/2 by prior knowledge, and both over TLS.
// Arguments: folder, three ports.

import { readFileSync } from "node:fs";
import { createServer as plain } from "node:http";
import { createServer as h2c, createSecureServer as secure } from "node:http2";
import { join } from "node:path";

const [folder, ...ports] = process.argv.slice(2);
const files = new Map(["small.txt", "big.bin", "long.txt"].map((name) => ["/" + name, readFileSync(join(folder, "www", name))]));

function answer(request, response) {
  if (request.url === "/moved") return response.writeHead(301, { location: "/small.txt" }).end();
  const file = files.get(request.url);
  if (!file) return response.writeHead(404).end("no such file");
  request.resume();
  request.on("end", () => response.writeHead(200, { "content-length": file.length }).end(request.method === "HEAD" ? undefined : file));
}

const tls = { key: readFileSync(join(folder, "server.key")), cert: readFileSync(join(folder, "server.pem")), allowHTTP1: true };
const servers = [plain(answer), h2c(answer), secure(tls, answer)];
servers.forEach((server, index) => server.listen(Number(ports[index]), "127.0.0.1"));
