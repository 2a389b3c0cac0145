//! What has been read, and how it is cut into frames.
//!
//! Input is dropped from the front here and nowhere else. What is cut next, and which end is still to be told,
//! `conn.rs`, `channel.rs` and `handler/dispatch.rs` settle with the framer itself. [`Input`] has the memory.

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
    /// What has been read. Its front up to the framer's position is done with.
    pub(crate) input: Input,
    pub(crate) framing: Framing,
}

impl Inbound {
    /// `read` is input that comes before what will be read.
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

    /// How the frame ended whose last piece was handed over: to be told next.
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

    /// The frame that the peer is to send the rest of.
    pub(crate) fn unfinished(&self) -> Option<AwaitedFrame> {
        let Framing { framer, message, own_end, read, .. } = &self.framing;
        let in_message = message.is_some();
        let received = match message {
            Some(begun) => read + 1 - begun.get(),
            None => framer.length() + self.pending() as u64,
        };
        if received == 0 && !in_message && !framer.has_ended_early() {
            // It begins with its first byte.
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

    /// Drops what is done with.
    #[inline]
    pub(crate) fn trim(&mut self) {
        let consumed = self.framing.framer.take_consumed();
        if consumed > 0 {
            self.input.drop_front(consumed);
            self.framing.buffered = self.input.len();
        }
    }

    /// While nothing is read, no memory is held for what is not there.
    pub(crate) fn rest(&mut self) {
        self.trim();
        self.input.shrink();
        if !self.input.is_empty() {
            self.framing.framer.moved_to(&self.input);
        }
    }

    /// Reads once, at most `most` bytes, behind what is there.
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
            // It may be somewhere else than it was, but it is the same, and need not be searched again.
            self.framing.framer.moved_to(&self.input);
        }
        if let Poll::Ready(Ok(read)) = read {
            self.framing.read += read as u64;
            self.framing.buffered += read;
        }
        read
    }
}

/// What the application sets about its frames.
#[derive(Debug)]
pub(crate) struct Framing {
    /// Boxed: two smaller pieces of memory cost an idle connection less than a large one.
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
    /// A handler is asked where its messages end.
    asks: bool,
    /// A pulled frame has ended, and its message with it unless it is said that it goes on; or a message was ended.
    /// Whoever pulls next heeds it.
    pub(crate) pulled_end: bool,
}

/// Whether the application finds the ends of its messages now: whoever pulls does so message by message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnEnd {
    /// The terminator does.
    Off,
    /// It has been asked about so many bytes of the next message, and wants more. At `u32::MAX` it is
    /// asked about each byte beyond.
    Looked(u32),
    /// It is known where the message ends, which is being waited for. It is handed over whole, whatever
    /// the application has set for others.
    Found { whole: bool },
}

/// What has come of a look for the end of a message.
pub(crate) enum Answer {
    /// The framer knows what is to be waited for.
    Known,
    /// The message is there, and has so many bytes.
    Message(usize),
    /// More input is wanted.
    Nothing,
    /// It would be longer than this limit.
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

    /// Whether there was one.
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

    /// A handler begins, which has not been asked yet.
    pub(crate) fn begin_asking(&mut self) {
        self.find_ends(self.asks);
        self.look_anew();
    }

    /// The end of the next message is not known, if it was: the bytes that it was found in are gone, or somebody
    /// else is to be asked about them.
    pub(crate) fn look_anew(&mut self) {
        match self.own_end {
            OwnEnd::Off => {}
            OwnEnd::Looked(_) => self.own_end = OwnEnd::Looked(0),
            OwnEnd::Found { whole } => {
                self.leave_message(whole);
                // In place of the count.
                self.framer.set_terminator(Terminator::None);
            }
        }
    }

    /// The message whose end was found is over, or is not waited for any more.
    #[inline(never)]
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

    /// What the application is to be asked about before a cut: where does the message end that begins
    /// with these bytes? And whether there is something new in them, else it is not asked. `None` if the terminator
    /// says where it ends.
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

    /// The answer about so many bytes: the message has this length, or more are wanted to find out. If all of it is
    /// there, and may be handed over now, it is to be cut at once.
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
            // It wants to be asked no more.
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
            // What there is of it is handed over as what it is, the beginning of a message.
            None if eof => self.wait_for(u64::MAX),
            None => {
                *own_end = OwnEnd::Looked(u32::try_from(begun).unwrap_or(u32::MAX));
                return Answer::Nothing;
            }
        }
        Answer::Known
    }

    /// The message has so many bytes, and is handed over when they are there.
    #[inline(never)]
    fn wait_for(&mut self, length: u64) {
        self.framer.set_terminator(length);
        self.own_end = OwnEnd::Found { whole: self.framer.whole_frames() };
        self.framer.set_whole_frames(true);
    }

    /// Whether the application finds the ends of its messages, from the next on.
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

    /// A frame has ended: where the application finds ends, the next is looked for. It may be called twice for one
    /// frame.
    #[inline]
    pub(crate) fn frame_ended(&mut self) {
        if let OwnEnd::Found { whole } = self.own_end {
            self.leave_message(whole);
        }
    }
}
