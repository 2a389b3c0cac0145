//! Data connections: each is a channel of its own, and carries one file or listing.
//!
//! The client connects to a port that was made for it. Only its own address is let in, within a time.
//! What it gets comes from a producer, behind which the channel closes. What it sends has no terminator:
//! it goes to the disk as it comes, and no more is read than that can take. The end of the connection is the
//! end of the file.

use std::io::{self, Read as _, Write as _};
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use asynchat::producer::{self, Producer};
use asynchat::{
    Channel, ChannelBuilder, ChannelError, Chunk, CloseReason, Control, Handler, Timeouts,
};
use bytes::Bytes;
use cap_std::fs::File;
use futures::stream;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::command::Reply;
use crate::files::off_thread;
use crate::pace::{Pace, Throttled};
#[cfg(target_os = "linux")]
use crate::sendfile;

/// The bytes of a file that are read at a time.
const BLOCK: usize = 128 * 1024;
/// The bytes of an upload that are written at a time: each way to a thread that waits for the disk costs about
/// as much as 64 KiB cost. In memory they take up to four times as much, as large pieces share the buffer that
/// they were read into.
const UPLOADED: usize = 512 * 1024;
/// From so many bytes on a piece is not copied.
const LARGE: usize = 16 * 1024;
/// How many connections may wait to be accepted. There is one that is wanted, and perhaps some strangers'.
const BACKLOG: u32 = 8;

pub(crate) const ABORTED: &str = "426 the transfer is aborted";

/// How data connections are treated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// How long the client is waited for: to connect, and then without a byte.
    pub(crate) wait: Duration,
    /// Bytes per second of each transfer.
    pub(crate) rate: Option<u32>,
}

/// A port at which one client is expected.
#[derive(Debug)]
pub(crate) struct Port {
    listener: TcpListener,
    peer: IpAddr,
}

impl Port {
    /// At the address that the client knows already.
    pub(crate) fn open(mut local: SocketAddr, peer: IpAddr) -> io::Result<Self> {
        let socket = if local.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        local.set_port(0);
        socket.bind(local)?;
        Ok(Port { listener: socket.listen(BACKLOG)?, peer })
    }

    pub(crate) fn number(&self) -> io::Result<u16> {
        Ok(self.listener.local_addr()?.port())
    }

    /// The client's connection. Anybody else's is closed without a word.
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
    // The close says that the file is complete: there is nothing to wait for behind it.
    let timeouts = Timeouts::default().idle(terms.wait).write_stall(terms.wait).linger(None);
    // What is read at once is the least that waits at a pace.
    Channel::builder(None).timeouts(timeouts).read_size(terms.block().min(64 * 1024))
}

/// Sends the rest of a file. Returns the reply for the control connection.
pub(crate) async fn send_file(port: Port, file: File, terms: Terms) -> Reply {
    #[cfg(target_os = "linux")]
    if terms.rate.is_none() {
        return match port.accept(terms).await {
            Ok(io) => match sendfile::producer(&io, file, terms.wait) {
                Ok(producer) => produce(io, producer, terms).await,
                Err(error) => error.into(),
            },
            Err(reply) => reply,
        };
    }
    send(port, read(file, terms), terms).await
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

/// A file → the bytes of a data connection.
fn read(file: File, terms: Terms) -> impl Producer + Send + 'static {
    let block = terms.block() as u64;
    producer::stream(stream::try_unfold(file, move |mut file| {
        off_thread(move || {
            let mut bytes = Vec::with_capacity(block as usize);
            (&mut file).take(block).read_to_end(&mut bytes)?;
            Ok((!bytes.is_empty()).then_some((bytes, file)))
        })
    }))
}

