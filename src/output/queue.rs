//! The output queue: what waits to be written, and the state of the writing side.
//!
//! It knows nothing of connections: the writer is lent to each poll. Whoever owns the two together
//! (`ProducerSink`, a channel) is a thin skin over it.
//!
//! ```text
//!   push ───────────────────────────────────────────────┐ (always at the very end)
//!                                                       ▼
//!   [ready: pieces]   [producer]   [behind: pieces, with the other producers in their places]
//!      │        ▲        │
//!      ▼        └────────┘ asked for more, up to a block
//!    writer
//! ```
//!
//! What always holds:
//!
//! - **Room.** The queue is full from the push that reaches the high-water mark until what waits is
//!   down to the low one. The producer in front is no part of what waits, and what it yields doesn't make
//!   the queue full: it is asked for more only up to a block and the high mark, and while room is waited
//!   for only if what is ready does not stand between the queue and its low mark. So neither an endless
//!   producer nor equal marks keep a queue full for ever. After [`Output::poll_ready`] has succeeded the
//!   queue is not full.
//! - **Flush.** What was written is flushed as soon as nothing more can be had at once: when all is
//!   written, and when the producer in front has nothing yet.
//! - **Bounded work.** One poll writes about [`BYTES_PER_POLL`] bytes, then wakes its task and is pending.
//! - **Failure.** An error of the writer or a producer is told once, and a panic in one of them leaves
//!   the queue failed. In both cases all that was queued is dropped.
//! - **Memory.** There is none on the heap from the end of a flush to the next push.
//!
//! To touch when a state is added: [`State`], and the two functions that match all of it,
//! [`Output::poll_flush`] and [`Output::is_refused`].

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::AsyncWrite;

use crate::output::error::{PushError, SinkError};
use crate::output::payload::Payload;
use crate::output::pieces::Pieces;
use crate::output::producer::Producer;

/// Bytes, producers and perhaps a close, waiting to be written.
pub(crate) struct Output {
    state: State,
    marks: Marks,
    /// In bytes, since the beginning.
    written: u64,
}

/// ```text
///   Open ── close_when_done ──▶ Closing ── written, flushed ──▶ ShuttingDown ── shut down ──▶ Closed
///     any but Closed and Failed: ── abort ───────────────────────────▲
///     any: ── error, panic ──▶ Failed
/// ```
enum State {
    /// Takes pushes. There is a queue from the first push to the end of the next flush.
    Open(Option<Box<Queue>>),
    /// Takes no more; what waits is still written.
    Closing(Box<Queue>),
    /// Nothing waits any more; the writer is being shut down.
    ShuttingDown,
    /// The writer has been shut down.
    Closed,
    /// The writer or a producer failed, and that was reported.
    Failed,
}

#[derive(Clone, Copy)]
struct Marks {
    // 1 <= high
    high: u32,
    // low <= high where it is read
    low: u32,
    // 1 <= block
    block: u32,
}

impl Output {
    pub(crate) const fn new() -> Self {
        let marks = Marks { high: HIGH_WATER_MARK, low: LOW_WATER_MARK, block: BLOCK_SIZE };
        Output { state: State::Open(None), marks, written: 0 }
    }

    /// Queues bytes.
    #[inline]
    pub(crate) fn push<T: Payload>(&mut self, item: T) -> Result<(), PushError<T>> {
        if self.gather(item.as_bytes()) { Ok(()) } else { self.push_any(item) }
    }

    /// Queues bytes, if it is known that there is room for them where small items are copied to, and that the
    /// queue is not full then. Says whether it did.
    ///
    /// This is all of [`push`](Self::push) for most items, and small enough to be inlined: to ask each time
    /// whether the queue is open, full and without producers takes longer than to copy a line.
    #[inline]
    pub(crate) fn gather(&mut self, bytes: &[u8]) -> bool {
        match &mut self.state {
            State::Open(Some(queue)) => queue.gather(bytes),
            _ => false,
        }
    }

