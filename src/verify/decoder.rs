use std::fmt::Debug;

use bytes::{Bytes, BytesMut};
use tokio_util::codec::Decoder;

use super::{Delivery, Verifier};
use crate::framing::Event;

/// What a decoder or a parser has made of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded<T> {
    /// The items, in order.
    pub items: Vec<T>,
    /// The error that ended the stream, in the words of its `Debug`.
    pub error: Option<String>,
}

impl Verifier {
    /// Verifies a [`Decoder`]. `make` makes a new one for each delivery; it is called as a `FramedRead`
    /// would call it, until an error. Returns what it made of the whole input with its end.
    ///
    /// ```
    /// use asynchat::verify::Verifier;
    /// use tokio_util::codec::LinesCodec;
    ///
    /// let decoded = Verifier::new().decoder(b"one\ntwo\r\nlast", LinesCodec::new);
    /// assert_eq!(decoded.items, ["one", "two", "last"]);
    /// ```
    ///
    /// # Panics
    ///
    /// If the items or the error depend on how the input is cut, if the decoder panics, or if it yields items for ever.
    #[track_caller]
    pub fn decoder<D>(&self, input: &[u8], make: impl FnMut() -> D) -> Decoded<D::Item>
    where
        D: Decoder,
        D::Item: PartialEq + Debug,
        D::Error: Debug,
    {
        self.merging_decoder(input, make, |_, item| Some(item))
    }

    /// As [`decoder`](Self::decoder), for a decoder that yields a frame in pieces as they come: adjacent items are
    /// merged before they are compared. `merge` is given an item and the next one, and returns the next one if it does
    /// not belong to the first.
    ///
    /// ```
    /// use asynchat::verify::{Verifier, merge_chunks};
    /// use asynchat::{Event, TerminatorCodec};
    ///
    /// let codec = || TerminatorCodec::new(b"\r\n");
    /// let decoded = Verifier::new().merging_decoder(b"ab\r\nc", codec, merge_chunks);
    /// assert_eq!(decoded.items, [
    ///     Event::Chunk("ab".into()),
    ///     Event::Terminator,
    ///     Event::Chunk("c".into()),
    ///     Event::Truncated,
    /// ]);
    /// ```
    ///
    /// # Panics
    ///
    /// As [`decoder`](Self::decoder).
    #[track_caller]
    pub fn merging_decoder<D>(
        &self,
        input: &[u8],
        mut make: impl FnMut() -> D,
        mut merge: impl FnMut(&mut D::Item, D::Item) -> Option<D::Item>,
    ) -> Decoded<D::Item>
    where
        D: Decoder,
        D::Item: PartialEq + Debug,
        D::Error: Debug,
    {
        self.check(input, |delivery| {
            let mut decoder = make();
            decode(delivery, &mut merge, |buffer, ends| match ends {
                false => decoder.decode(buffer),
                true => decoder.decode_eof(buffer),
            })
        })
    }

    /// Verifies a parser of messages, which is a function of the bytes so far: it is given all bytes that have come
    /// behind the last message. It returns a message and how many bytes that had, or `None` if it wants more. `make`
    /// makes a new one for each delivery.
    ///
    /// ```
    /// use asynchat::verify::Verifier;
    ///
    /// /// A length of one digit, then so many bytes.
    /// fn parse(input: &[u8]) -> Result<Option<(Vec<u8>, usize)>, &'static str> {
    ///     let [digit @ b'0'..=b'9', rest @ ..] = input else {
    ///         return if input.is_empty() { Ok(None) } else { Err("not a digit") };
    ///     };
    ///     let len = usize::from(digit - b'0');
    ///     Ok(rest.get(..len).map(|message| (message.to_vec(), 1 + len)))
    /// }
    ///
    /// let decoded = Verifier::new().parser(b"2hi05hello!", || parse);
    /// assert_eq!(decoded.items, [&b"hi"[..], b"", b"hello"]);
    /// assert_eq!(decoded.error.as_deref(), Some("\"not a digit\""));
    /// ```
    ///
    /// # Panics
    ///
    /// As [`decoder`](Self::decoder), and if a message has more bytes than there are.
    #[track_caller]
    pub fn parser<P, T, E>(&self, input: &[u8], mut make: impl FnMut() -> P) -> Decoded<T>
    where
        P: FnMut(&[u8]) -> Result<Option<(T, usize)>, E>,
        T: PartialEq + Debug,
        E: Debug,
    {
        self.check(input, |delivery| {
            let mut parse = make();
            let keep = |_: &mut T, item| Some(item);
            decode(delivery, keep, |buffer, _| {
                let message = parse(buffer);
                message.map(|found| {
                    found.map(|(message, len)| {
                        assert!(
                            len <= buffer.len(),
                            "a message of {len} bytes of {}",
                            buffer.len()
                        );
                        drop(buffer.split_to(len));
                        message
                    })
                })
            })
        })
    }
}

/// Calls a decoder as `FramedRead` does.
fn decode<T, E: Debug>(
    delivery: &Delivery,
    mut merge: impl FnMut(&mut T, T) -> Option<T>,
    mut decode: impl FnMut(&mut BytesMut, bool) -> Result<Option<T>, E>,
) -> Decoded<T> {
    let mut decoded = Decoded { items: Vec::<T>::new(), error: None };
    let mut buffer = BytesMut::new();
    let end = delivery.ends().then_some((&b""[..], true));
    for (read, ends) in delivery.reads().map(|read| (read, false)).chain(end) {
        buffer.extend_from_slice(read);
        let mut left = 1000 + 16 * buffer.len();
        loop {
            assert!(left > 0, "item after item, and no end");
            left -= 1;
            match decode(&mut buffer, ends) {
                Ok(Some(item)) => {
                    let rest = match decoded.items.last_mut() {
                        Some(last) => merge(last, item),
                        None => Some(item),
                    };
                    decoded.items.extend(rest);
                }
                Ok(None) => break,
                Err(error) => {
                    decoded.error = Some(format!("{error:?}"));
                    return decoded;
                }
            }
        }
    }
    decoded
}

/// Joins a chunk to the one before it: for [`Verifier::merging_decoder`] with a decoder of events, such as
/// [`TerminatorCodec`](crate::TerminatorCodec).
///
/// ```
/// use asynchat::Event;
/// use asynchat::verify::merge_chunks;
///
/// let mut chunk = Event::Chunk("ab".into());
/// assert_eq!(merge_chunks(&mut chunk, Event::Chunk("c".into())), None);
/// assert_eq!(chunk, Event::Chunk("abc".into()));
/// assert_eq!(merge_chunks(&mut chunk, Event::Terminator), Some(Event::Terminator));
/// ```
pub fn merge_chunks(last: &mut Event<Bytes>, next: Event<Bytes>) -> Option<Event<Bytes>> {
    match (last, next) {
        (Event::Chunk(bytes), Event::Chunk(more)) => {
            *bytes = [&bytes[..], &more].concat().into();
            None
        }
        (_, next) => Some(next),
    }
}
