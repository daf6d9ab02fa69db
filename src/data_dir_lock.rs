//! [`DataDirLock`] makes sure that only one process uses a data folder.

use std::{
    fs::{File, TryLockError},
    io::{Read, Write},
    path::Path,
};

use anyhow::Context;
use platform::private_folder::open_private_file;

/// Name of the lock file in the data folder.
const FILE_NAME: &str = ".lock";
/// Maximum length of a process id in the lock file.
const MAX_PID_LENGTH: u64 = 20;

/// The exclusive lock on a data folder. The lock ends with this value, or with the process.
#[derive(Debug)]
pub(crate) struct DataDirLock {
    _file: File,
}

impl DataDirLock {
    /// Locks the folder `data_dir`, which must exist.
    ///
    /// # Errors
    /// Returns an error if another process has the lock, or if the lock file cannot be written. The first error
    /// names the other process.
    pub(crate) fn acquire(data_dir: &Path) -> anyhow::Result<Self> {
        let path = data_dir.join(FILE_NAME);
        let describe = || format!("cannot lock the data folder with the file {}", path.display());
        let mut file = open_private_file(&path).with_context(describe)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // The file is empty while the other process is starting.
                let read = file.take(MAX_PID_LENGTH).read_to_string(&mut pid);
                let holder = match read {
                    Ok(length) if length > 0 => format!("the process {}", pid.trim()),
                    _ => "another process".to_owned(),
                };
                anyhow::bail!("the data folder {} (DATA_DIR) is in use by {holder}", data_dir.display());
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(describe),
        }
        file.set_len(0).with_context(describe)?;
        writeln!(file, "{}", std::process::id()).with_context(describe)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_lock_fails_and_names_the_process_until_the_first_ends() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataDirLock::acquire(folder.path()).unwrap();
        let error = DataDirLock::acquire(folder.path()).unwrap_err().to_string();
        let expected = format!("is in use by the process {}", std::process::id());
        assert!(error.contains(&expected) && error.contains("DATA_DIR"), "{error}");
        drop(first);
        DataDirLock::acquire(folder.path()).unwrap();
    }

    #[test]
    fn lock_file_of_a_killed_process_is_no_obstacle() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE_NAME), "18446744073709551615\n").unwrap();
        drop(DataDirLock::acquire(folder.path()).unwrap());
        let content = std::fs::read_to_string(folder.path().join(FILE_NAME)).unwrap();
        assert_eq!(content, format!("{}\n", std::process::id()));
    }
}
