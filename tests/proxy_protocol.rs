//! The PROXY protocol of the examples: headers that are cut in every way, hostile headers, and the servers that require
//! one.

#![cfg(all(feature = "serve", unix))]
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

#[path = "support/process.rs"]
mod process;
#[path = "../examples/support/proxy_protocol.rs"]
mod proxy_protocol;

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::pin::Pin;
use std::process::Command;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::runtime::Runtime;

use crate::process::{Server, example};
use crate::proxy_protocol::{Accepted, DEADLINE, MAX_LENGTH, Origin, accept};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A peer that sends these bytes, in these reads, and then ends its output.
#[derive(Debug)]
struct Wire(VecDeque<Bytes>);

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(piece) = self.0.front_mut() {
            let len = piece.len().min(buf.remaining());
            buf.put_slice(&piece.split_to(len));
            if piece.is_empty() {
                self.0.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        panic!("nothing is answered");
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// The origin in the header, and all bytes behind the header, whether they have been read already or not.
fn accepted<'a>(
    runtime: &Runtime,
    reads: impl IntoIterator<Item = &'a [u8]>,
) -> Result<(Origin, Vec<u8>), io::ErrorKind> {
    let reads =
        reads.into_iter().filter(|read| !read.is_empty()).map(Bytes::copy_from_slice).collect();
    runtime.block_on(async {
        let Accepted { mut io, input, origin } =
            accept(Wire(reads), true).await.map_err(|error| error.kind())?;
        let mut rest = input.to_vec();
        io.read_to_end(&mut rest).await.unwrap();
        Ok((origin, rest))
    })
}

fn client(source: &str, destination: &str) -> Origin {
    Origin::Client { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family], &length, rest].concat()
}

fn v4(tlvs: &[u8]) -> Vec<u8> {
    let addresses = [192, 0, 2, 1, 198, 51, 100, 9, 0xdc, 0x04, 0x01, 0xbb];
    version_2(0x21, 0x11, &[&addresses, tlvs].concat())
}

fn v6() -> Vec<u8> {
    let mut rest = [0; 36];
    (rest[0], rest[1], rest[15]) = (0x20, 0x01, 7);
    rest[31] = 1;
    (rest[33], rest[35]) = (80, 81);
    version_2(0x21, 0x21, &rest)
}

fn good() -> Vec<(Vec<u8>, Origin)> {
    let client_4 = client("192.0.2.1:56324", "198.51.100.9:443");
    let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(91));
    assert_eq!(longest.len(), 107);
    let full = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    vec![
        (b"PROXY TCP4 192.0.2.1 198.51.100.9 56324 443\r\n".to_vec(), client_4),
        (b"PROXY TCP6 2001::7 ::1 80 81\r\n".to_vec(), client("[2001::7]:80", "[::1]:81")),
        (
            format!("PROXY TCP6 {full} {full} 65535 65535\r\n").into_bytes(),
            client(&format!("[{full}]:65535"), &format!("[{full}]:65535")),
        ),
        (b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n".to_vec(), client("0.0.0.0:0", "0.0.0.0:0")),
        (b"PROXY UNKNOWN\r\n".to_vec(), Origin::Unknown),
        (b"PROXY UNKNOWN whatever 1 2\r3\n\r\n".to_vec(), Origin::Unknown),
        (longest.into_bytes(), Origin::Unknown),
        (v4(b""), client_4),
        (v4(b"\x04\0\x03abc\x02\0\x01\n"), client_4),
        (v4(&[0; MAX_LENGTH as usize - 12]), client_4),
        (v6(), client("[2001::7]:80", "[::1]:81")),
        // A connection of the proxy itself, whatever else is in the header.
        (version_2(0x20, 0x00, b""), Origin::Unknown),
        (version_2(0x20, 0x11, &[7; 12]), Origin::Unknown),
        (version_2(0x20, 0x77, b"\r\n\r\n"), Origin::Unknown),
        (version_2(0x21, 0x00, b"tlv"), Origin::Unknown),
        (version_2(0x21, 0x31, &[7; 216]), Origin::Unknown),
    ]
}

