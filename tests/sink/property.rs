//! Compares random calls of a sink with a plain list of bytes.

use std::io;
use std::sync::Arc;

use asynchat::SinkError;
use bytes::Bytes;
use futures::SinkExt;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::{Did, More, Script, Step, Wakes, drive, pattern, poll_once, scripted, sink};

#[derive(Clone, Debug)]
enum Op {
    Push(usize),
    PushBorrowed(usize),
    Encode(usize),
    Producer(Vec<Option<usize>>),
    /// A poll of a future, which is then dropped.
    Ready,
    Flush,
    /// A future that is polled until it is ready.
    Drain,
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![
        4 => 0..40_usize,
        2 => 1_000..1_050_usize,
        1 => 0..20_000_usize,
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => size().prop_map(Op::Push),
        2 => size().prop_map(Op::PushBorrowed),
        2 => size().prop_map(Op::Encode),
        2 => vec(prop::option::weighted(0.8, size()), 0..6).prop_map(Op::Producer),
        2 => Just(Op::Ready),
        2 => Just(Op::Flush),
        1 => Just(Op::Drain),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..30_usize).prop_map(Step::Take),
        2 => (1..5_000_usize).prop_map(Step::Take),
        1 => Just(Step::Take(usize::MAX)),
        3 => Just(Step::Pending),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_wire_is_what_was_queued(
        ops in vec(op(), 0..40),
        steps in vec(step(), 0..200),
        vectored: bool,
        block in prop_oneof![1..100_usize, Just(64 * 1024)],
        marks in prop_oneof![(0..3_000_usize, 0..3_000_usize), Just((65_536, 262_144))],
        fail_at in prop::option::weighted(0.3, 0..200_usize),
    ) {
        let mut steps = steps;
        if let Some(at) = fail_at {
            if let Some(step) = steps.get_mut(at) {
                *step = Step::Fail(io::ErrorKind::ConnectionReset);
            }
        }
        let pendings = steps.iter().filter(|step| **step == Step::Pending).count();
        let mut sink = sink(Script::new(steps).vectored(vectored));
        sink.set_block_size(block);
        sink.set_low_water_mark(marks.0);
        sink.set_high_water_mark(marks.1);

        let mut expected = Vec::new();
        let mut waits = 0;
        let mut failures = 0;
        let mut polls = 0;
        let wakes = Arc::new(Wakes::default());
        let mut next = |len: usize| {
            let item = pattern(expected.len(), len);
            expected.extend_from_slice(&item);
            item
        };
        for op in ops {
            let mut result = Ok(());
            match op {
                Op::Push(len) => {
                    let pushed = sink.push(next(len));
                    prop_assert_eq!(pushed.is_err(), failures > 0);
                }
                Op::PushBorrowed(len) => {
                    let pushed = sink.push(&next(len)).is_err();
                    prop_assert_eq!(pushed, failures > 0);
                }
                Op::Encode(len) => {
                    let item = Bytes::from(next(len));
                    let sent = sink.start_send_unpin(item);
                    prop_assert_eq!(sent.is_err(), failures > 0);
                }
                Op::Producer(items) => {
                    let steps = items.into_iter().map(|item| match item {
                        Some(len) => More::Item(next(len)),
                        None => {
                            waits += 1;
                            More::Pending
                        }
                    });
                    let pushed = sink.push_with_producer(scripted(steps.collect::<Vec<_>>()));
                    prop_assert_eq!(pushed.is_err(), failures > 0);
                }
                Op::Ready | Op::Flush => {
                    let before = wakes.count();
                    let poll = match op {
                        Op::Ready => poll_once(&wakes, sink.ready()),
                        _ => poll_once(&wakes, sink.flush()),
                    };
                    polls += 1;
                    match poll {
                        std::task::Poll::Ready(done) => result = done,
                        std::task::Poll::Pending => prop_assert!(wakes.count() > before),
                    }
                }
                Op::Drain => {
                    let (drained, count) = drive!(sink.flush());
                    result = drained;
                    polls += count;
                    if result.is_ok() {
                        prop_assert!(sink.is_empty());
                        prop_assert_eq!(sink.queued_bytes(), 0);
                    }
                }
            }
            match result {
                Ok(()) => {}
                Err(SinkError::Write(_)) => failures += 1,
                Err(SinkError::Closed) => prop_assert_eq!(failures, 1),
                Err(other) => return Err(TestCaseError::fail(other.to_string())),
            }
        }
        let (result, count) = drive!(sink.close());
        polls += count;
        let script = sink.get_ref().get_ref();
        match result {
            Ok(()) => {
                prop_assert_eq!(failures, 0);
                prop_assert!(script.wire == expected);
                script.assert_closed_in_order();
            }
            Err(SinkError::Write(_)) => prop_assert_eq!(failures, 0),
            Err(SinkError::Closed) => prop_assert_eq!(failures, 1),
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        }
        if script.log.contains(&Did::Fail) {
            prop_assert!(expected.starts_with(&script.wire));
        }
        // There is no busy loop: each poll of the writer did something or was pending.
        prop_assert!(script.polls <= script.log.len() + pendings);
        prop_assert!(polls <= pendings + waits + 42);
    }
}
