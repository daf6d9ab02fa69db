//! A bucket in memory, for tests.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Bucket, BucketError, Created, ObjectName};

/// A bucket in memory, for tests. It can be told to fail.
#[derive(Debug, Default)]
pub struct MemoryBucket {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Bytes>,
    failures: usize,
}

#[derive(Debug, thiserror::Error)]
#[error("a test asked for this failure")]
struct AskedFor;

impl MemoryBucket {
    /// Makes the next `calls` calls fail with [`BucketError::Unavailable`], whatever they are.
    pub fn fail_next(&self, calls: usize) {
        self.state().failures = calls;
    }

    /// The names of all objects, in order.
    pub fn names(&self) -> Vec<String> {
        self.state().objects.keys().cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, or the failure that was asked for.
    fn reach(&self) -> Result<MutexGuard<'_, State>, BucketError> {
        let mut state = self.state();
        if state.failures > 0 {
            state.failures -= 1;
            return Err(BucketError::Unavailable(AskedFor.into()));
        }
        Ok(state)
    }
}

#[async_trait]
impl Bucket for MemoryBucket {
    fn name(&self) -> &str {
        super::LOCAL_BUCKET
    }

    async fn create(
        &self,
        object: &ObjectName,
        data: Bytes,
        _content_type: &str,
    ) -> Result<Created, BucketError> {
        let mut state = self.reach()?;
        if state.objects.contains_key(object.as_str()) {
            return Ok(Created::AlreadyThere);
        }
        state.objects.insert(object.to_string(), data);
        Ok(Created::New)
    }

    async fn read(&self, object: &ObjectName, limit: usize) -> Result<Bytes, BucketError> {
        match self.reach()?.objects.get(object.as_str()) {
            None => Err(BucketError::NotFound(object.to_string())),
            Some(data) if data.len() > limit => {
                Err(BucketError::TooLarge { name: object.to_string(), limit })
            }
            Some(data) => Ok(data.clone()),
        }
    }

    async fn exists(&self, object: &ObjectName) -> Result<bool, BucketError> {
        Ok(self.reach()?.objects.contains_key(object.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::conformance;

    #[tokio::test]
    async fn conforms() {
        conformance::check(&MemoryBucket::default()).await;
    }

    #[tokio::test]
    async fn fails_as_often_as_asked() {
        let bucket = MemoryBucket::default();
        let object = ObjectName::new("a").unwrap();
        bucket.fail_next(2);
        let created = bucket.create(&object, Bytes::new(), "text/plain").await;
        assert!(matches!(created, Err(BucketError::Unavailable(_))));
        assert!(matches!(bucket.exists(&object).await, Err(BucketError::Unavailable(_))));
        assert!(!bucket.exists(&object).await.unwrap());
        assert!(bucket.names().is_empty());
    }
}
