use std::error::Error;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use asynchat::{ProducerSink, SinkError};
use bytes::{Bytes, BytesMut};
use futures::SinkExt;
use tokio_util::codec::{Encoder, FramedWrite};

use crate::support::{Did, More, Script, Step, Wakes, drive, pattern, poll_once, scripted, sink};

#[test]
fn close_writes_flushes_once_and_shuts_down_once() {
    let mut sink = sink(Script::new([]));
    sink.push("bye").unwrap();
    drive!(sink.close()).0.unwrap();
    drive!(sink.close()).0.unwrap();
    drive!(sink.flush()).0.unwrap();
    let log = &sink.get_ref().get_ref().log;
    assert_eq!(*log, [Did::Write(3), Did::Flush, Did::Shutdown]);
}

#[test]
fn close_is_pending_at_each_point_and_does_nothing_twice() {
    for at in 0..4 {
        let mut steps = vec![Step::Take(2), Step::Take(1), Step::Take(0), Step::Take(0)];
        steps.insert(at, Step::Pending);
        let mut sink = sink(Script::new(steps));
        sink.push("bye").unwrap();
        let (result, polls) = drive!(sink.close());
        result.unwrap();
        assert_eq!(polls, 2);
        let log = &sink.get_ref().get_ref().log;
        let done = [Did::Write(2), Did::Write(1), Did::Flush, Did::Shutdown];
        assert_eq!(*log, done, "pending at {at}");
    }
}

#[test]
fn push_after_close_hands_the_item_back() {
    let mut sink = sink(Script::new([]));
    sink.close_when_done();
    assert!(sink.is_closed());
    assert_eq!(sink.push("late").unwrap_err().into_inner(), "late");
    let late = scripted([]);
    let drops = late.drops.clone();
    let back = sink.push_with_producer(late).unwrap_err().into_inner();
    assert_eq!(drops.load(Ordering::Relaxed), 0);
    drop(back);
    let refused = SinkExt::<Bytes>::start_send_unpin(&mut sink, "late".into()).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::BrokenPipe);
    let error = drive!(sink.ready()).0.unwrap_err();
    assert!(matches!(error, SinkError::Closed));
    assert_eq!(error.to_string(), "the sink is closed");
    drive!(sink.flush()).0.unwrap();
    sink.get_ref().get_ref().assert_closed_in_order();
}

#[test]
fn discard_buffers_keeps_a_scheduled_close() {
    let mut sink = sink(Script::new([Step::Take(2), Step::Pending]));
    sink.push("partly sent").unwrap();
    let producer = scripted([More::Item(b"never".to_vec())]);
    let drops = producer.drops.clone();
    sink.push_with_producer(producer).unwrap();
    sink.close_when_done();
    assert!(poll_once(&Arc::new(Wakes::default()), sink.flush()).is_pending());
    sink.discard_buffers();
    assert_eq!(drops.load(Ordering::Relaxed), 1);
    assert!(sink.is_empty());
    drive!(sink.flush()).0.unwrap();
    let script = sink.get_ref().get_ref();
    assert_eq!(script.wire, b"pa");
    script.assert_closed_in_order();
}

#[test]
fn discard_buffers_leaves_an_open_sink_open() {
    let mut sink = sink(Script::new([]));
    sink.push("never").unwrap();
    sink.discard_buffers();
    sink.push("sent").unwrap();
    drive!(sink.flush()).0.unwrap();
    assert_eq!(sink.get_ref().get_ref().wire, b"sent");
}

#[test]
fn abort_shuts_down_at_once_though_a_stuck_peer_holds_a_scheduled_close() {
    let mut sink = sink(Script::new([Step::Take(3), Step::Stuck]));
    sink.push("stuck").unwrap();
    sink.close_when_done();
    assert!(poll_once(&Arc::new(Wakes::default()), sink.close()).is_pending());
    sink.abort();
    assert!(sink.is_empty() && sink.is_closed());
    let (result, polls) = drive!(sink.close());
    result.unwrap();
    assert_eq!(polls, 1);
    let script = sink.get_ref().get_ref();
    assert_eq!(script.log, [Did::Write(3), Did::Shutdown]);
    assert_eq!(script.wire, b"stu");
}

