//! Where messages go: a Maildir, or nowhere.
//!
//! A message is written to a file in `tmp`, forced to the disk, renamed into `new`, and the directory is
//! forced to the disk as well. Only then is it answered. Until then nothing can be seen in `new`; a
//! message that does not come to its end is removed from `tmp`, unless the server is killed. (Whoever
//! reads a Maildir removes what has been in `tmp` for 36 hours.)

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::mem;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use tokio::task::spawn_blocking;

/// How many bytes are kept before they are written, besides those of one read.
const BLOCK: usize = 32 * 1024;

#[derive(Clone, Debug)]
pub(crate) enum Store {
    Maildir(Arc<Maildir>),
    Nowhere,
}

impl Store {
    /// Begins a message. `head` is given its name, and returns what is written before it.
    pub(crate) fn begin(&self, head: impl FnOnce(&str) -> String) -> Draft {
        match self {
            Store::Nowhere => Draft::Nowhere,
            Store::Maildir(maildir) => {
                let name = maildir.name();
                let unwritten = head(&name).into_bytes();
                Draft::File { maildir: maildir.clone(), name, unwritten, file: None }
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Maildir {
    dir: PathBuf,
    /// How many messages have begun, for their names.
    begun: AtomicU64,
}

impl Maildir {
    /// Makes the directory, and those in it, unless they are there.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        for inner in ["tmp", "new", "cur"] {
            fs::create_dir_all(dir.join(inner))?;
        }
        Ok(Maildir { dir: dir.to_owned(), begun: AtomicU64::new(0) })
    }

    /// A name that no other message has, whether of this server or another one.
    fn name(&self) -> String {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let (seconds, micros) = (now.as_secs(), now.subsec_micros());
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        format!("{seconds}.M{micros}P{}Q{number}.localhost", process::id())
    }
}

/// A message that is being received.
#[derive(Debug)]
pub(crate) enum Draft {
    Nowhere,
    File {
        maildir: Arc<Maildir>,
        name: String,
        unwritten: Vec<u8>,
        /// The file, which is made when there is a block to be written, or at the end.
        file: Option<Temporary>,
    },
}

impl Draft {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if let Draft::File { unwritten, .. } = self {
            unwritten.extend_from_slice(bytes);
        }
    }

    /// Writes what has been pushed, if that is a block or more.
    pub(crate) async fn settle(&mut self) -> io::Result<()> {
        if let Draft::File { maildir, name, unwritten, file } = self {
            if unwritten.len() >= BLOCK {
                let path = maildir.dir.join("tmp").join(name);
                let (bytes, opened) = (mem::take(unwritten), file.take());
                *file = Some(off_thread(move || Temporary::write(opened, path, &bytes)).await?);
            }
        }
        Ok(())
    }

    /// Moves the message to where it can be seen. Returns its name, if it has one.
    pub(crate) async fn deliver(self) -> io::Result<Option<String>> {
        let Draft::File { maildir, name, unwritten, file } = self else {
            return Ok(None);
        };
        off_thread(move || {
            let path = maildir.dir.join("tmp").join(&name);
            let written = Temporary::write(file, path, &unwritten)?;
            written.file.sync_all()?;
            let new = maildir.dir.join("new");
            fs::rename(&written.path, new.join(&name))?;
            // Only on Unix can a directory be opened as a file.
            #[cfg(unix)]
            File::open(new)?.sync_all()?;
            Ok(Some(name))
        })
        .await
    }
}

/// A file in `tmp`. When this is dropped, the file is removed if it is still there.
#[derive(Debug)]
pub(crate) struct Temporary {
    file: File,
    path: PathBuf,
}

impl Temporary {
    fn write(opened: Option<Self>, path: PathBuf, bytes: &[u8]) -> io::Result<Self> {
        let mut this = match opened {
            Some(this) => this,
            None => Temporary { file: File::create_new(&path)?, path },
        };
        this.file.write_all(bytes)?;
        Ok(this)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // This fails if the message was delivered, since the file has been moved then.
        let _ = fs::remove_file(&self.path);
    }
}

/// Calls a function that may wait for the disk in a thread that may wait.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}