#[test]
fn a_head_is_read_alike_in_every_cut_and_nothing_behind_it() {
    let runtime = runtime();
    for (head, origin) in good() {
        for behind in [&b""[..], b"P", b"\r\n", b"PING\r\nPROXY UNKNOWN\r\n"] {
            let all = [&head[..], behind].concat();
            let wanted = Ok((origin, behind.to_vec()));
            for cut in 0..=all.len() {
                let (first, second) = all.split_at(cut);
                let got = accepted(&runtime, [first, second]);
                assert_eq!(got, wanted, "{:?} cut at {cut}", head.escape_ascii().to_string());
            }
            assert_eq!(accepted(&runtime, all.chunks(1)), wanted);
        }
    }
}

#[test]
fn a_head_that_is_cut_short_is_none() {
    let runtime = runtime();
    for (head, _) in good() {
        for end in 0..head.len() {
            let got = accepted(&runtime, [&head[..end]]);
            // A CR without an LF behind it is a part of the line, and makes it too long.
            let too_long = head[..end].ends_with(b"x\r");
            let wanted =
                if too_long { io::ErrorKind::InvalidData } else { io::ErrorKind::UnexpectedEof };
            assert_eq!(got, Err(wanted), "{:?}", head[..end].escape_ascii().to_string());
        }
    }
}

fn hostile() -> Vec<Vec<u8>> {
    let mut bad: Vec<Vec<u8>> = [
        "GET / HTTP/1.1\r\n\r\n",
        "EHLO me\r\n",
        "*1\r\n$4\r\nPING\r\n",
        "proxy UNKNOWN\r\n",
        "PROXY  UNKNOWN\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY TCP4\r\nPROXY UNKNOWN\r\n",
        "PROXY\tUNKNOWN\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n",
        "PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 -2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n\r\n",
        "PROXY TCP4 1.2.3.256 5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3.04 5.6.7.8 1 2\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP6 [::1] [::1] 1 2\r\n",
        "PROXY TCP6 fe80::1%lo ::1 1 2\r\n",
        "PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY UNIX a b 1 2\r\n",
    ]
    .map(|line| line.as_bytes().to_vec())
    .to_vec();
    bad.push(format!("PROXY UNKNOWN {}\r\n", "x".repeat(92)).into_bytes());
    bad.push([b"PROXY UNKNOWN ", &[b'x'; 100_000][..]].concat());
    bad.push(b"PROXY TCP4 \xff\xff\xff\xff 5.6.7.8 1 2\r\n".to_vec());
    let addresses = [7; 36];
    for (command, family, length) in [
        (0x11, 0x11, 12),
        (0x31, 0x11, 12),
        (0x01, 0x11, 12),
        (0x22, 0x11, 12),
        (0x2f, 0x11, 12),
        (0x21, 0x11, 11),
        (0x21, 0x11, 0),
        (0x21, 0x21, 35),
        (0x21, 0x12, 12),
        (0x21, 0x22, 36),
        (0x21, 0x41, 12),
        (0x21, 0x13, 12),
    ] {
        bad.push(version_2(command, family, &addresses[..length]));
    }
    bad.push(v4(&[0; MAX_LENGTH as usize - 11]));
    let mut signature = v4(b"");
    signature[11] = b'\r';
    bad.push(signature);
    bad
}

