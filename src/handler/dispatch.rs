//! What drives a handler.
//!
//! There is one loop, [`Conn::dispatch`]. It calls one callback after the other for the input that was read, and
//! when there is none left it polls a turn of the channel ([`Conn::poll_turn`]), which may wait. The futures of
//! rare callbacks are boxed, since they would be a good part of the memory that an idle connection holds.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::{future, mem};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::framing::{Cut, End};
use crate::handler::handler::Handler;
use crate::handler::signal::Signal;
use crate::session::channel::Channel;
use crate::session::conn::{Conn, Meanwhile, Turn};
use crate::session::control::{Chunk, Control, Outlet};
use crate::session::error::CloseReason;
use crate::session::read::Inbound;
use crate::session::state::State;
use crate::session::timer::Timeout;
use crate::session::write::Outbound;
use crate::trace;

/// Calls a callback that may wait, and drives the output while it does. It is a macro because the callback borrows
/// one part of the connection, and what is driven meanwhile the rest.
macro_rules! attend {
    ($conn:ident, $handler:ident.$callback:ident($($argument:expr)?)) => {{
        $conn.trim_before_wait();
        let Inbound { input, framing } = &mut $conn.inbound;
        let mut control = Control::new(framing, Outlet::Cell(&$conn.outbound));
        let called = pin!($handler.$callback($($argument,)? &mut control));
        let (outbound, peer) = (&$conn.outbound, &mut $conn.peer);
        attended(called, Meanwhile { input, outbound, peer }).await?;
    }};
}

impl<S: AsyncRead + AsyncWrite + Unpin> Channel<S> {
    /// Drives a handler until the connection ends. Returns the handler, and how it ended.
    ///
    /// ```
    /// use asynchat::{Channel, Chunk, CloseReason, Control, Handler};
    /// use std::convert::Infallible;
    /// use tokio::io::AsyncWriteExt;
    ///
    /// /// How many lines there are.
    /// struct Count(u64);
    ///
    /// impl Handler for Count {
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
    ///         self.0 += 1;
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (mut client, server) = tokio::io::duplex(64);
    /// client.write_all(b"one\ntwo\nthr").await?;
    /// drop(client);
    /// let (count, reason) = Channel::new(server, b"\n").run(Count(0)).await;
    /// assert_eq!(count.0, 2);
    /// assert!(matches!(reason, CloseReason::Truncated));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation safety
    ///
    /// If the future is dropped, the handler is dropped with it, and a callback that was waiting. The
    /// channel can go on: no other input is lost, nor output.
    pub fn run<H: Handler>(
        &mut self,
        handler: H,
    ) -> impl Future<Output = (H, CloseReason<H::Error>)> {
        self.drive(handler, None::<future::Pending<()>>)
    }

    /// As [`run`](Self::run), until a signal: then the connection comes to an orderly end.
    ///
    /// If it is idle, it is closed at once. It is idle between two messages, also if the peer has sent more that was
    /// not handed over yet: that is not answered. If a callback is waiting or a message has begun, that is finished and
    /// answered first, but a peer that does not send the rest is waited for no longer than
    /// [`Timeouts::shutdown`](crate::Timeouts::shutdown). The handler has the last word: see
    /// [`Handler::shutdown`], which closes unless the handler does otherwise. Input that comes behind the close
    /// is not handed over. How long all of this may take is the caller's to limit, by dropping the future, as
    /// a `Server` does.
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
    ///     async fn shutdown(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
    ///         control.push("421 shutting down\r\n");
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
    pub fn run_until<H: Handler>(
        &mut self,
        handler: H,
        signal: impl Future<Output = ()>,
    ) -> impl Future<Output = (H, CloseReason<H::Error>)> {
        self.drive(handler, Some(signal))
    }

    #[allow(clippy::manual_async_fn, reason = "an async fn would hold its arguments twice")]
    fn drive<H: Handler, F: Future<Output = ()>>(
        &mut self,
        mut handler: H,
        signal: Option<F>,
    ) -> impl Future<Output = (H, CloseReason<H::Error>)> {
        let running = Running(self);
        async move {
            trace::opened();
            let signal = pin!(signal);
            let run = Run {
                signal: Signal::new(signal.as_pin_mut()),
                shutdown: Shutdown::Unwanted,
                looked: false,
                unfinished: false,
            };
            let failed = running.0.conn.dispatch(&mut handler, run).await.err();
            let reason = Box::pin(running.0.conn.wind_up(failed)).await;
            trace::closed(&reason, running.0.traffic());
            handler.closed(&reason);
            (handler, reason)
        }
    }
}

