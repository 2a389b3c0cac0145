//! Where is the next terminator, and if there is none, how much of one ends the input?
//!
//! Pure: no events, no limits, no I/O. There are two ways to search. A short needle (a delimiter of up
//! to 22 bytes, or a short suffix that all members of a set share) is looked for in blocks of 64 bytes
//! at once, and what is found is kept as a list of hits, ahead of the frame that is being cut: most
//! searches then only take the next hit off the list. Everything else goes through an Aho-Corasick
//! automaton, whose state is kept across reads.
//!
//! Positions are kept as offsets in the stream (`u64`), so that nothing has to be adjusted when the
//! front of the input is consumed. `origin` is always the stream offset of `input[0]`.
//!
//! Both ways are linear in bytes and reads. A search looks at no byte again but for the few (less than
//! a delimiter's length, once for each read) around the place where two reads meet.

use std::fmt;

use aho_corasick::automaton::{Automaton as _, StateID};
use aho_corasick::nfa::contiguous::NFA;
use aho_corasick::{Anchored, Input, MatchKind};
use wide::{CmpEq, i8x16};

use crate::framing::terminator::{Delimiter, DelimiterKind, Terminator};

/// What a search says of `input[start..]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The terminator is `input[start..end]`.
    At {
        start: usize,
        end: usize,
        /// Which member of a set it is.
        member: usize,
    },
    /// There is none. The last so many bytes are a proper prefix of one.
    Withheld(usize),
}

/// The progress of a search through a stream: what is known of the bytes ahead.
#[derive(Clone, Debug)]
pub(crate) struct Scanner {
    /// What the hits are hits of.
    needle: Needle,
    /// Where the needle begins, counted from `base`: `hits[next..filled]`, ascending. For a needle of
    /// three bytes or more these are candidates, of which the first and last byte are right.
    hits: [u16; HITS],
    next: u8,
    filled: u8,
    /// How far the next search may run ahead of the first hit. It starts small and doubles, so that
    /// changing the needle with every frame does not search the same bytes over and over.
    ahead: u16,
    base: u64,
    /// Every hit before this offset is in the list, or behind.
    scanned: u64,
    /// The automaton's state after the byte before the offset `walked`, which is `u64::MAX` if there is
    /// none. This and more has to be small: there is one for each connection.
    state: StateID,
    walked: u64,
}

impl Scanner {
    pub(crate) fn new() -> Self {
        Scanner {
            needle: Needle::default(),
            hits: [0; HITS],
            next: 0,
            filled: 0,
            ahead: BLOCK as u16,
            base: 0,
            scanned: 0,
            state: StateID::ZERO,
            walked: u64::MAX,
        }
    }

    /// Forgets all that is known of the bytes ahead: they will not come.
    pub(crate) fn reset(&mut self) {
        self.filled = 0;
        self.next = 0;
        self.scanned = 0;
        self.walked = u64::MAX;
    }

    /// Prepares for another terminator. Hits are kept if they are of the same needle.
    #[inline]
    pub(crate) fn aim(&mut self, terminator: &Terminator) {
        let needle = match terminator {
            Terminator::Bytes(Delimiter(DelimiterKind::Short(needle))) => needle,
            Terminator::AnyOf(set) => match &set.0.suffix {
                Some(suffix) => &suffix.needle,
                None => return self.walked = u64::MAX,
            },
            Terminator::Bytes(_) => return self.walked = u64::MAX,
            Terminator::Count(_) | Terminator::None => return,
        };
        if self.needle != *needle {
            self.reset();
            self.ahead = BLOCK as u16;
            self.needle = *needle;
        }
    }

    /// The stream offset of the next hit at or after `from`, if it is on the list already. Only for
    /// needles of one or two bytes, whose hits need no second look.
    #[inline(always)]
    pub(crate) fn next_hit(&mut self, from: u64) -> Option<u64> {
        while self.next < self.filled {
            let hit = self.base + u64::from(self.hits[usize::from(self.next) % HITS]);
            if hit >= from {
                return Some(hit);
            }
            self.next += 1;
        }
        None
    }

    /// Takes the hit that `next_hit` has returned off the list.
    #[inline(always)]
    pub(crate) fn take_hit(&mut self) {
        self.next += 1;
    }

