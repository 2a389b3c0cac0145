//! Bytes on their way out: small items are copied one behind the other, large ones stay as they are.
//!
//! ```text
//!   gathered  [ written | run | run | run ]     one buffer for all small items
//!                          │     │     │
//!   the order            run, whole, run, whole, run
//!                              │           │
//!   wholes                 [ Bytes ]   [ Bytes ]    large items, each with the length of the run before it
//! ```
//!
//! - The writer is offered as many pieces as fit into one vectored write. Bytes leave only when the writer has
//!   said how many it took, so that there is nothing to put back after a short write, `Pending`, an error or a
//!   future that is dropped.
//! - The buffer comes from the thread's pool with the first small item, and stays when all is written, for the
//!   next. [`Pieces::shrink`] is called before a wait, so that an empty buffer, or one with a few bytes, does not
//!   stay large.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::iter;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

use crate::output::payload::Payload;
use crate::pool;

/// Bytes in order, of which the small items share one buffer.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    gathered: BytesMut,
    /// How many bytes at the front of `gathered` are written: `start + before_wholes <= gathered.len()`.
    start: usize,
    wholes: VecDeque<Whole>,
    /// The sum of all `Whole::before`.
    before_wholes: usize,
    /// The length of all wholes together.
    whole_bytes: usize,
}

/// A large item, and how many gathered bytes are between it and the large item in front of it.
#[derive(Debug)]
struct Whole {
    /// How many gathered bytes go between the large item in front and this one.
    before: usize,
    /// Never empty.
    bytes: Bytes,
}

impl Pieces {
    /// Appends an item: copied if it is small, else as it is.
    #[inline]
    pub(crate) fn push<T: Payload>(&mut self, item: T) {
        let bytes = item.as_bytes();
        if bytes.len() < LARGE {
            self.gather(bytes);
        } else {
            self.push_whole(item.into_bytes());
        }
    }

    /// Appends what `write` appends to the buffer; nothing if it fails.
    ///
    /// # Panics
    ///
    /// If `write` removes bytes that were there before: nobody knows what is left.
    #[inline]
    pub(crate) fn try_push_with<R, E>(
        &mut self,
        write: impl FnOnce(&mut BytesMut) -> Result<R, E>,
    ) -> Result<R, E> {
        if self.gathered.capacity() == self.gathered.len() {
            self.make_room(1);
        }
        let before = self.gathered.len();
        let result = write(&mut self.gathered);
        assert!(before <= self.gathered.len(), "bytes were removed that others had written");
        if result.is_err() {
            self.gathered.truncate(before);
        }
        result
    }

