//! The contract between the two services: two JSON shapes and an object layout.
//!
//! Fields may be added; none may change its name, type or meaning.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// File name of the preprocessed image inside an image's folder.
pub const IMAGE_FILE: &str = "image.jpg";
/// File name of the prediction inside an image's folder.
pub const PREDICTION_FILE: &str = "prediction.json";

/// Names one upload: the first 128 bits of the SHA-256 of the preprocessing recipe and the uploaded
/// bytes, as 32 lowercase hexadecimal digits. The same bytes under the same recipe have the same id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageId(String);

/// The text is not 32 lowercase hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an id is 32 lowercase hexadecimal digits")]
pub struct InvalidImageId;

impl ImageId {
    /// Id of `upload` (the bytes as sent) under `recipe` (a text that changes whenever the same
    /// upload would give another image).
    pub fn of(recipe: &str, upload: &[u8]) -> Self {
        let digest =
            Sha256::new().chain_update(recipe.as_bytes()).chain_update([0]).chain_update(upload).finalize();
        Self(hex::encode(&digest[..16]))
    }

    /// The 32 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Object name of the preprocessed image, `<id>/image.jpg`.
    pub fn image_object(&self) -> String {
        format!("{}/{IMAGE_FILE}", self.0)
    }

    /// Object name of the prediction, `<id>/prediction.json`.
    pub fn prediction_object(&self) -> String {
        format!("{}/{PREDICTION_FILE}", self.0)
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ImageId {
    type Err = InvalidImageId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() == 32 && text.bytes().all(digit) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidImageId)
        }
    }
}

impl TryFrom<String> for ImageId {
    type Error = InvalidImageId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ImageId> for String {
    fn from(id: ImageId) -> Self {
        id.0
    }
}

/// An object's address, `gs://BUCKET/OBJECT`, whatever the bucket is kept on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GcsPath {
    bucket: String,
    object: String,
}

/// The text is not `gs://BUCKET/OBJECT`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a path looks like gs://BUCKET/OBJECT")]
pub struct InvalidGcsPath;

impl GcsPath {
    /// Path of `object` in `bucket`.
    ///
    /// # Errors
    /// When either is empty, or the bucket's name has a `/`.
    pub fn new(bucket: &str, object: &str) -> Result<Self, InvalidGcsPath> {
        if bucket.is_empty() || bucket.contains('/') || object.is_empty() {
            return Err(InvalidGcsPath);
        }
        Ok(Self { bucket: bucket.to_owned(), object: object.to_owned() })
    }

    /// The bucket's name, without `gs://`.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The object's name, without the bucket.
    pub fn object(&self) -> &str {
        &self.object
    }

    /// The id, when this is the path of a preprocessed image, `gs://BUCKET/<id>/image.jpg`.
    pub fn image_id(&self) -> Option<ImageId> {
        self.object.strip_suffix(IMAGE_FILE)?.strip_suffix('/')?.parse().ok()
    }

    /// Object name of the prediction for the image at this path: `<id>/prediction.json` for a
    /// preprocessed image, `<object>.prediction.json` for any other, so that two images of one
    /// folder never share a prediction.
    pub fn prediction_object(&self) -> String {
        match self.image_id() {
            Some(id) => id.prediction_object(),
            None => format!("{}.{PREDICTION_FILE}", self.object),
        }
    }
}

impl fmt::Display for GcsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gs://{}/{}", self.bucket, self.object)
    }
}

impl FromStr for GcsPath {
    type Err = InvalidGcsPath;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix("gs://").ok_or(InvalidGcsPath)?;
        let (bucket, object) = rest.split_once('/').ok_or(InvalidGcsPath)?;
        Self::new(bucket, object)
    }
}

impl TryFrom<String> for GcsPath {
    type Error = InvalidGcsPath;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<GcsPath> for String {
    fn from(path: GcsPath) -> Self {
        path.to_string()
    }
}

/// Data of a topic message: an image is stored and may be classified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageEvent {
    /// Where the image is.
    pub gcs_path: GcsPath,
    /// The upload's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<ImageId>,
    /// Width of the stored image in pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Height of the stored image in pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
}

/// One class and how probable it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Class {
    /// Human name, such as `golden retriever`. Not unique: use `index` as a key.
    pub label: String,
    /// Index of the model's output.
    pub index: usize,
    /// WordNet id, such as `n02099601`, where the model's labels have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wnid: Option<String>,
    /// Softmax probability, 0 to 1.
    pub confidence: f32,
}

/// What the model said of an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// The image; absent when the image came with the request and is stored nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gcs_path: Option<GcsPath>,
    /// Label of the most probable class.
    pub label: String,
    /// Softmax probability of that class, 0 to 1.
    pub confidence: f32,
    /// The most probable classes, best first.
    pub top: Vec<Class>,
    /// Name of the model.
    pub model: String,
    /// Name of the backend that ran it.
    pub backend: String,
}

/// Why an image can never be classified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Stable word for programs, such as `not_an_image`.
    pub reason: String,
    /// Sentence for people.
    pub message: String,
}

/// Content of `prediction.json`: a prediction, or the reason why there will never be one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PredictionRecord {
    /// The image was classified.
    Done(Prediction),
    /// The image can never be classified.
    Failed {
        /// The image.
        gcs_path: GcsPath,
        /// Why.
        error: Failure,
    },
}
