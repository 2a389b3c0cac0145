use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use asynchat::{Producer, ProducerSink, SinkError, producer};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, BufWriter};
use tokio_util::codec::{BytesCodec, FramedWrite};

use crate::support::{Did, More, Script, Step, Wakes, drive, pattern, poll_once, scripted, sink};

#[test]
fn empty_items_are_skipped_and_the_end_is_explicit() {
    let mut sink = sink(Script::new([]));
    let items = ["", "a", "", "", "b", ""].map(|item| More::Item(item.into()));
    sink.push_with_producer(scripted(items)).unwrap();
    sink.push_with_producer(scripted([])).unwrap();
    sink.push("").unwrap();
    sink.push("c").unwrap();
    let (result, polls) = drive!(sink.flush());
    result.unwrap();
    assert_eq!(polls, 1);
    assert_eq!(sink.get_ref().get_ref().wire, b"abc");
}

#[test]
fn nothing_but_empty_items_never_touches_the_writer_and_costs_nothing() {
    let mut sink = sink(Script::new([]));
    sink.push("").unwrap();
    sink.push(Vec::new()).unwrap();
    assert!(sink.is_empty());
    drive!(sink.flush()).0.unwrap();
    assert_eq!(sink.get_ref().get_ref().polls, 0);
}

#[test]
fn endless_empty_items_let_other_tasks_run() {
    let mut sink = sink(Script::new([]));
    let endless = std::iter::repeat(Bytes::new());
    sink.push_with_producer(producer::iter(endless)).unwrap();
    let wakes = Arc::new(Wakes::default());
    for poll in 1..10 {
        assert!(poll_once(&wakes, sink.flush()).is_pending());
        assert_eq!(wakes.count(), poll);
    }
}

#[test]
fn a_fast_writer_lets_other_tasks_run() {
    let mut sink = sink(Script::new([]));
    let endless = std::iter::repeat(Bytes::from(pattern(0, 64 * 1024)));
    sink.push_with_producer(producer::iter(endless)).unwrap();
    let wakes = Arc::new(Wakes::default());
    assert!(poll_once(&wakes, sink.flush()).is_pending());
    assert_eq!(wakes.count(), 1);
    assert!(sink.get_ref().get_ref().wire.len() <= 2 * 1024 * 1024);
}

#[test]
fn a_pending_producer_wakes_the_task_once_and_what_is_before_it_is_written() {
    let waker: Arc<Mutex<Option<Waker>>> = Arc::default();
    let stored = waker.clone();
    let mut ready = false;
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let mut sink = sink(Script::new([]));
    sink.push("before ").unwrap();
    sink.push_with_producer(producer::poll_fn(move |cx| {
        counted.fetch_add(1, Ordering::Relaxed);
        if ready {
            return Poll::Ready(None);
        }
        ready = true;
        *stored.lock().unwrap() = Some(cx.waker().clone());
        Poll::Pending
    }))
    .unwrap();
    sink.push("behind").unwrap();

    let wakes = Arc::new(Wakes::default());
    assert!(poll_once(&wakes, sink.flush()).is_pending());
    assert_eq!(wakes.count(), 0);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert_eq!(sink.get_ref().get_ref().wire, b"before ");
    waker.lock().unwrap().take().unwrap().wake();
    assert_eq!(wakes.count(), 1);
    assert!(poll_once(&wakes, sink.flush()).is_ready());
    assert_eq!(sink.get_ref().get_ref().wire, b"before behind");
}

