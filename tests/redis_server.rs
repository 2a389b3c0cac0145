//! The Redis example: its parts in this process. It is tested with real clients in `.ci/clients`.
//!
//! Tests that depend on time have a clock of their own.

#![cfg(feature = "serve")]
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

#[path = "support/channel.rs"]
mod channel;
#[path = "../examples/redis_server/commands.rs"]
mod commands;
#[path = "../examples/redis_server/protocol.rs"]
mod protocol;
#[allow(dead_code)] // The addresses of clients are not used here.
#[path = "../examples/support/proxy_protocol.rs"]
mod proxy_protocol;
#[path = "../examples/redis_server/pubsub.rs"]
mod pubsub;
#[path = "../examples/redis_server/session.rs"]
mod session;
#[path = "../examples/redis_server/store.rs"]
mod store;
#[path = "../examples/redis_server/waiting.rs"]
mod waiting;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use allocation_counter::measure;
use asynchat::verify::Verifier;
use asynchat::{CloseReason, Served, Timeout};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use bytes::BytesMut;
use channel::{Peer, pipe};
use commands::{Client, Command, Shared};
use protocol::{COMMAND, Parser, Reply};
use session::{Session, channels};

// ---------------------------------------------------------------------------------------------
// In memory

/// A command as clients send it.
fn command(words: &[&str]) -> Vec<u8> {
    let mut text = format!("*{}\r\n", words.len());
    for word in words {
        text += &format!("${}\r\n{word}\r\n", word.len());
    }
    text.into_bytes()
}

/// All answers to this input, and why the connection ends, if that is not the end of the input.
async fn answers(input: &[u8]) -> (String, String) {
    let (io, peer) = pipe();
    peer.send(input);
    peer.close();
    let session = Session::new(1, Shared::default());
    let (_, reason) = channels().build(io).run(session).await;
    (peer.output(), format!("{reason:?}"))
}

/// Each line is a command, and behind `=>` its answer, in which `¦` is a CRLF.
async fn check(script: &str) {
    let steps = script.lines().map(str::trim).filter(|line| !line.is_empty());
    let (input, wanted): (Vec<_>, Vec<_>) =
        steps.map(|step| step.split_once("=>").unwrap()).unzip();
    let (mut lines, mut arrays) = (Vec::new(), Vec::new());
    for line in &input {
        lines.extend(format!("{}\r\n", line.trim()).bytes());
        arrays.extend(command(&line.split_whitespace().collect::<Vec<_>>()));
    }
    let wanted: String =
        wanted.iter().map(|want| want.trim().replace('¦', "\r\n") + "\r\n").collect();
    for input in [lines, arrays] {
        let (output, reason) = answers(&input).await;
        assert_eq!(output, wanted);
        assert_eq!(reason, "PeerClosed");
    }
}

