//! This crate defines the contract between the services preprocess and classify. It contains the JSON of
//! their messages, of `prediction.json` and of `embedding.json`, and the names of the objects in the bucket.
//!
//! A change may add members to the JSON. No change may alter the name, type or meaning of an existing member.

mod damage;
mod gcs_path;
mod image_id;
mod model;
mod prediction;
mod record_name;

use serde::{Deserialize, Serialize};

pub use damage::stored_image_looks_intact;
pub use gcs_path::{GcsPath, InvalidGcsPath};
pub use image_id::{ImageId, InvalidImageId};
pub use model::{InvalidModel, ModelId, ModelKey, ModelSelector, RecordedModel};
pub use prediction::{
    Class, Embedding, Failure, MAX_EMBEDDING_LENGTH, MAX_PREDICTION_BYTES, Prediction, PredictionRecord,
    ResultMessage,
};
pub use record_name::{EMBEDDING, PREDICTION, RECORD_BASE_NAMES};

/// File name of the preprocessed image, whose object name is `<id>/image.jpg`.
pub const IMAGE_FILE_NAME: &str = "image.jpg";

/// Data of a message that announces a stored image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageEvent {
    /// Path of the image.
    pub gcs_path: GcsPath,
    /// Id of the upload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<ImageId>,
    /// Width of the stored image in pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Height of the stored image in pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
}
