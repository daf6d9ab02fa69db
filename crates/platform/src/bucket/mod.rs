//! Storage of images and predictions.
//!
//! Every write is create-only: an object never changes once it exists, so that repeating an operation is
//! harmless. One conformance suite (`conformance`) tests every implementation.

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

/// Bucket name in the `gs://` paths of a bucket that is not in Cloud Storage.
pub const LOCAL_BUCKET: &str = "local";

/// Result of a create-only write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// The object was written.
    New,
    /// An object of that name exists already and was left unchanged.
    AlreadyThere,
}

/// The content and the version of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The content.
    pub data: Bytes,
    /// Version of the object, if the bucket numbers versions. This crate never writes a second version, but
    /// others with access to a bucket of Cloud Storage may.
    pub generation: Option<i64>,
}

/// Reason why a bucket operation failed.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// The object does not exist. Permanent.
    #[error("there is no object {0}")]
    NotFound(String),
    /// The object is larger than the caller's limit. Permanent.
    #[error("the object {name} is larger than {limit} bytes")]
    TooLarge {
        /// The object.
        name: String,
        /// The caller's limit in bytes.
        limit: usize,
    },
    /// The bucket cannot store an object of this name: a part of it is too long for the file system, or is
    /// the name of an object and not of a folder. Permanent.
    #[error("the bucket cannot store an object {name}: {reason}")]
    BadName {
        /// The object.
        name: String,
        /// The rule that the name breaks.
        reason: String,
    },
    /// The bucket is unreachable, or did not respond in time. The same call may succeed later.
    #[error("the bucket is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Stores objects, each of which is written once.
#[async_trait]
pub trait Bucket: Send + Sync + 'static {
    /// Returns the bucket's name in `gs://` paths.
    fn name(&self) -> &str;

    /// Writes `data` as `object` unless an object of that name exists.
    ///
    /// When this returns, the object is durable, also for [`Created::AlreadyThere`]. A reader sees the whole
    /// object or none.
    ///
    /// # Errors
    /// [`BucketError::BadName`], [`BucketError::Unavailable`].
    async fn create(
        &self,
        object: &ObjectName,
        data: Bytes,
        content_type: &str,
    ) -> Result<Created, BucketError>;

    /// Reads an object of at most `limit` bytes.
    ///
    /// # Errors
    /// [`BucketError::NotFound`] (also for a name that the bucket cannot store),
    /// [`BucketError::TooLarge`], [`BucketError::Unavailable`].
    async fn read(&self, object: &ObjectName, limit: usize) -> Result<Object, BucketError>;

    /// Returns true if the object exists.
    ///
    /// # Errors
    /// [`BucketError::Unavailable`].
    async fn exists(&self, object: &ObjectName) -> Result<bool, BucketError>;
}

/// A bucket shared by the parts of a process.
pub type SharedBucket = Arc<dyn Bucket>;
