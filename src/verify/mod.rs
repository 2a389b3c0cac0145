//! Checks that what reads a stream does not depend on how the network has cut it.
//!
//! TCP delivers what was sent in pieces of its own choosing. A parser that works as long as a message arrives in one
//! read, and fails when it is cut behind its `\r`, passes every test on the machine where it was written. A
//! [`Verifier`] delivers an input in all the ways that matter, and in many random ones, and compares each outcome with
//! that of the whole input in one read:
//!
//! ```text
//!  whole           [ L E N   2 \r \n h i ]
//!  byte by byte    [L][E][N][ ][2][\r][\n][h][i]
//!  in two reads    [L][ E N   2 \r \n h i ]   [ L E ][ N   2 \r \n h i ]   ...
//!  in three reads  [L][E][ N   2 \r \n h i ]   [L][ E N ][   2 \r \n h i ]   ...
//!  at random       [ L E ][][ N   2 \r ][\n][ h i ]   ...
//! ```
//!
//! Each of them comes with the end of the input behind it and without, and most of them again with other bytes
//! behind it. A verifier works for any `Decoder`, for a parser that is a function of the bytes so far, for a
//! `Handler` on its `Channel`, for an async function of a stream, such as a client or a pulled `Channel`, and, by
//! [`Verifier::check`], for everything else.
//!
//! ```
//! # #[cfg(feature = "tokio")]
//! # {
//! use asynchat::verify::Verifier;
//! use asynchat::{Frame, FrameCodec};
//!
//! let decoded = Verifier::new().decoder(b"one\r\ntwo\r\nthr", FrameCodec::crlf);
//! assert_eq!(decoded.items, [
//!     Frame::Complete("one".into()),
//!     Frame::Complete("two".into()),
//!     Frame::Truncated("thr".into()),
//! ]);
//! assert_eq!(decoded.error, None);
//! # }
//! ```

#[cfg(feature = "tokio")]
mod decoder;
mod delivery;
#[cfg(feature = "tokio")]
mod handler;
#[cfg(feature = "tokio")]
mod stream;

use std::fmt::Debug;
use std::time::Duration;

#[cfg(feature = "tokio")]
pub use self::decoder::{Decoded, merge_chunks};
pub use self::delivery::Delivery;
use self::delivery::{Way, seeds};
#[cfg(feature = "tokio")]
pub use self::handler::Answered;
#[cfg(feature = "tokio")]
pub use self::stream::{DeliveryStream, Streamed};

/// Delivers an input in many ways and checks that the outcome is the same for all of them.
///
/// What is not set has a default that suits inputs up to some hundred bytes, which is enough for the corner cases of a
/// protocol. A verifier is set up once and used for any number of inputs.
///
/// Every run is repeatable: what is random follows from the [`seed`](Self::seed), which is always the same
/// unless it is set.
///
/// ```
/// use asynchat::verify::Verifier;
///
/// // It is wrong: a read may end between CR and LF.
/// let lines = |reads: &[&[u8]]| -> usize {
///     reads.iter().map(|read| read.windows(2).filter(|pair| pair == b"\r\n").count()).sum()
/// };
/// let verified = std::panic::catch_unwind(|| {
///     Verifier::new().check(b"one\r\ntwo\r\n", |delivery| {
///         lines(&delivery.reads().collect::<Vec<_>>())
///     })
/// });
/// assert!(verified.is_err());
/// ```
///
/// # Panics
///
/// The methods that verify panic like `assert_eq!` at the first delivery with another outcome. The message
/// shows the reads, both outcomes and how to [`replay`](Self::replay) this one alone. If the code under test
/// panics, its message is followed by the same.
#[derive(Clone, Debug)]
#[must_use = "it verifies nothing until it is given an input"]
pub struct Verifier {
    trailing: Option<Vec<Vec<u8>>>,
    two_reads: usize,
    three_reads: usize,
    random_reads: usize,
    seed: u64,
    only: Option<Way>,
    #[cfg_attr(not(feature = "tokio"), expect(dead_code, reason = "only what has a stream waits"))]
    patience: Duration,
}

