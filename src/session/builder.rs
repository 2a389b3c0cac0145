//! The settings of a channel that have a default.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio_util::codec::FramedParts;

use crate::codec::TerminatorCodec;
use crate::framing::{Framer, Limit, Terminator};
use crate::output::Output;
use crate::session::channel::Channel;
use crate::session::conn::Conn;
use crate::session::read::Inbound;
use crate::session::timer::{Deadlines, Timeouts};
use crate::session::write::Outbound;

/// The settings of a [`Channel`] that have a default; made by [`Channel::builder`]. One builder makes any number
/// of channels.
///
/// ```
/// use asynchat::{Channel, Event, Limit, Timeouts};
/// use std::time::Duration;
/// use tokio::io::AsyncWriteExt;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // Lines of commands, each of them whole, from peers who are given half a minute.
/// let channels = Channel::builder(b"\r\n")
///     .whole_frames(true)
///     .limit(Limit::Skip(510))
///     .timeouts(Timeouts::default().idle(Duration::from_secs(30)))
///     .high_water_mark(16 * 1024)
///     .low_water_mark(4 * 1024);
///
/// for _ in 0..2 {
///     let (mut client, server) = tokio::io::duplex(64);
///     let mut channel = channels.build(server);
///     client.write_all(b"NO").await?;
///     client.write_all(b"OP\r\n").await?;
///     assert_eq!(channel.next().await.transpose()?, Some(Event::Chunk("NOOP".into())));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ChannelBuilder {
    terminator: Terminator,
    limit: Limit,
    whole_frames: bool,
    own_end: bool,
    deadlines: Arc<Deadlines>,
    high_water_mark: usize,
    low_water_mark: usize,
    read_when_full: bool,
    read_size: u32,
    handle_capacity: u32,
}

impl ChannelBuilder {
    fn new(terminator: Terminator) -> Self {
        let output = Output::new();
        ChannelBuilder {
            terminator,
            limit: Limit::Fail(DEFAULT_LIMIT),
            whole_frames: false,
            own_end: false,
            deadlines: Timeouts::DEFAULT.shared(),
            high_water_mark: output.high_water_mark(),
            low_water_mark: output.low_water_mark(),
            read_when_full: false,
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

    /// Whether frames are handed over whole: not by default. See
    /// [`Framer::set_whole_frames`](crate::Framer::set_whole_frames).
    #[must_use]
    pub fn whole_frames(mut self, whole: bool) -> Self {
        self.whole_frames = whole;
        self
    }

    /// Whether the handler finds the ends of its messages itself, with
    /// [`Handler::find_end`](crate::Handler::find_end), where there is an example: not by default. The
    /// terminator is not looked for then.
    #[must_use]
    pub fn own_end(mut self, own: bool) -> Self {
        self.own_end = own;
        self
    }

    /// The deadlines: [`Timeouts::default`] by default.
    #[must_use]
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.deadlines = timeouts.shared();
        self
    }

    /// How many bytes may be queued for output before no more input is read or handed over: 256 KiB by default, at
    /// least 1. The bound on memory is this, what one callback pushes, twice what handles may push
    /// ([`handle_capacity`](Self::handle_capacity): as much as may wait is taken into the queue at once, and as much may
    /// wait again), and a block or two of the producer whose turn it is.
    #[must_use]
    pub fn high_water_mark(mut self, bytes: usize) -> Self {
        self.high_water_mark = bytes;
        self
    }

    /// How many queued bytes may be left when input is read again: 64 KiB by default. A value above the
    /// high-water mark counts as that mark.
    #[must_use]
    pub fn low_water_mark(mut self, bytes: usize) -> Self {
        self.low_water_mark = bytes;
        self
    }

    /// Whether input is read and handed over also while more is queued for output than the
    /// [high-water mark](Self::high_water_mark): not by default, so that a peer that asks and does not read the
    /// answers is not answered further.
    ///
    /// It is for the side that sends requests. If neither side reads before its own output is taken, each waits
    /// for the other until a [write stall](Timeouts::write_stall) ends the connection. That happens to a client
    /// that queues more requests than the mark allows, and whose server does not read on before its answers are
    /// taken.
    ///
    /// What is queued is bounded then only by whoever pushes. [`ready`](Channel::ready) and
    /// [`flush`](Channel::flush) read nothing in this mode either, so they can still wait for a server that waits
    /// for this side. A [`Handle`](crate::Handle) that [sends](crate::Handle::send) waits for room; but each push
    /// by a callback, or by whoever pulls, first queues what handles have pushed before it, to keep the order.
    ///
    /// ```
    /// use asynchat::{Channel, Event};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (client, server) = tokio::io::duplex(4096);
    /// let mut server = Channel::new(server, b"\n");
    /// tokio::spawn(async move {
    ///     while let Ok(Some((step, mut control))) = server.step().await {
    ///         control.push(&step.payload[..]);
    ///         control.push(if step.end.is_some() { "\n" } else { "" });
    ///     }
    /// });
    ///
    /// let mut client = Channel::builder(b"\n").read_when_full(true).build(client);
    /// client.push("a question\n".repeat(100_000))?; // a megabyte
    /// let mut answers = 0;
    /// while answers < 100_000 {
    ///     let event = client.next().await.expect("there are more")?;
    ///     answers += u32::from(event == Event::Terminator);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn read_when_full(mut self, reads: bool) -> Self {
        self.read_when_full = reads;
        self
    }

