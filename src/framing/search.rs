//! Where is the next delimiter, and if there is none, how much of one ends the input?
//!
//! No events, no limits, no counts: one question, [`Search::find`], about the input from a position on.
//! How it is answered is chosen when the delimiter is set ([`Search::aim`]) and changes no answer:
//!
//! | delimiter | strategy | file |
//! |---|---|---|
//! | up to 22 bytes; sets with a shared suffix; newlines | 64 places at once, and a map of the hits | `hits.rs`, `block.rs` |
//! | longer | Knuth-Morris-Pratt across reads, memmem in bulk | `walk.rs`, `long.rs` |
//! | other sets | Aho-Corasick | `walk.rs`, `set.rs` |
//!
//! Where one or two bytes give a delimiter away, a new [`Pattern`] in `hits.rs` and a new [`Hit`] are enough. To add
//! another strategy, add a [`Strategy`], say in [`Strategy::of`] when it is chosen, and answer
//! [`Search::find`] with it. What it keeps of the input lives in a type of its own with `forget` and
//! `consume`, and a test of its own beside it that compares it with the plainest way there is.
//!
//! `find_known`, `find_near` and `find_none` answer the same question where the answer is at hand. They are
//! small, so that they can be inlined where frames are cut, and say `None` for whatever takes more.
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

use hits::{FEW, Hits, Pattern};
use memchr::{memchr, memchr2, memmem};
use needle::{Needle, longest_partial};
use walk::{Automaton, Bounds, Walk};

use super::terminator::{Delimiter, DelimiterKind, DelimiterSet, Terminator};
use super::word::Word;

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
    /// All of it was looked at, and there is no delimiter.
    exhausted: bool,
}

/// How to find the delimiter that is set. What it needs besides is in `Search::target`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strategy {
    /// There is no delimiter.
    Nothing,
    /// Look for hits, which are this delimiter or something with the same first and last byte.
    Delimiter(Word),
    /// Look for hits, which are something else.
    Hits(Pattern, Hit),
    /// Walk with a [`long::Long`] delimiter.
    Long,
    /// Walk with a set's [`set::Members`].
    Members,
}

/// What a hit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hit {
    /// A delimiter too long for a [`Word`], or something with the same first and last byte.
    Candidate,
    /// The suffix that all members of a set share, or something with the same first and last byte.
    Suffix,
    /// CR or LF.
    Newline,
}

impl Strategy {
    #[inline]
    fn of(target: &Terminator) -> Self {
        match target {
            Terminator::Bytes(Delimiter(DelimiterKind::Short(needle))) => {
                match Word::new(needle.as_bytes()) {
                    Some(word) => Strategy::Delimiter(word),
                    None => Strategy::Hits(pattern_of(needle), Hit::Candidate),
                }
            }
            Terminator::Bytes(Delimiter(DelimiterKind::Long(_))) => Strategy::Long,
            Terminator::AnyOf(DelimiterSet(set)) => match set.suffix() {
                Some(suffix) => Strategy::Hits(pattern_of(suffix.needle()), Hit::Suffix),
                None => Strategy::Members,
            },
            Terminator::Newline => Strategy::Hits(Pattern::Either(b'\r', b'\n'), Hit::Newline),
            Terminator::Count(_) | Terminator::CountThen(_) | Terminator::None => Strategy::Nothing,
        }
    }
}

fn pattern_of(needle: &Needle) -> Pattern {
    Pattern::Both { first: needle.first(), last: needle.last(), span: (needle.len() - 1) as u8 }
}

/// What the first and the last byte of a delimiter look like.
#[inline(always)]
fn ends_of(word: Word) -> Pattern {
    Pattern::Both { first: word.first(), last: word.last(), span: word.count().get() - 1 }
}

