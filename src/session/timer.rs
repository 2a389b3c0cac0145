//! When has the peer been waited for too long?
//!
//! The deadlines are stopwatches, not dates: each runs only while the peer is what is waited for, and stands still
//! while the channel's own side is busy. A channel notes what happens without looking at the clock
//! ([`Timer::read`], [`Timer::wrote`], [`Timer::frame_ended`]). It looks at the clock once, at the end of each
//! poll that has to wait ([`Timer::poll`]): that adds the time since the last look to the stopwatches that ran,
//! resets those for which there was progress, and sets the alarm to the deadline that comes first. One alarm
//! serves all. It is not moved when a deadline is put off: it goes off, finds that there is time left, and is set
//! again.
//!
//! To add a deadline: a field in [`Timeouts`] and in [`Deadlines`], a variant in [`Timeout`], and a stopwatch in
//! [`Watches`] with a line in each of its methods.

use std::pin::{Pin, pin};
use std::sync::{Arc, LazyLock, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use std::{error, fmt, mem};

use pin_project_lite::pin_project;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

/// How long a connection may take. `None` is for ever.
///
/// All but `session` count only time in which the peer is waited for, to send or to take what is sent to it:
/// not while a callback runs, and not between two calls of the pull interface. In particular:
///
/// - While a callback awaits something, only `write_stall` runs: output goes out meanwhile.
/// - While a producer has nothing yet, `idle`, `quiet` and `write_stall` stand still. `frame` goes on, if the
///   peer has begun a frame, and so does `shutdown`.
/// - While too much output is queued for more to be read, and while nothing is read because a flush or a close is
///   awaited, `quiet`, `frame` and `shutdown` stand still.
///
/// ```
/// use asynchat::Timeouts;
/// use std::time::Duration;
///
/// let timeouts = Timeouts::default().frame(Duration::from_secs(10)).session(None);
/// assert_eq!(timeouts.frame, Some(Duration::from_secs(10)));
/// assert_eq!(timeouts.idle, Some(Duration::from_secs(300)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// Without a byte in either direction: 5 minutes by default.
    pub idle: Option<Duration>,
    /// Without a byte from the peer, after which it is *asked*: [`Handler::quiet`] can send a `PING`, and
    /// the channel goes on. `None` by default. From then until the peer sends something, what it takes no
    /// longer puts `idle` off, so that a peer that is only sent to is found out.
    ///
    /// [`Handler::quiet`]: crate::Handler::quiet
    pub quiet: Option<Duration>,
    /// From the first byte of a frame to its end, or of a message that was marked as one of several
    /// frames: 60 seconds by default. Bytes that come under [`Terminator::None`](crate::Terminator::None)
    /// are no frame and have no such deadline, unless they are part of a marked message, or of one whose end the
    /// application finds.
    pub frame: Option<Duration>,
    /// The time allowed in `frame` grows by a second each time that this many bytes are received, so that an
    /// honest upload may take as long as it needs: 1024 by default. With 0 it does not grow. Bytes that are
    /// skipped, as the rest of an overlong frame is, earn no time.
    ///
    /// By default, then, a peer that sends 1 KiB a second is never cut off, whatever the length of its
    /// message, and 100 MiB may take it 28 hours. Where messages are large, ask for the rate that they
    /// are worth waiting for.
    pub min_rate: u32,
    /// Without the peer taking a byte of what is ready for it: 60 seconds by default.
    pub write_stall: Option<Duration>,
    /// The whole connection: all time from the first time that the peer is waited for while this is set, that
    /// which callbacks take included. Whether it is over is looked at only when the peer is waited for, or has
    /// sent so much that it need not be: a callback is never cut off by it. `None` by default.
    pub session: Option<Duration>,
    /// How long a message that has begun may take to its end once the signal of
    /// [`Channel::run_until`](crate::Channel::run_until) has come, before
    /// [`Handler::shutdown`](crate::Handler::shutdown) is called in the middle of it: 10 seconds by
    /// default. `None` waits for its end as long as the other deadlines allow.
    pub shutdown: Option<Duration>,
    /// After a close, how long to wait for the peer to close too, so that a reset does not destroy what
    /// was sent last: 2 seconds by default, from when all is written and the stream shut down. Up to 256 KiB
    /// of input are read and dropped meanwhile, and while the last output is written; a peer that sends more
    /// is not waited for. `None` neither waits nor reads. Nor is a peer waited for that has closed already,
    /// or that was `idle` for too long and to which the handler says nothing.
    pub linger: Option<Duration>,
}

