//! A [`Bucket`] stores images and predictions.
//!
//! No operation changes or deletes an object, with one exception: [`Bucket::replace_if_broken`] replaces an
//! object whose content is damaged. So every operation can safely be repeated. The conformance suite in
//! `conformance` tests every implementation.

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod disk;
#[cfg(feature = "cloud")]
mod gcs;
#[cfg(any(test, feature = "testing"))]
mod in_memory;
#[cfg(feature = "cloud")]
mod location;
mod name;

use std::{io, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

pub use disk::DiskBucket;
#[cfg(feature = "cloud")]
pub use gcs::GcsBucket;
#[cfg(any(test, feature = "testing"))]
pub use in_memory::InMemoryBucket;
#[cfg(feature = "cloud")]
pub use location::BucketLocation;
pub use name::{InvalidObjectName, ObjectName};

/// Bucket name in the `gs://` paths of objects that are not in Cloud Storage.
pub const LOCAL_BUCKET_NAME: &str = "local";

/// Result of [`Bucket::create`] and [`Bucket::replace_if_broken`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// The object was written.
    New,
    /// An object of this name already existed and was not changed.
    AlreadyThere,
    /// An object of this name was damaged and has been replaced.
    Replaced,
}

/// The content and the version of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The content.
    pub data: Bytes,
    /// Number of the object's version, or `None` if the bucket does not number versions.
    ///
    /// The services never overwrite an object, but other programs may overwrite an object in Cloud Storage.
    pub generation: Option<i64>,
}

/// Reason why a bucket operation failed.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// The object does not exist. This error is permanent.
    #[error("there is no object {0}")]
    NotFound(String),
    /// The object is larger than the caller allows. This error is permanent.
    #[error("the object {name} is larger than {limit} bytes")]
    TooLarge {
        /// The name of the object.
        name: String,
        /// Maximum size that the caller allows, in bytes.
        limit: usize,
    },
    /// The bucket cannot store an object of this name. This error is permanent.
    ///
    /// For example, a part of the name is too long for the file system, or the name is `a/b` and `a` is
    /// already an object.
    #[error("the bucket cannot store an object {name}: {reason}")]
    BadName {
        /// The name of the object.
        name: String,
        /// Reason why the name cannot be used.
        reason: String,
    },
    /// The content of the object is not the content that was written, or the device cannot read it. Only writing
    /// the object again can heal it.
    #[error("the object {0} is damaged")]
    Damaged(String),
    /// The bucket is unreachable, failed, or did not respond in time. The same call may succeed later.
    #[error("the bucket is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl BucketError {
    /// Returns true if the operation failed because the user of the service lacks a permission.
    ///
    /// The same call fails again until somebody changes the permissions.
    pub fn is_permission_denied(&self) -> bool {
        let Self::Unavailable(source) = self else { return false };
        source
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// A function that judges the content of an object that has no checksum. It returns false if the content is
/// damaged.
pub type LooksIntact = fn(&[u8]) -> bool;

/// A store of objects. Each object is written only once, unless it is damaged.
#[async_trait]
pub trait Bucket: Send + Sync + 'static {
    /// Returns the name of the bucket, as `gs://` paths contain it.
    fn name(&self) -> &str;

    /// Creates the object `object_name` with the content `data`, unless an object of this name exists.
    ///
    /// When this method returns `Ok`, the object is durable, even if it existed before. A concurrent reader
    /// sees the whole object or no object. A bucket may ignore `content_type`.
    ///
    /// # Errors
    /// Returns [`BucketError::BadName`] if the bucket cannot store an object of this name, and
    /// [`BucketError::Unavailable`] if the bucket fails or does not respond.
    async fn create(
        &self,
        object_name: &ObjectName,
        data: Bytes,
        content_type: &str,
    ) -> Result<Created, BucketError>;

    /// Creates the object `object_name` as [`Self::create`] does, or replaces the object of this name if that
    /// object is damaged.
    ///
    /// An object is damaged if [`Self::read`] would fail with [`BucketError::Damaged`]. An object that was
    /// stored without a checksum is damaged if `looks_intact` returns false for its content. A concurrent
    /// reader sees the damaged object or the whole new object. Of several concurrent writers, one replaces the
    /// object.
    ///
    /// The default implementation is [`Self::create`]. It is meant for a bucket that keeps checksums itself and
    /// never replaces an object.
    ///
    /// # Errors
    /// Returns the errors of [`Self::create`].
    async fn replace_if_broken(
        &self,
        object_name: &ObjectName,
        data: Bytes,
        content_type: &str,
        looks_intact: LooksIntact,
    ) -> Result<Created, BucketError> {
        let _ = looks_intact;
        self.create(object_name, data, content_type).await
    }

    /// Returns true if [`Self::replace_if_broken`] replaces damaged objects.
    ///
    /// If it returns false, a damaged object remains until the operator deletes it.
    fn replaces_broken_objects(&self) -> bool {
        false
    }

    /// Reads an object of at most `limit` bytes.
    ///
    /// # Errors
    /// Returns [`BucketError::NotFound`] if the object does not exist or the bucket cannot store an object of
    /// this name, [`BucketError::TooLarge`] if the object has more than `limit` bytes,
    /// [`BucketError::Damaged`] if the content has changed since it was written or the device cannot read it, and
    /// [`BucketError::Unavailable`] if the bucket fails or does not respond.
    async fn read(&self, object_name: &ObjectName, limit: usize) -> Result<Object, BucketError>;

    /// Returns true if the object exists.
    ///
    /// # Errors
    /// Returns [`BucketError::Unavailable`] if the bucket fails or does not respond.
    async fn exists(&self, object_name: &ObjectName) -> Result<bool, BucketError>;

    /// Checks that objects can be written at present. The default is `Ok`.
    ///
    /// # Errors
    /// Returns [`BucketError::Unavailable`] if an object could not be written.
    async fn check_health(&self) -> Result<(), BucketError> {
        Ok(())
    }
}

/// A bucket that can list its objects.
#[async_trait]
pub trait BucketListing: Bucket {
    /// Starts listing all objects.
    ///
    /// # Errors
    /// Returns [`BucketError::Unavailable`] if the bucket fails or does not respond.
    async fn list(&self) -> Result<Box<dyn ObjectListing>, BucketError>;
}

/// A listing of a bucket's objects in progress, in no particular order.
///
/// Every object that exists during the whole listing is listed exactly once. An object that is created or deleted
/// meanwhile may be missing or listed.
#[async_trait]
pub trait ObjectListing: Send {
    /// Returns the names of the next objects, at most `limit`, which must not be 0. An empty page means that every
    /// object has been listed.
    ///
    /// The memory and the time needed grow with `limit`, and not with the number of objects. [`DiskBucket`] leaves
    /// out folders and files that it may not read (`EACCES`) and folders that the device cannot read (`EIO`), and
    /// logs the first one of each listing.
    ///
    /// # Errors
    /// Returns [`BucketError::Unavailable`] if the bucket fails or does not respond. The listing cannot be continued
    /// then.
    async fn next_page(&mut self, limit: usize) -> Result<Vec<ObjectName>, BucketError>;
}

/// A bucket that the parts of a process share.
pub type SharedBucket = Arc<dyn Bucket>;
