//! A checksum of frames that takes next to no time, so that it does not change what is measured.

/// A checksum of how many frames there were, how long they were in all, and the last byte of each.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    sum: u64,
    last: u8,
}

impl Tally {
    /// Takes a piece of a frame.
    #[inline]
    pub fn chunk(&mut self, chunk: &[u8]) {
        self.sum += chunk.len() as u64;
        if let Some(&last) = chunk.last() {
            self.last = last;
        }
    }

    /// Takes the end of a frame.
    #[inline]
    pub fn end(&mut self) {
        self.sum += (1 << 40) + u64::from(self.last);
        self.last = 0;
    }

    /// Takes a whole frame.
    #[inline]
    pub fn frame(&mut self, frame: &[u8]) {
        self.sum += (1 << 40) + frame.len() as u64 + u64::from(frame.last().copied().unwrap_or(0));
    }

    /// Returns the checksum.
    #[inline]
    pub fn sum(&self) -> u64 {
        self.sum
    }
}
