use std::{error, fmt};

/// How long a frame that ends at a delimiter may be, and what happens to one that is longer.
///
/// The limit counts payload bytes, without the terminator, and holds for frames that end by
/// [`Terminator::Bytes`](crate::Terminator::Bytes), [`Terminator::AnyOf`](crate::Terminator::AnyOf) or
/// [`Terminator::Newline`](crate::Terminator::Newline). A count states its own size, and `None` has no frames. Of a
/// frame that is too long, exactly the first bytes that the limit allows are delivered, however the input was cut, and
/// then [`Event::Overlong`](crate::Event::Overlong).
///
/// ```
/// use asynchat::{Event, Framer, Limit};
///
/// let mut framer = Framer::new(b"\n").with_limit(Limit::Skip(3));
/// let input = b"abcdef\nxyz\n";
/// let mut events = Vec::new();
/// while let Some(event) = framer.next(input)? {
///     events.push(event);
/// }
/// assert_eq!(events, [
///     Event::Chunk(&b"abc"[..]), Event::Overlong,     // "def\n" was dropped
///     Event::Chunk(&b"xyz"[..]), Event::Terminator,   // and the next frame is whole
/// ]);
/// # Ok::<(), asynchat::FrameError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Limit {
    /// A frame may be of any length.
    #[default]
    Unlimited,
    /// At most this many bytes. The call after `Overlong` fails with [`FrameError::Overlong`].
    ///
    /// `Fail(0)` verifies a terminator: the very next bytes must be the terminator.
    Fail(u64),
    /// At most this many bytes. After `Overlong`, input is dropped up to and including the terminator,
    /// and the next frame begins; no `Terminator` follows.
    Skip(u64),
}

/// A frame ended in a way after which the stream cannot be trusted.
///
/// It follows the [`Event::Overlong`](crate::Event::Overlong) or
/// [`Event::WrongEnd`](crate::Event::WrongEnd) that said so, and is returned again by every later call,
/// until another terminator is set or [`Framer::resume`](crate::Framer::resume) is called.
///
/// ```
/// use asynchat::{Event, FrameError, Framer, Limit};
///
/// let mut framer = Framer::new(b"\n").with_limit(Limit::Fail(3));
/// assert_eq!(framer.next(b"abcdef"), Ok(Some(Event::Chunk(&b"abc"[..]))));
/// assert_eq!(framer.next(b"abcdef"), Ok(Some(Event::Overlong)));
/// assert_eq!(framer.next(b"abcdef"), Err(FrameError::Overlong(3)));
/// assert_eq!(framer.next(b"abcdef"), Err(FrameError::Overlong(3)));
/// // What is left can be read by setting another terminator.
/// framer.set_terminator(3);
/// assert_eq!(framer.next(b"abcdef"), Ok(Some(Event::Chunk(&b"def"[..]))));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// A frame was longer than [`Limit::Fail`] allows: the limit that was passed, in payload bytes.
    Overlong(u64),
    /// Behind a counted frame was something else than its end.
    WrongEnd,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::Overlong(max) => {
                write!(f, "frame longer than the limit of {max} bytes")
            }
            FrameError::WrongEnd => f.write_str("counted frame without its end"),
        }
    }
}

impl error::Error for FrameError {}
