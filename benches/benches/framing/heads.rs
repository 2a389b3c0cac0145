//! Heads of HTTP requests, of some 400 bytes: similar ones, as of one client, or random ones.

use asynchat::FrameCodec;
use asynchat_benches::Bench;
use asynchat_benches::heads::{END, Heads, find_iter, read_until};
use asynchat_benches::input::Shape;
use asynchat_benches::io::{READ, Reader, Window};
use asynchat_benches::ours::{self, Events, Frames, Steps, Whole, delimiter};

pub fn heads(bench: &mut Bench) {
    let count = bench.size(10_000, 500);
    for (shape, called) in Shape::BOTH {
        let Some(row) = bench.row(&format!("HTTP heads, {called}")) else { continue };
        let heads = Heads::new(count, shape);
        let input = &*heads.input;
        let reader = || Reader::new(input);
        let plain = ours::plain(delimiter(END));
        let mut windows = [(); 4].map(|()| Window::new(2 * READ));
        let [window, other, third, fourth] = &mut windows;
        let (lent, owned) = match shape {
            Shape::Alike => (1.1, 0.45),
            Shape::Random => (0.86, 0.46),
        };
        heads
            .work(row)
            .ours("Framer, events", || {
                ours::framer::<Events, _>(Frames::default(), delimiter(END), input, READ, window)
            })
            .goal("memmem::find_iter, lent", lent)
            .ours("Framer, steps", || {
                ours::framer::<Steps, _>(Frames::default(), delimiter(END), input, READ, other)
            })
            .goal("memmem::find_iter, lent", lent)
            .ours("Framer, whole frames", || {
                ours::framer::<Whole, _>(Frames::default(), delimiter(END), input, READ, third)
            })
            .ours("TerminatorCodec", || {
                ours::terminator_codec(Frames::default(), delimiter(END), reader())
            })
            .goal("read_until to the blank line", owned)
            .ours("FrameCodec", || ours::frame_codec(FrameCodec::new(END), reader()))
            .goal("read_until to the blank line", owned)
            .ours("FrameCodec, batches", || ours::batch_codec(FrameCodec::new(END), reader()))
            .ours("Channel, next", || ours::pulled(Frames::default(), &plain, reader()))
            .ours("Channel, step", || {
                ours::stepping_channel(Frames::default(), &plain, false, reader())
            })
            .ours("Handler", || ours::handler(Frames::default(), &plain, reader()))
            .peer("memmem::find_iter, lent", || find_iter(input, fourth))
            .peer("read_until to the blank line", || read_until(reader()))
            .run();
    }
}
