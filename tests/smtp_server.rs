//! The SMTP server of `examples/`: its parts in this process, over streams in memory, and its binary in
//! another.
//!
//! Tests that depend on time have a paused clock.

#![cfg(all(feature = "serve", unix))]
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

#[path = "../examples/smtp_server/command.rs"]
mod command;
#[path = "../examples/smtp_server/maildir.rs"]
mod maildir;
#[path = "support/process.rs"]
mod process;
#[path = "../examples/smtp_server/session.rs"]
mod session;
#[path = "../examples/smtp_server/text.rs"]
mod text;
#[path = "../examples/smtp_server/tls.rs"]
mod tls;

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Command as Process;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use asynchat::verify::Verifier;
use base64::Engine as _;
use bytes::Bytes;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader, DuplexStream,
    ReadBuf,
};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_util::sync::CancellationToken;

use crate::command::{Command, parse};
use crate::maildir::{Maildir, Store};
use crate::process::{Server, example};
use crate::session::{
    Ends, Host, MAX_EXCESS, MAX_FRUITLESS, MAX_LINE, MAX_RECIPIENTS, MAX_SIZE, MIN_CHUNK,
};
use crate::text::Text;

// ---------------------------------------------------------------------------------------------
// The server

/// The Maildir of one test, which is empty at first.
struct Mail {
    dir: PathBuf,
}

impl Mail {
    fn new(test: &str) -> Self {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("smtp_server-{test}"));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Mail { dir }
    }

    fn host(&self) -> Arc<Host> {
        host(Store::Maildir(Arc::new(Maildir::open(&self.dir).unwrap())))
    }

    /// The messages that have arrived, in the order in which they began, with the header fields that the server has
    /// added.
    fn whole(&self) -> Vec<Vec<u8>> {
        let mut names = names(&self.dir.join("new"));
        let number = |name: &String| -> u64 {
            name.split_once('Q').unwrap().1.trim_end_matches(".localhost").parse().unwrap()
        };
        names.sort_by_key(number);
        names.iter().map(|name| fs::read(self.dir.join("new").join(name)).unwrap()).collect()
    }

    /// The messages that have arrived, without the header fields that the server has added.
    fn texts(&self) -> Vec<String> {
        let text = |whole: Vec<u8>| {
            let whole = String::from_utf8(whole).unwrap();
            whole.split_once("+0000\r\n").unwrap().1.to_owned()
        };
        self.whole().into_iter().map(text).collect()
    }

    /// The messages that have arrived, which are removed from the Maildir.
    fn empty(&self) -> Vec<String> {
        let texts = self.texts();
        fs::remove_dir_all(self.dir.join("new")).unwrap();
        fs::create_dir(self.dir.join("new")).unwrap();
        texts
    }

    fn unfinished(&self) -> Vec<String> {
        names(&self.dir.join("tmp"))
    }
}

fn names(dir: &Path) -> Vec<String> {
    let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    fs::read_dir(dir).unwrap().map(name).collect()
}

fn host(store: Store) -> Arc<Host> {
    Arc::new(Host::new(store, tls::config(None).unwrap(), 10))
}

fn ends() -> Ends {
    Ends { local: "[here]".to_owned(), peer: "[there]".to_owned() }
}

