//! The output queue: what waits to be written, and the state of the writing side.
//!
//! It knows nothing of connections: the writer is lent to each poll. Whoever owns the two together
//! (`ProducerSink`, a channel) is a thin skin over it.
//!
//! ```text
//!   push ─────────────────────────────────────────┐ (always at the very end)
//!                                                 ▼
//!   [ready: pieces] [producer][pieces behind it] [producer][pieces behind it]
//!      │        ▲        │
//!      ▼        └────────┘ asked for more until a block is ready
//!    writer
//! ```
//!
//! - A *piece* is a large item, uncopied, or a run of small items copied together. The writer gets as
//!   many as it takes, in one vectored write.
//! - Bytes leave the queue only when the writer has said how many it took, so that there is nothing to
//!   put back after a short write, `Pending`, an error or a future that is dropped.
//! - The queue has no heap memory from the end of a flush to the next push.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::{error, fmt};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

use crate::{Payload, output::Producer};

/// Bytes, producers and perhaps a close, waiting to be written.
pub(crate) struct Output {
    // What waits, from the first push to the end of the next flush.
    busy: Option<Box<Busy>>,
    high: u32,
    low: u32,
    // 1 <= block
    block: u32,
    state: State,
}

/// ```text
///   Open ⇄ Full
///     │     │ close_when_done      written, flushed            shut down
///     └─────┴────────────▶ Closing ────────────▶ ShuttingDown ──────────▶ Closed
///        any of these: ── abort ────────────────────▲
///        any of these: ── error, panic ─────────────────────────────────▶ Failed
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Takes pushes.
    Open,
    /// Takes pushes, but was above the high-water mark and is not yet down to the low one.
    Full,
    /// Takes no more; what waits is still written.
    Closing,
    /// Nothing waits any more; the writer is being shut down.
    ShuttingDown,
    /// The writer has been shut down.
    Closed,
    /// The writer or a producer failed, and that was reported.
    Failed,
}

impl Output {
    pub(crate) const fn new() -> Self {
        Output {
            busy: None,
            high: HIGH_WATER_MARK,
            low: LOW_WATER_MARK,
            block: BLOCK_SIZE,
            state: State::Open,
        }
    }

    /// Queues bytes.
    #[inline]
    pub(crate) fn push<T: Payload>(&mut self, item: T) -> Result<(), PushError<T>> {
        if !self.is_open() {
            return Err(PushError(item));
        }
        if !item.as_ref().is_empty() {
            self.busy().push(item);
        }
        Ok(())
    }

    /// Queues a producer.
    pub(crate) fn push_with_producer<P>(&mut self, producer: P) -> Result<(), PushError<P>>
    where
        P: Producer + Send + 'static,
    {
        if !self.is_open() {
            return Err(PushError(producer));
        }
        self.busy().waiting.push_back(Waiting { producer: Box::pin(producer), behind: None });
        Ok(())
    }

    /// Queues what `encode` appends, all of it or, if it fails, nothing.
    pub(crate) fn push_encoded<E: From<io::Error>>(
        &mut self,
        encode: impl FnOnce(&mut BytesMut) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.is_open() {
            return Err(io::Error::from(SinkError::Closed).into());
        }
        let mut busy = self.busy.take().unwrap_or_default();
        // This stands if the encoder panics.
        let state = mem::replace(&mut self.state, State::Failed);
        let result = busy.push_encoded(encode);
        self.busy = Some(busy);
        self.state = state;
        result
    }

    /// Queues bytes that were accepted elsewhere, if this is still open.
    pub(crate) fn adopt(&mut self, bytes: &mut BytesMut) {
        // Nothing is written after a close.
        let _ = self.push(mem::take(bytes));
    }

    /// Takes no more pushes, and shuts the writer down once all is written.
    pub(crate) fn close_when_done(&mut self) {
        if self.is_open() {
            self.state = State::Closing;
        }
    }

    /// Drops what waits, except a scheduled close.
    pub(crate) fn discard_buffers(&mut self) {
        self.busy = None;
    }

    /// Drops what waits and leaves only the shutdown to be done.
    pub(crate) fn abort(&mut self) {
        self.busy = None;
        if !matches!(self.state, State::Closed | State::Failed) {
            self.state = State::ShuttingDown;
        }
    }

