#!/usr/bin/env bash
# FTP clients against the FTP example: ftp.sh FTP_SERVER SCRATCH_DIRECTORY PYTHON [NODE_PATH]
#
# FTP_SERVER is the example's binary. PYTHON is a Python with pyftpdlib, of which only ftpbench is used. basic-ftp is
# left out unless NODE_PATH has it. Needs curl and Debian's lftp, which it installs if it is missing; that takes root.
set -euo pipefail
binary=$1 scratch=$2 python=$3 modules=${4:-}
here=$(dirname "$0")
server=

fail() {
    printf 'FAILED: ftp: %s\n' "$*" >&2
    exit 1
}
start() { # DIR ARGUMENT...: starts the server, and sets `server` to its process id and `addr` to its address
    : >"$scratch/ftp-listening"
    "$binary" 127.0.0.1:0 "$@" >"$scratch/ftp-listening" &
    server=$!
    until read -r _ _ addr <"$scratch/ftp-listening"; do
        kill -0 "$server" 2>/dev/null || fail "it did not start"
        sleep 0.1
    done
}
stop() {
    kill -s "$1" "$server"
    wait "$server" || fail "the server ended with $? after SIG$1"
    server=
}
mounted=
trap '[[ -z $server ]] || kill "$server" 2>/dev/null || true; [[ -z $mounted ]] || umount "$mounted"' EXIT

if ! command -v lftp >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -qq -y --no-install-recommends lftp >/dev/null
fi

# A tree with unusual names that FTP can express.
tree=$scratch/ftp-tree
mkdir -p "$tree"/{'a directory',-dash,.hidden,'ünïcödé/日本/empty','a%20b','q"uote'}
printf 'hello\n' >"$tree/ plain "
printf 'a\r\nb\rc\nd' >"$tree/a directory/line ends"
head -c 3000000 /dev/urandom >"$tree/ünïcödé/日本/große Datei"
: >"$tree/-dash/-rf"
printf x >"$tree/-dash/--"
printf '\377\364ABOR\r\n' >"$tree/.hidden/.telnet"
printf y >"$tree/a%20b/100%;type=a"
printf z >"$tree/q\"uote/it's \$HOME & \\ * ? [x] ~ #"
printf 'tab\n' >"$tree/q\"uote/a"$'\t'"tab"
for ((i = 0; i < 300; i++)); do printf '%d' "$i" >"$tree/a directory/$i"; done

root=$scratch/ftp-root
mkdir "$root"
start "$root" --writable

# curl
url=ftp://me:secret@$addr
get() { curl --silent --show-error --fail --max-time 60 "$@"; }
big=$scratch/ftp-big
head -c 20000000 /dev/urandom >"$big"
for method in --disable-epsv '--ftp-method nocwd' '--ftp-method multicwd'; do
    mkdir "$root/up"
    get $method -T "$big" "$url/up/big"
    get $method "$url/up/big" | cmp - "$big"
    rm -r "$root/up"
done
get --ftp-create-dirs -T "$big" "$url/made/for/it"
cmp "$root/made/for/it" "$big"
rm -r "$root/made"
head -c 7000000 "$big" >"$scratch/ftp-part"
get -T "$scratch/ftp-part" "$url/big"
get -C - -T "$big" "$url/big"
cmp "$root/big" "$big" || fail "curl: the rest of an upload"
get -C - -o "$scratch/ftp-part" "$url/big"
cmp "$scratch/ftp-part" "$big" || fail "curl: the rest of a download"
get -r 100-199 "$url/big" | cmp - <(tail -c +101 "$big" | head -c 100)
[[ $(get --list-only "$url/") == big ]] || fail "curl: the names of a list"
get "$url/" | grep -q '^-rw.* 20000000 .* big' || fail "curl: a list"
get -I "$url/big" | grep -q 'Content-Length: 20000000' || fail "curl: a size"
get -Q 'RNFR big' -Q 'RNTO small' -Q 'MKD dir' -Q 'RMD dir' "$url/" >"$scratch/ftp-list"
grep -q small "$scratch/ftp-list" || fail "curl: a new name"
get -Q 'DELE small' "$url/" >/dev/null
[[ -z $(ls -A "$root") ]] || fail "curl: something is left: $(ls -A "$root")"
if get "$url/../../etc/passwd" --path-as-is 2>/dev/null; then fail "curl: a way out"; fi
curl --version | sed -n '1s/ (.*/: ok/p'

# lftp uploads the tree and downloads it again
settings='set net:max-retries 2; set net:timeout 20; set ftp:use-mode-z no; set cmd:fail-exit yes'
for options in '' 'set ftp:sync-mode no' 'set ftp:use-mlsd yes' 'set ftp:prefer-epsv yes'; do
    rm -rf "$root/tree" "$scratch/ftp-back"
    lftp -c "$settings; $options; open -u me,secret $addr; mirror -R --no-perms --parallel=4 $tree tree"
    diff -r "$tree" "$root/tree" || fail "lftp mirror -R ($options)"
    lftp -c "$settings; $options; open -u me,secret $addr; mirror --parallel=4 tree $scratch/ftp-back"
    diff -r "$tree" "$scratch/ftp-back" || fail "lftp mirror ($options)"
done
# A name with a line end cannot be sent in a line. It is not listed, and the other names are.
printf 'x' >"$root/tree/a"$'\n'"b"
printf 'x' >"$root/tree/a"$'\xff'"b"
rm -r "$scratch/ftp-back"
lftp -c "$settings; open -u me,secret $addr; mirror tree $scratch/ftp-back"
diff -r "$tree" "$scratch/ftp-back" || fail "lftp mirror beside a name with a line end"
lftp --version | sed -n '1s/LFTP | Version \([^ ]*\).*/lftp \1: ok/p'
rm -rf "$root/tree" "$scratch/ftp-back"

# ftplib and basic-ftp
"$python" "$here/ftp_client.py" "$addr" "$root"
if [[ -n $modules ]]; then
    NODE_PATH=$modules node "$here/ftp_client.js" "$addr" "$scratch"
else
    echo "NOT CHECKED: basic-ftp"
fi

# ftpbench, which fails if one of its transfers fails
"$(dirname "$python")/ftpbench" -u me -p secret -H "${addr%:*}" -P "${addr##*:}" -b all -n 100 -s 1M \
    >"$scratch/ftp-bench" 2>&1 || fail "ftpbench: $(cat "$scratch/ftp-bench")"
(($(grep -c 'MB/sec\|secs' "$scratch/ftp-bench") >= 8)) || fail "ftpbench: $(cat "$scratch/ftp-bench")"
echo "ftpbench: ok"
stop TERM

# A full disk
full=$scratch/ftp-full
mkdir "$full"
if mount -t tmpfs -o size=1m tmpfs "$full" 2>/dev/null; then
    mounted=$full
    start "$full" --writable
    "$python" - "$addr" <<'PYTHON'
import ftplib, sys
host, port = sys.argv[1].rsplit(":", 1)
ftp = ftplib.FTP(timeout=30)
ftp.connect(host, int(port))
ftp.login("me", "secret")
with ftp.transfercmd("STOR big") as data:
    try:
        for _ in range(100):
            data.sendall(bytes(1_000_000))
    except OSError:
        pass
try:
    reply = ftp.getmultiline()
finally:
    ftp.quit()
assert reply == "452 the disk is full", reply
PYTHON
    (($(stat -c %s "$full/big") > 500000)) || fail "a full disk: what has come is gone"
    stop INT
    umount "$full"
    mounted=
    echo "a full disk: ok"
else
    echo "NOT CHECKED: a full disk, as nothing can be mounted here"
fi
