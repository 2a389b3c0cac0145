//! Pushes into a channel from other tasks.
//!
//! What is pushed waits in a mailbox until the channel's own task takes it, which it does whenever it
//! has room, and before it pushes something itself: so all output has one order, that of its acceptance.
//! The mailbox is locked only by whoever has something to put in or to take out; what the channel has to
//! know before each callback is in an atomic beside it.

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::{error, fmt, mem};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use crate::Payload;

/// Pushes into a channel from other tasks: a chat room, a broadcast, a supervisor.
///
/// It is `Send` and cheap to clone. What it pushes waits, up to a bound
/// ([`ChannelBuilder::handle_capacity`](crate::ChannelBuilder::handle_capacity)), until the channel's
/// own task takes it; a receiver that is too slow is reported to the sender, who decides what becomes
/// of it, and holds up nobody else. Whoever would rather wait has [`send`](Self::send).
///
/// All output of a channel goes out in the order in which it was accepted, whoever pushed it.
///
/// Two handles are equal if they are of one channel, and may be the keys of a set: which channel that is never
/// changes, though Clippy's `mutable_key_type` can't know it.
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
/// handle.closed().await;
/// assert!(handle.push(Bytes::from("anybody there?\n")).is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Handle {
    mailbox: Arc<Mailbox>,
}

impl Handle {
    /// Queues bytes behind what the channel and others have pushed. Bytes of one push stay together.
    ///
    /// Owned bytes are not copied if there are 1024 or more: give the same [`Bytes`] to a thousand channels and
    /// they share it.
    ///
    /// ```
    /// use asynchat::{Channel, HandleError};
    ///
    /// let (_client, server) = tokio::io::duplex(64);
    /// let mut channel = Channel::builder(b"\n").handle_capacity(10).build(server);
    /// let handle = channel.handle();
    /// assert_eq!(handle.push("8 bytes\n"), Ok(()));
    /// assert_eq!(handle.push("8 bytes\n"), Err(HandleError::Full("8 bytes\n")));
    /// drop(channel);
    /// assert_eq!(handle.push("8 bytes\n"), Err(HandleError::Closed("8 bytes\n")));
    /// ```
    ///
    /// # Errors
    ///
    /// [`HandleError::Full`] if some bytes wait for the channel's task and with these it would be more than
    /// the capacity of the channel's handles; [`HandleError::Closed`] if the channel is closed or closing. Both
    /// hand the item back.
    pub fn push<T: Payload>(&self, item: T) -> Result<(), HandleError<T>> {
        self.push_all([item]).map_err(HandleError::into_only)
    }

    /// As [`push`](Self::push), of several items that stay together: all of them or none.
    ///
    /// A broker sends the same body to many, each with a head of its own, and the body is shared:
    ///
    /// ```
    /// use asynchat::{Channel, HandleError};
    /// use bytes::Bytes;
    /// use tokio::io::AsyncReadExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (mut client, server) = tokio::io::duplex(64);
    /// let mut channel = Channel::new(server, b"\n");
    /// let subscribers = [(1, channel.handle())];
    /// let serving = tokio::spawn(async move { channel.next().await.is_none() });
    ///
    /// let body = Bytes::from("it rains");
    /// for (id, handle) in &subscribers {
    ///     let head = Bytes::from(format!("MSG {id} {}\r\n", body.len()));
    ///     handle.push_all([head, body.clone(), Bytes::from("\r\n")])?;
    ///     handle.close_when_done();
    /// }
    /// let mut heard = String::new();
    /// client.read_to_string(&mut heard).await?;
    /// assert_eq!(heard, "MSG 1 8\r\nit rains\r\n");
    /// # drop(client);
    /// # assert!(serving.await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn push_all<T, I>(&self, items: I) -> Result<(), HandleError<I>>
    where
        T: Payload,
        I: AsRef<[T]> + IntoIterator<Item = T>,
    {
        let len = items.as_ref().iter().map(|item| item.as_bytes().len()).sum::<usize>();
        let mut mail = self.mailbox.lock();
        if mail.asked != Asked::Nothing {
            return Err(HandleError::Closed(items));
        }
        if len == 0 {
            return Ok(());
        }
        if mail.bytes > 0 && mail.bytes.saturating_add(len) > self.mailbox.capacity {
            return Err(HandleError::Full(items));
        }
        // Items that were copied are dropped outside the lock, since what they own may use a handle in its `Drop`.
        // If all are copied, as in most pushes, they need not be collected for that.
        if items.as_ref().iter().all(|item| item.as_bytes().len() < LARGE) {
            items.as_ref().iter().for_each(|item| mail.copy(item.as_bytes()));
            self.mailbox.announce(mail, ITEMS);
        } else {
            let copied: Vec<T> = items.into_iter().filter_map(|item| mail.put(item)).collect();
            self.mailbox.announce(mail, ITEMS);
            drop(copied);
        }
        Ok(())
    }

