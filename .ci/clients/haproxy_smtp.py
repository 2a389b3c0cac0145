"""Kills one of two SMTP examples behind HAProxy under load: haproxy_smtp.py PROXY PROXY_V1 MAILDIR_A MAILDIR_B PID_OF_A

Each client sends each of its messages until it is answered 250. Then each message must be complete in one of the
Maildirs, and only messages that were sent again may be there twice.
"""

import os
import random
import re
import signal
import smtplib
import sys
import threading
import time

proxy, proxy_v1, maildir_a, maildir_b, pid = sys.argv[1:6]
CLIENTS, MESSAGES = 16, 60

lock = threading.Lock()
answered = []
again = set()
failures = []


def text(name):
    lines = random.Random(name).choice((0, 1, 10, 1000))
    return f"X-Name: {name}\r\n\r\n" + f".{name} 0123456789\r\n" * lines


def connect(address, number):
    # Each client has an address of its own, which the server learns only from the proxy.
    return smtplib.SMTP(*address.rsplit(":", 1), timeout=20, source_address=(f"127.0.1.{number + 1}", 0))


def load(number):
    waiting = [f"proxied-{number}-{count}" for count in range(MESSAGES)]
    while waiting:
        name = None
        try:
            with connect(proxy, number) as client:
                # Some messages on each connection.
                for _ in range(5):
                    if not waiting:
                        break
                    name = waiting[0]
                    client.sendmail(f"{name}@example.org", "you@example.org", text(name))
                    with lock:
                        answered.append(name)
                    del waiting[0]
                    name = None
        except (OSError, smtplib.SMTPException):
            if name:
                with lock:
                    again.add(name)
            time.sleep(0.01)


def guarded(number):
    try:
        load(number)
    except BaseException as error:
        failures.append(error)
        raise


threads = [threading.Thread(target=guarded, args=(number,)) for number in range(CLIENTS)]
for thread in threads:
    thread.start()
deadline = time.monotonic() + 120
while len(answered) < CLIENTS * MESSAGES // 3:
    assert time.monotonic() < deadline and not failures, f"only {len(answered)} were answered"
    time.sleep(0.005)
os.kill(int(pid), signal.SIGKILL)
for thread in threads:
    thread.join()
assert not failures

arrived = {}
for maildir in (maildir_a, maildir_b):
    directory = os.path.join(maildir, "new")
    entries = os.listdir(directory)
    assert entries, f"nothing in {maildir}"
    for entry in entries:
        with open(os.path.join(directory, entry), newline="") as file:
            data = file.read()
        name = re.search(r"^X-Name: (.*)\r$", data, re.M)[1]
        assert data.endswith("+0000\r\n" + text(name)), f"{name} is not whole"
        client = int(name.split("-")[1])
        assert f"([127.0.1.{client + 1}]) by [127.0.0.1]" in data, f"{name} is from somebody else"
        arrived[name] = arrived.get(name, 0) + 1
lost = set(answered) - set(arrived)
assert not lost, f"answered and lost: {lost}"
assert len(answered) == len(set(answered)) == CLIENTS * MESSAGES
twice = {name for name, times in arrived.items() if times > 1}
assert twice <= again, f"there twice, and sent once: {twice - again}"
assert again, "nothing was cut"

# The same by version 1 of the PROXY protocol.
with connect(proxy_v1, 99) as client:
    client.sendmail("v1@example.org", "you@example.org", text("version-1"))
new = os.path.join(maildir_b, "new")
texts = [open(os.path.join(new, entry), newline="").read() for entry in os.listdir(new)]
[message] = [message for message in texts if "X-Name: version-1\r\n" in message]
assert "([127.0.1.100]) by [127.0.0.1]" in message, message
print(f"haproxy_smtp.py: {len(answered)} answered, all there; {len(again)} sent again, {len(twice)} there twice")
