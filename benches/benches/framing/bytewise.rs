//! Input that comes one byte at a time.

use asynchat::{Frame, FrameCodec};
use asynchat_benches::input::Shape;
use asynchat_benches::io::{READ, Reader, Window};
use asynchat_benches::lines::{Lines, lines_codec};
use asynchat_benches::ours::{self, Events, Frames, delimiter};
use asynchat_benches::{Bench, Tally};
use bytes::BytesMut;
use memchr::memmem;
use tokio_util::codec::{Decoder, LinesCodec};

/// A plain Knuth-Morris-Pratt automaton, for reads of any size. It takes a step for each new byte, and then passes on
/// what can no longer belong to the needle.
struct Automaton<'a> {
    needle: &'a [u8],
    /// The longest proper border of each prefix of the needle: what the automaton falls back to.
    borders: Vec<usize>,
    /// How many bytes of the needle's beginning the input so far ends with.
    state: usize,
}

impl Automaton<'_> {
    fn new(needle: &[u8]) -> Automaton<'_> {
        let mut borders = vec![0; needle.len()];
        let mut k = 0;
        for i in 1..needle.len() {
            while k > 0 && needle[k] != needle[i] {
                k = borders[k - 1];
            }
            k += usize::from(needle[k] == needle[i]);
            borders[i] = k;
        }
        Automaton { needle, borders, state: 0 }
    }

    /// Looks at the new bytes of `filled`, which begins with the bytes that were withheld, and returns how many are
    /// consumed. It is not inlined into the loop that calls it, as the framer's code is not.
    #[inline(never)]
    fn next(&mut self, filled: &[u8], tally: &mut Tally) -> usize {
        let mut start = 0;
        for at in self.state..filled.len() {
            while self.state > 0 && self.needle[self.state] != filled[at] {
                self.state = self.borders[self.state - 1];
            }
            self.state += usize::from(self.needle[self.state] == filled[at]);
            if self.state == self.needle.len() {
                self.state = 0;
                let end = at + 1 - self.needle.len();
                if start < end {
                    tally.chunk(&filled[start..end]);
                }
                tally.end();
                start = at + 1;
            }
        }
        let end = filled.len() - self.state;
        if start < end {
            tally.chunk(&filled[start..end]);
        }
        end
    }
}

fn automaton(needle: &[u8], input: &[u8], read: usize, window: &mut Window) -> u64 {
    let mut automaton = Automaton::new(needle);
    let mut tally = Tally::default();
    window.clear();
    for read in input.chunks(read) {
        window.fill(read);
        window.consume(automaton.next(window.filled(), &mut tally));
    }
    tally.sum()
}

pub fn periodic(bench: &mut Bench) {
    let size = bench.size(1 << 18, 1 << 14);
    type Part = fn() -> Vec<u8>;
    for (called, needle, part) in [
        ("a..ab in a..", (|| [&[b'a'; 4095][..], b"b"].concat()) as Part, (|| vec![b'a']) as Part),
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
        let (mut window, mut other) = (Window::new(READ), Window::new(READ));
        let (end, plain) = (delimiter(&needle), ours::plain(delimiter(&needle)));
        row.work(input.len(), "byte", input.len())
            .expect(tally.sum())
            .ours("Framer, events", || {
                ours::framer::<Events, _>(Frames::default(), end.clone(), &input, 1, &mut window)
            })
            .goal("an automaton", 1.3)
            .ours("Handler", || {
                ours::handler(Frames::default(), &plain, Reader::dribbling(&input, 1))
            })
            .peer("an automaton", || automaton(&needle, &input, 1, &mut other))
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
                ours::framer::<Events, _>(Frames::default(), delimiter(end), input, 1, &mut window)
            })
            .goal("LinesCodec", 0.90)
            .ours("FrameCodec", || ours::frame_codec(codec(), reader()))
            .goal("LinesCodec", 0.60)
            .ours("FrameCodec, decode alone", || {
                decode(codec(), input, |tally, frame| match frame {
                    Frame::Complete(frame) => tally.frame(&frame),
                    _ => unreachable!("whole frames"),
                })
            })
            .ours("Handler", || ours::handler(Frames::default(), &plain, reader()))
            .goal("LinesCodec", 1.2)
            .peer("LinesCodec", || lines_codec(reader(), READ))
            .peer("LinesCodec, decode alone", || {
                decode(LinesCodec::new(), input, |tally, line| tally.frame(line.as_bytes()))
            })
            .run();
    }
}

/// Calls a decoder directly, to measure it without a `FramedRead`, which reads and polls.
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
