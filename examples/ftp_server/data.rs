//! Data connections: each is a channel of its own, and carries one file or listing.
//!
//! The client connects to a port that was opened for it. Only connections from its own address are accepted, and only
//! for a time. A download is a producer, behind which the channel closes. An upload has no terminator: it is written to
//! the disk as it comes, and no more is read than the disk takes. The end of the connection is the end of the file.
//!
//! The channel of a file runs in one of a few threads that may wait for the disk: what was read from the socket is
//! written to the disk at once, or the other way round. This costs less than to hand all bytes, or each part of a file,
//! to another thread and back.

use std::io::{self, Read as _, Write as _};
use std::iter;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use asynchat::producer::{self, Producer};
use asynchat::{
    Channel, ChannelBuilder, ChannelError, Chunk, CloseReason, Control, Handler, Timeouts,
};
use cap_std::fs::File;
use futures::stream;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::LocalPoolHandle;

use crate::command::Reply;
use crate::pace::{Pace, Throttled};
#[cfg(target_os = "linux")]
use crate::sendfile;

/// The bytes of a file that are read at a time.
const BLOCK: usize = 128 * 1024;
/// How many connections may wait to be accepted: the client's, and perhaps some of strangers.
const BACKLOG: u32 = 8;

pub(crate) const ABORTED: &str = "426 the transfer is aborted";

/// The settings of data connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// How long to wait for the client: to connect, and then for the next byte.
    pub(crate) wait: Duration,
    /// The most bytes per second of each transfer, or `None` without a limit.
    pub(crate) rate: Option<u32>,
}

/// A port at which one client is expected.
#[derive(Debug)]
pub(crate) struct Port {
    listener: TcpListener,
    peer: IpAddr,
}

impl Port {
    /// Opens a port at `local`, which is the address that the client is connected to already.
    pub(crate) fn open(mut local: SocketAddr, peer: IpAddr) -> io::Result<Self> {
        let socket = if local.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        local.set_port(0);
        socket.bind(local)?;
        Ok(Port { listener: socket.listen(BACKLOG)?, peer })
    }

    pub(crate) fn number(&self) -> io::Result<u16> {
        Ok(self.listener.local_addr()?.port())
    }

    /// Accepts the client's connection. Connections from other addresses are closed without an answer.
    async fn accept(self, terms: Terms) -> Result<TcpStream, Reply> {
        let accepting = async {
            loop {
                match self.listener.accept().await {
                    Ok((io, from)) if from.ip() == self.peer => return Ok(io),
                    Ok(_) => {}
                    Err(error) => return Err(error),
                }
            }
        };
        match timeout(terms.wait, accepting).await {
            Ok(Ok(io)) => Ok(io),
            Ok(Err(_)) => Err("425 the data connection could not be opened".into()),
            Err(_) => Err("425 nobody has connected".into()),
        }
    }
}

fn channels(terms: Terms) -> ChannelBuilder {
    // The close says that the file is complete, and there is nothing to wait for after it.
    let timeouts = Timeouts::default().idle(terms.wait).write_stall(terms.wait).linger(None);
    // A rate limit delays whole reads, so at a low rate they are small.
    Channel::builder(None).timeouts(timeouts).read_size(terms.block().min(64 * 1024))
}

/// Where files are sent and received.
#[derive(Clone, Debug)]
pub(crate) struct Transfers {
    pub(crate) terms: Terms,
    pub(crate) threads: LocalPoolHandle,
}

impl Transfers {
    /// Sends the rest of a file. Returns the reply for the control connection.
    pub(crate) async fn send_file(self, port: Port, file: File, abort: CancellationToken) -> Reply {
        let Transfers { terms, threads } = self;
        let stop = abort.clone();
        let sending = move |io| unless(stop, deliver(io, file, terms));
        in_thread(threads, port, terms, abort, sending).await
    }

    /// Writes what the client sends to a file. Returns the reply for the control connection.
    ///
    /// What has come stays in the file, whatever happens: if an upload was cut, the client can send the rest. If it is
    /// aborted, all writing has ended when this returns, so that the next upload has the file to itself.
    pub(crate) async fn receive(self, port: Port, file: File, abort: CancellationToken) -> Reply {
        let Transfers { terms, threads } = self;
        let stop = abort.clone();
        let receiving = move |io| store(io, file, terms, stop);
        in_thread(threads, port, terms, abort, receiving).await
    }
}

