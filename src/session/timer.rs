//! When has a connection taken too long?
//!
//! A channel tells what happens, and asks at the end of each poll that has to wait. One timer serves all
//! deadlines. It is not moved when a deadline does: it goes off, finds that there is time left, and
//! goes to sleep again, so that a busy channel pays for a look at the clock and no more.

use std::mem;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{error, fmt};

use tokio::time::{Instant, Sleep, sleep_until};

/// How long a connection may take. `None` is for ever. Times are kept in nanoseconds, up to 292 years.
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
    /// Without a byte in either direction: 5 minutes by default. After a close, only those that the peer
    /// takes count.
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
    /// was sent last: 2 seconds by default. Up to 256 KiB of input are read and dropped meanwhile, and
    /// while the last output is written. `None` neither waits nor reads.
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
    /// In nanoseconds, as are the rest; [`NEVER`] is for ever.
    idle: i64,
    frame: i64,
    write_stall: i64,
    linger: i64,
    min_rate: u32,
}

impl PackedTimeouts {
    /// What holds while the channel lingers.
    pub(crate) fn lingering(self) -> Self {
        PackedTimeouts { idle: self.linger, ..Timeouts::NONE.into() }
    }

    pub(crate) fn lingers(self) -> bool {
        self.linger < NEVER
    }

    fn is_none(&self) -> bool {
        self.idle == NEVER && self.frame == NEVER && self.write_stall == NEVER
    }
}

impl From<Timeouts> for PackedTimeouts {
    fn from(timeouts: Timeouts) -> Self {
        let nanos = |time: Option<Duration>| time.map_or(NEVER, |time| nanos(time).min(NEVER - 1));
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
        let time = |nanos: i64| (nanos < NEVER).then(|| Duration::from_nanos(nanos.unsigned_abs()));
        Timeouts {
            idle: time(packed.idle),
            frame: time(packed.frame),
            min_rate: packed.min_rate,
            write_stall: time(packed.write_stall),
            linger: time(packed.linger),
        }
    }
}

/// When things happened on one channel, in nanoseconds on a clock of its own. It is small, as there is
/// one for each connection, and what has no deadlines does not look at the clock.
#[derive(Debug)]
pub(crate) struct Timer {
    /// When a byte last moved.
    progress: i64,
    /// Since when the writer has refused what is ready for it, or `NEVER`.
    stalled: i64,
    /// Since when the peer has owed the rest of a frame, or `NEVER`.
    waiting: i64,
    /// How long it had been waited for before.
    waited: i64,
    /// There is one from the first wait with a deadline on.
    sleep: Option<Pin<Box<Sleep>>>,
    /// There are deadlines, or were. Else times are not kept.
    kept: bool,
    /// The writer refuses what is ready for it.
    refused: bool,
    /// A frame is over, which has not been taken into account yet.
    frame_ended: bool,
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
    pub(crate) fn new(timeouts: &PackedTimeouts) -> Self {
        let kept = !timeouts.is_none();
        Timer {
            progress: if kept { now() } else { NEVER },
            stalled: NEVER,
            waiting: NEVER,
            waited: 0,
            sleep: None,
            kept,
            refused: false,
            frame_ended: false,
        }
    }

    /// Bytes were read.
    pub(crate) fn has_read(&mut self) {
        if self.kept {
            self.progress = now();
            self.pause(self.progress);
        }
    }

    /// Bytes were written.
    pub(crate) fn has_written(&mut self) {
        if self.kept {
            self.progress = now();
        }
        self.has_flushed();
    }

    /// The writer refuses what is ready for it.
    pub(crate) fn is_stalled(&mut self) {
        self.refused = true;
        if self.kept && self.stalled == NEVER {
            self.stalled = now();
        }
    }

    /// There is nothing to be written.
    pub(crate) fn has_flushed(&mut self) {
        self.refused = false;
        self.stalled = NEVER;
    }

    /// A frame is over: the next has all its time.
    #[inline]
    pub(crate) fn frame_ended(&mut self) {
        self.frame_ended = true;
    }

    /// The peer is not waited for any more.
    fn pause(&mut self, now: i64) {
        if self.waiting < NEVER {
            self.waited += now - self.waiting;
            self.waiting = NEVER;
        }
    }

    /// Waits for the first deadline, in a poll that waits for whatever else there is.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        timeouts: &PackedTimeouts,
        owed: Owed,
    ) -> Poll<Timeout> {
        if mem::take(&mut self.frame_ended) {
            self.waited = 0;
            self.waiting = NEVER;
        }
        let frame = match owed {
            Owed::Nothing => NEVER,
            Owed::Count(_) if timeouts.min_rate == 0 => NEVER,
            Owed::Frame => timeouts.frame,
            Owed::Count(received) => {
                let earned = Duration::from_secs(received / u64::from(timeouts.min_rate));
                timeouts.frame.saturating_add(nanos(earned))
            }
        };
        if !self.kept {
            if timeouts.is_none() {
                return Poll::Pending;
            }
            self.kept = true;
            self.progress = now();
            self.stalled = if self.refused { self.progress } else { NEVER };
        }
        match owed {
            Owed::Nothing => {
                if self.waiting < NEVER {
                    self.pause(now());
                }
            }
            Owed::Frame | Owed::Count(_) => {
                if self.waiting == NEVER {
                    self.waiting = now();
                }
            }
        }
        let deadlines = [
            (self.progress, timeouts.idle, Timeout::Idle),
            (self.stalled, timeouts.write_stall, Timeout::WriteStall),
            (self.waiting, if frame < NEVER { frame - self.waited } else { NEVER }, Timeout::Frame),
        ];
        let first = deadlines
            .into_iter()
            .filter(|(since, time, _)| *since < NEVER && *time < NEVER)
            .map(|(since, time, timeout)| (since.saturating_add(time), timeout))
            .min_by_key(|(deadline, _)| *deadline);
        let Some((deadline, timeout)) = first else {
            return Poll::Pending;
        };
        let instant = instant(deadline);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(instant)));
        loop {
            if sleep.deadline() > instant {
                sleep.as_mut().reset(instant);
            }
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if Instant::now() >= instant {
                return Poll::Ready(timeout);
            }
            sleep.as_mut().reset(instant);
        }
    }
}

/// No time, or no end of it.
const NEVER: i64 = i64::MAX;
/// Where a clock can be relied on to go.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// Where the channels' clock has its zero.
fn zero() -> Instant {
    static ZERO: OnceLock<std::time::Instant> = OnceLock::new();
    (*ZERO.get_or_init(std::time::Instant::now)).into()
}

/// The time on the channels' clock. It may be below zero: a clock that was stopped is behind.
fn now() -> i64 {
    let (now, zero) = (Instant::now(), zero());
    nanos(now.saturating_duration_since(zero)) - nanos(zero.saturating_duration_since(now))
}

fn instant(time: i64) -> Instant {
    let distance = Duration::from_nanos(time.unsigned_abs());
    let instant =
        if time < 0 { zero().checked_sub(distance) } else { zero().checked_add(distance) };
    // Some systems' clocks end before `NEVER`.
    instant.unwrap_or_else(|| Instant::now() + FAR)
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(NEVER)
}
