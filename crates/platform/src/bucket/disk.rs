//! A bucket in a folder.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

use super::{Bucket, BucketError, Created, Object, ObjectName};

/// Folder inside the root where objects are written before they get their name.
const TEMP_FOLDER: &str = ".tmp";
/// A temporary file this old belongs to a process that was killed: no write takes so long. Younger
/// ones may belong to another process that works on the same folder.
const STALE_AFTER: Duration = Duration::from_secs(60 * 60);

/// A bucket in a folder: temporary file, fsync, hard link (which fails if the name exists), fsync of
/// the folder.
///
/// Names are paths below the root, so one object cannot stand where another needs a folder. Content
/// types are not kept.
#[derive(Debug, Clone)]
pub struct DiskBucket {
    root: PathBuf,
}

impl DiskBucket {
    /// Opens the bucket in `root`, which is made if it is not there.
    ///
    /// # Errors
    /// [`BucketError::Unavailable`] when it cannot be made.
    pub async fn open(root: &Path) -> Result<Self, BucketError> {
        let root = root.to_owned();
        blocking(move || {
            // A later change of the working directory must not move the bucket.
            let root = std::path::absolute(root).map_err(unavailable)?;
            let temp = root.join(TEMP_FOLDER);
            fs::create_dir_all(&temp).map_err(unavailable)?;
            remove_stale(&temp, STALE_AFTER);
            for folder in root.ancestors().take(2) {
                sync_folder(folder).map_err(unavailable)?;
            }
            Ok(Self { root })
        })
        .await
    }

    /// Path of an object, or why there can be none.
    fn path_of(&self, object: &ObjectName) -> Result<PathBuf, BucketError> {
        let name = object.as_str();
        if name.split('/').next() == Some(TEMP_FOLDER) {
            return Err(bad_name(object, "names below .tmp are kept for unfinished files"));
        }
        // `ObjectName` has no empty, `.` or `..` part: the path stays below the root.
        Ok(self.root.join(name))
    }

    fn create_blocking(&self, object: &ObjectName, data: &[u8]) -> Result<Created, BucketError> {
        let target = self.path_of(object)?;
        let folder = target.parent().unwrap_or(&self.root);
        let found = match fs::metadata(&target) {
            Ok(_) => Created::AlreadyThere,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(folder).map_err(|error| write_error(object, error))?;
                let temp = TempFile::write(&self.root.join(TEMP_FOLDER), data).map_err(unavailable)?;
                match fs::hard_link(&temp.path, &target) {
                    Ok(()) => Created::New,
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => Created::AlreadyThere,
                    Err(error) => return Err(write_error(object, error)),
                }
            }
            Err(error) => return Err(write_error(object, error)),
        };
        if found == Created::AlreadyThere && !target.is_file() {
            return Err(bad_name(object, "a folder of that name exists"));
        }
        // Also for an object that was there: whoever made it may not have come this far yet.
        for folder in folder.ancestors().take_while(|folder| folder.starts_with(&self.root)) {
            sync_folder(folder).map_err(unavailable)?;
        }
        Ok(found)
    }

    fn read_blocking(&self, object: &ObjectName, limit: usize) -> Result<Object, BucketError> {
        let not_found = || BucketError::NotFound(object.to_string());
        let too_large = || BucketError::TooLarge { name: object.to_string(), limit };
        let path = self.path_of(object).map_err(|_| not_found())?;
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
        // Objects never change; `take` holds should somebody else write to the file all the same.
        file.take(metadata.len()).read_to_end(&mut data).map_err(unavailable)?;
        Ok(Object { data: data.into(), generation: None })
    }

    fn exists_blocking(&self, object: &ObjectName) -> Result<bool, BucketError> {
        let Ok(path) = self.path_of(object) else {
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
        super::LOCAL_BUCKET
    }

    async fn create(
        &self,
        object: &ObjectName,
        data: Bytes,
        _content_type: &str,
    ) -> Result<Created, BucketError> {
        let (bucket, object) = (self.clone(), object.clone());
        blocking(move || bucket.create_blocking(&object, &data)).await
    }

    async fn read(&self, object: &ObjectName, limit: usize) -> Result<Object, BucketError> {
        let (bucket, object) = (self.clone(), object.clone());
        blocking(move || bucket.read_blocking(&object, limit)).await
    }

    async fn exists(&self, object: &ObjectName) -> Result<bool, BucketError> {
        let (bucket, object) = (self.clone(), object.clone());
        blocking(move || bucket.exists_blocking(&object)).await
    }
}

/// Runs file work where it stops no other task. Work that was begun is finished even when the caller
/// leaves.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BucketError> + Send + 'static,
) -> Result<T, BucketError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(BucketError::Unavailable(error.into())),
    }
}

fn unavailable(error: io::Error) -> BucketError {
    BucketError::Unavailable(error.into())
}

fn bad_name(object: &ObjectName, reason: &str) -> BucketError {
    BucketError::BadName { name: object.to_string(), reason: reason.to_owned() }
}

/// Errors that the name itself causes will be the same next time.
fn write_error(object: &ObjectName, error: io::Error) -> BucketError {
    match error.kind() {
        ErrorKind::InvalidFilename => bad_name(object, "a part is too long for the file system"),
        // `create_dir_all` says the one or the other, depending on which part is the file.
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            bad_name(object, "an object stands where a folder is needed")
        }
        _ => unavailable(error),
    }
}

