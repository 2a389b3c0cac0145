//! How far the current frame has come, and where it ends: by its terminator, its count, its limit, or the
//! end of the input.
//!
//! [`Framer::cut`] looks at the input and returns the next piece of a frame as positions. Its callers make events,
//! steps, owned bytes and callbacks of them. How a delimiter is found is the business of `search.rs`; nothing here
//! depends on it.

use std::mem;
use std::num::NonZeroUsize;

use super::event::Event;
use super::limit::{FrameError, Limit};
use super::search::{Next, Search};
use super::step::{End, Step};
use super::terminator::{CountThen, Terminator};
use super::word::Word;

/// The framing itself, without any I/O: bytes in, lent events out.
///
/// A `Framer` owns no buffer. It is given the input that has come so far, returns events that borrow
/// from it, and says once per read how much of it is done with:
///
/// ```
/// use asynchat::{Event, Framer};
///
/// # fn main() -> Result<(), asynchat::FrameError> {
/// let mut framer = Framer::new(b"\r\n");
/// let mut buffer = Vec::new();
/// let mut frame = Vec::new();
/// let mut frames = Vec::new();
///
/// // A client says: how long, then that many bytes. TCP cuts it as it likes.
/// for read in [&b"LEN 5\r"[..], b"\nhel", b"lo", b"LEN 2\r\nhi"] {
///     buffer.extend_from_slice(read);
///     while let Some(event) = framer.next(&buffer)? {
///         match event {
///             Event::Chunk(bytes) => frame.extend_from_slice(bytes),
///             Event::Terminator => {
///                 // The switch governs the very next byte, though it may be in the buffer.
///                 match frame.strip_prefix(b"LEN ") {
///                     Some(len) => framer.set_terminator(u64::from(len[0] - b'0')),
///                     None => framer.set_terminator(b"\r\n"),
///                 }
///                 frames.push(std::mem::take(&mut frame));
///             }
///             _ => unreachable!("no limit, and more to come"),
///         }
///     }
///     buffer.drain(..framer.take_consumed());
/// }
/// assert_eq!(frames, [&b"LEN 5"[..], b"hello", b"LEN 2", b"hi"]);
/// # Ok(())
/// # }
/// ```
///
/// # Three ways to look
///
/// - [`next`](Self::next) yields events: chunks as they come, and how each frame ended.
/// - [`step`](Self::step) yields the same with a chunk and the end behind it in one, which is cheaper.
/// - With [`set_whole_frames`](Self::set_whole_frames) a chunk is a whole frame, in either way: it is
///   handed over once, complete, and stays in the caller's buffer until then.
///
/// # The input
///
/// Each call is given the input from the byte after the last one consumed: what an earlier call saw, then whatever has
/// come since. After each call of [`take_consumed`](Self::take_consumed), and only then, the caller removes from the
/// front just as many bytes as that has returned. It may be called as often as one likes. If the caller drops buffered
/// input for another reason, or goes on with another buffer, it calls [`discard`](Self::discard). An input that is
/// shorter than what was seen never panics, and what was known of it is forgotten.
///
/// # What is withheld
///
/// When a call returns `Ok(None)`, which asks for more input, all of the input has been delivered except the longest
/// suffix that may be the beginning of the terminator. That suffix stays in the caller's buffer, and is at least one
/// byte shorter than the terminator. Where frames are handed over whole, all that has come of an unfinished one stays
/// there. Incomplete input is not an error.
///
/// # Looking ahead
///
/// A limit of 0 makes a delimiter a question: is it the very next thing in the input? Yes is
/// [`End::Terminator`] with no payload, no is [`End::Overlong`], which consumes nothing. At that event
/// another terminator may be set, and governs the first byte that was looked at:
///
/// ```
/// use asynchat::{End, Framer, Limit, Step};
///
/// # fn main() -> Result<(), asynchat::FrameError> {
/// // Is it TLS, or a line of text?
/// let mut framer = Framer::new(b"\x16\x03").with_limit(Limit::Fail(0));
/// let input = b"hello\n";
/// assert_eq!(framer.step(input)?, Some(Step { payload: &b""[..], end: Some(End::Overlong) }));
/// framer.set_limit(Limit::Fail(512));
/// framer.set_terminator(b"\n");
/// assert_eq!(framer.step(input)?, Some(Step { payload: &b"hello"[..], end: Some(End::Terminator) }));
/// # Ok(())
/// # }
/// ```
///
/// So under a limit of 0 a loop that sets one delimiter after the other may never consume a byte: the caller has to see
/// to it that it ends.
#[derive(Clone, Debug)]
pub struct Framer {
    search: Search,
    progress: Progress,
    /// The position of the first byte of the input that is neither handed over nor dropped.
    start: usize,
    /// If this is behind `start`, the bytes of the input between the two have been seen and are kept for later.
    seen: usize,
    /// Bytes of the current frame that have been handed over.
    length: u64,
    /// The limit in bytes, or `u64::MAX` if there is none.
    max: u64,
    /// What happens beyond `max`.
    beyond: Beyond,
    /// Which member of a set ended the last frame.
    matched: u32,
    /// How the frame ended whose last chunk has been returned: this is still to be returned, as an event of its own.
    owed: Option<End>,
    /// Whether the current frame is handed over whole.
    whole: bool,
    /// Whether the next frame will be handed over whole.
    whole_next: bool,
    /// The last byte consumed was a CR that ended a line. An LF directly behind it belongs to the same line end.
    after_cr: bool,
}

