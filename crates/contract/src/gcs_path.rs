//! The [`GcsPath`] of an object.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{IMAGE_FILE_NAME, ImageId, PREDICTION_FILE_NAME};

/// Path of an object, `gs://BUCKET/OBJECT`. Objects in a bucket on disk have such paths, too.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GcsPath {
    bucket: String,
    object: String,
}

/// The error of creating a [`GcsPath`] from invalid names or text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a path must have the form gs://BUCKET/OBJECT")]
pub struct InvalidGcsPath;

impl GcsPath {
    /// Creates the path of `object` in `bucket`.
    ///
    /// # Errors
    /// Returns [`InvalidGcsPath`] if either name is empty, or if the name of the bucket contains `/`.
    pub fn new(bucket: &str, object: &str) -> Result<Self, InvalidGcsPath> {
        if bucket.is_empty() || bucket.contains('/') || object.is_empty() {
            return Err(InvalidGcsPath);
        }
        Ok(Self { bucket: bucket.to_owned(), object: object.to_owned() })
    }

    /// Returns the name of the bucket, without `gs://`.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Returns the name of the object, without the bucket.
    pub fn object(&self) -> &str {
        &self.object
    }

    /// Returns the id of the upload if this is the path of a preprocessed image,
    /// `gs://BUCKET/<id>/image.jpg`.
    pub fn image_id(&self) -> Option<ImageId> {
        self.object.strip_suffix(IMAGE_FILE_NAME)?.strip_suffix('/')?.parse().ok()
    }

    /// Returns the object name of the prediction for the image at this path.
    ///
    /// `generation` is the number by which Cloud Storage identifies the version of an object. Callers pass
    /// `None` if the bucket has no generations.
    ///
    /// The name is `<id>/prediction.json` for a preprocessed image. For any other image it is
    /// `<object>.<generation>.prediction.json`, so that every version of the image has its own prediction.
    /// Without a generation, the name is `<object>.prediction.json`.
    pub fn prediction_object_name(&self, generation: Option<i64>) -> String {
        match (self.image_id(), generation) {
            (Some(id), _) => id.prediction_object_name(),
            (None, Some(generation)) => format!("{}.{generation}.{PREDICTION_FILE_NAME}", self.object),
            (None, None) => format!("{}.{PREDICTION_FILE_NAME}", self.object),
        }
    }

    /// Returns true if the object has the name of a prediction.
    pub fn is_prediction(&self) -> bool {
        let file_name = self.object.rsplit('/').next().unwrap_or_default();
        file_name == PREDICTION_FILE_NAME || file_name.ends_with(".prediction.json")
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

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef";

    fn path(object: &str) -> GcsPath {
        GcsPath::new("b", object).unwrap()
    }

    #[test]
    fn every_version_of_an_image_has_its_own_prediction() {
        let preprocessed = format!("{ID}/image.jpg");
        let cases = [
            ("a/cat.jpg", None, "a/cat.jpg.prediction.json"),
            ("a/cat.jpg", Some(7), "a/cat.jpg.7.prediction.json"),
            ("a/cat.jpg", Some(8), "a/cat.jpg.8.prediction.json"),
            ("a/cat.png", Some(7), "a/cat.png.7.prediction.json"),
            ("a/image.jpg", Some(7), "a/image.jpg.7.prediction.json"),
            // A preprocessed image has only one version, because its id is a hash of the upload.
            (preprocessed.as_str(), None, "0123456789abcdef0123456789abcdef/prediction.json"),
            (preprocessed.as_str(), Some(7), "0123456789abcdef0123456789abcdef/prediction.json"),
        ];
        for (object, generation, expected) in cases {
            assert_eq!(path(object).prediction_object_name(generation), expected);
        }
    }

    #[test]
    fn predictions_are_recognized_by_their_names() {
        for object in ["cat.jpg", &format!("{ID}/image.jpg"), "a/b/c.png", "prediction.json"] {
            for generation in [None, Some(1), Some(-1), Some(i64::MAX)] {
                let prediction = path(&path(object).prediction_object_name(generation));
                assert!(prediction.is_prediction(), "{prediction}");
            }
        }
        for object in
            ["prediction.jpg", "prediction.json/cat.jpg", "a-prediction.json", "a/Prediction.json", "a/"]
        {
            assert!(!path(object).is_prediction(), "{object}");
        }
    }
}
