//! The pull interface: what `next` yields, and that its future may be dropped at any time.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use asynchat::{Channel, ChannelError, CloseReason, Event, FrameError, Limit, Timeouts};
use futures::StreamExt;
use tokio::io::{AsyncWriteExt, duplex};

use crate::support::{Peer, Scripted, Seen, Socket, Then, data, pipe, seen};

/// A channel without deadlines, which needs no clock.
fn channel(peer_sends: &str) -> (Channel<Socket>, Peer) {
    let (socket, peer) = pipe();
    peer.send(peer_sends);
    (Channel::builder(b"\r\n").timeouts(Timeouts::NONE).build(socket), peer)
}

/// Polls `next` once, and drops its future.
fn poll_next(channel: &mut Channel<Socket>) -> Poll<Option<Result<Seen, ChannelError>>> {
    let mut cx = Context::from_waker(Waker::noop());
    let next = pin!(channel.next());
    next.poll(&mut cx).map(|item| item.map(|event| event.map(seen)))
}

#[track_caller]
fn ready(channel: &mut Channel<Socket>) -> Seen {
    match poll_next(channel) {
        Poll::Ready(Some(Ok(seen))) => seen,
        other => panic!("{other:?}"),
    }
}

#[test]
fn events_come_in_order_with_the_partial_withheld() {
    let (mut channel, peer) = channel("one\r\n\r\ntwo\r");
    assert_eq!(ready(&mut channel), data("one"));
    assert_eq!(ready(&mut channel), Seen::End);
    assert_eq!(ready(&mut channel), Seen::End);
    assert_eq!(ready(&mut channel), data("two"));
    assert!(poll_next(&mut channel).is_pending());
    peer.send("\n");
    assert_eq!(ready(&mut channel), Seen::End);
    assert!(poll_next(&mut channel).is_pending());
}

#[test]
fn the_end_at_a_boundary_is_the_end_and_stays_it() {
    let (mut channel, peer) = channel("one\r\n");
    peer.close();
    assert_eq!(ready(&mut channel), data("one"));
    assert_eq!(ready(&mut channel), Seen::End);
    for _ in 0..3 {
        assert!(matches!(poll_next(&mut channel), Poll::Ready(None)));
    }
}

#[test]
fn the_end_in_mid_frame_delivers_the_partial_then_truncated() {
    let (mut channel, peer) = channel("one\r");
    peer.close();
    assert_eq!(ready(&mut channel), data("one"));
    assert_eq!(ready(&mut channel), data("\r"));
    assert_eq!(ready(&mut channel), Seen::Truncated);
    for _ in 0..3 {
        assert!(matches!(poll_next(&mut channel), Poll::Ready(None)));
    }
}

#[test]
fn a_reset_in_mid_frame_is_an_error_once() {
    let (mut channel, peer) = channel("one");
    peer.reset();
    assert_eq!(ready(&mut channel), data("one"));
    match poll_next(&mut channel) {
        Poll::Ready(Some(Err(ChannelError::Io(error)))) => {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(poll_next(&mut channel), Poll::Ready(None)));
    assert_eq!(channel.push("x").unwrap_err().into_inner(), "x");
}

#[tokio::test]
async fn a_reset_in_mid_write_is_an_error_once() {
    let (mut channel, peer) = channel("");
    peer.take(3);
    channel.push("hello").unwrap();
    assert!(poll_next(&mut channel).is_pending());
    peer.reset();
    match channel.flush().await {
        Err(ChannelError::Io(error)) => assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe),
        other => panic!("{other:?}"),
    }
    assert!(matches!(poll_next(&mut channel), Poll::Ready(None)));
    assert_eq!(channel.queued_bytes(), 0);
    assert_eq!(peer.output(), "hel");
}

