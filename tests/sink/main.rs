//! `ProducerSink`: nothing lost, nothing repeated, nothing out of order, whatever the writer does.
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
