//! Compares 64 places of the input at once, and returns a bit for each: 1 if it matches.
//!
//! On x86-64 this is done in SIMD registers of 16 bytes, which every such machine has; elsewhere eight bytes at a time,
//! by integer arithmetic. Both are compiled and tested on x86-64.

/// The places that are looked at together: a bit for each in a `u64`.
pub(crate) const BLOCK: usize = 64;

/// A bit for each of the 64 places at which one byte is `first` and the byte `span` behind it `last`.
///
/// The window has `64 + span` bytes; in a shorter one no place matches.
#[inline(always)]
pub(crate) fn both(window: &[u8], first: u8, last: u8, span: usize) -> u64 {
    let (Some(here), Some(behind)) =
        (window.first_chunk(), window.get(span..).and_then(|rest| rest.first_chunk()))
    else {
        return 0;
    };
    backend::both(here, first, behind, last)
}

/// A bit for each of the 64 places at which the byte is this one.
#[inline(always)]
pub(crate) fn one(window: &[u8], byte: u8) -> u64 {
    window.first_chunk().map_or(0, |block| backend::equal(block, byte))
}

/// A bit for each of the 64 places at which the byte is one of two.
#[inline(always)]
pub(crate) fn either(window: &[u8], one: u8, other: u8) -> u64 {
    match window.first_chunk() {
        Some(block) => backend::equal(block, one) | backend::equal(block, other),
        None => 0,
    }
}

#[cfg(target_arch = "x86_64")]
use wide as backend;

#[cfg(not(target_arch = "x86_64"))]
use portable as backend;

#[cfg(target_arch = "x86_64")]
mod wide {
    use wide::{CmpEq, i8x16};

    use super::BLOCK;

    #[inline(always)]
    pub(super) fn equal(block: &[u8; BLOCK], byte: u8) -> u64 {
        let wanted = i8x16::splat(byte as i8);
        mask(lanes(block).map(|lane| lane.cmp_eq(wanted)))
    }

    #[inline(always)]
    pub(super) fn both(here: &[u8; BLOCK], first: u8, behind: &[u8; BLOCK], last: u8) -> u64 {
        let (first, last) = (i8x16::splat(first as i8), i8x16::splat(last as i8));
        let (here, behind) = (lanes(here), lanes(behind));
        mask(std::array::from_fn(|i| here[i].cmp_eq(first) & behind[i].cmp_eq(last)))
    }

    #[inline(always)]
    fn lanes(block: &[u8; BLOCK]) -> [i8x16; 4] {
        bytemuck::cast(*block)
    }

    /// A bit for each byte that is equal. Where delimiters are rare, most blocks have none, so that is checked first.
    #[inline(always)]
    fn mask(lanes: [i8x16; 4]) -> u64 {
        let [a, b, c, d] = lanes;
        if (a | b | c | d).move_mask() == 0 {
            return 0;
        }
        lanes
            .into_iter()
            .rev()
            .fold(0, |mask, lane| mask << 16 | u64::from(lane.move_mask() as u16))
    }
}

#[cfg(any(test, not(target_arch = "x86_64")))]
mod portable {
    use super::BLOCK;

    #[inline]
    pub(super) fn equal(block: &[u8; BLOCK], byte: u8) -> u64 {
        let wanted = u64::from_le_bytes([byte; 8]);
        let mut mask = 0;
        for word in block.chunks_exact(8).rev() {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(word);
            mask = mask << 8 | zeros(u64::from_le_bytes(bytes) ^ wanted);
        }
        mask
    }

    #[inline]
    pub(super) fn both(here: &[u8; BLOCK], first: u8, behind: &[u8; BLOCK], last: u8) -> u64 {
        match equal(here, first) {
            0 => 0,
            mask => mask & equal(behind, last),
        }
    }

    /// A bit for each byte that is zero, the lowest byte first.
    #[inline]
    fn zeros(word: u64) -> u64 {
        const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
        // The top bit of a byte is set if any bit of it is.
        let not_zero = ((word & LOW) + LOW) | word;
        let zero = (!not_zero & !LOW) >> 7;
        // The eight bits, a byte apart, are gathered in the top byte of the product.
        zero.wrapping_mul(0x0102_0408_1020_4080) >> 56
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_that_of_a_look_at_each_byte() {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        for round in 0..2000 {
            let window: Vec<u8> = (0..BLOCK + 21)
                .map(|_| {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    // Bytes that differ in one bit only, also in the top one.
                    [0, 1, 0x80, 0x81, b'\n', 0xff, 0x7f][random as usize % (2 + round % 6)]
                })
                .collect();
            for (first, last) in [(0, 0), (1, 0), (0x80, 0x81), (b'\n', 0xff), (0x7f, 1)] {
                for span in [0, 1, 2, 7, 21] {
                    let naive =
                        |place: usize| window[place] == first && window[place + span] == last;
                    let wanted = (0..BLOCK).rev().fold(0, |m, p| m << 1 | u64::from(naive(p)));
                    assert_eq!(both(&window, first, last, span), wanted);
                    let here = window.first_chunk().expect("a block");
                    let behind = window[span..].first_chunk().expect("a block");
                    assert_eq!(portable::both(here, first, behind, last), wanted);
                    assert_eq!(portable::equal(here, first), one(&window, first));
                    assert_eq!(one(&window, first), both(&window, first, first, 0));
                }
                let naive = |place: usize| window[place] == first || window[place] == last;
                let wanted = (0..BLOCK).rev().fold(0, |m, p| m << 1 | u64::from(naive(p)));
                assert_eq!(either(&window, first, last), wanted);
            }
        }
    }

    #[test]
    fn a_short_window_has_no_hit() {
        assert_eq!(both(&[0; BLOCK - 1], 0, 0, 0), 0);
        assert_eq!(both(&[0; BLOCK], 0, 0, 1), 0);
        assert_eq!(either(&[0; BLOCK - 1], 0, 0), 0);
    }
}
