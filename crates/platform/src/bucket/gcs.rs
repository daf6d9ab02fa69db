//! [`GcsBucket`] is a bucket in Cloud Storage.

use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use google_cloud_gax::{error::Error, retry_policy::RetryPolicyExt};
use google_cloud_storage::{
    client::Storage, model_ext::ReadRange, read_object::ReadObjectResponse, retry_policy::RetryableErrors,
};

use super::{Bucket, BucketError, Created, Object, ObjectName};
use crate::cloud::{CloudArgs, EmulatorAddress, TimedOut, retry_backoff};

/// Name of an object that does not exist. The error of reading this object shows whether the bucket exists.
/// The read needs only the permission to read objects. A request for the bucket itself would need another
/// one.
const PROBE_OBJECT_NAME: &str = ".is-the-bucket-there";

/// A bucket in Cloud Storage or in an emulator of Cloud Storage.
///
/// Every write request contains the CRC32C of the data, which the server checks, and the precondition that
/// the object does not exist. A call that fails is retried until the timeout, unless the error is permanent,
/// such as a missing permission or bucket.
#[derive(Debug, Clone)]
pub struct GcsBucket {
    storage: Storage,
    name: String,
    /// Name of the bucket in requests, `projects/_/buckets/NAME`.
    resource_name: String,
    timeout: Duration,
}

impl GcsBucket {
    /// Opens the bucket `name`, and checks that it exists.
    ///
    /// If Cloud Storage is unreachable, this function logs a warning and returns the bucket, because Cloud
    /// Storage may be reachable again when the first request arrives.
    ///
    /// # Errors
    /// Returns [`BucketError::Unavailable`] if there are no credentials, the bucket does not exist, or the
    /// credentials do not allow reading its objects.
    pub async fn open(name: &str, cloud: &CloudArgs) -> Result<Self, BucketError> {
        let mut builder = Storage::builder()
            .with_retry_policy(RetryableErrors.with_time_limit(cloud.cloud_timeout))
            .with_backoff_policy(retry_backoff())
            // Makes every write a single request, because only then does the server check the checksum before
            // the object becomes visible.
            .with_resumable_upload_threshold(usize::MAX);
        if let Some(emulator) = &cloud.storage_emulator_host {
            builder =
                builder.with_endpoint(emulator.as_str()).with_credentials(EmulatorAddress::credentials());
        }
        let storage = builder.build().await.map_err(|error| BucketError::Unavailable(error.into()))?;
        let bucket = Self {
            storage,
            name: name.to_owned(),
            resource_name: format!("projects/_/buckets/{name}"),
            timeout: cloud.cloud_timeout,
        };
        bucket.probe().await?;
        Ok(bucket)
    }

    /// Checks that the bucket exists and that the credentials allow reading its objects.
    async fn probe(&self) -> Result<(), BucketError> {
        let read = self.storage.read_object(&self.resource_name, PROBE_OBJECT_NAME).send();
        let error = match self.with_timeout(read).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => error,
            Err(timed_out) => {
                self.warn_unreachable(&timed_out);
                return Ok(());
            }
        };
        let unusable = |reason: String| Err(BucketError::Unavailable(reason.into()));
        match error.http_status_code() {
            Some(404) if is_missing_bucket(&error) => {
                unusable(format!("there is no bucket gs://{}", self.name))
            }
            // Only the object is missing, so the bucket exists.
            Some(404) => Ok(()),
            Some(status @ (401 | 403)) => unusable(format!(
                "the credentials do not allow reading objects of gs://{} (status {status}); they need the \
                 roles Storage Object Viewer and Storage Object Creator on this bucket",
                self.name
            )),
            _ if error.is_authentication() => Err(unavailable(error)),
            _ => {
                self.warn_unreachable(&error);
                Ok(())
            }
        }
    }

    fn warn_unreachable(&self, error: &dyn std::error::Error) {
        tracing::warn!(bucket = self.name, %error, "the bucket is unreachable and was not checked");
    }

    /// Waits for the result of `call`, but no longer than the timeout.
    async fn with_timeout<T>(&self, call: impl Future<Output = T>) -> Result<T, TimedOut> {
        tokio::time::timeout(self.timeout, call).await.map_err(|_| TimedOut(self.timeout))
    }

    async fn read_without_timeout(
        &self,
        object_name: &ObjectName,
        limit: usize,
    ) -> Result<Object, BucketError> {
        let too_large = || BucketError::TooLarge { name: object_name.to_string(), limit };
        let request = self.storage.read_object(&self.resource_name, object_name.as_str());
        let mut response = request.send().await.map_err(|error| read_error(object_name, error))?;
        let metadata = response.object();
        if usize::try_from(metadata.size).is_ok_and(|size| size > limit) {
            return Err(too_large());
        }
        let data = read_body(&mut response, limit).await.map_err(unavailable)?.ok_or_else(too_large)?;
        Ok(Object { data, generation: (metadata.generation > 0).then_some(metadata.generation) })
    }
}