    fn push_any<T: Payload>(&mut self, item: T) -> Result<(), PushError<T>> {
        let State::Open(queue) = &mut self.state else {
            return Err(PushError::new(item));
        };
        if !item.as_bytes().is_empty() {
            let queue = queue.get_or_insert_with(take_queue);
            queue.last().push(item);
            queue.note_push(self.marks);
        }
        Ok(())
    }

    /// Queues what `write` appends to the buffer, in place: all of it or, if it fails, nothing.
    ///
    /// # Panics
    ///
    /// If `write` does, or removes what was in the buffer. The queue has failed then.
    #[inline]
    pub(crate) fn try_push_with<R, E>(
        &mut self,
        write: impl FnOnce(&mut BytesMut) -> Result<R, E>,
    ) -> Result<Result<R, E>, PushError<()>> {
        let guard = Guard(&mut self.state);
        let State::Open(slot) = &mut *guard.0 else {
            guard.disarm();
            return Err(PushError::new(()));
        };
        let queue = slot.get_or_insert_with(take_queue);
        let last = queue.last();
        let before = last.len();
        let result = last.try_push_with(write);
        let grown = last.len() - before;
        match queue.spare.checked_sub(grown) {
            Some(spare) => queue.spare = spare,
            None => queue.note_push(self.marks),
        }
        if let Some(queue) = slot.take_if(|queue| queue.is_idle()) {
            give_queue(queue);
        }
        guard.disarm();
        Ok(result)
    }

    /// As [`try_push_with`](Self::try_push_with), where nothing fails.
    #[inline]
    pub(crate) fn push_with<R>(
        &mut self,
        write: impl FnOnce(&mut BytesMut) -> R,
    ) -> Result<R, PushError<()>> {
        let Ok(result) = self.try_push_with(|buffer| Ok::<_, Infallible>(write(buffer)))?;
        Ok(result)
    }

    /// Queues formatted text, in place.
    ///
    /// # Panics
    ///
    /// As `format!` does: if an implementation of `Display` or the like fails, which it must not.
    pub(crate) fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> Result<(), PushError<()>> {
        let written = self.push_with(|buffer| fmt::Write::write_fmt(buffer, text))?;
        assert!(written.is_ok(), "a formatting trait implementation returned an error");
        Ok(())
    }

    /// Queues a producer.
    pub(crate) fn push_with_producer<P>(&mut self, producer: P) -> Result<(), PushError<P>>
    where
        P: Producer + Send + 'static,
    {
        let State::Open(queue) = &mut self.state else {
            return Err(PushError::new(producer));
        };
        let queue = queue.get_or_insert_with(take_queue);
        queue.push_producer(Box::pin(producer));
        queue.note_push(self.marks);
        Ok(())
    }

    /// Takes no more pushes, and shuts the writer down once all is written.
    pub(crate) fn close_when_done(&mut self) {
        if let State::Open(queue) = &mut self.state {
            self.state = State::Closing(queue.take().unwrap_or_else(take_queue));
        }
    }

    /// Drops what waits, except a scheduled close.
    pub(crate) fn discard_buffers(&mut self) {
        match &mut self.state {
            State::Open(queue) if queue.as_ref().is_none_or(|queue| !queue.unflushed) => {
                *queue = None
            }
            State::Open(Some(queue)) | State::Closing(queue) => queue.discard(),
            State::Open(None) => {}
            State::ShuttingDown | State::Closed | State::Failed => {}
        }
    }

    /// Drops what waits and leaves only the shutdown to be done.
    pub(crate) fn abort(&mut self) {
        if !matches!(self.state, State::Closed | State::Failed) {
            self.state = State::ShuttingDown;
        }
    }

    /// Waits until there is room: at once unless the queue is full, else by writing until the low-water
    /// mark.
    #[inline]
    pub(crate) fn poll_ready<W: AsyncWrite + ?Sized>(
        &mut self,
        cx: &mut Context<'_>,
        io: Pin<&mut W>,
    ) -> Poll<Result<(), SinkError>> {
        match &self.state {
            State::Open(Some(queue)) if queue.full => self.poll_room(cx, io),
            State::Open(_) => Poll::Ready(Ok(())),
            _ => Poll::Ready(Err(SinkError::Closed)),
        }
    }

