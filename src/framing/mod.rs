//! Framing without I/O: bytes in, events out. Nothing here knows of a runtime, a clock or a stream.
//!
//! | file | what lives there |
//! |---|---|
//! | `event.rs`, `step.rs`, `limit.rs`, `terminator.rs` | the vocabulary |
//! | `word.rs` | a few bytes that are compared at once |
//! | `framer.rs` | how far the frame at hand has come, and how it ends |
//! | `search.rs`, `search/` | where the next delimiter is, in each of the ways to find out |

mod event;
mod framer;
mod limit;
mod search;
mod step;
mod terminator;
mod word;

pub use event::Event;
#[cfg(feature = "tokio")]
pub(crate) use framer::Cut;
pub use framer::Framer;
pub use limit::{FrameError, Limit};
#[cfg(feature = "tokio")]
pub(crate) use search::first_delimiter;
pub use step::{End, Step};
pub use terminator::{
    CountThen, Delimiter, DelimiterSet, DelimiterSetError, EmptyDelimiter, Ending, EndingError,
    Terminator,
};
