//! asynchat's callbacks.

use std::future::Future;

use crate::session::{Chunk, CloseReason, Control, Timeout};

/// What a protocol does with its frames: asynchat's callbacks, driven by [`Channel::run`](crate::Channel::run).
///
/// Two methods make a protocol: one is given the bytes of a frame as they come, the other is told that
/// the frame is complete and sets the terminator of the next. The rest have defaults. Methods that may
/// wait are written `async fn`, and what they hold while they wait is `Send`, so that a connection can be a task on any
/// runtime: an `Arc` with a lock, and no `Rc`. Where handlers differ from one connection to the next, they are an
/// enum: there is no `dyn Handler`, because of these methods.
///
/// ```
/// use asynchat::{Channel, Chunk, CloseReason, Control, Handler};
/// use std::convert::Infallible;
///
/// /// Answers each line with its length, until the line QUIT.
/// #[derive(Default)]
/// struct Lengths {
///     line: Vec<u8>,
/// }
///
/// impl Handler for Lengths {
///     type Error = Infallible;
///
///     fn collect_incoming_data(
///         &mut self,
///         data: Chunk<'_>,
///         _: &mut Control<'_>,
///     ) -> Result<(), Infallible> {
///         self.line.extend_from_slice(&data);
///         Ok(())
///     }
///
///     async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
///         let line = std::mem::take(&mut self.line);
///         control.push(format!("{}\r\n", line.len()));
///         if line == b"QUIT" {
///             control.close_when_done();
///         }
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// let (mut client, server) = tokio::io::duplex(64);
/// client.write_all(b"hello\r\n\r\nQUIT\r\nignored\r\n").await?;
/// let mut channel = Channel::new(server, b"\r\n");
/// channel.push("lines, please\r\n")?;
/// let serving = tokio::spawn(async move { channel.run(Lengths::default()).await.1 });
/// let mut answers = String::new();
/// client.read_to_string(&mut answers).await?;
/// assert_eq!(answers, "lines, please\r\n5\r\n0\r\n4\r\n");
/// drop(client);
/// assert!(matches!(serving.await?, CloseReason::Done));
/// # Ok(())
/// # }
/// ```
///
/// There is no callback for the beginning: a greeting is pushed on the channel before it runs, as here.
///
/// # Order
///
/// The methods are called one at a time, in the order of the input, and none but [`closed`](Self::closed) after
/// the connection has been closed or aborted, whoever asked for that: input behind a `QUIT` is not handed over.
///
/// While a callback waits, nothing is read, queued output still goes out, and a
/// [`Handle`](crate::Handle) can still push, close and abort. Of the deadlines only the write stall can pass:
/// the peer is not waited for otherwise.
pub trait Handler {
    /// Why the protocol cannot go on. The connection is closed, and [`Channel::run`](crate::Channel::run) returns
    /// the error as it is, in [`CloseReason::Handler`].
    type Error;

