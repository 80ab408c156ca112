#!/usr/bin/env python3
"""Plays two users of the chat through Python's clients of Socket.IO, as a Pomelo client would.

    sio.py GATE_PORT LIBRARY TRANSPORT

LIBRARY is `socketIO_client` (0.5.6: Socket.IO 0.9, with websocket, xhr-polling or jsonp-polling;
0.7.2: Socket.IO 1, with websocket or xhr-polling) or `socketio` (python-socketio 4: Socket.IO 1,
with websocket or polling). Exits 0 if all was as it should be.
"""

import importlib
import json
import os
import sys
import time

PORT, LIBRARY, TRANSPORT = int(sys.argv[1]), sys.argv[2], sys.argv[3]

# That library reads an answer by script as Latin-1.
TEXT, BOB = ("hello", "bob") if TRANSPORT == "jsonp-polling" else ("你好 😀", "鲍勃")


def pack(number, route, body):
    """Pomelo's message for Socket.IO: four bytes of number, one of length, as characters."""
    head = "".join(map(chr, number.to_bytes(4, "big"))) + chr(len(route))
    return head + route + json.dumps(body)


class Client:
    def __init__(self, host, port):
        self.answers, self.pushes, self.number = {}, [], 0
        library = importlib.import_module(LIBRARY)
        if LIBRARY == "socketio":
            self.io = library.Client(reconnection=False)
            self.io.on("message", self.heard)
            self.io.connect(f"http://{host}:{port}", transports=[TRANSPORT])
        else:
            heard = {"on_message": lambda _, text: self.heard(text)}
            space = type("Namespace", (library.BaseNamespace,), heard)
            self.io = library.SocketIO(host, port, space, transports=[TRANSPORT])

    def heard(self, text):
        if isinstance(text, bytes):
            return  # An older library's own layer hears the whole packet, too.
        told = json.loads(text) if isinstance(text, str) else text
        for one in told if isinstance(told, list) else [told]:
            if "id" in one:
                self.answers[one["id"]] = one["body"]
            else:
                self.pushes.append(one.get("body", one))

    def pause(self, seconds=0.1):
        time.sleep(seconds) if LIBRARY == "socketio" else self.io.wait(seconds=seconds)

    def ask(self, route, **body):
        self.number += 1
        text = pack(self.number, route, body)
        if LIBRARY == "socketio":
            self.io.emit("message", text)
        else:
            getattr(self.io, "message" if hasattr(self.io, "message") else "send")(text)
        deadline = time.monotonic() + 8
        while self.number not in self.answers and time.monotonic() < deadline:
            self.pause()
        return self.answers.get(self.number)

    def enter(self, name):
        return self.ask("connector.entryHandler.enter", username=name, rid=f"{LIBRARY}{os.getpid()}")

    def say(self, text, target):
        return self.ask("chat.chatHandler.send", content=text, target=target)


def check(what, seen, wanted):
    print("ok " if seen == wanted else "NOT", what, json.dumps(seen, ensure_ascii=False), flush=True)
    if seen != wanted:
        os._exit(1)


def chat(text, sender, target):
    return {"route": "onChat", "msg": text, "from": sender, "target": target}


def main():
    gate = Client("127.0.0.1", PORT)
    entry = gate.ask("gate.gateHandler.queryEntry", uid="alice")
    gate.io.disconnect()
    alice, bob, double = (Client(entry["host"], entry["port"]) for _ in range(3))
    check("alice enters", alice.enter("alice"), {"users": ["alice"]})
    check("bob enters", bob.enter(BOB), {"users": ["alice", BOB]})
    check("double is refused", double.enter("alice"), {"code": 500, "error": True})
    check("alice talks", alice.say(TEXT, "*"), {})
    check("bob whispers", bob.say("psst", "alice"), {})
    check("bob whispers to nobody", bob.say("psst", "nobody"), {"code": 500})
    bob.pause(0.5)
    check("bob has heard", bob.pushes, [chat(TEXT, "alice", "*")])
    bob.io.disconnect()
    alice.pause(1)
    told = [{"route": "onAdd", "user": BOB}, chat(TEXT, "alice", "*"), chat("psst", BOB, "alice")]
    check("alice has heard", alice.pushes, told + [{"route": "onLeave", "user": BOB}])
    # Threads of a library that wait for the next packet would keep the process.
    os._exit(0)


main()
