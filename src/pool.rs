//! Buffers, shared by the connections of a thread.
//!
//! A connection holds a buffer only while there are bytes in it. A channel takes one from here for each attempt to
//! read and gives it back when the read is pending, or when the input has been dispatched and nobody kept a piece
//! of it. An output queue takes one with the first small item, and when all is written the queue and its buffer
//! are kept together for the next connection that writes. So ten thousand idle connections share a few buffers,
//! which are still in the processor's cache when a request comes.

use std::cell::RefCell;

use bytes::BytesMut;

thread_local! {
    static BUFFERS: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer with room for at least `size` bytes.
pub(crate) fn take(size: usize) -> BytesMut {
    let pooled = BUFFERS.try_with(|buffers| buffers.borrow_mut().pop()).ok().flatten();
    let mut buffer = pooled.unwrap_or_default();
    // `reserve` uses the memory of bytes that were taken off the front as room again.
    buffer.reserve(size);
    buffer
}

/// Gives a buffer back.
pub(crate) fn give(mut buffer: BytesMut) {
    if !(MIN_SIZE..=MAX_SIZE).contains(&buffer.capacity()) {
        return;
    }
    buffer.clear();
    // A thread that is ending has no pool any more.
    let _ = BUFFERS.try_with(|buffers| {
        let mut buffers = buffers.borrow_mut();
        if buffers.len() < MAX_BUFFERS {
            buffers.push(buffer);
        }
    });
}

/// The most buffers a thread keeps: one to read into, one whose input is being dispatched, one for a new queue,
/// and one more for a connection whose handler waits while others read.
const MAX_BUFFERS: usize = 4;
/// A buffer smaller than this, in bytes, is not worth keeping.
const MIN_SIZE: usize = 1024;
/// A buffer larger than this, in bytes, is not kept.
const MAX_SIZE: usize = 256 * 1024;
