//! Handles: pushes, closes and aborts from other tasks.

use std::collections::HashSet;
use std::future::pending;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use asynchat::{Channel, ChannelError, CloseReason, Handle, HandleError, Timeouts};
use bytes::Bytes;
use futures::FutureExt;
use tokio::io::AsyncWrite;
use tokio::task::JoinHandle;

use crate::support::{
    Log, Peer, Scripted, Seen, Socket, Then, patient, pipe, seconds, secs, settle, wait, wait_then,
};

fn channel() -> (Channel<Socket>, Handle, Peer) {
    let (socket, peer) = pipe();
    let mut channel = Channel::builder(b"\n")
        .timeouts(patient())
        .handle_capacity(10)
        .high_water_mark(100)
        .low_water_mark(10)
        .build(socket);
    let handle = channel.handle();
    (channel, handle, peer)
}

/// Runs a handler that does nothing, except that it waits for ever at a terminator.
fn run(mut channel: Channel<Socket>) -> (Log, JoinHandle<CloseReason<&'static str>>) {
    let handler = Scripted::new(|seen, _| match seen {
        Seen::End => wait(pending()),
        _ => Then::Go,
    });
    (handler.log.clone(), tokio::spawn(async move { channel.run(handler).await.1 }))
}

#[test]
#[allow(clippy::mutable_key_type, reason = "what is hashed is whose handle it is")]
fn handles_are_told_apart_by_their_channels() {
    let ((_one, first, _), (_other, second, _)) = (channel(), channel());
    assert_eq!(first, first.clone());
    assert_ne!(first, second);
    let hasher = RandomState::new();
    assert_eq!(hasher.hash_one(&first), hasher.hash_one(first.clone()));
    assert_ne!(hasher.hash_one(&first), hasher.hash_one(&second));
    let members = HashSet::from([first.clone(), second, first.clone()]);
    assert_eq!(members.len(), 2);
    assert!(members.contains(&first));
}

#[tokio::test(start_paused = true)]
async fn a_push_wakes_the_channel() {
    let (channel, handle, peer) = channel();
    let (_, running) = run(channel);
    settle().await;
    handle.push("hello").unwrap();
    settle().await;
    assert_eq!((peer.output(), peer.wire().flushed), ("hello".into(), 5));
    handle.clone().push(Bytes::from(", again")).unwrap();
    settle().await;
    assert_eq!(peer.output(), "hello, again");
    peer.close();
    assert!(matches!(running.await.unwrap(), CloseReason::PeerClosed));
}

