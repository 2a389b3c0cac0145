//! The pull interface: a connection whose owner asks for what comes.
//!
//! Nothing here reads or writes: each call polls the [`Conn`] until it has what was asked for. This file adds what
//! pulling needs and a handler does not: that deadlines stand still between two calls, and that a failure is
//! returned once.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::{fmt, mem};

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::Payload;
use crate::framing::{Cut, End, Event, Limit, Step, Terminator};
use crate::output::{Producer, PushError};
use crate::session::conn::{Conn, Turn};
use crate::session::control::{Chunk, Control};
use crate::session::error::{ChannelError, CloseReason, Refusal, UpgradeError};
use crate::session::handle::Handle;
use crate::session::state::State;
use crate::session::timer::{Timeout, Timeouts};
use crate::session::write::Traffic;

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
/// | output queue | 256 KiB; from there on nothing is read or handed over until 64 KiB are left |
/// | one read | 64 KiB at most |
/// | pushes by all [`Handle`]s | 1 MiB may wait for the channel's task, or one push that is longer |
///
/// # Memory
///
/// A channel that waits for input holds no read buffer. It holds what it has read and not handed over: the few
/// bytes that may begin a terminator, or, where frames or messages are handed over whole, what has come of the
/// one at hand. When all output is written it holds no write buffer.
///
/// # Switching
///
/// A channel looks at the input it has before it reads, so that a terminator set at any moment takes
/// effect at the next call, though the peer sends nothing more.
pub struct Channel<S> {
    pub(crate) conn: Conn<S>,
}

impl<S> Channel<S> {
    pub(crate) fn with(conn: Conn<S>) -> Self {
        Channel { conn }
    }

    /// Switches the terminator: see [`Framer::set_terminator`](crate::Framer::set_terminator).
    #[inline(always)]
    pub fn set_terminator(&mut self, terminator: impl Into<Terminator>) {
        self.conn.inbound.framing.set_terminator(terminator.into());
    }

    /// The terminator in force. Of a count, what remains.
    pub fn terminator(&self) -> Terminator {
        self.conn.inbound.framing.framer.terminator()
    }

    /// Sets the limit, for the current frame too.
    pub fn set_limit(&mut self, limit: Limit) {
        self.conn.inbound.framing.set_limit(limit);
    }

    /// The limit in force.
    pub fn limit(&self) -> Limit {
        self.conn.inbound.framing.framer.limit()
    }

    /// Takes the rest of a frame that has ended early for a new one: see [`Control::resume`]. Whoever pulls by
    /// [`next`](Self::next) calls it after the event that says so, not after the chunk before it.
    pub fn resume(&mut self) {
        self.conn.inbound.framing.resume();
    }

