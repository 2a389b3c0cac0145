"""Loads the Redis example and redis-server in turns: redis.py REDIS_SERVER ROUNDS. See redis.sh."""

import csv
import random
import statistics
import subprocess
import sys

from server import Server

binary, rounds = sys.argv[1], int(sys.argv[2])
OURS, REDIS = "redis_server", "redis-server"
# The test of redis-benchmark, its name in the output, and how many requests are made at each pipeline depth.
TESTS = {
    "ping": ("PING_MBULK", {1: 100_000, 64: 2_000_000}),
    "set": ("SET", {1: 100_000, 64: 2_000_000}),
    "get": ("GET", {1: 100_000, 64: 2_000_000}),
    "incr": ("INCR", {1: 100_000, 64: 2_000_000}),
    "lpush": ("LPUSH", {1: 100_000, 64: 2_000_000}),
    "lrange_100": ("LRANGE_100 (first 100 elements)", {1: 50_000, 64: 100_000}),
}


COMMANDS = {
    OURS: lambda port: [binary, f"127.0.0.1:{port}"],
    REDIS: lambda port: ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
}


def measure(server, test, depth):
    """Microseconds of CPU a request, requests a second, and sleeps a request."""
    name, counts = TESTS[test]
    command = ["redis-benchmark", "-p", str(server.port), "-t", test, "-n", str(counts[depth]), "-P", str(depth), "--csv"]
    used, slept = server.cpu(), server.sleeps()
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used, slept = server.cpu() - used, server.sleeps() - slept
    rows = [row for row in csv.reader(printed.splitlines()) if row]
    rates = {row[0]: float(row[1]) for row in rows[1:]}
    # The test of LRANGE begins with as many requests of LPUSH. Their CPU time is measured, and so they count, too.
    requests = counts[depth] * len(rates)
    return used / requests * 1e6, rates[name], slept / requests


figures = {}
for _ in range(rounds):
    for name in random.sample(sorted(COMMANDS), len(COMMANDS)):
        with Server(COMMANDS[name]) as server:
            for test in TESTS:
                for depth in (1, 64):
                    figures.setdefault((test, depth), {}).setdefault(name, []).append(measure(server, test, depth))

print(
    "| | µs of CPU a request: redis_server | redis-server | ratio | requests a second: redis_server | redis-server "
    "| sleeps a request: redis_server | redis-server |"
)
print("|---|---:|---:|---:|---:|---:|---:|---:|")
for depth in (1, 64):
    for test in TESTS:
        ours, theirs = figures[test, depth][OURS], figures[test, depth][REDIS]
        ratio = statistics.median(a[0] / b[0] for a, b in zip(ours, theirs))
        ours, theirs = ([statistics.median(column) for column in zip(*rows)] for rows in (ours, theirs))
        print(
            f"| {test}, {depth} at a time | {ours[0]:.2f} | {theirs[0]:.2f} | {ratio:.2f} "
            f"| {ours[1]:,.0f} | {theirs[1]:,.0f} | {ours[2]:.2f} | {theirs[2]:.2f} |"
        )
