"""Checks AWS signatures with botocore's own signer: 200 and the decoded body for a good one, 403 and what botocore signs otherwise.

signing.py PORT: the path's first segment names the service, the rest is signed as it came.
"""

import hashlib
import hmac
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

KEYS = {"AKID": ("secret", None), "ASIA": ("other", "token/+=")}


class Refused(Exception):
    pass


def need(good, why):
    if not good:
        raise Refused(why)


def signer(credential, date):
    name, day, region, service, end = credential.split("/")
    need(end == "aws4_request" and date.startswith(day), "scope")
    secret, token = KEYS[name]
    auth = (S3SigV4Auth if service == "s3" else SigV4Auth)(Credentials(name, secret, token), service, region)
    return auth, token


def expect(auth, request, date, signature):
    request.context["timestamp"] = date
    canonical = auth.canonical_request(request)
    text = auth.string_to_sign(request, canonical)
    need(hmac.compare_digest(auth.signature(text, request), signature), canonical)


def chunks(auth, date, previous, body, trailer):
    """Undoes aws-chunked, whose signatures are the documented chain."""
    day = date[:8]
    key = ("AWS4" + auth.credentials.secret_key).encode()
    for part in (day, auth._region_name, auth._service_name, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    scope = "/".join((day, auth._region_name, auth._service_name, "aws4_request"))
    empty = hashlib.sha256(b"").hexdigest()
    out = b""
    while True:
        head, body = body.split(b"\r\n", 1)
        size, signature = head.decode().split(";chunk-signature=")
        size = int(size, 16)
        data, body = body[:size], body[size:]
        lines = ["AWS4-HMAC-SHA256-PAYLOAD", date, scope, previous, empty, hashlib.sha256(data).hexdigest()]
        previous = hmac.new(key, "\n".join(lines).encode(), hashlib.sha256).hexdigest()
        need(previous == signature, "chunk of %d" % size)
        if size == 0:
            break
        need(body[:2] == b"\r\n", "end of a chunk")
        out, body = out + data, body[2:]
    if trailer:
        line, signed, end, rest = body.split(b"\r\n")
        need(end == rest == b"" and line.startswith(trailer.encode() + b":"), "trailer")
        lines = ["AWS4-HMAC-SHA256-TRAILER", date, scope, previous, hashlib.sha256(line + b"\n").hexdigest()]
        expected = hmac.new(key, "\n".join(lines).encode(), hashlib.sha256).hexdigest()
        need(signed.decode() == "x-amz-trailer-signature:" + expected, "signature of the trailer")
    else:
        need(body == b"\r\n", "end of the chunks")
    return out


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def check(self, body):
        url = "http://" + self.headers["host"] + self.path
        query = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
        if "X-Amz-Signature" in query:
            date, names = query["X-Amz-Date"], query["X-Amz-SignedHeaders"].split(";")
            auth, token = signer(query["X-Amz-Credential"], date)
            need(query.get("X-Amz-Security-Token") == token, "token")
            url, signature = url.rsplit("&X-Amz-Signature=", 1)
            request = AWSRequest(self.command, url, self.signed(names))
            if isinstance(auth, S3SigV4Auth):
                auth.payload = lambda request: "UNSIGNED-PAYLOAD"
            expect(auth, request, date, signature)
            return body
        scheme, rest = self.headers["authorization"].split(" ", 1)
        need(scheme == "AWS4-HMAC-SHA256", "scheme")
        said = dict(pair.split("=", 1) for pair in rest.split(", "))
        date, names = self.headers["x-amz-date"], said["SignedHeaders"].split(";")
        auth, token = signer(said["Credential"], date)
        need(self.headers["x-amz-security-token"] == token, "token")
        request = AWSRequest(self.command, url, self.signed(names), data=body)
        payload = self.headers["x-amz-content-sha256"] or hashlib.sha256(body).hexdigest()
        if len(payload) == 64:
            need(payload == hashlib.sha256(body).hexdigest(), "payload")
        auth.payload = lambda request: payload
        expect(auth, request, date, said["Signature"])
        if payload.startswith("STREAMING-"):
            body = chunks(auth, date, said["Signature"], body, self.headers["x-amz-trailer"])
            need(len(body) == int(self.headers["x-amz-decoded-content-length"]), "decoded length")
        return body

    def signed(self, names):
        fields = {}
        need("host" in names, "host is not signed")
        for name in names:
            need(self.headers[name] is not None, "signed and not sent: " + name)
            if name != "host":
                fields[name] = ",".join(" ".join(value.split()) for value in self.headers.get_all(name))
        return fields

    def answer(self):
        body = self.rfile.read(int(self.headers["content-length"] or 0))
        try:
            status, text = 200, self.check(body)
        except Refused as error:
            status, text = 403, str(error).encode()
        except Exception as error:
            status, text = 400, repr(error).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_PUT = do_POST = do_DELETE = answer


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
