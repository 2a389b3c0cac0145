//! Makes what is committed of the benches' figures:
//!
//! - `cargo run -p asynchat-benches -- results [BENCH]... [--quick]`
//! - `cargo run -p asynchat-benches -- instructions [ROW]...`
//! - `cargo run --release -p asynchat-benches -- linear`, which counts instructions, and fails if twice the input is more than twice the work
//! - `cargo run --release -p asynchat-benches -- hostile [--short]`, which makes a table and fails if a peer
//!   can do more harm than it should

#![forbid(unsafe_code)]

mod chart;
mod hostile;
mod instructions;
mod machine;
mod results;
mod tables;

use std::process::ExitCode;

const USAGE: &str = "usage: asynchat-benches results [BENCH]... [--quick]
       asynchat-benches instructions [ROW]...
       asynchat-benches linear
       asynchat-benches hostile [--short]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.split_first() {
        Some((command, rest)) if command == "results" => results::write(rest),
        Some((command, rest)) if command == "instructions" => instructions::write(rest),
        Some((command, [])) if command == "linear" => instructions::check_linear(),
        Some((command, rest)) if command == "hostile" => hostile::run(rest),
        // What `hostile` starts.
        Some((command, [])) if command == "hostile-server" => hostile::serve().map_err(Into::into),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => {
            if let Some(check @ ("linear" | "hostile")) = arguments.first().map(String::as_str) {
                // What `.ci/promises` looks for.
                println!("asynchat-benches {check} ... ok");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
