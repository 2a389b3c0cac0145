//! A control connection on which urgent data is read like any other data.
//!
//! Clients send what comes before an ABOR, or all of it, as Telnet's urgent data. The last byte of that is
//! left out of the stream unless one asks for it, and it may be the LF of the command.
//!
//! A read ends in front of that byte, even if it has come. After a read that does not fill its buffer Tokio waits until
//! the kernel reports more input, but the kernel has reported it already. So here every read is tried until it would
//! block.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

#[derive(Debug)]
pub(crate) struct Inline(TcpStream);

impl Inline {
    pub(crate) fn new(io: TcpStream) -> io::Result<Self> {
        #[cfg(unix)]
        rustix::net::sockopt::set_socket_oobinline(&io, true)?;
        Ok(Inline(io))
    }
}

impl AsyncRead for Inline {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            match self.0.try_read_buf(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read.map(drop)),
            }
        }
    }
}

impl AsyncWrite for Inline {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
