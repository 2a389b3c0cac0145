//! The HTTP server of `examples/`, as a process, with clients that write out every byte.
//!
//! Only the tests of slow readers depend on time. All others wait for bytes, or for the end of the connection. The
//! timeout of reads only turns a hang into a failure.

#![cfg(feature = "serve")]
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

#[path = "../examples/http_server/crowd.rs"]
mod crowd;
#[path = "support/process.rs"]
mod process;

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tokio_util::sync::CancellationToken;

use crate::crowd::{Crowd, Member};
use crate::process::{Server, example};

const HANG: Duration = Duration::from_secs(60);

const INDEX: &str = "<!doctype html><title>index</title>";
const SECRET: &str = "not for the world";

// ---------------------------------------------------------------------------------------------
// The server

/// Starts the server by a command, which is its binary, or a shell that starts it.
#[track_caller]
fn start_by(command: &mut Command) -> Server {
    Server::start(command.arg("127.0.0.1:0").arg(site()))
}

#[track_caller]
fn start() -> Server {
    start_by(&mut Command::new(example("http_server")))
}

fn connect(server: &Server) -> Client {
    let stream = TcpStream::connect(&server.addr).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(HANG)).unwrap();
    stream.set_write_timeout(Some(HANG)).unwrap();
    Client { input: BufReader::new(stream) }
}

/// A directory with files to serve, and beside it a file that must not be served.
fn site() -> PathBuf {
    use std::sync::OnceLock;
    static SITE: OnceLock<PathBuf> = OnceLock::new();
    SITE.get_or_init(|| {
        let base = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("http_server-{}", std::process::id()));
        let root = base.join("site");
        fs::create_dir_all(root.join("folder")).unwrap();
        fs::create_dir_all(root.join("empty")).unwrap();
        fs::create_dir_all(root.join(".git")).unwrap();
        fs::write(base.join("secret.txt"), SECRET).unwrap();
        fs::create_dir_all(base.join("site-secret")).unwrap();
        fs::write(base.join("site-secret/index.html"), SECRET).unwrap();
        fs::write(root.join("index.html"), INDEX).unwrap();
        fs::write(root.join("folder/index.html"), "in the folder").unwrap();
        fs::write(root.join(".git/config"), SECRET).unwrap();
        fs::write(root.join(".env"), SECRET).unwrap();
        fs::write(root.join("a b+ü.txt"), "blank").unwrap();
        fs::write(root.join("style.css"), "a{}").unwrap();
        fs::write(root.join("script.js"), "1").unwrap();
        fs::write(root.join("picture.png"), [0x89, b'P', 0, 255]).unwrap();
        fs::write(root.join("unknown.zzz"), "?").unwrap();
        fs::write(root.join("nothing.txt"), "").unwrap();
        fs::write(root.join("large.bin"), large()).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::symlink;
            symlink("../secret.txt", root.join("link.txt")).unwrap();
            symlink("..", root.join("up")).unwrap();
            symlink("/", root.join("slash")).unwrap();
            symlink("style.css", root.join("inside.css")).unwrap();
            symlink("loop", root.join("loop")).unwrap();
            assert!(Command::new("mkfifo").arg(root.join("pipe")).status().unwrap().success());
        }
        root
    })
    .clone()
}

/// More bytes than all buffers on the way hold. They differ from position to position.
fn large() -> Vec<u8> {
    (0..500_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

// ---------------------------------------------------------------------------------------------
// The client

struct Client {
    input: BufReader<TcpStream>,
}

#[derive(Debug)]
struct Response {
    status: u16,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Response {
    /// The value of a field, which must not be there twice.
    #[track_caller]
    fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} twice in {self:?}");
        value
    }

    #[track_caller]
    fn assert(self, status: u16, body: impl AsRef<[u8]>) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.body, body.as_ref());
        self
    }
}

impl Client {
    fn stream(&self) -> &TcpStream {
        self.input.get_ref()
    }

