//! When has a connection taken too long?
//!
//! A channel tells what happens, and asks at the end of each poll that has to wait. One timer serves all
//! deadlines. It is not moved when a deadline does: it goes off, finds that there is time left, and
//! goes to sleep again, so that a busy channel pays for a look at the clock and no more.

use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{error, fmt};

use pin_project_lite::pin_project;
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

/// [`Timeouts`] as a channel keeps them: in half the room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackedTimeouts {
    /// In nanoseconds, as are the rest; `u64::MAX` is for ever.
    idle: u64,
    frame: u64,
    write_stall: u64,
    linger: u64,
    min_rate: u32,
}

impl From<Timeouts> for PackedTimeouts {
    fn from(timeouts: Timeouts) -> Self {
        let nanos = |time: Option<Duration>| {
            time.and_then(|time| u64::try_from(time.as_nanos()).ok()).unwrap_or(u64::MAX)
        };
        PackedTimeouts {
            idle: nanos(timeouts.idle),
            frame: nanos(timeouts.frame),
            write_stall: nanos(timeouts.write_stall),
            linger: nanos(timeouts.linger),
            min_rate: timeouts.min_rate,
        }
    }
}

impl From<PackedTimeouts> for Timeouts {
    fn from(packed: PackedTimeouts) -> Self {
        let time = |nanos: u64| (nanos < u64::MAX).then(|| Duration::from_nanos(nanos));
        Timeouts {
            idle: time(packed.idle),
            frame: time(packed.frame),
            min_rate: packed.min_rate,
            write_stall: time(packed.write_stall),
            linger: time(packed.linger),
        }
    }
}

/// When things happened on one channel. What has no deadlines needs no clock.
#[derive(Debug)]
pub(crate) struct Timer {
    /// There is one from the first wait with a deadline on.
    clock: Option<Pin<Box<Clock>>>,
    /// The writer refuses what is ready for it.
    stalled: bool,
    /// A frame is over, and the clock has not been told.
    frame_ended: bool,
}

pin_project! {
    #[derive(Debug)]
    struct Clock {
        // When a byte last moved.
        progress: Instant,
        // Since when the writer has refused what is ready for it.
        stalled: Option<Instant>,
        // Since when the peer has owed the rest of a frame.
        waiting: Option<Instant>,
        // How long it had been waited for before.
        waited: Duration,
        #[pin]
        sleep: Sleep,
    }
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
        Timer { clock: None, stalled: false, frame_ended: false }
    }

    /// Bytes were read.
    pub(crate) fn has_read(&mut self) {
        if let Some(clock) = &mut self.clock {
            let clock = clock.as_mut().project();
            let now = Instant::now();
            *clock.progress = now;
            if let Some(since) = clock.waiting.take() {
                *clock.waited += now - since;
            }
        }
    }

    /// Bytes were written.
    pub(crate) fn has_written(&mut self) {
        if let Some(clock) = &mut self.clock {
            *clock.as_mut().project().progress = Instant::now();
        }
        self.has_flushed();
    }

    /// The writer refuses what is ready for it.
    pub(crate) fn is_stalled(&mut self) {
        self.stalled = true;
        if let Some(clock) = &mut self.clock {
            clock.as_mut().project().stalled.get_or_insert_with(Instant::now);
        }
    }

    /// There is nothing to be written.
    pub(crate) fn has_flushed(&mut self) {
        self.stalled = false;
        if let Some(clock) = &mut self.clock {
            *clock.as_mut().project().stalled = None;
        }
    }

    /// A frame is over: the next has all its time.
    #[inline]
    pub(crate) fn frame_ended(&mut self) {
        self.frame_ended = true;
    }

    /// Waits for the first deadline, in a poll that waits for whatever else there is.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        timeouts: &Timeouts,
        owed: Owed,
    ) -> Poll<Timeout> {
        let clock = match &mut self.clock {
            Some(clock) => clock,
            None if *timeouts == Timeouts::NONE => return Poll::Pending,
            None => {
                let mut clock = Clock::new();
                clock.stalled = self.stalled.then_some(clock.progress);
                self.clock.insert(Box::pin(clock))
            }
        };
        clock.as_mut().poll(cx, timeouts, owed, mem::take(&mut self.frame_ended))
    }
}

impl Clock {
    fn new() -> Self {
        let now = Instant::now();
        Clock {
            progress: now,
            stalled: None,
            waiting: None,
            waited: Duration::ZERO,
            sleep: sleep_until(now + NEVER),
        }
    }

    fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        timeouts: &Timeouts,
        owed: Owed,
        frame_ended: bool,
    ) -> Poll<Timeout> {
        let mut clock = self.project();
        if frame_ended {
            *clock.waited = Duration::ZERO;
        }
        match owed {
            Owed::Nothing => {
                if let Some(since) = clock.waiting.take() {
                    *clock.waited += since.elapsed();
                }
            }
            Owed::Frame | Owed::Count(_) => {
                clock.waiting.get_or_insert_with(Instant::now);
            }
        }
        let frame = match owed {
            Owed::Nothing => None,
            Owed::Frame => timeouts.frame,
            Owed::Count(_) if timeouts.min_rate == 0 => None,
            Owed::Count(received) => timeouts.frame.map(|grace| {
                grace.saturating_add(Duration::from_secs(received / u64::from(timeouts.min_rate)))
            }),
        };
        let deadlines = [
            (Some(*clock.progress), timeouts.idle, Timeout::Idle),
            (*clock.stalled, timeouts.write_stall, Timeout::WriteStall),
            (*clock.waiting, frame.map(|time| time.saturating_sub(*clock.waited)), Timeout::Frame),
        ];
        let first = deadlines
            .into_iter()
            .filter_map(|(since, time, timeout)| Some((since?.checked_add(time?)?, timeout)))
            .min_by_key(|(deadline, _)| *deadline);
        let Some((deadline, timeout)) = first else {
            return Poll::Pending;
        };
        loop {
            if clock.sleep.deadline() > deadline {
                clock.sleep.as_mut().reset(deadline);
            }
            if clock.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if Instant::now() >= deadline {
                return Poll::Ready(timeout);
            }
            clock.sleep.as_mut().reset(deadline);
        }
    }
}

/// What a clock is set to before it is set.
const NEVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);
