//! [`DiskBucket`] keeps the objects of a bucket in a folder.

mod checksum;
mod content;
mod folder;
mod listing;
mod object_path;
mod temp_file;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Once},
};

use async_trait::async_trait;
use bytes::Bytes;
use metrics::counter;
use rustix::io::Errno;

use self::{
    checksum::Checksum,
    content::{is_intact, read_intact},
    folder::{EntryKind, Folder},
    listing::DiskListing,
    object_path::{FolderChain, ObjectPath, means_absent},
    temp_file::{TempFile, remove_abandoned_files},
};
use super::{Bucket, BucketError, BucketListing, Created, LooksIntact, Object, ObjectListing, ObjectName};
use crate::private_folder::create_private_folder;

/// Name of the folder for temporary files, below the root. A write first creates a temporary file with the
/// content of the object.
const TEMP_FOLDER_NAME: &str = ".tmp";
/// Maximum number of attempts to write an object. An attempt has no result if another process removes the
/// folder or replaces the object at the same time.
const MAX_WRITE_ATTEMPTS: usize = 10;

/// A bucket in a folder.
///
/// A write creates a temporary file, syncs the file to disk, adds a hard link with the path of the object,
/// and syncs the folder of the object. Adding the link fails if the path exists, so an object is never
/// replaced, with one exception: [`Bucket::replace_if_broken`] replaces a damaged object, by renaming the
/// temporary file.
///
/// The checksum of an object is an extended attribute of its file, so the two cannot be mixed up. An object
/// without checksum is read as it is. Older versions stored no checksums, copying a file can drop its
/// attributes, and not every file system stores them. An object whose content the device cannot read (`EIO`) is
/// damaged, too.
///
/// The name of an object is its path below the root. If `a` is an object, `a/b` therefore cannot be an
/// object. Content types are not stored. Only the user of the service may read what this type creates.
/// Symbolic links below the root are never followed. A call that meets one fails.
#[derive(Debug, Clone)]
pub struct DiskBucket {
    root: PathBuf,
    /// Logs once that the file system stores no checksums.
    checksum_warning: Arc<Once>,
}

impl DiskBucket {
    /// Opens the bucket in the folder `root`, and creates the folder if it is missing. `root` may be a
    /// symbolic link.
    ///
    /// Removes the temporary files of processes that were killed while they wrote an object.
    ///
    /// # Errors
    /// Returns [`BucketError::Unavailable`] if the folder cannot be created or synced.
    pub async fn open(root: &Path) -> Result<Self, BucketError> {
        let root = root.to_owned();
        run_blocking(move || {
            // An absolute path stays valid if the working directory changes.
            let root = std::path::absolute(root).map_err(unavailable)?;
            create_private_folder(&root).map_err(unavailable)?;
            let folder = Folder::open(&root).map_err(unavailable)?;
            let (temp_folder, _) = folder.create_folder(TEMP_FOLDER_NAME).map_err(unavailable)?;
            remove_abandoned_files(&temp_folder);
            // Makes the entry of the temporary folder durable.
            folder.sync().map_err(unavailable)?;
            Ok(Self { root, checksum_warning: Arc::new(Once::new()) })
        })
        .await
    }

    /// Opens the root. The error is never [`BucketError::NotFound`], because a bucket whose folder is missing
    /// may come back with its objects.
    fn open_root(&self) -> Result<Folder, BucketError> {
        Folder::open(&self.root).map_err(unavailable)
    }

