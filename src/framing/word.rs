//! One to eight bytes, held in a `u64` so that they are compared all at once.

use std::num::NonZeroU8;

/// From one byte to eight, which is what most delimiters and ends have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    /// The first byte is the least significant, and the bytes behind the last are zero.
    bytes: u64,
    /// At most 8.
    len: NonZeroU8,
}

impl Word {
    /// The most bytes that a word has.
    pub(crate) const MAX: usize = 8;

    /// `None` if there are no bytes or too many.
    #[inline(always)]
    pub(crate) fn new(bytes: &[u8]) -> Option<Self> {
        let mut padded = [0; Word::MAX];
        padded.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Word::padded(padded, NonZeroU8::new(bytes.len() as u8)?))
    }

    /// The first `len` of these bytes. The others must be zero.
    #[inline(always)]
    pub(crate) fn padded(bytes: [u8; Word::MAX], len: NonZeroU8) -> Self {
        Word { bytes: u64::from_le_bytes(bytes), len }
    }

    /// The bytes, with zeros behind them.
    #[inline(always)]
    pub(crate) fn bytes(self) -> [u8; Word::MAX] {
        self.bytes.to_le_bytes()
    }

    /// How many bytes it has.
    #[inline(always)]
    pub(crate) fn count(self) -> NonZeroU8 {
        self.len
    }

    #[inline(always)]
    pub(crate) fn len(self) -> usize {
        usize::from(self.len.get())
    }

    #[inline(always)]
    pub(crate) fn first(self) -> u8 {
        self.bytes as u8
    }

    #[inline(always)]
    pub(crate) fn last(self) -> u8 {
        (self.bytes >> (8 * (u32::from(self.len.get()) - 1))) as u8
    }

    /// Whether the input begins with it.
    #[inline(always)]
    pub(crate) fn begins(self, input: &[u8]) -> bool {
        // If there are eight bytes, they are compared at once. A comparison of a length that is not known at compile
        // time would be a call.
        match input.first_chunk() {
            Some(eight) => {
                let others = u64::BITS - 8 * u32::from(self.len.get());
                (u64::from_le_bytes(*eight) ^ self.bytes) << others == 0
            }
            None if self.len == NonZeroU8::MIN => input.first() == Some(&self.first()),
            None => self.begins_short(input),
        }
    }

    /// As [`begins`](Self::begins), whatever the length of the input.
    #[inline(never)]
    fn begins_short(self, input: &[u8]) -> bool {
        self.bytes().get(..self.len()).is_some_and(|bytes| input.starts_with(bytes))
    }

    /// Whether the input is shorter than the word and the beginning of it.
    pub(crate) fn is_begun_by(self, input: &[u8]) -> bool {
        input.len() < self.len() && self.bytes().starts_with(input)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_compared_as_its_bytes_are() {
        assert_eq!(Word::new(b""), None);
        assert_eq!(Word::new(&[1; 9]), None);
        let text = b"abcdefghabcdefgh\0\0";
        for len in 1..=8 {
            let bytes = &text[..len];
            let word = Word::new(bytes).expect("it fits");
            assert_eq!((word.first(), word.last(), word.len()), (b'a', bytes[len - 1], len));
            for start in 0..text.len() {
                for end in start..=text.len() {
                    let input = &text[start..end];
                    assert_eq!(word.begins(input), input.starts_with(bytes), "{bytes:?} {input:?}");
                    let begun = input.len() < len && bytes.starts_with(input);
                    assert_eq!(word.is_begun_by(input), begun, "{bytes:?} {input:?}");
                }
            }
        }
    }
}
