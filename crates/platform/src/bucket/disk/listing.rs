//! A [`DiskListing`] lists the objects below a folder.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rustix::io::Errno;

use super::{
    TEMP_FOLDER_NAME,
    folder::{Entries, EntryKind, Folder},
    run_blocking, unavailable,
};
use crate::bucket::{BucketError, ObjectListing, ObjectName};

/// A listing that is in progress.
#[derive(Debug)]
pub(super) struct DiskListing {
    walk: Arc<Mutex<Walk>>,
}

impl DiskListing {
    /// Starts listing the objects below `root`.
    pub(super) fn start(root: Folder) -> Result<Self, Errno> {
        Ok(Self { walk: Arc::new(Mutex::new(Walk::start(root)?)) })
    }
}

#[async_trait]
impl ObjectListing for DiskListing {
    async fn next_page(&mut self, limit: usize) -> Result<Vec<ObjectName>, BucketError> {
        let walk = Arc::clone(&self.walk);
        run_blocking(move || {
            let mut walk = walk.lock().unwrap_or_else(PoisonError::into_inner);
            walk.next_page(limit).map_err(unavailable)
        })
        .await
    }
}

/// A walk through a folder and its subfolders.
///
/// The walk reads each folder once, and keeps the folders open that lead to its position. So the next page needs no
/// entry that was read before.
#[derive(Debug)]
struct Walk {
    /// The folders that are being read, the innermost one last. The list is empty at the end of the walk.
    open_folders: Vec<OpenFolder>,
    /// True once a warning about an unreadable folder or file has been logged.
    has_warned: bool,
}

#[derive(Debug)]
struct OpenFolder {
    folder: Folder,
    /// The entries that have not been visited.
    entries: Entries,
    /// Beginning of the names of all objects in the folder: empty, or the path of the folder with a `/` at the end.
    prefix: String,
}

impl OpenFolder {
    fn new(folder: Folder, prefix: String) -> Result<Self, Errno> {
        Ok(Self { entries: folder.entries()?, folder, prefix })
    }

    fn open_subfolder(&self, name: &str) -> Result<Self, Errno> {
        Self::new(self.folder.open_folder(name)?, format!("{}{name}/", self.prefix))
    }
}

impl Walk {
    fn start(root: Folder) -> Result<Self, Errno> {
        Ok(Self { open_folders: vec![OpenFolder::new(root, String::new())?], has_warned: false })
    }

    /// Returns the names of the next `limit` objects, or of fewer at the end of the walk.
    fn next_page(&mut self, limit: usize) -> Result<Vec<ObjectName>, Errno> {
        let mut names = Vec::new();
        while names.len() < limit {
            let is_root = self.open_folders.len() == 1;
            let Some(current) = self.open_folders.last_mut() else { break };
            let (name, kind) = match current.entries.next() {
                Some(Ok(entry)) => entry,
                Some(Err(error)) if is_root => return Err(error),
                Some(Err(error)) => {
                    let folder_path = current.prefix.clone();
                    self.leave_out(&folder_path, error)?;
                    continue;
                }
                None => {
                    self.open_folders.pop();
                    continue;
                }
            };
            if is_root && name == TEMP_FOLDER_NAME {
                continue;
            }
            let path = format!("{}{name}", current.prefix);
            // A name that breaks a rule of `ObjectName` is not an object. Neither is anything below it.
            let Ok(object_name) = ObjectName::new(path.as_str()) else { continue };
            match kind {
                EntryKind::File => match current.folder.may_read(&name) {
                    Ok(true) => names.push(object_name),
                    Ok(false) => self.leave_out(&path, Errno::ACCESS)?,
                    Err(error) => self.leave_out(&path, error)?,
                },
                EntryKind::Folder => match current.open_subfolder(&name) {
                    Ok(subfolder) => self.open_folders.push(subfolder),
                    Err(error) => self.leave_out(&path, error)?,
                },
                EntryKind::SymbolicLink | EntryKind::Special => {}
            }
        }
        Ok(names)
    }

    /// Leaves out the folder or file at `path`, which failed with `error`. Returns the error if the walk must end.
    ///
    /// An error of a single folder does not end the walk. An error such as too many open files does, because it
    /// concerns the folders that follow, too.
    fn leave_out(&mut self, path: &str, error: Errno) -> Result<(), Errno> {
        match error {
            // The folder or file was removed or replaced in the meantime.
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP => Ok(()),
            Errno::ACCESS | Errno::IO => {
                if !self.has_warned {
                    self.has_warned = true;
                    tracing::warn!(
                        path,
                        %error,
                        "a part of the bucket cannot be read and is not listed; other parts may follow, which are not logged"
                    );
                }
                Ok(())
            }
            error => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_of_one_folder_does_not_end_the_walk_but_a_lack_of_resources_does() {
        let folder = tempfile::tempdir().unwrap();
        let mut walk = Walk::start(Folder::open(folder.path()).unwrap()).unwrap();
        for error in [Errno::NOENT, Errno::NOTDIR, Errno::LOOP, Errno::ACCESS, Errno::IO] {
            assert_eq!(walk.leave_out("a", error), Ok(()));
        }
        for error in [Errno::MFILE, Errno::NFILE, Errno::NOMEM] {
            assert_eq!(walk.leave_out("a", error), Err(error));
        }
    }
}
