use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::{error, fmt};

use bytes::Bytes;

use crate::Payload;

/// Pushes into a channel from other tasks: a chat room, a broadcast, a supervisor.
///
/// It is `Send`, cheap to clone, and never waits. What it pushes is kept apart, up to a bound
/// ([`ChannelBuilder::handle_capacity`](crate::ChannelBuilder::handle_capacity)), until the channel's
/// own task takes it; a receiver that is too slow is reported to the sender, who decides what becomes
/// of it, and holds up nobody else.
///
/// ```
/// use asynchat::{Channel, Event};
/// use bytes::Bytes;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (client, server) = tokio::io::duplex(64);
/// let mut client = Channel::new(client, b"\n");
/// let mut server = Channel::new(server, b"\n");
///
/// let handle = server.handle();
/// let serving = tokio::spawn(async move { server.next().await.is_none() });
/// handle.push(Bytes::from("hello\n"))?;
/// assert_eq!(client.next().await.expect("it is there")?, Event::Chunk("hello".into()));
/// drop(client);
/// assert!(serving.await?);
/// assert!(handle.push(Bytes::from("anybody there?\n")).is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Handle {
    inbox: Arc<Mutex<Inbox>>,
}

impl Handle {
    fn new(capacity: usize) -> Self {
        let inbox =
            Inbox { items: Vec::new(), bytes: 0, capacity, state: HandleState::Open, waker: None };
        Handle { inbox: Arc::new(Mutex::new(inbox)) }
    }

    /// Queues bytes behind what the channel and others have pushed. Bytes of one push stay together.
    ///
    /// Large owned bytes are not copied: give the same [`Bytes`] to a thousand channels and they share
    /// it.
    ///
    /// # Errors
    ///
    /// [`HandleError::Full`] if more than the handle's capacity would be waiting for the channel's task
    /// (an item larger than that is never accepted),
    /// [`HandleError::Closed`] if the channel is closed or closing. Both hand the item back.
    pub fn push<T: Payload>(&self, item: T) -> Result<(), HandleError<T>> {
        let mut inbox = lock(&self.inbox);
        let len = item.as_bytes().len();
        if inbox.state != HandleState::Open {
            return Err(HandleError::Closed(item));
        }
        if inbox.bytes.saturating_add(len) > inbox.capacity {
            return Err(HandleError::Full(item));
        }
        if len > 0 {
            inbox.bytes += len;
            inbox.items.push(item.into_bytes());
            wake(inbox);
        }
        Ok(())
    }

    /// Closes the channel once all that has been pushed is written. Later pushes are refused.
    pub fn close_when_done(&self) {
        let mut inbox = lock(&self.inbox);
        if inbox.state == HandleState::Open {
            inbox.state = HandleState::Closing;
            wake(inbox);
        }
    }

    /// Closes the channel now, whatever waits and whatever its handler is doing.
    pub fn abort(&self) {
        let mut inbox = lock(&self.inbox);
        if inbox.state != HandleState::Closed {
            inbox.state = HandleState::Aborted;
            inbox.items = Vec::new();
            inbox.bytes = 0;
            wake(inbox);
        }
    }

    /// Whether a push can be accepted no more.
    pub fn is_closed(&self) -> bool {
        lock(&self.inbox).state != HandleState::Open
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inbox = lock(&self.inbox);
        f.debug_struct("Handle")
            .field("state", &inbox.state)
            .field("bytes", &inbox.bytes)
            .finish_non_exhaustive()
    }
}

/// The channel's end of its handles. Dropped, it refuses all further pushes.
#[derive(Debug)]
pub(crate) struct Receiver(Handle);

impl Receiver {
    pub(crate) fn new(capacity: usize) -> Self {
        Receiver(Handle::new(capacity))
    }

    pub(crate) fn handle(&self) -> Handle {
        self.0.clone()
    }

    /// Takes what has been pushed, on behalf of the channel's task, which is woken when there is more.
    /// With `take` false the items stay: the channel has no room.
    pub(crate) fn poll_take(&self, cx: &Context<'_>, take: bool) -> (Vec<Bytes>, HandleState) {
        let mut inbox = lock(&self.0.inbox);
        match &mut inbox.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        let mut state = inbox.state;
        if !take || inbox.items.is_empty() {
            if !inbox.items.is_empty() && state == HandleState::Closing {
                state = HandleState::Open;
            }
            return (Vec::new(), state);
        }
        inbox.bytes = 0;
        (std::mem::take(&mut inbox.items), state)
    }

    /// Refuses pushes from here on, and takes those that were accepted. An abort still works.
    pub(crate) fn close(&self) -> Vec<Bytes> {
        let mut inbox = lock(&self.0.inbox);
        if inbox.state == HandleState::Open {
            inbox.state = HandleState::Closing;
        }
        inbox.bytes = 0;
        std::mem::take(&mut inbox.items)
    }

    /// Refuses all that comes from here on.
    pub(crate) fn closed(&self) {
        let mut inbox = lock(&self.0.inbox);
        inbox.state = HandleState::Closed;
        inbox.items = Vec::new();
        inbox.bytes = 0;
        inbox.waker = None;
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.closed();
    }
}

/// What a handle has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandleState {
    Open,
    Closing,
    Aborted,
    Closed,
}

struct Inbox {
    items: Vec<Bytes>,
    /// In `items`: `0 <= bytes <= capacity`.
    bytes: usize,
    capacity: usize,
    state: HandleState,
    /// The channel's task, once it has looked here.
    waker: Option<Waker>,
}

/// Wakes the channel's task, outside the lock.
fn wake(mut inbox: MutexGuard<'_, Inbox>) {
    let waker = inbox.waker.take();
    drop(inbox);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Nothing in here panics half-way, so a poisoned inbox is a sound one.
fn lock(inbox: &Mutex<Inbox>) -> MutexGuard<'_, Inbox> {
    inbox.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a push from another task was refused, with the item.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandleError<T> {
    /// The receiver has not kept up: as many bytes wait for it as may.
    Full(T),
    /// The channel is closed or closing.
    Closed(T),
}

impl<T> HandleError<T> {
    /// The item.
    pub fn into_inner(self) -> T {
        match self {
            HandleError::Full(item) | HandleError::Closed(item) => item,
        }
    }
}

impl<T> fmt::Debug for HandleError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HandleError::Full(_) => "Full(..)",
            HandleError::Closed(_) => "Closed(..)",
        })
    }
}

impl<T> fmt::Display for HandleError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HandleError::Full(_) => "the receiver does not keep up",
            HandleError::Closed(_) => "the channel is closed",
        })
    }
}

impl<T> error::Error for HandleError<T> {}