    #[track_caller]
    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream().write_all(bytes.as_ref()).unwrap();
    }

    /// Sends the bytes one by one, until the server closes the connection.
    fn send_bytewise(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.stream().write_all(&[*byte]).is_err() {
                return;
            }
        }
    }

    fn finish_sending(&mut self) {
        self.stream().shutdown(Shutdown::Write).unwrap();
    }

    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.input.read_line(&mut line).unwrap();
        match line.strip_suffix("\r\n") {
            Some(line) => line.to_owned(),
            None => panic!("the connection ended after {line:?}"),
        }
    }

    #[track_caller]
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.input.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Reads a head, and checks what must be true of every head.
    #[track_caller]
    fn head(&mut self) -> Response {
        let line = self.line();
        let status = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.split(' ').next());
        let status = status.and_then(|status| status.parse().ok());
        let mut response = Response {
            status: status.unwrap_or_else(|| panic!("a status line: {line:?}")),
            fields: Vec::new(),
            body: Vec::new(),
        };
        loop {
            let line = self.line();
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(": ").unwrap();
            response.fields.push((name.to_owned(), value.to_owned()));
        }
        if response.status >= 200 {
            let date = response.field("Date").unwrap();
            httpdate::parse_http_date(date).unwrap();
            let framed = response.field("Content-Length").is_some()
                != response.field("Transfer-Encoding").is_some();
            assert!(framed, "{response:?}");
        }
        response
    }

    /// Reads one chunk of a response. The last one is empty.
    #[track_caller]
    fn chunk(&mut self) -> Vec<u8> {
        let size = usize::from_str_radix(&self.line(), 16).unwrap();
        let chunk = self.bytes(size);
        assert_eq!(self.line(), "");
        chunk
    }

    #[track_caller]
    fn response(&mut self) -> Response {
        let mut response = self.head();
        response.body = match response.field("Content-Length") {
            Some(length) => {
                let length = length.parse().unwrap();
                self.bytes(length)
            }
            None => {
                let chunks = std::iter::from_fn(|| Some(self.chunk()).filter(|c| !c.is_empty()));
                chunks.flatten().collect()
            }
        };
        response
    }

    /// Checks that the server sends no more and ends the connection.
    #[track_caller]
    fn assert_end(&mut self) {
        let mut rest = Vec::new();
        match self.input.read_to_end(&mut rest) {
            // This happens if the client was still sending when the server had lingered long enough.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            result => {
                result.unwrap();
            }
        }
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }

    /// Checks that there is one answer, which refuses the request, and that the connection ends.
    #[track_caller]
    fn assert_refused(&mut self, status: u16) {
        let response = self.response();
        assert_eq!(response.status, status, "{response:?}");
        assert_eq!(response.field("Connection"), Some("close"));
        self.assert_end();
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

fn post(body: &str) -> String {
    let length = body.len();
    format!("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}")
}

const CHUNKED: &str =
    "POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";

// ---------------------------------------------------------------------------------------------
// Files

#[test]
fn files_have_their_bytes_and_types() {
    let server = start();
    let mut client = connect(&server);
    for (path, content_type, body) in [
        ("/", "text/html; charset=utf-8", INDEX.as_bytes()),
        ("/?query=/../x", "text/html; charset=utf-8", INDEX.as_bytes()),
        ("/index.html", "text/html; charset=utf-8", INDEX.as_bytes()),
        ("/folder/", "text/html; charset=utf-8", b"in the folder"),
        ("//folder//index.html", "text/html; charset=utf-8", b"in the folder"),
        ("/%66older/index%2ehtml", "text/html; charset=utf-8", b"in the folder"),
        ("/a%20b+%c3%bc.txt", "text/plain; charset=utf-8", b"blank"),
        ("/style.css", "text/css; charset=utf-8", b"a{}"),
        ("/script.js", "text/javascript; charset=utf-8", b"1"),
        ("/picture.png", "image/png", &[0x89, b'P', 0, 255]),
        ("/unknown.zzz", "application/octet-stream", b"?"),
        ("/nothing.txt", "text/plain; charset=utf-8", b""),
        ("http://localhost/style.css", "text/css; charset=utf-8", b"a{}"),
        ("HTTP://localhost:80?query", "text/html; charset=utf-8", INDEX.as_bytes()),
        #[cfg(unix)]
        ("/inside.css", "text/css; charset=utf-8", b"a{}"),
    ] {
        client.send(get(path));
        let response = client.response().assert(200, body);
        assert_eq!(response.field("Content-Type"), Some(content_type), "{path}");
        assert_eq!(response.field("X-Content-Type-Options"), Some("nosniff"));
        assert_eq!(response.field("Connection"), None);
    }
    client.send(get("/large.bin"));
    client.response().assert(200, large());
    client.send(get("/style.css"));
    client.response().assert(200, "a{}");
}

#[test]
fn head_is_get_without_the_body() {
    let server = start();
    let mut client = connect(&server);
    for path in ["/", "/large.bin", "/nothing.txt", "/missing", "/folder", "/echo", "/hello"] {
        client.send(get(path));
        let mut get_fields = client.response().fields;
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let mut head_fields = client.head().fields;
        get_fields.retain(|(name, _)| name != "Date");
        head_fields.retain(|(name, _)| name != "Date");
        assert_eq!(head_fields, get_fields, "{path}");
    }
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(client.head().status, 200);
    client.assert_end();
}

#[test]
fn hello_is_no_file_and_many_are_answered_in_one_write() {
    let server = start();
    let mut client = connect(&server);
    client.send(get("/hello").repeat(100));
    for _ in 0..100 {
        let response = client.response();
        assert_eq!((response.status, &response.body[..]), (200, &b"hello, world\n"[..]));
        assert_eq!(response.field("Content-Type"), Some("text/plain; charset=utf-8"));
        let date = response.field("Date").unwrap();
        assert!(date.len() == 29 && date.ends_with(" GMT"), "{date}");
    }
}

#[test]
fn directories_are_not_listed_and_end_with_a_slash() {
    let server = start();
    let mut client = connect(&server);
    for (path, location) in [
        ("/folder", "/folder/"),
        ("//folder", "/folder/"),
        ("///%66older?a=b", "/folder/"),
        ("/empty", "/empty/"),
    ] {
        client.send(get(path));
        let response = client.response();
        assert_eq!(response.status, 301);
        assert_eq!(response.field("Location"), Some(location), "{path}");
    }
    for path in ["/empty/", "/style.css/", "/index.html/", "/missing", "/folder/missing"] {
        client.send(get(path));
        assert_eq!(client.response().status, 404, "{path}");
    }
}

#[test]
fn no_path_leads_out_of_the_directory() {
    let server = start();
    let mut client = connect(&server);
    let secret = site().parent().unwrap().join("secret.txt");
    let absolute = secret.to_str().unwrap().to_owned();
    for path in [
        "/../secret.txt",
        "/folder/../../secret.txt",
        "/folder/../index.html",
        "/./index.html",
        "/..",
        "/../",
        "/...",
        "/%2e%2e/secret.txt",
        "/.%2E/secret.txt",
        "/%2e%2e%2fsecret.txt",
        "/..%2fsecret.txt",
        "/..%5csecret.txt",
        "/..\\secret.txt",
        "/folder%2f..%2f..%2fsecret.txt",
        "/%252e%252e/secret.txt",
        "/%c0%ae%c0%ae/secret.txt",
        "/../site-secret/",
        "/index.html%00",
        "/%00",
        "/index.html%00.png",
        "/%",
        "/%2",
        "/%zz",
        "/%+1",
        "/%ff",
        "/C:/secret.txt",
        "/style.css::$DATA",
        "/.git/config",
        "/.env",
        "/%2eenv",
        "//etc/passwd",
        "/%2fetc/passwd",
        #[cfg(unix)]
        "/link.txt",
        #[cfg(unix)]
        "/up",
        #[cfg(unix)]
        "/up/secret.txt",
        #[cfg(unix)]
        "/up/site/../secret.txt",
        #[cfg(unix)]
        "/slash/etc/passwd",
        #[cfg(unix)]
        "/loop",
        #[cfg(unix)]
        "/pipe",
        &absolute,
        &format!("/{absolute}"),
        &format!("/{}", "a/".repeat(4000)),
        &format!("/{}", "a".repeat(8000)),
    ] {
        client.send(get(path));
        let response = client.response();
        assert_eq!(response.status, 404, "{path}: {response:?}");
        assert_eq!(response.body, b"there is nothing here\n", "{path}");
    }
    client.send(get("/"));
    client.response().assert(200, INDEX);
}

// ---------------------------------------------------------------------------------------------
// Heads

/// Heads that are understood, and the status of the answer to each.
#[rustfmt::skip]
fn good_heads() -> Vec<(String, u16)> {
    [
        ("GET / HTTP/1.1\r\nHost: localhost", 200),
        ("GET / HTTP/1.1\r\nHost: ", 200),
        ("GET / HTTP/1.1\r\nhOsT:localhost:80", 200),
        ("GET / HTTP/1.1\r\nHost: [::1]:8080\r\nX-Empty:\r\nX-Text: caf\u{e9}, \t \"quoted\"", 200),
        ("\r\nGET / HTTP/1.1\r\nHost: after-one-empty-line", 200),
        ("GET / HTTP/1.0\r\nConnection: keep-alive", 200),
        ("GET / HTTP/1.0\r\nExpect: something\r\nconnection: Keep-Alive", 200),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0", 200),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade, keep-alive\r\nUpgrade: h2c", 200),
        ("GET /missing HTTP/1.1\r\nHost: a", 404),
        ("GET /echo HTTP/1.1\r\nHost: a", 405),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 000", 405),
        ("POST /echo HTTP/1.1\r\nHost: a", 200),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nExpect: 100-continue", 200),
    ]
    .map(|(head, status)| (format!("{head}\r\n\r\n"), status))
    .into()
}