    /// Waits until there is room: at once below the high-water mark, else by writing until the
    /// low-water mark.
    pub(crate) fn poll_ready<W: AsyncWrite + ?Sized>(
        &mut self,
        cx: &mut Context<'_>,
        io: Pin<&mut W>,
    ) -> Poll<Result<(), SinkError>> {
        match self.state {
            State::Open if self.weight() < self.high_water_mark() => Poll::Ready(Ok(())),
            State::Open | State::Full => {
                self.state = State::Full;
                ready!(self.poll_drain(cx, io, self.low_water_mark()))?;
                self.state = State::Open;
                Poll::Ready(Ok(()))
            }
            _ => Poll::Ready(Err(SinkError::Closed)),
        }
    }

    /// Writes all that waits and flushes the writer; then carries out a scheduled close.
    ///
    /// An idle queue leaves the writer alone.
    pub(crate) fn poll_flush<W: AsyncWrite + ?Sized>(
        &mut self,
        cx: &mut Context<'_>,
        mut io: Pin<&mut W>,
    ) -> Poll<Result<(), SinkError>> {
        loop {
            match self.state {
                State::Open | State::Full if self.is_idle() => {
                    self.state = State::Open;
                    return Poll::Ready(Ok(()));
                }
                State::Open | State::Full | State::Closing => {
                    ready!(self.poll_drain(cx, io.as_mut(), 0))?;
                    if let Err(error) = ready!(io.as_mut().poll_flush(cx)) {
                        return Poll::Ready(Err(self.fail(SinkError::Write(error))));
                    }
                    self.busy = None;
                    if self.state == State::Closing {
                        self.state = State::ShuttingDown;
                    }
                }
                State::ShuttingDown => {
                    if let Err(error) = ready!(io.as_mut().poll_shutdown(cx)) {
                        return Poll::Ready(Err(self.fail(SinkError::Write(error))));
                    }
                    self.state = State::Closed;
                }
                State::Closed => return Poll::Ready(Ok(())),
                State::Failed => return Poll::Ready(Err(SinkError::Closed)),
            }
        }
    }

    /// `close_when_done`, carried out.
    pub(crate) fn poll_close<W: AsyncWrite + ?Sized>(
        &mut self,
        cx: &mut Context<'_>,
        io: Pin<&mut W>,
    ) -> Poll<Result<(), SinkError>> {
        self.close_when_done();
        self.poll_flush(cx, io)
    }

