#!/usr/bin/env bash
# wrk against the HTTP example: wrk.sh URL SCRATCH_DIRECTORY
set -euo pipefail
url=$1 scratch=$2

cat >"$scratch/post.lua" <<'LUA'
wrk.method = "POST"
wrk.body = string.rep("0123456789", 100)
response = function(status, headers, body)
    if body ~= wrk.body then
        print("WRONG BODY")
    end
end
LUA
cat >"$scratch/pipeline.lua" <<'LUA'
init = function()
    requests = string.rep(wrk.format("GET", "/style.css"), 16)
end
request = function()
    return requests
end
LUA

run() { # NAME ARGUMENTS...
    echo "wrk: $1"
    wrk -t 2 -c 64 -d 4s "${@:2}" | tee "$scratch/wrk"
    if grep -q 'Non-2xx\|Socket errors\|WRONG' "$scratch/wrk"; then
        echo "FAILED: wrk: $1 had errors" >&2
        exit 1
    fi
    # It has made requests at all.
    grep -q '^ *[1-9][0-9][0-9][0-9]* requests in' "$scratch/wrk"
}

run "GET" "$url/"
run "POST" -s "$scratch/post.lua" "$url/echo"
run "16 pipelined GETs" -s "$scratch/pipeline.lua" "$url/"
echo "wrk: ok"
