"""Echoes by hypercorn over HTTP/1.1 and HTTP/2. Arguments: port, certificate, key (or nothing: cleartext)."""
import asyncio, sys
from hypercorn.asyncio import serve
from hypercorn.config import Config


async def app(scope, receive, send):
    if scope["type"] != "websocket":
        return
    while True:
        event = await receive()
        if event["type"] == "websocket.connect":
            chosen = "echo" if "echo" in scope["subprotocols"] else None
            await send({"type": "websocket.accept", "subprotocol": chosen})
        elif event["type"] == "websocket.receive":
            if event.get("text") is not None:
                await send({"type": "websocket.send", "text": event["text"]})
            else:
                await send({"type": "websocket.send", "bytes": event["bytes"]})
        elif event["type"] == "websocket.disconnect":
            return


config = Config()
config.bind = [f"127.0.0.1:{sys.argv[1]}"]
config.websocket_max_message_size = 1 << 25
config.graceful_timeout = 0.1
if len(sys.argv) > 2:
    config.certfile, config.keyfile = sys.argv[2], sys.argv[3]
asyncio.run(serve(app, config))
