#!/usr/bin/env bash
# The IRC example beside ngircd, in turns: benches/peers/irc.sh [ROUNDS]
#
# Prints one table: CPU time of the server for each message that it delivers, and how many it delivers in a
# second, medians over the rounds, in each of which both servers are started anew. Neither controls floods.
# Installs Debian's ngircd if it is missing, which takes root; it is not started as a service.
set -euo pipefail
cd "$(dirname "$0")/../.."
rounds=${1:-7}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

if ! PATH=$PATH:/usr/sbin command -v ngircd >/dev/null; then
    (
        export DEBIAN_FRONTEND=noninteractive
        policy=/usr/sbin/policy-rc.d
        if [[ ! -e $policy ]]; then
            trap 'rm -f "$policy"' EXIT
            printf '#!/bin/sh\nexit 101\n' >"$policy"
            chmod +x "$policy"
        fi
        apt-get update -qq
        apt-get install -qq -y --no-install-recommends ngircd >/dev/null
    )
fi
cargo build --quiet --locked --release --example irc_server
PATH=$PATH:/usr/sbin python3 benches/peers/irc.py "${CARGO_TARGET_DIR:-target}/release/examples/irc_server" \
    "$scratch" "$rounds"