#[tokio::test(start_paused = true)]
async fn strings_and_keys() {
    check(
        "
        PING => +PONG
        ping hi => $2¦hi
        ECHO hi => $2¦hi
        GET a => $-1
        SET a 10 => +OK
        get a => $2¦10
        SET a 11 NX => $-1
        SET b 1 XX => $-1
        SET a 12 XX PX 100000 => +OK
        TTL a => :100
        SET a 13 => +OK
        TTL a => :-1
        TTL b => :-2
        SET b 1 EX 0 => -ERR invalid expire time in 'set' command
        SET b 1 EX 9223372036854775807 => -ERR invalid expire time in 'set' command
        SET b 1 PX 9223372036854775807 => -ERR invalid expire time in 'set' command
        SET b 1 EX none => -ERR value is not an integer or out of range
        SET b 1 EX none XX NX => -ERR syntax error
        SET b 1 EX => -ERR syntax error
        SET b 1 NX XX => -ERR syntax error
        GETSET a x => $2¦13
        INCR a => -ERR value is not an integer or out of range
        INCR n => :1
        INCRBY n 9223372036854775806 => :9223372036854775807
        INCR n => -ERR increment or decrement would overflow
        GET n => $19¦9223372036854775807
        INCRBY n 01 => -ERR value is not an integer or out of range
        DECR m => :-1
        DECRBY m -3 => :2
        DECRBY m -9223372036854775808 => -ERR decrement would overflow
        MSET p 1 q 2 => +OK
        MSET p 1 q => -ERR wrong number of arguments for 'mset' command
        MGET p none q => *3¦$1¦1¦$-1¦$1¦2
        APPEND p 234 => :4
        STRLEN p => :4
        GET p => $4¦1234
        EXISTS p q p none => :3
        DEL p q none => :2
        EXPIRE n 10 => :1
        TTL n => :10
        EXPIRE n 9223372036854775807 => -ERR invalid expire time in 'expire' command
        EXPIRE n -9223372036854775808 => -ERR invalid expire time in 'expire' command
        EXPIRE n -1 => :1
        EXPIRE n 10 => :0
        DBSIZE => :2
        SELECT 0 => +OK
        SELECT 1 => -ERR DB index is out of range
        FLUSHALL => +OK
        DBSIZE => :0
        GET => -ERR wrong number of arguments for 'get' command
        GET a b => -ERR wrong number of arguments for 'get' command
        ",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_empty_text_is_no_number() {
    let (output, _) = answers(b"SET e \"\"\r\nINCR e\r\nGET e\r\nINCR n\r\n").await;
    assert_eq!(output, "+OK\r\n-ERR value is not an integer or out of range\r\n$0\r\n\r\n:1\r\n");
}

#[tokio::test(start_paused = true)]
async fn lists_and_hashes() {
    check(
        "
        RPUSH l b c => :2
        LPUSH l a 0 => :4
        LRANGE l 0 -1 => *4¦$1¦0¦$1¦a¦$1¦b¦$1¦c
        LRANGE l -2 100 => *2¦$1¦b¦$1¦c
        LRANGE l -100 0 => *1¦$1¦0
        LRANGE l 2 1 => *0
        LRANGE l 0 -5 => *0
        LRANGE l 9 9 => *0
        LRANGE l 0 -9223372036854775808 => *0
        LRANGE none 0 -1 => *0
        LLEN l => :4
        LPOP l => $1¦0
        RPOP l 2 => *2¦$1¦c¦$1¦b
        RPOP l 0 => *0
        RPOP l -1 => -ERR value is out of range, must be positive
        LPOP l 9 => *1¦$1¦a
        LPOP l 9 => *-1
        LPOP l => $-1
        EXISTS l => :0
        HSET h f 1 => :1
        HSET h f 2 => :0
        HSET h f => -ERR wrong number of arguments for 'hset' command
        HGET h f => $1¦2
        HGET h none => $-1
        HGETALL h => *2¦$1¦f¦$1¦2
        HGETALL none => *0
        GET h => -WRONGTYPE Operation against a key holding the wrong kind of value
        INCR h => -WRONGTYPE Operation against a key holding the wrong kind of value
        LPUSH h x => -WRONGTYPE Operation against a key holding the wrong kind of value
        MGET h => *1¦$-1
        SET h x => +OK
        HSET h f 1 => -WRONGTYPE Operation against a key holding the wrong kind of value
        RPOP h => -WRONGTYPE Operation against a key holding the wrong kind of value
        ",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_connection_and_the_server() {
    check(
        "
        CLIENT ID => :1
        CLIENT GETNAME => $-1
        CLIENT SETNAME me => +OK
        CLIENT GETNAME => $2¦me
        CLIENT FOO => -ERR unknown subcommand 'FOO'. Try CLIENT HELP.
        CONFIG GET save none => *2¦$4¦save¦$0¦
        HELLO 3 => -NOPROTO unsupported protocol version
        HELLO 2 => *14¦$6¦server¦$5¦redis¦$7¦version¦$5¦7.0.0¦$5¦proto¦:2¦$2¦id¦:1¦$4¦mode¦$10¦standalone¦$4¦role¦$6¦master¦$7¦modules¦*0
        HELLO 2 AUTH a b => -ERR Syntax error in HELLO option 'AUTH'
        CONFIG GET => -ERR wrong number of arguments for 'config|get' command
        UNSUBSCRIBE => *3¦$11¦unsubscribe¦$-1¦:0
        SUBSCRIBE a b => *3¦$9¦subscribe¦$1¦a¦:1¦*3¦$9¦subscribe¦$1¦b¦:2
        PING => *2¦$4¦pong¦$0¦
        GET a => -ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context
        UNSUBSCRIBE a none => *3¦$11¦unsubscribe¦$1¦a¦:1¦*3¦$11¦unsubscribe¦$4¦none¦:1
        UNSUBSCRIBE => *3¦$11¦unsubscribe¦$1¦b¦:0
        PUBLISH a hello => :0
        SUBSCRIBE a => *3¦$9¦subscribe¦$1¦a¦:1
        RESET => +RESET
        PUBLISH a hello => :0
        CLIENT GETNAME => $-1
        ",
    )
    .await;
    let (output, _) = answers(b"INFO\r\nCOMMAND COUNT\r\nCOMMAND\r\n").await;
    assert!(output.contains("redis_version:") && output.contains("\r\n:39\r\n*39\r\n"), "{output}");
}

#[test]
fn every_command_is_found_by_its_name() {
    for name in "APPEND CLIENT COMMAND CONFIG DBSIZE DECR DECRBY DEL ECHO EXISTS EXPIRE FLUSHALL GET GETSET \
                 HELLO HGET HGETALL HSET INCR INCRBY INFO LLEN LPOP LPUSH LRANGE MGET MSET PING PUBLISH \
                 QUIT RESET RPOP RPUSH SELECT SET STRLEN SUBSCRIBE TTL UNSUBSCRIBE"
        .split(' ')
    {
        assert!(Command::find(name.as_bytes()).is_some(), "{name}");
    }
    for name in ["", "GE", "GETT", "UNSUBSCRIBEX", "\0"] {
        assert!(Command::find(name.as_bytes()).is_none(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn quit_is_the_last_command() {
    let answered = answers(b"PING\r\nQUIT\r\nPING\r\n").await;
    assert_eq!(answered, ("+PONG\r\n+OK\r\n".into(), "Done".into()));
}

#[tokio::test(start_paused = true)]
async fn an_http_request_is_not_obeyed() {
    for verb in ["GET", "HEAD", "POST"] {
        let request = format!("{verb} / HTTP/1.1\r\nHost: a\r\n\r\nFLUSHALL\r\n");
        let answered = answers(request.as_bytes()).await;
        assert_eq!(answered, (String::new(), "Aborted".into()), "{verb}");
    }
}

#[tokio::test(start_paused = true)]
async fn lines_are_split_as_a_shell_would() {
    for (line, words) in [
        (r#"ECHO "a b\x41\n""#, "$5\r\na bA\n\r\n"),
        (r#"ECHO 'it\'s "\n'"#, "$8\r\nit's \"\\n\r\n"),
        (r#"ECHO a"b c"d"#, "-ERR Protocol error: unbalanced quotes in request\r\n"),
        (r#"ECHO "a"#, "-ERR Protocol error: unbalanced quotes in request\r\n"),
        (r#"ECHO 'a"#, "-ERR Protocol error: unbalanced quotes in request\r\n"),
        ("  ECHO \t \"\"  ", "$0\r\n\r\n"),
        (r#"ECHO "\xZZ""#, "$3\r\nxZZ\r\n"),
        ("", ""),
    ] {
        for end in ["\r\n", "\n"] {
            assert_eq!(answers(format!("{line}{end}").as_bytes()).await.0, words, "{line}");
        }
    }
}

/// The input of a session with commands of all kinds.
fn mixed() -> Vec<u8> {
    let mut input = Vec::new();
    input.extend(command(&["SET", "key", "a\r\nb", "EX", "100"]));
    input.extend(b"ECHO \"a \\x41\"\r\n\r\n*0\r\n*-1\r\nGET key\n");
    input.extend(command(&["RPUSH", "l", "", "x"]));
    input.extend(command(&["LRANGE", "l", "0", "-1"]));
    input.extend(command(&["SUBSCRIBE", "a"]));
    input.extend(b"GET key\r\nRESET\r\nPUBLISH a hi\r\n");
    input.extend(command(&["NONE", "x\r\ny"]));
    input.extend(b"QUIT\r\n");
    input
}

#[tokio::test(start_paused = true)]
async fn answers_do_not_depend_on_how_a_session_is_cut() {
    let make = || Session::new(1, Shared::default());
    let answered = Verifier::new().handler(&channels(), &mixed(), make).await;
    assert_eq!(
        String::from_utf8(answered.output).unwrap(),
        "+OK\r\n$3\r\na A\r\n$4\r\na\r\nb\r\n:2\r\n*2\r\n$0\r\n\r\n$1\r\nx\r\n\
         *3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n\
         -ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are \
         allowed in this context\r\n\
         +RESET\r\n:0\r\n-ERR unknown command 'NONE', with args beginning with: 'x  y' \r\n+OK\r\n"
    );
    assert_eq!(answered.closed.as_deref(), Some("Done"));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_protocol_is_refused_however_it_is_cut() {
    let make = || Session::new(1, Shared::default());
    for (input, refusal) in [
        ("*x\r\n", "invalid multibulk length"),
        ("*\r\n", "invalid multibulk length"),
        ("*2147483648\r\n", "invalid multibulk length"),
        ("*99999999999999999999999999\r\n", "invalid multibulk length"),
        ("*01\r\n", "invalid multibulk length"),
        ("*+1\r\n", "invalid multibulk length"),
        ("*-0\r\n", "invalid multibulk length"),
        ("*-\r\n", "invalid multibulk length"),
        ("*1\rx", "invalid multibulk length"),
        ("*1\n\r\n", "invalid multibulk length"),
        ("*1\r\nPING\r\n", "expected '$', got 'P'"),
        ("*1\r\n\r\n", "expected '$', got ' '"),
        ("*1\r\n$-1\r\n", "invalid bulk length"),
        ("*1\r\n$4x\r\n", "invalid bulk length"),
        ("*1\r\n$536870913\r\n", "invalid bulk length"),
        ("*1\r\n$9223372036854775807\r\n", "invalid bulk length"),
        ("*1\r\n$4\r\nPINGPING\r\n", "expected CRLF behind a bulk string"),
        ("*1\r\n$4\r\nPING\n\r", "expected CRLF behind a bulk string"),
        ("ECHO \"a\r\n", "unbalanced quotes in request"),
    ] {
        let input = format!("PING\r\n{input}");
        let answered = Verifier::new().handler(&channels(), input.as_bytes(), make).await;
        let output = String::from_utf8(answered.output).unwrap();
        assert_eq!(output, format!("+PONG\r\n-ERR Protocol error: {refusal}\r\n"), "{input:?}");
        assert_eq!(answered.closed.as_deref(), Some("Done"), "{input:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn half_a_command_is_not_carried_out() {
    let input = mixed();
    for length in 0..input.len() {
        let (_, reason) = answers(&input[..length]).await;
        assert!(matches!(reason.as_str(), "PeerClosed" | "Truncated"), "{length}: {reason}");
    }
    let (output, reason) = answers(b"*2\r\n$4\r\nECHO\r\n$2\r\nhi\r").await;
    assert_eq!((output.as_str(), reason.as_str()), ("", "Truncated"));
}

#[tokio::test(start_paused = true)]
async fn a_line_has_an_end_or_is_refused() {
    let line = |length: usize| [b"ECHO ".to_vec(), vec![b'x'; length - 5]].concat();
    let (output, _) = answers(&[line(1 << 16), b"\n".to_vec()].concat()).await;
    assert!(output.starts_with("$65531\r\nx"), "{}", &output[..20]);
    for end in ["", "\nPING\r\n"] {
        let (output, reason) = answers(&[line((1 << 16) + 1), end.into()].concat()).await;
        assert_eq!(output, "-ERR Protocol error: too big inline request\r\n");
        assert_eq!(reason, "Done");
    }
}

/// A line with a NUL in it is taken for one without an end, and is answered as such.
#[tokio::test(start_paused = true)]
async fn what_is_behind_a_nul_in_a_line_is_not_obeyed() {
    for line in ["PING\0\r\nPING\r\n", "\0\nPING\n", "ECHO \"a\0\"\r\nPING\r\n"] {
        let line = format!("PING\r\n{line}");
        assert_eq!(answers(line.as_bytes()).await, ("+PONG\r\n".into(), "Truncated".into()));
        let long = [line.into_bytes(), vec![b'x'; 1 << 16]].concat();
        let refused = "+PONG\r\n-ERR Protocol error: too big inline request\r\n";
        assert_eq!(answers(&long).await, (refused.into(), "Done".into()));
    }
}

#[tokio::test(start_paused = true)]
async fn the_line_of_a_number_has_an_end_or_is_refused() {
    for (head, bad, long) in [
        ("*", "invalid multibulk length", "too big mbulk count string"),
        ("*1\r\n$", "invalid bulk length", "too big bulk count string"),
    ] {
        // Together with the byte in front, one line has as many bytes as it may have, and the other has one more.
        let longest = (1 << 16) - 1;
        for (length, refusal) in [(longest, bad), (longest + 1, long)] {
            let input = format!("{head}{}\r\n", "1".repeat(length));
            let (output, reason) = answers(input.as_bytes()).await;
            assert_eq!(output, format!("-ERR Protocol error: {refusal}\r\n"));
            assert_eq!(reason, "Done");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_may_have_more_than_a_million_words() {
    let mut input = b"*1048578\r\n$3\r\nDEL\r\n".to_vec();
    input.extend(b"$1\r\na\r\n".repeat(1_048_577));
    assert_eq!(answers(&input).await.0, ":0\r\n");
}

#[tokio::test(start_paused = true)]
async fn a_command_that_will_be_too_long_is_refused_before_it_comes() {
    let refusal = "-ERR Protocol error: command is longer than 64 MiB\r\n";
    let (output, reason) = answers(b"*2\r\n$4\r\nECHO\r\n$536870912\r\n").await;
    assert_eq!(output, refusal);
    assert!(reason.starts_with("Frame("), "{reason}");
    // The longest argument that is accepted, and one that is a byte longer.
    let head = "*2\r\n$6\r\nSTRLEN\r\n";
    let length = COMMAND - head.len() - "$67108830\r\n".len() - 2;
    for (length, wanted) in [(length, ":0\r\n"), (length + 1, refusal)] {
        let mut input = format!("{head}${length}\r\n").into_bytes();
        input.resize(input.len() + length, b'x');
        input.extend(b"\r\n");
        assert_eq!(answers(&input).await.0, wanted);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_would_be_too_long_is_refused_and_nothing_is_gone() {
    let text = "x".repeat(1 << 20);
    let mut input = command(&["SET", "k", &text]);
    let mut words = vec!["MGET"];
    words.extend([["k"; 65]].concat());
    input.extend(command(&words));
    for _ in 0..65 {
        input.extend(command(&["RPUSH", "l", &text]));
    }
    input.extend(b"LPOP l 65\r\nLLEN l\r\n");
    let (output, _) = answers(&input).await;
    let refusal = "-ERR the answer is longer than 64 MiB\r\n";
    assert!(output.starts_with(&format!("+OK\r\n{refusal}:1\r\n")), "{}", &output[..80]);
    assert!(output.ends_with(&format!(":65\r\n{refusal}:65\r\n")));
}

#[test]
fn data_has_a_limit() {
    // Half a gigabyte is not sent over a connection: the commands are executed directly.
    let mut client = Client::new(1, Shared::default());
    let mut run = |input: &[u8]| {
        let mut parser = Parser::default();
        assert_eq!(parser.find_end(input), Some(input.len()));
        let words = parser.take(input).unwrap().unwrap();
        let mut out = BytesMut::new();
        let command = Command::find(words.get(0)).unwrap();
        let done = command.run(&mut client, words, Reply::new(&mut out));
        done.map_or_else(|refusal| refusal.0.into_owned(), |_| format!("{out:?}"))
    };
    let text = "x".repeat(32 << 20);
    for key in 0..16 {
        assert_eq!(run(&command(&["SET", &key.to_string(), &text])), "b\"+OK\\r\\n\"");
    }
    let refusal = "OOM command not allowed when used memory > 'maxmemory'.";
    assert_eq!(run(b"SET k v\r\n"), refusal);
    assert_eq!(run(b"LPUSH k v\r\n"), refusal);
    assert_eq!(run(b"DEL 0 1\r\n"), "b\":2\\r\\n\"");
    assert_eq!(run(b"SET k v\r\n"), "b\"+OK\\r\\n\"");
}

#[tokio::test(start_paused = true)]
async fn keys_live_until_their_time() {
    let (io, peer) = pipe();
    let mut channel = channels().build(io);
    let shared = Shared::default();
    let serving = tokio::spawn(async move { channel.run(Session::new(1, shared)).await.1 });
    peer.send("SET a 1 PX 1500\r\nSET b 1 EX 3\r\nSET b 1\r\nSET c 1 EX 1\r\nEXPIRE c 9\r\n");
    tokio::time::sleep(Duration::from_millis(1499)).await;
    peer.send("DBSIZE\r\n");
    tokio::time::sleep(Duration::from_millis(1)).await;
    peer.send("DBSIZE\r\nGET a\r\nTTL c\r\n");
    tokio::time::sleep(Duration::from_secs(8)).await;
    peer.send("DBSIZE\r\n");
    peer.close();
    assert!(matches!(serving.await.unwrap(), CloseReason::PeerClosed));
    assert_eq!(peer.output(), "+OK\r\n".repeat(4) + ":1\r\n:3\r\n:2\r\n$-1\r\n:8\r\n:1\r\n");
}

#[tokio::test(start_paused = true)]
async fn silence_is_cut_off_except_a_subscribers() {
    for (input, wanted) in [
        ("", Timeout::Idle),
        ("SUBSCRIBE a\r\nUNSUBSCRIBE\r\n", Timeout::Idle),
        ("*1\r\n$4\r\nPI", Timeout::Frame),
        ("SUBSCRIBE a\r\nPI", Timeout::Frame),
    ] {
        let (io, peer) = pipe();
        peer.send(input);
        let mut channel = channels().build(io);
        let reason = channel.run(Session::new(1, Shared::default())).await.1;
        assert!(matches!(reason, CloseReason::Timeout(timeout) if timeout == wanted), "{reason:?}");
    }
    let (io, peer) = pipe();
    peer.send("SUBSCRIBE a\r\n");
    let mut channel = channels().build(io);
    let running = channel.run(Session::new(1, Shared::default()));
    assert!(tokio::time::timeout(Duration::from_secs(86400), running).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn what_is_pipelined_is_answered_in_one_write() {
    let (io, peer) = pipe();
    peer.send(b"SET a 1\r\nGET a\r\nINCR a\r\nPING\r\n".repeat(100));
    peer.close();
    channels().build(io).run(Session::new(1, Shared::default())).await;
    assert_eq!(peer.output(), "+OK\r\n$1\r\n1\r\n:2\r\n+PONG\r\n".repeat(100));
    assert_eq!(peer.wire().writes, 1);
}

#[tokio::test(start_paused = true)]
async fn large_values_keep_their_place() {
    let text = "x".repeat(100_000);
    let input = [
        command(&["SET", "a", &text]),
        b"PING\r\nGET a\r\nAPPEND a y\r\nGET a\r\nPING\r\n".to_vec(),
    ];
    let wanted =
        format!("+OK\r\n+PONG\r\n$100000\r\n{text}\r\n:100001\r\n$100001\r\n{text}y\r\n+PONG\r\n");
    assert_eq!(answers(&input.concat()).await.0, wanted);
}

// ---------------------------------------------------------------------------------------------
// All clients together

/// How many bytes may be kept for all clients together, in each direction.
const TOGETHER: usize = 256 << 20;

/// The most memory that these clients take. They run in turns for as long as they have something to do, and none of
/// their deadlines passes.
fn most_memory(clients: impl Future<Output = ()>) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    usize::try_from(measure(|| runtime.block_on(clients)).bytes_max).unwrap()
}

/// Waits until this is true, and then until nothing more happens.
async fn until(so: impl Fn() -> bool) {
    while !so() {
        tokio::task::yield_now().await;
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// A client of a server with this state, which its clients share.
fn connect(shared: &Shared) -> (Peer, JoinHandle<()>) {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let (io, peer) = pipe();
    let session = Session::new(LAST.fetch_add(1, Ordering::Relaxed), shared.clone());
    let mut channel = channels().build(io);
    (peer, tokio::spawn(async move { drop(channel.run(session).await) }))
}

const CROWDED: &str = "-OOM too much waits to be sent to clients, try again later\r\n";

#[test]
fn clients_who_take_no_answers_share_a_limit() {
    let text = "x".repeat(64 << 10);
    let long = "x".repeat(20 << 20);
    let list = [vec!["RPUSH", "l"], vec![text.as_str(); 500]].concat();
    let questions = [
        command(&[vec!["MGET"], vec!["k"; 1000]].concat()),
        b"LRANGE l 0 -1\r\n".to_vec(),
        // The old value is kept until it is sent, beside the new one.
        b"GET v\r\nAPPEND v x\r\n".to_vec(),
    ];
    for question in questions {
        let taken = most_memory(async {
            let shared = Shared::default();
            let (owner, _serving) = connect(&shared);
            let data = [&["SET", "k", &text][..], &["SET", "v", &long], &list].map(command);
            owner.send(data.concat());
            until(|| owner.output() == "+OK\r\n+OK\r\n:500\r\n").await;
            let mut clients = Vec::new();
            for _ in 0..20 {
                let (peer, serving) = connect(&shared);
                peer.take(0);
                peer.send(&question);
                until(|| peer.unread() == 0).await;
                clients.push((peer, serving));
            }
            // Clients that are disconnected leave no memory behind.
            for (_, serving) in clients {
                serving.abort();
                let _ = serving.await;
            }
            assert_eq!(shared.answers.room(), usize::MAX);
        });
        // A buffer that has grown may be twice as large as what is in it.
        let most = 2 * TOGETHER + (96 << 20);
        assert!(taken < most, "{taken}: {}", question[..30].escape_ascii());
    }
}

#[test]
fn clients_who_do_not_complete_commands_share_a_limit() {
    let text = (&b"*2\r\n$4\r\nECHO\r\n$60000000\r\n"[..], vec![b'x'; 60_000]);
    let empty_words = (&b"*11000000\r\n$0\r\n\r\n$0\r\n\r\n"[..], b"$0\r\n\r\n".repeat(10_000));
    for (head, more) in [text, empty_words] {
        let taken = most_memory(async {
            let shared = Shared::default();
            let mut clients = Vec::new();
            let mut refused = 0;
            for _ in 0..40 {
                let (mut client, io) = tokio::io::duplex(64 << 10);
                let session = Session::new(1, shared.clone());
                let mut channel = channels().build(io);
                let serving = tokio::spawn(async move { channel.run(session).await.1 });
                client.write_all(head).await.unwrap();
                for _ in 0..333 {
                    // The client may be disconnected meanwhile.
                    let _ = client.write_all(&more).await;
                }
                if serving.is_finished() {
                    let mut answer = String::new();
                    client.read_to_string(&mut answer).await.unwrap();
                    let crowded =
                        "-OOM too many long commands are on their way, try again later\r\n";
                    assert_eq!(answer, crowded);
                    refused += 1;
                } else {
                    clients.push((client, serving));
                }
            }
            assert!((20..36).contains(&refused), "{refused}");
            // A short command is still served, even of a client that connects only now.
            let (peer, _serving) = connect(&shared);
            peer.send(command(&["SET", "k", &"x".repeat(16_000)]));
            until(|| peer.output() == "+OK\r\n").await;
            // When all clients are gone that have begun a long command, another long one is accepted.
            for (client, serving) in clients {
                drop(client);
                serving.await.unwrap();
            }
            peer.send(command(&["SET", "k", &"x".repeat(1 << 20)]));
            until(|| peer.output() == "+OK\r\n+OK\r\n").await;
            assert_eq!(shared.begun.room(), usize::MAX);
        });
        // A buffer that grows may be twice as large as what is in it.
        assert!(taken < 2 * TOGETHER + (32 << 20), "{taken}");
    }
}

/// Each name is confirmed, even if the client has subscribed to it already, or is not subscribed to it.
#[tokio::test(start_paused = true)]
async fn confirmations_have_a_limit() {
    let names = vec!["k"; 2_300_000];
    let refusal = "-ERR the answer is longer than 64 MiB\r\n";
    let (output, _) = answers(&command(&[vec!["UNSUBSCRIBE"], names.clone()].concat())).await;
    assert!(output == refusal, "{:.100}", output);
    let (output, _) = answers(&command(&[vec!["SUBSCRIBE"], names].concat())).await;
    assert!(output.len() < (64 << 20) + 100 && output.ends_with(refusal), "{}", output.len());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_answered_now_is_not_done() {
    let shared = Shared::default();
    let text = "x".repeat(40 << 20);
    let (owner, _serving) = connect(&shared);
    owner.send([&["SET", "k", &text], &["RPUSH", "l", &text]].map(|words| command(words)).concat());
    let mut told = "+OK\r\n:1\r\n".to_owned();
    until(|| owner.output() == told).await;
    let mut deaf = Vec::new();
    for _ in 0..6 {
        let (peer, serving) = connect(&shared);
        peer.take(0);
        peer.send("GET k\r\n");
        until(|| peer.unread() == 0).await;
        deaf.push((peer, serving));
    }
    owner.send(
        "GETSET k v\r\nLPOP l\r\nRPOP l\r\nLPOP l 1\r\nMGET k\r\nSTRLEN k\r\nLLEN l\r\nGET s\r\n",
    );
    until(|| owner.unread() == 0).await;
    told += &(CROWDED.repeat(5) + ":41943040\r\n:1\r\n$-1\r\n");
    assert!(owner.output() == told, "{:.400}", owner.output());
    // One of them reads what is queued for it.
    deaf[0].0.take(usize::MAX);
    until(|| deaf[0].0.output().ends_with("x\r\n")).await;
    owner.send("RPOP l\r\nLLEN l\r\n");
    until(|| owner.output().ends_with("x\r\n:0\r\n")).await;
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_who_takes_all_hears_all_that_is_pipelined() {
    for lengths in [vec![600_000; 2], vec![200_000; 20], vec![5_000_000, 1], vec![500; 10_000]] {
        let shared = Shared::default();
        let (hearer, _hearing) = connect(&shared);
        hearer.send("SUBSCRIBE news\r\n");
        let mut heard = "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n".to_owned();
        until(|| hearer.output() == heard).await;
        let (talker, _talking) = connect(&shared);
        let mut messages = Vec::new();
        for length in &lengths {
            let text = "x".repeat(*length);
            messages.extend(command(&["PUBLISH", "news", &text]));
            heard += &format!("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n${length}\r\n{text}\r\n");
        }
        talker.send(messages);
        until(|| talker.wire().output.len() == 4 * lengths.len()).await;
        assert!(talker.output() == ":1\r\n".repeat(lengths.len()), "{} dropped", lengths[0]);
        assert!(hearer.output() == heard);
    }
}

#[tokio::test(start_paused = true)]
async fn messages_that_wait_have_a_limit_for_all_subscribers_together() {
    let shared = Shared::default();
    let (talker, _talking) = connect(&shared);
    let mut deaf = Vec::new();
    for _ in 0..4 {
        for name in 0..9 {
            let (peer, hearing) = connect(&shared);
            peer.send(format!("SUBSCRIBE {name}\r\n"));
            until(|| peer.output().ends_with(":1\r\n")).await;
            peer.take(0);
            deaf.push((peer, hearing));
        }
    }
    let text = "x".repeat(30 << 20);
    let mut told = String::new();
    for name in 0..8 {
        // The message is in memory once, however many clients have subscribed.
        talker.send(command(&["PUBLISH", &name.to_string(), &text]));
        told += ":4\r\n";
        until(|| talker.output() == told).await;
    }
    talker.send(command(&["PUBLISH", "8", &text]));
    talker.send("PUBLISH 8 short\r\n");
    told += &(CROWDED.to_owned() + ":4\r\n");
    until(|| talker.output().ends_with(":4\r\n") && talker.unread() == 0).await;
    assert_eq!(talker.output(), told);
    for (_, hearing) in deaf {
        hearing.abort();
        let _ = hearing.await;
    }
    assert_eq!(shared.answers.room(), usize::MAX);
}

/// Where subscribers read nothing, first the output of each fills up, and then messages wait for it.
#[test]
fn short_messages_that_wait_have_a_limit_for_all_subscribers_together() {
    let text = vec![b'x'; 900];
    let hearers = 40;
    // All messages are published before the subscribers have their turn, or some of them at a time.
    for (batch, batches) in [(8 << 20, 2), (100 << 10, 100)] {
        let taken = most_memory(async {
            let shared = Shared::default();
            let mut deaf = Vec::new();
            for name in 0..hearers {
                let (peer, hearing) = connect(&shared);
                peer.send(format!("SUBSCRIBE {name}\r\n"));
                until(|| peer.output().ends_with(":1\r\n")).await;
                peer.take(0);
                deaf.push((peer, hearing));
            }
            for _ in 0..batches {
                for name in 0..hearers {
                    let name = name.to_string();
                    for _ in 0..batch / 950 {
                        shared.hub.publish(name.as_bytes(), &text, &shared.answers).unwrap();
                    }
                    until(|| true).await;
                }
            }
            assert!(deaf.iter().any(|(_, hearing)| hearing.is_finished()));
            for (_, hearing) in deaf {
                hearing.abort();
                let _ = hearing.await;
            }
            assert_eq!(shared.hub.waiting.room(), usize::MAX);
        });
        // For each subscriber there are 256 KiB that are being sent, what it has taken last, and what it has not taken.
        // A buffer that grows may be twice as large as what is in it.
        let most = 2 * (TOGETHER + hearers * 3 * (256 << 10));
        assert!(taken < most, "{taken} of {most}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_takes_messages_hears_all_however_much_waits_for_others() {
    let shared = Shared::default();
    let text = "x".repeat(900);
    let mut hearers = Vec::new();
    for name in 0..40 {
        let (peer, hearing) = connect(&shared);
        peer.send(format!("SUBSCRIBE {}\r\n", if name < 36 { name } else { 36 }));
        until(|| peer.output().ends_with(":1\r\n")).await;
        hearers.push((peer, hearing));
    }
    let mut attentive = hearers.split_off(36);
    for (name, (peer, _)) in hearers.iter().enumerate() {
        peer.take(0);
        let (name, mut told) = (name.to_string(), 0);
        while told < 8000 && shared.hub.waiting.room() > 0 {
            shared.hub.publish(name.as_bytes(), text.as_bytes(), &shared.answers).unwrap();
            told += 1;
        }
    }
    assert_eq!(shared.hub.waiting.room(), 0);
    // These are more messages than may wait for one subscriber at a time. The last subscriber stops reading.
    let (talker, _talking) = connect(&shared);
    let publish = command(&["PUBLISH", "36", &text]);
    let deaf = attentive.pop().unwrap();
    deaf.0.take(0);
    talker.send(publish.repeat(4000));
    until(|| talker.output().len() == 4 * 4000).await;
    assert!(talker.output().starts_with(":4\r\n") && talker.output().ends_with(":3\r\n"));
    let _ = deaf.1.await;
    let subscribed = "*3\r\n$9\r\nsubscribe\r\n$2\r\n36\r\n:1\r\n".to_owned();
    let message = format!("*3\r\n$7\r\nmessage\r\n$2\r\n36\r\n$900\r\n{text}\r\n");
    let heard = subscribed + &message.repeat(4000);
    for (peer, _) in attentive {
        assert!(peer.output() == heard);
    }
    // Subscribers for whom much waits keep it, as long as no more messages come for them.
    assert!(hearers.iter().all(|(_, hearing)| !hearing.is_finished()));
}

// ---------------------------------------------------------------------------------------------
// Over loopback

struct Running {
    addr: SocketAddr,
    stop: CancellationToken,
    serving: JoinHandle<io::Result<Served>>,
}

impl Running {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(session::serve(listener, stop.clone(), false));
        Running { addr, stop, serving }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }
}

/// Sends this question, and checks that this answer comes.
async fn ask(stream: &mut TcpStream, question: &str, answer: &str) {
    stream.write_all(question.as_bytes()).await.unwrap();
    hear(stream, answer).await;
}

async fn hear(stream: &mut TcpStream, answer: &str) {
    let mut heard = vec![0; answer.len()];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&heard), answer);
}

#[tokio::test]
async fn messages_are_heard_by_subscribers_and_the_slow_are_dropped() {
    let server = Running::start().await;
    // This client never reads, and its receive buffer is small, so that the server notices it soon.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut slow = socket.connect(server.addr).await.unwrap();
    let subscribed = "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n";
    ask(&mut slow, "SUBSCRIBE news\r\n", subscribed).await;
    let mut quick = server.connect().await;
    ask(&mut quick, "SUBSCRIBE news\r\n", subscribed).await;
    let mut gone = server.connect().await;
    ask(&mut gone, "SUBSCRIBE news\r\n", subscribed).await;
    ask(&mut gone, "QUIT\r\n", "+OK\r\n").await;
    let mut talker = server.connect().await;
    ask(&mut talker, "PUBLISH none hi\r\nPUBLISH news hi\r\n", ":0\r\n:2\r\n").await;
    hear(&mut quick, "*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$2\r\nhi\r\n").await;

    let text = "x".repeat(100_000);
    let message = format!("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$100000\r\n{text}\r\n");
    let mut told = 0;
    loop {
        ask(&mut talker, &format!("PUBLISH news {text}\r\n").replace(&text, "\"\""), ":").await;
        let mut rest = [0; 3];
        talker.read_exact(&mut rest).await.unwrap();
        hear(&mut quick, "*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$0\r\n\r\n").await;
        if rest[0] == b'1' {
            break;
        }
        told += 1;
        assert!(told < 1000, "nobody was dropped");
        let publish = String::from_utf8(command(&["PUBLISH", "news", &text])).unwrap();
        ask(&mut talker, &publish, ":").await;
        talker.read_exact(&mut rest).await.unwrap();
        hear(&mut quick, &message).await;
        if rest[0] == b'1' {
            break;
        }
    }
    drop(slow);
    ask(&mut talker, "PUBLISH news hi\r\n", ":1\r\n").await;
    hear(&mut quick, "*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$2\r\nhi\r\n").await;
    // A single message may be longer than the limit of what may wait.
    let text = "x".repeat(3 << 20);
    let long = String::from_utf8(command(&["PUBLISH", "news", &text])).unwrap();
    ask(&mut talker, &long, ":1\r\n").await;
    let message = format!("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n${}\r\n{text}\r\n", text.len());
    hear(&mut quick, &message).await;

    server.stop.cancel();
    let mut rest = String::new();
    talker.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "");
    drop((quick, gone, talker));
    let served = server.serving.await.unwrap().unwrap();
    assert_eq!((served.accepted, served.aborted, served.panicked), (4, 0, 0));
}

#[tokio::test]
async fn a_client_has_so_many_subscriptions_and_no_more() {
    let server = Running::start().await;
    let mut client = server.connect().await;
    let name = "x".repeat(60_000);
    let mut question = String::new();
    for number in 0..18 {
        question +=
            &String::from_utf8(command(&["SUBSCRIBE", &format!("{number:02}{name}")])).unwrap();
    }
    client.write_all(question.as_bytes()).await.unwrap();
    for number in 0..17 {
        let count = number + 1;
        let confirmed =
            format!("*3\r\n$9\r\nsubscribe\r\n$60002\r\n{number:02}{name}\r\n:{count}\r\n");
        hear(&mut client, &confirmed).await;
    }
    hear(&mut client, "-ERR too many subscriptions\r\n").await;
    drop(client);
    server.stop.cancel();
    server.serving.await.unwrap().unwrap();
}
