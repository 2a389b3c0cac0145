//! One connection, pulled.
//!
//! A channel is a stream, what has been read from it ([`Inbound`]), what is to be written to it and what
//! it has come to ([`Outbound`]), and the deadlines. There is one loop, whoever drives it: hand over what
//! is there ([`Channel::cut`]), and if there is nothing, move what can be moved and wait
//! ([`Channel::poll_turn`]). Only that waits while the connection is open, and only
//! [`Channel::poll_close`] after that.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::{fmt, future, mem};

use bytes::{BufMut, Bytes, BytesMut};
use futures_core::Stream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::poll_read_buf;

use crate::Payload;
use crate::framing::{Cut, End, Event, FrameError, Limit, Step, Terminator};
use crate::output::{Producer, PushError};
use crate::pool;
use crate::session::builder::ChannelBuilder;
use crate::session::control::{Chunk, Control, Outlet};
use crate::session::error::{Cause, ChannelError, CloseReason, Refusal, UpgradeError};
use crate::session::handle::Handle;
use crate::session::read::{Found, Inbound, OwnEnd, keep};
use crate::session::state::{Rest, State};
use crate::session::timer::{Passed, Timeout, Timeouts, Timer, Wait};
use crate::session::write::{Outbound, Traffic, Written, deadline, lock};
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
    pub(crate) inbound: Inbound,
    /// What a callback and the task that waits for it both use. Locked only while one waits.
    outbound: Mutex<Outbound>,
    timer: Timer,
    read_size: u32,
    /// How much may still be done in this poll before other tasks have their turn: a unit for each piece
    /// of a frame, [`READ_COST`] for each read.
    budget: u32,
    /// A pulled frame has ended, and its message with it unless it is said that it goes on.
    frame_ended: bool,
    /// Why the channel failed has been returned to whoever pulls.
    pub(crate) told: bool,
}

impl<S> Channel<S> {
    /// A channel with the defaults.
    pub fn new(io: S, terminator: impl Into<Terminator>) -> Self {
        Channel::builder(terminator).build(io)
    }

    pub(crate) fn with(io: S, inbound: Inbound, outbound: Outbound, read_size: u32) -> Self {
        Channel {
            io,
            inbound,
            outbound: Mutex::new(outbound),
            timer: Timer::default(),
            read_size,
            budget: BUDGET,
            frame_ended: false,
            told: false,
        }
    }

    /// Switches the terminator: see [`Framer::set_terminator`](crate::Framer::set_terminator).
    pub fn set_terminator(&mut self, terminator: impl Into<Terminator>) {
        self.inbound.framing.set_terminator(terminator.into());
    }

    /// The terminator in force. Of a count, what remains.
    pub fn terminator(&self) -> Terminator {
        self.inbound.framing.framer.terminator()
    }

    /// Sets the limit, for the current frame too.
    pub fn set_limit(&mut self, limit: Limit) {
        self.inbound.framing.set_limit(limit);
    }

    /// The limit in force.
    pub fn limit(&self) -> Limit {
        self.inbound.framing.framer.limit()
    }

    /// Whether frames are handed over whole, from the next frame on: see
    /// [`Framer::set_whole_frames`](crate::Framer::set_whole_frames).
    pub fn set_whole_frames(&mut self, whole: bool) {
        self.inbound.framing.set_whole_frames(whole);
    }

    /// Which member of a set ended the last frame: see [`Framer::matched`](crate::Framer::matched).
    pub fn matched(&self) -> usize {
        self.inbound.framing.framer.matched()
    }

    /// Marks the message at hand as one of several frames: see [`Control::begin_message`].
    pub fn begin_message(&mut self) {
        self.inbound.framing.begin_message();
    }

    /// The message that was marked ends with the frame at hand: see [`Control::end_message`].
    pub fn end_message(&mut self) {
        self.frame_ended |= self.inbound.framing.end_message();
    }

