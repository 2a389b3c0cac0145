//! Who hears which channel.
//!
//! Everything happens under one lock, which is never held across an await: pushing through a [`Handle`]
//! does not wait. A subscriber who does not keep up is dropped: it must cost the others neither time nor
//! memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use asynchat::{Handle, HandleError};
use bytes::{Bytes, BytesMut};

use crate::protocol::{CROWDED, Refusal, Reply};
use crate::waiting::{Held, SHORT, Waiting};

/// What the names of all channels that one client hears may take, in bytes.
const NAMES: usize = 1 << 20;
/// What a name costs beside its bytes, about.
const NAME: usize = 128;

/// When so many bytes of short messages wait for all subscribers together, each has to do with its [`SHARE`]. So there
/// may be at most these, and of each subscriber twice its share.
const TOGETHER: usize = 256 << 20;
/// Then a subscriber for whom more bytes of them wait is dropped when one more message is to wait.
const SHARE: usize = 256 << 10;
/// And then whoever publishes to one for whom more bytes of them wait gives way, so that it is dropped only if it does
/// not take them.
const GIVE_WAY: usize = SHARE / 4;

/// All channels. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Hub {
    channels: Arc<Mutex<Channels>>,
    /// Short messages, for each of their hearers.
    pub(crate) waiting: Waiting,
}

/// Who hears each channel, by their ids: who came first is told first. No channel is without anybody.
type Channels = HashMap<Bytes, BTreeMap<u64, Arc<Hearer>>>;

/// How a message was published.
#[derive(Debug)]
pub(crate) struct Told {
    /// How many hear it.
    pub(crate) hearers: usize,
    /// Before more is published, those who hear it are to have their turn.
    pub(crate) gives_way: bool,
}

impl Default for Hub {
    fn default() -> Self {
        Hub { channels: Arc::default(), waiting: Waiting::new(TOGETHER) }
    }
}

impl Hub {
    /// Gives a message to all that hear a channel. A message that is not short counts until the last of them has
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
        // It is there once, however many there are.
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

/// One who hears something.
#[derive(Debug)]
struct Hearer {
    handle: Handle,
    short: Mutex<Short>,
}

/// The bytes of short messages that may wait for one. What its channel has taken is not known to be sent; but the
/// channel takes more only while less than 256 KiB are left to be sent. So beside these, what it has taken last may wait.
#[derive(Debug)]
struct Short {
    /// The channel has not taken them.
    queued: Held,
    /// The channel has taken them together.
    taken: Held,
}

impl Hearer {
    fn new(handle: Handle, waiting: &Waiting) -> Self {
        let short = Short { queued: waiting.hold_nothing(), taken: waiting.hold_nothing() };
        Hearer { handle, short: Mutex::new(short) }
    }

    /// Gives it a message, of which so many bytes count. Returns how many its channel has not taken; nothing if it is
    /// gone, or dropped because it does not keep up.
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

/// What one client hears. It is given up when it is dropped, however that comes about.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    hub: Hub,
    id: u64,
    hearer: Arc<Hearer>,
    names: BTreeSet<Bytes>,
    /// What the names take.
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
