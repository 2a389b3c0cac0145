//! Describes in one line where and when something was measured.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Versions in the lock file that matter to the figures.
const CRATES: [&str; 8] =
    ["tokio", "tokio-util", "bytes", "memchr", "hyper", "redis-protocol", "aho-corasick", "wide"];

/// The processor, how many there are, the system's kernel, the compiler, the crates, the day.
pub fn describe() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("an unknown processor", |(_, model)| model);
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut said = vec![
        said_by("date", &["-u", "+%Y-%m-%d"]),
        format!("{count} × {model}"),
        format!("Linux {}", kernel.split('.').take(2).collect::<Vec<_>>().join(".")),
        said_by("rustc", &["--version"]),
        said_by("redis-server", &["--version"]).split(" sha").next().unwrap_or_default().to_owned(),
    ];
    said.extend(versions());
    said.retain(|part| !part.is_empty());
    said.join("; ")
}

/// The first line that a program prints, if there is such a program.
fn said_by(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let said = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    said.unwrap_or_default().lines().next().unwrap_or_default().to_owned()
}

fn versions() -> Vec<String> {
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
    let lock = fs::read_to_string(lock).unwrap_or_default();
    let version = |name: &&str| {
        let package = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?.1;
        Some(format!("{name} {}", package.split_once('"')?.0))
    };
    CRATES.iter().filter_map(version).collect()
}
