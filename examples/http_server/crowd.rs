//! Who is connected, and who of them has been waited for longest.
//!
//! A peer that asks nothing, or never comes to the end of what it asks, costs a place that another could use.
//! When places run short, the connection that has been waited for longest is asked to go, as by a shutdown of
//! its own: first of those that are idle or have begun a head, and if there are none, of those whose request lacks
//! the end of its body. One whose request is complete never is: the deadlines of answers are for that.
//!
//! A connection whose request begins is waited for anew, so that one that was idle has as much time for it as one
//! that has just come. More bytes of it change nothing, nor do those of a body: else one that trickles would stay for
//! ever.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// All connections.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    seats: Mutex<HashMap<u64, Seat>>,
    /// Counts what happens, which says what came before what.
    clock: AtomicU64,
}

/// What is known of one.
#[derive(Debug)]
struct Seat {
    /// Since when it has been waited for, with [`BODY`] if for a body, or [`BUSY`], or [`EVICTED`].
    awaited_since: Arc<AtomicU64>,
    shutdown: CancellationToken,
}

/// Is added to the time since which a body is waited for: whoever has not asked yet goes before it.
const BODY: u64 = 1 << 63;
/// Its request is complete, and not answered yet.
const BUSY: u64 = u64::MAX - 1;
/// It has been asked to go.
const EVICTED: u64 = u64::MAX;

impl Crowd {
    /// One more, who is waited for from now on. If there are `most` already, or more, the one that has been
    /// waited for longest goes.
    pub(crate) fn enter(self: &Arc<Self>, shutdown: CancellationToken, most: usize) -> Member {
        let id = self.tick();
        let awaited_since = Arc::new(AtomicU64::new(id));
        let mut seats = self.seats();
        if seats.len() >= most {
            let longest = seats.values().min_by_key(|seat| seat.awaited_since.load(Relaxed));
            if let Some(seat) = longest.filter(|seat| seat.awaited_since.load(Relaxed) < BUSY) {
                seat.awaited_since.store(EVICTED, Relaxed);
                seat.shutdown.cancel();
            }
        }
        seats.insert(id, Seat { awaited_since: awaited_since.clone(), shutdown });
        drop(seats);
        Member { crowd: self.clone(), id, awaited_since }
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Relaxed)
    }

    fn seats(&self) -> MutexGuard<'_, HashMap<u64, Seat>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the crowd, until it is dropped.
#[derive(Debug)]
pub(crate) struct Member {
    crowd: Arc<Crowd>,
    id: u64,
    awaited_since: Arc<AtomicU64>,
}

impl Member {
    /// It is waited for from now on: a request has begun, or the last one is answered.
    pub(crate) fn awaited(&self) {
        self.set(self.crowd.tick());
    }

    /// A request is complete but for its body, which is waited for from now on.
    pub(crate) fn awaited_for_body(&self) {
        self.set(BODY + self.crowd.tick());
    }

    /// The head of a request is complete, and the server has to say what becomes of it.
    pub(crate) fn busy(&self) {
        self.set(BUSY);
    }

    /// Has it been asked to make room?
    pub(crate) fn is_evicted(&self) -> bool {
        self.awaited_since.load(Relaxed) == EVICTED
    }

    /// Whoever has been asked to go is not asked twice.
    fn set(&self, since: u64) {
        let unless_evicted = |old| (old != EVICTED).then_some(since);
        let _ = self.awaited_since.fetch_update(Relaxed, Relaxed, unless_evicted);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.crowd.seats().remove(&self.id);
    }
}
