//! Makes each call of a stream, in turn, fail, or never be ready again, or do less than it could, or be late. Under
//! each of these faults a connection ends within its deadlines and reports the first cause; what it has written is the
//! beginning of what was pushed; and it calls nothing again that has failed.
#![cfg(feature = "serve")]
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use asynchat::{
    Channel, ChannelBuilder, ChannelError, CloseReason, Event, Limit, ProducerSink, Server,
    SinkError, Timeouts, producer,
};
use bytes::Bytes;
use futures::FutureExt;
use support::{Scripted, Seen, Then, data, seen, wait};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::codec::{BytesCodec, FramedWrite};
use tokio_util::net::Listener;
use tokio_util::sync::CancellationToken;

#[path = "support/channel.rs"]
mod support;

// ---------------------------------------------------------------------------------------------
// A stream with a fault

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// This call fails.
    Fail(io::ErrorKind),
    /// This call is pending, and so are all that follow in the same direction. Nothing wakes the task.
    Stop,
    /// This read or write moves one byte. A flush or a shutdown is not affected.
    Short,
    /// This call is pending once, and wakes the task later.
    Late,
    /// This write takes 0 bytes, or this read is the end of the input.
    Nothing,
}

const FAULTS: [Fault; 7] = [
    Fault::Fail(io::ErrorKind::ConnectionReset),
    Fault::Fail(io::ErrorKind::BrokenPipe),
    Fault::Fail(io::ErrorKind::Other),
    Fault::Stop,
    Fault::Short,
    Fault::Late,
    Fault::Nothing,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Read,
    Write,
    Flush,
    Shutdown,
}

#[derive(Debug, Default)]
struct Wire {
    reads: VecDeque<&'static [u8]>,
    /// What was called, in order.
    calls: Vec<Call>,
    fault: Option<(usize, Fault)>,
    output: Vec<u8>,
    flushed: usize,
    shut_down: bool,
    /// Whether reading and writing are never ready again.
    stopped: [bool; 2],
    failed: [bool; 2],
    /// The first call that was made after the stream had failed.
    misuse: Option<String>,
}

/// The end of the connection that is under test.
#[derive(Clone, Debug)]
struct Faulty(Arc<Mutex<Wire>>);

impl Faulty {
    fn new(reads: &[&'static [u8]], fault: Option<(usize, Fault)>) -> Self {
        let reads = reads.iter().copied().collect();
        Faulty(Arc::new(Mutex::new(Wire { reads, fault, ..Wire::default() })))
    }

    fn wire(&self) -> MutexGuard<'_, Wire> {
        self.0.lock().unwrap()
    }

    /// Records a call, and returns the fault that it is to have.
    fn call(&self, call: Call, cx: &mut Context<'_>) -> Poll<io::Result<Option<Fault>>> {
        let mut wire = self.wire();
        let side = usize::from(call != Call::Read);
        if wire.failed[side] && call != Call::Shutdown {
            wire.misuse.get_or_insert(format!("{call:?} after it failed"));
        }
        if wire.shut_down && side == 1 {
            wire.misuse.get_or_insert(format!("{call:?} after the shutdown"));
        }
        if wire.stopped[side] {
            return Poll::Pending;
        }
        let number = wire.calls.len();
        wire.calls.push(call);
        assert!(number < 100_000, "it calls for ever");
        match wire.fault.filter(|(at, _)| *at == number).map(|(_, fault)| fault) {
            Some(Fault::Fail(kind)) => {
                wire.failed[side] = true;
                Poll::Ready(Err(kind.into()))
            }
            Some(Fault::Stop) => {
                wire.stopped[side] = true;
                Poll::Pending
            }
            Some(Fault::Late) => {
                let waker = cx.waker().clone();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    waker.wake();
                });
                Poll::Pending
            }
            other => Poll::Ready(Ok(other)),
        }
    }
}