/// Where the first delimiter in these bytes begins, if there is one.
#[cfg(feature = "tokio")]
pub(crate) fn first_delimiter(delimiter: &Terminator, bytes: &[u8]) -> Option<usize> {
    let mut search = Search::new();
    search.aim(delimiter.clone());
    match search.find(bytes, 0, bytes.len(), u64::MAX) {
        Found::At { start, .. } => Some(start),
        Found::Withheld(_) => None,
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
            exhausted: false,
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
    #[cfg(feature = "tokio")]
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

    /// The next delimiter, where it is known already or near, and a hit is all that has to be looked at:
    /// its position and that behind it.
    ///
    /// This is [`find`](Self::find) for most frames of most streams, small enough to be inlined where
    /// frames are cut. It answers the same, or `None`.
    #[inline(always)]
    pub(crate) fn find_known(&mut self, input: &[u8], from: usize) -> Option<(usize, usize)> {
        let Strategy::Delimiter(word) = self.strategy else {
            return None;
        };
        let hit = match self.hits.next(from) {
            Some(hit) => hit,
            None if self.exhausted || from >= input.len() => return None,
            None => self.hits.look_near(ends_of(word), input, from)?,
        };
        word.begins(input.get(hit..)?).then_some((hit, hit + word.len()))
    }

    /// As [`find_known`](Self::find_known), whatever a hit is.
    #[inline(always)]
    pub(crate) fn find_near(&mut self, input: &[u8], from: usize) -> Option<Found> {
        let Strategy::Hits(pattern, hit) = self.strategy else {
            return None;
        };
        let mut at = from;
        loop {
            let place = match self.hits.next(at) {
                Some(place) => place,
                None => self.hits.look_near(pattern, input, at)?,
            };
            if pattern.is_at(input, place) {
                if let Some(found) = accept(&self.target, pattern, hit, input, from, place) {
                    return Some(found);
                }
            }
            at = place + 1;
        }
    }

    /// As [`find`](Self::find), where no delimiter was found and a few bytes have come since that end none:
    /// how many bytes at the end may be the beginning of one.
    ///
    /// It answers the same, or `None`. Peers that send byte by byte make it worth its while.
    #[inline(always)]
    pub(crate) fn find_none(&mut self, input: &[u8], from: usize) -> Option<usize> {
        let address = input.as_ptr().addr();
        // If nothing was left, there is nothing that is known, and so nothing wrong, wherever the input is now.
        if !self.exhausted || (self.len > 0 && address != self.address) {
            return None;
        }
        let few = input.get(self.len..).filter(|few| few.len() <= FEW)?;
        // The caller may have dropped more than is known of.
        let left = input.get(from..)?;
        let partial = match self.strategy {
            Strategy::Delimiter(word) => {
                if few.iter().any(|&byte| byte == word.last()) {
                    return None;
                }
                self.hits.no_hit_before((input.len() + 1).saturating_sub(word.len()));
                longest_partial(word.bytes().get(..word.len())?, left)
            }
            Strategy::Long => match self.find_walking(input, Bounds::all(input, from)) {
                Found::Withheld(partial) => partial,
                Found::At { .. } => return None,
            },
            _ => return None,
        };
        (self.address, self.len) = (address, input.len());
        Some(partial)
    }

    /// Whether the last answer, if its input is still known, was that there is no delimiter in it.
    #[inline(always)]
    pub(crate) fn is_exhausted(&self) -> bool {
        self.exhausted
    }

    /// Nothing is left of the input, so there is no delimiter in it.
    #[inline(always)]
    pub(crate) fn use_up(&mut self) {
        self.exhausted = true;
    }

    /// The last answer is one no more, though what was found still holds: the question has changed.
    #[inline(always)]
    pub(crate) fn look_again(&mut self) {
        self.exhausted = false;
    }

    /// Whether this is the input that was looked at last. No input is like no other, wherever it is.
    #[inline(always)]
    pub(crate) fn is_known(&self, input: &[u8]) -> bool {
        (input.as_ptr().addr() == self.address || self.len == 0) && input.len() == self.len
    }

    /// A look at input that is not known, so that [`find_known`](Self::find_known) may answer for it. What takes a
    /// walk is left to [`find`](Self::find), which has to know that the input is another: it says no.
    #[inline(always)]
    pub(crate) fn learn(&mut self, input: &[u8], from: usize) -> bool {
        let is_short = matches!(self.strategy, Strategy::Delimiter(_));
        if is_short {
            self.remember(input, from);
        }
        is_short
    }

    /// What is known of the input is kept if it is the same and has grown, which is returned, and no answer holds
    /// any more.
    #[inline(always)]
    fn remember(&mut self, input: &[u8], from: usize) -> bool {
        let address = input.as_ptr().addr();
        let same = address == self.address && input.len() >= self.len;
        if !same {
            self.hits.forget(from);
        }
        (self.address, self.len) = (address, input.len());
        self.exhausted = false;
        same
    }

    /// A look at the input without a search: what is known is forgotten if it is of another.
    #[inline]
    pub(crate) fn see(&mut self, input: &[u8]) {
        if input.as_ptr().addr() != self.address || input.len() < self.len {
            self.forget();
        }
    }

    /// The first delimiter that begins at or after `from`, or how much of one the input ends with.
    ///
    /// Nothing at or behind `end` is looked at (but for the rest of a block), as if the input ended
    /// there; and if more than `enough` bytes from `from` on are no part of a delimiter, the answer may be
    /// that there is none in the part that was looked at. The answer stays the same until it is used.
    #[inline(always)]
    pub(crate) fn find(&mut self, input: &[u8], from: usize, end: usize, enough: u64) -> Found {
        let same = self.remember(input, from);
        let found = match self.strategy {
            Strategy::Delimiter(word) => self.find_delimiter(word, input, from, end),
            Strategy::Hits(pattern, hit) => self.find_hit(pattern, hit, input, from, end),
            _ => self.find_walking(input, Bounds { from, end, enough, doubtful: !same }),
        };
        self.exhausted = end == input.len() && matches!(found, Found::Withheld(_));
        found
    }

    /// A delimiter of up to eight bytes.
    #[inline(always)]
    fn find_delimiter(&mut self, word: Word, input: &[u8], from: usize, end: usize) -> Found {
        let bytes = &word.bytes()[..word.len()];
        let mut at = from;
        while let Some(place) = self.hits.find(ends_of(word), input, at, end, |rest| match bytes {
            &[byte] => memchr(byte, rest),
            _ => memmem::find(rest, bytes),
        }) {
            if word.begins(&input[place..]) {
                return Found::At { start: place, end: place + word.len(), member: 0 };
            }
            at = place + 1;
        }
        Found::Withheld(longest_partial(bytes, &input[from..end]))
    }

    #[inline(never)]
    fn find_hit(
        &mut self,
        pattern: Pattern,
        hit: Hit,
        input: &[u8],
        from: usize,
        end: usize,
    ) -> Found {
        let target = &self.target;
        let mut at = from;
        while let Some(place) = self.hits.find(pattern, input, at, end, |rest| match pattern {
            Pattern::Both { first, span: 0, .. } => memchr(first, rest),
            Pattern::Both { .. } => memmem::find(rest, needle_of(target)),
            Pattern::Either(one, other) => memchr2(one, other, rest),
        }) {
            if let Some(found) = accept(target, pattern, hit, input, from, place) {
                return found;
            }
            at = place + 1;
        }
        Found::Withheld(begun(target, &input[from..end]))
    }

    #[inline(never)]
    fn find_walking(&mut self, input: &[u8], bounds: Bounds) -> Found {
        match &self.target {
            Terminator::Bytes(Delimiter(DelimiterKind::Long(long))) => {
                self.walk.find(&**long, input, bounds)
            }
            Terminator::AnyOf(DelimiterSet(set)) => self.walk.find(&**set, input, bounds),
            _ => Found::Withheld(0),
        }
    }
}

/// The delimiter at a hit, if it is one.
#[inline(always)]
fn accept(
    target: &Terminator,
    pattern: Pattern,
    hit: Hit,
    input: &[u8],
    from: usize,
    place: usize,
) -> Option<Found> {
    let len = match (hit, target) {
        (Hit::Suffix, Terminator::AnyOf(DelimiterSet(set))) => {
            return set.suffix().and_then(|suffix| suffix.widen(input, from, place));
        }
        (Hit::Candidate, Terminator::Bytes(Delimiter(DelimiterKind::Short(needle))))
            if !input[place..].starts_with(needle.as_bytes()) =>
        {
            return None;
        }
        _ => pattern.span() + 1,
    };
    Some(Found::At { start: place, end: place + len, member: 0 })
}

/// How many bytes at the end of the input are the beginning of a delimiter that a hit would be of.
fn begun(target: &Terminator, input: &[u8]) -> usize {
    match target {
        Terminator::Bytes(delimiter) => longest_partial(delimiter.as_bytes(), input),
        Terminator::AnyOf(DelimiterSet(set)) => {
            set.suffix().map_or(0, |suffix| suffix.longest_partial(input))
        }
        _ => 0,
    }
}

/// What a hit is the first and the last byte of.
fn needle_of(target: &Terminator) -> &[u8] {
    match target {
        Terminator::Bytes(delimiter) => delimiter.as_bytes(),
        Terminator::AnyOf(DelimiterSet(set)) => {
            set.suffix().map_or(&[], |suffix| suffix.needle().as_bytes())
        }
        _ => &[],
    }
}
