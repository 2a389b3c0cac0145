use std::marker::PhantomData;

use bytes::{Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::{CodecError, buffer};
use crate::framing::{Event, Framer, Limit, Step, Terminator};

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
/// terminator stay in the transport's read buffer, where a switch and `Framed::into_parts` find them. A chunk
/// shares the read buffer and keeps all of it, however small it is: one that is kept for long is better
/// copied. (Less than 64 bytes of a frame that goes on are copied already.)
///
/// To read more than 8 KiB at once, which pays where data flows, give the transport a larger buffer:
/// `FramedRead::with_capacity(io, codec, 64 * 1024)`.
///
/// # Switching from outside
///
/// [`set_terminator`](Self::set_terminator) at an event always takes effect at once, since the stream
/// decodes what it has before it reads. A `Framed` or `FramedRead` that has returned `Pending`, however,
/// does not look at its buffer again until the peer sends more. A terminator set in between (because of
/// a timer, say) may already be in the buffer, withheld as the beginning of the old one, or be `Count(0)`,
/// which waits for nothing; in both cases its event would come with the next read only. The remedy is to take
/// the transport apart and put it together again, which makes it look:
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
///
/// # Items
///
/// `I` is what it yields: [`Event`]s, or, made by [`steps`](Self::steps), [`Step`]s, which are a chunk and
/// the event behind it in one and take less time.
#[derive(Clone, Debug)]
pub struct TerminatorCodec<I = Event<Bytes>> {
    framer: Framer,
    item: PhantomData<fn() -> I>,
}

impl TerminatorCodec {
    /// Makes a codec without a limit.
    pub fn new(terminator: impl Into<Terminator>) -> Self {
        TerminatorCodec { framer: Framer::new(terminator), item: PhantomData }
    }

    /// The same codec, which yields [`Step`]s: each chunk with the end behind it.
    ///
    /// ```
    /// use asynchat::{End, Step, TerminatorCodec};
    /// use bytes::BytesMut;
    /// use tokio_util::codec::Decoder;
    ///
    /// let mut codec = TerminatorCodec::new(b"\r\n").steps();
    /// let mut buffer = BytesMut::from("QUIT\r\n");
    /// let quit = Step { payload: "QUIT".into(), end: Some(End::Terminator) };
    /// assert_eq!(codec.decode(&mut buffer)?, Some(quit));
    /// # Ok::<(), asynchat::CodecError>(())
    /// ```
    #[must_use]
    pub fn steps(self) -> TerminatorCodec<Step<Bytes>> {
        TerminatorCodec { framer: self.framer, item: PhantomData }
    }
}

impl<I> TerminatorCodec<I> {
    /// Sets the limit, for building.
    #[must_use]
    pub fn with_limit(mut self, limit: Limit) -> Self {
        self.set_limit(limit);
        self
    }

    /// Switches the terminator: see [`Framer::set_terminator`], and above for when nothing is being
    /// decoded.
    #[inline(always)]
    pub fn set_terminator(&mut self, terminator: impl Into<Terminator>) {
        self.framer.set_terminator(terminator);
    }

    /// The terminator in force. Of a count, what remains.
    pub fn terminator(&self) -> Terminator {
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

    /// Whether frames are handed over whole, from the next frame on: see [`Framer::set_whole_frames`].
    pub fn set_whole_frames(&mut self, whole: bool) {
        self.framer.set_whole_frames(whole);
    }

    /// Whether frames are handed over whole, from the next frame on.
    pub fn whole_frames(&self) -> bool {
        self.framer.whole_frames()
    }

    /// Gives up a skip or a failure: see [`Framer::resume`].
    pub fn resume(&mut self) {
        self.framer.resume();
    }

    /// Which member of a set ended the last frame: see [`Framer::matched`].
    pub fn matched(&self) -> usize {
        self.framer.matched()
    }

    /// Drops the input that is buffered, what is withheld included, as asynchat's `discard_buffers` did.
    /// The terminator, what remains of a count and the length of the current frame stay.
    ///
    /// The buffer is the transport's: `FramedParts::read_buf`, say. For a `FramedRead` or a `Framed` there is
    /// [`DiscardInput`](crate::DiscardInput). What was known of a buffer is also forgotten if the codec is given
    /// another, or the same without its old bytes; it has to be told only where other bytes have taken the exact
    /// place of the old ones in memory.
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
        self.framer.is_mid_frame()
    }

    /// The framer with all that it knows, for a channel.
    pub(crate) fn into_framer(self) -> Framer {
        self.framer
    }

    #[inline]
    fn event(&mut self, src: &mut BytesMut, eof: bool) -> Result<Option<Event<Bytes>>, CodecError> {
        if let Some(end) = self.framer.take_owed() {
            return Ok(Some(end.into()));
        }
        let Some(Step { payload, end }) = self.step(src, eof)? else {
            return Ok(None);
        };
        if payload.is_empty() {
            return Ok(end.map(Event::from));
        }
        self.framer.owe(end);
        Ok(Some(Event::Chunk(payload)))
    }

    #[inline]
    fn step(&mut self, src: &mut BytesMut, eof: bool) -> Result<Option<Step<Bytes>>, CodecError> {
        match self.framer.cut(src, eof)? {
            Some(cut) => {
                let payload = buffer::take(&mut self.framer, src, cut);
                Ok(Some(Step { payload, end: cut.outcome }))
            }
            None => {
                buffer::want(&mut self.framer, src, eof);
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
        self.event(src, false)
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Event<Bytes>>, CodecError> {
        self.event(src, true)
    }
}

impl Decoder for TerminatorCodec<Step<Bytes>> {
    type Item = Step<Bytes>;
    type Error = CodecError;

    #[inline]
    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Step<Bytes>>, CodecError> {
        self.step(src, false)
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Step<Bytes>>, CodecError> {
        self.step(src, true)
    }
}

/// Anything that is bytes, written as it is.
impl<T: AsRef<[u8]>, I> Encoder<T> for TerminatorCodec<I> {
    type Error = CodecError;

    fn encode(&mut self, item: T, dst: &mut BytesMut) -> Result<(), CodecError> {
        dst.extend_from_slice(item.as_ref());
        Ok(())
    }
}
