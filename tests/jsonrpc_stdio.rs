//! The JSON-RPC example: its parts in this process, and its binary in another. It is tested with real clients in
//! `.ci/clients`.

#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

#[path = "support/channel.rs"]
mod channel;
#[path = "../examples/jsonrpc_stdio/head.rs"]
mod head;
#[path = "../examples/jsonrpc_stdio/lsp.rs"]
mod lsp;
#[path = "../examples/jsonrpc_stdio/mcp.rs"]
mod mcp;
#[path = "support/process.rs"]
mod process;
#[path = "../examples/jsonrpc_stdio/rpc.rs"]
mod rpc;
#[path = "../examples/jsonrpc_stdio/session.rs"]
mod session;
#[path = "../examples/jsonrpc_stdio/words.rs"]
mod words;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use asynchat::verify::Verifier;
use serde_json::{Value, json};

use channel::pipe;
use process::example;
use session::{Session, channels};
use words::{word_at, words};

/// The limit of the length of a message in bytes, in tests that depend on it.
const MAX: u64 = 200;

// ---------------------------------------------------------------------------------------------
// In memory

/// A message with a header, as in LSP.
fn headed(message: &str) -> String {
    format!("Content-Length: {}\r\n\r\n{message}", message.len())
}

fn request(id: i32, method: &str, params: Value) -> String {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string()
}

fn notification(method: &str, params: Value) -> String {
    json!({ "jsonrpc": "2.0", "method": method, "params": params }).to_string()
}

fn line(message: String) -> String {
    message + "\n"
}

/// All answers to an input, why the connection ends, and the exit code.
async fn talk(input: impl AsRef<[u8]>) -> (String, String, i32) {
    let (io, peer) = pipe();
    peer.send(input.as_ref());
    peer.close();
    let (session, reason) = channels(MAX).build(io).run(Session::new(MAX)).await;
    (peer.output(), format!("{reason:?}"), session.exit_code())
}

