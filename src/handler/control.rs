use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard};
use std::{error, fmt};

use bytes::Bytes;

use crate::Payload;
use crate::framing::framer::Framer;
use crate::framing::limit::Limit;
use crate::framing::terminator::Terminator;
use crate::output::{Producer, PushError};
use crate::session::channel::{Shared, Wish, keep, lock};
use crate::session::handle::Handle;
use crate::session::timer::Timeouts;

/// Some bytes of a frame, lent to a [`Handler`](crate::Handler). It derefs to `[u8]`, is never empty, and
/// holds no byte of a terminator.
#[derive(Clone, Copy)]
pub struct Chunk<'a> {
    /// What was read.
    input: &'a Bytes,
    /// `start < end <= input.len()`
    start: usize,
    end: usize,
}

impl<'a> Chunk<'a> {
    pub(crate) fn new(input: &'a Bytes, start: usize, end: usize) -> Self {
        Chunk { input, start, end }
    }

    /// The bytes, to be kept: without a copy if there are many. Of fewer than 16 KiB a copy is made, so
    /// that a small piece does not keep the whole read buffer.
    pub fn to_bytes(&self) -> Bytes {
        keep(self.input, self.start, self.end)
    }
}

impl Deref for Chunk<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.input[self.start..self.end]
    }
}

impl AsRef<[u8]> for Chunk<'_> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Chunk<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk(b\"{}\")", self.escape_ascii())
    }
}

/// How a callback gets at the output.
pub(crate) enum Access<'a> {
    /// The callback does not wait: nobody else needs it meanwhile.
    Alone(&'a mut Shared),
    /// It may, and output goes on while it does.
    Shared(&'a Mutex<Shared>),
}

impl Access<'_> {
    #[inline]
    fn get(&mut self) -> Held<'_> {
        match self {
            Access::Alone(shared) => Held::Alone(shared),
            Access::Shared(shared) => Held::Locked(lock(shared)),
        }
    }

    fn read<R>(&self, read: impl FnOnce(&Shared) -> R) -> R {
        match self {
            Access::Alone(shared) => read(shared),
            Access::Shared(shared) => read(&lock(shared)),
        }
    }
}

enum Held<'a> {
    Alone(&'a mut Shared),
    Locked(MutexGuard<'a, Shared>),
}

impl Deref for Held<'_> {
    type Target = Shared;

    #[inline]
    fn deref(&self) -> &Shared {
        match self {
            Held::Alone(shared) => shared,
            Held::Locked(shared) => shared,
        }
    }
}

impl DerefMut for Held<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Shared {
        match self {
            Held::Alone(shared) => shared,
            Held::Locked(shared) => shared,
        }
    }
}

/// What a [`Handler`](crate::Handler) can do with its connection.
pub struct Control<'a> {
    framer: &'a mut Framer,
    access: Access<'a>,
    /// Input that was read and comes after what is being dispatched.
    buffered: u32,
    /// The input is to be dropped when the callback returns.
    pub(crate) discard: bool,
}

impl<'a> Control<'a> {
    /// `input` is the length of the input that `framer` cuts.
    pub(crate) fn new(framer: &'a mut Framer, access: Access<'a>, input: usize) -> Self {
        let buffered = input.saturating_sub(framer.consumed()) as u32;
        Control { framer, access, buffered, discard: false }
    }

    /// Switches the terminator: see [`Framer::set_terminator`].
    #[inline]
    pub fn set_terminator(&mut self, terminator: impl Into<Terminator>) {
        self.framer.set_terminator(terminator);
    }

    /// The terminator in force. Of a count, what remains; a count that is spent has become `None`.
    pub fn terminator(&self) -> Terminator {
        self.framer.terminator()
    }

    /// Sets the limit, for the current frame too.
    pub fn set_limit(&mut self, limit: Limit) {
        self.framer.set_limit(limit);
    }

    /// The limit in force.
    pub fn limit(&self) -> Limit {
        self.framer.limit()
    }

