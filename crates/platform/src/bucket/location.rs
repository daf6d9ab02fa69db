//! [`BucketLocation`] is the value of the setting `BUCKET`.

use std::{path::PathBuf, str::FromStr, sync::Arc};

use super::{BucketError, DiskBucket, GcsBucket, SharedBucket};
use crate::cloud::CloudArgs;

/// Location of the bucket, parsed from the setting `BUCKET`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BucketLocation {
    /// A folder on disk, written `file:PATH`.
    Disk(PathBuf),
    /// A bucket of Cloud Storage, written `NAME` or `gs://NAME`.
    CloudStorage(String),
}

impl FromStr for BucketLocation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("file:") {
            Some("") => Err("expected a folder after file:, as in file:data/bucket".to_owned()),
            Some(path) => Ok(Self::Disk(path.into())),
            None => {
                let name = text.strip_prefix("gs://").unwrap_or(text);
                let name = name.strip_suffix('/').unwrap_or(name);
                if is_bucket_name(name) {
                    Ok(Self::CloudStorage(name.to_owned()))
                } else {
                    Err("expected NAME or gs://NAME (a bucket of Cloud Storage: 3 to 222 of a-z, 0-9, -, _ \
                         and .), or file:PATH (a folder on disk)"
                        .to_owned())
                }
            }
        }
    }
}

/// Returns true if `name` has the length and the characters of a bucket name.
///
/// Cloud Storage itself checks the other rules of <https://cloud.google.com/storage/docs/buckets#naming>.
fn is_bucket_name(name: &str) -> bool {
    let allowed_at_ends = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let allowed = |b: u8| allowed_at_ends(&b) || matches!(b, b'-' | b'_' | b'.');
    (3..=222).contains(&name.len())
        && name.bytes().all(allowed)
        && name.as_bytes().first().is_some_and(allowed_at_ends)
        && name.as_bytes().last().is_some_and(allowed_at_ends)
}

impl BucketLocation {
    /// Opens the bucket.
    ///
    /// # Errors
    /// Returns [`BucketError::Unavailable`] if the folder cannot be created, if the bucket of Cloud Storage
    /// does not exist, or if no credentials are found that allow reading its objects.
    pub async fn open(&self, cloud: &CloudArgs) -> Result<SharedBucket, BucketError> {
        match self {
            Self::Disk(path) => Ok(Arc::new(DiskBucket::open(path).await?)),
            Self::CloudStorage(name) => Ok(Arc::new(GcsBucket::open(name, cloud).await?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_after_the_file_prefix_is_a_folder() {
        assert_eq!("file:data/bucket".parse(), Ok(BucketLocation::Disk("data/bucket".into())));
        assert_eq!("file:/a b".parse(), Ok(BucketLocation::Disk("/a b".into())));
    }

    #[test]
    fn bare_name_or_gs_url_is_a_cloud_storage_bucket() {
        for text in ["my-images", "gs://my-images", "gs://my-images/"] {
            assert_eq!(text.parse(), Ok(BucketLocation::CloudStorage("my-images".to_owned())), "{text}");
        }
        assert_eq!(
            "images.example.com".parse(),
            Ok(BucketLocation::CloudStorage("images.example.com".to_owned()))
        );
    }

    #[test]
    fn invalid_location_is_refused_with_the_expected_forms() {
        let too_long = "a".repeat(223);
        let invalid =
            ["", "file:", "data/bucket", "s3://bucket", "gs://", "ab", "Images", "-images", "images-"];
        for text in invalid.into_iter().chain(["gs://images/folder", "im ages", &too_long]) {
            let error = text.parse::<BucketLocation>().unwrap_err();
            assert!(error.contains("file:"), "{text:?}: {error}");
        }
    }
}
