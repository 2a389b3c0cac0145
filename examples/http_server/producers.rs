//! Producers of responses, which are asked for more when the peer has read what came before.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use asynchat::producer::{self, Producer, Reader};
use bytes::Bytes;
use tokio::io::AsyncRead;
use tokio::sync::oneshot;

/// The pause between two ticks.
const TICK: Duration = Duration::from_millis(100);

/// A fixed number of bytes of a reader. If it has fewer, that is an error, which cuts the connection: the peer was
/// promised more.
pub(crate) struct Exact<R> {
    reader: Reader<R>,
    left: u64,
}

impl<R: AsyncRead> Exact<R> {
    pub(crate) fn new(reader: R, length: u64) -> Self {
        Exact { reader: producer::reader(reader), left: length }
    }
}

impl<R: AsyncRead + Unpin> Producer for Exact<R> {
    fn poll_more(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Bytes>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let mut item = ready!(Pin::new(&mut self.reader).poll_more(cx));
        match &mut item {
            Some(Ok(bytes)) => {
                bytes.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= bytes.len() as u64;
            }
            Some(Err(_)) => {}
            None => item = Some(Err(io::ErrorKind::UnexpectedEof.into())),
        }
        Poll::Ready(item)
    }
}

/// Another producer, whose end somebody waits for.
pub(crate) struct Watched<P> {
    producer: P,
    /// Dropped with the producer, which completes the receiver.
    _over: oneshot::Sender<()>,
}

impl<P> Watched<P> {
    pub(crate) fn new(producer: P, over: oneshot::Sender<()>) -> Self {
        Watched { producer, _over: over }
    }
}

impl<P: Producer + Unpin> Producer for Watched<P> {
    fn poll_more(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Bytes>>> {
        Pin::new(&mut self.producer).poll_more(cx)
    }
}

/// Another producer in the chunked transfer coding: a chunk an item.
pub(crate) struct Chunked<P> {
    /// `None` once it has ended.
    producer: Option<P>,
}

impl<P> Chunked<P> {
    pub(crate) fn new(producer: P) -> Self {
        Chunked { producer: Some(producer) }
    }
}

impl<P: Producer + Unpin> Producer for Chunked<P> {
    fn poll_more(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Bytes>>> {
        let Some(producer) = &mut self.producer else {
            return Poll::Ready(None);
        };
        Poll::Ready(Some(match ready!(Pin::new(producer).poll_more(cx)) {
            // An empty chunk would mean the end of the body.
            Some(Ok(bytes)) if bytes.is_empty() => Ok(bytes),
            Some(Ok(bytes)) => {
                let size = format!("{:x}\r\n", bytes.len());
                Ok([size.as_bytes(), &bytes, b"\r\n"].concat().into())
            }
            Some(Err(error)) => Err(error),
            None => {
                self.producer = None;
                Ok(Bytes::from_static(b"0\r\n\r\n"))
            }
        }))
    }
}

/// Lines that come one by one.
pub(crate) fn ticks(count: u32) -> impl Producer + Send + Unpin + 'static {
    let mut interval = tokio::time::interval(TICK);
    let mut ticks = 1..=count;
    producer::poll_fn(move |cx| {
        if ticks.is_empty() {
            return Poll::Ready(None);
        }
        ready!(interval.poll_tick(cx));
        Poll::Ready(ticks.next().map(|tick| Ok(format!("tick {tick}\n").into())))
    })
}
