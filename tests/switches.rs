//! What a framer does where its terminator changes, and where events and steps are mixed. Each case is tested by
//! itself, and with delimiters of every kind.
#![allow(clippy::unwrap_used)]

use asynchat::{CountThen, End, Ending, Event, FrameError, Framer, Limit, Step, Terminator};

fn chunk(text: &str) -> Result<Option<Event<&[u8]>>, FrameError> {
    Ok(Some(Event::Chunk(text.as_bytes())))
}

const END: Result<Option<Event<&[u8]>>, FrameError> = Ok(Some(Event::Terminator));

#[test]
fn the_end_of_a_chunk_can_be_had_as_a_step() {
    let mut framer = Framer::new(b"\n").with_limit(Limit::Skip(3));
    let input = b"abc\nabcdef\nx";
    for end in [End::Terminator, End::Overlong] {
        assert_eq!(framer.next(input), chunk("abc"));
        assert_eq!(framer.step(input), Ok(Some(Step { payload: &[][..], end: Some(end) })));
    }
    assert_eq!(framer.next_eof(input), chunk("x"));
    let cut = Step { payload: &[][..], end: Some(End::Truncated) };
    assert_eq!(framer.step_eof(input), Ok(Some(cut)));
    assert_eq!(framer.step_eof(input), Ok(None));
    assert_eq!(framer.take_consumed(), input.len());
}

#[test]
fn none_in_the_middle_of_a_frame_ends_it_and_a_delimiter_begins_another() {
    let mut framer = Framer::new(b"\n").with_limit(Limit::Skip(4));
    assert_eq!(framer.next(b"abc"), chunk("abc"));
    assert!(framer.is_mid_frame());
    framer.set_terminator(None);
    assert_eq!(framer.terminator(), Terminator::None);
    assert!(!framer.is_mid_frame());
    assert_eq!(framer.next(b"abcdefgh"), chunk("defgh"));
    // Neither the bytes under `None` nor those before them are a part of this frame, so it may have four bytes.
    framer.set_terminator(b"\n");
    assert_eq!(framer.next(b"abcdefghijkl\n"), chunk("ijkl"));
    assert_eq!(framer.next(b"abcdefghijkl\n"), END);
}

#[test]
fn a_count_that_is_set_again_goes_on_only_if_it_is_what_remains() {
    let mut framer = Framer::new(5);
    assert_eq!(framer.next(b"ab"), chunk("ab"));
    framer.set_terminator(3);
    assert_eq!(framer.next(b"abcde"), chunk("cde"));
    assert_eq!(framer.next(b"abcde"), END);

    // The same count without its end, or with another end, is another terminator.
    let mut framer = Framer::new(Terminator::count_then(2, b"\r\n"));
    framer.set_terminator(Terminator::count_then(2, b"\r\n"));
    assert_eq!(framer.terminator(), Terminator::count_then(2, b"\r\n"));
    framer.set_terminator(Terminator::count_then(2, b"!!"));
    assert_eq!(framer.next(b"ab!!"), chunk("ab"));
    assert_eq!(framer.next(b"ab!!"), END);
    let mut framer = Framer::new(Terminator::count_then(2, b"\r\n"));
    framer.set_terminator(2);
    assert_eq!(framer.next(b"ab!!"), chunk("ab"));
    assert_eq!(framer.next(b"ab!!"), END);
    assert_eq!(framer.next(b"ab!!"), chunk("!!"));
    let mut framer = Framer::new(2);
    framer.set_terminator(Terminator::count_then(2, b"!!"));
    assert_eq!(framer.step(b"ab!!").unwrap().unwrap().end, Some(End::Terminator));
    assert_eq!(framer.take_consumed(), 4);
}

#[test]
fn a_count_in_the_place_of_bytes_that_were_withheld_takes_them() {
    let mut framer = Framer::new(b"\r\n");
    assert_eq!(framer.next(b"ab\r"), chunk("ab"));
    assert_eq!(framer.next(b"ab\r"), Ok(None));
    framer.set_terminator(2);
    assert_eq!(framer.next(b"ab\r"), chunk("\r"));
    assert_eq!(framer.next(b"ab\rc\r\n"), chunk("c"));
    assert_eq!(framer.next(b"ab\rc\r\n"), END);
    // The delimiter is behind the bytes that were looked at for the count.
    framer.set_terminator(b"\r\n");
    assert_eq!(framer.next(b"ab\rc\r\n"), END);
}

