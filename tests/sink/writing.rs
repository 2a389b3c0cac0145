use std::borrow::Cow;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use asynchat::{Producer, ProducerSink, PushError, SinkError, producer};
use bytes::{BufMut, Bytes, BytesMut};
use futures::SinkExt;
use tokio_util::codec::BytesCodec;

use crate::support::{Did, More, Script, Step, Wakes, drive, pattern, poll_once, scripted, sink};

#[test]
fn partial_writes_of_every_size_lose_and_repeat_nothing() {
    // Small and large items, in every order that can make a difference.
    let sizes = [3, 1_500, 2, 9, 1_100, 1_200, 1, 40];
    let items: Vec<_> = sizes.iter().map(|len| pattern(*len, *len)).collect();
    let all = items.concat();
    for vectored in [false, true] {
        for size in 1..=all.len() {
            let mut sink = sink(Script::new([]).then(Step::Take(size)).vectored(vectored));
            for item in &items {
                sink.push(item).unwrap();
            }
            drive!(sink.close()).0.unwrap();
            let script = sink.get_ref().get_ref();
            assert!(script.wire == all, "writes of {size}");
            if vectored {
                assert_eq!(script.writes(), all.len().div_ceil(size));
            }
            script.assert_closed_in_order();
        }
    }
}

#[test]
fn pending_at_every_point_costs_one_poll_and_is_woken() {
    let items = [pattern(0, 10), pattern(1, 3_000), pattern(2, 20)];
    let all = items.concat();
    let takes = [5, 1_000, 1_500, 500, 25];
    for at in 0..=takes.len() {
        for vectored in [false, true] {
            let mut steps = takes.map(Step::Take).to_vec();
            steps.insert(at, Step::Pending);
            let mut sink = sink(Script::new(steps).vectored(vectored));
            for item in &items {
                sink.push(item).unwrap();
            }
            let (result, polls) = drive!(sink.flush());
            result.unwrap();
            assert!(polls <= 2);
            let script = sink.get_ref().get_ref();
            assert!(script.wire == all);
            assert_eq!(script.polls, script.log.len() + polls - 1);
        }
    }
}

#[test]
fn every_other_poll_pending_bounds_the_polls_per_byte() {
    let mut sink = sink(Script::new((0..20_000).map(|n| [Step::Take(1), Step::Pending][n % 2])));
    sink.push(pattern(0, 3_000)).unwrap();
    sink.push(pattern(0, 500)).unwrap();
    let (result, polls) = drive!(sink.flush());
    result.unwrap();
    let script = sink.get_ref().get_ref();
    assert_eq!(script.wire.len(), 3_500);
    // There are a write and a `Pending` for each byte, the flush, and one `Pending` before it.
    assert!(polls <= 3_502, "{polls}");
    assert!(script.polls <= 7_002, "{}", script.polls);
}

#[test]
fn small_items_and_large_ones_go_out_in_one_vectored_write() {
    let mut sink = sink(Script::new([]));
    for _ in 0..10 {
        sink.push("head ").unwrap();
        sink.push(pattern(0, 4_096)).unwrap();
    }
    sink.push("tail").unwrap();
    drive!(sink.flush()).0.unwrap();
    let script = sink.get_ref().get_ref();
    assert_eq!(script.log, [Did::Write(10 * 4_101 + 4), Did::Flush]);
}

#[test]
fn large_items_are_not_copied() {
    // A writer that records the addresses of the bytes.
    struct Addresses(Vec<*const u8>);

    impl tokio::io::AsyncWrite for Addresses {
        fn poll_write(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            bytes: &[u8],
        ) -> std::task::Poll<std::io::Result<usize>> {
            self.0.push(bytes.as_ptr());
            std::task::Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::task::Poll::Ready(Ok(()))
        }

        fn poll_shutdown(
            self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            self.poll_flush(cx)
        }
    }

    let framed = tokio_util::codec::FramedWrite::new(Addresses(Vec::new()), BytesCodec::new());
    let mut sink = ProducerSink::new(framed);
    let items = [Bytes::from(pattern(0, 1_024)), Bytes::from(pattern(0, 90_000))];
    // Small items, after which the buffer has room for a large one.
    for _ in 0..1_100 {
        sink.push("ab").unwrap();
    }
    sink.push(items[0].clone()).unwrap();
    sink.push_with_producer(items[1].clone()).unwrap();
    drive!(sink.flush()).0.unwrap();
    assert_eq!(sink.get_ref().get_ref().0[1..], items.each_ref().map(|item| item.as_ptr()));
}

