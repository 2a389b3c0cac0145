//! A delimiter short enough to be stored inline in a `Terminator` and searched without preparation.

use std::fmt;

/// The length of the longest delimiter that is stored inline. It is as long as a `Terminator` of 24 bytes allows.
pub(crate) const MAX_SHORT: usize = 22;

/// Up to [`MAX_SHORT`] bytes, at least one.
#[derive(Clone, Copy, Eq)]
pub(crate) struct Needle {
    /// `1 <= len <= MAX_SHORT`
    len: u8,
    /// Zero from `len` on.
    bytes: [u8; MAX_SHORT],
}

impl Needle {
    /// `None` if there are too many bytes. The caller has made sure that there is one.
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

    #[inline]
    pub(crate) fn first(&self) -> u8 {
        self.bytes[0]
    }

    #[inline]
    pub(crate) fn last(&self) -> u8 {
        self.bytes[usize::from(self.len).wrapping_sub(1) % MAX_SHORT]
    }
}

impl PartialEq for Needle {
    /// Two bytes are compared first, since most delimiters have no more: setting the one that is in force then costs
    /// next to nothing.
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

/// The length of the longest suffix of `input` that is a proper prefix of `needle`.
#[inline]
pub(crate) fn longest_partial(needle: &[u8], input: &[u8]) -> usize {
    let Some(last) = input.last() else {
        return 0;
    };
    (1..needle.len().min(input.len() + 1))
        .rev()
        .find(|&len| needle[len - 1] == *last && (len == 1 || input.ends_with(&needle[..len])))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_needle_has_from_1_to_22_bytes() {
        assert_eq!(Needle::new(b""), None);
        assert_eq!(Needle::new(&[7; 23]), None);
        assert_eq!(Needle::literal(&[7; 23]), None);
        for len in 1..=22 {
            let bytes: Vec<u8> = (1..=len).collect();
            let needle = Needle::new(&bytes).expect("it fits");
            assert_eq!(needle.as_bytes(), bytes);
            assert_eq!((needle.first(), needle.last()), (1, len));
        }
    }

    #[test]
    fn the_longest_partial_is_that_of_trying_each() {
        let words = |len: u32| (0..2u32.pow(len)).map(move |w| word(w, len));
        fn word(bits: u32, len: u32) -> Vec<u8> {
            (0..len).map(|i| b"ab"[(bits >> i & 1) as usize]).collect()
        }
        for needle in (1..6).flat_map(words) {
            for input in (0..7).flat_map(words) {
                let naive = (0..needle.len()).rev().find(|&n| input.ends_with(&needle[..n]));
                assert_eq!(Some(longest_partial(&needle, &input)), naive);
            }
        }
    }
}