    /// Sets the deadlines, from now on.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) {
        self.outbound_mut().timeouts = Arc::new(timeouts);
    }

    /// The deadlines in force.
    pub fn timeouts(&self) -> Timeouts {
        *lock(&self.outbound).timeouts
    }

    /// Queues bytes. They go out while the channel is polled: by [`next`](Self::next),
    /// [`ready`](Self::ready), [`flush`](Self::flush) or [`close`](Self::close).
    ///
    /// # Errors
    ///
    /// After [`close_when_done`](Self::close_when_done), or when the channel has failed: the item is
    /// handed back.
    pub fn push<T: Payload>(&mut self, item: T) -> Result<(), PushError<T>> {
        self.outbound_mut().push(item)
    }

    /// Queues formatted text, without an allocation for it: `write!(channel, "{} bytes\r\n", n)?`.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    ///
    /// # Panics
    ///
    /// As `format!` does: if an implementation of `Display` or the like fails, which it must not.
    pub fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> Result<(), PushError<()>> {
        self.outbound_mut().write_fmt(text)
    }

    /// Queues what `write` appends to the output in place: all of it or, if it fails, nothing.
    ///
    /// # Errors
    ///
    /// What `write` returns; and [`ChannelError::Closed`] where a [`push`](Self::push) is refused: `write`
    /// is not called then.
    ///
    /// # Panics
    ///
    /// If `write` does, or removes what was in the buffer; the channel has failed then.
    pub fn push_with<R, E>(
        &mut self,
        write: impl FnOnce(&mut BytesMut) -> Result<R, E>,
    ) -> Result<R, E>
    where
        E: From<ChannelError>,
    {
        self.outbound_mut().push_with(write).unwrap_or_else(|_| Err(ChannelError::Closed.into()))
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
        self.outbound_mut().push_with_producer(producer)
    }

    /// Takes no more input and no more pushes, and closes once all that was pushed is written. The next
    /// call of [`next`](Self::next) or [`close`](Self::close) does the work.
    pub fn close_when_done(&mut self) {
        self.outbound_mut().close();
    }

    /// Drops what is queued for output, and input that is buffered or withheld. A scheduled close stays,
    /// as do the terminator and what remains of a count.
    pub fn discard_buffers(&mut self) {
        self.outbound_mut().output.discard_buffers();
        self.discard_input();
    }

    /// Drops everything and closes now: nothing that is queued is written.
    pub fn abort(&mut self) {
        self.fail(CloseReason::Aborted);
    }

    /// A handle for other tasks. The first one costs an allocation, further ones are clones.
    pub fn handle(&mut self) -> Handle {
        self.outbound_mut().handle()
    }

    /// Bytes waiting to be written, without those that producers still hold.
    pub fn queued_bytes(&self) -> usize {
        lock(&self.outbound).output.queued_bytes()
    }

    /// Bytes that have been read and not delivered.
    pub fn pending_input(&self) -> usize {
        self.inbound.pending()
    }

    /// Bytes read and written so far.
    pub fn traffic(&self) -> Traffic {
        let written = lock(&self.outbound).output.written();
        Traffic { read: self.inbound.framing.read, written }
    }

    /// Whether pushes are refused: after a close, or when the channel has failed.
    pub fn is_closed(&self) -> bool {
        !lock(&self.outbound).output.is_open()
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
    /// output is dropped: [`flush`](Self::flush) first. [`ChannelBuilder::build_with_input`] makes
    /// another channel of both.
    pub fn into_parts(self) -> (S, Bytes) {
        (self.io, self.inbound.into_bytes())
    }

    #[inline]
    pub(crate) fn outbound_mut(&mut self) -> &mut Outbound {
        get_mut(&mut self.outbound)
    }

    /// Drops what was read, beside output that was discarded: what the peer refused is of no account.
    pub(crate) fn discard_input(&mut self) {
        self.inbound.discard();
        self.timer.discard();
    }

    /// Nothing happens any more, for this cause if nothing went wrong before.
    pub(crate) fn fail(&mut self, cause: Cause) {
        self.outbound_mut().fail(cause);
        self.inbound.discard();
    }

    /// The next piece of a frame, if it is there and may be handed over. Most are: this is all that is
    /// done for them.
    #[inline(always)]
    pub(crate) fn cut(&mut self) -> Option<Cut> {
        let outbound = get_mut(&mut self.outbound);
        if self.budget == 0 || !outbound.may_hand_over() {
            return None;
        }
        self.budget -= 1;
        let skipping = self.inbound.is_skipping();
        let cut = self.inbound.cut(outbound.state.is_eof());
        if skipping && !self.inbound.is_skipping() {
            // The end of what was skipped is no piece of its own.
            self.timer.frame_ended();
        }
        match cut {
            Ok(Some(cut)) => Some(cut),
            ended => self.cut_nothing(ended.err().map(CloseReason::Frame)),
        }
    }

    /// Whether there may be something to cut: not if the application is to find the end of a message, and
    /// wants more input for that.
    #[inline]
    pub(crate) fn find_own_end<E>(
        &mut self,
        find: impl FnOnce(&[u8]) -> Result<Option<usize>, E>,
    ) -> Result<bool, E> {
        if !matches!(self.inbound.framing.own_end, OwnEnd::Looked(_)) {
            return Ok(true);
        }
        let outbound = get_mut(&mut self.outbound);
        if !outbound.may_hand_over() {
            return Ok(false);
        }
        match self.inbound.find_own_end(outbound.state.is_eof(), find)? {
            Found::Here => Ok(true),
            Found::Nothing => Ok(false),
            Found::Overlong(max) => {
                trace::overlong(self.limit());
                self.outbound_mut().state.over(CloseReason::Frame(FrameError::Overlong(max)));
                Ok(false)
            }
        }
    }

    /// There is nothing more to be cut from what was read, or for this cause never will be.
    #[inline(never)]
    fn cut_nothing(&mut self, cause: Option<Cause>) -> Option<Cut> {
        let in_message = self.inbound.framing.in_message();
        let state = &mut self.outbound_mut().state;
        match cause {
            Some(cause) => state.over(cause),
            None if state.is_eof() && in_message => state.over(CloseReason::Truncated),
            None if state.is_eof() => state.over(CloseReason::PeerClosed),
            None => {}
        }
        None
    }

    /// Nothing stands in the way of a turn but that there is nothing to be handed over.
    pub(crate) fn is_drained(&mut self) -> bool {
        self.budget > 0 && self.outbound_mut().may_hand_over()
    }

    /// The end that is to be told next, if it may be. After a close it is not told at all.
    pub(crate) fn take_owed(&mut self) -> Option<End> {
        let outbound = get_mut(&mut self.outbound);
        let may_be_told = match outbound.state {
            State::Open | State::Eof => outbound.may_hand_over(),
            // The upgrade was asked for with the last piece of a frame, and waits for its end.
            State::Over(CloseReason::Upgrade) => true,
            _ => {
                self.inbound.framing.framer.owe(None);
                return None;
            }
        };
        if may_be_told { self.inbound.framing.framer.take_owed() } else { None }
    }

    /// A frame has ended in this way.
    #[inline]
    pub(crate) fn note_end(&mut self, end: End) {
        self.inbound.framing.frame_ended();
        match end {
            End::Terminator | End::WrongEnd => {}
            End::Overlong => trace::overlong(self.limit()),
            End::Truncated => self.outbound_mut().state.over(CloseReason::Truncated),
        }
    }

    /// The callback for the end of a frame is over: if it did not say that its message goes on, the next
    /// has all its time.
    #[inline]
    pub(crate) fn end_told(&mut self) {
        self.inbound.framing.frame_ended();
        if !self.inbound.framing.in_message() {
            self.timer.frame_ended();
        }
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
    /// with nothing queued), an answer can still be pushed and the channel closed. After
    /// [`Timeout::Quiet`] the channel goes on.
    ///
    /// # Cancellation safety
    ///
    /// It may be dropped at any time; no event is lost, nor is output written twice. Deadlines do not run
    /// between two calls. (As a [`Stream`] they do, where the last poll was pending.)
    pub async fn next(&mut self) -> Option<Result<Event<Bytes>, ChannelError>> {
        self.wait(Self::poll_event).await
    }

    /// The next piece of a frame, lent, and how the frame ended if it did; or `None` at the end. It is
    /// [`next`](Self::next) without owned memory, and in one await what is a chunk and its end there. With
    /// it comes a [`Control`], so that the answer can be pushed while the piece is held.
    ///
    /// With [whole frames](Self::set_whole_frames) each piece is a frame.
    ///
    /// ```
    /// use asynchat::{Channel, End};
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (mut client, server) = tokio::io::duplex(64);
    /// client.write_all(b"hello\n\nworld\n").await?;
    /// client.shutdown().await?;
    ///
    /// let mut channel = Channel::builder(b"\n").whole_frames(true).build(server);
    /// while let Some((step, mut control)) = channel.step().await? {
    ///     assert_eq!(step.end, Some(End::Terminator));
    ///     control.push(&step.payload[..]);
    ///     control.push("!");
    /// }
    /// channel.close().await?;
    /// let mut answers = String::new();
    /// client.read_to_string(&mut answers).await?;
    /// assert_eq!(answers, "hello!!world!");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next).
    ///
    /// # Cancellation safety
    ///
    /// As [`next`](Self::next).
    pub async fn step(&mut self) -> Result<Option<(Step<Chunk<'_>>, Control<'_>)>, ChannelError> {
        let cut = self.wait(Self::poll_cut).await?;
        Ok(cut.map(|cut| self.lend(cut)))
    }

    /// The next message whole, where its end is for the application to find; or `None` at the end.
    ///
    /// `find_end` is shown all input that is there, from the beginning of the message on, and says how
    /// many bytes are the message; more may come than it was shown. `None` wants to be asked again when
    /// there is more. It is a parser that has no buffer, and the channel's limit, deadlines and
    /// back-pressure hold for it as for any frame: a message longer than the limit, whichever that is, is
    /// [`FrameError::Overlong`](crate::FrameError::Overlong). If the input ends in a message, its beginning
    /// comes with [`End::Truncated`].
    ///
    /// Behind it a terminator has to be set, unless the next message is taken in the same way.
    ///
    /// ```
    /// use asynchat::Channel;
    /// use tokio::io::AsyncWriteExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// // A byte says how long the message is.
    /// fn find_end(input: &[u8]) -> Option<usize> {
    ///     input.first().map(|length| 1 + usize::from(*length))
    /// }
    ///
    /// let (mut client, server) = tokio::io::duplex(64);
    /// client.write_all(b"\x05hello\x00\x02hi").await?;
    /// client.shutdown().await?;
    /// let mut channel = Channel::new(server, None);
    /// let mut messages = Vec::new();
    /// while let Some((step, _)) = channel.message(find_end).await? {
    ///     messages.push(step.payload[1..].to_vec());
    /// }
    /// assert_eq!(messages, [&b"hello"[..], b"", b"hi"]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next).
    ///
    /// # Cancellation safety
    ///
    /// As [`next`](Self::next): the message begins anew with the next call.
    pub async fn message(
        &mut self,
        mut find_end: impl FnMut(&[u8]) -> Option<usize>,
    ) -> Result<Option<(Step<Chunk<'_>>, Control<'_>)>, ChannelError> {
        let whole = self.inbound.framing.framer.whole_frames();
        self.inbound.framing.set_own_end(true);
        let cut = self.wait(|channel, cx| channel.poll_cut_by(cx, &mut find_end)).await?;
        self.inbound.framing.set_own_end(false);
        self.inbound.framing.set_whole_frames(whole);
        Ok(cut.map(|cut| self.lend(cut)))
    }

    /// Waits until there is room for output: at once below the high-water mark, else until the low-water
    /// mark is reached.
    ///
    /// # Errors
    ///
    /// [`ChannelError`] if the stream, a producer or the write-stall deadline fails;
    /// [`ChannelError::Closed`] if pushes are refused.
    ///
    /// # Cancellation safety
    ///
    /// It may be dropped at any time; nothing is lost, nor written twice.
    pub async fn ready(&mut self) -> Result<(), ChannelError> {
        self.wait(Self::poll_ready).await
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
        self.wait(|channel, cx| {
            let flushed = ready!(channel.poll_flush(cx));
            Poll::Ready(flushed.map_err(|cause| {
                channel.fail(cause);
                channel.tell_once()
            }))
        })
        .await
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
        self.wait(Self::poll_close).await;
        if self.outbound_mut().output.is_closed() { Ok(()) } else { Err(self.tell_once()) }
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
    /// output could not be written. The channel is handed back as it was
    /// ([`UpgradeError::into_inner`]), unless the stream or a producer has failed.
    pub async fn upgrade(mut self) -> Result<S, UpgradeError<Channel<S>>> {
        let pending = self.pending_input().max(self.inbound.has_owed().into());
        if pending > 0 {
            return Err(UpgradeError::new(self, Refusal::Pending(pending)));
        }
        let mut flushed = self.wait(Self::poll_flush).await;
        if flushed.is_ok() {
            // What is pushed from here on is refused, and what was not is written.
            self.outbound_mut().close_inbox();
            flushed = self.wait(Self::poll_flush).await;
        }
        match flushed {
            Ok(()) => Ok(self.io),
            Err(cause) => {
                self.outbound_mut().reopen_inbox();
                let stalled = matches!(cause, CloseReason::Timeout(_));
                let error = if stalled {
                    cause.into()
                } else {
                    self.fail(cause);
                    self.tell_once()
                };
                Err(UpgradeError::new(self, Refusal::Unwritten(error)))
            }
        }
    }

    /// Waits for what is polled. Deadlines run no longer than that.
    async fn wait<R>(&mut self, mut poll: impl FnMut(&mut Self, &mut Context<'_>) -> Poll<R>) -> R {
        struct Waiting<'a, S>(&'a mut Channel<S>);
        impl<S> Drop for Waiting<'_, S> {
            fn drop(&mut self) {
                self.0.timer.pause();
            }
        }
        let waiting = Waiting(self);
        future::poll_fn(|cx| poll(&mut *waiting.0, cx)).await
    }

    fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Event<Bytes>, ChannelError>>> {
        let cut = match ready!(self.poll_cut(cx)) {
            Ok(Some(cut)) => cut,
            Ok(None) => return Poll::Ready(None),
            Err(error) => return Poll::Ready(Some(Err(error))),
        };
        let event = match cut.outcome {
            Some(end) if cut.start == cut.end => {
                self.end_pulled(end);
                Event::from(end)
            }
            outcome => {
                self.inbound.framing.framer.owe(outcome);
                let input = &self.inbound.input;
                Event::Chunk(keep(&input[cut.start..cut.end], input))
            }
        };
        Poll::Ready(Some(Ok(event)))
    }

    fn lend(&mut self, cut: Cut) -> (Step<Chunk<'_>>, Control<'_>) {
        if let Some(end) = cut.outcome {
            self.end_pulled(end);
        }
        let (input, control) = self.parts();
        let step = Step { payload: Chunk::new(input, cut.start, cut.end), end: cut.outcome };
        (step, control)
    }

    fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Cut>, ChannelError>> {
        // A message that was waited for in vain is a frame like others now.
        self.inbound.framing.set_own_end(false);
        self.poll_cut_by(cx, &mut |_| None)
    }

    /// The next piece of a frame, or its end that is owed, which has no bytes; `None` at the end.
    fn poll_cut_by(
        &mut self,
        cx: &mut Context<'_>,
        find_end: &mut dyn FnMut(&[u8]) -> Option<usize>,
    ) -> Poll<Result<Option<Cut>, ChannelError>> {
        self.outbound_mut().state.forget_upgrade();
        if mem::take(&mut self.frame_ended) && !self.inbound.framing.in_message() {
            self.timer.frame_ended();
        }
        loop {
            if !self.inbound.has_owed() {
                let found = self.find_own_end(|input| Ok::<_, Infallible>(find_end(input)));
                if let Ok(true) = found {
                    if let Some(cut) = self.cut() {
                        return Poll::Ready(Ok(Some(cut)));
                    }
                }
            } else if let Some(end) = self.take_owed() {
                return Poll::Ready(Ok(Some(Cut { start: 0, end: 0, outcome: Some(end) })));
            }
            if !self.outbound_mut().state.is_open() {
                ready!(self.poll_end(cx));
                let failed = match self.outbound_mut().state.cause() {
                    Some(CloseReason::Aborted) | None => false,
                    Some(cause) => !cause.is_orderly(),
                };
                return Poll::Ready(if failed && !self.told {
                    Err(self.tell_once())
                } else {
                    Ok(None)
                });
            }
            if let Turn::Quiet = ready!(self.poll_turn(cx, false)) {
                return Poll::Ready(Err(ChannelError::Timeout(Timeout::Quiet)));
            }
        }
    }

    /// An end of a frame was pulled.
    fn end_pulled(&mut self, end: End) {
        // Whether its message goes on is said behind it.
        self.frame_ended = true;
        self.note_end(end);
    }

    /// A scheduled close is carried out; else there is nothing to be done.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.outbound_mut().state {
            State::Open | State::Eof | State::Over(_) | State::Closed(_) => Poll::Ready(()),
            State::Closing(..) | State::Lingering(..) => self.poll_close(cx),
        }
    }

    /// Why the channel has failed, to whoever has not been told yet.
    fn tell_once(&mut self) -> ChannelError {
        if mem::replace(&mut self.told, true) {
            return ChannelError::Closed;
        }
        self.outbound_mut().state.tell::<Infallible>().into()
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ChannelError>> {
        loop {
            let outbound = get_mut(&mut self.outbound);
            outbound.poll_inbox(cx);
            if !outbound.output.is_open() {
                return Poll::Ready(Err(self.tell_once()));
            }
            if !outbound.output.is_full() {
                return Poll::Ready(Ok(()));
            }
            match outbound.poll_room(cx, &mut self.io, &mut self.timer) {
                Ok(Written::All) => {}
                Ok(written) => ready!(self.poll_deadline(cx, written)),
                Err(cause) => self.fail(cause),
            }
        }
    }

    /// Writes and flushes all that is queued, what other tasks have pushed included. A stall is not yet
    /// a failure.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cause>> {
        let outbound = get_mut(&mut self.outbound);
        outbound.poll_inbox(cx);
        loop {
            if outbound.state.is_closed() {
                return Poll::Ready(Err(CloseReason::Aborted));
            }
            let written = outbound.poll_flush(cx, &mut self.io, &mut self.timer)?;
            if written == Written::All {
                if outbound.has_items() && outbound.output.is_open() {
                    // What waited for room has it now.
                    outbound.poll_inbox(cx);
                    continue;
                }
                return Poll::Ready(Ok(()));
            }
            let refused = written == Written::Refused;
            let wait = Wait { peer: refused, refused, ..Wait::default() };
            let passed = ready!(self.timer.poll(cx, &outbound.timeouts, wait));
            if let Some(timeout) = deadline(passed) {
                trace::timed_out(timeout);
                return Poll::Ready(Err(CloseReason::Timeout(timeout)));
            }
        }
    }

    /// A deadline fails the channel while nothing but the writer is waited for.
    fn poll_deadline(&mut self, cx: &mut Context<'_>, written: Written) -> Poll<()> {
        let refused = written == Written::Refused;
        let wait = Wait { peer: refused, refused, ..Wait::default() };
        let outbound = get_mut(&mut self.outbound);
        if let Some(timeout) = deadline(ready!(self.timer.poll(cx, &outbound.timeouts, wait))) {
            trace::timed_out(timeout);
            self.fail(CloseReason::Timeout(timeout));
        }
        Poll::Ready(())
    }

    /// Moves what can be moved while the channel is open: takes what other tasks push, writes, reads
    /// once. Ready when there is something new to look at, if only the state. With `shutdown`, the
    /// message that has begun is not waited for as long as others.
    pub(crate) fn poll_turn(&mut self, cx: &mut Context<'_>, shutdown: bool) -> Poll<Turn> {
        let budget = match mem::replace(&mut self.budget, BUDGET) {
            0 => {
                self.budget = REFRESHED;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            // Others have had their turn, and there may be more to hand over.
            REFRESHED => return Poll::Ready(Turn::Again),
            left => left,
        };
        let outbound = get_mut(&mut self.outbound);
        outbound.poll_inbox(cx);
        if mem::take(&mut outbound.discards_input) {
            self.discard_input();
            return Poll::Ready(Turn::Again);
        }
        if !outbound.state.is_open() {
            return Poll::Ready(Turn::Again);
        }
        let mut wait = Wait::default();
        if outbound.output.is_full() || outbound.state.is_eof() {
            match outbound.poll_room(cx, &mut self.io, &mut self.timer) {
                Ok(Written::All) => return self.turned(),
                Ok(written) => wait.refused = written == Written::Refused,
                Err(cause) => {
                    self.fail(cause);
                    return self.turned();
                }
            }
            wait.peer = wait.refused;
        } else {
            // The input is drained: now is the time to flush.
            let written = match outbound.poll_flush(cx, &mut self.io, &mut self.timer) {
                Ok(written) => written,
                Err(cause) => {
                    self.fail(cause);
                    return self.turned();
                }
            };
            if outbound.has_items() {
                // What waited for room has it now.
                return self.turned();
            }
            match self.inbound.poll_read(cx, &mut self.io, self.read_size as usize) {
                Poll::Ready(Ok(read)) => {
                    if read == 0 {
                        outbound.state.end_input();
                    }
                    self.inbound.framing.read += read as u64;
                    self.timer.read();
                    self.budget = budget.saturating_sub(READ_COST).max(1);
                    return self.turned();
                }
                Poll::Ready(Err(error)) => {
                    self.fail(CloseReason::Io(error));
                    return self.turned();
                }
                Poll::Pending => {}
            }
            wait.refused = written == Written::Refused;
            wait.peer = written != Written::Waiting;
            wait.frame = self.inbound.unfinished();
            if wait.frame.is_none() {
                self.timer.frame_ended();
            }
            wait.shutdown = shutdown;
        }
        let outbound = get_mut(&mut self.outbound);
        match ready!(self.timer.poll(cx, &outbound.timeouts, wait)) {
            Passed::Shutdown => return Poll::Ready(Turn::Shutdown),
            Passed::Deadline(Timeout::Quiet) => return Poll::Ready(Turn::Quiet),
            Passed::Deadline(timeout) => outbound.time_out(timeout),
            Passed::End => {}
        }
        self.turned()
    }

    fn turned(&mut self) -> Poll<Turn> {
        self.timer.pause();
        Poll::Ready(Turn::Again)
    }

    /// Brings a channel that closes to its end: writes what is queued, shuts down, waits for the peer.
    pub(crate) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let outbound = get_mut(&mut self.outbound);
            outbound.poll_inbox(cx);
            let lingers = outbound.timeouts.linger.is_some();
            let mut wait = Wait::default();
            match outbound.state {
                State::Open | State::Eof | State::Over(_) => outbound.finish(),
                State::Closed(_) => {
                    outbound.end_inbox();
                    self.inbound.discard();
                    return Poll::Ready(());
                }
                State::Lingering(_, rest) => {
                    if rest == 0 {
                        outbound.state.end();
                        continue;
                    }
                    if self.poll_drop_input(cx, rest).is_ready() {
                        continue;
                    }
                    wait.end = get_mut(&mut self.outbound).timeouts.linger;
                }
                State::Closing(_, rest) => {
                    self.inbound.discard();
                    match outbound.poll_flush(cx, &mut self.io, &mut self.timer) {
                        Ok(Written::All) => {
                            outbound.state.written(lingers);
                            self.timer.begin_end();
                            continue;
                        }
                        Ok(written) => wait.refused = written == Written::Refused,
                        Err(cause) => {
                            self.fail(cause);
                            continue;
                        }
                    }
                    // A peer that writes all before it reads must not wait for us as we for it.
                    if lingers && rest > 0 && self.poll_drop_input(cx, rest).is_ready() {
                        continue;
                    }
                    let outbound = get_mut(&mut self.outbound);
                    // After a deadline the last word has its own.
                    let passed = outbound.state.passed();
                    wait.end = passed.map(|_| LAST_WORD);
                    wait.peer = wait.refused && passed.is_none();
                }
            }
            let outbound = get_mut(&mut self.outbound);
            if matches!(outbound.state, State::Closing(..) | State::Lingering(..)) {
                let passed = ready!(self.timer.poll(cx, &outbound.timeouts, wait));
                match (&outbound.state, passed) {
                    (State::Lingering(..), Passed::End) => outbound.state.end(),
                    (_, Passed::Deadline(timeout)) => {
                        trace::timed_out(timeout);
                        self.fail(CloseReason::Timeout(timeout));
                    }
                    (_, Passed::End) => self.fail(CloseReason::Timeout(Timeout::WriteStall)),
                    (_, Passed::Shutdown) => {}
                }
            }
        }
    }

    /// Reads at most so many bytes, and drops them.
    fn poll_drop_input(&mut self, cx: &mut Context<'_>, most: Rest) -> Poll<()> {
        let most = most.min(self.read_size);
        let mut buffer = pool::take(most as usize);
        let mut room = (&mut buffer).limit(most as usize);
        let read = poll_read_buf(Pin::new(&mut self.io), cx, &mut room);
        pool::give(buffer);
        let outbound = get_mut(&mut self.outbound);
        match ready!(read) {
            Ok(read @ 1..) => {
                self.inbound.framing.read += read as u64;
                outbound.state.dropped(read as Rest);
            }
            // If something is wrong, the writer will say so.
            Ok(0) | Err(_) => outbound.state.end_input(),
        }
        Poll::Ready(())
    }

    /// Starts the shutdown of a stream that has failed or was aborted, without waiting for it, unless it
    /// was shut down before.
    pub(crate) async fn shut_down(&mut self) {
        if self.outbound_mut().output.is_closed() {
            return;
        }
        future::poll_fn(|cx| {
            let _ = Pin::new(&mut self.io).poll_shutdown(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// The input, and what a callback that does not wait needs.
    #[inline]
    pub(crate) fn parts(&mut self) -> (&Bytes, Control<'_>) {
        let pending = self.inbound.pending();
        let Inbound { input, framing, .. } = &mut self.inbound;
        let outbound = get_mut(&mut self.outbound);
        (input, Control::new(framing, Outlet::Direct(outbound), pending))
    }

    /// What a callback that may wait needs, and what goes on meanwhile.
    #[inline(always)]
    pub(crate) fn waiting_parts(&mut self) -> (Control<'_>, Meanwhile<'_, S>) {
        let pending = self.inbound.pending();
        if pending == 0 {
            // No memory is held for input while a callback waits.
            self.inbound.trim();
        }
        let framing = &mut self.inbound.framing;
        let (outbound, io, timer) = (&self.outbound, &mut self.io, &mut self.timer);
        let control = Control::new(framing, Outlet::Locked(outbound), pending);
        (control, Meanwhile { outbound, io, timer })
    }
}

/// What goes on while a callback waits.
pub(crate) struct Meanwhile<'a, S> {
    outbound: &'a Mutex<Outbound>,
    io: &'a mut S,
    timer: &'a mut Timer,
}

impl<S: AsyncWrite + Unpin> Meanwhile<'_, S> {
    /// Ready if the callback is not to be waited for any more.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        lock(self.outbound).poll_meanwhile(cx, self.io, self.timer)
    }
}

/// What has come of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// There is something new to look at.
    Again,
    /// The peer has been quiet: [`Timeouts::quiet`].
    Quiet,
    /// A message is not waited for any longer, now that the connection is wanted to end.
    Shutdown,
}

#[inline]
fn get_mut(outbound: &mut Mutex<Outbound>) -> &mut Outbound {
    outbound.get_mut().unwrap_or_else(PoisonError::into_inner)
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
            .field("terminator", &self.terminator())
            .field("pending_input", &self.pending_input())
            .field("outbound", &*lock(&self.outbound))
            .finish_non_exhaustive()
    }
}

/// How much is done in one poll: so many pieces of frames.
const BUDGET: u32 = 1024;
/// The budget after a turn of other tasks.
const REFRESHED: u32 = BUDGET + 1;
/// What a read costs, in pieces of frames.
const READ_COST: u32 = 64;
/// What is pushed when a deadline has passed is to be written in this time.
const LAST_WORD: std::time::Duration = std::time::Duration::from_secs(5);
