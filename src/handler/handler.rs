use std::future::{self, Future};
use std::mem;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::handler::control::{Access, Chunk, Control};
use crate::session::channel::Step;
use crate::session::channel::{Channel, Shared, Split, Stop, lock, poll_outgoing};
use crate::session::close::{ChannelError, CloseReason};
use crate::session::timer::{Owed, Timeout, Timer};
use crate::trace;

/// What a protocol does with its frames: asynchat's callbacks, driven by [`Channel::run`].
///
/// Two methods make a protocol: one is given the bytes of a frame as they come, the other is told that
/// the frame is complete and sets the terminator of the next. The rest have defaults. Methods that may
/// wait are written `async fn`.
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
///         let _ = control.push(format!("{}\r\n", line.len()));
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
/// let serving = tokio::spawn(async move {
///     Channel::new(server, b"\r\n").run(Lengths::default()).await.1
/// });
/// let mut answers = String::new();
/// client.read_to_string(&mut answers).await?;
/// assert_eq!(answers, "5\r\n0\r\n4\r\n");
/// drop(client);
/// assert!(matches!(serving.await?, CloseReason::Done));
/// # Ok(())
/// # }
/// ```
///
/// # Order
///
/// The methods are called one at a time, in the order of the input, and none after the connection has
/// been closed: input behind a `QUIT` is not dispatched. While one waits, queued output still goes out,
/// deadlines still run, and a [`Handle`](crate::Handle) can still abort.
pub trait Handler {
    /// Why the protocol cannot go on. The connection is closed, and [`Channel::run`] returns it whole.
    type Error;