/// Does something with the client's connection in a thread that may wait for the disk.
async fn in_thread<T>(
    threads: LocalPoolHandle,
    port: Port,
    terms: Terms,
    abort: CancellationToken,
    transfer: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> Reply
where
    T: Future<Output = Reply> + 'static,
{
    let io = match abort.run_until_cancelled(port.accept(terms)).await {
        // The stream is taken out of this runtime, and given to that of the thread below.
        Some(Ok(io)) => io.into_std(),
        Some(Err(reply)) => return reply,
        None => return ABORTED.into(),
    };
    let transferring = threads.spawn_pinned(move || async move {
        match io.and_then(TcpStream::from_std) {
            Ok(io) => transfer(io).await,
            Err(error) => cut(&error),
        }
    });
    transferring.await.unwrap_or_else(|error| cut(&error))
}

/// Runs a transfer, which is dropped when it is aborted. So it must be one that leaves nothing behind then.
pub(crate) async fn unless(
    abort: CancellationToken,
    transfer: impl Future<Output = Reply>,
) -> Reply {
    abort.run_until_cancelled(transfer).await.unwrap_or_else(|| ABORTED.into())
}

async fn deliver(io: TcpStream, file: File, terms: Terms) -> Reply {
    match terms.rate {
        #[cfg(target_os = "linux")]
        None => match sendfile::producer(&io, file, terms.wait) {
            Ok(producer) => produce(io, producer, terms).await,
            Err(error) => error.into(),
        },
        #[cfg(not(target_os = "linux"))]
        None => produce(io, read(file, terms), terms).await,
        Some(rate) => produce(io, Throttled::new(read(file, terms), Pace::new(rate)), terms).await,
    }
}

/// A file → the bytes of a data connection. This blocks while the disk does.
fn read(mut file: File, terms: Terms) -> impl Producer + Send + 'static {
    let block = terms.block() as u64;
    producer::stream(stream::iter(iter::from_fn(move || {
        let mut bytes = Vec::with_capacity(block as usize);
        let read = (&mut file).take(block).read_to_end(&mut bytes);
        read.map(|read| (read > 0).then_some(bytes)).transpose()
    })))
}

async fn store(io: TcpStream, file: File, terms: Terms, abort: CancellationToken) -> Reply {
    let upload = Upload { file, pace: terms.rate.map(Pace::new) };
    let mut channel = channels(terms).build(io);
    match channel.run_until(upload, abort.cancelled()).await.1 {
        CloseReason::PeerClosed => "226 complete".into(),
        CloseReason::Done => ABORTED.into(),
        CloseReason::Handler(error) => error.into(),
        reason => cut(&reason),
    }
}

/// Sends what a producer has. Returns the reply for the control connection.
pub(crate) async fn send(
    port: Port,
    producer: impl Producer + Send + 'static,
    terms: Terms,
) -> Reply {
    match (port.accept(terms).await, terms.rate) {
        (Ok(io), None) => produce(io, producer, terms).await,
        (Ok(io), Some(rate)) => produce(io, Throttled::new(producer, Pace::new(rate)), terms).await,
        (Err(reply), _) => reply,
    }
}

async fn produce(io: TcpStream, producer: impl Producer + Send + 'static, terms: Terms) -> Reply {
    let mut channel = channels(terms).build(io);
    let sent = match channel.push_with_producer(producer) {
        Ok(()) => channel.close().await,
        Err(closed) => Err(closed.into()),
    };
    match sent {
        Ok(()) => "226 complete".into(),
        Err(ChannelError::Producer(error)) if is_disk(&error) => error.into(),
        Err(ChannelError::Producer(error)) => cut(&error),
        Err(error) => cut(&error),
    }
}

/// Whether an error of a producer is one of the file. Where the kernel sends the file, it may be one of the connection.
fn is_disk(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    !matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | TimedOut)
}

fn cut(reason: &dyn std::fmt::Display) -> Reply {
    format!("426 the data connection was cut: {reason}").into()
}

impl Terms {
    /// How many bytes are sent or received at a time: at a low rate so few that none of it takes seconds.
    fn block(&self) -> usize {
        self.rate.map_or(BLOCK, |rate| (rate as usize / 4).clamp(512, BLOCK))
    }
}

struct Upload {
    file: File,
    pace: Option<Pace>,
}

impl Handler for Upload {
    type Error = io::Error;

    /// Blocks while the disk does, which this thread may.
    fn collect_incoming_data(&mut self, data: Chunk<'_>, _: &mut Control<'_>) -> io::Result<()> {
        if let Some(pace) = &mut self.pace {
            pace.spend(data.len());
        }
        self.file.write_all(&data)
    }

    /// Nothing more is read until this returns.
    async fn collected(&mut self, _: &mut Control<'_>) -> io::Result<()> {
        if let Some(pace) = &mut self.pace {
            pace.keep().await;
        }
        Ok(())
    }
}
