//! The HTTP example beside hyper: what a request costs a server.
//!
//! 64 connections ask for a page of one line, which is in memory. Both servers have tokio's default runtime, and the
//! example is built as its users build it. The answers of the servers differ in their wording, so the first answer of
//! each is recorded, and all others must be the same.

use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::net::TcpStream as Socket;

use asynchat_benches::Bench;
use asynchat_benches::client::{Exchange, MEASURES, ROUNDS};
use asynchat_benches::harness::Outcome;
use asynchat_benches::server::{Server, Way, http_example};
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

const CONNECTIONS: usize = 64;
const BODY: &[u8] = b"hello, world\n";
const REQUEST: &str = "GET /hello HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";

const EXAMPLE: &str = "the example";
const FLUSHES: &str = "hyper, pipeline_flush";
const HYPER: &str = "hyper";

pub const WAYS: [Way; 2] = [
    Way::multi_threaded(FLUSHES, |stream| drop(tokio::spawn(hyper(stream, true)))),
    Way::multi_threaded(HYPER, |stream| drop(tokio::spawn(hyper(stream, false)))),
];

async fn hyper(stream: TcpStream, pipeline_flush: bool) {
    // This fails when the client closes the connection, as it does in the end.
    let _ = http1::Builder::new()
        .pipeline_flush(pipeline_flush)
        .serve_connection(TokioIo::new(stream), service_fn(hello))
        .await;
}

/// The same answer as the example's, with as many header fields.
async fn hello(_: Request<hyper::body::Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::new(Bytes::from_static(BODY)));
    for (name, value) in
        [("content-type", "text/plain; charset=utf-8"), ("x-content-type-options", "nosniff")]
    {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

/// Asks a server once, and returns its whole answer.
fn learn(server: &Server) -> io::Result<Vec<u8>> {
    let mut socket = Socket::connect(&server.address)?;
    socket.write_all(REQUEST.as_bytes())?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    while !answer.ends_with(BODY) {
        let n = socket.read(&mut buffer)?;
        assert!(n > 0, "{}", answer.escape_ascii());
        answer.extend_from_slice(&buffer[..n]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", answer.escape_ascii());
    Ok(answer)
}

/// The checksum is the number of answers.
fn measure(server: io::Result<Server>, depth: usize, times: usize) -> Outcome {
    let server = server.expect("it starts");
    let answer = learn(&server).expect("it answers");
    let request = REQUEST.repeat(depth).into_bytes();
    let answers = answer.repeat(depth);
    let exchange =
        Exchange { connections: CONNECTIONS, times, request: &request, answer: &answers };
    let (values, bytes) = exchange.measure(Ok(server));
    (values, bytes / answer.len() as u64)
}

pub fn http(bench: &mut Bench) {
    for (called, depth, times, goal) in [
        ("16 requests", 16, bench.size(200, 2), 0.70),
        ("one request", 1, bench.size(400, 2), 0.80),
    ] {
        let Some(row) = bench.row(&format!("HTTP, {called} at a time, 64 connections")) else {
            continue;
        };
        let mut example = http_example().expect("cargo builds it");
        let count = CONNECTIONS * times * depth;
        row.work(count, "request", 0)
            .expect(count as u64)
            .measures(&MEASURES)
            .rounds(ROUNDS)
            .ours_measured(EXAMPLE, || measure(Server::start_program(&mut example), depth, times))
            .goal(FLUSHES, goal)
            .peer_measured(FLUSHES, || measure(Server::start("http", FLUSHES), depth, times))
            .peer_measured(HYPER, || measure(Server::start("http", HYPER), depth, times))
            .run();
    }
}
