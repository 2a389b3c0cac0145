//! What the tests of a channel share: a stream in memory whose other end is scripted ([`pipe`]), and a
//! handler that does what a closure says and notes what it was called with ([`Scripted`]).
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use asynchat::{Chunk, CloseReason, Control, Event, Handler, Timeouts};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream for a channel, and the other end of it.
pub fn pipe() -> (Socket, Peer) {
    let wire =
        Arc::new(Mutex::new(Wire { window: usize::MAX, chop: usize::MAX, ..Wire::default() }));
    (Socket { wire: wire.clone() }, Peer { wire })
}

/// The channel's end of a [`pipe`]. It panics if it is used after it was shut down or has failed, and records all that
/// was done with it.
#[derive(Debug)]
pub struct Socket {
    wire: Arc<Mutex<Wire>>,
}

/// The test's end of a [`pipe`].
#[derive(Clone, Debug)]
pub struct Peer {
    wire: Arc<Mutex<Wire>>,
}

#[derive(Clone, Debug, Default)]
pub struct Wire {
    input: VecDeque<u8>,
    eof: bool,
    read_error: Option<io::ErrorKind>,
    /// The most bytes that one read returns.
    chop: usize,
    pub output: Vec<u8>,
    /// How many more bytes writes may take.
    window: usize,
    write_error: Option<io::ErrorKind>,
    flush_stuck: bool,
    shutdown_stuck: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    pub reads: usize,
    pub writes: usize,
    pub flushes: usize,
    pub shutdowns: usize,
    /// How many bytes of the output were flushed.
    pub flushed: usize,
    /// The most bytes that one read had room for.
    pub room: usize,
    pub dropped: bool,
}

