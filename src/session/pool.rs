//! Read buffers, shared by the channels of a thread.
//!
//! A channel holds a buffer only while there is input in it. It takes one from here for each attempt to
//! read and gives it back when the read is pending, or when the input has been dispatched and nobody
//! kept a piece of it: ten thousand idle channels have one buffer between them.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};

thread_local! {
    static BUFFERS: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer with room for at least `size` bytes.
pub(crate) fn take(size: usize) -> BytesMut {
    let pooled = BUFFERS.try_with(|buffers| buffers.borrow_mut().pop()).ok().flatten();
    let mut buffer = pooled.unwrap_or_default();
    // What was taken off its front is room again.
    buffer.reserve(size);
    buffer
}

/// Gives a buffer back.
pub(crate) fn give(mut buffer: BytesMut) {
    if buffer.capacity() > MAX_SIZE {
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

/// Gives back the buffer behind these bytes, if nobody else has a piece of it.
pub(crate) fn give_back(input: Bytes) {
    if let Ok(buffer) = input.try_into_mut() {
        give(buffer);
    }
}

/// The most buffers a thread keeps: one to read into, one whose input is being dispatched, and what a
/// handler that gave way was given meanwhile.
const MAX_BUFFERS: usize = 4;
/// A buffer larger than this, in bytes, is not kept.
const MAX_SIZE: usize = 256 * 1024;
