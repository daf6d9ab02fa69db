//! [`DiskBucket`] keeps the objects of a bucket in a folder.

mod folder;
mod listing;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

use self::folder::Folder;
use super::{Bucket, BucketError, BucketListing, Created, Object, ObjectName};

/// Name of the folder for temporary files, below the root. A write first creates a temporary file with the
/// content of the object.
const TEMP_FOLDER_NAME: &str = ".tmp";
/// Age from which a temporary file is stale. [`DiskBucket::open`] removes stale files.
///
/// No write takes that long, so the process that was writing a stale file must have been killed. A younger
/// file may belong to another process that is writing to the same bucket.
const STALE_AFTER: Duration = Duration::from_secs(60 * 60);

/// A bucket in a folder.
///
/// A write creates a temporary file, syncs the file to disk, adds a hard link with the path of the object,
/// and syncs the folder of the object. Adding the link fails if the path exists, so an object is never
/// replaced.
///
/// The name of an object is its path below the root. If `a` is an object, `a/b` therefore cannot be an
/// object. Content types are not stored.
#[derive(Debug, Clone)]
pub struct DiskBucket {
    root: PathBuf,
}

impl DiskBucket {
    /// Opens the bucket in the folder `root`, and creates the folder if it is missing.
    ///
    /// # Errors
    /// Returns [`BucketError::Unavailable`] if the folder cannot be created or synced.
    pub async fn open(root: &Path) -> Result<Self, BucketError> {
        let root = root.to_owned();
        run_blocking(move || {
            // An absolute path stays valid if the working directory changes.
            let root = std::path::absolute(root).map_err(unavailable)?;
            let temp_folder = root.join(TEMP_FOLDER_NAME);
            fs::create_dir_all(&temp_folder).map_err(unavailable)?;
            remove_stale_files(&temp_folder, STALE_AFTER);
            // The root has the directory entry of the temporary folder, and the parent of the root has the
            // entry of the root. Syncing both folders makes the two entries durable.
            for folder in root.ancestors().take(2) {
                sync_folder(folder).map_err(unavailable)?;
            }
            Ok(Self { root })
        })
        .await
    }

    /// Returns the path of the object's file, or an error if an object of this name cannot be stored.
    fn object_path(&self, object_name: &ObjectName) -> Result<PathBuf, BucketError> {
        let name = object_name.as_str();
        if name.split('/').next() == Some(TEMP_FOLDER_NAME) {
            return Err(bad_name(object_name, "names below .tmp are reserved for temporary files"));
        }
        // No part of an `ObjectName` is empty, `.` or `..`. So the path stays below the root.
        Ok(self.root.join(name))
    }

    fn create_blocking(&self, object_name: &ObjectName, data: &[u8]) -> Result<Created, BucketError> {
        let target = self.object_path(object_name)?;
        let folder = target.parent().unwrap_or(&self.root);
        let created = match fs::metadata(&target) {
            Ok(_) => Created::AlreadyThere,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(folder).map_err(|error| write_error(object_name, error))?;
                let temp_folder = self.root.join(TEMP_FOLDER_NAME);
                let temp_file = TempFile::write(&temp_folder, data).map_err(unavailable)?;
                match fs::hard_link(&temp_file.path, &target) {
                    Ok(()) => Created::New,
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => Created::AlreadyThere,
                    Err(error) => return Err(write_error(object_name, error)),
                }
            }
            Err(error) => return Err(write_error(object_name, error)),
        };
        if created == Created::AlreadyThere && !target.is_file() {
            return Err(bad_name(object_name, "a folder of that name exists"));
        }
        // The folders are synced even if the object existed before, because the writer of that object may not
        // have synced them yet.
        for folder in folder.ancestors().take_while(|folder| folder.starts_with(&self.root)) {
            sync_folder(folder).map_err(unavailable)?;
        }
        Ok(created)
    }

    fn read_blocking(&self, object_name: &ObjectName, limit: usize) -> Result<Object, BucketError> {
        let not_found = || BucketError::NotFound(object_name.to_string());
        let too_large = || BucketError::TooLarge { name: object_name.to_string(), limit };
        let path = self.object_path(object_name).map_err(|_| not_found())?;
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if means_absent(&error) => return Err(not_found()),
            Err(error) => return Err(unavailable(error)),
        };
        let metadata = file.metadata().map_err(unavailable)?;
        if !metadata.is_file() {
            return Err(not_found());
        }
        let size = usize::try_from(metadata.len()).map_err(|_| too_large())?;
        if size > limit {
            return Err(too_large());
        }
        let mut data = Vec::with_capacity(size);
        // `take` enforces the limit even if another program is appending to the file.
        file.take(metadata.len()).read_to_end(&mut data).map_err(unavailable)?;
        Ok(Object { data: data.into(), generation: None })
    }

    fn exists_blocking(&self, object_name: &ObjectName) -> Result<bool, BucketError> {
        let Ok(path) = self.object_path(object_name) else {
            return Ok(false);
        };
        match fs::metadata(path) {
            Ok(metadata) => Ok(metadata.is_file()),
            Err(error) if means_absent(&error) => Ok(false),
            Err(error) => Err(unavailable(error)),
        }
    }
}

