//! A server as a child process, which is this program again or another: its CPU time and its memory are
//! nobody else's.

use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{fs, thread};

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

/// The variable that makes a child of a bench a server, and says which.
const VARIABLE: &str = "ASYNCHAT_BENCH_SERVER";

/// A way to serve a connection, in a task that it spawns.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    pub name: &'static str,
    serve: fn(TcpStream),
    runtime: fn() -> Runtime,
}

impl Way {
    /// All connections on one thread.
    pub const fn new(name: &'static str, serve: fn(TcpStream)) -> Way {
        Way { name, serve, runtime }
    }

    /// On as many threads as tokio thinks fit.
    pub const fn multi_threaded(name: &'static str, serve: fn(TcpStream)) -> Way {
        Way { name, serve, runtime: || Runtime::new().expect("a runtime") }
    }
}

/// In a child, serves in one of these ways until it is killed; elsewhere does nothing. The ways are
/// given by what is served.
///
/// # Panics
///
/// Panics if the child is to serve in a way that is none of them.
pub fn serve_if_child(ways: &[(&str, &[Way])]) {
    let Ok(wanted) = std::env::var(VARIABLE) else { return };
    let all = ways.iter().flat_map(|(what, ways)| ways.iter().map(move |way| (what, way)));
    let way =
        all.into_iter().find_map(|(what, way)| (name(what, way.name) == wanted).then_some(way));
    let Some(way) = way else { panic!("{wanted}?") };
    (way.runtime)().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        println!("listening on {}", listener.local_addr().expect("bound"));
        loop {
            let (stream, _) = listener.accept().await.expect("it connects");
            stream.set_nodelay(true).expect("a socket");
            (way.serve)(stream);
        }
    });
}

/// What a child is told.
fn name(what: &str, way: &str) -> String {
    format!("{what}: {way}")
}

/// On one thread, with I/O and time.
pub fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A child process that serves, killed in the end.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pub address: String,
}

impl Server {
    /// Starts this program again, to serve this in this way.
    pub fn start(what: &str, way: &str) -> io::Result<Server> {
        Server::start_program(Command::new(std::env::current_exe()?).env(VARIABLE, name(what, way)))
    }

    /// Starts a program that says where it listens in its first line.
    pub fn start_program(command: &mut Command) -> io::Result<Server> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line)?;
        let address = line.trim_end().trim_start_matches("listening on ").to_owned();
        Ok(Server { child, address })
    }

    /// Takes over a program that listens there as soon as it can.
    pub fn from_child(child: Child, address: String) -> Server {
        Server { child, address }
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The CPU time of all its threads so far.
    pub fn time(&self) -> io::Result<Duration> {
        let mut nanoseconds = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let stat = fs::read_to_string(task?.path().join("schedstat"))?;
            let first = stat.split(' ').next().and_then(|first| first.parse::<u64>().ok());
            nanoseconds += first.ok_or(io::ErrorKind::InvalidData)?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// Its resident memory in bytes, when it has come to rest.
    pub fn resident(&self) -> io::Result<f64> {
        thread::sleep(Duration::from_millis(100));
        let maps = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id()))?;
        let kib = maps.lines().find_map(|line| {
            line.strip_prefix("Rss:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok()
        });
        kib.map(|kib| kib * 1024.0).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The HTTP example, built as it is for its users, ready to start.
pub fn http_example() -> io::Result<Command> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--release", "-p", "asynchat", "--example", "http_server"])
        .status()?;
    assert!(built.success(), "the example does not build");
    // This is target/release/deps/NAME-*.
    let mut path: PathBuf = std::env::current_exe()?;
    path.pop();
    path.pop();
    let mut command = Command::new(path.join("examples/http_server"));
    command.arg("127.0.0.1:0");
    Ok(command)
}
