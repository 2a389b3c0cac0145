/// What happened in the input: some bytes of a frame, or the way a frame ended.
///
/// ```text
///  bytes in   a b c d e \r \n | \r \n | f g h (end of input)
///             `---.---' `-.-'   `-.-'   `-.-'
///  events out   Chunk Terminator  |      Chunk, Truncated
///                             Terminator
/// ```
///
/// `B` is `&[u8]` where the event borrows its input ([`Framer`](crate::Framer)) and `Bytes` where it owns them
/// (`TerminatorCodec`). A frame is all its chunks joined; an empty frame has none. How it is cut into chunks depends on
/// the reads and has no meaning; where it ends does not depend on them.
///
/// This enum is complete: a frame ends in one of four ways ([`End`](crate::End)).
///
/// ```
/// use asynchat::{Event, Framer};
///
/// let mut framer = Framer::new(b"\r\n");
/// assert_eq!(framer.next(b"HELO\r\n"), Ok(Some(Event::Chunk(&b"HELO"[..]))));
/// assert_eq!(framer.next(b"HELO\r\n"), Ok(Some(Event::Terminator)));
/// assert_eq!(framer.next(b"HELO\r\n"), Ok(None));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event<B> {
    /// Some bytes of the current frame: never empty, never a byte of the terminator.
    Chunk(B),
    /// The terminator was found, or the count is spent: the frame is complete.
    Terminator,
    /// The frame is longer than its [`Limit`](crate::Limit), and all that the limit allows has been
    /// delivered.
    Overlong,
    /// The count is spent, and behind it is something else than the frame's end
    /// ([`Terminator::CountThen`](crate::Terminator::CountThen)).
    WrongEnd,
    /// The input ended in mid-frame.
    Truncated,
}

impl<B> Event<B> {
    /// Applies `f` to the bytes of a chunk.
    ///
    /// ```
    /// use asynchat::Event;
    ///
    /// let lent: Event<&[u8]> = Event::Chunk(b"abc");
    /// assert_eq!(lent.map(<[u8]>::to_vec), Event::Chunk(b"abc".to_vec()));
    /// ```
    #[inline]
    pub fn map<C>(self, f: impl FnOnce(B) -> C) -> Event<C> {
        match self {
            Event::Chunk(bytes) => Event::Chunk(f(bytes)),
            Event::Terminator => Event::Terminator,
            Event::Overlong => Event::Overlong,
            Event::WrongEnd => Event::WrongEnd,
            Event::Truncated => Event::Truncated,
        }
    }
}
