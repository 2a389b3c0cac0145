//! What a decoder knows of one buffer is never used for another, and decoders hold no more memory than they count.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used)]

use std::fmt::Debug;

use asynchat::{
    CodecError, DelimiterSet, DiscardInput, Event, Frame, FrameCodec, Framer, Limit, Terminator,
    TerminatorCodec,
};
use bytes::{Bytes, BytesMut};
use futures::{FutureExt, Stream, StreamExt};
use tokio::io::DuplexStream;
use tokio_util::codec::{Decoder, Framed, FramedParts, FramedRead};

/// Delimiters for each of the ways to search.
fn terminators() -> Vec<Terminator> {
    vec![
        b"\n".into(),
        b"\r\n".into(),
        b"\r\n\r\n".into(),
        b"0123456789abcdefghijklmnopq".into(),
        Terminator::any_of(["\r\n", "\n"]).unwrap(),
        Terminator::any_of(["\r\n", "ab", "::::"]).unwrap(),
        Terminator::Newline,
    ]
}

/// Bytes in which each of these delimiters occurs, and some of them begin and are not complete.
fn text(seed: usize) -> Vec<u8> {
    let words: [&[u8]; 9] = [
        b"MAIL FROM:<me>",
        b"\r\n",
        b"\n",
        b"x",
        b"\r\n\r\n",
        b"0123456789abcdefghijklmnopq",
        b"0123456789a",
        b"\r",
        b"::",
    ];
    (0..12).flat_map(|i| words[(seed * 7 + i * (seed % 5 + 1)) % words.len()]).copied().collect()
}

/// All that a decoder makes of an input, the end included.
fn all<C: Decoder<Item: Debug, Error: Debug>>(codec: &mut C, input: &[u8]) -> Vec<String> {
    let mut buffer = BytesMut::from(input);
    let mut items = Vec::new();
    while let Some(item) = codec.decode_eof(&mut buffer).unwrap() {
        items.push(format!("{item:?}"));
    }
    items
}

/// A codec that has seen a part of one buffer, and goes on with another buffer, yields the same as one that has seen
/// only the same frames.
fn goes_on_afresh<C>(make: impl Fn() -> C, at_a_boundary: impl Fn(&C::Item) -> bool)
where
    C: Decoder<Item: Debug, Error: Debug>,
{
    for seed in 0..40 {
        let (old, new) = (text(seed), text(seed + 1));
        let wanted = all(&mut make(), &new);
        for items in 1..8 {
            let mut codec = make();
            let mut buffer = BytesMut::from(&old[..]);
            let Some(last) = (0..items).map_while(|_| codec.decode(&mut buffer).unwrap()).last()
            else {
                continue;
            };
            if !at_a_boundary(&last) {
                continue;
            }
            // Another buffer, as after `Framed::from_parts`; and the same buffer, cleared and filled anew before the
            // next call.
            let given = all(&mut codec, &new);
            assert_eq!(given, wanted, "after {items} of {:?}", old.escape_ascii().to_string());
        }
    }
}

#[test]
fn hits_in_a_buffer_that_was_dropped_do_not_cut_another() {
    for terminator in terminators() {
        let events = || TerminatorCodec::new(terminator.clone());
        goes_on_afresh(events, |event| *event == Event::Terminator);
        goes_on_afresh(|| events().steps(), |step| step.end.is_some());
        let whole = || {
            let mut codec = events().steps();
            codec.set_whole_frames(true);
            codec
        };
        goes_on_afresh(whole, |step| step.end.is_some());
    }
    let codecs = [
        FrameCodec::lf(),
        FrameCodec::crlf(),
        FrameCodec::crlf_or_lf(),
        FrameCodec::newline(),
        FrameCodec::new(b"\r\n\r\n"),
        FrameCodec::new(b"0123456789abcdefghijklmnopq"),
    ];
    for codec in codecs {
        goes_on_afresh(|| codec.clone(), |frame| matches!(frame, Frame::Complete(_)));
        goes_on_afresh(|| codec.clone().batched(), |frame| matches!(frame, Frame::Complete(_)));
    }
}