    /// As [`push`](Self::push), but waits until there is room.
    ///
    /// ```
    /// use asynchat::Channel;
    /// use tokio::io::AsyncReadExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (mut client, server) = tokio::io::duplex(8);
    /// let mut channel = Channel::builder(b"\n").handle_capacity(10).build(server);
    /// let handle = channel.handle();
    /// let serving = tokio::spawn(async move { channel.next().await.is_none() });
    /// tokio::spawn(async move {
    ///     for _ in 0..100 {
    ///         handle.send("8 bytes\n").await.unwrap();
    ///     }
    ///     handle.close_when_done();
    /// });
    /// let mut heard = Vec::new();
    /// client.read_to_end(&mut heard).await?;
    /// assert_eq!(heard.len(), 800);
    /// drop(client);
    /// assert!(serving.await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`HandleError::Closed`] if the channel closes before there is room.
    ///
    /// # Cancellation safety
    ///
    /// If the future is dropped before it is ready, nothing has been pushed, and the item is dropped.
    pub async fn send<T: Payload>(&self, item: T) -> Result<(), HandleError<T>> {
        self.send_all([item]).await.map_err(HandleError::into_only)
    }

    /// As [`push_all`](Self::push_all), but waits until there is room.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    ///
    /// # Cancellation safety
    ///
    /// As [`send`](Self::send).
    pub async fn send_all<T, I>(&self, mut items: I) -> Result<(), HandleError<I>>
    where
        T: Payload,
        I: AsRef<[T]> + IntoIterator<Item = T>,
    {
        loop {
            // The future is made before the push, so that it misses no notification from here on.
            let changed = self.mailbox.changed.notified();
            items = match self.push_all(items) {
                Err(HandleError::Full(items)) => items,
                result => return result,
            };
            changed.await;
        }
    }

    /// Bytes that were pushed by handles and that the channel's task has not taken yet, which it does at its
    /// next turn if its output has room: if there are some for long, the receiver does not keep up.
    pub fn queued_bytes(&self) -> usize {
        self.mailbox.lock().bytes
    }

    /// Waits until the channel has ended, however it ends. Pushes are refused before that, from when it is
    /// closing: what was accepted is written first, and then the peer is waited for a little
    /// ([`Timeouts::linger`](field@crate::Timeouts::linger)).
    ///
    /// # Cancellation safety
    ///
    /// It may be dropped at any time.
    pub async fn closed(&self) {
        loop {
            let changed = self.mailbox.changed.notified();
            if self.mailbox.lock().asked == Asked::Ended {
                return;
            }
            changed.await;
        }
    }

    /// Closes the channel once all that has been pushed is written. Later pushes are refused.
    pub fn close_when_done(&self) {
        let mut mail = self.mailbox.lock();
        if mail.asked == Asked::Nothing {
            mail.asked = Asked::Close;
            self.mailbox.announce(mail, CLOSE);
            self.mailbox.changed.notify_waiters();
        }
    }

    /// Closes the channel now: what is queued is not written, and a callback of its handler that waits is
    /// dropped.
    ///
    /// ```
    /// use asynchat::Channel;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let (_client, server) = tokio::io::duplex(64);
    /// let mut channel = Channel::new(server, b"\n");
    /// let handle = channel.handle();
    /// let serving = tokio::spawn(async move { channel.next().await.is_none() });
    /// handle.abort();
    /// handle.closed().await;
    /// assert!(serving.await.unwrap());
    /// # }
    /// ```
    pub fn abort(&self) {
        let mut mail = self.mailbox.lock();
        if mail.asked != Asked::Ended {
            mail.asked = Asked::Abort;
            let unsent = mail.take();
            self.mailbox.announce(mail, ABORT);
            // This is done outside the lock, since what an item or a task owns may use a handle in its `Drop`.
            self.mailbox.changed.notify_waiters();
            drop(unsent);
        }
    }

