//! Framing in memory, beside other crates and hand-written code.
//!
//! `cargo bench -p asynchat-benches --bench framing [-- [ROW]... [--quick]]`
//!
//! All competitors read from memory, 64 KiB at a time unless the row says otherwise, and copy what they read into a
//! buffer of their own, as from a socket. `Framer` and hand-written loops lend what they find out of that buffer.
//! Codecs are in a `FramedRead` with a buffer of 64 KiB, and make a `Bytes` of what they find. `Channel` and `Handler`
//! have no deadlines and no limit here, since the peers have none. No read or write ever has to wait.

#![forbid(unsafe_code)]

mod bodies;
mod bytewise;
mod heads;
mod lines;
mod resp;
mod scaling;

use asynchat_benches::Bench;

fn main() {
    let mut bench = Bench::from_args();
    lines::lines(&mut bench);
    resp::sets(&mut bench);
    heads::heads(&mut bench);
    bodies::counted(&mut bench);
    bodies::huge(&mut bench);
    bytewise::lines(&mut bench);
    bytewise::periodic(&mut bench);
    scaling::input(&mut bench);
    scaling::terminator(&mut bench);
    scaling::switched(&mut bench);
    bench.finish();
}
