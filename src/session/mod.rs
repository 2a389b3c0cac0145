//! One connection: input framed, output queued, deadlines, and an orderly end.
//!
//! | file | what it is about |
//! |---|---|
//! | [`channel`] | the pull interface |
//! | [`conn`] | the connection, and the polls that drive it |
//! | [`builder`] | the settings and their defaults |
//! | [`input`] | the memory that is read into |
//! | [`state`] | where a connection is between open and closed, and why |
//! | [`read`], [`write`](mod@write) | the two halves: what was read, what is to be written |
//! | [`control`] | what a callback can do |
//! | [`handle`] | what other tasks can do |
//! | [`timer`] | the deadlines: when the peer has been waited for too long |
//! | [`error`] | how a connection ends |

pub(crate) mod builder;
pub(crate) mod channel;
pub(crate) mod conn;
pub(crate) mod control;
pub(crate) mod error;
pub(crate) mod handle;
pub(crate) mod input;
pub(crate) mod read;
pub(crate) mod state;
pub(crate) mod timer;
pub(crate) mod write;

pub use builder::ChannelBuilder;
pub use channel::Channel;
pub use control::{Chunk, Control};
pub use error::{ChannelError, CloseReason, UpgradeError};
pub use handle::{Handle, HandleError};
pub use timer::{Timeout, Timeouts};
pub use write::Traffic;
