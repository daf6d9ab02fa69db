//! Errors of the service, independent of HTTP.

use std::error::Error;

use platform::{bucket::BucketError, cpu::CpuError, memory_budget::MemoryBudgetError, topic::TopicError};

use crate::image::ImageError;

/// The reason why a call of [`UploadService`](crate::upload_service::UploadService) failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServiceError {
    /// The upload has no bytes.
    #[error("the upload is empty")]
    EmptyUpload,
    /// The upload cannot be converted to an image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// No CPU permit was available, or the job panicked.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// The memory for processing the upload could not be reserved.
    #[error(transparent)]
    Memory(#[from] MemoryBudgetError),
    /// A call to the bucket failed.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The stored prediction of this name is damaged, and the bucket cannot replace it.
    #[error("the stored prediction {0} is damaged; delete the object and upload the image again")]
    DamagedPrediction(String),
    /// The topic permits no further image, or the image is stored but could not be announced.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// An error that only a bug can cause.
    #[error(transparent)]
    Internal(Box<dyn Error + Send + Sync>),
}

impl ServiceError {
    /// Wraps an error that only a bug can cause.
    pub(crate) fn internal(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Internal(source.into())
    }

    /// Returns the stable name of the error, which appears in responses and metrics.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::EmptyUpload => "empty_body",
            Self::Image(error) => error.kind(),
            Self::Cpu(CpuError::Overloaded)
            | Self::Memory(MemoryBudgetError::Overloaded | MemoryBudgetError::TimedOut)
            | Self::Topic(TopicError::Full { .. }) => "overloaded",
            Self::Bucket(BucketError::Unavailable(_)) => "bucket_unavailable",
            Self::DamagedPrediction(_) => "damaged_prediction",
            Self::Topic(TopicError::Unavailable(_)) => "topic_unavailable",
            Self::Cpu(CpuError::Panicked)
            | Self::Memory(MemoryBudgetError::ExceedsBudget)
            | Self::Bucket(_)
            | Self::Internal(_) => "internal",
        }
    }
}
