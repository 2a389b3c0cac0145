//! One connection, and what moves it.
//!
//! A [`Conn`] is a stream, what has been read from it ([`Inbound`]), what is to be written to it and what
//! it has come to ([`Outbound`]), and the deadlines. Whoever drives it does two things in turn: it takes
//! what is there ([`Conn::cut`]), and if there is nothing, lets the connection move what can be moved
//! ([`Conn::poll_turn`]), which waits. Who waits only for the output is in [`Conn::poll_ready`] and
//! [`Conn::poll_flush`], and who closes, in [`Conn::poll_close`].
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
/// There is one of these for each connection, as long as it is idle too: `tests/memory.rs` says how many bytes
/// it may have, with the future of a run. So what is rare is boxed, and what all channels of a builder share is
/// behind an `Arc`, as the deadlines are.
pub(crate) struct Conn<S> {
    pub(crate) peer: Peer<S>,
    pub(crate) inbound: Inbound,
    /// What a callback that waits and what goes on meanwhile both use, in turn: they are polled by one task, so
    /// that no borrow meets another.
    ///
    /// Whoever changes it goes by [`outbound_mut`](Self::outbound_mut) or [`change`], after which the gate is
    /// looked at anew. Its own `get_mut` is for questions, and for pushes, which know what they change.
    pub(crate) outbound: AtomicRefCell<Outbound>,
    read_size: u32,
    /// How much may still be done in this poll before other tasks have their turn: a unit for each piece
    /// of a frame, [`READ_COST`] and more for each read.
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

