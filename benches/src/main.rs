//! Makes what is committed of the benches' figures: `cargo run -p asynchat-benches -- instructions`.

#![forbid(unsafe_code)]

mod instructions;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.split_first() {
        Some((command, rows)) if command == "instructions" => instructions::write(rows),
        _ => Err("usage: asynchat-benches instructions [ROW]...".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
