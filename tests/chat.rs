//! The chat example: its parts in this process, and its binary in another.
//!
//! Nothing here depends on time: each test waits for lines, or for the end of a connection.

#![cfg(all(feature = "serve", unix))]
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

#[path = "../examples/chat/rooms.rs"]
mod rooms;
#[path = "../examples/chat/session.rs"]
mod session;

use std::collections::HashMap;
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use asynchat::Served;
use futures::future::join_all;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

struct Server {
    addr: SocketAddr,
    stop: CancellationToken,
    serving: JoinHandle<io::Result<Served>>,
}

impl Server {
    async fn start() -> Self {
        let listener = session::listen("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(session::serve(listener, stop.clone()));
        Server { addr, stop, serving }
    }

    /// Connects, and reads the welcome.
    async fn join(&self) -> Client {
        let mut client = Client::new(TcpStream::connect(self.addr).await.unwrap());
        let welcome = client.line().await;
        assert!(welcome.starts_with("* welcome to lobby, guest"), "{welcome:?}");
        client
    }

    async fn join_as(&self, name: &str) -> Client {
        let mut client = self.join().await;
        client.send(&format!("/nick {name}\n")).await;
        client.until(&format!(" is now {name}")).await;
        client
    }

    async fn stop(self) -> Served {
        self.stop.cancel();
        self.serving.await.unwrap().unwrap()
    }
}

struct Client {
    input: BufReader<OwnedReadHalf>,
    output: OwnedWriteHalf,
}

impl Client {
    fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        let (input, output) = stream.into_split();
        Client { input: BufReader::new(input), output }
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.output.write_all(bytes.as_ref()).await.unwrap();
    }

    /// The next line, without its end; empty at the end of the connection.
    async fn line(&mut self) -> String {
        read_line(&mut self.input).await
    }

    /// The first line that ends like this.
    async fn until(&mut self, end: &str) -> String {
        loop {
            let line = self.line().await;
            assert!(!line.is_empty(), "the end, before {end:?}");
            if line.ends_with(end) {
                return line;
            }
        }
    }
}

async fn read_line(input: &mut BufReader<OwnedReadHalf>) -> String {
    let mut line = String::new();
    input.read_line(&mut line).await.unwrap();
    assert!(line.is_empty() || line.ends_with("\r\n"), "{line:?}");
    line.trim_end().to_owned()
}

// ---------------------------------------------------------------------------------------------
// A few members

#[tokio::test]
async fn what_is_said_is_heard_by_the_others_in_the_room_only() {
    let server = Server::start().await;
    let mut ann = server.join_as("ann").await;
    let mut bob = server.join_as("bob").await;
    let mut cleo = server.join_as("cleo").await;
    cleo.send("/join Attic\n").await;
    cleo.until("* you are in Attic").await;

    ann.send("hello\r\nwith LF alone\n\n \n").await;
    assert_eq!(bob.until("hello").await, "ann: hello");
    assert_eq!(bob.line().await, "ann: with LF alone");
    bob.send("hi\n/who\n/rooms\n").await;
    assert_eq!(ann.until("hi").await, "bob: hi");
    assert_eq!(bob.line().await, "* 2 in lobby: ann bob");
    assert_eq!(bob.line().await, "* attic: 1");
    assert_eq!(bob.line().await, "* lobby: 2");
    cleo.send("/who\n").await;
    assert_eq!(cleo.line().await, "* 1 in attic: cleo", "and nothing of what was said elsewhere");

    ann.send("/quit\nignored\n").await;
    assert_eq!(ann.line().await, "* bye");
    assert_eq!(ann.line().await, "");
    assert_eq!(bob.line().await, "* ann left");
    drop(cleo);
    drop(ann);
    server.stop.cancel();
    assert_eq!(bob.line().await, "* the server is shutting down");
    assert_eq!(bob.line().await, "");
    drop(bob);
    let served = server.stop().await;
    assert_eq!((served.accepted, served.aborted, served.panicked), (3, 0, 0));
}

#[tokio::test]
async fn names_and_rooms_are_checked() {
    let server = Server::start().await;
    let mut ann = server.join_as("ann").await;
    let mut bob = server.join().await;
    let bad = "* a name has 1 to 16 letters, digits, '-' or '_' (ASCII)";
    let taken = "* somebody has that name";
    for (command, answer) in [
        ("/nick", bad),
        ("/nick a b", bad),
        ("/nick ännchen", bad),
        ("/nick abcdefghijklmnopq", bad),
        ("/join ../etc", bad),
        ("/nick ANN", taken),
        ("/nick guest99", taken),
        ("/dance", "* there is no such command; try /help"),
    ] {
        bob.send(format!("{command}\r\n")).await;
        assert_eq!(bob.line().await, answer, "{command}");
    }
    ann.send("/nick ANN\n").await;
    assert_eq!(ann.until("ANN").await, "* ann is now ANN", "one's own name is one's own");
    drop(ann);
    bob.until("* ANN left").await;
    bob.send("/nick Ann\n").await;
    bob.until(" is now Ann").await;
    drop(bob);
    server.stop().await;
}