macro_rules! setters {
    ($($name:ident),*) => {$(
        #[doc = concat!("Sets [`", stringify!($name), "`](field@Self::", stringify!($name), "), for building.")]
        #[must_use]
        pub fn $name(mut self, time: impl Into<Option<Duration>>) -> Self {
            self.$name = time.into();
            self
        }
    )*};
}

impl Timeouts {
    /// No deadlines: for peers that are trusted, and for tests.
    pub const NONE: Timeouts = Timeouts {
        idle: None,
        quiet: None,
        frame: None,
        min_rate: 0,
        write_stall: None,
        session: None,
        shutdown: None,
        linger: None,
    };

    /// As [`Timeouts::default`].
    pub(crate) const DEFAULT: Timeouts = Timeouts {
        idle: Some(Duration::from_secs(300)),
        quiet: None,
        frame: Some(Duration::from_secs(60)),
        min_rate: 1024,
        write_stall: Some(Duration::from_secs(60)),
        session: None,
        shutdown: Some(Duration::from_secs(10)),
        linger: Some(Duration::from_secs(2)),
    };

    setters!(idle, quiet, frame, write_stall, session, shutdown, linger);

    /// Sets [`min_rate`](field@Self::min_rate), for building.
    #[must_use]
    pub fn min_rate(mut self, bytes_per_second: u32) -> Self {
        self.min_rate = bytes_per_second;
        self
    }

    /// The form in which many channels share them. The default timeouts, and [`NONE`](Self::NONE), are allocated
    /// once for all channels.
    pub(crate) fn shared(self) -> Arc<Deadlines> {
        static DEFAULT: LazyLock<Arc<Deadlines>> =
            LazyLock::new(|| Arc::new(Deadlines::new(Timeouts::DEFAULT)));
        static NONE: LazyLock<Arc<Deadlines>> =
            LazyLock::new(|| Arc::new(Deadlines::new(Timeouts::NONE)));
        match self {
            Timeouts::DEFAULT => DEFAULT.clone(),
            Timeouts::NONE => NONE.clone(),
            other => Arc::new(Deadlines::new(other)),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts::DEFAULT
    }
}

/// Which deadline has passed.
///
/// ```
/// use asynchat::{Channel, ChannelError, Timeout, Timeouts};
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (client, server) = tokio::io::duplex(64);
/// let timeouts = Timeouts::NONE.idle(Duration::from_secs(10));
/// let mut channel = Channel::builder(b"\n").timeouts(timeouts).build(server);
/// let error = channel.next().await.expect("it is idle").unwrap_err();
/// assert!(matches!(error, ChannelError::Timeout(Timeout::Idle)));
/// # drop(client);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Timeout {
    /// [`Timeouts::idle`].
    Idle,
    /// [`Timeouts::quiet`]. It ends nothing: the channel goes on.
    Quiet,
    /// [`Timeouts::frame`], with its minimum rate.
    Frame,
    /// [`Timeouts::write_stall`].
    WriteStall,
    /// [`Timeouts::session`].
    Session,
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Timeout::Idle => "connection idle for too long",
            Timeout::Quiet => "peer is quiet",
            Timeout::Frame => "frame took too long to arrive",
            Timeout::WriteStall => "peer took too long to read",
            Timeout::Session => "connection open for too long",
        })
    }
}

impl error::Error for Timeout {}

/// What is waited for at the end of a poll.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wait {
    /// The peer is waited for: to send, or to take what is ready for it.
    pub(crate) peer: bool,
    /// Input is read if the peer sends some.
    pub(crate) listens: bool,
    /// The peer is to send the rest of this frame.
    pub(crate) frame: Option<AwaitedFrame>,
    /// The writer is pending: it does not take what is ready for it.
    pub(crate) refused: bool,
    /// The connection is to end, and the rest of a message is waited for before that.
    pub(crate) shutdown: bool,
    /// The connection is being closed, and this is how long it may take.
    pub(crate) end: Option<Duration>,
}

