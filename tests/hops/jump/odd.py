"""An SSH server that does odd things on demand: by the host that a tunnel is asked for. usage: odd.py PORT HOSTKEY"""

import asyncio
import sys

import asyncssh


class Odd(asyncssh.SSHServer):
    def connection_made(self, conn):
        self.conn = conn
        self.asked = 0

    def connection_lost(self, error):
        print("lost", error, flush=True)

    def password_auth_supported(self):
        return True

    def validate_password(self, username, password):
        print("password from", username, flush=True)
        if username == "expired":
            raise asyncssh.PasswordChangeRequired("yours is old")
        return password == "sesame" and username == "ann"

    def kbdint_auth_supported(self):
        return True

    def get_kbdint_challenge(self, username, lang, submethods):
        if username == "many":
            return "", "", "", [("again?", True)] * 200
        return "Login", "say both", "", [("Password: ", False), ("Code: ", True)]

    def validate_kbdint_response(self, username, responses):
        self.asked += 1
        if username == "endless":
            return "", "", "", [(f"again {self.asked}? ", True)]
        if username == "empty" and self.asked == 1:
            return "", "nothing to ask", "", []
        return list(responses) == ([] if username == "empty" else ["sesame", "123456"])

    def connection_requested(self, host, port, orig_host, orig_port):
        if host == "prohibited":
            return False
        if host in ("unknown", "short", "custom"):
            code = {"unknown": 3, "short": 4, "custom": 77}[host]
            raise asyncssh.ChannelOpenError(code, "no\r\n\x1b[31mroom" + "!" * 1000)
        if host == "silent":
            return self.silent()
        if host in ("close", "abort", "opens", "keepalives"):
            return getattr(self, host)
        return True

    async def silent(self):
        await asyncio.sleep(3600)
        return True

    async def close(self, reader, writer):
        writer.write(b"bye")
        await asyncio.sleep(0.1)
        writer.channel.close()

    async def abort(self, reader, writer):
        writer.write(b"bye")
        await asyncio.sleep(0.1)
        self.conn.abort()

    async def opens(self, reader, writer):
        refused = 0
        for _ in range(50):
            try:
                await self.conn.create_connection(asyncssh.SSHTCPSession, "localhost", 1, "localhost", 2)
            except asyncssh.ChannelOpenError:
                refused += 1
        writer.write(f"refused {refused}".encode())
        writer.write_eof()

    async def keepalives(self, reader, writer):
        self.conn.set_keepalive(0.05, 3)
        await asyncio.sleep(1)
        writer.write(b"there")
        writer.write_eof()


async def main():
    await asyncssh.listen("127.0.0.1", int(sys.argv[1]), server_factory=Odd, server_host_keys=[sys.argv[2]], encoding=None)
    print("ready asyncssh", asyncssh.__version__, flush=True)
    await asyncio.sleep(10**9)


asyncio.run(main())