/// What the next byte belongs to.
///
/// ```text
///             set: a count            spent, and no end to come
///  Delimited -------------> Counted -----------------------------> Unframed
///   ^  |  ^                  |  |                                     |
///   |  |  `-- end is right --'  `-- end is wrong --.                  |
///   |  |                                           v                  |
///   |  `-- overlong -----------------> Skipping, or Failed            |
///   |                                   |                             |
///   `--- delimiter found, or resume ----'<--- set: a delimiter -------'
/// ```
///
/// Besides, [`Framer::set_terminator`] leads from each of them to `Delimited`, `Counted` or `Unframed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// A frame that ends at the delimiter.
    Delimited,
    /// A frame that ends after a count of bytes.
    Counted(Counted),
    /// No frame: the terminator is `None`.
    Unframed,
    /// The rest of a frame that has ended early, up to and including the delimiter.
    Skipping,
    /// To no frame: one has ended early, and every call fails with this error.
    Failed(FrameError),
}

/// How far a counted frame has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counted {
    /// How many bytes are still to come.
    left: u64,
    /// What must be behind them.
    then: Option<Word>,
    /// The input has ended at this point of the frame, and `Truncated` has been returned.
    truncated: bool,
}

/// The kind of a [`Limit`]. Its number of bytes is `Framer::max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beyond {
    Unlimited,
    Fail,
    Skip,
}

/// A step as positions, so that it does not borrow the input: `input[start..end]` is a piece of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) outcome: Option<End>,
}

impl Framer {
    /// Makes a framer. It has no limit, because it does not store what it is given.
    pub fn new(terminator: impl Into<Terminator>) -> Self {
        let mut framer = Framer {
            search: Search::new(),
            progress: Progress::Unframed,
            start: 0,
            seen: 0,
            length: 0,
            max: u64::MAX,
            beyond: Beyond::Unlimited,
            matched: 0,
            owed: None,
            whole: false,
            whole_next: false,
            after_cr: false,
        };
        framer.set_terminator(terminator);
        framer
    }

    /// Sets the limit, as [`set_limit`](Self::set_limit) does, and returns the framer.
    #[must_use]
    pub fn with_limit(mut self, limit: Limit) -> Self {
        self.set_limit(limit);
        self
    }

