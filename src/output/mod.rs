//! The way out: a queue of bytes and producers, and the sink that drains it.
//!
//! [`Output`] is what the rest of the crate writes with; [`ProducerSink`] is a thin wrapper of it for those who
//! have a `FramedWrite`. The writer is lent to each poll:
//!
//! | to | call |
//! |---|---|
//! | queue something | `push`, `push_with`, `write_fmt`, `push_with_producer` |
//! | wait for room | `poll_ready`; without waiting, `is_full` and `has_room` |
//! | write and flush all, and carry out a close | `poll_flush` |
//! | end | `close_when_done`, `abort`; `discard_buffers` ends nothing |
//! | know whether a pending poll waits for the writer (a stall) or not | `is_refused` |
//! | know whether the writer took something | `written`, before and after a poll |
//!
//! `pieces.rs` holds bytes, `queue.rs` producers, marks and the state; `payload.rs` and `producer.rs` are
//! what can be queued, `error.rs` what can go wrong. They build on one another in this order: error,
//! payload, pieces and producer, queue, sink.

pub mod producer;

mod error;
mod payload;
mod pieces;
mod queue;
mod sink;

pub use error::{PushError, SinkError};
pub use payload::Payload;
pub use producer::Producer;
pub(crate) use queue::Output;
pub use sink::ProducerSink;