    fn poll_room<W: AsyncWrite + ?Sized>(
        &mut self,
        cx: &mut Context<'_>,
        io: Pin<&mut W>,
    ) -> Poll<Result<(), SinkError>> {
        let guard = Guard(&mut self.state);
        let State::Open(Some(queue)) = &mut *guard.0 else {
            guard.disarm();
            return Poll::Ready(Ok(()));
        };
        let result = queue.poll_write(cx, io, Goal::Room, self.marks, &mut self.written);
        guard.settle(result)
    }

    /// Writes all that waits and flushes the writer; then carries out a scheduled close.
    ///
    /// An idle queue leaves the writer alone.
    pub(crate) fn poll_flush<W: AsyncWrite + ?Sized>(
        &mut self,
        cx: &mut Context<'_>,
        io: Pin<&mut W>,
    ) -> Poll<Result<(), SinkError>> {
        let guard = Guard(&mut self.state);
        let result = guard.0.poll_flush(cx, io, self.marks, &mut self.written);
        guard.settle(result)
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

    /// Has reached the high-water mark, and is not yet down to the low one.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        match &self.state {
            State::Open(Some(queue)) => queue.full,
            _ => false,
        }
    }

    /// Takes pushes, and is not full.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        match &self.state {
            State::Open(queue) => queue.as_ref().is_none_or(|queue| !queue.full),
            _ => false,
        }
    }

    /// Takes pushes.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// The writer has been shut down.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Nothing waits to be written or flushed.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.queue().is_none_or(Queue::is_idle)
    }

    /// Of a poll that was pending: it is the writer that is waited for, which refuses what is ready for
    /// it, and not a producer, nor the task's next turn.
    pub(crate) fn is_refused(&self) -> bool {
        match &self.state {
            State::Open(queue) => queue.as_ref().is_some_and(|queue| queue.refused),
            State::Closing(queue) => queue.refused,
            State::ShuttingDown => true,
            State::Closed | State::Failed => false,
        }
    }

    /// How many bytes the writer has taken since the beginning.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Bytes in the queue, without those that producers still hold.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.queue().map_or(0, |queue| queue.bytes())
    }

    /// Runs of small items, large items and producers in the queue.
    pub(crate) fn len(&self) -> usize {
        self.queue().map_or(0, |queue| queue.len())
    }

    pub(crate) fn high_water_mark(&self) -> usize {
        self.marks.high as usize
    }

    pub(crate) fn set_high_water_mark(&mut self, bytes: usize) {
        self.marks.high = saturate(bytes.max(1));
        self.note_marks();
    }

    pub(crate) fn low_water_mark(&self) -> usize {
        self.marks.low()
    }

    pub(crate) fn set_low_water_mark(&mut self, bytes: usize) {
        self.marks.low = saturate(bytes);
        self.note_marks();
    }

    pub(crate) fn block_size(&self) -> usize {
        self.marks.block as usize
    }

    pub(crate) fn set_block_size(&mut self, bytes: usize) {
        self.marks.block = saturate(bytes.max(1));
    }

    /// Takes out the bytes in front of the first producer, and drops the rest.
    pub(crate) fn take_bytes(&mut self) -> BytesMut {
        let queue = match &mut self.state {
            State::Open(queue) => queue.take(),
            State::Closing(queue) => Some(mem::take(queue)),
            State::ShuttingDown | State::Closed | State::Failed => None,
        };
        queue.map_or_else(BytesMut::new, |queue| queue.ready.into_contiguous())
    }

    fn queue(&self) -> Option<&Queue> {
        match &self.state {
            State::Open(queue) => queue.as_deref(),
            State::Closing(queue) => Some(queue),
            State::ShuttingDown | State::Closed | State::Failed => None,
        }
    }

    fn note_marks(&mut self) {
        if let State::Open(Some(queue)) = &mut self.state {
            queue.note_push(self.marks);
            queue.note_write(self.marks);
        }
    }
}

