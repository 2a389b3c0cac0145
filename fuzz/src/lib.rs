//! Fuzz targets. Each is a function of bytes, which come from a fuzzing engine, a file of seeds or a test. It reads
//! them as a plan (terminators, switches, limits, reads, discards, what the peer does), carries the plan out, and
//! compares the result with that of a simple model, which is the one of the crate's own tests.
//!
//! - `cargo test` in this folder runs each target over its seeds and some thousand random inputs, on stable
//!   Rust and without an engine; `FUZZ_RUNS` sets how many.
//! - `./run SECONDS` in this folder runs each for so long with libFuzzer, by `cargo fuzz`.
//! - `cargo fuzz run framer` runs one target until it fails; `FUZZ_SHOW=1` shows the plan of each input.
#![allow(clippy::unwrap_used)]

mod channel;
mod codecs;
mod framing;
mod io;
mod plan;
mod sink;

#[path = "../../tests/support/mod.rs"]
#[allow(missing_debug_implementations, clippy::duplicate_mod)]
pub mod support;

pub use channel::channel;
pub use codecs::{encoders, frame_codec, terminator_codec};
pub use framing::{framer, search};
pub use sink::producer_sink;

/// A target: a function that is given bytes, and panics if something is wrong.
pub type Target = fn(&[u8]);

/// All targets, with the names that they have for `cargo fuzz` and as folders of seeds.
pub const TARGETS: &[(&str, Target)] = &[
    ("search", search),
    ("framer", framer),
    ("terminator_codec", terminator_codec),
    ("frame_codec", frame_codec),
    ("encoders", encoders),
    ("producer_sink", producer_sink),
    ("channel", channel),
];

/// Defines `main` for a target.
#[macro_export]
macro_rules! target {
    ($target:path) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|data: &[u8]| $target(data));

        // Without an engine, runs the target on the files that are named on the command line.
        #[cfg(not(fuzzing))]
        fn main() {
            for file in std::env::args_os().skip(1) {
                $target(&std::fs::read(file).expect("a file to be read"));
            }
        }
    };
}
