"""Kills the SMTP example while it is given mail: smtp_kill.py HOST:PORT MAILDIR PID ROUND

Each message that was answered 250 must be in the Maildir, and each that is there must be whole.
"""

import os
import random
import re
import signal
import smtplib
import sys
import threading
import time

address, maildir, pid, turn = sys.argv[1:5]
answered = []
lock = threading.Lock()


def text(name):
    lines = random.Random(name).choice((0, 1, 10, 1000, 20_000))
    return f"X-Name: {name}\r\n\r\n" + f".{name} 0123456789\r\n" * lines


def load(number):
    try:
        with smtplib.SMTP(*address.rsplit(":", 1), timeout=60) as client:
            for count in range(1_000_000):
                name = f"kill-{turn}-{number}-{count}"
                client.sendmail("me@example.org", "you@example.org", text(name))
                with lock:
                    answered.append(name)
    except (OSError, smtplib.SMTPException):
        pass


def count():
    with lock:
        return len(answered)


threads = [threading.Thread(target=load, args=(number,)) for number in range(16)]
for thread in threads:
    thread.start()
deadline = time.monotonic() + 30
while count() < 200:
    assert time.monotonic() < deadline, "too little was answered"
    time.sleep(0.01)
os.kill(int(pid), signal.SIGKILL)
for thread in threads:
    thread.join()

arrived = set()
for entry in os.listdir(os.path.join(maildir, "new")):
    with open(os.path.join(maildir, "new", entry), newline="") as file:
        data = file.read()
    name = re.search(r"^X-Name: (.*)\r$", data, re.M)[1]
    assert data.endswith("+0000\r\n" + text(name)), f"{name} is not whole"
    assert name not in arrived, f"{name} is there twice"
    arrived.add(name)
lost = set(answered) - arrived
assert not lost, f"answered and lost: {lost}"
print(f"smtp_kill.py: {len(answered)} answered, all of them there after the kill")