#[test]
fn ready_waits_from_the_high_to_the_low_water_mark() {
    let mut sink = sink(Script::new([Step::Pending, Step::Take(500), Step::Pending]));
    sink.set_high_water_mark(1_000);
    sink.set_low_water_mark(400);
    let wakes = Arc::new(Wakes::default());
    sink.push(pattern(0, 999)).unwrap();
    assert!(poll_once(&wakes, sink.ready()).is_ready());
    assert_eq!(sink.get_ref().get_ref().polls, 0);
    sink.push("x").unwrap();
    assert!(poll_once(&wakes, sink.ready()).is_pending());
    // 500 bytes are left, which is below the high mark and above the low mark.
    assert!(poll_once(&wakes, sink.ready()).is_pending());
    assert_eq!(sink.queued_bytes(), 500);
    assert!(poll_once(&wakes, sink.ready()).is_ready());
    assert_eq!(wakes.count(), 2);
    assert!(sink.queued_bytes() <= 400);
}

#[test]
fn the_high_water_mark_is_reached_to_the_byte_however_the_items_come() {
    for mark in [1, 2, 30, 1_000, 1_023, 1_024, 1_025, 5_000] {
        for size in [1, 7, 64, 1_023] {
            for way in 0..3 {
                // A queue that another sink has used before had other marks.
                let mut other = sink(Script::new([]));
                other.push("x").unwrap();
                drive!(other.flush()).0.unwrap();

                let mut sink = sink(Script::new([]).then(Step::Stuck));
                sink.set_high_water_mark(mark);
                sink.set_low_water_mark(0);
                let text = "x".repeat(size);
                let mut pushed = 0;
                while pushed < mark {
                    let ready = poll_once(&Arc::new(Wakes::default()), sink.ready());
                    assert!(ready.is_ready(), "{pushed} of {mark}, by {size}");
                    pushed += size;
                    match (way, pushed % 2) {
                        (0, _) => sink.push(&text).unwrap(),
                        (1, _) | (2, 0) => write!(sink, "{text}").unwrap(),
                        _ => sink.push(text.clone()).unwrap(),
                    }
                }
                let ready = poll_once(&Arc::new(Wakes::default()), sink.ready());
                assert!(ready.is_pending(), "{pushed} of {mark}, by {size}");
            }
        }
    }
}

#[test]
fn ready_does_not_wait_for_more_than_the_low_water_mark() {
    let mut sink = sink(Script::new([Step::Take(600)]).then(Step::Stuck));
    sink.set_high_water_mark(1_000);
    sink.set_low_water_mark(400);
    sink.push(pattern(0, 1_000)).unwrap();
    assert!(poll_once(&Arc::new(Wakes::default()), sink.ready()).is_ready());
    assert_eq!(sink.queued_bytes(), 400);
}

#[test]
fn water_marks_and_block_size_are_kept_sensible() {
    let mut sink = sink(Script::new([]));
    assert_eq!(sink.high_water_mark(), 256 * 1024);
    assert_eq!(sink.low_water_mark(), 64 * 1024);
    assert_eq!(sink.block_size(), 64 * 1024);
    sink.set_high_water_mark(10);
    assert_eq!(sink.low_water_mark(), 10);
    sink.set_block_size(0);
    assert_eq!(sink.block_size(), 1);
    sink.set_high_water_mark(0);
    sink.push_with_producer(producer::iter(["ab", "cd"])).unwrap();
    sink.push("ef").unwrap();
    drive!(sink.ready()).0.unwrap();
    assert_eq!(sink.get_ref().get_ref().wire, b"abcdef");
}

#[test]
fn a_stuck_reader_bounds_memory_and_abort_frees_it() {
    let mut sink = sink(Script::new([]).then(Step::Stuck));
    let wakes = Arc::new(Wakes::default());
    let item = Bytes::from(pattern(0, 10_000));
    let mut pushed = 0;
    while poll_once(&wakes, sink.ready()).is_ready() {
        sink.push(item.clone()).unwrap();
        pushed += 1;
    }
    let bound = sink.high_water_mark() + item.len();
    assert!(pushed > 20 && sink.queued_bytes() <= bound);
    for _ in 0..1_000 {
        assert!(poll_once(&wakes, sink.ready()).is_pending());
        assert!(poll_once(&wakes, sink.flush()).is_pending());
    }
    assert_eq!(sink.queued_bytes(), pushed * item.len());
    assert_eq!(wakes.count(), 0);
    sink.abort();
    assert!(item.is_unique());
}

