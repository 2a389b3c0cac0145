use std::io;
use std::mem;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::{error, fmt, future};

use bytes::{Buf, BufMut, Bytes};
use futures_core::Stream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::poll_read_buf;

use crate::Payload;
use crate::framing::event::Event;
use crate::framing::framer::{Cut, Framer};
use crate::framing::limit::FrameError;
use crate::framing::limit::Limit;
use crate::framing::step::End;
use crate::framing::terminator::Terminator;
use crate::handler::control::{Access, Control};
use crate::output::{Output, Producer, PushError, SinkError};
use crate::pool;
use crate::session::close::{ChannelError, CloseReason};
use crate::session::handle::{Handle, HandleState, Receiver};
use crate::session::timer::{Owed, PackedTimeouts, Timeout, Timeouts, Timer};
use crate::trace;

/// One connection: framing in, producers out, limits, deadlines and an orderly close.
///
/// It wraps any `AsyncRead + AsyncWrite`. There are two ways to use it. Pull events with
/// [`next`](Self::next), or give it a [`Handler`](crate::Handler) and let it [`run`](Self::run).
///
/// ```
/// use asynchat::{Channel, Event};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (client, server) = tokio::io::duplex(64);
/// let mut client = Channel::new(client, b"\r\n");
/// let mut server = Channel::new(server, b"\r\n");
///
/// client.push("PING\r\n")?;
/// client.flush().await?;
/// assert_eq!(server.next().await.expect("it is there")?, Event::Chunk("PING".into()));
/// assert_eq!(server.next().await.expect("it is there")?, Event::Terminator);
///
/// server.push("+PONG\r\n")?;
/// server.close_when_done();
/// let (end, event) = tokio::join!(server.next(), client.next());
/// assert!(end.is_none());
/// assert_eq!(event.expect("it is there")?, Event::Chunk("+PONG".into()));
/// # Ok(())
/// # }
/// ```
///
/// # Defaults
///
/// They are meant for the open internet; [`Channel::builder`] changes them.
///
/// | what | default |
/// |---|---|
/// | frame length | 64 KiB of payload, then [`ChannelError::Frame`] |
/// | deadlines | those of [`Timeouts::default`] |
/// | output queue | 256 KiB; above it nothing is read or dispatched until 64 KiB are left |
/// | one read | 64 KiB at most |
/// | a [`Handle`]'s pushes | 64 KiB waiting |
///
/// # Memory
///
/// A channel that waits for input has no read buffer, but for the few bytes of a terminator that is not
/// complete, and when all output is written it has no write buffer.
///
/// # Switching
///
/// A channel looks at the input it has before it reads, so that a terminator set at any moment takes
/// effect at the next call, though the peer sends nothing more.
pub struct Channel<S> {
    io: S,
    /// What has been read and not yet taken. Its front up to the framer's position is done with.
    input: Bytes,
    /// Boxed: two smaller pieces of memory cost an idle connection less than a large one.
    framer: Box<Framer>,
    /// What was delivered last was a chunk, and its terminator's event is owed.
    pub(crate) ended: bool,
    phase: Phase,
    shared: Mutex<Shared>,
    timer: Timer,
    read_size: u32,
}

/// ```text
///   Open -- end of input --> Eof
///     |  `--- error ---.      |
///     |                v      |
///     |             Broken    |
///     +-- close_when_done ----+--> Draining -- written, shut down --> Lingering --> Closed
///     any: -- abort, I/O error --> Closed
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Reads.
    Open,
    /// The peer has closed its half.
    Eof,
    /// The input is of no use any more: an error was reported.
    Broken,
    /// Closing, and the writer is waited for; input is read, to be dropped: so many bytes more.
    Draining(u32),
    /// The same after the shutdown.
    Lingering(u32),
    Closed,
}

/// What the channel's task and a callback that it waits for both use.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) output: Output,
    pub(crate) timeouts: PackedTimeouts,
    pub(crate) wish: Wish,
    /// There is one once somebody has asked for a handle.
    receiver: Option<Receiver>,
    handle_capacity: u32,
}

impl Shared {
    pub(crate) fn new(output: Output, timeouts: Timeouts, handle_capacity: u32) -> Self {
        let timeouts = timeouts.into();
        Shared { output, timeouts, wish: Wish::Nothing, receiver: None, handle_capacity }
    }

    pub(crate) fn timeouts(&self) -> Timeouts {
        self.timeouts.into()
    }

    pub(crate) fn set_timeouts(&mut self, timeouts: Timeouts) {
        self.timeouts = timeouts.into();
    }

