//! What the benches share. Where to look:
//!
//! - `harness`: rows, competitors, rounds, ratios; `record`: what comes of them, line by line;
//! - `tally`: the checksum that every competitor is asked for;
//! - `input`: the bytes; `io`: reading them from memory as from a socket;
//! - `ours`: every way in which this crate frames, each written once;
//! - `lines`, `heads`, `resp`: a workload each, with its protocol and its peers;
//! - `server`, `client`: a server as a child process, and the other end of its connections;
//! - `main.rs`: the results and the count of instructions, made by one command each.

#![forbid(unsafe_code)]

pub mod client;
pub mod harness;
pub mod heads;
pub mod input;
pub mod io;
pub mod lines;
pub mod ours;
pub mod record;
pub mod resp;
pub mod server;
pub mod tally;

pub use harness::{Bench, Row, nanoseconds, thread_time};
pub use tally::Tally;
