//! `BUCKET`: which bucket a service works on.

use std::{path::PathBuf, str::FromStr, sync::Arc};

use super::{BucketError, DiskBucket, SharedBucket};

/// Where the bucket is kept, as `BUCKET` says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BucketLocation {
    /// `file:PATH`: a folder on disk.
    Disk(PathBuf),
}

impl FromStr for BucketLocation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("file:") {
            Some("") => Err("file: needs a folder, as in file:data/bucket".to_owned()),
            Some(path) => Ok(Self::Disk(path.into())),
            None => Err("expected file:PATH (a folder on disk)".to_owned()),
        }
    }
}

impl BucketLocation {
    /// Opens the bucket.
    ///
    /// # Errors
    /// [`BucketError::Unavailable`] when the folder cannot be made.
    pub async fn open(&self) -> Result<SharedBucket, BucketError> {
        match self {
            Self::Disk(path) => Ok(Arc::new(DiskBucket::open(path).await?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders() {
        assert_eq!("file:data/bucket".parse(), Ok(BucketLocation::Disk("data/bucket".into())));
        assert_eq!("file:/a b".parse(), Ok(BucketLocation::Disk("/a b".into())));
    }

    #[test]
    fn anything_else_says_what_is_expected() {
        for bad in ["", "file:", "data/bucket", "s3://bucket"] {
            let error = bad.parse::<BucketLocation>().unwrap_err();
            assert!(error.contains("file:"), "{bad:?}: {error}");
        }
    }
}
