//! Pipelined RESP commands (Redis's) that set a key to a value: all of the same lengths, or of random lengths.

use asynchat_benches::Bench;
use asynchat_benches::input::Shape;
use asynchat_benches::io::{READ, Reader, Window};
use asynchat_benches::ours::{self, Events, Steps, Whole, delimiter};
use asynchat_benches::resp::{
    CRLF, Counted, CountedIn, Sets, Verified, by_hand, key_and_value, own_end_handler,
    own_end_messages, redis_protocol, vec_of_bytes,
};

/// The first peer: a hand-written `Decoder`, in `FramedRead`.
const DECODER: &str = "Decoder by hand with memchr";

pub fn sets(bench: &mut Bench) {
    let count = bench.size(40_000, 2000);
    for (shape, called) in Shape::BOTH {
        let Some(row) = bench.row(&format!("RESP SET, {called}")) else { continue };
        let sets = Sets::new(count, shape);
        let input = &*sets.input;
        let reader = || Reader::new(input);
        let plain = ours::plain(delimiter(CRLF));
        let mut windows = [(); 6].map(|()| Window::new(2 * READ));
        let [first, second, third, fourth, fifth, sixth] = &mut windows;
        let lines = || delimiter(CRLF);
        sets.work(row)
            .ours("Framer, events, CRLF counted in", || {
                ours::framer::<Events, _>(CountedIn::default(), lines(), input, READ, first)
            })
            .ours("Framer, events, CRLF by Fail(0)", || {
                ours::framer::<Events, _>(Verified::default(), lines(), input, READ, second)
            })
            .ours("Framer, events, counted frames", || {
                ours::framer::<Events, _>(Counted::default(), lines(), input, READ, third)
            })
            .ours("Framer, steps, counted frames", || {
                ours::framer::<Steps, _>(Counted::default(), lines(), input, READ, fourth)
            })
            .goal(DECODER, 0.60)
            .ours("Framer, whole counted frames", || {
                ours::framer::<Whole, _>(Counted::default(), lines(), input, READ, fifth)
            })
            .goal(DECODER, 0.60)
            .ours("TerminatorCodec, CRLF counted in", || {
                ours::terminator_codec(CountedIn::default(), lines(), reader())
            })
            .ours("TerminatorCodec, counted frames", || {
                ours::terminator_codec(Counted::default(), lines(), reader())
            })
            .goal(DECODER, 1.6)
            .goal("redis-protocol", 0.55)
            .ours("TerminatorCodec, steps, counted frames", || {
                ours::stepping_codec(Counted::default(), lines(), false, reader())
            })
            .goal(DECODER, 1.6)
            .ours("TerminatorCodec, whole counted frames", || {
                ours::stepping_codec(Counted::default(), lines(), true, reader())
            })
            .goal(DECODER, 1.6)
            .ours("Channel, next, counted frames", || {
                ours::pulled(Counted::default(), &plain, reader())
            })
            .ours("Channel, step, counted frames", || {
                ours::stepping_channel(Counted::default(), &plain, false, reader())
            })
            .ours("Channel, step, whole counted frames", || {
                ours::stepping_channel(Counted::default(), &plain, true, reader())
            })
            .ours("Channel, message, end found by hand", || own_end_messages(&plain, reader()))
            .goal(DECODER, 0.90)
            .ours("Handler, CRLF counted in", || {
                ours::handler(CountedIn::default(), &plain, reader())
            })
            .ours("Handler, counted frames", || ours::handler(Counted::default(), &plain, reader()))
            .goal(DECODER, 0.90)
            .ours("Handler, whole counted frames", || {
                ours::whole_handler(Counted::default(), &plain, reader())
            })
            .goal(DECODER, 0.90)
            .ours("Handler, end found by hand", || own_end_handler(&plain, reader()))
            .goal(DECODER, 0.90)
            .peer(DECODER, || key_and_value(reader()))
            .peer("Decoder by hand, a Vec of arguments", || vec_of_bytes(reader()))
            .peer("loop by hand with memchr, lent", || by_hand(input, sixth))
            .peer("redis-protocol", || redis_protocol(reader()))
            .run();
    }
}