    /// For whoever has only a shared reference.
    pub(crate) fn outbound(&self) -> AtomicRef<'_, Outbound> {
        self.outbound.borrow()
    }

    /// For whoever may change it otherwise than by a push, which knows itself what it changes.
    #[inline]
    pub(crate) fn outbound_mut(&mut self) -> &mut Outbound {
        change(&mut self.outbound)
    }

    /// Drops what was read, beside output that was discarded: what the peer refused is of no account.
    pub(crate) fn discard_input(&mut self) {
        self.inbound.discard();
        self.peer.timer.discard();
    }

    /// Nothing happens any more, for this cause if nothing went wrong before.
    pub(crate) fn fail(&mut self, cause: Cause) {
        self.outbound_mut().fail(cause);
        self.inbound.discard();
    }

    /// Whoever pulled has said by now what is to become of the frame before: an upgrade that was refused is
    /// forgotten, and if no message goes on, the next frame has all of its time.
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

    /// The next piece of a frame, if it is there and may be handed over. Most are: this is all that is
    /// done for them.
    #[inline(always)]
    pub(crate) fn cut(&mut self) -> Option<Cut> {
        let gate = self.gate();
        if gate == Gate::Shut {
            return None;
        }
        self.budget -= 1;
        let eof = gate == Gate::OpenAtEof;
        match self.inbound.cut(eof) {
            // Taken apart, so that it can stay in registers: a copy of the whole waits for the stores of its fields.
            Ok(Some(Cut { start, end, outcome })) => Some(Cut { start, end, outcome }),
            Ok(None) if !eof => None,
            ended => self.cut_nothing(ended.err().map(CloseReason::Frame)),
        }
    }

    /// As [`cut`](Self::cut), and whether it is a whole frame. Where the application is to find the end of a
    /// message, it is asked first, if there is something new to be asked about.
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

    /// The input, and what a callback that does not wait needs.
    #[inline]
    pub(crate) fn parts(&mut self) -> (&Input, Control<'_>) {
        let Inbound { input, framing } = &mut self.inbound;
        let outbound = self.outbound.get_mut();
        let control = Control::new(framing, Outlet::Direct(outbound));
        (input, control)
    }

    /// Nothing more will be cut: for this cause, or because the input is at its end.
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

    /// Nothing stands in the way of the next callback, but that this poll may have had its share.
    #[inline]
    pub(crate) fn may_hand_over(&mut self) -> bool {
        self.outbound.get_mut().gate() != Gate::Shut
    }

    /// Nothing stands in the way of the next callback, and this poll has not had its share: if nothing is handed
    /// over, it is because nothing is there.
    pub(crate) fn is_drained(&mut self) -> bool {
        self.gate() != Gate::Shut
    }

    /// The end that is to be told next, if it may be. After a close it is not told at all.
    #[inline]
    pub(crate) fn take_owed(&mut self) -> Option<End> {
        let may_be_told = self.may_hand_over()
            // The upgrade was asked for with the last piece of a frame, and waits for its end.
            || matches!(self.outbound.get_mut().state, State::Over(CloseReason::Upgrade));
        if may_be_told {
            return self.inbound.framing.framer.take_owed();
        }
        if !self.outbound.get_mut().state.is_open() {
            self.inbound.framing.framer.owe(None);
        }
        None
    }

    /// A frame has ended in this way. Of a handler's frames it is asked only for those that end otherwise than by
    /// their terminator.
    #[inline]
    pub(crate) fn note_end(&mut self, end: End) {
        self.inbound.framing.frame_ended();
        match end {
            End::Terminator | End::WrongEnd => {}
            End::Overlong => trace::overlong(self.inbound.framing.framer.limit()),
            End::Truncated => self.outbound_mut().state.over(CloseReason::Truncated),
        }
    }

    /// The callback for the end of a frame is over: if it did not say that its message goes on, the next
    /// has all its time.
    #[inline]
    pub(crate) fn end_told(&mut self) {
        self.inbound.framing.frame_ended();
        if !self.inbound.framing.in_message() {
            self.peer.timer.frame_ended();
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Conn<S> {
    /// Why the channel has failed, to whoever has not been told yet.
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

    /// Writes and flushes all that is queued, what other tasks have pushed included. A stall is not yet
    /// a failure.
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

    /// A deadline fails the channel while nothing but the writer is waited for.
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

    /// Moves what can be moved while the channel is open: takes what other tasks push, writes, reads
    /// once. Ready when there is something new to look at, if only the state. With `shutdown`, the
    /// message that has begun is not waited for as long as others.
    pub(crate) fn poll_turn(&mut self, cx: &mut Context<'_>, shutdown: bool) -> Poll<Turn> {
        match self.budget {
            0 => {
                // A peer that never pauses is never waited for, and may not stay for longer because of that.
                let outbound = change(&mut self.outbound);
                if self.peer.timer.is_session_over(&outbound.deadlines) {
                    outbound.time_out(Timeout::Session);
                    return self.turned();
                }
                self.budget = REFRESHED;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            // Others have had their turn, and there may be more to hand over.
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
                // What waited for room has it now.
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
        // Others have their turn while this waits.
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

    /// Brings a channel that closes to its end: writes what is queued, shuts down, waits for the peer.
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
                    // A peer that writes all before it reads must not wait for us as we for it.
                    if lingers && rest > 0 && self.poll_drop_input(cx, rest).is_ready() {
                        continue;
                    }
                    let outbound = change(&mut self.outbound);
                    // After a deadline the last word has its own.
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

    /// Reads at most so many bytes, and drops them.
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
            let _ = Pin::new(&mut self.peer.io).poll_shutdown(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// If a callback waits now, little memory is held for input that is done with.
    #[inline]
    pub(crate) fn trim_before_wait(&mut self) {
        if self.inbound.pending() == 0 || self.inbound.framing.framer.consumed() >= DONE_WITH {
            self.inbound.trim();
        }
    }
}

/// What goes on while a callback waits.
pub(crate) struct Meanwhile<'a, S> {
    pub(crate) input: &'a mut Input,
    pub(crate) outbound: &'a AtomicRefCell<Outbound>,
    pub(crate) peer: &'a mut Peer<S>,
}

impl<S: AsyncWrite + Unpin> Meanwhile<'_, S> {
    /// Ready if the callback is not to be waited for any more.
    #[inline(never)]
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // The framer need not be told: its bytes are the same, and it looks at them again.
        self.input.shrink();
        self.outbound.borrow_mut().change().poll_meanwhile(cx, self.peer)
    }
}

/// What has come of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// There is something new to look at.
    Again,
    /// The peer has been quiet: [`Timeouts::quiet`](field@crate::Timeouts::quiet).
    Quiet,
    /// A message is not waited for any longer, now that the connection is wanted to end.
    Shutdown,
}

/// As [`Conn::outbound_mut`], beside the other fields.
#[inline]
fn change(outbound: &mut AtomicRefCell<Outbound>) -> &mut Outbound {
    outbound.get_mut().change()
}

/// How much is done in one poll: so many pieces of frames.
const BUDGET: u32 = 1024;
/// The budget after a turn of other tasks.
const REFRESHED: u32 = BUDGET + 1;
/// From so many bytes on, input that is done with is dropped though more is behind it.
const DONE_WITH: usize = 16 * 1024;
/// What a read costs, in pieces of frames.
const READ_COST: u32 = 32;
/// So many bytes that were read cost a piece more. With the default read size a poll reads half a megabyte at most then,
/// so that what one speaker pushes to a listener in a poll is well below what may wait for it.
const BYTES_PER_PIECE: usize = 512;
/// What is pushed when a deadline has passed is to be written in this time.
const LAST_WORD: Duration = Duration::from_secs(5);
