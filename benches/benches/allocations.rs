//! How often framing allocates: a count, not a time.
//!
//! `cargo bench -p asynchat-benches --bench allocations`
//!
//! In a binary of its own, for the allocator that counts would disturb the clock. Everything is
//! counted, the first buffer included: what is allocated once, or once for a read, shows as next to
//! nothing for a frame.

#![forbid(unsafe_code)]

use allocation_counter::measure;
use asynchat::{Event, Frame, FrameCodec, Framer, TerminatorCodec};
use asynchat_benches::io::{READ, Reader, Window, drain};
use asynchat_benches::{Tally, input};
use tokio_util::codec::{AnyDelimiterCodec, Decoder, FramedRead, LinesCodec};

const SIZE: usize = 4 << 20;

struct Lines {
    input: Vec<u8>,
    count: u64,
    checksum: u64,
}

impl Lines {
    fn new(end: &[u8]) -> Lines {
        let input = input::lines(SIZE, end);
        let (mut count, mut tally) = (0, Tally::default());
        for line in input.split_inclusive(|&b| b == b'\n') {
            tally.frame(&line[..line.len() - end.len()]);
            count += 1;
        }
        Lines { input, count, checksum: tally.sum() }
    }

    fn count(&self, name: &str, run: impl FnOnce() -> u64) -> u64 {
        let mut checksum = 0;
        let info = measure(|| checksum = run());
        assert_eq!(checksum, self.checksum, "{name} came to another checksum");
        let per_frame = info.count_total as f64 / self.count as f64;
        println!("{name:<30} {:>11} {:>13} {per_frame:>12.6}", info.count_total, info.bytes_total);
        info.count_total
    }

    fn through<D: Decoder>(&self, codec: D, mut each: impl FnMut(&mut Tally, D::Item)) -> u64
    where
        D::Error: std::fmt::Debug,
    {
        let mut tally = Tally::default();
        let framed = FramedRead::with_capacity(Reader::new(&self.input), codec, READ);
        drain(framed, |item| each(&mut tally, item.expect("well-formed")));
        tally.sum()
    }

    fn lent(&self, framer: &mut Framer, window: &mut Window) -> u64 {
        let mut tally = Tally::default();
        for read in self.input.chunks(READ) {
            window.fill(read);
            while let Some(event) = framer.next(window.filled()).expect("no limit") {
                match event {
                    Event::Chunk(chunk) => tally.chunk(chunk),
                    Event::Terminator => tally.end(),
                    Event::Overlong | Event::Truncated => unreachable!("no limit, no end"),
                }
            }
            window.consume(framer.take_consumed());
        }
        tally.sum()
    }
}

fn main() {
    println!("{:<30} {:>11} {:>13} {:>12}", "who", "allocations", "bytes", "a frame");
    let (lf, crlf) = (Lines::new(b"\n"), Lines::new(b"\r\n"));
    // What frames are made of may be taken anew for each read, and is, if they are kept.
    let most = SIZE.div_ceil(READ) as u64 + 8;

    let mut window = Window::new(2 * READ);
    let mut framer = Framer::new(b"\n");
    let count = lf.count("Framer, LF", || lf.lent(&mut framer, &mut window));
    assert_eq!(count, 0, "lending allocates nothing");
    let mut framer = Framer::new(b"\r\n");
    let count = crlf.count("Framer, CRLF", || crlf.lent(&mut framer, &mut window));
    assert_eq!(count, 0, "lending allocates nothing");

    for (name, lines, codec) in [
        ("TerminatorCodec, LF", &lf, TerminatorCodec::new(b"\n")),
        ("TerminatorCodec, CRLF", &crlf, TerminatorCodec::new(b"\r\n")),
    ] {
        let count = lines.count(name, || {
            lines.through(codec, |tally, event| match event {
                Event::Chunk(chunk) => tally.chunk(&chunk),
                Event::Terminator => tally.end(),
                Event::Overlong | Event::Truncated => unreachable!("no limit, whole frames"),
            })
        });
        assert!(count <= most, "at most one allocation a read");
    }
    for (name, lines, codec) in
        [("FrameCodec, LF", &lf, FrameCodec::lf()), ("FrameCodec, CRLF", &crlf, FrameCodec::crlf())]
    {
        let count = lines.count(name, || {
            lines.through(codec, |tally, frame| match frame {
                Frame::Complete(frame) => tally.frame(&frame),
                Frame::Overlong(_) | Frame::Truncated(_) => unreachable!("short, whole frames"),
            })
        });
        assert!(count <= most, "at most one allocation a read");
    }

    let count = lf.count("BatchCodec, LF", || {
        lf.through(FrameCodec::lf().batched(), |tally, frames| match frames {
            Frame::Complete(batch) => batch.iter().for_each(|frame| tally.frame(frame)),
            Frame::Overlong(_) | Frame::Truncated(_) => unreachable!("short, whole frames"),
        })
    });
    // A batch has a list of its frames, and the buffer is taken anew when it grows.
    assert!(count <= 4 * most, "a few allocations a read");

    lf.count("LinesCodec, LF", || {
        lf.through(LinesCodec::new(), |tally, line| tally.frame(line.as_bytes()))
    });
    lf.count("AnyDelimiterCodec, LF", || {
        let codec = AnyDelimiterCodec::new(b"\n".to_vec(), b"\n".to_vec());
        lf.through(codec, |tally, line| tally.frame(&line))
    });
}
