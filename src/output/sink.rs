//! A [`FramedWrite`] with an output queue in front of it.
//!
//! All output goes through the queue: this file lends the wrapped writer to the queue's polls and never calls
//! those of the `FramedWrite`, which would overtake what is queued. Bytes that others put into the `FramedWrite`'s
//! buffer join the end of the queue at the next call.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::{fmt, future, mem};

use bytes::BytesMut;
use futures_sink::Sink;
use tokio::io::AsyncWrite;
use tokio_util::codec::{Encoder, FramedWrite};

use crate::output::error::{PushError, SinkError};
use crate::output::payload::Payload;
use crate::output::producer::Producer;
use crate::output::queue::Output;

/// A queue of bytes and producers in front of a [`FramedWrite`].
///
/// Everything pushed is sent once and in order. [`push`](Self::push) queues bytes,
/// [`push_with_producer`](Self::push_with_producer) queues a source that is asked for more whenever
/// there is room, [`close_when_done`](Self::close_when_done) puts the end behind them; text and binary
/// formats are written in place by [`write!`](Self::write_fmt) and [`push_with`](Self::push_with). None of
/// these waits or writes: the queue is written while [`flush`](Self::flush) or [`close`](Self::close) is awaited,
/// and, if it is full, while [`ready`](Self::ready) is.
///
/// It is also a [`Sink`] of whatever the wrapped `FramedWrite`'s encoder takes; what is encoded keeps
/// its place among what is pushed.
///
/// ```
/// use asynchat::{ProducerSink, SinkError, producer};
/// use tokio::io::AsyncReadExt;
/// use tokio_util::codec::{BytesCodec, FramedWrite};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), SinkError> {
/// let (local, mut peer) = tokio::io::duplex(64);
/// let mut sink = ProducerSink::new(FramedWrite::new(local, BytesCodec::new()));
///
/// sink.push("HTTP/1.0 200 OK\r\n\r\n").unwrap();
/// sink.push_with_producer(producer::iter(["first, ", "second"])).unwrap();
/// sink.close_when_done();
/// assert_eq!(sink.push("too late").unwrap_err().into_inner(), "too late");
/// sink.flush().await?;
///
/// let mut sent = String::new();
/// peer.read_to_string(&mut sent).await.unwrap();
/// assert_eq!(sent, "HTTP/1.0 200 OK\r\n\r\nfirst, second");
/// # Ok(())
/// # }
/// ```
///
/// # How it writes
///
/// Items of less than 1 KiB are copied together; larger ones go out as they are, together with what
/// is before and behind them in one vectored write where the writer can do that. What was written is
/// flushed when nothing more can be had at once: when the queue is empty, and when the producer at its
/// front has nothing yet. A writer that takes no bytes fails with
/// [`WriteZero`](io::ErrorKind::WriteZero). One poll writes about 1 MiB at most before it lets other
/// tasks run.
///
/// # How much it holds
///
/// A push is never refused for lack of room: whoever pushes more than a little should await `ready`
/// first. The queue is full from the push that makes it reach the high-water mark (256 KiB unless set)
/// until what waits is down to the low-water mark (64 KiB); `ready` waits while it is full. Whoever awaits it
/// before each push has at most the high-water mark and one push in the queue, beside what the producer at
/// the front has yielded.
///
/// A queued producer counts as 256 bytes. The one at the front is asked for more until one block (64 KiB
/// unless set) is ready, or as much as the high-water mark, if that is less; with the item that completes it,
/// that may be two blocks of a [`reader`](crate::producer::reader). What it yields doesn't make the queue full,
/// and `ready` asks it only for the sake of what was pushed behind it, so that an endless producer doesn't
/// keep `ready` waiting.
///
/// Once flushed, an empty queue holds no buffer. For small items that wait for the writer it holds no more than
/// twice their bytes and 2 KiB; large ones are held as they were pushed.
///
/// # Failure
///
/// The first error of the writer or of a producer is reported once, as [`SinkError::Write`] or
/// [`SinkError::Producer`]; the queue is dropped, and the sink is closed. A panic in one of them
/// closes it too.
///
/// # Cancellation safety
///
/// All that was queued is in the sink and nothing is in its futures: any of them can be dropped at
/// any time, and awaited again later. Of the [`Sink`] adapters, `SinkExt::send` and `feed` lose their
/// item if they are dropped before they have queued it.
pub struct ProducerSink<T, E> {
    framed: FramedWrite<T, E>,
    output: Output,
}

