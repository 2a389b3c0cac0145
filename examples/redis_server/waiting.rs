//! How much waits on account of all clients together.
//!
//! A limit for each client is not enough: 64 MiB are little, but not if a thousand clients ask for them and take
//! nothing. So what may be long and has to wait counts here. It counts until it is dropped, wherever that
//! happens, be it sent or not: what counts it is dropped with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

/// What is no longer than this does not count, in bytes. No client has much of it: when 256 KiB of answers wait for
/// a client, the channel hands over no more of its commands. Messages that are no longer count for each subscriber, and
/// have a limit of their own.
pub(crate) const SHORT: usize = 16 << 10;

/// A limit for all clients, and how much of it is in use. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Waiting(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    most: usize,
    used: AtomicUsize,
}

impl Waiting {
    /// So many bytes may wait.
    pub(crate) fn new(most: usize) -> Self {
        Waiting(Arc::new(Inner { most, used: AtomicUsize::new(0) }))
    }

    /// How many bytes may be counted now. Where nothing waits, any number may.
    pub(crate) fn room(&self) -> usize {
        match self.0.used.load(Ordering::Relaxed) {
            0 => usize::MAX,
            used => self.0.most.saturating_sub(used),
        }
    }

    /// The same bytes, which count until the last of them is sent, or dropped because the connection has
    /// ended. Whoever calls this has asked before whether there is room.
    pub(crate) fn count(&self, bytes: Bytes) -> Bytes {
        let mut held = self.hold_nothing();
        held.add(bytes.len());
        Bytes::from_owner(Counted { bytes, _held: held })
    }

    /// To be added to.
    pub(crate) fn hold_nothing(&self) -> Held {
        Held { waiting: self.clone(), size: 0 }
    }
}

/// So many bytes wait as long as this is there.
#[derive(Debug)]
pub(crate) struct Held {
    waiting: Waiting,
    size: usize,
}

impl Held {
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    pub(crate) fn add(&mut self, more: usize) {
        self.size += more;
        self.waiting.0.used.fetch_add(more, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn clear(&mut self) {
        if self.size > 0 {
            self.waiting.0.used.fetch_sub(self.size, Ordering::Relaxed);
            self.size = 0;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Bytes, and what counts them.
struct Counted {
    bytes: Bytes,
    _held: Held,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
