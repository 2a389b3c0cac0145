//! Commands that write the figures that are committed, and two checks:
//!
//! - `cargo run -p asynchat-benches -- results [BENCH]... [--quick]`
//! - `cargo run -p asynchat-benches -- instructions [ROW]...`
//! - `cargo run --release -p asynchat-benches -- linear`, which counts instructions, and fails if twice the input is
//!   more than twice the work
//! - `cargo run --release -p asynchat-benches -- hostile [--short]`, which prints a table of what hostile peers cost,
//!   and fails if one costs more than it may

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
        // The server that `hostile` starts as a child process and attacks.
        Some((command, [])) if command == "hostile-server" => hostile::serve().map_err(Into::into),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => {
            if let Some(check @ ("linear" | "hostile")) = arguments.first().map(String::as_str) {
                // `.ci/promises` looks for this line.
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