    /// Looks for the terminator in `input[start..]`. The answer stays the same until `start` moves on.
    #[inline]
    pub(crate) fn find(
        &mut self,
        terminator: &Terminator,
        input: &[u8],
        origin: u64,
        start: usize,
    ) -> Found {
        match terminator {
            Terminator::Bytes(Delimiter(DelimiterKind::Short(needle))) => {
                match self.peek_hit(input, origin, start) {
                    Some(hit) => Found::At { start: hit, end: hit + needle.len(), member: 0 },
                    None => Found::Withheld(longest_partial(needle.as_bytes(), &input[start..])),
                }
            }
            Terminator::Bytes(Delimiter(DelimiterKind::Long(automaton))) => {
                self.walk(automaton, input, origin, start)
            }
            Terminator::AnyOf(set) => match &set.0.suffix {
                Some(suffix) => match self.peek_hit(input, origin, start) {
                    Some(hit) => suffix.widen(input, start, hit),
                    None => Found::Withheld(suffix.longest_partial(&input[start..])),
                },
                None => self.walk(&set.0.automaton, input, origin, start),
            },
            Terminator::Count(_) | Terminator::None => Found::Withheld(0),
        }
    }

    /// The first place at or after `start` where the needle is, which stays on the list.
    #[inline]
    fn peek_hit(&mut self, input: &[u8], origin: u64, start: usize) -> Option<usize> {
        let from = origin + start as u64;
        loop {
            if let Some(at) = self.listed_hit(input, origin, from) {
                return Some(at);
            }
            if !self.refill(input, origin, from) {
                return None;
            }
        }
    }

    /// The same, if it is on the list already. What is on it and is no hit is taken off.
    #[inline]
    pub(crate) fn listed_hit(&mut self, input: &[u8], origin: u64, from: u64) -> Option<usize> {
        while let Some(hit) = self.next_hit(from) {
            let at = (hit - origin) as usize;
            if input.get(at..).is_some_and(|rest| rest.starts_with(self.needle.as_bytes())) {
                return Some(at);
            }
            self.take_hit();
        }
        None
    }

    /// Fills the empty list with hits at or after `from`. False if the input has no more.
    #[inline]
    pub(crate) fn refill(&mut self, input: &[u8], origin: u64, from: u64) -> bool {
        self.next = 0;
        self.filled = 0;
        // Bytes were passed over by a count, or somebody took away what had been searched.
        if self.scanned < from || self.scanned > origin + input.len() as u64 {
            self.scanned = from;
        }
        let rest = &input[(self.scanned - origin) as usize..];
        let Some(last_start) = rest.len().checked_sub(self.needle.len()) else {
            return false;
        };
        self.base = self.scanned;
        if last_start >= FEW {
            return self.refill_blocks(input, origin);
        }
        for (offset, ends) in (0..).zip(rest.windows(self.needle.len())) {
            if ends.first() == Some(&self.needle.first())
                && ends.last() == Some(&self.needle.last())
            {
                self.hits[usize::from(self.filled) % HITS] = offset;
                self.filled += 1;
            }
        }
        self.scanned += last_start as u64 + 1;
        self.filled > 0
    }

    /// The same, for many bytes.
    #[inline(never)]
    fn refill_blocks(&mut self, input: &[u8], origin: u64) -> bool {
        let needle = self.needle;
        let last_byte = needle.len() - 1;
        let first_block = (self.scanned - origin) as usize;
        let mut at = first_block;
        while let Some(window) = input.get(at..at + BLOCK + last_byte) {
            let mask = needle.candidates(window);
            if mask != 0 {
                let rest = self.push_hits(mask, at - first_block);
                if rest != 0 {
                    at += rest.trailing_zeros() as usize;
                    break;
                }
            }
            at += BLOCK;
            let searched = at - first_block;
            if self.filled == 0 {
                if searched >= BULK {
                    return self.refill_from_afar(input, origin, at);
                }
            } else if searched >= usize::from(self.ahead) || usize::from(self.filled) > HITS - 4 {
                break;
            }
        }
        if self.filled == 0 && at + needle.len() <= input.len() {
            // Less than a block is left.
            let rest = &input[at..];
            let starts = rest.len() - last_byte;
            let mut padded = [0; BLOCK + MAX_SHORT];
            padded[..rest.len()].copy_from_slice(rest);
            let mask = needle.candidates(&padded[..BLOCK + last_byte]) & ((1 << starts) - 1);
            let left = self.push_hits(mask, at - first_block);
            at += if left == 0 { starts } else { left.trailing_zeros() as usize };
        }
        self.scanned = origin + at as u64;
        self.ahead = (self.ahead * 2).min(MAX_AHEAD);
        self.filled > 0
    }