    /// Runs `attempt` until it has a result.
    fn repeat<T>(
        &self,
        object_name: &ObjectName,
        mut attempt: impl FnMut(&ObjectPath<'_>) -> Result<Option<T>, BucketError>,
    ) -> Result<T, BucketError> {
        let path = ObjectPath::new(object_name)?;
        for _ in 0..MAX_WRITE_ATTEMPTS {
            if let Some(result) = attempt(&path)? {
                return Ok(result);
            }
        }
        let reason = format!("other processes keep changing the folder of {object_name}");
        Err(BucketError::Unavailable(reason.into()))
    }

    /// Creates an object. Returns `None` if another process has removed the folder or the temporary file in
    /// the meantime.
    fn try_create(&self, path: &ObjectPath<'_>, data: &[u8]) -> Result<Option<Created>, BucketError> {
        let root = self.open_root()?;
        match path.kind(&root) {
            Ok(None) => {}
            Ok(Some(EntryKind::File)) => {
                // The folders are synced even if the object existed before, because the writer of that object
                // may not have synced them yet.
                return match FolderChain::open(root, path) {
                    Ok(chain) => chain.sync().map(|()| Some(Created::AlreadyThere)).map_err(unavailable),
                    Err(Errno::NOENT) => Ok(None),
                    Err(error) => Err(path.write_error(error)),
                };
            }
            Ok(Some(kind)) => return Err(path.not_a_file(kind)),
            Err(error) => return Err(path.write_error(error)),
        }
        // The content is written before the folders are created. So a write to a full disk leaves no folders.
        let (temp_folder, _) = root.create_folder(TEMP_FOLDER_NAME).map_err(unavailable)?;
        let temp_file = TempFile::write(&temp_folder, data, &self.checksum_warning).map_err(unavailable)?;
        let created = match FolderChain::create(root, path) {
            Ok(chain) => match temp_file.link(chain.last(), path.file_name) {
                Ok(()) => chain.sync().map(|()| Created::New).map_err(unavailable)?,
                // Another writer was faster. The next attempt finds that writer's object.
                Err(Errno::EXIST) => return Ok(None),
                Err(error) => {
                    chain.remove_new_folders();
                    return if error == Errno::NOENT { Ok(None) } else { Err(path.write_error(error)) };
                }
            },
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(path.write_error(error)),
        };
        Ok(Some(created))
    }

    /// Creates an object or replaces a damaged one. Returns `None` if another process has removed or replaced
    /// the object in the meantime.
    fn try_replace(
        &self,
        path: &ObjectPath<'_>,
        data: &[u8],
        looks_intact: LooksIntact,
    ) -> Result<Option<Created>, BucketError> {
        match self.try_create(path, data)? {
            Some(Created::AlreadyThere) => {}
            created => return Ok(created),
        }
        let chain = match FolderChain::open(self.open_root()?, path) {
            Ok(chain) => chain,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(path.write_error(error)),
        };
        let folder = chain.last();
        let open = |result| match result {
            Ok(file) => Ok(Some(file)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(path.write_error(error)),
        };
        let Some(file) = open(folder.open_file(path.file_name))? else { return Ok(None) };
        let length = file.metadata().map_err(unavailable)?.len();
        if is_intact(&file, length, Checksum::load(&file), looks_intact).map_err(unavailable)? {
            return Ok(Some(Created::AlreadyThere));
        }
        // All writers that replace this object lock its damaged file. The first one replaces the file. The
        // others then find another file under the name, and check that one. So no intact object is replaced.
        let Some(damaged) = open(folder.open_file_to_lock(path.file_name))? else { return Ok(None) };
        damaged.lock().map_err(unavailable)?;
        for file in [&file, &damaged] {
            if !folder.is_entry_of(path.file_name, file).map_err(unavailable)? {
                return Ok(None);
            }
        }
        let (temp_folder, _) = chain.root.create_folder(TEMP_FOLDER_NAME).map_err(unavailable)?;
        let temp_file = TempFile::write(&temp_folder, data, &self.checksum_warning).map_err(unavailable)?;
        match temp_file.rename(folder, path.file_name) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(path.write_error(error)),
        }
        chain.sync().map_err(unavailable)?;
        tracing::warn!(object = %path.object_name, "a damaged object was replaced");
        counter!("bucket_damaged_objects_total", "action" => "replaced").increment(1);
        Ok(Some(Created::Replaced))
    }

    fn read_blocking(&self, object_name: &ObjectName, limit: usize) -> Result<Object, BucketError> {
        let not_found = || BucketError::NotFound(object_name.to_string());
        let too_large = || BucketError::TooLarge { name: object_name.to_string(), limit };
        let damaged = || {
            counter!("bucket_damaged_objects_total", "action" => "read").increment(1);
            BucketError::Damaged(object_name.to_string())
        };
        let path = ObjectPath::new(object_name).map_err(|_| not_found())?;
        let file = match path.open_file(&self.open_root()?) {
            Ok(file) => file,
            Err(error) if means_absent(error) => return Err(not_found()),
            Err(error) => return Err(path.error(error)),
        };
        let metadata = file.metadata().map_err(unavailable)?;
        if !metadata.is_file() {
            return Err(not_found());
        }
        let checksum = Checksum::load(&file);
        if checksum.is_some_and(|checksum| checksum.length != metadata.len()) {
            return Err(damaged());
        }
        let size = usize::try_from(metadata.len()).map_err(|_| too_large())?;
        if size > limit {
            return Err(too_large());
        }
        let data = read_intact(file, size, checksum).map_err(unavailable)?.ok_or_else(damaged)?;
        Ok(Object { data: data.into(), generation: None })
    }

    fn exists_blocking(&self, object_name: &ObjectName) -> Result<bool, BucketError> {
        let Ok(path) = ObjectPath::new(object_name) else {
            return Ok(false);
        };
        match path.kind(&self.open_root()?) {
            Ok(Some(EntryKind::SymbolicLink)) => Err(path.error(Errno::LOOP)),
            Ok(kind) => Ok(kind == Some(EntryKind::File)),
            Err(error) if means_absent(error) => Ok(false),
            Err(error) => Err(path.error(error)),
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
        run_blocking(move || bucket.repeat(&object_name, |path| bucket.try_create(path, &data))).await
    }

    async fn replace_if_broken(
        &self,
        object_name: &ObjectName,
        data: Bytes,
        _content_type: &str,
        looks_intact: LooksIntact,
    ) -> Result<Created, BucketError> {
        let (bucket, object_name) = (self.clone(), object_name.clone());
        run_blocking(move || {
            bucket.repeat(&object_name, |path| bucket.try_replace(path, &data, looks_intact))
        })
        .await
    }

    fn replaces_broken_objects(&self) -> bool {
        true
    }

    async fn read(&self, object_name: &ObjectName, limit: usize) -> Result<Object, BucketError> {
        let (bucket, object_name) = (self.clone(), object_name.clone());
        run_blocking(move || bucket.read_blocking(&object_name, limit)).await
    }

    async fn exists(&self, object_name: &ObjectName) -> Result<bool, BucketError> {
        let (bucket, object_name) = (self.clone(), object_name.clone());
        run_blocking(move || bucket.exists_blocking(&object_name)).await
    }

    async fn check_health(&self) -> Result<(), BucketError> {
        let bucket = self.clone();
        run_blocking(move || {
            let (temp_folder, _) =
                bucket.open_root()?.create_folder(TEMP_FOLDER_NAME).map_err(unavailable)?;
            // The file is removed at once.
            TempFile::write(&temp_folder, b"check", &bucket.checksum_warning).map(drop).map_err(unavailable)
        })
        .await
    }
}

#[async_trait]
impl BucketListing for DiskBucket {
    async fn list(&self) -> Result<Box<dyn ObjectListing>, BucketError> {
        let bucket = self.clone();
        let listing = run_blocking(move || DiskListing::start(bucket.open_root()?).map_err(unavailable));
        Ok(Box::new(listing.await?))
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

#[cfg(test)]
mod tests;
