//! Compares whole frames, and batches of them, with the model that cuts the whole input.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used)]

mod support;

use std::task::Poll;

use asynchat::verify::Verifier;
use asynchat::{
    Batch, BatchCodec, CodecError, Delimiter, DelimiterSet, Frame, FrameCodec, FrameError, Limit,
};
use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use support::model::{cut, find};
use support::{End, Log, Script, Show, Spec, bytes};
use tokio_util::codec::{Decoder, Encoder, FramedRead};

/// An item of either codec.
#[derive(Clone, PartialEq, Eq)]
enum Out {
    Complete(Vec<u8>),
    Overlong(Vec<u8>),
    Truncated(Vec<u8>),
    Failed(u64),
}

impl std::fmt::Debug for Out {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Out::Complete(payload) => write!(f, "{}", Show(payload)),
            Out::Overlong(payload) => write!(f, "Overlong {}", Show(payload)),
            Out::Truncated(payload) => write!(f, "Truncated {}", Show(payload)),
            Out::Failed(max) => write!(f, "Failed({max})"),
        }
    }
}

fn complete(payload: impl AsRef<[u8]>) -> Out {
    Out::Complete(payload.as_ref().to_vec())
}

fn overlong(payload: impl AsRef<[u8]>) -> Out {
    Out::Overlong(payload.as_ref().to_vec())
}

fn truncated(payload: impl AsRef<[u8]>) -> Out {
    Out::Truncated(payload.as_ref().to_vec())
}

/// The frames that follow from the model's events.
fn model(script: &Script, input: &[u8], end: End) -> Vec<Out> {
    let mut out = Vec::new();
    let mut payload = Vec::new();
    for entry in cut(script, input, end).0 {
        out.push(match entry {
            Log::Data(data) => {
                payload = data;
                continue;
            }
            Log::Terminator(_) => Out::Complete(std::mem::take(&mut payload)),
            Log::Overlong => Out::Overlong(std::mem::take(&mut payload)),
            Log::Truncated => Out::Truncated(std::mem::take(&mut payload)),
            Log::Failed(max) => Out::Failed(max),
            Log::WrongEnd | Log::FailedWrongEnd => unreachable!("no counted frames"),
        });
    }
    out
}

trait Frames: Decoder<Error = CodecError> {
    fn write_down(item: Self::Item, out: &mut Vec<Out>);
}

impl Frames for FrameCodec {
    fn write_down(item: Frame, out: &mut Vec<Out>) {
        out.push(match item {
            Frame::Complete(payload) => complete(payload),
            Frame::Overlong(payload) => overlong(payload),
            Frame::Truncated(payload) => truncated(payload),
        });
    }
}

impl Frames for BatchCodec {
    fn write_down(item: Frame<Batch>, out: &mut Vec<Out>) {
        match item {
            Frame::Complete(batch) => {
                assert_ne!(batch.len(), 0, "a batch is never empty");
                assert_eq!(batch.iter().len(), batch.len());
                for (i, payload) in batch.iter().enumerate() {
                    assert_eq!(batch.get(i), Some(payload));
                    assert_eq!(batch.get_bytes(i).as_deref(), Some(payload));
                    out.push(complete(payload));
                }
                assert_eq!(batch.get(batch.len()), None);
                assert_eq!(batch.get_bytes(batch.len()), None);
            }
            Frame::Overlong(payload) => out.push(overlong(payload)),
            Frame::Truncated(payload) => out.push(truncated(payload)),
        }
    }
}

