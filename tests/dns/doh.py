"""DNS over HTTPS as an ASGI application, in front of the server of plain DNS that NAMESERVER_PORT names. Hypercorn serves it."""

import asyncio
import base64
import os
from urllib.parse import parse_qs

PORT = int(os.environ["NAMESERVER_PORT"])


async def ask(query):
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    writer.write(len(query).to_bytes(2, "big") + query)
    answer = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
    writer.close()
    return answer


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = (await receive())["type"]
            await send({"type": event + ".complete"})
            if event == "lifespan.shutdown":
                return
    body = b""
    while True:
        event = await receive()
        body += event.get("body", b"")
        if not event.get("more_body"):
            break
    fields = dict(scope["headers"])
    if scope["method"] == "GET":
        text = parse_qs(scope["query_string"].decode())["dns"][0]
        body = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    elif fields.get(b"content-type") != b"application/dns-message":
        await send({"type": "http.response.start", "status": 415, "headers": []})
        return await send({"type": "http.response.body"})
    assert body[:2] == b"\0\0" and fields[b"accept"] == b"application/dns-message"
    answer = await ask(body)
    headers = [(b"content-type", b"application/dns-message"), (b"cache-control", b"max-age=120"), (b"age", b"20")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
