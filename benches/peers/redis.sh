#!/usr/bin/env bash
# Compares the Redis example with redis-server, in turns, by redis-benchmark: benches/peers/redis.sh [ROUNDS]
#
# Prints one table: the server's CPU time for each request, requests in a second, and how often for each request the
# server has slept because there was nothing to do. These are medians over the rounds, and both servers are started
# anew for each round. At one request at a time the kernel does four fifths of the work, and a sleep costs more than
# all that a server does itself; so if one server sleeps more often, the ratio shows mainly that. Needs Debian's
# redis-server and redis-tools; nothing is started as a service.
set -euo pipefail
cd "$(dirname "$0")/../.."
for program in redis-server redis-benchmark; do
    command -v "$program" >/dev/null || { echo "$program is missing" >&2; exit 2; }
done
cargo build --quiet --locked --release --example redis_server
python3 benches/peers/redis.py "${CARGO_TARGET_DIR:-target}/release/examples/redis_server" "${1:-5}"
