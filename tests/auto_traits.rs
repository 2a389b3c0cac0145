//! Public types can be sent to other tasks and threads, and implement `Debug`.
#![allow(clippy::unwrap_used)]

use std::fmt::Debug;

use asynchat::{
    Delimiter, DelimiterSet, DelimiterSetError, EmptyDelimiter, Event, FrameError, Framer, Limit,
    Terminator,
};

fn check<T: Debug + Send + Sync + Unpin + 'static>() {}

fn check_error<T: std::error::Error + Send + Sync + Unpin + 'static>() {}

#[test]
fn the_core_is_send_sync_unpin_and_debug() {
    check::<Terminator>();
    check::<Delimiter>();
    check::<DelimiterSet>();
    check::<Event<&'static [u8]>>();
    check::<Framer>();
    check::<Limit>();
    check_error::<FrameError>();
    check_error::<EmptyDelimiter>();
    check_error::<DelimiterSetError>();
}

#[cfg(feature = "tokio")]
#[test]
fn the_codecs_are_send_sync_unpin_and_debug() {
    use asynchat::{Batch, BatchCodec, CodecError, Frame, FrameCodec, TerminatorCodec};
    check::<TerminatorCodec>();
    check::<FrameCodec>();
    check::<BatchCodec>();
    check::<Frame>();
    check::<Frame<Batch>>();
    check::<Batch>();
    check::<Event<bytes::Bytes>>();
    check_error::<CodecError>();
}

#[test]
fn a_terminator_is_small_and_events_borrow_only_their_input() {
    assert!(size_of::<Terminator>() <= 24);
    // An event borrows the input and not the framer, so the terminator can be set while it is held.
    let input = b"abc\r\n";
    let mut framer = Framer::new(b"\r\n");
    let event = framer.next(input).unwrap();
    framer.set_terminator(3);
    assert_eq!(event, Some(Event::Chunk(&b"abc"[..])));
}
