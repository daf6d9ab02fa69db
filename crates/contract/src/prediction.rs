//! The content of `prediction.json` and `embedding.json`, and the message on the results topic.

use std::collections::HashMap;

use serde::{Deserialize, Serialize, de::IgnoredAny};

use crate::{GcsPath, ImageId, RecordedModel};

/// Maximum size of a `prediction.json` or an `embedding.json` in bytes, far above the size of any prediction.
/// The services read no larger one.
pub const MAX_PREDICTION_BYTES: usize = 1 << 20;

/// Maximum number of values of an embedding, so that its JSON has at most [`MAX_PREDICTION_BYTES`] bytes.
pub const MAX_EMBEDDING_LENGTH: usize = 60_000;

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
    /// Probability of the class, 0 to 1. The probabilities of all classes add up to 1, except those of a
    /// multi-label model, whose classes are independent.
    pub confidence: f32,
}

/// The result of classifying an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Path of the image. The path is absent if the image came in the request and is not stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gcs_path: Option<GcsPath>,
    /// Label of the most probable class. A binary model decides by its threshold.
    pub label: String,
    /// Probability of the class `label`, 0 to 1.
    pub confidence: f32,
    /// The most probable classes, in descending order of their probability. A multi-label model lists only the
    /// classes that reach its threshold, so the list may be empty.
    pub top: Vec<Class>,
    /// Name of the model.
    pub model: String,
    /// SHA-256 of the model's ONNX file. It is absent from predictions of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_sha256: Option<String>,
    /// Name of the backend that ran the model.
    pub backend: String,
}

/// The result of computing the embedding of an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Embedding {
    /// Path of the image. The path is absent if the image came in the request and is not stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gcs_path: Option<GcsPath>,
    /// The vector that the model computes for the image, at most [`MAX_EMBEDDING_LENGTH`] values.
    pub embedding: Vec<f32>,
    /// Name of the model.
    pub model: String,
    /// SHA-256 of the model's ONNX file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_sha256: Option<String>,
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

/// Content of `prediction.json` or `embedding.json`: a result, or the reason why there is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, try_from = "RecordMembers")]
pub enum PredictionRecord {
    /// The image was classified.
    Done(Prediction),
    /// The embedding of the image was computed.
    Embedded(Embedding),
    /// The image can never be classified.
    Failed {
        /// Path of the image.
        gcs_path: GcsPath,
        /// Name of the model, if the model failed. It is absent if the image would fail with every model.
        #[serde(skip_serializing_if = "Option::is_none")]
        model: Option<String>,
        /// SHA-256 of the ONNX file of `model`.
        #[serde(skip_serializing_if = "Option::is_none")]
        model_sha256: Option<String>,
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
    embedding: Option<Vec<f32>>,
    model: Option<String>,
    model_sha256: Option<String>,
    backend: Option<String>,
    error: Option<Failure>,
}

/// The error of JSON that has the members of no prediction, embedding or failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the JSON is neither a prediction nor an embedding nor a failure")]
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
                model_sha256,
                backend: Some(backend),
                ..
            } => {
                Ok(Self::Done(Prediction { gcs_path, label, confidence, top, model, model_sha256, backend }))
            }
            RecordMembers {
                gcs_path,
                embedding: Some(embedding),
                model: Some(model),
                model_sha256,
                backend: Some(backend),
                ..
            } => Ok(Self::Embedded(Embedding { gcs_path, embedding, model, model_sha256, backend })),
            RecordMembers { gcs_path: Some(gcs_path), model, model_sha256, error: Some(error), .. } => {
                Ok(Self::Failed { gcs_path, model, model_sha256, error })
            }
            _ => Err(InvalidRecord),
        }
    }
}

impl PredictionRecord {
    /// Returns true if `content`, the content of a `prediction.json` or `embedding.json`, is a record of this
    /// version or of any other version of the services. Any other content is damaged.
    ///
    /// Every record is a JSON object with a `label`, an `embedding` or an `error`.
    pub fn is_record(content: &[u8]) -> bool {
        serde_json::from_slice::<HashMap<String, IgnoredAny>>(content).is_ok_and(|members| {
            ["label", "embedding", "error"].iter().any(|name| members.contains_key(*name))
        })
    }

