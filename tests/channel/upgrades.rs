//! Handing the stream over to another protocol, or refusing to.

use std::error::Error;

use asynchat::{Channel, ChannelError, CloseReason, Event};
use tokio::io::AsyncWriteExt;

use crate::support::{Peer, Scripted, Seen, Socket, Then, data, patient, pipe, seen, settle, wait};

fn channel(peer_sends: &str) -> (Channel<Socket>, Peer) {
    let (socket, peer) = pipe();
    peer.send(peer_sends);
    (Channel::builder(b"\r\n").timeouts(patient()).build(socket), peer)
}

async fn pull(channel: &mut Channel<Socket>) -> Seen {
    seen(channel.next().await.unwrap().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_drained_channel_gives_its_stream_after_a_flush() {
    let (mut channel, peer) = channel("STARTTLS\r\n");
    assert_eq!(pull(&mut channel).await, data("STARTTLS"));
    assert_eq!(pull(&mut channel).await, Seen::End);
    let handle = channel.handle();
    channel.push("220\r\n").unwrap();
    let mut socket = channel.upgrade().await.unwrap();
    assert_eq!((peer.output(), peer.wire().flushed), ("220\r\n".into(), 5));
    assert!(!peer.is_shut_down());
    socket.write_all(b"(handshake)").await.unwrap();
    assert!(handle.is_closed());
}

#[tokio::test(start_paused = true)]
async fn buffered_withheld_or_owed_input_refuses_with_everything_intact() {
    // Commands that were injected behind STARTTLS, half a terminator, and a terminator that has not been pulled.
    for (input, pulls) in
        [("STARTTLS\r\nINJECTED\r\n", 2), ("STARTTLS\r\n\r", 2), ("STARTTLS\r\n", 1)]
    {
        let (mut channel, peer) = channel(input);
        let mut pulled = Vec::new();
        for _ in 0..pulls {
            pulled.push(pull(&mut channel).await);
        }
        channel.push("220\r\n").unwrap();
        let error = channel.upgrade().await.unwrap_err();
        assert!(error.source().is_none());
        assert_eq!(peer.output(), "");
        let mut channel = error.into_inner();
        assert_eq!(channel.queued_bytes(), 5);
        // The channel goes on.
        peer.send("\n");
        peer.close();
        while let Some(event) = channel.next().await {
            match (pulled.last_mut(), seen(event.unwrap())) {
                (Some(Seen::Data(before)), Seen::Data(more)) => before.push_str(&more),
                (_, event) => pulled.push(event),
            }
        }
        assert_eq!(pulled[..2], [data("STARTTLS"), Seen::End]);
        assert!(pulled.len() > 2);
        channel.close().await.unwrap();
        assert_eq!(peer.output(), "220\r\n");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_refuses_with_the_cause() {
    let (mut channel, peer) = channel("");
    peer.reset();
    channel.push("220\r\n").unwrap();
    let error = channel.upgrade().await.unwrap_err();
    assert_eq!(error.to_string(), "what was queued could not be written");
    let cause = error.source().unwrap().downcast_ref::<ChannelError>().unwrap();
    assert!(matches!(cause, ChannelError::Io(_)));
}

#[tokio::test(start_paused = true)]
async fn a_handler_upgrades_and_the_stream_is_given() {
    // The upgrade is asked for at the terminator, or in the data before it.
    for in_collect in [false, true] {
        let (mut channel, peer) = channel("STARTTLS\r\n");
        peer.take(2);
        let handle = channel.handle();
        let running = tokio::spawn(async move {
            let handler = Scripted::new(move |seen, control| {
                if matches!(seen, Seen::Data(_)) == in_collect {
                    control.try_push("220\r\n").unwrap();
                    control.upgrade().unwrap();
                }
                Then::Go
            });
            let (handler, reason) = channel.run(handler).await;
            assert!(matches!(reason, CloseReason::Upgrade), "{reason:?}");
            (channel, handler.log.seen())
        });
        settle().await;
        assert!(!running.is_finished());
        handle.push("(pushed from afar)").unwrap();
        peer.take(usize::MAX);
        let (channel, log) = running.await.unwrap();
        assert_eq!(log, [data("STARTTLS"), Seen::End, Seen::Closed("upgraded".into())]);
        assert_eq!(peer.output(), "220\r\n(pushed from afar)");
        let socket = channel.upgrade().await.unwrap();
        assert!(!peer.is_shut_down());
        drop(socket);
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_is_refused_while_input_is_behind_and_goes_on() {
    for (behind, bytes) in [("INJECTED\r\n", 10), ("\r", 1)] {
        let (mut channel, peer) = channel(&format!("STARTTLS\r\n{behind}"));
        peer.close();
        let mut asked = false;
        let handler = Scripted::new(move |seen, control| {
            if *seen == Seen::End && !asked {
                asked = true;
                let refused = control.upgrade().unwrap_err();
                assert_eq!(refused.pending_input(), bytes);
                control.try_push("554\r\n").unwrap();
            }
            Then::Go
        });
        let (handler, reason) = channel.run(handler).await;
        assert!(!matches!(reason, CloseReason::Upgrade), "{reason:?}");
        assert!(handler.log.len() > 4);
        assert_eq!(peer.output(), "554\r\n");
    }
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_cannot_write_ends_with_the_cause() {
    let (mut channel, peer) = channel("STARTTLS\r\n");
    peer.take(0);
    let running = tokio::spawn(async move {
        let handler = Scripted::new(|seen, control| {
            if *seen == Seen::End {
                control.try_push("220\r\n").unwrap();
                control.upgrade().unwrap();
            }
            Then::Go
        });
        channel.run(handler).await.1
    });
    settle().await;
    peer.reset();
    let reason = running.await.unwrap();
    assert!(matches!(reason, CloseReason::Io(_)), "{reason:?}");
}

#[tokio::test(start_paused = true)]
async fn input_that_comes_during_the_upgrade_stays_in_the_stream() {
    let (mut channel, peer) = channel("STARTTLS\r\n");
    peer.take(0);
    assert_eq!(pull(&mut channel).await, data("STARTTLS"));
    assert_eq!(pull(&mut channel).await, Seen::End);
    channel.push("220\r\n").unwrap();
    let upgrading = tokio::spawn(channel.upgrade());
    settle().await;
    peer.send("(client hello)");
    peer.take(usize::MAX);
    let socket = upgrading.await.unwrap().unwrap();
    assert_eq!(peer.unread(), 14);
    // Another channel over the same stream begins where this one has stopped.
    let mut next = Channel::builder(None).timeouts(patient()).build(socket);
    assert_eq!(next.next().await.unwrap().unwrap(), Event::Chunk("(client hello)".into()));
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_a_dropped_run_asked_for_is_forgotten() {
    let (mut channel, peer) = channel("STARTTLS\r\n");
    let handler = Scripted::new(|seen, control| {
        if *seen != Seen::End {
            return Then::Go;
        }
        control.upgrade().unwrap();
        wait(std::future::pending())
    });
    tokio::select! {
        biased;
        (_, reason) = channel.run(handler) => panic!("{reason:?}"),
        () = settle() => {}
    }
    peer.send("NOOP\r\n");
    peer.close();
    let (handler, reason) = channel.run(Scripted::new(|_, _| Then::Go)).await;
    assert!(matches!(reason, CloseReason::PeerClosed), "{reason:?}");
    assert_eq!(handler.log.seen()[..2], [data("NOOP"), Seen::End]);
}

#[tokio::test(start_paused = true)]
async fn no_push_that_was_accepted_is_lost_in_an_upgrade() {
    let (mut channel, peer) = channel("");
    peer.take(0);
    let handle = channel.handle();
    channel.push("220\r\n").unwrap();
    let upgrading = tokio::spawn(channel.upgrade());
    let mut accepted = String::from("220\r\n");
    for n in 0..200 {
        settle().await;
        peer.take_more(1);
        let item = format!("{n} ");
        if handle.push(item.clone()).is_ok() {
            accepted.push_str(&item);
        }
    }
    peer.take(usize::MAX);
    drop(upgrading.await.unwrap().unwrap());
    assert_eq!(peer.output(), accepted);
    assert!(handle.is_closed());
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_stalls_hands_the_channel_back_as_it_was() {
    let (socket, peer) = pipe();
    peer.take(16);
    let mut channel = Channel::new(socket, b"\r\n");
    let handle = channel.handle();
    channel.push("x".repeat(100)).unwrap();
    let error = channel.upgrade().await.unwrap_err();
    assert_eq!((error.pending_input(), error.to_string().is_empty()), (0, false));
    let channel = error.into_inner();
    assert_eq!((channel.queued_bytes(), handle.is_closed()), (84, false));
    peer.take(usize::MAX);
    drop(channel.upgrade().await.unwrap());
    assert_eq!(peer.output(), "x".repeat(100));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_says_how_much_is_pending() {
    let (mut channel, _peer) = channel("STARTTLS\r\nINJECTED\r\n");
    for _ in 0..2 {
        pull(&mut channel).await;
    }
    assert_eq!(channel.pending_input(), 10);
    let error = channel.upgrade().await.unwrap_err();
    assert_eq!(error.pending_input(), 10);
    assert!(error.to_string().contains("10 bytes"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_close_that_a_handle_asked_for_outlives_an_upgrade_that_stalls() {
    let (socket, peer) = pipe();
    peer.take(0);
    let mut channel = Channel::new(socket, b"\r\n");
    let handle = channel.handle();
    handle.push("hello").unwrap();
    handle.close_when_done();
    let mut channel = channel.upgrade().await.unwrap_err().into_inner();
    assert!(handle.is_closed());
    handle.push("never sent").unwrap_err();
    peer.take(usize::MAX);
    peer.close();
    channel.close().await.unwrap();
    assert_eq!(peer.output(), "hello");
}

#[tokio::test(start_paused = true)]
async fn a_closed_channel_stays_closed_to_its_handles_when_an_upgrade_stalls() {
    let (socket, peer) = pipe();
    peer.take(0);
    let mut channel = Channel::new(socket, b"\r\n");
    let handle = channel.handle();
    channel.push("goodbye").unwrap();
    channel.close_when_done();
    handle.push("never sent").unwrap_err();
    let channel = channel.upgrade().await.unwrap_err().into_inner();
    assert!(channel.is_closed());
    handle.push("never sent").unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_shut_down_is_not_handed_over() {
    // The channel is closed by its owner, by a handle before the upgrade, which nobody has noticed yet, or by a handle
    // during the upgrade.
    for when in ["before", "unseen", "meanwhile"] {
        let (socket, peer) = pipe();
        let mut channel = Channel::new(socket, b"\r\n");
        let handle = channel.handle();
        channel.push("goodbye").unwrap();
        match when {
            "before" => channel.close_when_done(),
            "unseen" => handle.close_when_done(),
            _ => peer.take(0),
        }
        let upgrading = tokio::spawn(channel.upgrade());
        settle().await;
        handle.close_when_done();
        peer.take(usize::MAX);
        let error = upgrading.await.unwrap().map(drop).unwrap_err();
        assert_eq!(error.pending_input(), 0, "{when}");
        let mut channel = error.into_inner();
        assert!(channel.is_closed(), "{when}");
        peer.close();
        channel.close().await.unwrap();
        assert_eq!(peer.output(), "goodbye", "{when}");
    }
}
