//! Terminator-driven framing for Tokio.
#![forbid(unsafe_code)]

#[cfg(feature = "tokio")]
mod codec;
mod event;
mod framer;
#[cfg(feature = "tokio")]
mod frames;
mod limit;
mod search;
mod terminator;

#[cfg(feature = "tokio")]
pub use codec::{CodecError, TerminatorCodec};
pub use event::Event;
pub use framer::Framer;
#[cfg(feature = "tokio")]
pub use frames::{Batch, BatchCodec, Frame, FrameCodec};
pub use limit::{Limit, OverlongError};
pub use terminator::{Delimiter, DelimiterSet, DelimiterSetError, EmptyDelimiter, Terminator};
