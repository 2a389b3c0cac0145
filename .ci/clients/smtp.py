"""smtplib, aiosmtplib and raw bytes against the SMTP example: smtp.py HOST:PORT MAILDIR

Each message carries a name of its own; at the end each that was answered 250 is in the Maildir once, as
it was sent. aiosmtplib is used unless PORTABLE is set.
"""

import mailbox
import os
import smtplib
import socket
import ssl
import sys

address, maildir = sys.argv[1:3]
host, port = address.rsplit(":", 1)
port = int(port)
sent = {}  # name -> text as it should arrive


def message(name, body):
    text = f"Subject: {name}\r\nX-Name: {name}\r\n\r\n{body}"
    sent[name] = text
    return text


def context():
    # The server has made its certificate itself.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def expect(got, wanted, what):
    assert got == wanted, f"{what}: expected {wanted!r}, got {got!r}"


# smtplib, in the clear and over TLS, with texts that have all kinds of lines in them.
bodies = {
    "plain": "Hello.\r\n",
    "dots": ".\r\n..\r\n.x\r\n...\r\nx.\r\n.\r\n",
    "long": "0123456789" * 9 * 100_000 + "\r\n",
    "many": ".line\r\n" * 200_000,
    "utf8": "Gr\u00fc\u00dfe, \u4e16\u754c\r\n",
}
for secure in (False, True):
    with smtplib.SMTP(host, port, timeout=60) as client:
        if secure:
            client.starttls(context=context())
            assert client.sock.version().startswith("TLS"), client.sock
        client.ehlo()
        expect(client.has_extn("starttls"), not secure, "STARTTLS offered")
        for extension in ("pipelining", "size", "8bitmime", "smtputf8", "chunking"):
            assert client.has_extn(extension), extension
        expect(client.vrfy("somebody")[0], 252, "VRFY")
        expect(client.noop()[0], 250, "NOOP")
        for kind, body in bodies.items():
            name = f"smtplib-{kind}-{secure}"
            text = message(name, body)
            refused = client.sendmail("me@example.org", ["you@example.org", "her@example.org"],
                                      text.encode(), ["BODY=8BITMIME"])
            expect(refused, {}, "refused recipients")
        text = message(f"smtplib-address-{secure}", "hello\r\n")
        client.sendmail("m\u00fc@example.org", ["\u4e16@example.org"], text.encode(),
                        ["SMTPUTF8", "BODY=8BITMIME"])
        try:
            client.sendmail("me@example.org", ["not an address"], "x")
            raise AssertionError("a recipient that is none was taken")
        except smtplib.SMTPRecipientsRefused:
            pass
        try:
            client.mail("me@example.org", ["SIZE=999999999"])
            client.rset()
            client.sendmail("me@example.org", ["you@example.org"], "x" * (26 << 20))
            raise AssertionError("a message too large was taken")
        except smtplib.SMTPSenderRefused as refusal:
            expect(refusal.smtp_code, 552, "SIZE")

# CHUNKING, which smtplib does not speak by itself.
with smtplib.SMTP(host, port, timeout=60) as client:
    client.ehlo()
    client.mail("me@example.org")
    client.rcpt("you@example.org")
    text = message("bdat", ".\r\nchunks\r\n.\r\n").encode()
    for piece, last in ((text[:20], ""), (b"", ""), (text[20:], " LAST")):
        client.send(f"BDAT {len(piece)}{last}\r\n".encode() + piece)
        expect(client.getreply()[0], 250, "BDAT")

# Lines that no client library would send.
with socket.create_connection((host, port), timeout=60) as sock:
    reader = sock.makefile("rb")

    def replies(data, *codes):
        sock.sendall(data)
        for code in codes:
            line = reader.readline()
            while line[3:4] == b"-":
                line = reader.readline()
            expect(line[:3].decode(), str(code), f"reply to {data[:40]!r}")

    replies(b"", 220)
    replies(b"NOOP " + b"x" * 100_000 + b"\r\nEHLO me\r\n", 500, 250)
    envelope = b"MAIL FROM:<>\r\nRCPT TO:<you@example.org>\r\nDATA\r\n"
    for end in (b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\n.\r"):
        replies(envelope, 250, 250, 354)
        replies(b"X-Name: smuggled\r\n\r\nx" + end + b"RSET\r\n\r\n.\r\n", 550)
    replies(envelope, 250, 250, 354)
    replies(b".\r\nSTARTTLS\r\nEHLO injected\r\n", 250, 501)
    expect(reader.readline(), b"", "the end after a leftover")

if not os.environ.get("PORTABLE"):
    import asyncio

    import aiosmtplib

    async def send(number):
        client = aiosmtplib.SMTP(hostname=host, port=port, start_tls=False, timeout=60)
        async with client:
            if number % 2:
                await client.starttls(validate_certs=False)
            for turn in range(10):
                text = message(f"aiosmtplib-{number}-{turn}", f".{number}\r\n" * (turn * 1000))
                errors, _ = await client.sendmail("me@example.org", ["you@example.org"], text)
                expect(errors, {}, "aiosmtplib")

    async def send_all():
        await asyncio.gather(*(send(number) for number in range(20)))

    asyncio.run(send_all())

# Everything has arrived, once, and nothing else.
arrived = {}
unnamed = 0
for entry in os.listdir(os.path.join(maildir, "new")):
    with open(os.path.join(maildir, "new", entry), "rb") as file:
        data = file.read()
    assert data.startswith(b"Return-Path: <"), data[:80]
    trace, _, rest = data.partition(b"id ")
    text = rest.partition(b"\r\n")[2]
    if text == b"\r\n" or text == b"":
        unnamed += 1
        continue
    name = text.partition(b"X-Name: ")[2].partition(b"\r\n")[0].decode()
    assert name not in arrived, f"{name} has arrived twice"
    arrived[name] = text
expect(unnamed, 1, "empty messages")
expect(sorted(arrived), sorted(sent), "names of messages")
for name, text in sent.items():
    expect(arrived[name], text.encode(), name)
expect(len(mailbox.Maildir(maildir, create=False)), len(sent) + 1, "messages")
expect(os.listdir(os.path.join(maildir, "tmp")), [], "files left in tmp")
print(f"smtp.py: ok, {len(sent)} messages")
