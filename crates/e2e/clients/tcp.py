#!/usr/bin/env python3
"""Plays two users of the chat through pypomelo, over TCP. Exits 0 if all was as it should be.

    tcp.py GATE_PORT        with pypomelo in PYTHONPATH

The library reads and writes messages; the socket is ours, as it asks for.
"""

import json
import socket
import sys
import time

from pypomelo.client import Client
from pypomelo.protocol import Protocol


class Player(Client):
    def __init__(self, host, port):
        super().__init__(self)
        self.answers, self.pushes, self.beats, self.ready = [], [], 0, False
        self.socket = socket.create_connection((host, port))
        self.socket.settimeout(0.05)
        self.read = b""
        self.send_sync()
        self.until(lambda: self.ready)

    def send(self, data):
        self.socket.sendall(data)

    def close(self):
        self.socket.close()

    def on_connected(self, _, user):
        self.ready = True

    def on_heartbeat(self, _):
        self.beats += 1
        self.send_heartbeat()

    def on_response(self, _, route, request, answer):
        self.answers.append(answer)

    def on_push(self, _, route, push):
        # The library fills one and the same dictionary again and again.
        self.pushes.append((route, dict(push)))

    def until(self, done, seconds=8):
        deadline = time.monotonic() + seconds
        while not done() and time.monotonic() < deadline:
            try:
                self.read += self.socket.recv(65536)
            except TimeoutError:
                pass
            while len(self.read) >= 4:
                package = Protocol.unpack(self.read[:4])
                end = 4 + package.length
                if len(self.read) < end:
                    break
                package.append(self.read[4:end])
                self.read = self.read[end:]
                self.on_protocol(package)

    def ask(self, route, **body):
        count = len(self.answers)
        self.send_request(route, body)
        self.until(lambda: len(self.answers) > count)
        return self.answers[-1]

    def enter(self, name):
        return self.ask("connector.entryHandler.enter", username=name, rid="tcp")

    def say(self, text, target):
        return self.ask("chat.chatHandler.send", content=text, target=target)


def check(what, seen, wanted):
    print("ok " if seen == wanted else "NOT", what, json.dumps(seen, ensure_ascii=False), flush=True)
    if seen != wanted:
        sys.exit(1)


def chat(text, sender, target):
    return ("onChat", {"msg": text, "from": sender, "target": target})


def main():
    gate = Player("127.0.0.1", int(sys.argv[1]))
    entry = gate.ask("gate.gateHandler.queryEntry", uid="alice")
    gate.close()
    alice, bob, double = (Player(entry["host"], entry["port"]) for _ in range(3))
    check("alice enters", alice.enter("alice"), {"users": ["alice"]})
    check("bob enters", bob.enter("鲍勃"), {"users": ["alice", "鲍勃"]})
    check("double is refused", double.enter("alice"), {"code": 500, "error": True})
    double.close()
    check("alice talks", alice.say("你好 😀", "*"), {})
    check("bob whispers", bob.say("psst", "alice"), {})
    check("bob whispers to nobody", bob.say("psst", "nobody"), {"code": 500})
    check("bob has heard", bob.pushes, [chat("你好 😀", "alice", "*")])
    bob.close()
    alice.send_heartbeat()
    alice.until(lambda: False, 7)
    check("heartbeats came", alice.beats >= 2, True)
    told = [("onAdd", {"route": "onAdd", "user": "鲍勃"}), chat("你好 😀", "alice", "*"), chat("psst", "鲍勃", "alice")]
    check("alice has heard", alice.pushes, told + [("onLeave", {"route": "onLeave", "user": "鲍勃"})])


main()
