//! How a connection ends, and why a channel could not go on.

use std::convert::Infallible;
use std::{error, fmt, io};

use crate::framing::FrameError;
use crate::output::{PushError, SinkError};
use crate::session::timer::Timeout;

/// How a connection ended: the first thing that went wrong, or else how it came to its orderly end.
///
/// ```
/// use asynchat::{CloseReason, Timeout};
/// use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
///
/// fn is_worth_a_line_in_the_log<E>(reason: &CloseReason<E>) -> bool {
///     match reason {
///         CloseReason::PeerClosed | CloseReason::Done | CloseReason::Upgrade => false,
///         CloseReason::Timeout(Timeout::Idle) => false,
///         // The client has closed while something was on its way to it.
///         CloseReason::Io(error) => !matches!(error.kind(), BrokenPipe | ConnectionReset),
///         _ => true,
///     }
/// }
/// assert!(is_worth_a_line_in_the_log(&CloseReason::<()>::Truncated));
/// assert!(!is_worth_a_line_in_the_log(&CloseReason::<()>::Io(ConnectionReset.into())));
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum CloseReason<E> {
    /// The peer closed between two messages, and what was queued has been written.
    PeerClosed,
    /// The peer closed in the middle of a message, and what was queued has been written.
    Truncated,
    /// The handler, the channel's owner or a handle closed, and what was queued has been written.
    Done,
    /// The handler, the channel's owner or a handle aborted.
    Aborted,
    /// The handler asked for an upgrade, and what was queued has been written:
    /// [`Channel::upgrade`](crate::Channel::upgrade) gives the stream.
    Upgrade,
    /// The stream failed, reading or writing.
    Io(io::Error),
    /// A producer failed. What was queued is dropped.
    Producer(io::Error),
    /// A frame was longer than [`Limit::Fail`](crate::Limit::Fail) allows, a message whose end the application
    /// finds was longer than the limit, or a counted frame did not have its end.
    Frame(FrameError),
    /// A deadline has passed.
    Timeout(Timeout),
    /// The handler failed.
    Handler(E),
}

/// Why a channel ended: a [`CloseReason`] that is never the error of a handler.
pub(crate) type Cause = CloseReason<Infallible>;

impl<E> CloseReason<E> {
    /// The reason in words, without the text of an error that is not the crate's own.
    pub(crate) fn outline(&self) -> &dyn fmt::Display {
        match self {
            CloseReason::PeerClosed => &"closed by the peer",
            CloseReason::Truncated => &"closed by the peer in mid-frame",
            CloseReason::Done => &"closed",
            CloseReason::Aborted => &"aborted",
            CloseReason::Upgrade => &"upgraded",
            CloseReason::Io(_) => &"the stream failed",
            CloseReason::Producer(_) => &"a producer failed",
            CloseReason::Frame(error) => error,
            CloseReason::Timeout(timeout) => timeout,
            CloseReason::Handler(_) => &"the handler failed",
        }
    }
}

impl<E: fmt::Display> fmt::Display for CloseReason<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseReason::Io(error) | CloseReason::Producer(error) => {
                write!(f, "{}: {error}", self.outline())
            }
            CloseReason::Handler(error) => error.fmt(f),
            _ => self.outline().fmt(f),
        }
    }
}

impl Cause {
    /// Whether nothing has gone wrong so far.
    pub(crate) fn is_orderly(&self) -> bool {
        match self {
            CloseReason::PeerClosed
            | CloseReason::Truncated
            | CloseReason::Done
            | CloseReason::Upgrade => true,
            CloseReason::Aborted
            | CloseReason::Io(_)
            | CloseReason::Producer(_)
            | CloseReason::Frame(_)
            | CloseReason::Timeout(_) => false,
            CloseReason::Handler(never) => match *never {},
        }
    }

    /// The cause, to be reported. A later call returns the same cause, but of an I/O error, which cannot be
    /// cloned, only the kind.
    pub(crate) fn tell<E>(&mut self) -> CloseReason<E> {
        let take = |error: &mut io::Error| {
            let again = error.kind().into();
            std::mem::replace(error, again)
        };
        match self {
            CloseReason::PeerClosed => CloseReason::PeerClosed,
            CloseReason::Truncated => CloseReason::Truncated,
            CloseReason::Done => CloseReason::Done,
            CloseReason::Aborted => CloseReason::Aborted,
            CloseReason::Upgrade => CloseReason::Upgrade,
            CloseReason::Io(error) => CloseReason::Io(take(error)),
            CloseReason::Producer(error) => CloseReason::Producer(take(error)),
            CloseReason::Frame(error) => CloseReason::Frame(*error),
            CloseReason::Timeout(timeout) => CloseReason::Timeout(*timeout),
            CloseReason::Handler(never) => match *never {},
        }
    }
}

impl From<SinkError> for Cause {
    fn from(error: SinkError) -> Self {
        match error {
            SinkError::Write(error) => CloseReason::Io(error),
            SinkError::Producer(error) => CloseReason::Producer(error),
            // The output has failed before, by a panic of the writer, a producer or a closure that pushes.
            SinkError::Closed => CloseReason::Aborted,
        }
    }
}

