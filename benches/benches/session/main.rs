//! Connections: a `Channel` and its `Handler`, beside other ways to serve them.
//!
//! `cargo bench -p asynchat-benches --bench session [-- [ROW]... [--quick]]`
//!
//! All connections are TCP over loopback. A server is a child process with one thread, except for HTTP, and is started
//! anew for each measurement, since one start of a program differs from another in speed. The clients are one thread
//! of this process. The CPU time of the server is measured, and beside it the wall clock, which depends on the slower
//! of server and clients.

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
