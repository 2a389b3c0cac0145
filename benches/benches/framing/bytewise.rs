//! One byte at a time.

use asynchat::{Frame, FrameCodec};
use asynchat_benches::input::Shape;
use asynchat_benches::io::{READ, Reader, Window};
use asynchat_benches::lines::{Lines, lines_codec};
use asynchat_benches::ours::{self, Frames, delimiter};
use asynchat_benches::{Bench, Tally};
use bytes::BytesMut;
use memchr::memmem;
use tokio_util::codec::{Decoder, LinesCodec};

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
    let size = bench.size(1 << 18, 1 << 14);
    type Part = fn() -> Vec<u8>;
    for (called, needle, part) in [
        (
            "a..ab in a..",
            (|| [&[b'a'; 4095][..], b"b"].concat()) as Part,
            (|| vec![b'a']) as Part,
        ),
        (
            "ba..a in (ba..)..",
            || [b"b", &[b'a'; 4095][..]].concat(),
            || [b"b", &[b'a'; 4094][..]].concat(),
        ),
        ("(ab)..ac in (ab)..", || [&b"ab".repeat(2047)[..], b"ac"].concat(), || b"ab".to_vec()),
    ] {
        let Some(row) = bench.row(&format!("4 KiB delimiter, by 1 byte, {called}")) else {
            continue;
        };
        let needle = needle();
        let mut input: Vec<u8> = part().into_iter().cycle().take(size).collect();
        input.extend_from_slice(&needle);
        let mut tally = Tally::default();
        let end = memmem::find(&input, &needle).expect("it is there");
        tally.frame(&input[..end]);
        input.truncate(end + needle.len());
        let borders = borders(&needle);
        let (mut window, mut other) = (Window::new(READ), Window::new(READ));
        let (end, plain) = (delimiter(&needle), ours::plain(delimiter(&needle)));
        row.work(input.len(), "byte", input.len())
            .expect(tally.sum())
            .ours("Framer, events", || {
                ours::framer(Frames::default(), end.clone(), &input, 1, &mut window)
            })
            .goal("an automaton", 1.3)
            .ours("Channel, Handler", || {
                ours::handler(Frames::default(), &plain, Reader::dribbling(&input, 1))
            })
            .peer("an automaton", || automaton(&needle, &borders, &input, &mut other))
            .peer("an automaton without a buffer", || bare_automaton(&needle, &borders, &input))
            .run();
    }
}

pub fn lines(bench: &mut Bench) {
    let size = bench.size(1 << 18, 1 << 14);
    type Codec = fn() -> FrameCodec;
    for (ending, end, codec) in
        [("LF", &b"\n"[..], FrameCodec::lf as Codec), ("CRLF", b"\r\n", FrameCodec::crlf)]
    {
        let Some(row) = bench.row(&format!("lines by 1 byte, {ending}")) else { continue };
        let lines = Lines::new(size, end, Shape::Random);
        let input = &*lines.input;
        let reader = || Reader::dribbling(input, 1);
        let plain = ours::plain(delimiter(end));
        let mut window = Window::new(READ);
        row.work(input.len(), "byte", input.len())
            .expect(lines.checksum)
            .ours("Framer, events", || {
                ours::framer(Frames::default(), delimiter(end), input, 1, &mut window)
            })
            .goal("LinesCodec", 0.90)
            .ours("FrameCodec", || ours::frame_codec(codec(), reader()))
            .goal("LinesCodec", 0.60)
            .ours("FrameCodec, decode alone", || {
                decode(codec(), input, |tally, frame| match frame {
                    Frame::Complete(frame) => tally.frame(&frame),
                    Frame::Overlong(_) | Frame::Truncated(_) => unreachable!("whole frames"),
                })
            })
            .ours("Channel, Handler", || ours::handler(Frames::default(), &plain, reader()))
            .goal("LinesCodec", 1.2)
            .peer("LinesCodec", || lines_codec(reader(), READ))
            .peer("LinesCodec, decode alone", || {
                decode(LinesCodec::new(), input, |tally, line| tally.frame(line.as_bytes()))
            })
            .run();
    }
}

/// What a decoder does of it, without what reads and polls.
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
