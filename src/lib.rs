//! Terminator-driven framing for Tokio.
#![forbid(unsafe_code)]

#[cfg(feature = "tokio")]
mod payload;
#[cfg(feature = "tokio")]
pub mod producer;
#[cfg(feature = "tokio")]
mod queue;
#[cfg(feature = "tokio")]
mod sink;

#[cfg(feature = "tokio")]
pub use payload::Payload;
#[cfg(feature = "tokio")]
pub use producer::Producer;
#[cfg(feature = "tokio")]
pub use queue::{PushError, SinkError};
#[cfg(feature = "tokio")]
pub use sink::ProducerSink;