impl Peer {
    /// What has been done so far.
    pub fn wire(&self) -> Wire {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Wire> {
        self.wire.lock().unwrap()
    }

    pub fn send(&self, bytes: impl AsRef<[u8]>) {
        let mut wire = self.lock();
        wire.input.extend(bytes.as_ref());
        wire.wake_reader();
    }

    /// Ends the input of the channel.
    pub fn close(&self) {
        let mut wire = self.lock();
        wire.eof = true;
        wire.wake_reader();
    }

    /// Resets the connection: writes fail at once, and reads fail when the input is used up.
    pub fn reset(&self) {
        let mut wire = self.lock();
        wire.read_error = Some(io::ErrorKind::ConnectionReset);
        wire.write_error = Some(io::ErrorKind::BrokenPipe);
        wire.wake_reader();
        wire.wake_writer();
    }

    /// Lets writes take no more than this many bytes from now on.
    pub fn take(&self, bytes: usize) {
        let mut wire = self.lock();
        wire.window = bytes;
        wire.wake_writer();
    }

    /// Lets writes take this many bytes more.
    pub fn take_more(&self, bytes: usize) {
        let mut wire = self.lock();
        wire.window = wire.window.saturating_add(bytes);
        wire.wake_writer();
    }

    /// Lets a read return at most this many bytes.
    pub fn chop(&self, bytes: usize) {
        self.lock().chop = bytes;
    }

    pub fn stick_flush(&self, stuck: bool) {
        let mut wire = self.lock();
        wire.flush_stuck = stuck;
        wire.wake_writer();
    }

    pub fn stick_shutdown(&self, stuck: bool) {
        let mut wire = self.lock();
        wire.shutdown_stuck = stuck;
        wire.wake_writer();
    }

    /// All that the channel has written, which must be UTF-8.
    #[track_caller]
    pub fn output(&self) -> String {
        String::from_utf8(self.lock().output.clone()).unwrap()
    }

    /// How many bytes were sent and not read.
    pub fn unread(&self) -> usize {
        self.lock().input.len()
    }

    pub fn is_shut_down(&self) -> bool {
        self.lock().shutdowns > 0
    }
}

impl Wire {
    fn wake_reader(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    fn wake_writer(&mut self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Ok(mut wire) = self.wire.lock() {
            wire.dropped = true;
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut wire = self.wire.lock().unwrap();
        wire.reads += 1;
        wire.room = wire.room.max(buf.remaining());
        let count = wire.input.len().min(wire.chop).min(buf.remaining());
        if count > 0 {
            let bytes: Vec<u8> = wire.input.drain(..count).collect();
            buf.put_slice(&bytes);
            return Poll::Ready(Ok(()));
        }
        if let Some(kind) = wire.read_error {
            return Poll::Ready(Err(kind.into()));
        }
        if wire.eof {
            return Poll::Ready(Ok(()));
        }
        wire.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut wire = self.wire.lock().unwrap();
        assert_eq!(wire.shutdowns, 0, "written after the shutdown");
        assert!(!buf.is_empty(), "nothing is to be written");
        wire.writes += 1;
        if let Some(kind) = wire.write_error {
            return Poll::Ready(Err(kind.into()));
        }
        let count = wire.window.min(buf.len());
        if count == 0 {
            wire.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if wire.window != usize::MAX {
            wire.window -= count;
        }
        wire.output.extend_from_slice(&buf[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.wire.lock().unwrap();
        assert_eq!(wire.shutdowns, 0, "flushed after the shutdown");
        if let Some(kind) = wire.write_error {
            return Poll::Ready(Err(kind.into()));
        }
        if wire.flush_stuck {
            wire.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        wire.flushes += 1;
        wire.flushed = wire.output.len();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.wire.lock().unwrap();
        if wire.shutdown_stuck {
            wire.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        wire.shutdowns += 1;
        Poll::Ready(Ok(()))
    }
}

/// What a handler was called with. Adjacent data is merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Data(String),
    End,
    Overlong,
    Eof,
    Truncated,
    Closed(String),
}

pub fn data(text: &str) -> Seen {
    Seen::Data(text.into())
}

/// What the handler does after the closure.
pub enum Then {
    Go,
    Fail(&'static str),
    /// Wait, and then perhaps do something more.
    Wait(Waiting, After),
}

pub type Waiting = Pin<Box<dyn Future<Output = ()> + Send>>;
pub type After = Box<dyn FnOnce(&mut Control<'_>) + Send>;

pub fn wait(waiting: impl Future<Output = ()> + Send + 'static) -> Then {
    Then::Wait(Box::pin(waiting), Box::new(|_| ()))
}

pub fn wait_then(
    waiting: impl Future<Output = ()> + Send + 'static,
    after: impl FnOnce(&mut Control<'_>) + Send + 'static,
) -> Then {
    Then::Wait(Box::pin(waiting), Box::new(after))
}

/// A handler that records each call, then asks a closure what to do. Only callbacks that can wait may
/// return [`Then::Wait`].
pub struct Scripted<F> {
    pub log: Log,
    whole: bool,
    act: F,
}

#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<Vec<Seen>>>);

impl Log {
    pub fn seen(&self) -> Vec<Seen> {
        self.0.lock().unwrap().clone()
    }

    pub fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    pub fn note(&self, seen: Seen) {
        let mut log = self.0.lock().unwrap();
        match (log.last_mut(), seen) {
            (Some(Seen::Data(before)), Seen::Data(more)) => before.push_str(&more),
            (_, seen) => log.push(seen),
        }
    }
}

impl<F> Scripted<F>
where
    F: FnMut(&Seen, &mut Control<'_>) -> Then + Send,
{
    pub fn new(act: F) -> Self {
        Scripted { log: Log::default(), whole: false, act }
    }

    /// For frames that are handed over whole: records each once, and an empty one not at all.
    pub fn whole(mut self, whole: bool) -> Self {
        self.whole = whole;
        self
    }

    async fn call(&mut self, seen: Seen, control: &mut Control<'_>) -> Result<(), &'static str> {
        self.log.note(seen.clone());
        match (self.act)(&seen, control) {
            Then::Go => {}
            Then::Fail(why) => return Err(why),
            Then::Wait(waiting, after) => {
                waiting.await;
                after(control);
            }
        }
        Ok(())
    }
}

impl<F> Handler for Scripted<F>
where
    F: FnMut(&Seen, &mut Control<'_>) -> Then + Send,
{
    type Error = &'static str;

    fn collect_incoming_data(
        &mut self,
        data: Chunk<'_>,
        control: &mut Control<'_>,
    ) -> Result<(), &'static str> {
        if data.is_empty() {
            assert!(self.whole, "a chunk is never empty");
            return Ok(());
        }
        let seen = Seen::Data(String::from_utf8(data.to_vec()).unwrap());
        self.log.note(seen.clone());
        match (self.act)(&seen, control) {
            Then::Go => Ok(()),
            Then::Fail(why) => Err(why),
            Then::Wait(..) => unreachable!("this callback does not wait"),
        }
    }

    async fn found_terminator(&mut self, control: &mut Control<'_>) -> Result<(), &'static str> {
        self.call(Seen::End, control).await
    }

    async fn overlong(&mut self, control: &mut Control<'_>) -> Result<(), &'static str> {
        self.call(Seen::Overlong, control).await
    }

    async fn eof(
        &mut self,
        truncated: bool,
        control: &mut Control<'_>,
    ) -> Result<(), &'static str> {
        let seen = if truncated { Seen::Truncated } else { Seen::Eof };
        self.call(seen, control).await
    }

    fn closed(&mut self, reason: &CloseReason<&'static str>) {
        self.log.note(Seen::Closed(reason.to_string()));
    }
}

/// An event as it is recorded in the log.
pub fn seen(event: Event<Bytes>) -> Seen {
    match event {
        Event::Chunk(bytes) => Seen::Data(String::from_utf8(bytes.to_vec()).unwrap()),
        Event::Terminator => Seen::End,
        Event::Overlong | Event::WrongEnd => Seen::Overlong,
        Event::Truncated => Seen::Truncated,
    }
}

/// Lets every other task run until it can do no more. Needs a paused clock, which stands still
/// meanwhile.
pub async fn settle() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

/// Lets so many seconds of the paused clock pass, in which the other tasks run.
pub async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    settle().await;
}

pub const fn secs(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

/// No deadlines but an idle time of a day, so that a test fails that would wait for its peer for ever: on the paused
/// clock the day is over at once. While a callback waits, the idle time does not run.
pub fn patient() -> Timeouts {
    let mut timeouts = Timeouts::NONE;
    timeouts.idle = secs(24 * 3600);
    timeouts
}
