//! What a connection keeps in memory while nothing happens on it.
//!
//! A child process serves, and this process has the clients. The resident memory of the child is read before the first
//! connection and when each connection has been answered a message.

use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::net::TcpStream as Socket;

use asynchat::{Channel, Chunk, Control, Event, Framer, Handler, Timeouts};
use asynchat_benches::Bench;
use asynchat_benches::harness::Outcome;
use asynchat_benches::server::{Server, Way, http_example};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const ANSWER: &[u8] = b"ok\n";
/// File descriptors that are not connections: the standard streams, and those of the runtime.
const OTHER_FILES: u64 = 64;

const HANDLER: &str = "Handler";
const HANDLER_PLAIN: &str = "Handler, no deadlines";
const PULLED: &str = "Channel, next";
const PULLED_PLAIN: &str = "Channel, next, no deadlines";
const BARE: &str = "a bare task, with a buffer while it reads";
const BUFFERED: &str = "a task with a buffer of 8 KiB";

pub const WAYS: [Way; 6] = [
    Way::new(HANDLER, |stream| drop(tokio::spawn(handler(Channel::new(stream, b"\n"))))),
    Way::new(HANDLER_PLAIN, |stream| drop(tokio::spawn(handler(plain(stream))))),
    Way::new(PULLED, |stream| drop(tokio::spawn(pull(Channel::new(stream, b"\n"))))),
    Way::new(PULLED_PLAIN, |stream| drop(tokio::spawn(pull(plain(stream))))),
    Way::new(BARE, |stream| drop(tokio::spawn(bare(stream)))),
    Way::new(BUFFERED, |stream| drop(tokio::spawn(buffered(stream)))),
];

fn plain(stream: TcpStream) -> Channel<TcpStream> {
    Channel::builder(b"\n").timeouts(Timeouts::NONE).build(stream)
}

struct Answer;

impl Handler for Answer {
    type Error = Infallible;

    fn collect_incoming_data(
        &mut self,
        _: Chunk<'_>,
        _: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        Ok(())
    }

    async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        control.push(ANSWER);
        Ok(())
    }
}

/// Serves with a handler. The task holds the channel once; an `async fn` would hold it a second time, as its argument.
#[allow(clippy::manual_async_fn, reason = "an async fn would hold its argument twice")]
fn handler(mut channel: Channel<TcpStream>) -> impl Future<Output = ()> {
    async move {
        channel.run(Answer).await;
    }
}

#[allow(clippy::manual_async_fn, reason = "an async fn would hold its argument twice")]
fn pull(mut channel: Channel<TcpStream>) -> impl Future<Output = ()> {
    async move {
        while let Some(event) = channel.next().await {
            if event.expect("well-formed") == Event::Terminator {
                let _ = channel.push(ANSWER);
            }
        }
    }
}

/// A plain task that allocates its buffer only when there is something to read.
async fn bare(mut stream: TcpStream) {
    loop {
        stream.readable().await.expect("a connection");
        let ended = {
            let mut buffer = vec![0; 64 << 10];
            match stream.try_read(&mut buffer) {
                Ok(0) => return,
                Ok(n) => buffer[n - 1] == b'\n',
                Err(_) => false,
            }
        };
        if ended {
            stream.write_all(ANSWER).await.expect("a connection");
        }
    }
}

/// A plain task that keeps a buffer of 8 KiB all the time.
async fn buffered(mut stream: TcpStream) {
    let mut buffer = vec![0; 8 << 10];
    loop {
        match stream.read(&mut buffer).await.expect("a connection") {
            0 => return,
            n if buffer[n - 1] == b'\n' => {
                stream.write_all(ANSWER).await.expect("a connection");
            }
            _ => {}
        }
    }
}

/// Sends a question and waits for the end of the answer.
fn ask(socket: &mut Socket, question: &[u8], end: &[u8]) -> io::Result<()> {
    socket.write_all(question)?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    while !answer.ends_with(end) {
        match socket.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => answer.extend_from_slice(&buffer[..n]),
        }
    }
    Ok(())
}

/// The resident KiB when each connection has been answered the first question, and when it has been answered the
/// second.
fn measure(
    server: io::Result<Server>,
    connections: usize,
    questions: &[Vec<u8>; 2],
    end: &[u8],
) -> Outcome {
    let server = server.expect("it starts");
    let before = server.resident().expect("it runs");
    let mut sockets: Vec<_> =
        (0..connections).map(|_| Socket::connect(&server.address).expect("it listens")).collect();
    let after = questions.each_ref().map(|question| {
        for socket in &mut sockets {
            ask(socket, question, end).expect("it answers");
        }
        (server.resident().expect("it runs") - before) / 1024.0
    });
    (after.to_vec(), 0)
}

/// Raises the limit of open files as far as possible, and returns how many of the wanted connections it allows.
fn connections(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    wanted.min(usize::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX))
}

fn sizes() {
    let (ours, _theirs) = tokio::io::duplex(1);
    let mut channel = Channel::new(ours, b"\n");
    let run = size_of_val(&channel.run(Answer));
    let next = size_of_val(&channel.next());
    let (framer, stream) = (size_of::<Framer>(), size_of::<TcpStream>());
    let whole = size_of::<Channel<TcpStream>>();
    println!("bytes: Channel<TcpStream> {whole}, of which Framer {framer} and TcpStream {stream};");
    println!("       the futures of run {run}, of next {next}");
}

pub fn idle(bench: &mut Bench) {
    let connections = connections(bench.size(9_000, 200));
    let Some(row) = bench.row("idle connections") else { return };
    let lines = [31, 4096].map(|length| [&vec![b'x'; length - 1][..], b"\n"].concat());
    let run = |way| measure(Server::start("idle", way), connections, &lines, ANSWER);
    // The goals are 1.20 KiB with deadlines and 1.10 without, where the bare task takes 1.03. As ratios they are 1.165
    // and 1.068.
    row.work(connections, "connection", 0)
        .measures(&[("after a line of 31 bytes", "KiB"), ("after another of 4 KiB", "KiB")])
        .rounds(1)
        .ours_measured(HANDLER, || run(HANDLER))
        .goal(BARE, 1.165)
        .ours_measured(HANDLER_PLAIN, || run(HANDLER_PLAIN))
        .goal(BARE, 1.068)
        .ours_measured(PULLED, || run(PULLED))
        .goal(BARE, 1.165)
        .ours_measured(PULLED_PLAIN, || run(PULLED_PLAIN))
        .goal(BARE, 1.068)
        .peer_measured(BARE, || run(BARE))
        .peer_measured(BUFFERED, || run(BUFFERED))
        .run();
    sizes();
}

/// Checks that a connection does not keep the memory that a long head took.
pub fn http(bench: &mut Bench) {
    // At more than 960 connections the example closes those that have been idle for longest.
    let connections = connections(bench.size(900, 50));
    let Some(row) = bench.row("idle connections of the HTTP example") else { return };
    let request = |length: usize| {
        let head = "GET /hello HTTP/1.1\r\nHost: h\r\nCookie: ";
        [head.as_bytes(), &vec![b'x'; length - head.len() - 4][..], b"\r\n\r\n"].concat()
    };
    let requests = [request(60), request(4096)];
    let mut example = http_example().expect("cargo builds it");
    row.work(connections, "connection", 0)
        .measures(&[("after a head of 60 bytes", "KiB"), ("after another of 4 KiB", "KiB")])
        .rounds(1)
        .ours_measured("the example", || {
            let server = Server::start_program(&mut example);
            measure(server, connections, &requests, b"hello, world\n")
        })
        .run();
}
