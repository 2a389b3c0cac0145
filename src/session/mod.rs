//! One connection: input framed, output queued, deadlines, and an orderly close.

pub(crate) mod channel;
pub(crate) mod close;
pub(crate) mod handle;
pub(crate) mod timer;

pub use channel::{Channel, ChannelBuilder, UpgradeError};
pub use close::{ChannelError, CloseReason};
pub use handle::{Handle, HandleError};
pub use timer::{Timeout, Timeouts};
