//! What a callback, or whoever holds a lent frame, can do with its connection.

use std::fmt;
use std::ops::Deref;

use atomic_refcell::AtomicRefCell;
use bytes::{Bytes, BytesMut};

use crate::Payload;
use crate::framing::{End, Limit, Terminator};
use crate::output::{Producer, PushError};
use crate::session::error::{CloseReason, Refusal, UpgradeError};
use crate::session::handle::Handle;
use crate::session::input::Input;
use crate::session::read::Framing;
use crate::session::timer::Timeouts;
use crate::session::write::{Outbound, Traffic};

/// Some bytes of a frame, lent. It derefs to `[u8]` and holds no byte of a terminator. It is empty only if it is
/// a whole frame that is empty, or, of a step that was pulled, if only the end of the frame was still to come.
///
/// ```
/// use asynchat::Channel;
/// use tokio::io::AsyncWriteExt;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (mut client, server) = tokio::io::duplex(64);
/// client.write_all(b"SET a 1\n").await?;
/// let mut channel = Channel::builder(b"\n").whole_frames(true).build(server);
/// let Some((step, _)) = channel.step().await? else { unreachable!("a line has come") };
/// assert!(step.payload.starts_with(b"SET "));
/// let kept = step.payload.to_bytes();
/// assert_eq!(kept, "SET a 1");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy)]
pub struct Chunk<'a> {
    bytes: &'a [u8],
    end: Option<End>,
    /// All that was read. `bytes` is in it.
    input: &'a Input,
}

impl<'a> Chunk<'a> {
    #[inline]
    pub(crate) fn new(input: &'a Input, start: usize, end: usize, ended: Option<End>) -> Self {
        Chunk { bytes: &input[start..end], end: ended, input }
    }

    /// How a frame ended that is handed over whole: whether these bytes are all of it
    /// ([`End::Terminator`]), or only its beginning, if it is longer than its limit, has a wrong end, or was
    /// not finished when the input ended. Whoever obeys commands as they are collected has to ask.
    ///
    /// `None` for a piece of a frame that comes in pieces, whose end is told by the callback behind it. Where
    /// frames are pulled, it is the same as [`Step::end`](crate::Step::end) of the step that holds this chunk.
    ///
    /// ```
    /// use asynchat::{Channel, Chunk, Control, End, Handler};
    /// use std::convert::Infallible;
    /// use tokio::io::AsyncWriteExt;
    ///
    /// #[derive(Default)]
    /// struct Commands(Vec<Vec<u8>>);
    ///
    /// impl Handler for Commands {
    ///     type Error = Infallible;
    ///
    ///     fn collect_incoming_data(
    ///         &mut self,
    ///         data: Chunk<'_>,
    ///         _: &mut Control<'_>,
    ///     ) -> Result<(), Infallible> {
    ///         if data.end() == Some(End::Terminator) {
    ///             self.0.push(data.to_vec());
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (mut client, server) = tokio::io::duplex(64);
    /// client.write_all(b"LIST\nDELETE 1").await?; // and cut off: 100 was meant
    /// drop(client);
    /// let mut channel = Channel::builder(b"\n").whole_frames(true).build(server);
    /// let (commands, _) = channel.run(Commands::default()).await;
    /// assert_eq!(commands.0, [b"LIST"]);
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// The bytes, to be kept: without a copy if there are many. Of fewer than 16 KiB a copy is made, so
    /// that a small piece does not keep the whole read buffer. A larger one does keep it, which is 64 KiB or
    /// more by default: for a cache, or whatever else lives long, copy the bytes (`Bytes::copy_from_slice`).
    pub fn to_bytes(&self) -> Bytes {
        self.input.keep(self.bytes)
    }
}

impl Deref for Chunk<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

/// It is queued as [`to_bytes`](Chunk::to_bytes) says, or copied to where small items are gathered.
impl Payload for Chunk<'_> {
    #[inline]
    fn as_bytes(&self) -> &[u8] {
        self
    }

    fn into_bytes(self) -> Bytes {
        self.to_bytes()
    }
}

impl AsRef<[u8]> for Chunk<'_> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Chunk<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk(b\"{}\")", self.escape_ascii())
    }
}

