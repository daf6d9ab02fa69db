//! The [`ImageId`] of an upload.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{IMAGE_FILE_NAME, ModelKey, record_name::record_file_name};

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

    /// Returns the object name of a record, such as `<id>/prediction.json`.
    ///
    /// [`GcsPath::record_object_name`](crate::GcsPath::record_object_name) returns the same name for the path of the
    /// image.
    pub fn record_object_name(&self, base_name: &str, key: Option<&ModelKey>) -> String {
        format!("{}/{}", self.0, record_file_name(base_name, key))
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
