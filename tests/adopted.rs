//! Handlers of channels that go on where a `Framed` has stopped.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used)]

use std::future::{Future, pending};
use std::io;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use asynchat::{
    Channel, CloseReason, Control, FrameError, Handle, HandleError, Limit, Terminator,
    TerminatorCodec, Timeouts, producer,
};
use futures::FutureExt;
use support::{
    Log, Peer, Scripted, Seen, Socket, Then, data, patient, pipe, secs, settle, wait, wait_then,
};
use tokio::io::{AsyncRead, AsyncWrite, Join};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::codec::Framed;

#[path = "support/channel.rs"]
mod support;

type Reason = CloseReason<&'static str>;
type Running<S = Socket> = JoinHandle<(Channel<S>, Reason)>;

fn halves(codec: TerminatorCodec) -> (Channel<Socket>, Peer) {
    let (socket, peer) = pipe();
    let parts = Framed::new(socket, codec).into_parts();
    (Channel::builder(None).timeouts(patient()).build_from(parts), peer)
}

fn lines(peer_sends: &str) -> (Channel<Socket>, Peer) {
    let (channel, peer) = halves(TerminatorCodec::new(b"\n"));
    peer.send(peer_sends);
    (channel, peer)
}

/// The same, with a high-water and a low-water mark.
fn lines_within(peer_sends: &str, high: usize, low: usize) -> (Channel<Socket>, Peer) {
    let (socket, peer) = pipe();
    let parts = Framed::new(socket, TerminatorCodec::new(b"\n")).into_parts();
    let builder = Channel::builder(None).high_water_mark(high).low_water_mark(low);
    peer.send(peer_sends);
    (builder.timeouts(patient()).build_from(parts), peer)
}

/// A channel whose input makes it call every callback: a frame, an overlong one, and the beginning of another.
fn every_callback() -> (Channel<Socket>, Peer) {
    let (channel, peer) = halves(TerminatorCodec::new(b"\n").with_limit(Limit::Skip(3)));
    peer.send("one\nlonger\ntwo");
    peer.close();
    (channel, peer)
}

fn callbacks() -> [Seen; 4] {
    [data("one"), Seen::End, Seen::Overlong, Seen::Truncated]
}

fn closed(reason: &str) -> Seen {
    Seen::Closed(reason.into())
}

/// Waits for a future that must end. If nothing can happen any more, the paused clock runs on, and the test fails.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(24 * 3600), future).await.expect("it comes to an end")
}

/// Drives a future until nothing happens any more, then drops it.
async fn drop_when_stuck<H>(driving: impl Future<Output = (H, Reason)>) {
    tokio::select! {
        biased;
        (_, reason) = driving => panic!("{reason:?}"),
        () = settle() => {}
    }
}