    /// Is above the high-water mark, or was and is not yet down to the low one.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        match self.state {
            State::Open => self.weight() >= self.high_water_mark(),
            state => state == State::Full,
        }
    }

    /// Takes pushes, and is not full.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        self.state == State::Open && self.weight() < self.high_water_mark()
    }

    /// Takes pushes.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, State::Open | State::Full)
    }

    /// The writer has been shut down.
    pub(crate) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Nothing was queued since the last flush.
    pub(crate) fn is_idle(&self) -> bool {
        self.busy.is_none()
    }

    /// Bytes in the queue, without those that producers still hold.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.busy.as_ref().map_or(0, |busy| busy.bytes())
    }

    /// Pieces and producers in the queue.
    pub(crate) fn len(&self) -> usize {
        self.busy.as_ref().map_or(0, |busy| busy.len())
    }

    pub(crate) fn high_water_mark(&self) -> usize {
        self.high as usize
    }

    pub(crate) fn set_high_water_mark(&mut self, bytes: usize) {
        self.high = saturate(bytes.max(1));
    }

    pub(crate) fn low_water_mark(&self) -> usize {
        self.low.min(self.high) as usize
    }

    pub(crate) fn set_low_water_mark(&mut self, bytes: usize) {
        self.low = saturate(bytes);
    }

    pub(crate) fn block_size(&self) -> usize {
        self.block as usize
    }

    pub(crate) fn set_block_size(&mut self, bytes: usize) {
        self.block = saturate(bytes.max(1));
    }

    /// Takes out the bytes in front of the first producer, and drops the rest.
    pub(crate) fn take_bytes(&mut self) -> BytesMut {
        self.busy.take().map_or_else(BytesMut::new, |busy| busy.ready.into_contiguous())
    }

    /// What the marks are compared with: bytes, and a fixed cost for each producer.
    #[inline]
    fn weight(&self) -> usize {
        self.busy.as_ref().map_or(0, |busy| busy.weight())
    }

    #[inline]
    fn busy(&mut self) -> &mut Busy {
        self.busy.get_or_insert_default()
    }

    /// Writes until no more than `mark` waits.
    fn poll_drain<W: AsyncWrite + ?Sized>(
        &mut self,
        cx: &mut Context<'_>,
        io: Pin<&mut W>,
        mark: usize,
    ) -> Poll<Result<(), SinkError>> {
        let Some(mut busy) = self.busy.take() else {
            return Poll::Ready(Ok(()));
        };
        // This stands if a producer or the writer panics.
        let state = mem::replace(&mut self.state, State::Failed);
        let result = busy.poll_drain(cx, io, self.block as usize, mark);
        if let Poll::Ready(Err(error)) = result {
            return Poll::Ready(Err(self.fail(error)));
        }
        self.busy = Some(busy);
        self.state = state;
        result
    }

    fn fail(&mut self, error: SinkError) -> SinkError {
        self.busy = None;
        self.state = State::Failed;
        error
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output")
            .field("state", &self.state)
            .field("queued_bytes", &self.queued_bytes())
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// Why a sink could not write what was queued.
///
/// The first failure is reported as it is; the queue is dropped with it, and everything later is told
/// [`Closed`](SinkError::Closed). As an [`io::Error`] it keeps its kind; `Closed` is `BrokenPipe`.
///
/// ```
/// use asynchat::SinkError;
/// use std::io;
///
/// assert_eq!(io::Error::from(SinkError::Closed).kind(), io::ErrorKind::BrokenPipe);
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum SinkError {
    /// The writer failed, or took no bytes (`WriteZero`).
    Write(io::Error),
    /// A producer failed.
    Producer(io::Error),
    /// The sink is closed, or has failed before.
    Closed,
}

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SinkError::Write(_) => "writing failed",
            SinkError::Producer(_) => "a producer failed",
            SinkError::Closed => "the sink is closed",
        })
    }
}

impl error::Error for SinkError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            SinkError::Write(error) | SinkError::Producer(error) => Some(error),
            SinkError::Closed => None,
        }
    }
}

impl From<SinkError> for io::Error {
    fn from(error: SinkError) -> Self {
        let kind = match error {
            SinkError::Write(error) => return error,
            SinkError::Producer(ref error) => error.kind(),
            SinkError::Closed => io::ErrorKind::BrokenPipe,
        };
        io::Error::new(kind, error)
    }
}

/// A push that came after the close, with the item that was not queued.
///
/// ```
/// use asynchat::{ProducerSink, PushError};
/// use tokio_util::codec::{BytesCodec, FramedWrite};
///
/// let mut sink = ProducerSink::new(FramedWrite::new(tokio::io::sink(), BytesCodec::new()));
/// sink.close_when_done();
/// assert_eq!(sink.push("late"), Err(PushError("late")));
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PushError<T>(pub T);

impl<T> fmt::Debug for PushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushError").finish_non_exhaustive()
    }
}

impl<T> fmt::Display for PushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("push after close")
    }
}

impl<T> error::Error for PushError<T> {}

impl<T> From<PushError<T>> for io::Error {
    fn from(_: PushError<T>) -> Self {
        SinkError::Closed.into()
    }
}

/// What waits to be written.
#[derive(Default)]
struct Busy {
    // What the writer may have now.
    ready: Pieces,
    // The producers that have not ended, and what was pushed behind each.
    waiting: VecDeque<Waiting>,
    // The bytes behind the producers.
    behind: usize,
}

struct Waiting {
    producer: Pin<Box<dyn Producer + Send>>,
    // Boxed, as there is often none.
    behind: Option<Box<Pieces>>,
}

impl Waiting {
    fn behind(&self) -> usize {
        self.behind.as_ref().map_or(0, |pieces| pieces.len())
    }
}

/// Why no more was got from the producers.
enum Stop {
    /// A block is ready, or no producer is left.
    Enough,
    /// The first producer has nothing yet, and will wake the task.
    Pending,
    /// They were asked often enough for one poll.
    Spent,
}

impl Busy {
    fn push<T: Payload>(&mut self, item: T) {
        self.at_end(|pieces| pieces.push(item));
    }

