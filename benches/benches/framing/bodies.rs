//! Bodies of 1 MiB that are found by their length, and one of 64 MiB that is found by its end.

use std::hint::black_box;

use asynchat_benches::io::{READ, Reader, Window, complete, drain};
use asynchat_benches::ours::{self, Aim, Events, Frames, Protocol, Sum, delimiter};
use asynchat_benches::{Bench, Tally, input};
use memchr::{memchr, memmem};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio_util::codec::{BytesCodec, FramedRead, LengthDelimitedCodec};

const BODY: usize = 1 << 20;

/// A protocol of a length in four bytes and a body, in turn.
#[derive(Default)]
struct Bodies {
    tally: Tally,
    in_body: bool,
    length: u64,
}

impl Protocol for Bodies {
    #[inline]
    fn chunk(&mut self, chunk: &[u8]) {
        if self.in_body {
            self.tally.chunk(chunk);
        } else {
            for &byte in chunk {
                self.length = self.length << 8 | u64::from(byte);
            }
        }
    }

    #[inline]
    fn end(&mut self, aim: &mut impl Aim) {
        self.in_body = !self.in_body;
        if self.in_body {
            aim.set_terminator(std::mem::take(&mut self.length));
        } else {
            self.tally.end();
            aim.set_terminator(4);
        }
    }

    /// The input ends where the next length would begin.
    fn truncated(&self) {
        assert!(!self.in_body && self.length == 0, "whole bodies");
    }
}

impl Sum for Bodies {
    fn sum(&self) -> u64 {
        self.tally.sum()
    }
}

/// Does not look for the bodies at all, but passes on each read.
fn bytes_codec(reader: Reader<'_>) -> u64 {
    let mut tally = Tally::default();
    drain(FramedRead::with_capacity(reader, BytesCodec::new(), READ), |bytes| {
        tally.chunk(&bytes.expect("memory"))
    });
    tally.sum()
}

/// Buffers a whole body before it passes it on.
fn length_delimited_codec(reader: Reader<'_>) -> u64 {
    let mut tally = Tally::default();
    drain(FramedRead::with_capacity(reader, LengthDelimitedCodec::new(), READ), |body| {
        tally.frame(&body.expect("well-formed"))
    });
    tally.sum()
}

pub fn counted(bench: &mut Bench) {
    let Some(row) = bench.row("1 MiB bodies by their length") else { return };
    // These are few enough for the processor's cache. Otherwise only the speed of memory would be measured.
    let bodies = input::bodies(4, BODY);
    let input = bodies.concat();
    let mut tally = Tally::default();
    bodies.iter().for_each(|body| tally.frame(&body[4..]));
    let reader = || Reader::new(&input);
    let mut window = Window::new(2 * READ);
    let plain = ours::plain(4.into());
    row.work(bodies.len(), "body", input.len())
        .expect(tally.sum())
        .ours("Framer, events", || {
            ours::framer::<Events, _>(Bodies::default(), 4.into(), &input, READ, &mut window)
        })
        .goal("LengthDelimitedCodec", 0.45)
        .ours("TerminatorCodec", || ours::terminator_codec(Bodies::default(), 4.into(), reader()))
        .goal("BytesCodec, a bare copy", 1.03)
        .goal("LengthDelimitedCodec", 0.45)
        .ours("Channel, next", || ours::pulled(Bodies::default(), &plain, reader()))
        .ours("Handler", || ours::handler(Bodies::default(), &plain, reader()))
        .peer("LengthDelimitedCodec", || length_delimited_codec(reader()))
        .peer("BytesCodec, a bare copy", || bytes_codec(reader()))
        .expecting(input.len() as u64)
        .run();
}

/// Buffers the whole frame, in a buffer that grows from nothing, as for the first frame of a connection.
fn read_until(reader: Reader<'_>, buf: &mut Vec<u8>) -> u64 {
    let mut tally = Tally::default();
    let mut reader = BufReader::with_capacity(READ, reader);
    complete(async {
        while reader.read_until(b'\n', buf).await.expect("memory") > 0 {
            tally.frame(&buf[..buf.len() - 1]);
            buf.clear();
        }
    });
    tally.sum()
}

/// What it costs only to receive the input.
fn copy(input: &[u8], window: &mut Window) -> u64 {
    let mut tally = Tally::default();
    window.clear();
    for read in input.chunks(READ) {
        window.fill(read);
        tally.chunk(black_box(window.filled()));
        window.consume(read.len());
    }
    tally.sum()
}

/// Searches the whole input for the end in one call, where it lies in memory.
fn search(input: &[u8], end: &[u8]) -> u64 {
    let at = match end {
        [byte] => memchr(*byte, input),
        _ => memmem::find(input, end),
    };
    let mut tally = Tally::default();
    tally.frame(&input[..at.expect("it is there")]);
    tally.sum()
}

pub fn huge(bench: &mut Bench) {
    let size = bench.size(64 << 20, 1 << 20);
    for (called, end, goal) in
        [("LF", &b"\n"[..], 1.1), ("CRLF", b"\r\n", 1.2), ("CRLFCRLF", b"\r\n\r\n", 1.2)]
    {
        let Some(row) = bench.row(&format!("one {called} after {} MiB", size >> 20)) else {
            continue;
        };
        let mut input = Vec::with_capacity(size + end.len());
        input::Random::new(6).letters(size, &mut input);
        let mut tally = Tally::default();
        tally.frame(&input);
        input.extend_from_slice(end);
        let input = &*input;
        let mut windows = [(); 3].map(|()| Window::new(2 * READ));
        let [window, small, other] = &mut windows;
        const SEARCH: &str = "memchr or memmem over the whole";
        const COPY: &str = "a bare copy";
        let row = row
            .work(1, "frame", input.len())
            .expect(tally.sum())
            .ours("Framer, events", || {
                ours::framer::<Events, _>(Frames::default(), delimiter(end), input, READ, window)
            })
            .goal(COPY, 1.2)
            .ours("Framer, events, 4 KiB reads", || {
                ours::framer::<Events, _>(Frames::default(), delimiter(end), input, 4096, small)
            })
            .ours("Framer, events, uncopied", || {
                ours::framer_in_place(Frames::default(), delimiter(end), input, READ)
            })
            .ours("Framer, events, uncopied, 4 KiB reads", || {
                ours::framer_in_place(Frames::default(), delimiter(end), input, 4096)
            })
            .goal(SEARCH, goal)
            .peer(SEARCH, || search(input, end))
            .peer(COPY, || copy(input, other))
            .expecting(input.len() as u64);
        match end {
            b"\n" => row.peer("read_until", || read_until(Reader::new(input), &mut Vec::new())),
            _ => row,
        }
        .run();
    }
}
