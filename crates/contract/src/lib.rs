//! This crate defines the contract between the services preprocess and classify. It contains the JSON of
//! their messages and of `prediction.json`, and the names of the objects in the bucket.
//!
//! A change may add members to the JSON. No change may alter the name, type or meaning of an existing member.

use std::{collections::HashMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize, de::IgnoredAny};
use sha2::{Digest, Sha256};

/// File name of the preprocessed image, whose object name is `<id>/image.jpg`.
pub const IMAGE_FILE_NAME: &str = "image.jpg";
/// File name of the prediction for a preprocessed image, whose object name is `<id>/prediction.json`.
pub const PREDICTION_FILE_NAME: &str = "prediction.json";

/// Returns true if `content`, the content of `<id>/image.jpg`, shows no sign of damage.
///
/// A file that was overwritten with zeros does not begin as an image does, and a JPEG that was cut off has no end
/// marker. Bytes after the end marker are no damage, because decoders ignore them. Buckets detect damage
/// themselves, unless the object was stored without a checksum.
pub fn stored_image_looks_intact(content: &[u8]) -> bool {
    const LONGEST_SIGNATURE: usize = 16;
    let is_empty_or_zeroed = content.iter().take(LONGEST_SIGNATURE).all(|byte| *byte == 0);
    // The image data of a JPEG never contains the bytes of the end marker.
    let has_end_marker = || content.windows(2).rev().any(|bytes| bytes == b"\xff\xd9");
    let is_cut_jpeg = content.starts_with(b"\xff\xd8\xff") && !has_end_marker();
    !is_empty_or_zeroed && !is_cut_jpeg
}

/// The id of an upload, computed from its bytes and the preprocessing recipe.
///
/// The recipe is a text with all parameters of the preprocessing. The recipe, a zero byte and the uploaded
/// bytes are hashed together with SHA-256. The id is the first 128 bits of the hash, written as 32 lowercase
/// hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageId(String);

/// The error of parsing a text that is not an [`ImageId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an id must have 32 lowercase hexadecimal digits")]
pub struct InvalidImageId;

impl ImageId {
    /// Computes the id of the upload with the bytes `upload`.
    ///
    /// `recipe` must change whenever preprocessing would turn the same upload into a different image.
    pub fn from_upload(recipe: &str, upload: &[u8]) -> Self {
        let digest =
            Sha256::new().chain_update(recipe.as_bytes()).chain_update([0]).chain_update(upload).finalize();
        Self(hex::encode(&digest[..16]))
    }

    /// Returns the id as 32 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the object name of the preprocessed image, `<id>/image.jpg`.
    pub fn image_object_name(&self) -> String {
        format!("{}/{IMAGE_FILE_NAME}", self.0)
    }

    /// Returns the object name of the prediction, `<id>/prediction.json`.
    pub fn prediction_object_name(&self) -> String {
        format!("{}/{PREDICTION_FILE_NAME}", self.0)
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
        let is_hex_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == 32 && text.bytes().all(is_hex_digit) {
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

/// A class and the probability that the model assigns to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Class {
    /// Human-readable name, such as `golden retriever`. Two classes can have the same name, but not the same
    /// `index`.
    pub label: String,
    /// Index of the class in the output of the model.
    pub index: usize,
    /// WordNet id, such as `n02099601`. It is absent if the model's labels do not have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wnid: Option<String>,
    /// Softmax probability of the class, 0 to 1.
    pub confidence: f32,
}

/// The result of classifying an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Path of the image. The path is absent if the image came in the request and is not stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gcs_path: Option<GcsPath>,
    /// Label of the most probable class.
    pub label: String,
    /// Softmax probability of the most probable class, 0 to 1.
    pub confidence: f32,
    /// The most probable classes, in descending order of their probability.
    pub top: Vec<Class>,
    /// Name of the model.
    pub model: String,
    /// Name of the backend that ran the model.
    pub backend: String,
}

/// Reason why an image can never be classified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Machine-readable word, such as `not_an_image`. The meaning of a word never changes.
    pub reason: String,
    /// Human-readable sentence.
    pub message: String,
}

