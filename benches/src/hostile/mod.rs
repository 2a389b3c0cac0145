//! Attacks a server with one thread as hostile peers would, over loopback, and prints a table of what each attack
//! costs it. `cargo run --release -p asynchat-benches -- hostile [--short]`
//!
//! Each row is checked. The memory of the server stays within a bound that follows from its settings; a byte costs it
//! at most so many times what a byte of honest lines costs; a peer that only holds its connection is cut off in time;
//! and a bystander, an honest client that connects anew for each question, is answered all the while. Where the attack
//! uses up the server's file descriptors, the bystander keeps the connection that it has.

mod attacks;
mod bystander;
mod server;

use std::io;
use std::time::{Duration, Instant};

use bystander::Bystander;
pub use server::serve;

use crate::hostile::server::Process;

/// How long a bystander may wait for an answer. This is long because the machine may be busy; a server that an attack
/// starves does not answer at all.
const PATIENCE: Duration = Duration::from_secs(2);

/// What an attack may cost the server.
struct Bound {
    /// Bytes of memory beyond what the server has at rest.
    memory: usize,
    /// The CPU time.
    time: Time,
}

enum Time {
    /// At most this many times what as many bytes of honest lines take.
    PerByte(f64),
    /// At most this for each of the things that are counted, such as connections or bytes that come alone.
    Each(Duration),
    /// At most this in all.
    Total(Duration),
}

/// What an attack has done: how much, and of what.
struct Done {
    count: u64,
    of: &'static str,
    /// A remark for the table, such as how long it took.
    note: String,
}

/// Runs all attacks, and prints the table.
pub fn run(arguments: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let short = match arguments {
        [] => false,
        [short] if short == "--short" => true,
        _ => return Err("usage: asynchat-benches hostile [--short]".into()),
    };
    println!("| attack | how much | server CPU | each | memory | others waited | |");
    println!("|---|---:|---:|---:|---:|---:|---|");
    let mut honest = None;
    let mut failures = Vec::new();
    for attack in attacks::ALL {
        if let Err(error) = row(attack, short, &mut honest) {
            failures.push(format!("{}: {error}", attack.name));
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n").into()) }
}

/// Runs an attack and prints its row. `honest` is what a byte of honest lines costs in nanoseconds, once it is known.
fn row(
    attack: &attacks::Attack,
    short: bool,
    honest: &mut Option<f64>,
) -> Result<(), Box<dyn std::error::Error>> {
    let server = Process::start(attack.files)?;
    let bystander = Bystander::start(&server.address, attack.files.is_some())?;
    let (at_rest, time) = (server.resident()?, server.time()?);
    server.forget_peak()?;
    let done = (attack.run)(&server, short)?;
    let time = server.time()? - time;
    let memory = server.peak()?.saturating_sub(at_rest);
    // The bystander has to be answered after the attack, too.
    std::thread::sleep(Duration::from_millis(100));
    let (asked, longest) = bystander.stop()?;

    let each = time.as_nanos() as f64 / done.count as f64;
    println!(
        "| {} | {} {} | {:.2} s | {} | {:.1} MiB | {} ms of {asked} | {} |",
        attack.name,
        done.count,
        done.of,
        time.as_secs_f64(),
        if each < 1000.0 { format!("{each:.2} ns") } else { format!("{:.1} µs", each / 1000.0) },
        memory as f64 / f64::from(1 << 20),
        longest.as_millis(),
        done.note,
    );
    let Bound { memory: most, time: ref bound } = attack.bound;
    if memory > most {
        return Err(format!("{memory} bytes of memory, and {most} would do").into());
    }
    let (spent, allowed) = match *bound {
        Time::PerByte(times) => (each, honest.get_or_insert(each).max(1.0) * times),
        Time::Each(most) => (each, most.as_nanos() as f64),
        Time::Total(most) => (time.as_nanos() as f64, most.as_nanos() as f64),
    };
    if spent > allowed {
        return Err(format!("{spent:.1} ns of CPU time, and {allowed:.1} would do").into());
    }
    if longest > PATIENCE {
        return Err(format!("another peer waited for {longest:?}").into());
    }
    Ok(())
}

/// Waits until `so` returns `true`, and returns how long that took.
fn until(limit: Duration, mut so: impl FnMut() -> io::Result<bool>) -> io::Result<Duration> {
    let begun = Instant::now();
    while !so()? {
        if begun.elapsed() > limit {
            return Err(io::Error::other(format!("not within {limit:?}")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(begun.elapsed())
}
