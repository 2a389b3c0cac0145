"""What ftp.sh measures: ftp.py FTP_SERVER SCRATCH_DIRECTORY ROUNDS

The first part is a client of its own, counts the CPU time of the server, and is done with an upload when the
server says so. The second is ftpbench, and is about how long its clients wait. For it the uploads of 100 clients,
all to one file, are over when it has sent them: what the server has not read by then, the kernel holds. So one
that leaves the processors to its clients seems to be faster.
"""

import ftplib
import os
import random
import re
import selectors
import statistics
import subprocess
import sys
import threading
import time

from server import Server

binary, scratch, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])

PEER = """
import sys, logging
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import FTPServer
logging.basicConfig(level=logging.ERROR)
FTPHandler.authorizer = DummyAuthorizer()
FTPHandler.authorizer.add_user("me", "secret", sys.argv[1], perm="elradfmwMT")
FTPServer(("127.0.0.1", int(sys.argv[2])), FTPHandler).serve_forever()
"""
COMMANDS = {
    "asynchat": lambda dir, port: [binary, f"127.0.0.1:{port}", dir, "--writable"],
    "pyftpdlib": lambda dir, port: [sys.executable, "-c", PEER, dir, str(port)],
}
BIG = 500_000_000
SMALL, FILES = bytes(1000), 500
MANY = 100


class FtpServer(Server):
    def __init__(self, name):
        dir = os.path.join(scratch, name)
        os.makedirs(os.path.join(dir, "many"), exist_ok=True)
        with open(os.path.join(dir, "big"), "wb") as file:
            file.write(bytes(BIG))
        for i in range(1000):
            open(os.path.join(dir, "many", f"file {i}"), "w").close()
        super().__init__(lambda port: COMMANDS[name](dir, port))

    def connect(self):
        ftp = ftplib.FTP(timeout=60)
        ftp.connect("127.0.0.1", self.port)
        ftp.login("me", "secret")
        return ftp


def download(ftp):
    ftp.voidcmd("TYPE I")
    room = memoryview(bytearray(256 * 1024))
    with ftp.transfercmd("RETR big") as data:
        while data.recv_into(room):
            pass
    ftp.voidresp()


def upload(ftp, block):
    ftp.voidcmd("TYPE I")
    block = bytes(block)
    with ftp.transfercmd("STOR up") as data:
        for _ in range(BIG // len(block)):
            data.sendall(block)
    ftp.voidresp()


def store(ftp):
    ftp.voidcmd("TYPE I")
    for i in range(FILES):
        with ftp.transfercmd(f"STOR {i}") as data:
            data.sendall(SMALL)
        ftp.voidresp()


def retrieve(ftp):
    ftp.voidcmd("TYPE I")
    for i in range(FILES):
        with ftp.transfercmd(f"RETR {i}") as data:
            while data.recv(4096):
                pass
        ftp.voidresp()


def four(act, ftp, server):
    """Four clients at a time."""
    clients = [ftp] + [server.connect() for _ in range(3)]
    threads = [threading.Thread(target=act, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def upload_many(server):
    """A part of BIG from each of many clients at a time, to files of their own."""
    clients = [server.connect() for _ in range(MANY)]
    selector, block = selectors.DefaultSelector(), memoryview(bytes(65536))
    left = {}
    for i, ftp in enumerate(clients):
        ftp.voidcmd("TYPE I")
        data = ftp.transfercmd(f"STOR part {i}")
        data.setblocking(False)
        selector.register(data, selectors.EVENT_WRITE)
        left[data] = BIG // MANY
    while left:
        for key, _ in selector.select(60):
            data = key.fileobj
            left[data] -= data.send(block[: left[data]])
            if not left[data]:
                del left[data]
                selector.unregister(data)
                data.close()
    for i, ftp in enumerate(clients):
        ftp.voidresp()
        ftp.delete(f"part {i}")
        ftp.close()


# What is measured, how many units of work that is, and the unit.
WORK = {
    "download, 500 MB": (lambda ftp, _: download(ftp), BIG / 1e6, "MB"),
    "upload, 500 MB by 64 KiB": (lambda ftp, _: upload(ftp, 65536), BIG / 1e6, "MB"),
    "upload, 500 MB by 8 KiB": (lambda ftp, _: upload(ftp, 8192), BIG / 1e6, "MB"),
    f"upload, 500 MB, {MANY} at a time": (lambda _, server: upload_many(server), BIG / 1e6, "MB"),
    "four downloads at a time": (lambda ftp, server: four(download, ftp, server), 4 * BIG / 1e6, "MB"),
    "store files of 1 kB": (lambda ftp, _: store(ftp), FILES, "file"),
    "retrieve files of 1 kB": (lambda ftp, _: retrieve(ftp), FILES, "file"),
    "list 1000 files": (lambda ftp, _: [ftp.nlst("many") for _ in range(20)], 20, "list"),
    "facts of 1000 files": (lambda ftp, _: [list(ftp.mlsd("many")) for _ in range(20)], 20, "list"),
    "connect, log in, quit": (lambda _, server: [server.connect().quit() for _ in range(300)], 300, "session"),
}
cpu, wall, waits = {}, {}, {}
for _ in range(rounds):
    for name in random.sample(sorted(COMMANDS), len(COMMANDS)):
        with FtpServer(name) as server, server.connect() as ftp:
            for row, (act, units, _) in WORK.items():
                used, began = server.cpu(), time.monotonic()
                act(ftp, server)
                cpu.setdefault((row, name), []).append((server.cpu() - used) / units * 1e6)
                wall.setdefault((row, name), []).append(units / (time.monotonic() - began))
            command = [os.path.join(os.path.dirname(sys.executable), "ftpbench"), "-b", "all", "-n", "100", "-s", "10M"]
            command += ["-u", "me", "-p", "secret", "-H", "127.0.0.1", "-P", str(server.port)]
            printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            for text in printed.splitlines():
                found = re.search(r"^(.*?\))\s+([\d.]+)\s+(MB/sec|secs)", re.sub(r"\x1b\[[\d;]*m", "", text))
                if found:
                    row, figure, unit = found.groups()
                    waits.setdefault((f"{row}, {unit}", name), []).append(float(figure))


def line(figures, row, words, digits=1):
    ours, theirs = (statistics.median(figures[row, name]) for name in COMMANDS)
    ratios = [a / b for a, b in zip(figures[row, "asynchat"], figures[row, "pyftpdlib"]) if b]
    ratio = statistics.median(ratios or [0])
    print(f"| {words} | {ours:.{digits}f} | {theirs:.{digits}f} | {ratio:.2f} |")


print("| | ftp_server | pyftpdlib | ratio |")
print("|---|---:|---:|---:|")
for row, (_, _, unit) in WORK.items():
    line(cpu, row, f"{row}: µs of CPU a {unit}")
for row, (_, _, unit) in WORK.items():
    line(wall, row, f"{row}: {unit} a second")
for row in dict.fromkeys(row for row, _ in waits):
    words = row.replace(" (STOR 10.0M file)", " (STOR 10.0M file, until sent)")
    line(waits, row, f"ftpbench: {words}", digits=2)
