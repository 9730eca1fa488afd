"""Echoes by the `websockets` package. Arguments: port, certificate, key (or nothing: cleartext)."""
import asyncio, ssl, sys
import websockets


async def echo(socket, *_):
    async for message in socket:
        await socket.send(message)


async def main():
    context = None
    if len(sys.argv) > 2:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[2], sys.argv[3])
        context.set_alpn_protocols(["http/1.1"])
    serve = websockets.serve(
        echo, "127.0.0.1", int(sys.argv[1]), ssl=context, subprotocols=["echo"], max_size=1 << 25, ping_interval=None
    )
    async with serve:
        await asyncio.Future()


asyncio.run(main())
