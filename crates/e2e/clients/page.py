#!/usr/bin/env python3
"""Drives the page of the original chat, as it is, in headless Chromium.

    page.py [PAGE]              http://127.0.0.1:3001/ if nothing is said

Two people enter, talk, whisper; a third wants a name that is taken; one leaves and comes back.
Needs Python's selenium, and Debian's chromium and chromium-driver. Exits 0 if all was as it
should be.
"""

import shutil
import sys
import time

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

PAGE = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:3001/"
PATIENCE = 20

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

    def __init__(self, name, room="lobby"):
        self.name = name
        options = Options()
        options.binary_location = shutil.which("chromium")
        for argument in ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]:
            options.add_argument(argument)
        self.driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        self.enter(room)

    def enter(self, room):
        self.driver.get(PAGE)
        for field, text in (("loginUser", self.name), ("channelList", room)):
            element = self.driver.find_element(By.ID, field)
            element.clear()
            element.send_keys(text)
        self.driver.find_element(By.ID, "login").click()

    def say(self, text, target="*"):
        choose = "document.getElementById('usersList').value = arguments[0]"
        self.driver.execute_script(choose, target)
        self.driver.find_element(By.ID, "entry").send_keys(text + Keys.ENTER)

    def state(self):
        return self.driver.execute_script(STATE)

    def expect(self, what, **wanted):
        deadline = time.monotonic() + PATIENCE
        while True:
            state = self.state()
            if all(state[key] == value for key, value in wanted.items()):
                print(f"ok  {self.name}: {what}")
                return
            if time.monotonic() > deadline:
                sys.exit(f"NOT {self.name}: {what}\n    wanted {wanted}\n    saw    {state}")
            time.sleep(0.05)

    def close(self):
        self.driver.quit()


def main():
    people = []
    try:
        alice = Person("alice")
        people.append(alice)
        alice.expect("enters", login=False, users=["*", "alice"])
        bob = Person("bob")
        people.append(bob)
        bob.expect("enters", login=False, users=["*", "alice", "bob"])
        alice.expect("is told of bob", users=["*", "alice", "bob"], tip="bob is online now.")

        alice.say("hello everyone, 你好 <b>")
        said = ["alice says to all: hello everyone, 你好 <b>"]
        for person in (alice, bob):
            person.expect("sees a message to all", said=said)
        bob.say("only for you", "alice")
        said += ["bob says to alice: only for you"]
        for person in (alice, bob):
            person.expect("sees a whisper", said=said)

        double = Person("alice")
        people.append(double)
        double.expect("is refused a name that is taken", login=True, error="Please change your name to login.")

        bob.close()
        people.remove(bob)
        alice.expect("is told that bob left", users=["*", "alice"], tip="bob is offline now.")
        bob = Person("bob")
        people.append(bob)
        bob.expect("comes back", login=False, users=["*", "alice", "bob"])
        bob.say("again")
        said += ["bob says to all: again"]
        alice.expect("hears bob again", said=said)
        # Heartbeats keep both in the room.
        time.sleep(8)
        alice.say("still here")
        bob.expect("hears alice after some heartbeats", said=["bob says to all: again", "alice says to all: still here"])
    finally:
        for person in people:
            person.close()


main()