/// Input that must be refused: requests for which real readers have found different ends, and input that is no request.
/// A second request follows each, and would be answered if the server found the end of the first too early.
#[rustfmt::skip]
fn refused() -> Vec<(&'static [u8], u16)> {
    vec![
        // Requests with two lengths.
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\nhello", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5,6\r\n\r\nhello", 400),
        // Lengths that are no numbers.
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nhello", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\nhello", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5a\r\n\r\nhello", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5.0\r\n\r\nhello", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: five\r\n\r\nhello", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: \"5\"\r\n\r\nhello", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: \x0b5\r\n\r\nhello", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: \xd9\xa5\r\n\r\nhello", 400),
        // White space that readers have understood in different ways.
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length\t: 5\r\n\r\nhello", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\n Content-Length: 5\r\n\r\nhello", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\n Host: a\r\nContent-Length: 5\r\n\r\nhello", 400),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
        (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        // Folded lines.
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: one\r\n two\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: one\r\n\ttwo\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n 5\r\n\r\nhello", 400),
        // Wrong line ends.
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\nX: b\r\n\r\n", 400),
        (b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\rHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", 400),
        (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        // Transfer codings.
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", 501),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 501),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 501),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", 501),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n", 501),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 501),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n", 501),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", 400),
        (b"POST /echo HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        // Hosts.
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", 400),
        // Targets.
        (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET index.html HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET ../secret.txt HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET localhost:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET http:// HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET http:///etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET http://user@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET file:///etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /#fragment HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /caf\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        // Input that is no request.
        (b"\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP\r\n\r\n", 400),
        (b"GET / HTTP/1.1x\r\nHost: a\r\n\r\n", 400),
        (b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
        (b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"\x00\x00\x00\x00\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n: no name\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX(: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX\x00: b\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        // Requests of kinds that the server does not support.
        (b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 501),
        (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: a miracle\r\nContent-Length: 5\r\n\r\nhello", 417),
        // Chunks.
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n 5\r\nhello\r\n0\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5 ;x\r\nhello\r\n0\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5h\r\nhello\r\n0\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5,5\r\nhello\r\n0\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5_0\r\nhello\r\n0\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n;x\r\nhello\r\n0\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a\nb\r\nhello\r\n0\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a\rb\r\nhello\r\n0\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\rhello\r\n0\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;\x00\r\nhello\r\n0\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\n", 413),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", 413),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n40000001\r\n", 413),
        // Trailers behind an empty body, so that the answer has not begun.
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nno colon\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n X: folded\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: a\r\n b\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX : a\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: a\nY: b\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\nX: a\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: a\rb\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: \x00\r\n\r\n", 400),
        // Lengths beyond the limit, and beyond 64 bits.
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1073741825\r\n\r\n", 413),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551615\r\n\r\n", 413),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n", 413),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999999\r\n\r\n", 413),
    ]
}

/// Runs a step, and prints the input if it panics.
fn on<T>(input: &[u8], step: impl FnOnce() -> T) -> T {
    struct Say<'a>(&'a [u8]);
    impl Drop for Say<'_> {
        fn drop(&mut self) {
            if thread::panicking() {
                eprintln!("on {:?}", String::from_utf8_lossy(self.0));
            }
        }
    }
    let _say = Say(input);
    step()
}

#[test]
fn every_good_head_is_answered_whole_and_byte_by_byte() {
    let server = start();
    let mut client = connect(&server);
    for (head, status) in good_heads() {
        for bytewise in [false, true] {
            on(head.as_bytes(), || {
                match bytewise {
                    true => client.send_bytewise(head.as_bytes()),
                    false => client.send(&head),
                }
                let response = client.response();
                assert_eq!(response.status, status, "{response:?}");
                assert_ne!(response.field("Connection"), Some("close"));
            });
        }
    }
}

#[test]
fn every_refused_request_ends_the_connection() {
    let server = start();
    for (request, status) in refused() {
        on(request, || {
            let mut client = connect(&server);
            client.send([request, get("/").as_bytes()].concat());
            client.finish_sending();
            client.assert_refused(status);
        });
    }
}

#[test]
fn every_refused_request_is_refused_byte_by_byte_too() {
    let server = start();
    for (request, status) in refused() {
        on(request, || {
            let mut client = connect(&server);
            client.send_bytewise(request);
            client.assert_refused(status);
        });
    }
}

#[test]
fn a_refused_request_does_not_take_back_the_answers_before_it() {
    let server = start();
    for (request, status) in refused() {
        on(request, || {
            let mut client = connect(&server);
            client.send([post("first").as_bytes(), get("/").as_bytes(), request].concat());
            client.finish_sending();
            client.response().assert(200, "first");
            client.response().assert(200, INDEX);
            client.assert_refused(status);
        });
    }
}

