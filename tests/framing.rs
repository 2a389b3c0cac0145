//! Framing, with a named test for each rule, and for the cases in which framers are often wrong.
#![allow(clippy::unwrap_used)]

mod support;

use asynchat::{
    Delimiter, DelimiterSet, DelimiterSetError, EmptyDelimiter, Ending, EndingError, Event,
    FrameError, Framer, Limit, Terminator,
};
use support::drive::{How, Lent};
use support::model::Follower;
use support::{
    Decoding, End, Log, Script, T, any, bytes, data, event_decoders, verify, verify_model,
};

use Log::{Failed, Overlong, Truncated};
use support::Spec::{Count, CountThen, None as Never};

fn script(terminator: support::Spec) -> Script {
    Script::new(terminator)
}

/// Calls a function with each kind of decoder, which has the settings of a script.
#[track_caller]
fn each(script: &Script, mut body: impl FnMut(&mut dyn Decoding)) {
    for mut decoder in event_decoders(script) {
        body(&mut *decoder);
    }
}

#[track_caller]
fn expect(decoder: &mut dyn Decoding, expected: impl Into<Option<Event<&'static str>>>) {
    let name = decoder.name();
    let expected = expected.into().map(|event| event.map(|text| text.as_bytes().to_vec()));
    assert_eq!(decoder.call(false), Ok(expected), "{name}");
}

#[track_caller]
fn expect_eof(decoder: &mut dyn Decoding, expected: impl Into<Option<Event<&'static str>>>) {
    let name = decoder.name();
    let expected = expected.into().map(|event| event.map(|text| text.as_bytes().to_vec()));
    assert_eq!(decoder.call(true), Ok(expected), "{name}");
}

const MORE: Option<Event<&str>> = None;

// Delimiters.

#[test]
fn a_delimiter_ends_frames_and_stays_armed() {
    let log = [data("a"), T, T, data("b"), T];
    verify(&script(bytes("\r\n")), b"a\r\n\r\nb\r\n", End::Open, &log);
    verify(&script(bytes("\n")), b"a\n\nb\n", End::Eof, &log);
    verify(&script(bytes("--sep--")), b"a--sep----sep--b--sep--", End::Open, &log);
}

#[test]
fn a_delimiter_is_found_at_its_leftmost_place_after_a_false_start() {
    verify(&script(bytes("aab")), b"xaaab!", End::Eof, &[data("xa"), T, data("!"), Truncated]);
    verify(&script(bytes("\r\n")), b"\r\r\n\n", End::Open, &[data("\r"), T, data("\n")]);
    verify(&script(bytes("qqq")), b"qqqqhello", End::Open, &[T, data("qhello")]);
    verify(&script(bytes("abab")), b"abaabababab", End::Open, &[data("aba"), T, T]);
}

#[test]
fn a_first_byte_alone_is_no_delimiter_near_the_end_of_the_input() {
    let log = [data("x"), T, data("a\rb"), T];
    verify(&script(bytes("\r\n")), b"x\r\na\rb\r\n", End::Open, &log);
}

#[test]
fn a_first_byte_alone_is_no_delimiter_at_any_place() {
    for before in 0..140 {
        for after in 0..12 {
            let head = [&b"x".repeat(before)[..], b"\r\na\rb"].concat();
            let input = [&head[..], &b"y".repeat(after), b"\r\n"].concat();
            let mut framer = Framer::new(b"\r\n");
            let mut frames = vec![Vec::new()];
            while let Some(event) = framer.next(&input).unwrap() {
                match event {
                    Event::Chunk(chunk) => frames.last_mut().unwrap().extend_from_slice(chunk),
                    _ => frames.push(Vec::new()),
                }
            }
            let second = [b"a\rb", &b"y".repeat(after)[..]].concat();
            assert_eq!(frames, [b"x".repeat(before), second, Vec::new()], "{before} {after}");
        }
    }
}

#[test]
fn a_bare_lf_or_cr_is_payload_under_crlf() {
    let log = [data("a\nb\rc\n\r"), T];
    verify(&script(bytes("\r\n")), b"a\nb\rc\n\r\r\n", End::Open, &log);
}

#[test]
fn nul_and_0xff_are_bytes_like_others() {
    let log = [data(b"\0\xff"), T, data(b"\xff")];
    verify(&script(bytes(b"\0\xfe\0")), b"\0\xff\0\xfe\0\xff", End::Open, &log);
    verify(&script(bytes(b"\0")), b"\xff\0\0", End::Open, &[data(b"\xff"), T, T]);
    verify(&script(bytes(b"\xff")), b"\0\xff\xff", End::Open, &[data(b"\0"), T, T]);
    let zeros = vec![0; 30];
    let input = [&zeros[..], b"\xff", &zeros].concat();
    verify(&script(bytes(&zeros)), &input, End::Open, &[T, data(b"\xff"), T]);
    // A short delimiter is stored in a fixed array. The padding of the array is not a part of it.
    verify(&script(bytes(b"\xff\0")), b"\xff\0\xff\0\0\xff", End::Open, &[T, T, data(b"\0")]);
}

#[test]
fn a_delimiter_longer_than_any_read_is_found() {
    for len in [21, 22, 23, 24, 65] {
        let delimiter: Vec<u8> = (0..len).map(|i| i as u8 + 128).collect();
        let input = [b"!", &delimiter[..], b"?", &delimiter[..len - 1], &delimiter].concat();
        let second = [b"?", &delimiter[..len - 1]].concat();
        let log = [data("!"), T, data(second), T];
        verify(&script(bytes(&delimiter)), &input, End::Open, &log);
    }
}

#[test]
fn a_one_byte_delimiter_never_withholds() {
    each(&script(bytes("\n")), |decoder| {
        decoder.feed(b"ab");
        expect(decoder, Event::Chunk("ab"));
        assert_eq!(decoder.buffered().len() * usize::from(decoder.name() != "Framer"), 0);
        expect(decoder, MORE);
        assert_eq!(decoder.buffered(), b"");
    });
}

#[test]
fn a_false_start_is_delivered_by_the_call_that_sees_it() {
    each(&script(bytes("\r\n.\r\n")), |decoder| {
        decoder.feed(b"a\r\n.\r");
        expect(decoder, Event::Chunk("a"));
        expect(decoder, MORE);
        assert_eq!(decoder.buffered(), b"\r\n.\r");
        decoder.feed(b"\r");
        expect(decoder, Event::Chunk("\r\n.\r"));
        expect(decoder, MORE);
        assert_eq!(decoder.buffered(), b"\r");
        decoder.feed(b"x");
        expect(decoder, Event::Chunk("\rx"));
    });
}

// Sets of delimiters.

#[test]
fn the_longest_of_delimiters_that_end_together_wins() {
    let t1 = Log::Terminator(1);
    let lines = any(["\n", "\r\n"]);
    let log = [data("a"), t1.clone(), data("b"), T, data("\r"), t1.clone()];
    verify(&script(lines), b"a\r\nb\n\r\r\n", End::Open, &log);
    let three = any(["c", "bc", "abc"]);
    let log = [Log::Terminator(2), T, t1, data("a"), T];
    verify(&script(three), b"abccbcac", End::Open, &log);
    // A set without a shared suffix, whose longest member is too long to be stored in place.
    let long = "x".repeat(23) + "c";
    let log = [Log::Terminator(2), data("d"), Log::Terminator(1), T];
    let input = format!("{long}d;c");
    verify(&script(any(["c", ";", &long])), input.as_bytes(), End::Open, &log);
}

#[test]
fn the_delimiter_that_ends_first_wins() {
    let log = [data("z"), Log::Terminator(1), data("cdy"), T];
    verify(&script(any(["bcdy", "ab"])), b"zabcdybcdy", End::Open, &log);
}

#[test]
fn a_member_does_not_begin_before_its_frame() {
    for head in [Count(1), bytes("\r"), bytes("\\")] {
        let script = script(head.clone()).then(any(["\n", "\r\n"]));
        let (input, first) = match &head {
            Count(_) => ("\r\na\r\n", vec![data("\r"), T]),
            bytes if *bytes == support::bytes("\r") => ("\r\na\r\n", vec![T]),
            _ => ("\r\\\na\r\n", vec![data("\r"), T]),
        };
        let log = [&first[..], &[T, data("a"), Log::Terminator(1)]].concat();
        verify(&script, input.as_bytes(), End::Eof, &log);
    }
    let script = script(Count(2)).then(any(["aa", "baa", "bbaa"]));
    let log = [data("bb"), T, T, data("c"), Log::Terminator(1)];
    verify(&script, b"bbaacbaa", End::Eof, &log);
}