impl State {
    fn poll_flush<W: AsyncWrite + ?Sized>(
        &mut self,
        cx: &mut Context<'_>,
        mut io: Pin<&mut W>,
        marks: Marks,
        written: &mut u64,
    ) -> Poll<Result<(), SinkError>> {
        loop {
            match self {
                State::Open(slot) => {
                    if let Some(queue) = slot {
                        ready!(queue.poll_write(cx, io.as_mut(), Goal::Empty, marks, written))?;
                        ready!(queue.poll_flush(cx, io.as_mut()))?;
                    }
                    if let Some(queue) = slot.take() {
                        give_queue(queue);
                    }
                    return Poll::Ready(Ok(()));
                }
                State::Closing(queue) => {
                    ready!(queue.poll_write(cx, io.as_mut(), Goal::Empty, marks, written))?;
                    // Also if nothing was ever written: the writer may hold what others wrote.
                    queue.unflushed = true;
                    ready!(queue.poll_flush(cx, io.as_mut()))?;
                    if let State::Closing(queue) = mem::replace(self, State::ShuttingDown) {
                        give_queue(queue);
                    }
                }
                State::ShuttingDown => {
                    ready!(io.as_mut().poll_shutdown(cx)).map_err(SinkError::Write)?;
                    *self = State::Closed;
                }
                State::Closed => return Poll::Ready(Ok(())),
                State::Failed => return Poll::Ready(Err(SinkError::Closed)),
            }
        }
    }
}

impl Marks {
    /// No more than the high mark.
    fn low(self) -> usize {
        self.low.min(self.high) as usize
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Open(_) => "Open",
            State::Closing(_) => "Closing",
            State::ShuttingDown => "ShuttingDown",
            State::Closed => "Closed",
            State::Failed => "Failed",
        };
        f.debug_struct("Output")
            .field("state", &format_args!("{state}"))
            .field("queued_bytes", &self.queued_bytes())
            .field("len", &self.len())
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

/// The state while code of others runs that may panic: if it does, the queue has failed.
struct Guard<'a>(&'a mut State);

impl Guard<'_> {
    #[inline]
    fn disarm(self) {
        mem::forget(self);
    }

    /// At the end of a poll.
    #[inline]
    fn settle(self, result: Poll<Result<(), SinkError>>) -> Poll<Result<(), SinkError>> {
        match &result {
            Poll::Ready(Ok(())) => self.disarm(),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                if let State::Open(Some(queue)) | State::Closing(queue) = &mut *self.0 {
                    queue.shrink();
                }
                self.disarm();
            }
        }
        result
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        *self.0 = State::Failed;
    }
}

/// What waits to be written.
#[derive(Default)]
struct Queue {
    /// What the writer may have now.
    ready: Pieces,
    /// Those that have not ended. What the first one yields goes to `ready`.
    producers: VecDeque<Waiting>,
    /// What was pushed behind the first producer. There is none without a producer.
    behind: Pieces,
    /// The sum of all `Waiting::before`: `placed <= behind.len()`.
    placed: usize,
    /// So many bytes more may be copied to the end of `ready`, which is where they belong, before anything is
    /// to be asked: they have room in its buffer, and the queue does not reach its high mark. It is counted
    /// anew by each push that is larger. What is written leaves it right, if too small.
    spare: usize,
    /// Reached the high-water mark, and is not yet down to the low one.
    full: bool,
    /// Bytes were written that were not flushed.
    unflushed: bool,
    /// The last poll ended because the writer was pending.
    refused: bool,
}

struct Waiting {
    /// How many bytes of `behind` are between the producer in front and this one.
    before: usize,
    /// It is never locked. It makes a queue `Sync`, though nobody but its owner touches a producer.
    producer: Mutex<Pin<Box<dyn Producer + Send>>>,
}

/// What a poll is for.
#[derive(Clone, Copy)]
enum Goal {
    /// Not to be full.
    Room,
    /// To have written everything.
    Empty,
}

/// Whether the producers are worth asking again in this poll.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Supply {
    /// There is enough, or no producer.
    Enough,
    /// The producer in front has nothing yet, and will wake the task.
    Pending,
    /// They were asked often enough for one poll.
    Spent,
}

