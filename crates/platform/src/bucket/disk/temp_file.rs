//! A [`TempFile`] holds the content of an object until it gets the object's name.

use std::{
    fs::File,
    io::{self, Write},
    sync::Once,
};

use rustix::io::Errno;
use uuid::Uuid;

use super::{
    checksum::Checksum,
    folder::{EntryKind, Folder},
};

/// A temporary file with the whole content of an object, synced to disk. Dropping this value removes the
/// temporary file, but not the object that was linked to it.
///
/// The writer holds a lock on the file. So [`remove_abandoned_files`] can distinguish the files of processes
/// that are still writing from the files of processes that were killed.
pub(super) struct TempFile<'a> {
    folder: &'a Folder,
    name: String,
    /// False once the file has been renamed.
    must_be_removed: bool,
    /// The open file, which holds the lock.
    file: File,
}

impl<'a> TempFile<'a> {
    /// Writes `data` and its checksum to a new file in `folder`.
    ///
    /// A file system may be unable to store checksums. Then the file has none, and `checksum_warning` logs a
    /// warning the first time. If only the space for the checksum is missing, the write fails.
    pub(super) fn write(folder: &'a Folder, data: &[u8], checksum_warning: &Once) -> io::Result<Self> {
        let name = Uuid::new_v4().to_string();
        let file = folder.create_file(&name)?;
        // An error is ignored. On a file system without locks, nobody can lock the file to remove it.
        let _ = file.lock();
        let mut temp_file = Self { folder, name, must_be_removed: true, file };
        temp_file.file.write_all(data)?;
        Checksum::of(data)
            .store(&temp_file.file)
            .or_else(|error| accept_missing_checksum(error, checksum_warning))?;
        temp_file.file.sync_all()?;
        Ok(temp_file)
    }

    /// Links the file to `name` in `folder`. Fails with [`Errno::EXIST`] if `name` exists, and with
    /// [`Errno::NOENT`] if `folder` or the temporary file was removed.
    pub(super) fn link(&self, folder: &Folder, name: &str) -> Result<(), Errno> {
        self.folder.link(&self.name, folder, name)
    }

    /// Moves the file to `name` in `folder`, and replaces the file of that name.
    pub(super) fn rename(mut self, folder: &Folder, name: &str) -> Result<(), Errno> {
        self.folder.rename(&self.name, folder, name)?;
        self.must_be_removed = false;
        Ok(())
    }
}

impl Drop for TempFile<'_> {
    fn drop(&mut self) {
        if !self.must_be_removed {
            return;
        }
        match self.folder.remove_file(&self.name) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => tracing::warn!(name = self.name, %error, "a temporary file cannot be removed"),
        }
    }
}

/// Accepts that a checksum could not be stored because of `error`, and logs the first error.
///
/// # Errors
/// Returns `error` if the disk is full or a quota is reached. Otherwise, only the objects of a full disk would have no
/// checksum, and nobody would notice.
fn accept_missing_checksum(error: Errno, checksum_warning: &Once) -> Result<(), Errno> {
    if matches!(error, Errno::NOSPC | Errno::DQUOT) {
        return Err(error);
    }
    checksum_warning.call_once(|| {
        tracing::warn!(
            %error,
            "the bucket's file system stores no extended attributes, so damaged objects are not detected"
        );
    });
    Ok(())
}

/// Removes the temporary files in `folder` whose writers were killed. A failure is only logged, because the
/// next start tries again.
pub(super) fn remove_abandoned_files(folder: &Folder) {
    let entries = match folder.entries().and_then(Iterator::collect::<Result<Vec<_>, _>>) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::warn!(%error, "the folder for temporary files cannot be read");
            return;
        }
    };
    for (name, kind) in entries {
        if kind != EntryKind::File {
            continue;
        }
        let Ok(file) = folder.open_file_to_lock(&name) else { continue };
        // An error means that the writer holds the lock, or that the file system has no locks.
        if file.try_lock().is_err() {
            continue;
        }
        match folder.remove_file(&name) {
            Ok(()) => tracing::info!(name, "removed the temporary file of a killed process"),
            // The writer has finished in the meantime.
            Err(Errno::NOENT) => {}
            Err(error) => tracing::warn!(name, %error, "a temporary file cannot be removed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_fails_only_if_the_space_for_its_checksum_is_missing() {
        let warning = Once::new();
        for error in [Errno::NOSPC, Errno::DQUOT] {
            assert_eq!(accept_missing_checksum(error, &warning), Err(error));
        }
        assert!(!warning.is_completed());
        for error in [Errno::NOTSUP, Errno::PERM] {
            assert_eq!(accept_missing_checksum(error, &warning), Ok(()));
        }
        assert!(warning.is_completed());
    }
}
