//! Limits a transfer to a number of bytes per second.

use std::future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use asynchat::producer::Producer;
use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep_until};

/// The rate limit of one transfer.
#[derive(Debug)]
pub(crate) struct Pace {
    /// In bytes per second.
    rate: u32,
    /// When the next bytes may be transferred: when all before have had their time.
    due: Pin<Box<Sleep>>,
}

impl Pace {
    /// `rate` is in bytes per second, at least 1.
    pub(crate) fn new(rate: u32) -> Self {
        Pace { rate: rate.max(1), due: Box::pin(sleep_until(Instant::now())) }
    }

    /// Notes that so many bytes were transferred.
    pub(crate) fn spend(&mut self, bytes: usize) {
        let time = Duration::from_secs_f64(bytes as f64 / f64::from(self.rate));
        let due = self.due.deadline().max(Instant::now()) + time;
        self.due.as_mut().reset(due);
    }

    /// Waits until more may be transferred.
    pub(crate) async fn keep(&mut self) {
        future::poll_fn(|cx| self.poll_keep(cx)).await;
    }

    fn poll_keep(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.due.as_mut().poll(cx)
    }
}

/// Another producer, with a rate limit. While it waits, its channel has nothing to write, and no deadline runs.
#[derive(Debug)]
pub(crate) struct Throttled<P> {
    producer: Pin<Box<P>>,
    pace: Pace,
}

impl<P: Producer> Throttled<P> {
    pub(crate) fn new(producer: P, pace: Pace) -> Self {
        Throttled { producer: Box::pin(producer), pace }
    }
}

impl<P: Producer> Producer for Throttled<P> {
    fn poll_more(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Bytes>>> {
        ready!(self.pace.poll_keep(cx));
        let item = ready!(self.producer.as_mut().poll_more(cx));
        if let Some(Ok(bytes)) = &item {
            self.pace.spend(bytes.len());
        }
        Poll::Ready(item)
    }
}
