//! One connection, and the polls that drive it.
//!
//! A [`Conn`] holds the stream, the input that was read from it ([`Inbound`]), the output that is to be written to
//! it together with the state of the connection ([`Outbound`]), and the deadlines. A driver does two things in
//! turn: it takes the next piece of a frame from the input ([`Conn::cut`]), and when there is none it polls
//! [`Conn::poll_turn`], which writes, reads once, and is pending if neither is possible. [`Conn::poll_ready`] and
//! [`Conn::poll_flush`] wait only for the output, and [`Conn::poll_close`] closes.
//!
//! There are two drivers: [`Channel`](crate::Channel), which is pulled, and `handler/dispatch.rs`, which
//! calls a handler.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::{future, mem};

use atomic_refcell::{AtomicRef, AtomicRefCell};
use bytes::BufMut;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::poll_read_buf;

use crate::framing::{Cut, End, FrameError};
use crate::pool;
use crate::session::control::{Control, Outlet};
use crate::session::error::{Cause, ChannelError, CloseReason};
use crate::session::input::Input;
use crate::session::read::{Answer, Inbound};
use crate::session::state::{Rest, State};
use crate::session::timer::{Passed, Timeout, Timer, Wait};
use crate::session::write::{Gate, Outbound, Peer, Written, deadline};
use crate::trace;

/// One connection.
///
/// Every connection has one, also while it is idle, so it must be small: `tests/memory.rs` says how many bytes it
/// may have, together with the future of a run. That is why what is rarely needed is boxed, and what all channels
/// of a builder share, as the deadlines, is behind an `Arc`.
pub(crate) struct Conn<S> {
    pub(crate) peer: Peer<S>,
    pub(crate) inbound: Inbound,
    /// It is in a cell because a callback that waits and the writing that goes on meanwhile both use it. One task
    /// polls them in turn, so that their borrows never overlap.
    ///
    /// To change it, call [`outbound_mut`](Self::outbound_mut) or [`change`]: after these, [`Outbound::gate`]
    /// makes its checks again. The cell's own `get_mut` is for reads, and for pushes, which keep the cached answer
    /// of the gate right themselves.
    pub(crate) outbound: AtomicRefCell<Outbound>,
    read_size: u32,
    /// How much may still be done in this poll before other tasks have their turn. A piece of a frame costs one
    /// unit, a read [`READ_COST`] or more.
    budget: u32,
}

impl<S> Conn<S> {
    pub(crate) fn new(io: S, inbound: Inbound, outbound: Outbound, read_size: u32) -> Self {
        Conn {
            peer: Peer { io, timer: Timer::default() },
            inbound,
            outbound: AtomicRefCell::new(outbound),
            read_size,
            budget: BUDGET,
        }
    }

