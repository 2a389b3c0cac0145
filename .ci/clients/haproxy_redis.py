"""Kills one of two Redis examples behind HAProxy under load: haproxy_redis.py PROXY BACKEND_A BACKEND_B PID_OF_A

The store is in memory, so the data of the killed server is lost. This is what the script checks:

- On each connection the answers are those of its commands, complete and in order, up to where it was cut. A
  client that sends the unanswered commands again on a new connection is in the end answered all of them.
- The server that lives has executed each command that it has answered, once.
"""

import os
import signal
import socket
import sys
import threading
import time

proxy, backend_a, backend_b, pid = sys.argv[1:5]
CLIENTS, COMMANDS, PIPELINED = 16, 4000, 50
HEAD = b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n"

lock = threading.Lock()
answered = 0
cut = 0
# For each connection: its backend, and how many commands were answered and how many were sent.
connections = {}
failures = []


def connect(address, timeout=20):
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=timeout)


def ask(address, *commands):
    """Connects to a backend directly, with the header that the proxy would send."""
    with connect(address) as sock, sock.makefile("rwb") as stream:
        stream.write(HEAD + b"".join(command.encode() + b"\r\n" for command in commands))
        stream.flush()
        return [answer(stream) for _ in commands]


def answer(stream):
    line = stream.readline()
    if not line.endswith(b"\r\n"):
        raise ConnectionError("cut")
    if line.startswith(b"$") and line != b"$-1\r\n":
        line = stream.read(int(line[1:]) + 2)
        if not line.endswith(b"\r\n"):
            raise ConnectionError("cut")
    return line[:-2].decode()


def load(number):
    """Increments a key of its own on each connection. So the answers must be 1, 2, 3 and so on."""
    global answered, cut
    done, count = 0, 0
    while done < COMMANDS:
        count += 1
        key = f"client-{number}-{count}"
        got = sent = 0
        name = None
        try:
            with connect(proxy) as sock, sock.makefile("rwb") as stream:
                stream.write(b"GET name\r\n")
                stream.flush()
                name = answer(stream)
                # Clients close connections now and then, and open others.
                for _ in range(8):
                    if done >= COMMANDS:
                        break
                    batch = min(PIPELINED, COMMANDS - done)
                    sent += batch
                    stream.write(f"INCR {key}\r\n".encode() * batch)
                    stream.flush()
                    for _ in range(batch):
                        line = answer(stream)
                        got += 1
                        assert line == f":{got}", (key, got, line)
                        done += 1
                        with lock:
                            answered += 1
        except OSError:
            with lock:
                cut += 1
            time.sleep(0.01)
        finally:
            with lock:
                connections[key] = (name, got, sent)


def guarded(number):
    try:
        load(number)
    except BaseException as error:
        failures.append(error)
        raise


for backend, name in ((backend_a, "a"), (backend_b, "b")):
    assert ask(backend, f"SET name {name}", "GET name") == ["+OK", name]
# Wait until the proxy takes both servers for alive.
deadline = time.monotonic() + 60
found = set()
while found != {"a", "b"}:
    assert time.monotonic() < deadline, f"only {found} behind the proxy"
    with connect(proxy) as sock, sock.makefile("rwb") as stream:
        stream.write(b"GET name\r\n")
        stream.flush()
        found.add(answer(stream))
threads = [threading.Thread(target=guarded, args=(number,)) for number in range(CLIENTS)]
for thread in threads:
    thread.start()
deadline = time.monotonic() + 60
while answered < CLIENTS * COMMANDS // 4:
    assert time.monotonic() < deadline and not failures, f"only {answered} were answered"
    time.sleep(0.005)
os.kill(int(pid), signal.SIGKILL)
for thread in threads:
    thread.join()

assert not failures
assert answered == CLIENTS * COMMANDS, answered
names = [name for name, *_ in connections.values()]
assert cut > 0 and "a" in names and "b" in names, f"{cut} were cut, of {names}"
kept = {key: counts for key, (name, *counts) in connections.items() if name == "b"}
values = ask(backend_b, *(f"GET {key}" for key in kept))
for (key, (got, sent)), value in zip(kept.items(), values):
    held = 0 if value == "$-1" else int(value)
    assert got <= held <= sent, f"{key}: {got} answered, {held} held, {sent} sent"
print(f"haproxy_redis.py: {answered} answered in order, {cut} connections cut, {len(connections)} in all")
