#!/usr/bin/env bash
# Compares the FTP example with pyftpdlib: benches/peers/ftp.sh [ROUNDS], 5 by default.
#
# Both take turns, and are started anew for each round. It prints one table of medians. Files are in memory (/dev/shm),
# so that the servers are measured and not a disk. pyftpdlib is installed from PyPI below target/.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-$PWD/target}
python=$target/peers/bin/python

cargo build --quiet --locked --release --example ftp_server
[[ -x $target/peers/bin/ftpbench ]] || {
    python3 -m venv "$target/peers"
    "$target/peers/bin/pip" install --quiet --disable-pip-version-check pyftpdlib
}
scratch=$(mktemp -d -p /dev/shm)
trap 'rm -rf "$scratch"' EXIT
"$python" benches/peers/ftp.py "$target/release/examples/ftp_server" "$scratch" "${1:-5}"