impl Queue {
    /// Pushes bytes if they are no more than `spare`.
    #[inline]
    fn gather(&mut self, bytes: &[u8]) -> bool {
        let fits = bytes.len() <= self.spare;
        if fits {
            self.spare -= bytes.len();
            self.ready.append(bytes);
        }
        fits
    }

    /// Where pushes go.
    #[inline]
    fn last(&mut self) -> &mut Pieces {
        if self.producers.is_empty() { &mut self.ready } else { &mut self.behind }
    }

    fn push_producer(&mut self, producer: Pin<Box<dyn Producer + Send>>) {
        let before = self.behind.len() - self.placed;
        self.placed += before;
        self.producers.push_back(Waiting { before, producer: Mutex::new(producer) });
    }

    /// For whoever has to wait: holds no more memory than what waits is worth.
    fn shrink(&mut self) {
        self.ready.shrink();
        self.behind.shrink();
        self.spare = 0;
    }

    /// Drops what waits, and remembers that the writer is to be flushed.
    fn discard(&mut self) {
        *self = Queue { unflushed: self.unflushed, ..Queue::default() };
    }

    /// Writes until the goal is reached, but not more than is good for one poll.
    fn poll_write<W: AsyncWrite + ?Sized>(
        &mut self,
        cx: &mut Context<'_>,
        mut io: Pin<&mut W>,
        goal: Goal,
        marks: Marks,
        written: &mut u64,
    ) -> Poll<Result<(), SinkError>> {
        let mut asked = Supply::Enough;
        let mut pulls = PULLS_PER_POLL;
        let mut bytes = BYTES_PER_POLL;
        self.refused = false;
        loop {
            if asked == Supply::Enough && !self.producers.is_empty() {
                asked = self.fill(cx, goal, marks, &mut pulls)?;
            }
            self.note_write(marks);
            let reached = match goal {
                Goal::Room => !self.full,
                Goal::Empty => self.ready.is_empty() && self.producers.is_empty(),
            };
            if reached {
                return Poll::Ready(Ok(()));
            }
            if self.ready.is_empty() && asked == Supply::Pending {
                // The peer waits for what it was sent, and perhaps the producer for the peer.
                ready!(self.poll_flush(cx, io))?;
                return Poll::Pending;
            }
            if self.ready.is_empty() || bytes == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match self.ready.poll_write(cx, io.as_mut(), bytes) {
                Poll::Ready(Ok(count)) => {
                    bytes = bytes.saturating_sub(count);
                    *written += count as u64;
                    self.unflushed = true;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(SinkError::Write(error))),
                Poll::Pending => {
                    self.refused = true;
                    return Poll::Pending;
                }
            }
        }
    }