/// Content of `prediction.json`: a prediction, or the reason why there is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, try_from = "RecordMembers")]
pub enum PredictionRecord {
    /// The image was classified.
    Done(Prediction),
    /// The image can never be classified.
    Failed {
        /// Path of the image.
        gcs_path: GcsPath,
        /// Reason why the image can never be classified.
        error: Failure,
    },
}

/// Every member that a [`PredictionRecord`] can have.
///
/// serde would deserialize an untagged enum from a copy of the whole JSON, unknown members included, which
/// can take a hundred times as much memory as the text.
#[derive(Deserialize)]
struct RecordMembers {
    gcs_path: Option<GcsPath>,
    label: Option<String>,
    confidence: Option<f32>,
    top: Option<Vec<Class>>,
    model: Option<String>,
    backend: Option<String>,
    error: Option<Failure>,
}

/// The error of JSON that has neither the members of a prediction nor those of a failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the JSON is neither a prediction nor a failure")]
struct InvalidRecord;

impl TryFrom<RecordMembers> for PredictionRecord {
    type Error = InvalidRecord;

    fn try_from(members: RecordMembers) -> Result<Self, InvalidRecord> {
        match members {
            RecordMembers {
                gcs_path,
                label: Some(label),
                confidence: Some(confidence),
                top: Some(top),
                model: Some(model),
                backend: Some(backend),
                ..
            } => Ok(Self::Done(Prediction { gcs_path, label, confidence, top, model, backend })),
            RecordMembers { gcs_path: Some(gcs_path), error: Some(error), .. } => {
                Ok(Self::Failed { gcs_path, error })
            }
            _ => Err(InvalidRecord),
        }
    }
}

impl PredictionRecord {
    /// Returns true if `content`, the content of a `prediction.json`, is a record of this version or of any
    /// other version of the services. Any other content is damaged.
    ///
    /// Every record is a JSON object with a `label` or an `error`.
    pub fn is_record(content: &[u8]) -> bool {
        serde_json::from_slice::<HashMap<String, IgnoredAny>>(content)
            .is_ok_and(|members| members.contains_key("label") || members.contains_key("error"))
    }

    /// Returns the path of the image, or `None` if the image is not stored.
    pub fn gcs_path(&self) -> Option<&GcsPath> {
        match self {
            Self::Done(prediction) => prediction.gcs_path.as_ref(),
            Self::Failed { gcs_path, .. } => Some(gcs_path),
        }
    }
}

/// Data of a message on the results topic.
///
/// The schema of the topic, `deploy/results.proto`, refuses unknown members. A new member must therefore be
/// in the deployed schema before a service publishes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResultMessage {
    /// The prediction record, with the content of `prediction.json`.
    #[serde(flatten)]
    pub record: PredictionRecord,
    /// Id of the upload. It is absent if the image is not a preprocessed image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<ImageId>,
    /// Time of the prediction, as RFC 3339 in UTC.
    pub predicted_at: String,
}