    /// How many bytes are read at once, at most: 64 KiB by default, at least 1. It was asynchat's
    /// `ac_in_buffer_size`.
    #[must_use]
    pub fn read_size(mut self, bytes: usize) -> Self {
        self.read_size = u32::try_from(bytes.max(1)).unwrap_or(u32::MAX);
        self
    }

    /// How many bytes pushed through [`Handle`](crate::Handle)s may wait for the channel's task: 1 MiB by
    /// default, for all handles of a channel together. What is pushed while nothing waits is accepted, however
    /// long it is.
    ///
    /// In a chat room, say, it must hold what all who speak push before the listener's task has its turn, else
    /// a listener that keeps up is taken for one that does not. Each of them may push the lines of half a megabyte
    /// in one turn, or of one [read](Self::read_size) if that is longer, with what is added to each line.
    #[must_use]
    pub fn handle_capacity(mut self, bytes: usize) -> Self {
        self.handle_capacity = u32::try_from(bytes).unwrap_or(u32::MAX);
        self
    }

    /// Makes a channel of a stream.
    pub fn build<S>(&self, io: S) -> Channel<S> {
        self.build_with_input(io, Bytes::new())
    }

    /// Makes a channel of a stream of which some input has been read already: what
    /// [`Channel::into_parts`] has given, say, behind a head that comes before another protocol.
    ///
    /// ```
    /// use asynchat::{Channel, Event};
    /// use tokio::io::AsyncWriteExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (mut client, server) = tokio::io::duplex(64);
    /// client.write_all(b"abcdhello\n").await?;
    /// let mut head = Channel::builder(4).whole_frames(true).build(server);
    /// assert_eq!(head.next().await.expect("it is there")?, Event::Chunk("abcd".into()));
    /// assert_eq!(head.next().await.expect("it is there")?, Event::Terminator);
    ///
    /// let (io, input) = head.into_parts();
    /// let mut lines = Channel::builder(b"\n").build_with_input(io, input);
    /// assert_eq!(lines.next().await.expect("it is there")?, Event::Chunk("hello".into()));
    /// # Ok(())
    /// # }
    /// ```
    pub fn build_with_input<S>(&self, io: S, input: Bytes) -> Channel<S> {
        let framer = Framer::new(self.terminator.clone()).with_limit(self.limit);
        let mut inbound = Inbound::new(framer, BytesMut::from(input));
        inbound.framing.set_whole_frames(self.whole_frames);
        self.build_with(io, inbound)
    }

    /// Makes a channel of the parts of a `Framed`, to go on where that has stopped: with the input that it has
    /// read, even in the middle of a frame, and the output that it has not written.
    ///
    /// The terminator, the limit and whether frames are whole are taken from the codec. The two halves of a split
    /// stream are put together by [`tokio::io::join`].
    ///
    /// ```
    /// use asynchat::{Channel, Event, TerminatorCodec};
    /// use futures::StreamExt;
    /// use tokio::io::AsyncWriteExt;
    /// use tokio_util::codec::Framed;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (mut client, server) = tokio::io::duplex(64);
    /// client.write_all(b"hello\nworld\n").await?;
    /// let mut framed = Framed::new(server, TerminatorCodec::new(b"\n"));
    /// assert_eq!(framed.next().await.expect("it is there")?, Event::Chunk("hello".into()));
    ///
    /// let mut channel = Channel::builder(None).build_from(framed.into_parts());
    /// assert_eq!(channel.next().await.expect("it is there")?, Event::Terminator);
    /// assert_eq!(channel.next().await.expect("it is there")?, Event::Chunk("world".into()));
    /// # Ok(())
    /// # }
    /// ```
    pub fn build_from<S, I>(&self, parts: FramedParts<S, TerminatorCodec<I>>) -> Channel<S> {
        let inbound = Inbound::new(parts.codec.into_framer(), parts.read_buf);
        let mut channel = self.build_with(parts.io, inbound);
        // The channel is new and open, so the push cannot fail.
        let _ = channel.push(parts.write_buf);
        channel
    }

    fn build_with<S>(&self, io: S, mut inbound: Inbound) -> Channel<S> {
        inbound.framing.set_own_end(self.own_end);
        let mut output = Output::new();
        output.set_high_water_mark(self.high_water_mark);
        output.set_low_water_mark(self.low_water_mark);
        let deadlines = self.deadlines.clone();
        let outbound = Outbound::new(output, deadlines, self.handle_capacity, self.read_when_full);
        Channel::with(Conn::new(io, inbound, outbound, self.read_size))
    }
}

impl<S> Channel<S> {
    /// A channel with the defaults.
    pub fn new(io: S, terminator: impl Into<Terminator>) -> Self {
        ChannelBuilder::new(terminator.into()).build(io)
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

/// In bytes of payload.
const DEFAULT_LIMIT: u64 = 64 * 1024;
/// In bytes. A larger buffer only takes up more of the processor's cache.
const READ_SIZE: u32 = 64 * 1024;
/// In bytes.
const HANDLE_CAPACITY: u32 = 1024 * 1024;