    /// The output and the state, to read.
    pub(crate) fn outbound(&self) -> AtomicRef<'_, Outbound> {
        self.outbound.borrow()
    }

    /// The output and the state, to change: see [`Conn::outbound`](field@Self::outbound).
    #[inline]
    pub(crate) fn outbound_mut(&mut self) -> &mut Outbound {
        change(&mut self.outbound)
    }

    /// Drops the input. The caller has discarded the output, so the time for which the peer did not take that no
    /// longer counts as a write stall.
    pub(crate) fn discard_input(&mut self) {
        self.inbound.discard();
        self.peer.timer.discard();
    }

    /// Closes the connection at once. `cause` is the reason, unless something went wrong before.
    pub(crate) fn fail(&mut self, cause: Cause) {
        self.outbound_mut().fail(cause);
        self.inbound.discard();
    }

    /// Called when the next frame is asked for: by now the caller has said what is to become of the frame before.
    /// An upgrade that was asked for and not carried out is forgotten, and if no message goes on, the frame
    /// deadline starts anew.
    #[inline]
    pub(crate) fn go_on(&mut self) {
        if !self.outbound.get_mut().state.is_open() {
            self.outbound_mut().state.forget_upgrade();
        }
        let framing = &mut self.inbound.framing;
        if mem::take(&mut framing.pulled_end) && !framing.in_message() {
            self.peer.timer.frame_ended();
        }
    }

    /// The next piece of a frame, if it has been read and may be handed over. For most pieces nothing else is
    /// done, so this is inlined and does little.
    #[inline(always)]
    pub(crate) fn cut(&mut self) -> Option<Cut> {
        let gate = self.gate();
        if gate == Gate::Shut {
            return None;
        }
        self.budget -= 1;
        let eof = gate == Gate::OpenAtEof;
        match self.inbound.cut(eof) {
            // The struct is taken apart so that its fields stay in registers: a copy of the whole would wait for
            // the stores of its fields.
            Ok(Some(Cut { start, end, outcome })) => Some(Cut { start, end, outcome }),
            Ok(None) if !eof => None,
            ended => self.cut_nothing(ended.err().map(CloseReason::Frame)),
        }
    }

    /// The next piece of a frame, as [`cut`](Self::cut) returns it, and whether it is a whole frame. Where the
    /// application finds the ends of its messages, `find` is called first, if there is input that it has not been
    /// shown.
    #[inline(always)]
    pub(crate) fn next<E>(
        &mut self,
        find: impl FnOnce(&[u8], &mut Control<'_>) -> Result<Option<usize>, E>,
    ) -> Result<Option<(Cut, bool)>, E> {
        if self.inbound.framing.is_looking() {
            match self.find_own_end(find)? {
                Answer::Known => {}
                Answer::Message(length) => {
                    self.budget -= 1;
                    let cut = self.inbound.framing.framer.cut_count(length);
                    return Ok(Some((cut, true)));
                }
                Answer::Nothing | Answer::Overlong(_) => {
                    self.budget = self.budget.saturating_sub(1);
                    return Ok(None);
                }
            }
        }
        let whole = self.inbound.is_whole();
        match self.cut() {
            Some(Cut { start, end, outcome }) => Ok(Some((Cut { start, end, outcome }, whole))),
            None => Ok(None),
        }
    }

    #[inline]
    fn find_own_end<E>(
        &mut self,
        find: impl FnOnce(&[u8], &mut Control<'_>) -> Result<Option<usize>, E>,
    ) -> Result<Answer, E> {
        let gate = self.gate();
        if gate == Gate::Shut {
            return Ok(Answer::Nothing);
        }
        let eof = gate == Gate::OpenAtEof;
        let Inbound { input, framing } = &mut self.inbound;
        let input: &[u8] = input;
        let Some((begun, is_new)) = framing.question(input, eof) else {
            return Ok(Answer::Known);
        };
        let mut end = None;
        if is_new {
            let outbound = self.outbound.get_mut();
            let mut control = Control::new(framing, Outlet::Direct(outbound));
            end = find(begun, &mut control)?;
        }
        let begun = begun.len();
        let now = self.may_hand_over();
        if !now && self.outbound.get_mut().wants_no_input() {
            return Ok(Answer::Nothing);
        }
        let found = self.inbound.framing.answer(begun, eof, end, now);
        if let Answer::Overlong(max) = found {
            trace::overlong(self.inbound.framing.framer.limit());
            self.outbound_mut().state.over(CloseReason::Frame(FrameError::Overlong(max)));
        }
        Ok(found)
    }

    /// The input, and a [`Control`] for a callback that does not wait.
    #[inline]
    pub(crate) fn parts(&mut self) -> (&Input, Control<'_>) {
        let Inbound { input, framing } = &mut self.inbound;
        let outbound = self.outbound.get_mut();
        let control = Control::new(framing, Outlet::Direct(outbound));
        (input, control)
    }

    /// Ends the cutting of frames: for `cause`, or because all input has been cut and no more will come.
    #[cold]
    fn cut_nothing(&mut self, cause: Option<Cause>) -> Option<Cut> {
        let in_message = self.inbound.framing.in_message();
        let at_end = if in_message { CloseReason::Truncated } else { CloseReason::PeerClosed };
        self.outbound_mut().state.over(cause.unwrap_or(at_end));
        None
    }

    /// Whether the next piece of a frame may be handed over in this poll.
    #[inline]
    fn gate(&mut self) -> Gate {
        if self.budget == 0 { Gate::Shut } else { self.outbound.get_mut().gate() }
    }

    /// Whether the next piece of a frame may be handed over, though perhaps not in this poll, whose budget may be
    /// spent.
    #[inline]
    pub(crate) fn may_hand_over(&mut self) -> bool {
        self.outbound.get_mut().gate() != Gate::Shut
    }

    /// Whether a piece of a frame may be handed over in this poll. If there is none then, the input is drained.
    pub(crate) fn is_drained(&mut self) -> bool {
        self.gate() != Gate::Shut
    }

    /// The end of a frame whose last piece was handed over before it, if the end may be reported now. After a
    /// close it is dropped.
    #[inline]
    pub(crate) fn take_owed(&mut self) -> Option<End> {
        let may_be_told = self.may_hand_over()
            // The callback for the last piece of the frame has asked for an upgrade: the end of that frame is
            // still reported.
            || matches!(self.outbound.get_mut().state, State::Over(CloseReason::Upgrade));
        if may_be_told {
            return self.inbound.framing.framer.take_owed();
        }
        if !self.outbound.get_mut().state.is_open() {
            self.inbound.framing.framer.owe(None);
        }
        None
    }

    /// Notes that a frame has ended in this way. With a handler it is called only for ends other than
    /// [`End::Terminator`].
    #[inline]
    pub(crate) fn note_end(&mut self, end: End) {
        self.inbound.framing.frame_ended();
        match end {
            End::Terminator | End::WrongEnd => {}
            End::Overlong => trace::overlong(self.inbound.framing.framer.limit()),
            End::Truncated => self.outbound_mut().state.over(CloseReason::Truncated),
        }
    }

    /// The callback for the end of a frame has returned: unless it said that its message goes on, the frame
    /// deadline starts anew.
    #[inline]
    pub(crate) fn end_told(&mut self) {
        self.inbound.framing.frame_ended();
        if !self.inbound.framing.in_message() {
            self.peer.timer.frame_ended();
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Conn<S> {
    /// Why the channel has failed. Only the first call returns it, later ones [`ChannelError::Closed`].
    pub(crate) fn tell_once(&mut self) -> ChannelError {
        let outbound = self.outbound_mut();
        if mem::replace(&mut outbound.told, true) {
            return ChannelError::Closed;
        }
        outbound.state.tell::<Infallible>().into()
    }

    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ChannelError>> {
        loop {
            let outbound = change(&mut self.outbound);
            outbound.poll_inbox(cx);
            if !outbound.output.is_open() {
                return Poll::Ready(Err(self.tell_once()));
            }
            if !outbound.output.is_full() {
                return Poll::Ready(Ok(()));
            }
            match outbound.poll_room(cx, &mut self.peer) {
                Ok(Written::All) => {}
                Ok(written) => ready!(self.poll_deadline(cx, written)),
                Err(cause) => self.fail(cause),
            }
        }
    }

    /// Writes and flushes all that is queued, what other tasks have pushed included. A write stall is returned as
    /// an error but does not fail the channel: that is for the caller to do.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cause>> {
        let outbound = change(&mut self.outbound);
        let mut had_room = outbound.output.has_room();
        outbound.poll_inbox(cx);
        loop {
            if outbound.state.is_closed() {
                return Poll::Ready(Err(CloseReason::Aborted));
            }
            let written = outbound.poll_flush(cx, &mut self.peer)?;
            if written == Written::All {
                if outbound.take_what_waited(&mut had_room) {
                    continue;
                }
                return Poll::Ready(Ok(()));
            }
            let refused = written == Written::Refused;
            let wait = Wait { peer: refused, refused, ..Wait::default() };
            let passed = ready!(self.peer.timer.poll(cx, &outbound.deadlines, wait));
            if let Some(timeout) = deadline(passed) {
                trace::timed_out(timeout);
                return Poll::Ready(Err(CloseReason::Timeout(timeout)));
            }
        }
    }

    /// Waits for a deadline where only the writer is waited for, and fails the channel if one passes.
    fn poll_deadline(&mut self, cx: &mut Context<'_>, written: Written) -> Poll<()> {
        let refused = written == Written::Refused;
        let wait = Wait { peer: refused, refused, ..Wait::default() };
        let outbound = change(&mut self.outbound);
        if let Some(timeout) = deadline(ready!(self.peer.timer.poll(cx, &outbound.deadlines, wait)))
        {
            trace::timed_out(timeout);
            self.fail(CloseReason::Timeout(timeout));
        }
        Poll::Ready(())
    }

    /// One turn of a channel that is open: takes what other tasks have pushed, writes, and reads once. It is ready
    /// when there may be something new for the driver: input, room for output, or a change of state. With
    /// `shutdown`, the rest of a message that has begun is waited for no longer than
    /// [`Timeouts::shutdown`](field@crate::Timeouts::shutdown).
    pub(crate) fn poll_turn(&mut self, cx: &mut Context<'_>, shutdown: bool) -> Poll<Turn> {
        match self.budget {
            0 => {
                // A peer that never pauses is never waited for, so the timer is never polled. The session deadline
                // holds for it too.
                let outbound = change(&mut self.outbound);
                if self.peer.timer.is_session_over(&outbound.deadlines) {
                    outbound.time_out(Timeout::Session);
                    return self.turned();
                }
                self.budget = REFRESHED;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            // Other tasks have had their turn, and there may be more to hand over.
            REFRESHED => {
                self.budget = BUDGET;
                return Poll::Ready(Turn::Again);
            }
            _ => {}
        }
        let outbound = change(&mut self.outbound);
        outbound.poll_inbox(cx);
        if mem::take(&mut outbound.discards_input) {
            self.discard_input();
            return Poll::Ready(Turn::Again);
        }
        if !outbound.state.is_open() {
            return Poll::Ready(Turn::Again);
        }
        let mut wait = Wait::default();
        if outbound.is_full() || outbound.state.is_eof() {
            match outbound.poll_room(cx, &mut self.peer) {
                Ok(Written::All) => return self.turned(),
                Ok(written) => wait.refused = written == Written::Refused,
                Err(cause) => {
                    self.fail(cause);
                    return self.turned();
                }
            }
            self.inbound.rest();
            wait.peer = wait.refused;
        } else {
            // The input is drained: now is the time to flush.
            let written = match outbound.poll_flush(cx, &mut self.peer) {
                Ok(written) => written,
                Err(cause) => {
                    self.fail(cause);
                    return self.turned();
                }
            };
            if outbound.has_items() && outbound.output.has_room() {
                // What other tasks pushed while the output was full has room now.
                return self.turned();
            }
            match self.inbound.poll_read(cx, &mut self.peer.io, self.read_size as usize) {
                Poll::Ready(Ok(read)) => {
                    if read == 0 {
                        outbound.state.end_input();
                    }
                    self.peer.timer.read();
                    let cost = READ_COST.saturating_add((read / BYTES_PER_PIECE) as u32);
                    self.budget = self.budget.saturating_sub(cost).max(1);
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
            wait.listens = true;
            wait.frame = self.inbound.unfinished();
            if wait.frame.is_none() {
                self.peer.timer.frame_ended();
            }
            wait.shutdown = shutdown;
        }
        // Other tasks have their turn while this waits, so the next poll has a whole budget.
        self.budget = BUDGET;
        let outbound = change(&mut self.outbound);
        match ready!(self.peer.timer.poll(cx, &outbound.deadlines, wait)) {
            Passed::Shutdown => return Poll::Ready(Turn::Shutdown),
            Passed::Deadline(Timeout::Quiet) => return Poll::Ready(Turn::Quiet),
            Passed::Deadline(timeout) => outbound.time_out(timeout),
            Passed::End => {}
        }
        self.turned()
    }

    fn turned(&mut self) -> Poll<Turn> {
        self.peer.timer.pause();
        Poll::Ready(Turn::Again)
    }

    /// Closes: writes what is queued, shuts the stream down, and waits for the peer to close too.
    pub(crate) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let outbound = change(&mut self.outbound);
            outbound.poll_inbox(cx);
            let lingers = outbound.deadlines.timeouts.linger.is_some();
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
                    wait.end = change(&mut self.outbound).deadlines.timeouts.linger;
                }
                State::Closing(_, rest) => {
                    self.inbound.discard();
                    match outbound.poll_flush(cx, &mut self.peer) {
                        Ok(Written::All) => {
                            outbound.state.written(lingers);
                            self.peer.timer.begin_end();
                            continue;
                        }
                        Ok(written) => wait.refused = written == Written::Refused,
                        Err(cause) => {
                            self.fail(cause);
                            continue;
                        }
                    }
                    // Input is read and dropped meanwhile: a peer that writes everything before it reads would
                    // otherwise wait for this side, and this side for the peer.
                    if lingers && rest > 0 && self.poll_drop_input(cx, rest).is_ready() {
                        continue;
                    }
                    let outbound = change(&mut self.outbound);
                    // If a deadline has ended the connection, what is pushed after it has a deadline of its own.
                    let passed = outbound.state.passed();
                    wait.end = passed.map(|_| LAST_WORD);
                    wait.peer = wait.refused && passed.is_none();
                }
            }
            let outbound = change(&mut self.outbound);
            if matches!(outbound.state, State::Closing(..) | State::Lingering(..)) {
                let passed = ready!(self.peer.timer.poll(cx, &outbound.deadlines, wait));
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

    /// Reads once, at most `most` bytes, and drops them.
    fn poll_drop_input(&mut self, cx: &mut Context<'_>, most: Rest) -> Poll<()> {
        let most = most.min(self.read_size);
        let mut buffer = pool::take(most as usize);
        let mut room = (&mut buffer).limit(most as usize);
        let read = poll_read_buf(Pin::new(&mut self.peer.io), cx, &mut room);
        pool::give(buffer);
        let outbound = change(&mut self.outbound);
        match ready!(read) {
            Ok(read @ 1..) => {
                self.inbound.framing.read += read as u64;
                outbound.state.dropped(read as Rest);
            }
            // An error only ends the input: if there is something left to write, the writer reports what is wrong.
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
            let _ = Pin::new(&mut self.peer.io).poll_shutdown(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// Called before a callback that may wait, so that little memory is held meanwhile for input that is consumed.
    #[inline]
    pub(crate) fn trim_before_wait(&mut self) {
        if self.inbound.pending() == 0 || self.inbound.framing.framer.consumed() >= DONE_WITH {
            self.inbound.trim();
        }
    }
}

/// The parts of a connection that are driven while a callback waits.
pub(crate) struct Meanwhile<'a, S> {
    pub(crate) input: &'a mut Input,
    pub(crate) outbound: &'a AtomicRefCell<Outbound>,
    pub(crate) peer: &'a mut Peer<S>,
}

impl<S: AsyncWrite + Unpin> Meanwhile<'_, S> {
    /// Ready when the connection is closed, so that the callback is to be dropped.
    #[inline(never)]
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // The input may move in memory. The framer need not be told: it notices, and searches the same bytes
        // again.
        self.input.shrink();
        self.outbound.borrow_mut().change().poll_meanwhile(cx, self.peer)
    }
}

/// The result of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// There is something new to look at.
    Again,
    /// The peer has been quiet: [`Timeouts::quiet`](field@crate::Timeouts::quiet).
    Quiet,
    /// The connection is to end, and the rest of a message has been waited for long enough.
    Shutdown,
}

/// As [`Conn::outbound_mut`], where other fields are borrowed at the same time.
#[inline]
fn change(outbound: &mut AtomicRefCell<Outbound>) -> &mut Outbound {
    outbound.get_mut().change()
}

/// How much is done in one poll, in pieces of frames.
const BUDGET: u32 = 1024;
/// Set when the budget is spent and the task yields: the next poll begins with a whole budget, and hands over
/// before it reads.
const REFRESHED: u32 = BUDGET + 1;
/// This many bytes of consumed input are dropped before a callback may wait, even if there is input behind them.
const DONE_WITH: usize = 16 * 1024;
/// What a read costs of the budget, at least.
const READ_COST: u32 = 32;
/// Each time a read brings this many bytes, it costs one unit more. With the default read size a poll thus reads
/// half a megabyte at most, so that what one speaker in a chat room pushes to a listener in one poll is well below
/// the capacity of the listener's handles.
const BYTES_PER_PIECE: usize = 512;
/// How long the peer has to take what is queued when a deadline has ended the connection.
const LAST_WORD: Duration = Duration::from_secs(5);
