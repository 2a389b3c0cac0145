//! Counts the instructions of each competitor of the bench in memory, by valgrind's callgrind. These figures have no
//! noise: if two builds have different counts, they do different work.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, thread};

use asynchat_benches::record::Figure;

use crate::machine;
use crate::tables::tables;

/// The bench whose rows can be counted.
const BENCH: &str = "framing";
/// The file that the table is written to, in the folder of this package.
const TABLE: &str = "INSTRUCTIONS.md";
const HEAD: &str = "\
# Instructions

How many instructions each competitor of the bench `framing` executes for an item, counted by callgrind:
no times, but the same figures in each run of the same build on one kind of processor (which is asked
what it can do). The last column is the ratio to the row's first peer. What uses this crate is in bold.

Made by `cargo run -p asynchat-benches -- instructions`, which needs valgrind. With words behind it, it
prints the rows whose names contain one of them, and writes nothing.
";

/// One competitor of a row, as the bench lists it.
struct Entry {
    row: String,
    competitor: String,
    ours: bool,
    items: u64,
    item: String,
}

/// The beginnings of the names of rows that check that the work is linear, and the ratio that each may reach. Twice the
/// input is twice the work, and a terminator of twice the length is no more work. Both bounds allow a little more, for
/// what is done once at the start.
const LINEAR: [(&str, f64); 2] = [("twice the input", 2.1), ("twice the terminator", 1.15)];

/// With words, counts the rows whose names contain one of them, and prints them. Without, counts all and writes the
/// table.
pub fn write(words: &[String]) -> Result<(), Box<dyn Error>> {
    let figures = figures(words)?;
    let mut table = String::new();
    tables(&mut table, &figures)?;
    if words.is_empty() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(TABLE);
        fs::write(&path, format!("{HEAD}\n{}\n{table}", machine::describe()))?;
    }
    print!("{table}");
    Ok(())
}

/// Checks that the work is linear, by counts that are the same however busy the machine is.
pub fn check_linear() -> Result<(), Box<dyn Error>> {
    let figures = figures(&LINEAR.map(|(rows, _)| rows.to_owned()))?;
    let mut failed = 0;
    for (rows, most) in LINEAR {
        let ratios = figures.iter().filter(|figure| figure.ours && figure.row.starts_with(rows));
        let ratios: Vec<_> =
            ratios.filter_map(|figure| Some((&figure.row, figure.ratio?))).collect();
        if ratios.is_empty() {
            return Err(format!("the bench has no row {rows:?}").into());
        }
        for (row, ratio) in &ratios {
            let passes = *ratio <= most;
            failed += usize::from(!passes);
            println!("{ratio:.3} of at most {most}{}: {row}", if passes { "" } else { ", FAILED" });
        }
    }
    match failed {
        0 => Ok(()),
        _ => Err(format!("{failed} rows cost more than linear work may").into()),
    }
}

fn figures(words: &[String]) -> Result<Vec<Figure>, Box<dyn Error>> {
    let bench = build()?;
    let entries = list(&bench, words)?;
    let counts = count(&bench, &entries)?;
    let per_item = |i: usize| counts[i] as f64 / entries[i].items.max(1) as f64;
    let figures = (entries.iter().enumerate())
        .map(|(i, Entry { row, competitor, ours, item, .. })| {
            let peer = entries.iter().position(|other| other.row == *row && !other.ours);
            Figure {
                row: row.clone(),
                competitor: competitor.clone(),
                ours: *ours,
                unit: format!("instructions/{item}"),
                value: per_item(i),
                rate: None,
                reference: peer.map(|peer| entries[peer].competitor.clone()).unwrap_or_default(),
                ratio: peer.map(|peer| per_item(i) / per_item(peer)),
                goals: Vec::new(),
            }
        })
        .collect();
    Ok(figures)
}

/// Builds the bench with the profile in which it is timed, and returns the path of its executable.
fn build() -> Result<PathBuf, Box<dyn Error>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["bench", "--no-run", "-p", env!("CARGO_PKG_NAME"), "--bench", BENCH])
        .stderr(Stdio::piped())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let path = said.lines().find_map(|line| {
        line.trim().strip_prefix("Executable ")?.split_once('(')?.1.strip_suffix(')')
    });
    match path {
        // The path is given from the workspace's root.
        Some(path) => Ok(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)),
        None => Err(format!("the bench does not build:\n{said}").into()),
    }
}

fn list(bench: &Path, words: &[String]) -> Result<Vec<Entry>, Box<dyn Error>> {
    let output = Command::new(bench).arg("--list").args(words).output()?;
    let entry = |line: &str| match *line.split('\t').collect::<Vec<_>>() {
        [row, competitor, ours, items, item] => Some(Entry {
            row: row.to_owned(),
            competitor: competitor.to_owned(),
            ours: ours.parse().ok()?,
            items: items.parse().ok()?,
            item: item.to_owned(),
        }),
        _ => None,
    };
    let entries = String::from_utf8(output.stdout)?.lines().map(entry).collect::<Option<_>>();
    entries.ok_or_else(|| "the bench lists its rows otherwise".into())
}

/// Counts all entries, as many at a time as there are processors.
fn count(bench: &Path, entries: &[Entry]) -> Result<Vec<u64>, Box<dyn Error>> {
    let threads = thread::available_parallelism()?.get();
    let counted: Vec<_> = thread::scope(|scope| {
        let share = |n: usize| {
            let mine = entries.iter().skip(n).step_by(threads);
            mine.map(|entry| count_one(bench, entry)).collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..threads).map(|n| scope.spawn(move || share(n))).collect();
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
    });
    let mut counted: Vec<_> = counted.into_iter().map(Vec::into_iter).collect();
    let in_order = (0..entries.len()).map(|i| counted[i % threads].next().expect("one each"));
    in_order.collect::<Result<_, String>>().map_err(Into::into)
}

fn count_one(bench: &Path, entry: &Entry) -> Result<u64, String> {
    let Entry { row, competitor, .. } = entry;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        // Count only inside the harness's function `counted`, and in what it calls.
        .args(["--collect-atstart=no", "--toggle-collect=*harness*counted*"])
        .arg(bench)
        .args(["--count", &format!("--row={row}"), &format!("--only={competitor}")])
        .output()
        .map_err(|error| format!("valgrind does not run: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")?.1.parse().ok());
    match collected {
        Some(count) if output.status.success() && count > 0 => Ok(count),
        _ => Err(format!("{row}, {competitor}:\n{said}")),
    }
}