impl AsyncRead for Faulty {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let fault = ready!(self.call(Call::Read, cx))?;
        let mut wire = self.wire();
        if fault == Some(Fault::Nothing) {
            wire.reads.clear();
        }
        if let Some(read) = wire.reads.pop_front() {
            let most = if fault == Some(Fault::Short) { 1 } else { room.remaining() };
            let (now, later) = read.split_at(read.len().min(most));
            room.put_slice(now);
            if !later.is_empty() {
                wire.reads.push_front(later);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Faulty {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let fault = ready!(self.call(Call::Write, cx))?;
        let most = match fault {
            Some(Fault::Short) => 1,
            Some(Fault::Nothing) => 0,
            _ => usize::MAX,
        };
        let all = slices.iter().flat_map(|slice| slice.iter().copied());
        let mut wire = self.wire();
        let before = wire.output.len();
        wire.output.extend(all.take(most));
        let count = wire.output.len() - before;
        wire.failed[1] |= count == 0;
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.call(Call::Flush, cx))?;
        let mut wire = self.wire();
        wire.flushed = wire.output.len();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.call(Call::Shutdown, cx))?;
        self.wire().shut_down = true;
        Poll::Ready(Ok(()))
    }
}

// ---------------------------------------------------------------------------------------------
// The walk

/// The result of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Outcome {
    /// What the application was told, adjacent data merged.
    heard: Vec<Seen>,
    /// All that the application has pushed.
    pushed: String,
    /// How the connection ended: with success, or with an error, as text.
    ended: Result<String, String>,
}

type Run = Pin<Box<dyn Future<Output = Outcome>>>;

