//! Compares the search with a naive one: with all inputs over small alphabets, and around every length at which the
//! search works otherwise (delimiters of 2, 3, 9 and 23 bytes, blocks of 64 bytes, a map of 8 blocks, 256 bytes and 1
//! KiB without a hit).
#![allow(clippy::unwrap_used)]

mod support;

use asynchat::{Event, Framer, Limit, Terminator};
use support::model::{find, partial};
use support::{Random, Show, Spec, any, bytes};

/// What the framer finds in an input that comes in these reads: where each frame begins and ends, and how much is
/// withheld. It is cheap, so that it can be called a million times.
fn frames(framer: &mut Framer, buffer: &mut Vec<u8>, reads: &[&[u8]]) -> (Vec<(u32, u32)>, usize) {
    buffer.clear();
    let (mut start, mut at) = (0, 0);
    let mut found = Vec::new();
    let mut gone = 0;
    for read in reads {
        buffer.extend_from_slice(read);
        loop {
            match framer.next(buffer).unwrap() {
                Some(Event::Chunk(chunk)) => at += chunk.len() as u32,
                Some(Event::Terminator) => {
                    let end = at;
                    found.push((start, end));
                    // The next frame begins where the consumed bytes end.
                    let consumed = framer.take_consumed();
                    buffer.drain(..consumed);
                    gone += consumed as u32;
                    (start, at) = (gone, gone);
                }
                Some(other) => panic!("{other:?}"),
                None => break,
            }
        }
        let consumed = framer.take_consumed();
        buffer.drain(..consumed);
        gone += consumed as u32;
    }
    (found, buffer.len())
}

/// The same as [`frames`], by the naive search.
fn naive(delimiters: &[Vec<u8>], input: &[u8]) -> (Vec<(u32, u32)>, usize) {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some((start, end, _)) = find(delimiters, &input[from..]) {
        found.push((from as u32, (from + start) as u32));
        from += end;
    }
    (found, partial(delimiters, &input[from..]))
}

/// As [`naive`], for one delimiter and long inputs.
fn leftmost(delimiter: &[u8], input: &[u8]) -> (Vec<(u32, u32)>, usize) {
    let mut found = Vec::new();
    let mut from = 0;
    let mut at = 0;
    while at + delimiter.len() <= input.len() {
        if input[at..].starts_with(delimiter) {
            found.push((from as u32, at as u32));
            at += delimiter.len();
            from = at;
        } else {
            at += 1;
        }
    }
    (found, partial(&[delimiter.to_vec()], &input[from..]))
}

/// Compares the search with the naive one, for each way to cut a long input that can make a difference.
#[track_caller]
fn check_long(delimiter: &[u8], input: &[u8], random: &mut Random) {
    let terminator = Terminator::try_from(delimiter).unwrap();
    let expected = leftmost(delimiter, input);
    let middle = random.below(input.len().max(1));
    let (head, tail) = input.split_at(middle.min(input.len()));
    let cuts = [vec![input], vec![head, tail], random.split(input, 9), random.split(input, 1500)];
    for reads in cuts {
        let mut framer = Framer::new(terminator.clone());
        let found = frames(&mut framer, &mut Vec::new(), &reads);
        assert!(
            found == expected,
            "{} in {} in reads of {:?}:\n  gave {found:?}\nwanted {expected:?}",
            Show(delimiter),
            Show(input),
            reads.iter().map(|read| read.len()).collect::<Vec<_>>(),
        );
    }
}

/// All words of this length.
fn words(alphabet: &[u8], len: usize) -> impl Iterator<Item = Vec<u8>> + '_ {
    (0..alphabet.len().pow(len as u32)).map(move |mut number| {
        let mut word = vec![0; len];
        for letter in &mut word {
            *letter = alphabet[number % alphabet.len()];
            number /= alphabet.len();
        }
        word
    })
}

