//! The strategy for short delimiters: look at many places at once, and keep a bitmap of the hits.
//!
//! A *place* is a position at which a delimiter may begin. One look compares two bytes of each of 64 places, which are
//! a *block*, with the delimiter's first and last. A place where both match is a *hit*, and its bit is set. The bits of
//! some blocks are kept as a map, so that where frames are short most searches only read it. Bytes that have been
//! looked at are never looked at again, however the frames in them are cut or counted: a search reads from the map the
//! first hit at or behind a position, and changes nothing in it.
//!
//! A hit of a delimiter of three bytes or more may have other bytes in the middle, so the caller compares all of them
//! before it uses the hit.

use super::block::{BLOCK, both, either, one};

/// What makes a place a hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// The byte at the place is `first`, and the byte `span` behind it is `last`.
    Both { first: u8, last: u8, span: u8 },
    /// The byte at the place is one of the two.
    Either(u8, u8),
}

impl Pattern {
    /// How far behind a place the last byte is that is compared.
    #[inline(always)]
    pub(crate) fn span(self) -> usize {
        match self {
            Pattern::Both { span, .. } => usize::from(span),
            Pattern::Either(..) => 0,
        }
    }

    /// A bit for each of the first 64 places of the window, which has `64 + span` bytes.
    #[inline(always)]
    fn places(self, window: &[u8]) -> u64 {
        match self {
            Pattern::Both { first, span: 0, .. } => one(window, first),
            Pattern::Both { first, last, span } => both(window, first, last, usize::from(span)),
            Pattern::Either(one, other) => either(window, one, other),
        }
    }

    /// After this many bytes without a hit, the next one is taken to be far away and is searched for by `far` (see
    /// [`Hits::find`]). To begin that costs little for a single byte; for a longer delimiter it is prepared anew each
    /// time.
    #[inline(always)]
    fn near(self) -> usize {
        match self {
            Pattern::Both { span: 1.., .. } => 1024,
            _ => 256,
        }
    }

    /// Whether there is a hit at a place.
    #[inline(always)]
    pub(crate) fn is_at(self, input: &[u8], place: usize) -> bool {
        match self {
            Pattern::Both { first, last, span } => {
                input.get(place + usize::from(span)) == Some(&last) && input[place] == first
            }
            Pattern::Either(one, other) => {
                input.get(place).is_some_and(|&byte| byte == one || byte == other)
            }
        }
    }
}

/// What is known of the places of an input.
///
/// ```text
///            base                                  searched
///   input ---|..h.....h...|------- no hit ---------|------- not looked at yet ---
///             the bits of `map`
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hits {
    /// The place of the lowest bit of the map. It wraps around below 0 where that place is no longer in the input.
    base: usize,
    /// A bit for each hit. The last block is empty, so that each block has one behind it.
    map: [u64; BLOCKS + 1],
    /// Every place before this position has been looked at. The hits among those from `base` on have their bits in the
    /// map.
    searched: usize,
}

/// How many blocks are kept: enough for many short frames, and not much memory for a connection.
const BLOCKS: usize = 8;

impl Hits {
    /// The first known hit at or after `from`, if it is one of the next 64 places.
    #[inline(always)]
    pub(crate) fn next(&self, from: usize) -> Option<usize> {
        let offset = from.wrapping_sub(self.base);
        let (block, place) = (offset / BLOCK, offset % BLOCK);
        if block >= BLOCKS {
            return None;
        }
        // The 64 bits from that place on, which may be of two blocks. They are put together without a branch: where a
        // block ends depends on the lengths of the frames before, and the processor could not predict it.
        let places = self.map[block] >> place | self.map[block + 1] << 1 << (BLOCK - 1 - place);
        (places != 0).then(|| from + places.trailing_zeros() as usize)
    }

    /// The first known hit at or after `from`.
    #[inline]
    fn known(&self, from: usize) -> Option<usize> {
        // The map may begin behind `from`. What is in front of it was looked at and had no hit.
        let ahead = self.base.wrapping_sub(from) as isize;
        let from = if ahead > 0 { self.base } else { from };
        self.next(from).or_else(|| {
            let mut block = from.wrapping_sub(self.base) / BLOCK + 1;
            while block < BLOCKS {
                if self.map[block] != 0 {
                    let place = block * BLOCK + self.map[block].trailing_zeros() as usize;
                    return Some(self.base.wrapping_add(place));
                }
                block += 1;
            }
            None
        })
    }

    /// Forgets everything: nothing at or behind this position has been looked at.
    #[inline]
    pub(crate) fn forget(&mut self, from: usize) {
        // All places of the map are now before `from`, so that none of its bits is read.
        self.base = from.wrapping_sub(BLOCKS * BLOCK);
        self.searched = from;
    }