#[async_trait]
impl Bucket for GcsBucket {
    fn name(&self) -> &str {
        &self.name
    }

    async fn create(
        &self,
        object_name: &ObjectName,
        data: Bytes,
        content_type: &str,
    ) -> Result<Created, BucketError> {
        let checksum = crc32c::crc32c(&data);
        let write = self
            .storage
            .write_object(&self.resource_name, object_name.as_str(), data)
            .with_known_crc32c(checksum)
            .set_if_generation_match(0_i64)
            .set_content_type(content_type)
            .send_unbuffered();
        match self.with_timeout(write).await {
            Ok(Ok(_)) => Ok(Created::New),
            // The precondition failed, so the object exists. If the response to an earlier attempt of this
            // call was lost, that attempt may have written the object. The caller then learns that the object
            // existed before, which is harmless, because the content is the same.
            Ok(Err(error)) if error.http_status_code() == Some(412) => Ok(Created::AlreadyThere),
            Ok(Err(error)) => Err(unavailable(error)),
            Err(timed_out) => Err(BucketError::Unavailable(timed_out.into())),
        }
    }

    async fn read(&self, object_name: &ObjectName, limit: usize) -> Result<Object, BucketError> {
        match self.with_timeout(self.read_without_timeout(object_name, limit)).await {
            Ok(result) => result,
            Err(timed_out) => Err(BucketError::Unavailable(timed_out.into())),
        }
    }

    async fn exists(&self, object_name: &ObjectName) -> Result<bool, BucketError> {
        let read = self
            .storage
            .read_object(&self.resource_name, object_name.as_str())
            .set_read_range(ReadRange::head(1))
            .send();
        match self.with_timeout(read).await {
            Ok(Ok(_)) => Ok(true),
            Ok(Err(error)) => match error.http_status_code() {
                Some(404) if !is_missing_bucket(&error) => Ok(false),
                // The object is empty: it has no first byte, so the server cannot satisfy the range.
                Some(416) => Ok(true),
                _ => Err(unavailable(error)),
            },
            Err(timed_out) => Err(BucketError::Unavailable(timed_out.into())),
        }
    }
}

/// Reads the body of `response`. Returns `None` as soon as the body has more than `limit` bytes.
async fn read_body(response: &mut ReadObjectResponse, limit: usize) -> Result<Option<Bytes>, Error> {
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

fn read_error(object_name: &ObjectName, error: Error) -> BucketError {
    match error.http_status_code() {
        // `NotFound` would be a permanent error, but a missing bucket may be restored with its objects.
        Some(404) if is_missing_bucket(&error) => unavailable(error),
        Some(404) => BucketError::NotFound(object_name.to_string()),
        _ => unavailable(error),
    }
}

/// Returns true if `error`, which has status 404, means that the bucket is missing, and not only the object.
///
/// The errors of a missing bucket and of a missing object differ only in their text. The text for a bucket is
/// "The specified bucket does not exist."
fn is_missing_bucket(error: &Error) -> bool {
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
