"""PyPI's irc library against the IRC example: irc_client.py HOST:PORT NICK CHANNEL GREETING... -- WANTED...

Joins the channel, and says the greeting as soon as somebody says "go" there. Ends well when it has heard all that
is wanted, each as `nick text`, and has seen the errors that it provokes. Prints what it hears.
"""

import sys
import time

import irc.client
import irc.strings

address, nick, channel, greeting, *wanted = sys.argv[1:]
wanted = set(wanted)
host, port = address.rsplit(":", 1)
reactor = irc.client.Reactor()
seen = set()
names = []


def on_welcome(connection, _):
    connection.join(channel)


def on_join(connection, event):
    print(f"{event.source.nick} joined {event.target}", flush=True)
    if event.source.nick == nick:
        # All questions that the server answers, and some mistakes.
        connection.names(channel)
        connection.who(channel)
        connection.whois(nick)
        connection.list()
        connection.mode(channel, "")
        connection.topic(channel)
        connection.ison([nick, "nobody"])
        connection.userhost([nick])
        connection.privmsg("nobody", "are you there?")
        connection.nick("7bad")
        connection.part("#nowhere")
        connection.send_raw("NONSENSE " + "x" * 400)
        connection.socket.sendall(b"x" * 600 + b"\r\n")
        connection.ping("the end")


def on_namreply(connection, event):
    names.extend(event.arguments[-1].split())


def on_pubmsg(connection, event):
    text = f"{event.source.nick} {event.arguments[0]}"
    print(text, flush=True)
    wanted.discard(text)
    if event.arguments[0] == "go":
        connection.privmsg(channel, greeting)


def on_all(_, event):
    seen.add(event.type)


reactor.add_global_handler("all_events", on_all)
for name in ("welcome", "join", "namreply", "pubmsg"):
    reactor.add_global_handler(name, globals()[f"on_{name}"])
connection = reactor.server().connect(host, int(port), nick)
deadline = time.monotonic() + 60
answers = {
    "welcome", "myinfo", "featurelist", "motdstart", "motd", "endofmotd", "namreply", "endofnames", "whoreply",
    "endofwho", "whoisuser", "whoisserver", "whoisidle", "endofwhois", "list", "listend", "channelmodeis", "ison",
    "userhost", "nosuchnick", "erroneusnickname", "nosuchchannel", "unknowncommand", "417", "pong",
}
while wanted or not answers <= seen:
    if time.monotonic() > deadline or not connection.is_connected():
        sys.exit(f"irc_client.py: not heard: {wanted}; not seen: {answers - seen}")
    reactor.process_once(0.1)
assert connection.features.nicklen == 30, vars(connection.features)
assert nick in names or f"@{nick}" in names, names
# Changes the nickname, and quits.
connection.nick(f"{nick}2")
connection.quit("good night")
while connection.is_connected():
    assert time.monotonic() < deadline
    reactor.process_once(0.1)
assert {"nick", "error"} <= seen, seen
print("irc_client.py: ok")
