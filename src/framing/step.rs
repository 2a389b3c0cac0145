//! What one call of the framer returns: a piece of a frame, and how the frame ended.

use super::event::Event;

/// A piece of a frame's payload, and how the frame ended if this is the last of it.
///
/// It is a chunk and the event behind it in one: the cheapest way to follow a stream. `B` is `&[u8]`
/// where the piece is lent ([`Framer::step`](crate::Framer::step)) and `Bytes` where it is owned.
///
/// ```
/// use asynchat::{End, Framer, Step};
///
/// let mut framer = Framer::new(b"\r\n");
/// let input = b"one\r\ntw";
/// assert_eq!(
///     framer.step(input)?,
///     Some(Step { payload: &b"one"[..], end: Some(End::Terminator) }),
/// );
/// assert_eq!(framer.step(input)?, Some(Step { payload: &b"tw"[..], end: None }));
/// assert_eq!(framer.step(input)?, None);
/// # Ok::<(), asynchat::FrameError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Step<B> {
    /// Some bytes of the frame. Empty only where the frame ends and no byte of it is left to be delivered.
    pub payload: B,
    /// How the frame ended, or `None` if it goes on.
    pub end: Option<End>,
}

impl<B> Step<B> {
    /// Applies `f` to the payload.
    ///
    /// ```
    /// use asynchat::Step;
    ///
    /// let lent: Step<&[u8]> = Step { payload: b"abc", end: None };
    /// assert_eq!(lent.map(<[u8]>::to_vec), Step { payload: b"abc".to_vec(), end: None });
    /// ```
    #[inline]
    pub fn map<C>(self, f: impl FnOnce(B) -> C) -> Step<C> {
        Step { payload: f(self.payload), end: self.end }
    }
}

/// How a frame ended.
///
/// This enum is complete: a frame ends in one of these four ways.
///
/// ```
/// use asynchat::{End, Framer, Limit};
///
/// let mut framer = Framer::new(b"\n").with_limit(Limit::Skip(3));
/// let mut ends = Vec::new();
/// while let Ok(Some(step)) = framer.step_eof(b"one\nthree\ntw") {
///     ends.push(step.end);
/// }
/// assert_eq!(ends, [Some(End::Terminator), Some(End::Overlong), Some(End::Truncated)]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// Its terminator was found, or its count spent.
    Terminator,
    /// It is longer than its [`Limit`](crate::Limit), and all that the limit allows was delivered.
    Overlong,
    /// Its count is spent, and behind it is something else than its end
    /// ([`Terminator::CountThen`](crate::Terminator::CountThen)).
    WrongEnd,
    /// The input ended in the middle of it.
    Truncated,
}

impl<B> From<End> for Event<B> {
    #[inline]
    fn from(end: End) -> Self {
        match end {
            End::Terminator => Event::Terminator,
            End::Overlong => Event::Overlong,
            End::WrongEnd => Event::WrongEnd,
            End::Truncated => Event::Truncated,
        }
    }
}
