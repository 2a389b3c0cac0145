//! Several delimiters, prepared for searching.

use aho_corasick::automaton::{Automaton as _, StateID};
use aho_corasick::nfa::contiguous::NFA;
use aho_corasick::{Anchored, Input, MatchKind};

use super::Found;
use super::needle::{Needle, longest_partial};
use super::walk::Automaton;

/// The members of a set, and an automaton that finds the one that ends first.
pub(crate) struct Members {
    nfa: NFA,
    bytes: Vec<Box<[u8]>>,
    longest: usize,
    /// For each state, by its number, the beginning of a member that it stands for: which member, and
    /// how many bytes of it.
    beginnings: Vec<(u32, u32)>,
    /// A faster way to search, if the members share a suffix.
    suffix: Option<SharedSuffix>,
}

/// Why members can't be a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Two members are the same.
    Duplicate,
    /// A member occurs inside another before its end.
    Unreachable,
}

impl Members {
    /// Takes time in proportion to the members' bytes. None of them is empty.
    ///
    /// # Panics
    ///
    /// If they have some hundred million bytes together, which is the automaton's limit.
    pub(crate) fn new(members: &[&[u8]]) -> Result<Self, Refusal> {
        // The standard kind reports the match that ends first.
        let nfa = NFA::builder()
            .match_kind(MatchKind::Standard)
            .build(members)
            .expect("delimiters of less than a hundred megabytes");
        let mut set = Members {
            longest: members.iter().map(|member| member.len()).max().unwrap_or(0),
            bytes: members.iter().map(|&member| member.into()).collect(),
            beginnings: Vec::new(),
            suffix: SharedSuffix::new(members),
            nfa,
        };
        for (number, member) in (0..).zip(members) {
            let mut state = set.start();
            for (seen, &byte) in (1..).zip(*member) {
                if set.nfa.is_match(id(state)) {
                    return Err(Refusal::Unreachable);
                }
                state = set.next(state, byte);
                let place = state as usize;
                if set.beginnings.len() <= place {
                    set.beginnings.resize(place + 1, (0, 0));
                }
                set.beginnings[place] = (number, seen);
            }
            // Of the matches that end here, those of the member's length are the member itself and its duplicates.
            let twins = (0..set.nfa.match_len(id(state)))
                .filter(|&i| {
                    let other = set.nfa.match_pattern(id(state), i).as_usize();
                    set.bytes[other].len() == member.len()
                })
                .count();
            if twins > 1 {
                return Err(Refusal::Duplicate);
            }
        }
        Ok(set)
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.bytes.iter().map(|member| &**member)
    }

    pub(crate) fn suffix(&self) -> Option<&SharedSuffix> {
        self.suffix.as_ref()
    }
}

fn id(state: u32) -> StateID {
    // Every state is a number that came from the automaton, so it is valid.
    StateID::new(state as usize).unwrap_or_default()
}

impl Automaton for Members {
    #[inline]
    fn start(&self) -> u32 {
        // The automaton has no look-behind and is built for unanchored searches, so it has a start state.
        self.nfa.start_state(Anchored::No).unwrap_or_default().as_u32()
    }

    #[inline]
    fn next(&self, state: u32, byte: u8) -> u32 {
        self.nfa.next_state(Anchored::No, id(state), byte).as_u32()
    }

    fn beginning(&self, state: u32) -> &[u8] {
        let (member, depth) = self.beginnings.get(state as usize).copied().unwrap_or_default();
        &self.bytes[member as usize][..depth as usize]
    }

    #[inline]
    fn depth(&self, state: u32) -> usize {
        self.beginnings.get(state as usize).map_or(0, |&(_, depth)| depth as usize)
    }

    /// The first of a state's matches is the longest: the others are its suffixes.
    #[inline]
    fn found(&self, state: u32, end: usize) -> Option<Found> {
        if !self.nfa.is_match(id(state)) {
            return None;
        }
        let member = self.nfa.match_pattern(id(state), 0).as_usize();
        Some(Found::At { start: end - self.bytes[member].len(), end, member: member as u32 })
    }

    fn find(&self, input: &[u8], from: usize) -> Option<Found> {
        let found = self.nfa.try_find(&Input::new(input).range(from..)).ok().flatten()?;
        let member = found.pattern().as_u32();
        Some(Found::At { start: found.start(), end: found.end(), member })
    }

    fn longest(&self) -> usize {
        self.longest
    }
}

/// A set whose shortest member is a suffix of all the others, like `\n` of `\r\n`. Wherever one of them ends, the
/// shortest ends too, so it is enough to search for that one.
pub(crate) struct SharedSuffix {
    needle: Needle,
    /// The members, the longest first, each with its index in the caller's order.
    members: Vec<(u32, Needle)>,
}

impl SharedSuffix {
    /// `None` if the members are not of that kind.
    fn new(members: &[&[u8]]) -> Option<Self> {
        if members.len() > MAX_SHARED {
            return None;
        }
        let mut members = (0..)
            .zip(members)
            .map(|(number, member)| Some((number, Needle::new(member)?)))
            .collect::<Option<Vec<_>>>()?;
        members.sort_by_key(|(_, member)| std::cmp::Reverse(member.len()));
        let (_, needle) = *members.last()?;
        members
            .iter()
            .all(|(_, member)| member.as_bytes().ends_with(needle.as_bytes()))
            .then_some(SharedSuffix { needle, members })
    }

    /// The member that is the others' suffix.
    #[inline]
    pub(crate) fn needle(&self) -> &Needle {
        &self.needle
    }

    /// The longest member that ends where the suffix does and begins in the frame, if the suffix is at
    /// `hit`.
    #[inline(always)]
    pub(crate) fn widen(&self, input: &[u8], from: usize, hit: usize) -> Option<Found> {
        let end = hit + self.needle.len();
        if let ([(wide, member), (narrow, _)], true) = (&*self.members, self.needle.len() == 1) {
            // A short way for a member of one byte and one of two, which are mostly `\n` and `\r\n`.
            if member.len() == 2 {
                let wider = hit > from && input[hit - 1] == member.first();
                let (start, member) = if wider { (hit - 1, *wide) } else { (hit, *narrow) };
                return Some(Found::At { start, end, member });
            }
        }
        let frame = &input[from..end];
        let (member, longest) =
            self.members.iter().find(|(_, member)| frame.ends_with(member.as_bytes()))?;
        Some(Found::At { start: end - longest.len(), end, member: *member })
    }

    pub(crate) fn longest_partial(&self, input: &[u8]) -> usize {
        let partials =
            self.members.iter().map(|(_, member)| longest_partial(member.as_bytes(), input));
        partials.max().unwrap_or(0)
    }
}

/// The most members for which trying each of them at every hit is cheap.
const MAX_SHARED: usize = 4;
