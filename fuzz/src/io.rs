//! A stream whose peer follows a plan, and functions that poll a future and notice a lost wake-up.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};

use arbitrary::Unstructured;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::plan::below;

/// What a write, a flush or a shutdown does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A write takes up to so many bytes; a flush or a shutdown succeeds.
    Take(usize),
    /// Is pending, and wakes the task at once.
    Pending,
    Fail,
}

pub fn step(u: &mut Unstructured<'_>) -> Step {
    match below(u, 16) {
        0..6 => Step::Take(1 + below(u, 30)),
        6..9 => Step::Take(1 + below(u, 5000)),
        9 | 10 => Step::Take(usize::MAX),
        11..15 => Step::Pending,
        _ => Step::Fail,
    }
}

/// What the peer does, and what it has seen.
#[derive(Debug, Default)]
pub struct Peer {
    /// What is read. An empty read is a pause: it is pending, and wakes the task at once.
    pub reads: VecDeque<Vec<u8>>,
    /// Whether the end of the input follows the reads.
    pub ends: bool,
    /// What writes, flushes and shutdowns do, in order. When it is used up, all succeed.
    pub steps: VecDeque<Step>,
    pub vectored: bool,
    pub wire: Vec<u8>,
    pub flushed: usize,
    pub shut_down: bool,
    pub failed: bool,
    /// The number of reads, writes, flushes and shutdowns, by which an endless loop is noticed.
    pub calls: usize,
}

#[derive(Clone, Debug, Default)]
pub struct Io(Arc<Mutex<Peer>>);

impl Io {
    pub fn new(peer: Peer) -> Self {
        Io(Arc::new(Mutex::new(peer)))
    }

    pub fn peer(&self) -> MutexGuard<'_, Peer> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn has_failed(&self) -> bool {
        self.peer().failed
    }

    /// Whether all input has been read and its end does not follow, so that a reader waits for ever.
    pub fn is_at_rest(&self) -> bool {
        let peer = self.peer();
        !peer.ends && peer.reads.is_empty()
    }

    fn step(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut peer = self.peer();
        peer.calls += 1;
        assert!(peer.calls < 1_000_000, "calls for ever");
        assert!(!peer.shut_down, "used after the shutdown");
        assert!(!peer.failed, "used after it failed");
        match peer.steps.pop_front().unwrap_or(Step::Take(usize::MAX)) {
            Step::Take(count) => Poll::Ready(Ok(count)),
            Step::Pending => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Step::Fail => {
                peer.failed = true;
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            }
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut peer = self.peer();
        peer.calls += 1;
        assert!(peer.calls < 1_000_000, "reads for ever");
        assert!(room.remaining() > 0, "no room to read");
        match peer.reads.pop_front() {
            None if peer.ends => Poll::Ready(Ok(())),
            None => Poll::Pending,
            Some(read) if read.is_empty() => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(mut read) => {
                let rest = read.split_off(read.len().min(room.remaining()));
                room.put_slice(&read);
                if !rest.is_empty() {
                    peer.reads.push_front(rest);
                }
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for Io {
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
        assert!(slices.len() == 1 || self.peer().vectored);
        assert!(slices.iter().any(|slice| !slice.is_empty()), "nothing is to be written");
        let offered = slices.iter().map(|slice| slice.len()).sum();
        let count = std::task::ready!(self.step(cx))?.min(offered);
        let mut left = count;
        for slice in slices {
            let part = left.min(slice.len());
            self.peer().wire.extend_from_slice(&slice[..part]);
            left -= part;
        }
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.peer().vectored
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.step(cx))?;
        let mut peer = self.peer();
        peer.flushed = peer.wire.len();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A stream may be shut down after it has failed, and nothing else may be done with it.
        let failed = std::mem::take(&mut self.peer().failed);
        let done = self.step(cx);
        self.peer().failed |= failed;
        std::task::ready!(done)?;
        self.peer().shut_down = true;
        Poll::Ready(Ok(()))
    }
}

/// A waker that counts how often it is called.
#[derive(Default)]
pub struct Wakes(AtomicUsize);

impl Wakes {
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Why a future was not polled to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfinished {
    /// It was pending, and nothing has called its waker.
    Asleep,
    /// The caller wanted to stop.
    Stopped,
}

/// Polls a future until it is ready. Returns `None` if it is pending and its waker has not been called.
pub fn drive<F: Future>(future: Pin<&mut F>) -> Option<F::Output> {
    drive_until(future, || false).ok()
}

/// As [`drive`], but also stops at a pending poll if `stop` returns `true`.
pub fn drive_until<F: Future>(
    mut future: Pin<&mut F>,
    mut stop: impl FnMut() -> bool,
) -> Result<F::Output, Unfinished> {
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(wakes.clone());
    loop {
        let before = wakes.count();
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return Ok(output),
            Poll::Pending if wakes.count() == before => return Err(Unfinished::Asleep),
            Poll::Pending if stop() => return Err(Unfinished::Stopped),
            Poll::Pending => {}
        }
    }
}
