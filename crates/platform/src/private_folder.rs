//! Creates folders and files for data that only the user of the service may read.

use std::{
    fs::{DirBuilder, File},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Permissions of a created folder: only the owner may list it and open its files.
pub(crate) const FOLDER_MODE: u32 = 0o700;
/// Permissions of a created file: only the owner may read and write it.
pub(crate) const FILE_MODE: u32 = 0o600;

/// Creates the folder at `path` and its missing parents, which only the owner may read.
///
/// When this function returns `Ok`, the new directory entries are durable. The permissions of a folder that
/// exists are not changed, because its owner may have chosen them.
///
/// # Errors
/// Returns an error if a folder cannot be created or synced, or if `path` is not a folder.
pub fn create_private_folder(path: &Path) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    for folder in create_missing_folders(&path)? {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Creates an empty file that only the owner may read, unless the file exists. The permissions of a file that
/// exists are not changed.
pub(crate) fn create_private_file(path: &Path) -> io::Result<()> {
    File::options().append(true).create(true).mode(FILE_MODE).open(path).map(drop)
}

/// Creates the missing folders of `path`. Returns the folders that must be synced: each created folder and
/// the parent of the first one. If no folder is missing, returns only `path`.
fn create_missing_folders(path: &Path) -> io::Result<Vec<PathBuf>> {
    let missing: Vec<&Path> = path.ancestors().take_while(|folder| !folder.exists()).collect();
    for folder in missing.iter().rev() {
        match DirBuilder::new().mode(FOLDER_MODE).create(folder) {
            Ok(()) => {}
            // Another process has created the folder in the meantime.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    if !path.is_dir() {
        return Err(ErrorKind::NotADirectory.into());
    }
    Ok(path.ancestors().take(missing.len() + 1).map(Path::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt,
    };

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn created_folders_are_private_and_synced_up_to_the_parent_of_the_first() {
        let existing = tempfile::tempdir().unwrap();
        let (first, second) = (existing.path().join("first"), existing.path().join("first/second"));
        let synced = create_missing_folders(&second).unwrap();
        assert_eq!(synced, [second.clone(), first.clone(), existing.path().to_owned()]);
        assert_eq!((mode(&first), mode(&second)), (0o700, 0o700));
        create_private_folder(&second).unwrap();
        create_private_folder(&first.join("third/fourth")).unwrap();
        assert_eq!(mode(&first.join("third")), 0o700);
    }

    #[test]
    fn permissions_of_an_existing_folder_are_kept() {
        let existing = tempfile::tempdir().unwrap();
        fs::set_permissions(existing.path(), Permissions::from_mode(0o755)).unwrap();
        assert_eq!(create_missing_folders(existing.path()).unwrap(), [existing.path()]);
        assert_eq!(mode(existing.path()), 0o755);
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
