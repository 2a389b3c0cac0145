//! The memory that input is read into.
//!
//! - Nothing is held while there is no input: a buffer comes from the thread's pool for an attempt to read, and
//!   goes back if nothing came, or when the connection has to wait and all input is consumed.
//! - When input is awaited, the beginning of a frame or of a terminator that is left moves to a buffer of about
//!   its size. What comes next is appended there, so that the cost of a byte does not depend on how many came
//!   before it.
//! - Input that is long enough for a piece of it to be worth sharing is `Bytes`; less than that stays the
//!   buffer that it was read into, which is cheaper to read into again.

use std::io;
use std::mem;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

use crate::pool;

/// The input that was read and is not dropped yet.
#[derive(Debug)]
pub(crate) enum Input {
    /// No piece of it is worth sharing.
    Short(BytesMut),
    /// Pieces may be shared.
    Long(Bytes),
}

impl Input {
    /// Makes an `Input` of bytes that were read before.
    pub(crate) fn new(read: BytesMut) -> Self {
        if read.len() < SHARE { Input::Short(read) } else { Input::Long(shareable(read).freeze()) }
    }

    /// A part of the input, as owned bytes: shared if it is long, else a copy, which keeps nothing else in memory.
    pub(crate) fn keep(&self, part: &[u8]) -> Bytes {
        match self {
            Input::Long(input) if part.len() >= SHARE => input.slice_ref(part),
            _ => Bytes::copy_from_slice(part),
        }
    }

    /// Drops the first `count` bytes, or all if there are no more. Short input keeps its buffer, for more input;
    /// long input gives its buffer back when nothing is left.
    pub(crate) fn drop_front(&mut self, count: usize) {
        match self {
            Input::Short(input) if count < input.len() => input.advance(count),
            Input::Short(input) => input.clear(),
            Input::Long(input) if count < input.len() => input.advance(count),
            Input::Long(_) => self.release(),
        }
    }

    /// Drops all of it, and gives the memory back.
    pub(crate) fn release(&mut self) {
        match mem::take(self) {
            Input::Short(buffer) => pool::give(buffer),
            Input::Long(input) => {
                if let Ok(buffer) = input.try_into_mut() {
                    pool::give(buffer);
                }
            }
        }
    }

    /// Called before a wait, so that the input holds no more memory than it needs. Its bytes may move.
    pub(crate) fn shrink(&mut self) {
        match self {
            Input::Short(buffer) => shrink(buffer),
            Input::Long(input) if input.len() < SHARE => {
                let left = Input::Short(BytesMut::from(&input[..]));
                mem::replace(self, left).release();
            }
            Input::Long(_) => {}
        }
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        match self {
            Input::Short(buffer) => buffer.freeze(),
            Input::Long(input) => input,
        }
    }

    /// Reads once, at most `most` bytes, and appends them. The bytes that are there may move.
    pub(crate) fn poll_read<R: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut R,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let was_long = matches!(self, Input::Long(_));
        let mut taken;
        // Short input is read into in place: where peers send byte by byte, moving the buffer out and back would
        // be a good part of the cost of a read.
        let buffer = match self {
            Input::Short(buffer) => buffer,
            Input::Long(input) => {
                taken = unshared(mem::take(input), most);
                &mut taken
            }
        };
        let read = read_into(buffer, cx, io, most);
        if was_long || buffer.len() >= SHARE {
            *self = Input::new(mem::take(buffer));
        }
        read
    }
}

/// Reads once, at most `most` bytes, and appends them. If nothing comes, the buffer is shrunk to what its bytes
/// need.
fn read_into<R: AsyncRead + Unpin>(
    buffer: &mut BytesMut,
    cx: &mut Context<'_>,
    io: &mut R,
    most: usize,
) -> Poll<io::Result<usize>> {
    let io = Pin::new(io);
    if buffer.is_empty() && buffer.capacity() < most {
        pool::give(mem::replace(buffer, pool::take(most)));
    }
    // If the beginning of a frame fills most of the buffer, room for a quarter of a read is enough. To make that
    // room, `try_reclaim` may move the bytes to the front.
    let wanted = most.saturating_sub(buffer.len()).max(most / 4).max(1);
    let read = if buffer.try_reclaim(wanted) {
        let room = most.min(buffer.capacity() - buffer.len());
        poll_read_buf(io, cx, &mut buffer.limit(room))
    } else {
        let mut fresh = pool::take(most);
        let read = poll_read_buf(io, cx, &mut (&mut fresh).limit(most));
        buffer.extend_from_slice(&fresh);
        pool::give(fresh);
        read
    };
    if !matches!(read, Poll::Ready(Ok(1..))) {
        shrink(buffer);
    }
    read
}

impl Default for Input {
    fn default() -> Self {
        Input::Short(BytesMut::new())
    }
}

impl Deref for Input {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Input::Short(input) => input,
            Input::Long(input) => input,
        }
    }
}

/// Moves what is left to a small buffer, so that it does not hold a whole read buffer during a wait. If nothing is
/// left, no buffer is held.
fn shrink(buffer: &mut BytesMut) {
    let mut left = BytesMut::new();
    if !buffer.is_empty() {
        if buffer.capacity() <= LEFT.max(buffer.len() * 3) {
            return;
        }
        left.reserve(LEFT.max(buffer.len() * 2));
        left.extend_from_slice(buffer);
    }
    pool::give(mem::replace(buffer, left));
}

/// A buffer with these bytes: the one that they are in, or a copy if somebody else keeps a piece of that.
fn unshared(input: Bytes, most: usize) -> BytesMut {
    input.try_into_mut().unwrap_or_else(|input| {
        let mut buffer = pool::take(most + input.len());
        buffer.extend_from_slice(&input);
        buffer
    })
}

/// The same buffer in its reference-counted form, which an empty split brings about. In this form it becomes
/// `Bytes`, and a `BytesMut` again, without an allocation each time.
fn shareable(mut buffer: BytesMut) -> BytesMut {
    drop(buffer.split_to(0));
    buffer
}

/// A part of this many bytes or more is shared rather than copied. It then keeps the whole read buffer in memory,
/// so it must be a good part of that: otherwise a peer that sends little at a time could make a queue of small
/// pieces hold many times the bytes that it counts.
const SHARE: usize = 16 * 1024;
/// A buffer of this many bytes may be held while input is awaited, however few bytes are in it.
const LEFT: usize = 256;
