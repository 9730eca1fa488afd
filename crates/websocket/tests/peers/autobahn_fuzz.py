"""The fuzzing server of the Autobahn suite. Arguments: port, folder for the suite.

The suite (autobahntestsuite 25.10.1) is written in Python 2, so its cases are translated into the folder (lib2to3), and driven
from here by the server of autobahn 21.3.1. Its text literals hold bytes: they are sent and compared as latin-1.

/count gives the number of cases; /run?case=N runs one, counted from 1; /result?case=N gives id, verdict and its closing.
"""
import json, os, re, shutil, subprocess, sys

port, folder = int(sys.argv[1]), sys.argv[2]
import importlib.util

source = os.path.dirname(importlib.util.find_spec("autobahntestsuite").origin)
target = os.path.join(folder, "suite", "autobahntestsuite")
shutil.copytree(source, target)
subprocess.run(
    [sys.executable, "-W", "ignore", "-m", "lib2to3", "-w", "-n", "--no-diffs", os.path.join(target, "case")],
    check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
)
# What was typed beyond ASCII was bytes of UTF-8.
for name in os.listdir(os.path.join(target, "case")):
    path = os.path.join(target, "case", name)
    if name.endswith(".py"):
        text = re.sub(rb"[\x80-\xff]", lambda found: b"\\x%02x" % found[0][0], open(path, "rb").read())
        text = re.sub(rb"\(object, *Case\b", b"(Case", text)
        text = text.replace(b"len(self.payload) / ", b"len(self.payload) // ")
        # The compression's parameters were renamed since.
        names = rb"\b(request|accept)?([nN]oContextTakeover|[mM]axWindowBits)\b"
        text = re.sub(names, lambda found: re.sub(rb"(?<=[a-z])([A-Z])", rb"_\1", found[0]).lower(), text)
        open(path, "wb").write(text)
# The package's own beginning starts a command-line tool.
open(os.path.join(target, "__init__.py"), "w").close()
sys.path.insert(0, os.path.join(folder, "suite"))

import zope.interface

zope.interface.implements = lambda *_: None
import binascii

hexed = binascii.b2a_hex
binascii.b2a_hex = lambda value: hexed(value.encode("latin-1")).decode() if isinstance(value, str) else hexed(value)
from twisted.internet import reactor
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.protocol import WebSocketProtocol
from autobahn.websocket.utf8validator import Utf8Validator

validate = Utf8Validator.validate
Utf8Validator.validate = lambda self, text: validate(self, octets(text))


def octets(value):
    return value.encode("latin-1") if isinstance(value, str) else bytes(value)


from autobahntestsuite.case import Cases
from autobahntestsuite.case.case import Case

# Groups 12 and 13 send a thousand messages of each size, which would take an hour.
COUNT = 10
chosen = []
for case in Cases:
    if hasattr(case, "COUNT"):
        case.COUNT = min(case.COUNT, COUNT)
    chosen.append(case)
results = {}


def plain(events):
    return [tuple(octets(part) if isinstance(part, (str, bytes, bytearray)) else part for part in event) for event in events]


def compare(self, seen, expected):
    return plain(seen) == plain(expected)


Case.compare = compare


class Fuzzing(WebSocketServerProtocol):
    run = None
    createWirelog = False

    def onConnect(self, request):
        self.path = request.path
        index = int(request.params.get("case", ["0"])[0])
        self.index = index
        if self.path == "/run":
            self.connectionWasOpen = False
            self.failedByMe = self.droppedByMe = False
            self.txFrameStats, self.rxFrameStats = {}, {}
            self.run = chosen[index - 1](self)

    def onOpen(self):
        self.connectionWasOpen = True
        if self.run:
            self.run.onOpen()
            return
        if self.path == "/count":
            super().sendMessage(json.dumps(len(chosen)).encode(), False)
        elif self.path == "/result":
            return self.tell(300)
        self.sendClose(1000)

    def tell(self, turns):
        # The connection of the case may not be known to have ended yet.
        if self.index not in results and turns:
            return reactor.callLater(0.1, self.tell, turns - 1)
        super().sendMessage(json.dumps(results.get(self.index)).encode(), False)
        self.sendClose(1000)

    def onMessage(self, payload, binary):
        if self.run:
            self.run.onMessage(payload, binary)

    def onPing(self, payload):
        if self.run:
            self.run.onPing(payload)
        super().onPing(payload)

    def onPong(self, payload):
        if self.run:
            self.run.onPong(payload)

    def onClose(self, clean, code, reason):
        if self.run:
            self.run.onClose(clean, code, reason)

    def connectionLost(self, reason):
        super().connectionLost(reason)
        if self.run:
            run, self.run = self.run, None
            run.onConnectionLost(self.failedByMe)
            name = type(run).__name__[4:].replace("_", ".")
            detail = "" if run.behavior == Case.OK else repr((plain(run.received), run.expected, run.result))[:300]
            results[self.index] = [name, run.behavior, run.behaviorClose, run.resultClose, detail]

    def sendFrame(self, opcode, payload=b"", **options):
        if self.run:
            self.txFrameStats[opcode] = self.txFrameStats.get(opcode, 0) + 1
        super().sendFrame(opcode, octets(payload), **options)

    def sendMessage(self, payload, isBinary=False, *args, **options):
        super().sendMessage(octets(payload), isBinary, *args, **options)

    def sendMessageFrameData(self, payload, *args, **options):
        return super().sendMessageFrameData(octets(payload), *args, **options)

    def beginMessage(self, opcode=1, **options):
        super().beginMessage(isBinary=opcode == 2)

    def sendCloseFrame(self, code=None, reasonUtf8=None, isReply=False, **options):
        super().sendCloseFrame(code, None if reasonUtf8 is None else octets(reasonUtf8), isReply)

    def continueLater(self, delay, work, tag=None):
        reactor.callLater(delay, lambda: work() if self.state != WebSocketProtocol.STATE_CLOSED else None)

    def killAfter(self, delay):
        self.continueLater(delay, lambda: self._fail_connection())

    def closeAfter(self, delay):
        self.continueLater(delay, lambda: self.sendClose())

    def enableWirelog(self, _):
        pass


for name, value in {"CLOSE_STATUS_CODE_INVALID_PAYLOAD": 1007, "CLOSE_STATUS_CODE_NORMAL": 1000}.items():
    if not hasattr(Fuzzing, name):
        setattr(Fuzzing, name, value)
factory = WebSocketServerFactory(f"ws://127.0.0.1:{port}")
factory.protocol = Fuzzing
factory.setProtocolOptions(failByDrop=False, openHandshakeTimeout=30, closeHandshakeTimeout=30)
reactor.listenTCP(port, factory, interface="127.0.0.1")
reactor.run()