#[test]
fn overlong_that_is_known_and_not_said_is_forgotten_under_any_other_terminator() {
    let input = b"abcdef\nghi\n";
    let others = [
        (Terminator::from(3), "def", Terminator::None),
        (Terminator::from(b"f"), "d", Terminator::from(b"f")),
        (Terminator::count_then(3, b"\n"), "def", Terminator::from(b"\n")),
        (Terminator::None, "def\nghi\n", Terminator::None),
    ];
    for (other, text, then) in others {
        let mut framer = Framer::new(b"\n").with_limit(Limit::Skip(3));
        assert_eq!(framer.next(input), chunk("abc"));
        framer.set_terminator(other.clone());
        if other == Terminator::from(b"f") {
            // The frame is as long as the limit allows already.
            framer.set_limit(Limit::Skip(5));
            assert_eq!(framer.next(input), chunk("de"));
        } else {
            assert_eq!(framer.next(input), chunk(text));
        }
        if other != Terminator::None {
            assert_eq!(framer.next(input), END, "{other:?}");
        }
        assert_eq!(framer.terminator(), then);
    }
}

#[test]
fn a_delimiter_far_away_is_found_whatever_kind_it_is() {
    let sets = [
        (Terminator::from(b"\n"), "\n"),
        (Terminator::from(b"\r\n"), "\r\n"),
        (Terminator::from(b"--boundary--"), "--boundary--"),
        (Terminator::Newline, "\r\n"),
        (Terminator::Newline, "\n"),
        (Terminator::any_of(["\r\n", "\n"]).unwrap(), "\r\n"),
        (Terminator::any_of([".\r\n", "\r\n"]).unwrap(), ".\r\n"),
        (Terminator::any_of(["\n--ab", "--ab", "xx--ab"]).unwrap(), "\n--ab"),
        (Terminator::any_of(["one", "two"]).unwrap(), "two"),
    ];
    for (terminator, delimiter) in sets {
        for distance in [255, 256, 257, 1023, 1024, 1025, 5000, 70_000] {
            let payload = "x".repeat(distance - 2) + "--";
            let input = format!("{payload}{delimiter}{payload}{delimiter}y");
            let mut framer = Framer::new(terminator.clone());
            for _ in 0..2 {
                let step = framer.step(input.as_bytes()).unwrap().unwrap();
                assert_eq!(step.end, Some(End::Terminator), "{delimiter:?} in {distance}");
                assert_eq!(step.payload, payload.as_bytes(), "{delimiter:?} in {distance}");
            }
            assert_eq!(framer.take_consumed(), input.len() - 1);
        }
    }
}

#[test]
fn a_counted_frame_says_how_long_it_is_and_how_it_ends() {
    for end in ["x", "\r\n", "12345678"] {
        let counted = CountThen::new(5, Ending::new(end).unwrap());
        assert_eq!((counted.count(), counted.end().as_bytes()), (5, end.as_bytes()));
    }
    for refused in ["", "123456789"] {
        assert!(Ending::new(refused).is_err(), "{refused:?}");
    }
    let terminator = Terminator::count_then(5, b"\r\n");
    assert_eq!(format!("{terminator:?}"), r#"CountThen(CountThen(5, Ending(b"\r\n")))"#);
}

#[test]
fn a_newline_of_any_kind_behind_the_longest_line_that_may_be_ends_it() {
    for newline in ["\r", "\n", "\r\n"] {
        let mut framer = Framer::new(Terminator::Newline).with_limit(Limit::Skip(3));
        let input = format!("abc{newline}abcdefgh{newline}xy{newline}z");
        for (payload, end) in
            [("abc", End::Terminator), ("abc", End::Overlong), ("xy", End::Terminator)]
        {
            let step = framer.step(input.as_bytes()).unwrap().unwrap();
            assert_eq!((step.payload, step.end), (payload.as_bytes(), Some(end)), "{newline:?}");
        }
        assert_eq!(framer.take_consumed(), input.len() - 1);
    }
}
