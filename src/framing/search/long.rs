//! A delimiter that is too long to be stored inline in a `Terminator`, prepared for searching.

use memchr::memmem::Finder;

use super::Found;
use super::walk::Automaton;

/// The delimiter, prepared for two searches: that of Knuth, Morris and Pratt, which goes on across reads, and a faster
/// one in bulk (`memmem`), which does not.
#[derive(Debug)]
pub(crate) struct Long {
    finder: Finder<'static>,
    /// For each length of a beginning of the delimiter, the length of the longest shorter beginning that it ends with:
    /// what still matches if the next byte does not.
    shorter: Box<[u32]>,
}

impl Long {
    /// # Panics
    ///
    /// If there are more bytes than a `u32` counts.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        assert!(u32::try_from(bytes.len()).is_ok(), "a delimiter of less than 4 GiB");
        let mut shorter = vec![0; bytes.len() + 1];
        let mut len = 0;
        for at in 1..bytes.len() {
            while len > 0 && bytes[at] != bytes[len] {
                len = shorter[len] as usize;
            }
            len += usize::from(bytes[at] == bytes[len]);
            shorter[at + 1] = len as u32;
        }
        Long { finder: Finder::new(bytes).into_owned(), shorter: shorter.into() }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.finder.needle()
    }
}

/// A state is the number of bytes of the delimiter that match.
impl Automaton for Long {
    #[inline]
    fn start(&self) -> u32 {
        0
    }

    #[inline]
    fn next(&self, state: u32, byte: u8) -> u32 {
        let bytes = self.as_bytes();
        let mut len = state;
        loop {
            match bytes.get(len as usize) {
                Some(&wanted) if wanted == byte => return len + 1,
                _ if len == 0 => return 0,
                _ => len = self.shorter[len as usize],
            }
        }
    }

    fn beginning(&self, state: u32) -> &[u8] {
        &self.as_bytes()[..state as usize]
    }

    #[inline]
    fn depth(&self, state: u32) -> usize {
        state as usize
    }

    #[inline]
    fn found(&self, state: u32, end: usize) -> Option<Found> {
        let len = self.as_bytes().len();
        (state as usize == len).then(|| Found::At { start: end - len, end, member: 0 })
    }

    fn find(&self, input: &[u8], from: usize) -> Option<Found> {
        let start = from + self.finder.find(&input[from..])?;
        Some(Found::At { start, end: start + self.as_bytes().len(), member: 0 })
    }

    fn longest(&self) -> usize {
        self.as_bytes().len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::needle::longest_partial;
    use super::*;

    #[test]
    fn a_state_is_the_longest_beginning_that_the_input_ends_with() {
        let word = |bits: u32, len: usize| -> Vec<u8> {
            (0..len).map(|i| b"ab"[(bits >> i & 1) as usize]).collect()
        };
        for delimiter in (0..64).map(|bits| word(bits, 6)) {
            let long = Long::new(&delimiter);
            for input in (0..1024).map(|bits| word(bits, 10)) {
                let mut state = long.start();
                for end in 1..=input.len() {
                    state = long.next(state, input[end - 1]);
                    let whole = input[..end].ends_with(&delimiter);
                    assert_eq!(long.found(state, end).is_some(), whole);
                    if !whole {
                        let partial = longest_partial(&delimiter, &input[..end]);
                        assert_eq!(long.depth(state), partial);
                        assert_eq!(long.beginning(state), &delimiter[..partial]);
                    }
                }
            }
        }
    }
}
