//! Terminator-driven framing for Tokio.
#![forbid(unsafe_code)]
