//! [`ObjectName`] is the validated name of an object.

use std::fmt;

/// The error of validating a name that is not an [`ObjectName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an object name: {0:?}")]
pub struct InvalidObjectName(pub String);

/// A validated object name, such as `<id>/image.jpg`.
///
/// The name has at most 1,024 bytes, which is the limit of Cloud Storage. It has no control character and no
/// backslash. None of the parts between its `/` is empty, `.` or `..`, so the name cannot lead out of the
/// bucket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectName(String);

impl ObjectName {
    /// Validates `name`.
    ///
    /// # Errors
    /// Returns [`InvalidObjectName`] if `name` breaks a rule.
    pub fn new(name: impl Into<String>) -> Result<Self, InvalidObjectName> {
        let name = name.into();
        let is_good_part = |part: &str| !part.is_empty() && part != "." && part != "..";
        let is_good_char = |c: char| !c.is_control() && c != '\\';
        if name.len() <= 1024 && name.split('/').all(is_good_part) && name.chars().all(is_good_char) {
            Ok(Self(name))
        } else {
            Err(InvalidObjectName(name))
        }
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn name_that_could_lead_out_of_the_bucket_is_refused() {
        let long = "x".repeat(1025);
        let bad = [
            "", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/..", "a/../b", "a/./b", "a\\b", "a\0", "a\n",
            "a\u{7f}", &long,
        ];
        for name in bad {
            assert_eq!(ObjectName::new(name), Err(InvalidObjectName(name.to_owned())));
        }
    }

    #[test]
    fn ordinary_name_is_accepted() {
        for name in ["a", "a/b.jpg", "...", "a..b", ".hidden", "ä b/ç", &"x".repeat(1024)] {
            assert_eq!(ObjectName::new(name).unwrap().as_str(), name);
        }
    }

    proptest! {
        #[test]
        fn name_stays_below_its_root(text in "[./a\\\\\0]{0,12}") {
            if let Ok(name) = ObjectName::new(text) {
                let path = std::path::Path::new("/root").join(name.as_str());
                let normal = |part| matches!(part, std::path::Component::Normal(_));
                prop_assert!(path.components().skip(1).all(normal));
                prop_assert!(path.starts_with("/root"));
            }
        }
    }
}