/// Tries these delimiters and sets with all inputs up to a length: cut in two at every position, and byte by byte.
fn exhaust(specs: &[Spec], alphabet: &[u8], longest: usize) {
    let mut buffer = Vec::new();
    for spec in specs {
        let terminator = spec.terminator();
        for len in 0..=longest {
            for input in words(alphabet, len) {
                let expected = naive(spec.delimiters(), &input);
                let splits = (0..=len).map(|at| vec![&input[..at], &input[at..]]);
                for reads in splits.chain([input.chunks(1).collect()]) {
                    let mut framer = Framer::new(terminator.clone());
                    let found = frames(&mut framer, &mut buffer, &reads);
                    assert!(
                        found == expected,
                        "{spec:?} in {:?}:\n  gave {found:?}\nwanted {expected:?}",
                        reads.iter().map(|read| Show(read)).collect::<Vec<_>>(),
                    );
                }
            }
        }
    }
}

#[test]
fn every_delimiter_of_two_letters_is_found_in_every_input() {
    let specs: Vec<_> = (1..=4).flat_map(|len| words(b"ab", len)).map(bytes).collect();
    exhaust(&specs, b"ab", if cfg!(debug_assertions) { 10 } else { 13 });
}

#[test]
fn every_delimiter_of_three_letters_is_found_in_every_input() {
    let specs: Vec<_> = (1..=3).flat_map(|len| words(b"abc", len)).map(bytes).collect();
    exhaust(&specs, b"abc", if cfg!(debug_assertions) { 6 } else { 8 });
}

#[test]
fn every_pair_of_delimiters_is_found_in_every_input() {
    let all: Vec<Vec<u8>> = (1..=3).flat_map(|len| words(b"ab", len)).collect();
    let pairs = all.iter().flat_map(|a| all.iter().map(move |b| [a.clone(), b.clone()]));
    let specs: Vec<_> =
        pairs.filter(|pair| Terminator::any_of(pair).is_ok()).map(|pair| any(&pair)).collect();
    assert!(specs.len() > 50, "{}", specs.len());
    exhaust(&specs, b"ab", if cfg!(debug_assertions) { 8 } else { 11 });
}

#[test]
fn delimiters_too_long_for_their_place_are_found_in_every_input() {
    // From 23 bytes on, delimiters are searched by an automaton. A run of "a" makes a delimiter long enough without
    // making the number of inputs larger.
    let specs: Vec<_> =
        words(b"ab", 3).map(|tail| bytes([&b"a".repeat(20)[..], &tail].concat())).collect();
    let mut buffer = Vec::new();
    for spec in &specs {
        let terminator = spec.terminator();
        for before in 17..=24 {
            for tail in (0..=6).flat_map(|len| words(b"ab", len)) {
                let input = [&b"a".repeat(before)[..], &tail, &b"a".repeat(21), &tail].concat();
                let expected = naive(spec.delimiters(), &input);
                let at = before + tail.len();
                for reads in [vec![&input[..]], vec![&input[..at], &input[at..]]] {
                    let mut framer = Framer::new(terminator.clone());
                    let found = frames(&mut framer, &mut buffer, &reads);
                    assert!(found == expected, "{spec:?} in {}: {found:?}", Show(&input));
                }
            }
        }
    }
}

/// Delimiters of each kind, none of which contains an `x` or a `.`.
fn kinds() -> Vec<Vec<u8>> {
    [1, 2, 3, 4, 9, 21, 22, 23, 24, 40, 65, 130]
        .into_iter()
        .flat_map(|len| {
            let distinct: Vec<u8> = (0..len).map(|i| 128 + i as u8 % 120).collect();
            let run = [&b"a".repeat(len - 1)[..], b"b"].concat();
            let pairs = b"ab".iter().copied().cycle().take(len).collect();
            // Zeros look like the padding of a short delimiter.
            [distinct, run, b"a".repeat(len), pairs, vec![0; len]]
        })
        .collect()
}

/// Offsets around those at which the search works otherwise.
fn edges() -> impl Iterator<Item = usize> {
    [0, 64, 128, 1024, 4096].into_iter().flat_map(|edge: usize| edge.saturating_sub(3)..edge + 4)
}

