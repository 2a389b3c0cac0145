//! Lines of 32 bytes on average, ended by LF or by CRLF: all of the same length, or of random lengths.

use asynchat::FrameCodec;
use asynchat_benches::Bench;
use asynchat_benches::input::Shape;
use asynchat_benches::io::{READ, Reader, Window};
use asynchat_benches::lines::{Lines, any_delimiter_codec, lines_codec, read_until};
use asynchat_benches::ours::{self, Events, Frames, Steps, Whole, delimiter};

pub fn lines(bench: &mut Bench) {
    let size = bench.size(4 << 20, 1 << 18);
    type Codec = fn() -> FrameCodec;
    for (ending, end, codec) in
        [("LF", &b"\n"[..], FrameCodec::lf as Codec), ("CRLF", b"\r\n", FrameCodec::crlf)]
    {
        for (shape, called) in Shape::BOTH {
            let Some(row) = bench.row(&format!("lines, {ending}, {called}")) else { continue };
            let lines = Lines::new(size, end, shape);
            let input = &*lines.input;
            let reader = || Reader::new(input);
            let plain = ours::plain(delimiter(end));
            // The goals are for random lengths, which a processor cannot predict.
            let goal = |ratio: f64| (shape == Shape::Random).then_some(ratio);
            let mut windows = [(); 3].map(|()| Window::new(2 * READ));
            let [window, other, third] = &mut windows;
            let row = lines
                .work(row)
                .ours("Framer, events", || {
                    ours::framer::<Events, _>(
                        Frames::default(),
                        delimiter(end),
                        input,
                        READ,
                        window,
                    )
                })
                .goal("LinesCodec", goal(0.16))
                .ours("Framer, steps", || {
                    ours::framer::<Steps, _>(Frames::default(), delimiter(end), input, READ, other)
                })
                .goal("LinesCodec", goal(0.14))
                .ours("Framer, whole frames", || {
                    ours::framer::<Whole, _>(Frames::default(), delimiter(end), input, READ, third)
                })
                .ours("TerminatorCodec", || {
                    ours::terminator_codec(Frames::default(), delimiter(end), reader())
                })
                .goal("LinesCodec", goal(0.35))
                .ours("TerminatorCodec, steps", || {
                    ours::stepping_codec(Frames::default(), delimiter(end), false, reader())
                })
                .ours("TerminatorCodec, whole frames", || {
                    ours::stepping_codec(Frames::default(), delimiter(end), true, reader())
                })
                .ours("FrameCodec", || ours::frame_codec(codec(), reader()))
                .goal("LinesCodec", goal(0.30))
                .ours("FrameCodec, CRLF or LF", || {
                    ours::frame_codec(FrameCodec::crlf_or_lf(), reader())
                })
                .ours("FrameCodec, any newline", || {
                    ours::frame_codec(FrameCodec::newline(), reader())
                })
                .ours("FrameCodec, batches", || ours::batch_codec(codec(), reader()))
                .goal("LinesCodec", goal(0.13))
                .ours("Channel, next", || ours::pulled(Frames::default(), &plain, reader()))
                .goal("LinesCodec", goal(0.30))
                .ours("Channel, step", || {
                    ours::stepping_channel(Frames::default(), &plain, false, reader())
                })
                .ours("Channel, step, whole frames", || {
                    ours::stepping_channel(Frames::default(), &plain, true, reader())
                })
                .ours("Handler, whole frames", || {
                    ours::whole_handler(Frames::default(), &plain, reader())
                })
                .ours("Handler", || ours::handler(Frames::default(), &plain, reader()))
                .goal("LinesCodec", goal(0.18))
                .peer("LinesCodec", || lines_codec(reader(), READ))
                .peer("LinesCodec, 8 KiB of buffer as by default", || {
                    lines_codec(reader(), 8 * 1024)
                })
                .peer("read_until", || read_until(reader(), end.len()));
            // The codec knows only delimiters of one byte.
            match end {
                b"\n" => row.peer("AnyDelimiterCodec", || any_delimiter_codec(reader())),
                _ => row,
            }
            .run();
        }
    }
}
