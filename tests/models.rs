//! Compares decoders with two naive models, by random scripts and random inputs that are cut at random.
//!
//! `PROPTEST_CASES` sets how many cases are tried. A failure is reduced to a small script and input.
#![allow(clippy::unwrap_used)]

mod support;

use asynchat::{DelimiterSet, Limit};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use support::drive::{How, Lent};
use support::follow::{Op, Pick, Piece, call, delimiters, follow, spell};
use support::model::{Follower, cut};
use support::{Decoding, End, Log, Script, Show, Spec, Turn, decoders, run};

/// Delimiters of two letters, so that they overlap themselves and each other. There are lengths on both sides of those
/// at which the search works otherwise: from 2 bytes to 3, 8 to 9, and 22 to 23.
fn delimiter() -> impl Strategy<Value = Vec<u8>> {
    let letters = |len| vec(select(&b"ab"[..]), len);
    let periodic = (select(&[2, 3, 8, 9, 21, 22, 23, 24, 40][..]), 1..4usize, letters(1)).prop_map(
        |(len, period, last)| {
            let mut bytes: Vec<u8> =
                b"aab"[3 - period..].iter().copied().cycle().take(len).collect();
            bytes[len - 1] = last[0];
            bytes
        },
    );
    prop_oneof![
        letters(1),
        letters(2),
        letters(3),
        letters(5),
        letters(8),
        letters(9),
        letters(22),
        letters(23),
        letters(40),
        periodic,
    ]
}

/// Whether each member of a set can be found. It cannot if it is inside another one, except as its suffix.
fn possible(members: &[Vec<u8>]) -> bool {
    members.iter().enumerate().all(|(i, member)| {
        members.iter().enumerate().all(|(j, other)| {
            let inside = (0..other.len())
                .any(|at| other[at..].starts_with(member) && at + member.len() < other.len());
            i == j || (!inside && member != other)
        })
    })
}

fn keep_possible(candidates: Vec<Vec<u8>>) -> Spec {
    let mut members: Vec<Vec<u8>> = Vec::new();
    for candidate in candidates {
        members.push(candidate);
        if !possible(&members) {
            members.pop();
        }
    }
    Spec::AnyOf(members)
}

fn set() -> impl Strategy<Value = Spec> {
    let any = vec(prop_oneof![vec(select(&b"abc"[..]), 1..5), delimiter()], 1..6);
    let shared =
        (delimiter(), vec(vec(select(&b"abc"[..]), 0..4), 1..7)).prop_map(|(suffix, prefixes)| {
            prefixes.into_iter().map(|prefix| [prefix, suffix.clone()].concat()).collect()
        });
    prop_oneof![any, shared].prop_map(keep_possible)
}

fn spec() -> impl Strategy<Value = Spec> {
    prop_oneof![
        6 => delimiter().prop_map(Spec::Bytes),
        4 => set(),
        3 => (0..6u64).prop_map(Spec::Count),
        1 => prop_oneof![10..60u64, Just(u64::MAX)].prop_map(Spec::Count),
        1 => Just(Spec::None),
        2 => Just(Spec::Newline),
        3 => (0..6u64, vec(select(&b"ab"[..]), 1..5)).prop_map(|(n, end)| Spec::CountThen(n, end)),
        1 => (0..6u64).prop_map(|n| Spec::CountThen(n, b"\r\n".to_vec())),
    ]
}

fn limit() -> impl Strategy<Value = Limit> {
    prop_oneof![
        3 => Just(Limit::Unlimited),
        3 => (0..8u64).prop_map(Limit::Skip),
        2 => (0..8u64).prop_map(Limit::Fail),
        1 => (8..60u64).prop_map(Limit::Skip),
        1 => select(&[Limit::Skip(u64::MAX), Limit::Fail(u64::MAX - 1)][..]),
    ]
}

fn pick() -> impl Strategy<Value = Pick> {
    any::<u16>().prop_map(Pick)
}

fn piece() -> impl Strategy<Value = Piece> {
    let index = pick;
    prop_oneof![
        3 => vec(select(&b"aabbc\r\n"[..]), 0..6).prop_map(Piece::Letters),
        4 => index().prop_map(Piece::Delimiter),
        3 => (index(), index()).prop_map(|(which, len)| Piece::Beginning(which, len)),
        1 => (index(), index()).prop_map(|(which, at)| Piece::Ending(which, at)),
        1 => (select(&b"abc"[..]), 0..90usize).prop_map(|(letter, len)| Piece::Run(letter, len)),
    ]
}

