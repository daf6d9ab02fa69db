//! The [`GcsPath`] of an object.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    IMAGE_FILE_NAME, ImageId, ModelKey,
    record_name::{is_record_file_name, record_file_name},
};

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

    /// Returns the object name of a record of the image at this path.
    ///
    /// `base_name` is the kind of the record, such as [`PREDICTION`](crate::PREDICTION). `generation` is the number by
    /// which Cloud Storage identifies the version of an object. Callers pass `None` if the bucket has no generations.
    /// `key` is `None` for the record of the first model, and the key of each later model.
    ///
    /// For a prediction of the first model, the name is `<id>/prediction.json` if the image is a preprocessed image.
    /// For any other image it is `<object>.<generation>.prediction.json`, so that every version of the image has its
    /// own prediction. Without a generation, the name is `<object>.prediction.json`. In the name of a later model's
    /// record, `prediction.NAME-CHECKSUM8.json` takes the place of `prediction.json`.
    pub fn record_object_name(
        &self,
        base_name: &str,
        generation: Option<i64>,
        key: Option<&ModelKey>,
    ) -> String {
        let file_name = record_file_name(base_name, key);
        match (self.image_id(), generation) {
            (Some(id), _) => format!("{id}/{file_name}"),
            (None, Some(generation)) => format!("{}.{generation}.{file_name}", self.object),
            (None, None) => format!("{}.{file_name}", self.object),
        }
    }

    /// Returns true if the object has the name of a record, of any kind and of any model.
    pub fn is_record(&self) -> bool {
        is_record_file_name(self.object.rsplit('/').next().unwrap_or_default())
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
    use crate::{ModelId, PREDICTION, RECORD_BASE_NAMES};

    const ID: &str = "0123456789abcdef0123456789abcdef";

    fn path(object: &str) -> GcsPath {
        GcsPath::new("b", object).unwrap()
    }

    #[test]
    fn every_version_of_an_image_has_its_own_record_of_each_kind_and_model() {
        let preprocessed = format!("{ID}/image.jpg");
        let key = ModelId::new("m", "0a1b2c3d").key();
        let cases = [
            ("a/cat.jpg", None, "a/cat.jpg.prediction"),
            ("a/cat.jpg", Some(7), "a/cat.jpg.7.prediction"),
            ("a/cat.jpg", Some(8), "a/cat.jpg.8.prediction"),
            ("a/cat.png", Some(7), "a/cat.png.7.prediction"),
            ("a/image.jpg", Some(7), "a/image.jpg.7.prediction"),
            // A preprocessed image has only one version, because its id is a hash of the upload.
            (preprocessed.as_str(), None, "0123456789abcdef0123456789abcdef/prediction"),
            (preprocessed.as_str(), Some(7), "0123456789abcdef0123456789abcdef/prediction"),
        ];
        for (object, generation, expected) in cases {
            for base_name in RECORD_BASE_NAMES {
                let name = |key| path(object).record_object_name(base_name, generation, key);
                let expected = expected.replace("prediction", base_name);
                assert_eq!(name(None), format!("{expected}.json"));
                assert_eq!(name(Some(&key)), format!("{expected}.m-0a1b2c3d.json"));
            }
        }
        let id: ImageId = ID.parse().unwrap();
        for key in [None, Some(&key)] {
            let name = path(&preprocessed).record_object_name(PREDICTION, None, key);
            assert_eq!(id.record_object_name(PREDICTION, key), name);
        }
    }

    #[test]
    fn records_are_recognized_by_their_names() {
        let keys = ["m", "mobilenet-v2_1.0", "prediction.json", "embedding", "a b/ä"]
            .map(|name| Some(ModelId::new(name, "0a1b2c3d").key()));
        for object in [
            "cat.jpg",
            &format!("{ID}/image.jpg"),
            "a/b/c.png",
            "prediction.json",
            "x.prediction.y",
            "x.embedding.y",
        ] {
            for generation in [None, Some(1), Some(-1), Some(i64::MAX)] {
                for key in keys.iter().map(Option::as_ref).chain([None]) {
                    for base_name in RECORD_BASE_NAMES {
                        let record = path(&path(object).record_object_name(base_name, generation, key));
                        assert!(record.is_record(), "{record}");
                    }
                }
            }
        }
        for object in [
            "prediction.jpg",
            "prediction.json/cat.jpg",
            "embedding.json/cat.jpg",
            "a-prediction.json",
            "a-embedding.json",
            "a/Prediction.json",
            "a/",
            "prediction.m.json",
            "prediction.m-0A1B2C3D.json",
            "a-prediction.m-0a1b2c3d.json",
            "prediction.m-0a1b2c3d.jpg",
            "predictions.json",
            "prediction.embedding",
        ] {
            assert!(!path(object).is_record(), "{object}");
        }
    }
}
