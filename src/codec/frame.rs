use std::ops::Range;
use std::str::Utf8Error;
use std::{fmt, iter, mem, str};

use bytes::{Buf, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use crate::codec::terminator::{CodecError, reserve};
use crate::framing::framer::{Framer, Step};
use crate::framing::limit::{Limit, OverlongError};
use crate::framing::search::{Found, Scanner};
use crate::framing::terminator::{Delimiter, DelimiterSet, Terminator};

/// A codec of whole frames: lines, for one, but with any delimiter, with a limit that does not end the
/// stream, and without a copy.
///
/// A frame is buffered until it is complete, so there is a limit: 64 KiB of payload unless
/// [`with_limit`](Self::with_limit) says otherwise. What is longer arrives as [`Frame::Overlong`] with
/// its first bytes, the rest is skipped, and the next frame is whole.
///
/// ```
/// use asynchat::{Frame, FrameCodec};
/// use bytes::BytesMut;
/// use tokio_util::codec::{Decoder, Encoder};
///
/// # fn main() -> Result<(), asynchat::CodecError> {
/// let mut codec = FrameCodec::crlf();
/// let mut buffer = BytesMut::from("one\r\nstill one\nline\r\ncut");
/// assert_eq!(codec.decode(&mut buffer)?, Some(Frame::Complete("one".into())));
/// assert_eq!(codec.decode(&mut buffer)?, Some(Frame::Complete("still one\nline".into())));
/// assert_eq!(codec.decode(&mut buffer)?, None);
/// assert_eq!(codec.decode_eof(&mut buffer)?, Some(Frame::Truncated("cut".into())));
///
/// let mut out = BytesMut::new();
/// codec.encode("250 OK", &mut out)?;
/// assert_eq!(out, "250 OK\r\n");
/// assert!(codec.encode("250 OK\r\nMAIL FROM:<me>", &mut out).is_err());
/// # Ok(())
/// # }
/// ```
///
/// # Encoding
///
/// Anything that is bytes is written with the delimiter behind it. A payload in which the receiver would
/// find the delimiter early is refused with [`CodecError::Injection`], and nothing of it is written.
///
/// # Cancellation safety
///
/// Like every decoder it is synchronous: dropping a future of the transport's `next` loses nothing.
#[derive(Clone, Debug)]
pub struct FrameCodec {
    cutter: Cutter,
    ending: Delimiter,
}

impl FrameCodec {
    /// Frames that end at this delimiter.
    pub fn new(delimiter: impl Into<Delimiter>) -> Self {
        let delimiter = delimiter.into();
        FrameCodec { cutter: Cutter::new(Terminator::Bytes(delimiter.clone())), ending: delimiter }
    }

    /// Lines that end with CRLF, and nothing else: a bare LF is payload, as SMTP and HTTP want it.
    pub fn crlf() -> Self {
        FrameCodec::new(b"\r\n")
    }

    /// Lines that end with LF. A CR before it is payload.
    pub fn lf() -> Self {
        FrameCodec::new(b"\n")
    }

    /// Lines that end with CRLF or with LF alone, as `tokio_util::codec::LinesCodec` reads them. Written
    /// lines end with CRLF.
    pub fn crlf_or_lf() -> Self {
        FrameCodec::any_of(crlf_or_lf(), b"\r\n")
    }

    /// Frames that end at any delimiter of a set, and are written with this one.
    fn any_of(set: DelimiterSet, ending: impl Into<Delimiter>) -> Self {
        FrameCodec { cutter: Cutter::new(Terminator::AnyOf(set)), ending: ending.into() }
    }

    /// Sets the limit. Under [`Limit::Fail`] the stream ends with an error after `Frame::Overlong`.
    ///
    /// ```
    /// use asynchat::{Frame, FrameCodec, Limit};
    /// use bytes::BytesMut;
    /// use tokio_util::codec::Decoder;
    ///
    /// let mut codec = FrameCodec::lf().with_limit(Limit::Skip(3));
    /// let mut buffer = BytesMut::from("abcdef\nxyz\n");
    /// assert_eq!(codec.decode(&mut buffer)?, Some(Frame::Overlong("abc".into())));
    /// assert_eq!(codec.decode(&mut buffer)?, Some(Frame::Complete("xyz".into())));
    /// # Ok::<(), asynchat::CodecError>(())
    /// ```
    #[must_use]
    pub fn with_limit(mut self, limit: Limit) -> Self {
        self.cutter.framer.set_limit(limit);
        self
    }

    /// The limit in force.
    pub fn limit(&self) -> Limit {
        self.cutter.framer.limit()
    }

    /// The same frames, as many at a time as one read brings.
    pub fn batched(self) -> BatchCodec {
        BatchCodec { codec: self, expected: 0, held: None }
    }

    #[inline]
    fn decode_frame(&mut self, src: &mut BytesMut, eof: bool) -> Result<Option<Frame>, CodecError> {
        match self.cutter.cut(src, eof) {
            Cut::Complete(payload) => {
                let consumed = self.cutter.consumed();
                Ok(Some(Frame::Complete(self.cutter.split(src, payload, consumed))))
            }
            Cut::Overlong(payload) => {
                let end = payload.end;
                Ok(Some(Frame::Overlong(self.cutter.split(src, payload, end))))
            }
            Cut::Truncated(payload) => {
                let end = payload.end;
                Ok(Some(Frame::Truncated(self.cutter.split(src, payload, end))))
            }
            Cut::Failed(error) => Err(error.into()),
            Cut::Pending => {
                self.cutter.drop_skipped(src);
                if !eof {
                    reserve(src);
                }
                Ok(None)
            }
        }
    }
}

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = CodecError;

    #[inline]
    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Frame>, CodecError> {
        self.decode_frame(src, false)
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Frame>, CodecError> {
        self.decode_frame(src, true)
    }
}

/// Anything that is bytes, with the delimiter behind it.
impl<T: AsRef<[u8]>> Encoder<T> for FrameCodec {
    type Error = CodecError;

    fn encode(&mut self, item: T, dst: &mut BytesMut) -> Result<(), CodecError> {
        let payload = item.as_ref();
        let ending = self.ending.as_bytes();
        let before = dst.len();
        dst.reserve(payload.len() + ending.len());
        dst.extend_from_slice(payload);
        dst.extend_from_slice(ending);
        // The receiver must find the delimiter where it was put, and not before.
        let written = &dst[before..];
        let terminator = self.cutter.framer.terminator();
        let mut scanner = Scanner::new();
        scanner.aim(terminator);
        match scanner.find(terminator, written, 0, 0) {
            Found::At { start, end, .. } if start == payload.len() && end == written.len() => {
                Ok(())
            }
            _ => {
                dst.truncate(before);
                Err(CodecError::Injection)
            }
        }
    }
}

/// A frame, by the way it ended.
///
/// This enum is complete: a frame ends in one of three ways. `B` is `Bytes` for a [`FrameCodec`]; a
/// [`BatchCodec`] has a [`Batch`] of complete frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame<B = Bytes> {
    /// The payload, without its delimiter.
    Complete(B),
    /// As many bytes as the limit allows, of a frame that is longer. The rest is skipped.
    Overlong(Bytes),
    /// What there was when the input ended.
    Truncated(Bytes),
}

