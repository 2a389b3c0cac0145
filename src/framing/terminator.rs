use std::sync::Arc;
use std::{error, fmt};

use super::search::{Automaton, Needle, SharedSuffix};

/// What ends the current frame.
///
/// Anything that takes `impl Into<Terminator>` takes a literal: `b"\r\n"` is a delimiter (an empty
/// literal does not compile), `5` is a count, and an `Option<u64>` is a count or none at all.
/// Text and slices convert with `try_into`, since they may be empty.
///
/// A terminator is at most 24 bytes and cheap to clone. Delimiters of up to 22 bytes are held in place:
/// setting one allocates nothing and prepares nothing. A longer one, and a set, is prepared once and
/// then shared: keep it and clone it.
///
/// ```
/// use asynchat::{Framer, Terminator};
///
/// let mut framer = Framer::new(b"\r\n\r\n");
/// framer.set_terminator(5);
/// assert_eq!(framer.terminator(), &Terminator::Count(5));
///
/// let content_length: Option<u64> = None;
/// framer.set_terminator(content_length);
/// assert_eq!(framer.terminator(), &Terminator::None);
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
    /// The leftmost occurrence of a delimiter, which stays armed for the next frame.
    Bytes(Delimiter),
    /// The member of a set that ends first; of those that end together, the longest.
    AnyOf(DelimiterSet),
    /// This many bytes from here. As it is spent the terminator becomes `None`; `Count(0)` ends the
    /// frame at once, before any input, exactly once.
    Count(u64),
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
    Long(Arc<Automaton>),
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
    /// If there are some hundred million of them: that is more than can be prepared for searching.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, EmptyDelimiter> {
        let bytes = bytes.as_ref();
        if bytes.is_empty() {
            return Err(EmptyDelimiter);
        }
        Ok(Delimiter(match Needle::new(bytes) {
            Some(needle) => DelimiterKind::Short(needle),
            None => DelimiterKind::Long(Arc::new(Automaton::new(&[bytes]))),
        }))
    }

    /// The bytes of the delimiter.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            DelimiterKind::Short(needle) => needle.as_bytes(),
            DelimiterKind::Long(automaton) => automaton.member(0),
        }
    }
}

impl<const N: usize> From<&[u8; N]> for Delimiter {
    #[inline]
    fn from(bytes: &[u8; N]) -> Self {
        const { assert!(N > 0, "a delimiter is never empty") };
        Delimiter(match Needle::literal(bytes) {
            Some(needle) => DelimiterKind::Short(needle),
            None => DelimiterKind::Long(Arc::new(Automaton::new(&[bytes]))),
        })
    }
}

impl PartialEq for Delimiter {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
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
pub struct DelimiterSet(pub(crate) Arc<Set>);

pub(crate) struct Set {
    pub(crate) automaton: Automaton,
    /// A faster way to search, where the members allow it.
    pub(crate) suffix: Option<SharedSuffix>,
}

impl DelimiterSet {
    /// Makes a set of delimiters, in an order of the caller's choosing, which only
    /// [`Framer::matched`](crate::Framer::matched) reflects.
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
        for (i, member) in members.iter().enumerate() {
            if member.is_empty() {
                return Err(DelimiterSetError::EmptyMember);
            }
            for (j, other) in members.iter().enumerate() {
                if i < j && member == other {
                    return Err(DelimiterSetError::Duplicate);
                }
                let all_but_last = &other[..other.len().saturating_sub(1)];
                if i != j && memchr::memmem::find(all_but_last, member).is_some() {
                    return Err(DelimiterSetError::Unreachable);
                }
            }
        }
        Ok(DelimiterSet(Arc::new(Set {
            suffix: SharedSuffix::new(&members),
            automaton: Automaton::new(&members),
        })))
    }

    /// The members, in the order they were given.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.0.automaton.members()
    }
}

impl PartialEq for DelimiterSet {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
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
        // As a suffix and elsewhere too: "aa" inside "baaa" ends before it.
        assert_eq!(refused(&["aa", "baaa"]), Some(DelimiterSetError::Unreachable));
        assert_eq!(refused(&["\n", "\r\n", ";"]), None);
    }
}