#[tokio::test]
async fn plaintext_behind_starttls_does_not_cut_what_is_encrypted() {
    let plain = &b"STARTTLS\r\nxxxxxxxxx\r\n"[..];
    let secret = &b"MAIL FROM:<me>\r\nQUIT\r\n"[..];

    let mut framed = Framed::new(duplex(plain).await, FrameCodec::crlf());
    assert_eq!(framed.next().await.unwrap().unwrap(), Frame::Complete("STARTTLS".into()));
    let old = framed.into_parts();
    assert_eq!(old.read_buf, "xxxxxxxxx\r\n");
    // The input that was injected before TLS is dropped, and the codec goes on over TLS.
    let parts = FramedParts::new::<&str>(duplex(secret).await, old.codec);
    let mut framed = Framed::from_parts(parts);
    assert_eq!(framed.next().await.unwrap().unwrap(), Frame::Complete("MAIL FROM:<me>".into()));
    assert_eq!(framed.next().await.unwrap().unwrap(), Frame::Complete("QUIT".into()));

    // The buffer is cleared in place.
    let mut framed = FramedRead::new(duplex(plain).await, TerminatorCodec::new(b"\r\n"));
    assert_eq!(framed.next().await.unwrap().unwrap(), Event::Chunk("STARTTLS".into()));
    assert_eq!(framed.next().await.unwrap().unwrap(), Event::Terminator);
    framed.read_buffer_mut().clear();
    *framed.get_mut() = duplex(secret).await;
    assert_eq!(framed.next().await.unwrap().unwrap(), Event::Chunk("MAIL FROM:<me>".into()));
    assert_eq!(framed.next().await.unwrap().unwrap(), Event::Terminator);

    // Or it is discarded by `discard_input`.
    let mut framed = FramedRead::new(duplex(plain).await, FrameCodec::crlf().batched());
    framed.read_buffer_mut().extend_from_slice(plain);
    framed.discard_input();
    *framed.get_mut() = duplex(secret).await;
    let Frame::Complete(batch) = framed.next().await.unwrap().unwrap() else { panic!("a batch") };
    assert_eq!(batch.iter().collect::<Vec<_>>(), [&b"MAIL FROM:<me>"[..], b"QUIT"]);
}

#[tokio::test]
async fn input_that_was_discarded_is_gone_for_each_codec_in_either_transport() {
    /// The next item, where the first half of a line end is read and discarded, and then the other half comes.
    async fn next<F, I>(mut framed: F, stream: impl Fn(&mut F) -> &mut DuplexStream) -> String
    where
        F: Stream<Item = Result<I, CodecError>> + DiscardInput + Unpin,
        I: Debug,
    {
        while framed.next().now_or_never().is_some() {}
        framed.discard_input();
        *stream(&mut framed) = duplex(b"\nc\r\n").await;
        format!("{:?}", framed.next().await.unwrap().unwrap())
    }
    let half = || duplex(b"ab\r");
    let (events, frames) = (|| TerminatorCodec::new(b"\r\n"), FrameCodec::crlf);
    let batches = || frames().batched();
    let chunk = r#"Chunk(b"\nc")"#;
    assert_eq!(next(FramedRead::new(half().await, events()), FramedRead::get_mut).await, chunk);
    assert_eq!(next(Framed::new(half().await, events()), Framed::get_mut).await, chunk);
    let line = r#"Complete(b"\nc")"#;
    assert_eq!(next(FramedRead::new(half().await, frames()), FramedRead::get_mut).await, line);
    assert_eq!(next(Framed::new(half().await, frames()), Framed::get_mut).await, line);
    let batch = r#"Complete(Batch[b"\nc"])"#;
    assert_eq!(next(FramedRead::new(half().await, batches()), FramedRead::get_mut).await, batch);
    assert_eq!(next(Framed::new(half().await, batches()), Framed::get_mut).await, batch);
}

/// A stream from which these bytes can be read, and which does not end.
async fn duplex(bytes: &[u8]) -> DuplexStream {
    let (mut peer, stream) = tokio::io::duplex(1024);
    tokio::io::AsyncWriteExt::write_all(&mut peer, bytes).await.unwrap();
    std::mem::forget(peer);
    stream
}

#[test]
fn a_framer_given_another_input_looks_at_its_bytes() {
    for terminator in terminators() {
        let delimiter = match &terminator {
            Terminator::Bytes(delimiter) => delimiter.as_bytes().to_vec(),
            Terminator::AnyOf(set) => set.iter().next().unwrap().to_vec(),
            _ => b"\n".to_vec(),
        };
        let mut framer = Framer::new(terminator);
        let mut input = [b"a", &delimiter[..], b"b", &delimiter].concat();
        assert_eq!(framer.next(&input), Ok(Some(Event::Chunk(&b"a"[..]))));
        assert_eq!(framer.next(&input), Ok(Some(Event::Terminator)));
        let consumed = framer.take_consumed();
        input.drain(..consumed);
        // The new bytes have the same address and length. What was a hit is none now.
        let len = input.len();
        input.fill(b'x');
        assert_eq!(framer.next(&input), Ok(Some(Event::Chunk(&b"x".repeat(len)[..]))));
        assert_eq!(framer.next(&input), Ok(None));
    }
}

