use std::str::Utf8Error;
use std::{error, fmt, io};

use crate::framing::FrameError;

/// Why a stream of frames ended, or an item could not be encoded.
///
/// ```
/// use asynchat::{CodecError, FrameCodec, FrameError, Limit};
/// use bytes::BytesMut;
/// use tokio_util::codec::{Decoder, Encoder};
///
/// let mut codec = FrameCodec::lf().with_limit(Limit::Fail(3));
/// let mut buffer = BytesMut::from("too long\n");
/// assert!(codec.decode(&mut buffer).is_ok(), "its beginning is an item");
/// let error = codec.decode(&mut buffer).unwrap_err();
/// assert!(matches!(error, CodecError::Frame(FrameError::Overlong(3))));
///
/// let error = codec.encode("two\nlines", &mut BytesMut::new()).unwrap_err();
/// assert!(matches!(error, CodecError::Injection));
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum CodecError {
    /// A frame was longer than [`Limit::Fail`](crate::Limit::Fail) allows, or a counted frame did not
    /// have its end.
    Frame(FrameError),
    /// The transport failed.
    Io(io::Error),
    /// A frame that was to be text is not UTF-8. The codecs don't ask for that: it is for `?` behind
    /// [`Frame::to_str`](crate::Frame::to_str).
    Utf8(Utf8Error),
    /// A payload was to be encoded that contains its own delimiter, or could be read as part of it.
    Injection,
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CodecError::Frame(_) => "invalid frame",
            CodecError::Io(_) => "transport failed",
            CodecError::Utf8(_) => "frame is not UTF-8",
            CodecError::Injection => "payload contains the delimiter",
        })
    }
}

impl error::Error for CodecError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            CodecError::Frame(error) => Some(error),
            CodecError::Io(error) => Some(error),
            CodecError::Utf8(error) => Some(error),
            CodecError::Injection => None,
        }
    }
}

impl From<io::Error> for CodecError {
    fn from(error: io::Error) -> Self {
        CodecError::Io(error)
    }
}

impl From<FrameError> for CodecError {
    fn from(error: FrameError) -> Self {
        CodecError::Frame(error)
    }
}

impl From<Utf8Error> for CodecError {
    fn from(error: Utf8Error) -> Self {
        CodecError::Utf8(error)
    }
}

/// An error of the transport comes back as it was; any other is `InvalidData` and holds the error.
impl From<CodecError> for io::Error {
    fn from(error: CodecError) -> Self {
        match error {
            CodecError::Io(error) => error,
            other => io::Error::new(io::ErrorKind::InvalidData, other),
        }
    }
}
