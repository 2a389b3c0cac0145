//! A peer that does not read: the queue is bounded, and nothing is read or dispatched while it is full.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::ops::Add;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use asynchat::{
    Channel, ChannelError, Chunk, CloseReason, Control, Event, Handler, Timeout, Timeouts, producer,
};
use futures::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::support::{
    Log, Peer, Scripted, Seen, Socket, Then, data, patient, pipe, seconds, settle, wait,
};

fn channel(high: usize, low: usize) -> (Channel<Socket>, Peer) {
    let (socket, peer) = pipe();
    let channel = Channel::builder(b"\n")
        .timeouts(patient())
        .read_size(16)
        .high_water_mark(high)
        .low_water_mark(low)
        .build(socket);
    (channel, peer)
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_by_the_mark_and_what_one_callback_pushes() {
    const HIGH: usize = 1000;
    const PUSH: usize = 300;
    let (mut channel, peer) = channel(HIGH, 100);
    peer.take(0);
    peer.send("abc\n".repeat(10_000));
    let handler = Scripted::new(move |_, control| {
        control.try_push(vec![b'x'; PUSH]).unwrap();
        // The callback checks this, since the queue is at its longest here.
        assert!(control.queued_bytes() < HIGH + PUSH, "{}", control.queued_bytes());
        Then::Go
    });
    let log = handler.log.clone();
    let running = tokio::spawn(async move { channel.run(handler).await.1 });
    settle().await;
    // Four callbacks fill the queue. Then nothing is dispatched, and nothing more is read.
    assert_eq!(log.seen(), [data("abc"), Seen::End, data("abc"), Seen::End]);
    assert!(peer.unread() >= 40_000 - 16);
    peer.take_more(500);
    settle().await;
    assert_eq!(log.len(), 4);
    running.abort();
}

fn echo(mut channel: Channel<Socket>) -> (Log, tokio::task::JoinHandle<()>) {
    let handler = Scripted::new(|seen, control| {
        if let Seen::Data(text) = seen {
            control.try_push(text.clone()).unwrap();
        }
        Then::Go
    });
    let log = handler.log.clone();
    let running = tokio::spawn(async move {
        channel.run(handler).await;
    });
    (log, running)
}

#[tokio::test(start_paused = true)]
async fn dispatch_goes_on_at_the_low_mark_and_not_before() {
    let (channel, peer) = channel(10, 4);
    peer.take(0);
    peer.send("12345\n12345\n12345\n");
    let (log, running) = echo(channel);
    settle().await;
    assert_eq!(log.len(), 3, "{:?}", log.seen());
    peer.take_more(5);
    settle().await;
    assert_eq!(log.len(), 3);
    // Four bytes are left in the queue, which is the low mark.
    peer.take_more(1);
    settle().await;
    assert_eq!(log.len(), 6);
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_pulled_channel_holds_events_back_too() {
    let (mut channel, peer) = channel(10, 4);
    peer.take(0);
    peer.send("12345\nabc");
    let pulled = channel.next().await.unwrap().unwrap();
    assert_eq!(pulled, Event::Chunk("12345".into()));
    channel.push("0123456789").unwrap();
    for _ in 0..3 {
        let held = tokio::select! {
            biased;
            event = channel.next() => Some(event),
            () = settle() => None,
        };
        assert!(held.is_none(), "{held:?}");
        peer.take_more(1);
    }
    peer.take(usize::MAX);
    assert_eq!(channel.next().await.unwrap().unwrap(), Event::Terminator);
    assert_eq!(channel.next().await.unwrap().unwrap(), Event::Chunk("abc".into()));
}

#[tokio::test(start_paused = true)]
async fn who_asks_reads_although_more_is_queued_than_the_mark_allows() {
    /// Pushes 3000 lines at once, and then reads as many.
    async fn speak(mut channel: Channel<tokio::io::DuplexStream>) -> Result<(), ChannelError> {
        channel.push("x".repeat(99).add("\n").repeat(3_000))?;
        for _ in 0..3_000 {
            let (line, _) = channel.step().await?.unwrap();
            assert_eq!(line.payload.len(), 99);
        }
        channel.flush().await
    }
    for asks in [false, true] {
        let (one, other) = tokio::io::duplex(4096);
        let builder = Channel::builder(b"\n").whole_frames(true);
        let one = builder.clone().read_when_full(asks).build(one);
        let (one, other) = tokio::join!(speak(one), speak(builder.build(other)));
        // If neither reads when its output is full, each waits for the other, until a deadline passes.
        assert_eq!((one.is_ok(), other.is_ok()), (asks, asks));
    }
}

#[tokio::test(start_paused = true)]
async fn who_reads_when_full_takes_no_more_from_its_handles() {
    let (socket, peer) = pipe();
    let mut channel = Channel::builder(b"\n")
        .timeouts(Timeouts::NONE)
        .high_water_mark(10)
        .low_water_mark(4)
        .handle_capacity(10)
        .read_when_full(true)
        .build(socket);
    let handle = channel.handle();
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = sent.clone();
    tokio::spawn(async move {
        while handle.send("12345").await.is_ok() {
            counter.fetch_add(1, Relaxed);
        }
    });
    let handler = Scripted::new(|_, _| Then::Go);
    let log = handler.log.clone();
    peer.take(0);
    let running = tokio::spawn(async move { channel.run(handler).await.1 });
    peer.send("x\n");
    settle().await;
    let waits = sent.load(Relaxed);
    assert!(waits <= 6, "{waits}");
    // The queue is full, and input is still handed over.
    for frames in 2..=100 {
        peer.send("x\n");
        settle().await;
        assert_eq!((log.len(), sent.load(Relaxed)), (2 * frames, waits));
    }
    peer.take_more(1_000);
    settle().await;
    assert!(sent.load(Relaxed) > waits);
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn who_reads_when_full_and_has_failed_is_called_no_more() {
    let (socket, peer) = pipe();
    let mut channel =
        Channel::builder(b"\n").timeouts(patient()).read_when_full(true).build(socket);
    peer.send("one\ntwo\n");
    let handler = Scripted::new(|seen, control| {
        if *seen == Seen::End {
            let push =
                || control.try_push_with::<(), ChannelError>(|_| panic!("as the test wants it"));
            assert!(std::panic::catch_unwind(AssertUnwindSafe(push)).is_err());
        }
        Then::Go
    });
    let (handler, reason) = channel.run(handler).await;
    assert_eq!(handler.log.seen()[..2], [data("one"), Seen::End]);
    assert_eq!(handler.log.len(), 3, "{:?}", handler.log.seen());
    assert!(matches!(reason, CloseReason::Aborted), "{reason:?}");
}

#[tokio::test(start_paused = true)]
async fn a_discard_makes_room() {
    let (mut channel, peer) = channel(10, 4);
    peer.take(0);
    peer.send("12345\n");
    channel.push("0123456789").unwrap();
    tokio::select! {
        biased;
        event = channel.next() => panic!("{event:?}"),
        () = settle() => {}
    }
    channel.discard_buffers();
    assert_eq!(channel.next().await.unwrap().unwrap(), Event::Chunk("12345".into()));
    assert_eq!(peer.output(), "");
}

#[tokio::test(start_paused = true)]
async fn queued_producers_weigh_against_the_mark() {
    let (mut channel, peer) = channel(10_000, 0);
    peer.take(0);
    peer.send("a\n".repeat(10_000));
    let mut queued = 0;
    let counting = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = counting.clone();
    let handler = Scripted::new(move |_, control| {
        let waiting = producer::once(std::future::pending::<std::io::Result<&str>>());
        control.try_push_with_producer(waiting).unwrap();
        queued += 1;
        counter.store(queued, std::sync::atomic::Ordering::Relaxed);
        Then::Go
    });
    let running = tokio::spawn(async move { channel.run(handler).await.1 });
    settle().await;
    let queued = counting.load(std::sync::atomic::Ordering::Relaxed);
    assert!((10..=40).contains(&queued), "{queued}");
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn marks_that_are_equal_do_not_spin() {
    let (mut channel, peer) = channel(10, 10);
    peer.take(0);
    peer.send("12345\n");
    assert_eq!(channel.next().await.unwrap().unwrap(), Event::Chunk("12345".into()));
    channel.push("0123456789").unwrap();
    assert_eq!(channel.next().await.unwrap().unwrap(), Event::Terminator);
}

#[tokio::test(start_paused = true)]
async fn a_mark_of_nothing_is_a_mark_of_one_byte() {
    let (mut channel, peer) = channel(0, 0);
    channel.push("x").unwrap();
    channel.flush().await.unwrap();
    peer.send("a\n");
    peer.close();
    let handler = Scripted::new(|seen, control| {
        if *seen == Seen::End {
            control.try_push("y").unwrap();
            return wait(tokio::task::yield_now());
        }
        Then::Go
    });
    channel.run(handler).await;
    assert_eq!(peer.output(), "xy");
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_that_is_discarded_can_be_flushed() {
    let (mut channel, peer) = channel(100, 10);
    peer.take(0);
    channel.push(vec![b'x'; 1000]).unwrap();
    tokio::select! {
        biased;
        event = channel.next() => panic!("{event:?}"),
        () = settle() => {}
    }
    channel.discard_buffers();
    channel.flush().await.unwrap();
    channel.push("y").unwrap();
    peer.take(usize::MAX);
    channel.flush().await.unwrap();
    assert_eq!(peer.output(), "y");
}

/// A handler that answers each line with more than the peer takes, and discards its output at the shutdown.
struct Discards;

impl Handler for Discards {
    type Error = Infallible;

    fn collect_incoming_data(
        &mut self,
        _: Chunk<'_>,
        _: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        Ok(())
    }

    async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        control.try_push(vec![b'x'; 1000]).unwrap();
        Ok(())
    }

    async fn shutdown(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        control.discard_buffers();
        tokio::task::yield_now().await;
        control.try_push("bye").unwrap();
        control.close_when_done();
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_may_discard_a_full_queue_at_the_shutdown_and_wait() {
    let (mut channel, peer) = channel(100, 10);
    peer.take(10);
    peer.send("a\n");
    let (_, (_, reason)) = tokio::join!(
        async {
            seconds(2).await;
            peer.take(usize::MAX);
        },
        channel.run_until(Discards, seconds(1))
    );
    assert!(matches!(reason, CloseReason::Done), "{reason:?}");
    assert_eq!(peer.output(), "xxxxxxxxxxbye");
}

#[tokio::test(start_paused = true)]
async fn a_stall_is_timed_though_the_queue_is_at_exactly_both_marks() {
    let (socket, peer) = pipe();
    let mut timeouts = patient();
    timeouts.write_stall = Some(Duration::from_secs(60));
    let mut channel =
        Channel::builder(b"\n").timeouts(timeouts).high_water_mark(1000).build(socket);
    peer.take(16);
    peer.send("a\n");
    let handler = Scripted::new(|seen, control| {
        if *seen == Seen::End {
            control.try_push(vec![0; 1016]).unwrap();
        }
        Then::Go
    });
    let running = channel.run(handler);
    let (_, reason) = tokio::time::timeout(Duration::from_secs(10_000), running).await.unwrap();
    let CloseReason::Timeout(Timeout::WriteStall) = reason else {
        panic!("{reason:?}");
    };
}

#[tokio::test(start_paused = true)]
async fn a_command_is_heard_behind_an_endless_answer() {
    let (socket, peer) = pipe();
    let mut channel = Channel::builder(b"\n").timeouts(patient()).build(socket);
    peer.send("GO\n");
    let handler = Scripted::new(|seen, control| {
        if *seen == data("GO") {
            control.try_push(vec![b'x'; 300 * 1024]).unwrap();
            let endless = std::iter::repeat([b'x'; 4096]);
            control.try_push_with_producer(producer::iter(endless)).unwrap();
        }
        if *seen == data("STOP") {
            control.abort();
        }
        Then::Go
    });
    let stopped = channel.run(handler);
    let asked = async {
        while peer.wire().output.len() < 1 << 20 {
            tokio::task::yield_now().await;
        }
        peer.send("STOP\n");
        while peer.wire().output.len() < 16 << 20 {
            tokio::task::yield_now().await;
        }
    };
    let reason = tokio::select! {
        (_, reason) = stopped => reason,
        () = asked => panic!("it was not heard"),
    };
    assert!(matches!(reason, CloseReason::Aborted), "{reason:?}");
}

/// A stream that always has another 64 KiB of empty lines, takes all that is written, and is never pending.
struct Flood;

impl AsyncRead for Flood {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let most = buf.remaining();
        buf.put_slice(&vec![b'\n'; most]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Flood {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

struct Counting {
    frames: Arc<AtomicUsize>,
    answer: &'static str,
}

impl Handler for Counting {
    type Error = Infallible;

    fn collect_incoming_data(
        &mut self,
        _: Chunk<'_>,
        _: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        Ok(())
    }

    async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        self.frames.fetch_add(1, Relaxed);
        control.push(self.answer);
        Ok(())
    }
}

#[tokio::test]
async fn a_flood_of_the_smallest_frames_does_not_starve_other_tasks() {
    for (answer, whole) in [("", false), ("", true), ("ok\n", false)] {
        let frames = Arc::new(AtomicUsize::new(0));
        let handler = Counting { frames: frames.clone(), answer };
        let builder = Channel::builder(b"\n").whole_frames(whole).timeouts(Timeouts::NONE);
        let mut channel = builder.build(Flood);
        let mut running = pin!(channel.run(handler));
        let mut before = 0;
        for _ in 0..100 {
            poll_fn(|cx| {
                assert!(running.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            let now = frames.load(Relaxed);
            assert!(now - before <= 1024, "{} frames in one poll", now - before);
            before = now;
        }
        // Its queue is bounded, and it makes progress.
        assert!(before > 10_000, "{before} frames in 100 polls");
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_each_answer_fills_does_not_starve_other_tasks() {
    let (mut channel, peer) = channel(10, 0);
    peer.send("abc\n".repeat(10_000));
    let handler = Scripted::new(|_, control| {
        control.push("more than ten bytes");
        Then::Go
    });
    let log = handler.log.clone();
    let mut running = pin!(channel.run(handler));
    assert!(futures::poll!(&mut running).is_pending());
    assert!(log.len() > 0 && log.len() <= 2 * 1_024, "{}", log.len());
}

#[tokio::test(start_paused = true)]
async fn what_is_written_in_place_makes_the_queue_full_too() {
    let (mut channel, peer) = channel(10, 1);
    peer.take(0);
    channel.push_with(|output| output.extend_from_slice(b"0123456789")).unwrap();
    assert!(channel.ready().now_or_never().is_none());
    peer.take(9);
    channel.ready().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_flushed_is_not_flushed_again_while_a_producer_has_nothing() {
    let (mut channel, peer) = channel(1000, 1);
    channel.push("head").unwrap();
    let nothing = std::future::pending::<io::Result<&str>>();
    channel.push_with_producer(producer::once(nothing)).unwrap();
    for _ in 0..3 {
        peer.send("\n");
        channel.next().await.unwrap().unwrap();
        assert!(channel.next().now_or_never().is_none());
    }
    assert_eq!((peer.output(), peer.wire().flushes), ("head".into(), 1));
}