/// A run. If it is dropped, all deadlines but that of the session stand still until the channel is used again.
struct Running<'a, S>(&'a mut Channel<S>);

impl<S> Drop for Running<'_, S> {
    fn drop(&mut self) {
        self.0.conn.peer.timer.pause();
        // The flag is for pulls only: where a callback has ended a message, the timer was told after that
        // callback.
        self.0.conn.inbound.framing.pulled_end = false;
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Conn<S> {
    /// Calls one callback after the other, until nothing more is to be handed over.
    #[allow(clippy::manual_async_fn, reason = "an async fn would hold its arguments twice")]
    fn dispatch<H: Handler, F: Future<Output = ()>>(
        &mut self,
        handler: &mut H,
        mut run: Run<'_, F>,
    ) -> impl Future<Output = Result<(), H::Error>> {
        async move {
            self.go_on();
            self.inbound.framing.begin_asking();
            loop {
                let rare = match self.take_end(handler, &mut run)? {
                    Some(End::Terminator) => {
                        attend!(self, handler.found_terminator());
                        self.end_told();
                        continue;
                    }
                    Some(end) => Rare::End(end),
                    None if run.unfinished && !run.is_to_look() && self.is_drained() => {
                        run.unfinished = false;
                        attend!(self, handler.collected());
                        continue;
                    }
                    None => match future::poll_fn(|cx| self.poll_run(cx, &mut run)).await {
                        Some(rare) => rare,
                        None => continue,
                    },
                };
                if !Box::pin(self.take_rare(handler, rare, &mut run)).await? {
                    return Ok(());
                }
            }
        }
    }

    /// Hands over pieces of frames that have been read, up to the first end of a frame, and returns that end.
    /// `None` if nothing more can be handed over without a turn of the channel.
    #[inline(always)]
    fn take_end<H: Handler, F>(
        &mut self,
        handler: &mut H,
        run: &mut Run<'_, F>,
    ) -> Result<Option<End>, H::Error> {
        if self.inbound.has_owed() {
            return Ok(self.take_owed());
        }
        if run.is_to_look()
            || (run.shutdown == Shutdown::Wanted && self.inbound.is_between_messages())
        {
            return Ok(None);
        }
        loop {
            let next = self.next(|input, control| handler.find_end(input, control))?;
            let Some((Cut { start, end, outcome }, whole)) = next else {
                return Ok(None);
            };
            run.looked = false;
            if start < end || (whole && outcome == Some(End::Terminator)) {
                let ended = if whole { outcome } else { None };
                let (input, mut control) = self.parts();
                handler
                    .collect_incoming_data(Chunk::new(input, start, end, ended), &mut control)?;
            }
            run.unfinished = outcome.is_none();
            if outcome.is_some() {
                if self.may_hand_over() {
                    return Ok(outcome);
                }
                // The callback has filled the output queue, or has closed: the end has to wait, or is dropped.
                self.inbound.framing.framer.owe(outcome);
                return Ok(self.take_owed());
            }
        }
    }

    /// Polls a turn of the channel, unless there is something for the handler that the channel does not report:
    /// the signal, or the end of the connection.
    fn poll_run<F: Future<Output = ()>>(
        &mut self,
        cx: &mut Context<'_>,
        run: &mut Run<'_, F>,
    ) -> Poll<Option<Rare>> {
        let was_woken = run.signal.may_have_come();
        if run.signal.poll(cx) {
            run.shutdown = Shutdown::Wanted;
        }
        let wanted = run.shutdown == Shutdown::Wanted;
        if wanted && self.outbound_mut().state.is_open() && self.inbound.is_between_messages() {
            return Poll::Ready(Some(Rare::Shutdown));
        }
        if !self.outbound_mut().state.is_open() && !self.inbound.has_owed() {
            return Poll::Ready(Some(Rare::Over(self.over())));
        }
        if was_woken && !mem::replace(&mut run.looked, true) {
            // The signal was polled and has not come, so `take_end` may hand over the input that it has left.
            return Poll::Ready(None);
        }
        let turn = ready!(self.poll_turn(cx, wanted));
        run.looked = false;
        Poll::Ready(match turn {
            Turn::Quiet => Some(Rare::Quiet),
            Turn::Shutdown => Some(Rare::Shutdown),
            Turn::Again => None,
        })
    }

    fn over(&mut self) -> Over {
        let looks = self.inbound.framing.finds_ends();
        let Outbound { state, told, .. } = self.outbound_mut();
        let told = *told;
        match state {
            State::Over(CloseReason::PeerClosed) => Over::Input { truncated: false },
            State::Over(CloseReason::Truncated) => Over::Input { truncated: true },
            State::Over(CloseReason::Timeout(timeout)) if !told => Over::Deadline(*timeout),
            State::Over(CloseReason::Frame(_)) if looks && !told => Over::Overlong,
            _ => Over::Other,
        }
    }

    /// Calls the callback for something rare. Returns whether the run goes on.
    async fn take_rare<H: Handler, F: Future<Output = ()>>(
        &mut self,
        handler: &mut H,
        rare: Rare,
        run: &mut Run<'_, F>,
    ) -> Result<bool, H::Error> {
        match rare {
            Rare::End(end) => {
                self.note_end(end);
                if end == End::Overlong {
                    attend!(self, handler.overlong());
                }
                if end == End::WrongEnd {
                    attend!(self, handler.wrong_end());
                }
                self.end_told();
            }
            Rare::Shutdown => {
                run.shutdown = Shutdown::Told;
                attend!(self, handler.shutdown());
            }
            Rare::Quiet => handler.quiet(&mut self.parts().1)?,
            Rare::Over(Over::Input { truncated }) => {
                attend!(self, handler.eof(truncated));
                return Ok(false);
            }
            Rare::Over(Over::Overlong) => {
                attend!(self, handler.overlong());
                return Ok(false);
            }
            Rare::Over(Over::Deadline(timeout)) => {
                handler.timed_out(timeout, &mut self.parts().1)?;
                return Ok(false);
            }
            Rare::Over(Over::Other) => return Ok(false),
        }
        Ok(true)
    }

    /// Ends a run: closes the connection, or, for an upgrade, only writes what is queued. Returns the reason.
    async fn wind_up<E>(&mut self, failed: Option<E>) -> CloseReason<E> {
        let upgrades = matches!(self.outbound_mut().state, State::Over(CloseReason::Upgrade));
        if upgrades && failed.is_none() {
            if let Err(cause) = future::poll_fn(|cx| self.poll_flush(cx)).await {
                self.fail(cause);
            }
        } else {
            self.outbound_mut().finish();
            future::poll_fn(|cx| self.poll_close(cx)).await;
        }
        if self.outbound_mut().state.is_closed() {
            self.shut_down().await;
        }
        self.outbound_mut().told = true;
        failed.map_or_else(|| self.outbound_mut().state.tell(), CloseReason::Handler)
    }
}

/// What a handler is told rarely, and not with every frame.
enum Rare {
    End(End),
    Quiet,
    Shutdown,
    /// Nothing more is handed over.
    Over(Over),
}

/// Why nothing more is handed over, if the handler is to be told.
enum Over {
    Input {
        truncated: bool,
    },
    Deadline(Timeout),
    /// A message whose end the handler finds is longer than the limit.
    Overlong,
    Other,
}

/// The state of a run, beside that of its channel.
struct Run<'a, F> {
    /// Ready when the connection is to end.
    signal: Signal<'a, F>,
    shutdown: Shutdown,
    /// The signal was polled and had not come. Until something is handed over or the channel has a turn it is not
    /// polled again, even if it has woken the task: a signal that wakes the task at each poll would otherwise
    /// starve everything else.
    looked: bool,
    /// A part of a frame was handed over, and the frame goes on.
    unfinished: bool,
}

impl<F> Run<'_, F> {
    /// The signal is to be polled before anything else is handed over.
    #[inline]
    fn is_to_look(&self) -> bool {
        self.signal.may_have_come() && !self.looked
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shutdown {
    Unwanted,
    /// The handler is to be told.
    Wanted,
    Told,
}

/// Polls a callback and, while it waits, what is driven meanwhile. If that ends the connection, the callback is
/// dropped.
///
/// Each poll polls both once, the callback first. The callback is not polled again for a change that the other
/// makes: it sees that when something wakes it.
#[inline(always)]
fn attended<E, S: AsyncWrite + Unpin>(
    mut called: Pin<&mut impl Future<Output = Result<(), E>>>,
    mut meanwhile: Meanwhile<'_, S>,
) -> impl Future<Output = Result<(), E>> {
    future::poll_fn(move |cx| match called.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(result),
        Poll::Pending => meanwhile.poll(cx).map(Ok),
    })
}