#[test]
fn an_overlong_frame_is_an_event_then_an_error_once_then_the_end() {
    let (socket, peer) = pipe();
    peer.send("abcdef\r\nnext\r\n");
    let mut channel =
        Channel::builder(b"\r\n").limit(Limit::Fail(3)).timeouts(Timeouts::NONE).build(socket);
    assert_eq!(ready(&mut channel), data("abc"));
    assert_eq!(ready(&mut channel), Seen::Overlong);
    match poll_next(&mut channel) {
        Poll::Ready(Some(Err(ChannelError::Frame(error)))) => {
            assert_eq!(error, FrameError::Overlong(3));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(poll_next(&mut channel), Poll::Ready(None)));
    channel.push("too long\r\n").unwrap();
    assert!(poll_close(&mut channel).is_ready());
    assert_eq!(peer.output(), "too long\r\n");
}

fn poll_close(channel: &mut Channel<Socket>) -> Poll<Result<(), ChannelError>> {
    let mut cx = Context::from_waker(Waker::noop());
    pin!(channel.close()).poll(&mut cx)
}

#[test]
fn a_switch_at_overlong_goes_on_with_the_very_next_byte() {
    let (socket, peer) = pipe();
    peer.send("abcdef\r\n");
    let mut channel =
        Channel::builder(b"\r\n").limit(Limit::Fail(3)).timeouts(Timeouts::NONE).build(socket);
    assert_eq!(ready(&mut channel), data("abc"));
    assert_eq!(ready(&mut channel), Seen::Overlong);
    channel.set_terminator(2);
    assert_eq!(ready(&mut channel), data("de"));
    assert_eq!(ready(&mut channel), Seen::End);
    assert_eq!(ready(&mut channel), data("f\r\n"));
}

#[test]
fn a_skipped_frame_has_no_terminator_and_the_next_is_whole() {
    let (socket, peer) = pipe();
    peer.chop(1);
    peer.send("abcdef\r\nxyz\r\n");
    let mut channel =
        Channel::builder(b"\r\n").limit(Limit::Skip(3)).timeouts(Timeouts::NONE).build(socket);
    let mut all = Vec::new();
    while let Poll::Ready(Some(Ok(event))) = poll_next(&mut channel) {
        match (all.last_mut(), event) {
            (Some(Seen::Data(before)), Seen::Data(more)) => before.push_str(&more),
            (_, event) => all.push(event),
        }
    }
    assert_eq!(all, [data("abc"), Seen::Overlong, data("xyz"), Seen::End]);
}

#[test]
fn the_default_limit_is_64_kib() {
    let (socket, peer) = pipe();
    peer.send("x".repeat(65536));
    peer.send("\n");
    peer.send("x".repeat(65537));
    let mut channel = Channel::builder(b"\n").timeouts(Timeouts::NONE).build(socket);
    assert_eq!(channel.limit(), Limit::Fail(65536));
    let mut ends = Vec::new();
    let mut bytes = 0;
    loop {
        match poll_next(&mut channel) {
            Poll::Ready(Some(Ok(Seen::Data(chunk)))) => bytes += chunk.len(),
            Poll::Ready(Some(Ok(end))) => ends.push((std::mem::take(&mut bytes), end)),
            Poll::Ready(Some(Err(ChannelError::Frame(_)))) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(ends, [(65536, Seen::End), (65536, Seen::Overlong)]);
}

#[test]
fn a_count_of_0_fires_once_before_any_input() {
    let (socket, peer) = pipe();
    let mut channel = Channel::builder(0).timeouts(Timeouts::NONE).build(socket);
    assert_eq!(ready(&mut channel), Seen::End);
    assert!(poll_next(&mut channel).is_pending());
    assert_eq!(channel.terminator(), asynchat::Terminator::None);
    channel.set_terminator(0);
    assert_eq!(ready(&mut channel), Seen::End);
    peer.send("x");
    assert_eq!(ready(&mut channel), data("x"));
}

#[test]
fn withheld_bytes_become_the_new_terminator_though_nothing_more_comes() {
    let (mut channel, _peer) = channel("one\r");
    assert_eq!(ready(&mut channel), data("one"));
    assert!(poll_next(&mut channel).is_pending());
    channel.set_terminator(b"\r");
    assert_eq!(ready(&mut channel), Seen::End);
    assert!(poll_next(&mut channel).is_pending());
}

#[test]
fn withheld_bytes_become_payload_when_the_switch_says_so() {
    let (mut channel, _peer) = channel("one\r");
    assert_eq!(ready(&mut channel), data("one"));
    assert!(poll_next(&mut channel).is_pending());
    channel.set_terminator(1);
    assert_eq!(ready(&mut channel), data("\r"));
    assert_eq!(ready(&mut channel), Seen::End);
}

#[test]
fn a_terminator_that_ended_the_chunk_still_fires_after_a_switch() {
    let (mut channel, _peer) = channel("one\r\nabc");
    assert_eq!(ready(&mut channel), data("one"));
    channel.set_terminator(2);
    assert_eq!(ready(&mut channel), Seen::End);
    assert_eq!(ready(&mut channel), data("ab"));
    assert_eq!(ready(&mut channel), Seen::End);
    assert_eq!(ready(&mut channel), data("c"));
}

#[test]
fn a_discard_drops_input_and_output_and_keeps_the_terminator() {
    let (mut channel, peer) = channel("one\r\ntwo\r");
    peer.take(0);
    channel.push("never sent").unwrap();
    assert_eq!(ready(&mut channel), data("one"));
    assert_eq!(ready(&mut channel), Seen::End);
    channel.discard_buffers();
    assert_eq!(channel.queued_bytes(), 0);
    peer.take(usize::MAX);
    peer.send("\nthree\r\n");
    assert_eq!(ready(&mut channel), data("\nthree"));
    assert_eq!(ready(&mut channel), Seen::End);
    assert!(poll_next(&mut channel).is_pending());
    assert_eq!(peer.output(), "");
}

#[test]
fn a_discard_does_not_cancel_a_scheduled_close() {
    let (mut channel, peer) = channel("");
    channel.push("never sent").unwrap();
    channel.close_when_done();
    channel.discard_buffers();
    assert!(channel.push("late").is_err());
    assert!(matches!(poll_next(&mut channel), Poll::Ready(None)));
    assert!(peer.is_shut_down());
    assert_eq!(peer.output(), "");
}

#[test]
fn no_event_follows_a_close_or_an_abort_though_one_was_owed() {
    let (mut closed, peer) = channel("one\r\ntwo\r\n");
    assert_eq!(ready(&mut closed), data("one"));
    closed.close_when_done();
    peer.close();
    assert!(matches!(poll_next(&mut closed), Poll::Ready(None)));

    let (mut aborted, _peer) = channel("one\r\ntwo\r\n");
    assert_eq!(ready(&mut aborted), data("one"));
    aborted.abort();
    assert!(matches!(poll_next(&mut aborted), Poll::Ready(None)));
}

#[test]
fn output_is_written_while_input_is_awaited() {
    let (mut channel, peer) = channel("");
    peer.take(2);
    channel.push("hello").unwrap();
    assert!(poll_next(&mut channel).is_pending());
    assert_eq!(peer.output(), "he");
    peer.take(usize::MAX);
    assert!(poll_next(&mut channel).is_pending());
    assert_eq!(peer.output(), "hello");
    assert_eq!(peer.wire().flushed, 5);
}

#[test]
fn output_is_flushed_once_when_the_input_is_drained() {
    let (mut channel, peer) = channel("a\r\nb\r\nc\r\nd\r\n");
    let mut events = 0;
    while poll_next(&mut channel).is_ready() {
        events += 1;
        channel.push("answer\r\n").unwrap();
    }
    assert_eq!(events, 8);
    let wire = peer.wire();
    assert_eq!((wire.writes, wire.flushes, wire.flushed), (1, 1, 64));
}

#[test]
fn an_idle_channel_is_not_flushed() {
    let (mut channel, peer) = channel("");
    for _ in 0..3 {
        assert!(poll_next(&mut channel).is_pending());
    }
    assert_eq!(peer.wire().flushes, 0);
}

#[test]
fn a_read_takes_no_more_than_the_read_size() {
    // This uses whatever other channels of this thread have left in the pools.
    let (mut other, _peer) = channel("a\r\n");
    while poll_next(&mut other).is_ready() {}

    let (socket, peer) = pipe();
    peer.send("0123456789\n");
    let mut channel = Channel::builder(b"\n").read_size(4).timeouts(Timeouts::NONE).build(socket);
    assert_eq!(ready(&mut channel), data("0123"));
    while poll_next(&mut channel).is_ready() {}
    assert_eq!(peer.wire().room, 4);
}

#[tokio::test]
async fn next_dropped_at_every_poll_loses_and_repeats_nothing() {
    let input: String = (0..200).map(|n| format!("{n}\r\n{}", "\r".repeat(n % 3))).collect();
    let (mut near, far) = duplex(7);
    let mut channel = Channel::builder(b"\r\n").timeouts(Timeouts::NONE).build(far);
    let sender = tokio::spawn({
        let input = input.clone();
        async move {
            let mut back = Vec::new();
            let (mut read, mut write) = tokio::io::split(&mut near);
            let sending = async {
                for piece in input.as_bytes().chunks(3) {
                    write.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
                write.shutdown().await.unwrap();
            };
            let reading = tokio::io::AsyncReadExt::read_to_end(&mut read, &mut back);
            let (_, read) = tokio::join!(sending, reading);
            read.unwrap();
            String::from_utf8(back).unwrap()
        }
    });
    let mut echo = String::new();
    let mut heard = String::new();
    loop {
        // The future is polled once, then dropped and made anew.
        let item = tokio::select! {
            biased;
            item = channel.next() => item,
            () = tokio::task::yield_now() => continue,
        };
        match item {
            Some(Ok(event)) => {
                if matches!(event, Event::Terminator) {
                    heard.push_str("\r\n");
                }
                if let Event::Chunk(bytes) = event {
                    heard.push_str(std::str::from_utf8(&bytes).unwrap());
                    echo.push_str(std::str::from_utf8(&bytes).unwrap());
                    channel.push(bytes).unwrap();
                }
            }
            None => break,
            Some(Err(error)) => panic!("{error:?}"),
        }
    }
    channel.close().await.unwrap();
    drop(channel);
    assert_eq!(heard, input);
    assert_eq!(sender.await.unwrap(), echo);
}

#[tokio::test]
async fn it_is_a_stream_of_the_same_events() {
    let (socket, peer) = pipe();
    peer.send("one\r\ntwo");
    peer.close();
    let channel = Channel::builder(b"\r\n").timeouts(Timeouts::NONE).build(socket);
    let events: Vec<_> = channel.map(|event| seen(event.unwrap())).collect().await;
    assert_eq!(events, [data("one"), Seen::End, data("two"), Seen::Truncated]);
}

#[test]
fn a_set_says_which_member_matched() {
    let (socket, peer) = pipe();
    peer.send("a\nb\r\n");
    let set = asynchat::Terminator::any_of(["\r\n", "\n"]).unwrap();
    let mut channel = Channel::builder(set).timeouts(Timeouts::NONE).build(socket);
    assert_eq!(ready(&mut channel), data("a"));
    assert_eq!(ready(&mut channel), Seen::End);
    assert_eq!(channel.matched(), 1);
    assert_eq!(ready(&mut channel), data("b"));
    assert_eq!(ready(&mut channel), Seen::End);
    assert_eq!(channel.matched(), 0);
}

#[test]
fn into_parts_gives_what_was_read_and_not_delivered() {
    let (mut channel, peer) = channel("one\r\ntwo\r");
    assert_eq!(ready(&mut channel), data("one"));
    assert_eq!(ready(&mut channel), Seen::End);
    let (socket, rest) = channel.into_parts();
    assert_eq!(rest, "two\r");
    assert!(!peer.wire().dropped);
    drop(socket);
}

#[test]
fn into_parts_gives_the_withheld_bytes() {
    let (mut channel, _peer) = channel("two\r");
    assert_eq!(ready(&mut channel), data("two"));
    assert!(poll_next(&mut channel).is_pending());
    assert_eq!(channel.into_parts().1, "\r");
}

#[test]
fn a_channel_is_polled_through_a_pin() {
    let (mut channel, _peer) = channel("x");
    let mut cx = Context::from_waker(Waker::noop());
    let polled = futures::Stream::poll_next(Pin::new(&mut channel), &mut cx);
    assert!(matches!(polled, Poll::Ready(Some(Ok(Event::Chunk(_))))));
}

#[test]
fn a_discarded_partial_is_no_frame_that_was_begun() {
    let (mut channel, peer) = channel("\r");
    assert!(poll_next(&mut channel).is_pending());
    channel.discard_buffers();
    peer.close();
    assert!(matches!(poll_next(&mut channel), Poll::Ready(None)));
}

#[test]
fn ready_waits_for_room_and_writes_meanwhile() {
    let (socket, peer) = pipe();
    let builder = Channel::builder(b"\n").high_water_mark(10).low_water_mark(4);
    let mut channel = builder.timeouts(Timeouts::NONE).build(socket);
    peer.take(0);
    let mut cx = Context::from_waker(Waker::noop());
    let mut poll = |channel: &mut Channel<Socket>| pin!(channel.ready()).poll(&mut cx);
    channel.push("123456789").unwrap();
    assert!(matches!(poll(&mut channel), Poll::Ready(Ok(()))));
    channel.push("0123456789").unwrap();
    for taken in 0..15 {
        assert!(poll(&mut channel).is_pending(), "{taken}");
        assert_eq!(channel.queued_bytes(), 19 - taken);
        peer.take_more(1);
    }
    assert!(matches!(poll(&mut channel), Poll::Ready(Ok(()))));
    channel.push("0123456789").unwrap();
    channel.abort();
    assert!(matches!(poll(&mut channel), Poll::Ready(Err(ChannelError::Closed))));
}

#[tokio::test(start_paused = true)]
async fn ready_ends_by_the_write_stall() {
    let (socket, peer) = pipe();
    let timeouts = Timeouts::NONE.write_stall(std::time::Duration::from_secs(60));
    let builder = Channel::builder(b"\n").high_water_mark(10).low_water_mark(4);
    let mut channel = builder.timeouts(timeouts).build(socket);
    peer.take(0);
    channel.push("0123456789").unwrap();
    let begun = tokio::time::Instant::now();
    let error = channel.ready().await.unwrap_err();
    assert!(matches!(error, ChannelError::Timeout(asynchat::Timeout::WriteStall)), "{error:?}");
    assert_eq!(begun.elapsed().as_secs(), 60);
}

#[test]
fn ready_ends_by_a_writer_that_fails() {
    let (socket, peer) = pipe();
    let builder = Channel::builder(b"\n").high_water_mark(10).low_water_mark(4);
    let mut channel = builder.timeouts(Timeouts::NONE).build(socket);
    peer.reset();
    channel.push("0123456789").unwrap();
    let mut cx = Context::from_waker(Waker::noop());
    let result = pin!(channel.ready()).poll(&mut cx);
    assert!(matches!(result, Poll::Ready(Err(ChannelError::Io(_)))), "{result:?}");
    // The end has been reported.
    assert!(matches!(poll_next(&mut channel), Poll::Ready(None)));
}

#[test]
fn text_is_written_in_its_place() {
    let (mut channel, peer) = channel("");
    channel.push("a").unwrap();
    write!(channel, "{}-{:02}", 1, 2).unwrap();
    channel.push("b").unwrap();
    assert!(poll_next(&mut channel).is_pending());
    assert_eq!(peer.output(), "a1-02b");
    channel.close_when_done();
    assert!(write!(channel, "late").is_err());
}

#[test]
fn whole_frames_can_be_asked_for_and_given_up() {
    let (mut channel, peer) = channel("a");
    channel.set_whole_frames(true);
    assert!(poll_next(&mut channel).is_pending());
    peer.send("b\r\nc");
    assert_eq!(ready(&mut channel), data("ab"));
    channel.set_whole_frames(false);
    assert_eq!(ready(&mut channel), Seen::End);
    assert_eq!(ready(&mut channel), data("c"));
}

#[tokio::test]
async fn a_message_that_has_ended_is_not_cut_by_the_end_of_the_input() {
    for ends in [false, true] {
        let (mut channel, peer) = channel("a\r\n\r\n");
        assert_eq!(ready(&mut channel), data("a"));
        assert_eq!(ready(&mut channel), Seen::End);
        channel.begin_message();
        assert_eq!(ready(&mut channel), Seen::End);
        if ends {
            channel.end_message();
        }
        peer.close();
        if !ends {
            assert_eq!(ready(&mut channel), Seen::Truncated);
        }
        assert!(matches!(poll_next(&mut channel), Poll::Ready(None)));
        let (_, reason) = channel.run(Scripted::new(|_, _| Then::Go)).await;
        assert_eq!(matches!(reason, CloseReason::PeerClosed), ends, "{reason:?}");
    }
}

#[tokio::test]
async fn a_handler_is_told_of_what_the_channel_knows_and_can_change_it() {
    let (socket, peer) = pipe();
    let set = asynchat::Terminator::any_of(["one", "two", "six"]).unwrap();
    let mut channel = Channel::builder(set).timeouts(Timeouts::NONE).build(socket);
    peer.send("atwo12345sixone");
    peer.close();
    let mut known = Vec::new();
    let mut queued = Vec::new();
    let handler = Scripted::new(|seen, control| {
        known.push((seen.clone(), control.matched(), control.pending_input()));
        if *seen == Seen::End {
            control.set_limit(Limit::Skip(3));
            assert_eq!(control.limit(), Limit::Skip(3));
            let failed = control.try_push_with(|buffer| {
                buffer.extend_from_slice(b"missed ");
                Err::<(), _>("no hit")
            });
            assert_eq!(failed, Err("no hit"));
            let written = control.push_with(|buffer| buffer.extend_from_slice(b"hit "));
            assert_eq!(written, Some(()));
            queued.push((control.queued_bytes(), control.traffic().read));
        }
        Then::Go
    });
    channel.run(handler).await;
    assert_eq!(peer.output(), "hit hit ");
    assert_eq!(queued, [(4, 15), (8, 15)]);
    let known: Vec<_> = known.iter().map(|(seen, member, left)| (seen, *member, *left)).collect();
    assert_eq!(known[1], (&Seen::End, 1, 11));
    assert_eq!(known[2].0, &data("123"));
    assert_eq!(known[3].0, &Seen::Overlong);
    assert_eq!(known[4], (&Seen::End, 0, 0));
    assert_eq!(known.len(), 6);
}

#[test]
fn a_newline_is_not_one_with_what_was_discarded() {
    let (socket, peer) = pipe();
    let mut channel =
        Channel::builder(asynchat::Terminator::Newline).timeouts(Timeouts::NONE).build(socket);
    peer.send("a\r");
    assert_eq!(ready(&mut channel), data("a"));
    assert_eq!(ready(&mut channel), Seen::End);
    channel.discard_buffers();
    peer.send("\nb");
    assert_eq!(ready(&mut channel), Seen::End);
    assert_eq!(ready(&mut channel), data("b"));
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "polled after it was ready")]
async fn a_step_is_not_polled_again_when_it_is_ready() {
    let (mut channel, _peer) = channel("line\n");
    let mut step = tokio_test::task::spawn(channel.step());
    assert!(step.poll().is_ready());
    drop(step.poll());
}
