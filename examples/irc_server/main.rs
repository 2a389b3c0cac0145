//! An IRC server: one that stands alone, for people with a client.
//!
//! ```text
//! cargo run --release --example irc_server [ADDR] [--no-flood-control]
//! ```
//!
//! It stores nothing: a channel exists while somebody is in it, and whoever comes first is its operator.
//!
//! | what | |
//! |---|---|
//! | commands | NICK USER PING PONG QUIT, JOIN PART TOPIC NAMES LIST KICK, PRIVMSG NOTICE AWAY, WHO WHOIS ISON USERHOST, MODE, MOTD LUSERS |
//! | modes | of channels `n t m k l`, of their members `o v`; all clients are `i` and nothing else |
//! | capabilities | none, and a client that asks is told so |
//! | lines | of 512 bytes with their end, which is CR, LF or CRLF; of any bytes but NUL |
//! | left out | other servers, services, operators of the server, passwords, TLS, bans, invitations, secret channels, the names behind addresses, idents |
//! | limits | connections, channels, channels of one client, lengths, lines in a time, waiting: stated where they are enforced |
//!
//! A line that is too long is refused (417), and the session goes on. A client that sends too fast has to wait, and one
//! that sends far ahead is disconnected ("Excess Flood"), as is one that does not read what the others say ("SendQ
//! exceeded"): no client waits for another, and none costs the others memory. `--no-flood-control` is for measuring.
//!
//! All clients are served by one thread, so that nobody waits for a lock.
//!
//! | file | what it knows |
//! |---|---|
//! | `main.rs` | listening and stopping |
//! | `session.rs` | one connection: lines, registration, flood control, deadlines |
//! | `message.rs` | a line → words, words → a line, names (no I/O) |
//! | `commands.rs` | what each command does |
//! | `network.rs` | who is in which channel, and who is told what |
//! | `../support/no_delay.rs` | sockets that send at once |

mod commands;
mod message;
mod network;
#[path = "../support/no_delay.rs"]
mod no_delay;
mod session;

use std::io::{self, Write as _};
use std::process::ExitCode;

use tokio_util::sync::CancellationToken;

use crate::no_delay::NoDelay;

const USAGE: &str = "usage: irc_server [ADDR] [--no-flood-control]";
const DEFAULT_ADDR: &str = "127.0.0.1:6667";

struct Options {
    addr: String,
    flood_control: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Some(options) = options(std::env::args().skip(1)) else {
        eprintln!("{USAGE}\nthe default is {DEFAULT_ADDR}");
        return ExitCode::from(2);
    };
    match run(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("irc_server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options(args: impl Iterator<Item = String>) -> Option<Options> {
    let (mut flood_control, mut addr) = (true, None);
    for arg in args {
        match arg.as_str() {
            "--no-flood-control" => flood_control = false,
            flag if flag.starts_with('-') => return None,
            _ if addr.is_some() => return None,
            _ => addr = Some(arg),
        }
    }
    Some(Options { addr: addr.unwrap_or_else(|| DEFAULT_ADDR.to_owned()), flood_control })
}

async fn run(options: Options) -> io::Result<()> {
    let listener = session::listen(&options.addr).await?;
    let signal = stop_signal()?;
    // Whoever started the server may have closed the other end of this.
    let _ = writeln!(io::stdout(), "listening on {}", listener.local_addr()?);
    let stop = CancellationToken::new();
    let serving =
        tokio::spawn(session::serve(NoDelay(listener), stop.clone(), options.flood_control));
    tokio::spawn(async move {
        signal.await;
        stop.cancel();
    });
    let served = serving.await??;
    let (accepted, peak) = (served.accepted, served.peak);
    let _ = writeln!(io::stdout(), "served {accepted} connections, {peak} at most at a time");
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
