//! How many bytes wait for all clients together.
//!
//! A limit for each client is not enough: 64 MiB are little, but not if a thousand clients ask for as much and take
//! nothing. So all bytes that may be many and have to wait are counted here. They count until they are dropped,
//! wherever that happens and whether they were sent or not, because what counts them is dropped with them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

/// Answers and commands of up to so many bytes are short and do not count. No client has many of them: when 256 KiB of
/// answers wait for a client, the channel hands over no more of its commands. Short messages are counted for each
/// subscriber, and have a limit of their own.
pub(crate) const SHORT: usize = 16 << 10;

/// A limit for all clients, and how much of it is in use. All clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Waiting(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    most: usize,
    used: AtomicUsize,
}

impl Waiting {
    /// `most` is how many bytes may wait.
    pub(crate) fn new(most: usize) -> Self {
        Waiting(Arc::new(Inner { most, used: AtomicUsize::new(0) }))
    }

    /// How many bytes may be added now. If nothing waits, any number may.
    pub(crate) fn room(&self) -> usize {
        match self.0.used.load(Ordering::Relaxed) {
            0 => usize::MAX,
            used => self.0.most.saturating_sub(used),
        }
    }

    /// Returns the same bytes, which count until the last of them is sent, or dropped because the connection has ended.
    /// The caller has checked before that there is room.
    pub(crate) fn count(&self, bytes: Bytes) -> Bytes {
        let mut held = self.hold_nothing();
        held.add(bytes.len());
        Bytes::from_owner(Counted { bytes, _held: held })
    }

    /// A count of no bytes, to which bytes can be added.
    pub(crate) fn hold_nothing(&self) -> Held {
        Held { waiting: self.clone(), size: 0 }
    }
}

/// Bytes that count as waiting until this is cleared or dropped.
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

/// Bytes, together with what counts them.
struct Counted {
    bytes: Bytes,
    _held: Held,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