/// A frame that has begun, or its message.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AwaitedFrame {
    /// How many bytes of it have come.
    Received(u64),
    /// It was overlong, and the rest of it is dropped.
    Skipped,
}

/// Which of the limits has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    Deadline(Timeout),
    /// [`Timeouts::shutdown`].
    Shutdown,
    /// [`Wait::end`].
    End,
}

/// The timeouts as they are looked at in each wait: in nanoseconds, `NEVER` where there is none.
#[derive(Debug)]
pub(crate) struct Deadlines {
    pub(crate) timeouts: Timeouts,
    idle: i64,
    quiet: i64,
    frame: i64,
    write_stall: i64,
    session: i64,
    shutdown: i64,
}

impl Deadlines {
    fn new(timeouts: Timeouts) -> Self {
        let nanos = |time: Option<Duration>| time.map_or(NEVER, nanos);
        Deadlines {
            timeouts,
            idle: nanos(timeouts.idle),
            quiet: nanos(timeouts.quiet),
            frame: nanos(timeouts.frame),
            write_stall: nanos(timeouts.write_stall),
            session: nanos(timeouts.session),
            shutdown: nanos(timeouts.shutdown),
        }
    }

    /// Whether any deadline limits this wait.
    fn bound(&self, wait: &Wait) -> bool {
        let Timeouts { idle, quiet, frame, write_stall, session, shutdown, .. } = &self.timeouts;
        [idle, quiet, frame, write_stall, session].iter().any(|time| time.is_some())
            || (shutdown.is_some() && wait.shutdown)
            || wait.end.is_some()
    }

    /// How long a frame may take.
    fn of_frame(&self, frame: &AwaitedFrame) -> i64 {
        let earned = match (frame, self.timeouts.min_rate) {
            // What is skipped earns no time.
            (AwaitedFrame::Skipped, _) | (_, 0) => 0,
            (AwaitedFrame::Received(bytes), rate) => bytes / u64::from(rate),
        };
        self.frame.saturating_add(nanos(Duration::from_secs(earned)))
    }
}

/// The stopwatches of one channel. Without deadlines it never looks at the clock, and has no alarm.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    alarm: Option<Pin<Box<Alarm>>>,
    /// This flag and those below say what has happened since the last look at the clock.
    read: bool,
    wrote: bool,
    discarded: bool,
    frame_ended: bool,
    end_began: bool,
}

pin_project! {
    #[derive(Debug)]
    struct Alarm {
        #[pin]
        sleep: Sleep,
        // The waker that `sleep` was polled with last, if it was polled.
        waker: Option<Waker>,
        watches: Watches,
    }
}

impl Timer {
    /// Bytes were read.
    #[inline]
    pub(crate) fn read(&mut self) {
        self.read = true;
    }

    /// The peer has taken bytes.
    #[inline]
    pub(crate) fn wrote(&mut self) {
        self.wrote = true;
    }

    /// Output was dropped that the peer may not have taken: a write stall starts anew.
    pub(crate) fn discard(&mut self) {
        self.discarded = true;
    }

    /// The time that [`Wait::end`] limits begins now.
    pub(crate) fn begin_end(&mut self) {
        self.end_began = true;
    }

    /// A frame has ended, and no message goes on: the frame deadline starts anew.
    #[inline]
    pub(crate) fn frame_ended(&mut self) {
        self.frame_ended = true;
    }

    /// The wait is over: all stopwatches stop.
    #[inline]
    pub(crate) fn pause(&mut self) {
        if let Some(alarm) = &mut self.alarm {
            let watches = alarm.as_mut().project().watches;
            if watches.since != NEVER {
                watches.pause(self.read, self.frame_ended);
            }
        }
    }

    /// Whether the session has lasted too long. It is for a channel that never has to wait for its peer, and so
    /// never calls [`poll`](Self::poll).
    pub(crate) fn is_session_over(&mut self, deadlines: &Deadlines) -> bool {
        if deadlines.session == NEVER {
            return false;
        }
        let watches = alarm_of(&mut self.alarm).as_mut().project().watches;
        watches.open_for(nanos_at(Instant::now())) >= deadlines.session
    }