#[test]
fn a_hit_is_found_at_every_offset_near_an_edge() {
    let mut random = Random(1);
    for delimiter in kinds() {
        for before in edges().chain([10 * 1024, 10 * 1024 + 63]) {
            for after in [0, 1, 7, 8, 9, 63, 64, 65] {
                let filler = vec![b'x'; before];
                let input = [&filler[..], &delimiter, &vec![b'.'; after]].concat();
                let terminator = Terminator::try_from(&delimiter[..]).unwrap();
                let found = frames(&mut Framer::new(terminator), &mut Vec::new(), &[&input]);
                assert_eq!(found, leftmost(&delimiter, &input), "{} {before}", Show(&delimiter));
            }
        }
        let input = [&vec![b'x'; 10 * 1024][..], &delimiter, b"x", &delimiter, &delimiter].concat();
        check_long(&delimiter, &input, &mut random);
    }
}

#[test]
fn a_read_that_ends_anywhere_near_an_edge_does_not_hide_a_hit() {
    for delimiter in kinds().iter().filter(|delimiter| delimiter.len() <= 24) {
        let terminator = Terminator::try_from(&delimiter[..]).unwrap();
        for edge in [64, 1024] {
            let begin = edge - delimiter.len().min(edge) / 2;
            let input = [&vec![b'x'; begin][..], delimiter, b"yy", delimiter, &[b'z'; 80]].concat();
            let expected = leftmost(delimiter, &input);
            for at in begin.saturating_sub(2)..begin + 2 * delimiter.len() + 6 {
                let reads = [&input[..at], &input[at..]];
                let found = frames(&mut Framer::new(terminator.clone()), &mut Vec::new(), &reads);
                assert_eq!(found, expected, "{} at {begin}, cut at {at}", Show(delimiter));
            }
        }
    }
}

#[test]
fn padding_is_no_delimiter_however_long_the_end_of_a_read() {
    for delimiter in [&b"\0"[..], b"\0\0", b"\xff\0", b"\0\0\0", b"x\0\0"] {
        let terminator = Terminator::try_from(delimiter).unwrap();
        for len in 0..140 {
            let (head, tail) = (vec![b'x'; len], vec![b'y'; 100]);
            let mut framer = Framer::new(terminator.clone());
            let found = frames(&mut framer, &mut Vec::new(), &[&head, &tail, delimiter]);
            assert_eq!(found, (vec![(0, len as u32 + 100)], 0), "{} {len}", Show(delimiter));
        }
    }
}

#[test]
fn dense_and_overlapping_hits_are_all_found() {
    let mut random = Random(2);
    for delimiter in kinds() {
        // Only delimiters, of numbers around the sizes of the map.
        for many in [1, 7, 8, 9, 31, 32, 33, 63, 64, 65, 200] {
            check_long(&delimiter, &delimiter.repeat(many), &mut random);
        }
        // One byte between delimiters, then a run of the first byte, each of which may begin a delimiter.
        let spaced = [&delimiter[..], b"x"].concat().repeat(100);
        check_long(&delimiter, &spaced, &mut random);
        let begun = [&delimiter[..1].repeat(500)[..], &delimiter, &spaced].concat();
        check_long(&delimiter, &begun, &mut random);
        // Hits in which only the first and the last byte are those of the delimiter.
        let mut fake = delimiter.clone();
        if let [_, middle, .., _] = &mut fake[..] {
            *middle = b'x';
        }
        let fakes = [&fake.repeat(100)[..], &delimiter, &fake.repeat(3), &delimiter].concat();
        check_long(&delimiter, &fakes, &mut random);
        // The delimiter without its last byte.
        let almost = [&delimiter[..delimiter.len() - 1], b"x"].concat().repeat(150);
        check_long(&delimiter, &[&almost[..], &delimiter].concat(), &mut random);
    }
}

#[test]
fn hits_after_long_nothing_and_long_nothing_after_hits() {
    let mut random = Random(3);
    let nothing = vec![b'x'; 10 * 1024];
    for delimiter in kinds() {
        for hits in [1, 31, 32, 33, 100] {
            let dense = delimiter.repeat(hits);
            let input = [&dense[..], &nothing, &dense, &nothing[..1100], &dense].concat();
            check_long(&delimiter, &input, &mut random);
        }
    }
}

#[test]
fn hits_at_growing_distances_are_found_however_far_the_search_runs_ahead() {
    let mut random = Random(4);
    for delimiter in kinds() {
        let mut input = Vec::new();
        for distance in (0..90).chain((100..6000).step_by(487)).chain(0..40) {
            input.extend(std::iter::repeat_n(b'x', distance));
            input.extend(&delimiter);
        }
        check_long(&delimiter, &input, &mut random);
    }
}

