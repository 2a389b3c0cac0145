"""Loads the IRC example and ngircd in turns: irc.py IRC_SERVER SCRATCH_DIRECTORY ROUNDS. See irc.sh."""

import os
import random
import selectors
import socket
import statistics
import sys
import time

from server import Server

binary, scratch, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
OURS, NGIRCD = "irc_server", "ngircd"
TEXT = "What is said here is about as long as what people say to each other."


def ngircd(port):
    config = os.path.join(scratch, "ngircd.conf")
    with open(config, "w") as file:
        file.write(
            f"[Global]\nName = irc.localhost\nInfo = x\nAdminEMail = a@b\nListen = 127.0.0.1\nPorts = {port}\n"
            "[Limits]\nMaxConnectionsIP = 0\nMaxConnections = 0\nMaxPenaltyTime = 0\nMaxJoins = 0\n"
            "[Options]\nDNS = no\nIdent = no\nPAM = no\nSyslogFacility = local1\n"
        )
    return ["ngircd", "-n", "-f", config]


COMMANDS = {OURS: lambda port: [binary, f"127.0.0.1:{port}", "--no-flood-control"], NGIRCD: ngircd}


class Client:
    def __init__(self, port, nick):
        self.nick = nick
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.heard = 0
        self.ask(f"NICK {nick}\r\nUSER {nick} 0 * :{nick}\r\n", b" 376 ", b" 422 ")

    def ask(self, line, *ends):
        self.sock.sendall(line.encode())
        answer = b""
        while not any(end in answer for end in ends) or not answer.endswith(b"\n"):
            answer += self.sock.recv(65536)

    def drain(self, quiet=0.3):
        """Reads what has come until nothing comes."""
        self.sock.settimeout(quiet)
        try:
            while self.sock.recv(65536):
                pass
        except TimeoutError:
            self.sock.settimeout(60)


def exchange(clients, selector, speakers, lines, wanted):
    """Each speaker says its lines; returns when each client has heard as many as are wanted of it."""
    waiting = 0
    for client in clients:
        client.heard = 0
        waiting += wanted(client) > 0
    for speaker in speakers:
        speaker.sock.sendall(lines(speaker))
    while waiting:
        ready = selector.select(60)
        if not ready:
            sys.exit("nothing comes")
        for key, _ in ready:
            client = key.data
            data = client.sock.recv(1 << 18)
            if not data:
                sys.exit("cut off")
            before = client.heard
            client.heard += data.count(b"\n")
            if before < wanted(client) <= client.heard:
                waiting -= 1


def room(clients, speakers, burst):
    """All in one channel, where some say so many lines each at once."""
    for client in clients:
        client.ask("JOIN #room\r\n", b" 366 ")
    for client in clients:
        client.drain(0.05)
    line = f"PRIVMSG #room :{TEXT}\r\n".encode() * burst
    talking = clients[:speakers]
    own = {client.nick: burst for client in talking}
    return talking, lambda _: line, lambda client: speakers * burst - own.get(client.nick, 0)


def pairs(clients, burst):
    """Each says so many lines at once to its neighbour, and is told as many."""
    other = {a.nick: b.nick for a, b in zip(clients, clients[1:] + clients[:1])}
    line = lambda client: f"PRIVMSG {other[client.nick]} :{TEXT}\r\n".encode() * burst
    return clients, line, lambda _: burst


WORKLOADS = {
    "a room of 50, 10 speak, 20 lines at once": (lambda clients: room(clients, 10, 20), 50, 40),
    "a room of 50, one speaks, one line": (lambda clients: room(clients, 1, 1), 50, 1000),
    "50 in private, 20 lines at once": (lambda clients: pairs(clients, 20), 50, 400),
    "50 in private, one line": (lambda clients: pairs(clients, 1), 50, 800),
}


def measure(name, prepare, count, repeat):
    with Server(COMMANDS[name]) as server:
        clients = [Client(server.port, f"c{number}") for number in range(count)]
        speakers, lines, wanted = prepare(clients)
        selector = selectors.DefaultSelector()
        for client in clients:
            selector.register(client.sock, selectors.EVENT_READ, client)
        delivered = sum(map(wanted, clients)) * repeat
        for warm in (max(repeat // 10, 1), repeat):
            used, began = server.cpu(), time.perf_counter()
            for _ in range(warm):
                exchange(clients, selector, speakers, lines, wanted)
        took = time.perf_counter() - began
        return (server.cpu() - used) / delivered * 1e6, delivered / took


print("| | µs of CPU a message: irc_server | ngircd | ratio | messages a second: irc_server | ngircd |")
print("|---|---:|---:|---:|---:|---:|")
for workload, (prepare, count, repeat) in WORKLOADS.items():
    results = {OURS: [], NGIRCD: []}
    ratios = []
    for _ in range(rounds):
        names = [OURS, NGIRCD]
        random.shuffle(names)
        for name in names:
            results[name].append(measure(name, prepare, count, repeat))
        ratios.append(results[OURS][-1][0] / results[NGIRCD][-1][0])
    ours, theirs = ([statistics.median(column) for column in zip(*results[name])] for name in (OURS, NGIRCD))
    print(
        f"| {workload} | {ours[0]:.2f} | {theirs[0]:.2f} | {statistics.median(ratios):.2f} "
        f"| {ours[1]:,.0f} | {theirs[1]:,.0f} |",
        flush=True,
    )