/// A peer that sends these pieces, and then ends its output. The answers go to `output`.
struct Wire {
    reads: VecDeque<Bytes>,
    output: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(piece) = self.reads.front_mut() {
            let len = piece.len().min(buf.remaining());
            buf.put_slice(&piece.split_to(len));
            if piece.is_empty() {
                self.reads.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.output.lock().unwrap().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Serves a peer that sends these pieces. Returns all answers.
async fn served<'a>(host: &Arc<Host>, reads: impl IntoIterator<Item = &'a [u8]>) -> String {
    let output = Arc::default();
    let reads =
        reads.into_iter().filter(|read| !read.is_empty()).map(Bytes::copy_from_slice).collect();
    let wire = Wire { reads, output: Arc::clone(&output) };
    session::serve(host.clone(), wire, Bytes::new(), ends(), CancellationToken::new()).await;
    let output = output.lock().unwrap().clone();
    String::from_utf8(output).unwrap()
}

/// The codes of the replies. Of a reply with several lines it is that of the last.
fn codes(replies: &str) -> Vec<u16> {
    assert!(replies.is_empty() || replies.ends_with("\r\n"), "{replies:?}");
    let last = |line: &&str| line.as_bytes()[3] == b' ';
    replies.split_terminator("\r\n").filter(last).map(|line| line[..3].parse().unwrap()).collect()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

const ENVELOPE: &str = "MAIL FROM:<me@example.org>\r\nRCPT TO:<you@example.org>\r\n";

// ---------------------------------------------------------------------------------------------
// Whole sessions

#[test]
fn a_message_is_answered_and_stored_alike_however_it_is_cut() {
    let mail = Mail::new("cuts");
    let host = mail.host();
    let runtime = runtime();
    for (sent, wanted, stored) in [
        ("DATA\r\n..\r\n.x\r\n\r\n.\r\nQUIT\r\nNOOP\r\n", &[354, 250, 221][..], ".\r\nx\r\n\r\n"),
        ("DATA\r\n.\r\nDATA\r\nQUIT\r\n", &[354, 250, 503, 221], ""),
        ("BDAT 5\r\na\r\n.\rBDAT 0\r\nBDAT 3 LAST\r\n\nbc", &[250, 250, 250], "a\r\n.\r\nbc"),
    ] {
        let input = format!("HELO me\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\n{sent}");
        let verifier = Verifier::new().without_trailing().three_reads_up_to(0).random_reads(10);
        let mut ways = 0;
        let (replies, texts) = verifier.check(input.as_bytes(), |delivery| {
            ways += 1;
            let replies = runtime.block_on(served(&host, delivery.reads()));
            (codes(&replies), mail.empty())
        });
        assert_eq!(replies[..4], [220, 250, 250, 250]);
        assert_eq!(replies[4..], *wanted);
        assert_eq!(texts, [stored]);
        assert!(ways > input.len(), "{ways}");
        assert!(mail.unfinished().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn replies_depend_on_no_cut_whatever_follows() {
    let host = host(Store::Nowhere);
    let long = format!("NOOP {}\r\nNOOP\r\n", "x".repeat(MAX_LINE as usize));
    let inputs = [
        format!("HELO me\r\n{ENVELOPE}DATA\r\n.\r\nmail from:<>\r\nRSET\r\nVRFY x\r\nHELP\r\n"),
        format!("EHLO me\r\n{ENVELOPE}BDAT 3\r\n...DATA\r\nRCPT TO:<a@b>\r\nBDAT 1 last\r\n."),
        "NOOP\r\r\nNOOP\nNOOP\r\nMAIL\r\n\r\nDATA\r\nBDAT x\r\nQUIT\r\n".to_owned(),
        "EHLO me\r\nSTARTTLS x\r\nQUIT\r\n".to_owned(),
        format!(
            "EHLO me\r\n{ENVELOPE}DATA\r\n..\r\n.x\r\n\r\n.\r\n{ENVELOPE}BDAT 2\r\na\r\
             BDAT 2 LAST\r\n\n.BDAT 4\r\nQUIT{ENVELOPE}DATA\r\nx\n.\r\nQUIT\r\n.\r\nQUIT\r\n"
        ),
        long,
    ];
    for input in inputs {
        let verifier = Verifier::new().three_reads_up_to(0).random_reads(10);
        let make = || session::Session::new(host.clone(), ends(), false);
        let answered = verifier.handler(&session::channels(), input.as_bytes(), make).await;
        assert!(!answered.output.is_empty());
    }
}

#[tokio::test]
async fn a_message_has_the_lines_before_it_that_a_message_has() {
    let mail = Mail::new("head");
    let input =
        format!("EHLO me.example\r\n{ENVELOPE}RCPT TO:<\"a b\"@[::1]>\r\nDATA\r\nx\r\n.\r\n");
    let replies = served(&mail.host(), [input.as_bytes()]).await;
    let message = String::from_utf8(mail.whole().remove(0)).unwrap();
    let (head, rest) = message.split_once(" id ").unwrap();
    assert_eq!(
        head,
        "Return-Path: <me@example.org>\r\nDelivered-To: you@example.org\r\n\
         Delivered-To: \"a b\"@[::1]\r\n\
         Received: from me.example ([there]) by [here]\r\n\twith ESMTP"
    );
    let (name, rest) = rest.split_once("; ").unwrap();
    assert!(replies.contains(&format!("250 2.0.0 stored as {name}\r\n")), "{replies}");
    assert!(rest.ends_with(" +0000\r\nx\r\n"), "{rest:?}");
    assert_eq!(names(&mail.dir.join("new")), [name]);
}

#[tokio::test]
async fn nothing_is_kept_of_a_message_that_does_not_end() {
    let mail = Mail::new("truncated");
    let host = mail.host();
    let long = "0123456789\r\n".repeat(20_000);
    for input in [
        format!("EHLO me\r\n{ENVELOPE}DATA\r\n"),
        format!("EHLO me\r\n{ENVELOPE}DATA\r\nhalf a mess"),
        format!("EHLO me\r\n{ENVELOPE}DATA\r\n{long}.\r"),
        format!("EHLO me\r\n{ENVELOPE}BDAT 9 LAST\r\nhalf"),
        format!("EHLO me\r\n{ENVELOPE}BDAT {}\r\n{long}RSET\r\nQUIT\r\n", long.len()),
        format!("EHLO me\r\n{ENVELOPE}BDAT 300000 LAST\r\n{long}"),
    ] {
        served(&host, [input.as_bytes()]).await;
        assert_eq!(mail.texts(), [""; 0], "{input:.80}");
        assert_eq!(mail.unfinished(), [""; 0], "{input:.80}");
    }
}

// ---------------------------------------------------------------------------------------------
// The end of a text, and bytes that look like it

#[tokio::test]
async fn only_crlf_dot_crlf_ends_a_text() {
    let host = host(Store::Nowhere);
    for (text, code) in [
        ("", 250),
        ("x\r\n", 250),
        ("\r\n", 250),
        ("x\r\n..\r\nRSET\r\n", 250),
        ("x\r\n. \r\nRSET\r\n", 250),
        ("x\r\n\0.\r\nRSET\r\n", 250),
        ("x\n.\nRSET\r\n", 550),
        ("x\n.\r\nRSET\r\n", 550),
        ("x\r\n.\nRSET\r\n", 550),
        ("x\r.\rRSET\r\n", 550),
        ("x\r.\r\nRSET\r\n", 550),
        ("x\r\n.\rRSET\r\n", 550),
        ("x\r\r\n.\rRSET\r\n", 550),
        ("x\n\n.\r\r\nRSET\r\n", 550),
        (".\nRSET\r\n", 550),
        (".\rRSET\r\n", 550),
        ("\n.\r\nRSET\r\n", 550),
        ("x\r\r\n", 550),
        ("\n\r\n", 550),
    ] {
        let input = format!("EHLO me\r\n{ENVELOPE}DATA\r\n{text}.\r\nQUIT\r\n");
        let replies = served(&host, [input.as_bytes()]).await;
        assert_eq!(codes(&replies), [220, 250, 250, 250, 354, code, 221], "{text:?}");
    }
}

/// Tries every text of up to six of these bytes, with an end behind it.
#[tokio::test]
async fn each_short_text_ends_where_rfc_5321_says() {
    let host = host(Store::Nowhere);
    for text in short_texts() {
        let sent = format!("{text}\r\n.\r\n");
        let end = if sent.starts_with(".\r\n") { 0 } else { sent.find("\r\n.\r\n").unwrap() + 2 };
        let lines = sent[..end].replace("\r\n", "");
        let code = if lines.contains(['\r', '\n']) { 550 } else { 250 };
        // After the end come commands, and none of these bytes can be one.
        let rest = &sent[end + 3..];
        let input = format!("EHLO me\r\n{ENVELOPE}DATA\r\n{sent}");
        let mut wanted = vec![220, 250, 250, 250, 354, code];
        wanted.extend(rest.matches("\r\n").map(|_| 500));
        assert_eq!(codes(&served(&host, [input.as_bytes()]).await), wanted, "{sent:?}");
    }
}

#[test]
fn dots_are_taken_off_as_line_by_line() {
    for sent in short_texts() {
        let mut lines = sent.split("\r\n");
        let bare = lines.any(|line| line.contains(['\r', '\n']));
        let lines = sent.split("\r\n").map(|line| line.strip_prefix('.').unwrap_or(line));
        let wanted = (!bare).then(|| lines.collect::<Vec<_>>().join("\r\n"));
        for cut in 0..=sent.len() {
            let (mut text, mut kept) = (Text::new(), Vec::new());
            let (first, second) = sent.as_bytes().split_at(cut);
            let mut feed = |bytes| text.feed(bytes, |piece| kept.extend_from_slice(piece));
            let fed = feed(first).and_then(|()| feed(second));
            match &wanted {
                Some(wanted) => assert_eq!((fed, kept.as_slice()), (Ok(()), wanted.as_bytes())),
                // A CR at the end may still be followed by its LF.
                None => assert!(fed.is_err() || text == Text::AfterCr, "{sent:?}"),
            }
        }
    }
}

fn short_texts() -> impl Iterator<Item = String> {
    let digits = |mut number: u32, len: u32| {
        let next = |_| {
            let byte = ['\r', '\n', '.', 'x'][number as usize % 4];
            number /= 4;
            byte
        };
        (0..len).map(next).collect()
    };
    (0..=6).flat_map(move |len| (0..4_u32.pow(len)).map(move |number| digits(number, len)))
}

// ---------------------------------------------------------------------------------------------
// Commands

#[test]
fn commands_are_read_as_written() {
    let mail = |from: &str, size, utf8| Command::Mail { from: from.to_owned(), size, utf8 };
    let rcpt = |to: &str| Command::Rcpt(to.to_owned());
    let long = "a".repeat(64);
    for (line, command) in [
        ("helo me", Command::Helo("me".to_owned())),
        ("EHLO [127.0.0.1]  ", Command::Ehlo("[127.0.0.1]".to_owned())),
        ("MAIL FROM:<>", mail("", 0, false)),
        ("mail from: <a.b@c-d.e>", mail("a.b@c-d.e", 0, false)),
        ("MAIL FROM:<a@b> SIZE=12 body=8bitmime smtputf8", mail("a@b", 12, true)),
        ("MAIL FROM:<\u{fc}@\u{4e16}> SMTPUTF8", mail("\u{fc}@\u{4e16}", 0, true)),
        ("MAIL FROM:<a@b> SIZE=99999999999999999999", mail("a@b", u64::MAX, false)),
        ("RCPT TO:<@x,@y.z:a@b>", rcpt("a@b")),
        ("RCPT TO:<\"a>\\\" @\"@[IPv6:::1]>", rcpt("\"a>\\\" @\"@[IPv6:::1]")),
        ("RCPT TO:<Postmaster>", rcpt("Postmaster")),
        (&format!("RCPT TO:<{long}@b>"), rcpt(&format!("{long}@b"))),
        ("BDAT 0", Command::Bdat { size: Some(0), last: false }),
        ("BDAT 12 last", Command::Bdat { size: Some(12), last: true }),
        ("BDAT", Command::Bdat { size: None, last: false }),
        ("BDAT +1", Command::Bdat { size: None, last: false }),
        ("BDAT 1 x", Command::Bdat { size: None, last: false }),
        ("NOOP and more", Command::Noop),
        ("StartTLS", Command::StartTls),
        ("GET / HTTP/1.1", Command::Http),
        ("post /", Command::Http),
        ("CONNECT here:25 HTTP/1.1", Command::Http),
        ("Host: here", Command::Http),
    ] {
        assert_eq!(parse(line.as_bytes()), Ok(command), "{line:?}");
    }
}

#[test]
fn what_is_no_command_is_refused() {
    let long = "a".repeat(65);
    for (line, code) in [
        ("", "500"),
        ("PUT / HTTP/1.1", "500"),
        ("NO:OP", "500"),
        (" NOOP", "500"),
        ("NOOP\nQUIT", "500"),
        ("NOOP\r", "500"),
        ("NOOP\0", "500"),
        ("HELO", "501"),
        ("EHLO a b", "501"),
        ("EHLO a(b)", "501"),
        ("DATA x", "501"),
        ("QUIT x", "501"),
        ("VRFY", "501"),
        ("MAIL", "501"),
        ("MAIL FROM", "501"),
        ("MAIL FROM:a@b", "501"),
        ("MAIL FROM:<a@b", "501"),
        ("MAIL FROM:<a@b>x", "501"),
        ("MAIL FROM:<a>", "501"),
        ("MAIL FROM:<a b@c>", "501"),
        ("MAIL FROM:<a..b@c>", "501"),
        ("MAIL FROM:<a@b..c>", "501"),
        ("MAIL FROM:<a@-b>", "501"),
        ("MAIL FROM:<\"a\"b\"@c>", "501"),
        ("MAIL FROM:<a@b> SIZE", "501"),
        ("MAIL FROM:<a@b> SIZE=-1", "501"),
        ("MAIL FROM:<a@b> BODY=BINARYMIME", "501"),
        ("MAIL FROM:<a@b> RET=FULL", "555"),
        ("RCPT TO:<>", "501"),
        ("RCPT TO:<a@b> NOTIFY=NEVER", "555"),
        ("RCPT TO:<\u{fc}", "501"),
        ("RCPT T\u{fc}:<a@b>", "501"),
        (&format!("RCPT TO:<{long}@b>"), "501"),
        ("AUTH PLAIN", "502"),
    ] {
        let refused = parse(line.as_bytes()).unwrap_err();
        assert!(refused.starts_with(code), "{line:?}: {refused}");
    }
    assert!(parse(b"NOOP \xff").unwrap_err().starts_with("500"));
}

// ---------------------------------------------------------------------------------------------
// Limits, and hostile peers

#[tokio::test]
async fn what_a_peer_can_make_grow_has_a_limit() {
    let host = host(Store::Nowhere);
    let ask = async |input: &str| codes(&served(&host, [input.as_bytes()]).await);

    let line = format!("NOOP {}\r\n", "x".repeat(MAX_LINE as usize - 5));
    assert_eq!(ask(&line).await, [220, 250]);
    let line = format!("NOOP {}\r\nNOOP\r\n", "x".repeat(MAX_LINE as usize - 4));
    assert_eq!(ask(&line).await, [220, 500, 250]);

    let recipients = "RCPT TO:<a@b>\r\n".repeat(MAX_RECIPIENTS + 1);
    let got = ask(&format!("EHLO me\r\nMAIL FROM:<>\r\n{recipients}DATA\r\n.\r\n")).await;
    assert_eq!(got[got.len() - 4..], [250, 452, 354, 250]);

    let size = MAX_SIZE as usize;
    let start = format!("EHLO me\r\n{ENVELOPE}");
    for (text, code) in [(size - 2, 250), (size - 1, 552)] {
        let got = ask(&format!("{start}DATA\r\n{}\r\n.\r\nQUIT\r\n", "x".repeat(text))).await;
        assert_eq!(got, [220, 250, 250, 250, 354, code, 221], "{text}");
    }
    for (more, code) in [(0, 250), (1, 552)] {
        let (first, rest) = (size / 2, size - size / 2 + more);
        let (a, b) = ("x".repeat(first), "x".repeat(rest));
        let got = ask(&format!("{start}BDAT {first}\r\n{a}BDAT {rest} LAST\r\n{b}QUIT\r\n")).await;
        assert_eq!(got, [220, 250, 250, 250, 250, code, 221], "{more}");
    }
    // The text is so long that the server does not read to its end.
    let got = ask(&format!("{start}DATA\r\n{}\r\n.\r\nQUIT\r\n", "x".repeat(2 * size + 1))).await;
    assert_eq!(got, [220, 250, 250, 250, 354, 552]);
    let got = ask(&format!("{start}BDAT {}\r\nQUIT\r\n", u64::MAX)).await;
    assert_eq!(got, [220, 250, 250, 250, 552]);
    let got = ask(&format!("{start}BDAT x\r\nQUIT\r\n")).await;
    assert_eq!(got, [220, 250, 250, 250, 501]);
    let got = ask(&format!("EHLO me\r\nMAIL FROM:<> SIZE={}\r\n", size + 1)).await;
    assert_eq!(got, [220, 250, 552]);
}

#[tokio::test]
async fn whoever_sends_no_message_is_sent_off() {
    let host = host(Store::Nowhere);
    let most = MAX_FRUITLESS as usize;
    for command in [
        "x",
        "NOOP",
        "RSET",
        "HELP",
        "VRFY you",
        "HELO me",
        "EHLO me",
        "RCPT TO:<you>",
        "BDAT 0 LAST",
        &"x".repeat(MAX_LINE as usize + 1),
    ] {
        let input = format!("{command}\r\n").repeat(most + 10);
        let got = codes(&served(&host, [input.as_bytes()]).await);
        assert_eq!(got.len(), 1 + most + 1, "{command}");
        assert_eq!(got.last(), Some(&421), "{command}");
    }
    // These commands begin a message and never end it. `replies` is how many replies come after that to EHLO and before
    // the 421.
    let chunk = format!("BDAT {0}\r\n{1}", MIN_CHUNK - 1, "x".repeat(MIN_CHUNK as usize - 1));
    let excess = "RCPT TO:<a@b>\r\n".repeat(MAX_RECIPIENTS + MAX_EXCESS);
    for (once, again, replies) in [
        ("", "MAIL FROM:<>\r\nRSET\r\n".to_owned(), 2 * (most - 1)),
        ("", "MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nRSET\r\n".to_owned(), 3 * (most - 1)),
        (ENVELOPE, "BDAT 0\r\n".to_owned(), 2 + most - 1),
        (ENVELOPE, chunk, 2 + most - 1),
        ("", format!("{ENVELOPE}DATA\r\n\n\r\n.\r\n"), 4 * (most - 1)),
        (
            &format!("MAIL FROM:<>\r\n{excess}"),
            "RCPT TO:<a@b>\r\n".to_owned(),
            1 + MAX_RECIPIENTS + MAX_EXCESS + most - 1,
        ),
    ] {
        let input = format!("EHLO me\r\n{once}{}", again.repeat(most + 10));
        let got = codes(&served(&host, [input.as_bytes()]).await);
        assert_eq!(got.len(), 2 + replies + 1, "{again:?}");
        assert_eq!(got.last(), Some(&421), "{again:?}");
    }
}

#[tokio::test]
async fn whoever_sends_messages_may_send_many() {
    let host = host(Store::Nowhere);
    let recipients = "RCPT TO:<a@b>\r\n".repeat(MAX_RECIPIENTS + MAX_EXCESS);
    // Together with EHLO and RSET, one more would be too many.
    let fruitless = "NOOP\r\n".repeat(MAX_FRUITLESS as usize - 3);
    let chunk = format!("BDAT {MIN_CHUNK}\r\n{}", "x".repeat(MIN_CHUNK as usize));
    let chunks = chunk.repeat(2 * MAX_FRUITLESS as usize);
    for message in [
        format!("{ENVELOPE}DATA\r\n.\r\n"),
        format!("MAIL FROM:<>\r\n{recipients}DATA\r\n.\r\n"),
        format!("RSET\r\n{fruitless}{ENVELOPE}BDAT 1 LAST\r\nx"),
        format!("{ENVELOPE}{chunks}BDAT 0 LAST\r\n"),
    ] {
        let input = format!("EHLO me\r\n{}QUIT\r\n", message.repeat(110));
        let got = codes(&served(&host, [input.as_bytes()]).await);
        assert!(!got.contains(&421), "{message:?}");
        assert_eq!(got.last(), Some(&221), "{message:?}");
    }
}

#[tokio::test]
async fn commands_out_of_order_are_refused() {
    let host = host(Store::Nowhere);
    for (input, wanted) in [
        ("MAIL FROM:<>\r\n", &[503][..]),
        ("EHLO me\r\nRCPT TO:<a@b>\r\nDATA\r\nBDAT 1\r\nx", &[250, 503, 503, 503]),
        ("EHLO me\r\nMAIL FROM:<>\r\nMAIL FROM:<>\r\nDATA\r\n", &[250, 250, 503, 554]),
        ("EHLO me\r\nMAIL FROM:<>\r\nBDAT 6 LAST\r\nQUIT\r\nDATA\r\n", &[250, 250, 554, 503]),
        ("EHLO me\r\nMAIL FROM:<>\r\nRSET\r\nRCPT TO:<a@b>\r\n", &[250, 250, 250, 503]),
        ("EHLO me\r\nMAIL FROM:<>\r\nEHLO me\r\nRCPT TO:<a@b>\r\n", &[250, 250, 250, 503]),
        ("EHLO me\r\nMAIL FROM:<\u{fc}@b>\r\n", &[250, 553]),
        ("EHLO me\r\nMAIL FROM:<>\r\nRCPT TO:<\u{fc}@b>\r\n", &[250, 250, 553]),
        (
            "EHLO me\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nBDAT 1\r\nxDATA\r\nRCPT TO:<a@b>\r\n",
            &[250, 250, 250, 250, 503, 503],
        ),
    ] {
        let got = codes(&served(&host, [input.as_bytes()]).await);
        assert_eq!(got[1..], *wanted, "{input:?}");
    }
}

#[tokio::test]
async fn what_a_web_page_makes_a_browser_send_is_not_obeyed() {
    let mail = Mail::new("http");
    let text = format!("EHLO me\r\n{ENVELOPE}DATA\r\nx\r\n.\r\n");
    let long = "x".repeat(MAX_LINE as usize);
    for (head, wanted) in [
        ("GET / HTTP/1.1\r\n".to_owned(), &[220, 421][..]),
        ("POST / HTTP/1.1\r\nHost: here\r\n\r\n".to_owned(), &[220, 421]),
        ("CONNECT here:25 HTTP/1.1\r\n".to_owned(), &[220, 421]),
        (format!("POST /{long} HTTP/1.1\r\nHost: here\r\n\r\n"), &[220, 500, 421]),
        ("PUT / HTTP/1.1\r\nhost:here\r\nAccept: */*\r\n\r\n".to_owned(), &[220, 500, 500, 421]),
    ] {
        let input = format!("{head}{text}");
        assert_eq!(codes(&served(&mail.host(), [input.as_bytes()]).await), wanted, "{head}");
    }
    assert_eq!(mail.texts(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn beyond_the_connections_there_are_a_peer_is_told_to_come_back() {
    let host = Arc::new(Host::new(Store::Nowhere, tls::config(None).unwrap(), 1));
    let mut first = Client::connect(&host);
    assert_eq!(first.code().await, 220);
    assert_eq!(codes(&served(&host, []).await), [421]);
    // A refused peer that does not close does not delay the next one.
    let began = tokio::time::Instant::now();
    let mut second = Client::connect(&host);
    assert_eq!(second.code().await, 421);
    second.serving.await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
    first.send("QUIT\r\n").await;
    assert_eq!(first.code().await, 221);
    first.end().await;
    assert_eq!(codes(&served(&host, []).await), [220]);
}

// ---------------------------------------------------------------------------------------------
// Peers that wait for answers

/// A peer that waits for each answer.
struct Client {
    io: BufReader<DuplexStream>,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Client {
    fn connect(host: &Arc<Host>) -> Self {
        let (client, server) = tokio::io::duplex(1 << 16);
        let stop = CancellationToken::new();
        let serving = session::serve(host.clone(), server, Bytes::new(), ends(), stop.clone());
        Client { io: BufReader::new(client), stop, serving: tokio::spawn(serving) }
    }

    async fn send(&mut self, text: &str) {
        self.io.write_all(text.as_bytes()).await.unwrap();
    }

    async fn code(&mut self) -> u16 {
        code(&mut self.io).await
    }

    async fn end(mut self) {
        let mut line = String::new();
        assert_eq!(self.io.read_line(&mut line).await.unwrap(), 0, "{line:?}");
        drop(self.io);
        self.serving.await.unwrap();
    }
}

async fn code(io: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> u16 {
    loop {
        let mut line = String::new();
        io.read_line(&mut line).await.unwrap();
        if line.as_bytes()[3] == b' ' {
            return line[..3].parse().unwrap();
        }
    }
}

#[tokio::test]
async fn a_message_goes_to_the_disk_while_it_comes() {
    let mail = Mail::new("streamed");
    let mut client = Client::connect(&mail.host());
    client.send(&format!("EHLO me\r\n{ENVELOPE}DATA\r\n")).await;
    for wanted in [220, 250, 250, 250, 354] {
        assert_eq!(client.code().await, wanted);
    }
    let text = "0123456789\r\n".repeat(100_000);
    client.send(&text).await;
    // All but what is in the pipe and in two blocks must arrive although the peer sends no more.
    let most = text.len() as u64 - (1 << 16) - 2 * (1 << 16);
    let written = || {
        let names = mail.unfinished();
        names.first().map_or(0, |name| {
            fs::metadata(mail.dir.join("tmp").join(name)).map_or(0, |data| data.len())
        })
    };
    let began = Instant::now();
    while written() < most {
        assert!(began.elapsed() < Duration::from_secs(60), "{} of {most} bytes", written());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(mail.texts(), [""; 0]);
    client.send(".\r\n").await;
    assert_eq!(client.code().await, 250);
    assert_eq!(mail.texts(), [text]);
}

#[tokio::test]
async fn a_shutdown_waits_for_a_message_that_has_begun() {
    let mail = Mail::new("shutdown");
    let host = mail.host();
    for (begun, rest) in
        [("DATA\r\n", ".\r\n"), ("DATA\r\nx", "\r\n.\r\n"), ("BDAT 2 LAST\r\nx", "y")]
    {
        let mut client = Client::connect(&host);
        client.send(&format!("EHLO me\r\n{ENVELOPE}{begun}")).await;
        let before: &[u16] = &[220, 250, 250, 250, 354];
        for &wanted in &before[..4 + usize::from(begun.starts_with('D'))] {
            assert_eq!(client.code().await, wanted);
        }
        client.stop.cancel();
        tokio::task::yield_now().await;
        client.send(rest).await;
        assert_eq!(client.code().await, 250);
        assert_eq!(client.code().await, 421);
        client.end().await;
    }
    assert_eq!(mail.texts().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_is_sent_off() {
    for input in ["", "EHLO me\r\n", "NO", "EHLO me\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\nx"]
    {
        let mut client = Client::connect(&host(Store::Nowhere));
        let began = tokio::time::Instant::now();
        client.send(input).await;
        while client.code().await != 421 {}
        assert!(began.elapsed() >= Duration::from_secs(300), "{:?}", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(302), "{:?}", began.elapsed());
        client.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_without_a_message_has_less_time_among_many() {
    let host = Arc::new(Host::new(Store::Nowhere, tls::config(None).unwrap(), 6));
    let began = tokio::time::Instant::now();
    let mut clients = Vec::new();
    for (input, replies, wait) in [
        ("", 1, 300),
        ("EHLO me\r\n", 2, 300),
        ("", 1, 300),
        // With these connections, more than half of the places are taken.
        ("", 1, 10),
        ("EHLO me\r\n", 2, 10),
        ("EHLO me\r\nMAIL FROM:<>\r\n", 3, 300),
    ] {
        let mut client = Client::connect(&host);
        client.send(input).await;
        for _ in 0..replies {
            assert_ne!(client.code().await, 421);
        }
        clients.push((client, wait));
    }
    clients.sort_by_key(|(_, wait)| *wait);
    for (mut client, wait) in clients {
        assert_eq!(client.code().await, 421);
        let waited = began.elapsed().as_secs();
        assert!((wait..wait + 2).contains(&waited), "{waited} instead of {wait}");
        drop(client);
    }
}

// ---------------------------------------------------------------------------------------------
// TLS

#[tokio::test]
async fn starttls_forgets_what_was_said_in_the_clear() {
    let mail = Mail::new("starttls");
    let (files, roots) = certificate(&mail.dir);
    let config = tls::config(Some((&files.0, &files.1))).unwrap();
    let store = Store::Maildir(Arc::new(Maildir::open(&mail.dir).unwrap()));
    let host = Arc::new(Host::new(store, config, 1));
    let mut client = Client::connect(&host);
    client.send(&format!("EHLO me\r\n{ENVELOPE}STARTTLS\r\n")).await;
    for wanted in [220, 250, 250, 250, 220] {
        assert_eq!(client.code().await, wanted);
    }
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("localhost").unwrap();
    let tls = connector.connect(name, client.io.into_inner()).await.unwrap();
    let mut tls = BufReader::new(tls);
    let input =
        format!("DATA\r\nMAIL FROM:<>\r\nEHLO me\r\nSTARTTLS\r\n{ENVELOPE}DATA\r\n.\r\nQUIT\r\n");
    tls.write_all(input.as_bytes()).await.unwrap();
    for wanted in [503, 503, 250, 503, 250, 250, 354, 250, 221] {
        assert_eq!(code(&mut tls).await, wanted);
    }
    drop(tls);
    client.serving.await.unwrap();
    let message = String::from_utf8(mail.whole().remove(0)).unwrap();
    assert!(message.contains("with ESMTPS id"), "{message}");
}

#[tokio::test]
async fn what_follows_starttls_in_the_clear_ends_the_connection() {
    let host = host(Store::Nowhere);
    for rest in ["NOOP\r\n", "x", "\r"] {
        let input = format!("EHLO me\r\nSTARTTLS\r\n{rest}");
        assert_eq!(codes(&served(&host, [input.as_bytes()]).await), [220, 250, 501], "{rest:?}");
        // In a packet of its own this is no TLS handshake.
        let reads = [b"EHLO me\r\nSTARTTLS\r\n", rest.as_bytes()];
        let replies = served(&host, reads).await;
        let end = replies.find("220 2.0.0").unwrap();
        assert_eq!(codes(&replies[..end]), [220, 250]);
        assert!(!replies[end + 9..].contains("250"), "{rest:?}: {replies:?}");
    }
}

/// A certificate for `localhost` and its key, as files, and a store that trusts it.
fn certificate(dir: &Path) -> ((PathBuf, PathBuf), RootCertStore) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let pem = |name: &str, label: &str, der: &[u8]| {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        let path = dir.join(name);
        let text = format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n");
        fs::write(&path, text).unwrap();
        path
    };
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let certificate = pem("certificate.pem", "CERTIFICATE", made.cert.der());
    let key = pem("key.pem", "PRIVATE KEY", &made.signing_key.serialize_der());
    ((certificate, key), roots)
}

// ---------------------------------------------------------------------------------------------
// The process

fn start(dir: &Path) -> Server {
    Server::start(Process::new(example("smtp_server")).arg("127.0.0.1:0").arg(dir))
}

/// Connects, sends this, and waits for so many replies.
fn say(server: &Server, text: &str, replies: usize) -> io::BufReader<std::net::TcpStream> {
    let mut client = std::net::TcpStream::connect(&server.addr).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    client.write_all(text.as_bytes()).unwrap();
    let mut client = io::BufReader::new(client);
    for _ in 0..replies {
        line(&mut client);
    }
    client
}

fn line(client: &mut impl io::BufRead) -> String {
    let mut line = String::new();
    while line.as_bytes().get(3) != Some(&b' ') {
        line.clear();
        if client.read_line(&mut line).unwrap() == 0 {
            break;
        }
    }
    line
}

#[test]
fn the_server_ends_cleanly_at_a_signal() {
    let mail = Mail::new("signal");
    for signal in ["INT", "TERM"] {
        let mut server = start(&mail.dir);
        let mut idle = say(&server, "EHLO me\r\n", 2);
        let mut busy = say(&server, &format!("EHLO me\r\n{ENVELOPE}DATA\r\nhal"), 5);
        server.signal(signal);
        assert!(line(&mut idle).starts_with("421 4.3.2 "));
        assert_eq!(line(&mut idle), "");
        busy.get_mut().write_all(b"f\r\n.\r\n").unwrap();
        assert!(line(&mut busy).starts_with("250 "));
        assert!(line(&mut busy).starts_with("421 "));
        drop((idle, busy));
        assert!(server.process.wait().unwrap().success());
    }
    assert_eq!(mail.texts(), ["half\r\n"; 2]);
}

#[test]
fn a_kill_leaves_what_was_answered_and_no_half_of_the_rest() {
    let mail = Mail::new("kill");
    let server = start(&mail.dir);
    let long = "0123456789\r\n".repeat(50_000);
    let stored = say(&server, &format!("EHLO me\r\n{ENVELOPE}DATA\r\n{long}.\r\n"), 6);
    let begun = say(&server, &format!("EHLO me\r\n{ENVELOPE}DATA\r\n{long}"), 5);
    server.signal("KILL");
    drop((server, stored, begun));
    assert_eq!(mail.texts(), [long]);
}
