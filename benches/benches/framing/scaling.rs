//! How much more time twice the input takes, and a terminator of twice the length. The terminators and inputs are those
//! that make a naive search slow, and reads are of several sizes.

use std::time::Duration;

use asynchat::{Event, Framer, Limit, Terminator};
use asynchat_benches::io::{READ, Window};
use asynchat_benches::ours::{self, Events, Frames, delimiter};
use asynchat_benches::{Bench, Tally};
use memchr::memmem;

const READS: [usize; 3] = [1, 7, READ];
const BUDGET: Duration = Duration::from_millis(300);
/// The time shall be linear, so that twice the input takes twice as long. A little more is allowed, since the smaller
/// input may fit into a faster cache.
const GOAL: f64 = 2.2;

/// A terminator that can be made in any length, and the input to search for it.
struct Case {
    name: &'static str,
    needle: fn(usize) -> Vec<u8>,
    /// Makes, from the length of the needle, a piece that is repeated to make the input. It never contains a line end.
    input: fn(usize) -> Vec<u8>,
    /// Makes the terminator from the needle.
    terminator: fn(&[u8]) -> Terminator,
}

const CASES: [Case; 8] = [
    Case {
        name: "a..ab in a..",
        needle: |m| [vec![b'a'; m - 1], vec![b'b']].concat(),
        input: |_| vec![b'a'],
        terminator: delimiter,
    },
    Case {
        name: "ba..a in (ba..)..",
        needle: |m| [vec![b'b'], vec![b'a'; m - 1]].concat(),
        input: |m| [vec![b'b'], vec![b'a'; m - 2]].concat(),
        terminator: delimiter,
    },
    Case {
        name: "a..aba..a in a..",
        needle: |m| [vec![b'a'; m / 2], vec![b'b'], vec![b'a'; m - m / 2 - 1]].concat(),
        input: |_| vec![b'a'],
        terminator: delimiter,
    },
    Case {
        name: "(ab)..ac in (ab)..",
        needle: |m| [b"ab".repeat(m / 2 - 1), b"ac".to_vec()].concat(),
        input: |_| b"ab".to_vec(),
        terminator: delimiter,
    },
    Case {
        name: "a..a in a..",
        needle: |m| vec![b'a'; m],
        input: |_| vec![b'a'],
        terminator: delimiter,
    },
    Case {
        name: "part of a Fibonacci word",
        needle: fibonacci,
        input: |m| fibonacci(2 * m + 1),
        terminator: delimiter,
    },
    Case {
        name: "any of a..ab, LF in a..",
        needle: |m| [vec![b'a'; m - 1], vec![b'b']].concat(),
        input: |_| vec![b'a'],
        terminator: |needle| set([needle, b"\n"]),
    },
    Case {
        name: "any of a..a, LF..LF in a..",
        needle: |m| vec![b'a'; m],
        input: |_| vec![b'a'],
        terminator: |needle| set([needle, &b"\n".repeat(needle.len())]),
    },
];

/// Terminators that have only one length.
const SHORT: [Case; 3] = [
    Case {
        name: "LF in a..",
        needle: |_| b"\n".to_vec(),
        input: |_| vec![b'a'],
        terminator: delimiter,
    },
    Case {
        name: "a newline in a..",
        needle: |_| b"\n".to_vec(),
        input: |_| vec![b'a'],
        terminator: |_| Terminator::Newline,
    },
    Case {
        name: "a 64th byte behind a.. in a..",
        needle: |_| [&[b'a'; 63][..], b"b"].concat(),
        input: |_| vec![b'a'],
        terminator: delimiter,
    },
];

fn set(members: [&[u8]; 2]) -> Terminator {
    Terminator::any_of(members).expect("neither is within the other")
}

fn fibonacci(len: usize) -> Vec<u8> {
    let (mut word, mut before) = (b"ab".to_vec(), b"a".to_vec());
    while word.len() < len {
        let next = [&*word, &*before].concat();
        before = std::mem::replace(&mut word, next);
    }
    word.truncate(len);
    word
}

/// What one competitor does: a terminator, an input, and the checksum that they yield.
struct Work {
    terminator: Terminator,
    input: Vec<u8>,
    checksum: u64,
}

