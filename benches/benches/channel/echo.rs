//! An echo server with 50 connections, each of which sends 64 lines and waits for them to come back.
//!
//! Server and clients have a thread each. The rates are compared by the wall clock, where the slower
//! of the two threads sets the pace, and by the CPU time that the server took.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener as Listener};
use std::thread;
use std::time::{Duration, Instant};

use asynchat::{Channel, Chunk, CloseReason, Control, Handler, Timeouts};
use asynchat_benches::io::READ;
use asynchat_benches::{Bench, input, thread_time};
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio_util::codec::{Framed, LinesCodec};

const CONNECTIONS: usize = 50;
const LINES: usize = 64;

struct Echo;

impl Handler for Echo {
    type Error = Infallible;

    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        control: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        control.push(&*data);
        Ok(())
    }

    async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        control.push("\n");
        Ok(())
    }
}

/// Gathers the line, to push it at once.
#[derive(Default)]
struct WholeLines(Vec<u8>);

impl Handler for WholeLines {
    type Error = Infallible;

    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        _: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        self.0.extend_from_slice(&data);
        Ok(())
    }

    async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        self.0.push(b'\n');
        control.push(&self.0);
        self.0.clear();
        Ok(())
    }
}

async fn handler(stream: TcpStream) {
    let (_, reason) = Channel::new(stream, b"\n").run(Echo).await;
    assert!(matches!(reason, CloseReason::PeerClosed), "whole lines");
}

async fn without_deadlines(stream: TcpStream) {
    let builder = Channel::builder(b"\n").timeouts(Timeouts::NONE);
    let (_, reason) = builder.build(stream).run(Echo).await;
    assert!(matches!(reason, CloseReason::PeerClosed), "whole lines");
}

async fn whole_lines(stream: TcpStream) {
    let (_, reason) = Channel::new(stream, b"\n").run(WholeLines::default()).await;
    assert!(matches!(reason, CloseReason::PeerClosed), "whole lines");
}

async fn bare(mut stream: TcpStream) {
    let mut buffer = vec![0; READ];
    loop {
        match stream.read(&mut buffer).await.expect("a connection") {
            0 => return,
            n => stream.write_all(&buffer[..n]).await.expect("a connection"),
        }
    }
}

async fn lines_codec(stream: TcpStream) {
    let (sink, lines) = Framed::new(stream, LinesCodec::new()).split();
    lines.forward(sink).await.expect("well-formed");
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Serves all connections to their ends; returns the CPU time.
fn server<F>(listener: Listener, serve: impl Fn(TcpStream) -> F) -> Duration
where
    F: Future<Output = ()> + Send + 'static,
{
    runtime().block_on(async {
        listener.set_nonblocking(true).expect("a socket");
        let listener = TcpListener::from_std(listener).expect("a socket");
        let mut tasks = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let (stream, _) = listener.accept().await.expect("it connects");
            stream.set_nodelay(true).expect("a socket");
            tasks.spawn(serve(stream));
        }
        while let Some(ended) = tasks.join_next().await {
            ended.expect("no panic");
        }
        thread_time()
    })
}

/// Returns the wall-clock time from when all are connected, and how many bytes came back.
fn clients(address: SocketAddr, lines: &'static [u8], times: usize) -> (Duration, u64) {
    runtime().block_on(async {
        let mut streams = Vec::new();
        for _ in 0..CONNECTIONS {
            let stream = TcpStream::connect(address).await.expect("it listens");
            stream.set_nodelay(true).expect("a socket");
            streams.push(stream);
        }
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for mut stream in streams {
            tasks.spawn(async move {
                let mut back = vec![0; lines.len()];
                for _ in 0..times {
                    stream.write_all(lines).await.expect("a connection");
                    stream.read_exact(&mut back).await.expect("a connection");
                    assert!(back == lines, "what came back is not what was sent");
                }
                (times * back.len()) as u64
            });
        }
        let mut bytes = 0;
        while let Some(ended) = tasks.join_next().await {
            bytes += ended.expect("all came back");
        }
        (start.elapsed(), bytes)
    })
}

/// Both times, and how many bytes were echoed.
fn run<F>(
    lines: &'static [u8],
    times: usize,
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> ([Duration; 2], u64)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = Listener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let server = thread::spawn(move || server(listener, serve));
    let (wall, bytes) = clients(address, lines, times);
    ([server.join().expect("no panic"), wall], bytes)
}

pub fn echo(bench: &mut Bench) {
    let times = bench.size(100, 2);
    let lines = input::lines(1 << 12, b"\n");
    let lines = lines.split_inclusive(|&b| b == b'\n').take(LINES).collect::<Vec<_>>().concat();
    let lines: &'static [u8] = lines.leak();
    assert_eq!(lines.iter().filter(|&&b| b == b'\n').count(), LINES);
    for (name, clock) in [("echo, CPU time of the server", 0), ("echo, wall clock", 1)] {
        let Some(row) = bench.row(name) else { continue };
        let count = CONNECTIONS * times * LINES;
        let bytes = CONNECTIONS * times * lines.len();
        let pick = |(times, bytes): ([Duration; 2], u64)| (times[clock], bytes);
        row.work(count, bytes)
            .expect(bytes as u64)
            .self_timed("Handler", None, || pick(run(lines, times, handler)))
            // Rates of 0.88 and 1.7, goals of 0.95 and 1.9.
            .self_timed("a bare loop", Some((1.136, 1.053)), || pick(run(lines, times, bare)))
            .self_timed("LinesCodec, forward", Some((0.588, 0.526)), || {
                pick(run(lines, times, lines_codec))
            })
            .self_timed("Handler, whole lines", None, || pick(run(lines, times, whole_lines)))
            .self_timed("Handler, no deadlines", None, || {
                pick(run(lines, times, without_deadlines))
            })
            .run();
    }
}
