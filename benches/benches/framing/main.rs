//! Framing, beside those who frame otherwise.
//!
//! `cargo bench -p asynchat-benches --bench framing [-- [ROW]... [--quick]]`
//!
//! Everybody reads from memory, 64 KiB at a time unless the row says otherwise, and copies what is
//! read into a buffer of its own, as from a socket. "Lent" rows hand out borrowed bytes; the others
//! go through `FramedRead` with 64 KiB of buffer, polled without a runtime.

#![forbid(unsafe_code)]

mod bodies;
mod bytewise;
mod heads;
mod lines;
mod ours;
mod resp;
mod scaling;

use asynchat_benches::Bench;

fn main() {
    let mut bench = Bench::from_args();
    lines::lent(&mut bench);
    lines::owned(&mut bench);
    lines::frames(&mut bench);
    lines::batches(&mut bench);
    resp::lent(&mut bench);
    resp::owned(&mut bench);
    heads::lent(&mut bench);
    heads::owned(&mut bench);
    bodies::counted(&mut bench);
    bodies::huge(&mut bench);
    scaling::input(&mut bench);
    scaling::terminator(&mut bench);
    bytewise::periodic(&mut bench);
    bytewise::frames(&mut bench);
    bytewise::decoders(&mut bench);
    bench.finish();
}