#[test]
fn a_stuck_reader_asks_a_producer_for_one_block_only() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let mut sink = sink(Script::new([]).then(Step::Stuck));
    let endless = std::iter::repeat_with(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        [0; 1_000]
    });
    sink.push_with_producer(producer::iter(endless)).unwrap();
    let wakes = Arc::new(Wakes::default());
    for _ in 0..1_000 {
        assert!(poll_once(&wakes, sink.flush()).is_pending());
    }
    assert_eq!(asked.load(Ordering::Relaxed), 66);
    assert_eq!(sink.queued_bytes(), 66_000);
}

#[test]
fn a_flushed_sink_holds_no_buffer_and_leaves_the_writer_alone() {
    let mut sink = sink(Script::new([]));
    assert_eq!(sink.get_ref().write_buffer().capacity(), 0);
    sink.push("x").unwrap();
    drive!(sink.flush()).0.unwrap();
    drive!(sink.flush()).0.unwrap();
    assert_eq!(sink.get_ref().get_ref().log, [Did::Write(1), Did::Flush]);
    assert_eq!(sink.into_inner().write_buffer().capacity(), 0);
}

#[test]
fn len_and_queued_bytes_follow_the_queue() {
    let mut sink = sink(Script::new([Step::Take(4), Step::Pending]));
    assert!(sink.is_empty());
    sink.push("ab").unwrap();
    sink.push("cd").unwrap();
    assert!(!sink.is_empty());
    assert_eq!((sink.len(), sink.queued_bytes()), (1, 4));
    sink.push([0; 5_000]).unwrap();
    sink.push_with_producer(scripted([More::Pending, More::Item(vec![0; 9])])).unwrap();
    sink.push("ef").unwrap();
    assert_eq!((sink.len(), sink.queued_bytes()), (4, 5_006));
    assert!(poll_once(&Arc::new(Wakes::default()), sink.flush()).is_pending());
    assert_eq!((sink.len(), sink.queued_bytes()), (3, 5_002));
    drive!(sink.flush()).0.unwrap();
    assert_eq!((sink.len(), sink.queued_bytes()), (0, 0));
    assert_eq!(sink.get_ref().get_ref().wire.len(), 5_015);
}

#[test]
fn a_queue_at_exactly_both_marks_is_not_full() {
    let mut sink = sink(Script::new([]).then(Step::Stuck));
    sink.set_high_water_mark(1_000);
    sink.set_low_water_mark(1_000);
    sink.push(pattern(0, 1_000)).unwrap();
    let wakes = Arc::new(Wakes::default());
    assert!(poll_once(&wakes, sink.ready()).is_ready());
    assert_eq!(sink.get_ref().get_ref().polls, 0);
    sink.push("x").unwrap();
    assert!(poll_once(&wakes, sink.ready()).is_pending());
    sink.get_mut().get_mut().then = Step::Take(1);
    assert!(poll_once(&wakes, sink.ready()).is_ready());
    assert_eq!(sink.queued_bytes(), 1_000);
}

#[test]
fn a_discard_makes_room_at_once() {
    let mut sink = sink(Script::new([Step::Take(17)]).then(Step::Stuck));
    sink.set_high_water_mark(100);
    sink.set_low_water_mark(10);
    let wakes = Arc::new(Wakes::default());
    sink.push(pattern(0, 200)).unwrap();
    assert!(poll_once(&wakes, sink.ready()).is_pending());
    sink.discard_buffers();
    sink.push(pattern(0, 50)).unwrap();
    assert!(poll_once(&wakes, sink.ready()).is_ready());
}

#[test]
fn what_was_written_before_a_discard_is_flushed() {
    let mut sink = sink(Script::new([Step::Take(3), Step::Pending]));
    sink.push("abcdef").unwrap();
    let wakes = Arc::new(Wakes::default());
    assert!(poll_once(&wakes, sink.flush()).is_pending());
    sink.discard_buffers();
    drive!(sink.flush()).0.unwrap();
    drive!(sink.flush()).0.unwrap();
    assert_eq!(sink.get_ref().get_ref().log, [Did::Write(3), Did::Flush]);
}

