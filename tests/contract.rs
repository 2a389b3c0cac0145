//! Clauses of the contract in tests/PROMISES.md that are whole here: the cost of framing, a counted frame
//! with its end, universal newlines.
#![allow(clippy::unwrap_used)]

mod support;

use std::hint::black_box;
use std::time::{Duration, Instant};

use asynchat::{Event, Framer, Limit, Terminator};
use support::Spec::{Bytes, CountThen, Newline, None as Never};
use support::{End, Log, Script, T, bytes, data, verify};

// What it costs. A cost that grows with the square would be sixteen times as much for four times the
// input; the bounds are far from both.

/// CPU time of this thread, where the system tells.
fn cpu_time(begun: Instant) -> Duration {
    // Linux counts up to the last time that it had to do with the thread, such as now.
    std::thread::yield_now();
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stat.split(' ').next().and_then(|nanos| nanos.parse().ok());
    nanos.map_or_else(|| begun.elapsed(), Duration::from_nanos)
}

/// How much longer the second takes than the first, at best.
fn ratio(mut first: impl FnMut(), mut second: impl FnMut()) -> f64 {
    let begun = Instant::now();
    let mut best = [Duration::MAX; 2];
    for _ in 0..5 {
        for (best, work) in best.iter_mut().zip([&mut first as &mut dyn FnMut(), &mut second]) {
            let before = cpu_time(begun);
            work();
            *best = (*best).min(cpu_time(begun) - before);
        }
    }
    best[1].as_secs_f64() / best[0].as_secs_f64().max(1e-6)
}

/// Frames an input that comes in reads of a size, and switches to the next of some terminators at each
/// overlong frame.
fn frame(terminators: &[Terminator], limit: Limit, input: &[u8], read: usize) {
    let mut framer = Framer::new(terminators[0].clone());
    framer.set_limit(limit);
    let mut next = terminators.iter().cycle().skip(1);
    let (mut start, mut end) = (0, 0);
    while end < input.len() {
        end = input.len().min(end + read);
        while let Some(event) = framer.next(&input[start..end]).unwrap() {
            if black_box(event) == Event::Overlong {
                framer.set_terminator(next.next().unwrap().clone());
            }
        }
        start += framer.take_consumed();
    }
}

/// A delimiter of so many bytes that has long beginnings in what is only `a`.
fn hard(len: usize) -> Terminator {
    let mut needle = vec![b'a'; len - 1];
    needle.push(b'b');
    needle.try_into().unwrap()
}

#[test]
fn twice_the_input_is_twice_the_work() {
    let input = vec![b'a'; 256 << 10];
    let any = Terminator::any_of([&[b'a'; 63], b"\n".repeat(63).as_slice()]).unwrap();
    for terminator in [hard(64), hard(1024), any, b"\n".into(), Terminator::Newline] {
        for read in [1, 7, input.len()] {
            let all = [terminator.clone()];
            let quarter = || frame(&all, Limit::Unlimited, &input[..input.len() / 4], read);
            let whole = || frame(&all, Limit::Unlimited, &input, read);
            let ratio = ratio(quarter, whole);
            assert!(ratio < 8.0, "four times {terminator:?} by {read} cost {ratio:.1} times");
        }
    }
}

#[test]
fn a_delimiter_twice_as_long_is_no_more_work() {
    let input = vec![b'a'; 128 << 10];
    for read in [1, 7, input.len()] {
        let (short, long) = ([hard(64)], [hard(1024)]);
        let ratio = ratio(
            || frame(&short, Limit::Unlimited, &input, read),
            || frame(&long, Limit::Unlimited, &input, read),
        );
        assert!(ratio < 4.0, "sixteen times the delimiter by {read} cost {ratio:.1} times");
    }
}

#[test]
fn a_switch_at_every_overlong_frame_costs_no_more_behind_a_longer_input() {
    let input = vec![b'x'; 1 << 20];
    let terminators = [b"\n".into(), b"\r\n".into(), hard(20)];
    for read in [64 << 10, input.len()] {
        let limit = Limit::Skip(20);
        let quarter = || frame(&terminators, limit, &input[..input.len() / 4], read);
        let ratio = ratio(quarter, || frame(&terminators, limit, &input, read));
        assert!(ratio < 8.0, "four times the input by {read} cost {ratio:.1} times");
    }
}

// A counted frame with its end.

fn count_then(count: u64, end: &str) -> support::Spec {
    CountThen(count, end.as_bytes().to_vec())
}

#[test]
fn a_count_with_its_end_is_a_frame_and_the_delimiter_is_armed_again() {
    let script = Script::new(bytes("\r\n")).then(count_then(5, "\r\n"));
    let log = [data("$5"), T, data("a\r\nbc"), T, data("$2"), T, data("x")];
    verify(&script, b"$5\r\na\r\nbc\r\n$2\r\nx", End::Open, &log);
    // An empty one, an end of eight bytes, and none that was armed before.
    let script = Script::new(count_then(0, "12345678")).then_keep();
    verify(&script, b"12345678\n", End::Eof, &[T, data("\n")]);
}

#[test]
fn a_wrong_end_is_no_terminator_and_no_payload() {
    let script = Script::new(count_then(2, "\r\n"));
    let wrong = [data("ab"), Log::WrongEnd, Log::FailedWrongEnd];
    verify(&script, b"ab\n\n", End::Eof, &wrong);
    verify(&script, b"ab\rx\r\n", End::Eof, &wrong);
    // It can be gone on behind it, by a switch: no byte has been taken.
    let switched = Script::new(count_then(2, "\r\n")).then(Bytes(b"\n".to_vec()));
    verify(&switched, b"ab\rc\n", End::Open, &[data("ab"), Log::WrongEnd, data("\rc"), T]);
}

// Universal newlines.

#[test]
fn a_newline_is_cr_lf_or_both_however_it_is_cut() {
    let log = [data("a"), T, data("b"), T, data("c"), T, T, T, T, data("d"), T];
    verify(&Script::new(Newline), b"a\rb\nc\r\n\n\r\n\rd\r", End::Eof, &log);
    // LF, then CR, are two.
    verify(&Script::new(Newline), b"\n\r", End::Eof, &[T, T]);
}

#[test]
fn cr_ends_a_line_before_what_is_behind_it_comes() {
    let mut framer = Framer::new(Terminator::Newline);
    assert_eq!(framer.next(b"a\r"), Ok(Some(Event::Chunk(&b"a"[..]))));
    assert_eq!(framer.next(b"a\r"), Ok(Some(Event::Terminator)));
    assert_eq!(framer.next(b"a\r"), Ok(None));
    assert_eq!(framer.take_consumed(), 2);
    assert_eq!(framer.next(b"\nb"), Ok(Some(Event::Chunk(&b"b"[..]))));
}

#[test]
fn the_lf_behind_a_cr_is_swallowed_after_a_switch_too() {
    for (then, log) in [
        (bytes("\n"), vec![data("a"), T, data("b"), T]),
        (Never, vec![data("a"), T, data("b\n")]),
        (support::Spec::Count(2), vec![data("a"), T, data("b\n"), T]),
    ] {
        verify(&Script::new(Newline).then(then), b"a\r\nb\n", End::Open, &log);
    }
}
