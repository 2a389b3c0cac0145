//! The strategy for long delimiters and for sets: an automaton that takes one byte after the other.
//!
//! Its state says how many of the last bytes are the beginning of a delimiter, so that nothing is searched twice
//! however small the reads are. Where they are not the beginning of one, the input is searched in bulk by
//! [`Automaton::find`], which is faster.
//!
//! The bytes that the state stands for stay in the caller's buffer. When that buffer is not the one that was looked at
//! before (it was moved, or replaced), the state is kept only if the bytes from the frame's position up to the walk's
//! are just those that the state stands for. Otherwise the search begins anew. So what was known of other bytes never
//! decides about these.

use super::Found;

/// An automaton that searches for delimiters. A state is a number; the first one is [`start`](Self::start).
pub(crate) trait Automaton {
    /// The state in which no beginning of a delimiter has been seen.
    fn start(&self) -> u32;

    /// The state after one more byte.
    fn next(&self, state: u32, byte: u8) -> u32;

    /// The longest beginning of a delimiter that the bytes taken so far end with.
    fn beginning(&self, state: u32) -> &[u8];

    /// The length of [`beginning`](Self::beginning).
    fn depth(&self, state: u32) -> usize;

    /// The delimiter that ends at `end`, if one does, where this is the state after the bytes before `end`.
    fn found(&self, state: u32, end: usize) -> Option<Found>;

    /// The first delimiter in the input that begins at or after `from`.
    fn find(&self, input: &[u8], from: usize) -> Option<Found>;

    /// The length of the longest delimiter.
    fn longest(&self) -> usize;
}

/// Where an automaton is in the input.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Walk {
    state: u32,
    /// The position before which every byte has been taken.
    at: usize,
    /// Whether `state` and `at` mean anything. If not, the next search begins at `Bounds::from`.
    under_way: bool,
}

/// What the caller knows of the input, for [`Walk::find`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Where the frame goes on: no delimiter begins before.
    pub(crate) from: usize,
    /// No byte at or behind this position matters.
    pub(crate) end: usize,
    /// If more than this many bytes from `from` on are payload, nothing behind them matters.
    pub(crate) enough: u64,
    /// Whether the bytes that were walked over may have been replaced by others.
    pub(crate) doubtful: bool,
}

impl Walk {
    pub(crate) fn forget(&mut self) {
        self.under_way = false;
    }

    /// This many bytes have been removed from the front of the input.
    #[inline]
    pub(crate) fn consume(&mut self, bytes: usize) {
        match self.at.checked_sub(bytes) {
            Some(at) => self.at = at,
            None => self.under_way = false,
        }
    }

    /// Looks for the first delimiter.
    pub(crate) fn find<A: Automaton>(
        &mut self,
        automaton: &A,
        input: &[u8],
        bounds: Bounds,
    ) -> Found {
        let Bounds { from, end, doubtful, .. } = bounds;
        // The bytes that the state stands for must lie in the frame and, in case of doubt, be the same and all that
        // there is of it up to here.
        let goes_on = self.under_way && self.at <= end && {
            let beginning = automaton.beginning(self.state);
            self.at >= from + beginning.len() && (!doubtful || input[from..self.at] == *beginning)
        };
        if !goes_on {
            *self = Walk { state: automaton.start(), at: from, under_way: true };
        }
        self.go(automaton, input, bounds)
    }

    #[inline]
    fn go<A: Automaton>(&mut self, automaton: &A, input: &[u8], bounds: Bounds) -> Found {
        let Bounds { from, end, enough, .. } = bounds;
        let longest = automaton.longest();
        while self.at < end {
            if end - self.at >= longest && self.state == automaton.start() {
                if let Some(found) = automaton.find(&input[..end], self.at) {
                    // `at` and `state` stay before the delimiter, so that the same question has the same answer.
                    return found;
                }
                // What is left may be the beginning of one.
                self.at = end - (longest - 1);
                continue;
            }
            let next = automaton.next(self.state, input[self.at]);
            if let Some(found) = automaton.found(next, self.at + 1) {
                return found;
            }
            self.state = next;
            self.at += 1;
            if (self.at - from - automaton.depth(next)) as u64 > enough {
                break;
            }
        }
        Found::Nothing { before: self.at - automaton.depth(self.state) }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::super::long::Long;
    use super::*;

    /// A delimiter that counts the bytes that it has looked at.
    struct Counting {
        long: Long,
        taken: Cell<usize>,
    }

    impl Counting {
        fn new(delimiter: &[u8]) -> Self {
            Counting { long: Long::new(delimiter), taken: Cell::new(0) }
        }
    }

    impl Automaton for Counting {
        fn start(&self) -> u32 {
            self.long.start()
        }

        fn next(&self, state: u32, byte: u8) -> u32 {
            self.taken.set(self.taken.get() + 1);
            self.long.next(state, byte)
        }

        fn beginning(&self, state: u32) -> &[u8] {
            self.long.beginning(state)
        }

        fn depth(&self, state: u32) -> usize {
            self.long.depth(state)
        }

        fn found(&self, state: u32, end: usize) -> Option<Found> {
            self.long.found(state, end)
        }

        fn find(&self, input: &[u8], from: usize) -> Option<Found> {
            self.taken.set(self.taken.get() + input.len() - from);
            self.long.find(input, from)
        }

        fn longest(&self) -> usize {
            self.long.longest()
        }
    }

    #[test]
    fn no_byte_of_a_frame_that_is_kept_whole_is_taken_again_at_each_read() {
        let delimiter = b"abcabcabcabcabcabcabcabd";
        let input = [&b"abc".repeat(100)[..], &b"x".repeat(100)].concat();
        for read in [1, 2, 7, 30] {
            let automaton = Counting::new(delimiter);
            let mut walk = Walk::default();
            for end in (read..=input.len()).step_by(read) {
                walk.find(
                    &automaton,
                    &input,
                    Bounds { from: 0, end, enough: u64::MAX, doubtful: false },
                );
            }
            // Those at the end of what is searched in bulk are taken once more.
            let taken = automaton.taken.get();
            assert!(taken <= 2 * input.len(), "{taken} in reads of {read}");
        }
    }
}