#[test]
fn moved_marks_apply_to_what_is_queued() {
    let mut sink = sink(Script::new([]).then(Step::Stuck));
    let wakes = Arc::new(Wakes::default());
    sink.push(pattern(0, 500)).unwrap();
    sink.set_high_water_mark(400);
    sink.set_low_water_mark(100);
    assert!(poll_once(&wakes, sink.ready()).is_pending());
    sink.set_high_water_mark(600);
    assert!(poll_once(&wakes, sink.ready()).is_pending(), "not yet down to the low mark");
    sink.set_low_water_mark(500);
    assert!(poll_once(&wakes, sink.ready()).is_ready());
}

#[test]
fn one_poll_is_bounded_though_an_item_is_not() {
    let mut sink = sink(Script::new([]));
    let all = pattern(0, 5 << 20);
    sink.push("head").unwrap();
    sink.push(all.clone()).unwrap();
    let (result, polls) = drive!(sink.flush());
    result.unwrap();
    assert_eq!(polls, 6);
    let script = sink.get_ref().get_ref();
    assert!(script.wire == [b"head", &all[..]].concat());
    assert_eq!(script.log.iter().max_by_key(|did| did.len()).unwrap().len(), 1 << 20);
}

#[test]
fn what_is_written_in_place_keeps_its_order_and_is_queued_whole_or_not_at_all() {
    let mut sink = sink(Script::new([]));
    sink.push("a").unwrap();
    let c = 'c';
    write!(sink, "b{c:?}").unwrap();
    sink.push_with_producer(producer::iter(["d"])).unwrap();
    let refused = sink.try_push_with(|buffer| {
        buffer.put_bytes(b'x', 100_000);
        Err::<(), _>(io::Error::from(io::ErrorKind::InvalidData))
    });
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidData);
    let length = sink.push_with(|buffer| {
        buffer.writer().write_all(&[b'e'; 2_000]).unwrap();
        buffer.len()
    });
    assert!(length.unwrap() >= 2_000);
    sink.push("f").unwrap();
    assert_eq!(sink.queued_bytes(), 2_006);
    drive!(sink.flush()).0.unwrap();
    let expected = [b"ab'c'd", &[b'e'; 2_000][..], b"f"].concat();
    assert_eq!(sink.get_ref().get_ref().wire, expected);
    assert_eq!(sink.written_bytes(), 2_007);
}

#[test]
fn nothing_is_written_in_place_after_a_close() {
    let mut sink = sink(Script::new([]));
    sink.close_when_done();
    assert_eq!(write!(sink, "late").unwrap_err().to_string(), "push after close");
    let refused = sink.push_with(|_| panic!("it is not called"));
    assert_eq!(refused.map(|()| 0).unwrap_err().to_string(), "push after close");
    let refused: io::Result<()> = sink.try_push_with(|_| panic!("it is not called"));
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    assert_eq!(sink.queued_bytes(), 0);
}

#[test]
fn whoever_takes_away_what_others_have_queued_fails_the_sink() {
    let mut sink = sink(Script::new([]));
    sink.push("of others").unwrap();
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let _ = sink.push_with(|buffer| buffer.clear());
    }));
    assert!(panic.is_err());
    assert!(sink.is_closed() && sink.is_empty());
    assert!(matches!(drive!(sink.flush()).0, Err(SinkError::Closed)));
}

#[test]
fn everything_that_holds_bytes_is_a_payload() {
    let large = "l".repeat(2_000);
    let mut sink = sink(Script::new([]));
    sink.push("a").unwrap();
    sink.push(b"b").unwrap();
    sink.push([b'c']).unwrap();
    sink.push(String::from("d")).unwrap();
    sink.push(Box::<str>::from("e")).unwrap();
    sink.push(Box::<[u8]>::from(*b"f")).unwrap();
    sink.push(Cow::Borrowed("g")).unwrap();
    sink.push(Cow::<str>::Owned("h".into())).unwrap();
    sink.push(Cow::Borrowed(&b"i"[..])).unwrap();
    sink.push(Cow::<[u8]>::Owned(b"j".to_vec())).unwrap();
    sink.push(BytesMut::from("k")).unwrap();
    sink.push(Cow::Borrowed(&large[..])).unwrap();
    sink.push(Box::<str>::from(&large[..])).unwrap();
    drive!(sink.flush()).0.unwrap();
    let expected = format!("abcdefghijk{large}{large}");
    assert_eq!(sink.get_ref().get_ref().wire, expected.as_bytes());
}