impl<T, E> ProducerSink<T, E> {
    /// Wraps a `FramedWrite`; bytes still in its write buffer go first.
    ///
    /// Its backpressure boundary no longer matters, see
    /// [`set_high_water_mark`](Self::set_high_water_mark).
    pub fn new(mut framed: FramedWrite<T, E>) -> Self {
        let mut output = Output::new();
        // The queue is new and open, so the push cannot fail.
        let _ = output.push(mem::take(framed.write_buffer_mut()));
        ProducerSink { framed, output }
    }

    /// Queues bytes.
    ///
    /// # Errors
    ///
    /// After a close, an abort or a failure the item is handed back.
    ///
    /// ```
    /// use asynchat::ProducerSink;
    /// use tokio_util::codec::{BytesCodec, FramedWrite};
    ///
    /// let mut sink = ProducerSink::new(FramedWrite::new(tokio::io::sink(), BytesCodec::new()));
    /// sink.push("a str")?;
    /// sink.push(b"a byte string")?;
    /// sink.push(vec![0; 1_000_000])?;
    /// assert_eq!(sink.queued_bytes(), 1_000_018);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[inline]
    pub fn push<P: Payload>(&mut self, item: P) -> Result<(), PushError<P>> {
        self.adopt();
        self.output.push(item)
    }

    /// Queues what `write` appends to a buffer, in place, and returns what it returns.
    ///
    /// The buffer is a [`BufMut`](bytes::BufMut), a [`fmt::Write`], and by
    /// [`writer`](bytes::BufMut::writer) an [`io::Write`]. There may be bytes of others in it, which stay
    /// where they are. For formatted text there is [`write!`](Self::write_fmt).
    ///
    /// ```
    /// use asynchat::ProducerSink;
    /// use bytes::BufMut;
    /// use tokio_util::codec::{BytesCodec, FramedWrite};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// let mut sink = ProducerSink::new(FramedWrite::new(Vec::new(), BytesCodec::new()));
    /// sink.push_with(|buffer| {
    ///     buffer.put_u16(3);
    ///     buffer.put_slice(b"abc");
    /// })?;
    /// sink.flush().await?;
    /// assert_eq!(sink.get_ref().get_ref(), b"\0\x03abc");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push): `write` is not called then.
    ///
    /// # Panics
    ///
    /// If `write` does, or takes away what was in the buffer. The sink has failed then.
    #[inline]
    pub fn push_with<R>(
        &mut self,
        write: impl FnOnce(&mut BytesMut) -> R,
    ) -> Result<R, PushError<()>> {
        self.adopt();
        self.output.push_with(write)
    }

    /// As [`push_with`](Self::push_with), with a `write` that may fail: then nothing is queued.
    ///
    /// ```
    /// use asynchat::ProducerSink;
    /// use bytes::BufMut;
    /// use std::io;
    /// use tokio_util::codec::{BytesCodec, FramedWrite};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> io::Result<()> {
    /// let mut sink = ProducerSink::new(FramedWrite::new(Vec::new(), BytesCodec::new()));
    /// let failed: io::Result<()> = sink.try_push_with(|buffer| {
    ///     buffer.put_u16(1000);
    ///     Err(io::ErrorKind::NotFound.into())
    /// });
    /// assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::NotFound);
    /// sink.flush().await?;
    /// assert!(sink.get_ref().get_ref().is_empty());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// What `write` returns; and [`SinkError::Closed`], as an [`io::Error`], after a close, an abort or a
    /// failure: `write` is not called then.
    ///
    /// # Panics
    ///
    /// As [`push_with`](Self::push_with).
    #[inline]
    pub fn try_push_with<R, F>(
        &mut self,
        write: impl FnOnce(&mut BytesMut) -> Result<R, F>,
    ) -> Result<R, F>
    where
        F: From<io::Error>,
    {
        self.adopt();
        let written = self.output.try_push_with(write);
        written.unwrap_or_else(|refused| Err(io::Error::from(refused).into()))
    }

