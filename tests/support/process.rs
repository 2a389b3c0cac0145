//! Runs an example as a process of its own, for tests that are its clients.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

/// A server process, which is killed when this is dropped.
pub struct Server {
    pub process: Child,
    /// The address that it listens on, as it has printed it.
    pub addr: String,
    /// What it prints after that.
    pub stdout: BufReader<ChildStdout>,
}

impl Server {
    /// Starts a server by a command that has all its arguments: the address to listen on, and whatever follows it.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let addr = line.strip_prefix("listening on ").unwrap().trim_end().to_owned();
        assert!(!addr.ends_with(":0"), "{addr}");
        Server { process, addr, stdout }
    }

    #[cfg(unix)]
    pub fn signal(&self, name: &str) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The path of an example's binary. `cargo test` builds it together with the tests, but `cargo test --test` does not.
/// So this panics if the binary is older than its sources.
pub fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let example = profile.join("examples").join(name);
    let example = example.with_extension(std::env::consts::EXE_EXTENSION);
    // Cargo writes next to the binary what it was built from: `binary: source source ...`.
    let built_from = fs::read_to_string(example.with_extension("d")).unwrap_or_default();
    let sources = built_from.split_once(": ").map_or("", |(_, sources)| sources.trim_end());
    let sources = sources.replace("\\ ", "\0"); // a blank within a name
    let changed = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
    let newest = sources
        .split(' ')
        .map(|source| source.replace('\0', " "))
        .filter_map(|source| changed(Path::new(&source)))
        .max();
    assert!(
        newest.is_some() && changed(&example) >= newest,
        "{name} is not built: run the whole `cargo test`, or `cargo build --examples` first"
    );
    example
}
