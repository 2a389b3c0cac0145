//! The HTTP example beside hyper: what a request costs a server in CPU time.
//!
//! `cargo bench -p asynchat-benches --bench http [-- [ROW]... [--quick]]`
//!
//! Each server is a process of its own, started anew for each measurement, with tokio's runtime as it
//! is by default. `wrk` asks, over 64 connections of loopback TCP, for a page of a line that comes from
//! memory. It must be installed.

#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream as Socket;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use asynchat_benches::Bench;
use bytes::Bytes;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustix::param::clock_ticks_per_second;
use tokio::net::TcpListener;

/// The variable that makes a child of this a server, and says which.
const SERVER: &str = "ASYNCHAT_BENCH_HTTP";
const BODY: &[u8] = b"hello, world\n";
const PATH: &str = "/hello";
const REQUESTS: usize = 1000;

/// The child: hyper, until it is killed.
async fn hyper(pipeline_flush: bool) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("listening on {}", listener.local_addr().expect("bound"));
    loop {
        let (stream, _) = listener.accept().await.expect("it connects");
        stream.set_nodelay(true).expect("a socket");
        tokio::spawn(async move {
            // It fails when the peer breaks off, as wrk does in the end.
            let _ = http1::Builder::new()
                .pipeline_flush(pipeline_flush)
                .serve_connection(TokioIo::new(stream), service_fn(hello))
                .await;
        });
    }
}

/// What the example answers, in as many fields.
async fn hello(_: Request<hyper::body::Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::new(Bytes::from_static(BODY)));
    for (name, value) in
        [("content-type", "text/plain; charset=utf-8"), ("x-content-type-options", "nosniff")]
    {
        response.headers_mut().insert(name, hyper::header::HeaderValue::from_static(value));
    }
    Ok(response)
}

/// The example, built as it is for its users.
fn example() -> io::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--release", "-p", "asynchat", "--example", "http_server"])
        .status()?;
    assert!(built.success(), "the example does not build");
    // This is target/release/deps/http-*.
    let mut path = std::env::current_exe()?;
    path.pop();
    path.pop();
    Ok(path.join("examples/http_server"))
}

/// A child process, killed in the end.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(command: &mut Command) -> io::Result<Server> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line)?;
        let address = line.trim_end().trim_start_matches("listening on ").to_owned();
        Ok(Server { child, address })
    }

    /// Asks once, to see that it answers.
    fn ask(&self) -> io::Result<()> {
        let mut socket = Socket::connect(&self.address)?;
        let request = format!("GET {PATH} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer)?;
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", answer.escape_ascii());
        assert!(answer.ends_with(BODY), "{}", answer.escape_ascii());
        Ok(())
    }

    /// The CPU time of the process so far.
    fn time(&self) -> io::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The fields after the name: utime is the 14th of all, stime the one behind.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: u64 =
            fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Ok(Duration::from_secs(ticks) / clock_ticks_per_second() as u32)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A script for wrk that sends so many requests at once.
fn script(depth: usize) -> io::Result<PathBuf> {
    let path =
        std::env::temp_dir().join(format!("asynchat-wrk-{}-{depth}.lua", std::process::id()));
    std::fs::write(
        &path,
        format!(
            "init = function() requests = string.rep(wrk.format(\"GET\", \"{PATH}\"), {depth}) end\n\
             request = function() return requests end\n"
        ),
    )?;
    Ok(path)
}

/// The CPU time of a thousand requests.
fn measure(command: &mut Command, depth: usize, seconds: usize) -> io::Result<Duration> {
    let server = Server::start(command)?;
    server.ask()?;
    let script = script(depth)?;
    let before = server.time()?;
    let output = Command::new("wrk")
        .args(["-t", "1", "-c", "64", "-d", &format!("{seconds}s"), "-s"])
        .arg(&script)
        .arg(format!("http://{}{PATH}", server.address))
        .output();
    let time = server.time()? - before;
    std::fs::remove_file(&script)?;
    let output = output?;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "wrk: {said}");
    assert!(!said.contains("Non-2xx") && !said.contains("Socket errors"), "wrk: {said}");
    let requests = said
        .lines()
        .find_map(|line| line.trim().split_once(" requests in ")?.0.parse::<u32>().ok())
        .expect("wrk counts requests");
    Ok(time * REQUESTS as u32 / requests.max(1))
}

fn main() {
    if let Some(kind) = std::env::var_os(SERVER) {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(hyper(kind == "pipeline_flush"));
        return;
    }
    let mut bench = Bench::from_args();
    if Command::new("wrk").arg("--version").output().is_err() {
        println!("not measured: wrk is not installed");
        return;
    }
    let seconds = bench.size(2, 1);
    let example = example().expect("cargo builds it");
    for (name, depth, floor, goal) in
        [("HTTP, 16 pipelined", 16, 0.80, 0.70), ("HTTP, one at a time", 1, 1.03, 1.0)]
    {
        let Some(row) = bench.row(name) else { continue };
        let run = |command: &mut Command| {
            // The answers are looked at before; their heads are worded differently.
            (measure(command, depth, seconds).expect("wrk runs"), 0)
        };
        let hyper = |kind: &str| {
            run(Command::new(std::env::current_exe().expect("it runs")).env(SERVER, kind))
        };
        row.work(REQUESTS, 0)
            .self_timed("the example", None, || run(Command::new(&example).arg("127.0.0.1:0")))
            .self_timed("hyper, pipeline_flush", Some((floor, goal)), || hyper("pipeline_flush"))
            .self_timed("hyper", None, || hyper(""))
            .run();
    }
    bench.finish();
}