    /// Waits for the first deadline. It is called at the end of a poll, when all else that is waited for is
    /// pending.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        deadlines: &Deadlines,
        wait: Wait,
    ) -> Poll<Passed> {
        if self.alarm.is_none() && !deadlines.bound(&wait) {
            return Poll::Pending;
        }
        let alarm = alarm_of(&mut self.alarm);
        let clock = Instant::now();
        let now = nanos_at(clock);
        let alarm = alarm.as_mut().project();
        let watches = alarm.watches;
        watches.charge(now);
        watches.reset(mem::take(&mut self.read), mem::take(&mut self.wrote));
        if mem::take(&mut self.discarded) || !wait.refused {
            watches.refused = 0;
        }
        if mem::take(&mut self.frame_ended) {
            watches.frame = 0;
        }
        if mem::take(&mut self.end_began) {
            watches.end = 0;
        }
        let Some((left, passed)) = watches.start(now, deadlines, wait) else {
            return Poll::Pending;
        };
        if left <= 0 {
            watches.passed(passed);
            return Poll::Ready(passed);
        }
        // Some systems' clocks end before `NEVER`.
        let deadline =
            clock.checked_add(Duration::from_nanos(left as u64)).unwrap_or_else(|| clock + FAR);
        let mut sleep = alarm.sleep;
        let mut is_set = alarm.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if sleep.deadline() > deadline || sleep.is_elapsed() {
            sleep.as_mut().reset(deadline);
            is_set = false;
        }
        if !is_set {
            *alarm.waker = Some(cx.waker().clone());
            // Without `unconstrained`, a task that has used up its coop budget would be woken at once, and the
            // alarm not be set.
            if pin!(unconstrained(sleep)).poll(cx).is_ready() {
                // It passed just now: the next poll finds out which.
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }
}

/// The alarm, which is made when it is needed for the first time.
fn alarm_of(alarm: &mut Option<Pin<Box<Alarm>>>) -> &mut Pin<Box<Alarm>> {
    alarm.get_or_insert_with(|| {
        let (sleep, watches) = (sleep_until(Instant::now() + FAR), Watches::new());
        Box::pin(Alarm { sleep, waker: None, watches })
    })
}

/// The stopwatches, in nanoseconds.
#[derive(Debug)]
struct Watches {
    /// When the stopwatches that run were started, or `NEVER` if none runs.
    since: i64,
    runs: Runs,
    /// The peer was asked whether it is there, and has not sent a byte since.
    asked: bool,
    /// `frame` measures how long the rest of an overlong frame is being skipped.
    skips: bool,
    /// When the session began, which is the first call of [`open_for`](Self::open_for): when the peer was first
    /// waited for, or, if it never pauses, when a poll had first spent its budget. `NEVER` before.
    opened: i64,
    /// Without a byte in either direction.
    idle: i64,
    /// Without a byte from the peer.
    quiet: i64,
    frame: i64,
    refused: i64,
    shutdown: i64,
    end: i64,
}

/// Which stopwatches run.
#[derive(Debug, Default)]
struct Runs {
    peer: bool,
    quiet: bool,
    frame: bool,
    refused: bool,
    shutdown: bool,
    end: bool,
}

impl Watches {
    fn new() -> Self {
        Watches {
            since: NEVER,
            runs: Runs::default(),
            asked: false,
            skips: false,
            opened: NEVER,
            idle: 0,
            quiet: 0,
            frame: 0,
            refused: 0,
            shutdown: 0,
            end: 0,
        }
    }

    fn charge(&mut self, now: i64) {
        if self.since == NEVER {
            return;
        }
        let time = now.saturating_sub(self.since).max(0);
        let charge = |runs: bool, watch: &mut i64| {
            if runs {
                *watch = watch.saturating_add(time);
            }
        };
        charge(self.runs.peer, &mut self.idle);
        charge(self.runs.quiet, &mut self.quiet);
        charge(self.runs.frame, &mut self.frame);
        charge(self.runs.refused, &mut self.refused);
        charge(self.runs.shutdown, &mut self.shutdown);
        charge(self.runs.end, &mut self.end);
        self.since = NEVER;
    }

    fn reset(&mut self, read: bool, wrote: bool) {
        if read {
            self.asked = false;
            self.quiet = 0;
        }
        if read || (wrote && !self.asked) {
            self.idle = 0;
        }
        if wrote {
            self.refused = 0;
        }
    }

    /// Stops all. The clock is looked at only if one of them runs that is not about to be reset.
    fn pause(&mut self, read: bool, frame_ended: bool) {
        let Runs { frame, refused, shutdown, end, peer, quiet: _ } = self.runs;
        if (frame && !frame_ended) || refused || shutdown || end || (peer && !read) {
            self.charge(nanos_at(Instant::now()));
        }
        self.since = NEVER;
    }

    /// Starts the stopwatches of what is waited for. Returns which deadline passes first, and in how many
    /// nanoseconds. A stopwatch without a limit stays at zero.
    fn start(&mut self, now: i64, deadlines: &Deadlines, wait: Wait) -> Option<(i64, Passed)> {
        use Passed::{Deadline, End, Shutdown};
        self.since = now;
        let Wait { peer, listens, refused, shutdown, end, .. } = wait;
        // A peer from which nothing is read is not quiet.
        let quiet = peer && listens;
        self.runs = Runs { peer, quiet, frame: false, refused, shutdown, end: end.is_some() };
        let mut open = if deadlines.session == NEVER { 0 } else { self.open_for(now) };
        let mut first: Option<(i64, Passed)> = None;
        let mut time = |runs: bool, watch: &mut i64, limit: i64, passed: Passed| {
            if limit == NEVER {
                *watch = 0;
                return;
            }
            let left = limit.saturating_sub(*watch);
            if runs && first.is_none_or(|(least, _)| left < least) {
                first = Some((left, passed));
            }
        };
        time(peer, &mut self.idle, deadlines.idle, Deadline(Timeout::Idle));
        time(quiet, &mut self.quiet, deadlines.quiet, Deadline(Timeout::Quiet));
        let stall = Deadline(Timeout::WriteStall);
        time(refused, &mut self.refused, deadlines.write_stall, stall);
        time(shutdown, &mut self.shutdown, deadlines.shutdown, Shutdown);
        time(end.is_some(), &mut self.end, end.map_or(NEVER, nanos), End);
        // If no frame is waited for now, its stopwatch keeps its time.
        if let Some(frame) = wait.frame {
            let skips = matches!(frame, AwaitedFrame::Skipped);
            if mem::replace(&mut self.skips, skips) && !skips {
                // The timer is not told when a skip ends. This frame is not skipped, so it is another one, and has
                // all of its time.
                self.frame = 0;
            }
            let limit = deadlines.of_frame(&frame);
            self.runs.frame = limit != NEVER;
            time(true, &mut self.frame, limit, Deadline(Timeout::Frame));
        }
        time(peer, &mut open, deadlines.session, Deadline(Timeout::Session));
        first
    }

    /// How long the session has lasted, which begins when this is first asked.
    fn open_for(&mut self, now: i64) -> i64 {
        if self.opened == NEVER {
            self.opened = now;
        }
        now.saturating_sub(self.opened)
    }

    /// This limit is reported now. If the channel goes on after it, its stopwatch starts anew.
    fn passed(&mut self, passed: Passed) {
        match passed {
            Passed::Deadline(Timeout::Quiet) => {
                self.quiet = 0;
                self.asked = true;
            }
            Passed::Shutdown => self.shutdown = 0,
            Passed::Deadline(_) | Passed::End => {}
        }
    }
}

/// In place of a time that is not set, and of a limit that never passes.
const NEVER: i64 = i64::MAX;
/// How far into the future every system's clock can be relied on to go.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// The instant from which the channels count time.
fn zero() -> Instant {
    static ZERO: OnceLock<std::time::Instant> = OnceLock::new();
    (*ZERO.get_or_init(std::time::Instant::now)).into()
}

/// An instant, in nanoseconds since [`zero`]. It may be negative: where a test has paused Tokio's clock, that is
/// behind the system's.
fn nanos_at(clock: Instant) -> i64 {
    let zero = zero();
    match clock.checked_duration_since(zero) {
        Some(time) => nanos(time),
        None => -nanos(zero.saturating_duration_since(clock)),
    }
}

/// In nanoseconds. More than 292 years are [`NEVER`].
fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(NEVER)
}
