//! Heads of HTTP requests, of some 400 bytes, ended by a blank line.

use asynchat::{Delimiter, FrameCodec, Terminator};
use asynchat_benches::io::{READ, Reader, Window, complete};
use asynchat_benches::{Bench, Tally, input};
use memchr::memmem;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::ours;

const END: &[u8; 4] = b"\r\n\r\n";

struct Heads {
    input: Vec<u8>,
    count: usize,
    checksum: u64,
}

impl Heads {
    fn new(count: usize) -> Heads {
        let input = input::heads(count);
        let (mut tally, mut start) = (Tally::default(), 0);
        for end in memmem::find_iter(&input, END) {
            tally.frame(&input[start..end]);
            start = end + END.len();
        }
        Heads { input, count, checksum: tally.sum() }
    }
}

/// Hands out whole heads only: what is left of a read waits for the next, and is searched again.
fn find_iter(input: &[u8], window: &mut Window) -> u64 {
    let finder = memmem::Finder::new(END);
    let mut tally = Tally::default();
    window.clear();
    for read in input.chunks(READ) {
        window.fill(read);
        let (filled, mut start) = (window.filled(), 0);
        for end in finder.find_iter(filled) {
            tally.frame(&filled[start..end]);
            start = end + END.len();
        }
        window.consume(start);
    }
    tally.sum()
}

/// Copies line after line into one buffer, until a line is blank.
fn read_until(reader: Reader<'_>) -> u64 {
    let mut tally = Tally::default();
    let mut reader = BufReader::with_capacity(READ, reader);
    let mut head = Vec::new();
    complete(async {
        while reader.read_until(b'\n', &mut head).await.expect("memory") > 0 {
            if head.ends_with(END) {
                tally.frame(&head[..head.len() - END.len()]);
                head.clear();
            }
        }
    });
    tally.sum()
}

pub fn lent(bench: &mut Bench) {
    let count = bench.size(10_000, 500);
    let Some(row) = bench.row("HTTP heads, lent") else {
        return;
    };
    let heads = Heads::new(count);
    let (mut window, mut other) = (Window::new(2 * READ), Window::new(2 * READ));
    row.work(heads.count, heads.input.len())
        .expect(heads.checksum)
        .with("Framer", || ours::framer(Terminator::from(END), &heads.input, READ, &mut window))
        .against("memmem::find_iter", 1.05, 1.0, || find_iter(&heads.input, &mut other))
        .beside("read_until", || read_until(Reader::new(&heads.input)))
        .run();
}

pub fn owned(bench: &mut Bench) {
    let count = bench.size(10_000, 500);
    if let Some(row) = bench.row("HTTP heads, owned events") {
        let heads = Heads::new(count);
        row.work(heads.count, heads.input.len())
            .expect(heads.checksum)
            .with("TerminatorCodec", || {
                ours::terminator_codec(Terminator::from(END), Reader::new(&heads.input))
            })
            .against("read_until", 0.43, 0.38, || read_until(Reader::new(&heads.input)))
            .run();
    }
    if let Some(row) = bench.row("HTTP heads, whole frames") {
        let heads = Heads::new(count);
        let end = Delimiter::new(END).expect("not empty");
        row.work(heads.count, heads.input.len())
            .expect(heads.checksum)
            .with("FrameCodec", || {
                ours::frame_codec(FrameCodec::new(end.clone()), Reader::new(&heads.input))
            })
            .against("read_until", 0.43, 0.38, || read_until(Reader::new(&heads.input)))
            .run();
    }
}
