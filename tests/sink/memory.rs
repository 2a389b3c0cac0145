//! How much memory a queue holds, counted by the allocator.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use allocation_counter::measure;
use asynchat::{ProducerSink, producer};
use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::codec::{BytesCodec, FramedWrite};

use crate::support::{More, Script, Sink, Step, Wakes, drive, pattern, poll_once, scripted, sink};

/// How many bytes `work` has left on the heap when it has returned. What it returns is kept, and so counts.
fn held<T>(work: impl FnOnce() -> T) -> usize {
    let mut kept = None;
    let heap = measure(|| kept = Some(work()));
    drop(kept);
    usize::try_from(heap.bytes_current).unwrap()
}

/// Puts large buffers into the pool of this thread, as after some traffic.
fn warm_up() {
    let mut sink = sink(Script::new([]));
    for _ in 0..200 {
        sink.push(pattern(0, 1_000)).unwrap();
    }
    drive!(sink.flush()).0.unwrap();
}

/// A reader that yields so many bytes at a time, and is pending in between, as a socket is.
struct Slow {
    bytes: usize,
    turn: bool,
}

impl AsyncRead for Slow {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.turn = !self.turn;
        if self.turn {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let count = self.bytes.min(buffer.remaining());
        buffer.put_slice(&vec![b'x'; count]);
        Poll::Ready(Ok(()))
    }
}

#[test]
fn a_reader_of_any_speed_holds_little_more_than_is_counted() {
    let wakes = Arc::new(Wakes::default());
    for warm in [false, true] {
        if warm {
            warm_up();
        }
        for bytes in [50, 1_024, 1_500, 4_096, 16_000, 65_536] {
            let heap = held(|| {
                let mut sink = sink(Script::new([]).then(Step::Stuck));
                sink.push_with_producer(producer::reader(Slow { bytes, turn: false })).unwrap();
                let polls = 2 * 64 * 1024 / bytes + 4;
                for _ in 0..polls {
                    assert!(poll_once(&wakes, sink.flush()).is_pending());
                }
                assert!(sink.queued_bytes() >= 64 * 1024);
                assert!(sink.queued_bytes() < 64 * 1024 + bytes);
                sink
            });
            assert!(heap < 6 * 64 * 1024, "reads of {bytes}: {heap} are held");
        }
    }
}

#[test]
fn a_few_bytes_that_wait_hold_no_large_buffer() {
    let wakes = Arc::new(Wakes::default());
    let cases = [(1, 1), (1, 199_999), (20_000, 180_000)];
    for ((first, rest), flush) in cases.into_iter().flat_map(|case| [(case, true), (case, false)]) {
        let stuck = || {
            let mut sink = sink(Script::new([Step::Take(rest)]).then(Step::Stuck));
            sink.set_high_water_mark(first + rest);
            sink.set_low_water_mark(0);
            for byte in pattern(0, first + rest) {
                sink.push([byte]).unwrap();
            }
            if flush {
                assert!(poll_once(&wakes, sink.flush()).is_pending());
            } else {
                assert!(poll_once(&wakes, sink.ready()).is_pending());
            }
            assert_eq!(sink.queued_bytes(), first);
            // What the peer has received does not count.
            sink.get_mut().get_mut().wire = Vec::new();
            sink
        };
        // What the pool may keep is subtracted.
        let heap = held(|| {
            warm_up();
            (0..10).map(|_| stuck()).collect::<Vec<_>>()
        });
        let heap = heap.saturating_sub(4 * 256 * 1024) / 10;
        assert!(heap < 2 * first + 2 * 1024, "{heap} are held for {first}");
    }
}

#[test]
fn small_pieces_between_large_ones_and_producers_hold_little() {
    let wakes = Arc::new(Wakes::default());
    warm_up();
    let large = Bytes::from(pattern(0, 2_000));
    let heap = held(|| {
        let mut sink = sink(Script::new([]).then(Step::Stuck));
        for _ in 0..100 {
            sink.push("x").unwrap();
            sink.push(large.clone()).unwrap();
            sink.push("y").unwrap();
            sink.push_with_producer(scripted([More::Pending])).unwrap();
        }
        assert!(poll_once(&wakes, sink.flush()).is_pending());
        sink
    });
    assert!(heap < 100 * 400, "{heap}");
}