    /// Puts the bits of a mask on the list, as positions. Returns the bits that had no room.
    #[inline(always)]
    fn push_hits(&mut self, mut mask: u64, offset: usize) -> u64 {
        let mut filled = usize::from(self.filled);
        // Four at once, without a branch for each: most blocks have fewer.
        if let Some(room) = self.hits.get_mut(filled..filled + 4) {
            for slot in room {
                *slot = (offset + mask.trailing_zeros() as usize) as u16;
                filled += usize::from(mask != 0);
                mask &= mask.wrapping_sub(1);
            }
        }
        while mask != 0 && filled < HITS {
            self.hits[filled] = (offset + mask.trailing_zeros() as usize) as u16;
            filled += 1;
            mask &= mask - 1;
        }
        self.filled = filled as u8;
        mask
    }

    /// Where hits are far between, puts just the next one on the list.
    #[cold]
    fn refill_from_afar(&mut self, input: &[u8], origin: u64, at: usize) -> bool {
        let needle = self.needle.as_bytes();
        let rest = &input[at..];
        let found = match needle {
            [byte] => memchr::memchr(*byte, rest),
            _ => memchr::memmem::find(rest, needle),
        };
        match found {
            Some(hit) => {
                self.base = origin + (at + hit) as u64;
                self.hits[0] = 0;
                self.filled = 1;
                self.scanned = self.base + 1;
                true
            }
            None => {
                self.scanned = origin + (input.len() - (needle.len() - 1)) as u64;
                false
            }
        }
    }

    /// Searches with an automaton.
    #[inline(never)]
    fn walk(&mut self, automaton: &Automaton, input: &[u8], origin: u64, start: usize) -> Found {
        let end_of_input = origin + input.len() as u64;
        // What the state has seen of a member must not have been delivered since.
        let goes_on = self.walked <= end_of_input
            && self.walked >= origin + (start + automaton.depth(self.state)) as u64;
        let (mut state, fresh) = if goes_on {
            (self.state, (self.walked - origin) as usize)
        } else {
            (automaton.start(), start)
        };
        let overlap = automaton.longest - 1;
        let mut at = fresh;
        // Step through the bytes that may end what began in an earlier read, or that are too few for
        // anything else.
        if automaton.depth(state) > 0 || input.len() - fresh <= overlap {
            for &byte in &input[fresh..input.len().min(fresh + overlap)] {
                state = automaton.next(state, byte);
                at += 1;
                if let Some(found) = automaton.found(state, at) {
                    return found;
                }
            }
        }
        if at < input.len() {
            if let Some(found) = automaton.find(input, fresh) {
                return found;
            }
            let tail = &input[fresh.max(input.len() - overlap)..];
            state = tail.iter().fold(automaton.start(), |state, &byte| automaton.next(state, byte));
        }
        self.state = state;
        self.walked = end_of_input;
        Found::Withheld(automaton.depth(state))
    }
}

/// A delimiter short enough to be kept in place and searched without preparation.
#[derive(Clone, Copy, Default, Eq)]
pub(crate) struct Needle {
    /// `1 <= len <= MAX_SHORT`, but for the default.
    len: u8,
    /// Zero after `len`.
    bytes: [u8; MAX_SHORT],
}

impl Needle {
    /// `None` if there are too many bytes. They are not empty.
    #[inline]
    pub(crate) fn literal<const N: usize>(literal: &[u8; N]) -> Option<Self> {
        if N > MAX_SHORT {
            return None;
        }
        let mut bytes = [0; MAX_SHORT];
        bytes[..N].copy_from_slice(literal);
        Some(Needle { len: N as u8, bytes })
    }

    /// `None` if there are no bytes or too many.
    pub(crate) fn new(bytes: &[u8]) -> Option<Self> {
        let mut needle = Needle { len: bytes.len().try_into().ok()?, bytes: [0; MAX_SHORT] };
        needle.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        (needle.len > 0).then_some(needle)
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        usize::from(self.len)
    }

