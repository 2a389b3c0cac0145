//! How to build on this crate, and pages for those who know something else already.
//!
//! | page | what it answers |
//! |---|---|
//! | [`which_way`] | a framer, a codec, a channel, or a handler? And how to write a proxy or Redis, and when to flush |
//! | [`limits`] | what must be bounded before the open internet, and what bounds it |
//! | [`back_pressure`] | what happens when somebody is too fast |
//! | [`cancellation`] | what may be dropped, and how to use `select!` |
//! | [`shutdown`] | how a server stops and still finishes what it has begun |
//! | [`tls`] | where TLS goes, and STARTTLS |
//! | [`logging`] | what is logged with `tracing`, and how to see it |
//! | [`testing`] | tests without a network and without waiting, and `verify`, which cuts the input in every way |
//! | [`lines_codec`] | I have a `LinesCodec` |
//! | [`python`], [`twisted`], [`netty`] | I come from there |

#[doc = include_str!("which_way.md")]
pub mod which_way {}

#[doc = include_str!("limits.md")]
pub mod limits {}

#[doc = include_str!("back_pressure.md")]
pub mod back_pressure {}

#[doc = include_str!("cancellation.md")]
pub mod cancellation {}

#[doc = include_str!("shutdown.md")]
pub mod shutdown {}

#[doc = include_str!("tls.md")]
pub mod tls {}

#[doc = include_str!("logging.md")]
pub mod logging {}

#[doc = include_str!("testing.md")]
pub mod testing {}

#[doc = include_str!("lines_codec.md")]
pub mod lines_codec {}

#[doc = include_str!("python.md")]
pub mod python {}

#[doc = include_str!("twisted.md")]
pub mod twisted {}

#[doc = include_str!("netty.md")]
pub mod netty {}
