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

/// So many bytes are kept before they are written, beside those of one read.
const BLOCK: usize = 32 * 1024;

#[derive(Clone, Debug)]
pub(crate) enum Store {
    Maildir(Arc<Maildir>),
    Nowhere,
}

impl Store {
    /// A message that begins. `head` is given its name, for what is written before it.
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
    /// How many messages have begun.
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

    /// A name that no other message has, of this server or another one.
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
        /// It is opened when there is a block to be written, or at the end.
        file: Option<Temporary>,
    },
}

impl Draft {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if let Draft::File { unwritten, .. } = self {
            unwritten.extend_from_slice(bytes);
        }
    }

    /// Writes what has been pushed, if it is worth it.
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

    /// Puts the message where it is seen. Returns its name, if it has one.
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
            // A directory is a file to Unix only.
            #[cfg(unix)]
            File::open(new)?.sync_all()?;
            Ok(Some(name))
        })
        .await
    }
}

/// A file in `tmp`, which is removed if it is still there in the end.
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
        // It has moved, if it was delivered.
        let _ = fs::remove_file(&self.path);
    }
}

/// Waits for the disk in a thread that may wait.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}
