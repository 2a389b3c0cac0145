//! Reads the bytes of an engine as terminators, limits, inputs, and what happens between two reads.
//!
//! When the bytes run out, each choice yields its first alternative, and lists end.

use std::fmt::Debug;

use arbitrary::Unstructured;
use asynchat::Limit;

use crate::support::follow::{Op, Pick, Piece, delimiters, spell};
use crate::support::{Script, Spec, Turn};

/// Prints a plan if `FUZZ_SHOW` is set. An engine shows only the bytes of an input.
pub fn show(plan: &dyn Debug) {
    if std::env::var_os("FUZZ_SHOW").is_some() {
        eprintln!("{plan:?}");
    }
}

pub fn below(u: &mut Unstructured<'_>, bound: usize) -> usize {
    u.int_in_range(0..=bound - 1).unwrap_or(0)
}

pub fn flag(u: &mut Unstructured<'_>) -> bool {
    below(u, 2) == 1
}

pub fn many<T>(
    u: &mut Unstructured<'_>,
    most: usize,
    mut one: impl FnMut(&mut Unstructured<'_>) -> T,
) -> Vec<T> {
    let mut all = Vec::new();
    while all.len() < most && !u.is_empty() && below(u, 12) != 11 {
        all.push(one(u));
    }
    all
}

fn letters(u: &mut Unstructured<'_>, alphabet: &[u8], len: usize) -> Vec<u8> {
    (0..len).map(|_| alphabet[below(u, alphabet.len())]).collect()
}

/// A delimiter: of two letters, so that it overlaps itself and others, or one of a real protocol, or any bytes. There
/// are lengths on both sides of those at which the search works otherwise: from 2 bytes to 3, 8 to 9, and 22 to 23.
pub fn delimiter(u: &mut Unstructured<'_>) -> Vec<u8> {
    match below(u, 8) {
        0 => [&b"\n"[..], b"\r\n", b"\r\n\r\n", b"\0", b"\r", b"\r\n.\r\n"][below(u, 6)].to_vec(),
        1 => letters(u, b"ab", 1),
        2 => letters(u, b"ab", 2),
        3 => letters(u, b"ab", 3),
        4 => {
            let len = 1 + below(u, 8);
            letters(u, b"ab", len)
        }
        5 => {
            let len = [21, 22, 23, 24, 40, 65, 130][below(u, 7)];
            letters(u, b"ab", len)
        }
        6 => {
            let len = [2, 3, 4, 21, 22, 23, 24, 40, 65, 300][below(u, 10)];
            let period = 1 + below(u, 3);
            let mut bytes: Vec<u8> =
                b"aab"[3 - period..].iter().copied().cycle().take(len).collect();
            bytes[len - 1] = b"abc"[below(u, 3)];
            bytes
        }
        _ => {
            let len = 1 + below(u, 6);
            u.bytes(len).map_or_else(|_| b"x".to_vec(), <[u8]>::to_vec)
        }
    }
}

/// Whether each member of a set can be found. It cannot if it is inside another one, except as its suffix.
pub fn possible(members: &[Vec<u8>]) -> bool {
    members.iter().enumerate().all(|(i, member)| {
        members.iter().enumerate().all(|(j, other)| {
            let inside = (0..other.len())
                .any(|at| other[at..].starts_with(member) && at + member.len() < other.len());
            i == j || (!inside && member != other)
        })
    })
}

pub fn set(u: &mut Unstructured<'_>) -> Spec {
    let suffix = if flag(u) { delimiter(u) } else { Vec::new() };
    let mut members: Vec<Vec<u8>> = Vec::new();
    for _ in 0..1 + below(u, 6) {
        let mut candidate = if suffix.is_empty() && flag(u) {
            delimiter(u)
        } else {
            let len = below(u, 4) + usize::from(suffix.is_empty());
            letters(u, b"abc", len)
        };
        candidate.extend(&suffix);
        members.push(candidate);
        if !possible(&members) {
            members.pop();
        }
    }
    Spec::AnyOf(members)
}

pub fn spec(u: &mut Unstructured<'_>) -> Spec {
    match below(u, 20) {
        0..6 => Spec::Bytes(delimiter(u)),
        6..10 => set(u),
        10..13 => Spec::Count(below(u, 6) as u64),
        13 => Spec::Count([10, 40, 70, 200, 5000, u64::MAX][below(u, 6)]),
        14 | 15 => Spec::Newline,
        16..19 => {
            let count = match below(u, 5) {
                4 => [10, 40, 70, 200, 5000, u64::MAX][below(u, 6)],
                few => few as u64,
            };
            Spec::CountThen(count, ending(u))
        }
        _ => Spec::None,
    }
}

fn ending(u: &mut Unstructured<'_>) -> Vec<u8> {
    match below(u, 3) {
        0 => b"\r\n".to_vec(),
        1 => {
            let len = 1 + below(u, 8);
            letters(u, b"ab", len)
        }
        _ => b"b".to_vec(),
    }
}

pub fn limit(u: &mut Unstructured<'_>) -> Limit {
    match below(u, 10) {
        0..3 => Limit::Unlimited,
        3..6 => Limit::Skip(below(u, 8) as u64),
        6..8 => Limit::Fail(below(u, 8) as u64),
        8 => Limit::Skip(8 + below(u, 120) as u64),
        _ => [Limit::Skip(u64::MAX), Limit::Fail(u64::MAX - 1)][below(u, 2)],
    }
}

pub fn pick(u: &mut Unstructured<'_>) -> Pick {
    Pick(below(u, 256) as u16)
}

pub fn piece(u: &mut Unstructured<'_>) -> Piece {
    match below(u, 11) {
        0..3 => {
            let len = below(u, 6);
            Piece::Letters(letters(u, b"aabbc\r\n", len))
        }
        3..6 => Piece::Delimiter(pick(u)),
        6..8 => Piece::Beginning(pick(u), pick(u)),
        8 => Piece::Ending(pick(u), pick(u)),
        9 => Piece::Run(b"abc\n"[below(u, 4)], below(u, 140)),
        _ => {
            let len = below(u, 20);
            Piece::Letters(u.bytes(len).map_or_else(|_| Vec::new(), <[u8]>::to_vec))
        }
    }
}

pub fn pool(u: &mut Unstructured<'_>) -> Vec<Spec> {
    (0..1 + below(u, 4)).map(|_| spec(u)).collect()
}

pub fn op(u: &mut Unstructured<'_>) -> Op {
    match below(u, 32) {
        0..8 => Op::Feed(many(u, 4, piece)),
        8..14 => Op::Call,
        14..18 => Op::Drain,
        18 => Op::CallEof,
        19 => Op::DrainEof,
        20..26 => Op::Switch(pick(u)),
        26 => Op::Limit(limit(u)),
        27 => Op::Discard,
        28 => Op::Resume,
        29 | 30 => Op::Whole(flag(u)),
        _ => Op::Replace(many(u, 4, piece)),
    }
}

/// A script, which is what an application does at the ends of frames, and an input for it.
pub fn script(u: &mut Unstructured<'_>) -> (Script, Vec<u8>) {
    let pool = pool(u);
    let limit = limit(u);
    let turns = many(u, 12, |u| Turn {
        terminator: (below(u, 10) < 7).then(|| pick(u).get(&pool).clone()),
        limit: (below(u, 5) == 0).then(|| self::limit(u)),
        resume: below(u, 5) == 0,
    });
    let input = spell(&many(u, 20, piece), &delimiters(&pool));
    (Script { terminator: pool[0].clone(), limit, turns }, input)
}

/// Cuts an input into reads of a few bytes or many, some of them empty.
pub fn reads<'a>(u: &mut Unstructured<'_>, input: &'a [u8]) -> Vec<&'a [u8]> {
    let longest = [1, 2, 5, 30, 200, 2000][below(u, 6)];
    let mut reads = Vec::new();
    let mut rest = input;
    while !rest.is_empty() {
        // When the bytes of the plan have run out, the rest of the input is one read.
        let len = if u.is_empty() { rest.len() } else { below(u, longest + 1) };
        let (read, more) = rest.split_at(len.min(rest.len()));
        reads.push(read);
        rest = more;
    }
    if reads.is_empty() {
        reads.push(&[]);
    }
    reads
}
