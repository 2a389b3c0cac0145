//! The output queue: what waits to be written, and the state of the writing side.
//!
//! It knows nothing of connections: the writer is lent to each poll. What owns the two together (`ProducerSink`, a
//! channel) is a thin wrapper of it.
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
//! - **Room.** The queue is full from the push that reaches the high-water mark until what waits is down to the
//!   low one. What the producer in front still holds does not count as waiting, and what it yields does not make
//!   the queue full: it is asked for more only up to a block and the high mark. While room is waited for, it is
//!   asked only if what is queued behind it is above the low mark by itself, so that it has to end first;
//!   otherwise writing what is ready makes room. So neither an endless producer nor equal marks keep a queue full
//!   for ever. After [`Output::poll_ready`] has succeeded the queue is not full.
//! - **Flush.** What was written is flushed as soon as nothing more can be had at once: when all is
//!   written, and when the producer in front has nothing yet.
//! - **Bounded work.** One poll writes about [`BYTES_PER_POLL`] bytes, then wakes its task and is pending.
//! - **Failure.** An error of the writer or a producer is told once, and a panic in one of them leaves
//!   the queue failed. In both cases all that was queued is dropped.
//! - **Memory.** There is none on the heap from the end of a flush to the next push.
//!
//! To be changed when a state is added: [`State`], and the two functions that match all of it,
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
    /// The writer or a producer failed, and that was reported; or code that the queue called has panicked.
    Failed,
}

#[derive(Clone, Copy)]
struct Marks {
    // 1 <= high
    high: u32,
    // capped to `high` where it is read: see `low()`
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

    /// Queues bytes by a copy, if it is known that they fit into the buffer for small items and do not make the
    /// queue full. Returns whether it did.
    ///
    /// For most items this is all of [`push`](Self::push), and it is small enough to be inlined: to check each
    /// time whether the queue is open, full and without producers takes longer than to copy a line.
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

    /// Schedules a close, and carries it out.
    pub(crate) fn poll_close<W: AsyncWrite + ?Sized>(
        &mut self,
        cx: &mut Context<'_>,
        io: Pin<&mut W>,
    ) -> Poll<Result<(), SinkError>> {
        self.close_when_done();
        self.poll_flush(cx, io)
    }

    /// Whether the queue has reached the high-water mark, and is not yet down to the low one.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        match &self.state {
            State::Open(Some(queue)) => queue.full,
            _ => false,
        }
    }

    /// Whether pushes are taken and the queue is not full.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        match &self.state {
            State::Open(queue) => queue.as_ref().is_none_or(|queue| !queue.full),
            _ => false,
        }
    }

    /// Whether pushes are taken.
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

    /// Whether the last poll, if it was pending, waits for the writer, which does not take what is ready for it,
    /// and not for a producer or for the task's next turn.
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
                    // The writer is flushed even if nothing was written here: it may hold what others wrote.
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

/// Holds the state while foreign code runs: the writer, a producer or a closure. If that panics, the guard is
/// dropped without [`disarm`](Self::disarm), and the queue has failed.
struct Guard<'a>(&'a mut State);

impl Guard<'_> {
    #[inline]
    fn disarm(self) {
        mem::forget(self);
    }

    /// Ends the guard after a poll: with an error the queue has failed, and before a wait it is shrunk.
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
    /// The producers that have not ended. What the first one yields goes to `ready`.
    producers: VecDeque<Waiting>,
    /// Bytes that were pushed behind the first producer. Empty if there is no producer.
    behind: Pieces,
    /// The sum of all `Waiting::before`: `placed <= behind.len()`.
    placed: usize,
    /// How many more bytes [`gather`](Self::gather) may copy to the end of `ready` without a check: they fit into
    /// its buffer, there is no producer behind which they would belong, and the queue stays below its high mark.
    /// Each push that is larger computes it again. A write leaves it smaller than it could be, which is safe.
    spare: usize,
    /// The queue has reached the high-water mark, and is not yet down to the low one.
    full: bool,
    /// Bytes were written that were not flushed.
    unflushed: bool,
    /// The last poll ended because the writer was pending.
    refused: bool,
}

struct Waiting {
    /// How many bytes of `behind` are between the producer in front and this one.
    before: usize,
    /// The mutex is never locked: a producer is only reached by `get_mut`. It is there because it makes the queue
    /// `Sync`, which a producer need not be.
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
    /// Copies bytes to the end of `ready` if they are no more than `spare`.
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

    /// Called before a wait, so that no more memory is held than the queued bytes need.
    fn shrink(&mut self) {
        self.ready.shrink();
        self.behind.shrink();
        self.spare = 0;
    }

    /// Drops what waits, and remembers that the writer is to be flushed.
    fn discard(&mut self) {
        *self = Queue { unflushed: self.unflushed, ..Queue::default() };
    }

    /// Writes until the goal is reached, or as much as one poll may.
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
                // What was written is flushed before the producer is waited for, since that may itself wait for
                // the peer's answer.
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

    /// Asks the producers for more, until [`enough`](Self::enough) is ready.
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
            // Writing what is ready makes room: no producer need be asked.
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

    /// Brings `full` and `spare` up to date after a push.
    #[inline]
    fn note_push(&mut self, marks: Marks) {
        let weight = self.bytes() + self.producers.len() * PRODUCER_WEIGHT;
        if weight >= marks.high as usize {
            // The weight of the producer in front does not count here: a queue must not stay full until that has
            // ended.
            self.full |= self.ready.len() + self.behind_weight() > marks.low();
        }
        self.spare = match self.producers.is_empty() {
            true => self.ready.spare().min((marks.high as usize).saturating_sub(weight + 1)),
            false => 0,
        };
    }

    /// Brings `full` up to date after a write.
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

/// How many bytes a queued producer counts as, compared with the marks.
const PRODUCER_WEIGHT: usize = 256;
/// How often producers are asked in one poll.
const PULLS_PER_POLL: u32 = 4096;
/// How many bytes one poll writes before it lets other tasks run.
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
