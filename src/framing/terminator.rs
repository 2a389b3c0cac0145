use std::num::NonZeroU8;
use std::sync::Arc;
use std::{error, fmt};

use super::search::long::Long;
use super::search::needle::Needle;
use super::search::set::{Members, Refusal};
use super::word::Word;

/// What ends the current frame.
///
/// Anything that takes `impl Into<Terminator>` takes a literal: `b"\r\n"` is a delimiter (an empty
/// literal does not compile), `5` is a count, and an `Option<u64>` is a count or none at all. A `usize`
/// is converted with `as u64`, which loses nothing: if it converted by itself, a plain `5` would not.
/// Text and slices convert with `try_into`, since they may be empty.
///
/// A terminator is at most 24 bytes and cheap to clone. Delimiters of up to 22 bytes are stored inline: setting one
/// allocates nothing and prepares nothing. A longer one, and a set, is prepared once and then shared: keep it and clone
/// it.
///
/// ```
/// use asynchat::{Framer, Terminator};
///
/// let mut framer = Framer::new(b"\r\n\r\n");
/// framer.set_terminator(5);
/// assert_eq!(framer.terminator(), Terminator::Count(5));
///
/// let content_length: Option<u64> = None;
/// framer.set_terminator(content_length);
/// assert_eq!(framer.terminator(), Terminator::None);
///
/// let boundary = format!("\r\n--{}", "frontier");
/// framer.set_terminator(Terminator::try_from(boundary)?);
/// # Ok::<(), asynchat::EmptyDelimiter>(())
/// ```
///
/// ```compile_fail
/// asynchat::Framer::new(b"");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Terminator {
    /// The leftmost occurrence of a delimiter, which stays in force for the next frame.
    Bytes(Delimiter),
    /// The member of a set that ends first; of those that end together, the longest.
    AnyOf(DelimiterSet),
    /// A newline of any kind: CR, LF, or CR and LF together, also where they come in different reads.
    ///
    /// A CR ends the frame at once. If the very next byte is LF, it is dropped, whatever terminator is set by then.
    /// Nothing is ever withheld. So a line after which the stream is handed over to another protocol, as after
    /// STARTTLS, is better ended by `b"\r\n"`: its LF may come too late to be dropped.
    Newline,
    /// This many bytes from here. When it is spent the terminator becomes `None`; `Count(0)` ends the frame at once,
    /// before any input, exactly once.
    ///
    /// A count states its own size, which no [`Limit`](crate::Limit) governs. It is often the peer's
    /// word: compare it with what you allow before you set it.
    Count(u64),
    /// This many bytes from here, and then exactly these: a counted frame with its end, as Redis and
    /// memcached write them. See [`Terminator::count_then`].
    CountThen(CountThen),
    /// Nothing: everything is chunks, until another terminator is set.
    None,
}

impl Terminator {
    /// Any of several delimiters: see [`DelimiterSet::new`].
    ///
    /// ```
    /// use asynchat::{Event, Framer, Terminator};
    ///
    /// let mut framer = Framer::new(Terminator::any_of(["\n", "\r\n"])?);
    /// assert_eq!(framer.next(b"HELO\r\n"), Ok(Some(Event::Chunk(&b"HELO"[..]))));
    /// # Ok::<(), asynchat::DelimiterSetError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`DelimiterSet::new`].
    pub fn any_of<I>(members: I) -> Result<Self, DelimiterSetError>
    where
        I: IntoIterator,
        I::Item: AsRef<[u8]>,
    {
        DelimiterSet::new(members).map(Terminator::AnyOf)
    }

