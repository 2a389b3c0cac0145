//! What the tests of the reading side share: a way to write scripts down ([`Script`]), drivers that run
//! them through each of the decoders ([`decoders`]) with the input cut in every way ([`verify`]), and two
//! naive models to compare with ([`model`]).
#![allow(dead_code, unused_imports, unreachable_pub, clippy::unwrap_used)]

pub mod drive;
pub mod follow;
pub mod model;

use std::fmt;
use std::sync::OnceLock;

use asynchat::verify::Verifier;
use asynchat::{CountThen, Ending, Limit, Terminator};

pub use drive::{Decoding, decoders, event_decoders, run};

static NEWLINES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();

/// A terminator, written down so that the models can read it too.
#[derive(Clone, PartialEq, Eq)]
pub enum Spec {
    Bytes(Vec<u8>),
    AnyOf(Vec<Vec<u8>>),
    Newline,
    Count(u64),
    CountThen(u64, Vec<u8>),
    None,
}

impl Spec {
    pub fn terminator(&self) -> Terminator {
        match self {
            Spec::Bytes(bytes) => bytes.clone().try_into().unwrap(),
            Spec::AnyOf(members) => Terminator::any_of(members).unwrap(),
            Spec::Newline => Terminator::Newline,
            Spec::Count(count) => Terminator::Count(*count),
            Spec::CountThen(count, end) => CountThen::new(*count, Ending::new(end).unwrap()).into(),
            Spec::None => Terminator::None,
        }
    }

    /// The delimiters. A count has none.
    pub fn delimiters(&self) -> &[Vec<u8>] {
        match self {
            Spec::Bytes(bytes) => std::slice::from_ref(bytes),
            Spec::AnyOf(members) => members,
            Spec::Newline => NEWLINES.get_or_init(|| vec![b"\r".to_vec(), b"\n".to_vec()]),
            Spec::Count(_) | Spec::CountThen(..) | Spec::None => &[],
        }
    }

    /// Whether it stays in force for the next frame.
    pub fn is_delimiter(&self) -> bool {
        matches!(self, Spec::Bytes(_) | Spec::AnyOf(_) | Spec::Newline)
    }
}

impl fmt::Debug for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Spec::Bytes(bytes) => write!(f, "Bytes({})", Show(bytes)),
            Spec::AnyOf(members) => {
                let members: Vec<_> = members.iter().map(|member| Show(member)).collect();
                write!(f, "AnyOf({members:?})")
            }
            Spec::Newline => f.write_str("Newline"),
            Spec::Count(count) => write!(f, "Count({count})"),
            Spec::CountThen(count, end) => write!(f, "CountThen({count}, {})", Show(end)),
            Spec::None => f.write_str("None"),
        }
    }
}

pub fn bytes(delimiter: impl AsRef<[u8]>) -> Spec {
    Spec::Bytes(delimiter.as_ref().to_vec())
}

pub fn any<M: AsRef<[u8]>>(members: impl IntoIterator<Item = M>) -> Spec {
    Spec::AnyOf(members.into_iter().map(|member| member.as_ref().to_vec()).collect())
}

/// Bytes as text, for messages.
pub struct Show<'a>(pub &'a [u8]);

impl fmt::Display for Show<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() > 200 {
            let (head, tail) = (&self.0[..80], &self.0[self.0.len() - 80..]);
            let len = self.0.len();
            return write!(f, "b\"{}...{}\"[{len}]", head.escape_ascii(), tail.escape_ascii());
        }
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

impl fmt::Debug for Show<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a decoder has returned, with adjacent chunks joined.
#[derive(Clone, PartialEq, Eq)]
pub enum Log {
    Data(Vec<u8>),
    /// The number is that of the matched member of a set, and 0 for other terminators.
    Terminator(usize),
    Overlong,
    WrongEnd,
    Truncated,
    /// The error of an overlong frame, with the limit that it names. Nothing follows.
    Failed(u64),
    /// The error of a wrong end. Nothing follows.
    FailedWrongEnd,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Log::Data(bytes) => write!(f, "{}", Show(bytes)),
            Log::Terminator(0) => f.write_str("T"),
            Log::Terminator(member) => write!(f, "T{member}"),
            Log::Overlong => f.write_str("Overlong"),
            Log::WrongEnd => f.write_str("WrongEnd"),
            Log::Truncated => f.write_str("Truncated"),
            Log::FailedWrongEnd => f.write_str("FailedWrongEnd"),
            Log::Failed(max) => write!(f, "Failed({max})"),
        }
    }
}

