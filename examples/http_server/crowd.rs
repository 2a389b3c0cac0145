//! Who is connected, and who of them has been idle for longest.
//!
//! A peer that connects and asks nothing costs a place that another could use. When places run short, the
//! connection that has been idle for longest is asked to go, as by a shutdown of its own; one that is busy
//! never is.

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
    /// Since when it has been idle, or [`BUSY`].
    idle_since: Arc<AtomicU64>,
    shutdown: CancellationToken,
}

const BUSY: u64 = u64::MAX;

impl Crowd {
    /// One more, who is idle until it says something. If there are `most` already, or more, the one that
    /// has been idle for longest goes.
    pub(crate) fn enter(self: &Arc<Self>, shutdown: CancellationToken, most: usize) -> Member {
        let id = self.tick();
        let idle_since = Arc::new(AtomicU64::new(id));
        let mut seats = self.seats();
        if seats.len() >= most {
            let longest = seats.values().min_by_key(|seat| seat.idle_since.load(Relaxed));
            if let Some(seat) = longest.filter(|seat| seat.idle_since.load(Relaxed) != BUSY) {
                // It is not asked twice.
                seat.idle_since.store(BUSY, Relaxed);
                seat.shutdown.cancel();
            }
        }
        seats.insert(id, Seat { idle_since: idle_since.clone(), shutdown });
        drop(seats);
        Member { crowd: self.clone(), id, idle_since }
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
    idle_since: Arc<AtomicU64>,
}

impl Member {
    /// A request has begun.
    pub(crate) fn busy(&self) {
        self.idle_since.store(BUSY, Relaxed);
    }

    /// It is answered.
    pub(crate) fn idle(&self) {
        self.idle_since.store(self.crowd.tick(), Relaxed);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.crowd.seats().remove(&self.id);
    }
}