    pub(crate) fn handle(&mut self) -> Handle {
        let capacity = self.handle_capacity as usize;
        let receiver = self.receiver.get_or_insert_with(|| Receiver::new(capacity));
        if !self.output.is_open() {
            receiver.close();
        }
        receiver.handle()
    }

    /// Ends a dispatch if a callback asked for it.
    pub(crate) fn take_wish<E>(&mut self) -> Result<(), CloseReason<E>> {
        match mem::replace(&mut self.wish, Wish::Nothing) {
            Wish::Nothing => Ok(()),
            Wish::Abort => Err(CloseReason::Aborted),
            Wish::Upgrade => Err(CloseReason::Upgrade),
        }
    }

    /// The channel was aborted.
    pub(crate) fn is_aborted(&self) -> bool {
        self.wish == Wish::Abort
    }

    /// Forgets what the callback of a run that was dropped had asked for.
    pub(crate) fn forget_upgrade(&mut self) {
        if self.wish == Wish::Upgrade {
            self.wish = Wish::Nothing;
        }
    }

    /// Takes no more pushes, after those that other tasks were told are accepted.
    pub(crate) fn close_when_done(&mut self) {
        self.take_last();
        self.output.close_when_done();
    }

    /// Refuses what other tasks push from here on, and takes what they were told is accepted. They can
    /// still abort.
    pub(crate) fn take_last(&mut self) {
        if let Some(receiver) = &self.receiver {
            for item in receiver.close() {
                let _ = self.output.push(item);
            }
        }
    }

    /// Whether another task has aborted. If one does later, this task is woken.
    pub(crate) fn poll_aborted(&self, cx: &Context<'_>) -> bool {
        let state = self.receiver.as_ref().map(|receiver| receiver.poll_take(cx, false).1);
        state == Some(HandleState::Aborted)
    }

    /// Refuses what other tasks push from here on.
    fn close_handles(&self) {
        if let Some(receiver) = &self.receiver {
            receiver.closed();
        }
    }
}

/// What a callback has asked for, beside a close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Nothing,
    Abort,
    Upgrade,
}

impl<S> Channel<S> {
    /// A channel with the defaults.
    pub fn new(io: S, terminator: impl Into<Terminator>) -> Self {
        Channel::builder(terminator).build(io)
    }

    /// Switches the terminator: see [`Framer::set_terminator`].
    pub fn set_terminator(&mut self, terminator: impl Into<Terminator>) {
        self.framer.set_terminator(terminator);
    }

    /// The terminator in force. Of a count, what remains.
    pub fn terminator(&self) -> Terminator {
        self.framer.terminator()
    }

    /// Sets the limit, for the current frame too.
    pub fn set_limit(&mut self, limit: Limit) {
        self.framer.set_limit(limit);
    }

    /// The limit in force.
    pub fn limit(&self) -> Limit {
        self.framer.limit()
    }

    /// Which member of a set ended the last frame: see [`Framer::matched`].
    pub fn matched(&self) -> usize {
        self.framer.matched()
    }

    /// Sets the deadlines, from now on.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) {
        self.shared().set_timeouts(timeouts);
    }

    /// The deadlines in force.
    pub fn timeouts(&self) -> Timeouts {
        lock(&self.shared).timeouts()
    }

    /// Queues bytes. They go out while the channel is polled: by [`next`](Self::next),
    /// [`flush`](Self::flush) or [`close`](Self::close).
    ///
    /// # Errors
    ///
    /// After [`close_when_done`](Self::close_when_done), or when the channel has failed: the item is
    /// handed back.
    pub fn push<T: Payload>(&mut self, item: T) -> Result<(), PushError<T>> {
        self.shared().output.push(item)
    }

    /// Queues a producer, behind all that was pushed before it.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn push_with_producer<P>(&mut self, producer: P) -> Result<(), PushError<P>>
    where
        P: Producer + Send + 'static,
    {
        self.shared().output.push_with_producer(producer)
    }

    /// Takes no more input and no more pushes, and closes once all that was pushed is written. The next
    /// call of [`next`](Self::next) or [`close`](Self::close) does the work.
    pub fn close_when_done(&mut self) {
        self.shared().close_when_done();
    }

    /// Drops what is queued for output, and input that is buffered or withheld. A scheduled close stays,
    /// as do the terminator and what remains of a count.
    pub fn discard_buffers(&mut self) {
        self.shared().output.discard_buffers();
        self.discarded();
    }

    /// Drops everything and closes now: nothing that is queued is written.
    pub fn abort(&mut self) {
        let shared = self.shared();
        shared.output.abort();
        shared.wish = Wish::Abort;
        self.discard_input();
        self.phase = Phase::Closed;
        self.shared().close_handles();
    }

    /// A handle for other tasks. The first one costs an allocation, further ones are clones.
    pub fn handle(&mut self) -> Handle {
        self.shared().handle()
    }

    /// Bytes waiting to be written, without those that producers still hold.
    pub fn queued_bytes(&self) -> usize {
        lock(&self.shared).output.queued_bytes()
    }

    /// The stream. Reading from it or writing to it past the channel is at the caller's own risk.
    pub fn get_ref(&self) -> &S {
        &self.io
    }

    /// The stream. Reading from it or writing to it past the channel is at the caller's own risk.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.io
    }

    /// Gives back the stream, with the input that has been read but not delivered. What is queued for
    /// output is dropped: [`flush`](Self::flush) first.
    pub fn into_parts(mut self) -> (S, Bytes) {
        self.trim_input();
        (self.io, self.input)
    }

    pub(crate) fn shared(&mut self) -> &mut Shared {
        self.shared.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    fn trim_input(&mut self) {
        let consumed = self.framer.take_consumed();
        self.input.advance(consumed.min(self.input.len()));
    }

    /// The output has been discarded: the input is too, and nothing is refused any more.
    pub(crate) fn discarded(&mut self) {
        self.timer.has_flushed();
        self.discard_input();
        if !self.framer.is_mid_frame() {
            self.timer.frame_ended();
        }
    }

    pub(crate) fn discard_input(&mut self) {
        self.framer.discard();
        pool::give_back(mem::take(&mut self.input));
    }
}

