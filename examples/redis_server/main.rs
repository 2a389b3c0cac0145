//! A Redis server, for those of its commands that clients use most.
//!
//! ```text
//! cargo run --release --example redis_server [ADDR] [--proxy-protocol]
//! ```
//!
//! It speaks RESP2, and takes lines of words (`nc`), with
//!
//! - PING ECHO HELLO SELECT CLIENT RESET QUIT, COMMAND CONFIG INFO DBSIZE FLUSHALL;
//! - GET SET (EX PX NX XX) GETSET MGET MSET APPEND STRLEN INCR INCRBY DECR DECRBY, DEL EXISTS EXPIRE TTL;
//! - LPUSH RPUSH LPOP RPOP LRANGE LLEN, HSET HGET HGETALL;
//! - SUBSCRIBE UNSUBSCRIBE PUBLISH.
//!
//! Everything else is left out: RESP3 (which redis-py asks for unless it is given `protocol=2`), more than one
//! database, patterns of keys, transactions, scripts, persistence, replication, passwords. Where Redis is lax it is
//! strict: the lines of an array end with CRLF, and so does a bulk string. It is for a network that can be trusted, as
//! Redis is. All data is in memory, 512 MiB at most, and is gone when the server ends.
//!
//! Whatever a client can make grow has a limit: 64 MiB for a command, and for an answer that is put together from
//! several values; 8 MiB of messages may wait for a subscriber, which is dropped when more would have to. A client has
//! a minute to complete a command, and a second more for each 64 KiB of it; a minute to take some of an answer; and,
//! unless it is a subscriber, an hour to send the next command.
//!
//! What all clients together can make grow has limits too: 256 MiB of answers and messages may wait to be taken by
//! clients, and 256 MiB of commands may wait to be completed. Answers, messages and commands of up to 16 KiB do not
//! count there. A command whose answer would be too much is refused and changes no data; a client whose command becomes
//! too much is disconnected. So clients that take or send much, slowly, keep others from long commands and answers, but
//! not from short ones. Short messages count for each subscriber: while 256 MiB of them wait for all subscribers
//! together, a subscriber for which more than 256 KiB wait is dropped when one more message would have to wait, and a
//! client that publishes lets the subscribers have their turn, so that those that read are not dropped.
//!
//! With `--proxy-protocol` it serves proxies, which say first for which client they connect.
//!
//! Commands are carried out one at a time, as Redis does: by one thread, so that nobody waits for a lock.
//!
//! | file | what it knows |
//! |---|---|
//! | `main.rs` | listening and stopping |
//! | `session.rs` | one client: limits, deadlines, and the way from a command to its answer |
//! | `protocol.rs` | where a command ends, what its words are, how answers are written |
//! | `commands.rs` | what each command does |
//! | `store.rs` | keys and values |
//! | `pubsub.rs` | who subscribes to which channel |
//! | `waiting.rs` | how many bytes wait for all clients together |
//! | `../support/no_delay.rs` | sockets that send at once |
//! | `../support/proxy_protocol.rs` | what a proxy says first |

mod commands;
#[path = "../support/no_delay.rs"]
mod no_delay;
mod protocol;
#[allow(dead_code, reason = "it is not asked who a client is")]
#[path = "../support/proxy_protocol.rs"]
mod proxy_protocol;
mod pubsub;
mod session;
mod store;
mod waiting;

use std::io::{self, Write as _};
use std::process::ExitCode;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::no_delay::NoDelay;

const USAGE: &str = "usage: redis_server [ADDR] [--proxy-protocol]";
const DEFAULT_ADDR: &str = "127.0.0.1:6379";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Some((addr, proxied)) = options(std::env::args().skip(1)) else {
        eprintln!("{USAGE}\nthe default is {DEFAULT_ADDR}");
        return ExitCode::from(2);
    };
    match run(&addr, proxied).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("redis_server: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Where to listen, and whether proxies connect.
fn options(args: impl Iterator<Item = String>) -> Option<(String, bool)> {
    let (mut addr, mut proxied) = (None, false);
    for arg in args {
        match arg.as_str() {
            "--proxy-protocol" => proxied = true,
            flag if flag.starts_with('-') => return None,
            _ if addr.is_some() => return None,
            _ => addr = Some(arg),
        }
    }
    Some((addr.unwrap_or_else(|| DEFAULT_ADDR.to_owned()), proxied))
}

async fn run(addr: &str, proxied: bool) -> io::Result<()> {
    let listener = TcpListener::bind(addr).await?;
    let signal = stop_signal()?;
    // Whoever started the server may have closed the other end of this.
    let _ = writeln!(io::stdout(), "listening on {}", listener.local_addr()?);
    let stop = CancellationToken::new();
    let serving = tokio::spawn(session::serve(NoDelay(listener), stop.clone(), proxied));
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
