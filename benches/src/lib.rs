//! What the benches share. Where to look:
//!
//! - `harness`: rows, competitors, rounds, ratios; `record`: the figures, as lines of a file;
//! - `tally`: the checksum that every competitor has to return;
//! - `input`: the inputs; `io`: reads them from memory as from a socket;
//! - `ours`: a function for every way in which this crate frames;
//! - `lines`, `heads`, `resp`: a workload each, with its protocol and its peers;
//! - `server`, `client`: a server as a child process, and its clients;
//! - `main.rs`: the commands that write the results, count instructions, and run the checks.

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