impl Case {
    fn work(&self, needle: usize, input: usize) -> Work {
        let (part, needle) = ((self.input)(needle), (self.needle)(needle));
        let input: Vec<u8> = part.into_iter().cycle().take(input).collect();
        let (mut tally, mut start) = (Tally::default(), 0);
        for end in memmem::find_iter(&input, &needle) {
            tally.frame(&input[start..end]);
            start = end + needle.len();
        }
        // What may be the beginning of a terminator is still withheld when the input stops, and is not in the checksum.
        let rest = &input[start..];
        let mut withheld = 1..needle.len();
        let withheld = withheld.rfind(|&k| rest.ends_with(&needle[..k]));
        tally.chunk(&rest[..rest.len() - withheld.unwrap_or(0)]);
        Work { terminator: (self.terminator)(&needle), input, checksum: tally.sum() }
    }
}

impl Work {
    fn run(&self, read: usize, window: &mut Window) -> u64 {
        ours::framer::<Events, _>(
            Frames::default(),
            self.terminator.clone(),
            &self.input,
            read,
            window,
        )
    }
}

fn double(bench: &mut Bench, name: &str, read: usize, works: impl FnOnce() -> [Work; 2]) {
    let Some(row) = bench.row(name) else { return };
    let [twice, once] = works();
    let mut windows = [Window::new(2 * READ), Window::new(2 * READ)];
    let [window, other] = &mut windows;
    row.budget(BUDGET)
        .work(1, "run", twice.input.len())
        .ours("Framer, twice", || twice.run(read, window))
        .expecting(twice.checksum)
        .goal("Framer, once", GOAL)
        .peer("Framer, once", || once.run(read, other))
        .expecting(once.checksum)
        .working(1, once.input.len())
        .run();
}

pub fn input(bench: &mut Bench) {
    let size = bench.size(1 << 18, 1 << 14);
    let needle = bench.size(4096, 1024);
    for case in CASES.iter().chain(&SHORT) {
        for read in READS {
            let name = format!("twice the input: {}, by {read}", case.name);
            let works = || [case.work(needle, 2 * size), case.work(needle, size)];
            double(bench, &name, read, works);
        }
    }
}

pub fn terminator(bench: &mut Bench) {
    let size = bench.size(1 << 19, 1 << 15);
    let needle = bench.size(4096, 1024);
    for case in &CASES {
        for read in READS {
            let name = format!("twice the terminator: {}, by {read}", case.name);
            let works = || [case.work(2 * needle, size), case.work(needle, size)];
            double(bench, &name, read, works);
        }
    }
}

/// Frames with a limit of `max` bytes, and sets the next of some terminators whenever a frame is overlong. So that the
/// work stays linear, the framer may look at only a few bytes again after each switch.
fn switch_at_overlong(terminators: &[Terminator], max: u64, input: &[u8]) -> u64 {
    let mut framer = Framer::new(terminators[0].clone()).with_limit(Limit::Skip(max));
    let mut tally = Tally::default();
    let mut switches = 0;
    while let Some(event) = framer.next(input).expect("it skips") {
        match event {
            Event::Chunk(chunk) => tally.chunk(chunk),
            Event::Overlong | Event::WrongEnd => {
                switches += 1;
                framer.set_terminator(terminators[switches % terminators.len()].clone());
            }
            Event::Terminator | Event::Truncated => unreachable!("there is none"),
        }
    }
    tally.sum() + switches as u64
}

pub fn switched(bench: &mut Bench) {
    let size = bench.size(1 << 15, 1 << 13);
    let long = [&vec![b'a'; bench.size(1 << 10, 1 << 7) - 1][..], b"b"].concat();
    let cases: [(&str, u64, &[&[u8]]); 3] = [
        ("CRLF, LF", 1, &[b"\r\n", b"\n"]),
        ("1 KiB of a..ab, LF", 1, &[&long, b"\n"]),
        ("after 20 bytes, LF, CRLF, 20 of a..ab", 20, &[b"\n", b"\r\n", &long[long.len() - 20..]]),
    ];
    for (called, max, ends) in cases {
        let Some(row) = bench.row(&format!("twice the input: switched at each Overlong, {called}"))
        else {
            continue;
        };
        let terminators: Vec<_> = ends.iter().map(|end| delimiter(end)).collect();
        let input = vec![b'a'; 2 * size];
        let run = |len: usize| switch_at_overlong(&terminators, max, &input[..len]);
        // The checksums cannot be worked out from the lengths alone, since the last bytes may be withheld as the
        // beginning of a terminator, or belong to a frame that is not overlong yet.
        let expected = [run(2 * size), run(size)];
        row.budget(BUDGET)
            .work(1, "run", input.len())
            .ours("Framer, twice", || run(2 * size))
            .expecting(expected[0])
            .goal("Framer, once", GOAL)
            .peer("Framer, once", || run(size))
            .expecting(expected[1])
            .working(1, size)
            .run();
    }
}
