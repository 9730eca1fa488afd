// Echoes over HTTP/2 (RFC 8441) by node's http2, with the `ws` package on each stream. Arguments: port, certificate, key (or
// nothing: cleartext).
const fs = require('fs');
const http2 = require('http2');
const { WebSocket } = require('ws');
const [port, cert, key] = process.argv.slice(2);
const settings = { enableConnectProtocol: true };
const server = cert
  ? http2.createSecureServer({ settings, cert: fs.readFileSync(cert), key: fs.readFileSync(key) })
  : http2.createServer({ settings });
server.on('stream', (stream, headers) => {
  stream.on('error', () => {});
  if (headers[':method'] !== 'CONNECT' || headers[':protocol'] !== 'websocket') {
    stream.respond({ ':status': 404 });
    return stream.end('no WebSocket here');
  }
  stream.respond({ ':status': 200, 'sec-websocket-protocol': 'echo' });
  // What the package's own server does with a socket after the handshake of HTTP/1.1.
  stream.setNoDelay = () => {};
  const socket = new WebSocket(null, undefined, {});
  socket.setSocket(stream, Buffer.alloc(0), {
    allowSynchronousEvents: true, maxPayload: 1 << 25, skipUTF8Validation: false,
  });
  socket.on('error', () => {});
  socket.on('message', (data, binary) => socket.send(data, { binary }));
});
server.listen(Number(port), '127.0.0.1');