    /// The next event, or `None` when more input is wanted.
    ///
    /// # Errors
    ///
    /// [`FrameError`] after `Event::Overlong` or `Event::WrongEnd`, unless the limit is
    /// [`Limit::Skip`], until another terminator is set or [`resume`](Self::resume) is called.
    #[inline(always)]
    pub fn next<'b>(&mut self, input: &'b [u8]) -> Result<Option<Event<&'b [u8]>>, FrameError> {
        self.event(input, false)
    }

    /// As [`next`](Self::next), when no more input will come: call it until it returns `None`.
    ///
    /// What was withheld is delivered. If the input ends in mid-frame, [`Event::Truncated`] follows: that is when bytes
    /// of a frame that ends at a delimiter have been seen, when a count is not spent, or while the rest of a frame that
    /// has ended early is skipped. If more input comes after all (the next datagram, a file that has grown), a new
    /// frame begins with it; what remained of a count is still to come.
    ///
    /// ```
    /// use asynchat::{Event, Framer};
    ///
    /// let mut framer = Framer::new(b"\r\n");
    /// assert_eq!(framer.next_eof(b"cut\r"), Ok(Some(Event::Chunk(&b"cut\r"[..]))));
    /// assert_eq!(framer.next_eof(b"cut\r"), Ok(Some(Event::Truncated)));
    /// assert_eq!(framer.next_eof(b"cut\r"), Ok(None));
    /// ```
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next).
    pub fn next_eof<'b>(&mut self, input: &'b [u8]) -> Result<Option<Event<&'b [u8]>>, FrameError> {
        self.event(input, true)
    }

    /// The next piece of a frame with how the frame ended, or `None` when more input is wanted.
    ///
    /// It is [`next`](Self::next) with a chunk and the event behind it in one. The two may be mixed.
    ///
    /// ```
    /// use asynchat::{End, Framer, Step};
    ///
    /// let mut framer = Framer::new(b"\n");
    /// let mut lines = Vec::new();
    /// while let Some(Step { payload, end: Some(End::Terminator) }) = framer.step(b"a\n\nbc\n")? {
    ///     lines.push(payload);
    /// }
    /// assert_eq!(lines, [&b"a"[..], b"", b"bc"]);
    /// # Ok::<(), asynchat::FrameError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next).
    #[inline(always)]
    pub fn step<'b>(&mut self, input: &'b [u8]) -> Result<Option<Step<&'b [u8]>>, FrameError> {
        self.piece(input, false)
    }

    /// As [`step`](Self::step), when no more input will come: see [`next_eof`](Self::next_eof).
    ///
    /// ```
    /// use asynchat::{End, Framer, Step};
    ///
    /// let mut framer = Framer::new(b"\r\n");
    /// let cut = Step { payload: &b"cut\r"[..], end: Some(End::Truncated) };
    /// assert_eq!(framer.step_eof(b"cut\r"), Ok(Some(cut)));
    /// assert_eq!(framer.step_eof(b"cut\r"), Ok(None));
    /// ```
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next).
    pub fn step_eof<'b>(&mut self, input: &'b [u8]) -> Result<Option<Step<&'b [u8]>>, FrameError> {
        self.piece(input, true)
    }

    /// How many bytes at the front of the input are done with, to be removed before the next call with
    /// more input. It may be called as often as one likes: after each event, or once per read.
    #[must_use = "these bytes must be removed from the front of the input"]
    #[inline]
    pub fn take_consumed(&mut self) -> usize {
        let consumed = self.start;
        self.consume(consumed);
        consumed
    }

    /// Switches the terminator, at any moment. It governs the very next byte after the events already
    /// returned, whether that byte is to come, buffered or withheld.
    ///
    /// Setting the terminator that is in force changes nothing. In particular it does not end the skip of an overlong
    /// frame, so that a handler that sets its terminator at every event does not take the rest of an overlong line for
    /// a new one. Any other terminator ends a skip, and a failure. After a counted frame with a wrong end the delimiter
    /// that was set last is in force again; [`resume`](Self::resume) ends the skip or the failure and keeps that
    /// delimiter.
    ///
    /// If the chunk just returned was the last of its frame, the event that says so still comes. A switch in
    /// the middle of a frame begins no new one: what was delivered of it still counts for its length and
    /// so for the limit, bytes of an unfinished count included, unless the old or new terminator is `None`,
    /// which has no frames.
    ///
    /// ```
    /// use asynchat::{Event, Framer, Limit};
    ///
    /// let mut framer = Framer::new(b"\n").with_limit(Limit::Skip(2));
    /// let input = b"abcdQUIT\n";
    /// assert_eq!(framer.next(input)?, Some(Event::Chunk(&b"ab"[..])));
    /// assert_eq!(framer.next(input)?, Some(Event::Overlong));
    /// framer.set_terminator(b"\n"); // as it was: the rest is still dropped
    /// assert_eq!(framer.next(input)?, None);
    /// # Ok::<(), asynchat::FrameError>(())
    /// ```
    #[inline(always)]
    pub fn set_terminator(&mut self, terminator: impl Into<Terminator>) {
        self.switch(terminator.into());
    }

    /// The terminator in force. Of a count, what remains.
    pub fn terminator(&self) -> Terminator {
        match self.progress {
            Progress::Counted(Counted { left, then: None, .. }) => Terminator::Count(left),
            Progress::Counted(Counted { left, then: Some(then), .. }) => {
                CountThen::new(left, then.into()).into()
            }
            Progress::Unframed => Terminator::None,
            Progress::Delimited | Progress::Skipping | Progress::Failed(_) => {
                self.search.target().clone()
            }
        }
    }

    /// Gives up a skip or a failure: what is left of the frame that ended early begins a new one, under
    /// the same terminator.
    ///
    /// ```
    /// use asynchat::{Event, Framer, Limit};
    ///
    /// let mut framer = Framer::new(b"\n").with_limit(Limit::Skip(3));
    /// assert_eq!(framer.next(b"abcde\n"), Ok(Some(Event::Chunk(&b"abc"[..]))));
    /// assert_eq!(framer.next(b"abcde\n"), Ok(Some(Event::Overlong)));
    /// framer.resume();
    /// assert_eq!(framer.next(b"abcde\n"), Ok(Some(Event::Chunk(&b"de"[..]))));
    /// assert_eq!(framer.next(b"abcde\n"), Ok(Some(Event::Terminator)));
    /// ```
    pub fn resume(&mut self) {
        if matches!(self.progress, Progress::Skipping | Progress::Failed(_)) {
            self.leave_frame();
            self.progress = self.delimited();
        }
    }

    /// Sets the limit, for the current frame too: if that is longer already, it is overlong.
    ///
    /// ```
    /// use asynchat::{Event, Framer, Limit};
    ///
    /// let mut framer = Framer::new(b"\n");
    /// assert_eq!(framer.next(b"abc"), Ok(Some(Event::Chunk(&b"abc"[..]))));
    /// framer.set_limit(Limit::Skip(2));
    /// assert_eq!(framer.next(b"abcd\n"), Ok(Some(Event::Overlong)));
    /// ```
    pub fn set_limit(&mut self, limit: Limit) {
        self.unsay_overlong();
        let (beyond, max) = match limit {
            Limit::Unlimited => (Beyond::Unlimited, u64::MAX),
            Limit::Fail(max) => (Beyond::Fail, max),
            Limit::Skip(max) => (Beyond::Skip, max),
        };
        (self.beyond, self.max) = (beyond, max);
    }

    /// The limit in force.
    pub fn limit(&self) -> Limit {
        match self.beyond {
            Beyond::Unlimited => Limit::Unlimited,
            Beyond::Fail => Limit::Fail(self.max),
            Beyond::Skip => Limit::Skip(self.max),
        }
    }

    /// Whether frames are handed over whole, from the next frame on.
    ///
    /// A whole frame is one chunk, or one step: complete, or as much as its limit allows ([`End::Overlong`]), or what
    /// there was when the input ended. Until then its bytes are not consumed and stay in the caller's buffer, which the
    /// limit bounds. A count has no limit: compare it with what you will keep before you set it. `None` has no frames,
    /// and its bytes are handed over as they come.
    ///
    /// A frame that is not complete yet is not seen. An example is a prompt without a line end, after which the peer
    /// waits for the answer.
    ///
    /// ```
    /// use asynchat::{End, Framer, Step};
    ///
    /// let mut framer = Framer::new(b"\n");
    /// framer.set_whole_frames(true);
    /// assert_eq!(framer.step(b"hel")?, None);
    /// let hello = Step { payload: &b"hello"[..], end: Some(End::Terminator) };
    /// assert_eq!(framer.step(b"hello\n")?, Some(hello));
    /// # Ok::<(), asynchat::FrameError>(())
    /// ```
    pub fn set_whole_frames(&mut self, whole: bool) {
        self.whole_next = whole;
        if self.length == 0 && self.seen <= self.start {
            // Nothing of the current frame has been seen.
            self.whole = whole;
        }
    }

    /// Whether frames are handed over whole, from the next frame on.
    pub fn whole_frames(&self) -> bool {
        self.whole_next
    }

    /// Says that the caller has dropped the input it had buffered, what was withheld included, or has
    /// another buffer now. The next input begins with the next read.
    ///
    /// The terminator, what remains of a count and the length of the current frame stay.
    ///
    /// ```
    /// use asynchat::{Event, Framer};
    ///
    /// let mut framer = Framer::new(b"\r\n");
    /// let mut buffer = b"abc\r".to_vec();
    /// assert_eq!(framer.next(&buffer), Ok(Some(Event::Chunk(&b"abc"[..]))));
    /// buffer.clear();
    /// framer.discard();
    /// buffer.extend_from_slice(b"\nd");
    /// // The CR is gone: this is no terminator.
    /// assert_eq!(framer.next(&buffer), Ok(Some(Event::Chunk(&b"\nd"[..]))));
    /// ```
    pub fn discard(&mut self) {
        self.unsay_overlong();
        self.start = 0;
        self.seen = 0;
        self.after_cr = false;
        self.search.forget();
    }

    /// Whether the end of the input here would cut a frame: bytes of a frame that ends at a delimiter
    /// have been seen (withheld or delivered), a count is not spent, or a frame has ended early (it was
    /// overlong or had a wrong end) and its rest is skipped or is an error.
    ///
    /// ```
    /// use asynchat::Framer;
    ///
    /// let mut framer = Framer::new(b"\r\n");
    /// assert!(!framer.is_mid_frame());
    /// assert_eq!(framer.next(b"\r"), Ok(None));
    /// assert!(framer.is_mid_frame());
    /// ```
    #[inline]
    pub fn is_mid_frame(&self) -> bool {
        match self.progress {
            // This case comes first because it is the usual one where the application finds the ends of messages, and
            // is asked for before each of them.
            Progress::Unframed => self.owed == Some(End::Truncated),
            _ if self.owed == Some(End::Truncated) => true,
            Progress::Delimited => self.length > 0 || self.seen > self.start,
            Progress::Counted(counted) => {
                !counted.truncated && (counted.left > 0 || counted.then.is_some())
            }
            Progress::Skipping | Progress::Failed(_) => true,
        }
    }

    /// Which member of a set ([`Terminator::AnyOf`]) ended the last frame, counted from 0 in the order
    /// given; 0 for other terminators.
    ///
    /// ```
    /// use asynchat::{Event, Framer, Terminator};
    ///
    /// let mut framer = Framer::new(Terminator::any_of(["\r\n", "\n"])?);
    /// assert_eq!(framer.next(b"\n"), Ok(Some(Event::Terminator)));
    /// assert_eq!(framer.matched(), 1);
    /// # Ok::<(), asynchat::DelimiterSetError>(())
    /// ```
    pub fn matched(&self) -> usize {
        self.matched as usize
    }

    #[inline(always)]
    fn event<'b>(
        &mut self,
        input: &'b [u8],
        eof: bool,
    ) -> Result<Option<Event<&'b [u8]>>, FrameError> {
        if let Some(end) = self.take_owed() {
            return Ok(Some(end.into()));
        }
        let Some(Cut { start, end, outcome }) = self.cut(input, eof)? else {
            return Ok(None);
        };
        Ok(match (input.get(start..end).unwrap_or_default(), outcome) {
            ([], Some(end)) => Some(end.into()),
            ([], None) => None,
            (chunk, end) => {
                self.owed = end;
                Some(Event::Chunk(chunk))
            }
        })
    }

    #[inline(always)]
    fn piece<'b>(
        &mut self,
        input: &'b [u8],
        eof: bool,
    ) -> Result<Option<Step<&'b [u8]>>, FrameError> {
        if let Some(end) = self.take_owed() {
            return Ok(Some(Step { payload: &[], end: Some(end) }));
        }
        let cut = self.cut(input, eof)?;
        Ok(cut.map(|Cut { start, end, outcome }| Step {
            payload: input.get(start..end).unwrap_or_default(),
            end: outcome,
        }))
    }

    /// Takes the end that is still to be returned behind a chunk, if there is one. Callers that make events of cuts ask
    /// for it before each cut.
    #[inline(always)]
    pub(crate) fn take_owed(&mut self) -> Option<End> {
        // This is called at each step, and mostly there is none. Nothing is written to memory then.
        if self.owed.is_some() { self.owed.take() } else { None }
    }

    /// Keeps an end that is to be returned behind the chunk.
    #[cfg(feature = "tokio")]
    #[inline(always)]
    pub(crate) fn owe(&mut self, end: Option<End>) {
        self.owed = end;
    }

    /// The next step, or `None` when more input is wanted. At the end of the input, `None` is the end.
    #[inline(always)]
    pub(crate) fn cut(&mut self, input: &[u8], eof: bool) -> Result<Option<Cut>, FrameError> {
        // At most steps of most streams the whole frame is in the input, and its end is known. That case is handled
        // here, inlined, because a call and the checks that other steps need would take longer than all of it.
        if self.progress == Progress::Delimited {
            if let Some(next) = self.search.find_near(input, self.start) {
                match next.end {
                    Some(end) if self.has_room_to(next.before) => {
                        return Ok(Some(self.end_frame(next.before, end.get(), End::Terminator)));
                    }
                    // The frame goes on. What has come of it is handed over, but for what may begin a delimiter.
                    None if self.has_room_to(next.before) && !self.after_cr && !eof => {
                        return Ok(self.go_on(input, next.before));
                    }
                    _ => {}
                }
            }
        } else if let Progress::Counted(counted) = self.progress {
            if !self.after_cr {
                if let Some(cut) = self.cut_whole_count(counted, input) {
                    return Ok(Some(cut));
                }
            }
        }
        // The struct is taken apart and put together again, so that the results above can stay in registers.
        match self.cut_any(input, eof)? {
            Some(Cut { start, end, outcome }) => Ok(Some(Cut { start, end, outcome })),
            None => Ok(None),
        }
    }

    #[inline(never)]
    fn cut_any(&mut self, input: &[u8], eof: bool) -> Result<Option<Cut>, FrameError> {
        if self.start.max(self.seen) > input.len() {
            // The caller has removed more of the input than it was told to.
            self.seen = input.len();
            if self.start > input.len() {
                self.discard();
            }
        }
        self.end_newline(input);
        match self.progress {
            Progress::Delimited => Ok(self.cut_delimited(input, eof)),
            Progress::Counted(counted) => Ok(self.cut_counted(counted, input, eof)),
            Progress::Skipping => Ok(self.cut_skipping(input, eof)),
            Progress::Unframed => {
                self.search.see(input);
                Ok(self.hand_over(input.len(), None))
            }
            Progress::Failed(error) => Err(error),
        }
    }

    /// The step that ends a counted frame, if all that was missing of it is in the input. Otherwise the frame is left
    /// as it is.
    #[inline(always)]
    fn cut_whole_count(&mut self, counted: Counted, input: &[u8]) -> Option<Cut> {
        self.search.see(input);
        let rest = input.get(self.start..)?;
        if counted.left > rest.len() as u64 {
            return None;
        }
        let end = self.start + counted.left as usize;
        let next = match counted.then {
            None => {
                self.progress = Progress::Unframed;
                end
            }
            Some(then) => {
                if !then.begins(&input[end..]) {
                    return None;
                }
                let next = end + then.len();
                self.progress = self.delimited();
                next
            }
        };
        Some(self.end_frame(end, next, End::Terminator))
    }

    #[inline(never)]
    fn cut_counted(&mut self, counted: Counted, input: &[u8], eof: bool) -> Option<Cut> {
        if let Some(cut) = self.cut_whole_count(counted, input) {
            return Some(cut);
        }
        let Counted { left, then, truncated } = counted;
        let available = input.len() - self.start;
        let Some(payload) = usize::try_from(left).ok().filter(|&left| left <= available) else {
            // Some of the payload is still to come.
            self.seen = input.len();
            let unchanged = truncated && available == 0;
            if self.whole && !eof {
                self.progress = Progress::Counted(Counted { truncated: unchanged, ..counted });
                return None;
            }
            let ends = eof && !unchanged;
            let left = left - available as u64;
            self.progress = Progress::Counted(Counted { left, then, truncated: eof || unchanged });
            return self.hand_over(input.len(), ends.then_some(End::Truncated));
        };
        let end = self.start + payload;
        let behind = &input[end..];
        let begun = then.is_some_and(|then| then.is_begun_by(behind));
        if !begun {
            self.seen = end;
            self.end_early(FrameError::WrongEnd);
            return Some(self.end_frame(end, end, End::WrongEnd));
        }
        // The payload is there, but not all of its end.
        self.seen = input.len();
        let unchanged = truncated && available == 0;
        if eof {
            self.progress = Progress::Counted(Counted { left: 0, then, truncated: true });
            return (!unchanged).then(|| self.end_frame(end, input.len(), End::Truncated));
        }
        if self.whole {
            self.progress = Progress::Counted(Counted { truncated: unchanged, ..counted });
            return None;
        }
        self.progress = Progress::Counted(Counted { left: 0, then, truncated: unchanged });
        self.hand_over(end, None)
    }

    #[inline(always)]
    fn cut_delimited(&mut self, input: &[u8], eof: bool) -> Option<Cut> {
        let room = self.max.saturating_sub(self.length);
        let Next { before, end } = self.search.find(input, self.start, room);
        let payload = if end.is_none() && eof { input.len() } else { before };
        if !self.has_room_to(payload) {
            return Some(self.end_overlong(room));
        }
        match end {
            Some(end) => Some(self.end_delimited(input, payload, end)),
            None if eof => {
                let ends = self.length > 0 || payload > self.start;
                ends.then(|| self.end_frame(payload, payload, End::Truncated))
            }
            None => self.go_on(input, payload),
        }
    }

    /// The frame ends at a delimiter. `end` is the position behind it.
    #[inline(always)]
    fn end_delimited(&mut self, input: &[u8], payload: usize, end: NonZeroUsize) -> Cut {
        let next = end.get();
        let cut = self.end_frame(payload, next, End::Terminator);
        self.matched = self.search.member();
        self.after_cr = self.search.awaits_lf(input, next);
        cut
    }

    /// The frame goes on: hands over what has come of it, up to `before`, unless it is to be handed over whole. What is
    /// behind may begin a delimiter.
    #[inline(always)]
    fn go_on(&mut self, input: &[u8], before: usize) -> Option<Cut> {
        self.seen = input.len();
        if self.whole { None } else { self.hand_over(before, None) }
    }

    /// Whether the frame is within its limit if its payload goes on up to this position of the input.
    #[inline(always)]
    fn has_room_to(&self, end: usize) -> bool {
        self.length + (end - self.start) as u64 <= self.max
    }

    #[inline(never)]
    fn cut_skipping(&mut self, input: &[u8], eof: bool) -> Option<Cut> {
        if self.skip(input) {
            return self.cut_delimited(input, eof);
        }
        if !eof {
            return None;
        }
        self.progress = Progress::Delimited;
        self.start = input.len();
        Some(self.end_frame(self.start, self.start, End::Truncated))
    }

    /// Drops the rest of a frame that has ended early, as far as it has come. Returns whether that was all of it.
    #[inline(never)]
    fn skip(&mut self, input: &[u8]) -> bool {
        match self.search.find(input, self.start, u64::MAX) {
            Next { end: Some(end), .. } => {
                self.start = end.get();
                self.after_cr = self.search.awaits_lf(input, self.start);
                self.begin_frame();
                self.progress = Progress::Delimited;
                true
            }
            Next { before, end: None } => {
                self.start = before;
                self.seen = input.len();
                false
            }
        }
    }

    /// The frame is longer than its limit, which leaves room for this many bytes more.
    fn end_overlong(&mut self, room: u64) -> Cut {
        let limit = self.start + room as usize;
        self.end_early(FrameError::Overlong(self.max));
        self.seen = limit;
        // If the terminator is changed before `Overlong` is returned, the frame has not ended. So its length is kept,
        // and so is whether it is handed over whole.
        self.length += room;
        self.matched = 0;
        self.end_piece(limit, limit, Some(End::Overlong))
    }

    /// Drops the LF that belongs to the CR before it, if it has come.
    #[inline]
    pub(crate) fn end_newline(&mut self, input: &[u8]) {
        if self.after_cr && self.start < input.len() {
            self.after_cr = false;
            self.start += usize::from(input[self.start] == b'\n');
        }
    }

    /// The frame goes on, or is truncated: hands over what there is of it, up to `end`.
    fn hand_over(&mut self, end: usize, outcome: Option<End>) -> Option<Cut> {
        if end == self.start && outcome.is_none() {
            return None;
        }
        if let Some(outcome) = outcome {
            return Some(self.end_frame(end, end, outcome));
        }
        self.length = match self.progress {
            Progress::Unframed => 0,
            _ => self.length + (end - self.start) as u64,
        };
        Some(self.end_piece(end, end, None))
    }

    /// The frame's payload ends at `end`, and the next frame begins at `next`.
    #[inline(always)]
    fn end_frame(&mut self, end: usize, next: usize, outcome: End) -> Cut {
        self.begin_frame();
        self.matched = 0;
        // Bytes behind the frame may have been seen before its terminator was set. They do not count as seen of the
        // next frame.
        self.seen = next;
        self.end_piece(end, next, Some(outcome))
    }

    #[inline(always)]
    fn begin_frame(&mut self) {
        self.length = 0;
        self.whole = self.whole_next;
    }

    #[inline(always)]
    fn end_piece(&mut self, end: usize, next: usize, outcome: Option<End>) -> Cut {
        let start = mem::replace(&mut self.start, next);
        Cut { start, end, outcome }
    }

    /// The frame has ended before its delimiter: the limit says what becomes of the rest.
    fn end_early(&mut self, error: FrameError) {
        self.progress = match self.beyond {
            Beyond::Skip if !matches!(self.search.target(), Terminator::None) => Progress::Skipping,
            _ => Progress::Failed(error),
        };
    }

    /// The progress under the delimiter that was set last.
    fn delimited(&self) -> Progress {
        match self.search.target() {
            Terminator::None => Progress::Unframed,
            _ => Progress::Delimited,
        }
    }

    #[inline(always)]
    fn switch(&mut self, terminator: Terminator) {
        if self.is_in_force(&terminator) {
            return;
        }
        self.leave_frame();
        self.progress = match terminator {
            Terminator::Count(left) => {
                Progress::Counted(Counted { left, then: None, truncated: false })
            }
            Terminator::CountThen(counted) => Progress::Counted(Counted {
                left: counted.count(),
                then: Some(counted.end().into()),
                truncated: false,
            }),
            Terminator::None => {
                self.begin_frame();
                Progress::Unframed
            }
            delimiter => {
                if *self.search.target() != delimiter {
                    self.search.aim(delimiter);
                }
                Progress::Delimited
            }
        };
    }

    #[inline(always)]
    fn is_in_force(&self, terminator: &Terminator) -> bool {
        match (terminator, self.progress) {
            (&Terminator::Count(count), Progress::Counted(counted)) => {
                count == counted.left && counted.then.is_none()
            }
            (Terminator::CountThen(then), Progress::Counted(counted)) => {
                then.count() == counted.left && counted.then == Some(then.end().into())
            }
            (Terminator::None, Progress::Unframed) => true,
            // A counted frame had a wrong end, and no delimiter is set.
            (Terminator::None, Progress::Failed(_)) => {
                matches!(self.search.target(), Terminator::None)
            }
            (
                Terminator::Bytes(_) | Terminator::AnyOf(_) | Terminator::Newline,
                Progress::Delimited | Progress::Skipping | Progress::Failed(_),
            ) => self.search.target() == terminator,
            _ => false,
        }
    }

    /// Called before the terminator changes. Takes back an `Overlong` that has not been returned, and ends a skip, a
    /// failure or bytes without a frame. A frame that is not finished goes on.
    #[inline(always)]
    fn leave_frame(&mut self) {
        if self.progress == Progress::Delimited && self.owed.is_none() {
            // This is so at most switches of most protocols: the frame goes on, and there is nothing to take back.
            return;
        }
        self.unsay_overlong();
        match self.progress {
            Progress::Skipping | Progress::Failed(_) | Progress::Unframed => self.begin_frame(),
            Progress::Counted(_) | Progress::Delimited => {}
        }
    }

    /// Takes back an `Overlong` that has not been returned. It is decided with the frame's last chunk and returned
    /// behind it. If the terminator or the limit changes in between, or the input is dropped, it is decided anew: the
    /// frame has not ended.
    #[inline(always)]
    fn unsay_overlong(&mut self) {
        if self.owed == Some(End::Overlong) {
            self.owed = None;
            self.progress = Progress::Delimited;
        }
    }

    /// Says that this many of the bytes that are done with have been removed from the front of the input.
    #[inline]
    pub(crate) fn consume(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.start, "more is removed than was done with");
        self.start = self.start.saturating_sub(bytes);
        self.seen = self.seen.saturating_sub(bytes);
        self.search.consume(bytes);
    }
}

