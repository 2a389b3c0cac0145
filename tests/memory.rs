//! Connections leave no memory behind, and hold little while they are idle.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::iter::repeat_n;

use allocation_counter::measure;
use asynchat::{
    Channel, Chunk, CloseReason, Control, Framer, Handler, Terminator, Timeouts, producer,
};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, join, sink};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

/// Answers a line with more than a socket takes, and then waits for ever.
#[derive(Default)]
struct Slow(Vec<u8>);

impl Handler for Slow {
    type Error = Infallible;

    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        _: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        self.0.extend_from_slice(&data);
        Ok(())
    }

    async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        let _handle = control.handle();
        let blocks = repeat_n([b'x'; 16 * 1024], 4096);
        control.push(vec![b'x'; 16 * 1024]);
        control.push_with_producer(producer::iter(blocks));
        if self.0 == b"wait" {
            std::future::pending().await
        }
        Ok(())
    }
}

/// Opens so many connections at once, and breaks them off in every state.
async fn storm(connections: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    let mut clients = Vec::new();
    for start in
        ["", "no line", "line\n", "wait\n", "wait\nmore\nlines"].iter().cycle().take(connections)
    {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.set_zero_linger().unwrap();
        client.write_all(start.as_bytes()).await.unwrap();
        clients.push(client);
        let (stream, _) = listener.accept().await.unwrap();
        serving.spawn(async move { Channel::new(stream, b"\n").run(Slow::default()).await.1 });
    }
    // By then each connection has come as far as it can.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    drop(clients);
    while let Some(reason) = serving.join_next().await {
        assert!(matches!(reason.unwrap(), CloseReason::Io(_)));
    }
}

/// A stream that is pending at every other read, and brings a line at the others.
struct Lines {
    left: usize,
    asked: bool,
    /// Whether a line comes one byte at a time.
    dribbles: bool,
}

impl AsyncRead for Lines {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(Ok(()));
        }
        self.asked = !self.asked;
        if self.asked {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.left -= 1;
        let ends = self.left % 100 == 0;
        match self.dribbles {
            true => buf.put_slice(if ends { b"\n" } else { b"x" }),
            false => buf.put_slice(b"a line of no great length\r\n"),
        }
        Poll::Ready(Ok(()))
    }
}

/// A handler that sends back what comes.
struct Echo;

impl Handler for Echo {
    type Error = Infallible;

    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        control: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        control.push(&data[..]);
        Ok(())
    }

    async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        control.push("\n");
        Ok(())
    }
}

#[test]
fn requests_that_come_one_at_a_time_allocate_nothing() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let run = |requests: usize, dribbles: bool, whole: bool| {
        runtime.block_on(async {
            let lines = Lines { left: requests, asked: false, dribbles };
            let mut channel =
                Channel::builder(b"\n").whole_frames(whole).build(join(lines, sink()));
            channel.run(Echo).await;
        });
    };
    for (dribbles, whole) in [(false, false), (false, true), (true, false), (true, true)] {
        // After the first run, the thread has allocated what it keeps.
        run(10_000, dribbles, whole);
        let few = measure(|| run(1000, dribbles, whole)).count_total;
        let many = measure(|| run(10_000, dribbles, whole)).count_total;
        // The bytes of an incomplete whole frame are kept in a buffer of their own, which is not allocated for each
        // byte.
        let frames = if dribbles && whole { 2 * 90 } else { 0 };
        assert!(many <= few + frames + 2, "{few} {many}, dribbles: {dribbles}, whole: {whole}");
    }
}

#[test]
fn two_hundred_resets_at_once_leave_no_memory_behind() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    // After the first run, the runtime and the thread have allocated what they keep, such as buffers.
    runtime.block_on(storm(200));
    let left = measure(|| runtime.block_on(storm(200)));
    assert!(left.bytes_max > 200 * 1024, "{left:?}");
    assert!(left.bytes_current < 4096, "{left:?}");
}

