//! What the codecs do with the transport's read buffer: take pieces off its front, make room at its end,
//! and drop what is in it.

use std::mem;

use bytes::{Buf, Bytes, BytesMut};
use tokio_util::codec::{Framed, FramedRead};

use super::{BatchCodec, FrameCodec, TerminatorCodec};
use crate::framing::{Cut, Framer};

/// Takes off the buffer what the framer is done with, and returns the payload in it.
#[inline(always)]
pub(super) fn take(framer: &mut Framer, src: &mut BytesMut, cut: Cut) -> Bytes {
    let consumed = framer.take_consumed().min(src.len());
    let len = cut.end - cut.start;
    if len == 0 {
        src.advance(consumed);
        return Bytes::new();
    }
    if cut.outcome.is_none() && len < DRIBBLE {
        // Where a frame comes in small pieces, each of them would keep a whole buffer if it was shared.
        let piece = Bytes::copy_from_slice(src.get(cut.start..cut.end).unwrap_or_default());
        src.advance(consumed);
        return piece;
    }
    // One split takes the payload and its terminator off the buffer.
    let mut piece = src.split_to(consumed);
    piece.truncate(cut.end);
    if cut.start > 0 {
        // In front of the payload there may be bytes that were skipped.
        piece.advance(cut.start.min(piece.len()));
    }
    piece.freeze()
}

/// More input is wanted: takes off the buffer what the framer is done with, and makes room, so that the
/// transport does not read into a remainder of a few bytes. `BytesMut` takes its buffer back here, whole,
/// if nobody kept a part of it.
pub(super) fn want(framer: &mut Framer, src: &mut BytesMut, eof: bool) {
    let consumed = framer.consumed();
    if consumed > 0 {
        framer.consume(consumed);
        src.advance(consumed.min(src.len()));
    }
    if !eof && src.capacity() - src.len() < MIN_READ {
        src.reserve(MIN_READ);
        framer.moved_to(src);
    }
}

/// A piece of an unfinished frame that is shorter, in bytes, is copied.
const DRIBBLE: usize = 64;
/// The least room for a read, in bytes.
const MIN_READ: usize = 4096;

/// Drops the input that a transport has buffered: what asynchat's `discard_buffers` did.
///
/// The terminator, what remains of a count and the length of the current frame stay, and so does what is
/// queued for writing. It is for transports whose codec is one of this crate's; where the buffer is held
/// by hand, the codecs have a `discard` of their own.
///
/// ```
/// use asynchat::{DiscardInput, Event, TerminatorCodec};
/// use futures::StreamExt;
/// use tokio_util::codec::FramedRead;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut lines = FramedRead::new(&b"one\ntwo\n"[..], TerminatorCodec::new(b"\n"));
/// assert_eq!(lines.next().await.expect("a chunk")?, Event::Chunk("one".into()));
/// assert_eq!(lines.next().await.expect("its end")?, Event::Terminator);
/// lines.discard_input();
/// assert!(lines.next().await.is_none());
/// # Ok(())
/// # }
/// ```
pub trait DiscardInput: sealed::Sealed {
    /// Drops what has been read and not decoded.
    fn discard_input(&mut self);
}

impl<T, C: sealed::Discard> DiscardInput for FramedRead<T, C> {
    fn discard_input(&mut self) {
        let mut buffer = mem::take(self.read_buffer_mut());
        self.decoder_mut().discard(&mut buffer);
        *self.read_buffer_mut() = buffer;
    }
}

impl<T, C: sealed::Discard> DiscardInput for Framed<T, C> {
    fn discard_input(&mut self) {
        let mut buffer = mem::take(self.read_buffer_mut());
        self.codec_mut().discard(&mut buffer);
        *self.read_buffer_mut() = buffer;
    }
}

mod sealed {
    use super::*;

    /// A codec that can be told that its input was dropped.
    pub trait Discard {
        fn discard(&mut self, buffer: &mut BytesMut);
    }

    impl<I> Discard for TerminatorCodec<I> {
        fn discard(&mut self, buffer: &mut BytesMut) {
            TerminatorCodec::discard(self, buffer);
        }
    }

    impl Discard for FrameCodec {
        fn discard(&mut self, buffer: &mut BytesMut) {
            FrameCodec::discard(self, buffer);
        }
    }

    impl Discard for BatchCodec {
        fn discard(&mut self, buffer: &mut BytesMut) {
            BatchCodec::discard(self, buffer);
        }
    }

    pub trait Sealed {}

    impl<T, C: Discard> Sealed for FramedRead<T, C> {}
    impl<T, C: Discard> Sealed for Framed<T, C> {}
}
