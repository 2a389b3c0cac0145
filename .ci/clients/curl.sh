#!/usr/bin/env bash
# curl against the HTTP example: curl.sh URL SERVER_PID SCRATCH_DIRECTORY
set -euo pipefail
url=$1 pid=$2 scratch=$3
site=examples/http_server/site

fail() {
    printf 'FAILED: curl: %s\n' "$*" >&2
    exit 1
}
equal() { # EXPECTED ACTUAL WHAT
    [[ $1 == "$2" ]] || fail "$3: expected '$1', got '$2'"
}
ask() { curl --silent --show-error --max-time 120 --http1.1 "$@"; }

# GET and HEAD
ask "$url/" | cmp - $site/index.html
ask "$url/style.css" | cmp - $site/style.css
equal "200 text/css; charset=utf-8" \
    "$(ask -o /dev/null -w '%{response_code} %{content_type}' "$url/style.css")" type
ask --head "$url/" >"$scratch/head"
grep -q '^HTTP/1.1 200 OK' "$scratch/head" || fail "HEAD"
grep -qi "^content-length: $(wc -c <$site/index.html)" "$scratch/head" || fail "HEAD: length"
equal 404 "$(ask -o /dev/null -w '%{response_code}' "$url/missing")" "missing file"
equal 404 "$(ask -o /dev/null -w '%{response_code}' --path-as-is "$url/../main.rs")" "way out"
equal 405 "$(ask -o /dev/null -w '%{response_code}' "$url/" --data x)" "POST to a file"
equal 501 "$(ask -o /dev/null -w '%{response_code}' -X DELETE "$url/")" "another method"

# POST: with a length, in chunks, with an `Expect` that the server meets and one that it refuses
equal "hello, world" "$(ask "$url/echo" --data 'hello, world')" POST
equal "hello, world" "$(printf 'hello, world' | ask "$url/echo" -X POST -T -)" "chunked POST"
ask "$url/echo" --data hello -H 'Expect: 100-continue' --expect100-timeout 60 -v \
    2>"$scratch/verbose" | grep -qx hello
grep -q '^< HTTP/1.1 100 Continue' "$scratch/verbose" || fail "no 100 Continue"
equal 413 "$(ask "$url/echo" --data x -H 'Content-Length: 9999999999' -H 'Expect: 100-continue' \
    --expect100-timeout 60 -o /dev/null -w '%{response_code}')" "too large"

# A stream, in chunks and without
ticks=$'tick 1\ntick 2\ntick 3'
equal "$ticks" "$(ask "$url/stream?n=3")" stream
equal "$ticks" "$(ask --http1.0 "$url/stream?n=3")" "stream over HTTP/1.0"

# Several requests on one connection
connects=$(ask -w '%{num_connects}\n' "$url/" -o /dev/null "$url/missing" -o /dev/null \
    "$url/style.css" -o /dev/null --next --http1.1 -s "$url/echo" --data hello -o /dev/null \
    -w '%{num_connects}\n' --next --http1.1 -s --head "$url/" -o /dev/null -w '%{num_connects}\n')
equal "1 0 0 0 0" "$(echo $connects)" "new connections of each request"

# 100 MB through /echo: the server's memory does not grow with the body
head -c 100000000 /dev/urandom >"$scratch/large"
ask "$url/echo" -X POST -H 'Expect:' -T "$scratch/large" | cmp - "$scratch/large"
ask "$url/echo" -X POST -T - <"$scratch/large" | cmp - "$scratch/large"
# 20 MB to a client that reads slowly: the server does not buffer what is not read
head -c 20000000 "$scratch/large" |
    ask "$url/echo" -X POST -T - --limit-rate 10M | cmp - <(head -c 20000000 "$scratch/large")
rm "$scratch/large"
peak=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB$/\1/p' "/proc/$pid/status")
echo "curl: peak memory of the server after 220 MB: $peak kB"
((peak < 32768)) || fail "the server needed $peak kB"
echo "curl: ok"
