//! [`DiskBucket`] keeps the objects of a bucket in a folder.

mod checksum;
mod folder;
mod listing;
mod temp_file;

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Once},
};

use async_trait::async_trait;
use bytes::Bytes;
use metrics::counter;
use rustix::io::Errno;

use self::{
    checksum::Checksum,
    folder::{EntryKind, Folder},
    temp_file::{TempFile, remove_abandoned_files},
};
use super::{Bucket, BucketError, BucketListing, Created, LooksIntact, Object, ObjectName};
use crate::private_folder::create_private_folder;

/// Name of the folder for temporary files, below the root. A write first creates a temporary file with the
/// content of the object.
const TEMP_FOLDER_NAME: &str = ".tmp";
/// Maximum number of attempts to write an object. An attempt has no result if another process removes the
/// folder or replaces the object at the same time.
const MAX_WRITE_ATTEMPTS: usize = 10;
/// An object without a checksum is judged by its content only up to this length, because judging it needs the
/// whole content in memory.
const MAX_JUDGED_BYTES: u64 = 64 << 20;

/// A bucket in a folder.
///
/// A write creates a temporary file, syncs the file to disk, adds a hard link with the path of the object,
/// and syncs the folder of the object. Adding the link fails if the path exists, so an object is never
/// replaced, with one exception: [`Bucket::replace_if_broken`] replaces a damaged object, by renaming the
/// temporary file.
///
/// The checksum of an object is an extended attribute of its file, so the two cannot be mixed up. An object
/// without checksum is read as it is. Older versions stored no checksums, copying a file can drop its
/// attributes, and not every file system stores them.
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
        if is_intact(&file, looks_intact).map_err(unavailable)? {
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
        let mut data = Vec::with_capacity(size);
        // `take` enforces the limit even if another program is appending to the file.
        file.take(metadata.len()).read_to_end(&mut data).map_err(unavailable)?;
        if checksum.is_some_and(|checksum| checksum != Checksum::of(&data)) {
            return Err(damaged());
        }
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
    async fn list(&self, after: Option<&ObjectName>, limit: usize) -> Result<Vec<ObjectName>, BucketError> {
        let (bucket, after) = (self.clone(), after.cloned());
        run_blocking(move || listing::list(&bucket.open_root()?, after.as_ref(), limit).map_err(unavailable))
            .await
    }
}

/// The path of an object below the root.
struct ObjectPath<'a> {
    object_name: &'a ObjectName,
    folder_names: Vec<&'a str>,
    file_name: &'a str,
}

impl<'a> ObjectPath<'a> {
    /// Returns the path of an object, or an error if an object of this name cannot be stored.
    ///
    /// No part of an [`ObjectName`] is empty, `.` or `..`. So the path stays below the root.
    fn new(object_name: &'a ObjectName) -> Result<Self, BucketError> {
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

    fn open_file(&self, root: &Folder) -> Result<File, Errno> {
        self.open_folder(root)?.as_ref().unwrap_or(root).open_file(self.file_name)
    }

    /// Returns the kind of the entry at this path, or `None` if there is none.
    fn kind(&self, root: &Folder) -> Result<Option<EntryKind>, Errno> {
        match self.open_folder(root) {
            Ok(folder) => folder.as_ref().unwrap_or(root).kind(self.file_name),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Converts the error of a write. An error that is caused by the name of the object becomes
    /// [`BucketError::BadName`], which is permanent.
    fn write_error(&self, error: Errno) -> BucketError {
        match error {
            Errno::NAMETOOLONG => {
                bad_name(self.object_name, "a part of the name is too long for the file system")
            }
            Errno::NOTDIR => bad_name(self.object_name, "a part of the name is an object, not a folder"),
            error => self.error(error),
        }
    }

    /// Returns the error for a write to an entry of the kind `kind`.
    fn not_a_file(&self, kind: EntryKind) -> BucketError {
        match kind {
            EntryKind::SymbolicLink => self.error(Errno::LOOP),
            EntryKind::Folder => bad_name(self.object_name, "a folder of that name exists"),
            EntryKind::File | EntryKind::Special => {
                bad_name(self.object_name, "the file of that name is not a regular file")
            }
        }
    }

    /// Converts an error that does not depend on the name of the object.
    fn error(&self, error: Errno) -> BucketError {
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
struct FolderChain<'a> {
    root: Folder,
    /// The folders below the root with their names, the outermost one first.
    below: Vec<(&'a str, Folder)>,
    /// Number of folders at the end of `below` that were created.
    new_count: usize,
}

impl<'a> FolderChain<'a> {
    /// Opens the folders of `path`.
    fn open(root: Folder, path: &ObjectPath<'a>) -> Result<Self, Errno> {
        let mut chain = Self { root, below: Vec::new(), new_count: 0 };
        for name in &path.folder_names {
            let folder = chain.last().open_folder(name)?;
            chain.below.push((name, folder));
        }
        Ok(chain)
    }

    /// Opens the folders of `path`, and creates those that are missing. If one cannot be created, the new ones
    /// are removed again.
    fn create(root: Folder, path: &ObjectPath<'a>) -> Result<Self, Errno> {
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
    fn last(&self) -> &Folder {
        self.below.last().map_or(&self.root, |(_, folder)| folder)
    }

    /// Makes the entries of all folders durable, the innermost folder first.
    fn sync(&self) -> Result<(), Errno> {
        self.below.iter().rev().try_for_each(|(_, folder)| folder.sync())?;
        self.root.sync()
    }

    /// Removes the folders that were created, unless other writers use them.
    fn remove_new_folders(mut self) {
        for _ in 0..self.new_count {
            if let Some((name, _)) = self.below.pop() {
                self.last().remove_empty_folder(name);
            }
        }
    }
}

/// Returns true if the content of `file` has the checksum that is stored with the file, or if there is no
/// checksum and `looks_intact` returns true for the content.
fn is_intact(file: &File, looks_intact: LooksIntact) -> io::Result<bool> {
    let length = file.metadata()?.len();
    if let Some(checksum) = Checksum::load(file) {
        return Ok(checksum.length == length && checksum == Checksum::of_content(file)?);
    }
    if length > MAX_JUDGED_BYTES {
        return Ok(true);
    }
    let mut data = Vec::new();
    file.take(length).read_to_end(&mut data)?;
    Ok(looks_intact(&data))
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

/// Returns true if `error` means that the object does not exist.
fn means_absent(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG)
}

#[cfg(test)]
mod tests;