#[test]
fn responses_have_these_bytes_and_no_others() {
    let server = start();
    for (requests, answers) in [
        (
            get("/hello") + "GET /echo HTTP/1.1\r\nHost: a\r\n\r\n" + &get("/folder"),
            "HTTP/1.1 200 OK\r\n\
             Date: today\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\
             X-Content-Type-Options: nosniff\r\n\
             Content-Length: 13\r\n\
             \r\n\
             hello, world\n\
             HTTP/1.1 405 Method Not Allowed\r\n\
             Date: today\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\
             X-Content-Type-Options: nosniff\r\n\
             Content-Length: 21\r\n\
             Allow: POST\r\n\
             \r\n\
             only POST works here\n\
             HTTP/1.1 301 Moved Permanently\r\n\
             Date: today\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\
             X-Content-Type-Options: nosniff\r\n\
             Content-Length: 18\r\n\
             Location: /folder/\r\n\
             \r\n\
             it is a directory\n",
        ),
        (
            "POST /echo HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc"
                .to_owned()
                + CHUNKED
                + "3\r\nabc\r\n0\r\n\r\n"
                + CHUNKED
                + "0\r\n\r\n"
                + "POST /echo HTTP/1.1\r\nHost: a\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\
             Date: today\r\n\
             Content-Type: application/octet-stream\r\n\
             X-Content-Type-Options: nosniff\r\n\
             Content-Length: 3\r\n\
             Connection: keep-alive\r\n\
             \r\n\
             abc\
             HTTP/1.1 200 OK\r\n\
             Date: today\r\n\
             Content-Type: application/octet-stream\r\n\
             X-Content-Type-Options: nosniff\r\n\
             Transfer-Encoding: chunked\r\n\
             \r\n\
             3\r\nabc\r\n0\r\n\r\n\
             HTTP/1.1 200 OK\r\n\
             Date: today\r\n\
             Content-Type: application/octet-stream\r\n\
             X-Content-Type-Options: nosniff\r\n\
             Transfer-Encoding: chunked\r\n\
             \r\n\
             0\r\n\r\n\
             HTTP/1.1 200 OK\r\n\
             Date: today\r\n\
             Content-Type: application/octet-stream\r\n\
             X-Content-Type-Options: nosniff\r\n\
             Content-Length: 0\r\n\
             \r\n",
        ),
        (
            "GET /stream?n=1 HTTP/1.0\r\n\r\n".to_owned(),
            "HTTP/1.1 200 OK\r\n\
             Date: today\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\
             X-Content-Type-Options: nosniff\r\n\
             Connection: close\r\n\
             \r\n\
             tick 1\n",
        ),
        (
            "PUT / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            "HTTP/1.1 501 Not Implemented\r\n\
             Date: today\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\
             X-Content-Type-Options: nosniff\r\n\
             Content-Length: 35\r\n\
             Connection: close\r\n\
             \r\n\
             GET, HEAD and POST are spoken here\n",
        ),
    ] {
        on(requests.as_bytes(), || {
            let mut client = connect(&server);
            client.send(&requests);
            client.finish_sending();
            let mut sent = String::new();
            client.input.read_to_string(&mut sent).unwrap();
            let lines = sent.split_inclusive("\r\n");
            let sent: String = lines
                .map(|line| if line.starts_with("Date: ") { "Date: today\r\n" } else { line })
                .collect();
            assert_eq!(sent, answers);
        });
    }
}

#[test]
fn the_date_is_that_of_the_answer() {
    let server = start();
    let mut client = connect(&server);
    let mut seconds = Vec::new();
    // The server formats the date once a second. In two different seconds it has to format it anew.
    while seconds.len() < 2 {
        let before = SystemTime::now();
        client.send(get("/hello"));
        let response = client.response();
        let date = httpdate::parse_http_date(response.field("Date").unwrap()).unwrap();
        assert!(date <= SystemTime::now());
        assert!(before < date + Duration::from_secs(1));
        seconds.push(date);
        seconds.dedup();
    }
}

#[test]
fn a_host_is_made_of_certain_bytes() {
    let server = start();
    for byte in 0..=255 {
        let request = [b"GET /hello HTTP/1.1\r\nHost: a", &[byte][..], b"a\r\n\r\n"].concat();
        on(&request, || {
            let mut client = connect(&server);
            client.send(&request);
            let good = byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(&byte);
            if good {
                client.response().assert(200, "hello, world\n");
            } else {
                client.assert_refused(400);
            }
        });
    }
}

#[test]
fn a_line_that_ends_with_lf_alone_is_refused_at_once() {
    let server = start();
    // When the first answer has come, the server has looked at the bytes behind the first request.
    let begin = |part: &str| {
        let mut client = connect(&server);
        client.send(get("/hello") + part);
        client.response().assert(200, "hello, world\n");
        client
    };
    for part in ["", "GET / HTTP/1.1", "GET / HTTP/1.1\r\nHost: a", "GET / HTTP/1.1\r\n"] {
        let mut client = begin(part);
        client.send("\n");
        client.assert_refused(400);
    }
    let request = get("/style.css");
    for cut in 0..request.len() {
        let mut client = begin(&request[..cut]);
        client.send(&request[cut..]);
        client.response().assert(200, "a{}");
    }
}

#[test]
fn heads_have_a_size_and_a_number_of_fields() {
    let server = start();
    let filled = |length: usize| {
        let head = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
        format!("{head}{}\r\n\r\n", "x".repeat(length - head.len()))
    };
    let fields = |number: usize| {
        let fields = "X: y\r\n".repeat(number - 1);
        format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
    };
    for head in [filled(16 * 1024), fields(100)] {
        let mut client = connect(&server);
        client.send(&head);
        client.response().assert(200, INDEX);
        client.send_bytewise(head.as_bytes());
        client.response().assert(200, INDEX);
    }
    let endless = format!("GET /{}", "x".repeat(100_000));
    for head in [filled(16 * 1024 + 1), fields(101), endless] {
        let mut client = connect(&server);
        client.send(&head);
        client.assert_refused(431);
    }
    let mut client = connect(&server);
    client.send_bytewise(filled(16 * 1024 + 1).as_bytes());
    client.assert_refused(431);
}

// ---------------------------------------------------------------------------------------------
// Connections

#[test]
fn a_hundred_requests_in_one_write_are_answered_in_order() {
    let server = start();
    let mut client = connect(&server);
    let mut requests = String::new();
    for n in 0..100 {
        requests += &match n % 4 {
            0 => get("/style.css"),
            1 => post(&format!("body {n}")),
            2 => format!("{CHUNKED}3\r\n{n:03}\r\n4;x=y\r\nmore\r\n0\r\nX: y\r\n\r\n"),
            _ => get(&format!("/missing/{n}")),
        };
    }
    client.send(requests);
    for n in 0..100 {
        match n % 4 {
            0 => client.response().assert(200, "a{}"),
            1 => client.response().assert(200, format!("body {n}")),
            2 => client.response().assert(200, format!("{n:03}more")),
            _ => client.response().assert(404, "there is nothing here\n"),
        };
    }
}

#[test]
fn a_connection_is_kept_as_the_versions_say() {
    let server = start();
    for (head, kept, field) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n", true, None),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n", false, Some("close")),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: x , CLOSE\r\n", false, Some("close")),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: x\r\nConnection: close\r\n",
            false,
            Some("close"),
        ),
        ("GET / HTTP/1.0\r\n", false, Some("close")),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n", true, Some("keep-alive")),
        ("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n", false, Some("close")),
    ] {
        on(head.as_bytes(), || {
            let mut client = connect(&server);
            client.send(format!("{head}\r\n{}", get("/style.css")));
            let response = client.response().assert(200, INDEX);
            assert_eq!(response.field("Connection"), field);
            if kept {
                client.response().assert(200, "a{}");
            } else {
                client.assert_end();
            }
        });
    }
}