#[test]
fn types_are_send_and_errors_are_errors() {
    fn is_send<T: Send>() {}
    fn is_send_sync_error<T: Send + Sync + std::error::Error>() {}
    fn is_producer<T: Producer + Send + Sync + std::fmt::Debug>(_: T) {}
    is_send::<ProducerSink<tokio::net::TcpStream, BytesCodec>>();
    is_send_sync_error::<SinkError>();
    is_send_sync_error::<PushError<Bytes>>();
    is_producer(Bytes::new().take(1).chain(Bytes::new()));
    is_producer(producer::iter([""]));
    is_producer(producer::reader(tokio::io::empty()));
    is_producer(producer::once(async { Ok("") }));
    is_producer(producer::poll_fn(|_| std::task::Poll::Ready(None)));
    is_producer(producer::stream(futures::stream::empty::<std::io::Result<Bytes>>()));
    // The futures are `Send`, and so can be spawned.
    fn spawnable<T: Send>(_: T) {}
    let mut sink = ProducerSink::new(tokio_util::codec::FramedWrite::new(
        tokio::io::sink(),
        BytesCodec::new(),
    ));
    spawnable(async move {
        sink.ready().await?;
        sink.flush().await?;
        sink.close().await
    });
}

#[test]
fn what_the_framed_write_holds_is_queued_too() {
    let mut sink = sink(Script::new([]));
    sink.get_mut().write_buffer_mut().extend_from_slice(b"before");
    assert_eq!((sink.len(), sink.is_empty()), (1, false));
    drive!(sink.flush()).0.unwrap();
    assert_eq!((sink.len(), sink.is_empty()), (0, true));
}

#[test]
fn as_a_sink_it_waits_for_room_writes_flushes_and_shuts_down() {
    let mut sink = sink(Script::new([]).then(Step::Stuck));
    sink.set_high_water_mark(1_000);
    sink.set_low_water_mark(100);
    let wakes = Arc::new(Wakes::default());
    assert!(poll_once(&wakes, SinkExt::<Bytes>::feed(&mut sink, "a".into())).is_ready());
    sink.push(pattern(0, 2_000)).unwrap();
    // First there is no room, and then there is.
    assert!(poll_once(&wakes, SinkExt::<Bytes>::feed(&mut sink, "b".into())).is_pending());
    assert!(poll_once(&wakes, SinkExt::<Bytes>::flush(&mut sink)).is_pending());
    sink.get_mut().get_mut().then = Step::Take(usize::MAX);
    assert!(matches!(poll_once(&wakes, SinkExt::<Bytes>::flush(&mut sink)), Poll::Ready(Ok(()))));
    assert_eq!(sink.get_ref().get_ref().wire.len(), 2_001);
    assert_eq!(sink.get_ref().get_ref().log.last(), Some(&Did::Flush));
    sink.push("c").unwrap();
    sink.get_mut().get_mut().then = Step::Stuck;
    assert!(poll_once(&wakes, SinkExt::<Bytes>::close(&mut sink)).is_pending());
    sink.get_mut().get_mut().then = Step::Take(usize::MAX);
    assert!(matches!(poll_once(&wakes, SinkExt::<Bytes>::close(&mut sink)), Poll::Ready(Ok(()))));
    assert_eq!(sink.get_ref().get_ref().log.last(), Some(&Did::Shutdown));
}

#[test]
fn text_and_bytes_that_may_be_borrowed_are_written_whatever_their_size() {
    for len in [1, 2_000] {
        let bytes = vec![b'x'; len];
        let text = String::from_utf8(bytes.clone()).unwrap();
        let mut sink = sink(Script::new([]));
        sink.push(Cow::Borrowed(&bytes[..])).unwrap();
        sink.push(Cow::<[u8]>::Owned(bytes.clone())).unwrap();
        sink.push(Cow::Borrowed(&text[..])).unwrap();
        sink.push(Cow::<str>::Owned(text.clone())).unwrap();
        sink.push(text.into_boxed_str()).unwrap();
        drive!(sink.flush()).0.unwrap();
        assert!(sink.get_ref().get_ref().wire == bytes.repeat(5), "{len}");
    }
}