    /// Whether pushes are no longer accepted.
    pub fn is_closed(&self) -> bool {
        self.mailbox.lock().asked != Asked::Nothing
    }
}

/// Handles of the same channel are equal.
///
/// ```
/// use asynchat::Channel;
/// use std::collections::HashSet;
///
/// let (one, other) = tokio::io::duplex(64);
/// let (mut one, mut other) = (Channel::new(one, b"\n"), Channel::new(other, b"\n"));
/// let mut room = HashSet::from([one.handle(), other.handle()]);
/// assert!(room.remove(&one.handle()));
/// assert!(!room.contains(&one.handle()));
/// assert_eq!(room.len(), 1);
/// ```
impl PartialEq for Handle {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.mailbox, &other.mailbox)
    }
}

impl Eq for Handle {}

impl Hash for Handle {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.mailbox).hash(state);
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mail = self.mailbox.lock();
        f.debug_struct("Handle")
            .field("asked", &mail.asked)
            .field("bytes", &mail.bytes)
            .finish_non_exhaustive()
    }
}

/// What all handles of a channel share with it.
struct Mailbox {
    /// Flags for the channel: [`ITEMS`], [`CLOSE`], [`ABORT`]. They are changed under the lock, and read without
    /// it.
    news: AtomicU8,
    mail: Mutex<Mail>,
    /// Notified when there is room again, and when the channel closes or has ended.
    changed: Notify,
    /// How many bytes may wait.
    capacity: usize,
}

/// There are items.
const ITEMS: u8 = 1;
/// A close was asked for.
const CLOSE: u8 = 2;
/// An abort was asked for.
const ABORT: u8 = 4;

struct Mail {
    items: Vec<Bytes>,
    /// Small items, copied together, behind all others.
    gathered: BytesMut,
    /// How many bytes are in `items` and `gathered`. They are no more than the capacity, unless a single push was.
    bytes: usize,
    asked: Asked,
    /// The channel's task, once it has looked here.
    waker: Option<Waker>,
}

/// What the handles have asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Nothing,
    Close,
    Abort,
    /// The channel has ended.
    Ended,
}