#[test]
fn a_body_nobody_reads_is_skipped_or_ends_the_connection() {
    let server = start();
    let with_body = |fields: &str, body: &str| {
        format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{body}{}", get("/style.css"))
    };
    let long = "x".repeat(65_537);
    for (request, kept) in [
        (with_body("Content-Length: 5", "hello"), true),
        (with_body("Content-Length: 65536", &long[..65_536]), true),
        (with_body("Content-Length: 65537", &long), false),
        (with_body("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n"), false),
        (with_body("Content-Length: 5\r\nExpect: 100-continue", "hello"), false),
    ] {
        let mut client = connect(&server);
        client.send(request);
        let response = client.response().assert(200, INDEX);
        if kept {
            assert_eq!(response.field("Connection"), None);
            client.response().assert(200, "a{}");
        } else {
            assert_eq!(response.field("Connection"), Some("close"));
            client.assert_end();
        }
    }
}

#[test]
fn half_a_connection_still_gets_its_answers() {
    let server = start();
    let mut client = connect(&server);
    client.send(get("/") + &post("hello") + &get("/large.bin"));
    client.finish_sending();
    client.response().assert(200, INDEX);
    client.response().assert(200, "hello");
    client.response().assert(200, large());
    client.assert_end();

    let mut client = connect(&server);
    client.finish_sending();
    client.assert_end();

    for cut in ["G", "GET / HTTP/1.1\r\nHost: a", "GET / HTTP/1.1\r\nHost: a\r\n", "\r"] {
        let mut client = connect(&server);
        client.send(cut);
        client.finish_sending();
        client.assert_refused(400);
    }
}

// ---------------------------------------------------------------------------------------------
// Bodies

#[test]
fn a_body_comes_back_however_it_is_cut() {
    let server = start();
    let mut client = connect(&server);
    let mut chunked = String::from(CHUNKED);
    chunked += "5\r\nhello\r\n0001;name=\"a;b\"\r\n,\r\n0A\r\n\r\n0\r\n\r\n\r\n!\r\n000;x\r\nX: y\r\nY: z\r\n\r\n";
    for (request, body) in [
        (post("hello\r\n\r\n0\r\n\r\n"), "hello\r\n\r\n0\r\n\r\n"),
        (chunked, "hello,\r\n0\r\n\r\n\r\n!"),
        (format!("{CHUNKED}0\r\n\r\n"), ""),
        (format!("{CHUNKED}00000000000000000003\r\nabc\r\n0\r\n\r\n"), "abc"),
    ] {
        for cut in 0..request.len() {
            client.send(&request[..cut]);
            client.send(&request[cut..]);
            client.response().assert(200, body);
        }
        client.send_bytewise(request.as_bytes());
        let response = client.response().assert(200, body);
        assert_eq!(response.field("Content-Type"), Some("application/octet-stream"));
        assert_eq!(
            response.field("Transfer-Encoding").is_some(),
            request.contains("Transfer-Encoding")
        );
    }
}

#[test]
fn a_body_comes_back_while_it_is_arriving() {
    let server = start();
    let mut client = connect(&server);
    client.send(CHUNKED);
    for n in 0..10 {
        // The echo begins even before the chunk is complete.
        client.send("8\r\nping");
        if n == 0 {
            assert_eq!(client.head().field("Transfer-Encoding"), Some("chunked"));
        }
        assert_eq!(client.chunk(), b"ping");
        client.send("pong\r\n");
        assert_eq!(client.chunk(), b"pong");
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.chunk(), b"");

    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nping");
    assert_eq!(client.head().field("Content-Length"), Some("8"));
    assert_eq!(client.bytes(4), b"ping");
    client.send("pong");
    assert_eq!(client.bytes(4), b"pong");

    client.send(get("/style.css"));
    client.response().assert(200, "a{}");
}

#[test]
fn a_large_body_comes_back_whole() {
    let server = start();
    for chunked in [false, true] {
        let mut client = connect(&server);
        let body = large().repeat(4);
        let mut request = Vec::new();
        if chunked {
            request.extend_from_slice(CHUNKED.as_bytes());
            for chunk in body.chunks(100_003) {
                request.extend(format!("{:X}\r\n", chunk.len()).bytes());
                request.extend_from_slice(chunk);
                request.extend_from_slice(b"\r\n");
            }
            request.extend_from_slice(b"0\r\n\r\n");
        } else {
            let length = body.len();
            request.extend(
                format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n")
                    .bytes(),
            );
            request.extend_from_slice(&body);
        }
        let mut writer = client.stream().try_clone().unwrap();
        let writing = thread::spawn(move || writer.write_all(&request));
        client.response().assert(200, body);
        writing.join().unwrap().unwrap();
    }
}