    /// Flushes the writer, if there is anything to flush.
    fn poll_flush<W: AsyncWrite + ?Sized>(
        &mut self,
        cx: &mut Context<'_>,
        io: Pin<&mut W>,
    ) -> Poll<Result<(), SinkError>> {
        if self.unflushed {
            let flushed = io.poll_flush(cx);
            self.refused = flushed.is_pending();
            ready!(flushed).map_err(SinkError::Write)?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Asks the producers for more, up to the mark at hand.
    fn fill(
        &mut self,
        cx: &mut Context<'_>,
        goal: Goal,
        marks: Marks,
        pulls: &mut u32,
    ) -> Result<Supply, SinkError> {
        while self.ready.len() < self.enough(goal, marks) {
            let Some(first) = self.producers.front_mut() else {
                break;
            };
            if *pulls == 0 {
                return Ok(Supply::Spent);
            }
            *pulls -= 1;
            let producer = first.producer.get_mut().unwrap_or_else(PoisonError::into_inner);
            match producer.as_mut().poll_more(cx) {
                Poll::Pending => return Ok(Supply::Pending),
                Poll::Ready(Some(Ok(item))) => self.ready.push(item),
                Poll::Ready(Some(Err(error))) => return Err(SinkError::Producer(error)),
                Poll::Ready(None) => self.pop_producer(),
            }
        }
        Ok(Supply::Enough)
    }

    /// How many bytes are to be ready before the writer is asked.
    #[inline]
    fn enough(&self, goal: Goal, marks: Marks) -> usize {
        let block = marks.block as usize;
        match goal {
            // It does to write what is ready.
            Goal::Room if self.behind_weight() <= marks.low() => 0,
            Goal::Room => block,
            Goal::Empty => block.min(marks.high as usize),
        }
    }

    /// Drops the producer in front, which has ended. What is behind it is ready, up to the next one.
    fn pop_producer(&mut self) {
        self.producers.pop_front();
        let count = match self.producers.front_mut() {
            Some(next) => {
                self.placed -= next.before;
                mem::take(&mut next.before)
            }
            None => self.behind.len(),
        };
        if count > 0 {
            self.behind.move_to(&mut self.ready, count);
        }
    }

    /// Is the queue full now?
    #[inline]
    fn note_push(&mut self, marks: Marks) {
        let weight = self.bytes() + self.producers.len() * PRODUCER_WEIGHT;
        if weight >= marks.high as usize {
            // The producer in front alone does not keep it above the low mark.
            self.full |= self.ready.len() + self.behind_weight() > marks.low();
        }
        self.spare = match self.producers.is_empty() {
            true => self.ready.spare().min((marks.high as usize).saturating_sub(weight + 1)),
            false => 0,
        };
    }

    /// Is it full no more?
    #[inline]
    fn note_write(&mut self, marks: Marks) {
        if self.full && self.ready.len() + self.behind_weight() <= marks.low() {
            self.full = false;
        }
    }

    /// What waits behind the producer in front: bytes, and a fixed cost for each producer.
    #[inline]
    fn behind_weight(&self) -> usize {
        self.behind.len() + self.producers.len().saturating_sub(1) * PRODUCER_WEIGHT
    }

    fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.producers.is_empty() && !self.unflushed
    }

    #[inline]
    fn bytes(&self) -> usize {
        self.ready.len() + self.behind.len()
    }

    fn len(&self) -> usize {
        self.ready.count() + self.behind.count() + self.producers.len()
    }
}

thread_local! {
    /// Queues of flushed outputs, with their buffers, for the next one that is pushed to.
    #[allow(clippy::vec_box, reason = "it is the boxes that are kept")]
    static QUEUES: RefCell<Vec<Box<Queue>>> = const { RefCell::new(Vec::new()) };
}

fn take_queue() -> Box<Queue> {
    QUEUES.try_with(|queues| queues.borrow_mut().pop()).ok().flatten().unwrap_or_default()
}

/// Keeps a queue that is empty and flushed, unless it has become large.
fn give_queue(mut queue: Box<Queue>) {
    if queue.producers.capacity() > MAX_SPARE {
        return;
    }
    queue.ready.trim();
    queue.behind.trim();
    queue.spare = 0;
    queue.full = false;
    queue.refused = false;
    // A thread that is ending has no pool any more.
    let _ = QUEUES.try_with(|queues| {
        let mut queues = queues.borrow_mut();
        if queues.len() < MAX_QUEUES {
            queues.push(queue);
        }
    });
}

fn saturate(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

pub(crate) const HIGH_WATER_MARK: u32 = 256 * 1024;
pub(crate) const LOW_WATER_MARK: u32 = 64 * 1024;
pub(crate) const BLOCK_SIZE: u32 = 64 * 1024;

/// The weight of a queued producer beside the marks.
const PRODUCER_WEIGHT: usize = 256;
/// How often producers are asked in one poll.
const PULLS_PER_POLL: u32 = 4096;
/// After so many bytes a poll lets other tasks run.
const BYTES_PER_POLL: usize = 1024 * 1024;
/// The most queues a thread keeps.
const MAX_QUEUES: usize = 4;
/// A queue that has room for more producers than this is not kept.
const MAX_SPARE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_queue_is_small() {
        assert!(mem::size_of::<Output>() <= 40);
    }
}