/// Payload, as an expected entry of the log.
pub fn data(bytes: impl AsRef<[u8]>) -> Log {
    Log::Data(bytes.as_ref().to_vec())
}

pub const T: Log = Log::Terminator(0);

pub fn push(log: &mut Vec<Log>, entry: Log) {
    match (log.last_mut(), entry) {
        (Some(Log::Data(last)), Log::Data(more)) => last.extend(more),
        (_, entry) => log.push(entry),
    }
}

/// What an application does with the stream: what it begins with, and what it sets each time a frame
/// ends otherwise than with the input.
#[derive(Clone, Debug)]
pub struct Script {
    pub terminator: Spec,
    pub limit: Limit,
    pub turns: Vec<Turn>,
}

#[derive(Clone, Debug, Default)]
pub struct Turn {
    pub terminator: Option<Spec>,
    pub limit: Option<Limit>,
    /// Whether to call `resume`, before anything is set.
    pub resume: bool,
}

impl Script {
    pub fn new(terminator: Spec) -> Self {
        Script { terminator, limit: Limit::Unlimited, turns: Vec::new() }
    }

    pub fn limit(mut self, limit: Limit) -> Self {
        self.limit = limit;
        self
    }

    /// At the next end of a frame, switches.
    pub fn then(mut self, terminator: Spec) -> Self {
        self.turns.push(Turn { terminator: Some(terminator), ..Turn::default() });
        self
    }

    /// At the next end of a frame, switches and sets the limit.
    pub fn then_limited(mut self, terminator: Spec, limit: Limit) -> Self {
        self.turns.push(Turn { terminator: Some(terminator), limit: Some(limit), resume: false });
        self
    }

    /// At the next end of a frame, does nothing.
    pub fn then_keep(mut self) -> Self {
        self.turns.push(Turn::default());
        self
    }
}

/// Whether the input ends where the script does, or more may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Open,
    Eof,
}

/// Runs a script through every decoder, with the input cut in every way, and with more input behind it, and compares
/// with what is expected. The outcome of the model is compared with it as well.
#[track_caller]
pub fn verify(script: &Script, input: &[u8], end: End, expected: &[Log]) {
    let (model, _) = model::cut(script, input, end);
    assert_eq!(model, expected, "the model, of {script:?} over {}", Show(input));
    verify_model(script, input);
}

/// As [`verify`], for scripts whose expected outcome is that of the model.
#[track_caller]
pub fn verify_model(script: &Script, input: &[u8]) {
    let twice = [input, input].concat();
    let verifier = Verifier::new().random_reads(8).two_reads_up_to(100).three_reads_up_to(10);
    let verifier = [&b"\0"[..], b"\n", &input[..input.len().min(3)], &twice]
        .into_iter()
        .fold(verifier, |verifier, bytes| verifier.trailing(bytes));
    verifier.check(input, |delivery| {
        let reads: Vec<&[u8]> = delivery.reads().collect();
        let end = if delivery.ends() { End::Eof } else { End::Open };
        let (expected, _) = model::cut(script, delivery.input(), end);
        compare(script, &reads, end, &expected);
    });
}

#[track_caller]
fn compare(script: &Script, reads: &[&[u8]], end: End, expected: &[Log]) {
    for mut decoder in decoders(script) {
        let log = run(&mut *decoder, script, reads, end);
        let name = decoder.name();
        assert!(log == expected, "{name}: {script:?}\n  gave {log:?}\nwanted {expected:?}");
    }
    // Without any input a `FramedRead` does not decode, not even a count of zero.
    #[cfg(feature = "tokio")]
    if end == End::Eof || reads.iter().any(|read| !read.is_empty()) {
        let log = drive::run_framed(script, reads, end);
        assert!(log == expected, "FramedRead: {script:?}\n  gave {log:?}\nwanted {expected:?}");
    }
}

/// A small generator of numbers (xorshift), so that runs repeat.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound.max(1)
    }

    pub fn split<'a>(&mut self, input: &'a [u8], longest: usize) -> Vec<&'a [u8]> {
        let mut rest = input;
        let mut reads = Vec::new();
        while !rest.is_empty() {
            let (read, more) = rest.split_at(self.below(longest + 1).min(rest.len()));
            reads.push(read);
            rest = more;
        }
        reads
    }
}
