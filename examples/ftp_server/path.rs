//! What clients call a file → a path below the root (no I/O).
//!
//! Names are taken apart here, so that `..` leads to the parent that the client sees and never above the root. Symbolic
//! links that lead elsewhere are handled by `files.rs`, where the file is opened.

use std::fmt;
use std::path::Path;

use crate::command::Reply;

/// The most bytes of a path. The operating system has about the same limit.
const MAX_PATH: usize = 4096;

/// A path as clients see it: `/` is the directory that is served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct VirtualPath {
    /// Names with a `/` between two of them. None is empty, `.` or `..`. Empty for the root.
    names: String,
}

impl VirtualPath {
    /// The path that `name` means if this is the working directory.
    pub(crate) fn resolve(&self, name: &str) -> Result<Self, Reply> {
        let mut names: Vec<&str> = match name.strip_prefix('/') {
            Some(_) => Vec::new(),
            None => self.names.split_terminator('/').collect(),
        };
        for name in name.split('/') {
            match name {
                "" | "." => {}
                ".." => drop(names.pop()),
                name => names.push(name),
            }
        }
        let names = names.join("/");
        if names.len() > MAX_PATH {
            return Err("550 the path is too long".into());
        }
        Ok(VirtualPath { names })
    }

    /// An entry of this directory.
    pub(crate) fn entry(&self, name: &str) -> Self {
        let slash = if self.is_root() { "" } else { "/" };
        VirtualPath { names: format!("{}{slash}{name}", self.names) }
    }

    pub(crate) fn is_root(&self) -> bool {
        self.names.is_empty()
    }

    /// The path relative to the directory that is served.
    pub(crate) fn below_root(&self) -> &Path {
        Path::new(if self.is_root() { "." } else { &self.names })
    }

    /// The last name.
    pub(crate) fn name(&self) -> &str {
        self.names.rsplit('/').next().unwrap_or_default()
    }

    /// In quotes, as RFC 959 has them in a reply.
    pub(crate) fn quoted(&self) -> String {
        format!("\"{}\"", self.to_string().replace('"', "\"\""))
    }
}

impl fmt::Display for VirtualPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.names)
    }
}
