"""Echoes by aiohttp, which demands a cookie on /private. Argument: port."""
import sys
from aiohttp import WSMsgType, web


async def echo(request):
    socket = web.WebSocketResponse(protocols=["echo"], max_msg_size=1 << 25, autoping=True)
    await socket.prepare(request)
    async for message in socket:
        if message.type == WSMsgType.TEXT:
            await socket.send_str(message.data)
        elif message.type == WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket


async def private(request):
    if request.cookies.get("pass") != "yes":
        raise web.HTTPUnauthorized(headers={"WWW-Authenticate": "Cookie"}, text="no cookie")
    return await echo(request)


async def moved(request):
    raise web.HTTPFound("/")


app = web.Application()
app.add_routes([web.get("/", echo), web.get("/private", private), web.get("/moved", moved)])
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
