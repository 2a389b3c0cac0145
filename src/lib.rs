#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

// The map. The folders are in the order in which data passes through them: input by `framing`, then `codec` or
// `session` and `handler`, and output by `output`. Each can be used without those behind it.
//
//   framing/   Bytes in, positions of frames out; no I/O, no clock, no runtime. `framer.rs` knows how far a
//              frame has come, `search.rs` where the next delimiter is.
//   codec/     The framer as tokio-util's `Decoder`, and the encoders.
//   output/    The queue of bytes and producers, and the sink over a `FramedWrite`.
//   session/   One connection: `conn.rs` polls it, `channel.rs` has what its owner calls, `read.rs` and `write.rs`
//              are its two halves, `input.rs` the memory that is read into, `state.rs` how it is closed,
//              `timer.rs` its deadlines, `handle.rs` pushes from other tasks, `control.rs` what a callback may
//              do, `builder.rs` the settings that have a default.
//   handler/   asynchat's callbacks; `dispatch.rs`, the only loop that calls them; and `signal.rs`, the signal
//              that ends this loop from outside.
//   serve.rs   The accept loop.   pool.rs  Buffers to read into and to write from.   trace.rs  Events for `tracing`.
//   verify/    Checks that a decoder, a handler or a client does not depend on how its input is cut.
//
// What to touch:
//
//   a new kind of terminator       framing/terminator.rs, then `Strategy` in framing/search.rs, and first of
//                                  all the model in tests/support/model.rs
//   a faster way to find one       framing/search/, behind `Search::find`; nothing else knows of it
//   a new way for a frame to end   `End` in framing/step.rs; the compiler shows the rest
//   a new way to close             `CloseReason` in session/error.rs and the diagram in session/state.rs
//   a new deadline                 `Timeouts` in session/timer.rs
//   a new callback                 `Handler` in handler/handler.rs, called from handler/dispatch.rs, and passed on
//                                  in verify/handler.rs, where the compiler does not ask for it
//   a new method for callbacks     `Control` in session/control.rs and, for those who pull, session/channel.rs
//   a new setting                  session/builder.rs; what it governs is in session/conn.rs, read.rs or write.rs
//   a new counter                  `Traffic` in session/write.rs; bytes are counted in session/read.rs and
//                                  output/queue.rs
//   a new source of output         output/producer.rs

#[cfg(feature = "tokio")]
mod codec;
mod framing;
#[cfg(all(feature = "serve", any(doc, doctest)))]
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
