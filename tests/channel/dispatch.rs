//! Which callbacks of a handler are called, in what order, and that none is called too often.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use asynchat::{Channel, Chunk, CloseReason, Control, Handler, Limit, Timeouts, producer};
use bytes::Bytes;
use futures::FutureExt;
use tokio::io::AsyncWrite;
use tokio::sync::oneshot;

use crate::support::{
    Peer, Scripted, Seen, Socket, Then, data, patient, pipe, secs, settle, wait, wait_then,
};

fn channel(peer_sends: &str) -> (Channel<Socket>, Peer) {
    let (socket, peer) = pipe();
    peer.send(peer_sends);
    (Channel::builder(b"\r\n").timeouts(patient()).build(socket), peer)
}

fn closed(reason: &str) -> Seen {
    Seen::Closed(reason.into())
}

#[tokio::test(start_paused = true)]
async fn the_callbacks_come_in_order_and_closed_is_the_last() {
    let (mut channel, peer) = channel("one\r\n\r\ntwo\r");
    peer.close();
    let (handler, reason) = channel.run(Scripted::new(|_, _| Then::Go)).await;
    assert!(matches!(reason, CloseReason::Truncated));
    let expected = [
        data("one"),
        Seen::End,
        Seen::End,
        data("two\r"),
        Seen::Truncated,
        closed("closed by the peer in mid-frame"),
    ];
    assert_eq!(handler.log.seen(), expected);
}

#[tokio::test(start_paused = true)]
async fn the_end_at_a_boundary_is_clean() {
    let (mut channel, peer) = channel("one\r\n");
    peer.close();
    let (handler, reason) = channel.run(Scripted::new(|_, _| Then::Go)).await;
    assert!(matches!(reason, CloseReason::PeerClosed));
    assert_eq!(handler.log.seen()[2..], [Seen::Eof, closed("closed by the peer")]);
    assert_eq!(peer.wire().shutdowns, 1);
}

