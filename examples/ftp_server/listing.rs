//! Directories → the lines of LIST, NLST, MLSD and MLST.
//!
//! A symbolic link is shown as what it leads to, and not at all if that is nothing or not below the root. Nor is a file
//! shown whose name is not UTF-8 or holds a CR or LF, since a line cannot hold such a name.

use std::time::{Duration, SystemTime};

use asynchat::producer::{self, Producer};
use cap_std::fs::{Dir, Metadata, ReadDir};
use futures::stream;

use crate::command::{Facts, Reply, Style};
use crate::files::{Files, off_thread};
use crate::path::VirtualPath;

/// How many entries of a directory are read at a time, however many there are.
const ENTRIES: usize = 256;

pub(crate) async fn list(
    files: &Files,
    style: Style,
    path: VirtualPath,
    facts: Facts,
) -> Result<impl Producer + Send + 'static, Reply> {
    let line = Line { style, facts, writable: files.are_writable() };
    let listing = files
        .with(move |root| {
            let metadata = root.metadata(path.below_root())?;
            let root = root.try_clone()?;
            let entries = if metadata.is_dir() {
                Entries::Of(root.read_dir(path.below_root())?)
            } else if style == Style::Facts {
                return Err(Reply::from("501 that is not a directory; say MLST"));
            } else {
                Entries::One(Some(metadata))
            };
            Ok(Listing { root, path, entries, line })
        })
        .await?;
    Ok(producer::stream(stream::try_unfold(listing, |mut listing| {
        off_thread(move || {
            let lines = listing.lines()?;
            Ok((!lines.is_empty()).then_some((lines, listing)))
        })
    })))
}

struct Listing {
    root: Dir,
    path: VirtualPath,
    entries: Entries,
    line: Line,
}

enum Entries {
    /// The entries of a directory.
    Of(ReadDir),
    /// A single file, whose own name was given; `None` once its line was made.
    One(Option<Metadata>),
}

impl Listing {
    /// The next lines; none at the end.
    fn lines(&mut self) -> std::io::Result<String> {
        let mut lines = String::new();
        match &mut self.entries {
            Entries::One(file) => {
                if let Some(metadata) = file.take() {
                    self.line.write(&mut lines, self.path.name(), &metadata);
                }
            }
            Entries::Of(entries) => {
                let mut left = ENTRIES;
                // The search goes on if none of the entries can be shown, because no lines would mean the end.
                while left > 0 || lines.is_empty() {
                    left = left.saturating_sub(1);
                    let Some(entry) = entries.next().transpose()? else { break };
                    let Ok(name) = entry.file_name().into_string() else { continue };
                    if name.contains(['\r', '\n']) {
                        continue;
                    }
                    let link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
                    if self.line.style == Style::Names && !link {
                        // The name is enough, so its metadata is not read.
                        lines += &name;
                        lines += "\r\n";
                        continue;
                    }
                    let metadata = if link {
                        self.root.metadata(self.path.entry(&name).below_root())
                    } else {
                        entry.metadata()
                    };
                    // The file may have been removed meanwhile.
                    let Ok(metadata) = metadata else { continue };
                    self.line.write(&mut lines, &name, &metadata);
                }
            }
        }
        Ok(lines)
    }
}

/// How the line of an entry is written.
#[derive(Clone, Copy, Debug)]
struct Line {
    style: Style,
    facts: Facts,
    writable: bool,
}

impl Line {
    fn write(self, lines: &mut String, name: &str, metadata: &Metadata) {
        match self.style {
            Style::Names => {}
            Style::Facts => {
                *lines += &facts(metadata, self.writable, self.facts);
                lines.push(' ');
            }
            Style::Long => {
                let kind = if metadata.is_dir() { "drwxr-xr-x" } else { "-rw-r--r--" };
                let (size, time) = (metadata.len(), modified(metadata).in_list());
                *lines += &format!("{kind} 1 ftp ftp {size:>12} {time} ");
            }
        }
        *lines += name;
        *lines += "\r\n";
    }
}

/// The wanted facts of a file, as RFC 3659 writes them.
pub(crate) fn facts(metadata: &Metadata, writable: bool, wanted: Facts) -> String {
    let permitted = match (metadata.is_dir(), writable) {
        (true, true) => "elcdfmp",
        (true, false) => "el",
        (false, true) => "radfw",
        (false, false) => "r",
    };
    let mut facts = String::new();
    for (fact, _) in wanted.each().filter(|(_, wanted)| *wanted) {
        facts += &match fact {
            "type" if metadata.is_dir() => "type=dir;".into(),
            "type" => "type=file;".into(),
            "size" if metadata.is_dir() => continue,
            "size" => format!("size={};", metadata.len()),
            "modify" => format!("modify={};", modified(metadata).in_digits()),
            _ => format!("perm={permitted};"),
        };
    }
    facts
}

/// A point in time, in UTC.
pub(crate) struct Time {
    at: SystemTime,
    /// `Sun, 06 Nov 1994 08:49:37 GMT`
    text: String,
}

pub(crate) fn modified(metadata: &Metadata) -> Time {
    let at = metadata.modified().map_or(SystemTime::UNIX_EPOCH, |time| time.into_std());
    // A time before 1970 or after `LAST` is shown as the nearest of these.
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().min(LAST);
    let at = SystemTime::UNIX_EPOCH + since;
    Time { at, text: httpdate::fmt_http_date(at) }
}

impl Time {
    /// `19941106084937`
    pub(crate) fn in_digits(&self) -> String {
        let text = &self.text;
        let month = MONTHS.find(&text[8..11]).unwrap_or_default() / 3 + 1;
        let time = text[17..25].replace(':', "");
        format!("{}{month:02}{}{time}", &text[12..16], &text[5..7])
    }

    /// `Nov 06 08:49`, or `Nov 06  1994` if that is half a year ago or to come.
    fn in_list(&self) -> String {
        let text = &self.text;
        let recent = self.at.elapsed().is_ok_and(|age| age < HALF_A_YEAR);
        let rest = if recent { &text[17..22] } else { &text[11..16] };
        format!("{} {} {rest}", &text[8..11], &text[5..7])
    }
}

const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
const HALF_A_YEAR: Duration = Duration::from_secs(182 * 24 * 60 * 60);
/// The end of the year 9999.
const LAST: Duration = Duration::from_secs(253_402_300_799);
