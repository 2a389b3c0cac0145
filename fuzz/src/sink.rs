use std::pin::pin;
use std::task::Poll;

use arbitrary::Unstructured;
use asynchat::{ProducerSink, SinkError, producer};
use bytes::Bytes;
use futures::Sink;
use tokio_util::codec::{BytesCodec, FramedWrite};

use crate::io::{Io, Peer, Unfinished, drive, drive_until, step};
use crate::plan::{self, below, flag, many};

#[derive(Clone, Debug)]
enum Op {
    Push(usize),
    PushBorrowed(usize),
    Encode(usize),
    /// The lengths of its items, with `None` where it is pending once, and whether it fails at its end.
    Producer(Vec<Option<usize>>, bool),
    /// Polled this many times, and then dropped.
    Ready(usize),
    Flush(usize),
    Discard,
    CloseWhenDone,
    Abort,
}

fn size(u: &mut Unstructured<'_>) -> usize {
    match below(u, 7) {
        0..4 => below(u, 40),
        4 | 5 => 1000 + below(u, 50),
        _ => below(u, 20_000),
    }
}

fn op(u: &mut Unstructured<'_>) -> Op {
    match below(u, 24) {
        0..5 => Op::Push(size(u)),
        5..8 => Op::PushBorrowed(size(u)),
        8..11 => Op::Encode(size(u)),
        11..15 => {
            let items = many(u, 6, |u| (below(u, 5) > 0).then(|| size(u)));
            Op::Producer(items, below(u, 20) == 19)
        }
        15..18 => Op::Ready(below(u, 5)),
        18..21 => Op::Flush(below(u, 20)),
        21 => Op::Discard,
        22 => Op::CloseWhenDone,
        _ => Op::Abort,
    }
}

/// `len` bytes that differ from position to position, so that missing and exchanged ones are noticed.
fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (seed..seed + len).map(|n| (n * 31 + n / 251) as u8).collect()
}

/// A `ProducerSink` over a writer that takes little, waits and fails. What was queued arrives in order, and after a
/// failure, a discard or an abort a part of it does.
pub fn producer_sink(data: &[u8]) {
    let u = &mut Unstructured::new(data);
    let peer = Peer { vectored: flag(u), steps: many(u, 200, step).into(), ..Peer::default() };
    let block = [1, 7, 100, 4096, 64 * 1024][below(u, 5)];
    let marks = if flag(u) { (below(u, 3000), below(u, 3000)) } else { (65_536, 262_144) };
    let ops = many(u, 40, op);
    plan::show(&(&peer, block, marks, &ops));

    let io = Io::new(peer);
    let mut sink = ProducerSink::new(FramedWrite::new(io.clone(), BytesCodec::new()));
    sink.set_block_size(block);
    sink.set_low_water_mark(marks.0);
    sink.set_high_water_mark(marks.1);

    // All bytes that were accepted, in order.
    let mut queued = Vec::new();
    // `cut` says whether bytes may be missing at the end, `discarded` whether they may be missing anywhere.
    let (mut closed, mut cut, mut discarded) = (false, false, false);
    for op in ops {
        let done = match op {
            Op::Push(len) => {
                let item = pattern(queued.len(), len);
                let pushed = sink.push(item.clone());
                assert_eq!(pushed.is_err(), closed);
                if !closed {
                    queued.extend(item);
                }
                Ok(())
            }
            Op::PushBorrowed(len) => {
                let item = pattern(queued.len(), len);
                assert_eq!(sink.push(&item).is_err(), closed);
                if !closed {
                    queued.extend(item);
                }
                Ok(())
            }
            Op::Encode(len) => {
                let item = pattern(queued.len(), len);
                let sent = pin!(&mut sink).start_send(Bytes::from(item.clone()));
                assert_eq!(sent.is_err(), closed);
                if !closed {
                    queued.extend(item);
                }
                Ok(())
            }
            Op::Producer(items, fails) => {
                let mut expected = Vec::new();
                let mut steps = items
                    .into_iter()
                    .map(|len| {
                        len.map(|len| {
                            let item = pattern(queued.len() + expected.len(), len);
                            expected.extend_from_slice(&item);
                            item
                        })
                    })
                    .collect::<Vec<_>>()
                    .into_iter();
                let mut ended = false;
                let pushed = sink.push_with_producer(producer::poll_fn(move |cx| {
                    assert!(!ended, "asked after the end");
                    match steps.next() {
                        Some(Some(item)) => Poll::Ready(Some(Ok(Bytes::from(item)))),
                        Some(None) => {
                            cx.waker().wake_by_ref();
                            Poll::Pending
                        }
                        None => {
                            ended = true;
                            let error = || Err(std::io::ErrorKind::InvalidData.into());
                            Poll::Ready(fails.then(error))
                        }
                    }
                }));
                assert_eq!(pushed.is_err(), closed);
                if !closed {
                    queued.extend(expected);
                    cut |= fails;
                }
                Ok(())
            }
            Op::Ready(polls) => {
                let mut left = polls;
                let stop = || {
                    left = left.saturating_sub(1);
                    left == 0
                };
                polled(drive_until(pin!(sink.ready()), stop)).unwrap_or(Ok(()))
            }
            Op::Flush(polls) => {
                let mut left = polls;
                let stop = || {
                    left = left.saturating_sub(1);
                    left == 0
                };
                let flushed = polled(drive_until(pin!(sink.flush()), stop));
                match flushed {
                    Some(Ok(())) => {
                        assert!(sink.is_empty());
                        assert_eq!(sink.queued_bytes(), 0);
                        if !discarded && !cut {
                            assert!(io.peer().wire == queued, "all that was queued is written");
                        }
                        let peer = io.peer();
                        assert!(cut || peer.flushed == peer.wire.len());
                        Ok(())
                    }
                    other => other.unwrap_or(Ok(())),
                }
            }
            Op::Discard => {
                sink.discard_buffers();
                discarded = true;
                Ok(())
            }
            Op::CloseWhenDone => {
                sink.close_when_done();
                closed = true;
                Ok(())
            }
            Op::Abort => {
                sink.abort();
                (closed, cut) = (true, true);
                Ok(())
            }
        };
        if let Err(error) = done {
            assert!(!matches!(error, SinkError::Closed) || closed, "{error:?}");
            (closed, cut) = (true, true);
        }
    }
    let result = drive(pin!(sink.close()));
    let result = result.expect("close comes to an end: all who wait wake the task");
    let peer = io.peer();
    match result {
        Ok(()) if !cut => {
            assert!(peer.shut_down && peer.flushed == peer.wire.len());
            if !discarded {
                assert!(peer.wire == queued);
            }
        }
        Ok(()) => {}
        Err(SinkError::Write(_)) => assert!(peer.failed),
        Err(SinkError::Producer(_) | SinkError::Closed) => assert!(cut, "{result:?}"),
        Err(other) => panic!("{other}"),
    }
    if !discarded {
        assert!(
            queued.starts_with(&peer.wire),
            "what is written is the beginning of what was queued"
        );
    }
}

/// The result of a poll that could be stopped. Panics if the sink was pending and had not arranged to be woken.
fn polled<R>(result: Result<R, Unfinished>) -> Option<R> {
    assert!(!matches!(result, Err(Unfinished::Asleep)), "pending, and nobody will wake it");
    result.ok()
}
