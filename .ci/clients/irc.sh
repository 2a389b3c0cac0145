#!/usr/bin/env bash
# IRC clients talk to each other through the IRC example: irc.sh IRC_SERVER SCRATCH_DIRECTORY PYTHON
#
# IRC_SERVER is the example's binary, PYTHON is a Python with PyPI's irc. Needs Debian's ii, of which two run, and
# weechat-headless. It installs what is missing, which takes root.
set -euo pipefail
binary=$1 scratch=$2/irc python=$3
here=$(dirname "$0")
clients=()
server=

fail() {
    printf 'FAILED: irc: %s\n' "$*" >&2
    tail -n 50 "$scratch"/*/*/*/out "$scratch"/*.log "$scratch"/weechat/logs/* >&2 2>/dev/null || true
    exit 1
}
trap 'for client in "${clients[@]}" $server; do kill "$client" 2>/dev/null || true; done' EXIT
await() { # WHAT COMMAND...: runs the command until it succeeds
    for ((tries = 0; tries < 300; tries++)); do
        if "${@:2}" >/dev/null 2>&1; then return; fi
        sleep 0.1
    done
    fail "waited in vain: $1"
}

missing=()
command -v ii >/dev/null || missing+=(ii)
command -v weechat-headless >/dev/null || missing+=(weechat-headless)
# WeeChat takes commands from a FIFO by a plugin.
compgen -G '/usr/lib/*/weechat/plugins/fifo.so' >/dev/null || missing+=(weechat-plugins)
if ((${#missing[@]})); then
    (
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq
        apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
    )
fi

rm -rf "$scratch"
mkdir -p "$scratch"
: >"$scratch/listening.log"
"$binary" 127.0.0.1:0 >"$scratch/listening.log" &
server=$!
until read -r _ _ addr <"$scratch/listening.log"; do
    kill -0 "$server" 2>/dev/null || fail "it did not start"
    sleep 0.1
done
host=${addr%:*} port=${addr##*:}

# Two clients ii, which are used by files: they send what is written to `in`, and append what they receive to `out`.
for nick in ann bob; do
    ii -s "$host" -p "$port" -n "$nick" -f "$nick itself" -i "$scratch/$nick" >"$scratch/$nick.log" 2>&1 &
    clients+=($!)
    await "$nick is welcomed" grep -q 'End of /MOTD' "$scratch/$nick/$host/out"
    echo '/j #room' >"$scratch/$nick/$host/in"
    await "$nick is in the room" test -p "$scratch/$nick/$host/#room/in"
done
heard() { # NICK TEXT: whether this ii has received the text in the room
    grep -qF -- "$2" "$scratch/$1/$host/#room/out"
}
say() { # NICK TEXT: lets this ii send the text to the room
    echo "$2" >"$scratch/$1/$host/#room/in"
}
await "ann sees bob come" heard ann "bob(~bob@$host) has joined #room"
say ann '/t the weather'
await "bob sees the topic" heard bob 'changed topic to "the weather"'
say ann 'hello, bob: grüß dich'
await "bob hears ann" heard bob '<ann> hello, bob: grüß dich'
say bob 'hello, ann'
await "ann hears bob" heard ann '<bob> hello, ann'
echo '/j ann psst' >"$scratch/bob/$host/in"
await "ann hears bob in private" grep -qF '<bob> psst' "$scratch/ann/$host/bob/out"

# WeeChat without a screen. It reads commands from a FIFO, and what it receives is in its log.
weechat-headless --dir "$scratch/weechat" --run-command \
    "/set irc.look.temporary_servers on;/set logger.file.flush_delay 0;/connect $host/$port -nicks=wee,wee2 -autojoin=#room" \
    >"$scratch/weechat.log" 2>&1 &
weechat=$!
clients+=("$weechat")
await "WeeChat joins" heard ann "wee(~"
room="$scratch/weechat/logs/irc.$host.#room.weechatlog"
tell_weechat() { # TEXT
    printf 'irc.%s.#room *%s\n' "$host" "$1" >"$scratch/weechat/weechat_fifo_$weechat"
}
await "WeeChat's FIFO" test -p "$scratch/weechat/weechat_fifo_$weechat"
await "WeeChat sees the topic" grep -qF 'the weather' "$room"
await "WeeChat sees who is there" grep -qF '3 nicks (1 op' "$room"

# PyPI's irc. It sends many kinds of commands, and provokes errors.
"$python" "$here/irc_client.py" "$addr" py '#room' 'hello from Python' \
    'wee hello from WeeChat' 'ann hello from ii' >"$scratch/py.log" 2>&1 &
py=$!
await "Python joins" heard bob "py(~py@$host) has joined #room"
tell_weechat 'hello from WeeChat'
say ann 'hello from ii'
say bob 'go'
for nick in ann bob; do
    await "$nick hears WeeChat" heard "$nick" '<wee> hello from WeeChat'
    await "$nick hears Python" heard "$nick" '<py> hello from Python'
done
await "WeeChat hears ii" grep -qP '\tgo$' "$room"
await "WeeChat hears Python" grep -qP '\thello from Python$' "$room"
wait "$py" || fail "irc_client.py"
await "ann sees Python's new name" grep -qE 'py changed nick to "?py2' "$scratch/ann/$host/out"
await "ann sees Python leave" grep -qF 'py2(~py@' "$scratch/ann/$host/out"

# WeeChat is made an operator, and kicks bob out.
echo '/MODE #room +o wee' >"$scratch/ann/$host/in"
await "WeeChat is an operator" grep -qF '[+o wee] by ann' "$room"
tell_weechat '/mode #room +m'
await "ann sees the mode" grep -qE 'wee changed mode/#room -> \+m' "$scratch/ann/$host/#room/out"
say bob 'nobody hears this'
await "bob is told so" grep -qF 'Cannot send to channel' "$scratch/bob/$host/out"
tell_weechat '/kick #room bob enough'
await "ann sees bob thrown out" grep -qE 'wee kicked bob' "$scratch/ann/$host/#room/out"
! heard ann 'nobody hears this' || fail "bob was heard without a voice"

kill -s TERM "$server"
wait "$server" || fail "the server ended with $? after SIGTERM"
server=
await "WeeChat is told why it ends" grep -qF 'Server shutting down' \
    "$scratch/weechat/logs/irc.server.$host.weechatlog"
sed -n 's/^irc_client.py: ok/irc: &/p' "$scratch/py.log"
echo "irc: ii twice, WeeChat $(weechat-headless --version) and Python talked: ok"