/// How the output is reached.
pub(crate) enum Outlet<'a> {
    /// The callback does not wait, so nobody else uses the output meanwhile.
    Direct(&'a mut Outbound),
    /// The callback may wait, and output goes on while it does.
    Cell(&'a AtomicRefCell<Outbound>),
}

/// What a [`Handler`](crate::Handler), or whoever holds a [`Step`](crate::Channel::step), can do with its
/// connection.
///
/// ```
/// use asynchat::{Channel, Limit};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (mut client, server) = tokio::io::duplex(64);
/// client.write_all(b"DATA\r\nHi.\r\n.\r\n").await?;
/// let mut channel = Channel::builder(b"\r\n").whole_frames(true).build(server);
/// while let Some((step, mut control)) = channel.step().await? {
///     match &step.payload[..] {
///         b"DATA" => {
///             control.push("354 go on\r\n");
///             control.set_terminator(b"\r\n.\r\n");
///             control.set_limit(Limit::Fail(1 << 20));
///         }
///         text => {
///             write!(control, "250 {} bytes\r\n", text.len());
///             control.close_when_done();
///         }
///     }
/// }
/// let mut answers = String::new();
/// client.read_to_string(&mut answers).await?;
/// assert_eq!(answers, "354 go on\r\n250 3 bytes\r\n");
/// # Ok(())
/// # }
/// ```
pub struct Control<'a> {
    framing: &'a mut Framing,
    outlet: Outlet<'a>,
}

impl<'a> Control<'a> {
    #[inline]
    pub(crate) fn new(framing: &'a mut Framing, outlet: Outlet<'a>) -> Self {
        Control { framing, outlet }
    }

    /// Switches the terminator: see [`Framer::set_terminator`](crate::Framer::set_terminator).
    #[inline(always)]
    pub fn set_terminator(&mut self, terminator: impl Into<Terminator>) {
        self.framing.set_terminator(terminator.into());
    }

    /// The terminator in force. Of a count, what remains; a count that is spent has become `None`.
    pub fn terminator(&self) -> Terminator {
        self.framing.framer.terminator()
    }

    /// Sets the limit, for the current frame too.
    pub fn set_limit(&mut self, limit: Limit) {
        self.framing.set_limit(limit);
    }

    /// The limit in force.
    pub fn limit(&self) -> Limit {
        self.framing.framer.limit()
    }

