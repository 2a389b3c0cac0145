//! A chat server with rooms, for people with `nc` or `telnet`.
//!
//! ```text
//! cargo run --example chat [ADDR]
//! ```
//!
//! Whoever connects is in the room `lobby` and says things by typing lines; `/help` lists the commands.
//! Nobody waits for anybody: a member who does not read as fast as the room talks is dropped, and the
//! room is told.
//!
//! | file | what it knows |
//! |---|---|
//! | `main.rs` | listening and stopping |
//! | `session.rs` | one member: lines, commands, limits, deadlines |
//! | `rooms.rs` | who is where, and who is told what (no I/O of its own) |

mod rooms;
mod session;

use std::io;
use std::process::ExitCode;

use tokio_util::sync::CancellationToken;

const USAGE: &str = "usage: chat [ADDR]";
const DEFAULT_ADDR: &str = "127.0.0.1:7878";

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let addr = match args.as_slice() {
        [] => DEFAULT_ADDR,
        [flag] if flag.starts_with('-') => {
            println!("{USAGE}\nthe default is {DEFAULT_ADDR}");
            return ExitCode::SUCCESS;
        }
        [addr] => addr,
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(addr).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chat: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(addr: &str) -> io::Result<()> {
    let listener = session::listen(addr).await?;
    let signal = stop_signal()?;
    println!("listening on {}", listener.local_addr()?);
    let stop = CancellationToken::new();
    let serving = tokio::spawn(session::serve(listener, stop.clone()));
    tokio::spawn(async move {
        signal.await;
        stop.cancel();
    });
    let served = serving.await??;
    println!("served {} connections, {} at most at a time", served.accepted, served.peak);
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
