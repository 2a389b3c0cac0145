//! Finds the next delimiter in the input, and if there is none, how much of one the input ends with.
//!
//! There are no events, limits or counts here. There is one question, [`Search::find`], about the input from a position
//! on. The strategy by which it is answered is chosen when the delimiter is set ([`Search::aim`]). The answer is the
//! same with each:
//!
//! | delimiter | strategy | file |
//! |---|---|---|
//! | up to 22 bytes; sets with a shared suffix; newlines | 64 positions at once, and a bitmap of hits | `hits.rs`, `block.rs` |
//! | longer | Knuth-Morris-Pratt across reads, memmem in bulk | `walk.rs`, `long.rs` |
//! | other sets | Aho-Corasick | `walk.rs`, `set.rs` |
//!
//! For a delimiter that can be found by one or two of its bytes, a new [`Pattern`] in `hits.rs` and a new [`Hit`] are
//! enough. To add another strategy, add a [`Strategy`], say in [`Strategy::of`] when it is chosen, and answer
//! [`Search::find`] with it. What it keeps of the input lives in a type of its own with `forget` and `consume`, and a
//! test of its own beside it that compares it with the simplest search there is.
//!
//! # What is known of the input
//!
//! Hits that were seen ahead, and the answer that there is no delimiter, are kept only as long as the input is the
//! same: it begins at the same address, and is no shorter. An input that has moved is searched afresh from where the
//! frame goes on (a `Walk` keeps its state if the bytes confirm it). As a guard against a buffer whose bytes were
//! replaced in place, a kept hit is compared with the delimiter before it is used.
//!
//! [`Search::find_near`] answers the same question if what is known, or a look at the next few blocks, is enough for
//! it. It is small enough to be inlined where frames are cut.

pub(crate) mod block;
pub(crate) mod hits;
pub(crate) mod long;
pub(crate) mod needle;
pub(crate) mod set;
pub(crate) mod walk;

use std::num::NonZeroUsize;

use hits::{FEW, Hits, Pattern};
use memchr::{memchr, memchr2, memmem};
use needle::{Needle, longest_partial};
use walk::{Automaton, Bounds, Walk};

use super::terminator::{Delimiter, DelimiterKind, DelimiterSet, Terminator};
use super::word::Word;

/// What a search says of the input, from the position on that it was asked about. It is two words, so that it is
/// returned in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Next {
    /// No byte before this position is part of a delimiter.
    pub(crate) before: usize,
    /// If a delimiter begins at `before`, the position behind it. Otherwise the bytes from `before` on are the
    /// beginning of a delimiter, or there are none, or they were not looked at.
    pub(crate) end: Option<NonZeroUsize>,
}

impl Next {
    /// There is no delimiter, and no byte before this position is part of one.
    #[inline(always)]
    fn nothing(before: usize) -> Self {
        Next { before, end: None }
    }
}

/// What a strategy has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A delimiter is `input[start..end]`.
    At {
        start: usize,
        end: usize,
        /// Which member of a set it is.
        member: u32,
    },
    /// There is none, and no byte before this position is part of one.
    Nothing { before: usize },
}

/// The delimiter that is set, and what is known of the input ahead.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    /// `Bytes`, `AnyOf` or `Newline`; `None` until one of these is set.
    target: Terminator,
    strategy: Strategy,
    hits: Hits,
    walk: Walk,
    /// The address at which the input began that was looked at last, and its length. The address is 0 if nothing is
    /// known, because no input begins there.
    address: usize,
    len: usize,
    /// If all of that input was looked at and there is no delimiter in it: the position before which no byte is part of
    /// one. Otherwise it is [`UNKNOWN`].
    nothing_before: usize,
    /// Which member of a set was found last, or 0.
    member: u32,
}

/// How to find the delimiter that is set. What it needs besides is in `Search::target`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strategy {
    /// There is no delimiter.
    Nothing,
    /// Look for hits, which are this delimiter or something with the same first and last byte.
    Delimiter(Word),
    /// Look for hits of another kind.
    Hits(Pattern, Hit),
    /// Walk with a [`long::Long`] delimiter.
    Long,
    /// Walk with a set's [`set::Members`].
    Members,
}

/// What there is at a hit of [`Strategy::Hits`].
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

