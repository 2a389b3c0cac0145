//! The memory that input is read into.
//!
//! - Nothing is held while there is no input: a buffer comes from the thread's pool for an attempt to
//!   read, and goes back if nothing came, or when somebody is waited for and all has been looked at.
//! - What is left of a frame or a terminator when input is awaited moves to memory of its own size. What
//!   comes behind it is appended there, so that a byte costs what a byte costs.
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

/// What has been read, and is not dropped yet.
#[derive(Debug)]
pub(crate) enum Input {
    /// No piece of it is worth sharing.
    Short(BytesMut),
    /// Pieces may be shared.
    Long(Bytes),
}

impl Input {
    /// Input that has been read by somebody else.
    pub(crate) fn new(read: BytesMut) -> Self {
        if read.len() < SHARE { Input::Short(read) } else { Input::Long(shareable(read).freeze()) }
    }

    /// A part of it, to be kept: shared if it is long, else a copy that keeps nothing else.
    pub(crate) fn keep(&self, part: &[u8]) -> Bytes {
        match self {
            Input::Long(input) if part.len() >= SHARE => input.slice_ref(part),
            _ => Bytes::copy_from_slice(part),
        }
    }

    /// Drops so many bytes at the front, or all if there are no more. The memory is kept, for more input.
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

    /// For whoever has to wait: what is there keeps no more memory than it needs. It may move.
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

    /// Reads once, at most `most` bytes, behind what is there. What is there may move.
    pub(crate) fn poll_read<R: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut R,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let was_long = matches!(self, Input::Long(_));
        let mut taken;
        // A short one is read into where it is: peers that send byte by byte make a move a good part of a
        // read.
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

/// Reads once, at most `most` bytes, behind what is there. If nothing comes, what is there keeps no more
/// memory than it needs.
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
    // Where a part of a frame fills most of the buffer, a quarter of a read is worth a move.
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

/// What is left while nothing is to be read does not keep a whole read buffer, and if nothing is, it keeps
/// none.
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

/// A buffer with these bytes: the one that they are in, unless others keep a piece of it.
fn unshared(input: Bytes, most: usize) -> BytesMut {
    input.try_into_mut().unwrap_or_else(|input| {
        let mut buffer = pool::take(most + input.len());
        buffer.extend_from_slice(&input);
        buffer
    })
}

/// The same buffer, in the form in which it becomes `Bytes`, and a buffer again, without an allocation each
/// time: how many share it is counted from here on, which is one.
fn shareable(mut buffer: BytesMut) -> BytesMut {
    drop(buffer.split_to(0));
    buffer
}

/// From so many bytes on a part is shared rather than copied. Whoever keeps it keeps the read buffer, of
/// which it must be a good part: a peer that sends little at a time must not make a queue of little
/// pieces hold many times what it counts.
const SHARE: usize = 16 * 1024;
/// What is left when input is awaited may stay in memory of this size.
const LEFT: usize = 256;