#[test]
fn what_was_written_is_flushed_while_a_producer_has_nothing() {
    let mut sink = sink(Script::new([Step::Take(100), Step::Pending]));
    sink.push("before ").unwrap();
    let slow = [More::Item(b"a".to_vec()), More::Pending, More::Pending, More::Item(b"b".to_vec())];
    sink.push_with_producer(scripted(slow)).unwrap();
    let wakes = Arc::new(Wakes::default());
    // The flush is pending, then it is done, then there is nothing more to flush.
    let mut logs = vec![vec![Did::Write(8)], vec![Did::Write(8), Did::Flush]];
    logs.push([&logs[1][..], &[Did::Write(1), Did::Flush]].concat());
    for log in logs {
        let ready = poll_once(&wakes, sink.flush()).is_ready();
        assert_eq!(sink.get_ref().get_ref().log, log);
        assert_eq!(ready, log.len() == 4);
    }
    assert_eq!(sink.get_ref().get_ref().wire, b"before ab");
}

#[test]
fn a_flush_that_fails_while_a_producer_has_nothing_fails_the_sink() {
    let mut sink = sink(Script::new([Step::Take(1), Step::Fail(io::ErrorKind::BrokenPipe)]));
    sink.push("x").unwrap();
    sink.push_with_producer(scripted([More::Pending])).unwrap();
    assert!(matches!(drive!(sink.flush()).0, Err(SinkError::Write(_))));
    assert!(sink.is_closed());
}

#[test]
fn a_line_reaches_the_peer_through_a_buffered_writer_while_its_producer_waits() {
    let framed = FramedWrite::new(BufWriter::new(Script::new([])), BytesCodec::new());
    let mut sink = ProducerSink::new(framed);
    let (sender, mut receiver) = tokio::sync::mpsc::channel(4);
    let lines = producer::poll_fn(move |cx| receiver.poll_recv(cx).map(|item| item.map(Ok)));
    sink.push_with_producer(lines).unwrap();
    sender.try_send("hello\n".into()).unwrap();
    assert!(poll_once(&Arc::new(Wakes::default()), sink.flush()).is_pending());
    assert_eq!(sink.get_ref().get_ref().get_ref().wire, b"hello\n");
}

#[test]
fn an_endless_producer_leaves_both_marks_within_reach() {
    let wakes = Arc::new(Wakes::default());
    for (high, low) in [(256 * 1024, 64 * 1024), (1_000, 1_000), (100, 10), (1, 0)] {
        let mut sink = sink(Script::new([]));
        sink.set_high_water_mark(high);
        sink.set_low_water_mark(low);
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let endless = std::iter::repeat_with(move || {
            count.fetch_add(1, Ordering::Relaxed);
            pattern(0, 4096)
        });
        sink.push(pattern(0, high + 50_000)).unwrap();
        sink.push_with_producer(producer::iter(endless)).unwrap();
        assert!(poll_once(&wakes, sink.ready()).is_ready(), "{high} {low}");
        assert_eq!(asked.load(Ordering::Relaxed), 0);
        // What the producer yields does not make the queue full, either.
        assert!(poll_once(&wakes, sink.flush()).is_pending());
        assert!(poll_once(&wakes, sink.ready()).is_ready(), "{high} {low}");
    }
}

#[test]
fn producers_are_asked_for_no_more_than_the_high_mark() {
    let mut sink = sink(Script::new([]).then(Step::Stuck));
    sink.set_high_water_mark(5_000);
    let endless = std::iter::repeat(Bytes::from(pattern(0, 2_000)));
    sink.push_with_producer(producer::iter(endless)).unwrap();
    assert!(poll_once(&Arc::new(Wakes::default()), sink.flush()).is_pending());
    assert_eq!(sink.queued_bytes(), 6_000);
}

#[test]
fn what_is_behind_a_producer_can_only_be_written_through_it() {
    let mut sink = sink(Script::new([]));
    sink.set_high_water_mark(1_000);
    sink.set_low_water_mark(100);
    sink.push_with_producer(scripted(vec![More::Item(pattern(0, 500)); 10])).unwrap();
    sink.push(pattern(1, 2_000)).unwrap();
    sink.push_with_producer(scripted([More::Pending])).unwrap();
    sink.push("behind").unwrap();
    drive!(sink.ready()).0.unwrap();
    assert_eq!(sink.get_ref().get_ref().wire.len(), 7_000);
    assert_eq!(sink.queued_bytes(), 6);
}