#[test]
fn more_members_with_a_shared_suffix_than_are_tried_one_by_one() {
    let members = [";", "a;", "b;", "c;", "d;", "ee;", "fee;"];
    let log = [4, 6, 5, 0, 1].map(Log::Terminator);
    verify(&script(any(members)), b"d;fee;ee;;a;", End::Open, &log);
}

#[test]
fn delimiters_that_differ_only_behind_their_second_byte_are_not_the_same() {
    assert_eq!(Terminator::from(b"abc"), Terminator::from(b"abc"));
    assert_ne!(Terminator::from(b"abc"), Terminator::from(b"abd"));
}

#[test]
fn errors_say_what_is_wrong() {
    for (error, text) in [
        (DelimiterSetError::Empty, "a delimiter set has at least one member"),
        (DelimiterSetError::EmptyMember, "a delimiter has at least one byte"),
        (DelimiterSetError::Duplicate, "a delimiter is in the set twice"),
        (DelimiterSetError::Unreachable, "a delimiter occurs inside another before its end"),
    ] {
        assert_eq!(error.to_string(), text);
    }
    let overlong = FrameError::Overlong(5);
    assert_eq!(overlong.to_string(), "frame longer than the limit of 5 bytes");
    assert_eq!(FrameError::WrongEnd.to_string(), "counted frame without its end");
}

#[test]
fn an_end_of_a_counted_frame_has_from_1_to_8_bytes() {
    for len in 1..=8 {
        let end = &b"12345678"[..len];
        assert_eq!(Ending::new(end).unwrap().as_bytes(), end);
    }
    for wrong in ["", "123456789"] {
        let refused: EndingError = Ending::new(wrong).unwrap_err();
        assert_eq!(refused.to_string(), "the end of a counted frame has 1 to 8 bytes");
    }
}

#[test]
fn sets_whose_members_could_not_win_are_refused() {
    let refused = |members: &[&str]| DelimiterSet::new(members).map(drop);
    assert_eq!(refused(&[]), Err(DelimiterSetError::Empty));
    assert_eq!(refused(&["a", ""]), Err(DelimiterSetError::EmptyMember));
    assert_eq!(refused(&["a", "b", "a"]), Err(DelimiterSetError::Duplicate));
    assert_eq!(refused(&["ab", "abc"]), Err(DelimiterSetError::Unreachable));
    assert_eq!(refused(&["bb", "abba"]), Err(DelimiterSetError::Unreachable));
    assert_eq!(refused(&["aa", "aaa"]), Err(DelimiterSetError::Unreachable));
    assert_eq!(refused(&["aa", "baa"]), Ok(()));
    assert_eq!(refused(&["a"]), Ok(()));
}

#[test]
fn a_set_withholds_the_longest_beginning_of_any_member() {
    each(&script(any(["cd", "bcx", "abcy"])), |decoder| {
        decoder.feed(b"zabc");
        expect(decoder, Event::Chunk("z"));
        expect(decoder, MORE);
        assert_eq!(decoder.buffered(), b"abc");
        decoder.feed(b"d");
        expect(decoder, Event::Chunk("ab"));
        expect(decoder, Event::Terminator);
        expect(decoder, MORE);
        assert_eq!(decoder.buffered(), b"");
    });
}