impl Channel<()> {
    /// A builder, for all that has a default.
    ///
    /// ```
    /// use asynchat::{Channel, Limit, Timeouts};
    ///
    /// let (_client, server) = tokio::io::duplex(64);
    /// let channel = Channel::builder(b"\r\n")
    ///     .limit(Limit::Skip(512))
    ///     .timeouts(Timeouts::NONE)
    ///     .build(server);
    /// assert_eq!(channel.limit(), Limit::Skip(512));
    /// ```
    pub fn builder(terminator: impl Into<Terminator>) -> ChannelBuilder {
        ChannelBuilder::new(terminator.into())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Channel<S> {
    /// The next event, or `None` at the end: of the input, or, after
    /// [`close_when_done`](Self::close_when_done), of the output.
    ///
    /// While it waits it writes what is queued, flushing when the input is drained. At the end of the
    /// input queued output is kept: [`close`](Self::close) writes it.
    ///
    /// A small chunk is copied, so that to keep it keeps nothing else; a larger one shares the read
    /// buffer.
    ///
    /// # Errors
    ///
    /// [`ChannelError`], once; then `None`. After [`ChannelError::Frame`], and after
    /// [`ChannelError::Timeout`] where it is the peer's turn ([`Timeout::Frame`], and [`Timeout::Idle`]
    /// with nothing queued), an answer can still be pushed and the channel closed.
    ///
    /// # Cancellation safety
    ///
    /// It may be dropped at any time; no event is lost, nor is output written twice.
    pub async fn next(&mut self) -> Option<Result<Event<Bytes>, ChannelError>> {
        future::poll_fn(|cx| self.poll_event(cx)).await
    }

    /// Writes all that is queued, and flushes the stream.
    ///
    /// # Errors
    ///
    /// [`ChannelError`] if the stream, a producer or the write-stall deadline fails.
    ///
    /// # Cancellation safety
    ///
    /// It may be dropped at any time; nothing is lost, nor written twice.
    pub async fn flush(&mut self) -> Result<(), ChannelError> {
        future::poll_fn(|cx| self.poll_output_only(cx)).await
    }

    /// Writes all that is queued, shuts the stream down, and waits a little for the peer to close too
    /// ([`Timeouts::linger`]), so that a reset does not destroy what was sent last.
    ///
    /// What the peer sends meanwhile is dropped.
    ///
    /// # Errors
    ///
    /// [`ChannelError`] if what was queued could not be written; [`ChannelError::Closed`] if the channel
    /// was aborted before it was, or has failed before.
    ///
    /// # Cancellation safety
    ///
    /// It may be dropped at any time; a later call goes on.
    pub async fn close(&mut self) -> Result<(), ChannelError> {
        self.close_when_done();
        future::poll_fn(|cx| self.poll_close(cx)).await
    }

    /// Writes all that is queued and gives the stream back, for TLS or another protocol.
    ///
    /// ```
    /// use asynchat::{Channel, Event};
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (mut client, server) = tokio::io::duplex(64);
    /// let mut server = Channel::new(server, b"\r\n");
    /// client.write_all(b"STARTTLS\r\n").await?;
    /// while server.next().await.expect("it is there")? != Event::Terminator {}
    ///
    /// server.push("220 go ahead\r\n")?;
    /// let mut stream = server.upgrade().await?;
    /// stream.write_all(b"(handshake)").await?;
    /// drop(stream);
    /// let mut all = String::new();
    /// client.read_to_string(&mut all).await?;
    /// assert_eq!(all, "220 go ahead\r\n(handshake)");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If input is buffered or withheld, which would be injected into the other protocol, or if the
    /// output could not be written. The channel is handed back as it was.
    pub async fn upgrade(mut self) -> Result<S, UpgradeError<S>> {
        self.trim_input();
        if !self.input.is_empty() || self.ended {
            return Err(UpgradeError { channel: Box::new(self), cause: None });
        }
        match self.flush().await {
            Ok(()) => Ok(self.into_parts().0),
            Err(error) => Err(UpgradeError { channel: Box::new(self), cause: Some(error) }),
        }
    }

    fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Event<Bytes>, ChannelError>>> {
        if self.ended && ready!(self.poll_owed(cx))? {
            return Poll::Ready(Some(Ok(Event::Terminator)));
        }
        let step = match self.frame_at_once() {
            Some(Range { start, end }) => Ok(Some(Step::Data { start, end, ended: true })),
            None => ready!(self.poll_step(cx)),
        };
        let event = match step {
            Ok(Some(Step::Data { start, end, .. })) if start == end => Event::Terminator,
            Ok(Some(Step::Data { start, end, ended })) => {
                self.ended = ended;
                Event::Chunk(keep(&self.input, start, end))
            }
            Ok(Some(Step::Overlong)) => Event::Overlong,
            Ok(Some(Step::Truncated)) => Event::Truncated,
            Ok(Some(Step::Failed(_) | Step::Pending) | None) => return Poll::Ready(None),
            Err(error) => return Poll::Ready(Some(Err(error))),
        };
        Poll::Ready(Some(Ok(event)))
    }

    /// Whether the terminator of the last chunk is still to be told, when there is room for what that
    /// brings forth: not after a close.
    pub(crate) fn poll_owed(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, ChannelError>> {
        if self.ended && self.is_open() && self.shared().output.is_full() {
            ready!(self.poll_room(cx))?;
        }
        Poll::Ready(Ok(mem::take(&mut self.ended) && self.is_open()))
    }

    /// The rest of the current frame, if it is there and can be told without reading, writing or
    /// waiting: most are. The positions are in `self.input`.
    #[inline(always)]
    pub(crate) fn frame_at_once(&mut self) -> Option<Range<usize>> {
        if self.phase == Phase::Broken || !self.has_room() {
            return None;
        }
        None
    }

    /// Takes pushes, and has room for what an event brings forth.
    #[inline]
    pub(crate) fn has_room(&mut self) -> bool {
        self.shared().output.has_room()
    }

    /// The next step, or `None` at the end. The positions are in `self.input`.
    pub(crate) fn poll_step(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Step>, ChannelError>> {
        loop {
            if !self.shared().output.is_open() {
                return Poll::Ready(match ready!(self.poll_close(cx)) {
                    // Somebody has aborted, or an error was reported before.
                    Ok(()) | Err(ChannelError::Closed) => Ok(None),
                    Err(error) => Err(error),
                });
            }
            if self.shared().output.is_full() {
                ready!(self.poll_room(cx))?;
            }
            if self.phase == Phase::Broken {
                return Poll::Ready(Ok(None));
            }
            let skipping = self.framer.is_skipping();
            let step = step(&mut self.framer, &self.input, self.phase == Phase::Eof);
            if skipping && !self.framer.is_skipping() {
                // The end of a skipped frame is no step of its own.
                self.timer.frame_ended();
            }
            match step {
                Step::Pending => {
                    if self.phase == Phase::Eof {
                        return Poll::Ready(Ok(None));
                    }
                    ready!(self.poll_input(cx))?;
                }
                Step::Failed(error) => {
                    self.phase = Phase::Broken;
                    return Poll::Ready(Err(ChannelError::Frame(error)));
                }
                step => {
                    if !matches!(step, Step::Data { ended: false, .. }) {
                        self.timer.frame_ended();
                    }
                    if step == Step::Overlong {
                        trace::overlong(self.framer.length());
                    }
                    return Poll::Ready(Ok(Some(step)));
                }
            }
        }
    }

    /// Waits for more input, writing meanwhile.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ChannelError>> {
        if self.poll_handle(cx) == HandleState::Aborted {
            self.abort();
        }
        if !self.is_open() {
            return Poll::Ready(Ok(()));
        }
        // The input is drained: now is the time to flush.
        let _ = self.poll_output(cx)?;
        let read = self.poll_read(cx);
        match read {
            Poll::Ready(result) => {
                if let Err(error) = result {
                    return Poll::Ready(Err(self.fail(ChannelError::Io(error))));
                }
                self.timer.has_read();
                Poll::Ready(Ok(()))
            }
            Poll::Pending => {
                let owed = match self.framer.terminator() {
                    // A frame begins with its first byte.
                    Terminator::Count(_) if self.framer.length() == 0 => Owed::Nothing,
                    Terminator::Count(_) => Owed::Count(self.framer.length()),
                    _ if self.framer.is_mid_frame() => Owed::Frame,
                    _ => Owed::Nothing,
                };
                self.poll_deadline(cx, owed)
            }
        }
    }

    /// Reads once. The buffer is there only if something came.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.trim_input();
        let mut buffer = pool::take(self.input.len() + self.read_size as usize);
        buffer.extend_from_slice(&self.input);
        // A pooled buffer may have room for more.
        let mut room = (&mut buffer).limit(self.read_size as usize);
        match poll_read_buf(Pin::new(&mut self.io), cx, &mut room) {
            Poll::Ready(Ok(read)) => {
                if read == 0 {
                    self.phase = Phase::Eof;
                }
                let old = mem::replace(&mut self.input, buffer.freeze());
                pool::give_back(old);
                Poll::Ready(Ok(()))
            }
            other => {
                pool::give(buffer);
                // A part of a terminator may be left, which need not keep a whole read buffer.
                let rest = Bytes::copy_from_slice(&self.input);
                pool::give_back(mem::replace(&mut self.input, rest));
                other.map_ok(drop)
            }
        }
    }

    /// Takes what other tasks have pushed, if there is room.
    fn poll_handle(&mut self, cx: &mut Context<'_>) -> HandleState {
        take_pushed(self.shared(), cx)
    }

    /// Writes and flushes what is queued. Pending does not stand in the way of reading.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, ChannelError> {
        let shared = self.shared.get_mut().unwrap_or_else(PoisonError::into_inner);
        match poll_flush(&mut shared.output, &mut self.io, &mut self.timer, cx) {
            Poll::Ready(Err(error)) => Err(self.fail(error.into())),
            Poll::Ready(Ok(())) => Ok(Poll::Ready(())),
            Poll::Pending => Ok(Poll::Pending),
        }
    }

    fn poll_output_only(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ChannelError>> {
        if self.phase == Phase::Closed {
            return Poll::Ready(Err(ChannelError::Closed));
        }
        let shared = self.shared.get_mut().unwrap_or_else(PoisonError::into_inner);
        match poll_outgoing(&mut self.io, &mut self.timer, shared, cx) {
            Ok(Poll::Ready(())) => Poll::Ready(Ok(())),
            Ok(Poll::Pending) => self.poll_deadline(cx, Owed::Nothing),
            Err(Stop::Aborted) => Poll::Ready(Err(self.fail(ChannelError::Closed))),
            Err(Stop::Failed(error)) => Poll::Ready(Err(self.fail(error))),
        }
    }

    /// Writes until the low-water mark.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ChannelError>> {
        if self.poll_handle(cx) == HandleState::Aborted {
            self.abort();
        }
        if !self.is_open() {
            return Poll::Ready(Ok(()));
        }
        let shared = self.shared.get_mut().unwrap_or_else(PoisonError::into_inner);
        let before = shared.output.written();
        let result = shared.output.poll_ready(cx, Pin::new(&mut self.io));
        report(&mut self.timer, &shared.output, before);
        match result {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.fail(error.into()))),
            Poll::Pending => self.poll_deadline(cx, Owed::Nothing),
        }
    }

    pub(crate) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ChannelError>> {
        if self.phase != Phase::Closed && self.poll_handle(cx) == HandleState::Aborted {
            self.abort();
        }
        loop {
            match self.phase {
                Phase::Closed => {
                    let closed = self.shared().output.is_closed();
                    return Poll::Ready(if closed { Ok(()) } else { Err(ChannelError::Closed) });
                }
                Phase::Lingering(0) => self.closed(),
                Phase::Lingering(left) => match self.poll_drop_input(cx, left) {
                    Poll::Ready(Ok(read @ 1..)) => self.phase = Phase::Lingering(left - read),
                    Poll::Ready(_) => self.closed(),
                    Poll::Pending => {
                        let linger = self.shared().timeouts.lingering();
                        ready!(self.timer.poll(cx, &linger, Owed::Nothing));
                        self.closed();
                    }
                },
                Phase::Open | Phase::Eof | Phase::Broken | Phase::Draining(_) => {
                    let written = self.poll_output(cx)?;
                    self.discard_input();
                    let lingers = self.phase != Phase::Eof && self.shared().timeouts.lingers();
                    let left = match self.phase {
                        Phase::Draining(left) => left,
                        _ => LINGER_BYTES,
                    };
                    if written.is_ready() {
                        self.timer.has_written();
                        if lingers {
                            self.phase = Phase::Lingering(left);
                        } else {
                            self.closed();
                        }
                        continue;
                    }
                    // A peer that writes all before it reads must not wait for us as we for it.
                    if lingers {
                        self.phase = Phase::Draining(left);
                        match self.poll_drop_input(cx, left) {
                            Poll::Ready(Ok(read @ 1..)) => {
                                self.phase = Phase::Draining(left - read);
                                continue;
                            }
                            // If something is wrong, the writer will say so.
                            Poll::Ready(_) => self.phase = Phase::Draining(0),
                            Poll::Pending => {}
                        }
                    }
                    return self.poll_deadline(cx, Owed::Nothing);
                }
            }
        }
    }

    /// Reads at most so many bytes, and drops them. With none left it is pending.
    fn poll_drop_input(&mut self, cx: &mut Context<'_>, left: u32) -> Poll<io::Result<u32>> {
        if left == 0 {
            return Poll::Pending;
        }
        let most = left.min(self.read_size);
        let mut buffer = pool::take(most as usize);
        let mut room = (&mut buffer).limit(most as usize);
        let read = poll_read_buf(Pin::new(&mut self.io), cx, &mut room);
        pool::give(buffer);
        read.map_ok(|read| read as u32)
    }

    fn closed(&mut self) {
        self.phase = Phase::Closed;
        self.shared().close_handles();
    }

    /// Pending until a deadline passes.
    fn poll_deadline(
        &mut self,
        cx: &mut Context<'_>,
        owed: Owed,
    ) -> Poll<Result<(), ChannelError>> {
        let timeouts = self.shared().timeouts;
        let timeout = ready!(self.timer.poll(cx, &timeouts, owed));
        trace::timed_out(timeout);
        let error = ChannelError::Timeout(timeout);
        // It is the peer's turn, and it may well be there to be told.
        let quiet = self.phase == Phase::Open && self.shared().output.is_idle();
        if timeout == Timeout::Frame || (timeout == Timeout::Idle && quiet) {
            self.phase = Phase::Broken;
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Err(self.fail(error)))
    }

    /// The stream is of no more use.
    fn fail(&mut self, error: ChannelError) -> ChannelError {
        self.abort();
        error
    }

    /// Starts the shutdown of an aborted stream, without waiting for it, unless it was shut down before.
    pub(crate) async fn shut_down(&mut self) {
        if self.shared().output.is_closed() {
            return;
        }
        future::poll_fn(|cx| {
            let _ = Pin::new(&mut self.io).poll_shutdown(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// The parts that a callback and the work behind it need, side by side.
    pub(crate) fn split(&mut self) -> Split<'_, S> {
        Split {
            io: &mut self.io,
            input: &self.input,
            framer: &mut self.framer,
            shared: &self.shared,
            timer: &mut self.timer,
        }
    }

    /// All input that was read is done with.
    #[inline]
    pub(crate) fn is_drained(&self) -> bool {
        self.framer.consumed() == self.input.len()
    }

    /// The input, and what a callback that does not wait needs.
    #[inline]
    pub(crate) fn control(&mut self) -> (&Bytes, Control<'_>) {
        let shared = self.shared.get_mut().unwrap_or_else(PoisonError::into_inner);
        let control = Control::new(&mut self.framer, Access::Alone(shared), self.input.len());
        (&self.input, control)
    }

    /// Gives the read buffer back if the input has been looked at to its end.
    #[inline]
    pub(crate) fn release_input(&mut self) {
        if self.is_drained() {
            self.trim_input();
            pool::give_back(mem::take(&mut self.input));
        }
    }

    /// Dispatches, and no frame has begun: of a counted one no byte has come.
    pub(crate) fn is_between_frames(&mut self) -> bool {
        let counted = matches!(self.framer.terminator(), Terminator::Count(_));
        let begun = self.framer.is_mid_frame() && !(counted && self.framer.length() == 0);
        self.is_open() && !begun
    }

    /// Something is queued for output.
    pub(crate) fn is_busy(&mut self) -> bool {
        !self.shared().output.is_idle()
    }

    /// Takes pushes, and dispatches.
    pub(crate) fn is_open(&mut self) -> bool {
        self.shared().output.is_open()
    }
}

/// One step through the input, in positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// `input[start..end]` is payload, and the frame's last if `ended`.
    Data {
        start: usize,
        end: usize,
        ended: bool,
    },
    Overlong,
    Truncated,
    Failed(FrameError),
    /// More input is wanted.
    Pending,
}

/// The next step, with a chunk and what ends it, unless that is the terminator, in two.
fn step(framer: &mut Framer, input: &[u8], eof: bool) -> Step {
    let (start, end, outcome) = match framer.take_owed() {
        Some(end) => (0, 0, Some(end)),
        None => match framer.cut(input, eof) {
            Ok(Some(Cut { start, end, outcome })) => (start, end, outcome),
            Ok(None) => return Step::Pending,
            Err(error) => return Step::Failed(error),
        },
    };
    match outcome {
        None | Some(End::Terminator) => Step::Data { start, end, ended: outcome.is_some() },
        Some(_) if start < end => {
            framer.owe(outcome);
            Step::Data { start, end, ended: false }
        }
        Some(End::Overlong | End::WrongEnd) => Step::Overlong,
        Some(End::Truncated) => Step::Truncated,
    }
}

/// A channel, borrowed by its fields.
pub(crate) struct Split<'a, S> {
    pub(crate) io: &'a mut S,
    pub(crate) input: &'a Bytes,
    pub(crate) framer: &'a mut Framer,
    pub(crate) shared: &'a Mutex<Shared>,
    pub(crate) timer: &'a mut Timer,
}

