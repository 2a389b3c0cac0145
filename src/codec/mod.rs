//! Framing as tokio-util's `Decoder` and `Encoder`: thin wrappers of [`Framer`](crate::Framer).

mod batch;
mod buffer;
mod error;
mod frame;
mod terminator;

pub use batch::{Batch, BatchCodec};
pub use buffer::DiscardInput;
pub use error::CodecError;
pub use frame::{Frame, FrameCodec};
pub use terminator::TerminatorCodec;
