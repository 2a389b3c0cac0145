#!/usr/bin/env bash
# Clients of both framings against the JSON-RPC example: jsonrpc.sh JSONRPC_STDIO PYTHON
#
# JSONRPC_STDIO is the example's binary, PYTHON is a Python with mcp and pygls.
set -euo pipefail
binary=$1 python=$2
here=$(dirname "$0")

fail() {
    printf 'FAILED: jsonrpc: %s\n' "$*" >&2
    exit 1
}
equal() { # EXPECTED ACTUAL WHAT
    [[ $1 == "$2" ]] || fail "$3: expected '$1', got '$2'"
}

# From a shell, with a pipe, a file, or nothing as its input
ping='{"jsonrpc": "2.0", "id": 1, "method": "ping"}'
pong='{"id":1,"jsonrpc":"2.0","result":{}}'
equal "$pong" "$(echo "$ping" | "$binary")" "a line from a pipe"
equal "$pong" "$("$binary" < <(sleep 0.2 && echo "$ping"))" "a line that comes late"
equal "$pong" "$("$binary" <<<"$ping")" "a line from a file"
equal "" "$("$binary" </dev/null)" "nothing"
answer=$(printf 'Content-Length: %d\r\n\r\n%s' "${#ping}" "$ping" | "$binary")
[[ $answer == "Content-Length: "*-32002* ]] || fail "a message with a head: $answer"

"$python" -W ignore "$here/jsonrpc_mcp.py" "$binary"
"$python" "$here/jsonrpc_lsp.py" "$binary"