impl Verifier {
    /// A verifier with its defaults.
    pub fn new() -> Self {
        Verifier {
            trailing: None,
            two_reads: 1024,
            three_reads: 48,
            random_reads: 32,
            seed: 0x61_73_79_6e_63_68_61_74,
            only: None,
            patience: Duration::from_millis(10),
        }
    }

    /// Also verifies with these bytes behind the input. May be called several times.
    ///
    /// By default they are a NUL, the first half of the input, and the whole input once more. The first call
    /// replaces these.
    pub fn trailing(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.trailing.get_or_insert_default().push(bytes.into());
        self
    }

    /// Verifies the input alone, without other bytes behind it.
    pub fn without_trailing(mut self) -> Self {
        self.trailing = Some(Vec::new());
        self
    }

    /// Up to which length of an input, in bytes, every way to cut it in two is tried: 1024 by default. There are as
    /// many such ways as bytes, so the time is quadratic in the length. What is behind the input is not counted and not
    /// cut.
    pub fn two_reads_up_to(mut self, bytes: usize) -> Self {
        self.two_reads = bytes;
        self
    }

    /// Up to which length of an input, in bytes, every way to cut it in three is tried: 48 by default. The
    /// time is cubic in the length. With other bytes behind the input it is not cut in three.
    pub fn three_reads_up_to(mut self, bytes: usize) -> Self {
        self.three_reads = bytes;
        self
    }

    /// How many random ways to cut an input are tried: 32 by default, for each input that is delivered.
    pub fn random_reads(mut self, ways: usize) -> Self {
        self.random_reads = ways;
        self
    }

    /// Sets the seed that the random ways follow from. A test that takes another seed each night finds more.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Delivers in one random way alone, besides the whole to compare with: the one whose seed a failure has named.
    pub fn replay(mut self, seed: u64) -> Self {
        self.only = Some(Way::Random(seed));
        self
    }

    /// Delivers in one way alone, besides the whole to compare with: with reads that end at these places,
    /// counted in bytes from the beginning of the input, as a failure has named them.
    ///
    /// ```
    /// use asynchat::verify::Verifier;
    ///
    /// let mut reads = Vec::new();
    /// Verifier::new().without_trailing().replay_cuts([1, 3]).check(b"abcdef", |delivery| {
    ///     reads.push(delivery.reads().map(<[u8]>::to_vec).collect::<Vec<_>>());
    /// });
    /// assert_eq!(reads[0], [b"abcdef"]);
    /// assert_eq!(reads[1], [&b"a"[..], b"bc", b"def"]);
    /// ```
    pub fn replay_cuts(mut self, places: impl Into<Vec<usize>>) -> Self {
        self.only = Some(Way::At(places.into()));
        self
    }

    /// How long a `Handler`, or a function of a [`stream`](Self::stream), may do nothing at all until it is taken to be
    /// waiting for more input: 10 ms by default. It has to be longer than what that sleeps itself, and shorter than the
    /// deadlines of its channel. On tokio's paused clock it takes no time.
    #[cfg(feature = "tokio")]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Verifies anything: `run` is given an input in pieces and returns what came out, which must not depend
    /// on the pieces. Returns what comes of the whole input with its end.
    ///
    /// ```
    /// use asynchat::verify::Verifier;
    /// use asynchat::{Event, Framer};
    ///
    /// let frames = Verifier::new().check(b"ab\r\ncd", |delivery| {
    ///     let mut framer = Framer::new(b"\r\n");
    ///     let (mut buffer, mut frames) = (Vec::new(), vec![Vec::new()]);
    ///     for read in delivery.reads() {
    ///         buffer.extend_from_slice(read);
    ///         while let Ok(Some(event)) = framer.next(&buffer) {
    ///             match event {
    ///                 // How a frame is cut into chunks means nothing: they are joined.
    ///                 Event::Chunk(bytes) => frames.last_mut().unwrap().extend_from_slice(bytes),
    ///                 _ => frames.push(Vec::new()),
    ///             }
    ///         }
    ///         buffer.drain(..framer.take_consumed());
    ///     }
    ///     frames
    /// });
    /// assert_eq!(frames, [b"ab", b"cd"]);
    /// ```
    ///
    /// # Panics
    ///
    /// If what came out differs, or `run` panics.
    #[track_caller]
    pub fn check<T: PartialEq + Debug>(
        &self,
        input: &[u8],
        mut run: impl FnMut(&Delivery) -> T,
    ) -> T {
        let mut outcomes = Outcomes::default();
        for delivery in self.deliveries(input) {
            let outcome = {
                let _named = delivery.named_in_panics();
                run(&delivery)
            };
            outcomes.compare(&delivery, outcome);
        }
        outcomes.of_whole()
    }

