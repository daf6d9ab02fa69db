//! A [`Folder`] is an open directory, whose entries are opened without following symbolic links.

use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{
        Access, AtFlags, CWD, Dir, FileType, Mode, OFlags, accessat, fstat, fsync, linkat, mkdirat, openat,
        renameat, statat, unlinkat,
    },
    io::Errno,
};

use crate::private_folder::{FILE_MODE, FOLDER_MODE};

/// An open directory.
///
/// Each name is a single part of a path. So no operation leaves the directory, even if another program
/// replaces a part of a path with a symbolic link at the same time. An operation that meets a symbolic link
/// fails with [`Errno::LOOP`].
#[derive(Debug)]
pub(super) struct Folder {
    fd: OwnedFd,
}

/// Kind of a directory entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryKind {
    File,
    Folder,
    SymbolicLink,
    /// A device, a socket or a pipe.
    Special,
}

impl Folder {
    /// Opens the directory at `path`. Symbolic links in `path` are followed.
    pub(super) fn open(path: &Path) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { fd: openat(CWD, path, flags, Mode::empty())? })
    }

    /// Opens the subdirectory `name`.
    pub(super) fn open_folder(&self, name: &str) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Self { fd }),
            // Linux returns this error for a symbolic link, too.
            Err(Errno::NOTDIR) if self.kind(name)? == Some(EntryKind::SymbolicLink) => Err(Errno::LOOP),
            Err(error) => Err(error),
        }
    }

    /// Creates the subdirectory `name` unless it exists, and opens it. Also returns true if it was created.
    pub(super) fn create_folder(&self, name: &str) -> Result<(Self, bool), Errno> {
        let is_new = match mkdirat(&self.fd, name, FOLDER_MODE) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(error),
        };
        match self.open_folder(name) {
            Ok(folder) => Ok((folder, is_new)),
            Err(error) => {
                if is_new {
                    self.remove_empty_folder(name);
                }
                Err(error)
            }
        }
    }

    /// Removes the subdirectory `name`, unless it has entries or cannot be removed.
    pub(super) fn remove_empty_folder(&self, name: &str) {
        // An error is ignored, because an empty folder is harmless.
        let _ = unlinkat(&self.fd, name, AtFlags::REMOVEDIR);
    }

    /// Opens the file `name` for reading. If `name` is a directory or a special file, this function may open
    /// it, too.
    pub(super) fn open_file(&self, name: &str) -> Result<File, Errno> {
        self.open_file_with(name, OFlags::RDONLY, Mode::empty())
    }

    /// Opens the file `name` so that it can be locked. Some network file systems lock only files that are
    /// open for writing.
    pub(super) fn open_file_to_lock(&self, name: &str) -> Result<File, Errno> {
        self.open_file_with(name, OFlags::RDWR, Mode::empty())
    }

    /// Creates the file `name`, and opens it for writing.
    pub(super) fn create_file(&self, name: &str) -> Result<File, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        self.open_file_with(name, flags, FILE_MODE)
    }

    fn open_file_with(&self, name: &str, flags: OFlags, mode: Mode) -> Result<File, Errno> {
        // Without NONBLOCK, opening a pipe would wait for its other end.
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(openat(&self.fd, name, flags, mode)?.into())
    }

    /// Adds a hard link `new_name` in `new_folder` to the file `name`. Fails with [`Errno::EXIST`] if
    /// `new_name` exists.
    pub(super) fn link(&self, name: &str, new_folder: &Self, new_name: &str) -> Result<(), Errno> {
        linkat(&self.fd, name, &new_folder.fd, new_name, AtFlags::empty())
    }

    /// Moves the file `name` to `new_name` in `new_folder`. A file of that name is replaced.
    pub(super) fn rename(&self, name: &str, new_folder: &Self, new_name: &str) -> Result<(), Errno> {
        renameat(&self.fd, name, &new_folder.fd, new_name)
    }

    /// Removes the file `name`.
    pub(super) fn remove_file(&self, name: &str) -> Result<(), Errno> {
        unlinkat(&self.fd, name, AtFlags::empty())
    }

    /// Makes the directory's entries durable.
    pub(super) fn sync(&self) -> Result<(), Errno> {
        fsync(&self.fd)
    }

    /// Returns the kind of the entry `name`, or `None` if there is no such entry.
    pub(super) fn kind(&self, name: &str) -> Result<Option<EntryKind>, Errno> {
        kind_at(self.fd.as_fd(), name)
    }

    /// Returns true if the entry `name` is the open file `file`.
    pub(super) fn is_entry_of(&self, name: &str, file: &File) -> Result<bool, Errno> {
        let file = fstat(file)?;
        match statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(entry) => Ok((entry.st_dev, entry.st_ino) == (file.st_dev, file.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns true if this user may read the file `name`.
    pub(super) fn may_read(&self, name: &str) -> Result<bool, Errno> {
        match accessat(&self.fd, name, Access::READ_OK, AtFlags::EACCESS) {
            Ok(()) => Ok(true),
            Err(Errno::ACCESS) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Starts reading the entries of the directory.
    pub(super) fn entries(&self) -> Result<Entries, Errno> {
        Ok(Entries { dir: Dir::read_from(&self.fd)? })
    }
}

/// The names and kinds of a directory's entries, in no particular order.
///
/// Entries whose names are not UTF-8 are left out, because no object has such a name.
#[derive(Debug)]
pub(super) struct Entries {
    dir: Dir,
}

impl Iterator for Entries {
    type Item = Result<(String, EntryKind), Errno>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let entry = match self.dir.next()? {
                Ok(entry) => entry,
                Err(error) => return Some(Err(error)),
            };
            let Ok(name) = entry.file_name().to_str() else { continue };
            if matches!(name, "." | "..") {
                continue;
            }
            let kind = match entry.file_type() {
                // The file system does not store the type in the directory.
                FileType::Unknown => match self.dir.fd().and_then(|fd| kind_at(fd, name)) {
                    Ok(Some(kind)) => kind,
                    // The entry was removed in the meantime.
                    Ok(None) => continue,
                    Err(error) => return Some(Err(error)),
                },
                file_type => file_type.into(),
            };
            return Some(Ok((name.to_owned(), kind)));
        }
    }
}

/// Returns the kind of the entry `name` in `folder`, or `None` if there is no such entry.
fn kind_at(folder: BorrowedFd<'_>, name: &str) -> Result<Option<EntryKind>, Errno> {
    match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode).into())),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

impl From<FileType> for EntryKind {
    fn from(file_type: FileType) -> Self {
        match file_type {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Folder,
            FileType::Symlink => Self::SymbolicLink,
            _ => Self::Special,
        }
    }
}
