"""Clients that hold their connections with as little as they can: slow.py HOST:PORT

They must be let go after the times that examples/http_server/connection.rs states, while others are
served as usual.
"""

import socket
import sys
import threading
import time

host, port = sys.argv[1].rsplit(":", 1)
failures = []


def connect():
    return socket.create_connection((host, int(port)), timeout=90)


def trickle(name, start, then, status, seconds):
    """Sends a byte a second until the server closes the connection."""
    try:
        begun = time.monotonic()
        sock = connect()
        sock.sendall(start)
        sock.settimeout(1)
        answer = b""
        while True:
            try:
                data = sock.recv(1000)
                if not data:
                    break
                answer += data
            except TimeoutError:
                sock.sendall(then)
            except ConnectionResetError:
                break
        took = time.monotonic() - begun
        assert answer.startswith(status), answer
        assert took < seconds, f"held for {took:.0f} s"
    except Exception as error:
        failures.append((name, error))


def refuse_to_read():
    """Pipelines requests, and never reads an answer."""
    try:
        begun = time.monotonic()
        sock = connect()
        request = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n" + b"x" * 60000
        sent = 0
        try:
            while time.monotonic() - begun < 80:
                sent += sock.send(request)
        except (ConnectionResetError, BrokenPipeError, TimeoutError):
            pass
        took = time.monotonic() - begun
        # The kernel may buffer a part of this. The server must not buffer more, and so stops reading.
        assert sent < 64 << 20, f"{sent} bytes were taken without an answer read"
        assert took < 60, f"held for {took:.0f} s"
    except Exception as error:
        failures.append(("no reader", error))


post = b"POST /echo HTTP/1.1\r\nHost: a\r\n"
clients = [
    ("silent", b"", b"", b"", 45),
    ("head", b"GET / HTTP/1.1\r\nHost: a\r\n", b"X: y\r\n", b"HTTP/1.1 408 ", 25),
    ("silent body", post + b"Content-Length: 9\r\n\r\n", b"", b"HTTP/1.1 408 ", 35),
    # The answer has begun, so the server can only cut it off.
    ("body", post + b"Content-Length: 99999\r\n\r\n", b"x", b"HTTP/1.1 200 ", 35),
    ("chunks", post + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", b"HTTP/1.1 200 ", 35),
    ("skipped body", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\n\r\n", b"x",
     b"HTTP/1.1 200 ", 35),
]
threads = [threading.Thread(target=refuse_to_read)]
threads += [threading.Thread(target=trickle, args=client) for client in clients]
threads += [threading.Thread(target=trickle, args=clients[1]) for _ in range(200)]
for thread in threads:
    thread.start()
while any(thread.is_alive() for thread in threads):
    sock = connect()
    sock.sendall(post + b"Content-Length: 5\r\nConnection: close\r\n\r\nhello")
    answer = b""
    while data := sock.recv(1000):
        answer += data
    assert answer.endswith(b"\r\n\r\nhello"), answer
    time.sleep(0.5)
assert not failures, failures
print("slow clients: ok")
