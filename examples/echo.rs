//! Sends every line back: `Framed` with a `TerminatorCodec`, and nothing else.
//!
//! ```text
//! cargo run --example echo [ADDR]
//! ```
//!
//! Lines are never collected, so their length needs no limit, and a prompt without a line end comes
//! back as promptly as a whole line.

use std::io;

use asynchat::{CodecError, Event, TerminatorCodec};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::codec::Framed;

/// Echoes one connection until its peer stops sending.
async fn echo(stream: TcpStream) -> Result<(), CodecError> {
    let (sink, events) = Framed::new(stream, TerminatorCodec::new(b"\r\n")).split();
    events
        .map_ok(|event| match event {
            Event::Chunk(bytes) => bytes,
            Event::Terminator => Bytes::from_static(b"\r\n"),
            // No limit was set, so nothing is overlong; what was truncated has been echoed.
            Event::Overlong | Event::WrongEnd | Event::Truncated => Bytes::new(),
        })
        .forward(sink) // which flushes when there is nothing more to read, not for every event
        .await
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let addr = std::env::args().nth(1);
    let listener = TcpListener::bind(addr.as_deref().unwrap_or("127.0.0.1:7777")).await?;
    let mut stop = std::pin::pin!(stop_signal()?);
    println!("listening on {}", listener.local_addr()?);

    loop {
        tokio::select! {
            () = &mut stop => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    tokio::spawn(async move {
                        if let Err(error) = echo(stream).await {
                            eprintln!("{peer}: {error}");
                        }
                    });
                }
                // Such as a lack of file descriptors: it may pass, and to try again at once would only spin.
                Err(error) => {
                    eprintln!("accept: {error}");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            },
        }
    }
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
