//! [`InMemoryBucket`] takes the place of a real bucket in tests.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Bucket, BucketError, BucketListing, Created, Object, ObjectName};

/// A bucket in memory, for tests (feature `testing`). [`Self::fail_next`] makes calls fail.
#[derive(Debug, Default)]
pub struct InMemoryBucket {
    state: Mutex<State>,
    /// True if [`Bucket::read`] returns the generation of the object.
    has_generations: bool,
}

#[derive(Debug, Default)]
struct State {
    /// Content and generation of each object, by name.
    objects: BTreeMap<ObjectName, (Bytes, i64)>,
    /// Number of further calls that must fail.
    failures_left: usize,
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

    /// Writes an object, even if an object of this name exists. Returns the generation of the new version.
    ///
    /// Tests use this method to simulate another program, because the services never replace an object.
    pub fn replace(&self, object_name: &ObjectName, data: Bytes) -> i64 {
        let mut state = self.lock_state();
        let generation = state.objects.get(object_name).map_or(1, |(_, generation)| generation + 1);
        state.objects.insert(object_name.clone(), (data, generation));
        generation
    }

    /// Makes the next `call_count` calls of [`Bucket`] methods fail with [`BucketError::Unavailable`].
    pub fn fail_next(&self, call_count: usize) {
        self.lock_state().failures_left = call_count;
    }

    /// Returns the names of all objects, in alphabetical order.
    pub fn names(&self) -> Vec<String> {
        self.lock_state().objects.keys().map(ObjectName::to_string).collect()
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the state, unless [`Self::fail_next`] makes this call fail.
    fn lock_state_or_fail(&self) -> Result<MutexGuard<'_, State>, BucketError> {
        let mut state = self.lock_state();
        if state.failures_left > 0 {
            state.failures_left -= 1;
            return Err(BucketError::Unavailable(InjectedFailure.into()));
        }
        Ok(state)
    }
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
        if state.objects.contains_key(object_name) {
            return Ok(Created::AlreadyThere);
        }
        state.objects.insert(object_name.clone(), (data, 1));
        Ok(Created::New)
    }

    async fn read(&self, object_name: &ObjectName, limit: usize) -> Result<Object, BucketError> {
        match self.lock_state_or_fail()?.objects.get(object_name) {
            None => Err(BucketError::NotFound(object_name.to_string())),
            Some((data, _)) if data.len() > limit => {
                Err(BucketError::TooLarge { name: object_name.to_string(), limit })
            }
            Some((data, generation)) => {
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
    async fn list(&self, after: Option<&ObjectName>, limit: usize) -> Result<Vec<ObjectName>, BucketError> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let state = self.lock_state_or_fail()?;
        Ok(state.objects.range((after, Bound::Unbounded)).take(limit).map(|(name, _)| name.clone()).collect())
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