/// Why a channel could not go on. It is told once, but for [`Timeout::Quiet`], after which it goes on.
///
/// ```
/// use asynchat::{Channel, ChannelError, FrameError, Limit};
/// use std::io;
/// use tokio::io::AsyncWriteExt;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (mut client, server) = tokio::io::duplex(64);
/// client.write_all(b"too long\n").await?;
/// let mut channel =
///     Channel::builder(b"\n").whole_frames(true).limit(Limit::Fail(3)).build(server);
/// let error = loop {
///     match channel.next().await.expect("it fails first") {
///         Ok(_) => {} // what the limit allows, and that it is too long
///         Err(error) => break error,
///     }
/// };
/// assert!(matches!(error, ChannelError::Frame(FrameError::Overlong(3))));
/// assert_eq!(io::Error::from(error).kind(), io::ErrorKind::InvalidData);
/// assert!(channel.next().await.is_none());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum ChannelError {
    /// The stream failed, reading or writing.
    Io(io::Error),
    /// A producer failed. What was queued is dropped.
    Producer(io::Error),
    /// A frame was longer than [`Limit::Fail`](crate::Limit::Fail) allows, a message whose end the application
    /// finds was longer than the limit, or a counted frame did not have its end.
    Frame(FrameError),
    /// A deadline has passed.
    Timeout(Timeout),
    /// The channel was closed or aborted before all was written, or has failed before.
    Closed,
}

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ChannelError::Io(_) => "the stream failed",
            ChannelError::Producer(_) => "a producer failed",
            ChannelError::Frame(_) => "a frame is not as it should be",
            ChannelError::Timeout(_) => "a deadline has passed",
            ChannelError::Closed => "the channel is closed",
        })
    }
}

impl error::Error for ChannelError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            ChannelError::Io(error) | ChannelError::Producer(error) => Some(error),
            ChannelError::Frame(error) => Some(error),
            ChannelError::Timeout(timeout) => Some(timeout),
            ChannelError::Closed => None,
        }
    }
}

impl From<Cause> for ChannelError {
    fn from(cause: Cause) -> Self {
        match cause {
            CloseReason::Io(error) => ChannelError::Io(error),
            CloseReason::Producer(error) => ChannelError::Producer(error),
            CloseReason::Frame(error) => ChannelError::Frame(error),
            CloseReason::Timeout(timeout) => ChannelError::Timeout(timeout),
            CloseReason::PeerClosed
            | CloseReason::Truncated
            | CloseReason::Done
            | CloseReason::Aborted
            | CloseReason::Upgrade => ChannelError::Closed,
            CloseReason::Handler(never) => match never {},
        }
    }
}

impl<T> From<PushError<T>> for ChannelError {
    fn from(_: PushError<T>) -> Self {
        ChannelError::Closed
    }
}

impl From<ChannelError> for io::Error {
    fn from(error: ChannelError) -> Self {
        let kind = match error {
            ChannelError::Io(error) => return error,
            ChannelError::Producer(ref error) => error.kind(),
            ChannelError::Frame(_) => io::ErrorKind::InvalidData,
            ChannelError::Timeout(_) => io::ErrorKind::TimedOut,
            ChannelError::Closed => io::ErrorKind::BrokenPipe,
        };
        io::Error::new(kind, error)
    }
}

/// A stream was not handed over to another protocol.
///
/// `C` is what is given back: the [`Channel`](crate::Channel) of
/// [`Channel::upgrade`](crate::Channel::upgrade), with all that is in it, or nothing where the upgrade was asked
/// of a [`Control`](crate::Control).
///
/// ```
/// use asynchat::{Channel, Event};
/// use tokio::io::AsyncWriteExt;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (mut client, server) = tokio::io::duplex(64);
/// client.write_all(b"STARTTLS\nMAIL\n").await?;
/// let mut channel = Channel::new(server, b"\n");
/// while channel.next().await.transpose()? != Some(Event::Terminator) {}
///
/// let refused = channel.upgrade().await.unwrap_err();
/// assert_eq!(refused.pending_input(), 5);
/// let mut channel = refused.into_inner(); // as it was
/// assert_eq!(channel.next().await.transpose()?, Some(Event::Chunk("MAIL".into())));
/// # Ok(())
/// # }
/// ```
pub struct UpgradeError<C = ()> {
    channel: C,
    reason: Refusal,
}

/// Why a stream is not handed over.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// So many bytes of input would be injected into the other protocol.
    Pending(usize),
    /// The output could not be written.
    Unwritten(ChannelError),
}

impl<C> UpgradeError<C> {
    pub(crate) fn new(channel: C, reason: Refusal) -> Self {
        UpgradeError { channel, reason }
    }

    /// How many bytes the peer has sent behind the frame that asked for the upgrade: they would be injected
    /// into the other protocol. If there are none but the end of that frame has not been pulled yet, it is 1.
    /// 0 if it was refused because the channel is closed or the output could not be written.
    pub fn pending_input(&self) -> usize {
        match self.reason {
            Refusal::Pending(bytes) => bytes,
            Refusal::Unwritten(_) => 0,
        }
    }

    /// What is given back, to go on with.
    pub fn into_inner(self) -> C {
        self.channel
    }
}

impl<C> fmt::Debug for UpgradeError<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpgradeError").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl<C> fmt::Display for UpgradeError<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Refusal::Pending(bytes) => {
                write!(f, "{bytes} bytes of input are pending that the other protocol must not see")
            }
            Refusal::Unwritten(_) => f.write_str("what was queued could not be written"),
        }
    }
}

impl<C> error::Error for UpgradeError<C> {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match &self.reason {
            Refusal::Pending(_) => None,
            Refusal::Unwritten(error) => Some(error),
        }
    }
}
