//! Framing as tokio-util's `Decoder` and `Encoder`: thin skins over [`Framer`](crate::Framer).

pub(crate) mod frame;
pub(crate) mod terminator;

pub use frame::{Batch, BatchCodec, Frame, FrameCodec};
pub use terminator::{CodecError, TerminatorCodec};