#[tokio::test(start_paused = true)]
async fn pipelined_input_behind_a_close_is_not_dispatched() {
    for in_collect in [true, false] {
        let (mut channel, peer) = channel("QUIT\r\nDELE 1\r\n");
        peer.close();
        let handler = Scripted::new(move |seen, control| {
            if matches!(seen, Seen::Data(_)) == in_collect {
                control.try_push("bye\r\n").unwrap();
                control.close_when_done();
                assert_eq!(control.try_push("late").unwrap_err().into_inner(), "late");
            }
            Then::Go
        });
        let (handler, reason) = channel.run(handler).await;
        assert!(matches!(reason, CloseReason::Done));
        let mut expected = vec![data("QUIT")];
        if !in_collect {
            expected.push(Seen::End);
        }
        expected.push(closed("closed"));
        assert_eq!(handler.log.seen(), expected);
        assert_eq!(peer.output(), "bye\r\n");
        assert_eq!(peer.wire().shutdowns, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_at_the_end_of_the_input_is_done() {
    let (mut channel, peer) = channel("");
    peer.close();
    let handler = Scripted::new(|_, control| {
        control.try_push("bye").unwrap();
        control.close_when_done();
        Then::Go
    });
    let (_, reason) = channel.run(handler).await;
    assert!(matches!(reason, CloseReason::Done));
    assert_eq!(peer.output(), "bye");
}

#[tokio::test(start_paused = true)]
async fn an_abort_in_any_callback_ends_it_without_a_write() {
    for at in [data("one"), Seen::End, Seen::Truncated] {
        let (mut channel, peer) = channel("one\r\ntwo");
        peer.close();
        let found = at.clone();
        let handler = Scripted::new(move |seen, control| {
            if *seen == found {
                control.try_push("never sent").unwrap();
                control.abort();
                assert!(control.try_push("late").is_err());
            }
            Then::Go
        });
        let (handler, reason) = channel.run(handler).await;
        assert!(matches!(reason, CloseReason::Aborted), "{at:?}: {reason:?}");
        let log = handler.log.seen();
        assert_eq!(log[log.len() - 2..], [at, closed("aborted")]);
        assert_eq!(peer.output(), "");
        assert_eq!(peer.wire().shutdowns, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_abort_drops_the_callback_that_goes_on_waiting() {
    let (mut channel, peer) = channel("one\r\n");
    let handler = Scripted::new(|seen, control| {
        if *seen != Seen::End {
            return Then::Go;
        }
        control.abort();
        wait(pending())
    });
    let (_, reason) = channel.run(handler).await;
    assert!(matches!(reason, CloseReason::Aborted));
    assert_eq!(peer.wire().shutdowns, 1);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_handler_comes_back_whole_after_what_was_pushed() {
    for at in [data("one"), Seen::End, Seen::Truncated] {
        let (mut channel, peer) = channel("one\r\ntwo");
        peer.close();
        let failing = at.clone();
        let handler = Scripted::new(move |seen, control| {
            if *seen != failing {
                return Then::Go;
            }
            control.try_push("500\r\n").unwrap();
            Then::Fail("no such thing")
        });
        let (handler, reason) = channel.run(handler).await;
        assert!(matches!(reason, CloseReason::Handler("no such thing")), "{at:?}: {reason:?}");
        let log = handler.log.seen();
        assert_eq!(log[log.len() - 2..], [at, closed("no such thing")]);
        assert_eq!(peer.output(), "500\r\n");
        assert_eq!(peer.wire().shutdowns, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_an_overlong_frame_can_be_taken_for_a_frame() {
    for limit in [Limit::Fail(3), Limit::Skip(3)] {
        for (whole, chop) in [(false, 1), (false, 4), (false, 64), (true, 1), (true, 64)] {
            let (socket, peer) = pipe();
            peer.chop(chop);
            peer.send("abcdefgh\nxy\n");
            peer.close();
            let builder = Channel::builder(b"\n").timeouts(patient());
            let mut channel = builder.limit(limit).whole_frames(whole).build(socket);
            let handler = Scripted::new(|seen, control| {
                if *seen == Seen::Overlong {
                    control.resume();
                }
                Then::Go
            });
            let (handler, reason) = channel.run(handler.whole(whole)).await;
            let mut seen = handler.log.seen();
            seen.truncate(8);
            let overlong = Seen::Overlong;
            let frames = [data("abc"), overlong.clone(), data("def"), overlong, data("gh")];
            let frames = [&frames[..], &[Seen::End, data("xy"), Seen::End]].concat();
            assert_eq!(seen, frames, "{limit:?}, {whole}, {chop}");
            assert!(matches!(reason, CloseReason::PeerClosed), "{reason:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_chunk_is_pushed_on_without_a_copy() {
    /// A handler that pushes its input on, and records the addresses of the bytes.
    #[derive(Default)]
    struct Pass(Vec<Bytes>);

    impl Handler for Pass {
        type Error = Infallible;

        fn collect_incoming_data(
            &mut self,
            data: Chunk<'_>,
            control: &mut Control<'_>,
        ) -> Result<(), Infallible> {
            self.0.push(data.to_bytes());
            control.push(data);
            Ok(())
        }
    }

    for length in [0, 1, 1_000, 20_000, 60_000] {
        let input = vec![b'x'; length];
        let writer = Wrote::default();
        let mut channel = Channel::new(tokio::io::join(&input[..], writer), None);
        let (pass, _) = channel.run(Pass::default()).await;
        let wrote = &channel.get_ref().writer().0;
        assert_eq!(wrote.iter().map(|(_, len)| len).sum::<usize>(), length);
        let large = pass.0.iter().filter(|chunk| chunk.len() >= 16 * 1024);
        assert_eq!(large.clone().count(), usize::from(length >= 16 * 1024), "{length}");
        for chunk in large {
            let place = (chunk.as_ptr().addr(), chunk.len());
            assert!(wrote.contains(&place), "{length}: {wrote:?}");
        }
    }
}

/// A stream that takes all bytes, and records their addresses.
#[derive(Debug, Default)]
struct Wrote(Vec<(usize, usize)>);

impl AsyncWrite for Wrote {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.push((bytes.as_ptr().addr(), bytes.len()));
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn an_overlong_frame_is_told_then_closes_with_what_was_pushed() {
    let (socket, peer) = pipe();
    peer.send("abcdef\r\nnext\r\n");
    peer.close();
    let mut channel =
        Channel::builder(b"\r\n").limit(Limit::Fail(3)).timeouts(patient()).build(socket);
    let handler = Scripted::new(|seen, control| {
        if *seen == Seen::Overlong {
            control.try_push("too long\r\n").unwrap();
        }
        Then::Go
    });
    let (handler, reason) = channel.run(handler).await;
    assert!(matches!(reason, CloseReason::Frame(_)));
    assert_eq!(handler.log.seen()[..2], [data("abc"), Seen::Overlong]);
    assert_eq!(handler.log.len(), 3);
    assert_eq!(peer.output(), "too long\r\n");
    assert!(peer.is_shut_down());
}

#[tokio::test(start_paused = true)]
async fn a_switch_governs_the_very_next_byte_wherever_it_is_made() {
    let (mut channel, peer) = channel("4\r\nabcd\r\nrest\r\n");
    peer.close();
    let handler = Scripted::new(|seen, control| {
        match seen {
            // The terminator is set in the callback for data.
            Seen::Data(text) if text == "4" => control.set_terminator(4),
            Seen::Data(text) if text == "abcd" => {
                // A count that has ended has become `None`.
                assert_eq!(control.terminator(), asynchat::Terminator::None);
                control.set_terminator(b"\r\n");
            }
            _ => {}
        }
        Then::Go
    });
    let (handler, _) = channel.run(handler).await;
    let expected = [
        data("4"),
        Seen::End,
        data("abcd"),
        Seen::End,
        Seen::End,
        data("rest"),
        Seen::End,
        Seen::Eof,
    ];
    assert_eq!(handler.log.seen()[..8], expected);
}

#[tokio::test(start_paused = true)]
async fn a_switch_to_what_is_withheld_does_not_wait_for_more() {
    let (mut channel, peer) = channel("one\r");
    let handler = Scripted::new(|seen, control| {
        match seen {
            Seen::Data(_) => control.set_terminator(b"\r"),
            Seen::End => control.close_when_done(),
            _ => {}
        }
        Then::Go
    });
    let (handler, reason) = channel.run(handler).await;
    assert!(matches!(reason, CloseReason::Done));
    assert_eq!(handler.log.seen()[..2], [data("one"), Seen::End]);
    assert_eq!(peer.unread(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_count_of_0_set_by_a_callback_fires_at_once() {
    let (mut channel, _peer) = channel("one\r\n");
    let mut ends = 0;
    let handler = Scripted::new(move |seen, control| {
        if *seen == Seen::End {
            ends += 1;
            match ends {
                1 => control.set_terminator(0),
                2 => control.set_terminator(b"\r\n"),
                _ => unreachable!(),
            }
            if ends == 2 {
                control.close_when_done();
            }
        }
        Then::Go
    });
    let (handler, _) = channel.run(handler).await;
    assert_eq!(handler.log.seen(), [data("one"), Seen::End, Seen::End, closed("closed")]);
}

#[tokio::test(start_paused = true)]
async fn a_discard_in_collect_drops_what_is_buffered_behind() {
    let (mut channel, peer) = channel("one\r\ntwo\r\n");
    peer.close();
    let handler = Scripted::new(|seen, control| {
        if matches!(seen, Seen::Data(_)) {
            control.try_push("never sent").unwrap();
            control.discard_buffers();
            assert_eq!(control.queued_bytes(), 0);
        }
        Then::Go
    });
    let (handler, reason) = channel.run(handler).await;
    assert!(matches!(reason, CloseReason::PeerClosed));
    // The terminator had been found already, and is still reported.
    assert_eq!(handler.log.seen()[..3], [data("one"), Seen::End, Seen::Eof]);
    assert_eq!(peer.output(), "");
}

#[tokio::test(start_paused = true)]
async fn a_discard_at_the_terminator_drops_what_is_buffered_and_no_more() {
    let (mut channel, peer) = channel("one\r\ntwo\r");
    let running = tokio::spawn(async move {
        let handler = Scripted::new(|seen, control| {
            match seen {
                Seen::End => control.discard_buffers(),
                Seen::Data(text) if text == "\nthree" => control.close_when_done(),
                _ => {}
            }
            Then::Go
        });
        channel.run(handler).await.0.log.seen()
    });
    settle().await;
    peer.send("\nthree");
    let log = running.await.unwrap();
    assert_eq!(log, [data("one"), Seen::End, data("\nthree"), closed("closed")]);
}

#[tokio::test(start_paused = true)]
async fn terminators_that_were_discarded_do_not_end_what_comes_after() {
    let (mut channel, peer) = channel("one\r\n\r\ntwo\r\nthree\r\n");
    let running = tokio::spawn(async move {
        let handler = Scripted::new(|seen, control| {
            if *seen == Seen::End {
                control.discard_buffers();
            }
            Then::Go
        });
        channel.run(handler).await.0.log.seen()
    });
    settle().await;
    peer.send("as long as what was dropped");
    peer.close();
    let log = running.await.unwrap();
    let expected = [data("one"), Seen::End, data("as long as what was dropped"), Seen::Truncated];
    assert_eq!(log[..4], expected);
}

#[tokio::test(start_paused = true)]
async fn output_goes_out_while_a_callback_waits() {
    let (mut channel, peer) = channel("one\r\n");
    let (go, gone) = oneshot::channel::<()>();
    let mut gone = Some(gone);
    let running = tokio::spawn(async move {
        let handler = Scripted::new(move |seen, control| {
            let Some(gone) = gone.take_if(|_| *seen == Seen::End) else {
                return Then::Go;
            };
            control.try_push("wait...").unwrap();
            wait_then(async { gone.await.unwrap() }, |control| {
                control.try_push("done").unwrap();
                control.close_when_done();
            })
        });
        channel.run(handler).await.1
    });
    settle().await;
    assert_eq!(peer.output(), "wait...");
    assert_eq!(peer.wire().flushed, 7);
    go.send(()).unwrap();
    assert!(matches!(running.await.unwrap(), CloseReason::Done));
    assert_eq!(peer.output(), "wait...done");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_read_while_a_callback_waits() {
    let (mut channel, peer) = channel("one\r\n");
    let running = tokio::spawn(async move {
        channel
            .run(Scripted::new(|seen, _| match seen {
                Seen::End => wait(pending()),
                _ => Then::Go,
            }))
            .await
            .1
    });
    settle().await;
    let reads = peer.wire().reads;
    peer.send("two\r\n");
    peer.close();
    settle().await;
    assert_eq!((peer.wire().reads, peer.unread()), (reads, 5));
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_reset_in_mid_frame_is_an_error_and_told_to_closed() {
    let (mut channel, peer) = channel("one\r\ntwo");
    peer.reset();
    let (handler, reason) = channel.run(Scripted::new(|_, _| Then::Go)).await;
    match reason {
        CloseReason::Io(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(handler.log.seen()[..3], [data("one"), Seen::End, data("two")]);
    assert_eq!(handler.log.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_reset_in_mid_write_drops_the_waiting_callback() {
    let (mut channel, peer) = channel("one\r\n");
    peer.take(2);
    let running = tokio::spawn(async move {
        let handler = Scripted::new(|_, control| {
            control.try_push("answer").unwrap();
            Then::Go
        });
        let (handler, reason) = channel.run(handler).await;
        (handler.log.seen(), reason)
    });
    settle().await;
    peer.reset();
    let (log, reason) = running.await.unwrap();
    assert!(matches!(reason, CloseReason::Io(_)), "{reason:?}");
    assert_eq!(log.len(), 3);
    assert_eq!(peer.output(), "an");
}

#[tokio::test(start_paused = true)]
async fn a_terminator_owed_by_next_is_dispatched_by_run() {
    let (mut channel, peer) = channel("one\r\ntwo\r\n");
    peer.close();
    assert_eq!(channel.next().await.unwrap().map(crate::support::seen).unwrap(), data("one"));
    let (handler, _) = channel.run(Scripted::new(|_, _| Then::Go)).await;
    assert_eq!(handler.log.seen()[..3], [Seen::End, data("two"), Seen::End]);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_dropped_leaves_a_channel_that_goes_on() {
    let (mut channel, peer) = channel("one\r\ntwo\r\n");
    let handler = Scripted::new(|seen, control| match seen {
        Seen::End => {
            control.try_push("answer").unwrap();
            wait(pending())
        }
        _ => Then::Go,
    });
    let log = handler.log.clone();
    let cut = tokio::time::timeout(secs(1).unwrap(), channel.run(handler)).await;
    assert!(cut.is_err());
    assert_eq!(log.seen(), [data("one"), Seen::End]);
    peer.close();
    let (handler, reason) = channel.run(Scripted::new(|_, _| Then::Go)).await;
    assert!(matches!(reason, CloseReason::PeerClosed));
    assert_eq!(handler.log.seen()[..2], [data("two"), Seen::End]);
    assert_eq!(peer.output(), "answer");
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_leaves_a_channel_that_can_be_dropped() {
    let (mut channel, peer) = channel("one\r\n");
    let handle = channel.handle();
    let running =
        tokio::spawn(
            async move { channel.run(Scripted::new(|_, _| panic!("of the test"))).await.1 },
        );
    assert!(running.await.unwrap_err().is_panic());
    assert!(handle.is_closed());
    assert!(peer.wire().dropped);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_producer_leaves_a_channel_that_has_failed() {
    for in_callback in [false, true] {
        let (mut channel, peer) = channel("one\r\n");
        let running = tokio::spawn(async move {
            let handler = Scripted::new(move |seen, control| {
                if *seen != Seen::End {
                    return Then::Go;
                }
                let panicking = producer::poll_fn(|_| panic!("of the test"));
                control.try_push_with_producer(panicking).unwrap();
                if in_callback { wait(pending()) } else { Then::Go }
            });
            let ran = AssertUnwindSafe(channel.run(handler)).catch_unwind().await;
            assert!(ran.is_err());
            channel
        });
        let mut channel = running.await.unwrap();
        assert_eq!(channel.push("late").unwrap_err().into_inner(), "late");
        assert!(channel.flush().await.is_err());
        assert!(channel.next().await.is_none());
        assert_eq!(peer.output(), "");
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_time_set_in_a_waiting_callback_counts_behind_it() {
    let (mut channel, _peer) = channel("one\r\n");
    let handler = Scripted::new(|seen, control| {
        if *seen != Seen::End {
            return Then::Go;
        }
        let mut timeouts = Timeouts::NONE;
        timeouts.idle = secs(5);
        control.set_timeouts(timeouts);
        wait(tokio::time::sleep(secs(100).unwrap()))
    });
    let start = tokio::time::Instant::now();
    let (_, reason) = channel.run(handler).await;
    assert!(matches!(reason, CloseReason::Timeout(_)), "{reason:?}");
    assert_eq!(start.elapsed().as_secs(), 105);
}

/// Runs a handler that is handed 5000 frames. Returns how many polls that took.
async fn polls_for_5000_frames(read_size: usize) -> usize {
    let (socket, peer) = pipe();
    peer.send("\n".repeat(5000));
    peer.close();
    let mut channel =
        Channel::builder(b"\n").timeouts(patient()).read_size(read_size).build(socket);
    let mut running = std::pin::pin!(channel.run(Scripted::new(|_, _| Then::Go)));
    let mut polls = 0;
    let (handler, _) = std::future::poll_fn(|cx| {
        polls += 1;
        running.as_mut().poll(cx)
    })
    .await;
    // These are the frames, the end of the input, and the end of the connection.
    assert_eq!(handler.log.len(), 5002);
    polls
}

#[tokio::test(start_paused = true)]
async fn one_poll_is_bounded_however_much_there_is() {
    assert!(polls_for_5000_frames(1 << 16).await >= 5);
    assert!(polls_for_5000_frames(100).await >= 5);
}

#[tokio::test(start_paused = true)]
async fn one_poll_reads_no_more_than_half_a_megabyte() {
    let (socket, peer) = pipe();
    peer.send(vec![b'x'; 4 << 20]);
    peer.close();
    let mut channel = Channel::builder(None).timeouts(patient()).build(socket);
    let mut running = std::pin::pin!(channel.run(Scripted::new(|_, _| Then::Go)));
    let mut left = peer.unread();
    std::future::poll_fn(|cx| {
        let polled = running.as_mut().poll(cx);
        let read = left - peer.unread();
        assert!(read <= 512 << 10, "{read}");
        left -= read;
        polled
    })
    .await;
    assert_eq!(left, 0);
}

#[tokio::test(start_paused = true)]
async fn a_handler_of_borrowed_things_can_be_run() {
    struct Borrowing<'a>(&'a mut Vec<u8>);
    impl Handler for Borrowing<'_> {
        type Error = std::convert::Infallible;

        fn collect_incoming_data(
            &mut self,
            data: asynchat::Chunk<'_>,
            _: &mut asynchat::Control<'_>,
        ) -> Result<(), Self::Error> {
            self.0.extend_from_slice(&data);
            Ok(())
        }

        async fn found_terminator(
            &mut self,
            _: &mut asynchat::Control<'_>,
        ) -> Result<(), Self::Error> {
            Ok(())
        }
    }
    let (mut channel, peer) = channel("one\r\n");
    peer.close();
    let mut all = Vec::new();
    channel.run(Borrowing(&mut all)).await;
    assert_eq!(all, b"one");
}

#[tokio::test(start_paused = true)]
async fn a_newline_cut_in_two_is_one_though_the_handler_waits_between() {
    for yields in [0, 1] {
        let (socket, peer) = pipe();
        let handler = Scripted::new(move |seen, _| match (seen, yields) {
            (Seen::End, 1) => wait(tokio::task::yield_now()),
            _ => Then::Go,
        });
        let log = handler.log.clone();
        let mut channel =
            Channel::builder(asynchat::Terminator::Newline).timeouts(patient()).build(socket);
        let running = tokio::spawn(async move { channel.run(handler).await.1.to_string() });
        for read in ["c\r", "\n", "d\r", "\n"] {
            peer.send(read);
            settle().await;
        }
        assert_eq!(log.seen(), [data("c"), Seen::End, data("d"), Seen::End], "{yields} yields");
        running.abort();
    }
}
