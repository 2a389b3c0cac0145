#!/usr/bin/env bash
# Compares the SMTP example, storing nothing, with other servers that store nothing:
# benches/peers/smtp.sh [ROUNDS] [MESSAGES]
#
# The servers take turns, and each is started anew for each round. It receives so many messages of 4 KB from postfix's
# smtp-source over 20 connections at a time: first one message on each connection, and then many. It prints medians of
# the server's CPU time for a message, user and system, from /proc/PID/stat; of the messages in a second of real time;
# and of the ratio of the CPU time to that of smtp-sink.
#
# Needs Debian's postfix (smtp-source, smtp-sink; it is not started), and python3-venv for aiosmtpd, which is
# left out if it can't be had.
set -euo pipefail
cd "$(dirname "$0")/../.."
rounds=${1:-5} messages=${2:-10000}
export PATH=$PATH:/usr/sbin
target=${CARGO_TARGET_DIR:-$PWD/target}
scratch=$(mktemp -d)
server=
trap '[[ -z $server ]] || kill "$server" 2>/dev/null || true; rm -rf "$scratch"' EXIT

command -v smtp-source >/dev/null || { echo "smtp-source is missing: install Debian's postfix" >&2; exit 2; }
cargo build --quiet --release --example smtp_server

venv=$target/ci/aiosmtpd
if ! [[ -x $venv/bin/python ]] && python3 -m venv "$venv" 2>/dev/null; then
    "$venv/bin/pip" install --quiet --disable-pip-version-check aiosmtpd || rm -rf "$venv"
fi
as_nobody=()
((EUID)) || as_nobody=(-u nobody)
servers=("smtp_server --discard" smtp-sink)
[[ -x $venv/bin/python ]] && servers+=(aiosmtpd)

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
start() { # NAME PORT; sets `server`
    case $1 in
    "smtp_server --discard") exec "$target/release/examples/smtp_server" "127.0.0.1:$2" --discard ;;
    smtp-sink) exec smtp-sink "${as_nobody[@]}" "127.0.0.1:$2" 1000 ;;
    aiosmtpd) exec "$venv/bin/python" -m aiosmtpd -n -l "127.0.0.1:$2" -c aiosmtpd.handlers.Sink ;;
    esac >"$scratch/log" 2>&1 &
    server=$!
    for ((tries = 0; tries < 100; tries++)); do
        (exec 3<>"/dev/tcp/127.0.0.1/$2") 2>/dev/null && return
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    cat "$scratch/log" >&2
    echo "$1 did not start" >&2
    exit 1
}
ticks() { # of CPU, user and system, that the server has taken
    local stat
    read -r stat <"/proc/$server/stat"
    set -- ${stat##*) }
    echo "${12} ${13}"
}

run() { # NAME FLAGS COUNT; sets `figures` to ticks of user and system, and milliseconds
    local port began ended before after
    port=$(free_port)
    start "$1" "$port"
    before=$(ticks)
    began=$(date +%s%N)
    smtp-source $2 -s 20 -m "$3" -l 4000 -f me@example.org -t you@example.org "127.0.0.1:$port"
    ended=$(date +%s%N)
    after=$(ticks)
    kill "$server"
    wait "$server" 2>/dev/null || true
    server=
    set -- $before $after
    figures="$(($3 - $1)) $(($4 - $2)) $(((ended - began) / 1000000))"
}

for way in "" -d; do
    for ((round = 0; round < rounds; round++)); do
        for ((turn = 0; turn < ${#servers[@]}; turn++)); do
            name=${servers[$(((turn + round) % ${#servers[@]}))]}
            count=$messages
            [[ $name != aiosmtpd ]] || count=$((messages / 5))
            run "$name" "$way" "$count"
            echo "$way|$name|$count|$figures" >>"$scratch/runs"
        done
    done
done

python3 - "$scratch/runs" "$(getconf CLK_TCK)" <<'PYTHON'
import statistics
import sys

runs = {}
for line in open(sys.argv[1]):
    way, name, count, figures = line.rstrip("\n").split("|")
    user, system, millis = map(int, figures.split())
    scale = 1e6 / int(sys.argv[2]) / int(count)
    runs.setdefault((way, name), []).append((user * scale, system * scale, int(count) / millis * 1e3))
print("| | µs of CPU per message | user | system | messages/s | of smtp-sink |")
print("|---|---:|---:|---:|---:|---:|")
for way, words in [("", "a message per connection"), ("-d", "many per connection")]:
    sink = statistics.median(user + system for user, system, _ in runs[way, "smtp-sink"])
    for (_, name), figures in (item for item in runs.items() if item[0][0] == way):
        cpu = statistics.median(user + system for user, system, _ in figures)
        user, system, rate = (statistics.median(column) for column in zip(*figures))
        print(f"| {name}, {words} | {cpu:.1f} | {user:.1f} | {system:.1f} | {rate:.0f} | {cpu / sink:.2f} |")
PYTHON