    /// A counted frame with its end: `count` bytes, and then exactly `end`, which has 1 to 8 bytes.
    ///
    /// The payload is delivered like any other. The frame ends by
    /// [`End::Terminator`](crate::End::Terminator) when its end has been seen and is right; no byte of
    /// the end is payload. Then the delimiter that was set last is in force again (or `None`, if there
    /// was none).
    ///
    /// Anything else in the place of the end is [`End::WrongEnd`](crate::End::WrongEnd), and the bytes from there on
    /// belong to no frame. Another terminator that is set at that event governs them. The delimiter that was set last
    /// is in force again already, so setting it changes nothing; [`resume`](crate::Framer::resume) lets it govern them.
    /// If neither is done, [`Limit::Skip`](crate::Limit::Skip) drops them up to and including the delimiter that was
    /// set last, as it does with the rest of an overlong line, and any other limit makes the next call fail with
    /// [`FrameError::WrongEnd`](crate::FrameError::WrongEnd).
    ///
    /// ```
    /// use asynchat::{End, Framer, Step, Terminator};
    ///
    /// let mut framer = Framer::new(b"\r\n");
    /// let input = b"$5\r\nhello\r\n$2\r\n";
    /// let frame = |payload| Ok(Some(Step { payload, end: Some(End::Terminator) }));
    /// assert_eq!(framer.step(input), frame(&b"$5"[..]));
    /// framer.set_terminator(Terminator::count_then(5, b"\r\n"));
    /// assert_eq!(framer.step(input), frame(b"hello"));
    /// assert_eq!(framer.step(input), frame(b"$2"));
    /// ```
    ///
    /// An end of no bytes, or of more than 8, does not compile:
    ///
    /// ```compile_fail
    /// asynchat::Terminator::count_then(5, b"");
    /// ```
    #[inline]
    pub fn count_then<const N: usize>(count: u64, end: &[u8; N]) -> Self {
        const { assert!(N > 0 && N <= Ending::MAX, "an end has 1 to 8 bytes") };
        let mut bytes = [0; Ending::MAX];
        bytes[..N].copy_from_slice(end);
        let len = const { NonZeroU8::new(N as u8).expect("it is not 0") };
        Terminator::CountThen(CountThen::new(count, Ending { len, bytes }))
    }
}

impl From<u64> for Terminator {
    #[inline]
    fn from(count: u64) -> Self {
        Terminator::Count(count)
    }
}

/// A count, or nothing: what a `Content-Length` that may be absent says.
impl From<Option<u64>> for Terminator {
    fn from(count: Option<u64>) -> Self {
        count.map_or(Terminator::None, Terminator::Count)
    }
}

impl<const N: usize> From<&[u8; N]> for Terminator {
    #[inline]
    fn from(delimiter: &[u8; N]) -> Self {
        Terminator::Bytes(delimiter.into())
    }
}

impl From<Delimiter> for Terminator {
    fn from(delimiter: Delimiter) -> Self {
        Terminator::Bytes(delimiter)
    }
}

impl From<DelimiterSet> for Terminator {
    fn from(set: DelimiterSet) -> Self {
        Terminator::AnyOf(set)
    }
}

/// A count of bytes, and the exact bytes that must follow them: see [`Terminator::count_then`], which makes one of
/// literals.
///
/// ```
/// use asynchat::{CountThen, Ending, Terminator};
///
/// let counted = CountThen::new(5, Ending::new("\r\n")?);
/// assert_eq!(Terminator::from(counted), Terminator::count_then(5, b"\r\n"));
/// # Ok::<(), asynchat::EndingError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CountThen {
    /// The count, as bytes: the alignment of a `u64` would make a `Terminator` longer than 24 bytes.
    count: [u8; 8],
    end: Ending,
}

impl CountThen {
    /// `count` bytes, and then `end`.
    #[inline]
    pub fn new(count: u64, end: Ending) -> Self {
        CountThen { count: count.to_ne_bytes(), end }
    }

    /// How many bytes the frame has, without its end. Of a frame that is being cut, what remains.
    #[inline]
    pub fn count(&self) -> u64 {
        u64::from_ne_bytes(self.count)
    }

