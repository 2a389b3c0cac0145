"""ftplib against the FTP example: ftp_client.py HOST:PORT DIRECTORY

DIRECTORY is the one that the server serves. The script checks the files that have arrived in it.
"""

import ftplib
import io
import os
import sys
import threading

host, port = sys.argv[1].rsplit(":", 1)
root = sys.argv[2]


def connect():
    ftp = ftplib.FTP(encoding="utf-8", timeout=30)
    ftp.connect(host, int(port))
    ftp.login("me", "secret")
    return ftp


def refused(code, act, *args):
    try:
        act(*args)
    except ftplib.Error as error:
        assert str(error).startswith(code), error
    else:
        raise AssertionError(args)


def get(ftp, name, **options):
    pieces = []
    ftp.retrbinary(f"RETR {name}", pieces.append, **options)
    return b"".join(pieces)


ftp = connect()
content = bytes(range(256)) * 5000

# Files.
ftp.storbinary("STOR größe", io.BytesIO(content))
assert get(ftp, "größe") == content and ftp.size("größe") == len(content)
assert get(ftp, "größe", rest=len(content) - 3) == content[-3:]
assert get(ftp, "größe", rest=len(content)) == b""
refused("554", lambda: get(ftp, "größe", rest=len(content) + 1))
ftp.storbinary("STOR größe", io.BytesIO(b"xyz"), rest=1000)
assert get(ftp, "größe") == content[:1000] + b"xyz"
ftp.storbinary("APPE größe", io.BytesIO(b"!"))
assert ftp.size("größe") == 1004
ftp.storlines("STOR lines", io.BytesIO(b"one\r\ntwo\r\n"))
lines = []
ftp.retrlines("RETR lines", lines.append)
assert lines == ["one", "two"], lines
ftp.storbinary("STOR empty", io.BytesIO(b""))
assert get(ftp, "empty") == b"" and ftp.size("empty") == 0

# Directories.
assert ftp.mkd('a "b"') == '/a "b"'
ftp.cwd('a "b"')
assert ftp.pwd() == '/a "b"'
ftp.rename("/lines", "lines, here")
assert ftp.nlst() == ["lines, here"]
refused("550", ftp.rmd, '/a "b"')
ftp.delete("lines, here")
ftp.cwd("..")
ftp.rmd('a "b"')
facts = dict(ftp.mlsd())
assert sorted(facts) == ["empty", "größe"] and facts["größe"]["size"] == "1004", facts
modified = ftp.voidcmd("MDTM größe").removeprefix("213 ")
assert facts["größe"]["modify"] == modified
assert dict(ftp.mlsd(facts=["size", "none"])) == {"empty": {"size": "0"}, "größe": {"size": "1004"}}
assert ftp.sendcmd("FEAT").splitlines()[3] == " MLST type;size*;modify;perm;"
ftp.sendcmd("OPTS MLST type;size;modify;perm;")
assert dict(ftp.mlsd()) == facts
listing = []
ftp.dir("-la", listing.append)
assert len(listing) == 2 and all(line.startswith("-rw-r--r-- 1 ftp ftp ") for line in listing)

# Commands that are refused.
os.symlink("/etc", os.path.join(root, "etc"))
os.symlink("../..", os.path.join(root, "up"))
os.symlink("größe", os.path.join(root, "link"))
for name in ["etc/passwd", "up/etc/passwd", "none", "../../../etc/passwd", "/etc/passwd"]:
    refused("550", get, ftp, name)
assert sorted(name for name, _ in ftp.mlsd()) == ["empty", "größe", "link"]
assert ftp.size("link") == 1004
for name in ["etc", "up", "link"]:
    ftp.delete(name)
assert ftp.size("größe") == 1004

# A download that is aborted. ftplib sends the line as urgent data, and its last byte with it.
ftp.storbinary("STOR big", io.BytesIO(bytes(50_000_000)))
data = ftp.transfercmd("RETR big")
data.recv(1000)
assert ftp.abort().startswith(("426", "226"))
data.close()
reply = ftp.getmultiline()
assert reply.startswith("226"), reply
assert ftp.voidcmd("NOOP").startswith("200")

# Many clients at a time.
def work(n):
    mine = connect()
    for i in range(30):
        mine.storbinary(f"STOR {n}-{i}", io.BytesIO(content[: i * 1000]))
        assert get(mine, f"{n}-{i}") == content[: i * 1000]
        mine.delete(f"{n}-{i}")
    mine.quit()


threads = [threading.Thread(target=work, args=(n,)) for n in range(10)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
for name in ftp.nlst():
    ftp.delete(name)
assert os.listdir(root) == []
ftp.quit()
print("ftplib: ok")