impl ResultMessage {
    /// Creates the message for `record`. `predicted_at` is the time of the prediction, as RFC 3339 in UTC.
    pub fn new(record: PredictionRecord, predicted_at: String) -> Self {
        let id = record.gcs_path().and_then(GcsPath::image_id);
        Self { record, id, predicted_at }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::{Value, json};

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef";
    const PREDICTED_AT: &str = "2026-01-02T03:04:05.678000Z";

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

    fn done_record() -> PredictionRecord {
        let class = |wnid: Option<&str>| Class {
            label: "tabby".to_owned(),
            index: 281,
            wnid: wnid.map(str::to_owned),
            confidence: 0.93,
        };
        PredictionRecord::Done(Prediction {
            gcs_path: Some(path(&format!("{ID}/image.jpg"))),
            label: "tabby".to_owned(),
            confidence: 0.93,
            top: vec![class(Some("n02123045")), class(None)],
            model: "mobilenetv2".to_owned(),
            backend: "flex".to_owned(),
        })
    }

    #[test]
    fn only_objects_with_a_label_or_an_error_are_records() {
        for record in [done_record(), failed_record()] {
            let json = serde_json::to_vec(&record).unwrap();
            assert!(PredictionRecord::is_record(&json));
            for length in 0..json.len() {
                assert!(!PredictionRecord::is_record(&json[..length]), "cut to {length} bytes");
            }
            assert!(!PredictionRecord::is_record(&vec![0; json.len()]));
        }
        assert!(PredictionRecord::is_record(br#"{"label":"tabby","new_member":1}"#));
        for other in ["", "null", "{}", "[]", r#"["label"]"#, r#"{"neither":"nor"}"#] {
            assert!(!PredictionRecord::is_record(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn cut_or_zeroed_image_does_not_look_intact() {
        let jpeg = [b"\xff\xd8\xff\xe0".to_vec(), vec![1; 100], b"\xff\xd9".to_vec()].concat();
        assert!(stored_image_looks_intact(&jpeg));
        assert!(stored_image_looks_intact(&[&jpeg[..], &[9; 10]].concat()), "decoders ignore what follows");
        for length in 0..jpeg.len() {
            let cut_and_padded = [&jpeg[..length], &vec![0; jpeg.len() - length]].concat();
            // Fewer than three bytes are not recognised as the beginning of a JPEG.
            assert!(length == 1 || length == 2 || !stored_image_looks_intact(&jpeg[..length]), "{length}");
            assert!(length == 1 || length == 2 || !stored_image_looks_intact(&cut_and_padded), "{length}");
        }
        assert!(stored_image_looks_intact(b"not an image"), "other content was put there on purpose");
    }

    fn failed_record() -> PredictionRecord {
        let error = Failure { reason: "not_an_image".to_owned(), message: "no image".to_owned() };
        PredictionRecord::Failed { gcs_path: path("cat.jpg"), error }
    }

    /// Returns the names of the members in the JSON of results, keyed by the name of the schema's `message`
    /// block that must declare them.
    fn members_by_message() -> BTreeMap<String, BTreeSet<String>> {
        let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        let [done, failed] = [done_record(), failed_record()]
            .map(|record| serde_json::to_value(ResultMessage::new(record, PREDICTED_AT.to_owned())).unwrap());
        BTreeMap::from([
            ("Prediction".to_owned(), &names(&done) | &names(&failed)),
            ("Class".to_owned(), names(&done["top"][0])),
            ("Failure".to_owned(), names(&failed["error"])),
        ])
    }

    #[test]
    fn results_have_exactly_the_members_of_their_schema() {
        let schema_path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/results.proto");
        let schema = std::fs::read_to_string(schema_path).unwrap();
        // Names of the `message` blocks that contain the current line, the innermost block last.
        let mut open_messages = Vec::new();
        let mut fields_by_message = BTreeMap::<String, BTreeSet<String>>::new();
        for line in schema.lines().filter_map(|line| line.split("//").next()).map(str::trim) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["message", name, "{"] => open_messages.push(name),
                ["}"] => {
                    open_messages.pop();
                }
                [.., name, "=", number] if number.trim_end_matches(';').parse::<u32>().is_ok() => {
                    let message = (*open_messages.last().unwrap()).to_owned();
                    assert!(fields_by_message.entry(message).or_default().insert(name.to_owned()), "{line}");
                }
                _ => {}
            }
        }
        assert_eq!(members_by_message(), fields_by_message);
    }

    #[test]
    fn results_have_the_expected_json_and_are_read_back_unchanged() {
        let [prediction, failure] = [done_record(), failed_record()]
            .map(|record| ResultMessage::new(record, PREDICTED_AT.to_owned()));
        let json = serde_json::to_string(&prediction).unwrap();
        assert!(json.contains(r#""confidence":0.93"#), "the f32 must not be widened to f64: {json}");
        let expected = json!({
            "gcs_path": "gs://b/cat.jpg",
            "error": {"reason": "not_an_image", "message": "no image"},
            "predicted_at": PREDICTED_AT,
        });
        assert_eq!(serde_json::to_value(&failure).unwrap(), expected);
        assert_eq!(prediction.id.as_ref().map(ImageId::as_str), Some(ID));
        for result in [prediction, failure] {
            let json = serde_json::to_string(&result).unwrap();
            assert_eq!(serde_json::from_str::<ResultMessage>(&json).unwrap(), result);
        }
    }
}