/// Runs a scenario without a fault, then with each fault at each call, and checks what holds for all.
async fn walk(reads: &[&'static [u8]], scenario: impl Fn(Faulty) -> Run) {
    let sound = Faulty::new(reads, None);
    let expected = scenario(sound.clone()).await;
    let calls = sound.wire().calls.clone();
    assert!(expected.ended.is_ok(), "{expected:?}");
    assert_eq!(sound.wire().output, expected.pushed.as_bytes());
    assert_eq!(sound.wire().flushed, expected.pushed.len());
    for kind in [Call::Read, Call::Write, Call::Flush, Call::Shutdown] {
        assert!(calls.contains(&kind), "there is a {kind:?} to go wrong");
    }
    let mut runs = 0;
    for at in 0..calls.len() {
        for fault in FAULTS {
            runs += 1;
            let call = calls[at];
            let io = Faulty::new(reads, Some((at, fault)));
            let run = AssertUnwindSafe(scenario(io.clone())).catch_unwind();
            let what = format!("{fault:?} at call {at}, {call:?}");
            let run = tokio::time::timeout(Duration::from_secs(600), run).await;
            let Ok(outcome) = run else { panic!("{what}: it never ends") };
            let Ok(outcome) = outcome else { panic!("{what}: it panics") };
            let wire = io.wire();
            let context = format!("{what}\n  gave {outcome:?}\nwanted {expected:?}\n  {wire:?}");
            assert_eq!(wire.misuse, None, "{context}");
            assert!(outcome.pushed.as_bytes().starts_with(&wire.output), "{context}");
            assert!(wire.calls.len() <= 3 * calls.len() + 20, "{context}");
            check(call, fault, &outcome, &expected, &wire, &context);
        }
    }
    assert!(runs > 50, "{runs}");
}

fn check(
    call: Call,
    fault: Fault,
    outcome: &Outcome,
    expected: &Outcome,
    wire: &Wire,
    context: &str,
) {
    match (fault, call) {
        // A call that is late or does less changes nothing.
        (Fault::Short | Fault::Late, _) | (Fault::Nothing, Call::Flush | Call::Shutdown) => {
            assert_eq!(outcome, expected, "{context}");
            assert_eq!(wire.flushed, wire.output.len(), "{context}");
            assert_eq!(wire.output, outcome.pushed.as_bytes(), "{context}");
        }
        // An end of the input that comes early is no error.
        (Fault::Nothing, Call::Read) => {
            assert!(outcome.ended.is_ok(), "{context}");
            assert_eq!(wire.output, outcome.pushed.as_bytes(), "{context}");
        }
        (Fault::Nothing, Call::Write) => {
            assert!(outcome.ended.is_err(), "{context}");
        }
        (Fault::Fail(kind), Call::Write | Call::Flush) => {
            assert_eq!(outcome.ended, Err(io::Error::from(kind).to_string()), "{context}");
        }
        // If the connection still ends with success, the application has been told everything before the fault.
        (Fault::Fail(kind), Call::Read | Call::Shutdown) => {
            if let Err(error) = &outcome.ended {
                assert_eq!(*error, io::Error::from(kind).to_string(), "{context}");
            }
            let told = outcome.heard.len() < expected.heard.len();
            assert!(outcome.ended.is_err() || !told, "{context}");
        }
        (Fault::Stop, Call::Write | Call::Flush) => {
            assert!(outcome.ended.is_err(), "{context}");
        }
        (Fault::Stop, Call::Read | Call::Shutdown) => {
            let told = outcome.heard.len() < expected.heard.len();
            assert!(outcome.ended.is_err() || !told, "{context}");
        }
    }
    if outcome.ended.is_ok() {
        assert_eq!(wire.output, outcome.pushed.as_bytes(), "{context}");
    }
}

const READS: &[&[u8]] =
    &[b"one\ntw", b"o\n\nlonger than that\nth", b"ree\nbig\n", b"slow\nlast\nx"];

fn builder() -> ChannelBuilder {
    let mut timeouts = Timeouts::default();
    timeouts.idle = Some(Duration::from_secs(10));
    timeouts.frame = Some(Duration::from_secs(10));
    timeouts.write_stall = Some(Duration::from_secs(10));
    timeouts.linger = Some(Duration::from_secs(2));
    Channel::builder(b"\n")
        .limit(Limit::Skip(8))
        .timeouts(timeouts)
        .high_water_mark(2000)
        .low_water_mark(100)
}

/// Queues the answer to a line.
macro_rules! answer {
    ($on:ident.$push:ident, $push_with_producer:ident, $line:expr, $pushed:expr) => {{
        let line: &str = $line;
        let (text, by_producer) = match line {
            "big" => ("b".repeat(5000), false),
            "slow" => ("s".repeat(5000), true),
            line => (format!("<{line}>"), false),
        };
        let queued = match by_producer {
            true => $on.$push_with_producer(slowly(text.clone())).is_ok(),
            false => $on.$push(text.clone()).is_ok(),
        };
        if queued {
            $pushed.push_str(&text);
        }
    }};
}

/// A producer of pieces, which is pending for a time before each.
fn slowly(text: String) -> impl producer::Producer + Send + 'static {
    let mut rest = Bytes::from(text);
    let mut waits = true;
    producer::poll_fn(move |cx| {
        waits = !waits;
        if !waits {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let piece = rest.split_to(rest.len().min(900));
        Poll::Ready((!piece.is_empty()).then_some(Ok(piece)))
    })
}

/// A handler that answers each line; `last` closes.
fn handler(
    pushed: Arc<Mutex<String>>,
) -> Scripted<impl FnMut(&Seen, &mut asynchat::Control<'_>) -> Then + Send> {
    let mut line = String::new();
    Scripted::new(move |seen, control| {
        match seen {
            Seen::Data(text) => line.push_str(text),
            Seen::End => {
                let mut pushed = pushed.lock().unwrap();
                answer!(control.try_push, try_push_with_producer, &line, pushed);
                if line == "last" {
                    control.close_when_done();
                }
                let waits = line.len() == 3;
                line.clear();
                if waits {
                    return wait(tokio::time::sleep(Duration::from_millis(5)));
                }
            }
            _ => line.clear(),
        }
        Then::Go
    })
}

fn handled(io: Faulty) -> Run {
    Box::pin(async move {
        let pushed = Arc::new(Mutex::new(String::new()));
        let mut channel = builder().build(io);
        let (handler, reason) = channel.run(handler(pushed.clone())).await;
        let mut heard = handler.log.seen();
        assert_eq!(heard.pop(), Some(Seen::Closed(reason.to_string())), "closed comes last");
        assert!(!heard.iter().any(|seen| matches!(seen, Seen::Closed(_))), "and once");
        let pushed = pushed.lock().unwrap().clone();
        let ended = match reason {
            CloseReason::Io(error) => Err(error.to_string()),
            CloseReason::Timeout(timeout) => Err(timeout.to_string()),
            reason => Ok(reason.to_string()),
        };
        Outcome { heard, pushed, ended }
    })
}

fn pulled(io: Faulty) -> Run {
    Box::pin(async move {
        let log = support::Log::default();
        let mut pushed = String::new();
        let mut line = String::new();
        let mut channel = builder().build(io);
        let ended = loop {
            let event = match channel.next().await {
                Some(Ok(event)) => event,
                Some(Err(error)) => break Err(error),
                None => break Ok(()),
            };
            match &event {
                Event::Chunk(bytes) => line.push_str(std::str::from_utf8(bytes).unwrap()),
                Event::Terminator => {
                    answer!(channel.push, push_with_producer, &line, pushed);
                    if line == "last" {
                        log.note(seen(event));
                        break Ok(());
                    }
                    line.clear();
                }
                _ => line.clear(),
            }
            log.note(seen(event));
        };
        let closed = channel.close().await;
        let ended = ended.and(closed).map(|()| String::new()).map_err(|error| match error {
            ChannelError::Io(error) => error.to_string(),
            error => error.to_string(),
        });
        Outcome { heard: log.seen(), pushed, ended }
    })
}

#[tokio::test(start_paused = true)]
async fn under_a_channel_with_a_handler() {
    walk(READS, handled).await;
}

#[tokio::test(start_paused = true)]
async fn under_a_channel_that_is_pulled() {
    walk(READS, pulled).await;
}

#[tokio::test(start_paused = true)]
async fn under_a_channel_that_meets_the_end_of_its_input() {
    walk(&[b"one\n", b"two\nrest"], handled).await;
    walk(&[b"one\n", b"two\nrest"], pulled).await;
}

/// Drives a sink. It has no deadlines of its own, so this drops a future that takes too long, and aborts the sink.
fn sunk(io: Faulty) -> Run {
    Box::pin(async move {
        let mut pushed = String::new();
        // A sink does not read, so this reads once, as an application would before it answers.
        let mut reader = io.clone();
        let mut room = [0; 64];
        let read = tokio::io::AsyncReadExt::read(&mut reader, &mut room);
        let read = tokio::time::timeout(Duration::from_secs(5), read).await;
        let mut sink = ProducerSink::new(FramedWrite::new(io, BytesCodec::new()));
        sink.set_high_water_mark(2000);
        sink.set_low_water_mark(100);
        let mut ended = match read {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("it does not read".to_owned()),
        };
        for line in ["one", "two", "big", "slow", "last", "big"] {
            answer!(sink.push, push_with_producer, line, pushed);
            let work = async {
                match line {
                    "two" => sink.flush().await,
                    _ => sink.ready().await,
                }
            };
            if ended.is_ok() {
                ended = sunk_in_time(work).await;
            }
        }
        match ended {
            Ok(()) => ended = sunk_in_time(sink.close()).await,
            Err(_) => {
                sink.abort();
                // It may fail again or never end, which has been reported already.
                let _ = sunk_in_time(sink.flush()).await;
                assert!(sink.push("late").is_err());
                assert_eq!(sink.queued_bytes(), 0);
            }
        }
        Outcome { heard: vec![data("sink")], pushed, ended: ended.map(|()| String::new()) }
    })
}

async fn sunk_in_time(work: impl Future<Output = Result<(), SinkError>>) -> Result<(), String> {
    match tokio::time::timeout(Duration::from_secs(5), work).await {
        Ok(Err(SinkError::Write(error))) => Err(error.to_string()),
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_) => Err("it does not write".to_owned()),
    }
}

