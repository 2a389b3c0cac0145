//! The directory that is served, and nothing else.
//!
//! Every file is opened, listed, renamed and removed relative to the open root directory, and the operating system
//! (`openat2`), or else cap-std step by step, does not let its name lead out of that. There is no time between a check
//! and the use of what was checked. A symbolic link is followed within the root; one that is absolute or leads out is
//! refused.

use std::io::{self, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, File, Metadata, OpenOptions};
use tokio::task::spawn_blocking;

use crate::command::Reply;
use crate::path::VirtualPath;

#[derive(Clone, Debug)]
pub(crate) struct Files {
    root: Arc<Dir>,
    writable: bool,
}

/// Where an upload begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// In place of what is there.
    Anew,
    /// Behind this many bytes of it, in place of the rest.
    At(u64),
    /// Behind all of it.
    Append,
}

impl Files {
    /// # Errors
    /// If it is not a directory, or not readable.
    pub(crate) fn open(root: &Path, writable: bool) -> io::Result<Self> {
        let root = Dir::open_ambient_dir(root, ambient_authority())?;
        root.entries()?;
        Ok(Files { root: Arc::new(root), writable })
    }

    pub(crate) fn are_writable(&self) -> bool {
        self.writable
    }

    /// Calls a function in a thread that may wait for the disk.
    pub(crate) async fn with<T: Send + 'static, E: Into<Reply>>(
        &self,
        work: impl FnOnce(&Dir) -> Result<T, E> + Send + 'static,
    ) -> Result<T, Reply> {
        let root = self.root.clone();
        off_thread(move || Ok(work(&root).map_err(E::into))).await?
    }

    /// The same, for a function that changes something. It is refused if the directory is not writable.
    pub(crate) async fn change<T: Send + 'static, E: Into<Reply>>(
        &self,
        work: impl FnOnce(&Dir) -> Result<T, E> + Send + 'static,
    ) -> Result<T, Reply> {
        if !self.writable {
            return Err("550 nothing can be changed here".into());
        }
        self.with(work).await
    }

    /// The metadata of a file or directory.
    pub(crate) async fn metadata(&self, path: &VirtualPath) -> Result<Metadata, Reply> {
        let path = path.clone();
        self.with(move |root| root.metadata(path.below_root())).await
    }

    /// Opens a file to be read from `offset` on.
    pub(crate) async fn download(&self, path: VirtualPath, offset: u64) -> Result<File, Reply> {
        self.with(move |root| {
            let (mut file, size) = open_regular(root, &path, OpenOptions::new().read(true))?;
            seek(&mut file, offset, size)?;
            Ok::<_, Reply>(file)
        })
        .await
    }

    /// Opens a file to be written from `start` on, and makes it if there is none.
    pub(crate) async fn upload(&self, path: VirtualPath, start: Start) -> Result<File, Reply> {
        self.change(move |root| {
            let mut options = OpenOptions::new();
            let options = options.write(true).create(true);
            let (mut file, size) = open_regular(root, &path, options)?;
            let offset = match start {
                Start::Anew => 0,
                Start::At(offset) => offset,
                Start::Append => size,
            };
            seek(&mut file, offset, size)?;
            file.set_len(offset)?;
            Ok::<_, Reply>(file)
        })
        .await
    }
}

/// Opens a regular file. Returns it and its size.
fn open_regular(
    root: &Dir,
    path: &VirtualPath,
    options: &mut OpenOptions,
) -> Result<(File, u64), Reply> {
    #[cfg(unix)]
    {
        use cap_std::fs::OpenOptionsExt as _;
        // Without this, to open a pipe would wait for its other end.
        options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32);
    }
    let file = root.open_with(path.below_root(), options)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err("550 it is not a file".into());
    }
    Ok((file, metadata.len()))
}

fn seek(file: &mut File, offset: u64, size: u64) -> Result<(), Reply> {
    if offset > size {
        return Err("554 the file ends before that".into());
    }
    file.seek(SeekFrom::Start(offset))?;
    Ok(())
}

/// Calls a function that may wait for the disk in a thread that may wait.
pub(crate) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}
