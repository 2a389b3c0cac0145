//! What a connection keeps in memory while nothing happens on it.
//!
//! A child process serves; here is the other end. Resident memory is what the system says of the child,
//! before the first connection and when each has answered a message.

use std::convert::Infallible;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream as Socket;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use asynchat::{Channel, Chunk, Control, Event, Framer, Handler, Timeouts};
use asynchat_benches::Bench;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

/// The variable that tells a child what to serve.
pub const SERVER: &str = "ASYNCHAT_BENCH_IDLE";

const ROW: &str = "idle connections";
const ANSWER: &str = "ok\n";
/// What is not a connection's: standard streams, the runtime's own.
const OTHER_FILES: u64 = 64;
const KIB: f64 = 1024.0;
/// In KiB for each connection.
const FLOOR: f64 = 1.2;
const GOAL: f64 = 1.05;

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

/// The channel is moved into the task once, and not held as an argument besides.
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

/// Has its buffer only while it is not idle.
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
            stream.write_all(ANSWER.as_bytes()).await.expect("a connection");
        }
    }
}

/// Holds 8 KiB all the time.
async fn buffered(mut stream: TcpStream) {
    let mut buffer = vec![0; 8 << 10];
    loop {
        match stream.read(&mut buffer).await.expect("a connection") {
            0 => return,
            n if buffer[n - 1] == b'\n' => {
                stream.write_all(ANSWER.as_bytes()).await.expect("a connection");
            }
            _ => {}
        }
    }
}

/// The child: serves until it is killed.
pub fn serve(kind: &str) {
    let defaults = Channel::builder(b"\n");
    let plain = defaults.clone().timeouts(Timeouts::NONE);
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        println!("{}", listener.local_addr().expect("bound"));
        loop {
            let (stream, _) = listener.accept().await.expect("it connects");
            match kind {
                "bare" => tokio::spawn(bare(stream)),
                "buffered" => tokio::spawn(buffered(stream)),
                "handler" => tokio::spawn(handler(plain.build(stream))),
                "handler, defaults" => tokio::spawn(handler(defaults.build(stream))),
                "pull" => tokio::spawn(pull(plain.build(stream))),
                "pull, defaults" => tokio::spawn(pull(defaults.build(stream))),
                other => panic!("{other}?"),
            };
        }
    });
}

/// A child process, killed in the end.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(kind: &str) -> io::Result<Server> {
        let mut child = Command::new(std::env::current_exe()?)
            .env(SERVER, kind)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut address = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut address)?;
        Ok(Server { child, address: address.trim_end().to_owned() })
    }

    /// Resident memory in bytes, when the child has come to rest.
    fn resident(&self) -> io::Result<f64> {
        thread::sleep(Duration::from_millis(100));
        let maps = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id()))?;
        let kib = maps.lines().find_map(|line| {
            line.strip_prefix("Rss:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok()
        });
        kib.map(|kib| kib * KIB).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a line and waits for the answer.
fn ask(socket: &mut Socket, line: &[u8]) -> io::Result<()> {
    let mut answer = [0; ANSWER.len()];
    socket.write_all(line)?;
    socket.read_exact(&mut answer)?;
    assert_eq!(answer, ANSWER.as_bytes());
    Ok(())
}

/// Resident KiB for each connection after a message of each length.
fn measure(kind: &str, connections: usize, lines: &[Vec<u8>]) -> io::Result<Vec<f64>> {
    let server = Server::start(kind)?;
    let before = server.resident()?;
    let mut sockets = Vec::with_capacity(connections);
    let mut figures = Vec::new();
    for line in lines {
        for i in 0..connections {
            if i == sockets.len() {
                sockets.push(Socket::connect(&server.address)?);
            }
            ask(&mut sockets[i], line)?;
        }
        figures.push((server.resident()? - before) / KIB / connections as f64);
    }
    Ok(figures)
}

/// Raises the limit of open files as far as it goes, and says how many connections that allows.
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
    if !bench.wants(ROW) {
        return;
    }
    let connections = connections(bench.size(10_000, 200));
    let lines = [31, 4096].map(|length| [&vec![b'x'; length - 1][..], b"\n"].concat());
    println!("{connections} {ROW}, resident KiB each; floor {FLOOR}, goal {GOAL}");
    println!("{:<40} {:>12} {:>12}", "", "after 31 B", "after 4 KiB");
    for kind in ["handler", "pull", "handler, defaults", "pull, defaults", "bare", "buffered"] {
        match measure(kind, connections, &lines) {
            Ok(figures) => println!("{kind:<40} {:>12.3} {:>12.3}", figures[0], figures[1]),
            Err(error) => println!("{kind:<40} not measured: {error}"),
        }
    }
    sizes();
}
