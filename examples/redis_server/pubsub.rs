//! Who hears which channel.
//!
//! Everything happens under one lock, which is never held across an await: pushing through a [`Handle`]
//! does not wait. A subscriber who does not keep up is dropped: it must cost the others neither time nor
//! memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use asynchat::{Handle, HandleError};
use bytes::{Bytes, BytesMut};

use crate::protocol::{CROWDED, Refusal, Reply};
use crate::waiting::{SHORT, Waiting};

/// What the names of all channels that one client hears may take, in bytes.
const NAMES: usize = 1 << 20;
/// What a name costs beside its bytes, about.
const NAME: usize = 128;

/// All channels. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hub(Arc<Mutex<Channels>>);

/// Who hears each channel, by their ids: who came first is told first. No channel is without anybody.
type Channels = HashMap<Bytes, BTreeMap<u64, Handle>>;

impl Hub {
    /// Gives a message to all that hear a channel. Returns how many there are. A message that is not short counts
    /// until the last of them has taken it.
    pub(crate) fn publish(
        &self,
        name: &[u8],
        text: &[u8],
        waiting: &Waiting,
    ) -> Result<usize, Refusal> {
        let mut channels = self.lock();
        let Some(hearers) = channels.get_mut(name) else { return Ok(0) };
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
        let message = if length > SHORT { waiting.count(message) } else { message };
        let before = hearers.len();
        hearers.retain(|_, handle| match handle.push(message.clone()) {
            Ok(()) => true,
            Err(HandleError::Closed(_)) => false,
            Err(_) => {
                handle.abort();
                false
            }
        });
        let told = hearers.len();
        if told == 0 && before > 0 {
            channels.remove(name);
        }
        Ok(told)
    }

    fn lock(&self) -> MutexGuard<'_, Channels> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one client hears. It is given up when it is dropped, however that comes about.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    hub: Hub,
    id: u64,
    handle: Handle,
    names: BTreeSet<Bytes>,
    /// What the names take.
    size: usize,
}

impl Subscriptions {
    pub(crate) fn new(hub: Hub, id: u64, handle: Handle) -> Self {
        Subscriptions { hub, id, handle, names: BTreeSet::new(), size: 0 }
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
        self.hub.lock().entry(name).or_default().insert(self.id, self.handle.clone());
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