    /// The bytes that must follow them.
    #[inline]
    pub fn end(&self) -> Ending {
        self.end
    }
}

impl fmt::Debug for CountThen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CountThen").field(&self.count()).field(&self.end).finish()
    }
}

impl From<CountThen> for Terminator {
    #[inline]
    fn from(counted: CountThen) -> Self {
        Terminator::CountThen(counted)
    }
}

/// The end of a counted frame, 1 to 8 bytes: see [`Terminator::count_then`].
///
/// ```
/// use asynchat::Ending;
///
/// assert_eq!(Ending::new("\r\n")?.as_bytes(), b"\r\n");
/// assert!(Ending::new("").is_err());
/// assert!(Ending::new("nine bytes").is_err());
/// # Ok::<(), asynchat::EndingError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// `len <= MAX`
    len: NonZeroU8,
    /// Zero from `len` on.
    bytes: [u8; Ending::MAX],
}

impl Ending {
    /// The most bytes that an end has.
    pub const MAX: usize = 8;

    /// Makes an end of any bytes.
    ///
    /// # Errors
    ///
    /// [`EndingError`] if there are none, or more than 8.
    pub fn new(end: impl AsRef<[u8]>) -> Result<Self, EndingError> {
        let end = end.as_ref();
        let mut bytes = [0; Ending::MAX];
        bytes.get_mut(..end.len()).ok_or(EndingError)?.copy_from_slice(end);
        let len = NonZeroU8::new(end.len() as u8).ok_or(EndingError)?;
        Ok(Ending { len, bytes })
    }

    /// The bytes of the end.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len.get()).min(Ending::MAX)]
    }
}

impl From<Ending> for Word {
    #[inline(always)]
    fn from(ending: Ending) -> Self {
        Word::padded(ending.bytes, ending.len)
    }
}

impl From<Word> for Ending {
    fn from(word: Word) -> Self {
        Ending { len: word.count(), bytes: word.bytes() }
    }
}

impl fmt::Debug for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ending(b\"{}\")", self.as_bytes().escape_ascii())
    }
}

/// The end of a counted frame has 1 to 8 bytes.
///
/// ```
/// use asynchat::Ending;
///
/// let error = Ending::new("123456789").unwrap_err();
/// assert_eq!(error.to_string(), "the end of a counted frame has 1 to 8 bytes");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndingError;

impl fmt::Display for EndingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the end of a counted frame has 1 to 8 bytes")
    }
}

impl error::Error for EndingError {}

/// A byte string that ends a frame. It is never empty.
///
/// ```
/// use asynchat::Delimiter;
///
/// let blank_line = Delimiter::from(b"\r\n\r\n");
/// assert_eq!(blank_line.as_bytes(), b"\r\n\r\n");
/// assert!(Delimiter::new("").is_err());
/// ```
#[derive(Clone)]
pub struct Delimiter(pub(crate) DelimiterKind);

#[derive(Clone)]
pub(crate) enum DelimiterKind {
    Short(Needle),
    Long(Arc<Long>),
}

impl Delimiter {
    /// Makes a delimiter of any bytes.
    ///
    /// # Errors
    ///
    /// [`EmptyDelimiter`] if there are none.
    ///
    /// # Panics
    ///
    /// If there are 4 GiB of them: that is more than can be prepared for searching.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, EmptyDelimiter> {
        let bytes = bytes.as_ref();
        if bytes.is_empty() {
            return Err(EmptyDelimiter);
        }
        Ok(Delimiter(match Needle::new(bytes) {
            Some(needle) => DelimiterKind::Short(needle),
            None => DelimiterKind::Long(Arc::new(Long::new(bytes))),
        }))
    }

    /// The bytes of the delimiter.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            DelimiterKind::Short(needle) => needle.as_bytes(),
            DelimiterKind::Long(long) => long.as_bytes(),
        }
    }
}

