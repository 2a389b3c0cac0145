use std::{error, fmt, io};

use bytes::{Buf, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use crate::framing::event::Event;
use crate::framing::framer::{Framer, Step};
use crate::framing::limit::{Limit, OverlongError};
use crate::framing::terminator::Terminator;

/// A codec that yields chunks and terminators as they come, and whose terminator can be switched while
/// the stream runs.
///
/// ```
/// use asynchat::{Event, TerminatorCodec};
/// use futures::{SinkExt, StreamExt};
/// use tokio_util::codec::Framed;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (client, server) = tokio::io::duplex(64);
/// let mut client = Framed::new(client, TerminatorCodec::new(None));
/// let mut server = Framed::new(server, TerminatorCodec::new(b"\r\n"));
/// client.send("LEN 5\r\nhello").await?;
///
/// let mut events = Vec::new();
/// while events.len() < 4 {
///     match server.next().await.expect("the client is there")? {
///         Event::Terminator => {
///             server.codec_mut().set_terminator(5);
///             events.push(Event::Terminator);
///         }
///         event => events.push(event),
///     }
/// }
/// assert_eq!(events, [
///     Event::Chunk("LEN 5".into()), Event::Terminator,
///     Event::Chunk("hello".into()), Event::Terminator,
/// ]);
/// # Ok(())
/// # }
/// ```
///
/// # Limits and memory
///
/// The codec keeps nothing, so it is [`Limit::Unlimited`] unless told otherwise. Bytes of an unfinished
/// terminator stay in the transport's read buffer, where a switch and `Framed::into_parts` find them. An
/// event holds on to its part of the read buffer: a small chunk that is kept for long is better copied.
///
/// To read more than 8 KiB at once, which pays where data flows, give the transport a larger buffer:
/// `FramedRead::with_capacity(io, codec, 64 * 1024)`.
///
/// # Switching from outside
///
/// [`set_terminator`](Self::set_terminator) at an event always takes effect at once, since the stream
/// decodes what it has before it reads. A `Framed` or `FramedRead` that has returned `Pending`, however,
/// does not look at its buffer again until the peer sends more. A terminator set in between (because of
/// a timer, say) may already be there, withheld as the beginning of the old one, or be `Count(0)`, and
/// would wait for the next read. The remedy is to take the transport apart and put it together again,
/// which makes it look:
///
/// ```
/// use asynchat::{Event, TerminatorCodec};
/// use futures::{FutureExt, SinkExt, StreamExt};
/// use tokio_util::codec::{Framed, FramedParts};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (mut client, server) = tokio::io::duplex(64);
/// let mut server = Framed::new(server, TerminatorCodec::new(b"\r\n"));
/// tokio::io::AsyncWriteExt::write_all(&mut client, b"\r").await?;
/// assert!(server.next().now_or_never().is_none(), "may be half a line end");
///
/// let mut old = server.into_parts();
/// old.codec.set_terminator(b"\r");
/// let mut parts = FramedParts::new::<Bytes>(old.io, old.codec);
/// parts.read_buf = old.read_buf;
/// parts.write_buf = old.write_buf;
/// let mut server = Framed::from_parts(parts);
/// assert_eq!(server.next().await.expect("it is there")?, Event::Terminator);
/// # use bytes::Bytes;
/// # Ok(())
/// # }
/// ```
///
/// # Cancellation safety
///
/// Like every decoder it is synchronous: dropping a future of the transport's `next` loses nothing.
///
/// # Encoding
///
/// Anything that is bytes is written as it is; add the terminator yourself.
#[derive(Clone, Debug)]
pub struct TerminatorCodec {
    framer: Framer,
    /// The terminator's event is owed: its chunk has been yielded.
    ended: bool,
}

impl TerminatorCodec {
    /// Makes a codec without a limit.
    pub fn new(terminator: impl Into<Terminator>) -> Self {
        TerminatorCodec { framer: Framer::new(terminator), ended: false }
    }

    /// Sets the limit, for building.
    #[must_use]
    pub fn with_limit(mut self, limit: Limit) -> Self {
        self.set_limit(limit);
        self
    }

    /// Switches the terminator: see [`Framer::set_terminator`], and above for when nothing is being
    /// decoded.
    pub fn set_terminator(&mut self, terminator: impl Into<Terminator>) {
        self.framer.set_terminator(terminator);
    }

    /// The terminator in force. Of a count, what remains.
    pub fn terminator(&self) -> &Terminator {
        self.framer.terminator()
    }

    /// Sets the limit, for the current frame too.
    pub fn set_limit(&mut self, limit: Limit) {
        self.framer.set_limit(limit);
    }

    /// The limit in force.
    pub fn limit(&self) -> Limit {
        self.framer.limit()
    }

    /// Which member of a set ended the last frame: see [`Framer::matched`].
    pub fn matched(&self) -> usize {
        self.framer.matched()
    }

    /// Drops the input that is buffered, what is withheld included, as asynchat's `discard_buffers` did.
    /// The terminator, what remains of a count and the length of the current frame stay.
    ///
    /// The buffer is the transport's: `FramedParts::read_buf`, or `FramedRead::read_buffer_mut`.
    ///
    /// ```
    /// use asynchat::{Event, TerminatorCodec};
    /// use bytes::BytesMut;
    /// use tokio_util::codec::Decoder;
    ///
    /// let mut codec = TerminatorCodec::new(b"\r\n");
    /// let mut buffer = BytesMut::from("abc\r");
    /// assert_eq!(codec.decode(&mut buffer)?, Some(Event::Chunk("abc".into())));
    /// codec.discard(&mut buffer);
    /// buffer.extend_from_slice(b"\n");
    /// assert_eq!(codec.decode(&mut buffer)?, Some(Event::Chunk("\n".into())));
    /// # Ok::<(), asynchat::CodecError>(())
    /// ```
    pub fn discard(&mut self, buffer: &mut BytesMut) {
        buffer.clear();
        self.framer.discard();
    }

    /// Whether the end of the input here would cut a frame: see [`Framer::is_mid_frame`].
    pub fn is_mid_frame(&self) -> bool {
        !self.ended && self.framer.is_mid_frame()
    }

    /// Whether the next event is the end of the frame whose bytes were the last.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// The framer, for a driver that has taken the event before.
    pub(crate) fn framer_mut(&mut self) -> &mut Framer {
        &mut self.framer
    }

    #[inline]
    fn step(&mut self, src: &mut BytesMut, eof: bool) -> Result<Option<Event<Bytes>>, CodecError> {
        if self.ended {
            self.ended = false;
            return Ok(Some(Event::Terminator));
        }
        let step = self.framer.step(src, eof);
        let consumed = self.framer.take_consumed().min(src.len());
        if let Step::Data { start, end, ended } = step {
            if start == end {
                src.advance(consumed);
                return Ok(Some(Event::Terminator));
            }
            self.ended = ended;
            // The terminator goes with its chunk: one split for both.
            let mut chunk = src.split_to(consumed);
            chunk.truncate(end);
            // Before it there may be what was skipped.
            chunk.advance(start);
            return Ok(Some(Event::Chunk(chunk.freeze())));
        }
        src.advance(consumed);
        match step {
            Step::Overlong => Ok(Some(Event::Overlong)),
            Step::Truncated => Ok(Some(Event::Truncated)),
            Step::Failed(error) => Err(error.into()),
            Step::Data { .. } | Step::Pending => {
                if !eof {
                    reserve(src);
                }
                Ok(None)
            }
        }
    }
}

impl Decoder for TerminatorCodec {
    type Item = Event<Bytes>;
    type Error = CodecError;

    #[inline]
    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Event<Bytes>>, CodecError> {
        self.step(src, false)
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Event<Bytes>>, CodecError> {
        self.step(src, true)
    }
}

/// Anything that is bytes, written as it is.
impl<T: AsRef<[u8]>> Encoder<T> for TerminatorCodec {
    type Error = CodecError;

    fn encode(&mut self, item: T, dst: &mut BytesMut) -> Result<(), CodecError> {
        dst.extend_from_slice(item.as_ref());
        Ok(())
    }
}

/// Makes room for the next read, so that the transport does not read into a remainder of a few bytes.
/// `BytesMut` takes its buffer back here, whole, if nobody kept a part of it.
pub(crate) fn reserve(src: &mut BytesMut) {
    if src.capacity() - src.len() < MIN_READ {
        src.reserve(MIN_READ);
    }
}

/// The least room for a read, in bytes.
const MIN_READ: usize = 4096;

/// Why a stream of frames ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum CodecError {
    /// A frame was longer than [`Limit::Fail`] allows.
    Overlong(OverlongError),
    /// The transport failed.
    Io(io::Error),
    /// A payload was to be encoded that contains its own delimiter, or could be read as part of it.
    Injection,
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CodecError::Overlong(error) => error.fmt(f),
            CodecError::Io(error) => error.fmt(f),
            CodecError::Injection => f.write_str("payload contains the delimiter"),
        }
    }
}

impl error::Error for CodecError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            CodecError::Overlong(error) => Some(error),
            CodecError::Io(error) => Some(error),
            CodecError::Injection => None,
        }
    }
}

impl From<io::Error> for CodecError {
    fn from(error: io::Error) -> Self {
        CodecError::Io(error)
    }
}

impl From<OverlongError> for CodecError {
    fn from(error: OverlongError) -> Self {
        CodecError::Overlong(error)
    }
}

impl From<CodecError> for io::Error {
    fn from(error: CodecError) -> Self {
        match error {
            CodecError::Io(error) => error,
            other => io::Error::new(io::ErrorKind::InvalidData, other),
        }
    }
}
