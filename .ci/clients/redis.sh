#!/usr/bin/env bash
# redis-cli, redis-benchmark, redis-py and ioredis against the Redis example:
# redis.sh HOST:PORT SCRATCH_DIRECTORY PYTHON [NODE_PATH]
#
# PYTHON is a Python with redis-py. ioredis is left out unless NODE_PATH has it.
set -euo pipefail
addr=$1 scratch=$2 python=$3 modules=${4:-}
host=${addr%:*} port=${addr##*:}
here=$(dirname "$0")

ask() { # ANSWER COMMAND...: redis-cli must print this answer to the command
    local answer
    answer=$(redis-cli -h "$host" -p "$port" "${@:2}")
    if [[ $answer != "$1" ]]; then
        printf 'FAILED: redis-cli %s: %q\n' "${*:2}" "$answer" >&2
        exit 1
    fi
}
ask PONG PING
ask OK SET greeting 'hello there' EX 100
ask 'hello there' GET greeting
ask 100 TTL greeting
ask 2 RPUSH list a b
ask $'a\nb' LRANGE list 0 -1
ask '' GET none
ask "ERR unknown command 'NONE', with args beginning with: 'x' " NONE x 2>/dev/null
# Commands from a pipe, and a value of all bytes.
head -c 3000000 /dev/urandom >"$scratch/value"
ask OK -x SET big <"$scratch/value"
redis-cli -h "$host" -p "$port" --raw GET big | head -c 3000000 | cmp - "$scratch/value"
for ((i = 0; i < 10000; i++)); do
    printf '*3\r\n$3\r\nSET\r\n$%d\r\nkey%d\r\n$5\r\nvalue\r\n' $((3 + ${#i})) "$i"
done >"$scratch/commands"
redis-cli -h "$host" -p "$port" --pipe <"$scratch/commands" | grep -qx 'errors: 0, replies: 10000'
ask 10003 DBSIZE
ask OK FLUSHALL
redis-cli --version | sed 's/$/: ok/'

# redis-benchmark prints "error" or "warning" if the server answers an error, and if a connection ends.
for depth in 1 64; do
    redis-benchmark -h "$host" -p "$port" -t ping,set,get,incr,lpush,rpush,lrange \
        -n $((5000 + 200 * depth)) -P "$depth" -q >"$scratch/benchmark" 2>&1 ||
        { cat "$scratch/benchmark"; exit 1; }
    tr '\r' '\n' <"$scratch/benchmark" | grep 'requests per second' >"$scratch/rates"
    if grep -qi 'error\|warning' "$scratch/benchmark" || (($(wc -l <"$scratch/rates") != 12)); then
        cat "$scratch/benchmark" >&2
        echo "FAILED: redis-benchmark -P $depth" >&2
        exit 1
    fi
    echo "redis-benchmark -P $depth: ok"
done

"$python" "$here/redis_client.py" "$addr"
if [[ -n $modules ]]; then
    NODE_PATH=$modules node "$here/redis_client.js" "$addr"
else
    echo "NOT CHECKED: ioredis"
fi
