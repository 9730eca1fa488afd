// Echoes by the `ws` package of npm. Arguments: port, certificate, key (or nothing: cleartext).
const fs = require('fs');
const { WebSocketServer } = require('ws');
const [port, cert, key] = process.argv.slice(2);
const server = cert
  ? require('https').createServer({ cert: fs.readFileSync(cert), key: fs.readFileSync(key) })
  : require('http').createServer();
const sockets = new WebSocketServer({
  server,
  perMessageDeflate: { serverMaxWindowBits: 12, clientMaxWindowBits: 11, threshold: 0 },
  maxPayload: 1 << 25,
  handleProtocols: (offered) => (offered.has('echo') ? 'echo' : false),
});
sockets.on('connection', (socket) => {
  socket.on('message', (data, binary) => socket.send(data, { binary }));
});
server.listen(Number(port), '127.0.0.1');