#[test]
fn a_failing_producer_fails_the_sink() {
    let mut sink = sink(Script::new([Step::Take(1)]));
    sink.push("before").unwrap();
    let failing = scripted([More::Pending, More::Fail(io::ErrorKind::NotFound)]);
    let drops = failing.drops.clone();
    sink.push_with_producer(failing).unwrap();
    sink.push("behind").unwrap();
    let error = drive!(sink.flush()).0.unwrap_err();
    let SinkError::Producer(ref source) = error else {
        panic!("{error:?}");
    };
    assert_eq!(source.kind(), io::ErrorKind::NotFound);
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::NotFound);
    assert_eq!(drops.load(Ordering::Relaxed), 1);
    assert!(sink.is_empty());
    assert_eq!(sink.push("late").unwrap_err().into_inner(), "late");
    assert!(matches!(drive!(sink.close()).0, Err(SinkError::Closed)));
    assert_eq!(sink.get_ref().get_ref().wire, b"before");
}

#[test]
fn a_panicking_producer_leaves_the_sink_failed_not_stuck() {
    let mut sink = sink(Script::new([]));
    let panicking = scripted([More::Item(b"a".to_vec()), More::Panic]);
    let drops = panicking.drops.clone();
    sink.push_with_producer(panicking).unwrap();
    let wakes = Arc::new(Wakes::default());
    let panic = catch_unwind(AssertUnwindSafe(|| poll_once(&wakes, sink.flush())));
    assert!(panic.is_err());
    assert_eq!(drops.load(Ordering::Relaxed), 1);
    assert!(sink.is_empty() && sink.is_closed());
    assert!(matches!(drive!(sink.flush()).0, Err(SinkError::Closed)));
}

#[test]
fn dropping_a_full_sink_drops_all_that_it_holds() {
    let item = Bytes::from(pattern(0, 10_000));
    let producers: Vec<_> =
        (0..100).map(|_| scripted([More::Item(pattern(0, 5_000)), More::Pending])).collect();
    let drops: Vec<_> = producers.iter().map(|p| p.drops.clone()).collect();
    let mut sink = sink(Script::new([Step::Take(17)]).then(Step::Stuck));
    for producer in producers {
        sink.push(item.clone()).unwrap();
        sink.push_with_producer(producer).unwrap();
        sink.push("small").unwrap();
    }
    assert_eq!(sink.queued_bytes(), 100 * 10_005);
    assert_eq!(sink.len(), 300);
    assert!(poll_once(&Arc::new(Wakes::default()), sink.flush()).is_pending());
    assert!(!item.is_unique());
    drop(sink);
    assert!(item.is_unique());
    assert!(drops.iter().all(|count| count.load(Ordering::Relaxed) == 1));
}

#[test]
fn a_hundred_thousand_small_items_go_out_in_few_writes() {
    for producer in [false, true] {
        let mut sink = sink(Script::new([]));
        let items: Vec<_> = (0..100_000).map(|n| format!("{n}\r\n")).collect();
        let expected = items.concat();
        if producer {
            sink.push_with_producer(producer::iter(items)).unwrap();
        } else {
            for item in &items {
                sink.push(item).unwrap();
            }
            assert_eq!(sink.queued_bytes(), expected.len());
        }
        drive!(sink.flush()).0.unwrap();
        let script = sink.get_ref().get_ref();
        assert!(script.wire == expected.as_bytes());
        // In one poll a producer is asked at most a few thousand times.
        let few = if producer { 100_000 / 4_096 + 1 } else { 0 };
        assert!(script.writes() <= expected.len().div_ceil(64 * 1024) + few);
    }
}

