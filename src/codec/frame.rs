use std::str::{self, Utf8Error};
use std::sync::OnceLock;

use bytes::{Buf, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::{BatchCodec, CodecError, buffer};
use crate::framing::{
    Cut, Delimiter, DelimiterSet, End, Framer, Limit, Terminator, first_delimiter,
};

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
///
/// # At the end of the input
///
/// What is left without its delimiter is [`Frame::Truncated`], never a complete frame: under
/// [`crlf_or_lf`](Self::crlf_or_lf) `two\r` is, as the CR may have been half of a line end or a byte of the
/// payload. (`LinesCodec` would yield the line `two`.)
#[derive(Clone, Debug)]
pub struct FrameCodec {
    /// Hands over whole frames.
    pub(super) framer: Framer,
    ending: Delimiter,
}

impl FrameCodec {
    /// Frames that end at this delimiter.
    pub fn new(delimiter: impl Into<Delimiter>) -> Self {
        let delimiter = delimiter.into();
        FrameCodec::reading(Terminator::Bytes(delimiter.clone()), delimiter)
    }

    /// Frames that end at any delimiter of a set. What is written ends with its first member.
    ///
    /// ```
    /// use asynchat::{DelimiterSet, Frame, FrameCodec};
    /// use bytes::BytesMut;
    /// use tokio_util::codec::Decoder;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut codec = FrameCodec::any_of(DelimiterSet::new([";", "!"])?);
    /// let mut buffer = BytesMut::from("stop!go;");
    /// assert_eq!(codec.decode(&mut buffer)?, Some(Frame::Complete("stop".into())));
    /// assert_eq!(codec.matched(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn any_of(set: DelimiterSet) -> Self {
        let first = set.iter().next().map(Delimiter::new);
        let Some(Ok(ending)) = first else {
            unreachable!("a set has a member, which is not empty")
        };
        FrameCodec::reading(Terminator::AnyOf(set), ending)
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
    /// lines end with CRLF; to write them as `LinesCodec` does, say
    /// [`.with_ending(b"\n")`](Self::with_ending).
    ///
    /// ```
    /// use asynchat::{Frame, FrameCodec};
    /// use bytes::BytesMut;
    /// use tokio_util::codec::Decoder;
    ///
    /// let mut codec = FrameCodec::crlf_or_lf();
    /// let mut buffer = BytesMut::from("one\ntwo\r\n");
    /// assert_eq!(codec.decode(&mut buffer)?, Some(Frame::Complete("one".into())));
    /// assert_eq!(codec.decode(&mut buffer)?, Some(Frame::Complete("two".into())));
    /// # Ok::<(), asynchat::CodecError>(())
    /// ```
    pub fn crlf_or_lf() -> Self {
        static SET: OnceLock<DelimiterSet> = OnceLock::new();
        let set = SET.get_or_init(|| match DelimiterSet::new(["\r\n", "\n"]) {
            Ok(set) => set,
            Err(_) => unreachable!("neither is empty, and one is the other's suffix"),
        });
        FrameCodec::any_of(set.clone())
    }

    /// Lines that end with CR, LF or CRLF: see [`Terminator::Newline`]. Written lines end with CRLF.
    ///
    /// ```
    /// use asynchat::FrameCodec;
    /// use bytes::BytesMut;
    /// use tokio_util::codec::Decoder;
    ///
    /// let mut codec = FrameCodec::newline();
    /// let mut buffer = BytesMut::from("old Mac\rUnix\nnetwork\r\n");
    /// for line in ["old Mac", "Unix", "network"] {
    ///     assert_eq!(codec.decode(&mut buffer)?.expect("a line").to_str()?, line);
    /// }
    /// # Ok::<(), asynchat::CodecError>(())
    /// ```
    pub fn newline() -> Self {
        FrameCodec::reading(Terminator::Newline, Delimiter::from(b"\r\n"))
    }

    fn reading(terminator: Terminator, ending: Delimiter) -> Self {
        let mut framer = Framer::new(terminator).with_limit(Limit::Skip(DEFAULT_LIMIT));
        framer.set_whole_frames(true);
        FrameCodec { framer, ending }
    }

    /// Sets the delimiter that is written behind each payload.
    ///
    /// ```
    /// use asynchat::FrameCodec;
    /// use bytes::BytesMut;
    /// use tokio_util::codec::Encoder;
    ///
    /// let mut codec = FrameCodec::crlf_or_lf().with_ending(b"\n");
    /// let mut out = BytesMut::new();
    /// codec.encode("hello", &mut out)?;
    /// assert_eq!(out, "hello\n");
    /// # Ok::<(), asynchat::CodecError>(())
    /// ```
    #[must_use]
    pub fn with_ending(mut self, ending: impl Into<Delimiter>) -> Self {
        self.ending = ending.into();
        self
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
        self.framer.set_limit(limit);
        self
    }

    /// The limit in force.
    pub fn limit(&self) -> Limit {
        self.framer.limit()
    }

    /// Which member of a set ended the last frame: see [`Framer::matched`].
    pub fn matched(&self) -> usize {
        self.framer.matched()
    }

    /// Drops the input that is buffered: see [`TerminatorCodec::discard`](crate::TerminatorCodec::discard).
    pub fn discard(&mut self, buffer: &mut BytesMut) {
        buffer.clear();
        self.framer.discard();
    }

    /// The same frames, as many at a time as one read brings.
    pub fn batched(self) -> BatchCodec {
        BatchCodec::new(self)
    }

    #[inline]
    fn decode_frame(&mut self, src: &mut BytesMut, eof: bool) -> Result<Option<Frame>, CodecError> {
        let Some(cut) = self.framer.cut(src, eof)? else {
            buffer::want(&mut self.framer, src, eof);
            return Ok(None);
        };
        Ok(Some(self.take(src, cut)))
    }

    /// Takes the frame off the buffer.
    #[inline]
    pub(super) fn take(&mut self, src: &mut BytesMut, cut: Cut) -> Frame {
        let payload = buffer::take(&mut self.framer, src, cut);
        match cut.outcome {
            Some(End::Terminator) => Frame::Complete(payload),
            Some(End::Overlong) => {
                // What has come of the rest is dropped now, so that what is left in the buffer does not depend on
                // how the input was cut into reads.
                self.framer.skip_rest(src);
                src.advance(self.framer.take_consumed().min(src.len()));
                Frame::Overlong(payload)
            }
            // Frames are whole and end at delimiters, so there is no other end but that of the input.
            Some(End::Truncated | End::WrongEnd) | None => Frame::Truncated(payload),
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
        // The receiver must find the end of the frame where it was put, and not before: whether it looks
        // for what is written here or for what is read here.
        let written = &dst[before..];
        let read = self.framer.terminator();
        let write = Terminator::Bytes(self.ending.clone());
        let ends = |delimiter| first_delimiter(delimiter, written);
        if ends(&write) == Some(payload.len())
            && (read == write || ends(&read).is_none_or(|end| end == payload.len()))
        {
            return Ok(());
        }
        dst.truncate(before);
        Err(CodecError::Injection)
    }
}

/// A frame, by the way it ended.
///
/// This enum is complete: a frame ends in one of three ways. `B` is `Bytes` for a [`FrameCodec`]; a
/// [`BatchCodec`] has a [`Batch`](crate::Batch) of complete frames.
///
/// ```
/// use asynchat::Frame;
///
/// let frame = Frame::Complete("hello".into());
/// assert_eq!(frame.to_str(), Ok("hello"));
/// // However it ended:
/// assert_eq!(Frame::Truncated("hel".into()).into_bytes(), "hel");
/// ```
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

/// In bytes of payload.
const DEFAULT_LIMIT: u64 = 64 * 1024;
