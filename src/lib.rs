#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

#[cfg(feature = "tokio")]
mod codec;
mod framing;
#[cfg(all(feature = "tokio", any(doc, doctest)))]
pub mod guide;
#[cfg(feature = "tokio")]
mod handler;
#[cfg(feature = "tokio")]
mod output;
#[cfg(feature = "tokio")]
mod pool;
#[cfg(feature = "serve")]
mod serve;
#[cfg(feature = "tokio")]
mod session;
#[cfg(feature = "tokio")]
mod trace;
#[cfg(feature = "verify")]
pub mod verify;

#[cfg(feature = "tokio")]
pub use codec::{Batch, BatchCodec, CodecError, DiscardInput, Frame, FrameCodec, TerminatorCodec};
pub use framing::{
    CountThen, Delimiter, DelimiterSet, DelimiterSetError, EmptyDelimiter, End, Ending,
    EndingError, Event, FrameError, Framer, Limit, Step, Terminator,
};
#[cfg(feature = "tokio")]
pub use handler::Handler;
#[cfg(feature = "tokio")]
pub use output::{Payload, Producer, ProducerSink, PushError, SinkError, producer};
#[cfg(feature = "serve")]
pub use serve::{Connection, ServeError, Served, Server};
#[cfg(feature = "tokio")]
pub use session::{
    Channel, ChannelBuilder, ChannelError, Chunk, CloseReason, Control, Handle, HandleError,
    Timeout, Timeouts, Traffic, UpgradeError,
};