#[test]
fn random_inputs_of_delimiters_their_beginnings_and_noise() {
    let mut random = Random(5);
    for delimiter in kinds() {
        for _ in 0..6 {
            let mut input = Vec::new();
            for _ in 0..random.below(200) {
                match random.below(4) {
                    0 => input.extend(&delimiter),
                    1 => input.extend(&delimiter[..random.below(delimiter.len() + 1)]),
                    2 => {
                        input.extend(std::iter::repeat_n(b"abx"[random.below(3)], random.below(70)))
                    }
                    _ => input.push(delimiter[random.below(delimiter.len())]),
                }
            }
            check_long(&delimiter, &input, &mut random);
        }
    }
}

#[test]
fn sets_are_found_near_edges_among_false_starts_and_far_apart() {
    let long = "0123456789abcdefghijklmn";
    let sets = [
        any(["\n", "\r\n"]),
        any(["\r\n", "\n", "\t\r\n"]),
        any([";", "a;", "b;", "ab;", "c;"]),
        any(["ab", "ba"]),
        any(["abc", "bcd", "cde"]),
        any([long, "\n"]),
        any([long, "mnop", "\n\n"]),
    ];
    let mut random = Random(6);
    for spec in &sets {
        let terminator = spec.terminator();
        let members = spec.delimiters();
        for round in 0..60 {
            let mut input = vec![b'x'; [0, 1, 60, 64, 1020][round % 5]];
            for _ in 0..random.below(12) {
                let member = &members[random.below(members.len())];
                match random.below(4) {
                    0 | 1 => input.extend(member),
                    2 => input.extend(&member[..random.below(member.len() + 1)]),
                    _ => input.extend(std::iter::repeat_n(b'x', random.below(70))),
                }
            }
            let expected = naive(members, &input);
            for reads in [vec![&input[..]], random.split(&input, 5), random.split(&input, 90)] {
                let found = frames(&mut Framer::new(terminator.clone()), &mut Vec::new(), &reads);
                assert!(found == expected, "{spec:?} in {}: {found:?}", Show(&input));
            }
        }
    }
}

/// The next frame, with its chunks joined.
#[track_caller]
fn frame(framer: &mut Framer, input: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    loop {
        match framer.next(input).unwrap() {
            Some(Event::Chunk(chunk)) => frame.extend_from_slice(chunk),
            Some(Event::Terminator) => return frame,
            other => panic!("{other:?} after {}", Show(&frame)),
        }
    }
}

/// Switches terminators back and forth over bytes that have been searched. What is known of one delimiter must not be
/// used for more than that, or for another delimiter.
#[test]
fn switching_over_searched_bytes_misses_nothing() {
    let mut random = Random(7);
    let delimiters: [&[u8]; 8] = [
        b"\n",
        b"\r\n",
        b"\r",
        b"\n\r",
        b"\r\n\r",
        b"\r\n\r\n",
        b"\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n",
        b"\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n",
    ];
    for round in 0..400 {
        let mut input = Vec::new();
        while input.len() < 300 {
            match random.below(5) {
                0 => input.extend(std::iter::repeat_n(b'x', random.below(80))),
                1 => input.extend(b"\r\n".repeat(random.below(15))),
                _ => input.push(b"\r\nx"[random.below(3)]),
            }
        }
        let mut framer = Framer::new(b"\n").with_limit(Limit::Unlimited);
        let mut rest = &input[..];
        loop {
            // Another terminator each time, for the rest of the input.
            let delimiter = match random.below(12) {
                0 => {
                    let count = random.below(40).min(rest.len());
                    framer.set_terminator(count as u64);
                    assert_eq!(frame(&mut framer, &input), &rest[..count]);
                    rest = &rest[count..];
                    continue;
                }
                which => delimiters[which % delimiters.len()],
            };
            framer.set_terminator(Terminator::try_from(delimiter).unwrap());
            let Some((start, end, _)) = find(&[delimiter.to_vec()], rest) else { break };
            assert_eq!(frame(&mut framer, &input), &rest[..start], "round {round}");
            rest = &rest[end..];
        }
    }
}
