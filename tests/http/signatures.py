"""Verifies HTTP Message Signatures with http-message-signatures, and signs its answers, bound to the request.

signatures.py PORT FOLDER: makes a key for each algorithm there; `keyid` names the algorithm, the path what is done wrong.
"""

import sys
from http.client import HTTPMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography.hazmat.primitives import serialization as ser
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from http_message_signatures import HTTPMessageSigner, HTTPMessageVerifier, HTTPSignatureKeyResolver, algorithms

FOLDER = Path(sys.argv[2])
SECRET = b"a secret of both"
ALGORITHMS = {
    "rsa-pss-sha512": algorithms.RSA_PSS_SHA512,
    "rsa-v1_5-sha256": algorithms.RSA_V1_5_SHA256,
    "hmac-sha256": algorithms.HMAC_SHA256,
    "ecdsa-p256-sha256": algorithms.ECDSA_P256_SHA256,
    "ecdsa-p384-sha384": algorithms.ECDSA_P384_SHA384,
    "ed25519": algorithms.ED25519,
}


def made():
    shared = rsa.generate_private_key(65537, 2048)
    yield "rsa-pss-sha512", shared
    yield "rsa-v1_5-sha256", shared
    yield "ecdsa-p256-sha256", ec.generate_private_key(ec.SECP256R1())
    yield "ecdsa-p384-sha384", ec.generate_private_key(ec.SECP384R1())
    yield "ed25519", ed25519.Ed25519PrivateKey.generate()


KEYS = dict(made())
for name, key in KEYS.items():
    private = key.private_bytes(ser.Encoding.PEM, ser.PrivateFormat.PKCS8, ser.NoEncryption())
    public = key.public_key().public_bytes(ser.Encoding.PEM, ser.PublicFormat.SubjectPublicKeyInfo)
    (FOLDER / (name + ".key")).write_bytes(private)
    (FOLDER / (name + ".pub")).write_bytes(public)


class Resolver(HTTPSignatureKeyResolver):
    def resolve_public_key(self, key_id):
        return SECRET if key_id == "hmac-sha256" else KEYS[key_id].public_key()

    def resolve_private_key(self, key_id):
        return SECRET if key_id == "hmac-sha256" else KEYS[key_id]


class Message:
    pass


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self):
        body = self.rfile.read(int(self.headers["content-length"] or 0))
        request = Message()
        request.method, request.url = self.command, "http://" + self.headers["host"] + self.path
        request.headers = self.headers
        name = self.headers["x-algorithm"]
        wrong = self.path.rpartition("/")[2].partition("?")[0]
        try:
            verifier = HTTPMessageVerifier(signature_algorithm=ALGORITHMS[name], key_resolver=Resolver())
            results = verifier.verify(request, require_components=["@method", "@target-uri"], body=body)
            status, text = 200, ("%d " % len(results[0].covered_components)).encode() + body
        except Exception as error:
            status, text = 403, repr(error).encode()
        response = Message()
        response.status_code, response.headers, response.request = status, HTTPMessage(), request
        response.headers["content-type"] = "text/plain"
        if status == 200 and wrong != "unsigned":
            signer = HTTPMessageSigner(signature_algorithm=ALGORITHMS[name], key_resolver=Resolver())
            covered = ["@status", "content-type", '"@method";req', '"@target-uri";req', '"signature";key="sig1";req']
            signer.sign(response, key_id=name, label="answer", tag="answers", covered_component_ids=covered, body=text)
        if wrong == "changed":
            text = text[:-1] + b"!"
        if wrong == "other":
            status = 201
        self.send_response(status)
        for field, value in response.headers.items():
            self.send_header(field, value)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_PUT = do_POST = do_DELETE = answer


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