    fn push_encoded<E>(
        &mut self,
        encode: impl FnOnce(&mut BytesMut) -> Result<(), E>,
    ) -> Result<(), E> {
        self.at_end(|pieces| {
            pieces.make_room(0);
            let before = pieces.gathered.len();
            let result = encode(&mut pieces.gathered);
            if result.is_err() {
                pieces.gathered.truncate(before);
            }
            result
        })
    }

    /// Appends to the last pieces of the queue.
    #[inline]
    fn at_end<R>(&mut self, append: impl FnOnce(&mut Pieces) -> R) -> R {
        if self.waiting.is_empty() { append(&mut self.ready) } else { self.behind_last(append) }
    }

    #[inline(never)]
    fn behind_last<R>(&mut self, append: impl FnOnce(&mut Pieces) -> R) -> R {
        let Some(last) = self.waiting.back_mut() else {
            return append(&mut self.ready);
        };
        self.behind -= last.behind();
        let result = append(last.behind.get_or_insert_default());
        self.behind += last.behind();
        result
    }

    /// Writes until no more than `mark` waits.
    fn poll_drain<W: AsyncWrite + ?Sized>(
        &mut self,
        cx: &mut Context<'_>,
        mut io: Pin<&mut W>,
        block: usize,
        mark: usize,
    ) -> Poll<Result<(), SinkError>> {
        let mut stop = Stop::Enough;
        let mut pulls = PULLS_PER_POLL;
        let mut budget = BYTES_PER_POLL;
        loop {
            if matches!(stop, Stop::Enough) {
                stop = self.fill(cx, block, &mut pulls)?;
            }
            if self.weight() <= mark {
                return Poll::Ready(Ok(()));
            }
            if self.ready.is_empty() {
                if matches!(stop, Stop::Spent) {
                    cx.waker().wake_by_ref();
                }
                return Poll::Pending;
            }
            if budget == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let written =
                ready!(self.ready.poll_write(cx, io.as_mut())).map_err(SinkError::Write)?;
            budget = budget.saturating_sub(written);
        }
    }

    /// Asks the producers for more until a block is ready.
    fn fill(
        &mut self,
        cx: &mut Context<'_>,
        block: usize,
        pulls: &mut u32,
    ) -> Result<Stop, SinkError> {
        while self.ready.len() < block {
            let Some(first) = self.waiting.front_mut() else {
                break;
            };
            if *pulls == 0 {
                return Ok(Stop::Spent);
            }
            *pulls -= 1;
            match first.producer.as_mut().poll_more(cx) {
                Poll::Pending => return Ok(Stop::Pending),
                Poll::Ready(Some(Ok(item))) => self.ready.push(item),
                Poll::Ready(Some(Err(error))) => return Err(SinkError::Producer(error)),
                Poll::Ready(None) => {
                    let ended = self.waiting.pop_front();
                    if let Some(pieces) = ended.and_then(|ended| ended.behind) {
                        self.behind -= pieces.len();
                        self.ready.append(*pieces);
                    }
                }
            }
        }
        Ok(Stop::Enough)
    }

    fn bytes(&self) -> usize {
        self.ready.len() + self.behind
    }

    fn weight(&self) -> usize {
        self.bytes() + self.waiting.len() * PRODUCER_WEIGHT
    }

    fn len(&self) -> usize {
        let behind: usize = self
            .waiting
            .iter()
            .map(|waiting| 1 + waiting.behind.as_ref().map_or(0, |pieces| pieces.count()))
            .sum();
        self.ready.count() + behind
    }
}

/// Bytes in order: large items uncopied, small ones copied together.
#[derive(Default)]
struct Pieces {
    // None is empty.
    sealed: VecDeque<Bytes>,
    sealed_bytes: usize,
    // Behind all sealed pieces: where small items are copied to.
    gathered: BytesMut,
}

impl Pieces {
    #[inline]
    fn push<T: Payload>(&mut self, item: T) {
        let bytes = item.as_ref();
        if bytes.len() < LARGE {
            self.make_room(bytes.len());
            self.gathered.extend_from_slice(bytes);
        } else {
            self.push_large(item.into_bytes());
        }
    }

    #[inline(never)]
    fn push_large(&mut self, bytes: Bytes) {
        self.seal();
        self.push_sealed(bytes);
    }

