//! Where a connection is between its first byte and its end.
//!
//! The reading half has its state here. The writing half has its own in the output queue, which closes when this
//! does. Each state in which nothing more is handed over carries the cause, so that everybody who asks why the
//! connection ended gets the same answer.
//!
//! ```text
//!   Open ── the peer has closed ──▶ Eof
//!     │                              │ the input is cut to its end
//!     │ an invalid frame,            ▼
//!     ├─ a deadline, an upgrade ──▶ Over(cause)
//!     │ close                        │ close
//!     ▼                              ▼
//!   Closing(cause) ── written and shut down ──▶ Lingering(cause) ── the peer has closed too ──▶ Closed
//!
//!   any of these: ── abort, I/O error, a peer that does not read ──▶ Closed(cause)
//! ```
//!
//! `Closed` is never left, and no state goes back to an earlier one, with one exception: asking for the next frame
//! takes an upgrade back, from `Over(Upgrade)` to `Open`.
//!
//! The cause is the first thing that went wrong. If nothing has, it is the way in which the connection comes to
//! its orderly end. That end is complete only when everything is written: a failure until then replaces the cause.
//!
//! To add a way to end: give [`CloseReason`] a variant. Where it happens, call `over` if what is queued is still
//! to be written, `close` if this side ends the connection, and `fail` if nothing can be written any more: that of
//! `Conn`, which drops queue, inbox and input too. Say in `Conn::over` of `handler/dispatch.rs` whether a handler
//! is told, and in [`State::leave`] whether the peer is lingered for.

use std::mem;

use crate::session::error::{Cause, CloseReason};
use crate::session::timer::Timeout;

/// The reading half, and what becomes of the connection.
#[derive(Debug)]
pub(crate) enum State {
    /// Frames are cut from what the peer sends.
    Open,
    /// The peer has closed its half. Frames are cut from what it had sent.
    Eof,
    /// Nothing more is handed over. Output can still be pushed.
    Over(Cause),
    /// Nothing more can be pushed; what was is written. What the peer still sends is dropped.
    Closing(Cause, Rest),
    /// All is written and shut down. The peer is waited for.
    Lingering(Cause, Rest),
    /// Nothing is read or written any more.
    Closed(Cause),
}

/// How many bytes of input may still be read, to be dropped. 0 if the peer has closed its half, or is not to be
/// waited for.
pub(crate) type Rest = u32;

/// What a peer may still send after the channel has closed its half.
const LINGER_BYTES: Rest = 256 * 1024;

impl State {
    /// Frames are handed over.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, State::Open | State::Eof)
    }

    /// The peer has closed its half, and frames are still handed over.
    #[inline]
    pub(crate) fn is_eof(&self) -> bool {
        matches!(self, State::Eof)
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self, State::Closed(_))
    }

    /// Why nothing is handed over any more.
    pub(crate) fn cause(&self) -> Option<&Cause> {
        match self {
            State::Open | State::Eof => None,
            State::Over(cause)
            | State::Closing(cause, _)
            | State::Lingering(cause, _)
            | State::Closed(cause) => Some(cause),
        }
    }

    /// The cause, to be reported.
    pub(crate) fn tell<E>(&mut self) -> CloseReason<E> {
        match self {
            // The state is still open, but the output has failed: the writer, a producer or a closure that pushes
            // has panicked.
            State::Open | State::Eof => CloseReason::Aborted,
            State::Over(cause)
            | State::Closing(cause, _)
            | State::Lingering(cause, _)
            | State::Closed(cause) => cause.tell(),
        }
    }

    /// The peer has closed its half.
    pub(crate) fn end_input(&mut self) {
        match self {
            State::Open => *self = State::Eof,
            State::Closing(_, rest) | State::Lingering(_, rest) => *rest = 0,
            State::Eof | State::Over(_) | State::Closed(_) => {}
        }
    }

    /// Nothing more is handed over.
    pub(crate) fn over(&mut self, cause: Cause) {
        if self.is_open() {
            *self = State::Over(cause);
        }
    }

    /// Nothing more is handed over, since the stream is to go to another protocol.
    pub(crate) fn upgrade(&mut self) {
        let is_orderly = |cause: &Cause| cause.is_orderly();
        if self.is_open() || matches!(self, State::Over(cause) if is_orderly(cause)) {
            *self = State::Over(CloseReason::Upgrade);
        }
    }

    /// An upgrade that was asked for is not carried out, and the connection goes on.
    pub(crate) fn forget_upgrade(&mut self) {
        if matches!(self, State::Over(CloseReason::Upgrade)) {
            *self = State::Open;
        }
    }

    /// This side closes. Only the state is changed: `Outbound::close` closes the output as well.
    pub(crate) fn close(&mut self) {
        self.leave(|cause| if cause.is_orderly() { CloseReason::Done } else { cause });
    }

    /// Closes, and keeps the cause of a connection that is over already, where [`close`](Self::close) puts
    /// [`CloseReason::Done`] in place of an orderly one.
    pub(crate) fn finish(&mut self) {
        self.leave(|cause| cause);
    }

    fn leave(&mut self, cause: impl FnOnce(Cause) -> Cause) {
        let before = mem::replace(self, State::Closed(CloseReason::Aborted));
        *self = match before {
            State::Open => State::Closing(CloseReason::Done, LINGER_BYTES),
            State::Eof => State::Closing(CloseReason::Done, 0),
            State::Over(before) => {
                let rest = match before {
                    CloseReason::PeerClosed | CloseReason::Truncated => 0,
                    _ => LINGER_BYTES,
                };
                State::Closing(cause(before), rest)
            }
            closing => closing,
        };
    }

    /// All is written and the stream shut down.
    pub(crate) fn written(&mut self, lingers: bool) {
        self.advance(
            |cause, rest| {
                if lingers { State::Lingering(cause, rest) } else { State::Closed(cause) }
            },
        );
    }

    /// Counts bytes of input that were read and dropped.
    pub(crate) fn dropped(&mut self, bytes: Rest) {
        if let State::Closing(_, rest) | State::Lingering(_, rest) = self {
            *rest = rest.saturating_sub(bytes);
        }
    }

    /// The peer is not waited for any longer.
    pub(crate) fn end(&mut self) {
        self.advance(|cause, _| State::Closed(cause));
    }

    fn advance(&mut self, next: impl FnOnce(Cause, Rest) -> State) {
        match mem::replace(self, State::Closed(CloseReason::Aborted)) {
            State::Closing(cause, rest) | State::Lingering(cause, rest) => {
                *self = next(cause, rest)
            }
            other => {
                debug_assert!(false, "{other:?} is not closing");
                *self = other;
            }
        }
    }

    /// Closes at once. The cause is this one, unless something went wrong before. Only the state is changed:
    /// `Conn::fail` drops the queue and the input as well.
    pub(crate) fn fail(&mut self, cause: Cause) {
        let before = mem::replace(self, State::Closed(CloseReason::Aborted));
        *self = State::Closed(match before {
            State::Closed(final_cause) => final_cause,
            State::Open | State::Eof => cause,
            // All was written and the stream shut down: as far as can be known, it has arrived.
            State::Lingering(before, _) => before,
            State::Over(before) | State::Closing(before, _) => {
                if before.is_orderly() {
                    cause
                } else {
                    before
                }
            }
        });
    }

    /// The deadline that has ended the connection, if it was one. Until the state is `Closed`, the peer can still
    /// be sent a last word.
    pub(crate) fn passed(&self) -> Option<Timeout> {
        match self.cause() {
            Some(CloseReason::Timeout(timeout)) => Some(*timeout),
            _ => None,
        }
    }
}
