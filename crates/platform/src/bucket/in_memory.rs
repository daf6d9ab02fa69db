//! [`InMemoryBucket`] takes the place of a real bucket in tests.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Bucket, BucketError, BucketListing, Created, LooksIntact, Object, ObjectListing, ObjectName};

/// A bucket in memory, for tests (feature `testing`). [`Self::fail_next`] makes calls fail.
#[derive(Debug, Default)]
pub struct InMemoryBucket {
    state: Arc<Mutex<State>>,
    /// True if [`Bucket::read`] returns the generation of the object.
    has_generations: bool,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<ObjectName, StoredObject>,
    /// Number of further calls that must fail.
    failures_left: usize,
}

impl State {
    /// Writes an object if there is none of this name, or if `may_replace` returns true for it.
    fn write_if(
        &mut self,
        object_name: &ObjectName,
        data: Bytes,
        may_replace: impl FnOnce(&StoredObject) -> bool,
    ) -> Created {
        let (created, generation) = match self.objects.get(object_name) {
            None => (Created::New, 1),
            Some(object) if may_replace(object) => (Created::Replaced, object.generation + 1),
            Some(_) => return Created::AlreadyThere,
        };
        let object = StoredObject { data, generation, integrity: Integrity::Intact };
        self.objects.insert(object_name.clone(), object);
        created
    }
}

#[derive(Debug)]
struct StoredObject {
    data: Bytes,
    generation: i64,
    integrity: Integrity,
}

/// Result of reading an object and comparing its content with its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Integrity {
    Intact,
    Damaged,
    /// There is no checksum.
    Unknown,
    /// The service may not read the object.
    Forbidden,
}

#[derive(Debug, thiserror::Error)]
#[error("a test injected this failure")]
struct InjectedFailure;

impl InMemoryBucket {
    /// Creates a bucket that numbers the versions of each object, as Cloud Storage does. The versions of an
    /// object have the generations 1, 2 and so on.
    pub fn with_generations() -> Self {
        Self { has_generations: true, ..Self::default() }
    }

    /// Writes an object without a checksum, even if an object of this name exists. Returns the generation of
    /// the new version.
    ///
    /// Tests use this method to simulate another program, because the services replace only damaged objects.
    pub fn replace(&self, object_name: &ObjectName, data: Bytes) -> i64 {
        self.write(object_name, data, Integrity::Unknown)
    }

    /// Changes the content of an object to `data` and keeps the checksum of its earlier content. Reading the
    /// object then fails with [`BucketError::Damaged`].
    pub fn damage(&self, object_name: &ObjectName, data: Bytes) {
        self.write(object_name, data, Integrity::Damaged);
    }

    /// Writes an object that the service may not read, even if an object of this name exists.
    pub fn write_forbidden(&self, object_name: &ObjectName, data: Bytes) {
        self.write(object_name, data, Integrity::Forbidden);
    }

    fn write(&self, object_name: &ObjectName, data: Bytes, integrity: Integrity) -> i64 {
        let mut state = self.lock_state();
        let generation = state.objects.get(object_name).map_or(1, |object| object.generation + 1);
        state.objects.insert(object_name.clone(), StoredObject { data, generation, integrity });
        generation
    }

    /// Makes the next `call_count` calls of methods of the bucket or of its listings fail with
    /// [`BucketError::Unavailable`].
    pub fn fail_next(&self, call_count: usize) {
        self.lock_state().failures_left = call_count;
    }

