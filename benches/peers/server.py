"""A server that is measured. It is a process of its own, and listens on a free port."""

import socket
import subprocess
import sys
import time


class Server:
    def __init__(self, command):
        """Calls `command` with a free port, runs the command that it returns, and waits until that listens there."""
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = sock.getsockname()[1]
        words = command(self.port)
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                time.sleep(0.05)
        self.process.kill()
        sys.exit(f"{words[0]} did not start")

    def cpu(self):
        """Its CPU time in seconds, threads that have ended included. The number is the id of that process's clock."""
        return time.clock_gettime(~self.process.pid << 3 | 2)

    def sleeps(self):
        """How often its main thread has had nothing to do."""
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("voluntary_ctxt_switches"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