#[test]
fn a_client_that_waits_for_100_gets_it() {
    let server = start();
    let mut client = connect(&server);
    for (framing, body) in
        [("Content-Length: 5", "hello"), ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n")]
    {
        client.send(format!(
            "POST /echo HTTP/1.1\r\nHost: a\r\n{framing}\r\nExpect: 100-Continue\r\n\r\n"
        ));
        let interim = client.head();
        assert_eq!(interim.status, 100);
        assert!(interim.fields.is_empty());
        client.send(body);
        client.response().assert(200, "hello");
    }
    // HTTP/1.0 does not have `Expect`.
    client.send("POST /echo HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello");
    client.response().assert(200, "hello");
    client.assert_end();
    // A body that the server does not want is refused without `100 Continue`.
    for (head, status) in [
        (
            "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1073741825\r\nExpect: 100-continue\r\n\r\n",
            413,
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", 405),
    ] {
        let mut client = connect(&server);
        client.send(head);
        client.assert_refused(status);
    }
}

#[test]
fn what_surrounds_the_payload_of_chunks_is_bounded() {
    let server = start();
    let extension = |length: usize| format!("{CHUNKED}0;{}\r\n\r\n", "x".repeat(length - 2));
    let extensions = |number: usize| {
        let chunk = format!("1;{}\r\na\r\n", "x".repeat(127));
        format!("{CHUNKED}{}0\r\n\r\n", chunk.repeat(number))
    };
    let trailer = |length: usize| format!("{CHUNKED}0\r\nX: {}\r\n\r\n", "x".repeat(length - 3));
    let trailers = |number: usize| format!("{CHUNKED}0\r\n{}\r\n", "X: yz\r\n".repeat(number));

    let mut client = connect(&server);
    for request in [extension(256), trailer(8190), trailers(1024), extensions(128)] {
        client.send(request);
        assert_eq!(client.response().status, 200);
    }
    for (request, status) in [
        (extension(257), 400),
        (trailer(8193), 431),
        (trailers(2000), 431),
        (trailers(100_000), 431),
    ] {
        let mut client = connect(&server);
        client.send(request);
        client.assert_refused(status);
    }
    // Here the answer has begun, so the server can only cut it off.
    let mut client = connect(&server);
    client.send(extensions(129));
    assert_eq!(client.head().status, 200);
    for _ in 0..128 {
        assert_eq!(client.chunk(), b"a");
    }
    client.assert_end();
}

#[test]
fn a_body_that_is_cut_off_is_never_made_whole() {
    let server = start();
    let chunked = format!("{CHUNKED}5\r\nhello\r\n5\r\nworld\r\n0\r\nX: y\r\n\r\n");
    let head = CHUNKED.len();
    for cut in head..chunked.len() {
        on(&chunked.as_bytes()[..cut], || {
            let mut client = connect(&server);
            client.send(&chunked[..cut]);
            client.finish_sending();
            let mut answer = Vec::new();
            client.input.read_to_end(&mut answer).unwrap();
            let answer = String::from_utf8(answer).unwrap();
            if cut <= head + "5\r\n".len() {
                assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
            } else {
                assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
                assert!(!answer.contains("\r\n0\r\n"), "{answer}");
            }
        });
    }
    let whole = post("hello");
    for missing in 1..=5 {
        let mut client = connect(&server);
        client.send(&whole[..whole.len() - missing]);
        client.finish_sending();
        if missing == 5 {
            client.assert_refused(400);
            continue;
        }
        let response = client.head();
        assert_eq!((response.status, response.field("Content-Length")), (200, Some("5")));
        assert_eq!(client.bytes(5 - missing), b"hello"[..5 - missing]);
        client.assert_end();
    }
    // The client disappears after each byte in turn. Other clients are served as before.
    for cut in 0..chunked.len() {
        let mut client = connect(&server);
        client.send(&chunked[..cut]);
    }
    let mut client = connect(&server);
    client.send(post("hello"));
    client.response().assert(200, "hello");
}

#[test]
fn a_chunk_longer_than_its_size_cuts_the_answer_off() {
    let server = start();
    for bad in [
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\rX",
        "5\r\nhello0\r\n\r\n",
    ] {
        let mut client = connect(&server);
        client.send(format!("{CHUNKED}{bad}{}", get("/")));
        client.finish_sending();
        assert_eq!(client.head().status, 200);
        assert_eq!(client.chunk(), b"hello");
        client.assert_end();
    }
}

// ---------------------------------------------------------------------------------------------
// Producers

fn stream(count: u32) -> String {
    (1..=count).map(|tick| format!("tick {tick}\n")).collect()
}

#[test]
fn a_stream_comes_in_chunks_while_it_is_made() {
    let server = start();
    let mut client = connect(&server);
    client.send(get("/stream?n=3"));
    let head = client.head();
    assert_eq!(head.status, 200);
    assert_eq!(head.field("Transfer-Encoding"), Some("chunked"));
    assert_eq!(head.field("Connection"), None);
    for tick in ["tick 1\n", "tick 2\n", "tick 3\n", ""] {
        assert_eq!(client.chunk(), tick.as_bytes());
    }
    for (path, count) in [("/stream", 10), ("/stream?n=0", 0), ("/stream?n=1", 1)] {
        client.send(get(path));
        client.response().assert(200, stream(count));
    }
    client.send("HEAD /stream HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().field("Transfer-Encoding"), Some("chunked"));
    client.send("GET /stream?n=2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let response = client.response().assert(200, stream(2));
    assert_eq!(response.field("Connection"), Some("close"));
    client.assert_end();

    for query in ["n=", "n=x", "n=-1", "n=101", "n=4294967296", "n=1&n=2"] {
        let mut client = connect(&server);
        client.send(get(&format!("/stream?{query}")));
        client.assert_refused(400);
    }
}

#[test]
fn a_stream_ends_with_the_connection_where_there_are_no_chunks() {
    let server = start();
    for fields in ["", "Connection: keep-alive\r\n"] {
        let mut client = connect(&server);
        client.send(format!("GET /stream?n=3 HTTP/1.0\r\n{fields}\r\n{}", get("/style.css")));
        let mut answer = String::new();
        client.input.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.contains("\r\nConnection: close"), "{head}");
        assert!(!head.contains("Transfer-Encoding") && !head.contains("Content-Length"), "{head}");
        assert_eq!(body, stream(3));
    }
}

#[test]
fn producers_are_answered_in_the_order_of_the_requests() {
    let server = start();
    let mut client = connect(&server);
    let head = |path| format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    client.send(
        [
            head("/large.bin"),
            get("/stream?n=2"),
            get("/large.bin"),
            head("/stream"),
            post("first"),
            get("/large.bin"),
            get("/style.css"),
            format!("{CHUNKED}6\r\nsecond\r\n0\r\n\r\n"),
            "GET /large.bin HTTP/1.0\r\n\r\n".to_owned(),
            get("/style.css"),
        ]
        .concat(),
    );
    assert_eq!(client.head().field("Content-Length"), Some("2000000"));
    client.response().assert(200, stream(2));
    client.response().assert(200, large());
    assert_eq!(client.head().field("Transfer-Encoding"), Some("chunked"));
    client.response().assert(200, "first");
    client.response().assert(200, large());
    client.response().assert(200, "a{}");
    client.response().assert(200, "second");
    client.response().assert(200, large());
    client.assert_end();
}

/// A sparse file of so many mebibytes, which takes no space on the disk.
fn huge(name: &str, mebibytes: u64) -> fs::File {
    let file = fs::File::create(site().join(name)).unwrap();
    file.set_len(mebibytes << 20).unwrap();
    file
}

#[cfg(target_os = "linux")]
#[test]
fn a_large_file_takes_little_memory_however_slow_its_readers_are() {
    const SIZE: u64 = 200;
    let server = start();
    huge("huge.bin", SIZE);
    // These clients pipeline requests, and read nothing.
    let mut idlers: Vec<Client> = (0..20).map(|_| connect(&server)).collect();
    for idler in &mut idlers {
        idler.send(get("/huge.bin").repeat(50));
    }
    // In the meantime others get the whole file.
    let mut client = connect(&server);
    client.send(get("/huge.bin"));
    assert_eq!(client.head().field("Content-Length"), Some(&*(SIZE << 20).to_string()));
    let mut file = (&mut client.input).take(SIZE << 20);
    assert_eq!(io::copy(&mut file, &mut io::sink()).unwrap(), SIZE << 20);
    let mut client = idlers.pop().unwrap();
    assert_eq!(client.head().status, 200);
    let mut file = (&mut client.input).take(SIZE << 20);
    assert_eq!(io::copy(&mut file, &mut io::sink()).unwrap(), SIZE << 20);
    assert_eq!(client.head().status, 200);

    let process = format!("/proc/{}", server.process.id());
    // The server has its own descriptors, and for each connection a socket and the file that is being sent. The
    // requests behind that wait, and have no file open.
    let descriptors = fs::read_dir(format!("{process}/fd")).unwrap().count();
    assert!(descriptors < 20 + 21 * 2, "{descriptors} descriptors");
    let status = fs::read_to_string(format!("{process}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u32 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 32 * 1024, "{peak} kB");
}

#[cfg(target_os = "linux")]
#[test]
fn slow_but_steady_readers_get_all_of_a_file() {
    const SIZE: usize = 3 << 20;
    // This is longer than the 30 seconds after which a peer is cut off that takes nothing.
    const FOR: Duration = Duration::from_secs(36);
    let server = start();
    fs::File::create(site().join("slow.bin")).unwrap().set_len(SIZE as u64).unwrap();
    let readers: Vec<_> = [5usize, 10, 20, 40].map(|rate| (rate << 10, connect(&server))).into();
    let readers: Vec<_> = readers
        .into_iter()
        .map(|(rate, mut client)| {
            thread::spawn(move || {
                client.send(get("/slow.bin"));
                assert_eq!(client.head().status, 200);
                // Each client reads this much, ten times a second.
                let (start, mut read) = (Instant::now(), 0);
                while start.elapsed() < FOR {
                    let piece = (rate / 10).min(SIZE - read);
                    read += client.bytes(piece).len();
                    thread::sleep(Duration::from_millis(100));
                }
                assert_eq!(client.bytes(SIZE - read).len(), SIZE - read, "at {rate} bytes/s");
            })
        })
        .collect();
    for reader in readers {
        reader.join().unwrap();
    }
}

#[test]
fn a_file_that_shrinks_is_cut_off() {
    let server = start();
    let file = huge("shrinking.bin", 64);
    let mut client = connect(&server);
    client.send(get("/shrinking.bin") + &get("/style.css"));
    assert_eq!(client.head().field("Content-Length"), Some(&*(64 << 20).to_string()));
    file.set_len(1 << 20).unwrap();
    let mut rest = Vec::new();
    if let Err(error) = client.input.read_to_end(&mut rest) {
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
    assert!(rest.len() < 64 << 20);
    assert!(rest.iter().all(|byte| *byte == 0));
}

// ---------------------------------------------------------------------------------------------
// The process

#[cfg(unix)]
#[test]
fn signals_end_it_after_the_answers_that_have_begun() {
    for signal in ["TERM", "INT"] {
        let mut server = start();
        let mut idle = connect(&server);
        idle.send(get("/style.css"));
        idle.response().assert(200, "a{}");
        let mut busy = connect(&server);
        busy.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
        assert_eq!(busy.head().status, 200);
        assert_eq!(busy.bytes(5), b"hello");

        server.signal(signal);
        idle.assert_end(); // so the signal has arrived
        busy.send("world");
        assert_eq!(busy.bytes(5), b"world");
        busy.assert_end();
        drop((idle, busy));
        assert!(server.process.wait().unwrap().success());
        assert!(TcpStream::connect(&server.addr).is_err());
    }
}

#[cfg(unix)]
#[test]
fn what_has_begun_is_finished_after_a_signal() {
    let mut server = start();
    huge("finished.bin", 64);
    let mut idle = connect(&server);
    let mut asking = connect(&server);
    asking.send(get("/style.css") + "GET /style.css HTTP/1.1\r\nHo");
    asking.response().assert(200, "a{}"); // and the rest has been looked at
    let mut uploading = connect(&server);
    uploading.send(format!("{CHUNKED}5\r\nhello\r\n"));
    assert_eq!(uploading.head().field("Connection"), None);
    assert_eq!(uploading.chunk(), b"hello");
    let mut downloading = connect(&server);
    downloading.send(get("/finished.bin"));
    assert_eq!(downloading.head().status, 200);
    let mut listening = connect(&server);
    listening.send(get("/stream?n=5"));
    assert_eq!(listening.head().status, 200);

    server.signal("TERM");
    idle.assert_end(); // so the signal has arrived
    asking.send("st: a\r\n\r\n");
    let response = asking.response().assert(200, "a{}");
    assert_eq!(response.field("Connection"), Some("close"));
    asking.assert_end();
    uploading.send(format!("5\r\nworld\r\n0\r\n\r\n{}", get("/style.css")));
    assert_eq!(uploading.chunk(), b"world");
    assert_eq!(uploading.chunk(), b"");
    uploading.assert_end();
    assert_eq!(downloading.bytes(64 << 20).len(), 64 << 20);
    downloading.assert_end();
    let chunks: Vec<_> = std::iter::repeat_with(|| listening.chunk()).take(6).collect();
    assert_eq!(chunks.concat(), stream(5).as_bytes());
    listening.assert_end();
    drop((idle, asking, uploading, downloading, listening));
    assert!(server.process.wait().unwrap().success());
}

#[cfg(unix)]
#[test]
fn running_out_of_file_descriptors_is_survived() {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 40; exec \"$0\" \"$@\""]).arg(example("http_server"));
    let server = start_by(&mut command);
    let mut clients: Vec<Client> = (0..100).map(|_| connect(&server)).collect();
    for client in &mut clients {
        client.send(post("hello"));
    }
    for mut client in clients {
        client.response().assert(200, "hello");
    }
}

/// The example accepts 1024 connections. From 960 on it is crowded, and closes idle ones.
#[cfg(target_os = "linux")]
const CROWDED: usize = 960;

/// Whether this process may open so many connections in each of three tests that run at a time.
#[cfg(target_os = "linux")]
fn may_crowd() -> bool {
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let files = files.split_whitespace().next().unwrap();
    let may = files.parse().map_or(true, |files: usize| files >= 4 * CROWDED);
    if !may {
        eprintln!("not tested: only {files} files may be open");
    }
    may
}

#[cfg(target_os = "linux")]
#[test]
fn whoever_has_been_idle_for_longest_makes_room() {
    if !may_crowd() {
        return;
    }
    let server = start();
    let mut busy = connect(&server);
    busy.send(format!("{CHUNKED}5\r\nhello\r\n"));
    assert_eq!(busy.head().status, 200);
    assert_eq!(busy.chunk(), b"hello");
    let mut first = connect(&server);
    first.send(get("/style.css"));
    first.response().assert(200, "a{}");
    let mut second = connect(&server);
    second.send(get("/style.css"));
    second.response().assert(200, "a{}");
    let mut others: Vec<Client> = (3..CROWDED).map(|_| connect(&server)).collect();
    // When the last of them is answered, all have been accepted.
    let last = others.last_mut().unwrap();
    last.send(get("/style.css"));
    last.response().assert(200, "a{}");
    // The first client sends a request after the second one did, so the second has been idle for longer.
    first.send(get("/style.css"));
    first.response().assert(200, "a{}");

    let mut one_more = connect(&server);
    one_more.send(get("/style.css"));
    one_more.response().assert(200, "a{}");
    second.assert_end();
    // No other connection was closed: neither the busy one, which is older, nor those that came later.
    busy.send("5\r\nworld\r\n0\r\n\r\n");
    assert_eq!(busy.chunk(), b"world");
    assert_eq!(busy.chunk(), b"");
    first.send(get("/style.css"));
    first.response().assert(200, "a{}");
}

#[cfg(target_os = "linux")]
#[test]
fn whoever_never_comes_to_the_end_of_a_head_makes_room() {
    if !may_crowd() {
        return;
    }
    let server = start();
    let (begin, end) = ("GET /style.css HTTP/1.1\r\nHo", "st: a\r\n\r\n");
    let asking = || {
        let mut client = connect(&server);
        // When the first request is answered, the server has seen the beginning of the second.
        client.send(get("/style.css") + begin);
        client.response().assert(200, "a{}");
        client
    };
    let mut slow = asking();
    let mut others: Vec<Client> = (1..CROWDED).map(|_| asking()).collect();
    // This client has been answered after the others, and begins another request.
    slow.send(format!("{end}{begin}"));
    slow.response().assert(200, "a{}");

    // These are more connections than the server has places for.
    let mut more = Vec::new();
    for other in &mut others[..100] {
        let mut one_more = connect(&server);
        one_more.send(get("/style.css"));
        one_more.response().assert(200, "a{}");
        more.push(one_more);
        other.assert_end();
    }
    slow.send(end);
    slow.response().assert(200, "a{}");
    let last = others.last_mut().unwrap();
    last.send(end);
    last.response().assert(200, "a{}");
}

#[cfg(target_os = "linux")]
#[test]
fn whoever_never_comes_to_the_end_of_a_body_makes_room_after_them() {
    if !may_crowd() {
        return;
    }
    let server = start();
    let whole = post("hello");
    let (begin, end) = whole.split_at(whole.len() - 3);
    let expecting = whole.replace("\r\n\r\nhello", "\r\nExpect: 100-continue\r\n\r\n");
    let mut answered = connect(&server);
    answered.send(get("/stream?n=20"));
    assert_eq!(answered.head().status, 200);
    let mut head = connect(&server);
    head.send(get("/style.css") + "GET");
    head.response().assert(200, "a{}");
    let bodies = (2..CROWDED).map(|index| {
        let mut client = connect(&server);
        if index % 2 == 0 {
            client.send(begin);
            assert_eq!(client.head().status, 200);
            assert_eq!(client.bytes(2), b"he");
        } else {
            client.send(&expecting);
            assert_eq!(client.head().status, 100);
        }
        client
    });
    let mut bodies: Vec<Client> = bodies.collect();

    let mut more = Vec::new();
    let mut one_more = || {
        let mut client = connect(&server);
        client.send(begin);
        assert_eq!(client.head().status, 200);
        more.push(client);
    };
    // Nobody waits for one that is being answered: it may go then.
    one_more();
    one_more();
    head.assert_end();
    // These are more connections than the server has places for.
    for (index, body) in bodies[..100].iter_mut().enumerate() {
        one_more();
        if index % 2 == 1 {
            assert_eq!(body.response().body, b"there is no room left to wait for the body\n");
        }
        body.assert_end();
    }
    let ticks = std::iter::from_fn(|| Some(answered.chunk()).filter(|chunk| !chunk.is_empty()));
    assert_eq!(ticks.flatten().collect::<Vec<u8>>(), stream(20).into_bytes());
    let other = &mut bodies[100];
    other.send(end);
    assert_eq!(other.bytes(3), b"llo");
    other.send(get("/style.css"));
    other.response().assert(200, "a{}");
}

#[test]
fn who_makes_room_is_who_has_been_waited_for_longest() {
    let crowd = Arc::new(Crowd::default());
    let enter = |most| {
        let shutdown = CancellationToken::new();
        (crowd.enter(shutdown.clone(), most), shutdown)
    };
    let evicted = |members: &[(Member, CancellationToken)]| -> Vec<usize> {
        let asked = members.iter().map(|(member, shutdown)| {
            assert_eq!(member.is_evicted(), shutdown.is_cancelled());
            member.is_evicted()
        });
        asked.enumerate().filter_map(|(index, asked)| asked.then_some(index)).collect()
    };
    let mut members: Vec<_> = (0..5).map(|_| enter(5)).collect();
    members[0].0.busy(); // and stays so
    members[1].0.busy();
    members[2].0.awaited();
    members[1].0.awaited();
    assert_eq!(evicted(&members), [0; 0]);
    for goes in [&[3][..], &[3, 4], &[2, 3, 4], &[1, 2, 3, 4]] {
        members.push(enter(5));
        assert_eq!(evicted(&members), goes);
        // A member that is to go may do something more, and goes all the same.
        members[3].0.awaited();
    }
    // Some members have gone, and there is room.
    members.drain(1..5);
    members.push(enter(6));
    assert_eq!(evicted(&members), [0; 0]);

    // Connections in the middle of a body are closed only when there are none that have asked for nothing.
    let mut members: Vec<_> = members.into_iter().take(4).collect();
    members[1].0.awaited_for_body();
    members[3].0.awaited_for_body();
    members[2].0.awaited();
    for goes in [&[2][..], &[1, 2], &[1, 2, 3], &[1, 2, 3]] {
        let one_more = enter(4);
        one_more.0.busy();
        assert_eq!(evicted(&members), goes);
        members.push(one_more);
        assert_eq!(evicted(&members), goes);
    }
}

#[test]
fn what_cannot_be_served_is_said_at_once() {
    for args in [&["127.0.0.1:0", "/no/such/directory"][..], &["nowhere"], &["1", "2", "3"]] {
        let output = Command::new(example("http_server")).args(args).output().unwrap();
        assert!(!output.status.success());
        assert!(!output.stderr.is_empty());
        assert!(output.stdout.is_empty());
    }
}
