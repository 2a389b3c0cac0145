//! asynchat's callbacks, and what drives them.

pub(crate) mod dispatch;
#[allow(clippy::module_inception, reason = "the file is named after the trait in it")]
pub(crate) mod handler;
pub(crate) mod signal;

pub use handler::Handler;
