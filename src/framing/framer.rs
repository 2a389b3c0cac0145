#[cfg(feature = "tokio")]
use std::ops::Range;

use crate::framing::event::Event;
use crate::framing::limit::{Limit, OverlongError};
use crate::framing::search::{Direct, Found, Scanner};
use crate::framing::terminator::Terminator;

/// The framing itself, without any I/O: bytes in, lent events out.
///
/// A `Framer` owns no buffer. It is given the input that has come so far, returns events that borrow
/// from it, and says once per read how much of it is done with:
///
/// ```
/// use asynchat::{Event, Framer};
///
/// # fn main() -> Result<(), asynchat::OverlongError> {
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
///             Event::Overlong | Event::Truncated => unreachable!("no limit, and more to come"),
///         }
///     }
///     buffer.drain(..framer.take_consumed());
/// }
/// assert_eq!(frames, [&b"LEN 5"[..], b"hello", b"LEN 2", b"hi"]);
/// # Ok(())
/// # }
/// ```
///
/// # The input
///
/// Each call is given the input from the byte after the last one consumed: what an earlier call saw,
/// then whatever has come since. The front is cut off only by what [`take_consumed`](Self::take_consumed)
/// says, and only then. If the caller drops buffered input for another reason, it calls
/// [`discard`](Self::discard). An input that is shorter than what was seen never panics.
///
/// # What is withheld
///
/// Every byte is delivered by the call that first sees it, but for the longest suffix of the input that
/// may be the beginning of the terminator. It stays in the caller's buffer, at most one byte less than
/// the terminator has. Incomplete input is not an error: `next` returns `Ok(None)` and wants more.
#[derive(Clone, Debug)]
pub struct Framer {
    state: State,
    /// What `state` is in a frame of this terminator: `Frame`, `Direct`, `Widening`, `Checked` or
    /// `Counted`.
    in_frame: State,
    /// Where `in_frame` is `Direct`, `Widening` or `Checked`, how to take its hits.
    direct: Direct,
    /// The stream offset of the first byte of the input.
    origin: u64,
    /// The stream offset of the first byte that is not done with. `origin <= position`.
    position: u64,
    /// Bytes of the current frame that have been delivered.
    length: u64,
    /// The limit's, or `u64::MAX`. `length <= max` while a limit is in force that was not lowered in
    /// mid-frame.
    max: u64,
    scanner: Scanner,
    terminator: Terminator,
    /// What happens beyond `max`.
    beyond: Beyond,
    /// The stream offset after the last byte that has been seen and withheld. What is between
    /// `position` and here is withheld, nothing if `position` has come further.
    seen: u64,
    /// Which member of a set ended the last frame.
    matched: u32,
    /// The limit that the last overlong frame has passed.
    passed: u64,
}

/// ```text
///            +--------- switch, or the terminator is found ----------+
///            v                                                       |
///  Finished --> Frame -- terminator --> Ended (its event is owed)    |
///     ^          |  ^---- event ----------'                          |
///     |          +-- overlong --> Skipping, or Failed ---------------+
///     +-- end of input, Truncated --+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In a frame, or before one.
    Frame,
    /// The same, where hits of the delimiter need no second look.
    Direct,
    /// The same, where the byte before a hit may belong to the terminator.
    Widening,
    /// The same, where what is on the list of hits may be none.
    Checked,
    /// The same, where the terminator is a count.
    Counted,
    /// A chunk was delivered and the terminator behind it consumed.
    Ended,
    /// Dropping the rest of an overlong frame.
    Skipping,
    /// An overlong frame under `Limit::Fail`.
    Failed,
    /// `Truncated` has been said.
    Finished,
}

/// The kind of a [`Limit`], whose number is kept beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beyond {
    Unlimited,
    Fail,
    Skip,
}

