//! All connections, and which of them the server has waited for longest.
//!
//! A peer that sends no request, or never completes one, takes a place that another could use. When places run short,
//! the connection that the server has waited for longest is evicted, by a shutdown of its own: first one of those that
//! are idle or have begun a head, and if there are none, one of those whose request lacks the end of its body. A
//! connection whose request is complete is never evicted: the deadlines of output are for that.
//!
//! When a request begins, the time of waiting starts anew, so that a connection that was idle has as much time for it
//! as a new one. More bytes of the head or the body do not start it anew, or a peer that sends single bytes would stay
//! for ever.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// All connections.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    seats: Mutex<HashMap<u64, Seat>>,
    /// A counter in place of a clock: a lower number is an earlier event.
    clock: AtomicU64,
}

/// What is known of one connection.
#[derive(Debug)]
struct Seat {
    /// Since when the server waits for it; [`BODY`] is added if it waits for a body. Or [`BUSY`], or [`EVICTED`].
    awaited_since: Arc<AtomicU64>,
    shutdown: CancellationToken,
}

/// Is added to the time if a body is waited for, so that connections without a complete head are evicted first.
const BODY: u64 = 1 << 63;
/// The request of the connection is complete, and not answered yet.
const BUSY: u64 = u64::MAX - 1;
/// The connection has been told to end.
const EVICTED: u64 = u64::MAX;

impl Crowd {
    /// Adds a connection, which is waited for from now on. If there are `most` already, or more, the one that has been
    /// waited for longest is evicted.
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

/// A connection's membership of the crowd. To drop it gives up the place.
#[derive(Debug)]
pub(crate) struct Member {
    crowd: Arc<Crowd>,
    id: u64,
    awaited_since: Arc<AtomicU64>,
}

impl Member {
    /// Starts the time of waiting anew: a request has begun, or the last one is answered.
    pub(crate) fn awaited(&self) {
        self.set(self.crowd.tick());
    }

    /// The same, for a request that is complete except for its body.
    pub(crate) fn awaited_for_body(&self) {
        self.set(BODY + self.crowd.tick());
    }

    /// The head of a request is complete: from now on the peer waits for the server.
    pub(crate) fn busy(&self) {
        self.set(BUSY);
    }

    /// Whether the connection has been evicted.
    pub(crate) fn is_evicted(&self) -> bool {
        self.awaited_since.load(Relaxed) == EVICTED
    }

    /// Does nothing if the connection has been evicted, so that this is not done twice.
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
