//! The input that was read, and how it is cut into frames.
//!
//! Only this file drops input from the front. For the next piece of a frame, and for an end that is still to be
//! reported, `conn.rs`, `channel.rs` and `handler/dispatch.rs` ask the framer directly. The memory is managed by
//! [`Input`].

use std::io;
use std::num::NonZeroU64;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncRead;

use crate::framing::{Cut, FrameError, Framer, Limit, Terminator};
use crate::session::input::Input;
use crate::session::timer::AwaitedFrame;

/// The reading side of a channel.
#[derive(Debug)]
pub(crate) struct Inbound {
    /// What has been read. Its front, up to the framer's position, is consumed.
    pub(crate) input: Input,
    pub(crate) framing: Framing,
}

impl Inbound {
    /// `read` is input that was read before, and comes in front of what will be read.
    pub(crate) fn new(framer: Framer, read: BytesMut) -> Self {
        let framing = Framing {
            framer: Box::new(framer),
            message: None,
            own_end: OwnEnd::Off,
            asks: false,
            pulled_end: false,
            read: 0,
            buffered: read.len(),
        };
        Inbound { input: Input::new(read), framing }
    }

    /// The next piece of a frame, or `None` if more input is wanted.
    #[inline(always)]
    pub(crate) fn cut(&mut self, eof: bool) -> Result<Option<Cut>, FrameError> {
        self.framing.framer.cut(&self.input, eof)
    }

    /// The frame that will be cut next is handed over whole.
    #[inline]
    pub(crate) fn is_whole(&self) -> bool {
        self.framing.framer.is_whole()
    }

    /// Whether the last piece of a frame was handed over, and how the frame ended is still to be reported.
    #[inline]
    pub(crate) fn has_owed(&self) -> bool {
        self.framing.framer.has_owed()
    }

    /// Input that was read and not handed over.
    #[inline]
    pub(crate) fn pending(&self) -> usize {
        debug_assert_eq!(self.framing.buffered, self.input.len());
        self.framing.pending()
    }

    /// The frame of which the peer is to send the rest, or the message of several frames. `None` if none has
    /// begun.
    pub(crate) fn unfinished(&self) -> Option<AwaitedFrame> {
        let Framing { framer, message, own_end, read, .. } = &self.framing;
        let in_message = message.is_some();
        let received = match message {
            Some(begun) => read + 1 - begun.get(),
            None => framer.length() + self.pending() as u64,
        };
        if received == 0 && !in_message && !framer.has_ended_early() {
            // A frame begins with its first byte, which has not come.
            return None;
        }
        if framer.is_skipping() {
            return Some(AwaitedFrame::Skipped);
        }
        let has_begun =
            matches!(own_end, OwnEnd::Looked(1..)) || framer.is_mid_frame() || in_message;
        has_begun.then_some(AwaitedFrame::Received(received))
    }

    /// No message has begun.
    pub(crate) fn is_between_messages(&self) -> bool {
        !self.has_owed() && self.unfinished().is_none()
    }

    /// Drops what was read and not handed over.
    pub(crate) fn discard(&mut self) {
        self.framing.framer.discard();
        self.framing.look_anew();
        self.framing.buffered = 0;
        self.input.release();
    }

    /// What was read and not handed over.
    pub(crate) fn into_bytes(mut self) -> Bytes {
        self.trim();
        self.input.into_bytes()
    }

    /// Drops the input that is consumed.
    #[inline]
    pub(crate) fn trim(&mut self) {
        let consumed = self.framing.framer.take_consumed();
        if consumed > 0 {
            self.input.drop_front(consumed);
            self.framing.buffered = self.input.len();
        }
    }

    /// Called when nothing is read for a while: drops what is consumed, and holds no more memory than the rest
    /// needs.
    pub(crate) fn rest(&mut self) {
        self.trim();
        self.input.shrink();
        if !self.input.is_empty() {
            self.framing.framer.moved_to(&self.input);
        }
    }

