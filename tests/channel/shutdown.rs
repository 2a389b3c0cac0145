//! The signal of `run_until`: whenever it comes, no input behind it is dispatched.

use std::convert::Infallible;
use std::future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::Poll;
use std::thread;

use asynchat::{Channel, Chunk, CloseReason, Control, Handler, Limit, Terminator, Timeouts};
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::messages::finding;
use crate::support::{
    Log, Peer, Scripted, Seen, Socket, Then, data, patient, pipe, seconds, settle, wait,
};

fn piped(peer_sends: &str) -> (Socket, Peer) {
    let (socket, peer) = pipe();
    peer.send(peer_sends);
    (socket, peer)
}

type Running = JoinHandle<CloseReason<&'static str>>;

fn run<F>(mut channel: Channel<Socket>, act: F) -> (oneshot::Sender<()>, Log, Running)
where
    F: FnMut(&Seen, &mut Control<'_>) -> Then + Send + 'static,
{
    let (stop, stopped) = oneshot::channel();
    let handler = Scripted::new(act);
    let log = handler.log.clone();
    let signal = async { drop(stopped.await) };
    let running = tokio::spawn(async move { channel.run_until(handler, signal).await.1 });
    (stop, log, running)
}

#[tokio::test(start_paused = true)]
async fn it_is_seen_before_input_that_was_buffered_before_the_run() {
    let (socket, _peer) = piped("a\nb\nc\nd\n");
    let mut channel = Channel::builder(b"\n").timeouts(patient()).build(socket);
    for _ in 0..2 {
        channel.next().await.unwrap().unwrap();
    }
    let handler = Scripted::new(|_, _| Then::Go);
    let (handler, reason) = channel.run_until(handler, std::future::ready(())).await;
    assert!(matches!(reason, CloseReason::Done), "{reason:?}");
    assert_eq!(handler.log.seen(), [Seen::Closed("closed".into())]);
}

#[tokio::test(start_paused = true)]
async fn it_is_seen_under_back_pressure() {
    let (socket, peer) = piped("a\nb\nc\nd\n");
    peer.take(0);
    let builder = Channel::builder(b"\n").high_water_mark(10).low_water_mark(0);
    let (stop, log, running) = run(builder.timeouts(patient()).build(socket), |seen, control| {
        if matches!(seen, Seen::Data(_)) {
            control.try_push("x".repeat(100)).unwrap();
        }
        Then::Go
    });
    settle().await;
    assert_eq!(log.seen(), [data("a")]);
    stop.send(()).unwrap();
    for _ in 0..4 {
        peer.take_more(100);
        seconds(1).await;
    }
    running.await.unwrap();
    assert_eq!(log.seen(), [data("a"), Seen::End, Seen::Closed("closed".into())]);
}

#[tokio::test(start_paused = true)]
async fn it_is_seen_though_a_callback_becomes_ready_at_the_same_time() {
    let (socket, _peer) = piped("a\nb\nc\nd\n");
    let (go, gone) = oneshot::channel::<()>();
    let mut gone = Some(gone);
    let channel = Channel::builder(b"\n").timeouts(patient()).build(socket);
    let (stop, log, running) = run(channel, move |seen, _| match gone.take() {
        Some(gone) if *seen == Seen::End => wait(async { drop(gone.await) }),
        other => {
            gone = other;
            Then::Go
        }
    });
    settle().await;
    stop.send(()).unwrap();
    go.send(()).unwrap();
    running.await.unwrap();
    assert_eq!(log.seen(), [data("a"), Seen::End, Seen::Closed("closed".into())]);
}

#[tokio::test(start_paused = true)]
async fn it_is_told_when_a_skipped_frame_ends() {
    let (socket, peer) = piped("abcdef");
    let builder = Channel::builder(b"\n").limit(Limit::Skip(2)).timeouts(patient());
    let (stop, _, running) = run(builder.build(socket), |_, _| Then::Go);
    settle().await;
    stop.send(()).unwrap();
    settle().await;
    assert!(!running.is_finished());
    peer.send("\n");
    settle().await;
    assert!(peer.is_shut_down());
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn it_is_seen_before_what_is_read_behind_the_callback_that_gave_it() {
    let (socket, peer) = piped("a\nb\nc\nd\n");
    peer.chop(2);
    let (stop, stopped) = oneshot::channel();
    let mut stop = Some(stop);
    let mut left = 2;
    let handler = Scripted::new(move |seen, _| {
        left -= u32::from(*seen == Seen::End);
        if left == 0 {
            stop.take().map(|stop| stop.send(()));
        }
        Then::Go
    });
    let mut channel = Channel::builder(b"\n").timeouts(patient()).build(socket);
    let signal = async { drop(stopped.await) };
    let (handler, _) = channel.run_until(handler, signal).await;
    assert_eq!(handler.log.seen()[..4], [data("a"), Seen::End, data("b"), Seen::End]);
    assert_eq!(handler.log.seen()[4..], [Seen::Closed("closed".into())]);
}

/// A handler that discards the input after a wrong end, and sends the signal.
struct Dropping(Option<oneshot::Sender<()>>);

impl Handler for Dropping {
    type Error = Infallible;

    fn collect_incoming_data(
        &mut self,
        _: Chunk<'_>,
        _: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        Ok(())
    }

    async fn wrong_end(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        control.discard_buffers();
        self.0.take().map(|stop| stop.send(()));
        tokio::task::yield_now().await;
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_has_failed_is_the_reason_though_its_rest_was_dropped() {
    let (socket, _peer) = piped("abXY");
    let builder = Channel::builder(Terminator::count_then(2, b"\n")).timeouts(patient());
    let (stop, stopped) = oneshot::channel();
    let signal = async { drop(stopped.await) };
    let (_, reason) = builder.build(socket).run_until(Dropping(Some(stop)), signal).await;
    assert!(matches!(reason, CloseReason::Frame(_)), "{reason:?}");
}

/// A handler that counts frames.
struct Count(Arc<AtomicUsize>);

impl Handler for Count {
    type Error = Infallible;

    fn collect_incoming_data(
        &mut self,
        _: Chunk<'_>,
        _: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        Ok(())
    }

    async fn found_terminator(&mut self, _: &mut Control<'_>) -> Result<(), Infallible> {
        self.0.fetch_add(1, Relaxed);
        Ok(())
    }
}

#[tokio::test]
async fn a_busy_peer_does_not_hide_it() {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    // Each read ends within a terminator, so that some input is always left.
    let mut channel = Channel::builder(b"\r\n").read_size(3).build(server);
    let (stop, stopped) = oneshot::channel::<()>();
    let count = Arc::new(AtomicUsize::new(0));
    let handler = Count(count.clone());
    let signal = async { drop(stopped.await) };
    let running = tokio::spawn(async move { channel.run_until(handler, signal).await.1 });
    client.write_all(b"x\r").await.unwrap();
    let mut stop = Some(stop);
    let mut before = 0;
    for round in 0..200 {
        if client.write_all(&b"\nx\r".repeat(1000)).await.is_err() || running.is_finished() {
            break;
        }
        tokio::task::yield_now().await;
        if round == 50 {
            before = count.load(Relaxed);
            stop.take().unwrap().send(()).unwrap();
        }
    }
    drop(client);
    running.await.unwrap();
    let behind = count.load(Relaxed) - before;
    assert!(before > 0 && behind < 1000, "{behind} frames behind the signal");
}

/// A handler that says goodbye at the shutdown.
struct Polite;

impl Handler for Polite {
    type Error = Infallible;

    fn collect_incoming_data(
        &mut self,
        _: Chunk<'_>,
        _: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        Ok(())
    }

    async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        control.push("250\n");
        Ok(())
    }

    async fn shutdown(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        control.push("421\n");
        control.close_when_done();
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stalls_in_mid_frame_is_told_before_long() {
    for completes in [false, true] {
        let (socket, peer) = piped("NOO");
        let mut channel = Channel::new(socket, b"\n");
        let (stop, stopped) = oneshot::channel::<()>();
        let signal = async { drop(stopped.await) };
        let running = tokio::spawn(async move { channel.run_until(Polite, signal).await.1 });
        seconds(20).await;
        stop.send(()).unwrap();
        seconds(9).await;
        assert_eq!(peer.output(), "");
        if completes {
            peer.send("P\n");
            settle().await;
            assert_eq!(peer.output(), "250\n421\n");
        } else {
            seconds(2).await;
            assert_eq!(peer.output(), "421\n");
        }
        peer.close();
        assert!(matches!(running.await.unwrap(), CloseReason::Done));
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_seen_between_reads_that_follow_at_once() {
    let (socket, peer) = piped(&"a\n".repeat(20));
    peer.chop(2);
    let mut channel = Channel::builder(b"\n").timeouts(patient()).build(socket);
    let (stop, stopped) = oneshot::channel::<()>();
    let mut stop = Some(stop);
    let handler = Scripted::new(|seen, _| {
        if *seen == Seen::End {
            drop(stop.take());
        }
        Then::Go
    });
    let signal = async { drop(stopped.await) };
    let (handler, reason) = channel.run_until(handler, signal).await;
    assert!(matches!(reason, CloseReason::Done), "{reason:?}");
    let frames = handler.log.seen().iter().filter(|seen| **seen == Seen::End).count();
    assert_eq!(frames, 1);
}

#[tokio::test(start_paused = true)]
async fn it_is_heeded_before_the_next_callback_though_more_was_read() {
    for given in 1..5 {
        let (socket, peer) = piped("1\n2\n3\n4\n5\n6\n");
        let token = CancellationToken::new();
        let mut ends = 0;
        let handler = Scripted::new(|seen, control| {
            if *seen == Seen::End {
                control.push("250\n");
                ends += 1;
                if ends == given {
                    // Another thread sends the signal, as in a server.
                    thread::scope(|scope| drop(scope.spawn(|| token.cancel())));
                }
            }
            Then::Go
        });
        let mut channel = Channel::builder(b"\n").timeouts(patient()).build(socket);
        let (_, reason) = channel.run_until(handler, token.cancelled()).await;
        assert!(matches!(reason, CloseReason::Done), "{reason:?}");
        assert_eq!(ends, given);
        assert_eq!(peer.output(), "250\n".repeat(given));
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_polled_only_when_it_may_have_come() {
    let (socket, peer) = pipe();
    let polls = Arc::new(AtomicUsize::new(0));
    let (stop, mut stopped) = mpsc::channel::<bool>(1);
    let signal = {
        let polls = polls.clone();
        async move {
            let mut next = pin!(async move { while stopped.recv().await == Some(false) {} });
            future::poll_fn(|cx| {
                polls.fetch_add(1, Relaxed);
                next.as_mut().poll(cx)
            })
            .await;
        }
    };
    let mut channel = Channel::new(socket, b"\n");
    let running = tokio::spawn(async move { channel.run_until(Polite, signal).await.1 });
    for _ in 0..10 {
        peer.send("a\nb\n");
        settle().await;
    }
    assert_eq!(polls.load(Relaxed), 1);
    // The signal is woken and still pending: the input that is there is handed over.
    stop.send(false).await.unwrap();
    peer.send("a\nb\n");
    settle().await;
    assert_eq!((polls.load(Relaxed), peer.output()), (2, "250\n".repeat(22)));
    stop.send(true).await.unwrap();
    settle().await;
    assert_eq!((polls.load(Relaxed), peer.output()), (3, "250\n".repeat(22) + "421\n"));
    peer.close();
    running.await.unwrap();
    assert_eq!(polls.load(Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn to_look_for_it_holds_up_nothing_that_is_there() {
    let (socket, peer) = pipe();
    // Each callback wakes the signal, although it does not come.
    let (wake, mut woken) = mpsc::unbounded_channel::<()>();
    let signal = async move { while woken.recv().await.is_some() {} };
    let handler = Scripted::new(move |seen, control| {
        if *seen == Seen::End {
            control.push("250\n");
            wake.send(()).unwrap();
        }
        Then::Go
    });
    let builder = Channel::builder(b"\n").timeouts(patient());
    let mut channel = builder.build_with_input(socket, "1\n2\n3\n".into());
    let running = tokio::spawn(async move { drop(channel.run_until(handler, signal).await) });
    settle().await;
    assert_eq!(peer.output(), "250\n".repeat(3));
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_signal_that_wakes_whenever_it_is_polled_holds_up_nothing() {
    let (socket, peer) = piped("1\n2\n");
    let mut polls = 0;
    let signal = future::poll_fn(|cx| {
        polls += 1;
        assert!(polls < 1_000, "nothing else is polled");
        cx.waker().wake_by_ref();
        Poll::<()>::Pending
    });
    peer.close();
    let (_, reason) = Channel::new(socket, b"\n").run_until(Polite, signal).await;
    assert!(matches!(reason, CloseReason::PeerClosed), "{reason:?}");
    assert_eq!(peer.output(), "250\n".repeat(2));
}

#[test]
fn it_is_heeded_however_much_the_task_has_done_in_its_turn() {
    // A task that no worker polls is woken at once by Tokio's futures when it has used up its budget.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let handle = runtime.handle();
    for given in 1..300 {
        let (socket, _peer) = piped(&"a\n".repeat(400));
        let (stop, mut stopped) = oneshot::channel::<()>();
        let mut stop = Some(stop);
        let mut ends = 0;
        let handler = Scripted::new(|seen, _| {
            if *seen != Seen::End {
                return Then::Go;
            }
            ends += 1;
            if ends == given {
                drop(stop.take());
            }
            wait(tokio::task::coop::consume_budget())
        });
        let mut polls = 0;
        let signal = future::poll_fn(|cx| {
            polls += 1;
            assert!(polls < 1_000, "nothing else is polled");
            Pin::new(&mut stopped).poll(cx).map(drop)
        });
        let builder = Channel::builder(b"\n").timeouts(Timeouts::NONE);
        handle.block_on(builder.build(socket).run_until(handler, signal));
        assert_eq!(ends, given);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_not_asked_about_is_no_message_that_has_begun() {
    for sent in ["1\n2\n3\n", "1\n2"] {
        let (socket, _peer) = piped(sent);
        let (stop, stopped) = oneshot::channel::<()>();
        let mut stop = Some(stop);
        let line = |input: &[u8], _: &mut Control<'_>| {
            input.iter().position(|byte| *byte == b'\n').map(|place| place + 1)
        };
        let handler = finding(line, |_| drop(stop.take()));
        let signal = async { drop(stopped.await) };
        let builder = Channel::builder(None).own_end(true).timeouts(patient());
        let (handler, reason) = builder.build(socket).run_until(handler, signal).await;
        assert!(matches!(reason, CloseReason::Done), "{reason:?}");
        assert_eq!(handler.collected, ["1\n"]);
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_not_polled_when_it_has_come() {
    let (socket, peer) = piped("NOO");
    let (stop, stopped) = oneshot::channel::<()>();
    // This future would panic if it was polled again.
    let signal = async { drop(stopped.await) };
    let mut channel = Channel::new(socket, b"\n");
    let mut running = Box::pin(async move { channel.run_until(Polite, signal).await.1 });
    assert!(futures::poll!(&mut running).is_pending());
    stop.send(()).unwrap();
    assert!(futures::poll!(&mut running).is_pending());
    let running = tokio::spawn(running);
    settle().await;
    peer.send("P\n");
    settle().await;
    assert_eq!(peer.output(), "250\n421\n");
    peer.close();
    assert!(matches!(running.await.unwrap(), CloseReason::Done));
}

#[tokio::test(start_paused = true)]
async fn it_wakes_the_task_that_polled_last() {
    let (socket, peer) = piped("a\n");
    let (stop, stopped) = oneshot::channel::<()>();
    let signal = async { drop(stopped.await) };
    let mut channel = Channel::new(socket, b"\n");
    let mut running = Box::pin(async move { channel.run_until(Polite, signal).await.1 });
    // One task begins to drive the future, and another goes on.
    assert!(futures::poll!(&mut running).is_pending());
    let running = tokio::spawn(running);
    settle().await;
    stop.send(()).unwrap();
    settle().await;
    assert_eq!(peer.output(), "250\n421\n");
    peer.close();
    assert!(matches!(running.await.unwrap(), CloseReason::Done));
}
