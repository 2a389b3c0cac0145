//! Connections: a `Channel` and its `Handler`, beside those who serve otherwise.
//!
//! `cargo bench -p asynchat-benches --bench session [-- [ROW]... [--quick]]`
//!
//! All of it goes over loopback TCP. Where there is a server, it is a child process, started anew for
//! each measurement (for no start is like the other), on one thread; the clients are a thread of this
//! process. What counts is the CPU time that the server took, and beside it the wall clock, where the
//! slower of the two sets the pace.

#![forbid(unsafe_code)]

mod echo;
mod fan_out;
mod http;
mod idle;
mod lines;
mod redis;

use asynchat_benches::{Bench, server};

fn main() {
    server::serve_if_child(&[
        ("echo", &echo::WAYS),
        ("redis", &redis::WAYS),
        ("http", &http::WAYS),
        ("idle", &idle::WAYS),
    ]);
    let mut bench = Bench::from_args();
    lines::lines(&mut bench);
    echo::echo(&mut bench);
    redis::redis(&mut bench);
    fan_out::fan_out(&mut bench);
    http::http(&mut bench);
    idle::idle(&mut bench);
    idle::http(&mut bench);
    bench.finish();
}