    /// Reads once, at most `most` bytes, and appends them.
    pub(crate) fn poll_read<R: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut R,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        self.trim();
        let left = !self.input.is_empty();
        let read = self.input.poll_read(cx, io, most);
        if left {
            // The input that was there may have moved in memory, but it is the same, and need not be searched
            // again.
            self.framing.framer.moved_to(&self.input);
        }
        if let Poll::Ready(Ok(read)) = read {
            self.framing.read += read as u64;
            self.framing.buffered += read;
        }
        read
    }
}

/// How the input is cut: the framer, and what the application has set.
#[derive(Debug)]
pub(crate) struct Framing {
    /// It is boxed because two smaller allocations cost an idle connection less memory than one large one.
    pub(crate) framer: Box<Framer>,
    /// Set while a message of several frames goes on: how many bytes had been read when it was marked, and one
    /// more, so that it is never 0.
    message: Option<NonZeroU64>,
    /// How many bytes have been read.
    pub(crate) read: u64,
    /// The length of [`Inbound::input`], kept here too for [`Control`](crate::Control), which borrows only this.
    /// [`Inbound::trim`], [`Inbound::discard`] and [`Inbound::poll_read`] keep the two alike.
    buffered: usize,
    own_end: OwnEnd,
    /// Whether a handler is asked where its messages end.
    asks: bool,
    /// A frame that was pulled has ended, or the application has ended a message. With the next pull the frame
    /// deadline starts anew, unless a message goes on: see `Conn::go_on`.
    pub(crate) pulled_end: bool,
}

/// Whether the application finds the end of the next message itself. A handler has that set for all its messages;
/// whoever pulls decides it with each call of `Channel::message`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnEnd {
    /// It does not: the terminator is looked for.
    Off,
    /// The application was shown this many bytes of the next message, and is asked again when there are more.
    /// Beyond `u32::MAX` bytes it is asked before each cut.
    Looked(u32),
    /// The application has found the end of the message, and the rest of its bytes are waited for. It is handed
    /// over whole; `whole` is what the application has set for other frames, and is restored after it.
    Found { whole: bool },
}

/// The result of a look for the end of a message.
pub(crate) enum Answer {
    /// The application is not to be asked: the framer can cut.
    Known,
    /// The whole message has come, and this is its length.
    Message(usize),
    /// More input is wanted.
    Nothing,
    /// The message is longer than this limit.
    Overlong(u64),
}

impl Framing {
    #[inline(always)]
    pub(crate) fn set_terminator(&mut self, terminator: Terminator) {
        if let OwnEnd::Found { whole } = self.own_end {
            // The end that was found is forgotten.
            self.leave_message(whole);
        }
        self.framer.set_terminator(terminator);
    }

    /// Input that was read and not handed over.
    #[inline]
    pub(crate) fn pending(&self) -> usize {
        self.buffered.saturating_sub(self.framer.consumed())
    }

    pub(crate) fn set_limit(&mut self, limit: Limit) {
        self.framer.set_limit(limit);
    }

    pub(crate) fn resume(&mut self) {
        self.framer.resume();
    }

    pub(crate) fn begin_message(&mut self) {
        self.message.get_or_insert(NonZeroU64::MIN.saturating_add(self.read));
    }

    /// Ends a marked message, and says whether there was one.
    pub(crate) fn end_message(&mut self) -> bool {
        let was_marked = self.message.take().is_some();
        self.pulled_end |= was_marked;
        was_marked
    }

    #[inline]
    pub(crate) fn in_message(&self) -> bool {
        self.message.is_some()
    }

    pub(crate) fn set_whole_frames(&mut self, new: bool) {
        match &mut self.own_end {
            OwnEnd::Found { whole } => *whole = new,
            OwnEnd::Off | OwnEnd::Looked(_) => self.framer.set_whole_frames(new),
        }
    }

    /// Whether a handler is asked where its messages end.
    pub(crate) fn set_own_end(&mut self, asks: bool) {
        self.asks = asks;
        self.find_ends(asks);
    }

    /// A run begins with a handler that has not been shown any input yet.
    pub(crate) fn begin_asking(&mut self) {
        self.find_ends(self.asks);
        self.look_anew();
    }

