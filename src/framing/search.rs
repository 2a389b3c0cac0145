//! Where is the next delimiter, and if there is none, how much of one ends the input?
//!
//! No events, no limits, no counts: one question, [`Search::find`], about the input from a position on.
//! How it is answered is chosen when the delimiter is set ([`Search::aim`]) and changes no answer:
//!
//! | delimiter | strategy | file |
//! |---|---|---|
//! | up to 22 bytes; sets with a shared suffix; newlines | 64 places at once, hits kept | `hits.rs`, `block.rs` |
//! | longer | Knuth-Morris-Pratt across reads, memmem in bulk | `walk.rs`, `long.rs` |
//! | other sets | Aho-Corasick | `walk.rs`, `set.rs` |
//!
//! To add a strategy, add a [`Strategy`], say in [`Strategy::of`] when it is chosen, and answer
//! [`Search::find_on`] with it. What it keeps of the input lives in a type of its own with `forget` and
//! `consume`, and a test of its own beside it that compares it with the plainest way there is.
//!
//! # What is known of the input
//!
//! Answers to come are kept only as long as the input is the same: it begins at the same address, and is
//! no shorter. An input that has moved is searched afresh from where the frame goes on (a `Walk` keeps
//! its state, since it can tell from the bytes). As a guard against a buffer that was replaced in place,
//! a kept hit is compared with the delimiter before it is believed.

pub(crate) mod block;
pub(crate) mod hits;
pub(crate) mod long;
pub(crate) mod needle;
pub(crate) mod set;
pub(crate) mod walk;

use hits::{Hits, Pattern};
use needle::longest_partial;
use walk::{Automaton, Bounds, Walk};

use super::terminator::{Delimiter, DelimiterKind, DelimiterSet, Terminator};

/// What a search says of the input from the position that it was asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A delimiter is `input[start..end]`.
    At {
        start: usize,
        end: usize,
        /// Which member of a set it is.
        member: u32,
    },
    /// There is none. The last bytes, this many, are a proper prefix of one.
    Withheld(usize),
}

/// The delimiter that is set, and what is known of the input ahead.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    /// `Bytes`, `AnyOf` or `Newline`; `None` until one of these is set.
    target: Terminator,
    strategy: Strategy,
    hits: Hits,
    walk: Walk,
    /// Where the input began that `hits` and `walk` know of, and its length. No input begins at 0.
    address: usize,
    len: usize,
}

/// How to find the delimiter that is set. What it needs besides is in `Search::target`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strategy {
    /// There is no delimiter.
    Nothing,
    /// One or two bytes: a hit is a delimiter.
    Hits(Pattern),
    /// From three bytes on: a hit may be one.
    Candidates(Pattern),
    /// A hit is the shared suffix of a set, or may be.
    Suffixes(Pattern),
    /// A hit is CR or LF.
    Newlines,
    /// A [`long::Long`] delimiter.
    Long,
    /// A set's [`set::Members`].
    Members,
}

impl Strategy {
    #[inline]
    fn of(target: &Terminator) -> Self {
        let pattern = |needle: &needle::Needle| Pattern::Both {
            first: needle.first(),
            last: needle.last(),
            span: (needle.len() - 1) as u8,
        };
        match target {
            Terminator::Bytes(Delimiter(DelimiterKind::Short(needle))) => match needle.len() {
                ..=2 => Strategy::Hits(pattern(needle)),
                _ => Strategy::Candidates(pattern(needle)),
            },
            Terminator::Bytes(Delimiter(DelimiterKind::Long(_))) => Strategy::Long,
            Terminator::AnyOf(DelimiterSet(set)) => match set.suffix() {
                Some(suffix) => Strategy::Suffixes(pattern(suffix.needle())),
                None => Strategy::Members,
            },
            Terminator::Newline => Strategy::Newlines,
            Terminator::Count(_) | Terminator::CountThen(_) | Terminator::None => Strategy::Nothing,
        }
    }
}

impl Search {
    pub(crate) fn new() -> Self {
        Search {
            target: Terminator::None,
            strategy: Strategy::Nothing,
            hits: Hits::default(),
            walk: Walk::default(),
            address: 0,
            len: 0,
        }
    }

    /// The delimiter that is set, or `None`.
    #[inline]
    pub(crate) fn target(&self) -> &Terminator {
        &self.target
    }

    /// Sets the delimiter: `Bytes`, `AnyOf` or `Newline`. What is known is of another one, and is
    /// forgotten.
    #[inline]
    pub(crate) fn aim(&mut self, target: Terminator) {
        self.strategy = Strategy::of(&target);
        self.target = target;
        self.forget();
    }

    /// Forgets what is known of the input.
    #[inline]
    pub(crate) fn forget(&mut self) {
        self.address = 0;
        self.walk.forget();
    }

    /// The front of the input has been removed, this many bytes. What is behind is the same.
    #[inline]
    pub(crate) fn consume(&mut self, bytes: usize) {
        if self.address != 0 {
            self.address = self.address.wrapping_add(bytes);
        }
        self.len = self.len.saturating_sub(bytes);
        self.hits.consume(bytes);
        self.walk.consume(bytes);
    }