/// Writes what the client sends to a file. Returns the reply for the control connection.
///
/// What has come stays in the file, whatever happens: of an upload that was cut the client can send the
/// rest.
///
/// When it is aborted, nothing is being written any more once this returns: whoever writes to the file next
/// has it alone.
pub(crate) async fn receive(
    port: Port,
    file: File,
    terms: Terms,
    abort: CancellationToken,
) -> Reply {
    let io = match abort.run_until_cancelled(port.accept(terms)).await {
        Some(Ok(io)) => io,
        Some(Err(reply)) => return reply,
        None => return ABORTED.into(),
    };
    let pace = terms.rate.map(Pace::new);
    let upload = Upload { disk: Disk::Idle(file), unwritten: Unwritten::default(), pace };
    let (mut upload, reason) = channels(terms).build(io).run_until(upload, abort.cancelled()).await;
    let reply = match reason {
        CloseReason::PeerClosed => "226 complete".into(),
        CloseReason::Done => ABORTED.into(),
        CloseReason::Handler(reply) => return reply,
        reason => cut(&reason),
    };
    let written = match upload.write().await {
        Ok(()) => upload.written().await,
        Err(error) => Err(error),
    };
    written.map_or_else(Reply::from, |_| reply)
}

/// Of what has gone wrong where a file is sent by the kernel: was it the file?
fn is_disk(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    !matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | TimedOut)
}

fn cut(reason: &dyn std::fmt::Display) -> Reply {
    format!("426 the data connection was cut: {reason}").into()
}

impl Terms {
    /// The bytes that go at a time: not for seconds, at a slow pace.
    fn block(&self) -> usize {
        self.rate.map_or(BLOCK, |rate| (rate as usize / 4).clamp(512, BLOCK))
    }
}

/// What has come is written while the next is read.
struct Upload {
    disk: Disk,
    unwritten: Unwritten,
    pace: Option<Pace>,
}

enum Disk {
    Idle(File),
    Writing(JoinHandle<io::Result<File>>),
    Failed,
}

/// What has come, in its order: first the pieces, then what was gathered of small ones.
#[derive(Default)]
struct Unwritten {
    pieces: Vec<Bytes>,
    gathered: Vec<u8>,
    /// Of both.
    bytes: usize,
}

impl Unwritten {
    fn push(&mut self, data: &Chunk<'_>) {
        self.bytes += data.len();
        if data.len() < LARGE {
            self.gathered.extend_from_slice(data);
            return;
        }
        if !self.gathered.is_empty() {
            self.pieces.push(mem::take(&mut self.gathered).into());
        }
        self.pieces.push(data.to_bytes());
    }

    fn write_to(self, file: &mut File) -> io::Result<()> {
        self.pieces.iter().try_for_each(|piece| file.write_all(piece))?;
        file.write_all(&self.gathered)
    }
}

impl Upload {
    /// Begins to write, when what was being written is.
    async fn write(&mut self) -> io::Result<()> {
        let mut file = self.written().await?;
        let unwritten = mem::take(&mut self.unwritten);
        self.disk = Disk::Writing(spawn_blocking(move || {
            unwritten.write_to(&mut file)?;
            Ok(file)
        }));
        Ok(())
    }

    async fn written(&mut self) -> io::Result<File> {
        match mem::replace(&mut self.disk, Disk::Failed) {
            Disk::Idle(file) => Ok(file),
            Disk::Writing(writing) => writing.await.map_err(io::Error::other)?,
            Disk::Failed => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl Handler for Upload {
    type Error = Reply;

    fn collect_incoming_data(&mut self, data: Chunk<'_>, _: &mut Control<'_>) -> Result<(), Reply> {
        self.unwritten.push(&data);
        if let Some(pace) = &mut self.pace {
            pace.spend(data.len());
        }
        Ok(())
    }

    /// Nothing more is read until this returns: when the disk has taken what came before.
    async fn collected(&mut self, _: &mut Control<'_>) -> Result<(), Reply> {
        if self.unwritten.bytes >= UPLOADED {
            self.write().await?;
        }
        if let Some(pace) = &mut self.pace {
            pace.keep().await;
        }
        Ok(())
    }

    /// There is no terminator.
    async fn found_terminator(&mut self, _: &mut Control<'_>) -> Result<(), Reply> {
        Ok(())
    }
}
