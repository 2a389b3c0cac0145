//! What is to be written, and the state of the connection.
//!
//! [`Outbound`] is the part of a channel that a waiting callback can reach while its task goes on writing: the
//! output queue, the state, the deadlines, and what other tasks push. It has no stream of its own: the stream is
//! lent to each poll, with the timer, as the [`Peer`].
//!
//! The queue takes pushes in the states `Open`, `Eof` and `Over`, unless it has failed by a panic.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::{fmt, mem};

use bytes::BytesMut;
use tokio::io::AsyncWrite;

use crate::Payload;
use crate::output::{Output, Producer, PushError, SinkError};
use crate::session::error::{Cause, CloseReason};
use crate::session::handle::{Asked, Handle, Inbox};
use crate::session::state::State;
use crate::session::timer::{Deadlines, Passed, Timeout, Timer, Wait};
use crate::trace;

/// The writing side of a channel, and its state.
#[derive(Debug)]
pub(crate) struct Outbound {
    pub(crate) output: Output,
    pub(crate) state: State,
    /// Why the connection failed has been returned already, by a pull or by a run.
    pub(crate) told: bool,
    /// Shared by the channels of one builder.
    pub(crate) deadlines: Arc<Deadlines>,
    /// There is one once somebody has asked for a handle.
    inbox: Option<Inbox>,
    handle_capacity: u32,
    /// Input is read and handed over although the output is full.
    reads_when_full: bool,
    /// Input is to be dropped when the callback returns.
    pub(crate) discards_input: bool,
    /// A cache: the last answer of [`Outbound::gate`] was [`Gate::Open`], and since then nobody has had mutable
    /// access except for pushes that left room. For most pieces of frames this saves the checks. It is never set
    /// where there is an inbox, since other tasks change that at any time.
    unchanged: bool,
}

/// How many bytes a channel has read and written.
///
/// ```
/// use asynchat::Channel;
/// use tokio::io::AsyncWriteExt;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (mut client, server) = tokio::io::duplex(64);
/// client.write_all(b"PING\n").await?;
/// let mut channel = Channel::new(server, b"\n");
/// channel.next().await.transpose()?;
/// channel.push("+PONG\n")?;
/// channel.flush().await?;
/// let traffic = channel.traffic();
/// assert_eq!((traffic.read, traffic.written), (5, 6));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// Bytes that were read from the stream, including those that were dropped after a close.
    pub read: u64,
    /// Bytes that the stream has taken.
    pub written: u64,
}

/// The other end: the stream to it, and how long it has been waited for.
#[derive(Debug)]
pub(crate) struct Peer<S> {
    pub(crate) io: S,
    pub(crate) timer: Timer,
}

/// Whether the next piece of a frame may be handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    Shut,
    Open,
    /// It may, and the input ends with what has been read.
    OpenAtEof,
}

/// How far the writing has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// Nothing waits. After a close, the stream is shut down too.
    All,
    /// The writer is pending: it does not take what is ready for it.
    Refused,
    /// Nothing is ready: a producer has nothing yet, or other tasks have their turn.
    Waiting,
}

impl Outbound {
    pub(crate) fn new(
        output: Output,
        deadlines: Arc<Deadlines>,
        handle_capacity: u32,
        reads_when_full: bool,
    ) -> Self {
        Outbound {
            output,
            state: State::Open,
            told: false,
            deadlines,
            inbox: None,
            handle_capacity,
            reads_when_full,
            discards_input: false,
            unchanged: false,
        }
    }

    /// Whether the next piece of a frame may be handed over: the output has room for an answer to it, and nobody
    /// has asked for a close, an abort or a discard.
    #[inline]
    pub(crate) fn gate(&mut self) -> Gate {
        if self.unchanged { Gate::Open } else { self.look_at_gate() }
    }

    fn look_at_gate(&mut self) -> Gate {
        let may = self.state.is_open()
            && self.has_room()
            && !self.discards_input
            && self.inbox.as_ref().is_none_or(|inbox| inbox.asked() == Asked::Nothing);
        let gate = match may {
            false => Gate::Shut,
            true if self.state.is_eof() => Gate::OpenAtEof,
            true => Gate::Open,
        };
        self.unchanged = gate == Gate::Open && self.inbox.is_none();
        gate
    }