fn spawn<S, F>(mut channel: Channel<S>, handler: Scripted<F>) -> (Log, Running<S>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: FnMut(&Seen, &mut Control<'_>) -> Then + Send + 'static,
{
    let log = handler.log.clone();
    let running = async move {
        let (_, reason) = channel.run(handler).await;
        (channel, reason)
    };
    (log, tokio::spawn(running))
}

/// Drives a handler that does nothing, except that it waits for ever at the frame `wait`. Returns a handle.
async fn serve(channel: Channel<Socket>, peer: &Peer) -> (Handle, Log, Running) {
    peer.send("hello\n");
    let (give, given) = oneshot::channel();
    let mut give = Some(give);
    let mut waits = false;
    let handler = Scripted::new(move |seen, control| {
        if let Some(give) = give.take() {
            give.send(control.handle()).unwrap();
        }
        match seen {
            Seen::Data(text) => waits = text == "wait",
            Seen::End if waits => return wait(pending()),
            _ => {}
        }
        Then::Go
    });
    let (log, running) = spawn(channel, handler);
    let handle = soon(given).await.unwrap();
    settle().await;
    (handle, log, running)
}

// Used as a channel.

/// A protocol of lines, counted data, a count of 0, data without an end, and a command that closes.
fn protocol() -> Scripted<impl FnMut(&Seen, &mut Control<'_>) -> Then + Send> {
    let mut frame = String::new();
    Scripted::new(move |seen, control| {
        match seen {
            Seen::Data(text) => frame.push_str(text),
            Seen::End => {
                let line = std::mem::take(&mut frame);
                control.try_push(format!("<{line}|{:?}>", control.terminator())).unwrap();
                match line.split_at_checked(1) {
                    Some(("#", count)) => control.set_terminator(count.parse::<u64>().unwrap()),
                    Some(("$", _)) => control.set_terminator(None),
                    Some(("=", delimiter)) => {
                        control.set_terminator(Terminator::any_of([delimiter, "|;"]).unwrap());
                    }
                    Some(("%", limit)) => {
                        control.set_limit(Limit::Skip(limit.parse().unwrap()));
                    }
                    Some(("!", _)) => control.close_when_done(),
                    _ if control.terminator() == Terminator::None => {
                        control.set_terminator(b"\r\n");
                    }
                    _ => {}
                }
            }
            Seen::Overlong => {
                let line = std::mem::take(&mut frame);
                control.try_push(format!("({line})")).unwrap();
                if line.starts_with('r') {
                    // The rest of the overlong frame is a frame of its own.
                    control.set_terminator(b"\r\n");
                }
            }
            Seen::Eof | Seen::Truncated => {
                control.try_push(format!("{seen:?}{frame}")).unwrap();
            }
            Seen::Closed(_) => unreachable!(),
        }
        Then::Go
    })
}

#[tokio::test(start_paused = true)]
async fn however_the_input_is_cut_it_is_driven_as_a_channel_runs_it() {
    let inputs = [
        "one\r\n\r\n#5\r\na\r\nbc#0\r\n\r\n=ab\r\nx\r\naab=\r\nabrest\r",
        "#3\r\n\r\n\rtwo\r\n$\r\nwhat\r\never\r",
        "tiny\r\nmuch too long\r\r\nr, and too long\r\n%2\r\nabc\r\nab\r\n#4\r\nabcd\r\n!\r\nno\r\n",
        "#9\r\ncut",
        "skipped to the end",
        "to the end\r\n",
        "!\r\n\r\n",
        "\r",
    ];
    let mut reasons = std::collections::BTreeSet::new();
    for limit in [Limit::Unlimited, Limit::Skip(4), Limit::Fail(4)] {
        for input in inputs {
            let (socket, peer) = pipe();
            peer.send(input);
            peer.close();
            let mut channel =
                Channel::builder(b"\r\n").limit(limit).timeouts(patient()).build(socket);
            let (handler, reason) = channel.run(protocol()).await;
            reasons.insert(reason.to_string());
            let expected = (handler.log.seen(), peer.output());

            let mut cuts: Vec<Vec<&str>> =
                (0..input.len()).map(|at| vec![&input[..at], &input[at..]]).collect();
            cuts.push((0..input.len()).map(|at| &input[at..=at]).collect());
            for cut in cuts {
                let codec = TerminatorCodec::new(b"\r\n").with_limit(limit);
                let (channel, peer) = halves(codec);
                let (log, running) = spawn(channel, protocol());
                for piece in &cut {
                    settle().await;
                    peer.send(piece);
                }
                settle().await;
                peer.close();
                let (channel, reason) = soon(running).await.unwrap();
                let got = (log.seen(), peer.output());
                assert_eq!(got, expected, "{limit:?} {cut:?}");
                assert!(!matches!(reason, CloseReason::Aborted), "{cut:?}");
                assert!(channel.is_closed() && peer.is_shut_down(), "{cut:?}");
            }
        }
    }
    assert_eq!(reasons.len(), 4, "{reasons:?}");
}

#[tokio::test(start_paused = true)]
async fn short_reads_change_nothing() {
    for chop in 1..8 {
        let (mut channel, peer) = lines("one\ntwo\nthree\n");
        peer.chop(chop);
        peer.close();
        let handler = Scripted::new(|_, _| Then::Go);
        let (handler, reason) = soon(channel.run(handler)).await;
        assert!(matches!(reason, CloseReason::PeerClosed));
        let [one, two, three] = ["one", "two", "three"].map(data);
        let end = Seen::End;
        let expected = [
            one,
            end.clone(),
            two,
            end.clone(),
            three,
            end,
            Seen::Eof,
            closed("closed by the peer"),
        ];
        assert_eq!(handler.log.seen(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_framed_held_before_goes_out_first() {
    let (socket, peer) = pipe();
    peer.send("one\n");
    peer.close();
    let mut framed = Framed::new(socket, TerminatorCodec::new(b"\n"));
    framed.write_buffer_mut().extend_from_slice(b"encoded, ");
    let parts = framed.into_parts();
    let mut channel = Channel::builder(None).timeouts(patient()).build_from(parts);
    channel.push("queued, ").unwrap();
    let handler = Scripted::new(|seen, control| {
        if *seen == Seen::End {
            control.try_push("pushed").unwrap();
        }
        Then::Go
    });
    soon(channel.run(handler)).await;
    assert_eq!(peer.output(), "encoded, queued, pushed");
}

#[tokio::test(start_paused = true)]
async fn events_that_were_buffered_before_come_first() {
    let (mut channel, peer) = lines("one\ntwo\n");
    peer.close();
    // The chunk has been taken, and its terminator is returned next.
    assert_eq!(support::seen(channel.next().await.unwrap().unwrap()), data("one"));
    let (handler, _) = soon(channel.run(Scripted::new(|_, _| Then::Go))).await;
    assert_eq!(handler.log.seen()[..4], [Seen::End, data("two"), Seen::End, Seen::Eof]);
}

#[tokio::test(start_paused = true)]
async fn output_is_flushed_when_the_input_is_drained_and_not_before() {
    let (mut channel, peer) = lines("a\nb\nc\n");
    let watched = peer.clone();
    let handler = Scripted::new(move |seen, control| {
        if let Seen::Data(text) = seen {
            assert_eq!(watched.output(), "");
            control.try_push(text.clone()).unwrap();
        }
        Then::Go
    });
    drop_when_stuck(channel.run(handler)).await;
    let wire = peer.wire();
    assert_eq!((peer.output(), wire.flushed, wire.writes), ("abc".into(), 3, 1));
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_callback_leaves_the_sink_its_queue() {
    let (mut channel, peer) = lines_within("one\ntwo\n", 1000, 64 * 1024);
    let handler = Scripted::new(|_, control| {
        control.try_push("answer").unwrap();
        panic!("the handler panics");
    });
    let driving = AssertUnwindSafe(channel.run(handler));
    assert!(driving.catch_unwind().await.is_err());
    assert_eq!(channel.queued_bytes(), 6);
    channel.flush().await.unwrap();
    assert_eq!(peer.output(), "answer");
}

// Closing.

#[tokio::test(start_paused = true)]
async fn no_callback_follows_a_close_and_all_is_written_and_shut_down() {
    for at in callbacks().into_iter().take(3) {
        let (mut channel, peer) = every_callback();
        let found = at.clone();
        let handler = Scripted::new(move |seen, control| {
            if *seen == found {
                control.try_push("bye").unwrap();
                control.close_when_done();
                assert_eq!(control.try_push("late").unwrap_err().into_inner(), "late");
            }
            Then::Go
        });
        let (handler, reason) = soon(channel.run(handler)).await;
        assert!(matches!(reason, CloseReason::Done), "{at:?}: {reason:?}");
        let log = handler.log.seen();
        assert_eq!(log[log.len() - 2..], [at.clone(), closed("closed")]);
        assert_eq!(log.iter().filter(|seen| **seen == at).count(), 1);
        let wire = peer.wire();
        assert_eq!((peer.output(), wire.flushed, wire.shutdowns), ("bye".into(), 3, 1));
        assert!(channel.is_closed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_at_the_end_of_the_input_shuts_down() {
    for input in ["one\n", "one"] {
        let (mut channel, peer) = lines(input);
        peer.close();
        let handler = Scripted::new(|seen, control| {
            if matches!(seen, Seen::Eof | Seen::Truncated) {
                control.try_push("bye").unwrap();
                control.close_when_done();
            }
            Then::Go
        });
        soon(channel.run(handler)).await;
        assert_eq!((peer.output(), peer.wire().shutdowns), ("bye".into(), 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_at_the_end_of_the_input_is_done() {
    for input in ["one\n", "one"] {
        let (mut channel, peer) = lines(input);
        peer.close();
        let handler = Scripted::new(|seen, control| {
            if matches!(seen, Seen::Eof | Seen::Truncated) {
                control.close_when_done();
            }
            Then::Go
        });
        let (_, reason) = soon(channel.run(handler)).await;
        assert!(matches!(reason, CloseReason::Done), "{reason:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_waits_until_all_is_written() {
    let (channel, peer) = lines("one\ntwo\n");
    peer.take(2);
    let handler = Scripted::new(|_, control| {
        control.try_push("goodbye").unwrap();
        control.close_when_done();
        Then::Go
    });
    let (log, running) = spawn(channel, handler);
    settle().await;
    assert_eq!((peer.output(), peer.wire().shutdowns), ("go".into(), 0));
    // The handler is told of the close when it is complete.
    assert_eq!(log.seen(), [data("one")]);
    peer.take(usize::MAX);
    let (_, reason) = soon(running).await.unwrap();
    assert!(matches!(reason, CloseReason::Done));
    assert_eq!((peer.output(), peer.wire().shutdowns), ("goodbye".into(), 1));
    assert_eq!(log.seen()[1..], [closed("closed")]);
}

#[tokio::test(start_paused = true)]
async fn after_the_peers_end_all_is_written_and_shut_down() {
    for (input, truncated) in [("one\n", false), ("one\ntw", true)] {
        let (mut channel, peer) = lines(input);
        peer.close();
        let handler = Scripted::new(|seen, control| {
            if matches!(seen, Seen::Eof | Seen::Truncated) {
                control.try_push("answer, ").unwrap();
            }
            Then::Go
        });
        let (handler, reason) = soon(channel.run(handler)).await;
        assert_eq!(matches!(reason, CloseReason::Truncated), truncated, "{reason:?}");
        assert_eq!(matches!(reason, CloseReason::PeerClosed), !truncated, "{reason:?}");
        let end = if truncated { Seen::Truncated } else { Seen::Eof };
        let log = handler.log.seen();
        assert_eq!(log[log.len() - 2..], [end, closed(&reason.to_string())]);
        assert_eq!((peer.output(), peer.wire().flushed), ("answer, ".into(), 8));
        assert!(channel.is_closed() && channel.queued_bytes() == 0 && peer.is_shut_down());
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_waits_until_all_is_written() {
    let (channel, peer) = lines("one\n");
    peer.close();
    peer.take(3);
    let handler = Scripted::new(|_, control| {
        control.try_push("12").unwrap();
        Then::Go
    });
    let (_, running) = spawn(channel, handler);
    settle().await;
    assert!(!running.is_finished());
    peer.take(usize::MAX);
    soon(running).await.unwrap();
    assert_eq!((peer.output(), peer.wire().flushed), ("121212".into(), 6));
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_was_closed_before_gets_no_callback() {
    let (mut channel, peer) = lines("one\n");
    channel.push("bye").unwrap();
    channel.close_when_done();
    let handler = Scripted::new(|_, _| Then::Go);
    let (handler, reason) = soon(channel.run(handler)).await;
    assert!(matches!(reason, CloseReason::Done), "{reason:?}");
    assert_eq!((peer.output(), peer.wire().shutdowns), ("bye".into(), 1));
    assert_eq!(handler.log.seen(), [closed("closed")]);
}

// Aborts and errors.

#[tokio::test(start_paused = true)]
async fn an_abort_in_any_callback_ends_it_without_a_write() {
    for at in callbacks() {
        let (mut channel, peer) = every_callback();
        peer.take(0);
        let found = at.clone();
        let handler = Scripted::new(move |seen, control| {
            control.try_push("never sent").unwrap();
            if *seen == found {
                control.abort();
                assert!(control.try_push("late").is_err());
            }
            Then::Go
        });
        let (handler, reason) = soon(channel.run(handler)).await;
        assert!(matches!(reason, CloseReason::Aborted), "{at:?}: {reason:?}");
        let log = handler.log.seen();
        assert_eq!(log[log.len() - 2..], [at.clone(), closed("aborted")]);
        assert_eq!(log.iter().filter(|seen| **seen == at).count(), 1);
        assert_eq!((peer.output(), peer.wire().shutdowns), (String::new(), 1));
        assert!(channel.is_closed() && channel.queued_bytes() == 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_abort_drops_the_callback_that_goes_on_waiting() {
    for at in callbacks().into_iter().skip(1) {
        let (mut channel, peer) = every_callback();
        let found = at.clone();
        let handler = Scripted::new(move |seen, control| {
            if *seen != found {
                return Then::Go;
            }
            control.abort();
            wait(pending())
        });
        let (handler, reason) = soon(channel.run(handler)).await;
        assert!(matches!(reason, CloseReason::Aborted), "{at:?}: {reason:?}");
        assert_eq!(handler.log.seen().last(), Some(&closed("aborted")));
        assert_eq!(peer.wire().shutdowns, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_abort_does_not_wait_for_a_peer_that_reads_nothing() {
    let (mut channel, peer) = lines("one\n");
    peer.take(0);
    let handler = Scripted::new(|seen, control| {
        control.try_push("stuck").unwrap();
        if *seen == Seen::End {
            control.abort();
        }
        Then::Go
    });
    let (_, reason) = soon(channel.run(handler)).await;
    assert!(matches!(reason, CloseReason::Aborted));
}

#[tokio::test(start_paused = true)]
async fn an_abort_does_not_wait_for_the_shutdown() {
    let (mut channel, peer) = lines("one\n");
    peer.stick_shutdown(true);
    let handler = Scripted::new(|_, control| {
        control.abort();
        Then::Go
    });
    let (_, reason) = soon(channel.run(handler)).await;
    assert!(matches!(reason, CloseReason::Aborted));
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_handler_comes_back_whole_after_what_was_pushed() {
    for at in callbacks() {
        let (mut channel, peer) = every_callback();
        let failing = at.clone();
        let handler = Scripted::new(move |seen, control| {
            if *seen != failing {
                return Then::Go;
            }
            control.try_push("500").unwrap();
            Then::Fail("no such thing")
        });
        let (handler, reason) = soon(channel.run(handler)).await;
        assert!(matches!(reason, CloseReason::Handler("no such thing")), "{at:?}: {reason:?}");
        let log = handler.log.seen();
        assert_eq!(log[log.len() - 2..], [at.clone(), closed("no such thing")]);
        assert_eq!(log.iter().filter(|seen| **seen == at).count(), 1);
        assert_eq!((peer.output(), peer.wire().flushed), ("500".into(), 3));
        assert!(channel.is_closed() && peer.is_shut_down());
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_stays_the_reason_though_the_writer_fails_too() {
    let (mut channel, peer) = lines("one\n");
    let broken = peer.clone();
    let handler = Scripted::new(move |_, control| {
        control.try_push("500").unwrap();
        broken.reset();
        Then::Fail("first")
    });
    let (_, reason) = soon(channel.run(handler)).await;
    assert!(matches!(reason, CloseReason::Handler("first")), "{reason:?}");
    assert!(channel.is_closed());
}

// Limits.

#[tokio::test(start_paused = true)]
async fn a_skipped_frame_is_told_once_and_the_next_one_comes() {
    for chop in [1, usize::MAX] {
        let (mut channel, peer) = halves(TerminatorCodec::new(b"\r\n").with_limit(Limit::Skip(3)));
        peer.chop(chop);
        peer.send("abcdef\r\nabc\r\nabcd");
        peer.close();
        let (handler, reason) = soon(channel.run(Scripted::new(|_, _| Then::Go))).await;
        assert!(matches!(reason, CloseReason::Truncated), "{reason:?}");
        let expected = [
            data("abc"),
            Seen::Overlong,
            data("abc"),
            Seen::End,
            data("abc"),
            Seen::Overlong,
            Seen::Truncated,
        ];
        assert_eq!(handler.log.seen()[..7], expected);
    }
}

#[tokio::test(start_paused = true)]
async fn an_overlong_frame_that_fails_is_told_then_ends_it_with_what_was_pushed() {
    for chop in [1, usize::MAX] {
        let (mut channel, peer) = halves(TerminatorCodec::new(b"\r\n").with_limit(Limit::Fail(3)));
        peer.chop(chop);
        peer.send("abcdef\r\nnext\r\n");
        peer.close();
        let handler = Scripted::new(|seen, control| {
            if *seen == Seen::Overlong {
                control.try_push("too long").unwrap();
            }
            Then::Go
        });
        let (handler, reason) = soon(channel.run(handler)).await;
        let CloseReason::Frame(error) = &reason else {
            panic!("{reason:?}");
        };
        assert_eq!(*error, FrameError::Overlong(3));
        let expected = [data("abc"), Seen::Overlong, closed(&reason.to_string())];
        assert_eq!(handler.log.seen(), expected);
        assert_eq!((peer.output(), peer.wire().flushed), ("too long".into(), 8));
        assert!(channel.is_closed());
    }
}

// Back-pressure.

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_by_the_mark_and_what_one_callback_pushes() {
    const HIGH: usize = 1000;
    const PUSH: usize = 300;
    let (channel, peer) = lines_within(&"abc\n".repeat(10_000), HIGH, 100);
    peer.take(0);
    let handler = Scripted::new(|_, control| {
        control.try_push(vec![b'x'; PUSH]).unwrap();
        assert!(control.queued_bytes() < HIGH + PUSH, "{}", control.queued_bytes());
        Then::Go
    });
    let (log, running) = spawn(channel, handler);
    settle().await;
    // Four callbacks fill the queue. Then nothing is dispatched or read.
    assert_eq!(log.seen(), [data("abc"), Seen::End, data("abc"), Seen::End]);
    assert_eq!(peer.wire().reads, 1);
    peer.take_more(500);
    settle().await;
    assert_eq!((log.len(), peer.wire().reads), (4, 1));
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn dispatch_goes_on_at_the_low_mark_and_not_before() {
    let (channel, peer) = lines_within("12345\n12345\n12345\n", 10, 4);
    peer.take(0);
    let handler = Scripted::new(|seen, control| {
        if let Seen::Data(text) = seen {
            control.try_push(text.clone()).unwrap();
        }
        Then::Go
    });
    let (log, running) = spawn(channel, handler);
    settle().await;
    assert_eq!(log.len(), 3, "{:?}", log.seen());
    peer.take_more(5);
    settle().await;
    assert_eq!(log.len(), 3);
    // Four bytes are left, which is the low mark.
    peer.take_more(1);
    settle().await;
    assert_eq!(log.len(), 6);
    peer.take(usize::MAX);
    peer.close();
    soon(running).await.unwrap();
    assert_eq!(peer.output(), "12345".repeat(3));
}

#[tokio::test(start_paused = true)]
async fn input_is_read_while_a_little_output_waits() {
    let (channel, peer) = lines("one\n");
    peer.take(0);
    let handler = Scripted::new(|_, control| {
        control.try_push("x").unwrap();
        Then::Go
    });
    let (log, running) = spawn(channel, handler);
    settle().await;
    peer.send("two\n");
    settle().await;
    assert_eq!(log.len(), 4);
    peer.take(usize::MAX);
    settle().await;
    assert_eq!(peer.output(), "xxxx");
    running.abort();
}

// While a callback waits.

#[tokio::test(start_paused = true)]
async fn what_is_queued_goes_out_while_any_callback_waits() {
    for at in callbacks().into_iter().skip(1) {
        let (channel, peer) = every_callback();
        peer.take(2);
        let (go, gone) = oneshot::channel::<()>();
        let mut gone = Some(gone);
        let found = at.clone();
        let handler = Scripted::new(move |seen, control| {
            if *seen != found {
                return Then::Go;
            }
            let gone = gone.take().unwrap();
            control.try_push("before, ").unwrap();
            wait_then(async { drop(gone.await) }, |control| control.push("after"))
        });
        let (log, running) = spawn(channel, handler);
        settle().await;
        assert_eq!(peer.output(), "be");
        let before = log.len();
        peer.take(usize::MAX);
        settle().await;
        assert_eq!((peer.output(), peer.wire().flushed), ("before, ".into(), 8));
        assert_eq!(log.len(), before, "no other callback comes meanwhile");
        go.send(()).unwrap();
        let (_, reason) = soon(running).await.unwrap();
        assert!(matches!(reason, CloseReason::Truncated), "{at:?}: {reason:?}");
        assert_eq!(peer.output(), "before, after");
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_is_carried_out_while_its_callback_waits() {
    let (channel, peer) = lines("one\ntwo\n");
    let (go, gone) = oneshot::channel::<()>();
    let mut gone = Some(gone);
    let handler = Scripted::new(move |seen, control| {
        if *seen != Seen::End {
            return Then::Go;
        }
        let gone = gone.take().unwrap();
        control.try_push("bye").unwrap();
        control.close_when_done();
        wait(async { drop(gone.await) })
    });
    let (log, running) = spawn(channel, handler);
    settle().await;
    assert_eq!((peer.output(), peer.wire().shutdowns), ("bye".into(), 1));
    assert!(!running.is_finished());
    go.send(()).unwrap();
    let (_, reason) = soon(running).await.unwrap();
    assert!(matches!(reason, CloseReason::Done), "{reason:?}");
    assert_eq!(log.seen(), [data("one"), Seen::End, closed("closed")]);
    assert_eq!(peer.wire().shutdowns, 1);
}

#[tokio::test(start_paused = true)]
async fn there_are_no_deadlines() {
    let (channel, peer) = lines("");
    let handler = Scripted::new(|seen, control| {
        let mut timeouts = Timeouts::NONE;
        timeouts.idle = secs(10);
        control.set_timeouts(timeouts);
        match seen {
            Seen::End => wait(tokio::time::sleep(Duration::from_secs(1))),
            _ => Then::Go,
        }
    });
    let (_, running) = spawn(channel, handler);
    for _ in 0..10 {
        peer.send("x\n");
        support::seconds(5).await;
    }
    peer.close();
    let (_, reason) = soon(running).await.unwrap();
    assert!(matches!(reason, CloseReason::PeerClosed), "{reason:?}");
}

// Handles.

#[tokio::test(start_paused = true)]
async fn a_push_from_another_task_goes_out_at_once() {
    for callback_waits in [false, true] {
        let (channel, peer) = lines("");
        let (handle, _, running) = serve(channel, &peer).await;
        if callback_waits {
            peer.send("wait\n");
            settle().await;
        }
        for (n, expected) in ["0 ", "0 1 ", "0 1 2 "].into_iter().enumerate() {
            handle.push(format!("{n} ")).unwrap();
            settle().await;
            assert_eq!((peer.output(), peer.wire().flushed), (expected.into(), expected.len()));
        }
        running.abort();
        settle().await;
        assert_eq!(handle.push("late"), Err(HandleError::Closed("late")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_from_another_task_writes_what_was_accepted() {
    let (channel, peer) = lines("");
    let (handle, log, running) = serve(channel, &peer).await;
    peer.take(0);
    handle.push("accepted").unwrap();
    handle.close_when_done();
    assert_eq!(handle.push("late"), Err(HandleError::Closed("late")));
    peer.send("more\n");
    settle().await;
    assert!(!running.is_finished());
    peer.take(usize::MAX);
    let (_, reason) = soon(running).await.unwrap();
    assert!(matches!(reason, CloseReason::Done), "{reason:?}");
    assert_eq!((peer.output(), peer.wire().shutdowns), ("accepted".into(), 1));
    assert_eq!(log.seen(), [data("hello"), Seen::End, closed("closed")]);
}

#[tokio::test(start_paused = true)]
async fn a_close_from_another_task_lets_the_callback_finish() {
    let (channel, peer) = lines("one\ntwo\n");
    let (give, given) = oneshot::channel();
    let (go, gone) = oneshot::channel::<()>();
    let mut ends = Some((give, gone));
    let handler = Scripted::new(move |seen, control| {
        if *seen != Seen::End {
            return Then::Go;
        }
        let (give, gone) = ends.take().unwrap();
        give.send(control.handle()).unwrap();
        wait_then(async { drop(gone.await) }, |control| assert!(control.try_push("late").is_err()))
    });
    let (log, running) = spawn(channel, handler);
    let handle = soon(given).await.unwrap();
    handle.push("accepted").unwrap();
    handle.close_when_done();
    settle().await;
    assert_eq!((peer.output(), peer.wire().shutdowns), ("accepted".into(), 1));
    assert!(!running.is_finished());
    go.send(()).unwrap();
    let (_, reason) = soon(running).await.unwrap();
    assert!(matches!(reason, CloseReason::Done), "{reason:?}");
    assert_eq!(log.seen(), [data("one"), Seen::End, closed("closed")]);
}

#[tokio::test(start_paused = true)]
async fn an_abort_from_another_task_ends_it_at_once() {
    for callback_waits in [false, true] {
        let (channel, peer) = lines("");
        let (handle, log, running) = serve(channel, &peer).await;
        if callback_waits {
            peer.send("wait\n");
        }
        peer.take(0);
        handle.push("never sent").unwrap();
        settle().await;
        handle.abort();
        let (channel, reason) = soon(running).await.unwrap();
        assert!(matches!(reason, CloseReason::Aborted), "{reason:?}");
        assert_eq!(log.seen().last(), Some(&closed("aborted")));
        assert_eq!((peer.output(), peer.wire().shutdowns), (String::new(), 1));
        assert!(channel.is_closed() && handle.is_closed());
    }
}

#[tokio::test(start_paused = true)]
async fn an_abort_from_another_task_ends_back_pressure() {
    let (mut channel, peer) = lines_within("", 10, 4);
    channel.push("x".repeat(9)).unwrap();
    peer.take(0);
    let (handle, log, running) = serve(channel, &peer).await;
    handle.push("x").unwrap();
    settle().await;
    peer.send("more\n");
    settle().await;
    assert_eq!(log.len(), 2, "the queue is full");
    handle.abort();
    let (_, reason) = soon(running).await.unwrap();
    assert!(matches!(reason, CloseReason::Aborted), "{reason:?}");
}

#[tokio::test(start_paused = true)]
async fn an_abort_from_another_task_does_not_wait_for_the_last_write() {
    let (channel, peer) = lines("");
    let (handle, _, running) = serve(channel, &peer).await;
    peer.take(0);
    handle.push("stuck").unwrap();
    peer.close();
    settle().await;
    assert!(!running.is_finished());
    handle.abort();
    let (_, reason) = soon(running).await.unwrap();
    assert!(matches!(reason, CloseReason::Aborted), "{reason:?}");
}

/// The output after two pushes by a handle to a full queue, when there is room again.
async fn pushed_when_full(callback_waits: bool) -> String {
    let (mut channel, peer) = lines_within("", 10, 4);
    channel.push("x".repeat(9)).unwrap();
    peer.take(0);
    let (handle, _, running) = serve(channel, &peer).await;
    if callback_waits {
        peer.send("wait\n");
        settle().await;
    }
    handle.push("y").unwrap();
    settle().await;
    handle.push("z").unwrap();
    settle().await;
    peer.take(usize::MAX);
    settle().await;
    running.abort();
    peer.output()
}

#[tokio::test(start_paused = true)]
async fn what_waited_for_room_goes_out_while_a_callback_waits() {
    assert_eq!(pushed_when_full(true).await, "xxxxxxxxxyz");
}

#[tokio::test(start_paused = true)]
async fn what_waited_for_room_goes_out_when_there_is_room() {
    assert_eq!(pushed_when_full(false).await, "xxxxxxxxxyz");
}

#[tokio::test(start_paused = true)]
async fn a_close_from_another_task_behind_a_push_that_waited_for_room_is_done() {
    let (mut channel, peer) = lines_within("", 10, 4);
    channel.push("x".repeat(9)).unwrap();
    peer.take(0);
    let (handle, _, running) = serve(channel, &peer).await;
    handle.push("y").unwrap();
    settle().await;
    handle.push("z").unwrap();
    handle.close_when_done();
    settle().await;
    peer.take(usize::MAX);
    let (_, reason) = soon(running).await.unwrap();
    assert!(matches!(reason, CloseReason::Done), "{reason:?}");
    assert_eq!(peer.output(), "xxxxxxxxxyz");
}

/// The output where a handle pushes in the last callback, and the connection then ends in this way.
async fn pushed_last(end: impl Fn(&mut Control<'_>) -> Then + Send + 'static) -> (Reason, String) {
    let (mut channel, peer) = lines("one\n");
    peer.close();
    let handler = Scripted::new(move |seen, control| {
        if *seen == Seen::Eof {
            control.handle().push("accepted").unwrap();
            return end(control);
        }
        Then::Go
    });
    let (_, reason) = soon(channel.run(handler)).await;
    (reason, peer.output())
}

#[tokio::test(start_paused = true)]
async fn what_a_handle_pushed_last_is_written_before_a_close() {
    let close = |control: &mut Control<'_>| {
        control.close_when_done();
        Then::Go
    };
    assert_eq!(pushed_last(close).await.1, "accepted");
}

#[tokio::test(start_paused = true)]
async fn what_a_handle_pushed_last_is_written_at_the_peers_end() {
    assert_eq!(pushed_last(|_| Then::Go).await.1, "accepted");
}

#[tokio::test(start_paused = true)]
async fn what_a_handle_pushed_last_is_written_after_an_error() {
    assert_eq!(pushed_last(|_| Then::Fail("done")).await.1, "accepted");
}

#[tokio::test(start_paused = true)]
async fn what_a_handle_pushed_last_is_written_before_an_upgrade() {
    let (reason, output) = pushed_last(|control| {
        control.upgrade().unwrap();
        Then::Go
    })
    .await;
    assert!(matches!(reason, CloseReason::Upgrade), "{reason:?}");
    assert_eq!(output, "accepted");
}

#[tokio::test(start_paused = true)]
async fn handles_are_closed_when_it_is_over() {
    let (channel, peer) = lines("");
    let (handle, _, running) = serve(channel, &peer).await;
    peer.close();
    let (channel, _) = soon(running).await.unwrap();
    assert_eq!(handle.push("late"), Err(HandleError::Closed("late")));
    assert!(handle.is_closed() && channel.is_closed());
}

// Discards.

#[tokio::test(start_paused = true)]
async fn a_discard_drops_the_input_behind_and_the_output() {
    for at in [data("one"), Seen::End] {
        let (mut channel, peer) = lines("one\ntwo\nthr");
        peer.take(0);
        channel.push("dropped").unwrap();
        let mut once = Some(at);
        let handler = Scripted::new(move |seen, control| {
            if once.as_ref() == Some(seen) {
                once = None;
                control.try_push("dropped").unwrap();
                control.discard_buffers();
                assert_eq!(control.queued_bytes(), 0);
                control.try_push("kept").unwrap();
            }
            Then::Go
        });
        let (log, running) = spawn(channel, handler);
        settle().await;
        assert_eq!(log.seen(), [data("one"), Seen::End]);
        peer.take(usize::MAX);
        peer.send("ee\n");
        peer.close();
        soon(running).await.unwrap();
        assert_eq!(log.seen()[2..4], [data("ee"), Seen::End]);
        assert_eq!(peer.output(), "kept");
    }
}

#[tokio::test(start_paused = true)]
async fn a_discard_drops_what_is_withheld() {
    let (mut channel, peer) = halves(TerminatorCodec::new(b"\r\n"));
    peer.send("one\r\ntwo\r");
    let handler = Scripted::new(|seen, control| {
        if *seen == data("two") {
            control.discard_buffers();
        }
        Then::Go
    });
    let driving = async {
        let (handler, reason) = channel.run(handler).await;
        (handler.log.seen(), reason)
    };
    let sending = async {
        settle().await;
        peer.send("\nmore\r\n");
        peer.close();
    };
    let ((log, reason), ()) = soon(async { tokio::join!(driving, sending) }).await;
    assert!(matches!(reason, CloseReason::PeerClosed), "{reason:?}");
    assert_eq!(log[2..4], [data("two\nmore"), Seen::End]);
}

#[tokio::test(start_paused = true)]
async fn a_discard_takes_what_has_come_when_a_waiting_callback_returns() {
    let (channel, peer) = lines("one\ntwo\n");
    let (go, gone) = oneshot::channel::<()>();
    let mut gone = Some(gone);
    let handler = Scripted::new(move |seen, control| match (seen, gone.take()) {
        (Seen::End, Some(gone)) => {
            control.discard_buffers();
            wait(async { drop(gone.await) })
        }
        (_, unused) => {
            gone = unused;
            Then::Go
        }
    });
    let (log, running) = spawn(channel, handler);
    settle().await;
    // This has not been read yet, and so is not dropped.
    peer.send("three\n");
    go.send(()).unwrap();
    peer.close();
    soon(running).await.unwrap();
    assert_eq!(log.seen()[1..4], [Seen::End, data("three"), Seen::End]);
}

// Upgrades.

#[tokio::test(start_paused = true)]
async fn an_upgrade_is_refused_while_input_is_behind_and_it_goes_on() {
    for (behind, bytes) in [("INJECTED\r\n", 10), ("\r", 1)] {
        let (mut channel, peer) = halves(TerminatorCodec::new(b"\r\n"));
        peer.send("STARTTLS\r\n");
        peer.send(behind);
        peer.close();
        let mut asked = false;
        let handler = Scripted::new(move |seen, control| {
            if *seen == Seen::End && !asked {
                asked = true;
                assert_eq!(control.upgrade().unwrap_err().pending_input(), bytes);
                control.try_push("554").unwrap();
            }
            Then::Go
        });
        let (handler, reason) = soon(channel.run(handler)).await;
        assert!(matches!(reason, CloseReason::PeerClosed | CloseReason::Truncated), "{reason:?}");
        assert!(handler.log.len() > 4);
        assert_eq!(peer.output(), "554");
    }
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_asked_for_in_the_data_waits_for_the_frame_as_with_a_channel() {
    let (mut channel, _peer) = lines("STARTTLS\n");
    let handler = Scripted::new(|seen, control| {
        if matches!(seen, Seen::Data(_)) {
            control.upgrade().unwrap();
        }
        Then::Go
    });
    let (handler, reason) = soon(channel.run(handler)).await;
    assert!(matches!(reason, CloseReason::Upgrade), "{reason:?}");
    let owed = channel.next().now_or_never();
    assert!(owed.is_none(), "nothing is left over: {owed:?}");
    assert_eq!(handler.log.seen(), [data("STARTTLS"), Seen::End, closed("upgraded")]);
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_cannot_write_ends_with_the_cause() {
    let (channel, peer) = lines("STARTTLS\n");
    peer.take(0);
    let handler = Scripted::new(|seen, control| {
        if *seen == Seen::End {
            control.try_push("220\n").unwrap();
            control.upgrade().unwrap();
        }
        Then::Go
    });
    let (_, running) = spawn(channel, handler);
    settle().await;
    peer.reset();
    let (_, reason) = soon(running).await.unwrap();
    assert!(matches!(reason, CloseReason::Io(_)), "{reason:?}");
}

#[tokio::test(start_paused = true)]
async fn another_handler_goes_on_after_an_upgrade() {
    let (mut channel, peer) = lines("first\n");
    let handler = Scripted::new(|seen, control| {
        if *seen == Seen::End {
            control.try_push("1").unwrap();
            control.set_terminator(3);
            control.upgrade().unwrap();
        }
        Then::Go
    });
    let (_, reason) = soon(channel.run(handler)).await;
    assert!(matches!(reason, CloseReason::Upgrade));
    peer.send("abcd");
    peer.close();
    let handler = Scripted::new(|seen, control| {
        if *seen == Seen::End {
            control.try_push("2").unwrap();
        }
        Then::Go
    });
    let (handler, reason) = soon(channel.run(handler)).await;
    assert!(matches!(reason, CloseReason::PeerClosed), "{reason:?}");
    assert_eq!(handler.log.seen()[..4], [data("abc"), Seen::End, data("d"), Seen::Eof]);
    assert_eq!(peer.output(), "12");
}

// Futures that are dropped.

#[tokio::test(start_paused = true)]
async fn dropped_while_it_waits_for_input_it_goes_on_later() {
    let (mut channel, peer) = halves(TerminatorCodec::new(b"\r\n"));
    peer.send("one\r\ntwo\r");
    peer.take(5);
    let handler = || {
        Scripted::new(|seen, control| {
            if let Seen::Data(text) = seen {
                control.try_push(format!("[{text}]")).unwrap();
            }
            Then::Go
        })
    };
    let first = handler();
    let log = first.log.clone();
    drop_when_stuck(channel.run(first)).await;
    assert_eq!(log.seen(), [data("one"), Seen::End, data("two")]);
    assert_eq!((peer.output(), channel.queued_bytes()), ("[one]".into(), 5));
    channel.push("between").unwrap();
    peer.take(usize::MAX);
    peer.send("\nthree\r\n");
    peer.close();
    let (second, reason) = soon(channel.run(handler())).await;
    assert!(matches!(reason, CloseReason::PeerClosed), "{reason:?}");
    assert_eq!(second.log.seen()[..4], [Seen::End, data("three"), Seen::End, Seen::Eof]);
    assert_eq!(peer.output(), "[one][two]between[three]");
}

#[tokio::test(start_paused = true)]
async fn dropped_while_a_callback_waits_it_goes_on_behind_that() {
    let (mut channel, peer) = lines_within("one\ntwo\n", 1000, 64 * 1024);
    peer.take(3);
    let first = Scripted::new(|seen, control| {
        if *seen != Seen::End {
            return Then::Go;
        }
        control.try_push("answer, ").unwrap();
        wait(pending())
    });
    drop_when_stuck(channel.run(first)).await;
    assert_eq!((peer.output(), channel.queued_bytes()), ("ans".into(), 5));
    channel.push("between, ").unwrap();
    peer.take(usize::MAX);
    peer.close();
    let second = Scripted::new(|seen, control| {
        if *seen == Seen::End {
            control.try_push("another").unwrap();
        }
        Then::Go
    });
    let (second, _) = soon(channel.run(second)).await;
    assert_eq!(second.log.seen()[..3], [data("two"), Seen::End, Seen::Eof]);
    assert_eq!(peer.output(), "answer, between, another");
}

#[tokio::test(start_paused = true)]
async fn dropped_while_the_queue_is_full_it_goes_on_later() {
    let (mut channel, peer) = lines_within("1\n2\n3\n", 10, 0);
    peer.take(4);
    let handler = || {
        Scripted::new(|seen, control| {
            if let Seen::Data(text) = seen {
                control.try_push(text.repeat(6)).unwrap();
            }
            Then::Go
        })
    };
    let first = handler();
    let log = first.log.clone();
    drop_when_stuck(channel.run(first)).await;
    assert_eq!(log.seen(), [data("1"), Seen::End, data("2")]);
    peer.take(usize::MAX);
    peer.close();
    let (second, _) = soon(channel.run(handler())).await;
    assert_eq!(second.log.seen()[..4], [Seen::End, data("3"), Seen::End, Seen::Eof]);
    assert_eq!(peer.output(), "111111222222333333");
}

#[tokio::test(start_paused = true)]
async fn dropped_while_it_closes_the_sink_closes_later() {
    let (mut channel, peer) = lines("one\n");
    peer.take(2);
    let handler = Scripted::new(|_, control| {
        control.try_push("goodbye").unwrap();
        control.close_when_done();
        Then::Go
    });
    drop_when_stuck(channel.run(handler)).await;
    assert!(channel.is_closed());
    assert_eq!(channel.queued_bytes(), 5);
    peer.take(usize::MAX);
    channel.flush().await.unwrap();
    assert_eq!((peer.output(), peer.wire().shutdowns), ("goodbye".into(), 1));
}

#[tokio::test(start_paused = true)]
async fn dropped_before_it_was_polled_it_has_done_nothing() {
    let (mut channel, peer) = lines("one\n");
    channel.push("queued").unwrap();
    drop(channel.run(Scripted::new(|_, _| Then::Go)));
    assert_eq!((peer.wire().reads, channel.queued_bytes()), (0, 6));
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_a_dropped_future_asked_for_is_forgotten() {
    let (mut channel, peer) = lines("STARTTLS\n");
    let first = Scripted::new(|seen, control| {
        if *seen != Seen::End {
            return Then::Go;
        }
        control.upgrade().unwrap();
        wait(pending())
    });
    drop_when_stuck(channel.run(first)).await;
    peer.send("NOOP\n");
    peer.close();
    let (handler, reason) = soon(channel.run(Scripted::new(|_, _| Then::Go))).await;
    assert!(matches!(reason, CloseReason::PeerClosed), "{reason:?}");
    assert_eq!(handler.log.seen()[..2], [data("NOOP"), Seen::End]);
}

#[tokio::test(start_paused = true)]
async fn what_a_handle_pushed_before_it_was_dropped_is_not_lost() {
    let (mut channel, peer) = lines("one\n");
    let (give, given) = oneshot::channel();
    let mut give = Some(give);
    let handler = Scripted::new(move |_, control| {
        if let Some(give) = give.take() {
            give.send(control.handle()).unwrap();
        }
        Then::Go
    });
    let mut driving = Box::pin(channel.run(handler));
    assert!(futures::poll!(&mut driving).is_pending());
    given.await.unwrap().push("accepted").unwrap();
    drop(driving);
    channel.flush().await.unwrap();
    assert_eq!(peer.output(), "accepted");
}

/// A channel that reads from one connection and writes to another.
fn two(peer_sends: &str, high: usize) -> (Channel<Join<Socket, Socket>>, Peer, Peer) {
    let ((read, sender), (write, receiver)) = (pipe(), pipe());
    sender.send(peer_sends);
    let both = tokio::io::join(read, write);
    let parts = Framed::new(both, TerminatorCodec::new(b"\n")).into_parts();
    let builder = Channel::builder(None).high_water_mark(high).timeouts(patient());
    (builder.build_from(parts), sender, receiver)
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_fails_ends_it_wherever_it_waits() {
    // It is dropped while it waits for input, for room, or for a callback.
    for (high, frame) in [(1000, "one"), (3, "one"), (1000, "wait")] {
        let (channel, sender, receiver) = two("", high);
        receiver.take(0);
        let mut waits = false;
        let handler = Scripted::new(move |seen, control| {
            match seen {
                Seen::Data(text) => {
                    waits = text == "wait";
                    control.try_push("answer").unwrap();
                }
                Seen::End if waits => return wait(pending()),
                _ => {}
            }
            Then::Go
        });
        let (log, running) = spawn(channel, handler);
        sender.send(format!("{frame}\n"));
        settle().await;
        assert!(!running.is_finished());
        receiver.reset();
        let (channel, reason) = soon(running).await.unwrap();
        let CloseReason::Io(error) = &reason else { panic!("{reason:?}") };
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(log.seen().last(), Some(&closed(&reason.to_string())));
        assert!(channel.is_closed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_fails_at_the_end_is_the_reason() {
    for closes in [false, true] {
        let (mut channel, sender, receiver) = two("one\n", 1000);
        sender.close();
        receiver.reset();
        let handler = Scripted::new(move |_, control| {
            control.push("answer");
            if closes {
                control.close_when_done();
            }
            Then::Go
        });
        let (_, reason) = soon(channel.run(handler)).await;
        let CloseReason::Io(error) = &reason else { panic!("{reason:?}") };
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}

#[tokio::test(start_paused = true)]
async fn a_producer_that_fails_is_told_apart_from_the_writer() {
    let (mut channel, _peer) = lines("one\n");
    let handler = Scripted::new(|seen, control| {
        if *seen == Seen::End {
            let failing = async { Err::<&str, _>(io::Error::from(io::ErrorKind::NotFound)) };
            control.try_push_with_producer(producer::once(failing)).unwrap();
        }
        Then::Go
    });
    let (_, reason) = soon(channel.run(handler)).await;
    let CloseReason::Producer(error) = &reason else { panic!("{reason:?}") };
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(channel.is_closed());
}