/// Nothing in here panics half-way but a producer, after which the queue has failed in good order.
#[inline]
pub(crate) fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Moves what other tasks have pushed to the output queue, if there is room.
pub(crate) fn take_pushed(shared: &mut Shared, cx: &Context<'_>) -> HandleState {
    let Some(receiver) = &shared.receiver else {
        return HandleState::Open;
    };
    let output = &mut shared.output;
    let (items, state) = receiver.poll_take(cx, output.is_open() && !output.is_full());
    for item in items {
        // It is open.
        let _ = output.push(item);
    }
    if state == HandleState::Closing {
        output.close_when_done();
    }
    state
}

/// Writes and flushes what is queued, and tells the timer how it went.
pub(crate) fn poll_flush<S: AsyncWrite + Unpin>(
    output: &mut Output,
    io: &mut S,
    timer: &mut Timer,
    cx: &mut Context<'_>,
) -> Poll<Result<(), SinkError>> {
    if output.is_idle() && output.is_open() {
        // What had been refused may have been discarded.
        timer.has_flushed();
        return Poll::Ready(Ok(()));
    }
    let before = output.written();
    let result = output.poll_flush(cx, Pin::new(io));
    report(timer, output, before);
    result
}

/// Tells the timer how a poll went, before which so many bytes had been written.
fn report(timer: &mut Timer, output: &Output, before: u64) {
    if output.written() > before {
        timer.has_written();
    }
    if output.is_refused() {
        timer.is_stalled();
    } else {
        timer.has_flushed();
    }
}

