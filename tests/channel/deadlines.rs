//! Tests of every deadline, with a paused clock.

use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use asynchat::{
    Channel, ChannelError, Chunk, CloseReason, Control, Event, Handler, Limit, Producer,
    Terminator, Timeout, Timeouts, producer,
};
use futures::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, timeout};

use crate::support::{Scripted, Seen, Socket, Then, data, pipe, seconds, secs, settle, wait};

fn only(set: impl FnOnce(&mut Timeouts)) -> Timeouts {
    let mut timeouts = Timeouts::NONE;
    set(&mut timeouts);
    timeouts
}

fn timed(terminator: impl Into<Terminator>, timeouts: Timeouts, socket: Socket) -> Channel<Socket> {
    Channel::builder(terminator).limit(Limit::Unlimited).timeouts(timeouts).build(socket)
}

/// Drives a future for so many seconds, and drops it before it has looked at the clock again.
async fn drop_after(seconds: u64, waiting: impl Future) {
    tokio::select! {
        biased;
        () = tokio::time::sleep(Duration::from_secs(seconds)) => {}
        _ = waiting => panic!("it did not wait"),
    }
}

/// Pulls until the channel ends. Returns which deadline has passed, if one has, and after how many seconds.
async fn until_timeout(mut channel: Channel<Socket>) -> (Option<Timeout>, u64) {
    let start = Instant::now();
    loop {
        match channel.next().await {
            Some(Ok(_)) => {}
            Some(Err(ChannelError::Timeout(timeout))) => {
                return (Some(timeout), start.elapsed().as_secs());
            }
            None => return (None, start.elapsed().as_secs()),
            Some(Err(error)) => panic!("{error:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_idle_after_the_idle_time() {
    let (socket, _peer) = pipe();
    let channel = timed(b"\n", only(|t| t.idle = secs(300)), socket);
    assert_eq!(until_timeout(channel).await, (Some(Timeout::Idle), 300));
}

#[tokio::test(start_paused = true)]
async fn a_channel_without_deadlines_waits_for_ever() {
    let (socket, peer) = pipe();
    peer.send("in mid-frame");
    let mut channel = timed(b"\n", Timeouts::NONE, socket);
    peer.take(0);
    channel.push("never taken").unwrap();
    let waiting = tokio::spawn(until_timeout(channel));
    seconds(1_000_000).await;
    assert!(!waiting.is_finished());
}

#[tokio::test(start_paused = true)]
async fn bytes_read_put_the_idle_deadline_off() {
    let (socket, peer) = pipe();
    let channel = timed(b"\n", only(|t| t.idle = secs(10)), socket);
    let waiting = tokio::spawn(until_timeout(channel));
    for _ in 0..5 {
        seconds(9).await;
        peer.send("x");
        settle().await;
    }
    assert_eq!(waiting.await.unwrap(), (Some(Timeout::Idle), 45 + 10));
}

#[tokio::test(start_paused = true)]
async fn bytes_written_put_the_idle_deadline_off() {
    let (socket, peer) = pipe();
    peer.take(0);
    let mut channel = timed(b"\n", only(|t| t.idle = secs(10)), socket);
    channel.push("x".repeat(100)).unwrap();
    let waiting = tokio::spawn(until_timeout(channel));
    for _ in 0..5 {
        seconds(9).await;
        peer.take_more(1);
        settle().await;
    }
    assert_eq!(waiting.await.unwrap(), (Some(Timeout::Idle), 45 + 10));
}

#[tokio::test(start_paused = true)]
async fn the_idle_deadline_does_not_run_while_a_callback_waits() {
    let (socket, peer) = pipe();
    let mut channel = timed(b"\n", only(|t| t.idle = secs(10)), socket);
    peer.send("\n");
    let start = Instant::now();
    let handler = Scripted::new(|_, _| wait(tokio::time::sleep(Duration::from_secs(1000))));
    let (_, reason) = channel.run(handler).await;
    assert!(matches!(reason, CloseReason::Timeout(Timeout::Idle)));
    // After that the peer has its full time.
    assert_eq!(start.elapsed().as_secs(), 1000 + 10);
}

#[tokio::test(start_paused = true)]
async fn one_byte_a_second_does_not_hold_a_line_open() {
    let (socket, peer) = pipe();
    let channel = timed(b"\n", Timeouts::default(), socket);
    let waiting = tokio::spawn(until_timeout(channel));
    for _ in 0..100 {
        peer.send("x");
        seconds(1).await;
    }
    assert_eq!(waiting.await.unwrap(), (Some(Timeout::Frame), 60));
}

#[tokio::test(start_paused = true)]
async fn a_withheld_byte_begins_a_frame() {
    let (socket, peer) = pipe();
    peer.send("\r");
    let channel = timed(b"\r\n", only(|t| t.frame = secs(7)), socket);
    assert_eq!(until_timeout(channel).await, (Some(Timeout::Frame), 7));
}

#[tokio::test(start_paused = true)]
async fn the_frame_deadline_counts_from_the_first_byte_of_each_frame() {
    let (socket, peer) = pipe();
    let channel = timed(b"\n", only(|t| t.frame = secs(10)), socket);
    let waiting = tokio::spawn(until_timeout(channel));
    for _ in 0..3 {
        // Between frames no deadline runs.
        seconds(100).await;
        peer.send("x");
        seconds(9).await;
        peer.send("y\n");
        settle().await;
    }
    // A frame that begins in the same read in which another ends has its full time, too.
    peer.send("x");
    seconds(9).await;
    peer.send("\nx");
    assert_eq!(waiting.await.unwrap(), (Some(Timeout::Frame), 3 * 109 + 9 + 10));
}

#[tokio::test(start_paused = true)]
async fn between_counted_frames_there_is_no_frame_deadline() {
    // Frames with a length in front: the peer may be silent between them for as long as the idle
    // deadline allows.
    let (socket, _peer) = pipe();
    let channel = timed(4, Timeouts::default(), socket);
    assert_eq!(until_timeout(channel).await, (Some(Timeout::Idle), 300));
}

#[tokio::test(start_paused = true)]
async fn an_honest_slow_upload_lives() {
    let (socket, peer) = pipe();
    let channel = timed(1024 * 600, Timeouts::default(), socket);
    let waiting = tokio::spawn(until_timeout(channel));
    // The frame takes ten times its deadline, and comes at the minimum rate.
    for _ in 0..600 {
        seconds(1).await;
        peer.send([b'x'; 1024]);
    }
    peer.close();
    assert_eq!(waiting.await.unwrap(), (None, 600));
}

#[tokio::test(start_paused = true)]
async fn an_upload_below_the_minimum_rate_dies() {
    let (socket, peer) = pipe();
    let channel = timed(1024 * 600, only(|t| (t.frame, t.min_rate) = (secs(60), 1024)), socket);
    let waiting = tokio::spawn(until_timeout(channel));
    peer.send("x");
    for _ in 0..600 {
        seconds(1).await;
        peer.send([b'x'; 512]);
    }
    // After 120 seconds 60 KiB have come, which earn 60 seconds beside the 60 that each frame has.
    let (timeout, after) = waiting.await.unwrap();
    assert_eq!(timeout, Some(Timeout::Frame));
    assert!((118..=121).contains(&after), "{after}");
}

#[tokio::test(start_paused = true)]
async fn a_count_of_one_byte_a_second_dies_as_a_line_does() {
    let (socket, peer) = pipe();
    let channel = timed(u64::MAX, Timeouts::default(), socket);
    let waiting = tokio::spawn(until_timeout(channel));
    for _ in 0..100 {
        peer.send("x");
        seconds(1).await;
    }
    assert_eq!(waiting.await.unwrap(), (Some(Timeout::Frame), 60));
}

#[tokio::test(start_paused = true)]
async fn a_minimum_rate_of_0_earns_no_time_whatever_ends_the_frame() {
    let frames: [Terminator; 3] = [5.into(), Terminator::count_then(5, b"\n"), b"\n".into()];
    for terminator in frames {
        let (socket, peer) = pipe();
        peer.send("x");
        let channel = timed(terminator, only(|t| t.frame = secs(60)), socket);
        let waiting = tokio::spawn(until_timeout(channel));
        seconds(59).await;
        peer.send("y");
        assert_eq!(waiting.await.unwrap(), (Some(Timeout::Frame), 60));
    }
}

#[tokio::test(start_paused = true)]
async fn no_terminator_has_no_frame_deadline() {
    let (socket, peer) = pipe();
    peer.send("x");
    let channel = timed(None, only(|t| t.frame = secs(60)), socket);
    let waiting = tokio::spawn(until_timeout(channel));
    seconds(1_000_000).await;
    assert!(!waiting.is_finished());
}

#[tokio::test(start_paused = true)]
async fn the_frame_deadline_is_paused_while_a_callback_waits() {
    let (socket, peer) = pipe();
    let mut channel = timed(b"\n", only(|t| t.frame = secs(10)), socket);
    // Half of the second frame has come before the callback for the first begins to wait.
    peer.send("1\n2");
    let start = Instant::now();
    let running = tokio::spawn(async move {
        let handler = Scripted::new(|seen, _| match seen {
            Seen::End => wait(tokio::time::sleep(Duration::from_secs(1000))),
            _ => Then::Go,
        });
        channel.run(handler).await.1
    });
    let reason = running.await.unwrap();
    assert!(matches!(reason, CloseReason::Timeout(Timeout::Frame)));
    assert_eq!(start.elapsed().as_secs(), 1010);
}

#[tokio::test(start_paused = true)]
async fn the_frame_deadline_is_paused_under_back_pressure() {
    let (socket, peer) = pipe();
    peer.take(0);
    let mut channel = Channel::builder(b"\n")
        .timeouts(only(|t| t.frame = secs(10)))
        .high_water_mark(10)
        .low_water_mark(1)
        .build(socket);
    peer.send("begun");
    assert_eq!(channel.next().await.unwrap().unwrap(), Event::Chunk("begun".into()));
    // The peer is waited for, for 6 seconds.
    let waiting = tokio::time::timeout(Duration::from_secs(6), channel.next()).await;
    assert!(waiting.is_err());
    channel.push("0123456789").unwrap();
    let start = Instant::now();
    let waiting = tokio::spawn(until_timeout(channel));
    seconds(1000).await;
    assert!(!waiting.is_finished(), "{:?}", start.elapsed());
    peer.take(usize::MAX);
    let (timeout, after) = waiting.await.unwrap();
    assert_eq!((timeout, after), (Some(Timeout::Frame), 1000 + 4));
}

#[tokio::test(start_paused = true)]
async fn a_skipped_frame_does_not_use_up_the_time_of_the_next() {
    for next_in_same_read in [false, true] {
        let (socket, peer) = pipe();
        let channel = Channel::builder(b"\n")
            .limit(Limit::Skip(3))
            .timeouts(only(|t| t.frame = secs(60)))
            .build(socket);
        let waiting = tokio::spawn(until_timeout(channel));
        peer.send("abcdef");
        seconds(50).await;
        if next_in_same_read {
            peer.send("\nx");
        } else {
            peer.send("\n");
            seconds(100).await;
            peer.send("x");
        }
        seconds(50).await;
        assert!(!waiting.is_finished(), "same read: {next_in_same_read}");
        peer.close();
        assert_eq!(waiting.await.unwrap().0, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_skip_has_a_deadline_too() {
    let (socket, peer) = pipe();
    let channel = Channel::builder(b"\n")
        .limit(Limit::Skip(3))
        .timeouts(only(|t| t.frame = secs(60)))
        .build(socket);
    let waiting = tokio::spawn(until_timeout(channel));
    for _ in 0..200 {
        peer.send("x");
        seconds(1).await;
    }
    assert_eq!(waiting.await.unwrap().0, Some(Timeout::Frame));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_stalls() {
    let (socket, peer) = pipe();
    peer.take(3);
    let mut channel = timed(b"\n", only(|t| t.write_stall = secs(60)), socket);
    channel.push("hello").unwrap();
    assert_eq!(until_timeout(channel).await, (Some(Timeout::WriteStall), 60));
    assert_eq!(peer.output(), "hel");
}

/// A handler whose output the peer does not take, but not for long, since then there is no output for a while.
struct SlowToAnswer;

impl Handler for SlowToAnswer {
    type Error = &'static str;

    fn collect_incoming_data(
        &mut self,
        _: Chunk<'_>,
        _: &mut Control<'_>,
    ) -> Result<(), &'static str> {
        Ok(())
    }

    async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), &'static str> {
        control.try_push(vec![b'x'; 100]).unwrap();
        seconds(10).await;
        control.discard_buffers();
        let slow = producer::once(async {
            seconds(90).await;
            Ok("late")
        });
        control.try_push_with_producer(slow).unwrap();
        seconds(100).await;
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn there_is_no_write_stall_while_nothing_is_ready() {
    let (socket, peer) = pipe();
    let mut channel = timed(b"\n", only(|t| t.write_stall = secs(60)), socket);
    peer.take(10);
    peer.send("a\n");
    peer.close();
    let writing = async {
        seconds(90).await;
        peer.take(usize::MAX);
    };
    let ((_, reason), ()) = tokio::join!(channel.run(SlowToAnswer), writing);
    assert!(matches!(reason, CloseReason::PeerClosed), "{reason:?}");
    assert_eq!(peer.output(), "xxxxxxxxxxlate");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_a_byte_now_and_then_does_not_stall() {
    let (socket, peer) = pipe();
    peer.take(0);
    let mut channel = timed(b"\n", only(|t| t.write_stall = secs(60)), socket);
    channel.push("x".repeat(20)).unwrap();
    let waiting = tokio::spawn(until_timeout(channel));
    for _ in 0..20 {
        seconds(59).await;
        peer.take_more(1);
    }
    settle().await;
    peer.close();
    assert_eq!(waiting.await.unwrap().0, None);
}

#[tokio::test(start_paused = true)]
async fn a_producer_that_has_nothing_yet_is_no_stall() {
    let (socket, _peer) = pipe();
    let mut channel = timed(b"\n", only(|t| t.write_stall = secs(60)), socket);
    channel.push("head").unwrap();
    channel.push_with_producer(producer::once(pending::<std::io::Result<&str>>())).unwrap();
    channel.push("behind").unwrap();
    let waiting = tokio::spawn(until_timeout(channel));
    seconds(10_000).await;
    assert!(!waiting.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_stall_while_a_callback_waits_ends_the_channel() {
    let (socket, peer) = pipe();
    peer.take(0);
    peer.send("\n");
    let mut channel = timed(b"\n", only(|t| t.write_stall = secs(60)), socket);
    let start = Instant::now();
    let handler = Scripted::new(|_, control| {
        control.try_push("answer").unwrap();
        wait(pending())
    });
    let (_, reason) = channel.run(handler).await;
    assert!(matches!(reason, CloseReason::Timeout(Timeout::WriteStall)));
    assert_eq!(start.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_stall_in_a_flush_that_does_not_end_ends_the_channel() {
    let (socket, peer) = pipe();
    peer.stick_flush(true);
    let mut channel = timed(b"\n", only(|t| t.write_stall = secs(60)), socket);
    channel.push("answer").unwrap();
    assert_eq!(until_timeout(channel).await, (Some(Timeout::WriteStall), 60));
}

#[tokio::test(start_paused = true)]
async fn discarded_output_is_no_stall() {
    let (socket, peer) = pipe();
    peer.take(0);
    let mut channel = timed(b"\n", only(|t| t.write_stall = secs(60)), socket);
    channel.push("never taken").unwrap();
    let waited = tokio::time::timeout(Duration::from_secs(30), channel.next()).await;
    assert!(waited.is_err());
    channel.discard_buffers();
    let waiting = tokio::spawn(until_timeout(channel));
    seconds(10_000).await;
    assert!(!waiting.is_finished());
}

#[tokio::test(start_paused = true)]
async fn output_pushed_after_a_discard_has_all_its_time() {
    let (socket, peer) = pipe();
    peer.take(0);
    let mut channel = timed(b"\n", only(|t| t.write_stall = secs(60)), socket);
    channel.push("never taken").unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(50), channel.next()).await.is_err());
    channel.discard_buffers();
    channel.push("nor this").unwrap();
    assert_eq!(until_timeout(channel).await, (Some(Timeout::WriteStall), 60));
}

#[tokio::test(start_paused = true)]
async fn a_stall_in_a_close_is_an_error() {
    let (socket, peer) = pipe();
    peer.take(2);
    let mut channel = timed(b"\n", only(|t| t.write_stall = secs(60)), socket);
    channel.push("answer").unwrap();
    let error = channel.close().await.unwrap_err();
    assert!(matches!(error, ChannelError::Timeout(Timeout::WriteStall)), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_that_does_not_end_is_a_stall() {
    let (socket, peer) = pipe();
    peer.stick_shutdown(true);
    let mut channel = timed(b"\n", only(|t| t.write_stall = secs(60)), socket);
    let error = channel.close().await.unwrap_err();
    assert!(matches!(error, ChannelError::Timeout(Timeout::WriteStall)), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn the_linger_is_over_when_its_time_is() {
    let (socket, peer) = pipe();
    let mut channel = timed(b"\n", only(|t| t.linger = secs(2)), socket);
    let start = Instant::now();
    let closing = tokio::spawn(async move { channel.close().await });
    // Input that the peer still sends does not delay the deadline.
    for _ in 0..19 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        peer.send("more");
    }
    closing.await.unwrap().unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn the_linger_is_over_when_the_peer_closes() {
    let (socket, peer) = pipe();
    let mut channel = timed(b"\n", only(|t| t.linger = secs(2)), socket);
    let start = Instant::now();
    let closing = tokio::spawn(async move { channel.close().await });
    seconds(1).await;
    peer.close();
    closing.await.unwrap().unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_shorter_deadline_takes_effect_at_once() {
    let (socket, peer) = pipe();
    let mut channel = timed(b"\n", only(|t| t.idle = secs(1000)), socket);
    peer.send("\n");
    let start = Instant::now();
    let mut calls = 0;
    let handler = Scripted::new(move |_, control| {
        let mut timeouts = control.timeouts();
        assert_eq!(timeouts.idle, secs(1000));
        timeouts.idle = secs(1);
        control.set_timeouts(timeouts);
        calls += 1;
        assert_eq!(calls, 1);
        Then::Go
    });
    let (_, reason) = channel.run(handler).await;
    assert!(matches!(reason, CloseReason::Timeout(Timeout::Idle)));
    assert_eq!(start.elapsed().as_secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_longer_deadline_takes_effect_at_once() {
    let (socket, _peer) = pipe();
    let mut channel = timed(b"\n", only(|t| t.idle = secs(10)), socket);
    assert!(tokio::time::timeout(Duration::from_secs(9), channel.next()).await.is_err());
    channel.set_timeouts(only(|t| t.idle = secs(100)));
    assert_eq!(until_timeout(channel).await, (Some(Timeout::Idle), 91));
}

#[tokio::test(start_paused = true)]
async fn after_a_frame_deadline_an_answer_can_be_sent() {
    let (socket, peer) = pipe();
    peer.send("begun");
    let mut channel = timed(b"\n", only(|t| t.frame = secs(10)), socket);
    assert_eq!(channel.next().await.unwrap().unwrap(), Event::Chunk("begun".into()));
    let error = channel.next().await.unwrap().unwrap_err();
    assert!(matches!(error, ChannelError::Timeout(Timeout::Frame)));
    assert!(channel.next().await.is_none());
    channel.push("408\n").unwrap();
    channel.close().await.unwrap();
    assert_eq!(peer.output(), "408\n");
    assert!(peer.is_shut_down());
}

#[tokio::test(start_paused = true)]
async fn after_an_idle_deadline_an_answer_can_be_sent() {
    let (socket, peer) = pipe();
    let mut channel = timed(b"\n", only(|t| t.idle = secs(10)), socket);
    let error = channel.next().await.unwrap().unwrap_err();
    assert!(matches!(error, ChannelError::Timeout(Timeout::Idle)));
    assert!(channel.next().await.is_none());
    channel.push("421\n").unwrap();
    channel.close().await.unwrap();
    assert_eq!(peer.output(), "421\n");
    assert!(peer.is_shut_down());
}

#[tokio::test(start_paused = true)]
async fn after_an_idle_deadline_with_output_queued_the_channel_is_closed() {
    let (socket, peer) = pipe();
    peer.take(0);
    let mut channel = timed(b"\n", only(|t| t.idle = secs(10)), socket);
    channel.push("not taken").unwrap();
    let error = channel.next().await.unwrap().unwrap_err();
    assert!(matches!(error, ChannelError::Timeout(Timeout::Idle)));
    assert!(channel.next().await.is_none());
    assert_eq!(channel.push("late").unwrap_err().into_inner(), "late");
    assert_eq!(peer.output(), "");
}

/// A handler that tells the peer which deadline has passed, if the flag is set.
struct Telling(bool, Option<Timeout>);

impl Handler for Telling {
    type Error = std::convert::Infallible;

    fn collect_incoming_data(
        &mut self,
        _: Chunk<'_>,
        _: &mut Control<'_>,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    fn timed_out(
        &mut self,
        timeout: Timeout,
        control: &mut Control<'_>,
    ) -> Result<(), Self::Error> {
        assert!(self.1.replace(timeout).is_none());
        if self.0 {
            control.try_push(format!("{timeout}\n")).unwrap();
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_has_a_last_word_after_a_deadline() {
    for (input, timeout) in [("begun", Timeout::Frame), ("", Timeout::Idle)] {
        for telling in [false, true] {
            let (socket, peer) = pipe();
            peer.send(input);
            let timeouts = only(|t| (t.frame, t.idle) = (secs(10), secs(20)));
            let mut channel = timed(b"\n", timeouts, socket);
            let (handler, reason) = channel.run(Telling(telling, None)).await;
            assert!(matches!(
                reason,
                CloseReason::Timeout(passed) if passed == timeout
            ));
            assert_eq!(handler.1, Some(timeout));
            assert_eq!(peer.output(), if telling { format!("{timeout}\n") } else { "".into() });
            assert!(peer.is_shut_down());
        }
    }
    // A peer that does not read what was queued before is not told of the deadline.
    let (socket, peer) = pipe();
    peer.take(0);
    let mut channel = timed(b"\n", only(|t| t.idle = secs(10)), socket);
    channel.push("not taken").unwrap();
    let (handler, _) = channel.run(Telling(true, None)).await;
    assert_eq!(handler.1, None);
    // A peer that no longer reads cannot keep the connection open.
    let (socket, peer) = pipe();
    peer.take(0);
    let start = Instant::now();
    let mut channel = timed(b"\n", only(|t| t.idle = secs(10)), socket);
    let (handler, _) = channel.run(Telling(true, None)).await;
    assert_eq!(handler.1, Some(Timeout::Idle));
    assert_eq!(start.elapsed().as_secs(), 10 + 5);
}

#[tokio::test(start_paused = true)]
async fn a_frame_deadline_writes_what_a_handler_had_pushed() {
    let (socket, peer) = pipe();
    peer.send("one\ntwo");
    let mut channel = timed(b"\n", only(|t| t.frame = secs(10)), socket);
    let handler = Scripted::new(|seen, control| {
        if *seen == Seen::End {
            control.try_push_with_producer(producer::iter(["a", "b"]).take(2)).unwrap();
        }
        Then::Go
    });
    let (handler, reason) = channel.run(handler).await;
    assert!(matches!(reason, CloseReason::Timeout(Timeout::Frame)));
    let closed = Seen::Closed("frame took too long to arrive".into());
    assert_eq!(handler.log.seen(), [data("one"), Seen::End, data("two"), closed]);
    assert_eq!(peer.output(), "ab");
    assert!(peer.is_shut_down());
}

#[tokio::test(start_paused = true)]
async fn a_deadline_of_no_time_passes_at_the_first_wait() {
    let (socket, _peer) = pipe();
    let channel = timed(b"\n", only(|t| t.idle = secs(0)), socket);
    assert_eq!(until_timeout(channel).await, (Some(Timeout::Idle), 0));

    let (socket, peer) = pipe();
    peer.send("x");
    let channel = timed(b"\n", only(|t| t.frame = secs(0)), socket);
    assert_eq!(until_timeout(channel).await, (Some(Timeout::Frame), 0));
}

#[tokio::test(start_paused = true)]
async fn the_longest_times_and_the_largest_numbers_are_no_deadline() {
    let longest = i64::MAX.unsigned_abs();
    let times = [longest - 1, longest, longest + 1, u64::MAX].map(Duration::from_nanos);
    for time in times.into_iter().chain([Duration::MAX]) {
        for limit in [Limit::Fail(u64::MAX), Limit::Skip(u64::MAX)] {
            let timeouts = only(|t| {
                (t.idle, t.frame, t.write_stall) = (Some(time), Some(time), Some(time));
                t.min_rate = 1;
            });
            let (socket, peer) = pipe();
            peer.take(0);
            let mut channel = timed(u64::MAX, timeouts, socket);
            channel.set_limit(limit);
            channel.push("never taken").unwrap();
            let waiting = tokio::spawn(until_timeout(channel));
            for _ in 0..3 {
                peer.send("x");
                seconds(1_000_000).await;
            }
            assert!(!waiting.is_finished());
            waiting.abort();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_was_refused_before_there_was_a_deadline_has_all_its_time() {
    let (socket, peer) = pipe();
    peer.take(0);
    let mut channel = timed(b"\n", Timeouts::NONE, socket);
    channel.push("never taken").unwrap();
    tokio::time::timeout(Duration::from_secs(50), channel.next()).await.unwrap_err();
    channel.set_timeouts(only(|t| t.write_stall = secs(10)));
    assert_eq!(until_timeout(channel).await, (Some(Timeout::WriteStall), 10));
}

#[tokio::test(start_paused = true)]
async fn deadlines_stand_still_behind_a_run_that_was_dropped() {
    let (socket, _peer) = pipe();
    let mut channel = timed(b"\n", only(|t| t.idle = secs(10)), socket);
    for _ in 0..3 {
        let handler = Scripted::new(|_, _| Then::Go);
        let cut = tokio::time::timeout(Duration::from_secs(3), channel.run(handler)).await;
        assert!(cut.is_err());
        seconds(100).await;
    }
    // Nine seconds of the deadline have been used up.
    let start = Instant::now();
    let (_, reason) = channel.run(Scripted::new(|_, _| Then::Go)).await;
    assert!(matches!(reason, CloseReason::Timeout(Timeout::Idle)), "{reason:?}");
    assert_eq!(start.elapsed().as_secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_pulled_frame_is_not_charged_to_the_first_of_a_run() {
    let (socket, peer) = pipe();
    let mut channel = timed(b"\n", only(|t| t.frame = secs(60)), socket);
    channel.set_whole_frames(true);
    peer.send("o");
    let sending = peer.clone();
    tokio::spawn(async move {
        seconds(50).await;
        sending.send("ne\nt");
    });
    let (step, _) = channel.step().await.unwrap().unwrap();
    assert_eq!(&step.payload[..], b"one");
    let start = Instant::now();
    let (_, reason) = channel.run(Scripted::new(|_, _| Then::Go)).await;
    assert!(matches!(reason, CloseReason::Timeout(Timeout::Frame)), "{reason:?}");
    assert_eq!(start.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_a_callback_ended_gives_the_next_frame_no_more_time_twice() {
    let (socket, peer) = pipe();
    let mut channel = timed(b"\n", only(|t| t.frame = secs(60)), socket);
    peer.send("one\ntwo\nthr");
    let handler = Scripted::new(|seen, control| {
        match seen {
            Seen::Data(text) if text == "one" => control.begin_message(),
            Seen::Data(text) if text == "two" => control.end_message(),
            _ => {}
        }
        Then::Go
    });
    let cut = tokio::time::timeout(Duration::from_secs(50), channel.run(handler)).await;
    assert!(cut.is_err());
    let (timeout, after) = until_timeout(channel).await;
    assert_eq!((timeout, after), (Some(Timeout::Frame), 10));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_nobody_listens_to_is_not_quiet() {
    let timeouts = only(|t| (t.quiet, t.write_stall) = (secs(10), secs(60)));
    for way in 0..4 {
        let (socket, peer) = pipe();
        peer.take(0);
        let mut channel =
            Channel::builder(b"\n").high_water_mark(10).timeouts(timeouts).build(socket);
        channel.push([b'x'; 100]).unwrap();
        let start = Instant::now();
        let error = match way {
            0 => channel.flush().await.unwrap_err(),
            1 => channel.ready().await.unwrap_err(),
            2 => channel.close().await.unwrap_err(),
            _ => channel.next().await.unwrap().unwrap_err(),
        };
        let stalled = matches!(error, ChannelError::Timeout(Timeout::WriteStall));
        assert!(stalled && start.elapsed().as_secs() == 60, "{way}: {error:?}");
    }
}

#[test]
fn clocks_that_stopped_at_different_times_do_not_mix() {
    for ahead in [0, 1_000_000, 5] {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            tokio::time::advance(Duration::from_secs(ahead)).await;
            let (socket, peer) = pipe();
            peer.send("x");
            let channel = timed(b"\n", only(|t| (t.idle, t.frame) = (secs(10), secs(4))), socket);
            assert_eq!(until_timeout(channel).await, (Some(Timeout::Frame), 4));
        });
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_frame_without_a_deadline_waited_is_not_charged_to_the_next() {
    // One line comes before there is a deadline, and one afterwards.
    let (socket, peer) = pipe();
    let mut channel = timed(b"\n", only(|timeouts| timeouts.write_stall = secs(60)), socket);
    let handler = Scripted::new(|seen, control| {
        if *seen == Seen::End {
            let mut timeouts = control.timeouts();
            timeouts.frame = secs(10);
            control.set_timeouts(timeouts);
        }
        Then::Go
    });
    let start = Instant::now();
    let running = tokio::spawn(async move { channel.run(handler).await.1 });
    peer.send("a");
    seconds(100).await;
    peer.send("b\nhead");
    running.await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 110);
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_ends_without_a_read_is_not_charged_to_the_next() {
    for discard in [false, true] {
        let (socket, peer) = pipe();
        let mut channel = timed(b"\r\n", only(|timeouts| timeouts.frame = secs(10)), socket);
        peer.send("\r");
        tokio::time::timeout(Duration::from_secs(9), channel.next()).await.unwrap_err();
        if discard {
            channel.discard_buffers();
        } else {
            channel.set_terminator(b"\r");
            assert_eq!(channel.next().await.unwrap().unwrap(), Event::Terminator);
        }
        tokio::time::timeout(Duration::from_secs(100), channel.next()).await.unwrap_err();
        peer.send("x");
        let start = Instant::now();
        assert_eq!(channel.next().await.unwrap().unwrap(), Event::Chunk("x".into()));
        channel.next().await.unwrap().unwrap_err();
        assert_eq!(start.elapsed().as_secs(), 10, "{discard}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_longest_linger_is_a_linger() {
    let (socket, peer) = pipe();
    let longest = only(|timeouts| timeouts.linger = Some(Duration::MAX));
    let mut channel = timed(b"\n", longest, socket);
    let closing = tokio::spawn(async move { channel.close().await });
    settle().await;
    assert!(peer.is_shut_down() && !closing.is_finished());
    peer.close();
    closing.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_deadline_beyond_tokios_clock_is_waited_for() {
    let (socket, _peer) = pipe();
    let century = only(|timeouts| timeouts.idle = secs(u32::MAX.into()));
    let (timeout, after) = until_timeout(timed(b"\n", century, socket)).await;
    assert_eq!((timeout, after), (Some(Timeout::Idle), u32::MAX.into()));
}

#[tokio::test(start_paused = true)]
async fn time_between_two_calls_is_not_the_peers() {
    let (socket, peer) = pipe();
    peer.send("a\n");
    let mut channel = timed(b"\n", only(|timeouts| timeouts.idle = secs(10)), socket);
    for _ in 0..2 {
        channel.next().await.unwrap().unwrap();
    }
    for _ in 0..3 {
        // The time in which the peer was waited for counts, and other time does not.
        drop_after(3, channel.next()).await;
        seconds(1000).await;
    }
    let start = Instant::now();
    channel.next().await.unwrap().unwrap_err();
    assert_eq!(start.elapsed().as_secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_frame_deadline_does_not_count_time_between_two_calls() {
    let (socket, peer) = pipe();
    let mut channel = timed(b"\n", only(|t| t.frame = secs(60)), socket);
    peer.send("he");
    channel.next().await.unwrap().unwrap();
    tokio::time::timeout(Duration::from_secs(1), channel.next()).await.unwrap_err();
    peer.send("ll");
    seconds(61).await;
    channel.next().await.unwrap().unwrap();
    let start = Instant::now();
    channel.next().await.unwrap().unwrap_err();
    assert_eq!(start.elapsed().as_secs(), 59);
}

#[tokio::test(start_paused = true)]
async fn a_line_at_the_minimum_rate_lives() {
    let (socket, peer) = pipe();
    let channel = timed(b"\n", Timeouts::default(), socket);
    let waiting = tokio::spawn(until_timeout(channel));
    for _ in 0..600 {
        seconds(1).await;
        peer.send([b'x'; 1024]);
    }
    assert!(!waiting.is_finished());
    // Then the peer has the time that it has earned.
    let (timeout, after) = waiting.await.unwrap();
    assert_eq!(timeout, Some(Timeout::Frame));
    assert!((655..=665).contains(&after), "{after}");
}

#[tokio::test(start_paused = true)]
async fn deadlines_set_anew_count_from_then_on() {
    for write_stall in [None, secs(60)] {
        let (socket, _peer) = pipe();
        let mut channel = timed(b"\n", only(|t| t.write_stall = write_stall), socket);
        tokio::time::timeout(Duration::from_secs(100), channel.next()).await.unwrap_err();
        channel.set_timeouts(only(|t| (t.write_stall, t.idle) = (write_stall, secs(10))));
        assert_eq!(until_timeout(channel).await, (Some(Timeout::Idle), 10));
    }
}

#[tokio::test(start_paused = true)]
async fn a_producer_that_has_nothing_yet_stops_the_idle_deadline() {
    let (socket, peer) = pipe();
    let mut channel = timed(b"\n", only(|t| t.idle = secs(60)), socket);
    let slow = producer::once(async {
        tokio::time::sleep(Duration::from_secs(1000)).await;
        Ok("late")
    });
    channel.push_with_producer(slow).unwrap();
    // Then the peer has its full time.
    assert_eq!(until_timeout(channel).await, (Some(Timeout::Idle), 1060));
    assert_eq!(peer.output(), "late");
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_and_dropped_is_no_stall_when_nothing_is_ready() {
    let (socket, peer) = pipe();
    peer.take(16);
    peer.send("\n");
    let mut channel = timed(b"\n", only(|t| t.write_stall = secs(60)), socket);
    let handler = Scripted::new(|_, control| {
        control.push("x".repeat(100));
        crate::support::wait_then(tokio::time::sleep(Duration::from_secs(1)), |control| {
            control.discard_buffers();
            let late = producer::once(async {
                tokio::time::sleep(Duration::from_secs(100)).await;
                Ok("late")
            });
            control.push_with_producer(late);
            control.close_when_done();
        })
    });
    let running = tokio::spawn(async move { channel.run(handler).await.1 });
    seconds(90).await;
    peer.take(usize::MAX);
    assert!(matches!(running.await.unwrap(), CloseReason::Done));
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_when_its_time_is_over_however_busy_it_is() {
    let (socket, peer) = pipe();
    let channel = timed(b"\n", Timeouts::default().session(Duration::from_secs(600)), socket);
    let waiting = tokio::spawn(until_timeout(channel));
    while !waiting.is_finished() {
        peer.send("NOOP\n");
        seconds(59).await;
    }
    assert_eq!(waiting.await.unwrap(), (Some(Timeout::Session), 600));
}

/// A stream that always has another line, up to so many.
struct Flood(u32);

impl AsyncRead for Flood {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(left) = self.0.checked_sub(1) {
            self.0 = left;
            buffer.put_slice(b"NOOP\n");
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Flood {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A handler that works for a millisecond on each line.
#[derive(Default)]
struct Busy(u32);

impl Handler for Busy {
    type Error = Infallible;

    fn collect_incoming_data(
        &mut self,
        _: Chunk<'_>,
        _: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        Ok(())
    }

    async fn found_terminator(&mut self, _: &mut Control<'_>) -> Result<(), Infallible> {
        self.0 += 1;
        tokio::time::advance(Duration::from_millis(1)).await;
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_pauses_does_not_outlive_its_session() {
    let build = |session: Option<u64>| {
        let timeouts = Timeouts::NONE.session(session.map(Duration::from_secs));
        Channel::builder(b"\n").timeouts(timeouts).build(Flood(6_000))
    };
    // Each poll of a channel does a bounded amount of work, and then looks at the clock.
    let (handler, reason) = build(Some(3)).run(Busy::default()).await;
    assert!(matches!(reason, CloseReason::Timeout(Timeout::Session)), "{reason:?}");
    assert!((3_000..4_500).contains(&handler.0), "{}", handler.0);
    let (handler, reason) = build(None).run(Busy::default()).await;
    assert!(matches!(reason, CloseReason::PeerClosed), "{reason:?}");
    assert_eq!(handler.0, 6_000);

    let mut channel = build(Some(3));
    let mut lines = 0;
    let failed = loop {
        match channel.next().await.expect("it does not end like that") {
            Ok(Event::Terminator) => {
                lines += 1;
                tokio::time::advance(Duration::from_millis(1)).await;
            }
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(failed, ChannelError::Timeout(Timeout::Session)), "{failed:?}");
    assert!((3_000..4_500).contains(&lines), "{lines}");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_has_a_last_word() {
    let (socket, peer) = pipe();
    let mut channel = timed(b"\n", only(|t| t.session = secs(10)), socket);
    let (handler, reason) = channel.run(Telling(true, None)).await;
    assert!(matches!(reason, CloseReason::Timeout(Timeout::Session)), "{reason:?}");
    assert_eq!(handler.1, Some(Timeout::Session));
    assert_eq!(peer.output(), "connection open for too long\n");
}

/// A handler that sends a ping to a quiet peer, and counts how often.
struct Pinging(u32);

impl Handler for Pinging {
    type Error = std::convert::Infallible;

    fn collect_incoming_data(
        &mut self,
        _: Chunk<'_>,
        _: &mut Control<'_>,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    fn quiet(&mut self, control: &mut Control<'_>) -> Result<(), Self::Error> {
        self.0 += 1;
        control.push("PING\n");
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_quiet_peer_is_asked_and_one_that_does_not_answer_is_idle() {
    let (socket, peer) = pipe();
    let timeouts = only(|t| (t.quiet, t.idle) = (secs(60), secs(300)));
    let mut channel = timed(b"\n", timeouts, socket);
    let start = Instant::now();
    let running = tokio::spawn(async move { channel.run(Pinging(0)).await });
    // The peer may answer pings for any length of time.
    for n in 1..=10 {
        seconds(61).await;
        assert_eq!(peer.output().matches("PING").count(), n);
        peer.send("PONG\n");
        settle().await;
    }
    let (handler, reason) = running.await.unwrap();
    assert!(matches!(reason, CloseReason::Timeout(Timeout::Idle)), "{reason:?}");
    // The pings that were written after that are no sign that the peer is alive.
    assert_eq!((handler.0, start.elapsed().as_secs()), (10 + 4, 610 + 300));
}

#[tokio::test(start_paused = true)]
async fn whoever_pulls_is_told_of_a_quiet_peer_and_goes_on() {
    let (socket, peer) = pipe();
    let mut channel = timed(b"\n", only(|t| t.quiet = secs(60)), socket);
    for _ in 0..3 {
        let start = Instant::now();
        let error = channel.next().await.unwrap().unwrap_err();
        assert!(matches!(error, ChannelError::Timeout(Timeout::Quiet)), "{error:?}");
        assert_eq!(start.elapsed().as_secs(), 60);
        channel.push("PING\n").unwrap();
    }
    peer.send("\n");
    assert_eq!(channel.next().await.unwrap().unwrap(), Event::Terminator);
    assert_eq!(peer.output(), "PING\nPING\nPING\n");
}

#[tokio::test(start_paused = true)]
async fn a_last_word_is_written_though_the_peer_takes_it_only_then() {
    for by_producer in [false, true] {
        let (socket, peer) = pipe();
        peer.take(0);
        let mut channel = timed(b"\n", Timeouts::default().idle(Duration::from_secs(30)), socket);
        struct Late(bool);
        impl Handler for Late {
            type Error = std::convert::Infallible;

            fn collect_incoming_data(
                &mut self,
                _: Chunk<'_>,
                _: &mut Control<'_>,
            ) -> Result<(), Self::Error> {
                Ok(())
            }

            fn timed_out(
                &mut self,
                _: Timeout,
                control: &mut Control<'_>,
            ) -> Result<(), Self::Error> {
                if self.0 {
                    control.push_with_producer(producer::once(async {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        Ok("bye")
                    }));
                } else {
                    // Another task may push at this moment, too.
                    control.handle().push("bye").unwrap();
                }
                Ok(())
            }
        }
        let running = tokio::spawn(async move { channel.run(Late(by_producer)).await.1 });
        seconds(31).await;
        assert!(!running.is_finished());
        peer.take(usize::MAX);
        assert!(matches!(running.await.unwrap(), CloseReason::Timeout(Timeout::Idle)));
        assert_eq!(peer.output(), "bye");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_wakes_the_task_that_waits_now() {
    let (socket, _peer) = pipe();
    let mut channel = timed(b"\n", only(|t| t.idle = secs(300)), socket);
    assert!(channel.next().now_or_never().is_none(), "nothing has come");
    // The alarm is set, but the task that has set it is gone.
    let waiting = tokio::spawn(until_timeout(channel));
    seconds(400).await;
    assert!(waiting.is_finished());
    assert_eq!(waiting.await.unwrap(), (Some(Timeout::Idle), 300));
}

#[tokio::test(start_paused = true)]
async fn an_alarm_that_was_put_off_goes_off_again() {
    let (socket, peer) = pipe();
    let channel = timed(b"\n", only(|t| t.idle = secs(300)), socket);
    let waiting = tokio::spawn(until_timeout(channel));
    for _ in 0..10 {
        seconds(200).await;
        peer.send("a\n");
        settle().await;
    }
    seconds(299).await;
    assert!(!waiting.is_finished());
    seconds(2).await;
    assert_eq!(waiting.await.unwrap(), (Some(Timeout::Idle), 2300));
}

#[tokio::test(start_paused = true)]
async fn a_linger_that_is_dropped_goes_on_with_what_is_left_of_its_time() {
    let (socket, peer) = pipe();
    let mut channel = timed(b"\n", only(|t| t.linger = secs(10)), socket);
    drop_after(4, channel.close()).await;
    assert!(peer.is_shut_down());
    drop_after(4, channel.close()).await;
    let start = Instant::now();
    channel.close().await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_linger_behind_a_last_word_has_all_its_time() {
    let (socket, peer) = pipe();
    let mut channel = timed(b"\n", only(|t| (t.frame, t.linger) = (secs(10), secs(2))), socket);
    peer.send("x");
    assert_eq!(channel.next().await.unwrap().unwrap(), Event::Chunk("x".into()));
    channel.next().await.unwrap().unwrap_err();
    channel.push("too slow").unwrap();
    peer.take(0);
    let closing = tokio::spawn(async move {
        channel.close().await.unwrap();
        Instant::now()
    });
    seconds(4).await;
    let taken = Instant::now();
    peer.take(usize::MAX);
    let closed = closing.await.unwrap();
    assert_eq!((closed - taken).as_secs(), 2);
    assert_eq!(peer.output(), "too slow");
}

#[tokio::test(start_paused = true)]
async fn a_stall_goes_on_from_one_waiting_callback_to_the_next() {
    let (socket, peer) = pipe();
    let mut channel = timed(b"\n", only(|t| t.write_stall = secs(60)), socket);
    peer.take(0);
    peer.send("1\n");
    let start = Instant::now();
    let running = tokio::spawn(async move {
        let handler = Scripted::new(|seen, control| match seen {
            Seen::End => {
                control.push("answer");
                wait(tokio::time::sleep(Duration::from_secs(50)))
            }
            _ => Then::Go,
        });
        channel.run(handler).await.1
    });
    settle().await;
    peer.send("2\n");
    let reason = running.await.unwrap();
    assert!(matches!(reason, CloseReason::Timeout(Timeout::WriteStall)), "{reason:?}");
    assert_eq!(start.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_never_ends_holds_up_a_shutdown_no_longer_beside_a_slow_answer() {
    let (socket, peer) = pipe();
    let mut channel = timed(b"\n", only(|t| t.shutdown = secs(10)), socket);
    let nothing = std::future::pending::<std::io::Result<&str>>();
    channel.push_with_producer(producer::once(nothing)).unwrap();
    let running = tokio::spawn(async move {
        let handler = Scripted::new(|_, _| Then::Go);
        channel.run_until(handler, tokio::time::sleep(Duration::from_secs(1))).await.1
    });
    for _ in 0..9 {
        peer.send("x");
        seconds(1).await;
        assert!(!running.is_finished());
    }
    for _ in 0..3 {
        peer.send("x");
        seconds(1).await;
    }
    // The handler has been told of the deadline, and has closed. Nothing more is read while its answer is written.
    peer.send("\n");
    settle().await;
    assert_eq!(peer.unread(), 2);
    running.abort();
}

#[test]
fn a_channel_needs_no_clock_where_it_has_no_deadline() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (socket, peer) = pipe();
        let timeouts = only(|t| (t.shutdown, t.linger) = (secs(10), secs(2)));
        let mut channel = timed(b"\n", timeouts, socket);
        let mut waiting = std::pin::pin!(channel.next());
        assert!(
            std::future::poll_fn(|cx| std::task::Poll::Ready(waiting.as_mut().poll(cx)))
                .await
                .is_pending()
        );
        peer.send("\n");
        assert_eq!(waiting.await.unwrap().unwrap(), Event::Terminator);
    });
}

#[test]
fn deadlines_are_as_they_were_set() {
    let timeouts = Timeouts::NONE.min_rate(7).session(Duration::from_secs(3));
    assert_eq!((timeouts.min_rate, timeouts.session, timeouts.idle), (7, secs(3), None));
    let (socket, _peer) = pipe();
    let mut channel = timed(b"\n", timeouts, socket);
    assert_eq!(channel.timeouts(), timeouts);
    channel.set_timeouts(timeouts.idle(Duration::from_secs(1)));
    assert_eq!(channel.timeouts().idle, secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_was_pulled_is_not_told_to_a_handler_again() {
    let (socket, _peer) = pipe();
    let mut channel = timed(b"\n", only(|t| t.idle = secs(10)), socket);
    channel.next().await.unwrap().unwrap_err();
    let (handler, reason) = channel.run(Telling(true, None)).await;
    assert_eq!(handler.1, None);
    assert!(matches!(reason, CloseReason::Timeout(Timeout::Idle)), "{reason:?}");
}

#[tokio::test(start_paused = true)]
async fn each_frame_has_all_its_time_however_frames_are_taken() {
    for how in ["step", "message", "handler"] {
        let (socket, peer) = pipe();
        let mut channel = timed(b"\n", only(|t| t.frame = secs(10)), socket);
        let start = Instant::now();
        let running = tokio::spawn(async move {
            let line = |input: &[u8]| Some(input.iter().position(|byte| *byte == b'\n')? + 1);
            match how {
                "step" => while let Ok(Some(_)) = channel.step().await {},
                "message" => while let Ok(Some(_)) = channel.message(line).await {},
                _ => drop(channel.run(Scripted::new(|_, _| Then::Go)).await),
            }
        });
        // A frame that begins in the same read in which another ends has its full time.
        peer.send("x");
        seconds(9).await;
        peer.send("\nx");
        running.await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 9 + 10, "{how}");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_peer_that_takes_nothing_has_the_deadlines() {
    let idle = only(|t| t.idle = secs(10));
    let stall = only(|t| t.write_stall = secs(10));
    for (timeouts, timeout) in [(idle, Timeout::Idle), (stall, Timeout::WriteStall)] {
        for how in ["ready", "flush", "close"] {
            let (socket, peer) = pipe();
            peer.take(0);
            let mut channel =
                Channel::builder(b"\n").timeouts(timeouts).high_water_mark(1).build(socket);
            channel.push("never taken").unwrap();
            let start = Instant::now();
            let waiting = async {
                match how {
                    "ready" => channel.ready().await,
                    "flush" => channel.flush().await,
                    _ => channel.close().await,
                }
            };
            let error = tokio::time::timeout(Duration::from_secs(100), waiting).await.unwrap();
            assert_eq!(start.elapsed().as_secs(), 10, "{how}");
            assert!(
                matches!(error, Err(ChannelError::Timeout(passed)) if passed == timeout),
                "{how}: {error:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_callback_that_blocks_is_not_the_peers_time() {
    let (socket, peer) = pipe();
    let mut channel = timed(b"\n", only(|t| t.frame = secs(10)), socket);
    let start = Instant::now();
    let running = tokio::spawn(async move {
        let handler = Scripted::new(|seen, _| {
            if *seen == data("y") {
                // The clock goes on, and no task is polled.
                let _ = tokio::time::advance(Duration::from_secs(1000)).now_or_never();
            }
            Then::Go
        });
        channel.run(handler).await.1
    });
    peer.send("x");
    seconds(1).await;
    peer.send("y");
    let reason = running.await.unwrap();
    assert!(matches!(reason, CloseReason::Timeout(Timeout::Frame)), "{reason:?}");
    assert_eq!(start.elapsed().as_secs(), 1000 + 10);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_sends_is_not_quiet() {
    let (socket, peer) = pipe();
    let mut channel = timed(b"\n", only(|t| t.quiet = secs(60)), socket);
    let handle = channel.handle();
    let start = Instant::now();
    let running = tokio::spawn(async move {
        let event = channel.next().await.unwrap().unwrap();
        assert_eq!(event, Event::Chunk("x".into()));
        channel.next().await.unwrap().unwrap_err();
    });
    seconds(40).await;
    handle.push("anybody there?").unwrap();
    seconds(10).await;
    peer.send("x");
    running.await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 50 + 60);
}

#[tokio::test(start_paused = true)]
async fn when_a_peer_has_answered_what_is_written_is_a_sign_of_life_again() {
    let (socket, peer) = pipe();
    let mut channel = timed(b"\n", only(|t| (t.quiet, t.idle) = (secs(60), secs(100))), socket);
    channel.next().await.unwrap().unwrap_err();
    peer.send("\n");
    assert_eq!(channel.next().await.unwrap().unwrap(), Event::Terminator);
    channel.set_timeouts(only(|t| t.idle = secs(100)));
    let handle = channel.handle();
    let start = Instant::now();
    let waiting = tokio::spawn(until_timeout(channel));
    for _ in 0..3 {
        seconds(90).await;
        handle.push("still here").unwrap();
    }
    assert_eq!(waiting.await.unwrap().0, Some(Timeout::Idle));
    assert_eq!(start.elapsed().as_secs(), 3 * 90 + 100);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_was_idle_for_too_long_is_not_lingered_for() {
    let (socket, peer) = pipe();
    let mut channel = timed(b"\n", only(|t| (t.idle, t.linger) = (secs(10), secs(2))), socket);
    let start = Instant::now();
    let (_, reason) = channel.run(Scripted::new(|_, _| Then::Go)).await;
    assert!(matches!(reason, CloseReason::Timeout(Timeout::Idle)), "{reason:?}");
    assert_eq!(start.elapsed().as_secs(), 10);
    assert!(peer.is_shut_down());
}

#[tokio::test(start_paused = true)]
async fn what_is_skipped_behind_an_overlong_frame_has_its_own_time() {
    for pulls in [false, true] {
        let (socket, peer) = pipe();
        let mut channel = Channel::builder(b"\n")
            .limit(Limit::Skip(3))
            .timeouts(only(|t| t.frame = secs(10)))
            .build(socket);
        let start = Instant::now();
        let running = tokio::spawn(async move {
            if pulls {
                until_timeout(channel).await;
            } else {
                channel.run(Scripted::new(|_, _| Then::Go)).await;
            }
        });
        peer.send("abc");
        seconds(9).await;
        peer.send("def");
        running.await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 9 + 10, "pulls: {pulls}");
    }
}

/// Polls once, when the task has used up Tokio's budget for its turn.
async fn poll_at_the_end_of_a_turn<F: Future>(mut waiting: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|cx| {
        while pin!(consume_budget()).poll(cx).is_ready() {}
        Poll::Ready(waiting.as_mut().poll(cx))
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn a_deadline_passes_though_the_task_had_used_up_its_turn_when_it_was_set() {
    let (socket, peer) = pipe();
    let mut channel = timed(b"\n", only(|timeouts| timeouts.idle = secs(10)), socket);
    for round in 0..3 {
        let start = Instant::now();
        let mut next = pin!(channel.next());
        assert!(poll_at_the_end_of_a_turn(next.as_mut()).await.is_pending());
        if round < 2 {
            // The alarm that was set goes off, and has to be set again.
            seconds(9).await;
            peer.send("x");
            assert!(matches!(next.await, Some(Ok(Event::Chunk(_)))));
        } else {
            let event = timeout(Duration::from_secs(100), next).await.expect("a deadline passes");
            assert!(matches!(event, Some(Err(ChannelError::Timeout(Timeout::Idle)))), "{event:?}");
            assert_eq!(start.elapsed(), Duration::from_secs(10));
        }
    }
}