#[test]
fn delimiters_and_sets_convert_compare_and_print() {
    let refused: EmptyDelimiter = Delimiter::new("").unwrap_err();
    assert_eq!(refused.to_string(), "a delimiter has at least one byte");
    assert_eq!(Terminator::try_from(String::new()), Err(refused));
    assert_eq!(Terminator::try_from(Vec::<u8>::new()), Err(refused));
    assert_eq!(Terminator::try_from(&b""[..]), Err(refused));
    for len in [1, 2, 21, 22, 23, 24, 255, 256, 257, 5000] {
        let text = "ab".repeat(len)[..len].to_owned();
        let delimiter = Delimiter::try_from(text.as_str()).unwrap();
        assert_eq!(delimiter.as_bytes(), text.as_bytes());
        assert_eq!(delimiter, Delimiter::new(&text).unwrap());
        assert_ne!(delimiter, Delimiter::new(text + "b").unwrap());
    }
    // Delimiters that were made in different ways are equal, both where they are stored in place and where they are
    // not.
    assert_eq!(Delimiter::from(&[b'a'; 22]), Delimiter::new([b'a'; 22]).unwrap());
    assert_eq!(Delimiter::from(&[b'a'; 23]), Delimiter::new([b'a'; 23]).unwrap());
    let set = DelimiterSet::new(["\n", "\r\n"]).unwrap();
    assert_eq!(set.iter().collect::<Vec<_>>(), [&b"\n"[..], b"\r\n"]);
    assert_eq!(format!("{set:?}"), r#"DelimiterSet{b"\n", b"\r\n"}"#);
    assert_eq!(Terminator::from(b"\r\n"), bytes("\r\n").terminator());
    assert_eq!(format!("{:?}", Delimiter::from(b"\r\n\0")), r#"Delimiter(b"\r\n\x00")"#);
    assert_eq!(Terminator::from(3), Terminator::Count(3));
    assert_eq!(Terminator::from(None), Terminator::None);
}

// Counts, and none.

#[test]
fn a_count_ends_after_so_many_bytes_and_is_then_spent() {
    let count = script(Count(5));
    verify(&count, b"abcdefg", End::Eof, &[data("abcde"), T, data("fg")]);
    verify(&count, b"abcde", End::Eof, &[data("abcde"), T]);
    verify(&count, b"abcd", End::Eof, &[data("abcd"), Truncated]);
    verify(&count, b"", End::Eof, &[Truncated]);
    each(&count, |decoder| {
        decoder.feed(b"ab");
        expect(decoder, Event::Chunk("ab"));
        assert_eq!(decoder.control().terminator(), Terminator::Count(3));
        decoder.feed(b"cde");
        expect(decoder, Event::Chunk("cde"));
        assert_eq!(decoder.control().terminator(), Terminator::None);
        expect(decoder, Event::Terminator);
        assert_eq!(decoder.control().terminator(), Terminator::None);
        assert!(!decoder.control().is_mid_frame());
    });
}

#[test]
fn a_count_of_zero_ends_at_once_first_last_and_twice() {
    verify(&script(Count(0)), b"", End::Eof, &[T]);
    verify(&script(Count(0)), b"", End::Open, &[T]);
    verify(&script(Count(0)), b"ab", End::Open, &[T, data("ab")]);
    let twice = script(Count(0)).then(Count(0)).then(bytes("\n"));
    verify(&twice, b"a\nb", End::Eof, &[T, T, data("a"), T, data("b"), Truncated]);
    let last = script(bytes("\n")).then(Count(1)).then(Count(0));
    verify(&last, b"a\nb", End::Eof, &[data("a"), T, data("b"), T, T]);
    let middle = script(bytes("\n")).then(Count(0)).then(bytes("\n"));
    verify(&middle, b"\n\n", End::Eof, &[T, T, T]);
}

#[test]
fn the_largest_count_and_limit_do_not_overflow() {
    verify(&script(Count(u64::MAX)), b"abc", End::Eof, &[data("abc"), Truncated]);
    for limit in [Limit::Fail(u64::MAX), Limit::Skip(u64::MAX), Limit::Fail(u64::MAX - 1)] {
        let limited = script(bytes("\r\n")).limit(limit);
        let log = [data("abc"), T, data("\r"), Truncated];
        verify(&limited, b"abc\r\n\r", End::Eof, &log);
    }
    each(&script(Count(u64::MAX)), |decoder| {
        decoder.feed(b"ab");
        expect(decoder, Event::Chunk("ab"));
        assert_eq!(decoder.control().terminator(), Terminator::Count(u64::MAX - 2));
    });
}

#[test]
fn none_makes_everything_chunks_and_has_no_frame_to_cut() {
    verify(&script(Never), b"a\r\nb", End::Eof, &[data("a\r\nb")]);
    let after = script(bytes("\n")).then(Never);
    verify(&after, b"a\nb\nc", End::Eof, &[data("a"), T, data("b\nc")]);
}

#[test]
fn frames_and_counts_alternate() {
    let http = script(bytes("\r\n\r\n")).then(Count(4)).then(bytes("\r\n\r\n")).then(Never);
    let log = [data("H: 1"), T, data("BODY"), T, data("H: 2"), T, data("rest")];
    verify(&http, b"H: 1\r\n\r\nBODYH: 2\r\n\r\nrest", End::Eof, &log);
    let chunked = script(bytes("\r\n"))
        .then(Count(3))
        .then(bytes("\r\n"))
        .then_keep()
        .then(Count(0))
        .then(bytes("\r\n"));
    let log = [data("3"), T, data("\r\n\r"), T, T, data("0"), T, T, T];
    verify(&chunked, b"3\r\n\r\n\r\r\n0\r\n\r\n", End::Eof, &log);
}

// Switching.

#[test]
fn a_switch_while_bytes_are_withheld_governs_them() {
    each(&script(bytes("\r\n.")), |decoder| {
        decoder.feed(b"a\r\n");
        expect(decoder, Event::Chunk("a"));
        expect(decoder, MORE);
        decoder.control().set_terminator(Terminator::from(b"\n"));
        expect(decoder, Event::Chunk("\r"));
        expect(decoder, Event::Terminator);
        expect(decoder, MORE);
        assert_eq!(decoder.buffered(), b"");
    });
    each(&script(bytes("\r\n.")), |decoder| {
        decoder.feed(b"\r\n");
        expect(decoder, MORE);
        decoder.control().set_terminator(Terminator::Count(1));
        expect(decoder, Event::Chunk("\r"));
        expect(decoder, Event::Terminator);
        decoder.control().set_terminator(Terminator::None);
        expect(decoder, Event::Chunk("\n"));
        expect(decoder, MORE);
    });
    // Set to the one in force, it changes nothing.
    each(&script(bytes("\r\n.")), |decoder| {
        decoder.feed(b"\r\n");
        expect(decoder, MORE);
        decoder.control().set_terminator(Terminator::from(b"\r\n."));
        expect(decoder, MORE);
        decoder.feed(b".");
        expect(decoder, Event::Terminator);
    });
}

#[test]
fn a_switch_in_the_middle_of_a_count_drops_what_remains_of_it() {
    each(&script(Count(10)), |decoder| {
        decoder.feed(b"ab");
        expect(decoder, Event::Chunk("ab"));
        expect(decoder, MORE);
        decoder.control().set_terminator(Terminator::from(b"\r\n"));
        decoder.feed(b"cd\r\nx");
        expect(decoder, Event::Chunk("cd"));
        expect(decoder, Event::Terminator);
        expect(decoder, Event::Chunk("x"));
    });
}

#[test]
fn a_switch_to_something_buffered_finds_it() {
    let log = [data("a"), T, data("b"), T, data("c"), T, data("d"), T, data("e\r\n"), T];
    let script = script(bytes("\r\n"))
        .then(bytes(";"))
        .then(any(["::", ","]))
        .then(bytes("\r\n"))
        .then(bytes("0123456789abcdefghijklmn"));
    let t0 = b"a\r\nb;c::d\r\ne\r\n0123456789abcdefghijklmn";
    verify(&script, t0, End::Open, &log);
    // To another terminator and back, over bytes that were searched before.
    for far in ["\n", "\r\n", "\n\n\n", "0123456789abcdefghijklmn"] {
        for count in [0, 1, 3] {
            let script = Script::new(bytes(far)).then(Count(count)).then(bytes(far));
            let input = format!("a{far}{}xy{far}{far}z{far}", far.repeat(3));
            verify_model(&script, input.as_bytes());
        }
    }
}

#[test]
fn bytes_that_come_before_the_frames_at_hand_are_taken_hide_none_of_them() {
    for delimiter in ["\n", "\r\n", "\r\n.\r\n", "0123456789abcdefghijklmn"] {
        each(&script(bytes(delimiter)), |decoder| {
            decoder.feed(format!("a{delimiter}b{delimiter}c").as_bytes());
            expect(decoder, Event::Chunk("a"));
            expect(decoder, Event::Terminator);
            decoder.feed(b"d");
            expect(decoder, Event::Chunk("b"));
            expect(decoder, Event::Terminator);
            expect(decoder, Event::Chunk("cd"));
            expect(decoder, MORE);
        });
    }
}

/// Lengths of beginnings of a delimiter: short ones and long ones.
fn lengths(delimiter: &[u8]) -> impl Iterator<Item = usize> {
    let len = delimiter.len();
    (1..len).filter(move |&n| n < 5 || n + 3 > len)
}

#[test]
fn what_one_terminator_withheld_is_no_beginning_of_another() {
    let specs = [
        bytes("\r\n"),
        bytes("abcabd"),
        bytes("0123456789abcdefghijklmn"),
        bytes("bcabcabcabcabcabcabcabcabcabx"),
        any(["abcabd", "~"]),
        any(["bcabx", "cd", "~~"]),
        any(["0123456789abcdefghijklmn", "bca"]),
        any(["\n", "\r\n"]),
    ];
    for first in &specs {
        for second in &specs {
            for (old, len) in
                first.delimiters().iter().flat_map(|d| lengths(d).map(move |n| (d, n)))
            {
                for new in second.delimiters() {
                    each(&script(first.clone()), |decoder| {
                        let mut follower = Follower::new(first.clone(), Limit::Unlimited);
                        let (head, tail) = old.split_at(len);
                        let go_on = |decoder: &mut dyn Decoding,
                                     follower: &mut Follower,
                                     read: &[u8]| {
                            decoder.feed(read);
                            follower.feed(read);
                            loop {
                                let returned = decoder.call(false);
                                let matched = decoder.control().matched();
                                if let Err(wrong) = follower.observe(false, &returned, matched) {
                                    panic!(
                                        "{}: {first:?} to {second:?} at {len}: {wrong}",
                                        decoder.name()
                                    );
                                }
                                if returned == Ok(None) {
                                    break;
                                }
                            }
                            assert_eq!(decoder.buffered(), follower.input);
                        };
                        go_on(decoder, &mut follower, head);
                        decoder.control().set_terminator(second.terminator());
                        follower.set_terminator(second.clone());
                        // With a call between the two switches, and without.
                        if len % 2 == 0 {
                            go_on(decoder, &mut follower, b"");
                        }
                        go_on(decoder, &mut follower, tail);
                        go_on(decoder, &mut follower, &new[len.min(new.len())..]);
                        go_on(decoder, &mut follower, new);
                    });
                }
            }
        }
    }
}

#[test]
fn a_located_terminator_still_fires_after_a_switch() {
    for terminator in [Terminator::Count(2), Terminator::None, Terminator::from(b"b")] {
        each(&script(bytes("\r\n")), |decoder| {
            decoder.feed(b"a\r\nbbb");
            expect(decoder, Event::Chunk("a"));
            decoder.control().set_terminator(terminator.clone());
            expect(decoder, Event::Terminator);
            match terminator {
                Terminator::Count(_) => {
                    expect(decoder, Event::Chunk("bb"));
                    expect(decoder, Event::Terminator);
                    expect(decoder, Event::Chunk("b"));
                }
                Terminator::None => expect(decoder, Event::Chunk("bbb")),
                _ => (0..3).for_each(|_| expect(decoder, Event::Terminator)),
            }
            expect(decoder, MORE);
        });
    }
    // A count that has ended is like that, and the terminator that was set stays.
    each(&script(Count(2)), |decoder| {
        decoder.feed(b"abc\n");
        expect(decoder, Event::Chunk("ab"));
        decoder.control().set_terminator(Terminator::from(b"\n"));
        expect(decoder, Event::Terminator);
        expect(decoder, Event::Chunk("c"));
        expect(decoder, Event::Terminator);
    });
    // It also stays after the end of the input, and after a discard.
    each(&script(bytes("\n")), |decoder| {
        decoder.feed(b"a\nb");
        expect(decoder, Event::Chunk("a"));
        decoder.discard();
        expect_eof(decoder, Event::Terminator);
        expect_eof(decoder, MORE);
    });
}

#[test]
fn the_length_of_a_frame_goes_on_over_a_switch() {
    // From one delimiter to another, and from a count.
    for first in [bytes("\r\n"), Count(10), any(["\r\n", "xyz"])] {
        each(&script(first).limit(Limit::Skip(4)), |decoder| {
            decoder.feed(b"abc");
            expect(decoder, Event::Chunk("abc"));
            decoder.control().set_terminator(Terminator::from(b";"));
            decoder.feed(b"de;f;");
            expect(decoder, Event::Chunk("d"));
            expect(decoder, Event::Overlong);
            expect(decoder, Event::Chunk("f"));
            expect(decoder, Event::Terminator);
        });
    }
    // Bytes under `None` belong to no frame, and so do not count.
    each(&script(bytes("\n")).limit(Limit::Skip(4)), |decoder| {
        decoder.feed(b"abc");
        expect(decoder, Event::Chunk("abc"));
        decoder.control().set_terminator(Terminator::None);
        decoder.feed(b"def");
        expect(decoder, Event::Chunk("def"));
        decoder.control().set_terminator(Terminator::from(b";"));
        assert!(!decoder.control().is_mid_frame());
        decoder.feed(b"ghij;");
        expect(decoder, Event::Chunk("ghij"));
        expect(decoder, Event::Terminator);
    });
}

// Limits.

#[test]
fn a_frame_of_exactly_the_limit_is_whole_however_its_terminator_is_split() {
    for delimiter in ["\n", "\r\n", "\r\n.\r\n", "0123456789abcdefghijklmn"] {
        for limit in [Limit::Skip(3), Limit::Fail(3)] {
            let limited = script(bytes(delimiter)).limit(limit);
            let input = format!("abc{delimiter}{delimiter}xyz{delimiter}");
            let log = [data("abc"), T, T, data("xyz"), T];
            verify(&limited, input.as_bytes(), End::Eof, &log);
        }
    }
    let lines = script(any(["\n", "\r\n"])).limit(Limit::Fail(3));
    let log = [data("abc"), Log::Terminator(1), data("ab\r"), Log::Terminator(1)];
    verify(&lines, b"abc\r\nab\r\r\n", End::Open, &log);
}

#[test]
fn one_byte_more_than_the_limit_is_overlong_and_resyncs() {
    for delimiter in ["\n", "\r\n", "\r\n.\r\n", "0123456789abcdefghijklmn"] {
        let skip = script(bytes(delimiter)).limit(Limit::Skip(3));
        let input = format!("abcd{delimiter}xyz{delimiter}abcdefgh{delimiter}{delimiter}");
        let log = [data("abc"), Overlong, data("xyz"), T, data("abc"), Overlong, T];
        verify(&skip, input.as_bytes(), End::Eof, &log);
        let fail = script(bytes(delimiter)).limit(Limit::Fail(3));
        verify(&fail, input.as_bytes(), End::Eof, &[data("abc"), Overlong, Failed(3)]);
    }
}

#[test]
fn the_beginning_of_a_terminator_that_turns_into_payload_obeys_the_limit() {
    let skip = script(bytes("\r\n")).limit(Limit::Skip(3));
    let log = [data("abc"), Overlong, data("z"), T];
    verify(&skip, b"abc\rx\r\nz\r\n", End::Open, &log);
    verify(&skip, b"ab\r\rx\r\nz\r\n", End::Open, &[data("ab\r"), Overlong, data("z"), T]);
    // At the end of the input too.
    verify(&skip, b"abc\r", End::Eof, &[data("abc"), Overlong, Truncated]);
    verify(&skip, b"ab\r", End::Eof, &[data("ab\r"), Truncated]);
    let long = script(bytes("\r\n.\r\n")).limit(Limit::Skip(4));
    verify(&long, b"ab\r\n.\r", End::Eof, &[data("ab\r\n"), Overlong, Truncated]);
    let fail = script(bytes("\r\n")).limit(Limit::Fail(3));
    verify(&fail, b"abc\r", End::Eof, &[data("abc"), Overlong, Failed(3)]);
}

#[test]
fn a_skip_stays_in_step_when_the_terminator_is_split_or_begins_twice() {
    let skip = script(bytes("aab")).limit(Limit::Skip(1));
    let log = [data("x"), Overlong, T, data("y"), T, data("x"), Overlong];
    verify(&skip, b"xaaaabaabyaabxxaa", End::Open, &log);
    verify(&skip, b"xxaa", End::Eof, &[data("x"), Overlong, Truncated]);
    let lines = script(any(["\n", "\r\n"])).limit(Limit::Skip(0));
    verify(&lines, b"ab\r\n\n\r\n", End::Eof, &[Overlong, T, Log::Terminator(1)]);
    let far = script(any(["0123456789abcdefghijklmn", ";"])).limit(Limit::Skip(2));
    let log = [data("01"), Overlong, T, data("x"), Log::Terminator(1)];
    verify(&far, b"0120123456789abcdefghijklmn0123456789abcdefghijklmnx;", End::Eof, &log);
}

#[test]
fn a_limit_of_zero_under_fail_checks_a_literal() {
    let bare = script(Count(3)).then_limited(bytes("\r\n"), Limit::Fail(0));
    let good = bare.clone().then(Count(1));
    verify(&good, b"abc\r\nx", End::Eof, &[data("abc"), T, T, data("x"), T]);
    let bad = [&b"abcd\r\n"[..], b"abc\rx", b"abc\n", b"abc\r\r\n"];
    for input in bad {
        verify(&bare, input, End::Open, &[data("abc"), T, Overlong, Failed(0)]);
    }
    verify(&bare, b"abc\r", End::Eof, &[data("abc"), T, Overlong, Failed(0)]);
    verify(&good, b"abc\r", End::Open, &[data("abc"), T]);
    verify(&good, b"abc", End::Eof, &[data("abc"), T]);
}

#[test]
fn a_switch_at_overlong_cancels_the_skip_and_the_failure() {
    for limit in [Limit::Skip(2), Limit::Fail(2)] {
        let count = script(bytes("\n")).limit(limit).then(Count(3)).then(bytes("\n"));
        let log = [data("ab"), Overlong, data("cde"), T, T, data("f"), T];
        verify(&count, b"abcde\nf\n", End::Eof, &log);
        let other = script(bytes("\n")).limit(limit).then(bytes("d"));
        verify(
            &other,
            b"abcd\n",
            End::Eof,
            &[data("ab"), Overlong, data("c"), T, data("\n"), Truncated],
        );
        let never = script(bytes("\n")).limit(limit).then(Never);
        verify(&never, b"abcd\n", End::Eof, &[data("ab"), Overlong, data("cd\n")]);
    }
}

#[test]
fn a_switch_while_skipping_ends_the_skip() {
    each(&script(bytes("\r\n")).limit(Limit::Skip(2)), |decoder| {
        decoder.feed(b"abcd\r");
        expect(decoder, Event::Chunk("ab"));
        expect(decoder, Event::Overlong);
        expect(decoder, MORE);
        assert!(decoder.control().is_mid_frame());
        decoder.control().set_terminator(Terminator::from(b"\r"));
        expect(decoder, Event::Terminator);
        expect(decoder, MORE);
    });
    each(&script(bytes("\n")).limit(Limit::Fail(2)), |decoder| {
        decoder.feed(b"abcd\n");
        expect(decoder, Event::Chunk("ab"));
        expect(decoder, Event::Overlong);
        assert_eq!(decoder.call(false), Err(FrameError::Overlong(2)));
        assert_eq!(decoder.call(true), Err(FrameError::Overlong(2)));
        decoder.control().resume();
        expect(decoder, Event::Chunk("cd"));
        expect(decoder, Event::Terminator);
    });
}

#[test]
fn to_set_the_terminator_in_force_changes_nothing() {
    // This is what a handler does that sets its terminator at every event. The rest of an overlong line is no command.
    let input = b"aaaaaaaaaa FLUSHALL\nPING\n";
    for spec in [bytes("\n"), any(["\n", "\r\n"]), any(["\n", ";;;"])] {
        let again = (0..5).fold(script(spec.clone()).limit(Limit::Skip(4)), |script, _| {
            script.then(spec.clone())
        });
        verify(&again, input, End::Eof, &[data("aaaa"), Overlong, data("PING"), T]);
        let again = script(spec.clone()).limit(Limit::Fail(4)).then(spec.clone());
        verify(&again, input, End::Eof, &[data("aaaa"), Overlong, Failed(4)]);
    }
    let long = "0123456789abcdefghijklmn";
    let again = script(bytes(long)).limit(Limit::Skip(1)).then(bytes(long)).then(bytes(long));
    let input = format!("xxyy{long}z{long}");
    verify(&again, input.as_bytes(), End::Eof, &[data("x"), Overlong, data("z"), T]);
    // What remains of a count stays the same.
    each(&script(Count(3)), |decoder| {
        decoder.feed(b"a");
        expect(decoder, Event::Chunk("a"));
        decoder.control().set_terminator(Terminator::Count(2));
        decoder.feed(b"bcd");
        expect(decoder, Event::Chunk("bc"));
        expect(decoder, Event::Terminator);
    });
}

#[test]
fn a_count_is_another_if_its_number_or_its_end_is() {
    let end = |count, end: &str| CountThen(count, end.into());
    let counts = [Count(2), Count(3), end(2, "\n"), end(2, ";"), end(3, "\n")];
    for first in &counts {
        for second in &counts {
            each(&script(first.clone()), |decoder| {
                expect_eof(decoder, Event::Truncated);
                decoder.control().set_terminator(second.terminator());
                assert_eq!(decoder.control().terminator(), second.terminator());
                // If the terminator in force is set again, the decoder has already reported the end of the input.
                let again = decoder.control().is_mid_frame();
                assert_eq!(again, first != second, "{first:?} to {second:?}");
                expect_eof(decoder, again.then_some(Event::Truncated));
            });
        }
    }
}

#[test]
fn a_wrong_end_is_skipped_where_a_delimiter_is_set_and_the_limit_says_so() {
    let wrong = CountThen(2, b"\n".to_vec());
    let limited = script(wrong.clone()).limit(Limit::Skip(9));
    verify(&limited, b"abXY", End::Eof, &[data("ab"), Log::WrongEnd, Log::FailedWrongEnd]);
    let armed = script(bytes(";")).limit(Limit::Skip(9)).then(wrong);
    let log = [data("x"), T, data("ab"), Log::WrongEnd, data("z"), T];
    verify(&armed, b"x;abXY;z;", End::Eof, &log);
}

#[test]
fn resume_begins_a_frame_with_the_rest_of_one_that_ended_early() {
    each(&script(bytes("\r\n")).limit(Limit::Skip(2)), |decoder| {
        decoder.feed(b"abcde\r\nf\r\n");
        expect(decoder, Event::Chunk("ab"));
        // Before `Overlong` is returned, `resume` does nothing.
        decoder.control().resume();
        expect(decoder, Event::Overlong);
        decoder.control().resume();
        expect(decoder, Event::Chunk("cd"));
        expect(decoder, Event::Overlong);
        expect(decoder, Event::Chunk("f"));
        expect(decoder, Event::Terminator);
        decoder.control().resume();
        expect(decoder, MORE);
    });
}

#[test]
fn overlong_not_yet_said_is_decided_anew_after_a_switch() {
    each(&script(bytes("\n")).limit(Limit::Skip(2)), |decoder| {
        decoder.feed(b"abc;\n");
        expect(decoder, Event::Chunk("ab"));
        decoder.control().set_terminator(Terminator::from(b"c"));
        expect(decoder, Event::Terminator);
        expect(decoder, Event::Chunk(";\n"));
    });
    each(&script(bytes("\n")).limit(Limit::Skip(2)), |decoder| {
        decoder.feed(b"abc;\n");
        expect(decoder, Event::Chunk("ab"));
        decoder.control().set_terminator(Terminator::from(b";"));
        expect(decoder, Event::Overlong);
        expect(decoder, Event::Chunk("\n"));
    });
}

#[test]
fn a_limit_set_below_the_length_of_the_frame_makes_it_overlong() {
    each(&script(bytes("\r\n")), |decoder| {
        decoder.feed(b"abc\r");
        expect(decoder, Event::Chunk("abc"));
        expect(decoder, MORE);
        decoder.control().set_limit(Limit::Skip(2));
        decoder.feed(b"\nd\r\n");
        expect(decoder, Event::Overlong);
        expect(decoder, Event::Chunk("d"));
        expect(decoder, Event::Terminator);
    });
}

#[test]
fn a_limit_set_below_the_length_counts_though_the_terminator_is_known_and_next() {
    // The newline is in the bitmap of the search before the longer delimiter withholds it.
    let long = "\n23456789012345678901234";
    each(&script(bytes("\n")), |decoder| {
        decoder.feed(b"\nabc\n");
        expect(decoder, Event::Terminator);
        decoder.control().set_terminator(Terminator::try_from(long).unwrap());
        expect(decoder, Event::Chunk("abc"));
        decoder.control().set_limit(Limit::Skip(2));
        decoder.control().set_terminator(Terminator::from(b"\n"));
        expect(decoder, Event::Overlong);
        expect(decoder, MORE);
    });
}

#[test]
fn a_failure_names_the_limit_that_was_passed_whatever_is_set_later() {
    each(&script(bytes("\n")).limit(Limit::Fail(2)), |decoder| {
        decoder.feed(b"abcd\n");
        expect(decoder, Event::Chunk("ab"));
        expect(decoder, Event::Overlong);
        decoder.control().set_limit(Limit::Unlimited);
        assert_eq!(decoder.call(false), Err(FrameError::Overlong(2)));
        decoder.control().set_limit(Limit::Skip(9));
        assert_eq!(decoder.call(true), Err(FrameError::Overlong(2)));
    });
}

#[test]
fn counts_and_none_know_no_limit() {
    for limit in [Limit::Skip(1), Limit::Fail(0)] {
        let count = script(Count(3)).limit(limit).then(Count(2)).then(Never);
        verify(&count, b"abcdefgh", End::Eof, &[data("abc"), T, data("de"), T, data("fgh")]);
    }
}

// The end of the input.

#[test]
fn the_end_of_the_input_at_the_end_of_a_frame_is_no_event() {
    verify(&script(bytes("\r\n")), b"", End::Eof, &[]);
    verify(&script(bytes("\r\n")), b"a\r\n", End::Eof, &[data("a"), T]);
    verify(&script(any(["a", "b"])), b"ab", End::Eof, &[T, Log::Terminator(1)]);
}

#[test]
fn the_end_of_the_input_in_mid_frame_delivers_what_was_withheld_and_says_so() {
    verify(&script(bytes("\r\n")), b"ab\r", End::Eof, &[data("ab\r"), Truncated]);
    verify(&script(bytes("\r\n")), b"\r", End::Eof, &[data("\r"), Truncated]);
    verify(&script(bytes("\r\n")), b"ab", End::Eof, &[data("ab"), Truncated]);
    let set = script(any(["abcx", "bcd"]));
    verify(&set, b"zabc", End::Eof, &[data("zabc"), Truncated]);
    each(&script(bytes("\r\n")), |decoder| {
        decoder.feed(b"ab\r");
        expect(decoder, Event::Chunk("ab"));
        expect(decoder, MORE);
        assert_eq!(decoder.buffered(), b"\r");
        expect_eof(decoder, Event::Chunk("\r"));
        expect_eof(decoder, Event::Truncated);
        expect_eof(decoder, MORE);
        expect_eof(decoder, MORE);
        assert!(!decoder.control().is_mid_frame());
        assert_eq!(decoder.buffered(), b"");
    });
}

#[test]
fn the_end_of_the_input_comes_with_the_last_bytes() {
    // The last bytes may be the beginning of the terminator, and so would be withheld, or not.
    for last in ["\r", "b", "b\r"] {
        each(&script(bytes("\r\n")), |decoder| {
            decoder.feed(b"a");
            expect(decoder, Event::Chunk("a"));
            expect(decoder, MORE);
            decoder.feed(last.as_bytes());
            expect_eof(decoder, Event::Chunk(last));
            expect_eof(decoder, Event::Truncated);
            expect_eof(decoder, MORE);
        });
    }
}

#[test]
fn a_decoder_may_go_on_after_the_end_of_the_input() {
    each(&script(bytes("\r\n")), |decoder| {
        decoder.feed(b"ab\r");
        expect_eof(decoder, Event::Chunk("ab\r"));
        expect_eof(decoder, Event::Truncated);
        expect_eof(decoder, MORE);
        decoder.feed(b"\nc\r\n");
        expect(decoder, Event::Chunk("\nc"));
        expect(decoder, Event::Terminator);
        expect(decoder, MORE);
        expect_eof(decoder, MORE);
        decoder.feed(b"d\r\n");
        expect(decoder, Event::Chunk("d"));
        expect(decoder, Event::Terminator);
    });
    each(&script(Count(3)), |decoder| {
        decoder.feed(b"a");
        expect_eof(decoder, Event::Chunk("a"));
        expect_eof(decoder, Event::Truncated);
        expect_eof(decoder, MORE);
        decoder.feed(b"bc");
        expect(decoder, Event::Chunk("bc"));
        expect(decoder, Event::Terminator);
    });
}

#[test]
fn what_the_end_of_the_input_delivered_is_no_beginning_of_a_delimiter() {
    let long = "0123456789abcdefghijklmn";
    for spec in [bytes("\r\n."), bytes(long), any([long, "~", "!!"]), any(["\n", "\r\n"])] {
        each(&script(spec.clone()), |decoder| {
            let delimiter = spec.delimiters().last().unwrap().clone();
            let (head, tail) = delimiter.split_at(1);
            decoder.feed(head);
            while decoder.call(true).unwrap().is_some() {}
            expect(decoder, MORE);
            assert!(!decoder.control().is_mid_frame());
            decoder.feed(&tail[..tail.len() - 1]);
            decoder.feed(b"?");
            while decoder.call(false).unwrap().is_some() {}
            assert!(decoder.control().is_mid_frame());
            decoder.feed(&delimiter);
            expect(decoder, Event::Terminator);
        });
    }
}

// Discards, and buffers changed behind the decoder's back.

#[test]
fn a_discard_drops_what_is_withheld_and_keeps_the_rest() {
    each(&script(bytes("\r\n")), |decoder| {
        decoder.feed(b"ab\r");
        expect(decoder, Event::Chunk("ab"));
        expect(decoder, MORE);
        decoder.discard();
        assert!(decoder.control().is_mid_frame());
        decoder.feed(b"\nc\r\n");
        expect(decoder, Event::Chunk("\nc"));
        expect(decoder, Event::Terminator);
    });
    each(&script(Count(5)), |decoder| {
        decoder.feed(b"ab");
        expect(decoder, Event::Chunk("ab"));
        decoder.discard();
        decoder.feed(b"cdeX");
        expect(decoder, Event::Chunk("cde"));
        expect(decoder, Event::Terminator);
    });
    // A discard at the end of a frame, with more input behind it that has been searched already.
    each(&script(bytes("\n")), |decoder| {
        decoder.feed(b"a\nb\nc\nd\n");
        expect(decoder, Event::Chunk("a"));
        expect(decoder, Event::Terminator);
        decoder.discard();
        expect(decoder, MORE);
        decoder.feed(b"xyzxyz\n");
        expect(decoder, Event::Chunk("xyzxyz"));
        expect(decoder, Event::Terminator);
    });
    // The beginning of a delimiter that was withheld is not remembered, for each of the ways to search.
    for delimiter in ["\r\n.\r\n", "0123456789abcdefghijklmn"] {
        for spec in [bytes(delimiter), any([delimiter, "~", "!!"])] {
            each(&script(spec), |decoder| {
                decoder.feed(&delimiter.as_bytes()[..4]);
                expect(decoder, MORE);
                decoder.discard();
                assert!(!decoder.control().is_mid_frame());
                decoder.feed(&delimiter.as_bytes()[4..]);
                let call = decoder.call(false).unwrap().unwrap();
                assert!(matches!(call, Event::Chunk(_)), "{call:?}");
            });
        }
    }
}

#[test]
fn a_buffer_shortened_behind_the_decoders_back_never_panics() {
    let specs = [
        bytes("\n"),
        bytes("\r\n"),
        bytes("\r\n.\r\n"),
        bytes("0123456789abcdefghijklmn"),
        any(["\n", "\r\n"]),
        any(["\r\n;", "0123", "4567"]),
        Count(9),
        Never,
    ];
    let input = b"ab\r\n\r\n.\r\n;0123456789abcdefghijklmn\n;;\r\n01".repeat(2);
    for spec in specs {
        for limit in [Limit::Unlimited, Limit::Skip(1), Limit::Skip(7)] {
            for calls in [0, 1, 2, 5] {
                for keep in 0..input.len() {
                    let mut lent = Lent::new(spec.terminator(), limit, How::Events);
                    lent.feed(&input);
                    for _ in 0..calls {
                        lent.framer.next(&lent.buffer).unwrap();
                    }
                    lent.buffer.truncate(keep);
                    while lent.framer.next(&lent.buffer).unwrap().is_some() {}
                    lent.buffer.clear();
                    while lent.framer.next_eof(&lent.buffer).unwrap().is_some() {}
                }
            }
        }
    }
}

#[test]
fn a_buffer_shortened_to_less_than_was_done_with_is_looked_at_from_its_beginning() {
    for delimiter in ["\n", "\r\n.\r\n", "123456789abc", "0123456789abcdefghijklmn"].map(bytes) {
        let mut framer = Framer::new(b"\n");
        assert_eq!(framer.next(b""), Ok(None));
        // Under `None` the bytes are not searched.
        framer.set_terminator(None);
        assert_eq!(framer.next(b"0123456789"), Ok(Some(Event::Chunk(&b"0123456789"[..]))));
        framer.set_terminator(delimiter.terminator());
        assert_eq!(framer.next(b"ab"), Ok(Some(Event::Chunk(&b"ab"[..]))));
        assert_eq!(framer.take_consumed(), 2);
    }
}

#[test]
fn a_buffer_shortened_to_what_is_done_with_is_not_begun_again() {
    let mut framer = Framer::new(b"\r\n");
    assert_eq!(framer.next(b"abc\r"), Ok(Some(Event::Chunk(&b"abc"[..]))));
    assert_eq!(framer.next(b"abc"), Ok(None));
    assert_eq!(framer.take_consumed(), 3);
}

#[test]
fn what_was_known_of_bytes_that_were_cut_off_is_not_believed_of_those_that_take_their_place() {
    let delimiters = ["\n", "\r\n", "\r\n.\r\n", "123456789abc", "0123456789abcdefghijklmn"];
    let specs = delimiters.map(bytes).into_iter();
    for spec in specs.chain([any(["\n", "\r\n"]), any(["\r\n;", "456"])]) {
        let delimiter = &spec.delimiters()[0];
        let short = [b"abc", &delimiter[..]].concat();
        let long = [&short[..], &[b'-'; 40]].concat();
        // While the buffer is shorter than it was, the framer is not called, or called with a delimiter, or with a
        // count.
        for (seen, other) in [(None, &short), (Some(spec.clone()), &long), (Some(Count(2)), &long)]
        {
            let mut framer = Framer::new(spec.terminator());
            framer.set_whole_frames(true);
            let mut buffer = Vec::with_capacity(200);
            buffer.extend_from_slice(delimiter);
            buffer.extend_from_slice(&[b'o'; 40]);
            assert_eq!(framer.next(&buffer), Ok(Some(Event::Terminator)));
            assert_eq!(framer.next(&buffer), Ok(None));
            if let Some(terminator) = &seen {
                framer.set_terminator(terminator.terminator());
                buffer.truncate(delimiter.len() + 1);
                assert_eq!(framer.next(&buffer), Ok(None));
                framer.set_terminator(spec.terminator());
            }
            buffer.truncate(delimiter.len());
            buffer.extend_from_slice(other);
            let chunk = framer.next(&buffer);
            assert_eq!(chunk, Ok(Some(Event::Chunk(&b"abc"[..]))), "{spec:?} {seen:?}");
            assert_eq!(framer.next(&buffer), Ok(Some(Event::Terminator)), "{spec:?} {seen:?}");
        }
    }
}

#[cfg(feature = "tokio")]
#[test]
fn a_buffer_cleared_behind_the_codecs_back_is_no_reason_to_find_what_is_gone() {
    use support::drive::Owned;
    for delimiter in ["\n", "\r\n", "\r\n.\r\n", "0123456789abcdefghijklmn"] {
        let mut owned = Owned::new(bytes(delimiter).terminator(), Limit::Unlimited);
        owned.feed(format!("a{delimiter}b{delimiter}c{delimiter}d").as_bytes());
        expect(&mut owned, Event::Chunk("a"));
        expect(&mut owned, Event::Terminator);
        owned.buffer.clear();
        expect(&mut owned, MORE);
        owned.feed(format!("vwxyz{delimiter}").as_bytes());
        expect(&mut owned, Event::Chunk("vwxyz"));
        expect(&mut owned, Event::Terminator);
    }
}

// Asking.

#[test]
fn the_limit_is_what_was_set_last() {
    each(&script(bytes("\n")), |decoder| {
        for limit in [Limit::Skip(2), Limit::Fail(2), Limit::Fail(0), Limit::Unlimited] {
            decoder.control().set_limit(limit);
            assert_eq!(decoder.control().limit(), limit);
        }
    });
}

#[test]
fn whether_frames_are_whole_is_what_was_set_last() {
    each(&script(bytes("\n")), |decoder| {
        assert!(!decoder.control().whole_frames());
        decoder.control().set_whole_frames(true);
        assert!(decoder.control().whole_frames());
        decoder.control().set_whole_frames(false);
        assert!(!decoder.control().whole_frames());
    });
}

#[test]
fn mid_frame_is_what_the_end_of_the_input_would_cut() {
    each(&script(bytes("\r\n")), |decoder| {
        assert!(!decoder.control().is_mid_frame());
        decoder.feed(b"\r");
        expect(decoder, MORE);
        assert!(decoder.control().is_mid_frame(), "withheld");
        decoder.feed(b"\na");
        expect(decoder, Event::Terminator);
        expect(decoder, Event::Chunk("a"));
        assert!(decoder.control().is_mid_frame(), "delivered");
        decoder.feed(b"\r\n");
        expect(decoder, Event::Terminator);
        assert!(!decoder.control().is_mid_frame());
        decoder.control().set_terminator(Terminator::Count(1));
        assert!(decoder.control().is_mid_frame(), "a count not spent");
        decoder.control().set_terminator(Terminator::Count(0));
        assert!(!decoder.control().is_mid_frame(), "a count of nothing");
        decoder.control().set_terminator(Terminator::count_then(0, b"\n"));
        assert!(decoder.control().is_mid_frame(), "an end to come");
        decoder.control().set_terminator(Terminator::None);
        assert!(!decoder.control().is_mid_frame());
        decoder.control().set_terminator(Terminator::from(b"\n"));
        decoder.feed(b"b");
        expect_eof(decoder, Event::Chunk("b"));
        assert!(decoder.control().is_mid_frame(), "cut, which is still to be said");
        expect_eof(decoder, Event::Truncated);
        assert!(!decoder.control().is_mid_frame());
    });
}

#[test]
fn bytes_withheld_once_and_gone_since_are_not_mid_frame() {
    // While a count is in force.
    each(&script(bytes("\r\n")), |decoder| {
        decoder.feed(b"\r");
        expect(decoder, MORE);
        decoder.control().set_terminator(Terminator::Count(1));
        expect(decoder, Event::Chunk("\r"));
        expect(decoder, Event::Terminator);
        decoder.control().set_terminator(Terminator::from(b"\n"));
        assert!(!decoder.control().is_mid_frame());
    });
    // While there is no terminator.
    each(&script(bytes("\r\n")), |decoder| {
        decoder.feed(b"\r");
        expect(decoder, MORE);
        decoder.control().set_terminator(Terminator::None);
        expect(decoder, Event::Chunk("\r"));
        decoder.control().set_terminator(Terminator::from(b"\n"));
        assert!(!decoder.control().is_mid_frame());
    });
    // While the rest of an overlong frame is skipped.
    each(&script(bytes("\r\n")).limit(Limit::Skip(0)), |decoder| {
        decoder.feed(b"\r");
        expect(decoder, MORE);
        decoder.feed(b"x");
        expect(decoder, Event::Overlong);
        expect(decoder, MORE);
        assert!(decoder.control().is_mid_frame());
        decoder.control().set_terminator(Terminator::from(b"\n"));
        assert!(!decoder.control().is_mid_frame());
    });
}

#[test]
fn bytes_withheld_by_a_skip_are_mid_frame_after_a_switch() {
    each(&script(bytes("\r\n")).limit(Limit::Skip(0)), |decoder| {
        decoder.feed(b"x\r");
        expect(decoder, Event::Overlong);
        expect(decoder, MORE);
        assert_eq!(decoder.buffered(), b"\r");
        decoder.control().set_terminator(Terminator::from(b"\n"));
        assert!(decoder.control().is_mid_frame());
        decoder.control().set_limit(Limit::Skip(1));
        expect_eof(decoder, Event::Chunk("\r"));
        expect_eof(decoder, Event::Truncated);
    });
}

#[cfg(feature = "tokio")]
#[test]
fn room_is_never_reserved_from_a_count() {
    use support::drive::Owned;
    for count in [u64::MAX, 1 << 40, 1 << 20] {
        let mut owned = Owned::new(Terminator::Count(count), Limit::Unlimited);
        for _ in 0..4 {
            owned.feed(b"abc");
            expect(&mut owned, Event::Chunk("abc"));
            expect(&mut owned, MORE);
            assert!(owned.buffer.capacity() <= 64 * 1024, "{}", owned.buffer.capacity());
        }
    }
    let delimited = bytes("\r\n").terminator();
    let mut owned = Owned::new(delimited, Limit::Skip(1 << 40));
    owned.feed(b"abc");
    expect(&mut owned, Event::Chunk("abc"));
    expect(&mut owned, MORE);
    assert!(owned.buffer.capacity() <= 64 * 1024, "{}", owned.buffer.capacity());
}

// Cases that hostile testing has found.

#[test]
fn a_cut_counted_frame_is_truncated_once_though_it_is_asked_again() {
    each(&script(CountThen(0, b"\r\n".to_vec())), |decoder| {
        expect_eof(decoder, Event::Truncated);
        expect(decoder, MORE);
        assert!(!decoder.control().is_mid_frame(), "{}", decoder.name());
        expect_eof(decoder, MORE);
    });
}

#[test]
fn a_counted_frame_that_begins_anew_is_in_mid_frame_where_it_is_handed_over_whole_too() {
    for spec in [Count(5), CountThen(5, b"\n".to_vec()), CountThen(1, b"\n".to_vec())] {
        each(&script(spec), |decoder| {
            decoder.control().set_whole_frames(true);
            expect_eof(decoder, Event::Truncated);
            assert!(!decoder.control().is_mid_frame());
            decoder.feed(b"a");
            expect(decoder, MORE);
            assert!(decoder.control().is_mid_frame(), "{}", decoder.name());
        });
    }
}

#[test]
fn the_frame_behind_one_that_ended_early_is_whole_if_that_is_set_there() {
    let early = [
        (script(bytes("\n")).limit(Limit::Skip(2)), "abXY", Event::Overlong),
        (script(bytes("\n")).limit(Limit::Fail(2)), "abXY", Event::Overlong),
        (script(CountThen(2, b"\n".to_vec())), "abXY", Event::WrongEnd),
    ];
    for (script, input, end) in early {
        each(&script, |decoder| {
            decoder.feed(input.as_bytes());
            expect(decoder, Event::Chunk("ab"));
            expect(decoder, end);
            decoder.control().set_terminator(Terminator::from(b";"));
            decoder.control().set_limit(Limit::Unlimited);
            decoder.control().set_whole_frames(true);
            expect(decoder, MORE);
            decoder.feed(b"Z;");
            expect(decoder, Event::Chunk("XYZ"));
            expect(decoder, Event::Terminator);
        });
    }
}

#[test]
fn the_frame_behind_a_cut_count_is_whole_if_that_was_set_before() {
    each(&script(Count(5)), |decoder| {
        decoder.feed(b"a");
        expect(decoder, Event::Chunk("a"));
        decoder.control().set_whole_frames(true);
        decoder.feed(b"b");
        expect_eof(decoder, Event::Chunk("b"));
        expect_eof(decoder, Event::Truncated);
        decoder.feed(b"c");
        expect(decoder, MORE);
        decoder.feed(b"de");
        expect(decoder, Event::Chunk("cde"));
        expect(decoder, Event::Terminator);
    });
}

#[test]
fn whether_the_next_frame_is_whole_does_not_depend_on_how_far_the_reads_went_before_a_switch() {
    // The long delimiter withholds these bytes. Then frames end within bytes that have been searched.
    for cut in [2, 5] {
        each(&script(bytes("long")), |decoder| {
            decoder.control().set_whole_frames(true);
            let (head, tail) = b"a;bcd".split_at(cut);
            decoder.feed(head);
            expect(decoder, MORE);
            decoder.control().set_terminator(Terminator::from(b";"));
            expect(decoder, Event::Chunk("a"));
            expect(decoder, Event::Terminator);
            decoder.control().set_whole_frames(false);
            decoder.feed(tail);
            expect(decoder, Event::Chunk("bcd"));
        });
    }
}

#[test]
fn a_frame_that_goes_on_after_all_is_not_whole_though_the_next_will_be() {
    each(&script(bytes("\n")).limit(Limit::Skip(3)), |decoder| {
        decoder.feed(b"a");
        expect(decoder, Event::Chunk("a"));
        decoder.control().set_whole_frames(true);
        decoder.feed(b"bcd");
        expect(decoder, Event::Chunk("bc"));
        // The frame is overlong, but the limit is lifted before that is returned.
        decoder.control().set_limit(Limit::Unlimited);
        expect(decoder, Event::Chunk("d"));
        decoder.feed(b"\nef");
        expect(decoder, Event::Terminator);
        expect(decoder, MORE);
    });
}

#[cfg(feature = "tokio")]
#[test]
fn a_beginning_seen_in_another_buffer_is_no_reason_to_withhold() {
    use bytes::BytesMut;
    use tokio_util::codec::Decoder;
    let set = Terminator::any_of(["caac", "ba"]).unwrap();
    let long = Terminator::try_from("b".repeat(30)).unwrap();
    for terminator in [set, long] {
        let mut codec = asynchat::TerminatorCodec::new(terminator);
        let mut before = BytesMut::from("b");
        assert_eq!(codec.decode(&mut before).unwrap(), None);
        let mut other = BytesMut::from("a");
        assert_eq!(codec.decode(&mut other).unwrap(), Some(Event::Chunk("a".into())));
    }
}

#[cfg(feature = "tokio")]
#[test]
fn a_codec_whose_buffer_is_empty_again_is_not_in_mid_frame() {
    use bytes::BytesMut;
    use tokio_util::codec::Decoder;
    let mut codec = asynchat::TerminatorCodec::new(b"\r\n");
    let mut buffer = BytesMut::from("\r");
    assert_eq!(codec.decode(&mut buffer).unwrap(), None);
    assert!(codec.is_mid_frame());
    buffer.clear();
    assert_eq!(codec.decode_eof(&mut buffer).unwrap(), None);
    assert!(!codec.is_mid_frame());
}

#[test]
fn a_frame_of_which_all_was_dropped_has_not_begun_under_another_terminator() {
    let mut framer = Framer::new(b"\n");
    framer.set_whole_frames(true);
    framer.set_terminator(3);
    assert_eq!(framer.next(b"ab"), Ok(None));
    framer.set_terminator(b"\n");
    assert!(framer.is_mid_frame());
    assert_eq!(framer.next(b""), Ok(None));
    assert!(!framer.is_mid_frame());
}

#[test]
fn to_set_none_where_none_is_in_force_does_not_make_a_wrong_end_good() {
    let again = script(CountThen(2, b"\n".to_vec())).then(Never);
    verify(&again, b"abXY", End::Eof, &[data("ab"), Log::WrongEnd, Log::FailedWrongEnd]);
}

#[test]
fn what_a_counted_frame_leaves_of_a_beginning_is_looked_at_again() {
    for delimiter in ["aabb", "aabbbbbbbbbbbbbbbbbbbbbbbbbbb"] {
        each(&script(bytes(delimiter)), |decoder| {
            decoder.feed(b"aab");
            expect(decoder, MORE);
            decoder.control().set_terminator(Terminator::count_then(1, b"a"));
            expect(decoder, Event::Chunk("a"));
            expect(decoder, Event::Terminator);
            expect(decoder, Event::Chunk("b"));
        });
    }
}

#[test]
fn a_lower_limit_is_heeded_at_once_where_nothing_has_come_since() {
    for whole in [false, true] {
        each(&script(bytes("\n")), |decoder| {
            decoder.control().set_whole_frames(whole);
            decoder.feed(b"abcd");
            if !whole {
                expect(decoder, Event::Chunk("abcd"));
            }
            expect(decoder, MORE);
            decoder.control().set_limit(Limit::Skip(2));
            if whole {
                expect(decoder, Event::Chunk("ab"));
            }
            expect(decoder, Event::Overlong);
        });
    }
}

#[test]
fn an_input_that_was_shorter_for_a_count_is_another_one_for_a_delimiter() {
    for delimiter in [&b"\n"[..], b"\r\n", b"abcdefghijklmnopqrstuvwxyz"] {
        let mut framer = Framer::new(Terminator::try_from(delimiter).unwrap());
        framer.set_whole_frames(true);
        let mut buffer = vec![b'x'; 100];
        assert_eq!(framer.step(&buffer), Ok(None));
        // The caller drops half of the buffer. A call with a count sees that, and then as many bytes come again.
        framer.set_terminator(10);
        assert_eq!(framer.step(&buffer[..50]).unwrap().unwrap().payload, &[b'x'; 10]);
        buffer[60..][..delimiter.len()].copy_from_slice(delimiter);
        framer.set_terminator(Terminator::try_from(delimiter).unwrap());
        let step = framer.step(&buffer).unwrap();
        assert_eq!(step.map(|step| step.payload), Some(&[b'x'; 50][..]), "{delimiter:?}");
    }
}

#[test]
fn a_hit_that_was_seen_ahead_is_not_believed_of_bytes_that_were_put_in_its_place() {
    let specs = ["\n", "\r\n", "\r\n.\r\n", "123456789abc"].map(bytes).into_iter();
    let terminators = specs.chain([any(["\r\n", "\n"])]).map(|spec| spec.terminator());
    for terminator in terminators.chain([Terminator::Newline]) {
        let delimiter = match &terminator {
            Terminator::Bytes(delimiter) => delimiter.as_bytes().to_vec(),
            _ => b"\n".to_vec(),
        };
        let mut framer = Framer::new(terminator.clone());
        framer.set_whole_frames(true);
        let mut buffer = [b"one", &delimiter[..], b"two", &delimiter[..], b"three"].concat();
        assert_eq!(framer.next(&buffer), Ok(Some(Event::Chunk(&b"one"[..]))));
        assert_eq!(framer.next(&buffer), Ok(Some(Event::Terminator)));
        buffer[3 + delimiter.len()..].fill(b'-');
        assert_eq!(framer.next(&buffer), Ok(None), "{terminator:?}");
        let rest = buffer[3 + delimiter.len()..].to_vec();
        buffer.extend_from_slice(&delimiter);
        assert_eq!(framer.next(&buffer), Ok(Some(Event::Chunk(&rest[..]))), "{terminator:?}");
    }
}

#[test]
fn what_was_withheld_whole_is_delivered_when_frames_are_whole_no_more() {
    let input = b"x".to_vec();
    let mut framer = Framer::new(b"\r\n");
    framer.set_whole_frames(true);
    assert_eq!(framer.next(&input), Ok(None));
    framer.set_whole_frames(false);
    framer.set_terminator(Terminator::None);
    framer.set_terminator(b"\r\n");
    assert_eq!(framer.next(&input), Ok(Some(Event::Chunk(&b"x"[..]))));
}

#[test]
fn nothing_is_consumed_of_an_input_that_was_shortened_to_nothing() {
    let buffer = b"x".to_vec();
    let mut framer = Framer::new(b"\n");
    assert_eq!(framer.next(&buffer[..0]), Ok(None));
    framer.set_terminator(Terminator::None);
    assert_eq!(framer.next(&buffer), Ok(Some(Event::Chunk(&b"x"[..]))));
    framer.set_terminator(b"\n");
    assert_eq!(framer.next(&buffer[..0]), Ok(None));
    assert_eq!(framer.take_consumed(), 0);
}

#[test]
fn a_withheld_byte_that_a_count_has_taken_is_withheld_no_more() {
    for delimiter in [&b"abcd"[..], b"abcdefghij", b"abcdefghijklmnopqrstuvwxyz"] {
        let delimiter = Terminator::try_from(delimiter).unwrap();
        let mut framer = Framer::new(delimiter.clone());
        let input = b"xabc";
        assert_eq!(framer.step(input).unwrap().unwrap().payload, b"x");
        // As `BytesMut::advance` does, which moves nothing.
        let input = &input[framer.take_consumed()..];
        framer.set_terminator(1);
        assert_eq!(framer.step(input).unwrap().unwrap().payload, b"a");
        framer.set_terminator(delimiter.clone());
        let step = framer.step(input).unwrap();
        assert_eq!(step.map(|step| step.payload), Some(&b"bc"[..]), "{delimiter:?}");
    }
}
