//! A [`Folder`] is an open directory, whose entries are opened without following symbolic links.

use std::{ffi::CStr, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat},
    io::Errno,
};

/// An open directory.
///
/// Each name is a single part of a path. So no operation leaves the directory, even if another program
/// replaces a part of a path with a symbolic link at the same time.
#[derive(Debug)]
pub(super) struct Folder {
    fd: OwnedFd,
}

/// Kind of a directory entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryKind {
    File,
    Folder,
    /// A symbolic link, a device, a socket or a pipe.
    Other,
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
        Ok(Self { fd: openat(&self.fd, name, flags, Mode::empty())? })
    }

    /// Calls `visit` with the name and the kind of every entry, in no particular order.
    ///
    /// Entries whose names are not UTF-8 are left out, because no object has such a name.
    pub(super) fn for_each_entry(&self, mut visit: impl FnMut(&str, EntryKind)) -> Result<(), Errno> {
        for entry in Dir::read_from(&self.fd)? {
            let entry = entry?;
            let file_name = entry.file_name();
            let Ok(name) = file_name.to_str() else { continue };
            if matches!(name, "." | "..") {
                continue;
            }
            let file_type = match entry.file_type() {
                FileType::Unknown => match self.file_type(file_name) {
                    Ok(file_type) => file_type,
                    // The entry was removed in the meantime.
                    Err(Errno::NOENT) => continue,
                    Err(error) => return Err(error),
                },
                file_type => file_type,
            };
            visit(name, EntryKind::from(file_type));
        }
        Ok(())
    }

    fn file_type(&self, name: &CStr) -> Result<FileType, Errno> {
        let stat = statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(FileType::from_raw_mode(stat.st_mode))
    }
}

impl From<FileType> for EntryKind {
    fn from(file_type: FileType) -> Self {
        match file_type {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Folder,
            _ => Self::Other,
        }
    }
}
