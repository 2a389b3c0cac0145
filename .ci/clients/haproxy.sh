#!/usr/bin/env bash
# HAProxy in front of two Redis examples and two SMTP examples. It tells them the address of the client by the PROXY
# protocol. One of each is killed under load: haproxy.sh REDIS_SERVER SMTP_SERVER SCRATCH_DIRECTORY
#
# The arguments are the examples' binaries. Installs Debian's haproxy if it is missing, which takes root; it is not
# started as a service.
set -euo pipefail
redis=$1 smtp=$2 scratch=$3/haproxy
here=$(dirname "$0")
processes=()
trap 'for process in "${processes[@]}"; do kill "$process" 2>/dev/null || true; done' EXIT

fail() {
    printf 'FAILED: haproxy: %s\n' "$*" >&2
    exit 1
}
export PATH=$PATH:/usr/sbin
if ! command -v haproxy >/dev/null; then
    (
        export DEBIAN_FRONTEND=noninteractive
        policy=/usr/sbin/policy-rc.d
        if [[ ! -e $policy ]]; then
            trap 'rm -f "$policy"' EXIT
            printf '#!/bin/sh\nexit 101\n' >"$policy"
            chmod +x "$policy"
        fi
        apt-get update -qq
        apt-get install -qq -y --no-install-recommends haproxy >/dev/null
    )
fi

rm -rf "$scratch"
mkdir -p "$scratch"
start() { # NAME BINARY ARGUMENT...: starts a server, and sets `addr_NAME` and `pid_NAME`
    local name=$1 addr
    : >"$scratch/$name"
    "$2" 127.0.0.1:0 "${@:3}" --proxy-protocol >"$scratch/$name" &
    processes+=($!)
    declare -g "pid_$name=$!"
    until read -r _ _ addr <"$scratch/$name"; do
        kill -0 "${processes[-1]}" 2>/dev/null || fail "$2 did not start"
        sleep 0.1
    done
    declare -g "addr_$name=$addr"
}
start redis_a "$redis"
start redis_b "$redis"
start smtp_a "$smtp" "$scratch/mail_a"
start smtp_b "$smtp" "$scratch/mail_b"

# These ports were free a moment ago.
ports=$(python3 -c '
import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*(sock.getsockname()[1] for sock in sockets))
')
read -r redis_port smtp_port old_port <<<"$ports"
cat >"$scratch/haproxy.cfg" <<END
defaults
    mode tcp
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    retries 3
    option redispatch 1
    # A server is taken for dead after four failed checks, and not sooner, since the machine may be busy. A client whose
    # server is dead is sent to the other.
    default-server check inter 500ms fall 4 rise 1
listen redis
    bind 127.0.0.1:$redis_port
    server a $addr_redis_a send-proxy-v2
    server b $addr_redis_b send-proxy-v2
listen smtp
    bind 127.0.0.1:$smtp_port
    server a $addr_smtp_a send-proxy-v2
    server b $addr_smtp_b send-proxy-v2
listen version_1
    bind 127.0.0.1:$old_port
    server b $addr_smtp_b send-proxy
END
haproxy -db -f "$scratch/haproxy.cfg" >"$scratch/haproxy.log" 2>&1 &
haproxy=$!
processes+=("$haproxy")
for ((tries = 0; ; tries++)); do
    kill -0 "$haproxy" 2>/dev/null || fail "$(cat "$scratch/haproxy.log")"
    if (exec 3<>"/dev/tcp/127.0.0.1/$smtp_port") 2>/dev/null; then break; fi
    ((tries < 100)) || fail "it does not listen"
    sleep 0.1
done

python3 "$here/haproxy_redis.py" "127.0.0.1:$redis_port" "$addr_redis_a" "$addr_redis_b" "$pid_redis_a"
python3 "$here/haproxy_smtp.py" "127.0.0.1:$smtp_port" "127.0.0.1:$old_port" \
    "$scratch/mail_a" "$scratch/mail_b" "$pid_smtp_a"

kill -s USR1 "$haproxy"
wait "$haproxy" || true
for server in "$pid_redis_b" "$pid_smtp_b"; do
    kill -s TERM "$server"
    wait "$server" || fail "a server ended with $? after SIGTERM"
done
for server in "$pid_redis_a" "$pid_smtp_a"; do
    if wait "$server" 2>/dev/null; then fail "a server was not killed"; fi
done
haproxy -v | sed -n '1s/^\(HAProxy version [^ ]*\).*/\1: ok/p'
