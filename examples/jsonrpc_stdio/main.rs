//! JSON-RPC 2.0 over stdin and stdout, in both framings that people use: a language server and an MCP server
//! that count words.
//!
//! ```text
//! cargo run --release --example jsonrpc_stdio
//! ```
//!
//! The first byte that the client writes, apart from white space, says which protocol it speaks. A letter begins a
//! head, as in `Content-Length: 38`: this is an editor that wants a language server (LSP). Anything else is a message
//! on a line of its own, as in MCP, and then this is an MCP server:
//!
//! ```console
//! $ echo '{"jsonrpc": "2.0", "id": 1, "method": "ping"}' | cargo run -q --example jsonrpc_stdio
//! {"id":1,"jsonrpc":"2.0","result":{}}
//! ```
//!
//! | what | |
//! |---|---|
//! | LSP | initialize, shutdown, exit; textDocument/didOpen, didChange (of the whole text), didClose, hover |
//! | MCP | initialize, ping, tools/list, tools/call, of the versions 2024-11-05 to 2025-11-25 |
//! | JSON-RPC | ids of every type, notifications, batches of up to 1000 |
//! | left out | requests to the client, changes of parts of a text, MCP without a handshake (2026-07-28) |
//! | too long | a message of more than 8 MiB is answered by an error, skipped, and the session goes on |
//! | ends | with `exit`, at the end of stdin, and at SIGTERM or SIGINT |
//! | exit code | 1 after an error, and after `exit` without `shutdown`; otherwise 0 |
//!
//! Of a head:
//!
//! | what | |
//! |---|---|
//! | `Content-Length` that is missing, given twice, or no number | the length of the message cannot be known: an error, and the end |
//! | a line that is no `Name: value`, a head of more than 8 KiB | likewise |
//! | a charset in `Content-Type` other than UTF-8 | the message is skipped and answered by an error |
//! | other headers | ignored |
//! | lines that end with LF alone | accepted: a pipe has one reader only, so nothing can be smuggled past another |
//! | empty lines before it | ignored, as they are between lines |
//!
//! | file | what it knows |
//! |---|---|
//! | `main.rs` | stdin, stdout, signals, the exit code |
//! | `session.rs` | the two framings, limits |
//! | `head.rs` | what the lines of a head say (no I/O) |
//! | `rpc.rs` | a text → what is answered: requests, batches, errors (no I/O) |
//! | `lsp.rs`, `mcp.rs` | the methods (no I/O) |
//! | `words.rs` | what a word is |

mod head;
mod lsp;
mod mcp;
mod rpc;
mod session;
mod words;

use std::io;

use asynchat::CloseReason;
use tokio::io::AsyncRead;

use crate::session::Session;

/// The longest message, in bytes. It is held in memory.
const MAX_MESSAGE: u64 = 8 << 20;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let code = match stop_signal() {
        Ok(stop) => serve(stop).await,
        Err(error) => {
            eprintln!("jsonrpc_stdio: {error}");
            1
        }
    };
    // The process is not ended by returning: if stdin is no pipe, a thread of the runtime may be reading it, and the
    // runtime would wait for that. All output has been written.
    std::process::exit(code);
}

/// Serves the client, and returns the exit code.
async fn serve(stop: impl Future<Output = ()>) -> i32 {
    let io = tokio::io::join(stdin(), tokio::io::stdout());
    let mut channel = session::channels(MAX_MESSAGE).build(io);
    let (session, reason) = channel.run_until(Session::new(MAX_MESSAGE), stop).await;
    match reason {
        CloseReason::PeerClosed | CloseReason::Done => session.exit_code(),
        other => {
            eprintln!("jsonrpc_stdio: {other}");
            1
        }
    }
}

/// Standard input. A pipe is read like a socket, without a thread; anything else is read by a thread.
fn stdin() -> Box<dyn AsyncRead + Unpin> {
    #[cfg(unix)]
    {
        use std::os::fd::AsFd;
        use tokio::net::unix::pipe::Receiver;
        let pipe = io::stdin().as_fd().try_clone_to_owned().and_then(Receiver::from_owned_fd);
        if let Ok(pipe) = pipe {
            return Box::new(pipe);
        }
    }
    Box::new(tokio::io::stdin())
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