    #[inline]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len).min(MAX_SHORT)]
    }

    fn first(&self) -> u8 {
        self.bytes[0]
    }

    fn last(&self) -> u8 {
        self.as_bytes().last().copied().unwrap_or_default()
    }

    /// A bit for each of the first 64 places of the window at which the first and the last byte are
    /// right. The window is 63 bytes longer than the needle.
    #[inline(always)]
    fn candidates(&self, window: &[u8]) -> u64 {
        let last = self.len() - 1;
        let mask = equal(window, self.bytes[0]);
        if last == 0 { mask } else { mask & equal(&window[last..], self.bytes[last % MAX_SHORT]) }
    }
}

impl PartialEq for Needle {
    /// Most needles have one or two bytes, and switching back to the same one must cost nothing.
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len
            && self.bytes[..2] == other.bytes[..2]
            && (self.len <= 2 || self.bytes == other.bytes)
    }
}

impl fmt::Debug for Needle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.as_bytes().escape_ascii())
    }
}

/// A bit for each of the first 64 bytes that is `byte`.
#[inline(always)]
fn equal(window: &[u8], byte: u8) -> u64 {
    let wanted = i8x16::splat(byte as i8);
    let Some(block) = window.first_chunk::<BLOCK>() else {
        return 0;
    };
    let mut mask = 0;
    for (i, lane) in block.chunks_exact(16).enumerate() {
        let lane: i8x16 = bytemuck::pod_read_unaligned(lane);
        mask |= u64::from(lane.cmp_eq(wanted).move_mask() as u16) << (16 * i);
    }
    mask
}

/// The length of the longest suffix of `input` that is a proper prefix of `needle`.
fn longest_partial(needle: &[u8], input: &[u8]) -> usize {
    let Some(last) = input.last() else {
        return 0;
    };
    (1..needle.len().min(input.len() + 1))
        .rev()
        .find(|&len| needle[len - 1] == *last && (len == 1 || input.ends_with(&needle[..len])))
        .unwrap_or(0)
}

/// A set whose shortest member is a suffix of all the others, like `\n` of `\r\n`: to find any of them
/// is to find that one.
pub(crate) struct SharedSuffix {
    needle: Needle,
    /// Each with its place in the caller's order; the longest first.
    members: Vec<(usize, Needle)>,
}

impl SharedSuffix {
    /// `None` if the members are not of that kind.
    pub(crate) fn new(members: &[&[u8]]) -> Option<Self> {
        let mut members: Vec<(usize, Needle)> = members
            .iter()
            .map(|member| Needle::new(member))
            .enumerate()
            .map(|(i, needle)| Some((i, needle?)))
            .collect::<Option<_>>()?;
        members.sort_by_key(|(_, needle)| std::cmp::Reverse(needle.len()));
        let (_, needle) = *members.last()?;
        let shared =
            members.iter().all(|(_, member)| member.as_bytes().ends_with(needle.as_bytes()));
        (shared && members.len() <= MAX_SHARED).then_some(SharedSuffix { needle, members })
    }

    fn direct(&self) -> Option<Direct> {
        match &self.members[..] {
            [(with, wide), (without, narrow)] if wide.len() == 2 && narrow.len() == 1 => {
                Some(Direct {
                    len: 1,
                    partial: Some(wide.first()),
                    widens: true,
                    members: [*without as u8, *with as u8],
                })
            }
            _ => None,
        }
    }

    /// The longest member that ends where the suffix found at `hit` does.
    fn widen(&self, input: &[u8], start: usize, hit: usize) -> Found {
        let end = hit + self.needle.len();
        self.members
            .iter()
            .find(|(_, member)| input[start..end].ends_with(member.as_bytes()))
            .map_or(Found::Withheld(0), |(member, needle)| Found::At {
                start: end - needle.len(),
                end,
                member: *member,
            })
    }

    fn longest_partial(&self, input: &[u8]) -> usize {
        let partials =
            self.members.iter().map(|(_, member)| longest_partial(member.as_bytes(), input));
        partials.max().unwrap_or(0)
    }
}

