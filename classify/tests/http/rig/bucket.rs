//! [`TestBucket`] is a bucket in memory that can fail.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use platform::bucket::{Bucket, BucketError, Created, InMemoryBucket, LooksIntact, Object, ObjectName};

/// A bucket in memory that can be unavailable or full.
#[derive(Default)]
pub(crate) struct TestBucket {
    objects: InMemoryBucket,
    /// True if every operation fails.
    down: AtomicBool,
    /// True if creating an object fails.
    full: AtomicBool,
    /// Number of objects that the service has read.
    read_count: AtomicUsize,
}

impl TestBucket {
    /// Creates a bucket that numbers the versions of its objects, as Cloud Storage does.
    pub(crate) fn with_generations() -> Self {
        Self { objects: InMemoryBucket::with_generations(), ..Self::default() }
    }

    /// Replaces an object with a new version and returns the generation of the new version.
    pub(crate) fn replace(&self, name: &str, data: impl Into<Bytes>) -> i64 {
        self.objects.replace(&ObjectName::new(name).unwrap(), data.into())
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.objects.names()
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    /// Returns the number of objects that the service has read.
    pub(crate) fn read_count(&self) -> usize {
        self.read_count.load(Ordering::SeqCst)
    }

    pub(crate) fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
    }

    /// Changes the content of an object without changing its checksum.
    pub(crate) fn damage(&self, name: &str) {
        self.objects.damage(&ObjectName::new(name).unwrap(), Bytes::new());
    }

    /// Returns the content of an object, also while the bucket is down.
    pub(super) async fn content(&self, name: &str) -> Option<Bytes> {
        let object = self.objects.read(&ObjectName::new(name).unwrap(), 1 << 20).await.ok()?;
        Some(object.data)
    }

    fn fail_if_down(&self) -> Result<(), BucketError> {
        fail_if(&self.down, "the bucket is switched off")
    }

    fn fail_if_not_writable(&self, object: &ObjectName) -> Result<(), BucketError> {
        self.fail_if_down()?;
        fail_if(&self.full, "the bucket is full")?;
        // As in a file system, each part of a name has at most 255 bytes.
        if object.as_str().split('/').any(|part| part.len() > 255) {
            let (name, reason) = (object.to_string(), "a part is too long".to_owned());
            return Err(BucketError::BadName { name, reason });
        }
        Ok(())
    }
}

fn fail_if(flag: &AtomicBool, reason: &str) -> Result<(), BucketError> {
    if flag.load(Ordering::SeqCst) { Err(BucketError::Unavailable(reason.into())) } else { Ok(()) }
}

#[async_trait]
impl Bucket for TestBucket {
    fn name(&self) -> &str {
        self.objects.name()
    }

    async fn create(
        &self,
        object: &ObjectName,
        data: Bytes,
        content_type: &str,
    ) -> Result<Created, BucketError> {
        self.fail_if_not_writable(object)?;
        self.objects.create(object, data, content_type).await
    }

    async fn replace_if_broken(
        &self,
        object: &ObjectName,
        data: Bytes,
        content_type: &str,
        looks_intact: LooksIntact,
    ) -> Result<Created, BucketError> {
        self.fail_if_not_writable(object)?;
        self.objects.replace_if_broken(object, data, content_type, looks_intact).await
    }

    fn replaces_broken_objects(&self) -> bool {
        self.objects.replaces_broken_objects()
    }

    async fn read(&self, object: &ObjectName, limit: usize) -> Result<Object, BucketError> {
        self.fail_if_down()?;
        self.read_count.fetch_add(1, Ordering::SeqCst);
        self.objects.read(object, limit).await
    }

    async fn exists(&self, object: &ObjectName) -> Result<bool, BucketError> {
        self.fail_if_down()?;
        self.objects.exists(object).await
    }
}
