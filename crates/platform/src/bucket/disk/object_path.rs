//! An [`ObjectPath`] is the path of an object, and a [`FolderChain`] holds the open folders along it.

use std::fs::File;

use rustix::io::Errno;

use super::{
    TEMP_FOLDER_NAME,
    folder::{EntryKind, Folder},
    unavailable,
};
use crate::bucket::{BucketError, ObjectName};

/// The path of an object below the root.
pub(super) struct ObjectPath<'a> {
    pub(super) object_name: &'a ObjectName,
    folder_names: Vec<&'a str>,
    pub(super) file_name: &'a str,
}

impl<'a> ObjectPath<'a> {
    /// Returns the path of an object, or an error if an object of this name cannot be stored.
    ///
    /// No part of an [`ObjectName`] is empty, `.` or `..`. So the path stays below the root.
    pub(super) fn new(object_name: &'a ObjectName) -> Result<Self, BucketError> {
        let mut folder_names: Vec<&str> = object_name.as_str().split('/').collect();
        if folder_names.first() == Some(&TEMP_FOLDER_NAME) {
            return Err(bad_name(object_name, "names below .tmp are reserved for temporary files"));
        }
        let file_name = folder_names.pop().unwrap_or_default();
        Ok(Self { object_name, folder_names, file_name })
    }

    /// Opens the folder that contains the object.
    fn open_folder(&self, root: &Folder) -> Result<Option<Folder>, Errno> {
        let mut folder = None;
        for name in &self.folder_names {
            folder = Some(folder.as_ref().unwrap_or(root).open_folder(name)?);
        }
        Ok(folder)
    }

    pub(super) fn open_file(&self, root: &Folder) -> Result<File, Errno> {
        self.open_folder(root)?.as_ref().unwrap_or(root).open_file(self.file_name)
    }

    /// Returns the kind of the entry at this path, or `None` if there is none.
    pub(super) fn kind(&self, root: &Folder) -> Result<Option<EntryKind>, Errno> {
        match self.open_folder(root) {
            Ok(folder) => folder.as_ref().unwrap_or(root).kind(self.file_name),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Converts the error of a write. An error that is caused by the name of the object becomes
    /// [`BucketError::BadName`], which is permanent.
    pub(super) fn write_error(&self, error: Errno) -> BucketError {
        match error {
            Errno::NAMETOOLONG => {
                bad_name(self.object_name, "a part of the name is too long for the file system")
            }
            Errno::NOTDIR => bad_name(self.object_name, "a part of the name is an object, not a folder"),
            error => self.error(error),
        }
    }

    /// Returns the error for a write to an entry of the kind `kind`.
    pub(super) fn not_a_file(&self, kind: EntryKind) -> BucketError {
        match kind {
            EntryKind::SymbolicLink => self.error(Errno::LOOP),
            EntryKind::Folder => bad_name(self.object_name, "a folder of that name exists"),
            EntryKind::File | EntryKind::Special => {
                bad_name(self.object_name, "the file of that name is not a regular file")
            }
        }
    }

    /// Converts an error that does not depend on the name of the object.
    pub(super) fn error(&self, error: Errno) -> BucketError {
        match error {
            // The error is not permanent, because the operator may replace the link with its target.
            Errno::LOOP => {
                let reason = format!(
                    "{} is a symbolic link or is in a folder that is one, and links in the bucket are not \
                     followed",
                    self.object_name
                );
                BucketError::Unavailable(reason.into())
            }
            error => unavailable(error),
        }
    }
}

/// The open folders along the path of an object.
pub(super) struct FolderChain<'a> {
    pub(super) root: Folder,
    /// The folders below the root with their names, the outermost one first.
    below: Vec<(&'a str, Folder)>,
    /// Number of folders at the end of `below` that were created.
    new_count: usize,
}

impl<'a> FolderChain<'a> {
    /// Opens the folders of `path`.
    pub(super) fn open(root: Folder, path: &ObjectPath<'a>) -> Result<Self, Errno> {
        let mut chain = Self { root, below: Vec::new(), new_count: 0 };
        for name in &path.folder_names {
            let folder = chain.last().open_folder(name)?;
            chain.below.push((name, folder));
        }
        Ok(chain)
    }

    /// Opens the folders of `path`, and creates those that are missing. If one cannot be created, the new ones
    /// are removed again.
    pub(super) fn create(root: Folder, path: &ObjectPath<'a>) -> Result<Self, Errno> {
        let mut chain = Self { root, below: Vec::new(), new_count: 0 };
        for name in &path.folder_names {
            match chain.last().create_folder(name) {
                Ok((folder, is_new)) => {
                    chain.below.push((name, folder));
                    // A folder that another writer has created in a new folder keeps that folder in use.
                    chain.new_count = if is_new { chain.new_count + 1 } else { 0 };
                }
                Err(error) => {
                    chain.remove_new_folders();
                    return Err(error);
                }
            }
        }
        Ok(chain)
    }

    /// Returns the innermost folder.
    pub(super) fn last(&self) -> &Folder {
        self.below.last().map_or(&self.root, |(_, folder)| folder)
    }

    /// Makes the entries of all folders durable, the innermost folder first.
    pub(super) fn sync(&self) -> Result<(), Errno> {
        self.below.iter().rev().try_for_each(|(_, folder)| folder.sync())?;
        self.root.sync()
    }

    /// Removes the folders that were created, unless other writers use them.
    pub(super) fn remove_new_folders(mut self) {
        for _ in 0..self.new_count {
            if let Some((name, _)) = self.below.pop() {
                self.last().remove_empty_folder(name);
            }
        }
    }
}

fn bad_name(object_name: &ObjectName, reason: &str) -> BucketError {
    BucketError::BadName { name: object_name.to_string(), reason: reason.to_owned() }
}

/// Returns true if `error` means that the object does not exist.
pub(super) fn means_absent(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG)
}