    /// What a callback has, for a function that serves both: a greeting that is also an answer, say.
    ///
    /// ```
    /// use asynchat::{Channel, Control};
    ///
    /// fn greet(control: &mut Control<'_>) {
    ///     control.push("220 hello\r\n");
    ///     control.set_terminator(b"\r\n");
    /// }
    ///
    /// let (_client, server) = tokio::io::duplex(64);
    /// let mut channel = Channel::new(server, None);
    /// greet(&mut channel.control());
    /// assert_eq!(channel.queued_bytes(), 11);
    /// ```
    pub fn control(&mut self) -> Control<'_> {
        self.conn.parts().1
    }

    /// Whether frames are handed over whole, from the next frame on: see
    /// [`Framer::set_whole_frames`](crate::Framer::set_whole_frames).
    pub fn set_whole_frames(&mut self, whole: bool) {
        self.conn.inbound.framing.set_whole_frames(whole);
    }

    /// Which member of a set ended the last frame: see [`Framer::matched`](crate::Framer::matched).
    pub fn matched(&self) -> usize {
        self.conn.inbound.framing.framer.matched()
    }

    /// Marks the message at hand as one of several frames: see [`Control::begin_message`].
    ///
    /// ```
    /// use asynchat::{Channel, ChannelError, Event};
    /// use tokio::io::AsyncWriteExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), ChannelError> {
    /// let (mut client, server) = tokio::io::duplex(64);
    /// # let sent =
    /// client.write_all(b"GET /\n").await;
    /// # assert!(sent.is_ok());
    /// drop(client);
    /// let mut channel = Channel::builder(b"\n").whole_frames(true).build(server);
    /// assert_eq!(channel.next().await.transpose()?, Some(Event::Chunk("GET /".into())));
    /// channel.begin_message(); // headers are to come, up to an empty line
    /// assert_eq!(channel.next().await.transpose()?, Some(Event::Terminator));
    /// // A request was cut, though no line was.
    /// assert_eq!(channel.next().await.transpose()?, Some(Event::Truncated));
    /// # Ok(())
    /// # }
    /// ```
    pub fn begin_message(&mut self) {
        self.conn.inbound.framing.begin_message();
    }

    /// The message that was marked ends with the frame at hand: see [`Control::end_message`].
    pub fn end_message(&mut self) {
        self.conn.inbound.framing.end_message();
    }

    /// Sets the deadlines, from now on. A deadline that was in force keeps the time that it has counted; one that was
    /// `None` counts from now.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) {
        self.conn.outbound_mut().deadlines = timeouts.shared();
    }

    /// The deadlines in force.
    pub fn timeouts(&self) -> Timeouts {
        self.conn.outbound().deadlines.timeouts
    }

    /// Queues bytes. They go out while the channel is polled: when [`next`](Self::next),
    /// [`step`](Self::step) or [`message`](Self::message) has to wait, and by [`flush`](Self::flush) and
    /// [`close`](Self::close). [`ready`](Self::ready) writes only if the queue is full.
    ///
    /// ```
    /// use asynchat::Channel;
    /// use tokio::io::AsyncReadExt;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (mut client, server) = tokio::io::duplex(64);
    /// let mut channel = Channel::new(server, b"\r\n");
    /// channel.push("one, ")?;
    /// channel.push(vec![b't', b'w', b'o'])?;
    /// channel.close_when_done();
    /// assert_eq!(channel.push("three").unwrap_err().into_inner(), "three");
    /// channel.close().await?;
    /// let mut sent = String::new();
    /// client.read_to_string(&mut sent).await?;
    /// assert_eq!(sent, "one, two");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// After [`close_when_done`](Self::close_when_done), or when the channel has failed: the item is
    /// handed back.
    #[inline]
    pub fn push<T: Payload>(&mut self, item: T) -> Result<(), PushError<T>> {
        self.conn.outbound.get_mut().push(item)
    }

    /// Queues formatted text, without an allocation for it: `write!(channel, "{} bytes\r\n", n)?`.
    ///
    /// ```
    /// use asynchat::Channel;
    ///
    /// let (_client, server) = tokio::io::duplex(64);
    /// let mut channel = Channel::new(server, b"\r\n");
    /// write!(channel, "{} bytes\r\n", 17)?;
    /// assert_eq!(channel.queued_bytes(), 10);
    /// # Ok::<(), asynchat::PushError<()>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    ///
    /// # Panics
    ///
    /// As `format!` does: if an implementation of `Display` or the like fails, which it must not.
    pub fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> Result<(), PushError<()>> {
        self.conn.outbound.get_mut().write_fmt(text)
    }

    /// Queues what `write` appends to the output in place, and returns what it returns.
    ///
    /// ```
    /// use asynchat::Channel;
    /// use bytes::BufMut;
    ///
    /// let (_client, server) = tokio::io::duplex(64);
    /// let mut channel = Channel::new(server, b"\r\n");
    /// channel.push_with(|output| {
    ///     output.put_u16(3);
    ///     output.put_slice(b"abc");
    /// })?;
    /// assert_eq!(channel.queued_bytes(), 5);
    /// # Ok::<(), asynchat::PushError<()>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push): `write` is not called then.
    ///
    /// # Panics
    ///
    /// If `write` does, or removes what was in the buffer; the channel has failed then.
    pub fn push_with<R>(
        &mut self,
        write: impl FnOnce(&mut BytesMut) -> R,
    ) -> Result<R, PushError<()>> {
        self.conn.outbound.get_mut().push_with(write)
    }

    /// As [`push_with`](Self::push_with), with a `write` that may fail: then nothing is queued.
    ///
    /// ```
    /// use asynchat::{Channel, ChannelError};
    /// use bytes::BufMut;
    ///
    /// let (_client, server) = tokio::io::duplex(64);
    /// let mut channel = Channel::new(server, b"\r\n");
    /// let failed: Result<(), ChannelError> = channel.try_push_with(|output| {
    ///     output.put_slice(b"the beginning of an answer");
    ///     Err(ChannelError::Closed)
    /// });
    /// assert!(failed.is_err());
    /// assert_eq!(channel.queued_bytes(), 0);
    /// ```
    ///
    /// # Errors
    ///
    /// What `write` returns; and [`ChannelError::Closed`] where a [`push`](Self::push) is refused: `write`
    /// is not called then.
    ///
    /// # Panics
    ///
    /// As [`push_with`](Self::push_with).
    pub fn try_push_with<R, E>(
        &mut self,
        write: impl FnOnce(&mut BytesMut) -> Result<R, E>,
    ) -> Result<R, E>
    where
        E: From<ChannelError>,
    {
        let written = self.conn.outbound.get_mut().try_push_with(write);
        written.unwrap_or_else(|_| Err(ChannelError::Closed.into()))
    }

    /// Queues a producer, behind all that was pushed before it.
    ///
    /// ```
    /// use asynchat::{Channel, producer};
    /// use tokio::io::AsyncReadExt;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (mut client, server) = tokio::io::duplex(64);
    /// let mut channel = Channel::new(server, b"\r\n");
    /// channel.push("a file: ")?;
    /// channel.push_with_producer(producer::reader(&b"what it holds"[..]))?;
    /// channel.close().await?;
    /// let mut sent = String::new();
    /// client.read_to_string(&mut sent).await?;
    /// assert_eq!(sent, "a file: what it holds");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn push_with_producer<P>(&mut self, producer: P) -> Result<(), PushError<P>>
    where
        P: Producer + Send + 'static,
    {
        self.conn.outbound.get_mut().push_with_producer(producer)
    }

    /// Takes no more input and no more pushes, and closes once all that was pushed is written. The next
    /// call of [`close`](Self::close), or of [`next`](Self::next) and the like, does the work.
    pub fn close_when_done(&mut self) {
        self.conn.outbound_mut().close();
    }

    /// Drops what is queued for output, and input that is buffered or withheld. A scheduled close stays,
    /// as do the terminator and what remains of a count (but not the length that was found for a
    /// [message](Self::message)), and what [`Handle`]s have pushed and the channel has not taken yet.
    ///
    /// ```
    /// use asynchat::{Channel, Event};
    /// use tokio::io::AsyncWriteExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (mut client, server) = tokio::io::duplex(64);
    /// let mut channel = Channel::new(server, b"\n");
    /// client.write_all(b"one\ntwo\n").await?;
    /// assert_eq!(channel.next().await.transpose()?, Some(Event::Chunk("one".into())));
    /// channel.push("an answer")?;
    /// channel.discard_buffers();
    /// assert_eq!((channel.queued_bytes(), channel.pending_input()), (0, 0));
    /// # Ok(())
    /// # }
    /// ```
    pub fn discard_buffers(&mut self) {
        self.conn.outbound_mut().output.discard_buffers();
        self.conn.discard_input();
    }

    /// Drops everything: nothing that is queued is written, and no call waits for the peer any more. The
    /// stream is not shut down; the peer sees the end when the channel is dropped.
    ///
    /// ```
    /// use asynchat::Channel;
    /// use tokio::io::AsyncReadExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (mut client, server) = tokio::io::duplex(64);
    /// let mut channel = Channel::new(server, b"\n");
    /// channel.push("never sent")?;
    /// channel.abort();
    /// assert!(channel.next().await.is_none());
    /// drop(channel);
    /// assert_eq!(client.read(&mut [0; 64]).await?, 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn abort(&mut self) {
        self.conn.fail(CloseReason::Aborted);
    }

    /// A handle for other tasks. The first one costs an allocation, further ones are clones.
    pub fn handle(&mut self) -> Handle {
        self.conn.outbound_mut().handle()
    }

    /// Bytes waiting to be written, without those that producers still hold, and those that [`Handle`]s have
    /// pushed and the channel has not taken yet.
    pub fn queued_bytes(&self) -> usize {
        self.conn.outbound().output.queued_bytes()
    }

    /// Bytes that have been read and not delivered.
    pub fn pending_input(&self) -> usize {
        self.conn.inbound.pending()
    }

    /// Bytes read and written so far.
    pub fn traffic(&self) -> Traffic {
        let written = self.conn.outbound().output.written();
        Traffic { read: self.conn.inbound.framing.read, written }
    }

    /// Whether pushes are refused: after a close, or when the channel has failed.
    pub fn is_closed(&self) -> bool {
        !self.conn.outbound().output.is_open()
    }

    /// The stream. Reading from it or writing to it past the channel is at the caller's own risk.
    pub fn get_ref(&self) -> &S {
        &self.conn.peer.io
    }

    /// The stream. Reading from it or writing to it past the channel is at the caller's own risk.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.conn.peer.io
    }

    /// Gives back the stream, with the input that has been read but not delivered. What is queued for
    /// output is dropped: [`flush`](Self::flush) first. An end of a frame that was not pulled yet is lost: pull
    /// it first. [`build_with_input`] makes another channel of both.
    ///
    /// [`build_with_input`]: crate::ChannelBuilder::build_with_input
    ///
    /// ```
    /// use asynchat::{Channel, Event};
    /// use tokio::io::AsyncWriteExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (mut client, server) = tokio::io::duplex(64);
    /// client.write_all(b"RAW\nwhatever comes").await?;
    /// let mut channel = Channel::new(server, b"\n");
    /// assert_eq!(channel.next().await.transpose()?, Some(Event::Chunk("RAW".into())));
    /// assert_eq!(channel.next().await.transpose()?, Some(Event::Terminator));
    /// let (_stream, read) = channel.into_parts();
    /// assert_eq!(read, "whatever comes");
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_parts(self) -> (S, Bytes) {
        (self.conn.peer.io, self.conn.inbound.into_bytes())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Channel<S> {
    /// The next event, or `None` at the end: of the input, or, after
    /// [`close_when_done`](Self::close_when_done), of the output.
    ///
    /// While it waits it writes what is queued, flushing when the input is drained. At the end of the
    /// input queued output is kept: [`close`](Self::close) writes it.
    ///
    /// A chunk of less than 16 KiB is copied, so that to keep it keeps nothing else; a larger one shares the
    /// read buffer.
    ///
    /// # Errors
    ///
    /// [`ChannelError`], once; then `None`. After [`ChannelError::Frame`], and after
    /// [`ChannelError::Timeout`] where it is the peer's turn ([`Timeout::Frame`], [`Timeout::Session`], and
    /// [`Timeout::Idle`] with nothing queued), an answer can still be pushed and the channel closed. After
    /// [`Timeout::Quiet`] the channel goes on.
    ///
    /// # Cancellation safety
    ///
    /// It may be dropped at any time; no event is lost, nor is output written twice. Deadlines do not run
    /// between two calls, but for that of the [`session`](field@Timeouts::session). Polled as a [`Stream`], a
    /// channel does not know that nobody waits any more: if the last poll was pending, they run until the
    /// next one.
    pub async fn next(&mut self) -> Option<Result<Event<Bytes>, ChannelError>> {
        self.wait(Self::poll_event).await
    }

    /// The next piece of a frame, lent, and how the frame ended if it did; or `None` at the end. It is
    /// [`next`](Self::next) without owned memory, and one await returns what are two events there, a chunk and its
    /// end. With it comes a [`Control`], so that the answer can be pushed while the piece is held. A piece is
    /// empty if only the end of its frame was still to come.
    ///
    /// With [whole frames](Self::set_whole_frames) each piece is a frame.
    ///
    /// What is lent cannot be returned out of a loop that calls this again: the borrow checker takes it to be
    /// borrowed in the next round as well (`E0499`). Return what you have made of it, or its `to_bytes`.
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
    pub fn step(
        &mut self,
    ) -> impl Future<Output = Result<Option<(Step<Chunk<'_>>, Control<'_>)>, ChannelError>> {
        Pulling { channel: Some(self), begun: false, end: AtTerminator }
    }

    /// The next message whole, where its end is for the application to find; or `None` at the end.
    ///
    /// `find_end` is shown all input that is there, from the beginning of the message on, and says how many bytes
    /// are the message; more may come than it was shown. If it returns `None` or `Some(0)`, it is asked again when
    /// there is more. It is a parser that has no buffer, and the channel's limit, deadlines and back-pressure hold
    /// for it as for any frame, but for one thing: a message longer than the limit is
    /// [`FrameError::Overlong`](crate::FrameError::Overlong) under [`Limit::Skip`] too, since nobody knows where
    /// the next one begins. If the input ends in a message, its beginning comes with [`End::Truncated`].
    ///
    /// When a message has been taken, the terminator is `None`: to go on with frames, set another.
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
    pub fn message(
        &mut self,
        find_end: impl FnMut(&[u8]) -> Option<usize>,
    ) -> impl Future<Output = Result<Option<(Step<Chunk<'_>>, Control<'_>)>, ChannelError>> {
        Pulling { channel: Some(self), begun: false, end: AtOwnEnd(find_end) }
    }

    /// Waits until there is room for output: not at all below the high-water mark, and from there on until
    /// what is queued has been written down to the low-water mark.
    ///
    /// ```
    /// use asynchat::Channel;
    /// use futures::FutureExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (client, server) = tokio::io::duplex(1);
    /// let mut channel = Channel::builder(b"\n").high_water_mark(100).build(server);
    /// channel.ready().await?;
    /// channel.push([0; 200])?;
    /// assert!(channel.ready().now_or_never().is_none(), "nobody reads");
    /// # drop(client);
    /// # Ok(())
    /// # }
    /// ```
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
        self.wait(|channel, cx| channel.conn.poll_ready(cx)).await
    }

    /// Writes all that is queued, and flushes the stream. Nothing is read meanwhile.
    ///
    /// ```
    /// use asynchat::Channel;
    /// use tokio::io::AsyncReadExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (mut client, server) = tokio::io::duplex(64);
    /// let mut channel = Channel::new(server, b"\n");
    /// channel.push("220 hello\r\n")?;
    /// channel.flush().await?;
    /// assert_eq!(channel.queued_bytes(), 0);
    /// assert_eq!(client.read(&mut [0; 64]).await?, 11);
    /// # Ok(())
    /// # }
    /// ```
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
            let flushed = ready!(channel.conn.poll_flush(cx));
            Poll::Ready(flushed.map_err(|cause| {
                channel.conn.fail(cause);
                channel.conn.tell_once()
            }))
        })
        .await
    }

    /// Writes all that is queued, shuts the stream down, and waits a little for the peer to close too
    /// ([`Timeouts::linger`]), so that a reset does not destroy what was sent last.
    ///
    /// What the peer sends meanwhile is dropped. After a deadline that the peer has let pass, it has 5 seconds
    /// to take what is queued.
    ///
    /// ```
    /// use asynchat::Channel;
    /// use tokio::io::AsyncReadExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (mut client, server) = tokio::io::duplex(64);
    /// let mut channel = Channel::new(server, b"\n");
    /// channel.push("421 too many connections\r\n")?;
    /// let closing = tokio::spawn(async move { channel.close().await });
    /// let mut sent = String::new();
    /// client.read_to_string(&mut sent).await?;
    /// assert_eq!(sent, "421 too many connections\r\n");
    /// drop(client); // which `close` has waited for
    /// closing.await??;
    /// # Ok(())
    /// # }
    /// ```
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
        self.wait(|channel, cx| channel.conn.poll_close(cx)).await;
        if self.conn.outbound_mut().output.is_closed() {
            Ok(())
        } else {
            Err(self.conn.tell_once())
        }
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
    /// If input is buffered or withheld, which would be injected into the other protocol; if the end of a
    /// frame has not been pulled yet; if the channel is closed, or closes meanwhile, as the stream is shut down
    /// then; or if the output could not be written. The channel is handed back
    /// ([`UpgradeError::into_inner`]) and can go on, unless it is closed, or the stream or a producer has
    /// failed.
    ///
    /// # Cancellation safety
    ///
    /// If the future is dropped, the channel is dropped with it, and the connection with that.
    pub async fn upgrade(mut self) -> Result<S, UpgradeError<Channel<S>>> {
        let pending = self.pending_input().max(self.conn.inbound.has_owed().into());
        if pending > 0 {
            return Err(UpgradeError::new(self, Refusal::Pending(pending)));
        }
        if self.is_closed() {
            return Err(self.refuse_upgrade());
        }
        let mut flushed = self.wait(|channel, cx| channel.conn.poll_flush(cx)).await;
        if flushed.is_ok() {
            // Pushes of handles are refused from here on; those that were accepted are written.
            self.conn.outbound_mut().close_inbox();
            flushed = self.wait(|channel, cx| channel.conn.poll_flush(cx)).await;
        }
        match flushed {
            // A handle has closed it meanwhile.
            Ok(()) if self.is_closed() => Err(self.refuse_upgrade()),
            Ok(()) => Ok(self.conn.peer.io),
            Err(cause @ CloseReason::Timeout(_)) => {
                self.conn.outbound_mut().reopen_inbox();
                Err(UpgradeError::new(self, Refusal::Unwritten(cause.into())))
            }
            Err(cause) => {
                self.conn.fail(cause);
                Err(self.refuse_upgrade())
            }
        }
    }

    /// The error of an upgrade of a channel that is closed.
    fn refuse_upgrade(mut self) -> UpgradeError<Channel<S>> {
        let error = self.conn.tell_once();
        UpgradeError::new(self, Refusal::Unwritten(error))
    }

    /// Waits until `poll` is ready. The deadlines stand still when this future is done or dropped.
    fn wait<P, R>(&mut self, poll: P) -> Waiting<'_, S, P>
    where
        P: FnMut(&mut Self, &mut Context<'_>) -> Poll<R>,
    {
        Waiting { channel: self, poll }
    }

    /// The next event, if it is there.
    fn take_event(&mut self) -> Option<Event<Bytes>> {
        let Cut { start, end, outcome } = self.take_cut(&mut AtTerminator)?;
        Some(match outcome {
            Some(outcome) if start == end => {
                self.end_pulled(outcome);
                Event::from(outcome)
            }
            _ => {
                self.conn.inbound.framing.framer.owe(outcome);
                let input = &self.conn.inbound.input;
                Event::Chunk(input.keep(&input[start..end]))
            }
        })
    }

    fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Event<Bytes>, ChannelError>>> {
        self.conn.go_on();
        loop {
            if let Some(event) = self.take_event() {
                return Poll::Ready(Some(Ok(event)));
            }
            match ready!(self.poll_more(cx)) {
                Ok(true) => {}
                Ok(false) => return Poll::Ready(None),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    #[inline(always)]
    fn lend(&mut self, cut: Cut) -> (Step<Chunk<'_>>, Control<'_>) {
        if let Some(end) = cut.outcome {
            self.end_pulled(end);
        }
        let (input, control) = self.conn.parts();
        let payload = Chunk::new(input, cut.start, cut.end, cut.outcome);
        let step = Step { payload, end: cut.outcome };
        (step, control)
    }

    /// The next piece of a frame, if it has been read. An end that is still to be reported comes first, as a piece
    /// without bytes.
    #[inline(always)]
    fn take_cut(&mut self, end: &mut impl FrameEnd) -> Option<Cut> {
        if self.conn.inbound.has_owed() {
            // The next message begins only after this end is reported.
            let outcome = Some(self.conn.take_owed()?);
            return Some(Cut { start: 0, end: 0, outcome });
        }
        // The struct is taken apart so that its fields stay in registers.
        if let Some(Cut { start, end, outcome }) = end.cut(&mut self.conn) {
            return Some(Cut { start, end, outcome });
        }
        let outcome = Some(End::Truncated);
        self.ends_in_message().then_some(Cut { start: 0, end: 0, outcome })
    }

    /// Waits until there may be more; `false` if there will be none.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, ChannelError>> {
        if !self.conn.outbound_mut().state.is_open() {
            ready!(self.poll_end(cx));
            let failed = match self.conn.outbound_mut().state.cause() {
                Some(CloseReason::Aborted) | None => false,
                Some(cause) => !cause.is_orderly(),
            };
            return Poll::Ready(if failed && !self.conn.outbound_mut().told {
                Err(self.conn.tell_once())
            } else {
                Ok(false)
            });
        }
        Poll::Ready(match ready!(self.conn.poll_turn(cx, false)) {
            Turn::Quiet => Err(ChannelError::Timeout(Timeout::Quiet)),
            Turn::Again | Turn::Shutdown => Ok(true),
        })
    }

    /// Whether the input has ended between two frames of a message, and this has not been reported yet.
    fn ends_in_message(&mut self) -> bool {
        let truncated =
            matches!(self.conn.outbound_mut().state.cause(), Some(CloseReason::Truncated));
        truncated && self.conn.inbound.framing.end_message()
    }

    /// An end of a frame was pulled.
    fn end_pulled(&mut self, end: End) {
        if end == End::Truncated {
            // A truncated frame and its truncated message are reported once, together.
            self.conn.inbound.framing.end_message();
        }
        // The caller can say until the next pull that the message goes on: see `Conn::go_on`.
        self.conn.inbound.framing.pulled_end = true;
        self.conn.note_end(end);
    }

    /// Carries out a scheduled close. If there is none, there is nothing to be done.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.conn.outbound_mut().state {
            State::Open | State::Eof | State::Over(_) | State::Closed(_) => Poll::Ready(()),
            State::Closing(..) | State::Lingering(..) => self.conn.poll_close(cx),
        }
    }
}

