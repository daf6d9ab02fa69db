//! Creates folders and files for data that only the user of the service may read.

use std::{
    fs::File,
    io::{self, ErrorKind},
    path::Path,
};

use rustix::{
    fs::{Mode, OFlags, mkdir, open},
    io::Errno,
};

/// Permissions of a created folder: only the owner may list it and open its files.
pub(crate) const FOLDER_MODE: Mode = Mode::RWXU;
/// Permissions of a created file: only the owner may read and write it.
pub(crate) const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Creates the folder at `path` and its missing parents, which only the owner may read.
///
/// When this function returns `Ok`, the directory entries of the created folders are durable, and also the entry of
/// the innermost folder that existed before. An earlier process may have been killed before it made that entry
/// durable. The permissions of a folder that exists are not changed, because its owner may have chosen them.
///
/// # Errors
/// Returns an error if a folder cannot be created or synced, or if `path` is not a folder.
pub fn create_private_folder(path: &Path) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    create_folders(&path, |folder| File::open(folder)?.sync_all())
}

/// Opens the file at `path` for reading and writing, and creates a file that only the owner may read if there is
/// none. The permissions of a file that exists are not changed.
///
/// # Errors
/// Returns an error if the file cannot be created or opened.
pub fn open_private_file(path: &Path) -> io::Result<File> {
    Ok(open(path, OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC, FILE_MODE)?.into())
}

/// Creates the missing folders of the absolute path `path`, and makes them durable with `sync`.
///
/// The parent of each folder is synced before the next folder is created. If the process is killed, only the entry of
/// the innermost folder may therefore be lost, and the next call syncs the parent of that folder.
fn create_folders(path: &Path, mut sync: impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|folder| !folder.exists()).collect();
    if let Some(parent) = path.ancestors().nth(missing.len()).and_then(Path::parent) {
        match sync(parent) {
            // This user can have created nothing in the parent, or the file system is read-only and syncs nothing.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::InvalidInput
                ) => {}
            result => result?,
        }
    }
    for folder in missing.into_iter().rev() {
        match mkdir(folder, FOLDER_MODE) {
            // Another process may have created the folder in the meantime.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(parent) = folder.parent() {
            sync(parent)?;
        }
    }
    if !path.is_dir() {
        return Err(ErrorKind::NotADirectory.into());
    }
    sync(path)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt,
        path::PathBuf,
    };

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    /// Creates the folders of `path`, and returns the folders that were synced. Syncing `failing` fails.
    fn create_and_list_synced(path: &Path, failing: Option<&Path>) -> (io::Result<()>, Vec<PathBuf>) {
        let mut synced = Vec::new();
        let result = create_folders(path, |folder| {
            assert!(folder.is_dir());
            if failing == Some(folder) {
                return Err(ErrorKind::StorageFull.into());
            }
            synced.push(folder.to_owned());
            Ok(())
        });
        (result, synced)
    }

    #[test]
    fn created_folders_are_private_and_each_is_synced_before_the_next() {
        let existing = tempfile::tempdir().unwrap();
        let existing = existing.path();
        let (first, second) = (existing.join("first"), existing.join("first/second"));
        let (result, synced) = create_and_list_synced(&second, None);
        result.unwrap();
        assert_eq!(synced, [existing.parent().unwrap(), existing, &first, &second]);
        assert_eq!((mode(&first), mode(&second)), (0o700, 0o700));
        create_private_folder(&second).unwrap();
        create_private_folder(&first.join("third/fourth")).unwrap();
        assert_eq!(mode(&first.join("third")), 0o700);
    }

    #[test]
    fn folder_whose_parent_was_not_synced_is_made_durable_by_the_next_call() {
        let existing = tempfile::tempdir().unwrap();
        let existing = existing.path();
        let (first, second) = (existing.join("first"), existing.join("first/second"));
        let (interrupted, _) = create_and_list_synced(&second, Some(existing));
        interrupted.unwrap_err();
        assert!(first.exists() && !second.exists());
        let (result, synced) = create_and_list_synced(&second, None);
        result.unwrap();
        assert_eq!(synced, [existing, &first, &second]);

        let (result, synced) = create_and_list_synced(&second, None);
        result.unwrap();
        assert_eq!(
            synced,
            [first.as_path(), &second],
            "the last process may not have synced the innermost folder"
        );
    }

    #[test]
    fn parent_that_cannot_be_synced_is_an_error_unless_this_user_cannot_write_to_it() {
        let existing = tempfile::tempdir().unwrap();
        let parent = existing.path().parent().unwrap();
        for (error, is_ignored) in [
            (Errno::ACCESS, true),
            (Errno::ROFS, true),
            (Errno::INVAL, true),
            (Errno::IO, false),
            (Errno::NOSPC, false),
        ] {
            let sync = |folder: &Path| if folder == parent { Err(error.into()) } else { Ok(()) };
            assert_eq!(create_folders(existing.path(), sync).is_ok(), is_ignored, "{error}");
        }
    }

    #[test]
    fn permissions_of_an_existing_folder_or_file_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        create_private_folder(folder.path()).unwrap();
        assert_eq!(mode(folder.path()), 0o755);
        let file = folder.path().join("file");
        open_private_file(&file).unwrap();
        assert_eq!(mode(&file), 0o600);
        fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        open_private_file(&file).unwrap();
        assert_eq!(mode(&file), 0o640);
    }

    #[test]
    fn path_of_a_file_or_below_a_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        create_private_folder(&file).unwrap_err();
        create_private_folder(&file.join("below")).unwrap_err();
    }
}
