//! Pipelined RESP commands that set a key to a value, all alike or of any lengths.

use asynchat_benches::Bench;
use asynchat_benches::input::Shape;
use asynchat_benches::io::{READ, Reader, Window};
use asynchat_benches::ours::{self, delimiter};
use asynchat_benches::resp::{
    CRLF, CountedIn, Sets, Verified, by_hand, key_and_value, redis_protocol, vec_of_bytes,
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
        let mut windows = [const { () }; 3].map(|()| Window::new(2 * READ));
        let [window, other, third] = &mut windows;
        sets.work(row)
            .ours("Framer, events, CRLF counted in", || {
                ours::framer(CountedIn::default(), delimiter(CRLF), input, READ, window)
            })
            .ours("Framer, events, CRLF verified", || {
                ours::framer(Verified::default(), delimiter(CRLF), input, READ, other)
            })
            .ours("TerminatorCodec, CRLF counted in", || {
                ours::terminator_codec(CountedIn::default(), delimiter(CRLF), reader())
            })
            .goal(DECODER, 1.6)
            .goal("redis-protocol", 0.55)
            .ours("TerminatorCodec, CRLF verified", || {
                ours::terminator_codec(Verified::default(), delimiter(CRLF), reader())
            })
            .ours("Channel, next, CRLF counted in", || {
                ours::pulled(CountedIn::default(), &plain, reader())
            })
            .ours("Channel, Handler, CRLF counted in", || {
                ours::handler(CountedIn::default(), &plain, reader())
            })
            .ours("Channel, Handler, CRLF verified", || {
                ours::handler(Verified::default(), &plain, reader())
            })
            .peer(DECODER, || key_and_value(reader()))
            .peer("Decoder by hand, a Vec of arguments", || vec_of_bytes(reader()))
            .peer("loop by hand with memchr, lent", || by_hand(input, third))
            .peer("redis-protocol", || redis_protocol(reader()))
            .run();
    }
}
