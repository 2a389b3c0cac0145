//! An FTP server: commands are lines, downloads are producers, and uploads have no terminator at all.
//!
//! ```text
//! cargo run --release --example ftp_server [ADDR] [DIR] [--writable] [--login NAME:PASSWORD]
//!                                          [--rate BYTES] [--wait SECONDS]
//! ```
//!
//! It serves the files below `DIR`, for reading unless it is writable. Without `--login` any name and password will do.
//! `--rate` limits each transfer to so many bytes per second, and `--wait` says how long to wait for a client on a data
//! connection, 60 seconds by default.
//!
//! | what | |
//! |---|---|
//! | login and logout | USER PASS QUIT |
//! | data connections | EPSV PASV, from the client's own address only |
//! | files | RETR STOR APPE REST ABOR, SIZE MDTM, DELE RNFR RNTO |
//! | directories | LIST NLST MLSD MLST, CWD CDUP PWD MKD RMD |
//! | information and settings | FEAT SYST HELP NOOP STAT ALLO ACCT OPTS TYPE MODE STRU |
//! | left out | TLS, PORT and EPRT, changing times and permissions, STAT of a file, more than one user |
//! | cut off | HTTP: `GET`, `POST`, `CONNECT`, and fields such as `Host:` |
//! | limits | commands, replies, offences, connections, waiting: stated where they are enforced |
//!
//! - **TYPE A** is accepted, and changes nothing: bytes are sent and stored as they are. Translating line
//!   ends has destroyed more files than it has helped, and SIZE and REST mean nothing where it is done.
//! - **Files outside of** `DIR` cannot be reached: `..` ends at `/`, and a symbolic link that is absolute or leads out
//!   is refused when it is opened: see `files.rs`.
//! - **Names** are UTF-8. The protocol cannot express a name with a CR or LF, so such a file is not shown.
//! - **An upload that is cut**, aborted or too large for the disk leaves in the file what has been written of it: the
//!   client can ask for SIZE and send the rest by APPE, or by REST and STOR. The end of the connection is the end of an
//!   upload: if a client is stopped and its connection is closed in the usual way, its part of a file cannot be told
//!   from a whole file. Data is not forced to the disk before the reply.
//! - **REST** before STOR drops what is behind that point. Beyond the end of a file it is refused (554).
//! - **Many commands at a time** are obeyed in turn. During a transfer ABOR and STAT are obeyed at once, also behind
//!   Telnet's interrupt, and the others when it is over.
//!
//! | file | what it knows |
//! |---|---|
//! | `main.rs` | listening, how many connections, stopping |
//! | `session.rs` | one control connection: what is answered, limits, deadlines |
//! | `urgent.rs` | Telnet's urgent data |
//! | `command.rs` | a line → a command (no I/O) |
//! | `path.rs` | what clients call a file → a path below the root (no I/O) |
//! | `files.rs` | that path → a file, never one outside of the root |
//! | `listing.rs` | a directory → lines |
//! | `data.rs` | one data connection |
//! | `sendfile.rs` | a file → a socket, without a copy (Linux) |
//! | `pace.rs` | bytes per second |

mod command;
mod data;
mod files;
mod listing;
mod pace;
mod path;
#[cfg(target_os = "linux")]
mod sendfile;
mod session;
mod urgent;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use asynchat::{Connection, Server};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;
use tokio_util::task::LocalPoolHandle;

use crate::data::{Terms, Transfers};
use crate::files::Files;
use crate::session::{Host, Session};
use crate::urgent::Inline;

const USAGE: &str = "usage: ftp_server [ADDR] [DIR] [--writable] [--login NAME:PASSWORD] \
    [--rate BYTES] [--wait SECONDS]";
const DEFAULT_ADDR: &str = "127.0.0.1:2121";
const DEFAULT_DIR: &str = ".";
const DEFAULT_WAIT: Duration = Duration::from_secs(60);