impl Frame {
    /// The payload as text, however the frame ended.
    ///
    /// ```
    /// use asynchat::Frame;
    ///
    /// assert_eq!(Frame::Complete("grüezi".into()).to_str(), Ok("grüezi"));
    /// ```
    ///
    /// # Errors
    ///
    /// If the payload is not UTF-8. The frame is still there, as is the stream.
    pub fn to_str(&self) -> Result<&str, Utf8Error> {
        str::from_utf8(self.as_ref())
    }

    /// The payload, however the frame ended.
    pub fn into_bytes(self) -> Bytes {
        match self {
            Frame::Complete(bytes) | Frame::Overlong(bytes) | Frame::Truncated(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        match self {
            Frame::Complete(bytes) | Frame::Overlong(bytes) | Frame::Truncated(bytes) => bytes,
        }
    }
}

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
    /// What ended the last batch.
    held: Option<Frame<Batch>>,
}

impl BatchCodec {
    fn decode_batch(
        &mut self,
        src: &mut BytesMut,
        eof: bool,
    ) -> Result<Option<Frame<Batch>>, CodecError> {
        if let Some(held) = self.held.take() {
            return Ok(Some(held));
        }
        let cutter = &mut self.codec.cutter;
        let mut frames = Vec::new();
        // How much of the buffer the complete frames have, delimiters included.
        let mut complete = 0;
        let end = loop {
            match cutter.cut(src, eof) {
                Cut::Complete(payload) => {
                    if frames.is_empty() {
                        frames.reserve(self.expected);
                    }
                    frames.push(payload);
                    frames.extend(iter::from_fn(|| cutter.framer.frame_known(src)));
                    complete = cutter.consumed();
                }
                end => break end,
            }
        };
        let batch = (!frames.is_empty()).then(|| {
            self.expected = frames.len();
            Frame::Complete(Batch { bytes: cutter.split(src, 0..complete, complete), frames })
        });
        let payload = |payload: Range<usize>| payload.start - complete..payload.end - complete;
        self.held = match end {
            Cut::Overlong(range) => {
                let range = payload(range);
                let end = range.end;
                Some(Frame::Overlong(cutter.split(src, range, end)))
            }
            Cut::Truncated(range) => {
                let range = payload(range);
                let end = range.end;
                Some(Frame::Truncated(cutter.split(src, range, end)))
            }
            Cut::Failed(error) if batch.is_none() => return Err(error.into()),
            Cut::Failed(_) | Cut::Complete(_) => None,
            Cut::Pending => {
                cutter.drop_skipped(src);
                // A batch still shares the buffer: to make room now would be to allocate.
                if !eof && batch.is_none() {
                    reserve(src);
                }
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
#[derive(Clone, PartialEq, Eq)]
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

    /// The payload of a frame, counted from 0, if there are so many.
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

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Batch")?;
        f.debug_list().entries(self.iter().map(Bytes::copy_from_slice)).finish()
    }
}

/// Finds whole frames in a buffer in which an unfinished one stays.
#[derive(Clone, Debug)]
struct Cutter {
    framer: Framer,
    /// The payload found so far of an unfinished frame, within the buffer. Empty if there is none.
    open: Range<usize>,
}

/// A frame's end, with its payload's place in the buffer.
enum Cut {
    Complete(Range<usize>),
    Overlong(Range<usize>),
    Truncated(Range<usize>),
    Failed(OverlongError),
    Pending,
}

impl Cutter {
    fn new(terminator: Terminator) -> Self {
        let framer = Framer::new(terminator).with_limit(Limit::Skip(DEFAULT_LIMIT));
        Cutter { framer, open: 0..0 }
    }

    #[inline]
    fn cut(&mut self, src: &[u8], eof: bool) -> Cut {
        if self.framer.consumed() > src.len() {
            // Somebody has shortened the buffer: what was found is not there any more.
            self.framer.discard();
            self.open = 0..0;
        }
        loop {
            match self.framer.step(src, eof) {
                Step::Data { start, end, ended } => {
                    if start != self.open.end {
                        self.open.start = start;
                    }
                    self.open.end = end;
                    if ended {
                        return Cut::Complete(mem::replace(&mut self.open, 0..0));
                    }
                    if !eof && self.framer.has_room() {
                        return Cut::Pending;
                    }
                }
                Step::Overlong => return Cut::Overlong(self.take_open()),
                Step::Truncated => return Cut::Truncated(self.take_open()),
                Step::Failed(error) => return Cut::Failed(error),
                Step::Pending => return Cut::Pending,
            }
        }
    }

    /// What there is of a frame that ends without a terminator.
    fn take_open(&mut self) -> Range<usize> {
        let here = self.framer.consumed();
        match mem::replace(&mut self.open, 0..0) {
            open if open.is_empty() => here..here,
            open => open,
        }
    }

    /// How much of the buffer has been cut.
    fn consumed(&self) -> usize {
        self.framer.consumed()
    }

    /// Takes `consumed` bytes off the buffer and returns the payload among them.
    #[inline]
    fn split(&mut self, src: &mut BytesMut, payload: Range<usize>, consumed: usize) -> Bytes {
        self.framer.consume(consumed);
        if !self.open.is_empty() {
            self.open = self.open.start - consumed..self.open.end - consumed;
        }
        let consumed = consumed.min(src.len());
        if payload.is_empty() {
            src.advance(consumed);
            return Bytes::new();
        }
        let mut front = src.split_to(consumed);
        front.truncate(payload.end);
        if payload.start > 0 {
            front.advance(payload.start.min(front.len()));
        }
        front.freeze()
    }

    /// Takes what has been skipped off the buffer.
    fn drop_skipped(&mut self, src: &mut BytesMut) {
        if self.open.is_empty() {
            src.advance(self.framer.take_consumed().min(src.len()));
        }
    }
}

fn crlf_or_lf() -> DelimiterSet {
    match DelimiterSet::new(["\r\n", "\n"]) {
        Ok(set) => set,
        Err(_) => unreachable!("neither is empty, and one is the other's suffix"),
    }
}

/// In bytes of payload.
const DEFAULT_LIMIT: u64 = 64 * 1024;