#[tokio::test(start_paused = true)]
async fn under_a_producer_sink() {
    // A shutdown that fails or stops is an error of a sink, since nobody else reports it.
    walk(&[b"one"], sunk).await;
}

// ---------------------------------------------------------------------------------------------
// serve

/// A listener that has a fault at one call, and accepts two connections.
struct Accepting {
    sockets: VecDeque<Faulty>,
    fault: Option<(usize, Fault)>,
    calls: usize,
    stopped: bool,
}

impl Listener for Accepting {
    type Io = Faulty;
    type Addr = usize;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Faulty, usize)>> {
        if self.stopped {
            return Poll::Pending;
        }
        self.calls += 1;
        let number = self.calls - 1;
        match self.fault.filter(|(at, _)| *at == number) {
            Some((_, Fault::Fail(kind))) => return Poll::Ready(Err(kind.into())),
            Some((_, Fault::Stop)) => {
                self.stopped = true;
                return Poll::Pending;
            }
            Some(_) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            None => {}
        }
        match self.sockets.pop_front() {
            Some(socket) => Poll::Ready(Ok((socket, number))),
            None => Poll::Pending,
        }
    }

    fn local_addr(&self) -> io::Result<usize> {
        Ok(0)
    }
}

/// Serves two connections, of which the first may have a fault, as the listener may; then shuts down.
async fn served(first: Faulty, second: Faulty, listener: Option<(usize, Fault)>) {
    let stop = CancellationToken::new();
    let listener = Accepting {
        sockets: VecDeque::from([first, second]),
        fault: listener,
        calls: 0,
        stopped: false,
    };
    let server = Server::new().shutdown_timeout(Duration::from_secs(100));
    let serving = server.serve(listener, stop.clone(), |connection| async move {
        let mut channel = builder().build(connection.io);
        channel.run(handler(Arc::default())).await;
    });
    let mut serving = pin!(serving);
    // By then all deadlines have passed.
    let early = tokio::time::timeout(Duration::from_secs(120), serving.as_mut()).await;
    assert!(early.is_err(), "it goes on serving: {early:?}");
    stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(120), serving).await;
    ended.expect("it ends").expect("and well");
}