    /// This many bytes have been removed from the front of the input.
    #[inline]
    pub(crate) fn consume(&mut self, bytes: usize) {
        match self.searched.checked_sub(bytes) {
            Some(searched) => {
                self.base = self.base.wrapping_sub(bytes);
                self.searched = searched;
            }
            None => self.forget(0),
        }
    }

    /// The first hit at or after `from`.
    ///
    /// No place at or behind `end` is looked at, except for the rest of a block. Where there is no hit for long, `far`
    /// returns where in the rest of the input the next one is. It is called once for each such hit, and must stop
    /// there: to look through all of the rest each time would not be linear.
    #[inline]
    pub(crate) fn find(
        &mut self,
        pattern: Pattern,
        input: &[u8],
        from: usize,
        end: usize,
        far: impl FnOnce(&[u8]) -> Option<usize>,
    ) -> Option<usize> {
        let mut known = from;
        while let Some(hit) = self.known(known) {
            if pattern.is_at(input, hit) {
                return Some(hit);
            }
            // It is no hit any more: the bytes of the buffer were replaced in place.
            known = hit + 1;
        }
        let first = self.searched.max(from);
        let places = input.len().saturating_sub(pattern.span()).min(end);
        if first >= places {
            return None;
        }
        if places - first > FEW {
            return self.look(pattern, input, first, places, far);
        }
        // The last read brought few bytes, perhaps one.
        for place in first..places {
            if pattern.is_at(input, place) {
                return self.keep(place, 1, 1);
            }
        }
        self.searched = places;
        None
    }

    /// As [`find`](Self::find), but only in the next few blocks. It is called where [`next`](Self::next) has returned
    /// `None`.
    #[inline(never)]
    pub(crate) fn look_near(
        &mut self,
        pattern: Pattern,
        input: &[u8],
        from: usize,
    ) -> Option<usize> {
        if let Some(hit) = self.known(from) {
            return Some(hit);
        }
        let first = self.searched.max(from);
        let near = first + pattern.near();
        match self.look_at_blocks(pattern, input, first, near, usize::MAX) {
            None if self.searched < near => self.look_at_rest(pattern, input),
            found => found,
        }
    }

    /// Looks at the places from `first` to `end`, of which there is one at least.
    #[inline(never)]
    fn look(
        &mut self,
        pattern: Pattern,
        input: &[u8],
        first: usize,
        end: usize,
        far: impl FnOnce(&[u8]) -> Option<usize>,
    ) -> Option<usize> {
        let near = end.min(first + pattern.near());
        if let Some(hit) = self.look_at_blocks(pattern, input, first, near, end) {
            return Some(hit);
        }
        let at = self.searched;
        if at >= end {
            return None;
        }
        if at < near {
            return self.look_at_rest(pattern, input);
        }
        match far(&input[at..end + pattern.span()]) {
            Some(hit) => self.keep(at + hit, 1, 1),
            None => self.keep(at, 0, end - at),
        }
    }

    /// Looks at the rest of the input, where fewer places than a block has are left.
    #[inline(always)]
    fn look_at_rest(&mut self, pattern: Pattern, input: &[u8]) -> Option<usize> {
        let (at, span) = (self.searched, pattern.span());
        let places = input.len().checked_sub(at + span).filter(|places| *places > 0)?;
        let mask = if let Some(start) = input.len().checked_sub(BLOCK + span) {
            // The last block of the input, less the places that have been looked at.
            pattern.places(&input[start..]) >> (at - start)
        } else {
            let mut padded = [0; 2 * BLOCK];
            padded[..input.len() - at].copy_from_slice(&input[at..]);
            pattern.places(&padded[..BLOCK + span]) & ((1 << places) - 1)
        };
        self.keep(at, mask, places)
    }

    /// Looks at one block after the other from `first` on, until there is a hit, `near` is reached, or
    /// less than a block is left; if there is a hit, at some blocks more. Where it stopped is where the
    /// search goes on.
    #[inline(always)]
    fn look_at_blocks(
        &mut self,
        pattern: Pattern,
        input: &[u8],
        first: usize,
        near: usize,
        end: usize,
    ) -> Option<usize> {
        // The kind of pattern is asked for once here, and not for each block.
        match pattern {
            Pattern::Both { first: byte, span: 0, .. } => {
                self.look_by(input, first, near, end, 0, |window| one(window, byte))
            }
            Pattern::Both { first: byte, last, span } => {
                let span = usize::from(span);
                self.look_by(input, first, near, end, span, |window| both(window, byte, last, span))
            }
            Pattern::Either(byte, other) => {
                self.look_by(input, first, near, end, 0, |window| either(window, byte, other))
            }
        }
    }