/// The future of a call that waits. It is not an async block, because that would hold its arguments twice, for as
/// long as a connection is idle.
struct Waiting<'a, S, P> {
    channel: &'a mut Channel<S>,
    poll: P,
}

impl<S, R, P> Future for Waiting<'_, S, P>
where
    P: FnMut(&mut Channel<S>, &mut Context<'_>) -> Poll<R> + Unpin,
{
    type Output = R;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<R> {
        let Waiting { channel, poll } = self.get_mut();
        poll(channel, cx)
    }
}

impl<S, P> Drop for Waiting<'_, S, P> {
    #[inline]
    fn drop(&mut self) {
        self.channel.conn.peer.timer.pause();
    }
}

/// What [`Channel::step`] and [`Channel::message`] return.
type Pulled<'a> = Result<Option<(Step<Chunk<'a>>, Control<'a>)>, ChannelError>;

/// How the end of a pulled frame is found. It is a trait rather than a closure, so that it is sure to be inlined.
trait FrameEnd {
    /// Called once, before the first [`cut`](Self::cut).
    fn begin<S>(&mut self, conn: &mut Conn<S>);
    fn cut<S>(&mut self, conn: &mut Conn<S>) -> Option<Cut>;
}

/// By the terminator.
struct AtTerminator;

/// By the application, which is shown the input.
struct AtOwnEnd<F>(F);

