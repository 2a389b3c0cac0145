//! The way out: a queue of bytes and producers, and the sink that drains it.

pub mod producer;

pub(crate) mod payload;
pub(crate) mod queue;
pub(crate) mod sink;

pub use payload::Payload;
pub use producer::Producer;
pub use queue::{PushError, SinkError};
pub use sink::ProducerSink;
