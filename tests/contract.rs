//! Tests of two clauses of the contract in tests/PROMISES.md: counted frames with their own end, and universal
//! newlines.
#![allow(clippy::unwrap_used)]

mod support;

use asynchat::{Event, Framer, Terminator};
use support::Spec::{Bytes, CountThen, Newline, None as Never};
use support::{End, Log, Script, T, bytes, data, verify};

// Counted frames with their own end.

fn count_then(count: u64, end: &str) -> support::Spec {
    CountThen(count, end.as_bytes().to_vec())
}

#[test]
fn a_count_with_its_end_is_a_frame_and_the_delimiter_is_armed_again() {
    let script = Script::new(bytes("\r\n")).then(count_then(5, "\r\n"));
    let log = [data("$5"), T, data("a\r\nbc"), T, data("$2"), T, data("x")];
    verify(&script, b"$5\r\na\r\nbc\r\n$2\r\nx", End::Open, &log);
    // A count of 0 and an end of eight bytes, with no other terminator set before.
    let script = Script::new(count_then(0, "12345678")).then_keep();
    verify(&script, b"12345678\n", End::Eof, &[T, data("\n")]);
}

#[test]
fn a_wrong_end_is_no_terminator_and_no_payload() {
    let script = Script::new(count_then(2, "\r\n"));
    let wrong = [data("ab"), Log::WrongEnd, Log::FailedWrongEnd];
    verify(&script, b"ab\n\n", End::Eof, &wrong);
    verify(&script, b"ab\rx\r\n", End::Eof, &wrong);
    // After a wrong end, another terminator can be set. It applies to all bytes behind the count, since none was taken.
    let switched = Script::new(count_then(2, "\r\n")).then(Bytes(b"\n".to_vec()));
    verify(&switched, b"ab\rc\n", End::Open, &[data("ab"), Log::WrongEnd, data("\rc"), T]);
}

// Universal newlines.

#[test]
fn a_newline_is_cr_lf_or_both_however_it_is_cut() {
    let log = [data("a"), T, data("b"), T, data("c"), T, T, T, T, data("d"), T];
    verify(&Script::new(Newline), b"a\rb\nc\r\n\n\r\n\rd\r", End::Eof, &log);
    // LF and then CR are two line ends.
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
