//! Framing, beside those who frame otherwise.
//!
//! `cargo bench -p asynchat-benches --bench framing [-- [ROW]... [--quick]]`
//!
//! Everybody reads from memory, 64 KiB at a time unless the row says otherwise, and copies what is
//! read into a buffer of its own, as from a socket. `Framer` and loops lend what they find out of that
//! buffer; codecs go through `FramedRead` with 64 KiB of buffer, and make a `Bytes` of it; `Channel` and
//! `Handler` have no deadlines and no limit here, as the peers have none. Nothing is ever pending.

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
