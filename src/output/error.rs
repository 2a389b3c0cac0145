//! Why something was not written, or not queued. `Display` says what could not be done and `source` why, so that a
//! printed chain of errors says each thing once.

use std::{error, fmt, io};

/// Why a sink could not write what was queued.
///
/// The first failure is reported as it is; the queue is dropped with it, and everything later is told
/// [`Closed`](SinkError::Closed). As an [`io::Error`] it keeps its kind; `Closed` is `BrokenPipe`.
///
/// ```
/// use asynchat::SinkError;
/// use std::io;
///
/// assert_eq!(io::Error::from(SinkError::Closed).kind(), io::ErrorKind::BrokenPipe);
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum SinkError {
    /// The writer failed, or took no bytes (`WriteZero`).
    Write(io::Error),
    /// A producer failed.
    Producer(io::Error),
    /// The sink is closed, or has failed before.
    Closed,
}

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SinkError::Write(_) => "writing failed",
            SinkError::Producer(_) => "a producer failed",
            SinkError::Closed => "the sink is closed",
        })
    }
}

impl error::Error for SinkError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            SinkError::Write(error) | SinkError::Producer(error) => Some(error),
            SinkError::Closed => None,
        }
    }
}

impl From<SinkError> for io::Error {
    fn from(error: SinkError) -> Self {
        let kind = match error {
            SinkError::Write(error) => return error,
            SinkError::Producer(ref error) => error.kind(),
            SinkError::Closed => io::ErrorKind::BrokenPipe,
        };
        io::Error::new(kind, error)
    }
}

/// A push that came after the close, with the item that was not queued.
///
/// `?` makes it an [`io::Error`] (`BrokenPipe`), a [`SinkError`] or a [`ChannelError`](crate::ChannelError).
///
/// ```
/// use asynchat::ProducerSink;
/// use tokio_util::codec::{BytesCodec, FramedWrite};
///
/// let mut sink = ProducerSink::new(FramedWrite::new(tokio::io::sink(), BytesCodec::new()));
/// sink.close_when_done();
/// assert_eq!(sink.push("late").unwrap_err().into_inner(), "late");
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PushError<T>(T);

impl<T> PushError<T> {
    pub(crate) fn new(item: T) -> Self {
        PushError(item)
    }

    /// The item.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> fmt::Debug for PushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushError").finish_non_exhaustive()
    }
}

impl<T> fmt::Display for PushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("push after close")
    }
}

impl<T> error::Error for PushError<T> {}

impl<T> From<PushError<T>> for SinkError {
    fn from(_: PushError<T>) -> Self {
        SinkError::Closed
    }
}

impl<T> From<PushError<T>> for io::Error {
    fn from(_: PushError<T>) -> Self {
        SinkError::Closed.into()
    }
}
