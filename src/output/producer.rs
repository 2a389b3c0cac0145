//! Producers: sources of output that are asked for more until they have no more.
//!
//! A [`Producer`] is queued with [`ProducerSink::push_with_producer`], or with that of a channel, and asked for
//! its next bytes only when there is room for them, so that a file of any size costs no more than two blocks
//! of memory.
//!
//! The queue relies on nothing but the contract of [`Producer::poll_more`]: a producer may be slow,
//! endless, yield nothing but empty items, fail or panic.
//!
//! | what you have | how to make a producer of it |
//! |---|---|
//! | [`Bytes`] | it is one |
//! | an iterator of anything that is bytes | [`iter`] |
//! | a file, a socket, any [`AsyncRead`] | [`reader`] |
//! | a `Stream` of `Result`s of anything that is bytes | [`stream`] |
//! | an async block that makes one item | [`once`] |
//! | a closure that can be polled, a channel's receiver | [`poll_fn`] |
//!
//! [`ProducerSink::push_with_producer`]: crate::ProducerSink::push_with_producer

use std::fmt;
use std::io;
use std::ops::DerefMut;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes};
use futures_core::Stream;
use pin_project_lite::pin_project;
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

use crate::output::payload::Payload;
use crate::pool;

/// How many bytes [`reader`] asks for at a time unless told otherwise: 64 KiB.
pub const DEFAULT_BLOCK_SIZE: usize = 64 * 1024;

