//! One connection driven: a `Channel` and its `Handler`, beside those who do it otherwise.
//!
//! `cargo bench -p asynchat-benches --bench channel [-- [ROW]... [--quick]]`
//!
//! In memory it is as for `framing`: 64 KiB a read, nothing is ever pending. Over TCP the other end is
//! a thread of this process, and what counts is the CPU time of the thread that serves. The memory of
//! idle connections is that of a child process, which is this program again.

#![forbid(unsafe_code)]

mod echo;
mod idle;
mod memory;
mod tcp;

use asynchat_benches::Bench;

fn main() {
    if let Some(kind) = std::env::var_os(idle::SERVER) {
        idle::serve(kind.to_str().expect("one of ours"));
        return;
    }
    let mut bench = Bench::from_args();
    memory::lines(&mut bench);
    memory::resp(&mut bench);
    tcp::lines(&mut bench);
    echo::echo(&mut bench);
    idle::idle(&mut bench);
    bench.finish();
}
