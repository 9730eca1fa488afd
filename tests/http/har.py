"""Answers in many forms, by HTTP/1.1, to whom they come from the port that is the first argument."""

import gzip
import http.server
import sys

ANSWERS = {
    "/gzip": ({"Content-Encoding": "gzip", "Content-Type": "text/plain"}, gzip.compress("grün, ".encode() * 100)),
    "/latin": ({"Content-Type": "text/html; charset=iso-8859-1"}, "grün".encode("latin-1")),
    "/utf8": ({"Content-Type": "text/plain"}, "gr\u00fcn".encode()),
    "/bytes": ({"Content-Type": "image/png"}, bytes(range(256))),
    "/more": ({"Content-Type": "application/octet-stream"}, bytes(range(128, 256))),
    "/json": ({"Content-Type": "application/json"}, '{"a": "ü"}'.encode()),
}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        sent = self.rfile.read(int(self.headers.get("content-length", 0)))
        fields, body = ANSWERS.get(self.path, ({}, b"sent " + sent))
        moved = self.path == "/moved"
        self.send_response(302 if moved else 200)
        for name, value in fields.items():
            self.send_header(name, value)
        if moved:
            self.send_header("Location", "/cookies")
            self.send_header("Set-Cookie", "a=1; Path=/")
            self.send_header("Set-Cookie", "b=2; Path=/")
        elif self.path == "/cookies":
            body = self.headers.get("cookie", "none").encode()
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)

    do_POST = do_HEAD = do_GET


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
