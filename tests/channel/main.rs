//! One connection with scripted peers: what it reads, calls and writes, what it waits for, and when it gives up.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used)]

mod abandoned;
mod back_pressure;
mod closing;
mod deadlines;
mod dispatch;
mod handles;
mod input;
mod messages;
mod owner;
mod pulling;
mod reasons;
mod shutdown;
#[path = "../support/channel.rs"]
mod support;
mod traits;
mod upgrades;
