// Events by better-sse on node, over HTTP/1.1. Arguments: folder of node_modules, port.
//
// Each connection gets two of the events that it has not seen, and the last one says so by 204.

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";

const [modules, port] = process.argv.slice(2);
const require = createRequire(modules + "/");
const { createSession } = require("better-sse");
const { version } = JSON.parse(readFileSync(join(modules, "node_modules/better-sse/package.json"), "utf8"));

const LAST = 6;

const server = createServer(async (request, response) => {
  const seen = Number(request.headers["last-event-id"] ?? 0);
  if (seen >= LAST) return response.writeHead(204).end();
  const session = await createSession(request, response, { retry: 20, keepAlive: 1 });
  for (const number of [seen + 1, seen + 2]) session.push(`line ${number}\nand another`, "tick", String(number));
  setTimeout(() => response.end(), 20);
});
server.listen(Number(port), "127.0.0.1", () => console.log("better-sse", version));
