use arbitrary::Unstructured;
use asynchat::{Event, Framer, Limit};

use crate::plan::{self, below, flag, many};
use crate::support::drive::{How, Lent};
use crate::support::follow::{Op, Piece, follow, spell};
use crate::support::model::{Follower, end, partial};
use crate::support::{Decoding, End, Log, Script, Show, Spec, model, run};

/// Searches one input, which may be long, for one terminator. However the input is cut into reads, the framer finds
/// what a simple search from left to right finds.
pub fn search(data: &[u8]) {
    let u = &mut Unstructured::new(data);
    let spec = match below(u, 7) {
        0 => Spec::Newline,
        1 | 2 => plan::set(u),
        _ => Spec::Bytes(plan::delimiter(u)),
    };
    let pieces = many(u, 60, |u| match below(u, 4) {
        // Delimiters that are far apart, so that the search goes on from near blocks to far ones.
        0 => Piece::Run(b"abx"[below(u, 3)], below(u, 1500)),
        _ => plan::piece(u),
    });
    let input = spell(&pieces, spec.delimiters());
    let reads = plan::reads(u, &input);
    plan::show(&(&spec, Show(&input), reads.iter().map(|read| read.len()).collect::<Vec<_>>()));

    let mut expected = Vec::new();
    let mut from = 0;
    while let Some((start, end, member)) = end(&spec, &input[from..]) {
        expected.push((from..from + start, member));
        from += end;
    }
    let withheld = partial(spec.delimiters(), &input[from..]);

    let mut framer = Framer::new(spec.terminator());
    let (mut buffer, mut found) = (Vec::new(), Vec::new());
    let mut frame = 0..0;
    // How many bytes of the input have left the buffer.
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
    // The position of an empty frame is not known, since it has no chunk.
    for (frame, _) in expected.iter_mut().filter(|(frame, _)| frame.is_empty()) {
        *frame = 0..0;
    }
    assert_eq!(found, expected);
    assert_eq!(buffer.len(), withheld);
}

/// Compares a `Framer` with the model call by call. Switches, limits and discards come between any two calls.
pub fn framer(data: &[u8]) {
    let u = &mut Unstructured::new(data);
    let how = [How::Events, How::Eager, How::Steps, How::Mixed][below(u, 4)];
    let pool = plan::pool(u);
    let limit = plan::limit(u);
    let ops = many(u, 60, plan::op);
    plan::show(&(how, &pool, limit, &ops));
    let mut lent = Lent::new(pool[0].terminator(), limit, how);
    follow_through(&mut lent, &pool, limit, &ops);
}

pub fn follow_through(decoder: &mut dyn Decoding, pool: &[Spec], limit: Limit, ops: &[Op]) {
    if let Err(message) = follow(decoder, Follower::new(pool[0].clone(), limit), pool, ops) {
        panic!("{message}\nof {pool:?} {limit:?} {ops:?}");
    }
}

/// Runs a script over an input that comes in reads, and compares with the model, which has the whole input at once.
pub fn whole(
    decoder: &mut dyn Decoding,
    data: &mut Unstructured<'_>,
    script: &Script,
    input: &[u8],
) {
    let end = if flag(data) { End::Eof } else { End::Open };
    let reads = plan::reads(data, input);
    let (expected, withheld) = model::cut(script, input, end);
    let log = run(decoder, script, &reads, end);
    assert!(log == expected, "{script:?} {}\n  gave {log:?}\nwanted {expected:?}", Show(input));
    if !matches!(log.last(), Some(Log::Failed(_) | Log::FailedWrongEnd)) {
        assert_eq!(decoder.buffered().len(), withheld);
    }
}
