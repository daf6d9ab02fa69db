//! Where images and predictions are kept.
//!
//! Every write is create-only: an object never changes once it is there, so doing anything twice is
//! harmless. One conformance suite (`conformance`) holds for every implementation.

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod disk;
#[cfg(feature = "cloud")]
mod gcs;
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
pub use in_memory::InMemoryBucket;
#[cfg(feature = "cloud")]
pub use location::BucketLocation;
pub use name::{InvalidObjectName, ObjectName};

/// Bucket name in the `gs://` paths of buckets that are not Cloud Storage.
pub const LOCAL_BUCKET: &str = "local";

/// What a create-only write found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// The object is new.
    New,
    /// An object of that name was there already and was left as it is.
    AlreadyThere,
}

/// What a read found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The content.
    pub data: Bytes,
    /// Which version of the object this is, where the bucket numbers them. Nothing here ever writes a
    /// second one, but others with access to a bucket of Cloud Storage may.
    pub generation: Option<i64>,
}

/// Why a bucket did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// There is no such object. Permanent.
    #[error("no such object: {0}")]
    NotFound(String),
    /// The object is larger than the caller wants to hold. Permanent.
    #[error("object {name} is larger than {limit} bytes")]
    TooLarge {
        /// The object.
        name: String,
        /// The caller's limit in bytes.
        limit: usize,
    },
    /// The bucket cannot hold an object of this name: a part is too long for the file system, or an
    /// object stands where a folder is needed. Permanent.
    #[error("the bucket cannot hold {name}: {reason}")]
    BadName {
        /// The object.
        name: String,
        /// What is wrong with its name.
        reason: String,
    },
    /// The bucket could not be asked or did not answer in time; the same call may succeed later.
    #[error("bucket is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A place for objects, each written once.
#[async_trait]
pub trait Bucket: Send + Sync + 'static {
    /// Name for `gs://` paths.
    fn name(&self) -> &str;

    /// Writes `data` as `object` unless an object of that name exists. When this returns, the object
    /// is durable and visible whole: nobody ever reads a part of it. That holds for
    /// [`Created::AlreadyThere`] too.
    ///
    /// # Errors
    /// [`BucketError::BadName`], [`BucketError::Unavailable`].
    async fn create(
        &self,
        object: &ObjectName,
        data: Bytes,
        content_type: &str,
    ) -> Result<Created, BucketError>;

    /// Reads a whole object of at most `limit` bytes of data.
    ///
    /// # Errors
    /// [`BucketError::NotFound`] (also for names that the bucket cannot hold),
    /// [`BucketError::TooLarge`], [`BucketError::Unavailable`].
    async fn read(&self, object: &ObjectName, limit: usize) -> Result<Object, BucketError>;

    /// Whether the object is there.
    ///
    /// # Errors
    /// [`BucketError::Unavailable`].
    async fn exists(&self, object: &ObjectName) -> Result<bool, BucketError>;
}

/// A bucket that several parts of a process share.
pub type SharedBucket = Arc<dyn Bucket>;
