//! Who subscribes to which channel.
//!
//! Everything happens under one lock, which is never held across an await: pushing through a [`Handle`] does not wait.
//! A subscriber that does not keep up is dropped: it must cost the others neither time nor memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use asynchat::{Handle, HandleError};
use bytes::{Bytes, BytesMut};

use crate::protocol::{CROWDED, Refusal, Reply};
use crate::waiting::{Held, SHORT, Waiting};

/// The most bytes of the names of all channels that one client subscribes to.
const NAMES: usize = 1 << 20;
/// About how much memory a name takes besides its bytes.
const NAME: usize = 128;

/// While so many bytes of short messages wait for all subscribers together, each subscriber is limited to its
/// [`SHARE`]. So at most these bytes can wait, and besides twice the share of each subscriber.
const TOGETHER: usize = 256 << 20;
/// While that is so, a subscriber for which more bytes than this wait is dropped when one more message would have to
/// wait.
const SHARE: usize = 256 << 10;
/// While that is so, a client that publishes to a subscriber for which more bytes than this wait lets others have their
/// turn. So the subscriber is dropped only if it does not take them then.
const GIVE_WAY: usize = SHARE / 4;

/// All channels. All clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Hub {
    channels: Arc<Mutex<Channels>>,
    /// The short messages that wait, counted for each subscriber.
    pub(crate) waiting: Waiting,
}

/// The subscribers of each channel by their ids: who connected first is told first. No channel in here is empty.
type Channels = HashMap<Bytes, BTreeMap<u64, Arc<Hearer>>>;

/// How a message was published.
#[derive(Debug)]
pub(crate) struct Told {
    /// How many subscribers it was sent to.
    pub(crate) hearers: usize,
    /// Whether the subscribers are to have their turn before more is published.
    pub(crate) gives_way: bool,
}

impl Default for Hub {
    fn default() -> Self {
        Hub { channels: Arc::default(), waiting: Waiting::new(TOGETHER) }
    }
}

impl Hub {
    /// Sends a message to all subscribers of a channel. A message that is not short counts until the last of them has
    /// taken it.
    pub(crate) fn publish(
        &self,
        name: &[u8],
        text: &[u8],
        waiting: &Waiting,
    ) -> Result<Told, Refusal> {
        let mut told = Told { hearers: 0, gives_way: false };
        let mut channels = self.lock();
        let Some(hearers) = channels.get_mut(name) else { return Ok(told) };
        let length = name.len() + text.len();
        if length > waiting.room().max(SHORT) {
            return Err(CROWDED);
        }
        let mut message = BytesMut::new();
        let mut reply = Reply::new(&mut message);
        reply.array(3);
        reply.bulk(b"message");
        reply.bulk(name);
        reply.bulk(text);
        // All subscribers share these bytes.
        let message = message.freeze();
        let short = if length > SHORT { 0 } else { message.len() };
        let message = if length > SHORT { waiting.count(message) } else { message };
        let crowded = self.waiting.room() == 0;
        let before = hearers.len();
        hearers.retain(|_, hearer| {
            let waits = hearer.tell(&message, short, crowded);
            told.gives_way |= crowded && waits.is_some_and(|waits| waits > GIVE_WAY);
            waits.is_some()
        });
        told.hearers = hearers.len();
        if told.hearers == 0 && before > 0 {
            channels.remove(name);
        }
        Ok(told)
    }

    fn lock(&self) -> MutexGuard<'_, Channels> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A subscriber.
#[derive(Debug)]
struct Hearer {
    handle: Handle,
    short: Mutex<Short>,
}

/// The bytes of short messages that may wait for a subscriber. It is not known when the channel has sent what it has
/// taken from the handle. But it takes more only while less than 256 KiB are left to be sent. So what may wait are
/// those that it has not taken, and those that it has taken last.
#[derive(Debug)]
struct Short {
    /// Those that the channel has not taken.
    queued: Held,
    /// Those that the channel has taken last, all at once.
    taken: Held,
}

impl Hearer {
    fn new(handle: Handle, waiting: &Waiting) -> Self {
        let short = Short { queued: waiting.hold_nothing(), taken: waiting.hold_nothing() };
        Hearer { handle, short: Mutex::new(short) }
    }

    /// Sends it a message, of which `short` bytes count. Returns how many bytes its channel has not taken, or `None` if
    /// the subscriber is gone, or is dropped because it does not keep up.
    fn tell(&self, message: &Bytes, short: usize, crowded: bool) -> Option<usize> {
        let mut waits = self.short.lock().unwrap_or_else(PoisonError::into_inner);
        let Short { queued, taken } = &mut *waits;
        if queued.size() > 0 && self.handle.queued_bytes() == 0 {
            mem::swap(queued, taken);
            queued.clear();
        }
        if crowded && queued.size() > SHARE {
            self.handle.abort();
            return None;
        }
        match self.handle.push(message.clone()) {
            Ok(()) => {
                queued.add(short);
                Some(queued.size())
            }
            Err(HandleError::Closed(_)) => None,
            Err(_) => {
                self.handle.abort();
                None
            }
        }
    }
}

/// The subscriptions of one client. They end when this is dropped, for whatever reason.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    hub: Hub,
    id: u64,
    hearer: Arc<Hearer>,
    names: BTreeSet<Bytes>,
    /// How many bytes the names take.
    size: usize,
}

impl Subscriptions {
    pub(crate) fn new(hub: Hub, id: u64, handle: Handle) -> Self {
        let hearer = Arc::new(Hearer::new(handle, &hub.waiting));
        Subscriptions { hub, id, hearer, names: BTreeSet::new(), size: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub(crate) fn first(&self) -> Option<Bytes> {
        self.names.first().cloned()
    }

    pub(crate) fn add(&mut self, name: &[u8]) -> Result<(), Refusal> {
        if self.names.contains(name) {
            return Ok(());
        }
        if self.size + NAME + name.len() > NAMES {
            return Err(Refusal::new("ERR too many subscriptions"));
        }
        self.size += NAME + name.len();
        let name = Bytes::copy_from_slice(name);
        self.names.insert(name.clone());
        self.hub.lock().entry(name).or_default().insert(self.id, self.hearer.clone());
        Ok(())
    }

    pub(crate) fn remove(&mut self, name: &[u8]) {
        if self.names.remove(name) {
            self.size -= NAME + name.len();
            self.hub.lock().leave(name, self.id);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.size = 0;
        let mut channels = self.hub.lock();
        for name in std::mem::take(&mut self.names) {
            channels.leave(&name, self.id);
        }
    }
}

impl Drop for Subscriptions {
    fn drop(&mut self) {
        self.clear();
    }
}

trait Leave {
    fn leave(&mut self, name: &[u8], id: u64);
}

impl Leave for Channels {
    fn leave(&mut self, name: &[u8], id: u64) {
        if let Some(hearers) = self.get_mut(name) {
            hearers.remove(&id);
            if hearers.is_empty() {
                self.remove(name);
            }
        }
    }
}