/// The pattern that a delimiter's first and last byte are.
#[inline(always)]
fn ends_of(word: Word) -> Pattern {
    Pattern::Both { first: word.first(), last: word.last(), span: word.count().get() - 1 }
}

/// Where the first delimiter in these bytes begins, if there is one.
#[cfg(feature = "tokio")]
pub(crate) fn first_delimiter(delimiter: &Terminator, bytes: &[u8]) -> Option<usize> {
    let mut search = Search::new();
    search.aim(delimiter.clone());
    let Next { before, end } = search.find(bytes, 0, u64::MAX);
    end.map(|_| before)
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
            nothing_before: UNKNOWN,
            member: 0,
        }
    }

    /// The delimiter that is set, or `None`.
    #[inline]
    pub(crate) fn target(&self) -> &Terminator {
        &self.target
    }

    /// Sets the delimiter: `Bytes`, `AnyOf` or `Newline`. What is known of the input concerns the delimiter before, and
    /// is forgotten.
    #[inline]
    pub(crate) fn aim(&mut self, target: Terminator) {
        self.strategy = Strategy::of(&target);
        self.target = target;
        self.member = 0;
        self.forget();
    }

    /// Forgets what is known of the input.
    #[inline]
    pub(crate) fn forget(&mut self) {
        self.address = 0;
        self.walk.forget();
    }

    /// This many bytes have been removed from the front of the input. What is behind them is the same.
    #[inline]
    pub(crate) fn consume(&mut self, bytes: usize) {
        if self.address != 0 {
            self.address = self.address.wrapping_add(bytes);
        }
        self.len = self.len.saturating_sub(bytes);
        self.nothing_before = self.nothing_before.checked_sub(bytes).unwrap_or(UNKNOWN);
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

    /// Which member of a set was found last; 0 of other delimiters.
    #[inline(always)]
    pub(crate) fn member(&self) -> u32 {
        self.member
    }

    /// Whether a delimiter that ends at this position is a CR with which the input ends, so that an LF belongs to it if
    /// that comes next.
    #[inline(always)]
    pub(crate) fn awaits_lf(&self, input: &[u8], end: usize) -> bool {
        end == input.len()
            && matches!(self.target, Terminator::Newline)
            && input.last() == Some(&b'\r')
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

    /// Notes that this is the input now, without a search: what is known of another one is forgotten.
    #[inline]
    pub(crate) fn see(&mut self, input: &[u8]) {
        if !self.has_grown_to(input) {
            self.forget();
        }
    }

    /// Whether this is the input that was looked at last, and perhaps more behind it.
    #[inline(always)]
    fn has_grown_to(&self, input: &[u8]) -> bool {
        input.as_ptr().addr() == self.address && input.len() >= self.len
    }

    /// What [`find`](Self::find) would answer, if that is known already, or seen by a look at the next few blocks. The
    /// delimiters that it finds are those of [`Strategy::Delimiter`]: of up to 8 bytes, and neither of a set nor
    /// universal newlines.
    ///
    /// A caller that leaves this out gets the same answers from `find`. It is there for speed: most frames of most
    /// streams are short and end by a short delimiter, and a call would take as long as all of this, which is inlined.
    #[inline(always)]
    pub(crate) fn find_near(&mut self, input: &[u8], from: usize) -> Option<Next> {
        // The address of an empty input has no meaning.
        let is_same = input.as_ptr().addr() == self.address || self.len == 0;
        if !is_same {
            return None;
        }
        if input.len() != self.len {
            return if self.knows_of_none(from) {
                self.none_in_few(input, from, self.len)
            } else {
                None
            };
        }
        if let Strategy::Delimiter(word) = self.strategy {
            if let Some(hit) = self.hits.next(from) {
                return delimiter_at(word, input, hit);
            }
        }
        if from == self.len {
            return Some(Next::nothing(from));
        }
        if self.knows_of_none(from) {
            return Some(Next::nothing(self.nothing_before));
        }
        match self.strategy {
            Strategy::Delimiter(_) => self.look_near(input, from),
            _ => None,
        }
    }

    /// Whether all of the input that was looked at last has no delimiter from this position on.
    #[inline(always)]
    fn knows_of_none(&self, from: usize) -> bool {
        from <= self.nothing_before && self.nothing_before <= self.len
    }

    /// Answers that there is no delimiter, if only few bytes of the input are new, those from `new` on, and none of them
    /// ends a short delimiter. It saves peers that send byte by byte the search.
    #[inline(always)]
    fn none_in_few(&mut self, input: &[u8], from: usize, new: usize) -> Option<Next> {
        let Strategy::Delimiter(word) = self.strategy else {
            return None;
        };
        let few = input.get(new..).filter(|few| few.len() <= FEW)?;
        if few.iter().any(|&byte| byte == word.last()) {
            return None;
        }
        let bytes = word.bytes();
        let partial = longest_partial(bytes.get(..word.len())?, input.get(from..)?);
        (self.address, self.len) = (input.as_ptr().addr(), input.len());
        self.nothing_before = input.len() - partial;
        Some(Next::nothing(self.nothing_before))
    }

    /// Looks at the next few blocks of the input. Returns `None` if there is no hit in them, or the first is not a
    /// delimiter.
    #[inline(always)]
    fn look_near(&mut self, input: &[u8], from: usize) -> Option<Next> {
        match self.strategy {
            Strategy::Delimiter(word) => {
                let place = self.hits.look_near(ends_of(word), input, from)?;
                delimiter_at(word, input, place)
            }
            Strategy::Hits(pattern, hit) => {
                let place = match self.hits.next(from) {
                    Some(place) => place,
                    None => self.hits.look_near(pattern, input, from)?,
                };
                if !pattern.is_at(input, place) {
                    return None;
                }
                let found = accept(&self.target, pattern, hit, input, from, place)?;
                Some(self.next(found))
            }
            _ => None,
        }
    }

    /// The first delimiter that begins at or after `from`, or the position up to which there is none.
    ///
    /// If more than `enough` bytes from `from` on are no part of a delimiter, the answer may be that there is none,
    /// although there is one behind them. The same question about the same input has the same answer.
    #[inline]
    pub(crate) fn find(&mut self, input: &[u8], from: usize, enough: u64) -> Next {
        let Some(left) = input.get(from..) else {
            return Next::nothing(input.len());
        };
        let same = self.has_grown_to(input);
        let nothing_new = same && input.len() == self.len;
        // No delimiter ends at or before this position: only what is behind it is new.
        let new = if same && self.nothing_before <= self.len { from.max(self.len) } else { from };
        if !same {
            self.hits.forget(from);
        }
        if let Some(next) = self.none_in_few(input, from, new) {
            return next;
        }
        (self.address, self.len) = (input.as_ptr().addr(), input.len());
        self.nothing_before = UNKNOWN;
        // Most frames that are not known end near. Where each read brings little, a look at a block is worth it only
        // for the short delimiters, which `find_near` would look for there anyway.
        if nothing_new || matches!(self.strategy, Strategy::Delimiter(_)) {
            if let Some(next) = self.look_near(input, from) {
                return next;
            }
        }
        let is_all = enough >= left.len() as u64;
        // To find that `enough` bytes are no part of a delimiter, nothing behind this position has to be looked at.
        let end = match is_all {
            true => input.len(),
            false => input.len().min(from + enough as usize + self.longest()),
        };
        let found = match self.strategy {
            Strategy::Nothing => Found::Nothing { before: end },
            Strategy::Delimiter(word) => {
                self.find_hit(ends_of(word), Hit::Candidate, input, from, end)
            }
            Strategy::Hits(pattern, hit) => self.find_hit(pattern, hit, input, from, end),
            Strategy::Long | Strategy::Members => {
                self.find_walking(input, Bounds { from, end, enough, doubtful: !same })
            }
        };
        match found {
            Found::Nothing { before } if is_all => self.nothing_before = before,
            _ => {}
        }
        self.next(found)
    }

    /// Notes which member was found, and makes the answer for the caller.
    #[inline(always)]
    fn next(&mut self, found: Found) -> Next {
        match found {
            Found::At { start, end, member } => {
                self.member = member;
                Next { before: start, end: NonZeroUsize::new(end) }
            }
            Found::Nothing { before } => Next::nothing(before),
        }
    }

    /// Searches for a delimiter by hits: looks at each until one is a delimiter.
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
        Found::Nothing { before: end - begun(target, &input[from..end]) }
    }

    /// Searches with an automaton.
    #[inline(never)]
    fn find_walking(&mut self, input: &[u8], bounds: Bounds) -> Found {
        match &self.target {
            Terminator::Bytes(Delimiter(DelimiterKind::Long(long))) => {
                self.walk.find(&**long, input, bounds)
            }
            Terminator::AnyOf(DelimiterSet(set)) => self.walk.find(&**set, input, bounds),
            _ => Found::Nothing { before: bounds.end },
        }
    }
}

