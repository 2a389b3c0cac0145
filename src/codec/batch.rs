use std::fmt;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::{CodecError, Frame, FrameCodec, buffer};
use crate::framing::{Cut, End};

/// A decoder of whole frames, as many at a time as one read brings: the cheapest way to own them.
///
/// Made by [`FrameCodec::batched`]. Complete frames that arrive together are one item, a [`Batch`]; an
/// overlong or truncated frame ends the batch and comes next.
///
/// ```
/// use asynchat::{Frame, FrameCodec};
/// use bytes::BytesMut;
/// use tokio_util::codec::Decoder;
///
/// let mut codec = FrameCodec::crlf_or_lf().batched();
/// let mut buffer = BytesMut::from("one\ntwo\r\n\nthr");
/// let Some(Frame::Complete(batch)) = codec.decode(&mut buffer)? else { panic!("three frames") };
/// assert_eq!(batch.iter().collect::<Vec<_>>(), [&b"one"[..], b"two", b""]);
/// assert_eq!(codec.decode(&mut buffer)?, None);
/// # Ok::<(), asynchat::CodecError>(())
/// ```
#[derive(Clone, Debug)]
pub struct BatchCodec {
    codec: FrameCodec,
    /// How many frames the last batch had: the next is likely to have as many.
    expected: usize,
    /// The overlong or truncated frame that ended the last batch, to be returned next.
    held: Option<Frame<Batch>>,
}

impl BatchCodec {
    pub(super) fn new(codec: FrameCodec) -> Self {
        BatchCodec { codec, expected: 0, held: None }
    }

    /// Drops the input that is buffered: see [`TerminatorCodec::discard`](crate::TerminatorCodec::discard).
    pub fn discard(&mut self, buffer: &mut BytesMut) {
        self.codec.discard(buffer);
    }

    fn decode_batch(
        &mut self,
        src: &mut BytesMut,
        eof: bool,
    ) -> Result<Option<Frame<Batch>>, CodecError> {
        if let Some(held) = self.held.take() {
            return Ok(Some(held));
        }
        let framer = &mut self.codec.framer;
        // Room for as many frames as the last batch had, but no more than the input can hold if each has `SHORT`
        // bytes.
        let mut frames = Vec::with_capacity(self.expected.min(src.len() / SHORT));
        // How many bytes of the buffer the complete frames take up, delimiters included.
        let mut complete = 0;
        let end = loop {
            // `cut` fails only after an overlong frame, which ends a batch. So it fails in the first round or not
            // at all, and no frames are lost.
            match framer.cut(src, eof)? {
                Some(Cut { start, end, outcome: Some(End::Terminator) }) => {
                    frames.push(start..end);
                    complete = framer.consumed();
                }
                end => break end,
            }
        };
        framer.consume(complete);
        let bytes = src.split_to(complete);
        let batch = (!frames.is_empty()).then(|| {
            self.expected = frames.len();
            Frame::Complete(Batch { bytes: bytes.freeze(), frames })
        });
        self.held = match end {
            Some(Cut { start, end, outcome }) => {
                // The frame is not complete. Its position has moved, since the complete ones were taken off the
                // front.
                let cut = Cut { start: start - complete, end: end - complete, outcome };
                match self.codec.take(src, cut) {
                    Frame::Overlong(payload) => Some(Frame::Overlong(payload)),
                    Frame::Complete(payload) | Frame::Truncated(payload) => {
                        Some(Frame::Truncated(payload))
                    }
                }
            }
            // While a batch shares the buffer, to make room in it would allocate another.
            None => {
                buffer::want(framer, src, eof || batch.is_some());
                None
            }
        };
        Ok(batch.or_else(|| self.held.take()))
    }
}

impl Decoder for BatchCodec {
    type Item = Frame<Batch>;
    type Error = CodecError;

    #[inline]
    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Frame<Batch>>, CodecError> {
        self.decode_batch(src, false)
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Frame<Batch>>, CodecError> {
        self.decode_batch(src, true)
    }
}

impl<T> Encoder<T> for BatchCodec
where
    FrameCodec: Encoder<T>,
{
    type Error = <FrameCodec as Encoder<T>>::Error;

    fn encode(&mut self, item: T, dst: &mut BytesMut) -> Result<(), Self::Error> {
        self.codec.encode(item, dst)
    }
}

/// Complete frames that came together: one piece of memory, and where each of them is. Never empty.
///
/// ```
/// use asynchat::{Frame, FrameCodec};
/// use bytes::BytesMut;
/// use tokio_util::codec::Decoder;
///
/// let mut codec = FrameCodec::lf().batched();
/// let mut buffer = BytesMut::from("one\n\nthree\nfo");
/// let Some(Frame::Complete(batch)) = codec.decode(&mut buffer)? else {
///     unreachable!("three lines are complete");
/// };
/// assert_eq!(batch.len(), 3);
/// assert_eq!(batch.get(2), Some(&b"three"[..]));
/// assert_eq!(batch.get_bytes(3), None);
/// assert!(batch.iter().eq([&b"one"[..], b"", b"three"]));
/// # Ok::<(), asynchat::CodecError>(())
/// ```
#[derive(Clone)]
pub struct Batch {
    bytes: Bytes,
    /// Each within `bytes`.
    frames: Vec<Range<usize>>,
}

impl Batch {
    /// How many frames there are.
    #[expect(clippy::len_without_is_empty, reason = "a batch is never empty")]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// The payload of the frame with this number, counted from 0, or `None` beyond the last.
    pub fn get(&self, frame: usize) -> Option<&[u8]> {
        self.bytes.get(self.frames.get(frame)?.clone())
    }

    /// The payload of a frame, to be kept: a share of the batch's memory.
    pub fn get_bytes(&self, frame: usize) -> Option<Bytes> {
        self.frames.get(frame).map(|range| self.bytes.slice(range.clone()))
    }

    /// The payloads, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.frames.iter().map(|range| &self.bytes[range.clone()])
    }
}

/// Two batches are the same if their frames are, whatever stood between them.
impl PartialEq for Batch {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Batch {}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Batch")?;
        f.debug_list().entries(self.iter().map(Bytes::copy_from_slice)).finish()
    }
}

/// Room is made beforehand for frames of this many bytes or more, delimiter included.
const SHORT: usize = 8;