#[tokio::test(start_paused = true)]
async fn a_push_works_while_a_callback_waits() {
    let (channel, handle, peer) = channel();
    let (log, running) = run(channel);
    peer.send("\n");
    settle().await;
    assert_eq!(log.seen(), [Seen::End]);
    for n in 0..3 {
        handle.push(format!("{n} ")).unwrap();
        settle().await;
    }
    assert_eq!(peer.output(), "0 1 2 ");
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_slow_receiver_is_told_to_the_sender_with_the_item() {
    let (mut channel, handle, peer) = channel();
    handle.push("0123456").unwrap();
    handle.push("789").unwrap();
    assert_eq!(handle.push("x"), Err(HandleError::Full("x")));
    assert_eq!(handle.push("x").unwrap_err().into_inner(), "x");
    handle.push("").unwrap();
    assert!(!handle.is_closed());
    // What the channel has taken from the handle makes room for more.
    channel.flush().await.unwrap();
    assert_eq!(peer.output(), "0123456789");
    handle.push("0123456789").unwrap();
    assert_eq!(handle.push("x"), Err(HandleError::Full("x")));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_reads_bounds_what_handles_can_push() {
    let (channel, handle, peer) = channel();
    peer.take(0);
    let (_, running) = run(channel);
    let mut accepted = 0;
    for _ in 0..1000 {
        accepted += usize::from(handle.push("12345").is_ok()) * 5;
        settle().await;
    }
    // The sum of the high-water mark, of what was taken beyond it at once, and of what the handle holds.
    assert!((100..=120).contains(&accepted), "{accepted}");
    peer.take(usize::MAX);
    settle().await;
    assert_eq!(peer.wire().output.len(), accepted);
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn what_waited_for_room_goes_out_while_a_callback_waits() {
    let (mut channel, handle, peer) = channel();
    peer.take(0);
    peer.send("\n");
    channel.push("x".repeat(99)).unwrap();
    let (_, running) = run(channel);
    settle().await;
    handle.push("first ").unwrap();
    settle().await;
    handle.push("second").unwrap();
    settle().await;
    peer.take(usize::MAX);
    settle().await;
    assert_eq!(peer.output()[99..], *"first second");
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_flush_writes_what_waited_for_room() {
    let (mut channel, handle, peer) = channel();
    channel.push("x".repeat(100)).unwrap();
    handle.push("behind").unwrap();
    channel.flush().await.unwrap();
    assert_eq!(peer.output()[100..], *"behind");
}

#[tokio::test(start_paused = true)]
async fn a_close_drains_what_was_accepted_and_refuses_the_rest() {
    let (channel, handle, peer) = channel();
    peer.take(0);
    let (_, running) = run(channel);
    settle().await;
    handle.push("accepted").unwrap();
    handle.close_when_done();
    assert!(handle.is_closed());
    assert_eq!(handle.push("late"), Err(HandleError::Closed("late")));
    settle().await;
    peer.take(usize::MAX);
    assert!(matches!(running.await.unwrap(), CloseReason::Done));
    assert_eq!(peer.output(), "accepted");
    assert_eq!(peer.wire().shutdowns, 1);
}

#[tokio::test(start_paused = true)]
async fn a_close_above_the_high_water_mark_drains_too() {
    for pushed in ["", "accepted"] {
        let (mut channel, handle, peer) = channel();
        peer.take(0);
        channel.push("x".repeat(100)).unwrap();
        let (_, running) = run(channel);
        settle().await;
        handle.push(pushed).unwrap();
        handle.close_when_done();
        settle().await;
        peer.take(usize::MAX);
        let reason = running.await.unwrap();
        assert!(matches!(reason, CloseReason::Done), "{reason:?}");
        assert_eq!(peer.output()[100..], *pushed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_dispatches_nothing_more() {
    let (channel, handle, peer) = channel();
    let (log, running) = run(channel);
    settle().await;
    handle.close_when_done();
    peer.send("x\n");
    assert!(matches!(running.await.unwrap(), CloseReason::Done));
    assert_eq!(log.seen(), [Seen::Closed("closed".into())]);
}

#[tokio::test(start_paused = true)]
async fn a_close_lingers_no_longer_than_it_should() {
    let (mut channel, handle, peer) = channel();
    let mut timeouts = Timeouts::NONE;
    timeouts.linger = secs(2);
    channel.set_timeouts(timeouts);
    let (_, running) = run(channel);
    seconds(100).await;
    handle.close_when_done();
    seconds(1).await;
    assert!(peer.is_shut_down() && !running.is_finished());
    seconds(1).await;
    assert!(running.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_close_while_a_callback_waits_lets_it_finish() {
    let (mut channel, handle, peer) = channel();
    peer.send("\nx\n");
    let handler = Scripted::new(|seen, _| {
        if *seen != Seen::End {
            return Then::Go;
        }
        wait_then(tokio::time::sleep(secs(5).unwrap()), |control| {
            assert_eq!(control.try_push("late").unwrap_err().into_inner(), "late");
        })
    });
    let log = handler.log.clone();
    let running = tokio::spawn(async move { channel.run(handler).await.1 });
    seconds(1).await;
    handle.push("from afar").unwrap();
    handle.close_when_done();
    assert!(matches!(running.await.unwrap(), CloseReason::Done));
    assert_eq!(log.seen(), [Seen::End, Seen::Closed("closed".into())]);
    assert_eq!(peer.output(), "from afar");
}

#[tokio::test(start_paused = true)]
async fn what_was_accepted_before_the_handler_closed_is_drained() {
    for at_end in [false, true] {
        let (mut channel, handle, peer) = channel();
        peer.send("\nx\n");
        peer.close();
        let pusher = handle.clone();
        let handler = Scripted::new(move |seen, control| {
            if *seen == if at_end { Seen::Eof } else { Seen::End } {
                pusher.push("accepted").unwrap();
                if !at_end {
                    control.close_when_done();
                    assert_eq!(pusher.push("late"), Err(HandleError::Closed("late")));
                }
            }
            Then::Go
        });
        channel.run(handler).await;
        assert_eq!(peer.output(), "accepted", "at the end: {at_end}");
        assert!(handle.is_closed());
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_accepted_before_a_pulled_channel_closed_is_drained() {
    let (mut channel, handle, peer) = channel();
    handle.push("accepted").unwrap();
    channel.close_when_done();
    assert_eq!(handle.push("late"), Err(HandleError::Closed("late")));
    assert!(channel.next().await.is_none());
    assert_eq!(peer.output(), "accepted");
}

#[tokio::test(start_paused = true)]
async fn an_abort_ends_a_channel_that_waits_for_input() {
    let (channel, handle, peer) = channel();
    peer.take(0);
    let (_, running) = run(channel);
    settle().await;
    handle.push("no").unwrap();
    handle.push("never taken").unwrap_err();
    handle.abort();
    assert!(matches!(running.await.unwrap(), CloseReason::Aborted));
    assert_eq!(peer.output(), "");
    assert_eq!(peer.wire().shutdowns, 1);
    assert_eq!(handle.push("late"), Err(HandleError::Closed("late")));
}

#[tokio::test(start_paused = true)]
async fn an_abort_drops_a_callback_that_waits() {
    let (channel, handle, peer) = channel();
    peer.send("\n");
    let (log, running) = run(channel);
    settle().await;
    handle.abort();
    assert!(matches!(running.await.unwrap(), CloseReason::Aborted));
    assert_eq!(log.seen(), [Seen::End, Seen::Closed("aborted".into())]);
    assert_eq!(peer.wire().shutdowns, 1);
}

#[tokio::test(start_paused = true)]
async fn an_abort_ends_a_channel_above_the_high_water_mark() {
    let (mut channel, handle, peer) = channel();
    peer.take(0);
    channel.push("x".repeat(100)).unwrap();
    let (_, running) = run(channel);
    settle().await;
    handle.abort();
    assert!(matches!(running.await.unwrap(), CloseReason::Aborted));
}

#[tokio::test(start_paused = true)]
async fn an_abort_ends_a_channel_that_drains() {
    // The channel is closed by the handler, by the handle, or because the peer has closed.
    for how in 0..3 {
        let (mut channel, handle, peer) = channel();
        peer.take(0);
        peer.send("\n");
        let handler = Scripted::new(move |seen, control| {
            if *seen == Seen::End {
                control.try_push("never taken").unwrap();
                if how == 0 {
                    control.close_when_done();
                }
            }
            Then::Go
        });
        let running = tokio::spawn(async move { channel.run(handler).await.1 });
        settle().await;
        match how {
            0 => {}
            1 => handle.close_when_done(),
            _ => peer.close(),
        }
        settle().await;
        assert!(!running.is_finished());
        handle.abort();
        let reason = running.await.unwrap();
        assert!(matches!(reason, CloseReason::Aborted), "{how}: {reason:?}");
        assert_eq!(peer.output(), "");
    }
}

#[tokio::test(start_paused = true)]
async fn an_abort_of_a_channel_that_lingers_does_not_shut_down_again() {
    let (mut channel, handle, peer) = channel();
    let mut timeouts = patient();
    timeouts.linger = secs(10);
    channel.set_timeouts(timeouts);
    peer.send("\n");
    let handler = Scripted::new(|_, control| {
        control.close_when_done();
        Then::Go
    });
    let running = tokio::spawn(async move { channel.run(handler).await.1 });
    seconds(1).await;
    handle.abort();
    settle().await;
    assert!(running.is_finished());
    assert_eq!(peer.wire().shutdowns, 1);
}

#[tokio::test(start_paused = true)]
async fn a_handle_made_after_the_close_does_not_hinder_an_abort() {
    let (mut channel, handle, peer) = channel();
    peer.take(0);
    channel.push("never taken").unwrap();
    channel.close_when_done();
    assert!(channel.handle().is_closed());
    let closing = tokio::spawn(async move { channel.close().await });
    settle().await;
    handle.abort();
    let closed = closing.await.unwrap();
    assert!(matches!(closed, Err(ChannelError::Closed)), "{closed:?}");
    assert_eq!(peer.output(), "");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_channel_closes_its_handles() {
    let (channel, handle, _peer) = channel();
    handle.push("hello").unwrap();
    drop(channel);
    assert!(handle.is_closed());
    assert_eq!(handle.push("late"), Err(HandleError::Closed("late")));
    handle.close_when_done();
    handle.abort();
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_has_ended_closes_its_handles() {
    for abort in [false, true] {
        let (mut channel, handle, peer) = channel();
        peer.close();
        let handler = Scripted::new(move |_, control| {
            if abort {
                control.abort();
            }
            Then::Go
        });
        let _ = channel.run(handler).await;
        assert_eq!(handle.push("late"), Err(HandleError::Closed("late")));
        assert!(channel.handle().is_closed());
    }
}

#[tokio::test(start_paused = true)]
async fn pushes_of_many_tasks_stay_whole_and_in_order() {
    let (near, far) = tokio::io::duplex(16);
    let mut channel = Channel::builder(b"\n").timeouts(patient()).build(far);
    let mut pushing = tokio::task::JoinSet::new();
    for task in 0..10 {
        let handle = channel.handle();
        pushing.spawn(async move {
            for n in 0..100 {
                let mut item = format!("{task} {n}\n");
                while let Err(HandleError::Full(back)) = handle.push(item) {
                    item = back;
                    tokio::task::yield_now().await;
                }
            }
        });
    }
    let handle = channel.handle();
    let running = tokio::spawn(async move { channel.next().await.is_none() });
    let reading = tokio::spawn(async move {
        let mut near = Channel::builder(b"\n").timeouts(patient()).build(near);
        let mut lines = Vec::new();
        let mut line = Vec::new();
        while let Some(event) = near.next().await {
            match event.unwrap() {
                asynchat::Event::Chunk(bytes) => line.extend_from_slice(&bytes),
                _ => lines.push(String::from_utf8(std::mem::take(&mut line)).unwrap()),
            }
        }
        lines
    });
    while pushing.join_next().await.is_some() {}
    handle.close_when_done();
    let lines = reading.await.unwrap();
    assert!(running.await.unwrap());
    for task in 0..10 {
        let prefix = format!("{task} ");
        let of_task: Vec<_> = lines.iter().filter_map(|line| line.strip_prefix(&prefix)).collect();
        let expected: Vec<_> = (0..100).map(|n| n.to_string()).collect();
        assert_eq!(of_task, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn all_output_has_one_order() {
    let (mut channel, handle, peer) = channel();
    peer.send("\nx\n");
    let pusher = handle.clone();
    let handler = Scripted::new(move |seen, control| {
        match seen {
            Seen::Data(_) => {
                control.push("5");
                pusher.push("6").unwrap();
                control.push_with_producer(asynchat::producer::iter(["7"]));
                pusher.push("8").unwrap();
                write!(control, "{}", 9);
                control.close_when_done();
            }
            Seen::End => {
                pusher.push("1").unwrap();
                control.push("2");
                pusher.push("3").unwrap();
                let last = pusher.clone();
                return wait_then(tokio::task::yield_now(), move |control| {
                    last.push("4").unwrap();
                    control.push("");
                });
            }
            _ => {}
        }
        Then::Go
    });
    let (_, reason) = channel.run(handler).await;
    assert!(matches!(reason, CloseReason::Done), "{reason:?}");
    assert_eq!(peer.output(), "123456789");
}

#[tokio::test(start_paused = true)]
async fn a_pulled_channel_has_one_order_too() {
    let (mut channel, handle, peer) = channel();
    for n in 0..4 {
        handle.push(format!("a{n}")).unwrap();
        channel.push(format!("b{n}")).unwrap();
    }
    channel.flush().await.unwrap();
    assert_eq!(peer.output(), "a0b0a1b1a2b2a3b3");
}

#[tokio::test(start_paused = true)]
async fn a_close_or_an_abort_in_a_callback_is_heeded_before_the_next() {
    for abort in [false, true] {
        let (mut channel, handle, peer) = channel();
        peer.send("\n".repeat(1000));
        let handler = Scripted::new(move |_, _| {
            if abort {
                handle.abort()
            } else {
                handle.close_when_done()
            }
            Then::Go
        });
        let (handler, reason) = channel.run(handler).await;
        assert_eq!(handler.log.len(), 2, "abort: {abort}");
        assert_eq!(matches!(reason, CloseReason::Aborted), abort, "{reason:?}");
    }
}

#[test]
fn an_abort_by_another_thread_is_heeded_before_the_next_callback() {
    let (mut channel, handle, peer) = channel();
    channel.set_timeouts(Timeouts::NONE);
    peer.send("\n".repeat(5000));
    let (turn, turns) = std::sync::mpsc::channel::<()>();
    let (done, dones) = std::sync::mpsc::channel::<()>();
    let aborting = std::thread::spawn(move || {
        turns.recv().unwrap();
        handle.abort();
        done.send(()).unwrap();
    });
    let mut calls = 0;
    let handler = Scripted::new(move |_, _| {
        calls += 1;
        if calls == 100 {
            turn.send(()).unwrap();
            dones.recv().unwrap();
        }
        Then::Go
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (handler, reason) = runtime.block_on(channel.run(handler));
    aborting.join().unwrap();
    assert!(matches!(reason, CloseReason::Aborted), "{reason:?}");
    assert_eq!(handler.log.len(), 101);
}

#[tokio::test(start_paused = true)]
async fn a_sender_waits_for_room() {
    let (mut channel, handle, peer) = channel();
    handle.push("0123456789").unwrap();
    let sender = handle.clone();
    let sending = tokio::spawn(async move {
        sender.send("more").await.unwrap();
        sender
    });
    settle().await;
    assert!(!sending.is_finished());
    channel.flush().await.unwrap();
    let sender = sending.await.unwrap();
    channel.flush().await.unwrap();
    assert_eq!(peer.output(), "0123456789more");
    // After the close nothing is accepted, either, whoever waits for room.
    handle.push("0123456789").unwrap();
    let sending = tokio::spawn(async move { sender.send("late").await });
    settle().await;
    assert!(!sending.is_finished());
    channel.close_when_done();
    assert_eq!(sending.await.unwrap(), Err(HandleError::Closed("late")));
}

#[tokio::test(start_paused = true)]
async fn the_close_can_be_waited_for() {
    for how in 0..3 {
        let (mut channel, handle, peer) = channel();
        peer.take(0);
        channel.push("answer").unwrap();
        let waiting = {
            let handle = handle.clone();
            tokio::spawn(async move { handle.closed().await })
        };
        let (_, running) = run(channel);
        settle().await;
        handle.close_when_done();
        settle().await;
        assert!(!waiting.is_finished(), "it is closing, not closed");
        match how {
            0 => peer.take(usize::MAX),
            1 => handle.abort(),
            _ => running.abort(),
        }
        waiting.await.unwrap();
        handle.closed().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_fan_out_wakes_a_channel_once_for_all_that_has_come() {
    let (mut channel, handle, peer) = channel();
    let polls = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = polls.clone();
    let running = tokio::spawn(async move {
        let mut next = std::pin::pin!(channel.next());
        std::future::poll_fn(|cx| {
            counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            next.as_mut().poll(cx)
        })
        .await
        .is_none()
    });
    settle().await;
    let before = polls.load(std::sync::atomic::Ordering::Relaxed);
    for n in 0..10 {
        handle.push(format!("{n}")).unwrap();
    }
    settle().await;
    assert_eq!(polls.load(std::sync::atomic::Ordering::Relaxed) - before, 1);
    assert_eq!((peer.output(), peer.wire().writes), ("0123456789".into(), 1));
    running.abort();
}

#[tokio::test]
async fn a_large_item_is_shared_and_a_small_one_is_a_copy() {
    let (socket, _peer) = pipe();
    let mut channel = Channel::new(socket, b"\n");
    let handle = channel.handle();
    for (length, shared) in [(1023, false), (1024, true), (1025, true), (1, false)] {
        let item = Bytes::from(vec![b'x'; length]);
        handle.push(item.clone()).unwrap();
        assert_eq!(!item.is_unique(), shared, "{length} bytes");
    }
}

#[tokio::test]
async fn what_will_not_be_sent_is_given_back_though_the_handle_is_kept() {
    for aborts in [false, true] {
        let (socket, _peer) = pipe();
        let mut channel = Channel::new(socket, b"\n");
        let handle = channel.handle();
        let item = Bytes::from(vec![b'x'; 2000]);
        handle.push(item.clone()).unwrap();
        if aborts {
            handle.abort();
        } else {
            drop(channel);
        }
        assert!(item.is_unique(), "aborts: {aborts}");
        assert!(handle.is_closed());
    }
}

#[test]
fn a_refusal_says_why() {
    assert_eq!(HandleError::Full(()).to_string(), "the receiver does not keep up");
    assert_eq!(HandleError::Closed(()).to_string(), "the channel is closed");
}

#[tokio::test(start_paused = true)]
async fn a_handle_hears_of_the_end_though_the_channel_is_kept() {
    for aborts in [false, true] {
        let (mut channel, handle, peer) = channel();
        peer.close();
        if aborts {
            channel.abort();
        } else {
            channel.close().await.unwrap();
        }
        tokio::time::timeout(Duration::from_secs(1), handle.closed()).await.unwrap();
        assert_eq!(handle.push("late"), Err(HandleError::Closed("late")));
        drop(channel);
    }
}

#[tokio::test(start_paused = true)]
async fn an_item_of_any_length_is_accepted_when_nothing_waits() {
    let (channel, handle, peer) = channel();
    handle.push("a very long item ").unwrap();
    assert_eq!(handle.queued_bytes(), 17);
    assert_eq!(handle.push("x"), Err(HandleError::Full("x")));
    handle.push("").unwrap();
    let sending = tokio::spawn(async move {
        let sent = handle.send("and another one").await;
        handle.close_when_done();
        sent
    });
    settle().await;
    assert!(!sending.is_finished());
    let (_, running) = run(channel);
    assert_eq!(sending.await.unwrap(), Ok(()));
    peer.close();
    running.await.unwrap();
    assert_eq!(peer.output(), "a very long item and another one");
}

#[tokio::test(start_paused = true)]
async fn a_room_does_not_take_one_read_of_a_speaker_for_a_listener_that_does_not_keep_up() {
    let (socket, peer) = pipe();
    let mut channel = Channel::new(socket, b"\n");
    let handle = channel.handle();
    // As many short lines as one poll of the speaker dispatches, and before each a line of a room, by a handle.
    for _ in 0..1024 {
        handle.push(format!(":{} PRIVMSG #{} :x\r\n", "n".repeat(300), "c".repeat(200))).unwrap();
    }
    channel.flush().await.unwrap();
    assert_eq!((handle.queued_bytes(), peer.output().len()), (0, 1024 * 516));
}

#[tokio::test(start_paused = true)]
async fn items_that_are_pushed_together_are_accepted_together_and_stay_together() {
    let (mut channel, handle, peer) = channel();
    handle.push_all(["1", "23", "", "4"]).unwrap();
    assert_eq!(handle.queued_bytes(), 4);
    let refused = handle.push_all(vec!["5678", "9ab"]).unwrap_err();
    assert_eq!(refused, HandleError::Full(vec!["5678", "9ab"]));
    assert_eq!(handle.queued_bytes(), 4);
    handle.push_all([] as [&str; 0]).unwrap();
    channel.flush().await.unwrap();

    // The same with large items, while others push, too.
    let body = Bytes::from(vec![b'.'; 5_000]);
    let pushing: Vec<_> = (b'a'..=b'd')
        .map(|name| {
            let (handle, body) = (handle.clone(), body.clone());
            std::thread::spawn(move || {
                for _ in 0..50 {
                    let name = Bytes::copy_from_slice(&[name]);
                    let sent = handle.send_all([name.clone(), body.clone(), name]);
                    tokio_test::block_on(sent).unwrap();
                }
            })
        })
        .collect();
    while pushing.iter().any(|pushing| !pushing.is_finished()) || handle.queued_bytes() > 0 {
        channel.flush().await.unwrap();
    }
    let output = peer.output();
    assert_eq!(output.len(), 4 + 200 * 5_002);
    for message in output.as_bytes()[4..].chunks(5_002) {
        assert!((b'a'..=b'd').contains(&message[0]));
        assert_eq!((message[0], &message[1..5_001]), (message[5_001], &body[..]));
    }
    handle.close_when_done();
    assert_eq!(handle.push_all(["late"]), Err(HandleError::Closed(["late"])));
    assert_eq!(handle.send_all(["late"]).await, Err(HandleError::Closed(["late"])));
}

#[tokio::test]
async fn an_item_of_nothing_wakes_nobody() {
    let (mut channel, handle, _peer) = channel();
    let mut waiting = tokio_test::task::spawn(channel.next());
    assert!(waiting.poll().is_pending());
    handle.push("").unwrap();
    assert!(!waiting.is_woken());
    handle.push("x").unwrap();
    assert!(waiting.is_woken());
}

#[tokio::test(start_paused = true)]
async fn small_and_large_items_keep_their_order() {
    let (socket, peer) = pipe();
    let mut channel = Channel::new(socket, b"\n");
    let handle = channel.handle();
    let mut all = String::new();
    for length in [1, 2000, 3, 4, 1024, 1500, 2] {
        let item = char::from(b'a' + (length % 26) as u8).to_string().repeat(length);
        all.push_str(&item);
        handle.push(item).unwrap();
    }
    channel.flush().await.unwrap();
    assert_eq!(peer.output(), all);
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_waits_for_room_hears_of_a_close_and_of_an_abort() {
    for aborts in [false, true] {
        // Nobody polls this channel.
        let (_channel, handle, _peer) = channel();
        handle.push("0123456789").unwrap();
        let sender = handle.clone();
        let sending = tokio::spawn(async move { sender.send("x").await });
        settle().await;
        assert!(!sending.is_finished());
        if aborts {
            handle.abort();
        } else {
            handle.close_when_done();
        }
        settle().await;
        assert!(sending.is_finished(), "aborts: {aborts}");
        assert_eq!(sending.await.unwrap(), Err(HandleError::Closed("x")));
    }
}

#[tokio::test(start_paused = true)]
async fn an_abort_ends_whoever_waits_for_room_or_for_a_flush() {
    for flushes in [false, true] {
        let (mut channel, handle, peer) = channel();
        peer.take(0);
        channel.push("x".repeat(100)).unwrap();
        let waiting = tokio::spawn(async move {
            if flushes { channel.flush().await } else { channel.ready().await }
        });
        settle().await;
        assert!(!waiting.is_finished());
        handle.abort();
        settle().await;
        assert!(waiting.is_finished(), "flushes: {flushes}");
        assert!(matches!(waiting.await.unwrap(), Err(ChannelError::Closed)));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_handle_has_pushed_goes_before_what_the_owner_pushes_in_any_way() {
    let (socket, peer) = pipe();
    let mut channel = Channel::new(socket, b"\n");
    let handle = channel.handle();
    handle.push("1").unwrap();
    channel.push("2").unwrap();
    handle.push("3").unwrap();
    write!(channel, "{}", 4).unwrap();
    handle.push("5").unwrap();
    channel.push_with(|output| output.extend_from_slice(b"6")).unwrap();
    handle.push("7").unwrap();
    channel.push_with_producer(Bytes::from("8")).unwrap();
    channel.flush().await.unwrap();
    assert_eq!(peer.output(), "12345678");
}

#[tokio::test(start_paused = true)]
async fn a_handle_made_after_the_end_knows_of_it() {
    let (socket, _peer) = pipe();
    let mut channel = Channel::new(socket, b"\n");
    channel.abort();
    let handle = channel.handle();
    tokio::time::timeout(Duration::from_secs(1), handle.closed()).await.unwrap();
    assert_eq!(handle.push("late"), Err(HandleError::Closed("late")));
}

/// Runs something that must end. It would not if a lock was taken twice.
fn in_time(work: impl FnOnce() + Send + 'static) {
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        work();
        done.send(()).unwrap();
    });
    let done = is_done.recv_timeout(Duration::from_secs(30));
    assert!(done.is_ok(), "it waits for ever");
}

/// Bytes that use a handle when they are dropped.
struct Curious(Vec<u8>, Handle);

impl AsRef<[u8]> for Curious {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Curious {
    fn drop(&mut self) {
        let _ = self.1.queued_bytes();
    }
}

#[test]
fn an_item_may_use_its_handle_when_it_is_dropped() {
    in_time(|| {
        for end in ["abort", "drop"] {
            let mut channel = Channel::new(pipe().0, b"\n");
            let handle = channel.handle();
            let item = |length| Bytes::from_owner(Curious(vec![b'x'; length], handle.clone()));
            handle.push(item(5)).unwrap();
            handle.push(item(5000)).unwrap();
            handle.push_all([item(7), item(5000), item(9)]).unwrap();
            assert_eq!(handle.queued_bytes(), 10_021);
            if end == "abort" {
                handle.abort();
                assert_eq!(handle.queued_bytes(), 0);
            }
            drop(channel);
            assert_eq!(handle.queued_bytes(), 0);
        }
    });
}

/// A waker that uses a handle when it is called, and when it is dropped.
struct CuriousTask(Handle);

impl Wake for CuriousTask {
    fn wake(self: Arc<Self>) {
        let _ = self.0.queued_bytes();
    }
}

impl Drop for CuriousTask {
    fn drop(&mut self) {
        let _ = self.0.queued_bytes();
    }
}

#[test]
fn a_task_may_use_a_handle_when_it_is_woken_or_dropped() {
    in_time(|| {
        for end in [Handle::close_when_done, Handle::abort] {
            let builder = Channel::builder(b"\n").timeouts(Timeouts::NONE).handle_capacity(10);
            let mut channel = builder.build(pipe().0);
            let handle = channel.handle();
            let task = || Waker::from(Arc::new(CuriousTask(handle.clone())));
            for _ in 0..2 {
                // The stream is not polled, and so only the handles have the waker.
                assert!(pin!(channel.flush()).poll(&mut Context::from_waker(&task())).is_ready());
            }
            handle.push("0123456789").unwrap();
            let mut sending = pin!(handle.send("more"));
            assert!(sending.as_mut().poll(&mut Context::from_waker(&task())).is_pending());
            end(&handle);
            drop(channel);
        }
    });
}

/// A stream that takes everything. Whenever it is flushed, something more is pushed.
struct Eager {
    handle: Arc<OnceLock<Handle>>,
    flushes: usize,
}

impl AsyncWrite for Eager {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flushes += 1;
        assert!(self.flushes < 100, "it goes round for ever");
        self.handle.get().unwrap().push("more").unwrap();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_pushes_all_the_time_keeps_no_poll_going() {
    for full in [false, true] {
        for waits in [false, true] {
            let shared = Arc::new(OnceLock::new());
            let writer = Eager { handle: shared.clone(), flushes: 0 };
            let io = tokio::io::join(&b"\n"[..], writer);
            let builder = Channel::builder(b"\n").timeouts(Timeouts::NONE).high_water_mark(10);
            let mut channel = builder.build(io);
            shared.set(channel.handle()).unwrap();
            if waits {
                let handler = Scripted::new(move |_, control| {
                    control.push(if full { "more than the mark" } else { "little" });
                    wait(pending())
                });
                assert!(channel.run(handler).now_or_never().is_none());
            } else {
                channel.push(if full { "more than the mark" } else { "little" }).unwrap();
                channel.flush().now_or_never().expect("all that was there is written").unwrap();
            }
        }
    }
}
