//! A file → a socket, without a copy of it in this process.
//!
//! The kernel sends the file by itself (`sendfile`). This is a producer nevertheless, so that its channel closes behind
//! it. It sends by its own handle to the channel's socket, on which nothing else is sent, and all that it yields is an
//! empty item for each part that was sent. The channel does not see whether the peer reads, so the deadline is here.
//! The kernel may wait for the disk meanwhile.

use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

use asynchat::producer::{self, Producer};
use bytes::Bytes;
use cap_std::fs::File;
use futures::stream;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The most bytes that are sent at a time. The socket may take fewer.
const PART: usize = 1024 * 1024;

/// Sends the rest of the file. It fails if the peer takes nothing for as long as `wait`.
pub(crate) fn producer(
    io: &TcpStream,
    file: File,
    wait: Duration,
) -> io::Result<impl Producer + Send + 'static> {
    let socket = std::net::TcpStream::from(io.as_fd().try_clone_to_owned()?);
    let ends = (TcpStream::from_std(socket)?, file);
    Ok(producer::stream(stream::try_unfold(ends, move |(socket, file)| async move {
        timeout(wait, socket.writable()).await??;
        let send = || Ok(rustix::fs::sendfile(&socket, &file, None, PART)?);
        match socket.try_io(Interest::WRITABLE, send) {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some((Bytes::new(), (socket, file)))),
            // The memory of the kernel may have been filled by other sockets since this one was writable.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Ok(Some((Bytes::new(), (socket, file))))
            }
            Err(error) => Err(error),
        }
    })))
}
