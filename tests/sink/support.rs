//! A scripted writer, scripted producers, and a driver that notices lost wake-ups.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use asynchat::{Producer, ProducerSink};
use bytes::Bytes;
use tokio::io::AsyncWrite;
use tokio_util::codec::{BytesCodec, FramedWrite};

/// What a writer, or a producer, does when it is next polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A write takes up to so many bytes; a flush or a shutdown succeeds.
    Take(usize),
    /// It is pending, and wakes the task at once.
    Pending,
    /// It is pending for ever.
    Stuck,
    Fail(io::ErrorKind),
    /// It panics. This is only for writers.
    Panic,
}

/// What a writer has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Did {
    Write(usize),
    Flush,
    Shutdown,
    Fail,
}

impl Did {
    /// How many bytes were written.
    pub(crate) fn len(self) -> usize {
        if let Did::Write(len) = self { len } else { 0 }
    }
}

/// A writer that does what its steps say, and when they are used up, what `then` says.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) steps: VecDeque<Step>,
    pub(crate) then: Step,
    pub(crate) vectored: bool,
    pub(crate) wire: Vec<u8>,
    pub(crate) log: Vec<Did>,
    pub(crate) polls: usize,
    /// The most bytes that were offered at once.
    pub(crate) offered: usize,
}

impl Script {
    pub(crate) fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Script {
            steps: steps.into_iter().collect(),
            then: Step::Take(usize::MAX),
            vectored: true,
            wire: Vec::new(),
            log: Vec::new(),
            polls: 0,
            offered: 0,
        }
    }

    pub(crate) fn then(mut self, step: Step) -> Self {
        self.then = step;
        self
    }

    pub(crate) fn vectored(mut self, vectored: bool) -> Self {
        self.vectored = vectored;
        self
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.polls += 1;
        assert!(
            !self.log.contains(&Did::Shutdown) && !self.log.contains(&Did::Fail),
            "polled after the end"
        );
        match self.steps.pop_front().unwrap_or(self.then) {
            Step::Take(count) => Poll::Ready(Ok(count)),
            Step::Pending => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Step::Stuck => Poll::Pending,
            Step::Fail(kind) => {
                self.log.push(Did::Fail);
                Poll::Ready(Err(kind.into()))
            }
            Step::Panic => panic!("a writer panics, as the test wants"),
        }
    }

    /// How many writes have taken bytes.
    pub(crate) fn writes(&self) -> usize {
        self.log.iter().filter(|did| matches!(did, Did::Write(_))).count()
    }

    /// Checks that all was written and then flushed, and that there was one shutdown and nothing after it.
    #[track_caller]
    pub(crate) fn assert_closed_in_order(&self) {
        let end = self.log.len().saturating_sub(2);
        assert_eq!(self.log[end..], [Did::Flush, Did::Shutdown]);
        let shutdowns = self.log.iter().filter(|did| **did == Did::Shutdown);
        assert_eq!(shutdowns.count(), 1);
    }
}

impl AsyncWrite for Script {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        assert!(slices.len() == 1 || self.vectored);
        assert!(slices.iter().any(|slice| !slice.is_empty()), "empty write");
        let offered = slices.iter().map(|slice| slice.len()).sum();
        self.offered = self.offered.max(offered);
        let count = std::task::ready!(self.step(cx))?.min(offered);
        let mut left = count;
        for slice in slices {
            let part = left.min(slice.len());
            self.wire.extend_from_slice(&slice[..part]);
            left -= part;
        }
        self.log.push(Did::Write(count));
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.vectored
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.step(cx))?;
        self.log.push(Did::Flush);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.step(cx))?;
        self.log.push(Did::Shutdown);
        Poll::Ready(Ok(()))
    }
}

pub(crate) type Sink = ProducerSink<Script, BytesCodec>;

pub(crate) fn sink(script: Script) -> Sink {
    ProducerSink::new(FramedWrite::new(script, BytesCodec::new()))
}

/// What a scripted producer does when it is next asked.
#[derive(Clone, Debug)]
pub(crate) enum More {
    Item(Vec<u8>),
    Pending,
    Fail(io::ErrorKind),
    Panic,
}

/// A producer that does what its steps say, and then ends. It counts when it is dropped.
pub(crate) struct Scripted {
    steps: VecDeque<More>,
    ended: bool,
    pub(crate) polls: Arc<AtomicUsize>,
    pub(crate) drops: Arc<AtomicUsize>,
}

pub(crate) fn scripted(steps: impl IntoIterator<Item = More>) -> Scripted {
    Scripted {
        steps: steps.into_iter().collect(),
        ended: false,
        polls: Arc::default(),
        drops: Arc::default(),
    }
}

impl Producer for Scripted {
    fn poll_more(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Bytes>>> {
        assert!(!self.ended, "asked after the end");
        self.polls.fetch_add(1, Ordering::Relaxed);
        match self.steps.pop_front() {
            Some(More::Item(item)) => Poll::Ready(Some(Ok(item.into()))),
            Some(More::Pending) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(More::Fail(kind)) => {
                self.ended = true;
                Poll::Ready(Some(Err(kind.into())))
            }
            Some(More::Panic) => {
                self.ended = true;
                panic!("a producer panics, as the test wants")
            }
            None => {
                self.ended = true;
                Poll::Ready(None)
            }
        }
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Ordering::Relaxed);
    }
}

/// A waker that counts how often it is called.
#[derive(Default)]
pub(crate) struct Wakes(AtomicUsize);

impl Wakes {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Polls a future once.
pub(crate) fn poll_once<F: Future>(wakes: &Arc<Wakes>, future: F) -> Poll<F::Output> {
    let waker = Waker::from(wakes.clone());
    pin!(future).poll(&mut Context::from_waker(&waker))
}

/// Polls a call of a sink until it is ready, with a new future each time, and returns how many polls that took.
///
/// So each future but the last is dropped before it is ready.
macro_rules! drive {
    ($sink:ident.$call:ident()) => {{
        let wakes = std::sync::Arc::new($crate::support::Wakes::default());
        let mut polls = 0_usize;
        loop {
            let before = wakes.count();
            polls += 1;
            match $crate::support::poll_once(&wakes, $sink.$call()) {
                std::task::Poll::Ready(output) => break (output, polls),
                std::task::Poll::Pending => {
                    assert!(wakes.count() > before, "pending, and nobody will wake it");
                }
            }
        }
    }};
}
pub(crate) use drive;

/// `len` bytes that differ from position to position, so that missing and exchanged ones are noticed.
pub(crate) fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (seed..seed + len).map(|n| (n * 31 + n / 251) as u8).collect()
}
