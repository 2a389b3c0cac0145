//! How often framing and pushing allocate: a count, not a time.
//!
//! `cargo bench -p asynchat-benches --bench allocations [-- [ROW]...]`
//!
//! This is a binary of its own, since the allocator that counts would make the times of other benches longer.
//! Everything is counted, the first buffer included. What is allocated once, or once for a read, is next to nothing
//! when it is divided by the number of frames.

#![forbid(unsafe_code)]

use allocation_counter::measure;
use asynchat::{FrameCodec, ProducerSink};
use asynchat_benches::harness::Outcome;
use asynchat_benches::input::Shape;
use asynchat_benches::io::{READ, Reader, Window, complete};
use asynchat_benches::lines::{Lines, any_delimiter_codec, lines_codec};
use asynchat_benches::ours::{self, Events, Frames, delimiter};
use asynchat_benches::{Bench, Tally};
use bytes::Bytes;
use tokio_util::codec::{BytesCodec, FramedWrite};

const MEASURES: [(&str, &str); 1] = [("", "allocations")];

/// Counts allocations, and panics if there are more than `most`.
fn count(most: u64, run: impl FnOnce() -> u64) -> Outcome {
    let mut checksum = 0;
    let count = measure(|| checksum = run()).count_total;
    assert!(count <= most, "{count} allocations, at most {most} are expected");
    (vec![count as f64], checksum)
}

/// Frames, lent and owned. No way to frame may allocate for each frame, except `Channel::next`. Those with owned frames
/// may allocate a new buffer for each read, and do so while frames of the old one are kept.
fn frames(bench: &mut Bench) {
    let size = bench.size(4 << 20, 1 << 18);
    let reads = size.div_ceil(READ) as u64 + 8;
    type Codec = fn() -> FrameCodec;
    for (ending, end, codec) in
        [("LF", &b"\n"[..], FrameCodec::lf as Codec), ("CRLF", b"\r\n", FrameCodec::crlf)]
    {
        let Some(row) = bench.row(&format!("allocations, lines, {ending}")) else { continue };
        let lines = Lines::new(size, end, Shape::Random);
        let input = &*lines.input;
        let reader = || Reader::new(input);
        let plain = ours::plain(delimiter(end));
        let mut window = Window::new(2 * READ);
        let row = lines
            .work(row)
            .measures(&MEASURES)
            .rounds(1)
            .ours_measured("Framer, events", || {
                count(0, || {
                    ours::framer::<Events, _>(
                        Frames::default(),
                        delimiter(end),
                        input,
                        READ,
                        &mut window,
                    )
                })
            })
            .ours_measured("TerminatorCodec", || {
                count(reads, || ours::terminator_codec(Frames::default(), delimiter(end), reader()))
            })
            .ours_measured("FrameCodec", || count(reads, || ours::frame_codec(codec(), reader())))
            .ours_measured("FrameCodec, batches", || {
                // Each batch allocates a list of its frames, and buffers are allocated anew when they grow.
                count(4 * reads, || ours::batch_codec(codec(), reader()))
            })
            .ours_measured("Channel, next", || {
                // Each short chunk is copied, so that an application that keeps it does not keep the read buffer.
                count(u64::MAX, || ours::pulled(Frames::default(), &plain, reader()))
            })
            .ours_measured("Channel, step", || {
                count(2 * reads, || {
                    ours::stepping_channel(Frames::default(), &plain, false, reader())
                })
            })
            .ours_measured("Handler", || {
                count(2 * reads, || ours::handler(Frames::default(), &plain, reader()))
            })
            .peer_measured("LinesCodec", || count(u64::MAX, || lines_codec(reader(), READ)));
        match end {
            b"\n" => row.peer_measured("AnyDelimiterCodec", || {
                count(u64::MAX, || any_delimiter_codec(reader()))
            }),
            _ => row,
        }
        .run();
    }
}

/// Items pushed into a `ProducerSink` whose writer takes all bytes at once.
fn items(bench: &mut Bench) {
    let items = bench.size(1 << 20, 1 << 12);
    for size in [64, 4 << 10] {
        let Some(row) = bench.row(&format!("allocations, pushes of {size} B")) else { continue };
        let item = Bytes::from(vec![7; size]);
        // The first clone of a `Bytes` allocates what counts its references. That is not the sink's allocation.
        drop(item.clone());
        row.work(items, "item", 0)
            .measures(&MEASURES)
            .rounds(1)
            .ours_measured("ProducerSink", || count(100, || push(&item, items)))
            .run();
    }
}

fn push(item: &Bytes, items: usize) -> u64 {
    let mut tally = Tally::default();
    complete(async {
        let mut sink = ProducerSink::new(FramedWrite::new(tokio::io::sink(), BytesCodec::new()));
        for _ in 0..items {
            sink.ready().await.expect("it takes all");
            sink.push(item.clone()).expect("it is open");
            tally.frame(item);
        }
        sink.close().await.expect("it takes all");
    });
    tally.sum()
}

fn main() {
    let mut bench = Bench::from_args();
    frames(&mut bench);
    items(&mut bench);
    bench.finish();
}