impl<const N: usize> From<&[u8; N]> for Delimiter {
    #[inline(always)]
    fn from(bytes: &[u8; N]) -> Self {
        const { assert!(N > 0, "a delimiter is never empty") };
        Delimiter(match Needle::literal(bytes) {
            Some(needle) => DelimiterKind::Short(needle),
            None => DelimiterKind::Long(Arc::new(Long::new(bytes))),
        })
    }
}

impl PartialEq for Delimiter {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (DelimiterKind::Short(one), DelimiterKind::Short(other)) => one == other,
            (DelimiterKind::Long(one), DelimiterKind::Long(other)) => {
                Arc::ptr_eq(one, other) || one.as_bytes() == other.as_bytes()
            }
            // One is short and the other long, so they differ in length.
            _ => false,
        }
    }
}

impl Eq for Delimiter {}

impl fmt::Debug for Delimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Delimiter(b\"{}\")", self.as_bytes().escape_ascii())
    }
}

macro_rules! try_from_bytes {
    ($($source:ty),*) => {$(
        impl TryFrom<$source> for Delimiter {
            type Error = EmptyDelimiter;

            fn try_from(bytes: $source) -> Result<Self, EmptyDelimiter> {
                Delimiter::new(bytes)
            }
        }

        impl TryFrom<$source> for Terminator {
            type Error = EmptyDelimiter;

            fn try_from(bytes: $source) -> Result<Self, EmptyDelimiter> {
                Delimiter::new(bytes).map(Terminator::Bytes)
            }
        }
    )*};
}

try_from_bytes!(&[u8], &str, Vec<u8>, String);

/// Several delimiters, any of which ends a frame.
///
/// The member whose occurrence *ends* first wins, and of those that end at the same byte the longest, so
/// that `["\n", "\r\n"]` never leaves a `\r` in the payload. Which one it was,
/// [`Framer::matched`](crate::Framer::matched) says.
///
/// ```
/// use asynchat::DelimiterSet;
///
/// assert!(DelimiterSet::new(["\n", "\r\n"]).is_ok());
/// // "ab" always ends before "abc" does, which therefore could never win.
/// assert!(DelimiterSet::new(["ab", "abc"]).is_err());
/// ```
#[derive(Clone)]
pub struct DelimiterSet(pub(crate) Arc<Members>);

impl DelimiterSet {
    /// Makes a set of delimiters. Their order is the caller's choice and does not change what is found:
    /// [`Framer::matched`](crate::Framer::matched) and [`iter`](Self::iter) follow it, and sets in another order are
    /// not equal. It takes time in proportion to their bytes.
    ///
    /// # Errors
    ///
    /// - [`DelimiterSetError::Empty`] if there is no member.
    /// - [`DelimiterSetError::EmptyMember`] if a member has no bytes.
    /// - [`DelimiterSetError::Duplicate`] if two members are the same.
    /// - [`DelimiterSetError::Unreachable`] if a member occurs inside another other than as its suffix:
    ///   the longer could never be found.
    ///
    /// # Panics
    ///
    /// If the members have some hundred million bytes together.
    pub fn new<I>(members: I) -> Result<Self, DelimiterSetError>
    where
        I: IntoIterator,
        I::Item: AsRef<[u8]>,
    {
        let owned: Vec<I::Item> = members.into_iter().collect();
        let members: Vec<&[u8]> = owned.iter().map(AsRef::as_ref).collect();
        if members.is_empty() {
            return Err(DelimiterSetError::Empty);
        }
        if members.iter().any(|member| member.is_empty()) {
            return Err(DelimiterSetError::EmptyMember);
        }
        match Members::new(&members) {
            Ok(members) => Ok(DelimiterSet(Arc::new(members))),
            Err(Refusal::Duplicate) => Err(DelimiterSetError::Duplicate),
            Err(Refusal::Unreachable) => Err(DelimiterSetError::Unreachable),
        }
    }

    /// The members, in the order they were given.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.0.iter()
    }
}