#[tokio::test(start_paused = true)]
async fn under_a_server_one_connection_does_not_harm_the_other() {
    let sound = Faulty::new(READS, None);
    served(sound.clone(), Faulty::new(READS, None), None).await;
    let calls = sound.wire().calls.len();
    let output = sound.wire().output.clone();
    assert!(calls > 10 && output.len() > 10_000);
    for at in 0..calls {
        for fault in FAULTS {
            let (first, second) = (Faulty::new(READS, Some((at, fault))), Faulty::new(READS, None));
            served(first.clone(), second.clone(), None).await;
            assert_eq!(first.wire().misuse, None, "{fault:?} at {at}");
            assert!(second.wire().output == output, "{fault:?} at {at}");
            assert!(second.wire().shut_down, "{fault:?} at {at}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn under_a_server_a_listener_that_fails_for_a_while_is_asked_again() {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    for at in 0..3 {
        for kind in [ConnectionAborted, ConnectionReset, Interrupted] {
            let (first, second) = (Faulty::new(READS, None), Faulty::new(READS, None));
            served(first.clone(), second.clone(), Some((at, Fault::Fail(kind)))).await;
            assert!(first.wire().shut_down && second.wire().shut_down, "{kind:?} at {at}");
        }
        let (first, second) = (Faulty::new(READS, None), Faulty::new(READS, None));
        served(first.clone(), second.clone(), Some((at, Fault::Stop))).await;
        assert_eq!(first.wire().shut_down, at > 0, "stopped at {at}");
        assert_eq!(second.wire().shut_down, at > 1, "stopped at {at}");
    }
}
