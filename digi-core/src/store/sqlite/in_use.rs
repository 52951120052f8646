//! Refuses a file that another copy of SQLite in this process has open.
//!
//! POSIX locks belong to a process and an inode: when any descriptor of the file is closed, all locks of the process on
//! it are gone. One copy of SQLite knows of its own descriptors and keeps them open as long as it must. Of another
//! copy's (Python's `sqlite3` beside the bundled one) it knows nothing, so two of them unlock the file under each other
//! and lose committed data.

use std::path::Path;

use crate::store::StoreError;

#[cfg(unix)]
pub(super) use unix::InUse;

#[cfg(unix)]
mod unix {
    use std::collections::BTreeMap;
    use std::fs::{self, File, Metadata};
    use std::io::ErrorKind;
    use std::os::unix::fs::MetadataExt;

    use parking_lot::Mutex;

    use super::{Path, StoreError};

    /// Device and inode: the same for every link to a file.
    type FileId = (u64, u64);

    /// The files that this copy of SQLite has open, and how many stores hold each.
    static OPEN: Mutex<BTreeMap<FileId, usize>> = Mutex::new(BTreeMap::new());

    /// A file's entry among those that this copy of SQLite has open. Dropped after the last connection.
    pub(in super::super) struct InUse(FileId);

    impl InUse {
        /// Makes sure that the file exists and that nobody else in this process has it open.
        pub(in super::super) fn claim(path: &Path) -> Result<Self, StoreError> {
            let mut open = OPEN.lock();
            let id = file_id(&existing(path)?);
            let stores = open.entry(id).or_default();
            if *stores == 0 && is_open_in_process(id) {
                open.remove(&id);
                return Err(StoreError::FileInUse(format!(
                    "this process already has {} open outside of Digi, with another copy of SQLite: the two would \
                     remove each other's file locks and lose committed data. Close it there first, or use a file of \
                     Digi's own",
                    path.display()
                )));
            }
            *stores += 1;
            Ok(Self(id))
        }
    }

    impl Drop for InUse {
        fn drop(&mut self) {
            let mut open = OPEN.lock();
            if let Some(stores) = open.get_mut(&self.0) {
                *stores -= 1;
                if *stores == 0 {
                    open.remove(&self.0);
                }
            }
        }
    }

    /// A file that is there is never opened here: closing it would drop the very locks that this is about.
    fn existing(path: &Path) -> Result<Metadata, StoreError> {
        let failed =
            |error: std::io::Error| StoreError::Unavailable(format!("cannot open {}: {error}", path.display()));
        match File::create_new(path) {
            Ok(new) => drop(new),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
        fs::metadata(path).map_err(failed)
    }

    fn file_id(metadata: &Metadata) -> FileId {
        (metadata.dev(), metadata.ino())
    }

    fn is_open_in_process(id: FileId) -> bool {
        let Some(descriptors) = ["/proc/self/fd", "/dev/fd"].iter().find_map(|dir| fs::read_dir(dir).ok()) else {
            tracing::warn!("neither /proc/self/fd nor /dev/fd can be read: not checked who has the database open");
            return false;
        };
        // Asking through the link follows it to the open file itself, also when it has been renamed or removed.
        descriptors.flatten().any(|entry| fs::metadata(entry.path()).is_ok_and(|file| file_id(&file) == id))
    }
}

/// Where locks belong to handles, two copies do each other no harm.
#[cfg(not(unix))]
pub(super) struct InUse;

#[cfg(not(unix))]
impl InUse {
    pub(super) fn claim(_path: &Path) -> Result<Self, StoreError> {
        Ok(Self)
    }
}