impl PartialEq for DelimiterSet {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.iter().eq(other.iter())
    }
}

impl Eq for DelimiterSet {}

impl fmt::Debug for DelimiterSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DelimiterSet")?;
        f.debug_set().entries(self.iter().map(Literal)).finish()
    }
}

/// Bytes as they would be written in source.
struct Literal<'a>(&'a [u8]);

impl fmt::Debug for Literal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

/// A delimiter of no bytes was asked for.
///
/// ```
/// use asynchat::Terminator;
///
/// let error = Terminator::try_from(String::new()).unwrap_err();
/// assert_eq!(error.to_string(), "a delimiter has at least one byte");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EmptyDelimiter;

impl fmt::Display for EmptyDelimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a delimiter has at least one byte")
    }
}

impl error::Error for EmptyDelimiter {}

/// A [`DelimiterSet`] could not be made.
///
/// ```
/// use asynchat::{DelimiterSet, DelimiterSetError};
///
/// assert_eq!(DelimiterSet::new(["ab", "abc"]), Err(DelimiterSetError::Unreachable));
/// assert_eq!(DelimiterSet::new(["\n", "\n"]), Err(DelimiterSetError::Duplicate));
/// assert_eq!(DelimiterSet::new(["\n", ""]), Err(DelimiterSetError::EmptyMember));
/// assert_eq!(DelimiterSet::new([""; 0]), Err(DelimiterSetError::Empty));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DelimiterSetError {
    /// The set has no member.
    Empty,
    /// A member has no bytes.
    EmptyMember,
    /// Two members are the same.
    Duplicate,
    /// A member occurs inside another, before its end, so that the longer could never be found.
    Unreachable,
}

impl fmt::Display for DelimiterSetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DelimiterSetError::Empty => "a delimiter set has at least one member",
            DelimiterSetError::EmptyMember => "a delimiter has at least one byte",
            DelimiterSetError::Duplicate => "a delimiter is in the set twice",
            DelimiterSetError::Unreachable => "a delimiter occurs inside another before its end",
        })
    }
}

impl error::Error for DelimiterSetError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminator_fits_in_three_words() {
        assert!(size_of::<Terminator>() <= 24);
    }

    #[test]
    fn literals_convert_at_the_call_site() {
        fn set(terminator: impl Into<Terminator>) -> Terminator {
            terminator.into()
        }
        assert_eq!(set(5), Terminator::Count(5));
        assert_eq!(set(None), Terminator::None);
        assert_eq!(set(Some(7)), Terminator::Count(7));
        assert_eq!(set(b"\r\n"), set(Delimiter::new("\r\n").expect("not empty")));
    }

    #[test]
    fn empty_delimiters_are_refused() {
        assert_eq!(Terminator::try_from(""), Err(EmptyDelimiter));
        assert_eq!(Terminator::try_from(&b""[..]), Err(EmptyDelimiter));
        assert_eq!(Delimiter::try_from(Vec::new()), Err(EmptyDelimiter));
    }

    #[test]
    fn sets_that_could_never_match_a_member_are_refused() {
        let refused = |members: &[&str]| DelimiterSet::new(members).map(drop).err();
        assert_eq!(refused(&[]), Some(DelimiterSetError::Empty));
        assert_eq!(refused(&["a", ""]), Some(DelimiterSetError::EmptyMember));
        assert_eq!(refused(&["a", "b", "a"]), Some(DelimiterSetError::Duplicate));
        assert_eq!(refused(&["abc", "b"]), Some(DelimiterSetError::Unreachable));
        assert_eq!(refused(&["ab", "abc"]), Some(DelimiterSetError::Unreachable));
        // "aa" is a suffix of "baaa", but it also occurs before its end.
        assert_eq!(refused(&["aa", "baaa"]), Some(DelimiterSetError::Unreachable));
        assert_eq!(refused(&["\n", "\r\n", ";"]), None);
    }
}
