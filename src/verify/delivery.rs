use std::fmt;
use std::thread;

/// One way to deliver an input: in which reads, and whether the input ends there.
///
/// Its `Display` shows the reads and how to replay them, as the message of a failure does.
///
/// ```
/// use asynchat::verify::Verifier;
///
/// let mut deliveries = Vec::new();
/// Verifier::new().without_trailing().check(b"abc", |delivery| deliveries.push(delivery.clone()));
/// assert!(deliveries[0].is_whole() && deliveries[0].ends());
/// assert!(deliveries.iter().all(|delivery| delivery.input() == b"abc"));
/// assert!(deliveries.iter().any(|delivery| delivery.reads().eq([b"a", b"b", b"c"])));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    input: Vec<u8>,
    way: Way,
    /// Where reads end and others begin: `0 <= cuts[i] <= cuts[i + 1] <= input.len()`.
    cuts: Vec<usize>,
    ends: bool,
}

/// Where to cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// At these places; the whole at once if there are none.
    At(Vec<usize>),
    /// At random places, which follow from this seed.
    Random(u64),
}

impl Delivery {
    pub(super) fn new(input: &[u8], way: Way, ends: bool) -> Self {
        let mut cuts = match &way {
            Way::At(cuts) => cuts.iter().map(|cut| (*cut).min(input.len())).collect(),
            Way::Random(seed) => Random::new(*seed).cuts(input.len()),
        };
        cuts.sort_unstable();
        Delivery { input: input.to_vec(), way, cuts, ends }
    }

    /// The reads. Those of a random way may be empty, as when a decoder is asked again without more input.
    pub fn reads(&self) -> impl Iterator<Item = &[u8]> {
        let starts = [0].into_iter().chain(self.cuts.iter().copied());
        let ends = self.cuts.iter().copied().chain([self.input.len()]);
        starts.zip(ends).map(|(start, end)| &self.input[start..end])
    }

    /// All reads together.
    pub fn input(&self) -> &[u8] {
        &self.input
    }

    /// Whether the input ends behind the last read. If not, more may come, and everything that can be known from what
    /// has come must be out already.
    pub fn ends(&self) -> bool {
        self.ends
    }

    /// Whether this is the whole input in one read: what the others are compared with.
    pub fn is_whole(&self) -> bool {
        self.cuts.is_empty()
    }

    /// A generator of numbers that follow from this way, if it is a random one.
    #[cfg(feature = "tokio")]
    pub(super) fn random(&self) -> Option<Random> {
        match self.way {
            Way::At(_) => None,
            Way::Random(seed) => Some(Random::new(seed ^ 1)),
        }
    }

    /// A guard that says what was delivered if the thread panics before it is dropped.
    pub(super) fn named_in_panics(&self) -> NamedInPanics<'_> {
        NamedInPanics(self)
    }
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(" reads")?;
        for (i, read) in self.reads().enumerate() {
            f.write_str(if i == 0 { " " } else { ", " })?;
            if i == 100 {
                write!(f, "and {} more", self.cuts.len() + 1 - i)?;
                break;
            }
            show(read, f)?;
        }
        f.write_str(if self.ends { ", then the end\n" } else { ", and no end\n" })?;
        match &self.way {
            Way::At(_)
                if self.cuts.len() > 8 && self.cuts.iter().copied().eq(1..self.input.len()) =>
            {
                let len = self.input.len();
                write!(f, "replay Verifier::replay_cuts((1..{len}).collect::<Vec<_>>())")
            }
            Way::At(cuts) => write!(f, "replay Verifier::replay_cuts({cuts:?})"),
            Way::Random(seed) => write!(f, "replay Verifier::replay({seed:#x})"),
        }
    }
}

/// Writes bytes as a literal. If there are very many, writes only the beginning and the end.
fn show(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match bytes {
        [] => f.write_str("b\"\""),
        _ if bytes.len() <= 400 => write!(f, "b\"{}\"", bytes.escape_ascii()),
        _ => {
            let (head, tail) = (&bytes[..150], &bytes[bytes.len() - 150..]);
            let len = bytes.len();
            write!(f, "b\"{}...{}\" ({len} bytes)", head.escape_ascii(), tail.escape_ascii())
        }
    }
}

/// See [`Delivery::named_in_panics`].
pub(super) struct NamedInPanics<'a>(&'a Delivery);

impl Drop for NamedInPanics<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("that was at\n{}", self.0);
        }
    }
}

/// A small generator of numbers (SplitMix64), so that runs repeat.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `bound - 1`.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 11) as usize % bound.max(1)
    }

    /// The ends of random reads, which have up to a few bytes, or up to many. Some are empty.
    fn cuts(&mut self, len: usize) -> Vec<usize> {
        let longest = [2, 4, 9, 40, 400, len / 2][self.below(6)];
        let mut cuts = Vec::new();
        let mut at = 0;
        while at < len {
            at += self.below(longest.max(2) + 1);
            cuts.push(at.min(len));
        }
        cuts
    }
}

/// Any number of seeds that follow from one.
pub(super) fn seeds(seed: u64) -> impl Iterator<Item = u64> {
    let mut random = Random::new(seed);
    std::iter::repeat_with(move || random.next())
}