    /// Forgets the end of the next message, if it was known, and how much of it was shown: the bytes are gone, or
    /// somebody else is to be asked about them.
    pub(crate) fn look_anew(&mut self) {
        match self.own_end {
            OwnEnd::Off => {}
            OwnEnd::Looked(_) => self.own_end = OwnEnd::Looked(0),
            OwnEnd::Found { whole } => {
                self.leave_message(whole);
                // The count that waited for the end is no longer in force.
                self.framer.set_terminator(Terminator::None);
            }
        }
    }

    /// The message whose end was found is over, or is not waited for any more.
    #[cold]
    fn leave_message(&mut self, whole: bool) {
        self.framer.begin_anew(whole);
        self.own_end = OwnEnd::Looked(0);
    }

    pub(crate) fn finds_ends(&self) -> bool {
        self.own_end != OwnEnd::Off
    }

    /// The application is to find the end of the next message.
    #[inline]
    pub(crate) fn is_looking(&self) -> bool {
        matches!(self.own_end, OwnEnd::Looked(_))
    }

    /// What to ask the application before a cut: the bytes that have come from the beginning of the next message
    /// on, and whether there are more than it was shown before, without which it need not be asked. `None` if it
    /// is not to be asked, because the framer is in the middle of a frame or looks for the end itself, or because
    /// there are no bytes and the input has ended.
    #[inline]
    pub(crate) fn question<'i>(&mut self, input: &'i [u8], eof: bool) -> Option<(&'i [u8], bool)> {
        let OwnEnd::Looked(looked) = self.own_end else {
            return None;
        };
        let framer = &mut self.framer;
        framer.end_newline(input);
        framer.skip_rest(input);
        let begun = input.get(framer.consumed()..).unwrap_or_default();
        if framer.is_mid_frame() || (eof && begun.is_empty()) {
            return None;
        }
        Some((begun, begun.len() > looked as usize))
    }

    /// Takes the application's answer about the first `begun` bytes of a message: its length is `end`, or more
    /// bytes are wanted to tell. If the whole message is there, and may be handed over `now`, it is to be cut at
    /// once.
    #[inline(always)]
    pub(crate) fn answer(
        &mut self,
        begun: usize,
        eof: bool,
        end: Option<usize>,
        now: bool,
    ) -> Answer {
        let Framing { framer, own_end, .. } = self;
        if !matches!(own_end, OwnEnd::Looked(_)) {
            // While it was asked, the application has switched to a terminator: that governs these bytes.
            return Answer::Known;
        }
        let end = end.filter(|end| *end > 0);
        let max = framer.max();
        let length = end.unwrap_or(begun) as u64;
        if length > max {
            return Answer::Overlong(max);
        }
        if let Some(end) = end.filter(|end| now && *end <= begun) {
            *own_end = OwnEnd::Looked(0);
            return Answer::Message(end);
        }
        match end {
            Some(_) => self.wait_for(length),
            // The input has ended. A count that cannot be reached makes the framer hand over what is left as a
            // truncated frame.
            None if eof => self.wait_for(u64::MAX),
            None => {
                *own_end = OwnEnd::Looked(u32::try_from(begun).unwrap_or(u32::MAX));
                return Answer::Nothing;
            }
        }
        Answer::Known
    }

    /// Waits for a message of `length` bytes, to be handed over when all of them are there.
    #[inline(never)]
    fn wait_for(&mut self, length: u64) {
        self.framer.set_terminator(length);
        self.own_end = OwnEnd::Found { whole: self.framer.whole_frames() };
        self.framer.set_whole_frames(true);
    }

    /// Sets whether the application finds the ends of its messages, from the next on.
    pub(crate) fn find_ends(&mut self, own: bool) {
        match self.own_end {
            OwnEnd::Found { .. } if own => {}
            OwnEnd::Found { whole } => {
                self.leave_message(whole);
                self.own_end = OwnEnd::Off;
            }
            OwnEnd::Off | OwnEnd::Looked(_) if own => self.own_end = OwnEnd::Looked(0),
            OwnEnd::Off | OwnEnd::Looked(_) => self.own_end = OwnEnd::Off,
        }
    }

    /// A frame has ended: where the application finds the ends, it is asked about the next message. To call this
    /// twice for one frame does no harm.
    #[inline]
    pub(crate) fn frame_ended(&mut self) {
        if let OwnEnd::Found { whole } = self.own_end {
            self.leave_message(whole);
        }
    }
}
