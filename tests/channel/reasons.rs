//! Every way to ask why a connection ended returns the first cause.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use asynchat::{Channel, ChannelError, CloseReason, Event, FrameError, Limit, Timeout, Timeouts};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::support::{Peer, Scripted, Seen, Socket, Then, patient, pipe};

fn lines(peer_sends: &str) -> (Channel<Socket>, Peer) {
    let (socket, peer) = pipe();
    peer.send(peer_sends);
    (Channel::builder(b"\n").timeouts(patient()).build(socket), peer)
}

/// Runs a handler that does nothing. Returns what it was called with, except for the last call, and the reason.
async fn run<S>(channel: &mut Channel<S>) -> (Vec<Seen>, CloseReason<&'static str>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (handler, reason) = channel.run(Scripted::new(|_, _| Then::Go)).await;
    let mut seen = handler.log.seen();
    assert_eq!(seen.pop(), Some(Seen::Closed(reason.to_string())));
    (seen, reason)
}

#[tokio::test(start_paused = true)]
async fn an_error_that_was_pulled_is_the_reason_of_every_run_behind_it() {
    let (mut channel, peer) = lines("");
    peer.reset();
    assert!(matches!(channel.next().await, Some(Err(ChannelError::Io(_)))));
    for _ in 0..2 {
        let (seen, reason) = run(&mut channel).await;
        let CloseReason::Io(error) = reason else { panic!("{reason:?}") };
        assert_eq!((error.kind(), seen.len()), (io::ErrorKind::ConnectionReset, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_of_a_run_is_the_reason_of_the_next_and_not_told_to_a_puller() {
    let (mut channel, peer) = lines("");
    peer.reset();
    for _ in 0..2 {
        let (_, reason) = run(&mut channel).await;
        assert!(matches!(reason, CloseReason::Io(_)), "{reason:?}");
    }
    assert!(channel.next().await.is_none());
    assert!(matches!(channel.flush().await, Err(ChannelError::Closed)));
}

#[tokio::test(start_paused = true)]
async fn an_overlong_frame_that_was_pulled_is_the_reason_of_a_run() {
    let (mut channel, _peer) = lines("0123456789\nnext\n");
    channel.set_limit(Limit::Fail(3));
    assert!(matches!(channel.next().await, Some(Ok(Event::Chunk(_)))));
    assert!(matches!(channel.next().await, Some(Ok(Event::Overlong))));
    assert!(matches!(channel.next().await, Some(Err(ChannelError::Frame(_)))));
    let (seen, reason) = run(&mut channel).await;
    assert!(matches!(reason, CloseReason::Frame(FrameError::Overlong(3))), "{reason:?}");
    assert_eq!(seen, []);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_was_pulled_is_the_reason_of_a_run() {
    let (mut channel, _peer) = lines("begun");
    channel.set_timeouts(Timeouts::NONE.frame(Duration::from_secs(60)));
    assert!(matches!(channel.next().await, Some(Ok(Event::Chunk(_)))));
    assert!(matches!(channel.next().await, Some(Err(ChannelError::Timeout(Timeout::Frame)))));
    let (seen, reason) = run(&mut channel).await;
    assert!(matches!(reason, CloseReason::Timeout(Timeout::Frame)), "{reason:?}");
    assert_eq!(seen, []);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_input_that_was_pulled_is_told_to_a_handler() {
    for (input, truncated) in [("cut", true), ("whole\n", false)] {
        let (mut channel, peer) = lines(input);
        peer.close();
        while let Some(event) = channel.next().await {
            event.unwrap();
        }
        let (seen, reason) = run(&mut channel).await;
        assert_eq!(matches!(reason, CloseReason::Truncated), truncated, "{reason:?}");
        assert_eq!(seen, [if truncated { Seen::Truncated } else { Seen::Eof }]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_dropped_before_the_end_was_told_leaves_it_to_the_next() {
    let (socket, peer) = pipe();
    peer.send("cut");
    peer.close();
    peer.take(16);
    let mut channel = Channel::builder(b"\n")
        .timeouts(patient())
        .high_water_mark(100)
        .low_water_mark(10)
        .build(socket);
    let full = Scripted::new(|_, control| {
        control.push("x".repeat(1000));
        Then::Go
    });
    let log = full.log.clone();
    let ran = tokio::time::timeout(Duration::from_secs(1), channel.run(full)).await;
    assert!(ran.is_err() && log.len() == 1);
    peer.take(usize::MAX);
    let (seen, reason) = run(&mut channel).await;
    assert!(matches!(reason, CloseReason::Truncated), "{reason:?}");
    assert_eq!(seen, [Seen::Truncated]);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_dropped_while_it_winds_up_leaves_its_reason_to_the_next() {
    let (mut channel, peer) = lines("x\n");
    peer.close();
    peer.take(4);
    let answering = Scripted::new(|seen, control| {
        if *seen == Seen::End {
            control.push("more than fits");
        }
        Then::Go
    });
    let ran = tokio::time::timeout(Duration::from_secs(1), channel.run(answering)).await;
    assert!(ran.is_err());
    peer.take(usize::MAX);
    let (seen, reason) = run(&mut channel).await;
    assert!(matches!(reason, CloseReason::PeerClosed), "{reason:?}");
    assert_eq!((seen, peer.output()), (vec![], "more than fits".into()));
}

/// A stream whose `at`th call fails or takes nothing. All others read or write only a little.
struct Failing {
    io: Socket,
    at: usize,
    calls: usize,
    zero: bool,
    hit: bool,
}

impl Failing {
    fn fails(&mut self, can_be_zero: bool) -> Option<io::Result<usize>> {
        self.calls += 1;
        if self.calls - 1 != self.at || (self.zero && !can_be_zero) {
            return None;
        }
        self.hit = true;
        Some(if self.zero { Ok(0) } else { Err(io::ErrorKind::BrokenPipe.into()) })
    }
}

impl AsyncRead for Failing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Failing {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.fails(true) {
            Some(result) => Poll::Ready(result),
            None => {
                let most = buf.len().min(200);
                Pin::new(&mut self.io).poll_write(cx, &buf[..most])
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.fails(false) {
            Some(result) => Poll::Ready(result.map(drop)),
            None => Pin::new(&mut self.io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.fails(false) {
            Some(result) => Poll::Ready(result.map(drop)),
            None => Pin::new(&mut self.io).poll_shutdown(cx),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_fails_at_any_call_is_the_reason() {
    for zero in [false, true] {
        for high in [1, 100, 1 << 18] {
            for at in 0.. {
                let (io, peer) = pipe();
                peer.chop(5);
                peer.send("hello\nworld\n\nx\n");
                peer.close();
                let io = Failing { io, at, calls: 0, zero, hit: false };
                let mut channel = Channel::builder(b"\n")
                    .timeouts(patient())
                    .high_water_mark(high)
                    .low_water_mark(high / 2)
                    .build(io);
                let handler = Scripted::new(|seen, control| {
                    if let Seen::Data(text) = seen {
                        control.push(text.repeat(300));
                    }
                    Then::Go
                });
                let (_, reason) = channel.run(handler).await;
                let hit = channel.get_ref().hit;
                assert_eq!(matches!(reason, CloseReason::Io(_)), hit, "{at} {zero} {reason:?}");
                assert!(channel.next().await.is_none());
                assert!(channel.push("late").is_err());
                if !hit && channel.get_ref().calls <= at {
                    break;
                }
            }
        }
    }
}

#[test]
fn an_error_says_what_and_has_its_cause() {
    let reset = || io::Error::from(io::ErrorKind::ConnectionReset);
    let cause = reset().to_string();
    for (error, says, source) in [
        (ChannelError::Io(reset()), "the stream failed", Some(&cause[..])),
        (ChannelError::Producer(reset()), "a producer failed", Some(&cause)),
        (ChannelError::Timeout(Timeout::Idle), "a deadline has passed", {
            Some("connection idle for too long")
        }),
        (ChannelError::Closed, "the channel is closed", None),
    ] {
        assert_eq!(error.to_string(), says);
        let told = std::error::Error::source(&error).map(|source| source.to_string());
        assert_eq!(told.as_deref(), source);
    }
}
