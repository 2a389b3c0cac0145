use std::{error, fmt, io};

use crate::framing::limit::FrameError;
use crate::output::{PushError, SinkError};
use crate::session::timer::Timeout;

/// How a connection ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum CloseReason<E> {
    /// The peer closed at a frame boundary, and what was queued has been written.
    PeerClosed,
    /// The peer closed in mid-frame, and what was queued has been written.
    Truncated,
    /// The handler or a handle closed, and what was queued has been written.
    Done,
    /// The handler or a handle aborted.
    Aborted,
    /// The handler asked for an upgrade, and what was queued has been written:
    /// [`Channel::upgrade`](crate::Channel::upgrade) gives the stream.
    Upgrade,
    /// The connection failed, or a limit or deadline was passed.
    Error(ChannelError),
    /// The handler failed.
    Handler(E),
}

impl<E: fmt::Display> fmt::Display for CloseReason<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseReason::PeerClosed => f.write_str("closed by the peer"),
            CloseReason::Truncated => f.write_str("closed by the peer in mid-frame"),
            CloseReason::Done => f.write_str("closed"),
            CloseReason::Aborted => f.write_str("aborted"),
            CloseReason::Upgrade => f.write_str("upgraded"),
            CloseReason::Error(error) => error.fmt(f),
            CloseReason::Handler(error) => error.fmt(f),
        }
    }
}

/// Why a channel could not go on.
#[derive(Debug)]
#[non_exhaustive]
pub enum ChannelError {
    /// The stream failed, reading or writing.
    Io(io::Error),
    /// A producer failed. What was queued is dropped.
    Producer(io::Error),
    /// A frame was longer than [`Limit::Fail`](crate::Limit::Fail) allows, or a counted frame did not
    /// have its end.
    Frame(FrameError),
    /// A deadline has passed.
    Timeout(Timeout),
    /// The channel was closed or aborted before all was written.
    Closed,
}

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChannelError::Io(error) => error.fmt(f),
            ChannelError::Producer(error) => write!(f, "a producer failed: {error}"),
            ChannelError::Frame(error) => error.fmt(f),
            ChannelError::Timeout(timeout) => timeout.fmt(f),
            ChannelError::Closed => f.write_str("the channel is closed"),
        }
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

impl From<SinkError> for ChannelError {
    fn from(error: SinkError) -> Self {
        match error {
            SinkError::Write(error) => ChannelError::Io(error),
            SinkError::Producer(error) => ChannelError::Producer(error),
            SinkError::Closed => ChannelError::Closed,
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
