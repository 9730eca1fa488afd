"""Events by sse-starlette under hypercorn, over HTTP/1.1 and HTTP/2, and with a certificate and its key over HTTP/3 too. Arguments: port,
certificate, key.

Each connection gets two of the events that it has not seen, and the last one says so by 204.
"""
import asyncio
import importlib.metadata
import sys

from hypercorn.asyncio import serve
from hypercorn.config import Config
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

LAST = 6


async def events(first):
    for number in range(first, first + 2):
        yield ServerSentEvent(data=f"line {number}\nand another", event="tick", id=str(number), retry=20, comment="a comment")


async def answer(request):
    seen = int(request.headers.get("last-event-id", "0"))
    if seen >= LAST:
        return Response(status_code=204)
    response = EventSourceResponse(events(seen + 1))
    # A field of HTTP/1.1 alone, which is malformed in HTTP/3.
    del response.headers["connection"]
    return response


config = Config()
config.bind = [f"127.0.0.1:{sys.argv[1]}"]
if len(sys.argv) > 2:
    config.certfile, config.keyfile = sys.argv[2:4]
    config.quic_bind = config.bind
print("sse-starlette " + importlib.metadata.version("sse-starlette"), flush=True)
asyncio.run(serve(Starlette(routes=[Route("/events", answer)]), config))