#[test]
fn a_hundred_thousand_small_producers_keep_their_order() {
    let mut sink = sink(Script::new([]));
    let mut expected = String::new();
    for n in 0..100_000 {
        let item = format!("{n},");
        expected.push_str(&item);
        sink.push_with_producer(Bytes::from(item)).unwrap();
        sink.push(";").unwrap();
        expected.push(';');
    }
    drive!(sink.flush()).0.unwrap();
    assert!(sink.get_ref().get_ref().wire == expected.as_bytes());
}

/// Bytes that count how many values of this type are alive.
struct Counted(&'static [u8], Arc<AtomicUsize>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A writer that takes all bytes and counts them.
#[derive(Default)]
struct Count(u64);

impl tokio::io::AsyncWrite for Count {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0 += bytes.len() as u64;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn a_producer_of_four_gib_is_held_a_block_at_a_time() {
    static BLOCK: [u8; 16 * 1024] = [7; 16 * 1024];
    const ITEMS: u64 = (4 << 30) / BLOCK.len() as u64;
    let alive = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (counted, peak) = (alive.clone(), most.clone());
    let items = (0..ITEMS).map(move |_| {
        let now = counted.fetch_add(1, Ordering::Relaxed) + 1;
        peak.fetch_max(now, Ordering::Relaxed);
        Bytes::from_owner(Counted(&BLOCK, counted.clone()))
    });
    let framed =
        tokio_util::codec::FramedWrite::new(Count::default(), tokio_util::codec::BytesCodec::new());
    let mut sink = asynchat::ProducerSink::new(framed);
    sink.push_with_producer(producer::iter(items)).unwrap();
    drive!(sink.flush()).0.unwrap();
    assert_eq!(sink.get_ref().get_ref().0, 4 << 30);
    assert_eq!(most.load(Ordering::Relaxed), sink.block_size() / BLOCK.len());
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}

#[test]
fn a_reader_yields_blocks_of_the_stated_size() {
    let data = pattern(3, 200_000);
    for block in [1, 10, 1_000, 64 * 1024, 1 << 20] {
        let mut sink = sink(Script::new([]));
        let reader = producer::reader(io::Cursor::new(data[..20_000].to_vec()));
        sink.push_with_producer(reader.with_block_size(block)).unwrap();
        drive!(sink.flush()).0.unwrap();
        assert!(sink.get_ref().get_ref().wire == data[..20_000]);
    }
    let mut reader = Box::pin(producer::reader(io::Cursor::new(data.clone())));
    let mut sizes = Vec::new();
    let wakes = Arc::new(Wakes::default());
    while let Poll::Ready(Some(item)) =
        poll_once(&wakes, std::future::poll_fn(|cx| reader.as_mut().poll_more(cx)))
    {
        sizes.push(item.unwrap().len());
    }
    assert_eq!(sizes, [65_536, 65_536, 65_536, 3_392]);
}

#[test]
fn a_slow_reader_loses_nothing() {
    let parts: Vec<_> = (1..60).map(|n| pattern(n, n * n * 5)).collect();
    let mut builder = tokio_test::io::Builder::new();
    for part in &parts {
        builder.read(part);
    }
    let mut sink = sink(Script::new([]));
    sink.push_with_producer(producer::reader(builder.build()).with_block_size(4096)).unwrap();
    drive!(sink.flush()).0.unwrap();
    assert!(sink.get_ref().get_ref().wire == parts.concat());
}

#[test]
fn take_and_chain_cut_and_join_and_tell_their_size() {
    let all = Bytes::from("0123456789");
    for first in 0..12 {
        for second in 0..12 {
            let joined = all.clone().take(first).chain(all.clone().take(second));
            let expected =
                [&all[..first.min(10) as usize], &all[..second.min(10) as usize]].concat();
            let len = expected.len() as u64;
            assert_eq!(joined.size_hint(), (len, Some(len)));
            let mut sink = sink(Script::new([]));
            sink.push_with_producer(joined).unwrap();
            drive!(sink.flush()).0.unwrap();
            assert_eq!(sink.get_ref().get_ref().wire, expected);
        }
    }
    for cut in 0..8 {
        let mut sink = sink(Script::new([]));
        sink.push_with_producer(producer::iter(["ab", "", "cd", "ef"]).take(cut)).unwrap();
        drive!(sink.flush()).0.unwrap();
        assert_eq!(sink.get_ref().get_ref().wire, b"abcdef"[..cut.min(6) as usize]);
    }
    let unknown = producer::iter(["a"]).chain(Bytes::from("bc"));
    assert_eq!(unknown.size_hint(), (2, None));
}

#[test]
fn futures_streams_and_receivers_are_producers() {
    let mut sink = sink(Script::new([]));
    sink.push_with_producer(producer::once(async { Ok("once ") })).unwrap();
    let stream = futures::stream::iter([io::Result::Ok(b"a "), Ok(b"b ")]);
    sink.push_with_producer(producer::stream(stream)).unwrap();
    let boxed: Box<dyn Producer + Send + Unpin> = Box::new(Bytes::from("boxed"));
    sink.push_with_producer(std::pin::Pin::new(boxed)).unwrap();
    drive!(sink.flush()).0.unwrap();
    assert_eq!(sink.get_ref().get_ref().wire, b"once a b boxed");
}

#[tokio::test]
async fn a_file_arrives_whole_at_a_slow_peer() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/asynchat-cases.jsonl");
    let expected = std::fs::read(path).unwrap();
    let file = tokio::fs::File::open(path).await.unwrap();
    let (local, mut peer) = tokio::io::duplex(100);
    let framed = tokio_util::codec::FramedWrite::new(local, tokio_util::codec::BytesCodec::new());
    let mut sink = asynchat::ProducerSink::new(framed);
    sink.push_with_producer(producer::reader(file)).unwrap();
    let mut received = Vec::new();
    let (closed, read) = tokio::join!(sink.close(), peer.read_to_end(&mut received));
    closed.unwrap();
    read.unwrap();
    assert!(received == expected);
}

#[test]
fn a_boxed_producer_knows_its_size() {
    let boxed = Box::pin(Bytes::from("hello"));
    assert_eq!(boxed.size_hint(), (5, Some(5)));
}

#[test]
fn a_producer_in_a_chain_is_not_asked_after_its_end() {
    let item = |text: &str| More::Item(text.into());
    let mut sink = sink(Script::new([]));
    let chain = scripted([item("a")]).chain(scripted([item("b"), More::Pending, item("c")]));
    sink.push_with_producer(chain).unwrap();
    drive!(sink.flush()).0.unwrap();
    assert_eq!(sink.get_ref().get_ref().wire, b"abc");
}

#[test]
fn a_reader_yields_blocks_of_the_size_that_was_set() {
    let mut reader = std::pin::pin!(producer::reader(&b"0123456789"[..]).with_block_size(4));
    let mut cx = std::task::Context::from_waker(Waker::noop());
    for block in ["0123", "4567", "89"] {
        let Poll::Ready(Some(Ok(bytes))) = reader.as_mut().poll_more(&mut cx) else {
            panic!("there is more");
        };
        assert_eq!(bytes, block);
    }
    assert!(matches!(reader.poll_more(&mut cx), Poll::Ready(None)));
}

#[test]
fn a_mark_that_is_lowered_below_what_is_queued_makes_the_queue_full() {
    let mut sink = sink(Script::new([]).then(Step::Stuck));
    sink.push(pattern(0, 100)).unwrap();
    let wakes = Arc::new(Wakes::default());
    assert!(poll_once(&wakes, sink.ready()).is_ready());
    sink.set_low_water_mark(10);
    sink.set_high_water_mark(50);
    assert!(poll_once(&wakes, sink.ready()).is_pending());
}