#[test]
fn what_is_no_head_is_refused_in_every_cut() {
    let runtime = runtime();
    for head in hostile() {
        for cut in 0..=head.len().min(200) {
            let (first, second) = head.split_at(cut);
            let got = accepted(&runtime, [first, second]);
            assert_eq!(
                got,
                Err(io::ErrorKind::InvalidData),
                "{:?} cut at {cut}",
                head.escape_ascii().to_string()
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_byte_that_cannot_be_a_heads_is_enough() {
    for first in [&b"G"[..], b"\n", b"PROXX", b"\r\n\r\n\r", b"\x16\x03\x01"] {
        let (mut peer, io) = tokio::io::duplex(64);
        peer.write_all(first).await.unwrap();
        // The peer keeps the connection open, and is refused at once.
        let refused = tokio::time::timeout(DEADLINE, accept(io, true)).await.unwrap();
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
    // A header whose length is too large is refused before its bytes have come.
    let (mut peer, io) = tokio::io::duplex(64);
    peer.write_all(&[SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat()).await.unwrap();
    let refused = tokio::time::timeout(DEADLINE, accept(io, true)).await.unwrap();
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidData);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(version: bool, bytes: Vec<u8>, cut: prop::sample::Index) {
        let all = if version { [SIGNATURE, &bytes].concat() } else { [b"PROXY ", &bytes[..]].concat() };
        let runtime = runtime();
        let (first, second) = all.split_at(cut.index(all.len()));
        let got = accepted(&runtime, [first, second]);
        prop_assert_eq!(got, accepted(&runtime, [&all[..]]));
    }
}

// ---------------------------------------------------------------------------------------------
// The servers

#[track_caller]
fn start(name: &str, args: &[&Path]) -> Server {
    let mut command = Command::new(example(name));
    Server::start(command.arg("127.0.0.1:0").args(args).arg("--proxy-protocol"))
}

/// Sends these bytes, and returns the whole answer.
fn ask(server: &Server, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(&server.addr).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn redis_is_served_behind_a_head_only() {
    let server = start("redis_server", &[]);
    let pings = b"PING\r\n*1\r\n$4\r\nPING\r\nQUIT\r\n";
    for head in [&b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"[..], &v6(), &version_2(0x20, 0, b"")] {
        assert_eq!(ask(&server, &[head, pings].concat()), "+PONG\r\n+PONG\r\n+OK\r\n");
    }
    for bad in
        [&b"PING\r\n"[..], b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\nPING\r\n", &version_2(0x22, 0x11, b"")]
    {
        assert_eq!(ask(&server, bad), "");
    }
    // A peer that sends nothing is cut off, and does not hold up others.
    let began = Instant::now();
    let mut silent = TcpStream::connect(&server.addr).unwrap();
    silent.write_all(b"PROXY TCP4 1.2.3.4").unwrap();
    assert_eq!(ask(&server, &[&v4(b"")[..], pings].concat()), "+PONG\r\n+PONG\r\n+OK\r\n");
    assert_eq!(silent.read(&mut [0]).unwrap_or(0), 0);
    let took = began.elapsed();
    assert!(took >= DEADLINE - Duration::from_secs(1) && took < DEADLINE * 6, "{took:?}");
}

#[test]
fn mail_is_received_from_whom_the_head_names() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("proxy_protocol-mail");
    let _ = std::fs::remove_dir_all(&dir);
    let server = start("smtp_server", &[&dir]);
    let mail = b"EHLO me\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n";
    for head in [&v4(b"\x04\0\x01x")[..], &v6(), b"PROXY UNKNOWN\r\n"] {
        let answer = ask(&server, &[head, mail].concat());
        assert!(answer.starts_with("220 ") && answer.contains("\r\n221 "), "{answer}");
    }
    let mut seen: Vec<String> = std::fs::read_dir(dir.join("new"))
        .unwrap()
        .map(|file| {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            text.lines().find(|line| line.starts_with("Received:")).unwrap().to_owned()
        })
        .collect();
    seen.sort();
    assert_eq!(
        seen,
        [
            "Received: from me ([127.0.0.1]) by [127.0.0.1]",
            "Received: from me ([192.0.2.1]) by [198.51.100.9]",
            "Received: from me ([IPv6:2001::7]) by [IPv6:::1]",
        ]
    );
    assert_eq!(ask(&server, mail), "", "not without a head");
    assert!(ask(&server, b"PROXY UNKNOWN\r\nQUIT\r\n").starts_with("220 "));
}
