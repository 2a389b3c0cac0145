//! The ways in which a connection ends, and that nothing is read, written or called afterwards.

use std::io;
use std::time::Duration;

use asynchat::{Channel, ChannelError, CloseReason, Timeout, producer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::support::{Peer, Scripted, Seen, Socket, Then, patient, pipe, seconds, settle};

fn channel() -> (Channel<Socket>, Peer) {
    let (socket, peer) = pipe();
    (Channel::builder(b"\r\n").timeouts(patient()).build(socket), peer)
}

async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connecting = TcpStream::connect(listener.local_addr().unwrap());
    let (near, far) = tokio::join!(connecting, listener.accept());
    (near.unwrap(), far.unwrap().0)
}

#[tokio::test(start_paused = true)]
async fn a_close_writes_what_was_pushed_and_shuts_down_once() {
    let (mut channel, peer) = channel();
    peer.take(2);
    channel.push("hello").unwrap();
    channel.push_with_producer(producer::iter([", ", "world"])).unwrap();
    channel.close_when_done();
    assert_eq!(channel.push("late").unwrap_err().into_inner(), "late");
    let late = bytes::Bytes::from("late");
    assert_eq!(channel.push_with_producer(late.clone()).unwrap_err().into_inner(), late);
    let closing = tokio::spawn(async move {
        channel.close().await.unwrap();
        channel.close().await.unwrap();
        assert!(channel.next().await.is_none());
        channel
    });
    settle().await;
    assert!(!peer.is_shut_down());
    peer.take(usize::MAX);
    drop(closing.await.unwrap());
    assert_eq!(peer.output(), "hello, world");
    let wire = peer.wire();
    assert_eq!((wire.flushed, wire.shutdowns, wire.reads), (12, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_close_that_is_dropped_goes_on_later() {
    let (mut channel, peer) = channel();
    peer.take(2);
    channel.push("hello").unwrap();
    for _ in 0..3 {
        tokio::select! {
            biased;
            closed = channel.close() => panic!("{closed:?}"),
            () = settle() => {}
        }
        peer.take(1);
    }
    peer.take(usize::MAX);
    channel.close().await.unwrap();
    assert_eq!(peer.output(), "hello");
    assert_eq!(peer.wire().shutdowns, 1);
}

#[tokio::test(start_paused = true)]
async fn next_carries_out_a_scheduled_close() {
    let (mut channel, peer) = channel();
    peer.send("unread\r\n");
    channel.push("bye").unwrap();
    channel.close_when_done();
    assert!(channel.next().await.is_none());
    assert_eq!(peer.output(), "bye");
    assert_eq!((peer.wire().shutdowns, peer.wire().reads), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_abort_writes_nothing_and_refuses_everything() {
    let (mut channel, peer) = channel();
    peer.send("unread\r\n");
    channel.push("never sent").unwrap();
    channel.abort();
    assert_eq!(channel.queued_bytes(), 0);
    assert!(channel.push("late").is_err());
    assert!(channel.next().await.is_none());
    assert!(matches!(channel.flush().await, Err(ChannelError::Closed)));
    let wire = peer.wire();
    assert_eq!((wire.output.len(), wire.writes, wire.reads), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_input_does_not_stop_the_output() {
    let (mut channel, peer) = channel();
    peer.take(0);
    peer.send("request\r\n");
    peer.close();
    let (sender, mut receiver) = mpsc::channel::<io::Result<bytes::Bytes>>(1);
    let mut produced = Some(producer::poll_fn(move |cx| receiver.poll_recv(cx)));
    let running = tokio::spawn(async move {
        let handler = Scripted::new(move |seen, control| {
            match seen {
                Seen::End => {
                    control.try_push("head ").unwrap();
                    control.try_push_with_producer(produced.take().unwrap()).unwrap();
                }
                Seen::Eof => control.try_push(" tail").unwrap(),
                _ => {}
            }
            Then::Go
        });
        channel.run(handler).await.1
    });
    settle().await;
    peer.take(usize::MAX);
    settle().await;
    assert_eq!(peer.output(), "head ");
    sender.send(Ok("body".into())).await.unwrap();
    settle().await;
    assert!(!peer.is_shut_down());
    drop(sender);
    assert!(matches!(running.await.unwrap(), CloseReason::PeerClosed));
    assert_eq!(peer.output(), "head body tail");
    assert_eq!(peer.wire().shutdowns, 1);
}

#[tokio::test(start_paused = true)]
async fn a_pulled_channel_writes_after_the_end_of_the_input() {
    let (mut channel, peer) = channel();
    peer.close();
    assert!(channel.next().await.is_none());
    channel.push("still here").unwrap();
    channel.flush().await.unwrap();
    assert_eq!(peer.output(), "still here");
    assert!(!peer.is_shut_down());
    channel.close().await.unwrap();
    assert!(peer.is_shut_down());
}

#[tokio::test(start_paused = true)]
async fn our_half_closed_lets_the_peer_read_before_it_closes() {
    let (near, far) = tokio::io::duplex(64);
    let serving = tokio::spawn(async move {
        let mut channel = Channel::new(far, b"\r\n");
        channel.push("bye\r\n").unwrap();
        channel.close().await
    });
    let (mut read, mut write) = tokio::io::split(near);
    let mut all = String::new();
    read.read_to_string(&mut all).await.unwrap();
    assert_eq!(all, "bye\r\n");
    // It still reads: what the peer sends now is dropped and does not cause a reset.
    write.write_all(&[b'x'; 1000]).await.unwrap();
    write.shutdown().await.unwrap();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_last_answer_survives_input_that_nobody_wanted() {
    for handled in [false, true] {
        let (mut client, server) = tcp_pair().await;
        let body = vec![b'x'; 100_000];
        client.write_all(b"PUT\r\n").await.unwrap();
        client.write_all(&body).await.unwrap();
        let serving = tokio::spawn(async move {
            let mut channel = Channel::new(server, b"\r\n");
            if handled {
                let handler = Scripted::new(|_, control| {
                    control.try_push("413 too large\r\n").unwrap();
                    control.close_when_done();
                    Then::Go
                });
                channel.run(handler).await;
            } else {
                channel.next().await.unwrap().unwrap();
                channel.push("413 too large\r\n").unwrap();
                channel.close().await.unwrap();
            }
        });
        // The client sends more while the answer is under way.
        client.write_all(&body).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "413 too large\r\n");
        drop(client);
        serving.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_stops_sending_is_not_lingered_for() {
    let (socket, peer) = pipe();
    peer.chop(1000);
    peer.send(vec![b'x'; 10_000_000]);
    let mut channel = Channel::new(socket, b"\r\n");
    let start = tokio::time::Instant::now();
    channel.close().await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    let read = 10_000_000 - peer.unread();
    assert!((200_000..=300_000).contains(&read), "{read}");
}

#[tokio::test(start_paused = true)]
async fn a_closed_channel_reads_and_writes_no_more() {
    let (mut channel, peer) = channel();
    channel.push("bye").unwrap();
    channel.close().await.unwrap();
    let before = (peer.wire().reads, peer.wire().writes, peer.wire().flushes);
    peer.send("more\r\n");
    assert!(channel.next().await.is_none());
    assert!(channel.push("late").is_err());
    channel.discard_buffers();
    channel.abort();
    channel.close_when_done();
    assert!(channel.next().await.is_none());
    let _ = channel.flush().await;
    channel.close().await.unwrap();
    let after = (peer.wire().reads, peer.wire().writes, peer.wire().flushes);
    assert_eq!((before, peer.wire().shutdowns), (after, 1));
}

#[tokio::test(start_paused = true)]
async fn a_failing_producer_fails_the_channel_and_drops_the_queue() {
    let (mut channel, peer) = channel();
    channel.push("head").unwrap();
    let failing = futures::stream::iter([Ok("some"), Err(io::Error::other("disk"))]);
    channel.push_with_producer(producer::stream(failing)).unwrap();
    channel.push("behind").unwrap();
    match channel.next().await {
        Some(Err(ChannelError::Producer(error))) => assert_eq!(error.to_string(), "disk"),
        other => panic!("{other:?}"),
    }
    assert!(channel.next().await.is_none());
    assert_eq!(channel.queued_bytes(), 0);
    assert!(!peer.output().contains("behind"));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fails_at_the_end_is_the_reason() {
    let (mut channel, peer) = channel();
    peer.take(0);
    peer.close();
    let running = tokio::spawn(async move {
        let handler = Scripted::new(|_, control| {
            control.try_push("never taken").unwrap();
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
async fn a_flush_that_is_dropped_loses_and_repeats_nothing() {
    let (mut channel, peer) = channel();
    peer.take(0);
    let all: String = (0..50).map(|n| format!("{n} ")).collect();
    channel.push(all.clone()).unwrap();
    let mut polls = 0;
    while tokio::time::timeout(Duration::from_secs(1), channel.flush()).await.is_err() {
        peer.take_more(3);
        polls += 1;
    }
    assert!(polls > 20);
    assert_eq!(peer.output(), all);
}

#[tokio::test(start_paused = true)]
async fn a_close_at_a_handler_lingers_for_a_peer_that_stays() {
    let (socket, peer) = pipe();
    peer.send("QUIT\r\n");
    let running = tokio::spawn(async move {
        let handler = Scripted::new(|_, control| {
            control.close_when_done();
            Then::Go
        });
        Channel::new(socket, b"\r\n").run(handler).await.1
    });
    seconds(1).await;
    assert!(peer.is_shut_down() && !running.is_finished());
    seconds(1).await;
    assert!(matches!(running.await.unwrap(), CloseReason::Done));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_writes_all_before_it_reads_is_not_waited_for_for_ever() {
    for by_handler in [false, true] {
        let (socket, peer) = pipe();
        peer.take(2);
        peer.send("QUIT\r\n");
        let mut channel = Channel::new(socket, b"\r\n");
        let closing = tokio::spawn(async move {
            if by_handler {
                let handler = Scripted::new(|seen, control| {
                    if *seen == Seen::End {
                        control.try_push("answer").unwrap();
                        control.close_when_done();
                    }
                    Then::Go
                });
                assert!(matches!(channel.run(handler).await.1, CloseReason::Done));
            } else {
                channel.push("answer").unwrap();
                channel.close().await.unwrap();
            }
        });
        settle().await;
        assert_eq!(peer.output(), "an");
        peer.send(vec![b'x'; 100_000]);
        settle().await;
        assert_eq!(peer.unread(), 0, "it would still be writing");
        assert!(!peer.is_shut_down());
        peer.take(usize::MAX);
        settle().await;
        assert_eq!(peer.output(), "answer");
        assert!(peer.is_shut_down());
        peer.close();
        closing.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_dropped_after_a_close_is_bounded() {
    let (socket, peer) = pipe();
    peer.take(0);
    peer.send(vec![b'x'; 1 << 20]);
    let mut channel = Channel::new(socket, b"\r\n");
    channel.push("answer").unwrap();
    let closing = tokio::spawn(async move { channel.close().await });
    settle().await;
    let unread = peer.unread();
    assert!((1 << 19..1 << 20).contains(&unread), "{unread}");
    // When the answer is written, this does not keep the connection open, either.
    peer.take(usize::MAX);
    settle().await;
    closing.await.unwrap().unwrap();
    assert_eq!((peer.output(), peer.unread()), ("answer".into(), unread));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_input_while_a_close_waits_for_the_writer_is_no_end_of_that() {
    let (socket, peer) = pipe();
    peer.take(0);
    peer.send("more");
    peer.close();
    let mut channel = Channel::new(socket, b"\r\n");
    channel.push("answer").unwrap();
    let closing = tokio::spawn(async move { channel.close().await });
    settle().await;
    assert!(!closing.is_finished());
    peer.take(usize::MAX);
    settle().await;
    // The channel does not linger, since the peer is gone.
    assert!(closing.is_finished());
    closing.await.unwrap().unwrap();
    assert_eq!(peer.output(), "answer");
}

#[tokio::test(start_paused = true)]
async fn an_abort_and_an_error_in_one_callback_end_at_once_and_say_why() {
    for in_collect in [false, true] {
        let (socket, peer) = pipe();
        peer.send("BAD\r\n");
        let handler = Scripted::new(move |seen, control| {
            if matches!(seen, Seen::Data(_)) != in_collect {
                return Then::Go;
            }
            control.try_push("never written").unwrap();
            control.abort();
            Then::Fail("bad")
        });
        let running =
            tokio::spawn(async move { Channel::new(socket, b"\r\n").run(handler).await.1 });
        settle().await;
        assert!(running.is_finished(), "it lingers");
        let reason = running.await.unwrap();
        assert!(matches!(reason, CloseReason::Handler("bad")), "{reason:?}");
        assert_eq!((peer.output(), peer.wire().shutdowns), (String::new(), 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_that_cannot_be_written_still_shuts_down() {
    let (socket, peer) = pipe();
    peer.take(2);
    peer.send("QUIT\r\n");
    let handler = Scripted::new(|_, control| {
        control.push("answer");
        control.close_when_done();
        Then::Go
    });
    let (_, reason) = Channel::new(socket, b"\r\n").run(handler).await;
    let CloseReason::Timeout(timeout) = reason else { panic!("{reason:?}") };
    assert_eq!(timeout, Timeout::WriteStall);
    assert_eq!((peer.output(), peer.wire().shutdowns), ("an".into(), 1));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_fails_while_a_close_waits_for_the_writer_ends_the_close() {
    let (mut channel, peer) = channel();
    let mut timeouts = patient();
    timeouts.linger = Some(Duration::from_secs(2));
    channel.set_timeouts(timeouts);
    peer.take(0);
    channel.push("bye\r\n").unwrap();
    let closing = tokio::spawn(async move { channel.close().await });
    peer.send("more");
    settle().await;
    assert_eq!(peer.unread(), 0);
    peer.reset();
    let error = closing.await.unwrap().unwrap_err();
    assert!(matches!(error, ChannelError::Io(error) if error.kind() == io::ErrorKind::BrokenPipe));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_read_behind_the_end_of_the_input() {
    for input in ["whole\r\n", "cut"] {
        let (socket, peer) = pipe();
        let mut channel = Channel::new(socket, b"\r\n"); // which lingers
        peer.send(input);
        peer.close();
        while channel.next().await.is_some() {}
        let reads = peer.wire().reads;
        channel.close().await.unwrap();
        assert_eq!(peer.wire().reads, reads, "{input:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn input_is_dropped_by_an_abort_and_by_a_close() {
    for aborts in [false, true] {
        let (mut channel, peer) = channel();
        peer.take(0);
        peer.send("one\r\ntwo\r\n");
        channel.next().await.unwrap().unwrap();
        assert_eq!(channel.pending_input(), 5);
        channel.push("bye").unwrap();
        if aborts {
            channel.abort();
        } else {
            tokio::time::timeout(Duration::from_secs(1), channel.close()).await.unwrap_err();
        }
        assert_eq!(channel.pending_input(), 0, "aborts: {aborts}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_dropped_after_a_close_is_counted_as_read() {
    let (socket, peer) = pipe();
    let mut channel = Channel::new(socket, b"\r\n");
    peer.send("one\r\n");
    channel.next().await.unwrap().unwrap();
    peer.send("two\r\n");
    peer.close();
    channel.close().await.unwrap();
    assert_eq!(channel.traffic().read, 10);
}