    /// Offers up to `most` bytes to the writer, once, and drops what was taken.
    pub(crate) fn poll_write<W: AsyncWrite + ?Sized>(
        &mut self,
        cx: &mut Context<'_>,
        io: Pin<&mut W>,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.poll_offer(cx, io, most))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.advance(written);
        Poll::Ready(Ok(written))
    }

    /// Moves the first `count` bytes to the end of `other`. Large items must be among them as a whole.
    pub(crate) fn move_to(&mut self, other: &mut Pieces, count: usize) {
        if other.is_empty() && count == self.len() {
            mem::swap(self, other);
            return;
        }
        let mut left = count;
        while self.wholes.front().is_some_and(|first| first.before + first.bytes.len() <= left) {
            let Some(Whole { before, bytes }) = self.wholes.pop_front() else {
                break;
            };
            other.gather(&self.gathered[self.start..self.start + before]);
            left -= before + bytes.len();
            self.start += before;
            self.before_wholes -= before;
            self.whole_bytes -= bytes.len();
            other.push_whole(bytes);
        }
        other.gather(&self.gathered[self.start..self.start + left]);
        self.advance(left);
    }

    /// Called before a wait: gives up a buffer that is empty, or much larger than what is in it.
    pub(crate) fn shrink(&mut self) {
        let rest = &self.gathered[self.start..];
        if rest.is_empty() || self.gathered.capacity() > 2 * rest.len() + SPARE {
            let rest = BytesMut::from(rest);
            pool::give(mem::replace(&mut self.gathered, rest));
            self.start = 0;
        }
        if self.wholes.capacity() > 2 * self.wholes.len() + MAX_SLICES {
            self.wholes.shrink_to_fit();
        }
    }

    /// All bytes in one buffer.
    pub(crate) fn into_contiguous(mut self) -> BytesMut {
        if self.wholes.is_empty() {
            self.gathered.advance(self.start);
            return self.gathered;
        }
        let mut all = BytesMut::with_capacity(self.len());
        for piece in self.slices() {
            all.extend_from_slice(piece);
        }
        all
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// In bytes.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.gathered.len() - self.start + self.whole_bytes
    }

    /// How many large items and runs of small ones there are.
    pub(crate) fn count(&self) -> usize {
        self.slices().count()
    }

    /// Called before this is kept empty for another use: gives up memory that is too large to be kept.
    pub(crate) fn trim(&mut self) {
        if self.gathered.capacity() > MAX_KEPT {
            self.shrink();
        }
        if self.wholes.capacity() > MAX_SLICES {
            self.wholes = VecDeque::new();
        }
    }

    fn poll_offer<W: AsyncWrite + ?Sized>(
        &self,
        cx: &mut Context<'_>,
        io: Pin<&mut W>,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        if self.wholes.is_empty() {
            let run = &self.gathered[self.start..];
            return io.poll_write(cx, &run[..run.len().min(most)]);
        }
        let mut offered = [IoSlice::new(&[]); MAX_SLICES];
        let mut count = 0;
        let mut left = most;
        for piece in self.slices() {
            if left == 0 || count == MAX_SLICES {
                break;
            }
            let piece = &piece[..piece.len().min(left)];
            offered[count] = IoSlice::new(piece);
            count += 1;
            left -= piece.len();
        }
        match &offered[..count] {
            [first, ..] if count == 1 || !io.is_write_vectored() => io.poll_write(cx, first),
            offered => io.poll_write_vectored(cx, offered),
        }
    }

    /// How long an item may be for [`append`](Self::append): it is small enough to be copied, and the buffer has
    /// room for it.
    #[inline]
    pub(crate) fn spare(&self) -> usize {
        (self.gathered.capacity() - self.gathered.len()).min(LARGE - 1)
    }

    #[inline]
    pub(crate) fn gather(&mut self, bytes: &[u8]) {
        if self.gathered.capacity() - self.gathered.len() < bytes.len() {
            self.make_room(bytes.len());
        }
        self.append(bytes);
    }

    /// As [`gather`](Self::gather), where there is [room](Self::spare) for it.
    #[inline]
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.gathered.extend_from_slice(bytes);
    }

    /// Makes sure that `len` more bytes can be gathered.
    #[cold]
    fn make_room(&mut self, len: usize) {
        if self.gathered.capacity() == 0 {
            self.gathered = pool::take(len.max(FIRST_GATHER));
            return;
        }
        let kept = self.gathered.len() - self.start;
        if self.start >= kept {
            // At least half of the buffer is written: the rest moves to its front, and makes room behind it.
            self.gathered.copy_within(self.start.., 0);
            self.gathered.truncate(kept);
            self.start = 0;
        }
        self.gathered.reserve(len);
    }

    fn push_whole(&mut self, bytes: Bytes) {
        let before = self.gathered.len() - self.start - self.before_wholes;
        self.before_wholes += before;
        self.whole_bytes += bytes.len();
        self.wholes.push_back(Whole { before, bytes });
    }

    /// Drops the first `count` bytes.
    fn advance(&mut self, mut count: usize) {
        if !self.wholes.is_empty() {
            count = self.advance_wholes(count);
        }
        self.start += count;
        if self.start == self.gathered.len() {
            self.start = 0;
            self.gathered.clear();
        }
    }

    /// Drops the first `count` bytes as far as they are large items, or gathered bytes with a large item dropped
    /// behind them. Returns how many gathered bytes are still to be dropped.
    fn advance_wholes(&mut self, mut count: usize) -> usize {
        let mut done = 0;
        for whole in &self.wholes {
            if count < whole.before + whole.bytes.len() {
                break;
            }
            count -= whole.before + whole.bytes.len();
            self.start += whole.before;
            self.before_wholes -= whole.before;
            self.whole_bytes -= whole.bytes.len();
            done += 1;
        }
        self.wholes.drain(..done);
        if let Some(first) = self.wholes.front_mut() {
            let run = count.min(first.before);
            first.before -= run;
            self.before_wholes -= run;
            first.bytes.advance(count - run);
            self.whole_bytes -= count - run;
            count = run;
        }
        count
    }

    /// All pieces in order, none of them empty.
    fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let mut runs = &self.gathered[self.start..];
        let mut wholes = self.wholes.iter();
        let mut next: &[u8] = &[];
        iter::from_fn(move || {
            if !next.is_empty() {
                return Some(mem::take(&mut next));
            }
            match wholes.next() {
                Some(whole) if whole.before == 0 => Some(&whole.bytes),
                Some(whole) => {
                    let (run, rest) = runs.split_at(whole.before);
                    runs = rest;
                    next = &whole.bytes;
                    Some(run)
                }
                None => Some(mem::take(&mut runs)).filter(|last| !last.is_empty()),
            }
        })
    }
}

/// An item of this many bytes or more is written as it is; a smaller one is copied.
const LARGE: usize = 1024;
/// What the first small item reserves, if the pool has no buffer.
const FIRST_GATHER: usize = 1024;
/// A buffer with nothing in it that is larger than this, in bytes, goes back to the pool.
const MAX_KEPT: usize = 64 * 1024;
/// How many bytes a buffer may hold during a wait, beyond twice what is in it.
const SPARE: usize = 1024;
/// The most pieces offered in one vectored write.
const MAX_SLICES: usize = 64;
