#!/usr/bin/env bash
# Compares the IRC example with ngircd, in turns: benches/peers/irc.sh [ROUNDS]
#
# Prints one table: the server's CPU time for each message that it delivers, and how many it delivers in a second. These
# are medians over the rounds, and both servers are started anew for each round. Flood control is off in both.
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