impl FrameEnd for AtTerminator {
    fn begin<S>(&mut self, _: &mut Conn<S>) {}

    #[inline(always)]
    fn cut<S>(&mut self, conn: &mut Conn<S>) -> Option<Cut> {
        conn.cut()
    }
}

impl<F: FnMut(&[u8]) -> Option<usize>> FrameEnd for AtOwnEnd<F> {
    fn begin<S>(&mut self, conn: &mut Conn<S>) {
        conn.inbound.framing.find_ends(true);
        conn.inbound.framing.look_anew();
    }

    #[inline(always)]
    fn cut<S>(&mut self, conn: &mut Conn<S>) -> Option<Cut> {
        let Ok(next) = conn.next(|input, _| Ok::<_, Infallible>((self.0)(input)));
        next.map(|(cut, _)| cut)
    }
}

/// The future of a call that lends a piece of the input. It is not an async block: what that returns is built in
/// memory and then copied, and the copy takes longer than everything else that is done for a line.
struct Pulling<'a, S, E> {
    /// `None` once this was ready.
    channel: Option<&'a mut Channel<S>>,
    begun: bool,
    end: E,
}

/// Nothing in it is pinned.
impl<S, E> Unpin for Pulling<'_, S, E> {}

impl<'a, S: AsyncRead + AsyncWrite + Unpin, E: FrameEnd> Future for Pulling<'a, S, E> {
    type Output = Pulled<'a>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Pulled<'a>> {
        let pulling = self.get_mut();
        loop {
            let Some(channel) = pulling.channel.take() else {
                panic!("polled after it was ready");
            };
            if !mem::replace(&mut pulling.begun, true) {
                channel.conn.go_on();
                pulling.end.begin(&mut channel.conn);
            }
            if let Some(Cut { start, end, outcome }) = channel.take_cut(&mut pulling.end) {
                return Poll::Ready(Ok(Some(channel.lend(Cut { start, end, outcome }))));
            }
            let more = channel.poll_more(cx);
            if more.is_ready() {
                channel.conn.peer.timer.pause();
            }
            // Each case returns by itself: with `?`, all results would be built in one place in memory.
            match more {
                Poll::Ready(Ok(false)) => return Poll::Ready(Ok(None)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(true)) => pulling.channel = Some(channel),
                Poll::Pending => {
                    pulling.channel = Some(channel);
                    return Poll::Pending;
                }
            }
        }
    }
}

impl<S, E> Drop for Pulling<'_, S, E> {
    #[inline]
    fn drop(&mut self) {
        if let Some(channel) = &mut self.channel {
            channel.conn.peer.timer.pause();
        }
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
            .field("io", &self.conn.peer.io)
            .field("terminator", &self.terminator())
            .field("pending_input", &self.pending_input())
            .field("outbound", &*self.conn.outbound())
            .finish_non_exhaustive()
    }
}