#[tokio::test]
async fn there_are_so_many_rooms_and_an_empty_one_is_no_more() {
    let server = Server::start().await;
    let mut members = Vec::new();
    for n in 0..99 {
        let mut member = server.join().await;
        member.send(format!("/join room{n}\n")).await;
        member.until(&format!("* you are in room{n}")).await;
        members.push(member);
    }
    let mut last = server.join().await;
    last.send("/join another\n").await;
    assert_eq!(last.line().await, "* there are too many rooms");
    let mut first = members.remove(0);
    first.send("/join room1\n").await;
    first.until("* you are in room1").await;
    last.send("/join another\n").await;
    assert_eq!(last.line().await, "* you are in another");
    drop((members, first, last));
    server.stop().await;
}

#[tokio::test]
async fn hostile_bytes_are_not_passed_on() {
    let server = Server::start().await;
    let mut ann = server.join().await;
    let mut bob = server.join_as("bob").await;
    ann.until("bob").await;
    let telnet = b"\xff\xfb\x01\x1b[2Jred\x07\x08\0 \xe2\x80\xae\tflag\x7f\xc2\x9b\r\n";
    bob.send(telnet).await;
    assert_eq!(ann.line().await, "bob: \u{fffd}\u{fffd}[2Jred  flag");

    bob.send("x".repeat(1000) + "\n").await;
    assert_eq!(ann.line().await.len(), "bob: ".len() + 1000);
    bob.send("y".repeat(100_000) + "\nstill here\n").await;
    assert_eq!(bob.until("bytes").await, "* not said: it is longer than 1000 bytes");
    assert_eq!(ann.line().await, "bob: still here", "and nothing of the line that was too long");
    drop((ann, bob));
    server.stop().await;
}

// ---------------------------------------------------------------------------------------------
// Many members

const MEMBERS: usize = 1000;
const SPEAKERS: usize = 20;
const ROUNDS: usize = 10;
const PADDING: usize = 900;

/// What one member hears, until all speakers have spoken in all rounds.
struct Heard {
    dropped: usize,
    said: HashMap<String, usize>,
}

async fn listen(
    mut input: BufReader<OwnedReadHalf>,
    speaks: bool,
    round: mpsc::UnboundedSender<()>,
) -> (BufReader<OwnedReadHalf>, Heard) {
    let mut heard = Heard { dropped: 0, said: HashMap::new() };
    let others = if speaks { SPEAKERS - 1 } else { SPEAKERS };
    let mut lines = 0;
    while lines < others * ROUNDS {
        let line = read_line(&mut input).await;
        assert!(!line.is_empty(), "cut off after {lines} lines");
        if let Some(notice) = line.strip_prefix("* ") {
            if notice.ends_with(" was too slow and has been dropped") {
                assert!(notice.starts_with("stuck "), "{line}");
                heard.dropped += 1;
            }
            continue;
        }
        let (speaker, text) = line.split_once(": ").unwrap();
        let (number, padding) = text.split_once(' ').unwrap();
        let expected = heard.said.entry(speaker.to_owned()).or_default();
        assert_eq!(number.parse(), Ok(*expected), "{speaker} out of order");
        assert_eq!(padding.len(), PADDING);
        *expected += 1;
        lines += 1;
        if lines % others == 0 {
            round.send(()).unwrap();
        }
    }
    (input, heard)
}

#[test]
fn of_a_thousand_members_the_one_that_never_reads_is_dropped_and_the_others_hear_all() {
    let name = "of_a_thousand_members_the_one_that_never_reads_is_dropped_and_the_others_hear_all";
    with_descriptors(4096, name, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(a_thousand_members());
    });
}

