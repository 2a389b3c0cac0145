#!/usr/bin/env bash
# Mail clients against the SMTP example: smtp.sh SMTP_SERVER SCRATCH_DIRECTORY [MESSAGES]
#
# SMTP_SERVER is the example's binary. MESSAGES is how many smtp-source sends, over 50 connections. Needs curl, python3,
# Debian's swaks, postfix (for smtp-source; it is not started) and python3-venv, and aiosmtplib from PyPI. It installs
# what is missing, which takes root.
set -euo pipefail
binary=$1 scratch=$2 messages=${3:-10000}
here=$(dirname "$0")
server=

fail() {
    printf 'FAILED: smtp: %s\n' "$*" >&2
    exit 1
}
equal() { # EXPECTED ACTUAL WHAT
    [[ $1 == "$2" ]] || fail "$3: expected '$1', got '$2'"
}
start() { # MAILDIR: starts the server, and sets `server` to its process id and `addr` to its address
    : >"$scratch/smtp-listening"
    "$binary" 127.0.0.1:0 "$@" >"$scratch/smtp-listening" &
    server=$!
    until read -r _ _ addr <"$scratch/smtp-listening"; do
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
count() { find "$1/new" -type f | wc -l; }

missing=()
command -v swaks >/dev/null || missing+=(swaks)
perl -MNet::SSLeay -e 1 2>/dev/null || missing+=(libnet-ssleay-perl)
PATH=$PATH:/usr/sbin command -v smtp-source >/dev/null || missing+=(postfix)
python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
if ((${#missing[@]})); then
    (
        export DEBIAN_FRONTEND=noninteractive
        # With this policy, packages do not start the services that they install.
        policy=/usr/sbin/policy-rc.d
        if [[ ! -e $policy ]]; then
            trap 'rm -f "$policy"' EXIT
            printf '#!/bin/sh\nexit 101\n' >"$policy"
            chmod +x "$policy"
        fi
        apt-get update -qq
        echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections
        apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
    )
fi
export PATH=$PATH:/usr/sbin
if ! "$scratch/smtp-venv/bin/python" -c 'import aiosmtplib' 2>/dev/null; then
    python3 -m venv "$scratch/smtp-venv"
    "$scratch/smtp-venv/bin/pip" install --quiet --disable-pip-version-check aiosmtplib
fi

# smtplib, aiosmtplib, and lines that no library sends
mail=$scratch/smtp-python
start "$mail"
"$scratch/smtp-venv/bin/python" "$here/smtp.py" "$addr" "$mail"
stop TERM

# curl, in the clear and over TLS
mail=$scratch/smtp-curl
start "$mail"
{ printf 'Subject: from curl\r\n\r\n.\r\n..\r\n' && seq -f $'.%.0f\r' 200000; } >"$scratch/smtp-text"
for tls in "" --ssl-reqd; do
    curl --silent --show-error --max-time 60 --insecure $tls "smtp://$addr" \
        --mail-from me@example.org --mail-rcpt you@example.org --mail-rcpt her@example.org \
        --upload-file "$scratch/smtp-text"
done
equal 2 "$(count "$mail")" "messages from curl"
for file in "$mail"/new/*; do
    sed '1,/\twith /d' "$file" | cmp - "$scratch/smtp-text"
done
grep -lq 'with ESMTPS id' "$mail"/new/* || fail "curl did not use TLS"

# swaks
talk() {
    swaks --server "${addr%:*}" --port "${addr##*:}" --timeout 20 \
        --from me@example.org --to you@example.org "$@" >"$scratch/smtp-swaks" 2>&1
}
talk --body 'in the clear' || fail "swaks: $(cat "$scratch/smtp-swaks")"
talk --tls --body 'over TLS' || fail "swaks over TLS: $(cat "$scratch/smtp-swaks")"
grep -q 'TLS started' "$scratch/smtp-swaks" || fail "swaks did not start TLS"
talk --pipeline --to a@example.org,b@example.org --body 'all at once' ||
    fail "swaks with pipelining: $(cat "$scratch/smtp-swaks")"
! talk --to 'no address' || fail "swaks: a recipient that is none was taken"
talk --quit-after RCPT || fail "swaks: QUIT in the middle"
equal 5 "$(count "$mail")" "messages from curl and swaks"
stop INT

# Many messages, none lost or doubled
mail=$scratch/smtp-many
start "$mail"
began=$(date +%s%N)
smtp-source -s 50 -m "$messages" -l 4000 -N -f me@example.org -t you@example.org "$addr"
echo "smtp: $messages messages in $((($(date +%s%N) - began) / 1000000)) ms"
equal "$messages" "$(count "$mail")" "messages from smtp-source"
equal "$messages" "$(grep -rh -m1 '^Delivered-To:' "$mail/new" | sort -u | wc -l)" "different ones"
equal "" "$(ls "$mail/tmp")" "files in tmp"
stop TERM
rm -r "$mail"

# Large messages: the server's memory does not grow with them
start "$mail"
smtp-source -s 20 -m 40 -l 5000000 "$addr"
equal 40 "$(count "$mail")" "large messages"
peak=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB$/\1/p' "/proc/$server/status")
echo "smtp: peak memory of the server after 200 MB: $peak kB"
((peak < 32768)) || fail "the server needed $peak kB"
stop TERM
rm -r "$mail"

# A full disk: the sender is told to come back later, and the next message that fits is taken.
mail=$scratch/smtp-full
mkdir "$mail"
if mount -t tmpfs -o size=1m tmpfs "$mail" 2>/dev/null; then
    mounted=$mail
    start "$mail"
    python3 - "$addr" <<'PYTHON'
import smtplib, sys
with smtplib.SMTP(*sys.argv[1].rsplit(":", 1), timeout=60) as client:
    client.ehlo()
    for size, code in [(1000, 250), (3_000_000, 452), (1000, 250)]:
        client.mail("me@example.org")
        client.rcpt("you@example.org")
        got = client.data(b"x" * size)
        assert got[0] == code, got
PYTHON
    equal 2 "$(count "$mail")" "messages beside one that was too much for the disk"
    equal "" "$(ls "$mail/tmp")" "files in tmp of a full disk"
    stop TERM
    umount "$mail"
    mounted=
    echo "smtp: a full disk: ok"
else
    echo "NOT CHECKED: a full disk, as nothing can be mounted here"
fi

# As many messages to a server that stores nothing
start --discard
smtp-source -s 50 -m "$messages" -l 4000 "$addr"
stop TERM

# Killed under load: messages that were answered 250 are stored
mail=$scratch/smtp-kill
for turn in 1 2 3; do
    start "$mail"
    python3 "$here/smtp_kill.py" "$addr" "$mail" "$server" "$turn"
    if wait "$server" 2>/dev/null; then fail "it was not killed"; fi
    server=
done
rm -r "$mail"
echo "smtp: ok"