    /// Some bytes of the current frame.
    ///
    /// With [whole frames](Control::set_whole_frames) it is called once for each frame, with all of it: a
    /// handler of commands needs no memory of its own then, and may well answer here, if
    /// [`Chunk::end`] says that the frame is complete.
    ///
    /// # Errors
    ///
    /// The handler's own: the connection is closed when what was pushed is written.
    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        control: &mut Control<'_>,
    ) -> Result<(), Self::Error>;

    /// The frame is complete: its terminator was found or its count spent.
    ///
    /// It is called behind [`collect_incoming_data`](Self::collect_incoming_data) for the same frame, also if that
    /// has set another terminator. By default nothing is done, which is right where whole frames are answered in
    /// `collect_incoming_data`.
    ///
    /// The bytes are not lent any more by then: a handler that asks a database about a frame, say, and waits for
    /// the answer here, keeps a copy of the frame ([`Chunk::to_bytes`], or a `Vec` that is used again). Whoever
    /// pulls has the frame until the next [`step`](crate::Channel::step).
    ///
    /// # Errors
    ///
    /// As [`collect_incoming_data`](Self::collect_incoming_data).
    fn found_terminator(
        &mut self,
        control: &mut Control<'_>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send {
        let _ = control;
        async { Ok(()) }
    }

    /// Where is the end of the message that begins with these bytes? They are all that is there, from its first
    /// byte on. The answer is its length, which may be more than is there. With `None` the question is asked again
    /// when there is more. A parser that searches for the end should remember how far it has searched: to begin at
    /// the first byte again for each byte that comes takes quadratic time.
    ///
    /// It is asked between two messages while [own ends](Control::set_own_end) are set: the place for a
    /// protocol's own parser. The message is then handed over whole, to
    /// [`collect_incoming_data`](Self::collect_incoming_data) and `found_terminator`. A message has at least
    /// one byte: `Some(0)` is taken for `None`. One that is longer than the limit ends the connection, under
    /// [`Limit::Skip`](crate::Limit::Skip) too, since nobody knows where the next one begins; nothing of it is
    /// collected, and [`overlong`](Self::overlong) is called.
    ///
    /// If the input ends in the middle of a message, what there is of it comes to `collect_incoming_data`
    /// in one piece, and then [`eof`](Self::eof) is called with `truncated`, and not `found_terminator`.
    ///
    /// Bytes that are no message can be answered here, and the connection closed. To go on with a
    /// terminator instead, as after the detection of a protocol, call
    /// [`Control::set_own_end`] with `false` and set it: it governs these bytes, and the answer given here
    /// is not heeded.
    ///
    /// By default the end is never found.
    ///
    /// ```
    /// use asynchat::{Channel, Chunk, Control, Handler};
    /// use std::convert::Infallible;
    /// use tokio::io::AsyncWriteExt;
    ///
    /// /// A byte says how many follow.
    /// #[derive(Default)]
    /// struct Counted(Vec<Vec<u8>>);
    ///
    /// impl Handler for Counted {
    ///     type Error = Infallible;
    ///
    ///     fn find_end(
    ///         &mut self,
    ///         input: &[u8],
    ///         _: &mut Control<'_>,
    ///     ) -> Result<Option<usize>, Infallible> {
    ///         Ok(input.first().map(|length| 1 + usize::from(*length)))
    ///     }
    ///
    ///     fn collect_incoming_data(
    ///         &mut self,
    ///         message: Chunk<'_>,
    ///         _: &mut Control<'_>,
    ///     ) -> Result<(), Infallible> {
    ///         self.0.push(message[1..].to_vec());
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (mut client, server) = tokio::io::duplex(64);
    /// client.write_all(b"\x05hello\x02hi").await?;
    /// drop(client);
    /// let mut channel = Channel::builder(None).own_end(true).build(server);
    /// let (counted, _) = channel.run(Counted::default()).await;
    /// assert_eq!(counted.0, [&b"hello"[..], b"hi"]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`collect_incoming_data`](Self::collect_incoming_data).
    fn find_end(
        &mut self,
        input: &[u8],
        control: &mut Control<'_>,
    ) -> Result<Option<usize>, Self::Error> {
        let _ = (input, control);
        Ok(None)
    }

    /// What has come of a frame that goes on is collected, and more is wanted. Whatever the handler has to
    /// wait for before it can take more has its place here, such as a slow disk that it writes a body to:
    /// nothing more is read meanwhile.
    ///
    /// It is called after the pieces of each read, before the next. By default nothing is done.
    ///
    /// ```
    /// use asynchat::{Channel, Chunk, Control, Handler};
    /// use std::io;
    /// use tokio::io::{AsyncWrite, AsyncWriteExt};
    ///
    /// /// Writes a body to somewhere slow, with no more of it in memory than one read brings.
    /// struct Upload<W> {
    ///     chunk: Vec<u8>,
    ///     disk: W,
    /// }
    ///
    /// impl<W: AsyncWrite + Unpin + Send> Handler for Upload<W> {
    ///     type Error = io::Error;
    ///
    ///     fn collect_incoming_data(&mut self, data: Chunk<'_>, _: &mut Control<'_>) -> io::Result<()> {
    ///         self.chunk.extend_from_slice(&data);
    ///         Ok(())
    ///     }
    ///
    ///     async fn collected(&mut self, _: &mut Control<'_>) -> io::Result<()> {
    ///         self.disk.write_all(&self.chunk).await?;
    ///         self.chunk.clear();
    ///         Ok(())
    ///     }
    ///
    ///     async fn found_terminator(&mut self, control: &mut Control<'_>) -> io::Result<()> {
    ///         self.collected(control).await // what came with the end
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (mut client, server) = tokio::io::duplex(1000);
    /// let sending = tokio::spawn(async move { client.write_all(&[b'x'; 10_000]).await });
    /// let upload = Upload { chunk: Vec::new(), disk: io::Cursor::new(Vec::new()) };
    /// let (upload, _) = Channel::new(server, 10_000).run(upload).await;
    /// assert_eq!(upload.disk.into_inner().len(), 10_000);
    /// assert!(upload.chunk.capacity() < 10_000);
    /// # sending.await??;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`collect_incoming_data`](Self::collect_incoming_data).
    fn collected(
        &mut self,
        control: &mut Control<'_>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send {
        let _ = control;
        async { Ok(()) }
    }

    /// The frame is longer than its limit, and all that the limit allows has been collected.
    ///
    /// By default nothing is done. Under [`Limit::Skip`](crate::Limit::Skip) the rest is dropped and the next
    /// frame comes, under [`Limit::Fail`](crate::Limit::Fail) the connection is closed. Under either, another
    /// terminator that is set here governs the rest instead, and the connection goes on; or, with
    /// [`Control::resume`], the same terminator does. What is set here governs the rest of *this* frame, not the
    /// next: in a mail that is too long, the terminator of commands would make commands of the rest of its text.
    /// Where the next frame ends in another way than this one, see the example in the guide on
    /// [limits](crate::guide::limits). Of a message whose end the handler [finds itself](Self::find_end) nothing
    /// has been collected, and the connection is closed in any case.
    ///
    /// ```
    /// use asynchat::{Channel, Chunk, Control, Handler, Limit};
    /// use std::convert::Infallible;
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    ///
    /// struct Session;
    ///
    /// impl Handler for Session {
    ///     // `Error`, `collect_incoming_data`, and a `found_terminator` that answers "250 ok\n" are left out.
    /// #     type Error = Infallible;
    /// #
    /// #     fn collect_incoming_data(
    /// #         &mut self,
    /// #         _: Chunk<'_>,
    /// #         _: &mut Control<'_>,
    /// #     ) -> Result<(), Infallible> {
    /// #         Ok(())
    /// #     }
    /// #
    /// #     async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
    /// #         control.push("250 ok\n");
    /// #         Ok(())
    /// #     }
    /// #
    ///     async fn overlong(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
    ///         control.push("500 too long\n");
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (mut client, server) = tokio::io::duplex(64);
    /// client.write_all(b"much too long\nshort\n").await?;
    /// client.shutdown().await?;
    /// let mut channel = Channel::builder(b"\n").limit(Limit::Skip(8)).build(server);
    /// channel.run(Session).await;
    /// drop(channel);
    /// let mut answers = String::new();
    /// client.read_to_string(&mut answers).await?;
    /// assert_eq!(answers, "500 too long\n250 ok\n");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`collect_incoming_data`](Self::collect_incoming_data).
    fn overlong(
        &mut self,
        control: &mut Control<'_>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send {
        let _ = control;
        async { Ok(()) }
    }

    /// The count of a frame is spent, and behind it is something else than its end
    /// ([`Terminator::CountThen`](crate::Terminator::CountThen)).
    ///
    /// By default nothing is done. Under [`Limit::Skip`](crate::Limit::Skip) what is there is dropped, up to
    /// and including the delimiter that was set last, and the next frame comes. Under any other limit, or
    /// if no delimiter was ever set, the connection is closed. Another terminator that is set here governs
    /// what is there instead, and the connection goes on. (The delimiter that was set last is in force again:
    /// to set it changes nothing.) Where so many bytes are to be dropped as the end has, whatever they are, set a count
    /// of as many: memcached does so.
    ///
    /// ```
    /// use asynchat::{Channel, Chunk, Control, Handler, Limit, Terminator};
    /// use std::convert::Infallible;
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    ///
    /// struct Session;
    ///
    /// impl Handler for Session {
    ///     // `Error`, `collect_incoming_data`, and a `found_terminator` that answers "250 ok\n" are left out.
    /// #     type Error = Infallible;
    /// #
    /// #     fn collect_incoming_data(
    /// #         &mut self,
    /// #         _: Chunk<'_>,
    /// #         _: &mut Control<'_>,
    /// #     ) -> Result<(), Infallible> {
    /// #         Ok(())
    /// #     }
    /// #
    /// #     async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
    /// #         control.push("250 ok\n");
    /// #         Ok(())
    /// #     }
    /// #
    ///     async fn wrong_end(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
    ///         control.push("500 where is the comma?\n");
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (mut client, server) = tokio::io::duplex(64);
    /// client.write_all(b"hello; and more\nNOOP\n").await?;
    /// # client.shutdown().await?;
    /// let mut channel = Channel::builder(b"\n").limit(Limit::Skip(100)).build(server);
    /// channel.set_terminator(Terminator::count_then(5, b","));
    /// channel.run(Session).await;
    /// drop(channel);
    /// let mut answers = String::new();
    /// client.read_to_string(&mut answers).await?;
    /// assert_eq!(answers, "500 where is the comma?\n250 ok\n");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`collect_incoming_data`](Self::collect_incoming_data).
    fn wrong_end(
        &mut self,
        control: &mut Control<'_>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send {
        let _ = control;
        async { Ok(()) }
    }

    /// The peer sends no more; if `truncated`, it has stopped in the middle of a frame or of a
    /// [marked message](Control::begin_message). Output can still be pushed; when it is written the connection
    /// is closed.
    ///
    /// ```
    /// use asynchat::{Channel, Chunk, Control, Handler};
    /// use std::convert::Infallible;
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    ///
    /// struct Session;
    ///
    /// impl Handler for Session {
    ///     // `Error`, `collect_incoming_data`, and a `found_terminator` that answers "250 ok\n" are left out.
    /// #     type Error = Infallible;
    /// #
    /// #     fn collect_incoming_data(
    /// #         &mut self,
    /// #         _: Chunk<'_>,
    /// #         _: &mut Control<'_>,
    /// #     ) -> Result<(), Infallible> {
    /// #         Ok(())
    /// #     }
    /// #
    /// #     async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
    /// #         control.push("250 ok\n");
    /// #         Ok(())
    /// #     }
    /// #
    ///     async fn eof(
    ///         &mut self,
    ///         truncated: bool,
    ///         control: &mut Control<'_>,
    ///     ) -> Result<(), Infallible> {
    ///         write!(control, "221 goodbye, truncated: {truncated}\n");
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (mut client, server) = tokio::io::duplex(64);
    /// client.write_all(b"NOOP\nNO").await?;
    /// client.shutdown().await?;
    /// let mut channel = Channel::new(server, b"\n");
    /// channel.run(Session).await;
    /// drop(channel);
    /// let mut answers = String::new();
    /// client.read_to_string(&mut answers).await?;
    /// assert_eq!(answers, "250 ok\n221 goodbye, truncated: true\n");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`collect_incoming_data`](Self::collect_incoming_data).
    fn eof(
        &mut self,
        truncated: bool,
        control: &mut Control<'_>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send {
        let _ = (truncated, control);
        async { Ok(()) }
    }

    /// The peer, whose turn it is, has let a deadline pass: [`Timeout::Frame`], [`Timeout::Session`], or
    /// [`Timeout::Idle`] with nothing queued for it. What is pushed here is written before the connection
    /// is closed, if the peer takes it within 5 seconds.
    ///
    /// By default nothing is said.
    ///
    /// ```
    /// use asynchat::{Channel, Chunk, Control, Handler, Timeout};
    /// use std::convert::Infallible;
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    ///
    /// struct Session;
    ///
    /// impl Handler for Session {
    ///     // `Error`, `collect_incoming_data`, and a `found_terminator` that answers "250 ok\n" are left out.
    /// #     type Error = Infallible;
    /// #
    /// #     fn collect_incoming_data(
    /// #         &mut self,
    /// #         _: Chunk<'_>,
    /// #         _: &mut Control<'_>,
    /// #     ) -> Result<(), Infallible> {
    /// #         Ok(())
    /// #     }
    /// #
    /// #     async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
    /// #         control.push("250 ok\n");
    /// #         Ok(())
    /// #     }
    /// #
    ///     fn timed_out(
    ///         &mut self,
    ///         timeout: Timeout,
    ///         control: &mut Control<'_>,
    ///     ) -> Result<(), Infallible> {
    ///         write!(control, "421 {timeout}\n");
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (mut client, server) = tokio::io::duplex(64);
    /// client.write_all(b"half a li").await?;
    /// let mut channel = Channel::new(server, b"\n");
    /// channel.run(Session).await;
    /// drop(channel);
    /// let mut answers = String::new();
    /// client.read_to_string(&mut answers).await?;
    /// assert_eq!(answers, "421 frame took too long to arrive\n");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`collect_incoming_data`](Self::collect_incoming_data).
    fn timed_out(
        &mut self,
        timeout: Timeout,
        control: &mut Control<'_>,
    ) -> Result<(), Self::Error> {
        let _ = (timeout, control);
        Ok(())
    }

    /// The peer has not sent a byte for the time of [`Timeouts::quiet`](crate::Timeouts::quiet). Whether it
    /// is still there can be asked (`PING`); the connection goes on.
    ///
    /// It is called again when the time has passed again. By default nothing is done.
    ///
    /// ```
    /// use asynchat::{Channel, Chunk, Control, Handler, Timeouts};
    /// use std::convert::Infallible;
    /// use std::time::Duration;
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    ///
    /// struct Session;
    ///
    /// impl Handler for Session {
    ///     // `Error`, `collect_incoming_data`, and a `found_terminator` that answers "250 ok\n" are left out.
    /// #     type Error = Infallible;
    /// #
    /// #     fn collect_incoming_data(
    /// #         &mut self,
    /// #         _: Chunk<'_>,
    /// #         _: &mut Control<'_>,
    /// #     ) -> Result<(), Infallible> {
    /// #         Ok(())
    /// #     }
    /// #
    /// #     async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
    /// #         control.push("250 ok\n");
    /// #         Ok(())
    /// #     }
    /// #
    ///     fn quiet(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
    ///         control.push("PING\n");
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (mut client, server) = tokio::io::duplex(64);
    /// let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    /// let timeouts = Timeouts::default().quiet(minutes(2)).idle(minutes(5));
    /// let mut channel = Channel::builder(b"\n").timeouts(timeouts).build(server);
    /// channel.run(Session).await; // nobody answers
    /// drop(channel);
    /// let mut answers = String::new();
    /// client.read_to_string(&mut answers).await?;
    /// assert_eq!(answers, "PING\nPING\n");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`collect_incoming_data`](Self::collect_incoming_data).
    fn quiet(&mut self, control: &mut Control<'_>) -> Result<(), Self::Error> {
        let _ = control;
        Ok(())
    }

    /// The connection is to end: the signal of [`Channel::run_until`](crate::Channel::run_until) has come. This is
    /// called once, unless the connection ends before: between two messages, so that one that has begun is
    /// complete and [`found_terminator`] has returned; or in the middle of a message, if the peer does not
    /// complete it within [`Timeouts::shutdown`](crate::Timeouts::shutdown).
    ///
    /// By default the connection is closed when what was pushed is written. A handler that says goodbye here
    /// (`421`, `BYE`) calls [`Control::close_when_done`] behind it: otherwise the connection goes on.
    ///
    /// [`found_terminator`]: Self::found_terminator
    ///
    /// # Errors
    ///
    /// As [`collect_incoming_data`](Self::collect_incoming_data).
    fn shutdown(
        &mut self,
        control: &mut Control<'_>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send {
        control.close_when_done();
        async { Ok(()) }
    }

    /// The connection is closed, or its stream can be taken for an upgrade. Nothing is called after this.
    ///
    /// It is not called if [`run`](crate::Channel::run) is dropped, as a `Server` does at the deadline of its
    /// shutdown, nor if the handler panics: what must happen in any case belongs in the handler's `Drop`.
    ///
    /// ```
    /// use asynchat::{Channel, Chunk, CloseReason, Control, Handler};
    /// use std::convert::Infallible;
    ///
    /// #[derive(Default)]
    /// struct Session {
    ///     log: Vec<String>,
    /// }
    ///
    /// impl Handler for Session {
    ///     // `Error` and `collect_incoming_data` are left out.
    /// #     type Error = Infallible;
    /// #
    /// #     fn collect_incoming_data(
    /// #         &mut self,
    /// #         _: Chunk<'_>,
    /// #         _: &mut Control<'_>,
    /// #     ) -> Result<(), Infallible> {
    /// #         Ok(())
    /// #     }
    /// #
    ///     fn closed(&mut self, reason: &CloseReason<Infallible>) {
    ///         self.log.push(reason.to_string());
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let (client, server) = tokio::io::duplex(64);
    /// drop(client);
    /// let (session, _) = Channel::new(server, b"\n").run(Session::default()).await;
    /// assert_eq!(session.log, ["closed by the peer"]);
    /// # }
    /// ```
    fn closed(&mut self, reason: &CloseReason<Self::Error>) {
        let _ = reason;
    }
}