/// One step through the input, in positions, so that no caller's borrow is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// `input[start..end]` is payload, and the frame's last if `ended`; not both empty and not ended.
    Data {
        start: usize,
        end: usize,
        ended: bool,
    },
    Overlong,
    Truncated,
    Failed(OverlongError),
    /// More input is wanted.
    Pending,
}

impl Framer {
    /// Makes a framer without a limit, since it keeps nothing.
    pub fn new(terminator: impl Into<Terminator>) -> Self {
        let mut framer = Framer {
            state: State::Frame,
            in_frame: State::Frame,
            direct: Direct::default(),
            origin: 0,
            position: 0,
            length: 0,
            max: u64::MAX,
            scanner: Scanner::new(),
            terminator: Terminator::None,
            beyond: Beyond::Unlimited,
            seen: 0,
            matched: 0,
            passed: 0,
        };
        framer.set_terminator(terminator);
        framer
    }

    /// Sets the limit, for building.
    #[must_use]
    pub fn with_limit(mut self, limit: Limit) -> Self {
        self.set_limit(limit);
        self
    }

    /// The next event, or `None` when more input is wanted.
    ///
    /// # Errors
    ///
    /// [`OverlongError`] after `Event::Overlong`, under [`Limit::Fail`], until the terminator is set.
    #[inline(always)]
    pub fn next<'b>(&mut self, input: &'b [u8]) -> Result<Option<Event<&'b [u8]>>, OverlongError> {
        if self.state == State::Ended {
            self.state = self.in_frame;
            return Ok(Some(Event::Terminator));
        }
        // Only what most calls do is done here: it is inlined at the caller's, where size costs speed.
        if self.state == State::Direct {
            if let Some(Step::Data { start, end, .. }) = self.step_hit::<false>(input) {
                if start == end {
                    return Ok(Some(Event::Terminator));
                }
                self.state = State::Ended;
                return Ok(Some(Event::Chunk(&input[start..end])));
            }
        }
        self.next_on(input)
    }

    #[inline(never)]
    fn next_on<'b>(&mut self, input: &'b [u8]) -> Result<Option<Event<&'b [u8]>>, OverlongError> {
        let counted = match self.state {
            State::Counted => self.step_count(input),
            _ => None,
        };
        let step = match counted {
            Some(step) => step,
            None => self.step_on(input, false),
        };
        self.event(input, step)
    }

    /// As [`next`](Self::next), when no more input will come: call it until it returns `None`.
    ///
    /// What was withheld is delivered. In mid-frame [`Event::Truncated`] follows: when bytes of a frame
    /// that ends at a delimiter have been seen, when a count is not spent, while an overlong frame is
    /// skipped.
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
    pub fn next_eof<'b>(
        &mut self,
        input: &'b [u8],
    ) -> Result<Option<Event<&'b [u8]>>, OverlongError> {
        if self.state == State::Ended {
            self.state = self.in_frame;
            return Ok(Some(Event::Terminator));
        }
        let step = self.step(input, true);
        self.event(input, step)
    }

    /// How many bytes at the front of the input are done with, to be called once per read. The next
    /// input begins after them.
    #[must_use = "these bytes must be removed from the front of the input"]
    #[inline]
    pub fn take_consumed(&mut self) -> usize {
        let consumed = self.consumed();
        self.consume(consumed);
        consumed
    }

    /// How many bytes at the front of the input are done with.
    #[inline]
    pub(crate) fn consumed(&self) -> usize {
        (self.position - self.origin) as usize
    }

    /// Says that so many of the bytes that are done with have been removed.
    #[inline]
    pub(crate) fn consume(&mut self, consumed: usize) {
        debug_assert!(consumed <= self.consumed());
        self.origin += consumed as u64;
    }

    /// Switches the terminator, at any moment. It governs the very next byte after the events already
    /// returned, whether that byte is to come, buffered or withheld.
    ///
    /// A terminator that ended the chunk just returned still has its event. Of a frame that is being
    /// cut the length goes on, unless the old or new terminator is `None`, which has no frames. A skip
    /// or a failure of an overlong frame is over.
    #[inline]
    pub fn set_terminator(&mut self, terminator: impl Into<Terminator>) {
        self.switch(terminator.into());
    }

    #[inline(always)]
    fn switch(&mut self, terminator: Terminator) {
        self.in_frame = State::Frame;
        match &terminator {
            Terminator::Count(_) => self.in_frame = State::Counted,
            Terminator::None => self.length = 0,
            Terminator::Bytes(_) | Terminator::AnyOf(_) => {
                if let Some(direct) = Direct::new(&terminator) {
                    self.in_frame = match direct.len {
                        _ if direct.widens => State::Widening,
                        ..=2 => State::Direct,
                        _ => State::Checked,
                    };
                    self.direct = direct;
                }
            }
        }
        self.scanner.aim(&terminator);
        self.terminator = terminator;
        if self.state != State::Ended {
            self.state = self.in_frame;
        }
    }

    /// The terminator in force. Of a count, what remains.
    pub fn terminator(&self) -> &Terminator {
        &self.terminator
    }

    /// Sets the limit, for the current frame too.
    pub fn set_limit(&mut self, limit: Limit) {
        (self.beyond, self.max) = match limit {
            Limit::Unlimited => (Beyond::Unlimited, u64::MAX),
            Limit::Fail(max) => (Beyond::Fail, max),
            Limit::Skip(max) => (Beyond::Skip, max),
        };
    }

    /// The limit in force.
    pub fn limit(&self) -> Limit {
        match self.beyond {
            Beyond::Unlimited => Limit::Unlimited,
            Beyond::Fail => Limit::Fail(self.max),
            Beyond::Skip => Limit::Skip(self.max),
        }
    }

    /// Says that the caller has dropped the input it had buffered, what was withheld included. The next
    /// input begins with the next read.
    ///
    /// The terminator, what remains of a count and the length of the current frame stay.
    pub fn discard(&mut self) {
        self.origin = self.position;
        self.seen = self.position;
        self.scanner.reset();
    }

    /// Whether the end of the input here would cut a frame: bytes of a frame that ends at a delimiter
    /// have been seen (withheld or delivered), a count is not spent, or an overlong frame is skipped.
    pub fn is_mid_frame(&self) -> bool {
        match (&self.terminator, self.state) {
            (_, State::Ended | State::Finished) => false,
            (Terminator::Count(_), _) => true,
            (Terminator::None, _) => false,
            (_, State::Skipping | State::Failed) => true,
            (
                _,
                State::Frame | State::Direct | State::Widening | State::Checked | State::Counted,
            ) => self.length > 0 || self.position < self.seen,
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

    /// Turns a step into an event, keeping the second of two for the next call.
    #[inline(always)]
    fn event<'b>(
        &mut self,
        input: &'b [u8],
        step: Step,
    ) -> Result<Option<Event<&'b [u8]>>, OverlongError> {
        match step {
            Step::Data { start, end, ended } => {
                let chunk = input.get(start..end).unwrap_or_default();
                if chunk.is_empty() {
                    return Ok(Some(Event::Terminator));
                }
                if ended {
                    self.state = State::Ended;
                }
                Ok(Some(Event::Chunk(chunk)))
            }
            Step::Overlong => Ok(Some(Event::Overlong)),
            Step::Truncated => Ok(Some(Event::Truncated)),
            Step::Failed(error) => Err(error),
            Step::Pending => Ok(None),
        }
    }

    /// The next step. It reports a chunk and the terminator behind it together, so a caller that uses
    /// steps keeps the second event itself.
    #[inline(always)]
    pub(crate) fn step(&mut self, input: &[u8], eof: bool) -> Step {
        if self.state == State::Direct {
            if let Some(step) = self.step_hit::<false>(input) {
                return step;
            }
        }
        self.step_on(input, eof)
    }

    #[inline(never)]
    fn step_on(&mut self, input: &[u8], eof: bool) -> Step {
        match self.state {
            State::Direct if !eof => return self.step_miss::<false>(input),
            State::Widening => {
                if let Some(step) = self.step_hit::<true>(input) {
                    return step;
                }
                if !eof {
                    return self.step_miss::<true>(input);
                }
            }
            State::Counted => {
                if let Some(step) = self.step_count(input) {
                    return step;
                }
            }
            State::Checked => {
                if let Some(step) = self.step_checked(input) {
                    return step;
                }
            }
            _ => {}
        }
        self.step_slow(input, eof)
    }

    /// The step where the next hit is known and the frame within its limit.
    #[inline(always)]
    fn step_hit<const WIDENS: bool>(&mut self, input: &[u8]) -> Option<Step> {
        let hit = self.scanner.next_hit(self.position)?;
        let direct = self.direct;
        let start = (self.position - self.origin) as usize;
        let mut end = (hit - self.origin) as usize;
        if end + usize::from(direct.len) > input.len() {
            return None;
        }
        let widened = WIDENS && end > start && Some(input[end - 1]) == direct.partial;
        end -= usize::from(widened);
        if self.length.saturating_add((end - start) as u64) > self.max {
            return None;
        }
        self.scanner.take_hit();
        self.position = hit + u64::from(direct.len);
        self.length = 0;
        self.matched = if WIDENS { direct.members[usize::from(widened)].into() } else { 0 };
        Some(Step::Data { start, end, ended: true })
    }

    /// The same, where it has to be looked at first.
    #[inline]
    fn step_checked(&mut self, input: &[u8]) -> Option<Step> {
        self.scanner.listed_hit(input, self.origin, self.position)?;
        self.step_hit::<false>(input)
    }

    /// The step where a direct terminator has no known hits: look for more, or deliver what is there.
    #[inline(always)]
    fn step_miss<const WIDENS: bool>(&mut self, input: &[u8]) -> Step {
        let end = self.origin + input.len() as u64;
        if self.position > end || self.scanner.next_hit(self.position).is_some() {
            // Input was dropped, or the hit is behind the limit.
            return self.step_slow(input, false);
        }
        if self.scanner.refill(input, self.origin, self.position) {
            let step = self.step_hit::<WIDENS>(input);
            return step.unwrap_or_else(|| self.step_slow(input, false));
        }
        let withheld = self.position < end
            && self.direct.partial.is_some()
            && input.last().copied() == self.direct.partial;
        let start = (self.position - self.origin) as usize;
        let next = end - u64::from(withheld);
        let length = self.length.saturating_add(next - self.position);
        if length > self.max {
            return self.step_slow(input, false);
        }
        self.seen = end;
        if next == self.position {
            return Step::Pending;
        }
        self.position = next;
        self.length = length;
        Step::Data { start, end: (next - self.origin) as usize, ended: false }
    }

    /// The step where all of a count is there.
    #[inline(always)]
    fn step_count(&mut self, input: &[u8]) -> Option<Step> {
        let Terminator::Count(remaining) = self.terminator else {
            return None;
        };
        let start = (self.position - self.origin) as usize;
        let available = input.len().checked_sub(start)?;
        if remaining > available as u64 {
            return None;
        }
        self.terminator = Terminator::None;
        self.in_frame = State::Frame;
        self.state = State::Frame;
        self.length = 0;
        self.matched = 0;
        self.position += remaining;
        Some(Step::Data { start, end: start + remaining as usize, ended: true })
    }

    /// Any step.
    #[inline(never)]
    fn step_slow(&mut self, input: &[u8], eof: bool) -> Step {
        match self.state {
            State::Failed => return Step::Failed(OverlongError::new(self.passed)),
            State::Finished if eof => return Step::Pending,
            State::Finished => self.state = self.in_frame,
            _ => {}
        }
        if self.position - self.origin > input.len() as u64 {
            // The caller has dropped input that it was not told to.
            self.discard();
        }
        let start = (self.position - self.origin) as usize;
        let available = input.len() - start;
        match &mut self.terminator {
            Terminator::None if available > 0 => {
                self.position += available as u64;
                Step::Data { start, end: input.len(), ended: false }
            }
            Terminator::None => Step::Pending,
            Terminator::Count(remaining) if *remaining > available as u64 => {
                if available > 0 {
                    *remaining -= available as u64;
                    self.position += available as u64;
                    self.length += available as u64;
                    Step::Data { start, end: input.len(), ended: false }
                } else if eof {
                    self.finish()
                } else {
                    Step::Pending
                }
            }
            // As it is after the end of the input.
            Terminator::Count(_) => self.step_count(input).unwrap_or(Step::Pending),
            Terminator::Bytes(_) | Terminator::AnyOf(_) => self.step_delimited(input, start, eof),
        }
    }

    fn step_delimited(&mut self, input: &[u8], mut start: usize, eof: bool) -> Step {
        loop {
            let found = self.scanner.find(&self.terminator, input, self.origin, start);
            // Where the payload ends that is known to be payload, and where to go on from.
            let (end, next, ended) = match found {
                Found::At { start, end, .. } => (start, end, true),
                Found::Withheld(_) if eof => (input.len(), input.len(), false),
                Found::Withheld(partial) => (input.len() - partial, input.len() - partial, false),
            };
            if self.state == State::Skipping {
                self.position = self.origin + next as u64;
                if ended {
                    self.state = self.in_frame;
                    start = next;
                    continue;
                }
                self.seen = self.origin + input.len() as u64;
                return if eof { self.finish() } else { Step::Pending };
            }
            let known = (end - start) as u64;
            if self.length.saturating_add(known) > self.max {
                return self.step_overlong(start);
            }
            self.position = self.origin + next as u64;
            if let Found::At { member, .. } = found {
                self.length = 0;
                self.matched = member as u32;
                return Step::Data { start, end, ended };
            }
            self.seen = self.origin + input.len() as u64;
            if known > 0 {
                self.length += known;
            } else {
                return if eof && self.length > 0 { self.finish() } else { Step::Pending };
            }
            return Step::Data { start, end, ended };
        }
    }

    /// A frame is longer than its limit: deliver what that has room for, then say so.
    fn step_overlong(&mut self, start: usize) -> Step {
        let room = self.max.saturating_sub(self.length);
        if room > 0 {
            self.position += room;
            self.length += room;
            return Step::Data { start, end: start + room as usize, ended: false };
        }
        self.length = 0;
        self.passed = self.max;
        self.state = match self.beyond {
            Beyond::Fail => State::Failed,
            Beyond::Skip | Beyond::Unlimited => State::Skipping,
        };
        Step::Overlong
    }

    fn finish(&mut self) -> Step {
        self.length = 0;
        self.state = State::Finished;
        Step::Truncated
    }
}

/// What only those who drive a framer ask.
#[cfg(feature = "tokio")]
impl Framer {
    /// Whether the current frame may be longer than it is: after a step that delivered a part of it, no
    /// other step follows without more input.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        self.length < self.max
    }

    /// The limit in force, in bytes.
    pub(crate) fn max(&self) -> u64 {
        self.max
    }

    /// Whether the rest of an overlong frame is being dropped.
    #[inline]
    pub(crate) fn is_skipping(&self) -> bool {
        self.state == State::Skipping
    }

    /// How many bytes of the current frame have been delivered.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// The rest of a frame of which it is known where it ends, which is in the input.
    #[inline(always)]
    pub(crate) fn frame_known(&mut self, input: &[u8]) -> Option<Range<usize>> {
        let step = match self.state {
            State::Direct => self.step_hit::<false>(input),
            State::Widening => self.step_hit::<true>(input),
            State::Checked => self.step_checked(input),
            State::Counted => self.step_count(input),
            _ => None,
        };
        match step? {
            Step::Data { start, end, ended: true } => Some(start..end),
            _ => None,
        }
    }
}
