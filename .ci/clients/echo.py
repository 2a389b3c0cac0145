"""A client of the echo example: echo.py HOST:PORT"""

import socket
import sys
import threading

host, port = sys.argv[1].rsplit(":", 1)
sock = socket.create_connection((host, int(port)), timeout=60)
stream = sock.makefile("rwb")

# A prompt comes back before its line has ended, except for bytes that may begin a line end.
sock.sendall(b"name: ")
assert stream.read(6) == b"name: "
sock.sendall(b"me\r")
assert stream.read(2) == b"me"
sock.sendall(b"\n\r\n\rx")
assert stream.read(5) == b"\r\n\r\n\r"
assert stream.read(1) == b"x"

sent = b"".join(b"%d\r\n" % number * 10 for number in range(100_000))
writer = threading.Thread(target=lambda: (sock.sendall(sent), sock.shutdown(socket.SHUT_WR)))
writer.start()
assert stream.read() == sent
writer.join()
print("echo: ok")