/// What the codecs and the channel need of a framer, besides its public methods.
#[cfg(feature = "tokio")]
impl Framer {
    /// The step of a frame of `count` bytes, which must be in the input: as if that count was set now, and spent at
    /// once.
    #[inline]
    pub(crate) fn cut_count(&mut self, count: usize) -> Cut {
        if !matches!(self.progress, Progress::Unframed) {
            self.switch(Terminator::Count(count as u64));
            self.progress = Progress::Unframed;
        }
        let end = self.start + count;
        self.end_frame(end, end, End::Terminator)
    }

    /// How long a frame may be, in bytes.
    #[inline]
    pub(crate) fn max(&self) -> u64 {
        self.max
    }

    /// How many bytes at the front of the input are done with.
    #[inline]
    pub(crate) fn consumed(&self) -> usize {
        self.start
    }

    /// Whether an end is still to be returned behind the last chunk.
    pub(crate) fn has_owed(&self) -> bool {
        self.owed.is_some()
    }

    /// The input has been moved in memory by the caller, who knows that its bytes are the same.
    #[inline]
    pub(crate) fn moved_to(&mut self, input: &[u8]) {
        self.search.moved_to(input);
    }

    /// If the frame that was cut last has ended early and its rest is to be dropped: drops what has come
    /// of it, which is then consumed.
    pub(crate) fn skip_rest(&mut self, input: &[u8]) {
        if self.progress == Progress::Skipping {
            self.skip(input);
        }
    }

    /// Begins a new frame with what was seen of the current one, of which nothing has been handed over.
    pub(crate) fn begin_anew(&mut self, whole: bool) {
        self.seen = self.start;
        self.set_whole_frames(whole);
    }

    /// Whether the frame that is cut next is handed over whole.
    #[inline]
    pub(crate) fn is_whole(&self) -> bool {
        // The rest of a frame that has ended early is dropped before anything is cut.
        if self.progress == Progress::Skipping { self.whole_next } else { self.whole }
    }

    /// Whether the rest of an overlong frame is being dropped.
    #[inline]
    pub(crate) fn is_skipping(&self) -> bool {
        self.progress == Progress::Skipping
    }

    /// Whether the last frame ended before its delimiter, and another has not begun.
    pub(crate) fn has_ended_early(&self) -> bool {
        matches!(self.progress, Progress::Skipping | Progress::Failed(_))
    }

    /// How many bytes of the current frame have been handed over.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }
}
