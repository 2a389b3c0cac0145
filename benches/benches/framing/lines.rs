//! Lines of 0 to 64 bytes, 32 on average.

use asynchat::{FrameCodec, Terminator};
use asynchat_benches::Bench;
use asynchat_benches::io::{READ, Reader, Window};
use asynchat_benches::lines::{Lines, any_delimiter_codec, lines_codec, read_until};

use crate::ours;

pub fn lent(bench: &mut Bench) {
    let size = bench.size(4 << 20, 1 << 18);
    if let Some(row) = bench.row("lines, lent") {
        let lines = Lines::new(size, b"\n");
        let mut window = Window::new(2 * READ);
        lines
            .work(row)
            .with("Framer", || {
                ours::framer(Terminator::from(b"\n"), &lines.input, READ, &mut window)
            })
            .against("LinesCodec", 0.165, 0.13, || lines_codec(Reader::new(&lines.input), READ))
            .against("AnyDelimiterCodec", 0.25, 0.20, || {
                any_delimiter_codec(Reader::new(&lines.input))
            })
            .against("read_until", 0.40, 0.33, || read_until(Reader::new(&lines.input), 1))
            .beside("LinesCodec, default capacity", || {
                lines_codec(Reader::new(&lines.input), 8 * 1024)
            })
            .run();
    }
    if let Some(row) = bench.row("CRLF lines, lent") {
        let lines = Lines::new(size, b"\r\n");
        let mut window = Window::new(2 * READ);
        lines
            .work(row)
            .with("Framer", || {
                ours::framer(Terminator::from(b"\r\n"), &lines.input, READ, &mut window)
            })
            .against("LinesCodec", 0.165, 0.13, || lines_codec(Reader::new(&lines.input), READ))
            .against("read_until", 0.40, 0.33, || read_until(Reader::new(&lines.input), 2))
            .run();
    }
}

pub fn owned(bench: &mut Bench) {
    let size = bench.size(4 << 20, 1 << 18);
    if let Some(row) = bench.row("lines, owned events") {
        let lines = Lines::new(size, b"\n");
        lines
            .work(row)
            .with("TerminatorCodec", || {
                ours::terminator_codec(Terminator::from(b"\n"), Reader::new(&lines.input))
            })
            .against("LinesCodec", 0.42, 0.37, || lines_codec(Reader::new(&lines.input), READ))
            .against("AnyDelimiterCodec", 0.60, 0.54, || {
                any_delimiter_codec(Reader::new(&lines.input))
            })
            .run();
    }
    if let Some(row) = bench.row("CRLF lines, owned events") {
        let lines = Lines::new(size, b"\r\n");
        lines
            .work(row)
            .with("TerminatorCodec", || {
                ours::terminator_codec(Terminator::from(b"\r\n"), Reader::new(&lines.input))
            })
            .against("LinesCodec", 0.42, 0.37, || lines_codec(Reader::new(&lines.input), READ))
            .run();
    }
}

pub fn frames(bench: &mut Bench) {
    single_ending(bench);
    either_ending(bench);
}

fn single_ending(bench: &mut Bench) {
    let size = bench.size(4 << 20, 1 << 18);
    if let Some(row) = bench.row("lines, whole frames") {
        let lines = Lines::new(size, b"\n");
        lines
            .work(row)
            .with("FrameCodec", || ours::frame_codec(FrameCodec::lf(), Reader::new(&lines.input)))
            .against("LinesCodec", 0.42, 0.35, || lines_codec(Reader::new(&lines.input), READ))
            .against("AnyDelimiterCodec", 0.60, 0.50, || {
                any_delimiter_codec(Reader::new(&lines.input))
            })
            .run();
    }
    if let Some(row) = bench.row("CRLF lines, whole frames") {
        let lines = Lines::new(size, b"\r\n");
        lines
            .work(row)
            .with("FrameCodec", || ours::frame_codec(FrameCodec::crlf(), Reader::new(&lines.input)))
            .against("LinesCodec", 0.42, 0.35, || lines_codec(Reader::new(&lines.input), READ))
            .run();
    }
}

fn either_ending(bench: &mut Bench) {
    let size = bench.size(4 << 20, 1 << 18);
    let Some(row) = bench.row("CRLF or LF lines, whole frames") else { return };
    let lines = Lines::new(size, b"\n");
    lines
        .work(row)
        .with("FrameCodec", || {
            ours::frame_codec(FrameCodec::crlf_or_lf(), Reader::new(&lines.input))
        })
        .against("LinesCodec", 0.42, 0.35, || lines_codec(Reader::new(&lines.input), READ))
        .run();
}

pub fn batches(bench: &mut Bench) {
    let size = bench.size(4 << 20, 1 << 18);
    for (name, end, codec) in [
        ("lines, batches", &b"\n"[..], FrameCodec::lf as fn() -> FrameCodec),
        ("CRLF lines, batches", b"\r\n", FrameCodec::crlf),
    ] {
        let Some(row) = bench.row(name) else { continue };
        let lines = Lines::new(size, end);
        lines
            .work(row)
            .with("BatchCodec", || ours::batch_codec(codec(), Reader::new(&lines.input)))
            .against("LinesCodec", 0.15, 0.13, || lines_codec(Reader::new(&lines.input), READ))
            .run();
    }
}