/// How many bytes more a sink holds after `work`. This is measured with many sinks, beside which what the pools of the
/// thread keep is little.
fn held_after(steps: &[Step], work: impl Fn(&mut Sink)) -> usize {
    let many = |work: &dyn Fn(&mut Sink)| {
        let make = |_| {
            let mut sink = sink(Script::new(steps.iter().copied()).then(Step::Stuck));
            work(&mut sink);
            let script = sink.get_mut().get_mut();
            (script.steps, script.log, script.wire) = Default::default();
            sink
        };
        held(|| (0..1_000).map(make).collect::<Vec<_>>())
    };
    warm_up();
    let before = many(&|_| {});
    many(&work).saturating_sub(before) / 1_000
}

#[test]
fn a_sink_that_waits_for_its_producer_holds_no_buffer() {
    let wakes = Arc::new(Wakes::default());
    let held = held_after(&[Step::Take(100), Step::Take(0)], |sink| {
        sink.push("before").unwrap();
        sink.push_with_producer(producer::poll_fn(|_| Poll::Pending)).unwrap();
        assert!(poll_once(&wakes, sink.flush()).is_pending());
        assert_eq!(sink.queued_bytes(), 0);
    });
    assert!(held < 512, "{held}");
}

#[test]
fn a_sink_that_waits_for_a_flush_holds_no_buffer() {
    let wakes = Arc::new(Wakes::default());
    let held = held_after(&[Step::Take(100)], |sink| {
        sink.push("before").unwrap();
        assert!(poll_once(&wakes, sink.flush()).is_pending());
        assert_eq!(sink.queued_bytes(), 0);
    });
    assert!(held < 512, "{held}");
}

#[test]
fn a_sink_that_waits_holds_no_room_for_large_items_that_were_written() {
    let wakes = Arc::new(Wakes::default());
    let large = Bytes::from(pattern(0, 2_000));
    for with_producer in [false, true] {
        let held = held_after(&[Step::Take(1_000_000); 8], |sink| {
            for _ in 0..500 {
                sink.push(large.clone()).unwrap();
            }
            if with_producer {
                sink.push_with_producer(producer::poll_fn(|_| Poll::Pending)).unwrap();
            }
            assert!(poll_once(&wakes, sink.flush()).is_pending());
            assert_eq!(sink.queued_bytes(), 0);
        });
        assert!(held < 4_096, "{held}, with a producer: {with_producer}");
    }
}

#[test]
fn room_for_large_items_that_were_written_is_not_kept_for_the_next_sink() {
    let large = Bytes::from(pattern(0, 2_000));
    warm_up();
    let kept = held(|| {
        let mut sink = ProducerSink::new(FramedWrite::new(tokio::io::sink(), BytesCodec::new()));
        for _ in 0..500 {
            sink.push(large.clone()).unwrap();
        }
        drive!(sink.flush()).0.unwrap();
    });
    assert!(kept < 4_096, "{kept}");
}

#[test]
fn a_push_of_nothing_leaves_nothing_behind() {
    let held = held_after(&[], |sink| {
        sink.push("").unwrap();
        sink.push_with(|_| {}).unwrap();
        let failed: io::Result<()> = sink.try_push_with(|buffer| {
            buffer.extend_from_slice(b"the beginning of an answer");
            Err(io::ErrorKind::Other.into())
        });
        assert!(failed.is_err());
    });
    assert!(held < 16, "{held}");
}

#[test]
fn an_answer_and_a_flush_allocate_nothing() {
    let framed = FramedWrite::new(tokio::io::sink(), BytesCodec::new());
    let mut sink = ProducerSink::new(framed);
    let wakes = Arc::new(Wakes::default());
    let body = Bytes::from(pattern(0, 5_000));
    let answer = |sink: &mut ProducerSink<_, _>| {
        sink.push("HTTP/1.1 200 OK\r\n").unwrap();
        write!(sink, "Content-Length: {}\r\n\r\n", body.len()).unwrap();
        sink.push(body.clone()).unwrap();
        assert!(poll_once(&wakes, sink.flush()).is_ready());
    };
    answer(&mut sink);
    let before = measure(|| answer(&mut sink)).count_total;
    // The waker of the test is one allocation.
    assert!(before <= 1, "{before}");
}

#[test]
fn a_last_answer_and_a_close_allocate_nothing() {
    let wakes = Arc::new(Wakes::default());
    let close = || {
        let mut sink = ProducerSink::new(FramedWrite::new(tokio::io::sink(), BytesCodec::new()));
        measure(|| {
            sink.push("221 bye\r\n").unwrap();
            sink.close_when_done();
            assert!(poll_once(&wakes, sink.flush()).is_ready());
        })
        .count_total
    };
    close();
    // The waker of the test is one allocation.
    assert!(close() <= 1, "{}", close());
}