#[test]
fn an_error_at_each_point_fails_the_sink_drops_the_queue_and_is_reported_once() {
    let small = pattern(0, 300);
    let large = pattern(7, 5_000);
    let all = [&small[..], &large[..], b"from a producer", &small[..]].concat();
    let takes = [100, 500, 3_000, 2_000, 15, 1_000, 1_000, 1_000].map(Step::Take);
    for at in 0..takes.len() {
        for vectored in [false, true] {
            let mut steps = takes.to_vec();
            steps[at] = Step::Fail(io::ErrorKind::ConnectionReset);
            let mut sink = sink(Script::new(steps).vectored(vectored));
            sink.push(&small).unwrap();
            sink.push(large.clone()).unwrap();
            let producer = scripted([More::Pending, More::Item(b"from a producer".to_vec())]);
            let drops = producer.drops.clone();
            sink.push_with_producer(producer).unwrap();
            sink.push(&small).unwrap();

            let (result, _) = drive!(sink.close());
            let Err(error @ SinkError::Write(_)) = result else {
                // In some scripts all is written before the error.
                result.unwrap();
                assert_eq!(sink.get_ref().get_ref().wire, all);
                continue;
            };
            let source = error.source().unwrap().downcast_ref::<io::Error>().unwrap();
            assert_eq!(source.kind(), io::ErrorKind::ConnectionReset);
            assert!(sink.is_empty() && sink.is_closed());
            assert_eq!(drops.load(Ordering::Relaxed), 1);
            assert_eq!(sink.push("late").unwrap_err().into_inner(), "late");
            assert!(matches!(drive!(sink.flush()).0, Err(SinkError::Closed)));
            assert!(matches!(drive!(sink.close()).0, Err(SinkError::Closed)));
            assert!(matches!(drive!(sink.ready()).0, Err(SinkError::Closed)));
            let script = sink.get_ref().get_ref();
            assert!(all.starts_with(&script.wire));
            assert_eq!(script.log.last(), Some(&Did::Fail));
        }
    }
}

#[test]
fn a_panicking_writer_leaves_the_sink_failed() {
    // The panic is in the write, the flush, or the shutdown.
    for at in 0..3 {
        let mut steps = vec![Step::Take(3); at];
        steps.push(Step::Panic);
        let mut sink = sink(Script::new(steps));
        sink.push("bye").unwrap();
        let wakes = Arc::new(Wakes::default());
        let panic = catch_unwind(AssertUnwindSafe(|| poll_once(&wakes, sink.close())));
        assert!(panic.is_err());
        assert!(sink.is_empty() && sink.is_closed());
        assert!(matches!(drive!(sink.flush()).0, Err(SinkError::Closed)), "in call {at}");
        assert_eq!(sink.get_ref().get_ref().polls, at + 1);
    }
    // A panic without a close.
    let mut sink = sink(Script::new([Step::Take(3), Step::Panic]));
    sink.push("bye").unwrap();
    let wakes = Arc::new(Wakes::default());
    let panic = catch_unwind(AssertUnwindSafe(|| poll_once(&wakes, sink.flush())));
    assert!(panic.is_err());
    assert!(sink.is_closed());
}

#[test]
fn a_write_of_zero_is_an_error() {
    for item in [10, 10_000] {
        let mut sink = sink(Script::new([Step::Take(0)]));
        sink.push(pattern(0, item)).unwrap();
        sink.push(pattern(0, item)).unwrap();
        let error = drive!(sink.flush()).0.unwrap_err();
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::WriteZero);
        assert_eq!(sink.get_ref().get_ref().polls, 1);
    }
}

#[test]
fn what_was_not_written_is_handed_back_by_into_inner() {
    let mut sink = sink(Script::new([Step::Take(1_500), Step::Pending]));
    let (small, large) = (pattern(0, 700), pattern(9, 4_000));
    sink.push(&small).unwrap();
    sink.push(&large).unwrap();
    sink.push(&small).unwrap();
    assert!(poll_once(&Arc::new(Wakes::default()), sink.flush()).is_pending());
    sink.push("more").unwrap();
    let framed = sink.into_inner();
    let mut all = framed.get_ref().wire.clone();
    assert_eq!(all.len(), 1_500);
    all.extend_from_slice(framed.write_buffer());
    assert_eq!(all, [&small[..], &large, &small, b"more"].concat());
}

#[test]
fn what_the_framed_write_holds_goes_first_and_what_is_put_in_it_joins_the_end() {
    let mut framed = FramedWrite::new(Script::new([]), tokio_util::codec::BytesCodec::new());
    framed.write_buffer_mut().extend_from_slice(b"first ");
    let mut sink = ProducerSink::new(framed);
    assert_eq!((sink.queued_bytes(), sink.len()), (6, 1));
    sink.push("second ").unwrap();
    let buffer = sink.get_mut().write_buffer_mut();
    buffer.extend_from_slice(b"third ");
    assert_eq!(sink.queued_bytes(), 19);
    sink.push("fourth").unwrap();
    drive!(sink.flush()).0.unwrap();
    assert_eq!(sink.get_ref().get_ref().wire, b"first second third fourth");
}