    /// Returns the names of all objects, in alphabetical order.
    pub fn names(&self) -> Vec<String> {
        self.lock_state().objects.keys().map(ObjectName::to_string).collect()
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Locks the state, unless [`Self::fail_next`] makes this call fail.
    fn lock_state_or_fail(&self) -> Result<MutexGuard<'_, State>, BucketError> {
        lock_or_fail(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks `state`, unless [`InMemoryBucket::fail_next`] makes this call fail.
fn lock_or_fail(state: &Mutex<State>) -> Result<MutexGuard<'_, State>, BucketError> {
    let mut state = lock(state);
    if state.failures_left > 0 {
        state.failures_left -= 1;
        return Err(BucketError::Unavailable(InjectedFailure.into()));
    }
    Ok(state)
}

#[async_trait]
impl Bucket for InMemoryBucket {
    fn name(&self) -> &str {
        super::LOCAL_BUCKET_NAME
    }

    async fn create(
        &self,
        object_name: &ObjectName,
        data: Bytes,
        _content_type: &str,
    ) -> Result<Created, BucketError> {
        let mut state = self.lock_state_or_fail()?;
        Ok(state.write_if(object_name, data, |_| false))
    }

    async fn replace_if_broken(
        &self,
        object_name: &ObjectName,
        data: Bytes,
        _content_type: &str,
        looks_intact: LooksIntact,
    ) -> Result<Created, BucketError> {
        let is_broken = |object: &StoredObject| match object.integrity {
            Integrity::Intact | Integrity::Forbidden => false,
            Integrity::Damaged => true,
            Integrity::Unknown => !looks_intact(&object.data),
        };
        let replaces_objects = self.replaces_broken_objects();
        let mut state = self.lock_state_or_fail()?;
        Ok(state.write_if(object_name, data, |object| replaces_objects && is_broken(object)))
    }

    fn replaces_broken_objects(&self) -> bool {
        // A bucket with generations behaves like Cloud Storage.
        !self.has_generations
    }

    async fn read(&self, object_name: &ObjectName, limit: usize) -> Result<Object, BucketError> {
        match self.lock_state_or_fail()?.objects.get(object_name) {
            None => Err(BucketError::NotFound(object_name.to_string())),
            Some(StoredObject { integrity: Integrity::Damaged, .. }) => {
                Err(BucketError::Damaged(object_name.to_string()))
            }
            Some(StoredObject { integrity: Integrity::Forbidden, .. }) => {
                Err(BucketError::Unavailable(io::Error::from(io::ErrorKind::PermissionDenied).into()))
            }
            Some(StoredObject { data, .. }) if data.len() > limit => {
                Err(BucketError::TooLarge { name: object_name.to_string(), limit })
            }
            Some(StoredObject { data, generation, .. }) => {
                Ok(Object { data: data.clone(), generation: self.has_generations.then_some(*generation) })
            }
        }
    }

    async fn exists(&self, object_name: &ObjectName) -> Result<bool, BucketError> {
        Ok(self.lock_state_or_fail()?.objects.contains_key(object_name))
    }
}

#[async_trait]
impl BucketListing for InMemoryBucket {
    async fn list(&self) -> Result<Box<dyn ObjectListing>, BucketError> {
        let names: Vec<ObjectName> = self.lock_state_or_fail()?.objects.keys().cloned().collect();
        Ok(Box::new(InMemoryListing { state: Arc::clone(&self.state), names: names.into_iter() }))
    }
}

/// A listing of the objects that existed when it was started.
struct InMemoryListing {
    state: Arc<Mutex<State>>,
    names: std::vec::IntoIter<ObjectName>,
}

#[async_trait]
impl ObjectListing for InMemoryListing {
    async fn next_page(&mut self, limit: usize) -> Result<Vec<ObjectName>, BucketError> {
        drop(lock_or_fail(&self.state)?);
        Ok(self.names.by_ref().take(limit).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::conformance;

    #[tokio::test]
    async fn bucket_passes_the_conformance_suite() {
        conformance::check(&InMemoryBucket::default()).await;
        conformance::check(&InMemoryBucket::with_generations()).await;
    }

    #[tokio::test]
    async fn listing_passes_the_conformance_suite() {
        conformance::check_listing(&InMemoryBucket::default()).await;
    }

    #[tokio::test]
    async fn read_returns_the_generation_if_the_bucket_has_generations() {
        let bucket = InMemoryBucket::with_generations();
        let name = ObjectName::new("a").unwrap();
        assert_eq!(bucket.create(&name, Bytes::new(), "text/plain").await.unwrap(), Created::New);
        assert_eq!(bucket.read(&name, 9).await.unwrap().generation, Some(1));
        assert_eq!(bucket.replace(&name, Bytes::from_static(b"new")), 2);
        let expected = Object { data: Bytes::from_static(b"new"), generation: Some(2) };
        assert_eq!(bucket.read(&name, 9).await.unwrap(), expected);
    }

    #[tokio::test]
    async fn damaged_object_is_replaced_and_then_read() {
        let bucket = InMemoryBucket::default();
        conformance::check_damage(&bucket, &|name, data| bucket.damage(name, data), &|name, data| {
            bucket.replace(name, data);
        })
        .await;
    }

    #[tokio::test]
    async fn fail_next_makes_exactly_that_many_calls_fail() {
        let bucket = InMemoryBucket::default();
        let name = ObjectName::new("a").unwrap();
        bucket.fail_next(2);
        let created = bucket.create(&name, Bytes::new(), "text/plain").await;
        assert!(matches!(created, Err(BucketError::Unavailable(_))));
        assert!(matches!(bucket.exists(&name).await, Err(BucketError::Unavailable(_))));
        assert!(!bucket.exists(&name).await.unwrap());
        assert!(bucket.names().is_empty());
    }
}