    /// The input was moved in memory by somebody who knows that its bytes are the same.
    #[inline]
    pub(crate) fn moved_to(&mut self, input: &[u8]) {
        if self.address != 0 {
            self.address = input.as_ptr().addr();
        }
    }

    /// The length of the longest delimiter.
    #[inline]
    pub(crate) fn longest(&self) -> usize {
        match &self.target {
            Terminator::Bytes(Delimiter(DelimiterKind::Short(needle))) => needle.len(),
            Terminator::Bytes(Delimiter(DelimiterKind::Long(long))) => long.longest(),
            Terminator::AnyOf(DelimiterSet(set)) => set.longest(),
            _ => 1,
        }
    }

    /// The next delimiter, where it is known already and no more than a hit has to be looked at: its
    /// position and that behind it. [`found`](Self::found) says that it was used.
    ///
    /// This is [`find`](Self::find) for most frames of most streams, small enough to be inlined where
    /// frames are cut. It answers the same, or `None`.
    #[inline(always)]
    pub(crate) fn find_known(&self, input: &[u8], from: usize) -> Option<(usize, usize)> {
        let Strategy::Hits(Pattern::Both { first, last, span }) = self.strategy else {
            return None;
        };
        let hit = self.hits.known()?;
        let end = hit.wrapping_add(usize::from(span));
        let same = input.as_ptr().addr() == self.address && input.len() == self.len;
        (same && hit >= from && *input.get(end)? == last && input[hit] == first)
            .then_some((hit, end + 1))
    }

    /// The delimiter that was found has been used.
    #[inline(always)]
    pub(crate) fn found(&mut self) {
        self.hits.take();
    }

    /// The first delimiter that begins at or after `from`, or how much of one the input ends with.
    ///
    /// Nothing at or behind `end` is looked at (but for the rest of a block), as if the input ended
    /// there; and if more than `enough` bytes from `from` on are no part of a delimiter, the answer may be
    /// that there is none in the part that was looked at. The answer stays the same until it is used.
    #[inline(never)]
    pub(crate) fn find(&mut self, input: &[u8], from: usize, end: usize, enough: u64) -> Found {
        let address = input.as_ptr().addr();
        let same = address == self.address && input.len() >= self.len;
        if !same {
            self.hits.forget(from);
        }
        self.address = address;
        self.len = input.len();
        self.find_on(input, Bounds { from, end, enough, doubtful: !same })
    }

    /// Answers by the strategy.
    #[inline(always)]
    fn find_on(&mut self, input: &[u8], bounds: Bounds) -> Found {
        let Bounds { from, end, .. } = bounds;
        match (self.strategy, &self.target) {
            (Strategy::Hits(pattern), Terminator::Bytes(delimiter)) => {
                let needle = delimiter.as_bytes();
                let len = needle.len();
                match self.hits.find(pattern, needle, input, from, end) {
                    Some(start) => Found::At { start, end: start + len, member: 0 },
                    None => {
                        let begun = len == 2 && end > from && input[end - 1] == needle[0];
                        Found::Withheld(usize::from(begun))
                    }
                }
            }
            (Strategy::Candidates(pattern), Terminator::Bytes(delimiter)) => {
                let needle = delimiter.as_bytes();
                match find_whole(&mut self.hits, pattern, needle, input, from, end) {
                    Some(start) => Found::At { start, end: start + needle.len(), member: 0 },
                    None => Found::Withheld(longest_partial(needle, &input[from..end])),
                }
            }
            (Strategy::Suffixes(pattern), Terminator::AnyOf(DelimiterSet(set))) => {
                let Some(suffix) = set.suffix() else {
                    return Found::Withheld(0);
                };
                let needle = suffix.needle().as_bytes();
                match find_whole(&mut self.hits, pattern, needle, input, from, end) {
                    Some(hit) => suffix.widen(input, from, hit),
                    None => Found::Withheld(suffix.longest_partial(&input[from..end])),
                }
            }
            (Strategy::Newlines, _) => {
                let pattern = Pattern::Either(b'\r', b'\n');
                match self.hits.find(pattern, b"\n", input, from, end) {
                    Some(start) => Found::At { start, end: start + 1, member: 0 },
                    None => Found::Withheld(0),
                }
            }
            (Strategy::Long, Terminator::Bytes(Delimiter(DelimiterKind::Long(long)))) => {
                self.walk.find(&**long, input, bounds)
            }
            (Strategy::Members, Terminator::AnyOf(DelimiterSet(set))) => {
                self.walk.find(&**set, input, bounds)
            }
            _ => Found::Withheld(0),
        }
    }
}

/// The first hit that is the needle. What turns out to be none is taken.
#[inline]
fn find_whole(
    hits: &mut Hits,
    pattern: Pattern,
    needle: &[u8],
    input: &[u8],
    from: usize,
    end: usize,
) -> Option<usize> {
    loop {
        let hit = hits.find(pattern, needle, input, from, end)?;
        if input.get(hit..).is_some_and(|rest| rest.starts_with(needle)) {
            return Some(hit);
        }
        hits.take();
    }
}
