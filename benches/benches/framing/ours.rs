//! The loops a user of `asynchat` writes.

use asynchat::{Event, Frame, FrameCodec, Framer, Terminator, TerminatorCodec};
use asynchat_benches::Tally;
use asynchat_benches::io::{READ, Reader, Window, drain};
use tokio_util::codec::FramedRead;

/// Frames that all end alike, by a `Framer`, in reads of `read` bytes.
#[inline]
pub fn framer(terminator: Terminator, input: &[u8], read: usize, window: &mut Window) -> u64 {
    let mut framer = Framer::new(terminator);
    let mut tally = Tally::default();
    window.clear();
    for read in input.chunks(read) {
        window.fill(read);
        while let Some(event) = framer.next(window.filled()).expect("no limit") {
            match event {
                Event::Chunk(chunk) => tally.chunk(chunk),
                Event::Terminator => tally.end(),
                Event::Overlong | Event::WrongEnd | Event::Truncated => {
                    unreachable!("no limit, no end")
                }
            }
        }
        window.consume(framer.take_consumed());
    }
    tally.sum()
}

/// Frames that all end alike, by a `TerminatorCodec`.
pub fn terminator_codec(terminator: Terminator, reader: Reader<'_>) -> u64 {
    let mut tally = Tally::default();
    drain(FramedRead::with_capacity(reader, TerminatorCodec::new(terminator), READ), |event| {
        match event.expect("no limit") {
            Event::Chunk(chunk) => tally.chunk(&chunk),
            Event::Terminator => tally.end(),
            Event::Overlong | Event::WrongEnd | Event::Truncated => {
                unreachable!("no limit, whole frames")
            }
        }
    });
    tally.sum()
}

/// Whole frames, by a `FrameCodec`.
pub fn frame_codec(codec: FrameCodec, reader: Reader<'_>) -> u64 {
    let mut tally = Tally::default();
    drain(FramedRead::with_capacity(reader, codec, READ), |frame| {
        match frame.expect("well-formed") {
            Frame::Complete(frame) => tally.frame(&frame),
            Frame::Overlong(_) | Frame::Truncated(_) => unreachable!("short and whole frames"),
        }
    });
    tally.sum()
}

/// All whole frames of a read at once, by a `BatchCodec`.
pub fn batch_codec(codec: FrameCodec, reader: Reader<'_>) -> u64 {
    let mut tally = Tally::default();
    drain(FramedRead::with_capacity(reader, codec.batched(), READ), |frames| {
        match frames.expect("well-formed") {
            Frame::Complete(batch) => batch.iter().for_each(|frame| tally.frame(frame)),
            Frame::Overlong(_) | Frame::Truncated(_) => unreachable!("short and whole frames"),
        }
    });
    tally.sum()
}
