//! A server as a child process, so that its CPU time and memory can be measured apart. It is this program started
//! again, or another program.

use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{fs, thread};

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

/// The environment variable that tells a child process of a bench to be a server, and which one.
const VARIABLE: &str = "ASYNCHAT_BENCH_SERVER";

/// A way to serve: `serve` spawns a task for a connection.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    pub name: &'static str,
    serve: fn(TcpStream),
    runtime: fn() -> Runtime,
}

impl Way {
    /// Serves all connections on one thread.
    pub const fn new(name: &'static str, serve: fn(TcpStream)) -> Way {
        Way { name, serve, runtime }
    }

    /// Serves on as many threads as tokio has by default.
    pub const fn multi_threaded(name: &'static str, serve: fn(TcpStream)) -> Way {
        Way { name, serve, runtime: || Runtime::new().expect("a runtime") }
    }
}

/// In a child process, serves in one of these ways until the process is killed. Elsewhere it does nothing. Each element
/// of `ways` has the name of what is served, such as `echo`, and the ways to serve it.
///
/// # Panics
///
/// Panics if the child is told to serve in a way that is not among them.
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

/// What the environment variable of a child says.
fn name(what: &str, way: &str) -> String {
    format!("{what}: {way}")
}

/// A runtime with one thread, I/O and time.
pub fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A child process that serves. It is killed when this is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pub address: String,
}

impl Server {
    /// Starts this program again as a child process that serves `what` in this way.
    pub fn start(what: &str, way: &str) -> io::Result<Server> {
        Server::start_program(Command::new(std::env::current_exe()?).env(VARIABLE, name(what, way)))
    }

    /// Starts a program whose first line of output says where it listens.
    pub fn start_program(command: &mut Command) -> io::Result<Server> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line)?;
        let address = line.trim_end().trim_start_matches("listening on ").to_owned();
        Ok(Server { child, address })
    }

    /// Takes over a program that has been started, and will listen at this address.
    pub fn from_child(child: Child, address: String) -> Server {
        Server { child, address }
    }

    /// The id of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The CPU time that all its threads have taken so far.
    pub fn time(&self) -> io::Result<Duration> {
        let mut nanoseconds = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let stat = fs::read_to_string(task?.path().join("schedstat"))?;
            let first = stat.split(' ').next().and_then(|first| first.parse::<u64>().ok());
            nanoseconds += first.ok_or(io::ErrorKind::InvalidData)?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// Its resident memory in bytes, read after a short wait in which it finishes what it is doing.
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

/// Builds the HTTP example as its users do, and returns the command that starts it.
pub fn http_example() -> io::Result<Command> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--release", "-p", "asynchat", "--example", "http_server"])
        .status()?;
    assert!(built.success(), "the example does not build");
    // The path of this executable is target/release/deps/NAME-*.
    let mut path: PathBuf = std::env::current_exe()?;
    path.pop();
    path.pop();
    let mut command = Command::new(path.join("examples/http_server"));
    command.arg("127.0.0.1:0");
    Ok(command)
}