fn run<C: Frames>(mut codec: C, reads: &[&[u8]], end: End) -> Vec<Out> {
    let mut buffer = BytesMut::new();
    let mut out = Vec::new();
    let eof = (end == End::Eof).then_some((&b""[..], true));
    for (read, eof) in reads.iter().map(|read| (*read, false)).chain(eof) {
        buffer.extend_from_slice(read);
        loop {
            let item = if eof { codec.decode_eof(&mut buffer) } else { codec.decode(&mut buffer) };
            match item {
                Ok(Some(item)) => C::write_down(item, &mut out),
                Ok(None) => break,
                Err(CodecError::Frame(FrameError::Overlong(max))) => {
                    out.push(Out::Failed(max));
                    return out;
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
    out
}

/// As [`run`], through a `FramedRead`, for inputs that do not fail.
fn run_framed<C: Frames>(codec: C, reads: &[&[u8]], end: End) -> Vec<Out> {
    let mut builder = tokio_test::io::Builder::new();
    for read in reads.iter().filter(|read| !read.is_empty()) {
        builder.read(read);
    }
    let (io, handle) = builder.build_with_handle();
    let _open = (end == End::Open).then_some(handle);
    let mut framed = tokio_test::task::spawn(FramedRead::new(io, codec));
    let mut out = Vec::new();
    while let Poll::Ready(Some(item)) = framed.poll_next() {
        C::write_down(item.unwrap(), &mut out);
    }
    out
}

fn codec(spec: &Spec, limit: Limit) -> FrameCodec {
    match spec {
        Spec::Bytes(delimiter) => FrameCodec::new(Delimiter::new(delimiter).unwrap()),
        _ => FrameCodec::crlf_or_lf(),
    }
    .with_limit(limit)
}

fn check(spec: &Spec, limit: Limit, reads: &[&[u8]], end: End, expected: &[Out]) {
    let codec = codec(spec, limit);
    let shown: Vec<_> = reads.iter().map(|read| Show(read)).collect();
    let context = format!("{spec:?} {limit:?} {end:?} {shown:?}");
    assert_eq!(run(codec.clone(), reads, end), expected, "FrameCodec, {context}");
    assert_eq!(run(codec.clone().batched(), reads, end), expected, "BatchCodec, {context}");
    if !matches!(expected.last(), Some(Out::Failed(_))) {
        assert_eq!(run_framed(codec.clone(), reads, end), expected, "FramedRead, {context}");
        let batched = run_framed(codec.batched(), reads, end);
        assert_eq!(batched, expected, "FramedRead of batches, {context}");
    }
}

#[track_caller]
fn verify(spec: Spec, limit: Limit, input: &[u8], end: End, expected: &[Out]) {
    let script = Script::new(spec.clone()).limit(limit);
    assert_eq!(model(&script, input, end), expected, "the model");
    let verifier = [&b"x"[..], b"\n", b"\r\nabcdefgh\r\n", input]
        .into_iter()
        .fold(Verifier::new().three_reads_up_to(12), |verifier, tail| verifier.trailing(tail));
    verifier.check(input, |delivery| {
        let reads: Vec<&[u8]> = delivery.reads().collect();
        let end = if delivery.ends() { End::Eof } else { End::Open };
        check(&spec, limit, &reads, end, &model(&script, delivery.input(), end));
    });
}

fn either() -> Spec {
    support::any(["\r\n", "\n"])
}

const DEFAULT: Limit = Limit::Skip(64 * 1024);

#[test]
fn frames_come_whole_however_they_were_cut() {
    let frames = [complete("a"), complete(""), complete("bcd")];
    verify(bytes("\r\n"), DEFAULT, b"a\r\n\r\nbcd\r\n", End::Eof, &frames);
    verify(bytes("\n"), DEFAULT, b"a\n\nbcd\n", End::Eof, &frames);
    verify(either(), DEFAULT, b"a\r\n\nbcd\n", End::Eof, &frames);
    verify(bytes(";;;"), DEFAULT, b"a;;;;;;bcd;;;", End::Eof, &frames);
}

#[test]
fn line_ends_are_strict_unless_asked_otherwise() {
    verify(bytes("\r\n"), DEFAULT, b"a\nb\rc\r\n", End::Eof, &[complete("a\nb\rc")]);
    verify(bytes("\n"), DEFAULT, b"a\r\nb\n", End::Eof, &[complete("a\r"), complete("b")]);
    let both = [complete("a"), complete("b"), complete("c\r"), complete("d\re")];
    verify(either(), DEFAULT, b"a\r\nb\nc\r\r\nd\re\n", End::Eof, &both);
    for (input, crlf, lf, either) in [("a\n", 0, 1, 1), ("a\r\n", 1, 1, 1), ("a\r", 0, 0, 0)] {
        let count = |codec| run::<FrameCodec>(codec, &[input.as_bytes()], End::Open).len();
        assert_eq!(count(FrameCodec::crlf()), crlf);
        assert_eq!(count(FrameCodec::lf()), lf);
        assert_eq!(count(FrameCodec::crlf_or_lf()), either);
    }
}

#[test]
fn an_overlong_frame_gives_its_first_bytes_and_the_next_is_whole() {
    let frames = [overlong("abc"), complete("xyz"), overlong("123"), complete("")];
    let input = b"abcdef\r\nxyz\r\n1234\r\n\r\n";
    verify(bytes("\r\n"), Limit::Skip(3), input, End::Eof, &frames);
    verify(either(), Limit::Skip(3), input, End::Eof, &frames);
    let nothing = [overlong(""), complete("")];
    verify(bytes("\n"), Limit::Skip(0), b"a\n\n", End::Eof, &nothing);
    let failed = [complete("ab"), overlong("abc"), Out::Failed(3)];
    verify(bytes("\r\n"), Limit::Fail(3), b"ab\r\nabcd\r\nx\r\n", End::Eof, &failed);
}

#[test]
fn a_frame_of_exactly_the_limit_is_complete_however_its_delimiter_is_split() {
    let frames = [complete("abc"), complete("xyz")];
    for limit in [Limit::Skip(3), Limit::Fail(3)] {
        verify(bytes("\r\n"), limit, b"abc\r\nxyz\r\n", End::Eof, &frames);
        verify(either(), limit, b"abc\r\nxyz\n", End::Eof, &frames);
    }
}

#[test]
fn the_end_of_the_input_in_mid_frame_gives_what_there_was() {
    verify(bytes("\r\n"), DEFAULT, b"a\r\nbc\r", End::Eof, &[complete("a"), truncated("bc\r")]);
    verify(bytes("\r\n"), DEFAULT, b"a\r\nbc\r", End::Open, &[complete("a")]);
    verify(bytes("\r\n"), DEFAULT, b"\r", End::Eof, &[truncated("\r")]);
    verify(bytes("\r\n"), DEFAULT, b"", End::Eof, &[]);
    // At the end of the input, withheld bytes become payload, and the limit applies to them, too.
    let cut = [overlong("ab"), truncated("")];
    verify(bytes("\r\n"), Limit::Skip(2), b"ab\r", End::Eof, &cut);
    verify(bytes("\r\n"), Limit::Skip(2), b"abc", End::Eof, &cut);
}

#[test]
fn the_default_limit_is_64_kib() {
    assert_eq!(FrameCodec::crlf().limit(), DEFAULT);
    let most = vec![b'x'; 64 * 1024];
    let input = [&most[..], b"\n", &most, b"y\n", b"z\n"].concat();
    let expected = [complete(&most), overlong(&most), complete("z")];
    for reads in [vec![&input[..]], input.chunks(999).collect()] {
        check(&bytes("\n"), DEFAULT, &reads, End::Eof, &expected);
    }
}

#[test]
fn a_batch_holds_all_complete_frames_of_a_read() {
    let mut codec = FrameCodec::crlf().with_limit(Limit::Skip(3)).batched();
    let mut buffer = BytesMut::from("a\r\n\r\nbcd\r\nabcde\r\nx\r\ny");
    let first = codec.decode(&mut buffer).unwrap().unwrap();
    let Frame::Complete(batch) = first else { panic!("{first:?}") };
    assert_eq!(batch.iter().collect::<Vec<_>>(), [&b"a"[..], b"", b"bcd"]);
    assert_eq!(format!("{batch:?}"), r#"Batch[b"a", b"", b"bcd"]"#);
    assert_eq!(codec.decode(&mut buffer).unwrap(), Some(Frame::Overlong("abc".into())));
    let third = codec.decode(&mut buffer).unwrap().unwrap();
    let Frame::Complete(batch) = third else { panic!("{third:?}") };
    assert_eq!(batch.iter().collect::<Vec<_>>(), [&b"x"[..]]);
    assert_eq!(codec.decode(&mut buffer).unwrap(), None);
    assert_eq!(codec.decode_eof(&mut buffer).unwrap(), Some(Frame::Truncated("y".into())));
    assert_eq!(codec.decode_eof(&mut buffer).unwrap(), None);
}

#[test]
fn a_skipped_frame_takes_no_memory() {
    for batched in [false, true] {
        let mut frames = FrameCodec::crlf().with_limit(Limit::Skip(10));
        let mut batches = frames.clone().batched();
        let mut buffer = BytesMut::new();
        let mut overlong = 0;
        for _ in 0..1000 {
            buffer.extend_from_slice(&[b'x'; 4096]);
            let any = match batched {
                false => frames.decode(&mut buffer).unwrap().is_some(),
                true => batches.decode(&mut buffer).unwrap().is_some(),
            };
            overlong += usize::from(any);
            assert!(buffer.len() <= 2 * 4096, "{}", buffer.len());
        }
        assert_eq!(overlong, 1);
    }
}

#[test]
fn text_is_checked_without_losing_the_frame() {
    let frame = Frame::Complete(Bytes::from_static(b"gr\xc3\xbcezi"));
    assert_eq!(frame.to_str(), Ok("grüezi"));
    let frame: Frame = Frame::Truncated(Bytes::from_static(b"gr\xc3"));
    assert!(frame.to_str().is_err());
    assert_eq!(frame.as_ref(), b"gr\xc3");
    assert_eq!(frame.into_bytes(), &b"gr\xc3"[..]);
}

#[test]
fn a_buffer_changed_behind_the_codecs_back_never_panics() {
    let input = b"ab\r\n\r\nabcdefgh\r\nabcd\nabcdefghij\r\nabc";
    let mut random = support::Random(11);
    for delimiter in ["\n", "\r\n", "\r\n\r", "h\r\nabcdefgh\r\nabcd\nabcdefghij"] {
        for limit in [Limit::Skip(3), Limit::Fail(3), DEFAULT] {
            for _ in 0..300 {
                let mut frames = codec(&bytes(delimiter), limit);
                let mut batches = frames.clone().batched();
                let batched = random.below(2) == 0;
                let mut buffer = BytesMut::new();
                for _ in 0..12 {
                    match random.below(5) {
                        0 => buffer.clear(),
                        1 => buffer.truncate(random.below(buffer.len() + 1)),
                        2 => drop(buffer.split_to(random.below(buffer.len() + 1))),
                        _ => buffer.extend_from_slice(&input[..random.below(input.len() + 1)]),
                    }
                    match (batched, random.below(6) == 0) {
                        (false, false) => drop(frames.decode(&mut buffer)),
                        (false, true) => drop(frames.decode_eof(&mut buffer)),
                        (true, false) => drop(batches.decode(&mut buffer)),
                        (true, true) => drop(batches.decode_eof(&mut buffer)),
                    }
                }
            }
        }
    }
}

#[test]
fn a_payload_with_the_delimiter_in_it_is_refused_and_nothing_written() {
    let mut out = BytesMut::from("before");
    for (mut codec, refused) in [
        (FrameCodec::crlf(), &["\r\n", "a\r\nb", "a\r\n"][..]),
        (FrameCodec::lf(), &["\n", "a\nb", "a\r\n"]),
        (FrameCodec::crlf_or_lf(), &["\n", "a\nb", "a\r\nb"]),
        (FrameCodec::new(b"aa"), &["a", "ba", "aa"]),
        (FrameCodec::new(b"aba"), &["ab", "aba", "xab"]),
    ] {
        for payload in refused {
            let error = codec.encode(*payload, &mut out).unwrap_err();
            assert!(matches!(error, CodecError::Injection), "{error:?}");
            assert_eq!(out, "before");
        }
    }
    let mut codec = FrameCodec::crlf();
    codec.encode("a\nb\r", &mut out).unwrap();
    codec.encode("", &mut out).unwrap();
    codec.batched().encode(vec![b'c'], &mut out).unwrap();
    assert_eq!(out, "beforea\nb\r\r\n\r\nc\r\n");
}

#[test]
fn what_is_written_may_end_otherwise_than_what_is_read() {
    for mut codec in [FrameCodec::crlf_or_lf(), FrameCodec::newline(), FrameCodec::crlf()] {
        let mut out = BytesMut::new();
        codec.encode("a", &mut out).unwrap();
        assert_eq!(out, "a\r\n");
        let mut codec = codec.with_ending(b"\n");
        codec.encode("b", &mut out).unwrap();
        assert_eq!(out, "a\r\nb\n");
        // A payload must not contain what the codec reads as an end.
        assert!(matches!(codec.encode("c\r\nd", &mut out), Err(CodecError::Injection)));
    }
}

#[test]
fn which_member_ended_a_frame_can_be_asked() {
    let mut codec = FrameCodec::any_of(DelimiterSet::new([";", "!", "?"]).unwrap());
    let mut buffer = BytesMut::from("no?yes!maybe;");
    for member in [2, 1, 0] {
        codec.decode(&mut buffer).unwrap().unwrap();
        assert_eq!(codec.matched(), member);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_cut_gives_the_frames_of_the_whole(
        spec in select(vec![
            bytes("\n"), bytes("\r\n"), bytes("\r\r\n"), either(),
            bytes("\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\n"),
        ]),
        limit in prop_oneof![
            Just(DEFAULT), Just(Limit::Unlimited), (0..6u64).prop_map(Limit::Skip), (0..6u64).prop_map(Limit::Fail),
        ],
        pieces in vec(select(vec!["\n", "\r\n", "\r", "\r\r\r\r\r", "a", "bcd", "efghijkl", "\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\n"]), 0..25),
        at in vec(any::<Index>(), 0..12),
        end in select(&[End::Open, End::Eof][..]),
    ) {
        let input = pieces.concat().into_bytes();
        let expected = model(&Script::new(spec.clone()).limit(limit), &input, end);
        let mut at: Vec<_> = at.iter().map(|cut| cut.index(input.len() + 1)).collect();
        at.extend([0, input.len()]);
        at.sort_unstable();
        let reads: Vec<_> = at.windows(2).map(|pair| &input[pair[0]..pair[1]]).collect();
        check(&spec, limit, &reads, end, &expected);
        check(&spec, limit, &[&input], end, &expected);
    }

    #[test]
    fn what_is_written_is_read_again_or_was_refused(
        delimiter in vec(select(&b"ab"[..]), 1..5),
        payload in vec(select(&b"abc"[..]), 0..12),
    ) {
        let mut codec = FrameCodec::new(Delimiter::new(&delimiter).unwrap());
        let mut buffer = BytesMut::new();
        let together = [&payload[..], &delimiter].concat();
        let (start, ..) = find(std::slice::from_ref(&delimiter), &together).unwrap();
        match codec.encode(&payload, &mut buffer) {
            Ok(()) => {
                prop_assert_eq!(start, payload.len());
                prop_assert_eq!(codec.decode(&mut buffer).unwrap(), Some(Frame::Complete(payload.into())));
                prop_assert!(buffer.is_empty());
            }
            Err(CodecError::Injection) => {
                prop_assert!(start < payload.len());
                prop_assert!(buffer.is_empty());
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}
