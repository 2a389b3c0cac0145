//! asynchat's callbacks, and what drives them.

pub(crate) mod control;
pub(crate) mod drive;
#[allow(clippy::module_inception, reason = "the file is named after the trait in it")]
pub(crate) mod handler;

pub use control::{Chunk, Control, Outgoing, PendingInput};
pub use drive::drive;
pub use handler::Handler;