    /// All ways to deliver an input, the whole of it first each time that what is behind it changes: for
    /// what [`check`](Self::check) can't call, such as an `async` block.
    ///
    /// ```
    /// use asynchat::verify::Verifier;
    ///
    /// let verifier = Verifier::new().without_trailing().random_reads(0).three_reads_up_to(0);
    /// let ways = verifier.deliveries(b"abc").filter(|delivery| delivery.ends());
    /// let ways: Vec<Vec<_>> =
    ///     ways.map(|way| way.reads().map(<[u8]>::to_vec).collect()).collect();
    /// assert_eq!(ways, [
    ///     vec![&b"abc"[..]],
    ///     vec![b"a", b"b", b"c"],
    ///     vec![b"a", b"bc"],
    ///     vec![b"ab", b"c"],
    /// ]);
    /// ```
    pub fn deliveries(&self, input: &[u8]) -> impl Iterator<Item = Delivery> + use<> {
        let defaults = || vec![b"\0".to_vec(), input[..input.len() / 2].to_vec(), input.to_vec()];
        let mut trailing = self.trailing.clone().unwrap_or_else(defaults);
        trailing.retain(|bytes| !bytes.is_empty());
        let inputs = std::iter::once(Vec::new())
            .chain(trailing)
            .map(|trailing| [input, &trailing].concat())
            .collect::<Vec<_>>();
        let verifier = self.clone();
        let len = input.len();
        inputs.into_iter().flat_map(move |input| {
            let verifier = verifier.clone();
            [true, false].into_iter().flat_map(move |ends| {
                let input = input.clone();
                let ways = verifier.ways(len, input.len());
                ways.into_iter().map(move |way| Delivery::new(&input, way, ends))
            })
        })
    }

    /// The ways for an input of `len` bytes, or `all` bytes together with what is behind it.
    fn ways(&self, len: usize, all: usize) -> Vec<Way> {
        let mut ways = vec![Way::At(Vec::new())];
        if let Some(way) = &self.only {
            ways.push(way.clone());
            return ways;
        }
        if all > 1 {
            ways.push(Way::At((1..all).collect()));
        }
        // For two bytes, byte by byte was the only way.
        if all > 2 && len <= self.two_reads {
            ways.extend((1..=len.min(all - 1)).map(|at| Way::At(vec![at])));
        }
        if all > 3 && len <= self.three_reads && len == all {
            let pairs = (1..len).flat_map(|first| (first + 1..len).map(move |at| vec![first, at]));
            ways.extend(pairs.map(Way::At));
        }
        ways.extend(seeds(self.seed).take(self.random_reads).map(Way::Random));
        ways
    }
}

impl Default for Verifier {
    fn default() -> Self {
        Verifier::new()
    }
}

/// Compares each outcome with that of the whole input.
#[derive(Debug)]
struct Outcomes<T> {
    /// The outcome of the first delivery: of the whole input, with its end and nothing behind it.
    first: Option<T>,
    /// The outcome of the last whole input, unless that was the first.
    whole: Option<T>,
}

impl<T> Default for Outcomes<T> {
    fn default() -> Self {
        Outcomes { first: None, whole: None }
    }
}

impl<T: PartialEq + Debug> Outcomes<T> {
    #[track_caller]
    fn compare(&mut self, delivery: &Delivery, outcome: T) {
        if delivery.is_whole() {
            match self.first {
                None => self.first = Some(outcome),
                Some(_) => self.whole = Some(outcome),
            }
            return;
        }
        let whole = self.whole.as_ref().or(self.first.as_ref());
        assert!(
            whole == Some(&outcome),
            "the outcome depends on how the input is cut\n{delivery}\n  gave {outcome:?}\nwanted {:?}",
            whole.expect("the whole comes first"),
        );
    }

    fn of_whole(self) -> T {
        self.first.expect("the whole was delivered")
    }
}