    /// Queues formatted text, in place: this is what [`write!`] calls.
    ///
    /// # Errors
    ///
    /// After a close, an abort or a failure.
    ///
    /// # Panics
    ///
    /// As [`format!`] does, if an implementation of a formatting trait returns an error.
    ///
    /// ```
    /// use asynchat::ProducerSink;
    /// use tokio_util::codec::{BytesCodec, FramedWrite};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// let mut sink = ProducerSink::new(FramedWrite::new(Vec::new(), BytesCodec::new()));
    /// let (code, host) = (220, "mx.example.com");
    /// write!(sink, "{code} {host} ready\r\n")?;
    /// sink.flush().await?;
    /// assert_eq!(sink.get_ref().get_ref(), b"220 mx.example.com ready\r\n");
    /// # Ok(())
    /// # }
    /// ```
    pub fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> Result<(), PushError<()>> {
        self.adopt();
        self.output.write_fmt(text)
    }

    /// Queues a producer.
    ///
    /// # Errors
    ///
    /// After a close, an abort or a failure the producer is handed back.
    ///
    /// ```
    /// use asynchat::{ProducerSink, producer};
    /// use tokio_util::codec::{BytesCodec, FramedWrite};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// let mut sink = ProducerSink::new(FramedWrite::new(Vec::new(), BytesCodec::new()));
    /// sink.push_with_producer(producer::reader(&b"a file"[..]))?;
    /// sink.push(", and what comes behind it")?;
    /// sink.flush().await?;
    /// assert_eq!(sink.get_ref().get_ref(), b"a file, and what comes behind it");
    /// # Ok(())
    /// # }
    /// ```
    pub fn push_with_producer<P>(&mut self, producer: P) -> Result<(), PushError<P>>
    where
        P: Producer + Send + 'static,
    {
        self.adopt();
        self.output.push_with_producer(producer)
    }

    /// Takes no more pushes; when all that is queued has been written, flushes the writer and shuts it
    /// down.
    ///
    /// It only schedules the close: [`flush`](Self::flush) or [`close`](Self::close) carries it out.
    ///
    /// ```
    /// use asynchat::ProducerSink;
    /// use tokio::io::AsyncReadExt;
    /// use tokio_util::codec::{BytesCodec, FramedWrite};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (local, mut peer) = tokio::io::duplex(64);
    /// let mut sink = ProducerSink::new(FramedWrite::new(local, BytesCodec::new()));
    /// sink.push("221 goodbye\r\n").unwrap();
    /// sink.close_when_done();
    /// assert!(sink.push("and another thing").is_err());
    /// sink.flush().await?; // and the end
    /// let mut sent = String::new();
    /// peer.read_to_string(&mut sent).await?;
    /// assert_eq!(sent, "221 goodbye\r\n");
    /// # Ok(())
    /// # }
    /// ```
    pub fn close_when_done(&mut self) {
        self.adopt();
        self.output.close_when_done();
    }