/// The short delimiter at a hit, if there is one.
#[inline(always)]
fn delimiter_at(word: Word, input: &[u8], hit: usize) -> Option<Next> {
    let is_one = word.begins(input.get(hit..)?);
    is_one.then(|| Next { before: hit, end: NonZeroUsize::new(hit + word.len()) })
}

/// The delimiter at a hit, if there is one.
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
        (Hit::Newline, _) => {
            let crlf = input[place] == b'\r' && input.get(place + 1) == Some(&b'\n');
            1 + usize::from(crlf)
        }
        _ => pattern.span() + 1,
    };
    Some(Found::At { start: place, end: place + len, member: 0 })
}

/// How many bytes at the end of the input are the beginning of a delimiter, for delimiters that are found by hits.
fn begun(target: &Terminator, input: &[u8]) -> usize {
    match target {
        Terminator::Bytes(delimiter) => longest_partial(delimiter.as_bytes(), input),
        Terminator::AnyOf(DelimiterSet(set)) => {
            set.suffix().map_or(0, |suffix| suffix.longest_partial(input))
        }
        _ => 0,
    }
}

/// The bytes whose first and last make a hit: the delimiter, or the suffix that the members of a set share.
fn needle_of(target: &Terminator) -> &[u8] {
    match target {
        Terminator::Bytes(delimiter) => delimiter.as_bytes(),
        Terminator::AnyOf(DelimiterSet(set)) => {
            set.suffix().map_or(&[], |suffix| suffix.needle().as_bytes())
        }
        _ => &[],
    }
}

