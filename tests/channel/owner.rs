//! What the owner of a channel can ask and set; a handler that has only the required methods; and input that was read
//! and is not handed over.

use std::convert::Infallible;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use asynchat::{
    Channel, ChannelError, Chunk, CloseReason, Control, End, Event, FrameError, Handle, Handler,
    Limit, Terminator, Timeout, Timeouts,
};
use futures::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;

use crate::support::{Peer, Socket, patient, pipe, secs};

fn channel(peer_sends: impl AsRef<[u8]>) -> (Channel<Socket>, Peer) {
    let (socket, peer) = pipe();
    peer.send(peer_sends);
    (Channel::builder(b"\n").timeouts(patient()).build(socket), peer)
}

/// Finds the end of a message, whose first byte is a digit that says how many bytes follow.
fn find_end(input: &[u8]) -> Option<usize> {
    input.first().map(|digit| usize::from(digit - b'0') + 1)
}

#[tokio::test(start_paused = true)]
async fn what_was_set_can_be_asked_for() {
    let (mut channel, _peer) = channel("");
    assert_eq!(channel.timeouts(), patient());
    channel.set_timeouts(Timeouts::NONE.idle(Duration::from_secs(7)));
    assert_eq!(channel.timeouts().idle, secs(7));
    channel.get_mut();
    assert_eq!(channel.limit(), Limit::Fail(64 * 1024));
    for limit in [Limit::Unlimited, Limit::Skip(1)] {
        channel.set_limit(limit);
        assert_eq!(channel.limit(), limit);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_written_in_place_is_written_or_refused_as_a_whole() {
    let (mut channel, peer) = channel("");
    channel.push("one ").unwrap();
    let length = channel.push_with(|buffer| {
        buffer.extend_from_slice(b"two ");
        4
    });
    assert_eq!(length.unwrap(), 4);
    let failed: Result<(), ChannelError> = channel.try_push_with(|buffer| {
        buffer.extend_from_slice(b"half of what");
        Err(ChannelError::Io(io::ErrorKind::NotFound.into()))
    });
    assert!(matches!(failed, Err(ChannelError::Io(_))));
    channel.push("three").unwrap();
    channel.close_when_done();
    assert!(channel.push_with(|_| panic!("it is not called")).map(|()| 0).is_err());
    let late: Result<(), ChannelError> = channel.try_push_with(|_| panic!("it is not called"));
    assert!(matches!(late, Err(ChannelError::Closed)));
    peer.close();
    channel.close().await.unwrap();
    assert_eq!(peer.output(), "one two three");
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_room_in_a_channel_that_closes_is_told_so() {
    let (mut channel, peer) = channel("");
    channel.push("bye").unwrap();
    channel.close_when_done();
    assert!(matches!(channel.ready().await, Err(ChannelError::Closed)));
    assert!(matches!(channel.ready().await, Err(ChannelError::Closed)));
    peer.close();
    channel.close().await.unwrap();
    assert!(matches!(channel.ready().await, Err(ChannelError::Closed)));
    assert_eq!(peer.output(), "bye");
}

#[tokio::test(start_paused = true)]
async fn a_close_behind_the_peers_waits_for_nothing_more() {
    let (mut channel, peer) = channel("cut\r");
    channel.set_timeouts(patient().linger(Duration::from_secs(2)));
    channel.set_terminator(b"\r\n");
    peer.close();
    assert_eq!(channel.next().await.unwrap().unwrap(), Event::Chunk("cut".into()));
    // When the peer has closed, the withheld bytes are handed over before the end is reported.
    assert_eq!(channel.next().await.unwrap().unwrap(), Event::Chunk("\r".into()));
    let reads = peer.wire().reads;
    channel.close().await.unwrap();
    assert_eq!((peer.wire().reads, peer.wire().shutdowns), (reads, 1));
    assert!(channel.next().await.is_none(), "nothing is said behind a close");
}

#[tokio::test(start_paused = true)]
async fn long_input_that_was_not_handed_over_is_handed_back() {
    let rest = "r".repeat(40_000);
    for left in ["", "partial"] {
        let (socket, peer) = pipe();
        peer.send(format!("line\n{rest}{left}"));
        let builder = Channel::builder(b"\n").read_size(64 * 1024).timeouts(patient());
        let mut channel = builder.whole_frames(true).build(socket);
        assert_eq!(&channel.step().await.unwrap().unwrap().0.payload[..], b"line");
        assert_eq!(channel.pending_input(), 40_000 + left.len());
        let (_, input) = channel.into_parts();
        assert_eq!(input, format!("{rest}{left}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_lent_piece_that_is_kept_shares_the_input_if_it_is_long_and_is_copied_if_it_is_short() {
    let long = "l".repeat(40_000);
    let (socket, peer) = pipe();
    peer.send(format!("{long}\nshort\n"));
    let builder = Channel::builder(b"\n").read_size(64 * 1024).timeouts(patient());
    let mut channel = builder.whole_frames(true).build(socket);
    for (line, shared) in [(long.as_str(), true), ("short", false)] {
        let (step, _) = channel.step().await.unwrap().unwrap();
        let kept = step.payload.to_bytes();
        assert_eq!(kept, line);
        assert_eq!(kept.as_ptr() == step.payload.as_ptr(), shared);
    }
}

#[tokio::test(start_paused = true)]
async fn input_behind_a_piece_that_somebody_keeps_is_read_into_other_memory() {
    let kept = "k".repeat(20_000);
    let (socket, peer) = pipe();
    peer.send(format!("{kept}\nthe beginning of "));
    let builder = Channel::builder(b"\n").read_size(64 * 1024).timeouts(patient());
    let mut channel = builder.whole_frames(true).build(socket);
    let Some(Ok(Event::Chunk(piece))) = channel.next().await else { panic!() };
    assert_eq!(channel.next().await.unwrap().unwrap(), Event::Terminator);
    peer.send("the next\n");
    assert_eq!(
        channel.next().await.unwrap().unwrap(),
        Event::Chunk("the beginning of the next".into())
    );
    assert_eq!(piece, kept);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_found_has_no_limit_where_none_is_set() {
    let (socket, peer) = pipe();
    let message = "m".repeat(100_000);
    peer.send(&message);
    let builder = Channel::builder(None).limit(Limit::Unlimited).timeouts(patient());
    let mut channel = builder.build(socket);
    let find = |input: &[u8]| (input.len() == 100_000).then_some(100_000);
    assert_eq!(channel.message(find).await.unwrap().unwrap().0.payload.len(), 100_000);
}

#[tokio::test(start_paused = true)]
async fn whole_frames_set_while_a_message_is_awaited_are_those_behind_it() {
    for whole in [false, true] {
        let (mut channel, peer) = channel("3x");
        channel.set_whole_frames(!whole);
        let waiting = timeout(Duration::from_secs(1), channel.message(find_end)).await;
        assert!(waiting.is_err(), "its end is known, and has not come");
        channel.set_whole_frames(whole);
        peer.send("y");
        assert!(timeout(Duration::from_secs(1), channel.message(find_end)).await.is_err());
        peer.send("z");
        let (step, mut control) = channel.message(find_end).await.unwrap().unwrap();
        assert_eq!((&step.payload[..], step.end), (&b"3xyz"[..], Some(End::Terminator)));
        control.set_terminator(b"\n");
        peer.send("half");
        let half = timeout(Duration::from_secs(1), channel.step()).await;
        assert_eq!(half.is_err(), whole, "a part of a frame is no whole one");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_something_is_written_in_place_leaves_a_channel_that_has_failed() {
    let (mut channel, peer) = channel("line\n");
    channel.push("dropped").unwrap();
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let _ = channel.push_with(|_| -> () { panic!("as the test wants") });
    }));
    assert!(panic.is_err());
    assert!(channel.is_closed());
    assert!(matches!(channel.ready().await, Err(ChannelError::Closed)));
    assert!(channel.push("late").is_err());
    assert!(channel.close().await.is_err());
    assert!(channel.next().await.is_none());
    assert_eq!(peer.output(), "");
}

/// A stream during whose flush another task pushes to the channel.
struct Pushed {
    socket: Socket,
    handle: Arc<Mutex<Option<Handle>>>,
}

impl AsyncRead for Pushed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Pushed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(handle) = self.handle.lock().unwrap().take() {
            handle.push("from elsewhere").unwrap();
        }
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[test]
fn what_is_pushed_during_a_flush_is_written_before_the_peer_is_waited_for() {
    let (socket, peer) = pipe();
    let handle = Arc::default();
    let stream = Pushed { socket, handle: Arc::clone(&handle) };
    let mut channel = Channel::builder(b"\n").timeouts(Timeouts::NONE).build(stream);
    *handle.lock().unwrap() = Some(channel.handle());
    channel.push("first, ").unwrap();
    assert!(channel.next().now_or_never().is_none());
    assert_eq!(peer.output(), "first, from elsewhere");
    assert_eq!(peer.wire().flushes, 2);
}

/// A handler that has only the required methods, and counts how often they were called.
#[derive(Default)]
struct Least(usize, usize);

impl Handler for Least {
    type Error = Infallible;

    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        control: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        self.0 += AsRef::<[u8]>::as_ref(&data).len();
        assert_eq!(format!("{data:?}"), format!("Chunk(b\"{}\")", data.escape_ascii()));
        if data[..] == *b"count" {
            control.set_terminator(Terminator::count_then(2, b"\r\n"));
        }
        Ok(())
    }

    async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        self.1 += 1;
        assert!(format!("{control:?}").starts_with("Control { terminator: "), "{control:?}");
        let traffic = control.traffic();
        write!(control, "{} {};", traffic.read, traffic.written);
        control.push("");
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_need_not_know_of_quiet_peers() {
    let (socket, peer) = pipe();
    let timeouts = Timeouts::NONE.quiet(Duration::from_secs(1)).session(Duration::from_secs(9));
    let mut channel = Channel::builder(b"\n").timeouts(timeouts).build(socket);
    let running = tokio::spawn(async move { channel.run(Least::default()).await });
    tokio::time::sleep(Duration::from_secs(5)).await;
    peer.send("abc\n");
    tokio::time::sleep(Duration::from_secs(1)).await;
    peer.send("d\n");
    let (handler, reason) = running.await.unwrap();
    assert!(matches!(reason, CloseReason::Timeout(Timeout::Session)), "{reason:?}");
    assert_eq!((handler.0, handler.1), (4, 2));
    assert_eq!(peer.output(), "4 0;6 4;");
}

#[tokio::test(start_paused = true)]
async fn a_handler_need_not_know_of_wrong_ends_which_close() {
    let (mut channel, peer) = channel("count\nabXX");
    peer.close();
    let (handler, reason) = channel.run(Least::default()).await;
    assert_eq!((handler.0, handler.1), (7, 1));
    assert!(matches!(reason, CloseReason::Frame(FrameError::WrongEnd)), "{reason:?}");
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_finds_the_end_of_no_message_gets_all_of_the_input_as_the_beginning_of_one()
{
    let (socket, peer) = pipe();
    peer.send("abcdef");
    peer.close();
    let mut channel = Channel::builder(None).own_end(true).timeouts(patient()).build(socket);
    let (handler, reason) = channel.run(Least::default()).await;
    assert_eq!((handler.0, handler.1), (6, 0));
    assert!(matches!(reason, CloseReason::Truncated), "{reason:?}");
}