/// Connections at a time. Each has a file descriptor, and two more while something is transferred.
const CONNECTIONS: usize = 300;
/// The number of threads that wait for the disk, and of those that do so and serve the connections of files.
const DISK_THREADS: usize = 16;
const TRANSFER_THREADS: usize = 4;
/// How long connections may take to end once the server is to stop.
const GRACE: Duration = Duration::from_secs(10);

struct Options {
    addr: String,
    dir: PathBuf,
    writable: bool,
    login: Option<(String, String)>,
    terms: Terms,
}

fn main() -> ExitCode {
    let Some(options) = options(std::env::args().skip(1)) else {
        eprintln!("{USAGE}\nthe defaults are {DEFAULT_ADDR} and {DEFAULT_DIR}");
        return ExitCode::from(2);
    };
    // One thread serves all control connections. The work that takes time is done by the kernel, in the threads that
    // wait for the disk.
    let runtime =
        Builder::new_current_thread().enable_all().max_blocking_threads(DISK_THREADS).build();
    match runtime.and_then(|runtime| runtime.block_on(run(options))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ftp_server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options(mut args: impl Iterator<Item = String>) -> Option<Options> {
    let (mut writable, mut login, mut plain) = (false, None, Vec::new());
    let mut terms = Terms { wait: DEFAULT_WAIT, rate: None };
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--writable" => writable = true,
            "--login" => {
                let (name, password) = args.next()?.split_once(':').map(owned)?;
                login = Some((name, password));
            }
            "--rate" => terms.rate = Some(args.next()?.parse().ok().filter(|rate| *rate > 0)?),
            "--wait" => terms.wait = Duration::from_secs(args.next()?.parse().ok()?),
            flag if flag.starts_with('-') => return None,
            _ => plain.push(arg),
        }
    }
    let mut plain = plain.into_iter();
    let addr = plain.next().unwrap_or_else(|| DEFAULT_ADDR.to_owned());
    let dir = plain.next().unwrap_or_else(|| DEFAULT_DIR.to_owned()).into();
    plain.next().is_none().then_some(Options { addr, dir, writable, login, terms })
}

fn owned((name, password): (&str, &str)) -> (String, String) {
    (name.to_owned(), password.to_owned())
}

async fn run(options: Options) -> io::Result<()> {
    let Options { addr, dir, writable, login, terms } = options;
    let named = |what: &Path, error: io::Error| {
        io::Error::new(error.kind(), format!("{}: {error}", what.display()))
    };
    let files = Files::open(&dir, writable).map_err(|error| named(&dir, error))?;
    let transfers = Transfers { terms, threads: LocalPoolHandle::new(TRANSFER_THREADS) };
    let host = Arc::new(Host { files, transfers, login });
    let listener =
        TcpListener::bind(&addr).await.map_err(|error| named(Path::new(&addr), error))?;
    let signal = stop_signal()?;
    // Whoever started the server may have closed the other end of this.
    let _ = writeln!(io::stdout(), "listening on {}", listener.local_addr()?);

    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio::spawn(async move {
        signal.await;
        stopping.cancel();
    });
    let server = Server::new()
        .max_connections(CONNECTIONS)
        .refuse_with("421 too many connections, come back later\r\n")
        .shutdown_timeout(GRACE);
    let channels = session::channels();
    let service = move |connection: Connection<TcpStream, _>| {
        let (host, channels) = (host.clone(), channels.clone());
        async move {
            let io = connection.io;
            // Replies are written together. To wait for more (Nagle's algorithm) would only delay them.
            io.set_nodelay(true)?;
            let session = Session::new(&host, io.local_addr()?, io.peer_addr()?.ip());
            let control = channels.build(Inline::new(io)?);
            session.serve(control, &connection.shutdown).await?;
            io::Result::Ok(())
        }
    };
    server.serve(listener, stop, service).await?;
    Ok(())
}

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