    #[inline(always)]
    fn look_by(
        &mut self,
        input: &[u8],
        first: usize,
        near: usize,
        end: usize,
        span: usize,
        places: impl Fn(&[u8]) -> u64,
    ) -> Option<usize> {
        let mut at = first;
        while at < near {
            let Some(window) = input.get(at..at + BLOCK + span) else { break };
            let mask = places(window);
            if mask != 0 {
                self.keep(at, mask, BLOCK);
                // Where there is one hit there are probably more.
                for kept in &mut self.map[1..BLOCKS] {
                    let at = self.searched;
                    let Some(window) = input.get(at..at + BLOCK + span) else { break };
                    if at >= end {
                        break;
                    }
                    *kept = places(window);
                    self.searched = at + BLOCK;
                }
                return Some(at + mask.trailing_zeros() as usize);
            }
            at += BLOCK;
        }
        self.searched = at;
        None
    }

    /// Keeps the bits of one block and forgets those of the others. Returns its first hit.
    #[inline(always)]
    fn keep(&mut self, at: usize, mask: u64, places: usize) -> Option<usize> {
        *self = Hits { base: at, map: [0; BLOCKS + 1], searched: at + places };
        self.map[0] = mask;
        self.next(at)
    }
}

/// Up to this many places are looked at one by one, since a read may bring a single byte.
pub(crate) const FEW: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    /// All hits, found one after the other, against a look at each place by itself.
    fn check(pattern: Pattern, needle: &[u8], input: &[u8], skip: usize) {
        let span = pattern.span();
        let naive: Vec<usize> =
            (0..input.len().saturating_sub(span)).filter(|&p| pattern.is_at(input, p)).collect();
        let far = |rest: &[u8]| match pattern {
            Pattern::Both { .. } => memchr::memmem::find(rest, needle),
            Pattern::Either(one, other) => memchr::memchr2(one, other, rest),
        };
        let mut hits = Hits::default();
        let mut from = 0;
        let mut left = &naive[..];
        loop {
            left = &left[left.partition_point(|&hit| hit < from)..];
            let found = hits.find(pattern, input, from, usize::MAX, far);
            // `far` compares all bytes of a needle of three bytes, and not just the first and the last.
            let wanted = left.iter().find(|&&p| {
                let whole = !matches!(pattern, Pattern::Both { span: 2.., .. });
                whole || Some(p) == found || input[p..].starts_with(needle)
            });
            assert_eq!(found, wanted.copied(), "{pattern:?} {needle:?} from {from}");
            assert_eq!(hits.find(pattern, input, from, usize::MAX, far), found);
            let Some(hit) = found else { break };
            from = hit + 1 + skip;
        }
    }

    #[test]
    fn hits_are_those_of_a_look_at_each_place() {
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = move || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random as usize
        };
        for len in (0..200).chain([1023, 1024, 1025, 1100, 2200, 5000]) {
            for density in [2, 3, 60, 5000] {
                let input: Vec<u8> = (0..len)
                    .map(|_| if next() % density == 0 { b"ab"[next() % 2] } else { b'x' })
                    .collect();
                for skip in [0, 1, 2, 70] {
                    let one = Pattern::Both { first: b'a', last: b'a', span: 0 };
                    check(one, b"a", &input, skip);
                    let two = Pattern::Both { first: b'a', last: b'b', span: 1 };
                    check(two, b"ab", &input, skip);
                    let three = Pattern::Both { first: b'a', last: b'b', span: 2 };
                    check(three, b"axb", &input, skip);
                    check(Pattern::Either(b'a', b'b'), b"", &input, skip);
                }
            }
        }
    }

    #[test]
    fn hits_move_with_the_input_when_its_front_is_removed() {
        let pattern = Pattern::Both { first: b'\n', last: b'\n', span: 0 };
        let far = |rest: &[u8]| memchr::memchr(b'\n', rest);
        let input = b"a\nbc\n\nd\n".repeat(20);
        for consumed in 0..input.len() {
            let mut hits = Hits::default();
            let before = hits.find(pattern, &input, consumed, usize::MAX, far);
            hits.consume(consumed);
            let after = hits.find(pattern, &input[consumed..], 0, usize::MAX, far);
            assert_eq!(before.map(|hit| hit - consumed), after);
        }
    }

    #[test]
    fn no_more_is_looked_at_than_is_enough() {
        let pattern = Pattern::Both { first: b'\n', last: b'\n', span: 0 };
        let far = |rest: &[u8]| memchr::memchr(b'\n', rest);
        let input = vec![b'x'; 1 << 16];
        let mut hits = Hits::default();
        assert_eq!(hits.find(pattern, &input, 0, 10, far), None);
        assert!(hits.searched <= 10 + BLOCK);
        assert_eq!(hits.find(pattern, &input, 0, 5000, far), None);
        assert_eq!(hits.searched, 5000);
        // Nor is more looked at behind a hit.
        let input = b"abc\n".repeat(1 << 10);
        let mut hits = Hits::default();
        assert_eq!(hits.find(pattern, &input, 0, 100, far), Some(3));
        assert_eq!(hits.searched, 2 * BLOCK);
    }
}
