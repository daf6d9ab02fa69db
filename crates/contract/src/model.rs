//! The identity of a model, in records and in the names of records.

use std::{fmt, str::FromStr};

use serde::Deserialize;

use crate::PredictionRecord;

/// Maximum length of the name in a [`ModelKey`], in bytes. Longer names are cut.
///
/// The key is part of object names, whose length is limited. This number never changes, because it is part of the names
/// of stored records.
const MAX_KEY_NAME_BYTES: usize = 16;
/// Maximum length of a model's name that is parsed, in bytes.
const MAX_PARSED_NAME_BYTES: usize = 64;
/// Number of hexadecimal digits of the checksum in a [`ModelKey`].
const KEY_CHECKSUM_DIGITS: usize = 8;

/// The identity of a model: its name, and the SHA-256 of its ONNX file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelId {
    name: String,
    sha256: String,
}

/// Short text that identifies a model in the names of objects, `NAME-CHECKSUM8`.
///
/// `CHECKSUM8` is the first 8 hexadecimal digits of the SHA-256 of the model's ONNX file. `NAME` is the model's name.
/// It is cut after 16 characters, and every character other than a letter, a digit, `.`, `_` and `-` is replaced by
/// `_`. So the name of every model can be part of the name of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModelKey(String);

/// A model that a client asks for, as `NAME` or as `NAME-CHECKSUM8`.
///
/// The name is written as in a [`ModelKey`]. The parser cuts longer names, so that the whole name is valid, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSelector(String);

/// The model that a stored record names. Each part may be unknown.
///
/// Records of older versions have no checksum. The record of a failure names no model if the image would fail with
/// every model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct RecordedModel {
    #[serde(rename = "model")]
    name: Option<String>,
    #[serde(rename = "model_sha256")]
    sha256: Option<String>,
}

/// The error of parsing a text that is neither a [`ModelKey`] nor a [`ModelSelector`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a model is written as NAME-CHECKSUM8: the name of the model, `-`, and the first 8 hexadecimal digits of the \
     SHA-256 of its ONNX file; the name has at most 64 letters, digits, `.`, `_` and `-`, and other characters of the \
     model's name are written as `_`"
)]
pub struct InvalidModel;

impl ModelId {
    /// Creates the identity of the model `name`. `sha256` has 64 lowercase hexadecimal digits.
    pub fn new(name: impl Into<String>, sha256: impl Into<String>) -> Self {
        Self { name: name.into(), sha256: sha256.into() }
    }

    /// Returns the name of the model.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the SHA-256 of the model's ONNX file, as 64 hexadecimal digits.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Returns the short text that identifies the model in the names of objects.
    pub fn key(&self) -> ModelKey {
        ModelKey::new(&self.name, &self.sha256)
    }
}

impl ModelKey {
    fn new(name: &str, sha256: &str) -> Self {
        let checksum: String = sha256.chars().take(KEY_CHECKSUM_DIGITS).collect();
        Self(format!("{}-{checksum}", escape_name(name)))
    }

    /// Returns the name of the model, in which some characters may be replaced.
    pub fn name(&self) -> &str {
        self.0.rsplit_once('-').map_or("", |(name, _)| name)
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns true if `selector` is the name of this model, or its name and its checksum.
    pub fn is_selected_by(&self, selector: &ModelSelector) -> bool {
        selector.0 == self.0 || selector.0 == self.name()
    }
}

impl ModelSelector {
    /// Returns the key of the selected model, or `None` if the selector has no checksum.
    pub fn key(&self) -> Option<ModelKey> {
        self.0.parse().ok()
    }
}

impl RecordedModel {
    pub(crate) fn new(name: Option<String>, sha256: Option<String>) -> Self {
        Self { name, sha256 }
    }

    /// Reads the model that the record `content` names. Returns `None` if `content` is not a record.
    pub fn read(content: &[u8]) -> Option<Self> {
        // A record whose members have other types is of a newer version.
        PredictionRecord::is_record(content).then(|| serde_json::from_slice(content).unwrap_or_default())
    }

    /// Returns true if the record names a model.
    pub fn has_name(&self) -> bool {
        self.name.is_some()
    }

    /// Returns true if the record may be a record of the model `key`.
    ///
    /// Only the parts that the record names are compared. A record with the name of the model and without a checksum
    /// counts as a record of the model, and a record that names no model counts as a record of every model.
    pub fn may_be(&self, key: &ModelKey) -> bool {
        match (&self.name, &self.sha256) {
            (None, _) => true,
            (Some(name), None) => escape_name(name) == key.name(),
            (Some(name), Some(sha256)) => ModelKey::new(name, sha256) == *key,
        }
    }

    /// Returns true if the record may be a record of the model that `selector` selects.
    pub fn may_be_selected_by(&self, selector: &ModelSelector) -> bool {
        let has_selected_name = self.name.as_ref().is_none_or(|name| escape_name(name) == selector.0);
        has_selected_name || selector.key().is_some_and(|key| self.may_be(&key))
    }
}

impl fmt::Display for ModelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ModelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ModelKey {
    type Err = InvalidModel;

    fn from_str(text: &str) -> Result<Self, InvalidModel> {
        let is_hex_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let (name, checksum) = text.rsplit_once('-').ok_or(InvalidModel)?;
        let is_checksum = checksum.len() == KEY_CHECKSUM_DIGITS && checksum.bytes().all(is_hex_digit);
        if is_checksum && is_escaped_name(name) { Ok(Self::new(name, checksum)) } else { Err(InvalidModel) }
    }
}

impl FromStr for ModelSelector {
    type Err = InvalidModel;