async fn a_thousand_members() {
    let server = Server::start().await;
    let alive = Handle::current().metrics().num_alive_tasks();

    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stuck = socket.connect(server.addr).await.unwrap();
    let mut first = server.join().await;
    stuck.write_all(b"/nick stuck\n").await.unwrap();
    first.until(" is now stuck").await;

    let (done, mut round) = mpsc::unbounded_channel();
    let (mut outputs, mut listeners) = (Vec::new(), JoinSet::new());
    let mut clients = vec![first];
    while clients.len() < MEMBERS - 1 {
        let more = (MEMBERS - 1 - clients.len()).min(50);
        clients.extend(join_all((0..more).map(|_| server.join())).await);
    }
    for (n, client) in clients.into_iter().enumerate() {
        listeners.spawn(listen(client.input, n < SPEAKERS, done.clone()));
        outputs.push(client.output);
    }

    for number in 0..ROUNDS {
        let line = format!("{number} {}\r\n", "x".repeat(PADDING));
        for output in &mut outputs[..SPEAKERS] {
            output.write_all(line.as_bytes()).await.unwrap();
        }
        // Nobody is left behind but by its own doing.
        for _ in 1..MEMBERS {
            round.recv().await.unwrap();
        }
    }

    let mut inputs = Vec::new();
    while let Some(listener) = listeners.join_next().await {
        let (input, heard) = listener.unwrap();
        assert_eq!(heard.dropped, 1, "all are told, and once");
        assert!(heard.said.len() >= SPEAKERS - 1);
        assert!(heard.said.values().all(|lines| *lines == ROUNDS));
        inputs.push(input);
    }
    assert_eq!(inputs.len(), MEMBERS - 1);

    server.stop.cancel();
    for mut input in inputs {
        assert_eq!(read_line(&mut input).await, "* the server is shutting down");
        assert_eq!(read_line(&mut input).await, "");
    }
    drop(outputs);
    drop(stuck);
    let served = server.stop().await;
    assert_eq!((served.accepted, served.peak), (MEMBERS as u64, MEMBERS));
    assert_eq!((served.aborted, served.panicked), (0, 0));
    assert!(
        Handle::current().metrics().num_alive_tasks() < alive,
        "the server's own has ended too"
    );
}

/// Does something in a process that may open so many descriptors: this one, started again by a shell.
#[track_caller]
fn with_descriptors(descriptors: usize, test: &str, run: impl FnOnce()) {
    const AGAIN: &str = "CHAT_TEST_STARTED_AGAIN";
    if std::env::var_os(AGAIN).is_some() {
        return run();
    }
    let script = format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"");
    let status = Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(AGAIN, "1")
        .status();
    assert!(status.unwrap().success());
}

// ---------------------------------------------------------------------------------------------
// The binary

struct Process {
    process: Child,
    addr: String,
    stdout: std::io::BufReader<std::process::ChildStdout>,
}

impl Process {
    #[track_caller]
    fn start(mut command: Command) -> Self {
        let mut process =
            command.arg("127.0.0.1:0").stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = std::io::BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let addr = line.strip_prefix("listening on ").unwrap().trim_end().to_owned();
        assert!(!addr.ends_with(":0"), "{addr}");
        Process { process, addr, stdout }
    }

    fn connect(&self) -> std::io::BufReader<std::net::TcpStream> {
        std::io::BufReader::new(std::net::TcpStream::connect(&self.addr).unwrap())
    }

    fn signal(&self, name: &str) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The example's binary, which `cargo test` builds with the tests, but `cargo test --test` does not.
fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let example = profile.join("examples").join("chat");
    assert!(example.exists(), "cargo build --example chat");
    example
}

fn blocking_line(client: &mut std::io::BufReader<std::net::TcpStream>) -> String {
    let mut line = String::new();
    client.read_line(&mut line).unwrap();
    line
}

#[test]
fn the_server_ends_cleanly_at_a_signal() {
    for signal in ["INT", "TERM"] {
        let mut server = Process::start(Command::new(example()));
        let mut client = server.connect();
        assert!(blocking_line(&mut client).starts_with("* welcome"));
        client.get_mut().write_all(b"half a li").unwrap();
        let mut other = server.connect();
        assert!(blocking_line(&mut other).starts_with("* welcome"));
        server.signal(signal);
        assert_eq!(blocking_line(&mut other), "* the server is shutting down\r\n");
        assert_eq!(blocking_line(&mut other), "");
        // The one that has begun a line may end it.
        client.get_mut().write_all(b"ne\n").unwrap();
        let mut rest = String::new();
        client.read_to_string(&mut rest).unwrap();
        assert!(rest.ends_with("* the server is shutting down\r\n"), "{rest:?}");
        drop((client, other));
        assert!(server.process.wait().unwrap().success());
        let mut rest = String::new();
        server.stdout.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "served 2 connections, 2 at most at a time\n");
    }
}

#[test]
fn without_descriptors_the_server_waits_and_then_goes_on() {
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 20; exec \"$0\" \"$@\""]).arg(example());
    let mut server = Process::start(shell);
    // More than it has descriptors for: the rest are in its backlog.
    let mut clients: Vec<_> = (0..40).map(|_| server.connect()).collect();
    let mut welcomed = 0;
    // Each that leaves makes room for the next.
    for mut client in clients.drain(..) {
        let line = blocking_line(&mut client);
        assert!(line.starts_with("* welcome"), "{welcomed}: {line:?}");
        welcomed += 1;
    }
    assert_eq!(welcomed, 40);
    server.signal("TERM");
    assert!(server.process.wait().unwrap().success());
    let mut rest = String::new();
    server.stdout.read_to_string(&mut rest).unwrap();
    let peak = rest.strip_prefix("served 40 connections, ").and_then(|rest| rest.split(' ').next());
    let peak: usize = peak.unwrap().parse().unwrap();
    assert!((2..20).contains(&peak), "{rest}");
}