    /// Drops all that is queued, but not a scheduled close.
    ///
    /// An item of which a part has been written stays cut short.
    ///
    /// ```
    /// use asynchat::ProducerSink;
    /// use tokio_util::codec::{BytesCodec, FramedWrite};
    ///
    /// let mut sink = ProducerSink::new(FramedWrite::new(tokio::io::sink(), BytesCodec::new()));
    /// sink.push("never sent")?;
    /// sink.close_when_done();
    /// sink.discard_buffers();
    /// assert!(sink.is_empty() && sink.is_closed());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn discard_buffers(&mut self) {
        self.adopt();
        self.output.discard_buffers();
    }

    /// Drops all that is queued and takes no more pushes, even if the peer takes nothing any more.
    ///
    /// Nothing is written or flushed from now on. The writer is not shut down yet: await
    /// [`close`](Self::close) for that, or drop the sink.
    ///
    /// ```
    /// use asynchat::ProducerSink;
    /// use tokio_util::codec::{BytesCodec, FramedWrite};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// let (stuck, _peer) = tokio::io::duplex(1);
    /// let mut sink = ProducerSink::new(FramedWrite::new(stuck, BytesCodec::new()));
    /// sink.push("more than it takes")?;
    /// sink.close_when_done();
    /// sink.abort();
    /// sink.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn abort(&mut self) {
        self.adopt();
        self.output.abort();
    }

    /// How many bytes are queued, without those that producers still hold.
    pub fn queued_bytes(&self) -> usize {
        self.output.queued_bytes() + self.framed.write_buffer().len()
    }

    /// How many bytes the writer has taken since the sink was made.
    ///
    /// ```
    /// use asynchat::ProducerSink;
    /// use tokio_util::codec::{BytesCodec, FramedWrite};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// let mut sink = ProducerSink::new(FramedWrite::new(Vec::new(), BytesCodec::new()));
    /// sink.push("six by")?;
    /// assert_eq!(sink.written_bytes(), 0);
    /// sink.flush().await?;
    /// assert_eq!(sink.written_bytes(), 6);
    /// # Ok(())
    /// # }
    /// ```
    pub fn written_bytes(&self) -> u64 {
        self.output.written()
    }

    /// How many pieces are queued: producers, large items, and runs of small items.
    pub fn len(&self) -> usize {
        self.output.len() + usize::from(!self.framed.write_buffer().is_empty())
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether pushes are refused: after a close, an abort or a failure.
    pub fn is_closed(&self) -> bool {
        !self.output.is_open()
    }

    /// The number of queued bytes from which [`ready`](Self::ready) waits: 256 KiB unless set.
    pub fn high_water_mark(&self) -> usize {
        self.output.high_water_mark()
    }

    /// Sets the number of queued bytes from which [`ready`](Self::ready) waits, from 1 to 4 GiB.
    ///
    /// ```
    /// use asynchat::ProducerSink;
    /// use futures::FutureExt;
    /// use tokio_util::codec::{BytesCodec, FramedWrite};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), asynchat::SinkError> {
    /// let (local, peer) = tokio::io::duplex(1);
    /// let mut sink = ProducerSink::new(FramedWrite::new(local, BytesCodec::new()));
    /// sink.set_high_water_mark(100);
    /// sink.push([0; 99]).unwrap();
    /// assert!(sink.ready().now_or_never().is_some());
    /// sink.push([0; 200]).unwrap(); // never refused, but now it is full
    /// assert!(sink.ready().now_or_never().is_none());
    /// # drop(peer);
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_high_water_mark(&mut self, bytes: usize) {
        self.output.set_high_water_mark(bytes);
    }

    /// The number of queued bytes down to which [`ready`](Self::ready) waits: 64 KiB unless set, and
    /// never more than the high-water mark.
    pub fn low_water_mark(&self) -> usize {
        self.output.low_water_mark()
    }

    /// Sets the number of queued bytes down to which [`ready`](Self::ready) waits.
    pub fn set_low_water_mark(&mut self, bytes: usize) {
        self.output.set_low_water_mark(bytes);
    }

    /// The number of bytes that are fetched from producers ahead of a write: 64 KiB unless set.
    pub fn block_size(&self) -> usize {
        self.output.block_size()
    }

    /// Sets the number of bytes that are fetched from producers ahead of a write; at least 1, up to 4 GiB.
    pub fn set_block_size(&mut self, bytes: usize) {
        self.output.set_block_size(bytes);
    }

    /// The wrapped `FramedWrite`.
    ///
    /// ```
    /// use asynchat::ProducerSink;
    /// use tokio_util::codec::{BytesCodec, FramedWrite};
    ///
    /// let sink = ProducerSink::new(FramedWrite::new(vec![1, 2], BytesCodec::new()));
    /// assert_eq!(sink.get_ref().get_ref(), &[1, 2]);
    /// ```
    pub fn get_ref(&self) -> &FramedWrite<T, E> {
        &self.framed
    }

    /// The wrapped `FramedWrite`, mutably.
    ///
    /// Bytes put into its write buffer join the end of the queue at the next call of the sink. What
    /// is written through it overtakes what is queued.
    pub fn get_mut(&mut self) -> &mut FramedWrite<T, E> {
        &mut self.framed
    }

    /// Takes the `FramedWrite` out, with the bytes that were not written in its write buffer.
    ///
    /// Producers that have not ended are dropped, with all that is queued behind them; `flush` first
    /// to lose nothing.
    ///
    /// ```
    /// use asynchat::ProducerSink;
    /// use tokio_util::codec::{BytesCodec, FramedWrite};
    ///
    /// let mut sink = ProducerSink::new(FramedWrite::new(tokio::io::sink(), BytesCodec::new()));
    /// sink.push("unsent")?;
    /// let framed = sink.into_inner();
    /// assert_eq!(framed.write_buffer(), "unsent");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn into_inner(mut self) -> FramedWrite<T, E> {
        self.adopt();
        *self.framed.write_buffer_mut() = self.output.take_bytes();
        self.framed
    }

    /// Moves what is in the `FramedWrite`'s own buffer to the end of the queue.
    #[inline]
    fn adopt(&mut self) {
        if !self.framed.write_buffer().is_empty() {
            // After a close the push is refused, and the bytes are dropped.
            let _ = self.output.push(mem::take(self.framed.write_buffer_mut()));
        }
    }
}