    /// Some bytes of the current frame.
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
    /// # Errors
    ///
    /// As [`collect_incoming_data`](Self::collect_incoming_data).
    fn found_terminator(
        &mut self,
        control: &mut Control<'_>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// The frame is longer than its limit, and all that the limit allows has been collected.
    ///
    /// By default nothing is done. Under [`Limit::Skip`](crate::Limit::Skip) the rest is dropped and the
    /// next frame comes, under [`Limit::Fail`](crate::Limit::Fail) the connection is closed.
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

    /// The peer sends no more, in mid-frame if `truncated`. Output can still be pushed; when it is
    /// written the connection is closed.
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

    /// The peer, whose turn it is, has let a deadline pass: [`Timeout::Frame`], or [`Timeout::Idle`] with
    /// nothing queued for it. What is pushed here is written before the connection is closed.
    ///
    /// By default nothing is said.
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

    /// The connection is wanted to end: the signal of [`Channel::run_until`] has come. This is called once,
    /// between two frames, so one that has begun is complete and [`found_terminator`] has returned.
    ///
    /// By default the connection is closed when what was pushed is written. Do otherwise to say goodbye
    /// (`421`, `BYE`), or, where a message has several frames, to finish the one at hand and then close.
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

    /// The connection is closed. Nothing is called after this.
    fn closed(&mut self, reason: &CloseReason<Self::Error>) {
        let _ = reason;
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Channel<S> {
    /// Drives a handler until the connection ends. Returns the handler, and how it ended.
    ///
    /// # Cancellation safety
    ///
    /// If the future is dropped, the handler is dropped with it, and a callback that was waiting. The
    /// channel can go on: no other input is lost, nor output.
    pub fn run<H: Handler>(
        &mut self,
        handler: H,
    ) -> impl Future<Output = (H, CloseReason<H::Error>)> {
        self.run_until(handler, future::pending())
    }

    /// As [`run`](Self::run), until a signal: then the connection comes to an orderly end.
    ///
    /// If it is idle, it is closed at once. If a callback is waiting or a frame has begun, that is
    /// finished and answered first. The handler has the last word: see [`Handler::shutdown`]. Input that
    /// comes behind is not dispatched. How long this may take is the caller's to limit, by dropping the
    /// future, as a `Server` does.
    ///
    /// The signal is any future: the `cancelled` of a `CancellationToken`, a timer, a channel's `recv`.
    ///
    /// ```
    /// use asynchat::{Channel, Chunk, CloseReason, Control, Handler};
    /// use std::convert::Infallible;
    /// use tokio::io::AsyncReadExt;
    ///
    /// struct Polite;
    ///
    /// impl Handler for Polite {
    ///     type Error = Infallible;
    ///
    ///     fn collect_incoming_data(
    ///         &mut self,
    ///         _: Chunk<'_>,
    ///         _: &mut Control<'_>,
    ///     ) -> Result<(), Infallible> {
    ///         Ok(())
    ///     }
    ///
    ///     async fn found_terminator(&mut self, _: &mut Control<'_>) -> Result<(), Infallible> {
    ///         Ok(())
    ///     }
    ///
    ///     async fn shutdown(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
    ///         let _ = control.push("421 shutting down\r\n");
    ///         control.close_when_done();
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (mut client, server) = tokio::io::duplex(64);
    /// let (stop, stopped) = tokio::sync::oneshot::channel();
    /// let serving = tokio::spawn(async move {
    ///     let signal = async { drop(stopped.await) };
    ///     Channel::new(server, b"\r\n").run_until(Polite, signal).await.1
    /// });
    /// stop.send(()).expect("it is served");
    /// let mut answer = String::new();
    /// client.read_to_string(&mut answer).await?;
    /// assert_eq!(answer, "421 shutting down\r\n");
    /// drop(client);
    /// assert!(matches!(serving.await?, CloseReason::Done));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation safety
    ///
    /// As [`run`](Self::run).
    #[allow(clippy::manual_async_fn, reason = "an async fn would hold its arguments twice")]
    pub fn run_until<H: Handler>(
        &mut self,
        mut handler: H,
        signal: impl Future<Output = ()>,
    ) -> impl Future<Output = (H, CloseReason<H::Error>)> {
        async move {
            trace::opened();
            let run = Run {
                signal: pin!(signal),
                shutdown: Shutdown::Unwanted,
                truncated: false,
                has_waited: false,
            };
            let end = self.dispatch(&mut handler, run).await.unwrap_or_else(|early| early);
            let reason = Box::pin(self.wind_up(end)).await;
            trace::closed(&reason);
            handler.closed(&reason);
            (handler, reason)
        }
    }

    /// Calls the handler with one event after the other. Both ways out are ends; an error comes early.
    ///
    /// What is rare is boxed: its futures would be a third of what an idle connection holds.
    #[allow(clippy::manual_async_fn, reason = "an async fn would hold its arguments twice")]
    fn dispatch<H: Handler, F: Future<Output = ()>>(
        &mut self,
        handler: &mut H,
        mut run: Run<'_, F>,
    ) -> impl Future<Output = Result<CloseReason<H::Error>, CloseReason<H::Error>>> {
        async move {
            self.shared().forget_upgrade();
            run.look().await;
            loop {
                if !self.ended {
                    // Most frames are there already, and take the short way.
                    let at_once = match run.shutdown {
                        Shutdown::Wanted => None,
                        _ => self.frame_at_once(),
                    };
                    let (start, end, ended) = match at_once {
                        Some(frame) => (frame.start, frame.end, true),
                        None => {
                            let step = future::poll_fn(|cx| self.poll_step_until(cx, &mut run));
                            match step.await {
                                Ok(Some(Step::Data { start, end, ended })) => (start, end, ended),
                                rare => {
                                    let taken = self.take_rare(handler, rare, &mut run);
                                    if let Some(reason) = Box::pin(taken).await? {
                                        return Ok(reason);
                                    }
                                    continue;
                                }
                            }
                        }
                    };
                    if start < end {
                        self.collect(handler, start, end).map_err(CloseReason::Handler)?;
                    }
                    if !ended {
                        self.take_wish()?;
                        continue;
                    }
                }
                if self.ended || !self.has_room() {
                    self.ended = true;
                    let owed = future::poll_fn(|cx| {
                        run.poll_signal(cx);
                        self.poll_owed(cx)
                    });
                    if !owed.await.map_err(CloseReason::Error)? {
                        self.take_wish()?;
                        continue;
                    }
                }
                self.release_input();
                let Split { io, input, framer, shared, timer } = self.split();
                let mut control = Control::new(framer, Access::Shared(shared), input.len());
                attend(pin!(handler.found_terminator(&mut control)), |cx| {
                    run.has_waited = true;
                    run.poll_signal(cx);
                    poll_background(io, timer, &mut lock(shared), cx)
                })
                .await?;
                if control.discard {
                    self.discarded();
                }
                if mem::take(&mut run.has_waited) {
                    run.look().await;
                }
                self.take_wish()?;
            }
        }
    }

    /// The next step, or `Step::Pending` where the handler is to be told of the shutdown.
    fn poll_step_until<F: Future<Output = ()>>(
        &mut self,
        cx: &mut Context<'_>,
        run: &mut Run<'_, F>,
    ) -> Poll<Result<Option<Step>, ChannelError>> {
        run.poll_signal(cx);
        if run.shutdown == Shutdown::Wanted && self.is_between_frames() {
            return Poll::Ready(Ok(Some(Step::Pending)));
        }
        match self.poll_step(cx) {
            // A frame that is skipped may have ended.
            Poll::Pending if run.shutdown == Shutdown::Wanted && self.is_between_frames() => {
                Poll::Ready(Ok(Some(Step::Pending)))
            }
            step => step,
        }
    }

    /// Does what is to be done at a step without data. It may be the end.
    async fn take_rare<H: Handler, F: Future<Output = ()>>(
        &mut self,
        handler: &mut H,
        step: Result<Option<Step>, ChannelError>,
        run: &mut Run<'_, F>,
    ) -> Result<Option<CloseReason<H::Error>>, CloseReason<H::Error>> {
        let step = match step {
            Ok(step) => step,
            Err(error) => {
                if let ChannelError::Timeout(timeout) = error {
                    self.time_out(handler, timeout).map_err(CloseReason::Handler)?;
                }
                return Err(CloseReason::Error(error));
            }
        };
        match step {
            Some(Step::Overlong) => self.call(handler, Callback::Overlong, run).await?,
            Some(Step::Truncated) => run.truncated = true,
            Some(Step::Pending) => {
                run.shutdown = Shutdown::Told;
                self.call(handler, Callback::Shutdown, run).await?;
            }
            Some(Step::Data { .. } | Step::Failed(_)) => {}
            None if self.is_open() => {
                self.call(handler, Callback::Eof { truncated: run.truncated }, run).await?;
                self.take_wish()?;
                return Ok(Some(if !self.is_open() {
                    CloseReason::Done
                } else if run.truncated {
                    CloseReason::Truncated
                } else {
                    CloseReason::PeerClosed
                }));
            }
            None => {
                // A handle may have aborted.
                self.take_wish()?;
                return Ok(Some(CloseReason::Done));
            }
        }
        self.take_wish()?;
        Ok(None)
    }

    #[inline]
    fn collect<H: Handler>(
        &mut self,
        handler: &mut H,
        start: usize,
        end: usize,
    ) -> Result<(), H::Error> {
        let (input, mut control) = self.control();
        handler.collect_incoming_data(Chunk::new(input, start, end), &mut control)?;
        if control.discard {
            self.discarded();
        }
        Ok(())
    }

    /// Tells of a deadline that has not closed the channel.
    fn time_out<H: Handler>(&mut self, handler: &mut H, timeout: Timeout) -> Result<(), H::Error> {
        if !self.is_open() {
            return Ok(());
        }
        handler.timed_out(timeout, &mut self.control().1)
    }

    async fn call<H: Handler, F: Future<Output = ()>>(
        &mut self,
        handler: &mut H,
        callback: Callback,
        run: &mut Run<'_, F>,
    ) -> Result<(), CloseReason<H::Error>> {
        self.release_input();
        let Split { io, input, framer, shared, timer } = self.split();
        let mut control = Control::new(framer, Access::Shared(shared), input.len());
        attend(pin!(callback.call(handler, &mut control)), |cx| {
            run.poll_signal(cx);
            poll_background(io, timer, &mut lock(shared), cx)
        })
        .await?;
        if control.discard {
            self.discarded();
        }
        run.look().await;
        Ok(())
    }

    /// Ends the dispatch if a callback asked for it.
    fn take_wish<E>(&mut self) -> Result<(), CloseReason<E>> {
        self.shared().take_wish()
    }

    /// Brings the connection to its end.
    async fn wind_up<E>(&mut self, reason: CloseReason<E>) -> CloseReason<E> {
        let done = match reason {
            _ if self.shared().is_aborted() => Err(ChannelError::Closed),
            CloseReason::Upgrade => self.flush().await,
            // The peer may well be there to read what was pushed last.
            CloseReason::PeerClosed
            | CloseReason::Truncated
            | CloseReason::Done
            | CloseReason::Handler(_)
            | CloseReason::Error(ChannelError::Frame(_) | ChannelError::Timeout(Timeout::Frame)) => {
                self.close().await
            }
            // There is something to be said.
            CloseReason::Error(ChannelError::Timeout(Timeout::Idle)) if self.is_busy() => {
                self.close().await
            }
            CloseReason::Aborted | CloseReason::Error(_) => Err(ChannelError::Closed),
        };
        if done.is_err() {
            self.abort();
            self.shut_down().await;
        }
        // A handle may have aborted while that went on.
        let aborted = self.take_wish::<E>().is_err();
        match reason {
            CloseReason::PeerClosed
            | CloseReason::Truncated
            | CloseReason::Done
            | CloseReason::Upgrade => match done {
                Ok(()) | Err(ChannelError::Closed) if aborted => CloseReason::Aborted,
                Ok(()) => reason,
                Err(error) => CloseReason::Error(error),
            },
            _ => reason,
        }
    }
}

/// A callback that may wait.
#[derive(Clone, Copy)]
pub(crate) enum Callback {
    FoundTerminator,
    Overlong,
    Eof { truncated: bool },
    Shutdown,
}

impl Callback {
    pub(crate) async fn call<H: Handler>(
        self,
        handler: &mut H,
        control: &mut Control<'_>,
    ) -> Result<(), H::Error> {
        match self {
            Callback::FoundTerminator => handler.found_terminator(control).await,
            Callback::Overlong => handler.overlong(control).await,
            Callback::Eof { truncated } => handler.eof(truncated, control).await,
            Callback::Shutdown => handler.shutdown(control).await,
        }
    }
}

/// Waits for a callback, and meanwhile polls what goes on in the background, which may end it.
#[inline]
pub(crate) fn attend<E>(
    mut called: Pin<&mut impl Future<Output = Result<(), E>>>,
    mut background: impl FnMut(&mut Context<'_>) -> Poll<Stop>,
) -> impl Future<Output = Result<(), CloseReason<E>>> {
    future::poll_fn(move |cx| match called.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(result.map_err(CloseReason::Handler)),
        Poll::Pending => background(cx).map(|stop| Err(stop.into())),
    })
}

/// What a run knows beside its channel.
struct Run<'a, F> {
    /// Comes when the connection is wanted to end.
    signal: Pin<&'a mut F>,
    shutdown: Shutdown,
    /// The input has ended in mid-frame.
    truncated: bool,
    /// The callback was not ready at once.
    has_waited: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shutdown {
    Unwanted,
    /// The handler is to be told.
    Wanted,
    Told,
}

impl<F: Future<Output = ()>> Run<'_, F> {
    /// Looks for the signal, which wakes the task when it comes. Each time that the task is woken this
    /// comes before any dispatch.
    fn poll_signal(&mut self, cx: &mut Context<'_>) {
        if self.shutdown == Shutdown::Unwanted && self.signal.as_mut().poll(cx).is_ready() {
            self.shutdown = Shutdown::Wanted;
        }
    }

    /// The same, where nothing is polled otherwise.
    fn look(&mut self) -> impl Future<Output = ()> {
        future::poll_fn(|cx| {
            self.poll_signal(cx);
            Poll::Ready(())
        })
    }
}

/// What goes on while a callback waits: pushes of other tasks, writing, deadlines.
pub(crate) fn poll_background<S: AsyncWrite + Unpin>(
    io: &mut S,
    timer: &mut Timer,
    shared: &mut Shared,
    cx: &mut Context<'_>,
) -> Poll<Stop> {
    if let Err(stop) = poll_outgoing(io, timer, shared, cx) {
        return Poll::Ready(stop);
    }
    let timeout = ready!(timer.poll(cx, &shared.timeouts, Owed::Nothing));
    trace::timed_out(timeout);
    Poll::Ready(Stop::Failed(ChannelError::Timeout(timeout)))
}