/// A stream that brings these bytes, and is then pending for ever. Writes are always pending.
struct Mute(&'static [u8]);

impl AsyncRead for Mute {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.0.is_empty() {
            return Poll::Pending;
        }
        buffer.put_slice(std::mem::take(&mut self.0));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Mute {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn an_idle_channel_holds_little_though_a_beginning_is_withheld() {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let mut channels = Vec::with_capacity(101);
    let mut open = |count: usize| {
        for _ in 0..count {
            let mut channel = Channel::new(Mute(b"ab\r"), b"\r\n");
            let chunk = std::pin::pin!(channel.next()).poll(&mut cx);
            assert!(matches!(chunk, Poll::Ready(Some(Ok(asynchat::Event::Chunk(_))))));
            drop(chunk);
            assert!(std::pin::pin!(channel.next()).poll(&mut cx).is_pending());
            assert_eq!(channel.pending_input(), 1);
            channels.push(channel);
        }
    };
    // What all channels share is allocated before the measurement.
    open(1);
    let held = measure(|| open(100));
    assert!(held.bytes_current < 100 * 1024, "{held:?}");
}

/// The bytes that a hundred channels have allocated when each has read this line, has reported it, and waits.
fn held_by_idle(timeouts: Timeouts, terminator: &Terminator, line: &'static [u8]) -> u64 {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let mut channels = Vec::with_capacity(102);
    let mut open = |count: usize| {
        for _ in 0..count {
            let mut channel =
                Channel::builder(terminator.clone()).timeouts(timeouts).build(Mute(line));
            while let Poll::Ready(event) = std::pin::pin!(channel.next()).poll(&mut cx) {
                event.unwrap().unwrap();
            }
            channels.push(channel);
        }
    };
    // What all channels share is allocated before the measurement.
    open(2);
    let held = measure(|| open(100));
    u64::try_from(held.bytes_current).unwrap()
}

#[test]
fn an_idle_channel_holds_nothing_but_its_framer_and_its_alarm() {
    let terminators = [
        Terminator::from(b"\n"),
        Terminator::any_of(["\r\n", "\n"]).unwrap(),
        Terminator::Newline,
        Terminator::None,
    ];
    for terminator in &terminators {
        for line in [&b""[..], b"\n", b"a line\r\n"] {
            let held = held_by_idle(Timeouts::NONE, terminator, line);
            let framer = size_of::<Framer>() as u64;
            assert_eq!(held, 100 * framer, "{terminator:?}, {line:?}");
            let held = held_by_idle(Timeouts::default(), terminator, line);
            let alarm = size_of::<tokio::time::Sleep>() as u64 + 88;
            assert!(held <= 100 * (framer + alarm), "{held}: {terminator:?}, {line:?}");
        }
    }
}

#[test]
fn what_a_channel_and_its_run_take_fits_into_a_small_task() {
    let channel = size_of::<Channel<TcpStream>>() - size_of::<TcpStream>();
    let (stream, _peer) = tokio::io::duplex(1);
    let run = size_of_val(&Channel::new(stream, b"\n").run(Echo));
    // Together with the 32 bytes of a stream, 104 of Tokio and the task's own state, a task then takes 512 bytes.
    assert!(channel + run <= 368, "{channel} and {run}");
}

/// A handler that waits for ever at a line, or answers the line, or its beginning, with too much output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Busy {
    Waits,
    AnswersLines,
    AnswersPieces,
}

impl Handler for Busy {
    type Error = Infallible;

    fn collect_incoming_data(
        &mut self,
        _: Chunk<'_>,
        control: &mut Control<'_>,
    ) -> Result<(), Infallible> {
        if *self == Busy::AnswersPieces {
            control.push("more than one byte");
        }
        Ok(())
    }

    async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), Infallible> {
        if *self == Busy::Waits {
            std::future::pending().await
        }
        control.push("more than one byte");
        Ok(())
    }
}

#[test]
fn a_channel_that_waits_for_its_handler_or_its_peer_holds_no_read_buffer() {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let long: &[u8] = [&[b'x'; 20_000], &b"\nand another"[..]].concat().leak();
    let read = [&b"a line\n"[..], b"a line\nand another", long];
    let busy = [Busy::Waits, Busy::AnswersLines, Busy::AnswersPieces];
    for (read, busy) in read.into_iter().flat_map(|read| busy.map(|busy| (read, busy))) {
        let mut runs = Vec::with_capacity(102);
        let mut open = |count: usize| {
            for _ in 0..count {
                let end = if busy == Busy::AnswersPieces { b"." } else { b"\n" };
                let mut channel = Channel::builder(end).high_water_mark(1).build(Mute(read));
                let mut run = Box::pin(async move { channel.run(busy).await.1 });
                assert!(run.as_mut().poll(&mut cx).is_pending());
                runs.push(run);
            }
        };
        open(2);
        let held = measure(|| open(100));
        assert!(held.bytes_current < 100 * 16 * 1024, "{busy:?}, {}, {held:?}", read.len());
    }
}

#[test]
fn to_read_on_behind_what_is_kept_takes_no_more_than_a_read() {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let read = [vec![b'x'; 20_000], vec![b'\n'], vec![b'y'; 20_000]].concat();
    let read_on = || {
        runtime.block_on(async {
            let reader = read.as_slice().chain(&b"z\n"[..]);
            let mut channel =
                Channel::builder(b"\n").whole_frames(true).build(join(reader, sink()));
            let mut kept = Vec::new();
            while let Some(event) = channel.next().await {
                kept.push(event.unwrap());
            }
            assert_eq!(kept.len(), 4);
        });
    };
    read_on();
    let taken = measure(read_on);
    assert!(taken.bytes_max < 1024 * 1024, "{taken:?}");
}

#[test]
fn whoever_pulls_line_by_line_holds_no_more_than_a_read() {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let pull = || {
        runtime.block_on(async {
            let lines = Lines { left: 50_000, asked: false, dribbles: false };
            let mut channel = Channel::new(join(lines, sink()), b"\n");
            while let Some(event) = channel.next().await {
                event.unwrap();
            }
        });
    };
    pull();
    let taken = measure(pull);
    assert!(taken.bytes_max < 256 * 1024, "{taken:?}");
}