    fn from_str(text: &str) -> Result<Self, InvalidModel> {
        match text.parse::<ModelKey>() {
            Ok(key) => Ok(Self(key.0)),
            Err(_) if is_escaped_name(text) => Ok(Self(escape_name(text))),
            Err(error) => Err(error),
        }
    }
}

/// Returns the name of a model as a [`ModelKey`] contains it.
fn escape_name(name: &str) -> String {
    name.chars().map(|c| if is_key_char(c) { c } else { '_' }).take(MAX_KEY_NAME_BYTES).collect()
}

fn is_escaped_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_PARSED_NAME_BYTES && text.chars().all(is_key_char)
}

fn is_key_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA_A: &str = "0a1b2c3d00000000000000000000000000000000000000000000000000000000";
    const SHA_B: &str = "ffffffff00000000000000000000000000000000000000000000000000000000";

    fn recorded(json: &str) -> RecordedModel {
        RecordedModel::read(json.as_bytes()).unwrap()
    }

    fn selector(text: &str) -> ModelSelector {
        text.parse().unwrap()
    }

    #[test]
    fn key_has_the_name_and_8_digits_and_can_be_part_of_an_object_name() {
        let long = "n".repeat(300);
        for (name, expected) in [
            ("flowers", "flowers-0a1b2c3d".to_owned()),
            ("mobilenet-v2_1.0", "mobilenet-v2_1.0-0a1b2c3d".to_owned()),
            ("my model/ä\\\n", "my_model____-0a1b2c3d".to_owned()),
            (long.as_str(), format!("{}-0a1b2c3d", "n".repeat(16))),
        ] {
            let key = ModelId::new(name, SHA_A).key();
            assert_eq!(key.as_str(), expected);
            assert_eq!(key.as_str().parse(), Ok(key));
        }
    }

    #[test]
    fn text_that_is_no_key_or_selector_is_refused() {
        let long = "n".repeat(65);
        for text in ["", "flowers", "-0a1b2c3d", "flowers-0A1B2C3D", "flowers-0a1b2c3", "a/b-0a1b2c3d"] {
            assert_eq!(text.parse::<ModelKey>(), Err(InvalidModel), "{text}");
        }
        for text in ["", "a b", "a%20b", "ä", "a/../b", &long, &format!("{long}-0a1b2c3d")] {
            assert_eq!(text.parse::<ModelSelector>(), Err(InvalidModel), "{text}");
        }
        assert_eq!(selector("flowers").key(), None);
        assert_eq!(selector("flowers-0a1b2c3d").key(), Some(ModelId::new("flowers", SHA_A).key()));
    }

    #[test]
    fn whole_name_of_a_model_selects_it_although_its_key_is_shorter() {
        let model = ModelId::new("efficientnet-lite0", SHA_A);
        assert_eq!(model.key().as_str(), "efficientnet-lit-0a1b2c3d");
        let record =
            recorded(&format!(r#"{{"label":"x","model":"efficientnet-lite0","model_sha256":"{SHA_A}"}}"#));
        for text in [
            "efficientnet-lite0",
            "efficientnet-lit",
            "efficientnet-lite0-0a1b2c3d",
            "efficientnet-lit-0a1b2c3d",
        ] {
            assert!(model.key().is_selected_by(&selector(text)), "{text}");
            assert!(record.may_be_selected_by(&selector(text)), "{text}");
        }
        assert_eq!("efficientnet-lite0-0a1b2c3d".parse(), Ok(model.key()));
        assert!(!model.key().is_selected_by(&selector("efficientnet-lite0-ffffffff")));
    }

    #[test]
    fn record_counts_for_each_model_from_which_it_does_not_differ() {
        let model = |name: &str, sha256: &str| ModelId::new(name, sha256).key();
        let (a, retrained, other) = (model("a", SHA_A), model("a", SHA_B), model("b", SHA_A));
        let whole = format!(r#"{{"label":"x","model":"a","model_sha256":"{SHA_A}"}}"#);
        for (json, expected) in [
            (whole.as_str(), [true, false, false]),
            (r#"{"label":"x","model":"a"}"#, [true, true, false]),
            (r#"{"label":"x","model":"a","model_sha256":null}"#, [true, true, false]),
            (r#"{"error":{"reason":"too_large","message":""}}"#, [true, true, true]),
            (r#"{"label":"x","model":1}"#, [true, true, true]),
        ] {
            assert_eq!([&a, &retrained, &other].map(|key| recorded(json).may_be(key)), expected, "{json}");
        }
        assert_eq!(RecordedModel::read(b"{}"), None);
    }

    #[test]
    fn record_is_selected_by_its_name_with_and_without_the_checksum() {
        let whole = recorded(&format!(r#"{{"label":"x","model":"a","model_sha256":"{SHA_A}"}}"#));
        let old = recorded(r#"{"label":"x","model":"a"}"#);
        let failure = recorded(r#"{"error":{"reason":"too_large","message":""}}"#);
        for (text, expected) in [
            ("a", [true, true, true]),
            ("a-0a1b2c3d", [true, true, true]),
            ("a-ffffffff", [false, true, true]),
            ("b", [false, false, true]),
            ("b-0a1b2c3d", [false, false, true]),
        ] {
            let records = [&whole, &old, &failure];
            assert_eq!(records.map(|record| record.may_be_selected_by(&selector(text))), expected, "{text}");
        }
        let key = ModelId::new("a", SHA_A).key();
        assert!(key.is_selected_by(&selector("a")) && key.is_selected_by(&selector("a-0a1b2c3d")));
        assert!(!key.is_selected_by(&selector("a-ffffffff")) && !key.is_selected_by(&selector("b")));
    }
}