#[test]
fn what_a_skip_leaves_in_the_buffer_does_not_depend_on_the_reads() {
    for cuts in [&[&b"abcdef\nxy"[..]][..], &[b"abcdef\n", b"xy"], &[b"abcd", b"ef\nx", b"y"]] {
        let mut codec = FrameCodec::lf().with_limit(Limit::Skip(3));
        let mut buffer = BytesMut::new();
        let mut frames = Vec::new();
        for read in cuts {
            buffer.extend_from_slice(read);
            if let Some(frame) = codec.decode(&mut buffer).unwrap() {
                frames.push(frame);
            }
        }
        assert_eq!(frames, [Frame::Overlong("abc".into())]);
        assert_eq!(buffer, "xy", "{cuts:?}");
    }
    // While the rest of an overlong frame is skipped, nothing of it stays in the buffer.
    let mut codec = FrameCodec::lf().with_limit(Limit::Skip(2));
    let mut buffer = BytesMut::from(&[b'x'; 1 << 20][..]);
    assert_eq!(codec.decode(&mut buffer).unwrap(), Some(Frame::Overlong("xx".into())));
    assert_eq!(buffer.len(), 0);
}

#[test]
fn a_dribbled_byte_that_is_kept_keeps_no_more() {
    let delimiter = [&b"a".repeat(4096)[..], b"b"].concat();
    let mut codec = TerminatorCodec::new(Terminator::try_from(delimiter).unwrap());
    let mut buffer = BytesMut::new();
    let mut kept: Vec<Bytes> = Vec::new();
    for _ in 0..6000 {
        buffer.extend_from_slice(b"a");
        while let Some(Event::Chunk(chunk)) = codec.decode(&mut buffer).unwrap() {
            kept.push(chunk);
        }
    }
    assert_eq!(kept.len(), 6000 - 4096);
    for chunk in kept {
        assert!(chunk.try_into_mut().unwrap().capacity() <= 64);
    }
}

#[test]
fn a_batch_makes_no_room_for_what_the_last_one_had() {
    let mut codec = FrameCodec::lf().batched();
    let mut buffer = BytesMut::from(&[b'\n'; 8192][..]);
    assert!(
        matches!(codec.decode(&mut buffer), Ok(Some(Frame::Complete(batch))) if batch.len() == 8192)
    );
    let mut buffer = BytesMut::from("one line\n");
    let allocated = allocation_counter::measure(|| {
        let Ok(Some(Frame::Complete(batch))) = codec.decode(&mut buffer) else { panic!("a line") };
        assert_eq!(batch.get(0), Some(&b"one line"[..]));
    });
    assert!(allocated.bytes_max < 1024, "{allocated:?}");
}

#[test]
fn batches_are_compared_by_their_frames() {
    let batch = |codec: FrameCodec, input: &str| match codec.batched().decode(&mut input.into()) {
        Ok(Some(Frame::Complete(batch))) => batch,
        other => panic!("{other:?}"),
    };
    let lines = batch(FrameCodec::crlf_or_lf(), "a\nb\r\n");
    assert_eq!(lines, batch(FrameCodec::lf(), "a\nb\n"));
    assert_ne!(lines, batch(FrameCodec::lf(), "a\nc\n"));
    assert_ne!(lines, batch(FrameCodec::lf(), "a\n"));
}

#[test]
fn a_set_of_many_members_is_made_in_time() {
    // If each member was compared with each other one, this would take minutes.
    let members: Vec<String> = (0..100_000).map(|i| format!("<{i}>")).collect();
    let set = DelimiterSet::new(&members).unwrap();
    let mut framer = Framer::new(Terminator::AnyOf(set));
    assert_eq!(framer.next(b"x<99999>"), Ok(Some(Event::Chunk(&b"x"[..]))));
    assert_eq!(framer.next(b"x<99999>"), Ok(Some(Event::Terminator)));
    assert_eq!(framer.matched(), 99_999);
}

#[test]
fn what_a_count_waits_for_in_another_buffer_is_not_known_of_the_last() {
    let set = Terminator::any_of(["a"]).unwrap();
    let mut codec = TerminatorCodec::new(set.clone());
    codec.set_whole_frames(true);
    let mut first = BytesMut::from(&[b'x'; 70][..]);
    assert_eq!(codec.decode(&mut first).unwrap(), None);
    codec.set_terminator(u64::MAX);
    let mut second = BytesMut::from(&[b'a'; 80][..]);
    assert_eq!(codec.decode(&mut second).unwrap(), None);
    codec.set_terminator(set);
    assert_eq!(codec.decode(&mut second).unwrap(), Some(Event::Terminator));
}
