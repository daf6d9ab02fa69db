//! The reasons why an image is not classified. `routes::problem` has the response to each reason.

use contract::GcsPath;
use platform::{
    bucket::BucketError, cpu::CpuError, memory_budget::MemoryBudgetError, text::excerpt, topic::TopicError,
};

use crate::{
    engine::EngineError, model::labels::UnusableOutputs, pixels::ImageError, queue_permits::QueueFull,
};

/// Reason why an image is not classified.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClassifyError {
    #[error("gcs_path is not gs://BUCKET/OBJECT")]
    BadPath,
    #[error("only objects of gs://{0} are classified here")]
    WrongBucket(String),
    #[error("no such object: {}", excerpt(.0))]
    NoSuchObject(GcsPath),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error("the image is larger than {limit} bytes")]
    TooManyBytes { limit: usize },
    #[error(transparent)]
    QueueFull(#[from] QueueFull),
    #[error(transparent)]
    Memory(#[from] MemoryBudgetError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("the network's outputs are unusable: {0}")]
    UnusableOutputs(#[from] UnusableOutputs),
    #[error("the stored image is damaged")]
    DamagedImage(#[source] BucketError),
    #[error("the bucket failed")]
    Bucket(#[source] BucketError),
    #[error("the results topic failed")]
    Topic(#[source] TopicError),
    #[error("the service is starting")]
    Starting,
    #[error("the service is draining")]
    Draining,
}

impl From<CpuError> for ClassifyError {
    fn from(error: CpuError) -> Self {
        match error {
            CpuError::Overloaded => Self::QueueFull(QueueFull),
            // The error is permanent, because the same bytes make the decoder panic again.
            CpuError::Panicked => Self::Image(ImageError::NotAnImage(error.into())),
        }
    }
}

impl From<BucketError> for ClassifyError {
    fn from(error: BucketError) -> Self {
        match error {
            // The error is permanent, because the bucket never accepts the name.
            BucketError::BadName { .. } => Self::BadPath,
            // The error is not permanent, because uploading the image again replaces the damaged object.
            BucketError::Damaged(_) => Self::DamagedImage(error),
            other => Self::Bucket(other),
        }
    }
}