fn script() -> impl Strategy<Value = (Script, Vec<u8>)> {
    // Few terminators, which are set again and again: what is known of one must not be used for another.
    let pool = vec(spec(), 1..4);
    let turn = (
        proptest::option::weighted(0.7, pick()),
        proptest::option::weighted(0.2, limit()),
        proptest::bool::weighted(0.2),
    );
    (pool, limit(), vec(turn, 0..12), vec(piece(), 0..14)).prop_map(
        |(pool, limit, turns, pieces)| {
            let input = spell(&pieces, &delimiters(&pool));
            let turns = turns
                .into_iter()
                .map(|(which, limit, resume)| Turn {
                    terminator: which.map(|w| w.get(&pool).clone()),
                    limit,
                    resume,
                })
                .collect();
            (Script { terminator: pool[0].clone(), limit, turns }, input)
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => vec(piece(), 0..4).prop_map(Op::Feed),
        6 => Just(Op::Call),
        4 => Just(Op::Drain),
        1 => Just(Op::CallEof),
        1 => Just(Op::DrainEof),
        6 => pick().prop_map(Op::Switch),
        1 => limit().prop_map(Op::Limit),
        1 => Just(Op::Discard),
        1 => Just(Op::Resume),
        2 => any::<bool>().prop_map(Op::Whole),
        1 => vec(piece(), 0..4).prop_map(Op::Replace),
    ]
}

fn split<'a>(input: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
    cuts.extend([0, input.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| &input[pair[0]..pair[1]]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_cut_gives_what_cutting_the_whole_gives(
        (script, input) in script(),
        cuts in vec(any::<Index>(), 0..12),
        end in select(&[End::Open, End::Eof][..]),
    ) {
        let (expected, withheld) = cut(&script, &input, end);
        for reads in [vec![&input[..]], input.chunks(1).collect(), split(&input, &cuts)] {
            // An empty input is one call with no bytes.
            let reads = if reads.is_empty() { vec![&b""[..]] } else { reads };
            for mut decoder in decoders(&script) {
                let log = run(&mut *decoder, &script, &reads, end);
                prop_assert!(
                    log == expected,
                    "{}: {:?}\n  gave {log:?}\nwanted {expected:?}",
                    decoder.name(),
                    reads.iter().map(|read| Show(read)).collect::<Vec<_>>(),
                );
                if !matches!(log.last(), Some(Log::Failed(_) | Log::FailedWrongEnd)) {
                    prop_assert_eq!(decoder.buffered().len(), withheld, "{}", decoder.name());
                }
            }
            #[cfg(feature = "tokio")]
            if end == End::Eof || !input.is_empty() {
                let log = support::drive::run_framed(&script, &reads, end);
                prop_assert!(log == expected, "FramedRead\n  gave {log:?}\nwanted {expected:?}");
            }
        }
    }

    #[test]
    fn switches_between_any_two_calls_govern_the_next_byte(
        pool in vec(spec(), 1..5),
        limit in limit(),
        ops in vec(op(), 0..40),
    ) {
        let script = Script { terminator: pool[0].clone(), limit, turns: Vec::new() };
        for mut decoder in decoders(&script) {
            let follower = Follower::new(pool[0].clone(), limit);
            follow(&mut *decoder, follower, &pool, &ops).map_err(TestCaseError::fail)?;
        }
    }

    #[test]
    fn one_byte_reads_withhold_exactly_the_beginning_of_a_terminator(
        (script, input) in script(),
    ) {
        for mut decoder in decoders(&script) {
            let mut follower = Follower::new(script.terminator.clone(), script.limit);
            for byte in &input {
                decoder.feed(&[*byte]);
                follower.feed(&[*byte]);
                while call(&mut *decoder, &mut follower, false).map_err(TestCaseError::fail)? {}
            }
        }
    }

    #[test]
    fn sets_are_refused_exactly_when_a_member_could_not_win(
        members in vec(vec(select(&b"ab"[..]), 1..5), 1..5),
    ) {
        prop_assert_eq!(DelimiterSet::new(&members).is_ok(), possible(&members));
    }

    #[test]
    fn a_buffer_changed_behind_the_framers_back_never_panics(
        pool in vec(spec(), 1..4),
        limit in limit(),
        ops in vec((op(), any::<Index>(), 0..4u8), 0..30),
    ) {
        let known = delimiters(&pool);
        let mut lent = Lent::new(pool[0].terminator(), limit, How::Events);
        for (op, keep, what) in ops {
            match op {
                Op::Feed(pieces) => lent.feed(&spell(&pieces, &known)),
                Op::Switch(which) => lent.framer.set_terminator(which.get(&pool).terminator()),
                Op::Limit(limit) => lent.framer.set_limit(limit),
                Op::Discard => lent.framer.discard(),
                Op::Resume => lent.framer.resume(),
                Op::Whole(whole) => lent.framer.set_whole_frames(whole),
                Op::Replace(pieces) => lent.buffer = spell(&pieces, &known),
                op => {
                    let eof = matches!(op, Op::CallEof | Op::DrainEof);
                    let event = if eof {
                        lent.framer.next_eof(&lent.buffer)
                    } else {
                        lent.framer.next(&lent.buffer)
                    };
                    let _ = event;
                    if matches!(op, Op::Drain | Op::DrainEof) {
                        let consumed = lent.framer.take_consumed().min(lent.buffer.len());
                        lent.buffer.drain(..consumed);
                    }
                }
            }
            match what {
                0 => lent.buffer.truncate(keep.index(lent.buffer.len() + 1)),
                1 => drop(lent.buffer.drain(..keep.index(lent.buffer.len() + 1))),
                _ => {}
            }
        }
    }
}
