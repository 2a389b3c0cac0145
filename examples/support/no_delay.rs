//! A listener whose connections send at once what is written, however little it is.
//!
//! A server that answers in one write gains nothing from waiting for more to send (Nagle's algorithm). The option is
//! set here, and not in the service as `connection.io.set_nodelay(true)`, because the services of the examples serve
//! any stream: their tests have some that are no `TcpStream`.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use tokio::net::{TcpListener, TcpStream};
use tokio_util::net::Listener;

/// A listener that sets `TCP_NODELAY` on each connection.
#[derive(Debug)]
pub(crate) struct NoDelay(pub(crate) TcpListener);

impl Listener for NoDelay {
    type Io = TcpStream;
    type Addr = SocketAddr;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let accepted = self.0.poll_accept(cx);
        if let Poll::Ready(Ok((io, _))) = &accepted {
            // If this fails, the server is only slower.
            let _ = io.set_nodelay(true);
        }
        accepted
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}
