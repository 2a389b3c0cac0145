//! Runs the benches, records their figures, and makes tables and charts of them.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use asynchat_benches::record::Figure;

use crate::tables::tables;
use crate::{chart, machine};

/// All benches, and what they are about.
const BENCHES: [(&str, &str); 4] = [
    ("framing", "Framing, in memory"),
    ("session", "Connections, over loopback TCP"),
    ("sink", "The way out"),
    ("allocations", "Allocations"),
];

/// The charts: a file name, a title, and how the names of their rows begin.
const CHARTS: [(&str, &str, &[&str]); 6] = [
    ("lines", "Lines of 32 bytes", &["lines, LF,", "lines, CRLF,"]),
    ("resp", "Redis commands, pipelined", &["RESP SET,"]),
    ("heads", "HTTP heads of 400 bytes", &["HTTP heads,"]),
    (
        "session",
        "Connections: CPU time of the server",
        &[
            "lines over TCP",
            "echo, 64 lines at a time, 50 connections: CPU",
            "echo, one line at a time, 50 connections: CPU",
            "RESP server, 64 PING at a time, 50 connections: CPU",
            "RESP server, 64 SET at a time, 50 connections: CPU",
            "HTTP, 16 requests at a time, 64 connections: CPU",
            "HTTP, one request at a time, 64 connections: CPU",
            "16 messages at a time to 1 000 connections: CPU",
        ],
    ),
    ("memory", "Memory of an idle connection", &["idle connections: after a line"]),
    ("sink", "Writing", &["items of 64 B over TCP: CPU", "items of 4 KiB over TCP: CPU"]),
];

const HEAD: &str = "\
# Results

Medians of runs in which the competitors of a row took turns; the last column is the time (or what else is
measured) in parts of what the row's first peer takes, taken within a round. What uses this crate is in
bold. What is measured, and how to measure it where you are: [the benches](../README.md).
";

/// Runs the benches that are named, or all, and writes tables and charts of all figures that are recorded, those of
/// earlier runs included. The figures of a quick run are of no use, and go to a folder in `target` instead.
pub fn write(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let crate_root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let folder = match quick {
        true => crate_root.join("../target/quick-results"),
        false => crate_root.join("results"),
    };
    fs::create_dir_all(&folder)?;
    for (bench, _) in BENCHES {
        let named = arguments.iter().any(|argument| argument == bench);
        if named || arguments.iter().all(|argument| argument.starts_with('-')) {
            measure(bench, quick, &record(&folder, bench))?;
        }
    }
    let (mut page, mut all) = (HEAD.to_owned(), Vec::new());
    for (bench, about) in BENCHES {
        let Ok(lines) = fs::read_to_string(record(&folder, bench)) else { continue };
        let mut lines = lines.lines();
        let measured_at = lines.next().unwrap_or_default();
        let figures = lines.map(Figure::from_line).collect::<Option<Vec<_>>>();
        let figures = figures.ok_or_else(|| format!("the record of {bench} is not readable"))?;
        write!(page, "\n## {about}\n\n{measured_at}\n")?;
        for rows in figures.chunk_by(|a, b| a.row == b.row) {
            if let Some(name) = charted(&rows[0].row)
                && !page.contains(&format!("]({name}.svg)"))
            {
                write!(page, "\n![{name}]({name}.svg)\n")?;
            }
        }
        tables(&mut page, &figures)?;
        all.extend(figures);
    }
    for (name, title, wanted) in CHARTS {
        let rows: Vec<&[Figure]> = (all.chunk_by(|a, b| a.row == b.row))
            .filter(|row| wanted.iter().any(|wanted| row[0].row.starts_with(wanted)))
            .collect();
        if !rows.is_empty() {
            fs::write(folder.join(format!("{name}.svg")), chart::draw(title, &rows))?;
        }
    }
    let page_path = folder.join("README.md");
    fs::write(&page_path, page)?;
    println!("written: {}", page_path.canonicalize()?.display());
    Ok(())
}

/// The file with the figures of a bench: a line about the machine, and a line for each figure.
fn record(folder: &Path, bench: &str) -> PathBuf {
    folder.join(format!("{bench}.tsv"))
}

/// Runs a bench, and replaces the figures that were recorded of it.
fn measure(bench: &str, quick: bool, record: &Path) -> Result<(), Box<dyn Error>> {
    let part = record.with_extension("part");
    fs::write(&part, format!("{}\n", machine::describe()))?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["bench", "-p", env!("CARGO_PKG_NAME"), "--bench", bench, "--"]);
    command.arg(format!("--record={}", part.display()));
    if quick {
        command.arg("--quick");
    }
    if !command.status()?.success() {
        return Err(format!("the bench {bench} fails").into());
    }
    fs::rename(part, record)?;
    Ok(())
}

/// The chart that a row is in, if it is in one.
fn charted(row: &str) -> Option<&'static str> {
    let in_it =
        |(_, _, wanted): &&(_, _, &[&str])| wanted.iter().any(|start| row.starts_with(start));
    CHARTS.iter().find(in_it).map(|(name, ..)| *name)
}