    /// Takes the rest of a frame that has ended early for a new one, under the same terminator, or behind a wrong
    /// end under the delimiter that was set last: to be called when it was [overlong](crate::Handler::overlong) or
    /// had a [wrong end](crate::Handler::wrong_end). It is neither skipped then nor an error. For any other frame
    /// nothing is changed.
    ///
    /// ```
    /// use asynchat::{Channel, End, Limit};
    /// use tokio::io::AsyncWriteExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// // The first four bytes of a line say what it is; the rest is taken as it comes.
    /// let (mut client, server) = tokio::io::duplex(64);
    /// client.write_all(b"DATAabcdefgh\n").await?;
    /// let mut channel = Channel::builder(b"\n").limit(Limit::Fail(4)).build(server);
    /// let (step, mut control) = channel.step().await?.expect("it is there");
    /// assert_eq!((&step.payload[..], step.end), (&b"DATA"[..], Some(End::Overlong)));
    /// control.set_limit(Limit::Unlimited);
    /// control.resume();
    /// let (step, _) = channel.step().await?.expect("it is there");
    /// assert_eq!((&step.payload[..], step.end), (&b"abcdefgh"[..], Some(End::Terminator)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn resume(&mut self) {
        self.framing.resume();
    }

    /// Whether frames are handed over whole, from the next frame on: see
    /// [`Framer::set_whole_frames`](crate::Framer::set_whole_frames).
    ///
    /// While they are, [`Handler::collect_incoming_data`](crate::Handler::collect_incoming_data) is called
    /// exactly once for each frame that is complete, with all of it, also if it is empty. Of a frame that is
    /// not complete ([`Chunk::end`]) it is given what there is, and not called if that is nothing.
    pub fn set_whole_frames(&mut self, whole: bool) {
        self.framing.set_whole_frames(whole);
    }

    /// Whether the handler finds the ends of its messages itself, from the next frame on:
    /// [`Handler::find_end`](crate::Handler::find_end) is asked instead of a terminator being looked for,
    /// and messages are handed over whole.
    ///
    /// If the input ends in the middle of a message, what there is of it is collected in one piece, and
    /// [`Handler::eof`](crate::Handler::eof) is told that it is truncated.
    ///
    /// When it is switched off again, a terminator has to be set, and frames come in pieces unless
    /// [`set_whole_frames`](Self::set_whole_frames) says otherwise.
    ///
    /// ```
    /// use asynchat::{Channel, Chunk, Control, Handler};
    /// use std::convert::Infallible;
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    ///
    /// /// A line, and then messages of two bytes.
    /// struct Pairs;
    ///
    /// impl Handler for Pairs {
    ///     type Error = Infallible;
    ///
    ///     fn find_end(
    ///         &mut self,
    ///         _: &[u8],
    ///         _: &mut Control<'_>,
    ///     ) -> Result<Option<usize>, Infallible> {
    ///         Ok(Some(2))
    ///     }
    ///
    ///     fn collect_incoming_data(
    ///         &mut self,
    ///         data: Chunk<'_>,
    ///         control: &mut Control<'_>,
    ///     ) -> Result<(), Infallible> {
    ///         write!(control, "[{}]", data.escape_ascii());
    ///         Ok(())
    ///     }
    ///
    ///     async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
    ///         control.set_own_end(true);
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (mut client, server) = tokio::io::duplex(64);
    /// client.write_all(b"pairs\nabcd").await?;
    /// client.shutdown().await?;
    /// let mut channel = Channel::new(server, b"\n");
    /// channel.run(Pairs).await;
    /// drop(channel);
    /// let mut answers = String::new();
    /// client.read_to_string(&mut answers).await?;
    /// assert_eq!(answers, "[pairs][ab][cd]");
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_own_end(&mut self, own: bool) {
        self.framing.set_own_end(own);
    }

    /// Which member of a set ended the last frame: see [`Framer::matched`](crate::Framer::matched).
    pub fn matched(&self) -> usize {
        self.framing.framer.matched()
    }

    /// Marks the message at hand as one of several frames, of which the frame that has just ended, or the
    /// one that is being handed over, is not the last.
    ///
    /// Until [`end_message`](Self::end_message) the end of the input is
    /// [`Truncated`](crate::CloseReason::Truncated), also between two frames; the frame deadline runs over
    /// the whole message; and a shutdown waits for its end.
    ///
    /// Also a message that has failed, because a frame of it was overlong or had a wrong end, has to be ended
    /// if the connection goes on. Otherwise the messages behind it count as parts of it, and run into the
    /// frame deadline.
    pub fn begin_message(&mut self) {
        self.framing.begin_message();
    }

    /// The message that was marked ends with the frame that has just ended, or the one that is being
    /// handed over.
    pub fn end_message(&mut self) {
        self.framing.end_message();
    }

    /// The deadlines in force.
    pub fn timeouts(&self) -> Timeouts {
        self.read(|outbound| outbound.deadlines.timeouts)
    }

    /// Sets the deadlines, from now on. A deadline that was in force keeps the time that it has counted; one that was
    /// `None` counts from now.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) {
        self.with(|outbound| outbound.deadlines = timeouts.shared());
    }

    /// Queues bytes. After the close, or when the connection has failed, they are dropped: nothing that
    /// is pushed then can be sent, and nothing more is handed over that asks for an answer. Where it
    /// matters there is [`try_push`](Self::try_push).
    ///
    /// Where a [`Handle`] is in use, its bytes may come between two pushes, even of one callback. What must
    /// stay together is one push, one `write!` or one [`push_with`](Self::push_with), or, if it is not to be
    /// copied, one [`Handle::push_all`] of the [`handle`](Self::handle).
    #[inline]
    pub fn push<T: Payload>(&mut self, item: T) {
        let _ = self.try_push(item);
    }

    /// Queues bytes.
    ///
    /// ```
    /// # use asynchat::Channel;
    /// # use tokio::io::AsyncWriteExt;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (mut client, server) = tokio::io::duplex(64);
    /// # client.write_all(b"QUIT\n").await?;
    /// # let mut channel = Channel::new(server, b"\n");
    /// # let Some((_, mut control)) = channel.step().await? else { unreachable!() };
    /// control.close_when_done();
    /// assert_eq!(control.try_push("too late").unwrap_err().into_inner(), "too late");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// After the close, or when the connection has failed: the item is handed back.
    #[inline]
    pub fn try_push<T: Payload>(&mut self, item: T) -> Result<(), PushError<T>> {
        self.push_to(|outbound| outbound.push(item))
    }

    /// Queues formatted text, without an allocation for it: `write!(control, "{} bytes\r\n", n)`. As with
    /// [`push`](Self::push), it is dropped after the close.
    ///
    /// ```
    /// # use asynchat::Channel;
    /// # use tokio::io::AsyncWriteExt;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (mut client, server) = tokio::io::duplex(64);
    /// # client.write_all(b"STAT\n").await?;
    /// # let mut channel = Channel::new(server, b"\n");
    /// # let Some((_, mut control)) = channel.step().await? else { unreachable!() };
    /// write!(control, "+OK {} {}\r\n", 2, 320);
    /// assert_eq!(control.queued_bytes(), 11);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// As `format!` does: if an implementation of `Display` or the like fails, which it must not.
    pub fn write_fmt(&mut self, text: fmt::Arguments<'_>) {
        let _ = self.push_to(|outbound| outbound.write_fmt(text));
    }

    /// Queues what `write` appends to the output in place, and returns what `write` does. After the close it
    /// is `None`: nothing is written, and `write` not called.
    ///
    /// ```
    /// # use asynchat::Channel;
    /// # use tokio::io::AsyncWriteExt;
    /// use bytes::BufMut;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (mut client, server) = tokio::io::duplex(64);
    /// # client.write_all(b"STAT\n").await?;
    /// # let mut channel = Channel::new(server, b"\n");
    /// # let Some((_, mut control)) = channel.step().await? else { unreachable!() };
    /// control.push_with(|output| {
    ///     output.put_u16(3);
    ///     output.put_slice(b"abc");
    /// });
    /// assert_eq!(control.queued_bytes(), 5);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// If `write` does, or removes what was in the buffer; the connection has failed then.
    pub fn push_with<R>(&mut self, write: impl FnOnce(&mut BytesMut) -> R) -> Option<R> {
        self.push_to(|outbound| outbound.push_with(write)).ok()
    }

    /// As [`push_with`](Self::push_with), with a `write` that may fail: then nothing is queued.
    ///
    /// ```
    /// # use asynchat::Channel;
    /// # use tokio::io::AsyncWriteExt;
    /// use bytes::BufMut;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (mut client, server) = tokio::io::duplex(64);
    /// # client.write_all(b"STAT\n").await?;
    /// # let mut channel = Channel::new(server, b"\n");
    /// # let Some((_, mut control)) = channel.step().await? else { unreachable!() };
    /// let refused: Result<Option<()>, _> = control.try_push_with(|output| {
    ///     output.put_slice(b"the beginning of an answer");
    ///     Err("that could not be completed")
    /// });
    /// assert!(refused.is_err());
    /// assert_eq!(control.queued_bytes(), 0);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of `write`.
    ///
    /// # Panics
    ///
    /// As [`push_with`](Self::push_with).
    pub fn try_push_with<R, E>(
        &mut self,
        write: impl FnOnce(&mut BytesMut) -> Result<R, E>,
    ) -> Result<Option<R>, E> {
        let written = self.push_to(|outbound| outbound.try_push_with(write));
        written.map_or(Ok(None), |result| result.map(Some))
    }

    /// Queues a producer, behind all that was pushed before it. As with [`push`](Self::push), it is
    /// dropped after the close.
    ///
    /// ```
    /// # use asynchat::Channel;
    /// # use tokio::io::{AsyncReadExt, AsyncWriteExt};
    /// use asynchat::producer;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (mut client, server) = tokio::io::duplex(64);
    /// # client.write_all(b"RETR\n").await?;
    /// # let mut channel = Channel::new(server, b"\n");
    /// # let Some((_, mut control)) = channel.step().await? else { unreachable!() };
    /// control.push_with_producer(producer::iter(["one\n", "two\n"]));
    /// control.push("226 done\n");
    /// # channel.close_when_done();
    /// # drop(channel.close().await);
    /// # let mut sent = String::new();
    /// # drop(channel);
    /// # client.read_to_string(&mut sent).await?;
    /// # assert_eq!(sent, "one\ntwo\n226 done\n");
    /// # Ok(())
    /// # }
    /// ```
    pub fn push_with_producer<P>(&mut self, producer: P)
    where
        P: Producer + Send + 'static,
    {
        let _ = self.try_push_with_producer(producer);
    }

    /// Queues a producer, behind all that was pushed before it.
    ///
    /// # Errors
    ///
    /// As [`try_push`](Self::try_push).
    pub fn try_push_with_producer<P>(&mut self, producer: P) -> Result<(), PushError<P>>
    where
        P: Producer + Send + 'static,
    {
        self.push_to(|outbound| outbound.push_with_producer(producer))
    }

    /// Bytes waiting to be written, without those that producers still hold, and those that handles have
    /// pushed and the channel has not taken yet.
    pub fn queued_bytes(&self) -> usize {
        self.read(|outbound| outbound.output.queued_bytes())
    }

    /// Input that was read and comes behind what is being handed over, in bytes.
    ///
    /// ```
    /// # use asynchat::Channel;
    /// # use tokio::io::AsyncWriteExt;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (mut client, server) = tokio::io::duplex(64);
    /// client.write_all(b"one\ntwo").await?;
    /// let mut channel = Channel::builder(b"\n").whole_frames(true).build(server);
    /// let Some((_, control)) = channel.step().await? else { unreachable!("a line has come") };
    /// assert_eq!(control.pending_input(), 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn pending_input(&self) -> usize {
        self.framing.pending()
    }

    /// Bytes read and written so far.
    pub fn traffic(&self) -> Traffic {
        let written = self.read(|outbound| outbound.output.written());
        Traffic { read: self.framing.read, written }
    }

    /// Closes once all that was pushed is written. Nothing more is handed over.
    pub fn close_when_done(&mut self) {
        self.with(Outbound::close);
    }

    /// Drops what is queued for output, and, when the callback returns or the next frame is asked for, input
    /// that is buffered or withheld. A scheduled close stays, as do the terminator and what remains of a
    /// count, and what handles have pushed and the channel has not taken yet.
    pub fn discard_buffers(&mut self) {
        self.with(|outbound| {
            outbound.output.discard_buffers();
            outbound.discards_input = true;
        });
    }

    /// Closes now: nothing that is queued is written. A callback that waits is dropped.
    pub fn abort(&mut self) {
        self.with(|outbound| outbound.fail(CloseReason::Aborted));
    }

    /// Ends the channel's run with [`CloseReason::Upgrade`] once all that was pushed is written, for TLS
    /// or another protocol: [`Channel::upgrade`](crate::Channel::upgrade) then gives the stream.
    ///
    /// What is pushed after this call, by the callback or by a [`Handle`], still goes out before the stream
    /// is given. If it is called with a frame's last piece, [`found_terminator`] is still called for that
    /// frame. Nothing is handed over after it, but [`closed`].
    ///
    /// [`found_terminator`]: crate::Handler::found_terminator
    /// [`closed`]: crate::Handler::closed
    ///
    /// # Errors
    ///
    /// [`UpgradeError`] if input is buffered behind this frame, which would be injected into the other
    /// protocol. Nothing has changed then.
    pub fn upgrade(&mut self) -> Result<(), UpgradeError> {
        let pending = self.pending_input();
        if pending > 0 {
            return Err(UpgradeError::new((), Refusal::Pending(pending)));
        }
        self.with(|outbound| outbound.state.upgrade());
        Ok(())
    }

    /// A handle for other tasks. The first one costs an allocation, further ones are clones.
    pub fn handle(&mut self) -> Handle {
        self.with(Outbound::handle)
    }

    #[inline]
    fn with<R>(&mut self, act: impl FnOnce(&mut Outbound) -> R) -> R {
        match &mut self.outlet {
            Outlet::Direct(outbound) => act(outbound.change()),
            Outlet::Cell(outbound) => act(outbound.borrow_mut().change()),
        }
    }

    /// As `with`, for a push, which itself keeps the cached answer of [`Outbound::gate`] right.
    #[inline]
    fn push_to<R>(&mut self, push: impl FnOnce(&mut Outbound) -> R) -> R {
        match &mut self.outlet {
            Outlet::Direct(outbound) => push(outbound),
            Outlet::Cell(outbound) => push(&mut outbound.borrow_mut()),
        }
    }

    fn read<R>(&self, read: impl FnOnce(&Outbound) -> R) -> R {
        match &self.outlet {
            Outlet::Direct(outbound) => read(outbound),
            Outlet::Cell(outbound) => read(&outbound.borrow()),
        }
    }
}

impl fmt::Debug for Control<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("terminator", &self.framing.framer.terminator())
            .field("limit", &self.framing.framer.limit())
            .field("pending_input", &self.pending_input())
            .finish_non_exhaustive()
    }
}
