use arbitrary::Unstructured;
use asynchat::{Event, Framer, Limit};

use crate::plan::{self, below, flag, many};
use crate::support::drive::Lent;
use crate::support::follow::{Piece, delimiters, follow, spell};
use crate::support::model::{Follower, find, partial};
use crate::support::{Decoding, End, Show, Spec, model, run};

/// One terminator over one input, which may be long: what is found, in whatever reads, is what a search from
/// left to right finds.
pub fn search(data: &[u8]) {
    let u = &mut Unstructured::new(data);
    let spec = if below(u, 3) == 0 { plan::set(u) } else { Spec::Bytes(plan::delimiter(u)) };
    let pieces = many(u, 60, |u| match below(u, 4) {
        // Far apart, so that the search changes its way.
        0 => Piece::Run(b"abx"[below(u, 3)], below(u, 1500)),
        _ => plan::piece(u),
    });
    let input = spell(&pieces, spec.delimiters());
    let reads = plan::reads(u, &input);
    plan::show(&(&spec, Show(&input), reads.iter().map(|read| read.len()).collect::<Vec<_>>()));

    let mut expected = Vec::new();
    let mut from = 0;
    while let Some((start, end, member)) = find(spec.delimiters(), &input[from..]) {
        expected.push((from..from + start, member));
        from += end;
    }
    let withheld = partial(spec.delimiters(), &input[from..]);

    let mut framer = Framer::new(spec.terminator());
    let (mut buffer, mut found) = (Vec::new(), Vec::new());
    let mut frame = 0..0;
    // How much of the input is not in the buffer any more.
    let mut gone = 0;
    for read in reads {
        buffer.extend_from_slice(read);
        loop {
            match framer.next(&buffer).unwrap() {
                Some(Event::Chunk(chunk)) => {
                    let start = gone + (chunk.as_ptr() as usize - buffer.as_ptr() as usize);
                    if frame.start == frame.end {
                        frame = start..start;
                    }
                    assert_eq!(frame.end, start, "chunks of a frame adjoin");
                    frame.end += chunk.len();
                }
                Some(Event::Terminator) => {
                    found.push((std::mem::replace(&mut frame, 0..0), framer.matched()));
                }
                Some(other) => panic!("{other:?}"),
                None => break,
            }
        }
        let consumed = framer.take_consumed();
        buffer.drain(..consumed);
        gone += consumed;
    }
    // An empty frame has no place.
    for (frame, _) in expected.iter_mut().filter(|(frame, _)| frame.is_empty()) {
        *frame = 0..0;
    }
    assert_eq!(found, expected);
    assert_eq!(buffer.len(), withheld);
}

/// A `Framer`, call by call, with switches, limits and discards between any two calls.
pub fn framer(data: &[u8]) {
    let u = &mut Unstructured::new(data);
    let eager = flag(u);
    let pool = plan::pool(u);
    let limit = plan::limit(u);
    let ops = many(u, 60, plan::op);
    plan::show(&(eager, &pool, limit, &ops));
    let mut lent = Lent::new(pool[0].terminator(), limit, eager);
    follow_through(&mut lent, &pool, limit, &ops);
}

pub fn follow_through(
    decoder: &mut dyn Decoding,
    pool: &[Spec],
    limit: Limit,
    ops: &[crate::support::follow::Op],
) {
    if let Err(message) = follow(decoder, Follower::new(pool[0].clone(), limit), pool, ops) {
        panic!("{message}\nof {pool:?} {limit:?} {ops:?}\nknown: {:?}", delimiters(pool));
    }
}

/// A script over the whole input, held against the model that has it at once.
pub fn whole(
    decoder: &mut dyn Decoding,
    data: &mut Unstructured<'_>,
    script: &crate::support::Script,
    input: &[u8],
) {
    let end = if flag(data) { End::Eof } else { End::Open };
    let reads = plan::reads(data, input);
    let (expected, withheld) = model::cut(script, input, end);
    let log = run(decoder, script, &reads, end);
    assert!(log == expected, "{script:?} {}\n  gave {log:?}\nwanted {expected:?}", Show(input));
    if !matches!(log.last(), Some(crate::support::Log::Failed(_))) {
        assert_eq!(decoder.buffered().len(), withheld);
    }
}