    /// Whether nothing is read until enough of the queue is written.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.output.is_full() && !self.reads_when_full
    }

    /// Whether input is not wanted: nothing more is handed over, or what was read is to be dropped.
    pub(crate) fn wants_no_input(&self) -> bool {
        !self.state.is_open() || self.discards_input
    }

    /// Gives access for a change, after which [`gate`](Self::gate) makes its checks again.
    #[inline]
    pub(crate) fn change(&mut self) -> &mut Self {
        self.unchanged = false;
        self
    }

    #[inline]
    pub(crate) fn push<T: Payload>(&mut self, item: T) -> Result<(), PushError<T>> {
        // Where `unchanged` is set there is no inbox to be emptied first, and what `gather` takes leaves room.
        // That is so for most pushes, and nothing else is to be checked.
        if self.unchanged && self.output.gather(item.as_bytes()) {
            Ok(())
        } else {
            self.push_any(item)
        }
    }

    /// Out of line, so that the rest is small enough to be inlined where there is a push.
    #[inline(never)]
    fn push_any<T: Payload>(&mut self, item: T) -> Result<(), PushError<T>> {
        self.push_to(|output| output.push(item))
    }

    pub(crate) fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> Result<(), PushError<()>> {
        self.push_to(|output| output.write_fmt(text))
    }

    #[inline]
    pub(crate) fn push_with<R>(
        &mut self,
        write: impl FnOnce(&mut BytesMut) -> R,
    ) -> Result<R, PushError<()>> {
        self.push_to(|output| output.push_with(write))
    }

    #[inline]
    pub(crate) fn try_push_with<R, E>(
        &mut self,
        write: impl FnOnce(&mut BytesMut) -> Result<R, E>,
    ) -> Result<Result<R, E>, PushError<()>> {
        self.push_to(|output| output.try_push_with(write))
    }

    pub(crate) fn push_with_producer<P>(&mut self, producer: P) -> Result<(), PushError<P>>
    where
        P: Producer + Send + 'static,
    {
        self.push_to(|output| output.push_with_producer(producer))
    }

    /// Pushes behind what was accepted from other tasks. If that leaves room, the cached answer of
    /// [`gate`](Self::gate) stays valid.
    #[inline]
    fn push_to<R>(&mut self, push: impl FnOnce(&mut Output) -> R) -> R {
        if self.inbox.is_some() {
            self.take_items();
        }
        // `push` may panic, which must not leave the cached answer behind.
        let unchanged = mem::take(&mut self.unchanged);
        let result = push(&mut self.output);
        self.unchanged = unchanged && self.has_room();
        result
    }

    /// Whether the output leaves room for more input to be handed over.
    #[inline]
    fn has_room(&self) -> bool {
        self.output.has_room() || (self.reads_when_full && self.output.is_open())
    }

    /// Called when all is written. If the poll began without room, so that pushes of other tasks could not be
    /// taken then, takes them now, and returns whether there were any. It does so once in a poll, and sets
    /// `had_room`: what is pushed later wakes the task, and to take that here as well could go on for as long as
    /// others push.
    pub(crate) fn take_what_waited(&mut self, had_room: &mut bool) -> bool {
        let waited = !mem::replace(had_room, true) && self.has_items() && self.output.is_open();
        if waited {
            self.take_items();
        }
        waited
    }

    /// Queues what was accepted from other tasks.
    fn take_items(&mut self) {
        if let Some(inbox) = self.inbox.as_ref().filter(|inbox| inbox.has_items()) {
            for item in inbox.take() {
                let _ = self.output.push(item);
            }
        }
    }

    /// Takes what other tasks have pushed, if there is room, and does what they have asked for. This task
    /// is woken when there is more.
    #[inline]
    pub(crate) fn poll_inbox(&mut self, cx: &Context<'_>) {
        if self.inbox.is_some() {
            self.look_into_inbox(cx);
        }
    }

    fn look_into_inbox(&mut self, cx: &Context<'_>) {
        let Some(inbox) = &self.inbox else {
            return;
        };
        inbox.register(cx);
        match inbox.asked() {
            Asked::Abort => self.fail(CloseReason::Aborted),
            Asked::Close if self.output.is_open() => self.close(),
            _ if self.output.has_room() => self.take_items(),
            _ => {}
        }
    }

    /// Something that was pushed by another task has not been taken yet.
    #[inline]
    pub(crate) fn has_items(&self) -> bool {
        self.inbox.as_ref().is_some_and(Inbox::has_items)
    }

    /// A handle for other tasks.
    pub(crate) fn handle(&mut self) -> Handle {
        let capacity = self.handle_capacity as usize;
        let inbox = self.inbox.get_or_insert_with(|| Inbox::new(capacity));
        if self.state.is_closed() {
            inbox.end();
        } else if !self.output.is_open() {
            let _ = inbox.close();
        }
        inbox.handle()
    }

    /// Queues what was accepted from other tasks, and takes no more pushes after it.
    pub(crate) fn close(&mut self) {
        self.state.close();
        self.close_output();
    }

    /// As [`close`](Self::close), but for a connection that is over already: the cause stays as it is.
    pub(crate) fn finish(&mut self) {
        self.state.finish();
        if self.state.passed() == Some(Timeout::Idle) && self.output.is_idle() {
            // A peer that was idle, and is sent nothing, is not waited for after the shutdown of the stream.
            self.state.end_input();
        }
        self.close_output();
    }

    fn close_output(&mut self) {
        self.close_inbox();
        self.output.close_when_done();
    }

    /// Refuses pushes of other tasks from here on, and queues those that were accepted.
    pub(crate) fn close_inbox(&mut self) {
        if let Some(inbox) = &self.inbox {
            for item in inbox.close() {
                let _ = self.output.push(item);
            }
        }
    }

    /// Accepts again what other tasks push, unless one of them has closed the channel.
    pub(crate) fn reopen_inbox(&self) {
        if let Some(inbox) = &self.inbox {
            inbox.reopen();
        }
    }

    /// Closes at once, and drops what is queued.
    pub(crate) fn fail(&mut self, cause: Cause) {
        self.state.fail(cause);
        self.output.abort();
        self.end_inbox();
    }

    /// Tells the handles that the connection has ended.
    pub(crate) fn end_inbox(&self) {
        if let Some(inbox) = &self.inbox {
            inbox.end();
        }
    }

    /// Writes and flushes what is queued; after a close, shuts the stream down. [`Written`] says what this waits
    /// for, if it is not done.
    #[inline]
    pub(crate) fn poll_flush<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        peer: &mut Peer<S>,
    ) -> Result<Written, Cause> {
        if self.output.is_idle() && self.output.is_open() {
            return Ok(Written::All);
        }
        let before = self.output.written();
        let result = self.output.poll_flush(cx, Pin::new(&mut peer.io));
        self.written(before, result, &mut peer.timer)
    }

    /// Writes until there is room again.
    pub(crate) fn poll_room<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        peer: &mut Peer<S>,
    ) -> Result<Written, Cause> {
        let before = self.output.written();
        let result = self.output.poll_ready(cx, Pin::new(&mut peer.io));
        self.written(before, result, &mut peer.timer)
    }

    fn written(
        &mut self,
        before: u64,
        result: Poll<Result<(), SinkError>>,
        timer: &mut Timer,
    ) -> Result<Written, Cause> {
        if self.output.written() > before {
            timer.wrote();
        }
        match result {
            Poll::Ready(Ok(())) => Ok(Written::All),
            Poll::Ready(Err(error)) => Err(error.into()),
            Poll::Pending if self.output.is_refused() => Ok(Written::Refused),
            Poll::Pending => Ok(Written::Waiting),
        }
    }

    /// Drives what goes on while a callback waits: takes pushes of other tasks, writes, and watches for a write
    /// stall. Ready when the connection is closed, so that the callback is to be dropped.
    pub(crate) fn poll_meanwhile<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        peer: &mut Peer<S>,
    ) -> Poll<()> {
        let mut had_room = self.output.has_room();
        self.poll_inbox(cx);
        loop {
            if self.state.is_closed() {
                return Poll::Ready(());
            }
            match self.poll_flush(cx, peer) {
                Err(cause) => self.fail(cause),
                Ok(Written::All) if self.take_what_waited(&mut had_room) => {}
                Ok(written) => {
                    let wait = Wait { refused: written == Written::Refused, ..Wait::default() };
                    if peer.timer.poll(cx, &self.deadlines, wait).is_pending() {
                        return Poll::Pending;
                    }
                    trace::timed_out(Timeout::WriteStall);
                    self.fail(CloseReason::Timeout(Timeout::WriteStall));
                }
            }
        }
    }

    /// Ends the connection because a deadline has passed. If the peer only has not sent in time, output can still
    /// be pushed, for a last word to it. If it does not take its output, the connection fails at once.
    pub(crate) fn time_out(&mut self, timeout: Timeout) {
        trace::timed_out(timeout);
        let cause = CloseReason::Timeout(timeout);
        match timeout {
            Timeout::Frame | Timeout::Session => self.state.over(cause),
            Timeout::Idle if self.output.is_idle() => self.state.over(cause),
            Timeout::Idle | Timeout::WriteStall | Timeout::Quiet => self.fail(cause),
        }
    }
}

/// The timeout, if what has passed is one: the limits for a shutdown and for a close are not.
pub(crate) fn deadline(passed: Passed) -> Option<Timeout> {
    match passed {
        Passed::Deadline(timeout) => Some(timeout),
        Passed::Shutdown | Passed::End => None,
    }
}
