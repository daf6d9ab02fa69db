//! A bucket of Cloud Storage.

use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use google_cloud_gax::{error::Error, retry_policy::RetryPolicyExt};
use google_cloud_storage::{
    client::Storage, model_ext::ReadRange, read_object::ReadObjectResponse, retry_policy::RetryableErrors,
};

use super::{Bucket, BucketError, Created, Object, ObjectName};
use crate::cloud::{CloudArgs, Endpoint, TimedOut, backoff};

/// An object that nobody has: asking for it tells whether the bucket is there, with no other right
/// than the one to read objects.
const PROBE: &str = ".is-the-bucket-there";

/// A bucket of Cloud Storage, or of an emulator of it.
///
/// Writes carry their CRC32C, which the server checks, and the precondition that the object is not
/// there. Every call is given up after the time limit, further attempts included; what fails for good
/// (no right, no bucket) is not attempted again.
#[derive(Debug, Clone)]
pub struct GcsBucket {
    storage: Storage,
    name: String,
    /// `projects/_/buckets/NAME`, as the client wants it.
    resource: String,
    timeout: Duration,
}

impl GcsBucket {
    /// Opens the bucket `name`, and asks whether it is there. A Cloud Storage that cannot be reached
    /// just now is no error yet: the calls that follow will tell.
    ///
    /// # Errors
    /// [`BucketError::Unavailable`] when there are no credentials, the bucket does not exist, or its
    /// objects may not be read.
    pub async fn open(name: &str, cloud: &CloudArgs) -> Result<Self, BucketError> {
        let mut builder = Storage::builder()
            .with_retry_policy(RetryableErrors.with_time_limit(cloud.cloud_timeout))
            .with_backoff_policy(backoff())
            // In one request whatever the size: only then the server can check the checksum before
            // anybody sees the object.
            .with_resumable_upload_threshold(usize::MAX);
        if let Some(emulator) = &cloud.storage_emulator_host {
            builder = builder.with_endpoint(emulator.as_str()).with_credentials(Endpoint::credentials());
        }
        let storage = builder.build().await.map_err(|error| BucketError::Unavailable(error.into()))?;
        let bucket = Self {
            storage,
            name: name.to_owned(),
            resource: format!("projects/_/buckets/{name}"),
            timeout: cloud.cloud_timeout,
        };
        bucket.probe().await?;
        Ok(bucket)
    }

    async fn probe(&self) -> Result<(), BucketError> {
        let problem = match self.within(self.storage.read_object(&self.resource, PROBE).send()).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => error,
            Err(timed_out) => {
                tracing::warn!(bucket = self.name, error = %timed_out, "the bucket cannot be reached yet");
                return Ok(());
            }
        };
        let refused = |reason: String| Err(BucketError::Unavailable(reason.into()));
        match problem.http_status_code() {
            Some(404) if says_no_bucket(&problem) => {
                refused(format!("there is no bucket gs://{}", self.name))
            }
            Some(404) => Ok(()),
            Some(status @ (401 | 403)) => refused(format!(
                "the objects of gs://{} may not be read with these credentials (status {status}); they need \
                 the roles Storage Object Viewer and Storage Object Creator on it",
                self.name
            )),
            _ if problem.is_authentication() => Err(unavailable(problem)),
            _ => {
                tracing::warn!(bucket = self.name, error = %problem, "the bucket cannot be reached yet");
                Ok(())
            }
        }
    }

    /// Gives a call its time.
    async fn within<T>(&self, call: impl Future<Output = T>) -> Result<T, TimedOut> {
        tokio::time::timeout(self.timeout, call).await.map_err(|_| TimedOut(self.timeout))
    }

    async fn read_whole(&self, object: &ObjectName, limit: usize) -> Result<Object, BucketError> {
        let too_large = || BucketError::TooLarge { name: object.to_string(), limit };
        let request = self.storage.read_object(&self.resource, object.as_str());
        let mut response = request.send().await.map_err(|error| read_error(object, error))?;
        let about = response.object();
        if usize::try_from(about.size).is_ok_and(|size| size > limit) {
            return Err(too_large());
        }
        let data = collect(&mut response, limit).await.map_err(unavailable)?.ok_or_else(too_large)?;
        Ok(Object { data, generation: (about.generation > 0).then_some(about.generation) })
    }
}

#[async_trait]
impl Bucket for GcsBucket {
    fn name(&self) -> &str {
        &self.name
    }

    async fn create(
        &self,
        object: &ObjectName,
        data: Bytes,
        content_type: &str,
    ) -> Result<Created, BucketError> {
        let checksum = crc32c::crc32c(&data);
        let write = self
            .storage
            .write_object(&self.resource, object.as_str(), data)
            .with_known_crc32c(checksum)
            .set_if_generation_match(0_i64)
            .set_content_type(content_type)
            .send_unbuffered();
        match self.within(write).await {
            Ok(Ok(_)) => Ok(Created::New),
            // Also when an earlier attempt of this very call got through and its answer was lost. That
            // does no harm: the object is there, and nobody else's content can be (names are made of
            // content, or whoever was first counts).
            Ok(Err(error)) if error.http_status_code() == Some(412) => Ok(Created::AlreadyThere),
            Ok(Err(error)) => Err(unavailable(error)),
            Err(timed_out) => Err(BucketError::Unavailable(timed_out.into())),
        }
    }

    async fn read(&self, object: &ObjectName, limit: usize) -> Result<Object, BucketError> {
        match self.within(self.read_whole(object, limit)).await {
            Ok(result) => result,
            Err(timed_out) => Err(BucketError::Unavailable(timed_out.into())),
        }
    }

    async fn exists(&self, object: &ObjectName) -> Result<bool, BucketError> {
        let read = self
            .storage
            .read_object(&self.resource, object.as_str())
            .set_read_range(ReadRange::head(1))
            .send();
        match self.within(read).await {
            Ok(Ok(_)) => Ok(true),
            Ok(Err(error)) => match error.http_status_code() {
                Some(404) if !says_no_bucket(&error) => Ok(false),
                // An empty object has no first byte.
                Some(416) => Ok(true),
                _ => Err(unavailable(error)),
            },
            Err(timed_out) => Err(BucketError::Unavailable(timed_out.into())),
        }
    }
}

/// The body, or `None` as soon as it is longer than `limit`.
async fn collect(response: &mut ReadObjectResponse, limit: usize) -> Result<Option<Bytes>, Error> {
    let mut data = BytesMut::new();
    while let Some(chunk) = response.next().await {
        let chunk = chunk?;
        if chunk.len() > limit - data.len() {
            return Ok(None);
        }
        data.extend_from_slice(&chunk);
    }
    Ok(Some(data.freeze()))
}

fn read_error(object: &ObjectName, error: Error) -> BucketError {
    match error.http_status_code() {
        // A bucket that is gone may come back; that its objects are gone is not known.
        Some(404) if says_no_bucket(&error) => unavailable(error),
        Some(404) => BucketError::NotFound(object.to_string()),
        _ => unavailable(error),
    }
}

/// Whether a 404 is about the bucket. Cloud Storage has one status for both and tells them apart by
/// its text only: "The specified bucket does not exist."
fn says_no_bucket(error: &Error) -> bool {
    let in_status = error.status().is_some_and(|status| status.message.contains("bucket does not exist"));
    let in_body = || {
        let body = error.http_payload().map(|body| String::from_utf8_lossy(body).into_owned());
        body.is_some_and(|body| body.contains("bucket does not exist"))
    };
    in_status || in_body()
}

fn unavailable(error: Error) -> BucketError {
    BucketError::Unavailable(error.into())
}
