//! One byte at a time.

use asynchat::{Frame, FrameCodec, Terminator};
use asynchat_benches::io::{READ, Reader, Window};
use asynchat_benches::lines::lines_codec;
use asynchat_benches::{Bench, Tally, input};
use bytes::BytesMut;
use tokio_util::codec::{Decoder, LinesCodec};

use crate::ours;

/// The longest proper border of each prefix of the needle, itself included: what the automaton falls
/// back to.
fn borders(needle: &[u8]) -> Vec<usize> {
    let mut borders = vec![0; needle.len()];
    let mut k = 0;
    for i in 1..needle.len() {
        while k > 0 && needle[k] != needle[i] {
            k = borders[k - 1];
        }
        k += usize::from(needle[k] == needle[i]);
        borders[i] = k;
    }
    borders
}

/// A plain Knuth-Morris-Pratt automaton over the same buffer: a step for each byte, and then what
/// can no longer belong to the needle is handed out and done with.
fn automaton(needle: &[u8], borders: &[usize], input: &[u8], window: &mut Window) -> u64 {
    let mut tally = Tally::default();
    let mut state = 0;
    window.clear();
    for read in input.chunks(1) {
        window.fill(read);
        let byte = read[0];
        while state > 0 && needle[state] != byte {
            state = borders[state - 1];
        }
        state += usize::from(needle[state] == byte);
        let filled = window.filled();
        let done = if state == needle.len() {
            if filled.len() > needle.len() {
                tally.chunk(&filled[..filled.len() - needle.len()]);
            }
            tally.end();
            state = 0;
            filled.len()
        } else {
            let released = filled.len() - state;
            if released > 0 {
                tally.chunk(&filled[..released]);
            }
            released
        };
        window.consume(done);
    }
    tally.sum()
}

/// The same, without a buffer: what is withheld is known to be a prefix of the needle.
fn bare_automaton(needle: &[u8], borders: &[usize], input: &[u8]) -> u64 {
    let mut tally = Tally::default();
    let mut state = 0;
    for &byte in input {
        let before = state;
        while state > 0 && needle[state] != byte {
            state = borders[state - 1];
        }
        if needle[state] == byte {
            state += 1;
            if state <= before {
                tally.chunk(&needle[..before + 1 - state]);
            }
        } else {
            if before > 0 {
                tally.chunk(&needle[..before]);
            }
            tally.chunk(&[byte]);
        }
        if state == needle.len() {
            tally.end();
            state = 0;
        }
    }
    tally.sum()
}

pub fn periodic(bench: &mut Bench) {
    let size = bench.size(1 << 20, 1 << 15);
    let Some(row) = bench.row("4 KiB periodic terminator, bytewise") else {
        return;
    };
    let mut needle = vec![b'a'; 4096];
    needle[4095] = b'b';
    let mut input = vec![b'a'; size];
    input.push(b'b');
    let mut tally = Tally::default();
    tally.frame(&input[..input.len() - needle.len()]);
    let borders = borders(&needle);
    let (mut window, mut other) = (Window::new(READ), Window::new(READ));
    row.work(input.len(), input.len())
        .expect(tally.sum())
        .with("Framer", || {
            let end = Terminator::try_from(&*needle).expect("not empty");
            ours::framer(end, &input, 1, &mut window)
        })
        .against("an automaton", 1.3, 1.1, || automaton(&needle, &borders, &input, &mut other))
        .beside("an automaton without a buffer", || bare_automaton(&needle, &borders, &input))
        .run();
}

pub fn frames(bench: &mut Bench) {
    let size = bench.size(1 << 18, 1 << 14);
    if let Some(row) = bench.row("lines, whole frames, bytewise") {
        let input = input::lines(size, b"\n");
        row.work(input.len(), input.len())
            .with("FrameCodec", || {
                ours::frame_codec(FrameCodec::lf(), Reader::dribbling(&input, 1))
            })
            .against("LinesCodec", 0.65, 0.50, || lines_codec(Reader::dribbling(&input, 1), READ))
            .run();
    }
    if let Some(row) = bench.row("CRLF lines, whole frames, bytewise") {
        let input = input::lines(size, b"\r\n");
        row.work(input.len(), input.len())
            .with("FrameCodec", || {
                ours::frame_codec(FrameCodec::crlf(), Reader::dribbling(&input, 1))
            })
            .against("LinesCodec", 0.65, 0.50, || lines_codec(Reader::dribbling(&input, 1), READ))
            .run();
    }
}

/// What the decoders do of it, without what reads and polls.
pub fn decoders(bench: &mut Bench) {
    let size = bench.size(1 << 18, 1 << 14);
    for (name, end, codec) in [
        ("lines, whole frames, bytewise, decode alone", &b"\n"[..], FrameCodec::lf()),
        ("CRLF lines, whole frames, bytewise, decode alone", b"\r\n", FrameCodec::crlf()),
    ] {
        let Some(row) = bench.row(name) else { continue };
        let input = input::lines(size, end);
        row.work(input.len(), input.len())
            .with("FrameCodec", || {
                decode(codec.clone(), &input, |tally, frame| match frame {
                    Frame::Complete(frame) => tally.frame(&frame),
                    Frame::Overlong(_) | Frame::Truncated(_) => unreachable!("whole frames"),
                })
            })
            .against("LinesCodec", 0.65, 0.50, || {
                decode(LinesCodec::new(), &input, |tally, line| tally.frame(line.as_bytes()))
            })
            .run();
    }
}

fn decode<D: Decoder>(mut codec: D, input: &[u8], each: impl Fn(&mut Tally, D::Item)) -> u64
where
    D::Error: std::fmt::Debug,
{
    let mut tally = Tally::default();
    let mut buffer = BytesMut::with_capacity(READ);
    for &byte in input {
        buffer.extend_from_slice(&[byte]);
        while let Some(item) = codec.decode(&mut buffer).expect("well-formed") {
            each(&mut tally, item);
        }
    }
    tally.sum()
}
