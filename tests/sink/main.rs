//! `ProducerSink`: whatever the writer does, no byte is lost, repeated or out of order.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used)]

mod cases;
mod closing;
mod handing;
mod memory;
mod producers;
mod property;
mod support;
mod writing;
