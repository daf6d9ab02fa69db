//! A [`Bucket`] stores images and predictions.
//!
//! No operation changes or deletes an object, so every operation can safely be repeated. The conformance
//! suite in `conformance` tests every implementation.

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

use std::sync::Arc;

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

/// Result of [`Bucket::create`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// The object was written.
    New,
    /// An object of this name already existed and was not changed.
    AlreadyThere,
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
    /// The content of the object is not the content that was written. Only writing the object again can heal
    /// it.
    #[error("the object {0} is damaged")]
    Damaged(String),
    /// The bucket is unreachable, failed, or did not respond in time. The same call may succeed later.
    #[error("the bucket is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A store of objects. Each object is written only once.
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

    /// Reads an object of at most `limit` bytes.
    ///
    /// # Errors
    /// Returns [`BucketError::NotFound`] if the object does not exist or the bucket cannot store an object of
    /// this name, [`BucketError::TooLarge`] if the object has more than `limit` bytes,
    /// [`BucketError::Damaged`] if the content has changed since it was written, and
    /// [`BucketError::Unavailable`] if the bucket fails or does not respond.
    async fn read(&self, object_name: &ObjectName, limit: usize) -> Result<Object, BucketError>;

    /// Returns true if the object exists.
    ///
    /// # Errors
    /// Returns [`BucketError::Unavailable`] if the bucket fails or does not respond.
    async fn exists(&self, object_name: &ObjectName) -> Result<bool, BucketError>;
}

/// A bucket that can list its objects.
#[async_trait]
pub trait BucketListing: Bucket {
    /// Returns the names of the first `limit` objects whose names are greater than `after`, in ascending byte
    /// order. Fewer names are returned only at the end of the bucket.
    ///
    /// To list a bucket page by page, pass the last name of each page as `after` for the next page. An object
    /// that is created or deleted between two pages may be missing or listed, and no other object is affected.
    ///
    /// The memory needed grows with `limit`, and not with the number of objects. [`DiskBucket`] reads every
    /// entry of the bucket's folder for each page, because a directory has no order. So a larger `limit` makes
    /// listing a whole bucket faster.
    ///
    /// # Errors
    /// Returns [`BucketError::Unavailable`] if the bucket fails or does not respond.
    async fn list(&self, after: Option<&ObjectName>, limit: usize) -> Result<Vec<ObjectName>, BucketError>;
}

/// A bucket that the parts of a process share.
pub type SharedBucket = Arc<dyn Bucket>;
