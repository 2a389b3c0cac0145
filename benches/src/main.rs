//! Makes what is committed of the benches' figures:
//!
//! - `cargo run -p asynchat-benches -- results [BENCH]... [--quick]`
//! - `cargo run -p asynchat-benches -- instructions [ROW]...`

#![forbid(unsafe_code)]

mod chart;
mod instructions;
mod machine;
mod results;
mod tables;

use std::process::ExitCode;

const USAGE: &str = "usage: asynchat-benches results [BENCH]... [--quick]
       asynchat-benches instructions [ROW]...";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.split_first() {
        Some((command, rest)) if command == "results" => results::write(rest),
        Some((command, rest)) if command == "instructions" => instructions::write(rest),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