impl Mailbox {
    /// No code under the lock panics half-way through a change, so a poisoned mailbox is consistent too.
    fn lock(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the channel's task, which is woken outside the lock, and once for all that has come since it
    /// last looked.
    fn announce(&self, mut mail: MutexGuard<'_, Mail>, news: u8) {
        self.news.fetch_or(news, Ordering::Release);
        let waker = mail.waker.take();
        drop(mail);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Mail {
    /// Stores an item, or a copy of it if it is small. An item that was copied is returned, to be dropped outside
    /// the lock.
    fn put<T: Payload>(&mut self, item: T) -> Option<T> {
        let bytes = item.as_bytes();
        if bytes.len() < LARGE {
            self.copy(bytes);
            return Some(item);
        }
        self.bytes += bytes.len();
        self.seal();
        self.items.push(item.into_bytes());
        None
    }

    fn copy(&mut self, small: &[u8]) {
        self.bytes += small.len();
        self.gathered.extend_from_slice(small);
    }

    fn seal(&mut self) {
        if !self.gathered.is_empty() {
            self.items.push(mem::take(&mut self.gathered).freeze());
        }
    }

    fn take(&mut self) -> Vec<Bytes> {
        self.seal();
        self.bytes = 0;
        mem::take(&mut self.items)
    }
}

/// The channel's side of its handles. When it is dropped, all further pushes are refused.
pub(crate) struct Inbox {
    handle: Handle,
}

impl Inbox {
    pub(crate) fn new(capacity: usize) -> Self {
        let mail = Mail {
            items: Vec::new(),
            gathered: BytesMut::new(),
            bytes: 0,
            asked: Asked::Nothing,
            waker: None,
        };
        let mailbox = Mailbox {
            news: AtomicU8::new(0),
            mail: Mutex::new(mail),
            changed: Notify::new(),
            capacity,
        };
        Inbox { handle: Handle { mailbox: Arc::new(mailbox) } }
    }

    pub(crate) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// What was asked for.
    #[inline]
    pub(crate) fn asked(&self) -> Asked {
        match self.news() {
            news if news & ABORT != 0 => Asked::Abort,
            news if news & CLOSE != 0 => Asked::Close,
            _ => Asked::Nothing,
        }
    }

    #[inline]
    pub(crate) fn has_items(&self) -> bool {
        self.news() & ITEMS != 0
    }

    #[inline]
    fn news(&self) -> u8 {
        self.handle.mailbox.news.load(Ordering::Acquire)
    }

    /// Registers this task, to be woken by anything that is pushed or asked for after this call.
    pub(crate) fn register(&self, cx: &Context<'_>) {
        let mut mail = self.handle.mailbox.lock();
        if mail.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            return;
        }
        let old = mail.waker.replace(cx.waker().clone());
        drop(mail);
        // It is dropped outside the lock, since what its task owns may use a handle in its `Drop`.
        drop(old);
    }

    /// Takes what has been pushed.
    pub(crate) fn take(&self) -> Vec<Bytes> {
        let mailbox = &self.handle.mailbox;
        let mut mail = mailbox.lock();
        let items = mail.take();
        mailbox.news.fetch_and(!ITEMS, Ordering::Relaxed);
        drop(mail);
        mailbox.changed.notify_waiters();
        items
    }

    /// Refuses pushes from here on, and takes those that were accepted. An abort still works.
    pub(crate) fn close(&self) -> Vec<Bytes> {
        let mut mail = self.handle.mailbox.lock();
        if mail.asked == Asked::Nothing {
            mail.asked = Asked::Close;
        }
        drop(mail);
        self.take()
    }

    /// Accepts pushes again after a close that nobody else asked for.
    pub(crate) fn reopen(&self) {
        let mut mail = self.handle.mailbox.lock();
        if mail.asked == Asked::Close && self.asked() == Asked::Nothing {
            mail.asked = Asked::Nothing;
        }
    }

    /// The channel has ended: refuses pushes from here on, and drops what was not taken.
    pub(crate) fn end(&self) {
        let mailbox = &self.handle.mailbox;
        let mut mail = mailbox.lock();
        mail.asked = Asked::Ended;
        // These are dropped outside the lock, since what an item or a task owns may use a handle in its `Drop`.
        let left = (mail.take(), mail.waker.take());
        drop(mail);
        mailbox.changed.notify_waiters();
        drop(left);
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.handle.fmt(f)
    }
}

/// Why a push from another task was refused, with the item.
///
/// ```
/// use asynchat::HandleError;
///
/// let refused = HandleError::Full("news");
/// assert_eq!(refused.to_string(), "the receiver does not keep up");
/// assert_eq!(refused.into_inner(), "news");
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandleError<T> {
    /// The receiver has not kept up: some bytes wait for it, and with these it would be more than may wait.
    Full(T),
    /// The channel is closed or closing.
    Closed(T),
}

impl<T> HandleError<[T; 1]> {
    fn into_only(self) -> HandleError<T> {
        match self {
            HandleError::Full([item]) => HandleError::Full(item),
            HandleError::Closed([item]) => HandleError::Closed(item),
        }
    }
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

/// An item of this many bytes or more is kept as it is; a smaller one is copied.
const LARGE: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inbox_that_was_closed_in_passing_is_opened_again_unless_somebody_else_has_closed_it() {
        let inbox = Inbox::new(100);
        let handle = inbox.handle();
        handle.push("one ").expect("it is open");
        handle.push("two").expect("it is open");
        assert_eq!(inbox.close(), ["one two"]);
        assert_eq!(handle.push("late"), Err(HandleError::Closed("late")));
        inbox.reopen();
        assert!(!handle.is_closed());
        handle.push("three").expect("it is open again");
        assert_eq!(inbox.take(), ["three"]);

        inbox.close();
        handle.abort();
        inbox.reopen();
        assert!(handle.is_closed());
        assert_eq!(inbox.asked(), Asked::Abort);

        let inbox = Inbox::new(100);
        let handle = inbox.handle();
        handle.close_when_done();
        inbox.close();
        inbox.reopen();
        assert_eq!(handle.push("late"), Err(HandleError::Closed("late")));
        assert_eq!(inbox.asked(), Asked::Close);
    }
}
