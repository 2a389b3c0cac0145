//! Framing without I/O: bytes in, events out. Nothing here knows of a runtime, a clock or a stream.
//!
//! | file | what lives there |
//! |---|---|
//! | `event.rs`, `step.rs`, `limit.rs`, `terminator.rs` | the public types besides `Framer` |
//! | `word.rs` | up to eight bytes that are compared at once |
//! | `framer.rs` | how far the current frame has come, and how it ends |
//! | `search.rs`, `search/` | where the next delimiter is, and the strategies to find it |

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