    /// Appends `other`, which is left as it is as far as possible.
    fn append(&mut self, mut other: Pieces) {
        if self.is_empty() {
            *self = other;
            return;
        }
        if !other.sealed.is_empty() {
            self.seal();
            self.sealed_bytes += other.sealed_bytes;
            self.sealed.append(&mut other.sealed);
        }
        self.push(other.gathered);
    }

    /// Makes sure that `len` more bytes can be gathered.
    #[inline]
    fn make_room(&mut self, len: usize) {
        let gathered = self.gathered.len();
        if gathered >= MAX_GATHER || self.gathered.capacity() - gathered < len {
            self.grow(len);
        }
    }

    #[inline(never)]
    fn grow(&mut self, len: usize) {
        if self.gathered.len() >= MAX_GATHER {
            self.seal();
            self.gathered = BytesMut::with_capacity(MAX_GATHER);
        } else {
            self.gathered.reserve(len.max(FIRST_GATHER));
        }
    }

    /// Ends the run of small items.
    fn seal(&mut self) {
        if !self.gathered.is_empty() {
            let gathered = self.gathered.split().freeze();
            self.push_sealed(gathered);
        }
    }

    fn push_sealed(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.sealed_bytes += bytes.len();
            self.sealed.push_back(bytes);
        }
    }

    /// Offers all that it can to the writer, once, and drops what was taken.
    fn poll_write<W: AsyncWrite + ?Sized>(
        &mut self,
        cx: &mut Context<'_>,
        io: Pin<&mut W>,
    ) -> Poll<io::Result<usize>> {
        let written = match self.sealed.front() {
            None => ready!(io.poll_write(cx, &self.gathered))?,
            Some(first) if self.count() == 1 || !io.is_write_vectored() => {
                ready!(io.poll_write(cx, first))?
            }
            Some(_) => {
                let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                let pieces = self.sealed.iter().map(|piece| &piece[..]);
                let pieces = pieces.chain([&self.gathered[..]]);
                let mut count = 0;
                for (slice, piece) in slices.iter_mut().zip(pieces) {
                    *slice = IoSlice::new(piece);
                    count += 1;
                }
                ready!(io.poll_write_vectored(cx, &slices[..count]))?
            }
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.advance(written);
        Poll::Ready(Ok(written))
    }

    /// Drops the first `count` bytes.
    fn advance(&mut self, mut count: usize) {
        while let Some(first) = self.sealed.front_mut() {
            if count < first.len() {
                first.advance(count);
                self.sealed_bytes -= count;
                return;
            }
            count -= first.len();
            self.sealed_bytes -= first.len();
            self.sealed.pop_front();
        }
        if count == self.gathered.len() {
            self.gathered.clear();
        } else {
            self.gathered.advance(count);
        }
    }

    fn into_contiguous(mut self) -> BytesMut {
        if self.sealed.is_empty() {
            return self.gathered;
        }
        self.seal();
        let mut all = BytesMut::with_capacity(self.len());
        for piece in self.sealed {
            all.extend_from_slice(&piece);
        }
        all
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        self.sealed_bytes + self.gathered.len()
    }

    fn count(&self) -> usize {
        self.sealed.len() + usize::from(!self.gathered.is_empty())
    }
}

fn saturate(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

pub(crate) const HIGH_WATER_MARK: u32 = 256 * 1024;
pub(crate) const LOW_WATER_MARK: u32 = 64 * 1024;
pub(crate) const BLOCK_SIZE: u32 = 64 * 1024;

/// From this size on an item is written as it is; below, it is copied.
const LARGE: usize = 1024;
/// What the first small item reserves.
const FIRST_GATHER: usize = 1024;
/// From this size on a run of small items is a piece of its own, and another is begun.
const MAX_GATHER: usize = 256 * 1024;
/// The weight of a queued producer beside the marks.
const PRODUCER_WEIGHT: usize = 256;
/// Pieces offered in one vectored write.
const MAX_SLICES: usize = 64;
/// How often producers are asked in one poll.
const PULLS_PER_POLL: u32 = 4096;
/// After so many bytes a poll lets other tasks run.
const BYTES_PER_POLL: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_queue_is_small() {
        assert!(mem::size_of::<Output>() <= 24);
    }
}