/// A source of output that is asked for more until it has no more.
///
/// The [module](self) lists the ready-made ones.
///
/// ```
/// use asynchat::{ProducerSink, producer::Producer};
/// use bytes::Bytes;
/// use std::{io, pin::Pin, task::{Context, Poll}};
/// use tokio_util::codec::{BytesCodec, FramedWrite};
///
/// /// Counts down, one line a number.
/// struct Countdown(u32);
///
/// impl Producer for Countdown {
///     fn poll_more(
///         mut self: Pin<&mut Self>,
///         _cx: &mut Context<'_>,
///     ) -> Poll<Option<io::Result<Bytes>>> {
///         if self.0 == 0 {
///             return Poll::Ready(None);
///         }
///         let line = format!("{}\r\n", self.0);
///         self.0 -= 1;
///         Poll::Ready(Some(Ok(line.into())))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), asynchat::SinkError> {
/// let mut sink = ProducerSink::new(FramedWrite::new(Vec::new(), BytesCodec::new()));
/// sink.push_with_producer(Countdown(3)).unwrap();
/// sink.flush().await?;
/// assert_eq!(sink.get_ref().get_ref(), b"3\r\n2\r\n1\r\n");
/// # Ok(())
/// # }
/// ```
#[must_use = "a producer does nothing unless it is queued"]
pub trait Producer {
    /// Asks for the next bytes.
    ///
    /// - `Pending`: none yet. The task is woken when it is worth asking again.
    /// - `Some(Ok(bytes))`: the next bytes. Empty ones are skipped; they do not end the producer.
    /// - `Some(Err(error))`: the producer failed, and so does the connection.
    /// - `None`: there is no more.
    ///
    /// It is not called again after an error or `None`. Small items are copied together, items of a
    /// kilobyte and more are written as they are.
    ///
    /// # Errors
    ///
    /// Whatever stands in the way of producing the next bytes, such as a failed read of a file.
    fn poll_more(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>>;

    /// Bounds on the number of bytes still to come: at least, and at most if known.
    ///
    /// It is a hint for whoever sends a header in front of the bytes, such as a `Content-Length`; the queue does
    /// not rely on it. The default, `(0, None)`, is right for any producer.
    ///
    /// ```
    /// use asynchat::producer::{self, Producer};
    /// use bytes::Bytes;
    ///
    /// let page = Bytes::from("<head>").chain(Bytes::from("<body>"));
    /// assert_eq!(page.size_hint(), (12, Some(12)));
    /// assert_eq!(producer::reader(&b"of unknown length"[..]).size_hint(), (0, None));
    /// ```
    fn size_hint(&self) -> (u64, Option<u64>) {
        (0, None)
    }

    /// Ends this producer after `limit` bytes, cutting the last item if need be.
    ///
    /// ```
    /// use asynchat::{ProducerSink, producer::{self, Producer}};
    /// # use tokio_util::codec::{BytesCodec, FramedWrite};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), asynchat::SinkError> {
    /// let mut sink = ProducerSink::new(FramedWrite::new(Vec::new(), BytesCodec::new()));
    /// sink.push_with_producer(producer::iter(["one ", "two"]).take(5)).unwrap();
    /// sink.flush().await?;
    /// assert_eq!(sink.get_ref().get_ref(), b"one t");
    /// # Ok(())
    /// # }
    /// ```
    fn take(self, limit: u64) -> Take<Self>
    where
        Self: Sized,
    {
        Take { producer: self, limit }
    }

    /// Goes on with `next` when this producer has no more.
    ///
    /// ```
    /// use asynchat::{ProducerSink, producer::Producer};
    /// use bytes::Bytes;
    /// # use tokio_util::codec::{BytesCodec, FramedWrite};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), asynchat::SinkError> {
    /// let mut sink = ProducerSink::new(FramedWrite::new(Vec::new(), BytesCodec::new()));
    /// let head = Bytes::from("head, ");
    /// sink.push_with_producer(head.chain(Bytes::from("body"))).unwrap();
    /// sink.flush().await?;
    /// assert_eq!(sink.get_ref().get_ref(), b"head, body");
    /// # Ok(())
    /// # }
    /// ```
    fn chain<P: Producer>(self, next: P) -> Chain<Self, P>
    where
        Self: Sized,
    {
        Chain { first: Some(self), second: next }
    }
}

/// Yields itself, then ends.
impl Producer for Bytes {
    fn poll_more(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Bytes>>> {
        let bytes = std::mem::take(&mut *self);
        Poll::Ready((!bytes.is_empty()).then_some(Ok(bytes)))
    }

    fn size_hint(&self) -> (u64, Option<u64>) {
        let len = self.len() as u64;
        (len, Some(len))
    }
}

impl<P> Producer for Pin<P>
where
    P: DerefMut<Target: Producer>,
{
    fn poll_more(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        self.as_deref_mut().poll_more(cx)
    }

    fn size_hint(&self) -> (u64, Option<u64>) {
        (**self).size_hint()
    }
}

/// Makes a producer of an iterator, one item after the other.
///
/// ```
/// use asynchat::{ProducerSink, producer};
/// # use tokio_util::codec::{BytesCodec, FramedWrite};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), asynchat::SinkError> {
/// let mut sink = ProducerSink::new(FramedWrite::new(Vec::new(), BytesCodec::new()));
/// let squares = (1..4).map(|n| format!("{} ", n * n));
/// sink.push_with_producer(producer::iter(squares)).unwrap();
/// sink.flush().await?;
/// assert_eq!(sink.get_ref().get_ref(), b"1 4 9 ");
/// # Ok(())
/// # }
/// ```
pub fn iter<I>(items: I) -> Iter<I::IntoIter>
where
    I: IntoIterator<Item: Payload>,
{
    Iter { items: items.into_iter() }
}

/// Makes a producer of a `Stream` of results.
///
/// ```
/// use asynchat::{ProducerSink, producer};
/// use std::io;
/// # use tokio_util::codec::{BytesCodec, FramedWrite};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), asynchat::SinkError> {
/// let mut sink = ProducerSink::new(FramedWrite::new(Vec::new(), BytesCodec::new()));
/// let lines = futures::stream::iter([io::Result::Ok("one\n"), Ok("two\n")]);
/// sink.push_with_producer(producer::stream(lines)).unwrap();
/// sink.flush().await?;
/// assert_eq!(sink.get_ref().get_ref(), b"one\ntwo\n");
/// # Ok(())
/// # }
/// ```
pub fn stream<S, B, E>(stream: S) -> FromStream<S>
where
    S: Stream<Item = Result<B, E>>,
    B: Payload,
    E: Into<io::Error>,
{
    FromStream { stream }
}

/// Makes a producer of a reader, such as a file, up to its end.
///
/// It reads up to [`DEFAULT_BLOCK_SIZE`] at a time, another size is set by
/// [`with_block_size`](Reader::with_block_size). It holds no buffer between reads, and what a read yields
/// holds no more than four times its size, however little that is.
///
/// ```
/// use asynchat::{ProducerSink, producer};
/// # use tokio_util::codec::{BytesCodec, FramedWrite};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), asynchat::SinkError> {
/// let mut sink = ProducerSink::new(FramedWrite::new(Vec::new(), BytesCodec::new()));
/// let file: &[u8] = b"what the file holds";
/// sink.push_with_producer(producer::reader(file)).unwrap();
/// sink.flush().await?;
/// assert_eq!(sink.get_ref().get_ref(), file);
/// # Ok(())
/// # }
/// ```
pub fn reader<R: AsyncRead>(reader: R) -> Reader<R> {
    Reader { reader, block_size: DEFAULT_BLOCK_SIZE }
}

/// Makes a producer of a future, such as an async block, that makes one item.
///
/// ```
/// use asynchat::{ProducerSink, producer};
/// # use tokio_util::codec::{BytesCodec, FramedWrite};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), asynchat::SinkError> {
/// let mut sink = ProducerSink::new(FramedWrite::new(Vec::new(), BytesCodec::new()));
/// let answer = tokio::spawn(async { 6 * 7 });
/// sink.push_with_producer(producer::once(async {
///     Ok(format!("the answer is {}", answer.await?))
/// })).unwrap();
/// sink.flush().await?;
/// assert_eq!(sink.get_ref().get_ref(), b"the answer is 42");
/// # Ok(())
/// # }
/// ```
pub fn once<F, B>(future: F) -> Once<F>
where
    F: Future<Output = io::Result<B>>,
    B: Payload,
{
    Once { future: Some(future) }
}

/// Makes a producer of a closure that does what [`Producer::poll_more`] says.
///
/// ```
/// use asynchat::{ProducerSink, producer};
/// use tokio::sync::mpsc;
/// # use tokio_util::codec::{BytesCodec, FramedWrite};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), asynchat::SinkError> {
/// let mut sink = ProducerSink::new(FramedWrite::new(Vec::new(), BytesCodec::new()));
/// let (sender, mut receiver) = mpsc::channel(8);
/// sink.push_with_producer(producer::poll_fn(move |cx| receiver.poll_recv(cx).map(|item| item.map(Ok))))
///     .unwrap();
/// tokio::spawn(async move {
///     sender.send("from another task".into()).await.unwrap();
/// });
/// sink.flush().await?;
/// assert_eq!(sink.get_ref().get_ref(), b"from another task");
/// # Ok(())
/// # }
/// ```
pub fn poll_fn<F>(poll_more: F) -> PollFn<F>
where
    F: FnMut(&mut Context<'_>) -> Poll<Option<io::Result<Bytes>>>,
{
    PollFn { poll_more }
}

/// The producer made by [`poll_fn`].
#[derive(Clone)]
#[must_use = "a producer does nothing unless it is queued"]
pub struct PollFn<F> {
    poll_more: F,
}

// The closure is never pinned.
impl<F> Unpin for PollFn<F> {}

impl<F> Producer for PollFn<F>
where
    F: FnMut(&mut Context<'_>) -> Poll<Option<io::Result<Bytes>>>,
{
    fn poll_more(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Bytes>>> {
        (self.poll_more)(cx)
    }
}

/// The producer made by [`iter`].
#[derive(Clone)]
#[must_use = "a producer does nothing unless it is queued"]
pub struct Iter<I> {
    items: I,
}

// The iterator is never pinned.
impl<I> Unpin for Iter<I> {}

impl<I> Producer for Iter<I>
where
    I: Iterator<Item: Payload>,
{
    fn poll_more(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Bytes>>> {
        Poll::Ready(self.items.next().map(|item| Ok(item.into_bytes())))
    }
}

pin_project! {
    /// The producer made by [`stream`].
    #[must_use = "a producer does nothing unless it is queued"]
    pub struct FromStream<S> {
        #[pin]
        stream: S,
    }
}

impl<S, B, E> Producer for FromStream<S>
where
    S: Stream<Item = Result<B, E>>,
    B: Payload,
    E: Into<io::Error>,
{
    fn poll_more(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let item = ready!(self.project().stream.poll_next(cx));
        Poll::Ready(item.map(|result| result.map(Payload::into_bytes).map_err(Into::into)))
    }
}

pin_project! {
    /// The producer made by [`reader`].
    #[must_use = "a producer does nothing unless it is queued"]
    pub struct Reader<R> {
        #[pin]
        reader: R,
        // 1 <= block_size
        block_size: usize,
    }
}

impl<R: AsyncRead> Reader<R> {
    /// Sets how many bytes are read at a time, at least 1.
    ///
    /// ```
    /// use asynchat::producer;
    /// let slow: &[u8] = b"for a narrow line";
    /// let producer = producer::reader(slow).with_block_size(512);
    /// # drop(producer);
    /// ```
    pub fn with_block_size(mut self, bytes: usize) -> Self {
        self.block_size = bytes.max(1);
        self
    }
}

impl<R: AsyncRead> Producer for Reader<R> {
    fn poll_more(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let this = self.project();
        let mut block = pool::take(*this.block_size);
        // A pooled buffer may have had bytes taken off its front. Their memory would be kept with the rest, so
        // `try_reclaim` makes `capacity` count it again.
        let _ = block.try_reclaim(block.capacity() + 1);
        // The buffer may have room for more than a block.
        let read = poll_read_buf(this.reader, cx, &mut (&mut block).limit(*this.block_size));
        let item = match read {
            Poll::Ready(Ok(1..)) if block.len() >= block.capacity() / 4 => {
                return Poll::Ready(Some(Ok(block.freeze())));
            }
            // A short read must not keep a whole block in the queue.
            Poll::Ready(Ok(1..)) => Poll::Ready(Some(Ok(Bytes::copy_from_slice(&block)))),
            Poll::Ready(Ok(0)) => Poll::Ready(None),
            Poll::Ready(Err(error)) => Poll::Ready(Some(Err(error))),
            Poll::Pending => Poll::Pending,
        };
        pool::give(block);
        item
    }
}

pin_project! {
    /// The producer made by [`once`].
    #[must_use = "a producer does nothing unless it is queued"]
    pub struct Once<F> {
        // `None` once it has completed.
        #[pin]
        future: Option<F>,
    }
}

impl<F, B> Producer for Once<F>
where
    F: Future<Output = io::Result<B>>,
    B: Payload,
{
    fn poll_more(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let mut this = self.project();
        let Some(future) = this.future.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        let result = ready!(future.poll(cx));
        this.future.set(None);
        Poll::Ready(Some(result.map(Payload::into_bytes)))
    }
}

pin_project! {
    /// The producer made by [`Producer::take`].
    #[derive(Debug)]
    #[must_use = "a producer does nothing unless it is queued"]
    pub struct Take<P> {
        #[pin]
        producer: P,
        // Bytes still to come, at most.
        limit: u64,
    }
}

impl<P: Producer> Producer for Take<P> {
    fn poll_more(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let this = self.project();
        if *this.limit == 0 {
            return Poll::Ready(None);
        }
        let mut item = ready!(this.producer.poll_more(cx));
        if let Some(Ok(bytes)) = &mut item {
            bytes.truncate(usize::try_from(*this.limit).unwrap_or(usize::MAX));
            *this.limit -= bytes.len() as u64;
        }
        Poll::Ready(item)
    }

    fn size_hint(&self) -> (u64, Option<u64>) {
        let (low, high) = self.producer.size_hint();
        let high = high.map_or(self.limit, |high| high.min(self.limit));
        (low.min(self.limit), Some(high))
    }
}

pin_project! {
    /// The producer made by [`Producer::chain`].
    #[derive(Debug)]
    #[must_use = "a producer does nothing unless it is queued"]
    pub struct Chain<P, Q> {
        // `None` once it has ended.
        #[pin]
        first: Option<P>,
        #[pin]
        second: Q,
    }
}

impl<P: Producer, Q: Producer> Producer for Chain<P, Q> {
    fn poll_more(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let mut this = self.project();
        if let Some(first) = this.first.as_mut().as_pin_mut() {
            let item = ready!(first.poll_more(cx));
            if item.is_some() {
                return Poll::Ready(item);
            }
            this.first.set(None);
        }
        this.second.poll_more(cx)
    }

    fn size_hint(&self) -> (u64, Option<u64>) {
        let (low, high) = self.second.size_hint();
        let Some(first) = &self.first else {
            return (low, high);
        };
        let (first_low, first_high) = first.size_hint();
        let sum = match (first_high, high) {
            (Some(first), Some(second)) => first.checked_add(second),
            _ => None,
        };
        (first_low.saturating_add(low), sum)
    }
}

// What the adapters hold is often not `Debug`: closures, async blocks.
macro_rules! opaque_debug {
    ($($name:ident),*) => {$(
        impl<T> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}

opaque_debug!(FromStream, Iter, Once, PollFn, Reader);

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Waker;

    use bytes::{Buf, BytesMut};

    use super::*;

    #[test]
    fn what_was_taken_off_the_front_of_a_pooled_buffer_counts() {
        let mut pooled = BytesMut::zeroed(64 * 1024);
        let memory = pooled.as_ptr_range();
        pooled.advance(16 * 1024);
        pool::give(pooled);

        // It is more than a quarter of what is left in the buffer, and less than a quarter of all that would be kept.
        let input = vec![b'x'; 13_000];
        let mut reader = pin!(reader(&input[..]).with_block_size(20_000));
        let item = reader.as_mut().poll_more(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(Some(Ok(item))) = item else { panic!("it is there: {item:?}") };
        assert_eq!(item, input);
        assert!(!memory.contains(&item.as_ptr()), "it keeps the buffer");
    }
}