/// Takes what other tasks push, and writes and flushes what the writer takes. This may be the end.
pub(crate) fn poll_outgoing<S: AsyncWrite + Unpin>(
    io: &mut S,
    timer: &mut Timer,
    shared: &mut Shared,
    cx: &mut Context<'_>,
) -> Result<Poll<()>, Stop> {
    loop {
        // What other tasks push then waits.
        let full = shared.output.is_full();
        if shared.is_aborted() || take_pushed(shared, cx) == HandleState::Aborted {
            return Err(Stop::Aborted);
        }
        match poll_flush(&mut shared.output, io, timer, cx) {
            Poll::Ready(Ok(())) if full => {}
            Poll::Ready(Err(error)) => return Err(Stop::Failed(error.into())),
            Poll::Ready(Ok(())) => return Ok(Poll::Ready(())),
            Poll::Pending => return Ok(Poll::Pending),
        }
    }
}

/// Why there is no going on, for whoever waits for something else meanwhile.
pub(crate) enum Stop {
    Aborted,
    Failed(ChannelError),
}

impl<E> From<Stop> for CloseReason<E> {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Aborted => CloseReason::Aborted,
            Stop::Failed(error) => CloseReason::Error(error),
        }
    }
}

/// Bytes to be kept: a share of the input if there are many, else a copy that keeps nothing else.
pub(crate) fn keep(input: &Bytes, start: usize, end: usize) -> Bytes {
    if end - start < SHARE {
        Bytes::copy_from_slice(&input[start..end])
    } else {
        input.slice(start..end)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for Channel<S> {
    type Item = Result<Event<Bytes>, ChannelError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_event(cx)
    }
}

impl<S: fmt::Debug> fmt::Debug for Channel<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("io", &self.io)
            .field("phase", &self.phase)
            .field("terminator", &self.framer.terminator())
            .field("buffered", &(self.input.len() - self.framer.consumed().min(self.input.len())))
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

/// All that has a default in a [`Channel`]; made by [`Channel::builder`]. One builder makes any number
/// of channels.
#[derive(Clone, Debug)]
pub struct ChannelBuilder {
    terminator: Terminator,
    limit: Limit,
    timeouts: Timeouts,
    high_water_mark: usize,
    low_water_mark: usize,
    read_size: u32,
    handle_capacity: u32,
}

impl ChannelBuilder {
    fn new(terminator: Terminator) -> Self {
        let output = Output::new();
        ChannelBuilder {
            terminator,
            limit: Limit::Fail(DEFAULT_LIMIT),
            timeouts: Timeouts::default(),
            high_water_mark: output.high_water_mark(),
            low_water_mark: output.low_water_mark(),
            read_size: READ_SIZE,
            handle_capacity: HANDLE_CAPACITY,
        }
    }

    /// How long a frame may be, in bytes of payload: [`Limit::Fail`] of 64 KiB by default.
    #[must_use]
    pub fn limit(mut self, limit: Limit) -> Self {
        self.limit = limit;
        self
    }

    /// The deadlines: [`Timeouts::default`] by default.
    #[must_use]
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// How many bytes may be queued for output before no more input is read and no event dispatched:
    /// 256 KiB by default, at least 1. The bound on memory is this and what one callback pushes.
    #[must_use]
    pub fn high_water_mark(mut self, bytes: usize) -> Self {
        self.high_water_mark = bytes;
        self
    }

    /// How many queued bytes must be left before input is read again: 64 KiB by default.
    #[must_use]
    pub fn low_water_mark(mut self, bytes: usize) -> Self {
        self.low_water_mark = bytes;
        self
    }

    /// How many bytes are read at once, at most: 64 KiB by default, at least 1. It was asynchat's
    /// `ac_in_buffer_size`.
    #[must_use]
    pub fn read_size(mut self, bytes: usize) -> Self {
        self.read_size = u32::try_from(bytes.max(1)).unwrap_or(u32::MAX);
        self
    }

    /// How many bytes pushed through a [`Handle`] may wait for the channel's task: 64 KiB by default.
    #[must_use]
    pub fn handle_capacity(mut self, bytes: usize) -> Self {
        self.handle_capacity = u32::try_from(bytes).unwrap_or(u32::MAX);
        self
    }

    /// Makes a channel of a stream.
    pub fn build<S>(&self, io: S) -> Channel<S> {
        let mut output = Output::new();
        output.set_high_water_mark(self.high_water_mark);
        output.set_low_water_mark(self.low_water_mark);
        Channel {
            io,
            input: Bytes::new(),
            framer: Box::new(Framer::new(self.terminator.clone()).with_limit(self.limit)),
            ended: false,
            phase: Phase::Open,
            shared: Mutex::new(Shared::new(output, self.timeouts, self.handle_capacity)),
            timer: Timer::new(&self.timeouts.into()),
            read_size: self.read_size,
        }
    }
}

/// A stream could not be handed over, with its channel as it was.
pub struct UpgradeError<S> {
    channel: Box<Channel<S>>,
    cause: Option<ChannelError>,
}

impl<S> UpgradeError<S> {
    /// The channel, to go on with.
    pub fn into_channel(self) -> Channel<S> {
        *self.channel
    }
}

impl<S> fmt::Debug for UpgradeError<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpgradeError").field("cause", &self.cause).finish_non_exhaustive()
    }
}

impl<S> fmt::Display for UpgradeError<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.cause {
            None => "input is buffered that the other protocol must not see",
            Some(_) => "what was queued could not be written",
        })
    }
}

impl<S> error::Error for UpgradeError<S> {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.cause.as_ref().map(|cause| cause as _)
    }
}

/// In bytes of payload.
const DEFAULT_LIMIT: u64 = 64 * 1024;
/// In bytes: more only fills the cache.
const READ_SIZE: u32 = 64 * 1024;
pub(crate) const HANDLE_CAPACITY: u32 = 64 * 1024;
/// What a peer may still send, in bytes, after the channel has closed its half.
const LINGER_BYTES: u32 = 256 * 1024;
/// From so many bytes on a chunk is shared rather than copied. Whoever keeps it keeps the read buffer, of
/// which it must be a good part: a peer that sends little at a time must not make a queue of little
/// pieces hold many times what it counts.
const SHARE: usize = 16 * 1024;