impl<T: AsyncWrite + Unpin, E> ProducerSink<T, E> {
    /// Waits until there is room: not at all unless the queue is full, else until it has been written down
    /// to the low-water mark.
    ///
    /// # Errors
    ///
    /// The writer or a producer fails, or the sink is closed.
    ///
    /// # Cancellation safety
    ///
    /// Nothing is lost when it is dropped.
    ///
    /// ```
    /// use asynchat::{ProducerSink, SinkError};
    /// use tokio_util::codec::{BytesCodec, FramedWrite};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), SinkError> {
    /// let mut sink = ProducerSink::new(FramedWrite::new(tokio::io::sink(), BytesCodec::new()));
    /// for number in 0..100_000 {
    ///     sink.ready().await?;
    ///     sink.push(format!("{number}\r\n")).unwrap();
    ///     assert!(sink.queued_bytes() <= sink.high_water_mark() + 8);
    /// }
    /// sink.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub async fn ready(&mut self) -> Result<(), SinkError> {
        future::poll_fn(|cx| self.poll_output(cx, Output::poll_ready)).await
    }

    /// Writes all that is queued and flushes the writer; then carries out a scheduled close.
    ///
    /// # Errors
    ///
    /// The writer or a producer fails, or failed before.
    ///
    /// # Cancellation safety
    ///
    /// Nothing is lost when it is dropped.
    pub async fn flush(&mut self) -> Result<(), SinkError> {
        future::poll_fn(|cx| self.poll_output(cx, Output::poll_flush)).await
    }

    /// Takes no more pushes, writes all that is queued, flushes the writer and shuts it down.
    ///
    /// # Errors
    ///
    /// The writer or a producer fails, or failed before.
    ///
    /// # Cancellation safety
    ///
    /// Nothing is lost when it is dropped; the close stays scheduled.
    ///
    /// ```
    /// use asynchat::{ProducerSink, SinkError};
    /// use tokio_util::codec::{BytesCodec, FramedWrite};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), SinkError> {
    /// let mut sink = ProducerSink::new(FramedWrite::new(Vec::new(), BytesCodec::new()));
    /// sink.push("bye").unwrap();
    /// sink.close().await?;
    /// assert_eq!(sink.get_ref().get_ref(), b"bye");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn close(&mut self) -> Result<(), SinkError> {
        future::poll_fn(|cx| self.poll_output(cx, Output::poll_close)).await
    }

    #[inline]
    fn poll_output<R>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Output, &mut Context<'_>, Pin<&mut T>) -> R,
    ) -> R {
        self.adopt();
        poll(&mut self.output, cx, Pin::new(self.framed.get_mut()))
    }
}

/// Items are what the wrapped `FramedWrite`'s encoder takes.
///
/// An item that the encoder refuses leaves nothing behind in the queue. Errors of the sink come as
/// [`io::Error`]s, which hold the [`SinkError`] unless the writer made them.
impl<T, I, E> Sink<I> for ProducerSink<T, E>
where
    T: AsyncWrite + Unpin,
    E: Encoder<I>,
    E::Error: From<io::Error>,
{
    type Error = E::Error;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), E::Error>> {
        let result = ready!(self.get_mut().poll_output(cx, Output::poll_ready));
        Poll::Ready(result.map_err(encoder_error))
    }

    fn start_send(self: Pin<&mut Self>, item: I) -> Result<(), E::Error> {
        let this = self.get_mut();
        this.adopt();
        let encoder = this.framed.encoder_mut();
        let queued = this.output.try_push_with(|buffer| encoder.encode(item, buffer));
        queued.unwrap_or_else(|refused| Err(io::Error::from(refused).into()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), E::Error>> {
        let result = ready!(self.get_mut().poll_output(cx, Output::poll_flush));
        Poll::Ready(result.map_err(encoder_error))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), E::Error>> {
        let result = ready!(self.get_mut().poll_output(cx, Output::poll_close));
        Poll::Ready(result.map_err(encoder_error))
    }
}

impl<T: fmt::Debug, E: fmt::Debug> fmt::Debug for ProducerSink<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProducerSink")
            .field("framed", &self.framed)
            .field("output", &self.output)
            .finish()
    }
}

fn encoder_error<E: From<io::Error>>(error: SinkError) -> E {
    io::Error::from(error).into()
}