/// A terminator whose hits need no second look, but perhaps one at the byte before: a delimiter of one
/// or two bytes, or the set of a byte and two bytes that end with it, like LF and CRLF.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Direct {
    /// The length of the needle.
    pub(crate) len: u8,
    /// The byte that is withheld at the end of the input.
    pub(crate) partial: Option<u8>,
    /// Whether that byte, if it is before a hit, belongs to the terminator.
    pub(crate) widens: bool,
    /// Which member of a set a hit is, and a widened one.
    pub(crate) members: [u8; 2],
}

impl Direct {
    #[inline]
    pub(crate) fn new(terminator: &Terminator) -> Option<Self> {
        match terminator {
            Terminator::Bytes(Delimiter(DelimiterKind::Short(needle))) => Some(Direct {
                len: needle.len,
                partial: (needle.len == 2).then_some(needle.first()),
                ..Direct::default()
            }),
            Terminator::AnyOf(set) => set.0.suffix.as_ref()?.direct(),
            _ => None,
        }
    }
}

/// A long delimiter or a set of delimiters, prepared for searching.
pub(crate) struct Automaton {
    nfa: NFA,
    members: Vec<Box<[u8]>>,
    /// The length of the longest member.
    longest: usize,
    /// For each state, by its number, how many bytes of a member have been seen.
    depths: Vec<u32>,
}

impl Automaton {
    /// # Panics
    ///
    /// If the members have more than some hundred million bytes together, the automaton's own limit.
    pub(crate) fn new(members: &[&[u8]]) -> Self {
        // The standard kind reports the match that ends first.
        let nfa = NFA::builder()
            .match_kind(MatchKind::Standard)
            .build(members)
            .expect("delimiters of less than a hundred megabytes");
        let mut automaton = Automaton {
            longest: members.iter().map(|member| member.len()).max().unwrap_or(0),
            members: members.iter().map(|&member| member.into()).collect(),
            depths: Vec::new(),
            nfa,
        };
        for member in members {
            let mut state = automaton.start();
            for (seen, &byte) in (1..).zip(*member) {
                state = automaton.next(state, byte);
                let number = state.as_usize();
                if automaton.depths.len() <= number {
                    automaton.depths.resize(number + 1, 0);
                }
                automaton.depths[number] = seen;
            }
        }
        automaton
    }

    pub(crate) fn member(&self, i: usize) -> &[u8] {
        self.members.get(i).map_or(&[], |member| member)
    }

    pub(crate) fn members(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.members.iter().map(|member| &**member)
    }

    fn start(&self) -> StateID {
        // The automaton has no look-behind and is built for unanchored searches, so it has one.
        self.nfa.start_state(Anchored::No).unwrap_or_default()
    }

    #[inline]
    fn next(&self, state: StateID, byte: u8) -> StateID {
        self.nfa.next_state(Anchored::No, state, byte)
    }

    #[inline]
    fn depth(&self, state: StateID) -> usize {
        self.depths.get(state.as_usize()).map_or(0, |&depth| depth as usize)
    }

    /// What a state reached after `input[end - 1]` has found. The first of a state's matches is the
    /// longest: the others are its suffixes.
    #[inline]
    fn found(&self, state: StateID, end: usize) -> Option<Found> {
        if !self.nfa.is_match(state) {
            return None;
        }
        let member = self.nfa.match_pattern(state, 0).as_usize();
        Some(Found::At { start: end - self.member(member).len(), end, member })
    }

    fn find(&self, input: &[u8], from: usize) -> Option<Found> {
        let found = self.nfa.try_find(&Input::new(input).range(from..)).ok().flatten()?;
        Some(Found::At {
            start: found.start(),
            end: found.end(),
            member: found.pattern().as_usize(),
        })
    }
}

/// Bytes compared at once: a bit for each in a `u64`.
const BLOCK: usize = 64;
/// The longest needle that is kept in place: what makes a `Terminator` 24 bytes.
pub(crate) const MAX_SHORT: usize = 22;
/// The most members for which trying each of them at every hit is cheap.
const MAX_SHARED: usize = 4;
/// So few places are looked at one by one.
const FEW: usize = 16;
/// Room for hits: a cache line.
const HITS: usize = 32;
/// After so many bytes without a hit, a search for a single one is faster.
const BULK: usize = 1024;
/// The most bytes that are searched ahead of the first hit.
const MAX_AHEAD: u16 = 4096;