    /// Which member of a set ended the last frame: see [`Framer::matched`].
    pub fn matched(&self) -> usize {
        self.framer.matched()
    }

    /// The deadlines in force.
    pub fn timeouts(&self) -> Timeouts {
        self.access.read(Shared::timeouts)
    }

    /// Sets the deadlines, from now on.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) {
        self.access.get().set_timeouts(timeouts);
    }

    /// Queues bytes.
    ///
    /// # Errors
    ///
    /// After the close: the item is handed back.
    #[inline]
    pub fn push<T: Payload>(&mut self, item: T) -> Result<(), PushError<T>> {
        self.access.get().output.push(item)
    }

    /// Queues a producer, behind all that was pushed before it.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn push_with_producer<P>(&mut self, producer: P) -> Result<(), PushError<P>>
    where
        P: Producer + Send + 'static,
    {
        self.access.get().output.push_with_producer(producer)
    }

    /// The output queue, to push several items at the price of one. It must not be held across an await.
    pub fn output(&mut self) -> Outgoing<'_> {
        Outgoing { shared: self.access.get() }
    }

    /// Bytes waiting to be written, without those that producers still hold.
    pub fn queued_bytes(&self) -> usize {
        self.access.read(|shared| shared.output.queued_bytes())
    }

    /// Closes once all that was pushed is written. No further input is dispatched.
    pub fn close_when_done(&mut self) {
        self.access.get().close_when_done();
    }

    /// Drops what is queued for output, and, when the callback returns, input that is buffered or
    /// withheld. A scheduled close stays, as do the terminator and what remains of a count.
    pub fn discard_buffers(&mut self) {
        self.access.get().output.discard_buffers();
        self.discard = true;
    }

    /// Closes now: nothing that is queued is written. A callback that waits is dropped.
    pub fn abort(&mut self) {
        let mut shared = self.access.get();
        shared.output.abort();
        shared.wish = Wish::Abort;
    }

    /// Ends the channel's run with [`CloseReason::Upgrade`](crate::CloseReason::Upgrade) once all that was
    /// pushed is written, for TLS or another protocol: [`Channel::upgrade`](crate::Channel::upgrade) then
    /// gives the stream.
    ///
    /// # Errors
    ///
    /// [`PendingInput`] if input is buffered behind this frame, which would be injected into the other
    /// protocol. Nothing has changed then.
    pub fn upgrade(&mut self) -> Result<(), PendingInput> {
        if self.buffered > 0 {
            return Err(PendingInput { bytes: self.buffered as usize });
        }
        self.access.get().wish = Wish::Upgrade;
        Ok(())
    }

    /// A handle for other tasks. The first one costs an allocation, further ones are clones.
    pub fn handle(&mut self) -> Handle {
        self.access.get().handle()
    }
}

impl fmt::Debug for Control<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("terminator", &self.framer.terminator())
            .field("limit", &self.framer.limit())
            .field("buffered", &self.buffered)
            .finish_non_exhaustive()
    }
}

/// The output queue of a channel, borrowed by [`Control::output`].
pub struct Outgoing<'a> {
    shared: Held<'a>,
}

impl Outgoing<'_> {
    /// Queues bytes.
    ///
    /// # Errors
    ///
    /// After the close: the item is handed back.
    pub fn push<T: Payload>(&mut self, item: T) -> Result<(), PushError<T>> {
        self.shared.output.push(item)
    }

    /// Queues a producer, behind all that was pushed before it.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn push_with_producer<P>(&mut self, producer: P) -> Result<(), PushError<P>>
    where
        P: Producer + Send + 'static,
    {
        self.shared.output.push_with_producer(producer)
    }
}

impl fmt::Debug for Outgoing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Outgoing").field(&self.shared.output).finish()
    }
}

/// An upgrade was refused because input is buffered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingInput {
    bytes: usize,
}

impl PendingInput {
    /// How many bytes the peer has sent behind the frame that asked for the upgrade.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl fmt::Display for PendingInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of input are buffered that the other protocol must not see", self.bytes)
    }
}

impl error::Error for PendingInput {}
