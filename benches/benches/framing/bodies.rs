//! Bodies of a mebibyte by their length, and one of 64 by its end.

use asynchat::{Event, Framer, Terminator, TerminatorCodec};
use asynchat_benches::io::{READ, Reader, Window, complete, drain, drain_with};
use asynchat_benches::{Bench, Tally, input};
use std::hint::black_box;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio_util::codec::{BytesCodec, FramedRead, LengthDelimitedCodec};

use crate::ours;

const BODY: usize = 1 << 20;

/// Lengths and bodies in turn: what is the same to everybody who is told events.
#[derive(Default)]
struct Bodies {
    tally: Tally,
    in_body: bool,
    length: u64,
}

impl Bodies {
    fn chunk(&mut self, chunk: &[u8]) {
        if self.in_body {
            self.tally.chunk(chunk);
        } else {
            for &byte in chunk {
                self.length = self.length << 8 | u64::from(byte);
            }
        }
    }

    /// What the count goes on with.
    fn end(&mut self) -> u64 {
        self.in_body = !self.in_body;
        if self.in_body {
            std::mem::take(&mut self.length)
        } else {
            self.tally.end();
            4
        }
    }
}

fn framer(input: &[u8], times: usize, window: &mut Window) -> u64 {
    let mut framer = Framer::new(4);
    let mut bodies = Bodies::default();
    window.clear();
    for read in std::iter::repeat_n(input, times).flat_map(|input| input.chunks(READ)) {
        window.fill(read);
        while let Some(event) = framer.next(window.filled()).expect("no limit") {
            match event {
                Event::Chunk(chunk) => bodies.chunk(chunk),
                Event::Terminator => framer.set_terminator(bodies.end()),
                Event::Overlong | Event::Truncated => unreachable!("no limit, no end"),
            }
        }
        window.consume(framer.take_consumed());
    }
    bodies.tally.sum()
}

fn terminator_codec(reader: Reader<'_>) -> u64 {
    let mut bodies = Bodies::default();
    let framed = FramedRead::with_capacity(reader, TerminatorCodec::new(4), READ);
    drain_with(framed, |framed, event| match event.expect("no limit") {
        Event::Chunk(chunk) => bodies.chunk(&chunk),
        Event::Terminator => framed.decoder_mut().set_terminator(bodies.end()),
        Event::Overlong => unreachable!("no limit"),
        // The last thing waited for is a length that does not come.
        Event::Truncated => assert!(!bodies.in_body && bodies.length == 0),
    });
    bodies.tally.sum()
}

/// Doesn't look for the bodies at all: hands on what each read brought.
fn bytes_codec(reader: Reader<'_>) -> u64 {
    let mut tally = Tally::default();
    drain(FramedRead::with_capacity(reader, BytesCodec::new(), READ), |bytes| {
        tally.chunk(&bytes.expect("memory"))
    });
    tally.sum()
}

/// Gathers the whole body before it hands it on.
fn length_delimited_codec(reader: Reader<'_>) -> u64 {
    let mut tally = Tally::default();
    drain(FramedRead::with_capacity(reader, LengthDelimitedCodec::new(), READ), |body| {
        tally.frame(&body.expect("well-formed"))
    });
    tally.sum()
}

pub fn counted(bench: &mut Bench) {
    let times = bench.size(4, 1);
    for (name, lent) in [("1 MiB bodies, owned events", false), ("1 MiB bodies, lent", true)] {
        let Some(row) = bench.row(name) else { continue };
        let bodies = input::bodies(4, BODY);
        let input = bodies.concat();
        let count = times * bodies.len();
        let total = times * input.len();
        let mut tally = Tally::default();
        for body in std::iter::repeat_n(&bodies, times).flatten() {
            tally.frame(&body[4..]);
        }
        let mut window = Window::new(2 * READ);
        let reader = Reader::repeating(&input, times);
        let row = row.work(count, total).expect(tally.sum());
        if lent {
            row.with("Framer", || framer(&input, times, &mut window))
        } else {
            row.with("TerminatorCodec", || terminator_codec(reader.clone()))
        }
        .against("BytesCodec", 1.10, 1.03, || bytes_codec(reader.clone()))
        .expecting(total as u64)
        .against("LengthDelimitedCodec", 0.55, 0.50, || length_delimited_codec(reader.clone()))
        .run();
    }
}

/// Gathers all of it, in a buffer that grows from nothing, as for the first such frame.
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

/// What it costs to receive the input at all.
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

pub fn huge(bench: &mut Bench) {
    let size = bench.size(64 << 20, 1 << 20);
    for (name, end) in [
        ("one LF after 64 MiB, lent", &b"\n"[..]),
        ("one CRLF after 64 MiB, lent", b"\r\n"),
        ("one CRLFCRLF after 64 MiB, lent", b"\r\n\r\n"),
    ] {
        let Some(row) = bench.row(name) else { continue };
        let mut input = Vec::with_capacity(size + end.len());
        input::Random::new(6).letters(size, &mut input);
        let mut tally = Tally::default();
        tally.frame(&input);
        input.extend_from_slice(end);
        let (mut window, mut other) = (Window::new(2 * READ), Window::new(2 * READ));
        let mut buf = Vec::new();
        let row = row.work(1, input.len()).expect(tally.sum()).with("Framer", || {
            let end = Terminator::try_from(end).expect("not empty");
            ours::framer(end, &input, READ, &mut window)
        });
        let row = if end == b"\n" {
            row.against("read_until", 0.09, 0.07, || {
                read_until(Reader::new(&input), &mut Vec::new())
            })
            .beside("read_until, into a buffer that has grown", || {
                read_until(Reader::new(&input), &mut buf)
            })
        } else {
            row
        };
        row.against("a bare copy", 1.5, 1.2, || copy(&input, &mut other))
            .expecting(input.len() as u64)
            .run();
    }
}
