//! Files below one directory, and nothing else.
//!
//! The path of a request is taken apart before the file system sees it: percent-decoded once, cut
//! into names, and refused if a name is `..`, begins with a dot or holds a byte that means something
//! to a file system. What is left is joined to the root, every symbolic link in it is followed, and
//! where that leads must still be below the root. (Between this check and the opening somebody could
//! exchange a directory for a link: whoever can write below the root is trusted.)

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// What is shown for `/` if the root has no `index.html`.
const WELCOME: &str = "<!doctype html>\n<title>It works</title>\n\
    <p>It works. There is no <code>index.html</code> here.\n";

/// The bytes of a file that are read at a time.
pub(crate) const BLOCK: u64 = 64 * 1024;

/// The directory that is served.
#[derive(Debug)]
pub(crate) struct Site {
    /// Absolute, without symbolic links.
    root: Option<PathBuf>,
}

/// What a path leads to.
#[derive(Debug)]
pub(crate) enum Found {
    File(Opened),
    /// A page that is part of the program.
    Page(&'static str),
    /// A directory that was asked for without the `/` at its end: the path with it.
    Moved(String),
    Nothing,
    /// There is a file, but it cannot be opened now: too many others are open, say.
    Unavailable,
}

/// A regular file below the root, and its first bytes: they are read when it is opened, so that for most files only one
/// call goes to the threads that may block.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) file: File,
    pub(crate) length: u64,
    /// At most [`BLOCK`] bytes, and no more than `length`.
    pub(crate) start: Vec<u8>,
    pub(crate) content_type: String,
}

impl Site {
    /// Serves the files below `root`.
    ///
    /// # Errors
    /// If it is not a directory, or not readable.
    pub(crate) fn new(root: &Path) -> io::Result<Self> {
        let root = root.canonicalize()?;
        std::fs::read_dir(&root)?;
        Ok(Site { root: Some(root) })
    }

    /// Serves the welcome page only.
    pub(crate) fn empty() -> Self {
        Site { root: None }
    }

    /// Finds what a path, still percent-encoded, leads to. This blocks while the disk does.
    pub(crate) fn find(&self, path: &str) -> Found {
        let Some(names) = names(path) else {
            return Found::Nothing;
        };
        let found = match &self.root {
            Some(root) => find_below(root, &names, path.ends_with('/')),
            None => None,
        };
        match found {
            Some(found) => found,
            None if names.is_empty() => Found::Page(WELCOME),
            None => Found::Nothing,
        }
    }
}

fn find_below(root: &Path, names: &[String], ends_with_slash: bool) -> Option<Found> {
    let mut path = root.to_owned();
    path.extend(names);
    let mut path = path.canonicalize().ok()?;
    if !path.starts_with(root) {
        return None;
    }
    if path.is_dir() {
        if !ends_with_slash {
            return Some(Found::Moved(location(names)));
        }
        path = path.join("index.html").canonicalize().ok()?;
        if !path.starts_with(root) {
            return None;
        }
    } else if ends_with_slash {
        return None;
    }
    // This is checked before it is opened, because to open a pipe would wait for its writer.
    if !path.is_file() {
        return None;
    }
    let opened = File::open(&path).and_then(|mut file| {
        let length = file.metadata()?.len();
        let mut start = Vec::with_capacity(length.min(BLOCK) as usize);
        (&mut file).take(length.min(BLOCK)).read_to_end(&mut start)?;
        Ok(Opened { file, length, start, content_type: content_type(&path) })
    });
    match opened {
        Ok(opened) => Some(Found::File(opened)),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => None,
            _ => Some(Found::Unavailable),
        },
    }
}

/// Cuts a path into the names of directories and a file, or refuses it.
fn names(path: &str) -> Option<Vec<String>> {
    let decoded = percent_decode(path)?;
    let mut names = Vec::new();
    for name in decoded.split('/') {
        // A name that begins with a dot is `.`, `..`, or hidden for a reason. On Windows a colon marks a drive or a
        // stream, and a backslash is a separator; elsewhere they are rare.
        if name.starts_with('.') || name.contains(['\0', '\\', ':']) {
            return None;
        }
        if !name.is_empty() {
            names.push(name.to_owned());
        }
    }
    Some(names)
}

/// Decodes `%2e` and the like, once. What is no UTF-8 then, or no percent-encoding, is refused, and
/// so is an encoded `/`: it would be part of a name, and no name has one.
fn percent_decode(path: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            decoded.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = rest else {
            return None;
        };
        rest = tail;
        let digit = |byte: &u8| char::from(*byte).to_digit(16);
        let byte = u8::try_from(digit(high)? * 16 + digit(low)?).ok()?;
        if byte == b'/' {
            return None;
        }
        decoded.push(byte);
    }
    String::from_utf8(decoded).ok()
}

/// The path of a directory as it stands in a `Location`. It begins with exactly one `/`, so that it
/// cannot name another host.
fn location(names: &[String]) -> String {
    let mut location = String::from("/");
    for name in names {
        for byte in name.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                location.push(char::from(byte));
            } else {
                location.push_str(&format!("%{byte:02X}"));
            }
        }
        location.push('/');
    }
    location
}

fn content_type(path: &Path) -> String {
    let guess = mime_guess::from_path(path).first_or_octet_stream();
    let text =
        guess.type_() == "text" || guess.subtype() == "javascript" || guess.subtype() == "json";
    format!("{guess}{}", if text { "; charset=utf-8" } else { "" })
}
