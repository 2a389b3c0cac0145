//! When has a connection taken too long?
//!
//! A channel tells what happens, and asks at the end of each poll that has to wait. One timer serves all
//! deadlines. It is not moved when a deadline does: it goes off, finds that there is time left, and
//! goes to sleep again, so that a busy channel pays for a look at the clock and no more.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{error, fmt};

use tokio::time::{Instant, Sleep, sleep_until};

/// How long a connection may take. `None` is for ever.
///
/// ```
/// use asynchat::Timeouts;
/// use std::time::Duration;
///
/// let mut timeouts = Timeouts::default();
/// assert_eq!(timeouts.idle, Some(Duration::from_secs(300)));
/// timeouts.frame = Some(Duration::from_secs(10));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// Without a byte in either direction: 5 minutes by default.
    pub idle: Option<Duration>,
    /// From the first byte of a frame to its end: 60 seconds by default. Only time spent waiting for
    /// the peer counts, not that under our own back-pressure or while a callback awaits. There is none
    /// for [`Terminator::None`](crate::Terminator::None), which has no frames.
    pub frame: Option<Duration>,
    /// For a counted frame, the time allowed in `frame` grows by a second for each so many bytes
    /// received, so that an honest upload may take as long as it needs: 1024 by default. 0 is no
    /// deadline at all for counted frames.
    pub min_rate: u32,
    /// Without the peer taking a byte of what is ready for it: 60 seconds by default.
    pub write_stall: Option<Duration>,
    /// After a close, how long to wait for the peer to close too, so that a reset does not destroy what
    /// was sent last: 2 seconds by default. `None` does not wait.
    pub linger: Option<Duration>,
}

impl Timeouts {
    /// No deadlines: for peers that are trusted, and for tests.
    pub const NONE: Timeouts =
        Timeouts { idle: None, frame: None, min_rate: 0, write_stall: None, linger: None };
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            idle: Some(Duration::from_secs(300)),
            frame: Some(Duration::from_secs(60)),
            min_rate: 1024,
            write_stall: Some(Duration::from_secs(60)),
            linger: Some(Duration::from_secs(2)),
        }
    }
}

/// Which deadline has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Timeout {
    /// [`Timeouts::idle`].
    Idle,
    /// [`Timeouts::frame`], with its minimum rate for counted frames.
    Frame,
    /// [`Timeouts::write_stall`].
    WriteStall,
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Timeout::Idle => "connection idle for too long",
            Timeout::Frame => "frame took too long to arrive",
            Timeout::WriteStall => "peer took too long to read",
        })
    }
}

impl error::Error for Timeout {}

/// The clock of one channel.
#[derive(Debug)]
pub(crate) struct Timer {
    /// When a byte last moved.
    progress: Instant,
    /// Since when the writer has refused what is ready for it.
    stalled: Option<Instant>,
    /// Since when the peer has owed the rest of a frame.
    waiting: Option<Instant>,
    /// How long it had been waited for before.
    waited: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
}

/// What the peer owes, when a channel waits for input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owed {
    /// Nothing, or it is not the peer that is waited for.
    Nothing,
    /// The rest of a frame that ends at a delimiter.
    Frame,
    /// The rest of a counted frame, of which so many bytes have come.
    Count(u64),
}

impl Timer {
    pub(crate) fn new() -> Self {
        Timer {
            progress: Instant::now(),
            stalled: None,
            waiting: None,
            waited: Duration::ZERO,
            sleep: None,
        }
    }

    /// Bytes were read.
    pub(crate) fn has_read(&mut self) {
        let now = Instant::now();
        self.progress = now;
        if let Some(since) = self.waiting.take() {
            self.waited += now - since;
        }
    }

    /// Bytes were written.
    pub(crate) fn has_written(&mut self) {
        self.progress = Instant::now();
        self.stalled = None;
    }

    /// The writer refuses what is ready for it.
    pub(crate) fn is_stalled(&mut self) {
        self.stalled.get_or_insert_with(Instant::now);
    }

    /// There is nothing to be written.
    pub(crate) fn has_flushed(&mut self) {
        self.stalled = None;
    }

    /// A frame is over: the next has all its time.
    #[inline]
    pub(crate) fn frame_ended(&mut self) {
        self.waited = Duration::ZERO;
    }

    /// Waits for the first deadline, in a poll that waits for whatever else there is.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        timeouts: &Timeouts,
        owed: Owed,
    ) -> Poll<Timeout> {
        match owed {
            Owed::Nothing => {
                if let Some(since) = self.waiting.take() {
                    self.waited += since.elapsed();
                }
            }
            Owed::Frame | Owed::Count(_) => {
                self.waiting.get_or_insert_with(Instant::now);
            }
        }
        loop {
            let Some((deadline, timeout)) = self.first(timeouts, owed) else {
                return Poll::Pending;
            };
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            if sleep.deadline() > deadline {
                sleep.as_mut().reset(deadline);
            }
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if Instant::now() >= deadline {
                return Poll::Ready(timeout);
            }
            sleep.as_mut().reset(deadline);
        }
    }

    fn first(&self, timeouts: &Timeouts, owed: Owed) -> Option<(Instant, Timeout)> {
        let frame = match owed {
            Owed::Nothing => None,
            Owed::Frame => timeouts.frame,
            Owed::Count(_) if timeouts.min_rate == 0 => None,
            Owed::Count(received) => timeouts.frame.map(|grace| {
                grace.saturating_add(Duration::from_secs(received / u64::from(timeouts.min_rate)))
            }),
        };
        let deadlines = [
            (Some(self.progress), timeouts.idle, Timeout::Idle),
            (self.stalled, timeouts.write_stall, Timeout::WriteStall),
            (self.waiting, frame.map(|time| time.saturating_sub(self.waited)), Timeout::Frame),
        ];
        deadlines
            .into_iter()
            .filter_map(|(since, time, timeout)| Some((since?.checked_add(time?)?, timeout)))
            .min_by_key(|(deadline, _)| *deadline)
    }
}
