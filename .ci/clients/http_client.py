"""Python's http.client against the HTTP example: http_client.py HOST:PORT"""

import http.client
import os
import sys
import threading

address = sys.argv[1]


def connect():
    return http.client.HTTPConnection(address, timeout=60)


def ask(connection, *args, **kwargs):
    connection.request(*args, **kwargs)
    response = connection.getresponse()
    return response, response.read()


# Many requests of every kind on one connection.
connection = connect()
connection.connect()
port = connection.sock.getsockname()
index = open("examples/http_server/site/index.html", "rb").read()
for _ in range(20):
    response, body = ask(connection, "GET", "/")
    assert (response.status, body) == (200, index), (response.status, body)
    response, body = ask(connection, "HEAD", "/")
    assert (response.status, body) == (200, b"")
    assert int(response.headers["Content-Length"]) == len(index)
    response, body = ask(connection, "POST", "/echo", body=b"hello")
    assert (response.status, body) == (200, b"hello")
    pieces = [os.urandom(size) for size in (1, 2, 1000, 65536, 100_000)]
    response, body = ask(connection, "POST", "/echo", body=iter(pieces), encode_chunked=True,
                         headers={"Transfer-Encoding": "chunked"})
    assert (response.status, body) == (200, b"".join(pieces))
    assert response.headers["Transfer-Encoding"] == "chunked"
    response, body = ask(connection, "GET", "/missing")
    assert response.status == 404
assert connection.sock.getsockname() == port, "the connection was not kept"
connection.close()

# Many connections at once.
failures = []


def visit():
    try:
        connection = connect()
        for _ in range(20):
            body = os.urandom(10_000)
            response, echoed = ask(connection, "POST", "/echo", body=body)
            assert (response.status, echoed) == (200, body)
        connection.close()
    except Exception as error:
        failures.append(error)


threads = [threading.Thread(target=visit) for _ in range(50)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not failures, failures

# A file that is closed with the connection.
response, body = ask(connect(), "GET", "/", headers={"Connection": "close"})
assert (response.status, body, response.headers["Connection"]) == (200, index, "close")
print("http.client: ok")