#[async_trait]
impl Bucket for DiskBucket {
    fn name(&self) -> &str {
        super::LOCAL_BUCKET_NAME
    }

    async fn create(
        &self,
        object_name: &ObjectName,
        data: Bytes,
        _content_type: &str,
    ) -> Result<Created, BucketError> {
        let (bucket, object_name) = (self.clone(), object_name.clone());
        run_blocking(move || bucket.create_blocking(&object_name, &data)).await
    }

    async fn read(&self, object_name: &ObjectName, limit: usize) -> Result<Object, BucketError> {
        let (bucket, object_name) = (self.clone(), object_name.clone());
        run_blocking(move || bucket.read_blocking(&object_name, limit)).await
    }

    async fn exists(&self, object_name: &ObjectName) -> Result<bool, BucketError> {
        let (bucket, object_name) = (self.clone(), object_name.clone());
        run_blocking(move || bucket.exists_blocking(&object_name)).await
    }
}

#[async_trait]
impl BucketListing for DiskBucket {
    async fn list(&self, after: Option<&ObjectName>, limit: usize) -> Result<Vec<ObjectName>, BucketError> {
        let (bucket, after) = (self.clone(), after.cloned());
        run_blocking(move || {
            let root = Folder::open(&bucket.root).map_err(unavailable)?;
            listing::list(&root, after.as_ref(), limit).map_err(unavailable)
        })
        .await
    }
}

/// Runs `operation` on Tokio's pool for blocking work. The operation runs to its end even if this future is
/// dropped.
async fn run_blocking<T: Send + 'static>(
    operation: impl FnOnce() -> Result<T, BucketError> + Send + 'static,
) -> Result<T, BucketError> {
    match tokio::task::spawn_blocking(operation).await {
        Ok(result) => result,
        Err(error) => Err(BucketError::Unavailable(error.into())),
    }
}

fn unavailable(error: impl Into<io::Error>) -> BucketError {
    BucketError::Unavailable(error.into().into())
}

fn bad_name(object_name: &ObjectName, reason: &str) -> BucketError {
    BucketError::BadName { name: object_name.to_string(), reason: reason.to_owned() }
}

/// Converts the error of a write. An error that is caused by the name of the object becomes
/// [`BucketError::BadName`], which is permanent.
fn write_error(object_name: &ObjectName, error: io::Error) -> BucketError {
    match error.kind() {
        ErrorKind::InvalidFilename => {
            bad_name(object_name, "a part of the name is too long for the file system")
        }
        // `create_dir_all` fails with one of these two errors if a part of the path is a file. Which one
        // depends on the position of that part.
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            bad_name(object_name, "a part of the name is an object, not a folder")
        }
        _ => unavailable(error),
    }
}

/// Returns true if `error` means that the object does not exist.
fn means_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename)
}

/// Syncs the directory entries of `folder` to disk.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// A temporary file with the whole content of an object, synced to disk. Dropping this value removes the path
/// of the temporary file, but not the object that was linked to the file.
struct TempFile {
    path: PathBuf,
}

impl TempFile {
    fn write(folder: &Path, data: &[u8]) -> io::Result<Self> {
        let path = folder.join(Uuid::new_v4().to_string());
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        let temp_file = Self { path };
        file.write_all(data)?;
        file.sync_all()?;
        Ok(temp_file)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = ?self.path, %error, "a temporary file cannot be removed");
        }
    }
}

