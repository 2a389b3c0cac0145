//! The settings and getters of the codecs, beside what they decode.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used)]

use std::fmt::Debug;

use asynchat::{
    CodecError, DelimiterSet, DiscardInput, Event, Frame, FrameCodec, Framer, Limit, Terminator,
    TerminatorCodec,
};
use bytes::{Bytes, BytesMut};
use futures::{FutureExt, StreamExt};
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio_util::codec::{Decoder, Encoder, Framed, FramedRead};

#[test]
fn what_was_set_can_be_asked_for() {
    for limit in [Limit::Unlimited, Limit::Fail(7), Limit::Skip(0)] {
        assert_eq!(Framer::new(b"\n").with_limit(limit).limit(), limit);
        assert_eq!(TerminatorCodec::new(b"\n").with_limit(limit).limit(), limit);
        assert_eq!(FrameCodec::lf().with_limit(limit).limit(), limit);
    }
    assert_eq!(TerminatorCodec::new(b"\n").limit(), Limit::Unlimited);
    let mut codec = TerminatorCodec::new(b"\n");
    for whole in [false, true, false] {
        codec.set_whole_frames(whole);
        assert_eq!(codec.whole_frames(), whole);
    }
}

#[test]
fn a_codec_of_frames_says_which_member_of_its_set_ended_the_last() {
    let set = DelimiterSet::new([";", "\r\n", "!"]).unwrap();
    let mut codec = FrameCodec::any_of(set.clone());
    let mut buffer = BytesMut::from("a!b;c\r\n");
    for (payload, member) in [("a", 2), ("b", 0), ("c", 1)] {
        assert_eq!(codec.decode(&mut buffer).unwrap(), Some(Frame::Complete(payload.into())));
        assert_eq!(codec.matched(), member, "{payload}");
    }
    // A `DelimiterSet` can be given as the terminator.
    let mut codec = TerminatorCodec::new(set);
    let mut buffer = BytesMut::from("!");
    assert_eq!(codec.decode(&mut buffer).unwrap(), Some(Event::Terminator));
    assert_eq!(codec.matched(), 2);
}

/// What is written for this payload, or `None` if it is refused.
fn written(codec: &mut FrameCodec, payload: &str) -> Option<String> {
    let mut out = BytesMut::from("before ");
    let result = codec.encode(payload, &mut out);
    let text = String::from_utf8(out.to_vec()).unwrap();
    let behind = text.strip_prefix("before ").unwrap();
    match result {
        Ok(()) => Some(behind.into()),
        Err(CodecError::Injection) => {
            assert_eq!(behind, "", "something of a refused payload is left");
            None
        }
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn a_payload_is_checked_against_what_is_written_and_what_is_read() {
    // The codec reads both line ends, and writes LF.
    let mut codec = FrameCodec::crlf_or_lf().with_ending(b"\n");
    assert_eq!(written(&mut codec, "hello").as_deref(), Some("hello\n"));
    assert_eq!(written(&mut codec, "a\nb"), None);
    assert_eq!(written(&mut codec, "a\r"), None, "a reader of either would take the CR away");
    // It refuses a payload that contains what it would read as an end.
    let mut codec = FrameCodec::new(b";").with_ending(b"\r\n");
    assert_eq!(written(&mut codec, "hello").as_deref(), Some("hello\r\n"));
    assert_eq!(written(&mut codec, "hel;lo"), None);
    assert_eq!(written(&mut codec, "a\r\nb"), None);
    // The ending for writing is not an end when it is read.
    let mut buffer = BytesMut::from("a\r\nb;");
    assert_eq!(codec.decode(&mut buffer).unwrap(), Some(Frame::Complete("a\r\nb".into())));
}

/// A `Framed` to which two and a half frames have come, and from which one item was taken.
async fn half_read<C>(codec: C, of_one: usize) -> (Framed<DuplexStream, C>, DuplexStream)
where
    C: Decoder<Item: Debug, Error: Debug>,
{
    let (mut client, server) = duplex(64);
    client.write_all(b"one\r\ntwo\r\nth\r").await.unwrap();
    let mut framed = Framed::new(server, codec);
    for _ in 0..of_one {
        framed.next().await.unwrap().unwrap();
    }
    (framed, client)
}

#[tokio::test]
async fn a_transport_drops_what_it_has_buffered_whatever_its_codec() {
    let (mut events, mut client) = half_read(TerminatorCodec::new(b"\r\n"), 2).await;
    events.discard_input();
    assert!(events.next().now_or_never().is_none());
    client.write_all(b"\nree\r\n").await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap(), Event::Chunk("\nree".into()));
    assert_eq!(events.next().await.unwrap().unwrap(), Event::Terminator);

    let (mut frames, mut client) = half_read(FrameCodec::crlf(), 1).await;
    frames.discard_input();
    assert!(frames.next().now_or_never().is_none());
    client.write_all(b"\nree\r\n").await.unwrap();
    assert_eq!(frames.next().await.unwrap().unwrap(), Frame::Complete("\nree".into()));

    // All complete frames were one batch, and half a frame is left.
    let (mut batches, mut client) = half_read(FrameCodec::crlf().batched(), 1).await;
    batches.discard_input();
    client.write_all(b"\nree\r\n").await.unwrap();
    let Frame::Complete(batch) = batches.next().await.unwrap().unwrap() else { panic!() };
    assert!(batch.iter().eq([b"\nree"]));
}

#[tokio::test]
async fn a_reader_drops_what_it_has_buffered_and_not_what_it_has_not_read() {
    let (mut client, server) = duplex(64);
    client.write_all(b"one\ntwo\nthr").await.unwrap();
    let mut frames = FramedRead::new(server, FrameCodec::lf());
    assert_eq!(frames.next().await.unwrap().unwrap(), Frame::Complete("one".into()));
    client.write_all(b"ee\nfour\n").await.unwrap();
    frames.discard_input();
    for expected in ["ee", "four"] {
        assert_eq!(frames.next().await.unwrap().unwrap(), Frame::Complete(expected.into()));
    }
}

#[tokio::test]
async fn a_count_goes_on_behind_what_a_transport_has_dropped() {
    let (mut client, server) = duplex(64);
    client.write_all(b"abc").await.unwrap();
    let mut events = Framed::new(server, TerminatorCodec::new(5));
    let first: Event<Bytes> = events.next().await.unwrap().unwrap();
    assert_eq!(first, Event::Chunk("abc".into()));
    events.discard_input();
    assert_eq!(events.codec().terminator(), Terminator::Count(2));
    client.write_all(b"de").await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap(), Event::Chunk("de".into()));
    assert_eq!(events.next().await.unwrap().unwrap(), Event::Terminator);
}