/// The answers to lines. Checks that the session ends with success.
#[track_caller]
fn lines(output: &str) -> Vec<Value> {
    assert!(output.is_empty() || output.ends_with('\n'), "{output:?}");
    output.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The answers to messages with headers.
#[track_caller]
fn bodies(mut output: &str) -> Vec<Value> {
    let mut bodies = Vec::new();
    while !output.is_empty() {
        let (head, rest) = output.split_once("\r\n\r\n").unwrap();
        let length = head.strip_prefix("Content-Length: ").unwrap().parse().unwrap();
        let (body, rest) = rest.split_at(length);
        bodies.push(serde_json::from_str(body).unwrap());
        output = rest;
    }
    bodies
}

#[track_caller]
fn code(answer: &Value) -> i64 {
    answer["error"]["code"].as_i64().unwrap()
}

/// The answers to an input and why the connection ends. Checks that they do not depend on how the input is cut.
async fn verified(input: &str) -> (String, String) {
    let verifier = Verifier::new().without_trailing().two_reads_up_to(input.len());
    let make = || Session::new(MAX);
    let answered = verifier.handler(&channels(MAX), input.as_bytes(), make).await;
    (String::from_utf8(answered.output).unwrap(), answered.closed.unwrap())
}

fn document(text: &str, position: (u32, u32)) -> [String; 2] {
    let uri = "file:///a";
    [
        notification(
            "textDocument/didOpen",
            json!({ "textDocument": { "uri": uri, "text": text }}),
        ),
        hover(3, uri, position),
    ]
}

fn hover(id: i32, uri: &str, (line, character): (u32, u32)) -> String {
    let position = json!({ "line": line, "character": character });
    let params = json!({ "textDocument": { "uri": uri }, "position": position });
    request(id, "textDocument/hover", params)
}

#[tokio::test(start_paused = true)]
async fn a_session_with_heads_does_not_depend_on_how_it_is_cut() {
    let change = json!({
        "textDocument": { "uri": "file:///a" },
        "contentChanges": [{ "text": "only this\r\nand that, this" }],
    });
    let [open, hover_one] = document("two words", (0, 1));
    let session = [
        request(1, "initialize", json!({ "capabilities": {} })),
        notification("initialized", json!({})),
        open,
        hover_one,
        notification("textDocument/didChange", change),
        hover(4, "file:///a", (1, 10)),
        "x".repeat(MAX as usize + 1),
        String::new(),
        "\u{e4}\u{1f600} is no JSON".to_owned(),
        request(5, "shutdown", Value::Null),
        notification("exit", Value::Null),
    ]
    .map(|message| headed(&message));
    let (output, closed) = verified(&session.concat()).await;
    assert_eq!(closed, "Done");
    let answers = bodies(&output);
    assert_eq!(answers[0]["result"]["capabilities"]["hoverProvider"], true);
    assert_eq!(answers[1]["result"]["contents"], "two: 1 of 2 words");
    assert_eq!(answers[2]["result"]["contents"], "this: 2 of 5 words");
    assert_eq!(answers[2]["result"]["range"]["start"], json!({ "line": 1, "character": 10 }));
    assert_eq!(code(&answers[3]), -32600);
    assert_eq!(code(&answers[4]), -32700);
    assert_eq!(code(&answers[5]), -32700);
    assert_eq!(answers[6], json!({ "jsonrpc": "2.0", "id": 5, "result": null }));
    assert_eq!(answers.len(), 7);
    assert_eq!(talk(session.concat()).await.2, 0);
}

#[tokio::test(start_paused = true)]
async fn a_session_of_lines_does_not_depend_on_how_it_is_cut() {
    let call = json!({ "name": "count_words", "arguments": { "text": "one two\nthree" } });
    let session = [
        "\r\n".to_owned(),
        line(request(1, "initialize", json!({ "protocolVersion": "2025-06-18" }))),
        line(notification("notifications/initialized", json!({}))),
        line(request(2, "tools/list", json!({}))),
        line("x".repeat(MAX as usize + 1)),
        " \n".to_owned(),
        request(3, "tools/call", call) + "\r\n",
        line(format!("[{},{}]", request(4, "ping", json!({})), request(5, "pong", json!({})))),
        line("{\"jsonrpc\": ".to_owned()),
        line(request(6, "ping", json!({}))),
    ];
    let (output, closed) = verified(&session.concat()).await;
    assert_eq!(closed, "PeerClosed");
    let answers = lines(&output);
    assert_eq!(answers[0]["result"]["protocolVersion"], "2025-06-18");
    assert_eq!(answers[1]["result"]["tools"][0]["name"], "count_words");
    assert_eq!(code(&answers[2]), -32600);
    let counted = json!({ "words": 3, "lines": 2, "characters": 13 });
    assert_eq!(answers[3]["result"]["structuredContent"], counted);
    assert_eq!(answers[4][0]["result"], json!({}));
    assert_eq!(code(&answers[4][1]), -32601);
    assert_eq!(code(&answers[5]), -32700);
    assert_eq!(answers[6]["id"], 6);
    assert_eq!(answers.len(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_message_may_be_as_long_as_its_limit_and_not_longer() {
    let ping = request(1, "ping", json!({}));
    let padded = |length: usize| ping.clone() + &" ".repeat(length - ping.len());
    let ok = |answer: &Value| answer["id"] == 1;
    for (length, taken) in [(MAX as usize, true), (MAX as usize + 1, false)] {
        let input = padded(length) + "\n" + &ping + "\n";
        let (output, reason, code) = talk(&input).await;
        let answers = lines(&output);
        assert_eq!((ok(&answers[0]), ok(&answers[1])), (taken, true), "{length}");
        assert_eq!((reason.as_str(), code), ("PeerClosed", 0));

        let input = headed(&padded(length)) + &headed(&ping);
        let answers = bodies(&talk(&input).await.0);
        assert_eq!(code_of(&answers[0]) == -32600, !taken);
        // This has been read as a message: the error says that the language server has not been initialized.
        assert_eq!((code_of(&answers[1]), answers.len()), (-32002, 2));
    }
}

fn code_of(answer: &Value) -> i64 {
    answer["error"]["code"].as_i64().unwrap_or(0)
}

#[tokio::test(start_paused = true)]
async fn a_length_of_any_size_reserves_no_memory_and_is_skipped_by_count() {
    let (io, peer) = pipe();
    let running =
        tokio::spawn(async move { channels(MAX).build(io).run(Session::new(MAX)).await.1 });
    peer.send(b"content-length: 18446744073709551615\r\n\r\n");
    channel::settle().await;
    assert_eq!(code(&bodies(&peer.output())[0]), -32600);
    peer.send([b'{'; 100_000]);
    peer.close();
    assert!(matches!(running.await.unwrap(), asynchat::CloseReason::Truncated));
}

/// Headers, the answers to messages behind them, and why the session ends.
#[tokio::test(start_paused = true)]
async fn heads_are_what_they_should_be() {
    let body = request(1, "initialize", json!({}));
    let n = body.len();
    let taken = [
        format!("Content-Length: {n}\r\n\r\n"),
        format!("content-length:{n}\r\n\r\n"),
        format!("CONTENT-LENGTH: \t{n} \r\n\r\n"),
        format!("Content-Length: 0{n}\r\n\r\n"),
        format!("Content-Length: {n}\n\n"),
        format!("\r\n\n \r\nContent-Length: {n}\r\n\r\n"),
        format!("X-Other: a:b\r\nContent-Length: {n}\r\nContent-Type:\r\n\r\n"),
        format!(
            "Content-Type: application/vscode-jsonrpc; charset=utf-8\r\nContent-Length: {n}\r\n\r\n"
        ),
        format!("Content-Length: {n}\r\nContent-type: a/b;x=y; CharSet=\"UTF8\"\r\n\r\n"),
    ];
    for head in taken {
        let (output, reason, _) = talk(head.clone() + &body).await;
        assert!(bodies(&output)[0]["result"].is_object(), "{head:?}: {output}");
        assert_eq!(reason, "PeerClosed", "{head:?}");
        verified(&(head + &body)).await;
    }
    let refused = [
        "Content-Type: a/b\r\n\r\n".to_owned(),
        format!("Content-Length: {n}\r\nContent-Length: {n}\r\n\r\n"),
        "Content-Length: -1\r\n\r\n".to_owned(),
        "Content-Length: +1\r\n\r\n".to_owned(),
        "Content-Length: 1 1\r\n\r\n".to_owned(),
        "Content-Length: 0x10\r\n\r\n".to_owned(),
        "Content-Length:\r\n\r\n".to_owned(),
        "Content-Length: 18446744073709551616\r\n\r\n".to_owned(),
        "Content-Length\r\n\r\n".to_owned(),
        format!("Content-Length: {n}\r\n \r\n"),
        format!("Content-Length: {n}\r\nA: {}\r\n\r\n", "a".repeat(10_000)),
        format!("Content-Length: {n}\r\n{}\r\n", "Some: header\r\n".repeat(1000)),
        "null\r\n".to_owned(),
    ];
    for head in refused {
        let (output, reason, exit) = talk(head.clone() + &body).await;
        let answers = bodies(&output);
        assert_eq!((answers.len(), code(&answers[0])), (1, -32700), "{head:?}: {output}");
        assert_eq!((reason.as_str(), exit), ("Done", 1), "{head:?}");
    }
    // A message in another charset is skipped, and the session goes on.
    let head = format!("Content-Length: {n}\r\nContent-Type: a/b; charset=utf-16\r\n\r\n");
    let input = head + &body + &headed(&body);
    let answers = bodies(&verified(&input).await.0);
    assert_eq!(code(&answers[0]), -32700);
    assert!(answers[1]["result"].is_object());
}

#[tokio::test(start_paused = true)]
async fn an_end_in_the_middle_of_a_message_is_said_to_be_that() {
    let ping = request(1, "ping", json!({}));
    let whole = headed(&ping);
    let cut_head = "Content-Length: 5\r\n".to_owned();
    for input in [&ping, &whole[..whole.len() - 1], &cut_head, "Content-Length: 5\r\n\r\n", "C"] {
        let (output, reason, _) = talk(input).await;
        assert_eq!((output.as_str(), reason.as_str()), ("", "Truncated"), "{input:?}");
    }
    for input in ["", "\n", "\r\n\r\n"] {
        let (output, reason, code) = talk(input).await;
        assert_eq!((output.as_str(), reason.as_str(), code), ("", "PeerClosed", 0), "{input:?}");
    }
}

/// The first byte of the input decides which framing it has, and later bytes do not.
#[tokio::test(start_paused = true)]
async fn the_first_byte_tells_the_framing() {
    let ping = request(1, "ping", json!({}));
    for first in ["{}", "[]", "1", "\"Content-Length\"", "\u{e4}"] {
        let answers = lines(&talk(format!("  \n {first}\n{ping}\n")).await.0);
        assert!(code_of(&answers[0]) < 0 && answers[1]["id"] == 1, "{first}");
    }
    let (output, ..) = talk(format!("{ping}\nContent-Length: 5\n{ping}\n")).await;
    let answers = lines(&output);
    assert_eq!((code(&answers[1]), answers.len()), (-32700, 3));
    // A message where a header should be.
    let (output, reason, _) = talk(headed(&ping) + &ping + "\r\n").await;
    assert_eq!((code(&bodies(&output)[1]), reason.as_str()), (-32700, "Done"));
}

#[tokio::test(start_paused = true)]
async fn an_id_of_any_type_comes_back_as_it_was() {
    for id in [
        "1",
        "-1",
        "0",
        "1.5",
        "\"\"",
        "\"a\\u0000\\\"\"",
        "null",
        "123456789012345678901234567890",
    ] {
        let (output, ..) =
            talk(format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"ping\"}}\n")).await;
        assert_eq!(output, format!("{{\"id\":{id},\"jsonrpc\":\"2.0\",\"result\":{{}}}}\n"));
    }
    for id in ["true", "{}", "[]", "[1]"] {
        let (output, ..) =
            talk(format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"ping\"}}\n")).await;
        let answer = &lines(&output)[0];
        assert_eq!((code(answer), &answer["id"]), (-32600, &Value::Null), "{id}");
    }
}

/// Messages, and the error codes of their answers. A result is 0.
#[tokio::test(start_paused = true)]
async fn messages_are_answered_as_json_rpc_says() {
    let cases: &[(&str, &[i64])] = &[
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, &[0]),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#, &[0]),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":1}"#, &[-32600]),
        (r#"{"jsonrpc":"2.0","id":1,"method":"pong"}"#, &[-32601]),
        (r#"{"jsonrpc":"2.0","method":"pong"}"#, &[]),
        (r#"{"jsonrpc":"2.0","method":"ping"}"#, &[]),
        (r#"{"jsonrpc":"2.0","method":1,"params":"bar"}"#, &[-32600]),
        (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, &[-32600]),
        (r#"{"id":1,"method":"ping"}"#, &[-32600]),
        (r#"{"jsonrpc":"2.0","id":1}"#, &[-32600]),
        (r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, &[]),
        (r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":""}}"#, &[]),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#, &[-32600]),
        (r#"{"jsonrpc":"2.0","id":1,"method":"server/discover"}"#, &[-32601]),
        (r#"{"jsonrpc":"2.0","method":"foobar,"params":"bar","baz]"#, &[-32700]),
        ("nonsense", &[-32700]),
        ("\"\\ud800\"", &[-32700]),
        ("{} {}", &[-32700]),
        ("{}", &[-32600]),
        ("1", &[-32600]),
        ("[", &[-32700]),
        ("[]", &[-32600]),
        ("[1]", &[-32600]),
        ("[1,2,{}]", &[-32600, -32600, -32600]),
        (r#"[{"jsonrpc":"2.0","method":"ping"}]"#, &[]),
        (
            r#"[{"jsonrpc":"2.0","method":"ping"},{"jsonrpc":"2.0","id":1,"method":"ping"},[]]"#,
            &[0, -32600],
        ),
    ];
    for (message, wanted) in cases {
        let (output, reason, _) = talk(format!("[]\n{message}\n")).await;
        assert_eq!(reason, "PeerClosed");
        let answers = lines(&output);
        let codes: Vec<i64> = match answers.get(1) {
            None => Vec::new(),
            Some(Value::Array(batch)) => batch.iter().map(code_of).collect(),
            Some(answer) => vec![code_of(answer)],
        };
        assert_eq!(&codes, wanted, "{message}: {output}");
        assert_eq!(
            answers.get(1).is_some_and(Value::is_array),
            message.starts_with("[") && !wanted.is_empty() && !["[", "[]"].contains(message)
        );
    }
}

#[test]
fn a_batch_and_a_depth_have_limits() {
    let mut service = mcp::Mcp::default();
    let mut answer = |text: &str| rpc::answer(&mut service, text.as_bytes()).unwrap();
    let batch = |count: usize| format!("[{}1]", "1,".repeat(count - 1));
    assert_eq!(answer(&batch(1000)).as_array().unwrap().len(), 1000);
    assert_eq!(code(&answer(&batch(1001))), -32600);
    assert_eq!(code(&answer(&"[".repeat(1_000_000))), -32700);
    assert_eq!(code(&answer("\"\u{0}\"")), -32700);
    assert_eq!(code(&rpc::answer(&mut service, b"\"\xff\"").unwrap()), -32700);
}

#[tokio::test(start_paused = true)]
async fn a_language_server_is_asked_in_the_order_of_its_life() {
    let session = |messages: &[String]| -> String { messages.iter().map(|m| headed(m)).collect() };
    let initialize = request(1, "initialize", json!({}));
    let shutdown = request(2, "shutdown", Value::Null);
    let exit = notification("exit", Value::Null);
    let [open, hover] = document("a", (0, 0));
    let cases: [(&[String], &[i64], i32); 7] = [
        (&[hover.clone(), initialize.clone()], &[-32002, 0], 0),
        (&[initialize.clone(), initialize.clone()], &[0, -32600], 0),
        (&[open.clone(), initialize.clone(), hover.clone()], &[0, -32602], 0),
        (&[initialize.clone(), shutdown.clone(), hover.clone(), exit.clone()], &[0, 0, -32600], 0),
        (&[initialize.clone(), exit.clone(), hover.clone()], &[0], 1),
        (std::slice::from_ref(&exit), &[], 1),
        (
            &[initialize.clone(), request(9, "$/other", json!([])), notification("$/o", json!([]))],
            &[0, -32601],
            0,
        ),
    ];
    for (messages, codes, exit) in cases {
        let (output, _, code) = talk(session(messages)).await;
        assert_eq!(bodies(&output).iter().map(code_of).collect::<Vec<_>>(), codes, "{messages:?}");
        assert_eq!(code, exit, "{messages:?}");
    }
}

#[test]
fn versions_are_negotiated() {
    use rpc::Service;
    let negotiate = |version: &str| {
        let params = json!({ "protocolVersion": version });
        mcp::Mcp::default().request("initialize", &params).unwrap()["protocolVersion"].clone()
    };
    for version in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        assert_eq!(negotiate(version), version);
    }
    assert_eq!(negotiate("1999-01-01"), "2025-11-25");
    assert_eq!(negotiate("2026-07-28"), "2025-11-25");
    let mut mcp = mcp::Mcp::default();
    assert!(mcp.request("initialize", &json!({})).is_err());
    assert!(mcp.request("initialize", &json!({ "protocolVersion": "2025-11-25" })).is_ok());
    assert!(mcp.request("tools/call", &json!({ "name": "other" })).is_err());
    let call = json!({ "name": "count_words", "arguments": { "text": 1 } });
    assert_eq!(mcp.request("tools/call", &call).unwrap()["isError"], true);
}

#[test]
fn texts_that_are_open_are_bounded() {
    use rpc::Service;
    let mut lsp = lsp::Lsp::default();
    lsp.request("initialize", &json!({})).unwrap();
    let text = "a ".repeat(2 << 20);
    for index in 0..20 {
        let document = json!({ "uri": index.to_string(), "text": text });
        lsp.notification("textDocument/didOpen", &json!({ "textDocument": document }));
    }
    let mut hover = |index: i32| {
        let document = json!({ "uri": index.to_string() });
        let position = json!({ "line": 0, "character": 0 });
        lsp.request(
            "textDocument/hover",
            &json!({ "textDocument": document, "position": position }),
        )
    };
    assert_eq!(hover(0).unwrap()["contents"], "a: 2097152 of 2097152 words");
    assert!(hover(14).is_ok());
    assert!(hover(15).is_err());
}

#[test]
fn words_are_runs_of_letters_and_digits() {
    assert_eq!(
        words("Hello, wörld! 42\n東京").collect::<Vec<_>>(),
        ["Hello", "wörld", "42", "東京"]
    );
    assert_eq!(words(" ,. ").count(), 0);
    let line = "ab 😀 wörld.";
    for (column, word) in [
        (0, Some(("ab", 0, 2))),
        (2, Some(("ab", 0, 2))),
        (3, None),
        (4, None),
        (5, None),
        (6, Some(("wörld", 6, 11))),
        (8, Some(("wörld", 6, 11))),
        (11, Some(("wörld", 6, 11))),
        (12, None),
        (usize::MAX, None),
    ] {
        assert_eq!(word_at(line, column), word, "{column}");
    }
    assert_eq!(word_at("", 0), None);
}

// ---------------------------------------------------------------------------------------------
// The binary

struct Server {
    process: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Server {
    fn start() -> Self {
        let mut process = command().spawn().unwrap();
        let stdin = process.stdin.take();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        Server { process, stdin, stdout }
    }

    fn send(&mut self, text: &str) {
        self.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn end(mut self) -> (String, Option<i32>) {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (rest, self.process.wait().unwrap().code())
    }
}

fn command() -> Command {
    let mut command = Command::new(example("jsonrpc_stdio"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn the_process_ends_at_the_end_of_its_input() {
    let mut server = Server::start();
    server.send(&line(request(1, "ping", json!({}))));
    assert_eq!(server.line()["id"], 1);
    server.send(&line(request(2, "ping", json!({}))));
    server.stdin = None;
    let (rest, code) = server.end();
    assert_eq!((lines(&rest)[0]["id"].as_i64(), code), (Some(2), Some(0)));

    let mut server = Server::start();
    server.send("{\"jsonrpc\"");
    server.stdin = None;
    assert_eq!(server.end(), (String::new(), Some(1)));
}

#[test]
fn the_process_exits_with_the_code_that_lsp_wants() {
    let initialize = headed(&request(1, "initialize", json!({})));
    let shutdown = headed(&request(2, "shutdown", Value::Null));
    let exit = headed(&notification("exit", Value::Null));
    for (session, wanted) in
        [(initialize.clone() + &shutdown + &exit, 0), (initialize + &exit, 1), (exit, 1)]
    {
        // Standard input stays open.
        let mut server = Server::start();
        server.send(&session);
        let stdin = server.stdin.take();
        let (_, code) = server.end();
        assert_eq!(code, Some(wanted), "{session}");
        drop(stdin);
    }
}

#[cfg(unix)]
#[test]
fn the_process_ends_at_a_signal() {
    for signal in ["INT", "TERM"] {
        for begun in ["", "{\"jsonrpc\""] {
            let mut server = Server::start();
            server.send(&line(request(1, "ping", json!({}))));
            assert_eq!(server.line()["id"], 1);
            server.send(begun);
            let pid = server.process.id().to_string();
            assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
            let stdin = server.stdin.take();
            assert_eq!(server.end(), (String::new(), Some(0)), "{signal} {begun}");
            drop(stdin);
        }
    }
}

/// An editor may connect a socket to standard input, or a file.
#[cfg(unix)]
#[test]
fn standard_input_need_not_be_a_pipe() {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mut process = command().stdin(OwnedFd::from(theirs)).spawn().unwrap();
    let stdout = BufReader::new(process.stdout.take().unwrap());
    ours.write_all(line(request(7, "ping", json!({}))).as_bytes()).unwrap();
    let mut server = Server { process, stdin: None, stdout };
    assert_eq!(server.line()["id"], 7);
    // A thread of the server reads from it, and the server does not wait for this thread in the end.
    let pid = server.process.id().to_string();
    assert!(Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap().success());
    assert_eq!(server.end().1, Some(0));
    drop(ours);
}

#[test]
fn a_client_that_writes_all_before_it_reads_gets_all_answers() {
    let count = 20_000;
    let server = Server::start();
    let Server { process, stdin, mut stdout } = server;
    let writer = std::thread::spawn(move || {
        let mut stdin = stdin.unwrap();
        for id in 0..count {
            stdin.write_all(line(request(id, "ping", json!({}))).as_bytes()).unwrap();
        }
        stdin.write_all(&vec![b' '; 9 << 20]).unwrap();
        stdin.write_all(b"\n").unwrap();
        stdin.write_all(line(request(-1, "ping", json!({}))).as_bytes()).unwrap();
    });
    std::thread::sleep(std::time::Duration::from_millis(200));
    for id in 0..count {
        let mut answer = String::new();
        stdout.read_line(&mut answer).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&answer).unwrap()["id"], id);
    }
    let (rest, code) = Server { process, stdin: None, stdout }.end();
    let rest = lines(&rest);
    assert_eq!((code_of(&rest[0]), &rest[1]["id"], code), (-32600, &json!(-1), Some(0)));
    writer.join().unwrap();
}