/// Removes the stale files in `temp_folder`. A failure is only logged, because the next start tries again.
fn remove_stale_files(temp_folder: &Path, stale_after: Duration) {
    let age = |entry: &fs::DirEntry| entry.metadata().ok()?.modified().ok()?.elapsed().ok();
    for entry in fs::read_dir(temp_folder).into_iter().flatten().flatten() {
        if age(&entry).is_some_and(|age| age >= stale_after) {
            match fs::remove_file(entry.path()) {
                Ok(()) => tracing::info!(path = ?entry.path(), "removed a stale temporary file"),
                Err(error) => {
                    tracing::warn!(path = ?entry.path(), %error, "a stale temporary file cannot be removed")
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::bucket::conformance;

    fn object_name(text: &str) -> ObjectName {
        ObjectName::new(text).unwrap()
    }

    fn temp_file_count(root: &Path) -> usize {
        fs::read_dir(root.join(TEMP_FOLDER_NAME)).unwrap().count()
    }

    #[tokio::test]
    async fn bucket_passes_the_conformance_suite() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("not/there/yet");
        conformance::check(&DiskBucket::open(&root).await.unwrap()).await;
        assert_eq!(temp_file_count(&root), 0);
    }

    #[tokio::test]
    async fn listing_passes_the_conformance_suite() {
        let folder = tempfile::tempdir().unwrap();
        conformance::check_listing(&DiskBucket::open(folder.path()).await.unwrap()).await;
    }

    #[tokio::test]
    async fn listing_leaves_out_everything_that_is_not_an_object() {
        let folder = tempfile::tempdir().unwrap();
        let bucket = DiskBucket::open(folder.path()).await.unwrap();
        bucket.create(&object_name("a/b"), Bytes::new(), "text/plain").await.unwrap();
        let at = |path: &str| folder.path().join(path);
        fs::write(at(".tmp/unfinished"), "ha").unwrap();
        fs::create_dir(at("empty")).unwrap();
        fs::write(at("not\nan object"), "ha").unwrap();
        std::os::unix::fs::symlink(at("a"), at("folder-link")).unwrap();
        std::os::unix::fs::symlink(at("a/b"), at("file-link")).unwrap();
        assert_eq!(bucket.list(None, 10).await.unwrap(), [object_name("a/b")]);
    }

    #[tokio::test]
    async fn page_behind_more_folders_without_objects_than_a_scan_remembers_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let bucket = DiskBucket::open(folder.path()).await.unwrap();
        for number in 0..=2 * listing::MIN_BATCH_LENGTH {
            fs::create_dir(folder.path().join(format!("empty-{number}"))).unwrap();
        }
        for name in ["z/1", "z/2"] {
            bucket.create(&object_name(name), Bytes::new(), "text/plain").await.unwrap();
        }
        assert_eq!(bucket.list(None, 1).await.unwrap(), [object_name("z/1")]);
        assert_eq!(bucket.list(Some(&object_name("z/1")), 1).await.unwrap(), [object_name("z/2")]);
    }

    #[tokio::test]
    async fn object_exists_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let bucket = DiskBucket::open(folder.path()).await.unwrap();
        bucket.create(&object_name("a/b"), Bytes::from_static(b"x"), "text/plain").await.unwrap();
        drop(bucket);
        let bucket = DiskBucket::open(folder.path()).await.unwrap();
        assert_eq!(bucket.read(&object_name("a/b"), 1).await.unwrap().data, "x");
    }

    #[tokio::test]
    async fn temporary_file_is_invisible_and_removed_once_stale() {
        let folder = tempfile::tempdir().unwrap();
        let bucket = DiskBucket::open(folder.path()).await.unwrap();
        let unfinished = folder.path().join(TEMP_FOLDER_NAME).join("unfinished");
        fs::write(&unfinished, "ha").unwrap();
        let reserved_name = object_name(".tmp/unfinished");
        assert!(!bucket.exists(&reserved_name).await.unwrap());
        assert!(matches!(bucket.read(&reserved_name, 9).await, Err(BucketError::NotFound(_))));
        let created = bucket.create(&reserved_name, Bytes::new(), "text/plain").await;
        assert!(matches!(created, Err(BucketError::BadName { .. })), "{created:?}");

        DiskBucket::open(folder.path()).await.unwrap();
        assert!(unfinished.exists(), "another process may be writing the file");
        let two_hours_ago = SystemTime::now() - 2 * STALE_AFTER;
        File::options().write(true).open(&unfinished).unwrap().set_modified(two_hours_ago).unwrap();
        DiskBucket::open(folder.path()).await.unwrap();
        assert!(!unfinished.exists());
    }

    #[tokio::test]
    async fn name_of_a_folder_or_below_an_object_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let bucket = DiskBucket::open(folder.path()).await.unwrap();
        let data = Bytes::from_static(b"x");
        bucket.create(&object_name("a/b"), data.clone(), "text/plain").await.unwrap();
        for refused in ["a/b/c", "a/b/c/d", "a"] {
            let created = bucket.create(&object_name(refused), data.clone(), "text/plain").await;
            assert!(matches!(created, Err(BucketError::BadName { .. })), "{refused}: {created:?}");
            assert!(!bucket.exists(&object_name(refused)).await.unwrap(), "{refused}");
            let read = bucket.read(&object_name(refused), 9).await;
            assert!(matches!(read, Err(BucketError::NotFound(_))), "{refused}: {read:?}");
        }
        assert_eq!(temp_file_count(folder.path()), 0);
    }

    #[tokio::test]
    async fn name_with_a_part_too_long_for_the_file_system_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let bucket = DiskBucket::open(folder.path()).await.unwrap();
        let part = "x".repeat(256);
        for too_long in [part.clone(), format!("a/{part}"), format!("{part}/a")] {
            let created = bucket.create(&object_name(&too_long), Bytes::new(), "text/plain").await;
            assert!(matches!(created, Err(BucketError::BadName { .. })), "{created:?}");
            assert!(!bucket.exists(&object_name(&too_long)).await.unwrap());
            let read = bucket.read(&object_name(&too_long), 9).await;
            assert!(matches!(read, Err(BucketError::NotFound(_))), "{read:?}");
        }
    }

    #[tokio::test]
    async fn opening_a_root_that_is_a_file_fails() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("file");
        fs::write(&root, "").unwrap();
        let opened = DiskBucket::open(&root).await;
        assert!(matches!(opened, Err(BucketError::Unavailable(_))), "{opened:?}");
    }
}
