//! An SMTP server that receives mail: lines for commands, `CRLF.CRLF` for a text, counts for chunks.
//!
//! ```text
//! cargo run --release --example smtp_server [ADDR] [MAILDIR] [--discard] [--tls CERTIFICATE KEY]
//!     [--proxy-protocol]
//! ```
//!
//! Every recipient is accepted, and every message is put into the one Maildir, byte for byte as it came, behind lines
//! that say from where, by whom and for whom. A message that is answered by 250 is on the disk. With `--discard`
//! messages are read and dropped. With `--proxy-protocol` it serves proxies, which say first for which client they
//! connect.
//!
//! | what | |
//! |---|---|
//! | commands | EHLO HELO MAIL RCPT DATA BDAT RSET NOOP VRFY HELP STARTTLS QUIT |
//! | extensions | PIPELINING SIZE 8BITMIME SMTPUTF8 CHUNKING STARTTLS ENHANCEDSTATUSCODES |
//! | left out | AUTH, DSN, BINARYMIME, a list of local recipients, relaying, notices of mail that could not be delivered |
//! | refused | a DATA text with a CR or LF that stands alone (550, when all of it has come: see `text.rs`) |
//! | kept | any byte that BDAT brings, a lone CR or LF too: its end is a count, and nothing can hide in it |
//! | refused | anything that was sent behind STARTTLS in the clear (501, and the connection ends) |
//! | cut off | HTTP: `GET`, `POST`, `CONNECT`, and fields such as `Host:` (421): see `command.rs` |
//! | cut off | a peer that sends 100 commands such as NOOP, RSET and EHLO, or ones that are refused, without a message (421) |
//! | limits | commands, recipients, messages, connections, waiting: stated where they are enforced |
//!
//! | file | what it knows |
//! |---|---|
//! | `main.rs` | listening, how many connections, stopping |
//! | `session.rs` | one connection: what is answered, limits, deadlines |
//! | `command.rs` | a line → a command (no I/O) |
//! | `text.rs` | what DATA sends → a message (no I/O) |
//! | `maildir.rs` | a message → a file |
//! | `tls.rs` | the certificate |
//! | `../support/proxy_protocol.rs` | what a proxy says first |

mod command;
mod maildir;
#[path = "../support/proxy_protocol.rs"]
mod proxy_protocol;
mod session;
mod text;
mod tls;

use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use asynchat::{Connection, Server};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;

use crate::maildir::{Maildir, Store};
use crate::proxy_protocol::{Accepted, Origin};
use crate::session::{Ends, Host};

const USAGE: &str = "usage: smtp_server [ADDR] [MAILDIR] [--discard] [--tls CERTIFICATE.pem KEY.pem] \
                     [--proxy-protocol]";
const DEFAULT_ADDR: &str = "127.0.0.1:2525";
const DEFAULT_DIR: &str = "Maildir";

/// How many connections are served at a time. Further ones are told to come back later.
const CONNECTIONS: usize = 1000;
/// How many further connections are told so at a time. Others wait in the operating system's queue.
const REFUSALS: usize = 32;
/// The number of threads that wait for the disk. Files that they force to it at the same time are written together.
const DISK_THREADS: usize = 32;
/// How long connections may take to end once the server is to stop.
const GRACE: Duration = Duration::from_secs(10);

struct Options {
    addr: String,
    dir: PathBuf,
    discard: bool,
    proxied: bool,
    certificate: Option<(PathBuf, PathBuf)>,
}

fn main() -> ExitCode {
    let Some(options) = options(std::env::args().skip(1)) else {
        eprintln!("{USAGE}\nthe defaults are {DEFAULT_ADDR} and {DEFAULT_DIR}");
        return ExitCode::from(2);
    };
    // One thread serves all connections, so that none waits for a lock that another holds. Other threads wait for the
    // disk.
    let runtime =
        Builder::new_current_thread().enable_all().max_blocking_threads(DISK_THREADS).build();
    match runtime.and_then(|runtime| runtime.block_on(run(options))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("smtp_server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options(mut args: impl Iterator<Item = String>) -> Option<Options> {
    let (mut discard, mut proxied) = (false, false);
    let (mut certificate, mut plain) = (None, Vec::new());
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--discard" => discard = true,
            "--proxy-protocol" => proxied = true,
            "--tls" => certificate = Some((args.next()?.into(), args.next()?.into())),
            flag if flag.starts_with('-') => return None,
            _ => plain.push(arg),
        }
    }
    let mut plain = plain.into_iter();
    let addr = plain.next().unwrap_or_else(|| DEFAULT_ADDR.to_owned());
    let dir = plain.next().unwrap_or_else(|| DEFAULT_DIR.to_owned()).into();
    plain.next().is_none().then_some(Options { addr, dir, discard, proxied, certificate })
}

async fn run(options: Options) -> io::Result<()> {
    let Options { addr, dir, discard, proxied, certificate } = options;
    let named = |what: &Path, error: io::Error| {
        io::Error::new(error.kind(), format!("{}: {error}", what.display()))
    };
    let store = if discard {
        Store::Nowhere
    } else {
        Store::Maildir(Arc::new(Maildir::open(&dir).map_err(|error| named(&dir, error))?))
    };
    let files = certificate.as_ref().map(|(certificate, key)| (&**certificate, &**key));
    let host = Arc::new(Host::new(store, tls::config(files)?, CONNECTIONS));
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
    let server = Server::new().max_connections(CONNECTIONS + REFUSALS).shutdown_timeout(GRACE);
    let service = move |connection: Connection<TcpStream, _>| {
        let host = host.clone();
        async move {
            // Replies are written together. To wait for more (Nagle's algorithm) would only delay them.
            let _ = connection.io.set_nodelay(true);
            // A peer that is no proxy is disconnected without an answer.
            let accept = |io| proxy_protocol::accept(io, proxied);
            let connection = connection.handshake(proxy_protocol::DEADLINE, accept).await?;
            let Accepted { io, input, origin } = connection.io;
            let ends = ends(&io, connection.peer, origin)?;
            session::serve(host, io, input, ends, connection.shutdown).await;
            Ok::<_, io::Error>(())
        }
    };
    server.serve(listener, stop, service).await?;
    Ok(())
}

/// Both addresses in brackets, which is how SMTP writes a host that has no name.
fn ends(io: &TcpStream, peer: SocketAddr, origin: Origin) -> io::Result<Ends> {
    let literal = |address: SocketAddr| match address.ip().to_canonical() {
        IpAddr::V4(ip) => format!("[{ip}]"),
        IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
    };
    let (local, peer) = match origin {
        Origin::Unknown => (io.local_addr()?, peer),
        Origin::Client { source, destination } => (destination, source),
    };
    Ok(Ends { local: literal(local), peer: literal(peer) })
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
