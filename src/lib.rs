#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

#[cfg(feature = "tokio")]
mod channel;
#[cfg(feature = "tokio")]
mod close;
#[cfg(feature = "tokio")]
mod codec;
#[cfg(feature = "tokio")]
mod control;
#[cfg(feature = "tokio")]
mod drive;
mod event;
mod framer;
#[cfg(feature = "tokio")]
mod frames;
#[cfg(all(feature = "tokio", any(doc, doctest)))]
pub mod guide;
#[cfg(feature = "tokio")]
mod handle;
#[cfg(feature = "tokio")]
mod handler;
mod limit;
#[cfg(feature = "tokio")]
mod payload;
#[cfg(feature = "tokio")]
mod pool;
#[cfg(feature = "tokio")]
pub mod producer;
#[cfg(feature = "tokio")]
mod queue;
mod search;
#[cfg(feature = "serve")]
mod serve;
#[cfg(feature = "tokio")]
mod sink;
mod terminator;
#[cfg(feature = "tokio")]
mod timer;
#[cfg(feature = "tokio")]
mod trace;

#[cfg(feature = "tokio")]
pub use channel::{Channel, ChannelBuilder, UpgradeError};
#[cfg(feature = "tokio")]
pub use close::{ChannelError, CloseReason};
#[cfg(feature = "tokio")]
pub use codec::{CodecError, TerminatorCodec};
#[cfg(feature = "tokio")]
pub use control::{Chunk, Control, Outgoing, PendingInput};
#[cfg(feature = "tokio")]
pub use drive::drive;
pub use event::Event;
pub use framer::Framer;
#[cfg(feature = "tokio")]
pub use frames::{Batch, BatchCodec, Frame, FrameCodec};
#[cfg(feature = "tokio")]
pub use handle::{Handle, HandleError};
#[cfg(feature = "tokio")]
pub use handler::Handler;
pub use limit::{Limit, OverlongError};
#[cfg(feature = "tokio")]
pub use payload::Payload;
#[cfg(feature = "tokio")]
pub use producer::Producer;
#[cfg(feature = "tokio")]
pub use queue::{PushError, SinkError};
#[cfg(feature = "serve")]
pub use serve::{Connection, ServeError, Served, Server};
#[cfg(feature = "tokio")]
pub use sink::ProducerSink;
pub use terminator::{Delimiter, DelimiterSet, DelimiterSetError, EmptyDelimiter, Terminator};
#[cfg(feature = "tokio")]
pub use timer::{Timeout, Timeouts};