/// No object can be where this error comes from.
fn means_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename)
}

/// Makes the names in `folder` durable.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// A whole and durable file without its final name; removed when dropped.
struct TempFile {
    path: PathBuf,
}

impl TempFile {
    fn write(folder: &Path, data: &[u8]) -> io::Result<Self> {
        let path = folder.join(Uuid::new_v4().to_string());
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        let temp = Self { path };
        file.write_all(data)?;
        file.sync_all()?;
        Ok(temp)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = ?self.path, %error, "a temporary file is left behind");
        }
    }
}

/// Removes what killed processes left. Best effort: what stays does no harm and is tried again at
/// the next start.
fn remove_stale(temp: &Path, stale_after: Duration) {
    let age = |entry: &fs::DirEntry| entry.metadata().ok()?.modified().ok()?.elapsed().ok();
    for entry in fs::read_dir(temp).into_iter().flatten().flatten() {
        if age(&entry).is_some_and(|age| age >= stale_after) {
            match fs::remove_file(entry.path()) {
                Ok(()) => tracing::info!(path = ?entry.path(), "removed a stale temporary file"),
                Err(error) => tracing::warn!(path = ?entry.path(), %error, "cannot be removed"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::bucket::conformance;

    fn name(text: &str) -> ObjectName {
        ObjectName::new(text).unwrap()
    }

    fn temp_files(root: &Path) -> usize {
        fs::read_dir(root.join(TEMP_FOLDER)).unwrap().count()
    }

    #[tokio::test]
    async fn conforms() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("not/there/yet");
        conformance::check(&DiskBucket::open(&root).await.unwrap()).await;
        assert_eq!(temp_files(&root), 0);
    }

    #[tokio::test]
    async fn objects_are_there_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let bucket = DiskBucket::open(folder.path()).await.unwrap();
        bucket.create(&name("a/b"), Bytes::from_static(b"x"), "text/plain").await.unwrap();
        drop(bucket);
        let bucket = DiskBucket::open(folder.path()).await.unwrap();
        assert_eq!(bucket.read(&name("a/b"), 1).await.unwrap().data, "x");
    }

    #[tokio::test]
    async fn what_a_killed_writer_left_is_invisible_and_removed_when_stale() {
        let folder = tempfile::tempdir().unwrap();
        let bucket = DiskBucket::open(folder.path()).await.unwrap();
        let half = folder.path().join(TEMP_FOLDER).join("half");
        fs::write(&half, "ha").unwrap();
        let object = name(".tmp/half");
        assert!(!bucket.exists(&object).await.unwrap());
        assert!(matches!(bucket.read(&object, 9).await, Err(BucketError::NotFound(_))));
        let written = bucket.create(&object, Bytes::new(), "text/plain").await;
        assert!(matches!(written, Err(BucketError::BadName { .. })), "{written:?}");

        DiskBucket::open(folder.path()).await.unwrap();
        assert!(half.exists(), "another process may be writing it");
        let long_ago = SystemTime::now() - 2 * STALE_AFTER;
        File::options().write(true).open(&half).unwrap().set_modified(long_ago).unwrap();
        DiskBucket::open(folder.path()).await.unwrap();
        assert!(!half.exists());
    }

    #[tokio::test]
    async fn an_object_is_no_folder_and_a_folder_no_object() {
        let folder = tempfile::tempdir().unwrap();
        let bucket = DiskBucket::open(folder.path()).await.unwrap();
        let data = Bytes::from_static(b"x");
        bucket.create(&name("a/b"), data.clone(), "text/plain").await.unwrap();
        for below in ["a/b/c", "a/b/c/d", "a"] {
            let written = bucket.create(&name(below), data.clone(), "text/plain").await;
            assert!(matches!(written, Err(BucketError::BadName { .. })), "{below}: {written:?}");
            assert!(!bucket.exists(&name(below)).await.unwrap(), "{below}");
            let read = bucket.read(&name(below), 9).await;
            assert!(matches!(read, Err(BucketError::NotFound(_))), "{below}: {read:?}");
        }
        assert_eq!(temp_files(folder.path()), 0);
    }

    #[tokio::test]
    async fn a_part_too_long_for_the_file_system() {
        let folder = tempfile::tempdir().unwrap();
        let bucket = DiskBucket::open(folder.path()).await.unwrap();
        let part = "x".repeat(256);
        for long in [part.clone(), format!("a/{part}"), format!("{part}/a")] {
            let written = bucket.create(&name(&long), Bytes::new(), "text/plain").await;
            assert!(matches!(written, Err(BucketError::BadName { .. })), "{written:?}");
            assert!(!bucket.exists(&name(&long)).await.unwrap());
            let read = bucket.read(&name(&long), 9).await;
            assert!(matches!(read, Err(BucketError::NotFound(_))), "{read:?}");
        }
    }

    #[tokio::test]
    async fn a_root_that_is_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("file");
        fs::write(&root, "").unwrap();
        let opened = DiskBucket::open(&root).await;
        assert!(matches!(opened, Err(BucketError::Unavailable(_))), "{opened:?}");
    }
}