    /// Returns the model that the record names.
    pub fn model(&self) -> RecordedModel {
        let (name, sha256) = match self {
            Self::Done(Prediction { model, model_sha256, .. })
            | Self::Embedded(Embedding { model, model_sha256, .. }) => (Some(model), model_sha256),
            Self::Failed { model, model_sha256, .. } => (model.as_ref(), model_sha256),
        };
        RecordedModel::new(name.cloned(), sha256.clone())
    }

    /// Returns the path of the image, or `None` if the image is not stored.
    pub fn gcs_path(&self) -> Option<&GcsPath> {
        match self {
            Self::Done(prediction) => prediction.gcs_path.as_ref(),
            Self::Embedded(embedding) => embedding.gcs_path.as_ref(),
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
    /// The record, with the content of `prediction.json` or `embedding.json`.
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
            model_sha256: Some("0a".repeat(32)),
            backend: "flex".to_owned(),
        })
    }

    fn embedded_record() -> PredictionRecord {
        PredictionRecord::Embedded(Embedding {
            gcs_path: Some(path(&format!("{ID}/image.jpg"))),
            embedding: vec![0.5, -1.25],
            model: "dinov2".to_owned(),
            model_sha256: Some("0b".repeat(32)),
            backend: "flex".to_owned(),
        })
    }

    fn failed_record() -> PredictionRecord {
        let error = Failure { reason: "not_an_image".to_owned(), message: "no image".to_owned() };
        PredictionRecord::Failed { gcs_path: path("cat.jpg"), model: None, model_sha256: None, error }
    }

    #[test]
    fn longest_embedding_fits_in_a_record() {
        // The JSON of no f32 is longer than that of this one.
        let embedding = vec![-1.234_567_9e-38; MAX_EMBEDDING_LENGTH];
        let gcs_path = Some(path(&"\"".repeat(2000)));
        let (model, backend) = ("m".repeat(1000), "b".repeat(100));
        let model_sha256 = Some("0b".repeat(32));
        let record =
            PredictionRecord::Embedded(Embedding { gcs_path, embedding, model, model_sha256, backend });
        let length = serde_json::to_vec(&record).unwrap().len();
        assert!((900_000..MAX_PREDICTION_BYTES).contains(&length), "{length}");
        // A separator and the 16 bytes that serde_json reserves for an f32.
        const { assert!(MAX_EMBEDDING_LENGTH * 17 + 20_000 < MAX_PREDICTION_BYTES) };
    }

    #[test]
    fn only_objects_with_a_label_an_embedding_or_an_error_are_records() {
        for record in [done_record(), embedded_record(), failed_record()] {
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

    /// Returns the names of the members in the JSON of results, keyed by the name of the schema's `message`
    /// block that must declare them.
    fn members_by_message() -> BTreeMap<String, BTreeSet<String>> {
        let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        let [done, embedded, failed] = [done_record(), embedded_record(), failed_record()]
            .map(|record| serde_json::to_value(ResultMessage::new(record, PREDICTED_AT.to_owned())).unwrap());
        BTreeMap::from([
            ("Prediction".to_owned(), &(&names(&done) | &names(&embedded)) | &names(&failed)),
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
        let mut numbers = BTreeSet::new();
        for line in schema.lines().filter_map(|line| line.split("//").next()).map(str::trim) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["message", name, "{"] => open_messages.push(name),
                ["}"] => {
                    open_messages.pop();
                }
                [.., name, "=", number] if number.trim_end_matches(';').parse::<u32>().is_ok() => {
                    let message = (*open_messages.last().unwrap()).to_owned();
                    assert!(numbers.insert((message.clone(), number)), "{line}");
                    assert!(fields_by_message.entry(message).or_default().insert(name.to_owned()), "{line}");
                }
                _ => {}
            }
        }
        assert_eq!(members_by_message(), fields_by_message);
    }

    #[test]
    fn results_have_the_expected_json_and_are_read_back_unchanged() {
        let [prediction, embedding, failure] = [done_record(), embedded_record(), failed_record()]
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
        let expected = json!({
            "gcs_path": format!("gs://b/{ID}/image.jpg"),
            "embedding": [0.5, -1.25],
            "model": "dinov2",
            "model_sha256": "0b".repeat(32),
            "backend": "flex",
            "id": ID,
            "predicted_at": PREDICTED_AT,
        });
        assert_eq!(serde_json::to_value(&embedding).unwrap(), expected);
        for result in [prediction, embedding, failure] {
            let json = serde_json::to_string(&result).unwrap();
            assert_eq!(serde_json::from_str::<ResultMessage>(&json).unwrap(), result);
        }
    }
}