/// The value of `nothing_before` when it is not known: a position that is behind all inputs.
const UNKNOWN: usize = usize::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    fn aimed_at(delimiter: &Terminator) -> Search {
        let mut search = Search::new();
        search.aim(delimiter.clone());
        search
    }

    /// Searches an input that grows at its end and loses bytes at its front, and compares each answer with that of a
    /// new search.
    #[test]
    fn what_is_near_is_what_a_search_that_knows_nothing_finds() {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random as usize % below
        };
        let delimiters = [
            Terminator::from(b"\n"),
            Terminator::from(b"ab"),
            Terminator::from(b"aba"),
            Terminator::from(b"abababababababababababab"),
            Terminator::Newline,
            Terminator::any_of(["ab", "b"]).expect("a set"),
        ];
        let mut near = [0; 2];
        for _ in 0..3000 {
            let delimiter = &delimiters[next(delimiters.len())];
            let mut search = aimed_at(delimiter);
            let bytes: Vec<u8> = (0..next(800)).map(|_| b"aab\r\nxyzxyzxyz"[next(14)]).collect();
            // The buffer does not move as it grows.
            let (mut front, mut from, mut end) = (0, 0, 0);
            while end < bytes.len() {
                let most = [1, 4, 300][next(3)];
                end = (end + 1 + next(most)).min(bytes.len());
                let input = &bytes[front..end];
                for _ in 0..1 + next(12) {
                    let at = from - front;
                    let plain = aimed_at(delimiter).find(input, at, u64::MAX);
                    if let Some(found) = search.find_near(input, at) {
                        assert_eq!(found, plain, "{delimiter:?} from {at} in {input:?}");
                        near[usize::from(found.end.is_some())] += 1;
                    }
                    let found = search.find(input, at, u64::MAX);
                    assert_eq!(found, plain, "{delimiter:?} from {at} in {input:?}");
                    // Goes on behind a frame, a piece of one, or a count of bytes.
                    let counted = (from + next(3)).min(end);
                    from = match found.end {
                        Some(behind) if next(4) > 0 => front + behind.get(),
                        None if next(4) > 0 => front + found.before,
                        _ => counted,
                    };
                    if next(3) == 0 {
                        search.consume(from - front);
                        front = from;
                        break;
                    }
                }
            }
        }
        assert!(near.iter().all(|&times| times > 1000), "{near:?} were near");
    }
}
