#!/usr/bin/env python3
"""Drives a page of the original chat, as it is, in headless Chromium.

    page.py [--polling] [--kill] [--idle SECONDS] [PAGE]      http://127.0.0.1:3001/ if nothing is said

Two people enter, talk, whisper; a third wants a name that is taken; one leaves and comes back;
heartbeats keep them. With --polling the browser has no WebSocket. With --kill the connector of one
of them is killed in the end: the page asks for the name again, and they meet again elsewhere.
Needs Python's selenium, and Debian's chromium and chromium-driver; --kill needs Linux's ss.
Exits 0 if all was as it should be.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

WORDS = argparse.ArgumentParser()
WORDS.add_argument("page", nargs="?", default="http://127.0.0.1:3001/")
WORDS.add_argument("--polling", action="store_true")
WORDS.add_argument("--kill", action="store_true")
WORDS.add_argument("--idle", type=float, default=8, help="seconds that heartbeats have to bridge")
WORDS = WORDS.parse_args()
PATIENCE = 20
# Of its own: names of a run before are taken for a while.
ROOM = f"lobby{os.getpid()}"

STATE = """
const shown = (id) => getComputedStyle(document.getElementById(id)).display !== 'none';
return {
  login: shown('loginView'),
  error: document.getElementById('loginError').textContent.trim(),
  users: [...document.querySelectorAll('#usersList option')].map((option) => option.value),
  said: [...document.querySelectorAll('#chatHistory table')]
    .map((line) => line.textContent.replace(/\\s+/g, ' ').trim().replace(/^\\d\\d:\\d\\d /, '')),
  tip: document.getElementById('popIntro').textContent.trim(),
};
"""


class Person:
    """One person at one page, in a browser of their own."""

    def __init__(self, name):
        self.name = name
        self.ways = Counter()
        self.port = None
        options = Options()
        options.binary_location = shutil.which("chromium")
        options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
        for argument in ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]:
            options.add_argument(argument)
        self.driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        if WORDS.polling:
            gone = {"source": "delete window.WebSocket"}
            self.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", gone)
        self.driver.get(WORDS.page)
        self.enter()

    def enter(self):
        for field, text in (("loginUser", self.name), ("channelList", ROOM)):
            element = self.driver.find_element(By.ID, field)
            element.clear()
            element.send_keys(text)
        self.driver.find_element(By.ID, "login").click()

    def say(self, text, target="*"):
        """Types the text; the driver's keyboard has no emoji, so that the field is filled."""
        fill = "document.getElementById('usersList').value = arguments[0];"
        fill += "document.getElementById('entry').value = arguments[1]"
        self.driver.execute_script(fill, target, text)
        self.driver.find_element(By.ID, "entry").send_keys(Keys.ENTER)

    def state(self):
        return self.driver.execute_script(STATE)

    def expect(self, what, again=None, **wanted):
        deadline = time.monotonic() + PATIENCE
        tried = time.monotonic()
        while True:
            state = self.state()
            if all(state[key] == value for key, value in wanted.items()):
                print(f"ok  {self.name}: {what}", flush=True)
                return
            if time.monotonic() > deadline:
                sys.exit(f"NOT {self.name}: {what}\n    wanted {wanted}\n    saw    {state}")
            time.sleep(0.05)
            if again and time.monotonic() > tried + 3:
                tried = time.monotonic()
                again()

    def look(self):
        """Notes how the browser has spoken with gate and connector, as it saw it itself."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.webSocketCreated":
                way, url = "WebSocket", urlsplit(message["params"]["url"])
            elif message["method"] == "Network.requestWillBeSent":
                request = message["params"]["request"]
                way, url = request["method"], urlsplit(request["url"])
                if not url.path.startswith("/socket.io/"):
                    continue
            else:
                continue
            self.ways[f"{way} {'/'.join(url.path.split('/')[:4])}"] += 1
            self.port = url.port

    def close(self):
        self.driver.quit()


def meet(people):
    alice = Person("alice")
    people.append(alice)
    alice.expect("enters", login=False, users=["*", "alice"])
    bob = Person("鲍勃")
    people.append(bob)
    bob.expect("enters", login=False, users=["*", "alice", "鲍勃"])
    alice.expect("is told of him", users=["*", "alice", "鲍勃"], tip="鲍勃 is online now.")

    alice.say("hello everyone, 你好 😀 <b>")
    said = ["alice says to all: hello everyone, 你好 😀 <b>"]
    for person in (alice, bob):
        person.expect("sees a message to all", said=said)
    bob.say("only for you", "alice")
    said += ["鲍勃 says to alice: only for you"]
    for person in (alice, bob):
        person.expect("sees a whisper", said=said)

    double = Person("alice")
    people.append(double)
    double.expect("is refused a name that is taken", login=True, error="Please change your name to login.")

    bob.close()
    people.remove(bob)
    alice.expect("is told that he left", users=["*", "alice"], tip="鲍勃 is offline now.")
    bob = Person("鲍勃")
    people.append(bob)
    bob.expect("comes back", login=False, users=["*", "alice", "鲍勃"])
    bob.say("again")
    said += ["鲍勃 says to all: again"]
    alice.expect("hears him again", said=said)
    time.sleep(WORDS.idle)
    alice.say("still here")
    said += ["alice says to all: still here"]
    bob.expect("hears her after some heartbeats", said=[said[-2], said[-1]])
    return alice, bob, said


def lose_connector(alice, bob, said):
    alice.look()
    found = subprocess.check_output(["ss", "-Hltnp", f"sport = :{alice.port}"], text=True)
    os.kill(int(re.search(r"pid=(\d+)", found)[1]), signal.SIGKILL)
    alice.expect("is asked for the name again", login=True)
    # The gate still sends people there until it has noticed; then the names are taken until the
    # room has given them up. The pages leave trying again to the people.
    alice.enter()
    alice.expect("is in again", again=alice.enter, login=False)
    if bob.state()["login"]:
        bob.enter()
        bob.expect("is in again, too", again=bob.enter, login=False)
    bob.say("did you fall?")
    alice.expect("hears him", said=said + ["鲍勃 says to all: did you fall?"])


def main():
    people = []
    try:
        alice, bob, said = meet(people)
        if WORDS.kill:
            lose_connector(alice, bob, said)
        alice.look()
        print("    " + ", ".join(f"{count}x {way}" for way, count in alice.ways.items()))
    finally:
        for person in people:
            person.close()


main()
