//! An HTTP/1.1 server whose framing is nothing but terminators: `\r\n\r\n` for a head, a count for a
//! body, lines and counts for one that comes in chunks.
//!
//! ```text
//! cargo run --release --example http_server [ADDR] [DIR]
//! ```
//!
//! | request | answer |
//! |---|---|
//! | `GET`, `HEAD` | a file below `DIR`, or `index.html` of a directory |
//! | `GET`, `HEAD /hello` | a line that is in no file |
//! | `POST /echo` | the body, while it is still arriving |
//! | `GET /stream?n=5` | `n` lines, ten if it is not given, one at a time |
//!
//! Requests may be pipelined. Heads, bodies, waiting times and connections have limits, stated where
//! they are enforced, and a request that could be read in two ways is refused ([`head`] says which).
//! Not here: TLS, ranges, conditional requests, compression, and listing directories.
//!
//! | file | what it knows |
//! |---|---|
//! | `main.rs` | listening, how many connections, stopping |
//! | `crowd.rs` | who makes room when there are too many |
//! | `connection.rs` | one connection: what is answered, limits, deadlines |
//! | `head.rs` | the bytes of a head → a request (no I/O) |
//! | `body.rs` | events → the bytes of a body (no I/O) |
//! | `files.rs` | a path → a file that may be seen |
//! | `producers.rs` | files and streams → the bytes of a response |
//! | `response.rs` | heads of responses |

mod body;
mod connection;
mod crowd;
mod files;
mod head;
mod producers;
mod response;

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use asynchat::{Connection, Server};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;

use crate::crowd::Crowd;
use crate::files::Site;

const USAGE: &str = "usage: http_server [ADDR] [DIR]";
const DEFAULT_ADDR: &str = "127.0.0.1:8080";
/// A few files that come with this example.
const DEFAULT_DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/http_server/site");

/// Connections at a time; further ones wait until the operating system's queue is full.
const CONNECTIONS: usize = 1024;
/// From so many connections on, each new one evicts the one that has been waited for longest: see `crowd.rs`.
const CROWDED: usize = CONNECTIONS - 64;
/// About how many bytes the kernel keeps that a peer has not read yet. It reports room again only when a good part of
/// this has been read. So the larger it is, the longer a steady but slow reader seems to read nothing; and the smaller
/// it is, the slower is the transfer to a fast reader that is far away.
const SEND_BUFFER: u32 = 64 * 1024;
/// Threads that wait for the disk. Many of them, with a small file each, would mostly wake one another.
const DISK_THREADS: usize = 4;
/// How long requests that have begun may take to be answered once the server is to stop.
const GRACE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (addr, dir) = match args.as_slice() {
        [] => (DEFAULT_ADDR, None),
        [flag] if flag.starts_with('-') => {
            println!("{USAGE}\nthe defaults are {DEFAULT_ADDR} and {DEFAULT_DIR}");
            return ExitCode::SUCCESS;
        }
        [addr] => (addr.as_str(), None),
        [addr, dir] => (addr.as_str(), Some(dir.as_str())),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    let runtime =
        Builder::new_multi_thread().enable_all().max_blocking_threads(DISK_THREADS).build();
    match runtime.and_then(|runtime| runtime.block_on(run(addr, dir))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("http_server: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(addr: &str, dir: Option<&str>) -> io::Result<()> {
    let site = match dir {
        Some(dir) => Site::new(Path::new(dir))
            .map_err(|error| io::Error::new(error.kind(), format!("{dir}: {error}")))?,
        // If this program was copied to another machine, the files are not there.
        None => Site::new(Path::new(DEFAULT_DIR)).unwrap_or_else(|_| Site::empty()),
    };
    let site = Arc::new(site);
    let listener = listen(addr)
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("{addr}: {error}")))?;
    let signal = stop_signal()?;
    // Whoever started the server may have closed the other end of this.
    let _ = writeln!(io::stdout(), "listening on {}", listener.local_addr()?);

    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio::spawn(async move {
        signal.await;
        stopping.cancel();
    });
    let channels = connection::channels();
    let server = Server::new().max_connections(CONNECTIONS).shutdown_timeout(GRACE);
    let crowd = Arc::new(Crowd::default());
    let service = move |peer: Connection<TcpStream, _>| {
        let member = crowd.enter(peer.shutdown.clone(), CROWDED);
        connection::serve(peer, member, channels.clone(), site.clone())
    };
    server.serve(listener, stop, service).await?;
    Ok(())
}

/// Listens at the first address of this name that it can.
async fn listen(addr: &str) -> io::Result<TcpListener> {
    let mut failed = io::ErrorKind::AddrNotAvailable.into();
    for addr in tokio::net::lookup_host(addr).await? {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // Accepted connections inherit this.
        socket.set_send_buffer_size(SEND_BUFFER)?;
        if cfg!(unix) {
            // As `TcpListener::bind` does.
            socket.set_reuseaddr(true)?;
        }
        match socket.bind(addr).and_then(|()| socket.listen(BACKLOG)) {
            Ok(listener) => return Ok(listener),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1024;

/// Listens for SIGINT and SIGTERM from now on; the future ends at the first of them.
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    let (mut interrupt, mut terminate) = {
        use tokio::signal::unix::{SignalKind, signal};
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    Ok(async move {
        #[cfg(unix)]
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        #[cfg(not(unix))]
        let _ = tokio::signal::ctrl_c().await;
    })
}