#[test]
fn encoded_items_keep_their_place_among_pushed_ones() {
    let mut sink = sink(Script::new([]));
    let feed = |sink: &mut crate::support::Sink, item: &'static str| {
        SinkExt::<Bytes>::start_send_unpin(sink, item.into()).unwrap();
    };
    sink.push("a").unwrap();
    feed(&mut sink, "b");
    sink.push(vec![b'c'; 2_000]).unwrap();
    feed(&mut sink, "d");
    sink.push_with_producer(scripted([More::Pending, More::Item(b"e".to_vec())])).unwrap();
    feed(&mut sink, "f");
    sink.push("g").unwrap();
    assert_eq!(sink.queued_bytes(), 2_005);
    drive!(sink.flush()).0.unwrap();
    let expected = [b"ab", &[b'c'; 2_000][..], b"defg"].concat();
    assert_eq!(sink.get_ref().get_ref().wire, expected);
}

/// An encoder that writes an item before it refuses it.
struct Half;

impl Encoder<&str> for Half {
    type Error = io::Error;

    fn encode(&mut self, item: &str, buffer: &mut BytesMut) -> io::Result<()> {
        buffer.extend_from_slice(item.as_bytes());
        match item {
            "refused" => Err(io::ErrorKind::InvalidData.into()),
            "panics" => panic!("as the test wants"),
            _ => Ok(()),
        }
    }
}

#[test]
fn an_item_that_the_encoder_refuses_leaves_nothing_behind() {
    let mut sink = ProducerSink::new(FramedWrite::new(Script::new([]), Half));
    sink.start_send_unpin("before ").unwrap();
    let refused = sink.start_send_unpin("refused").unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
    sink.start_send_unpin("after").unwrap();
    drive!(sink.flush()).0.unwrap();
    assert_eq!(sink.get_ref().get_ref().wire, b"before after");
}

#[test]
fn a_panicking_encoder_leaves_the_sink_failed() {
    let mut sink = ProducerSink::new(FramedWrite::new(Script::new([]), Half));
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = sink.start_send_unpin("panics");
    }));
    assert!(panic.is_err());
    assert!(matches!(drive!(sink.flush()).0, Err(SinkError::Closed)));
    assert_eq!(sink.get_ref().get_ref().wire, b"");
}

#[test]
fn what_was_not_written_of_small_items_is_handed_back_too() {
    let mut sink = sink(Script::new([Step::Take(5), Step::Pending]));
    sink.push("hello ").unwrap();
    sink.push("world").unwrap();
    assert!(poll_once(&Arc::new(Wakes::default()), sink.flush()).is_pending());
    assert_eq!(sink.into_inner().write_buffer(), " world");
}

#[test]
fn what_is_put_in_the_framed_write_keeps_its_place_whatever_comes_behind() {
    let put = |sink: &mut crate::support::Sink, bytes: &[u8]| {
        sink.get_mut().write_buffer_mut().extend_from_slice(bytes);
    };
    let mut one = sink(Script::new([]));
    put(&mut one, b"1");
    write!(one, "{}", 2).unwrap();
    put(&mut one, b"3");
    one.push_with(|buffer| buffer.extend_from_slice(b"4")).unwrap();
    put(&mut one, b"5");
    SinkExt::<Bytes>::start_send_unpin(&mut one, "6".into()).unwrap();
    put(&mut one, b"7");
    one.push_with_producer(Bytes::from("8")).unwrap();
    put(&mut one, b"9");
    one.close_when_done();
    drive!(one.close()).0.unwrap();
    assert_eq!(one.get_ref().get_ref().wire, b"123456789");

    let mut taken = sink(Script::new([]));
    taken.push("queued, ").unwrap();
    put(&mut taken, b"put");
    assert_eq!(taken.into_inner().write_buffer(), "queued, put");

    for aborts in [false, true] {
        let mut dropped = sink(Script::new([]));
        put(&mut dropped, b"never sent");
        if aborts {
            dropped.abort();
        } else {
            dropped.discard_buffers();
        }
        assert!(dropped.is_empty(), "aborts: {aborts}");
        drive!(dropped.close()).0.unwrap();
        assert_eq!(dropped.get_ref().get_ref().wire, b"");
    }
}
